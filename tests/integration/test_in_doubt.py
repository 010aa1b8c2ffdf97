"""COMMITs whose server goes before it has answered: the client is told what became of them where that can be known, and
08007 where it can't; never what isn't so.

`slow` has a deferred trigger that sleeps, so a COMMIT can be caught before it is one; a forwarder between the daemon and
blue keeps answers back, so it can be caught after."""
import itertools
import os
import signal
import threading
import time

import pg
from daemon import LIMIT, SLOW
from network import Forwarder
from test_lossless import LOSSLESS, cut_over

SCHEMA = """
create table note (id int primary key, text text);
create table slow (id int primary key, seconds float8);
create function sleeps() returns trigger language plpgsql as 'begin perform pg_sleep(new.seconds); return null; end';
create constraint trigger sleeps after insert on slow deferrable initially deferred for each row execute function sleeps();
"""
LONG = 600


class Scene:
    def __init__(self, world, pair=None, **settings):
        self.world = world
        world.pair(**(pair or {}))
        world.psql(world.blue, ["-q", "-c", SCHEMA], check=True)
        self.net = Forwarder(world, {"blue": world.blue.port})
        blue = {"port": self.net.ports["blue"], "replication": {"host": "127.0.0.1", "port": world.blue.port}}
        self.d = world.daemon(**dict({"sides": {"blue": blue}, "timeouts": {"in_doubt": "60s"}}, **settings))
        self.d.prepare()
        self.d.wait_steady("blue")

    def begin(self, key, seconds=0, **params):
        """A session with a transaction that has written, and whose COMMIT takes so long."""
        session = self.world.connect(**params)
        session.query("begin")
        session.query("insert into note values (%d, 'in doubt')" % key)
        session.query("insert into slow values (%d, %f)" % (key, seconds))
        return session

    def wait(self, what, sql, want):
        end = time.monotonic() + 60 * LIMIT
        while self.world.blue.value(sql) != want:
            assert time.monotonic() < end, what
            time.sleep(0.02)

    def wait_sleeping(self, count=1):
        self.wait("the COMMIT does not run", "select count(*)::text from pg_stat_activity where usename = 'app'"
                  " and wait_event = 'PgSleep'", str(count))

    def wait_written(self, key):
        self.wait("it was never committed", "select count(*)::text from note where id = %d" % key, "1")

    def crash(self):
        self.world.blue.kill()
        self.world.blue.start()

    def has(self, key):
        return self.world.blue.value("select text from note where id = %d" % key) is not None

    def count(self, name, value, **labels):
        """A figure of /metrics comes to that, within the second that it may be old."""
        self.d.until(lambda: self.d.metric("switchback_" + name, **labels) == value, what="%s %r" % (name, value))

    def doubts(self, outcome, value):
        self.count("commits_in_doubt_total", value, outcome=outcome)


def answer(session, timeout=90):
    """What the client got: the CommandComplete's tag or None, and the SQLSTATE that ended the session or None."""
    session.socket.settimeout(timeout * LIMIT)
    tag = state = None
    replies = []
    try:
        while state is None:
            kind, body = session.receive()
            replies.append(kind)
            if kind == "C":
                tag = body[:-1].decode()
            elif kind == "E":
                state = pg.fields(body)["C"]
    except (pg.Closed, OSError):
        pass
    return tag, state, "".join(replies)


def test_committed(world):
    """The server lives, and the answer is lost on the way."""
    scene = Scene(world)
    session = scene.begin(1, 2 * SLOW)
    session.send(pg.query("COMMIT;"))
    scene.wait_sleeping()
    scene.net.say("stall", "blue", "down")
    scene.wait_written(1)
    scene.net.say("reset", "blue")
    scene.net.say("pass", "blue")
    assert answer(session) == ("COMMIT", "08006", "CZE")
    scene.doubts("committed", 1)

    # it is waited for while it is under way
    session = scene.begin(2, 2 * SLOW)
    session.send(pg.query("end"))
    scene.wait_sleeping()
    scene.net.say("reset", "blue")
    assert answer(session) == ("COMMIT", "08006", "CZE") and scene.has(2)


def test_committed_before_a_crash(world):
    """All the ways in which drivers commit."""
    scene = Scene(world)
    ways = {1: [pg.query(" commit work ")],
            2: [pg.parse("", "COMMIT"), pg.bind("", ""), pg.describe("P", ""), pg.execute(), pg.SYNC],
            3: [pg.bind("", "done"), pg.execute(), pg.SYNC],
            4: [pg.parse("", "END TRANSACTION"), pg.bind("", ""), pg.execute(), pg.SYNC, pg.query("select 1")]}
    sessions = {}
    for key in ways:
        sessions[key] = world.connect()
        sessions[key].prepare("done", "commit")
        sessions[key].query("begin")
        sessions[key].extended("insert into note values ($1, 'in doubt')", (key,))
        sessions[key].query("insert into slow values (%d, %f)" % (key, 3 * SLOW))
    for key, messages in ways.items():
        sessions[key].send(*messages)
    scene.wait_sleeping(len(ways))
    scene.net.say("stall", "blue", "down")
    for key in ways:
        scene.wait_written(key)
    scene.crash()
    scene.net.say("reset", "blue")
    scene.net.say("pass", "blue")
    assert answer(sessions[1]) == ("COMMIT", "08006", "CZE")
    assert answer(sessions[2]) == ("COMMIT", "08006", "12nCZE")
    assert answer(sessions[3]) == ("COMMIT", "08006", "2CZE")
    assert answer(sessions[4]) == ("COMMIT", "08007", "12CZE"), "what came behind it is in doubt itself"
    for key in ways:
        assert scene.has(key)


def test_rolled_back(world):
    scene = Scene(world)
    session = scene.begin(1, LONG)
    busy = scene.begin(2)
    idle = scene.begin(3)
    session.send(pg.query("commit"))
    busy.send(pg.query("select pg_sleep(%d)" % LONG))
    scene.wait_sleeping(2)
    os.kill(session.pid, signal.SIGKILL)  # the others' backends go by the postmaster's word
    assert answer(session)[:2] == (None, "08006")
    assert answer(busy)[:2] == (None, "08006")
    assert answer(idle)[:2] == (None, "08006")
    scene.d.wait_status(lambda status: status["sides"]["blue"]["reachable"])
    session = scene.begin(4, LONG)
    session.send(pg.query("commit"))
    scene.wait_sleeping()
    scene.crash()
    assert answer(session)[:2] == (None, "08006")
    assert not any(scene.has(key) for key in (1, 2, 3, 4))
    scene.doubts("rolled_back", 2)
    scene.doubts("unknown", 0)


def test_unknown(world):
    """What nobody can know, or may not ask."""
    scene = Scene(world)
    alone = world.connect()
    alone.send(pg.query("insert into slow values (1, %d)" % LONG))
    several = world.connect()
    several.send(pg.query("begin; insert into slow values (2, %d); commit" % LONG))
    unwritten = world.connect()
    unwritten.query("begin")
    unwritten.query("declare c cursor for select pg_sleep(%d)" % LONG)
    unwritten.send(pg.query("fetch c; commit"))
    world.blue.query("revoke execute on function pg_current_xact_id_if_assigned() from public")
    mute = scene.begin(3, LONG)
    mute.send(pg.query("commit"))
    scene.wait_sleeping(4)
    scene.crash()
    for session in (alone, several, unwritten, mute):
        assert answer(session)[:2] == (None, "08007")
    allowed = scene.begin(5)
    allowed.query("commit")
    assert scene.has(5)
    scene.d.write(timeouts={"in_doubt": "0s"})
    scene.d.verb("reload")
    session = scene.begin(4, LONG)
    session.send(pg.query("commit"))
    scene.wait_sleeping()
    scene.crash()
    assert answer(session)[:2] == (None, "08007")


def test_side_stays_away(world):
    """The wait is bounded; so is it when the daemon stops."""
    scene = Scene(world, timeouts={"in_doubt": "1s"})
    session = scene.begin(1, LONG)
    session.send(pg.query("commit"))
    scene.wait_sleeping()
    world.blue.kill()
    assert answer(session)[:2] == (None, "08007")
    world.blue.start()
    scene.d.write(timeouts={"in_doubt": "600s"})
    scene.d.verb("reload")
    scene.d.wait_status(lambda status: status["sides"]["blue"]["reachable"])
    session = scene.begin(2, LONG)
    session.send(pg.query("commit"))
    scene.wait_sleeping()
    world.blue.kill()
    scene.d.stop()
    assert answer(session)[:2] == (None, "08007")


def test_id_of_another_transaction(world):
    """A crash takes ids back that were on no disk: who has one of them afterwards is somebody else. That is known as long
    as the last checkpoint is the one of the recovery."""
    scene = Scene(world, pair={"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "autovacuum": "off"})

    def crashed(key):
        """A session whose COMMIT was under way in a crash, and the id of its transaction; None if that was on disk."""
        world.blue.query("checkpoint")
        stopped = world.blue.query("select pid from pg_stat_activity where usename = 'switchback' or backend_type = 'walwriter'")
        session = world.connect()
        session.query("begin")
        for pid, in stopped:
            os.kill(int(pid), signal.SIGSTOP)  # they would write the ids to disk
        session.query("insert into note values (%d, 'in doubt')" % key)
        session.query("insert into slow values (%d, %d)" % (key, LONG))
        lost = int(session.value("select pg_current_xact_id()"))
        session.send(pg.query("commit"))
        time.sleep(0.2)
        scene.net.say("refuse", "blue")
        world.blue.kill()
        world.blue.start()
        taken = 0
        while taken < lost:
            taken = int(world.blue.value("select pg_current_xact_id()"))
        if taken == lost:
            return session, lost
        scene.net.say("pass", "blue")  # others write, too
        answer(session)
        scene.d.wait_status(lambda status: status["sides"]["blue"]["reachable"])
        return None

    keys = itertools.count(1)
    for restarted in (False, True):
        for _ in range(10):
            key = next(keys)
            found = crashed(key)
            if found:
                break
        assert found, "the ids were on disk again and again"
        session, lost = found
        assert world.blue.value("select pg_xact_status('%d')" % lost) == "committed"
        if restarted:
            world.blue.stop()
            world.blue.start()
        scene.net.say("pass", "blue")
        assert answer(session)[:2] == (None, "08007" if restarted else "08006")
        assert not scene.has(key)
        scene.d.wait_status(lambda status: status["sides"]["blue"]["reachable"])


def test_unconfirmed(world):
    """A wait for the other side that is cancelled acknowledges the commit all the same: it is counted. One that is ended
    isn't acknowledged."""
    scene = Scene(world)
    session = world.connect()
    session.query("insert into note values (1, 'confirmed')")
    scene.count("commits_unconfirmed_total", 0)
    world.blue.query("alter database app set synchronous_commit = local")
    world.blue.query("alter system set synchronous_standby_names = 'nobody'")
    world.blue.query("select pg_reload_conf()")
    waits = "select count(*)::text from pg_stat_activity where usename = 'app' and wait_event = 'SyncRep'"
    for action, outcome in (("pg_cancel_backend", ("COMMIT", None)), ("pg_terminate_backend", (None, "08007"))):
        session = world.connect()
        session.query("set synchronous_commit to on")
        session.query("begin")
        session.query("insert into note values (%d, 'x') on conflict (id) do update set text = 'y'" % len(action))
        session.send(pg.query("commit"))
        scene.wait("it doesn't wait", waits, "1")
        world.blue.query("select %s(%d)" % (action, session.pid))
        if outcome[0]:
            session.results()
            assert session.tags == ["COMMIT"] and session.notices[-1]["R"] == "SyncRepWaitForLSN"
        else:
            assert answer(session)[:2] == outcome
        assert scene.has(len(action))
    scene.count("commits_unconfirmed_total", 2)
    world.blue.query("alter system reset synchronous_standby_names")
    world.blue.query("select pg_reload_conf()")


def test_unsynchronous(world):
    """Sessions that ask for commits which nobody confirms are counted, and what they commit."""
    scene = Scene(world)

    def counted(sessions, commits):
        scene.count("sessions_unsynchronous", sessions)
        scene.count("commits_unsynchronous_total", commits)

    session = world.connect()
    session.query("select 1")
    counted(0, 0)
    session.query("set synchronous_commit = off")
    session.query("insert into note values (1, 'x')")
    counted(1, 2)
    session.query("begin")
    session.query("insert into note values (2, 'x')")
    counted(1, 2)
    session.query("commit")
    counted(1, 3)
    session.query("discard all")
    counted(0, 3)
    session.query("begin; set local synchronous_commit to local; insert into note values (3, 'x'); commit")
    session.query("select 1")
    counted(0, 4)
    started = world.connect(options="-c synchronous_commit=remote_write")
    started.query("select 1")
    counted(1, 5)
    started.close()
    session.query("set synchronous_commit = remote_apply")
    session.query("select 1")
    counted(0, 5)


def knock(world, told, **params):
    """A thread that logs in through the daemon, once, however long that takes, and writes."""
    def work():
        begin = time.monotonic()
        try:
            client = world.connect(timeout=90 * LIMIT, **params)
            client.query("insert into note values (1000, 'x') on conflict (id) do nothing")
            told.append(("served", time.monotonic() - begin))
        except (OSError, pg.PgError, pg.Closed) as error:
            told.append((getattr(error, "sqlstate", repr(error)), time.monotonic() - begin))
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_takeover(world):
    """The active side hangs, connections and all, and is taken over from: sessions that have their server there end at
    once, with what is true of them; who logs in meanwhile waits, and is served by the other side."""
    world.pair(fsync="on")
    world.psql(world.blue, ["-q", "-c", SCHEMA], check=True)
    d = world.daemon(flip=LOSSLESS, watch={"duration": "30m"}, auth={"method": "scram-sha-256"},
                     timeouts={"in_doubt": "60s", "login": "120s", "server_connect": "120s"})
    d.prepare()
    d.wait_steady("blue")
    cut_over(d)
    sessions = {}
    for name in ("idle", "open", "busy", "alone", "commit"):
        sessions[name] = session = world.connect(password="secret")
        if name in ("open", "busy", "commit"):
            session.query("begin")
            session.query("insert into note values (%d, 'lost')" % len(sessions))
    sessions["busy"].send(pg.query("select pg_sleep(%d)" % LONG))
    sessions["alone"].send(pg.query("insert into slow values (8, %d)" % LONG))
    sessions["commit"].query("insert into slow values (9, %d)" % LONG)
    sessions["commit"].send(pg.query("commit"))
    end = time.monotonic() + 60 * LIMIT
    while world.green.value("select count(*) from pg_stat_activity where usename = 'app' and wait_event = 'PgSleep'") != "3":
        assert time.monotonic() < end, "they don't run"
        time.sleep(0.02)
    world.green.pause()
    told, knocking = [], []
    while d.verb("status").json["active"] == "green":
        if len(knocking) < 20:
            knocking.append(knock(world, told, password="secret"))
        time.sleep(0.1)
    for thread in knocking:
        thread.join()
    assert {what for what, _ in told} <= {"served", "57P03"} and ("served" in {what for what, _ in told}), told
    print("logins meanwhile: %s" % sorted((what, round(seconds, 1)) for what, seconds in told))
    assert answer(sessions["idle"])[:2] == (None, "57P01")
    assert answer(sessions["open"])[:2] == (None, "57P01")
    assert answer(sessions["busy"])[:2] == (None, "57P01")
    assert answer(sessions["alone"])[:2] == (None, "08007")
    assert answer(sessions["commit"])[:2] == (None, "08007")
    assert world.blue.query("select id from note") == [("1000",)]
    world.green.resume()
    d.wait_status(lambda s: s["sides"]["green"]["standing"] in ("diverged", "standby"), what="green is fenced")
    client = world.connect(password="secret")
    client.query("insert into note values (1001, 'y')")
    assert world.blue.value("select text from note where id = 1001") == "y"


test_takeover.timeout = 300


def test_promised(world):
    """A commit that waits for the other side when its server crashes is acknowledged once that has it, not before."""
    world.pair(fsync="on")
    world.psql(world.blue, ["-q", "-c", SCHEMA], check=True)
    d = world.daemon(flip=dict(LOSSLESS, dead_after="60s", lossless_max_wait="120s"), watch={"duration": "30m"},
                     timeouts={"in_doubt": "120s"})
    d.prepare()
    d.wait_steady("blue")
    cut_over(d)
    worker = int(world.blue.value("select pid from pg_stat_subscription where pid is not null"))
    session = world.connect()
    session.query("begin")
    session.query("insert into note values (1, 'promised')")
    os.kill(worker, signal.SIGSTOP)
    try:
        session.send(pg.query("commit"))
        end = time.monotonic() + 60 * LIMIT
        while world.green.value("select wait_event from pg_stat_activity where pid = %d" % session.pid) != "SyncRep":
            assert time.monotonic() < end, "it does not wait"
            time.sleep(0.02)
        os.kill(session.pid, signal.SIGKILL)
        d.until(lambda: "is back" in d.log_text(), what="green is back")
        world.green.wait_ready()
        assert world.green.value("select text from note where id = 1") == "promised"
        assert world.blue.value("select text from note where id = 1") is None
        assert not session.readable(1), "told before the other side had it"
    finally:
        os.kill(worker, signal.SIGCONT)
    assert answer(session) == ("COMMIT", "08006", "CZE")
    assert world.blue.value("select text from note where id = 1") == "promised"


def test_many(world):
    """Hundreds of COMMITs in a crash: each client is told what is so."""
    scene = Scene(world, pair={"max_connections": "400"})
    told = {}

    def work(session, key):
        session.send(pg.query("commit"))
        told[key] = answer(session)[:2]

    threads = []
    for key in range(150):
        session = scene.begin(key)
        threads.append(threading.Thread(target=work, args=(session, key)))
    for index, thread in enumerate(threads):
        thread.start()
        if index == 75:
            world.blue.kill()
    world.blue.start()
    for thread in threads:
        thread.join()
    there = {int(key) for key, in world.blue.query("select id from note")}
    for key, (tag, state) in told.items():
        assert tag != "COMMIT" or key in there, key
        assert tag == "COMMIT" or state != "08006" or key not in there, key
    assert len(told) == 150
    print("acknowledged %d, rolled back %d, unknown %d" % tuple(
        sum(1 for tag, state in told.values() if want(tag, state)) for want in (
            lambda tag, _: tag, lambda tag, state: not tag and state == "08006", lambda _, state: state == "08007")))
