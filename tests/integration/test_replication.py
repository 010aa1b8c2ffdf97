"""replication/ alone, without proxy and controller: the database side of a flip through replication.h."""
import json
import os
import subprocess
import threading
import time

import cluster
import pg
from daemon import BUILD, LIMIT, SLOW

PROGRAMS = os.path.join(BUILD, "tests")


class Failed(Exception):
    def __init__(self, line):
        _error, self.code, certainty, self.message = (line.split(" ", 3) + [""])[:4]
        self.uncertain = certainty == "uncertain"
        super().__init__(line)


class Console:
    """replication_console: one command, one answer; several may be under way."""

    def __init__(self, world, databases=1, addresses=None):
        blue, green = addresses or ("127.0.0.1:%d" % world.blue.port, "127.0.0.1:%d" % world.green.port)
        self.process = world.spawn(
            [os.path.join(PROGRAMS, "replication_console"), "--blue", blue, "--green", green, "--databases", str(databases)],
            stdin=subprocess.PIPE, stderr=open(os.path.join(world.folder, "console%d.log" % len(world.processes)), "w"))
        self.count, self.answers, self.deposed = 0, {}, False
        self.came = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            number, _, answer = line.rstrip("\n").partition(" ")
            with self.came:
                if number == "!":
                    self.deposed = True
                else:
                    self.answers[number] = answer
                self.came.notify_all()

    def start(self, command):
        self.count += 1
        self.process.stdin.write("%d %s\n" % (self.count, command))
        self.process.stdin.flush()
        return str(self.count)

    def wait(self, number, timeout=60):
        with self.came:
            assert self.came.wait_for(lambda: number in self.answers, timeout * LIMIT), "no answer to command %s" % number
            answer = self.answers.pop(number)
        if answer.startswith("ok"):
            return answer[3:]
        raise Failed(answer)

    def do(self, command, timeout=60):
        return self.wait(self.start(command), timeout)

    def fails(self, command):
        try:
            self.do(command)
        except Failed as failed:
            return failed
        raise AssertionError("%s should have failed" % command)

    def facts(self):
        """{side: {reachable, changed, databases: {name: (standing, epoch, fenced_for, aborted, last_flip, fences)}}}"""
        sides = {}
        for part in self.do("facts").split("|")[1:]:
            side, reachable, changed, *databases = part.split()
            sides[side] = {"reachable": reachable == "reachable", "changed": changed == "changed"}
            for database in databases:
                name, standing, epoch, fenced_for, aborted, last, fences = database.split(":")
                sides[side][name] = (standing, int(epoch), int(fenced_for), int(aborted), int(last), fences)
        return sides

    def sample(self):
        return json.loads(self.do("sample"))

    def until(self, holds, what, timeout=20):
        end = time.monotonic() + timeout * LIMIT
        while True:
            sample = self.sample()
            if holds(sample):
                return sample
            assert time.monotonic() < end, "%s: %s" % (what, sample)
            time.sleep(0.05)

    def healthy(self, active="blue"):
        other = "green" if active == "blue" else "blue"
        return self.until(lambda s: s["streaming"] and s["lag_us"] == 0 and not s["problem"] and s[other]["fenced"]
                          and not s[active]["fence_wrong"] and not s[active]["problem"], "a healthy stream")

    def flip(self, flip, source, epoch):
        for phase in ("probe %s 60000" % source, "fence %d %s %d 60000", "catchup %d %s %d 60000", "ready %d %s %d 60000",
                      "open %d %s %d 60000"):
            self.do(phase % (flip, source, epoch) if "%" in phase else phase)
        target = "green" if source == "blue" else "blue"
        self.do("active %s %d" % (target, epoch + 1))
        self.do("turn %d %s %d 60000" % (flip, source, epoch))

    def stop(self):
        self.do("stop")
        assert self.process.wait(60) == 0


def pair(world, databases=1, **settings):
    """Two clusters, replicating app0 from blue to green, owned by the console that is returned."""
    world.blue = world.cluster("blue", **settings)
    world.green = world.cluster("green", new=True, **settings)
    console = Console(world, databases)
    console.do("create", 120)
    console.do("own")
    console.do("active blue 1")
    console.healthy()
    return console


def rows(side, sql):
    return side.query(sql, "app0", "postgres")


def refused(side, sql, sqlstate="25006", user="app"):
    try:
        side.query(sql, "app0", user)
    except pg.PgError as error:
        assert error.sqlstate == sqlstate, error
        return
    raise AssertionError("%s went through" % sql)


# --- flips under load

def flips(world, blue_new=False, green_new=True, crash=False, arguments=(), timeout=150):
    world.blue = world.cluster("blue", blue_new)
    world.green = world.cluster("green", green_new)
    process = world.spawn(
        [os.path.join(PROGRAMS, "replication_flips"), "--blue", "127.0.0.1:%d" % world.blue.port, "--green",
         "127.0.0.1:%d" % world.green.port, *(["--crash"] if crash else []), *arguments],
        stdin=subprocess.PIPE, stderr=open(os.path.join(world.folder, "flips.log"), "w"))
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith("crash "):
            side = world.side(line.split()[1])
            side.kill()
            side.start()
            process.stdin.write("up\n")
            process.stdin.flush()
    code = process.wait(120)
    if code != 0:
        with open(os.path.join(world.folder, "flips.log")) as log:
            print(log.read()[-4000:])
    assert code == 0, "replication_flips ended with %d" % code


def test_flips_between_versions(world):
    """24 flips under load: no row lost, doubled or different, sequences equal, no error of a writer."""
    flips(world, arguments=["--flips", "24", "--pause-ms", "300"])


def test_flips_of_two_databases(world):
    flips(world, green_new=False, arguments=["--flips", "12", "--databases", "2", "--writers", "6", "--pause-ms", "300"])


def test_flips_with_crashes(world):
    """kill -9 of either side at every step, and recovery by what the sides say."""
    flips(world, crash=True, arguments=["--flips", "12", "--databases", "2", "--pause-ms", "300"])


test_flips_between_versions.timeout = test_flips_with_crashes.timeout = 300


# --- the fence

def test_fence_stands(world):
    """Writers of all kinds are refused on the standby, and on the source while it is fenced; readers are not."""
    console = pair(world)
    for write in ("insert into br values (99)", "update acc set bal = 1", "delete from tel", "truncate pad1",
                  "insert into part0 values (1, 0)", "insert into part values (1, 0)",
                  "with w as (update acc set bal = 1 returning id) select count(*) from w"):
        refused(world.green, write)
    refused(world.green, "create table sneaky (id int)")
    refused(world.green, "alter table br disable trigger all")
    refused(world.green, "drop table pad1")
    assert rows(world.green, "select count(*) from br") == [("10",)]
    console.do("fence 1 blue 1 60000")
    refused(world.blue, "insert into br values (99)")
    refused(world.blue, "create table sneaky (id int)")
    console.do("undo 1 blue 1 60000")
    world.blue.query("insert into br values (99); delete from br where id = 99", "app0", "app")
    assert console.facts()["blue"]["app0"][:5] == ("active", 1, 0, 1, 1)
    console.stop()


def test_triggers_are_restored(world):
    """ENABLE TRIGGER ALL doesn't fence the active side, DISABLE TRIGGER ALL of a migrator doesn't open the standby."""
    console = pair(world)
    world.blue.query("alter table br enable trigger all; insert into br values (99)", "app0", "app")
    world.blue.query("alter table part enable trigger all; insert into part values (0, 0)", "app0", "app")
    world.green.query("update switchback.state set migrators = '{app}'", "app0", "switchback")
    world.green.query("alter table br disable trigger all", "app0", "app")
    refused(world.green, "insert into br values (100)")
    world.green.query("create index on br (bal)", "app0", "app")
    sample = console.healthy()
    assert not sample["green"]["fence_wrong"]
    # what gets around the event trigger is seen within a second
    world.green.query("set session_replication_role = replica; alter table br disable trigger all", "app0", "switchback")
    console.until(lambda s: s["green"]["fence_wrong"], "an open fence is seen")
    console.stop()


def test_fence_ends_foreign_sessions(world):
    """Ours stay, others go, and a transaction of theirs is rolled back; a prepared one refuses the flip."""
    console = pair(world)
    ours = world.blue.connect("app0", "app")
    foreign = world.blue.connect("app0", "app")
    foreign.query("begin; create temp table mine (id int); insert into mine values (1); select pg_current_xact_id()")
    pid = ours.query("select pg_backend_pid()")[0][0]
    console.do("fence 1 blue 1 5000 %s" % pid)
    assert ours.query("select 1") == [("1",)]
    try:
        foreign.query("commit")
        raise AssertionError("the foreign session lives")
    except (pg.PgError, pg.Closed, OSError):
        pass
    console.do("undo 1 blue 1 60000")
    ours.query("begin; insert into br values (77); prepare transaction 'half'")
    failed = console.fails("fence 2 blue 1 3000 %s" % pid)
    assert "half" in failed.message and failed.code == "check_failed", failed
    console.do("undo 2 blue 1 60000")
    ours.query("rollback prepared 'half'")
    # one of ours that is not at its boundary holds the fence up to the deadline, then it is undone
    ours.query("begin; select pg_current_xact_id()")
    failed = console.fails("fence 3 blue 1 1000 %s" % pid)
    assert pid in failed.message or failed.code == "timeout", failed  # a busy machine may interrupt it before it can say who
    ours.query("rollback")
    console.do("undo 3 blue 1 60000")
    console.healthy()
    console.stop()


def test_fence_waits_for_locks_and_gives_up(world):
    """A writer's lock that doesn't go away: the deadline ends it, nothing is left behind."""
    console = pair(world)
    with world.blue.connect("app0", "app") as writer:
        writer.query("begin; insert into br values (55)")
        began = time.monotonic()
        failed = console.fails("fence 1 blue 1 700")
        assert failed.code == "timeout" and time.monotonic() - began < 20 * SLOW, failed
        console.do("undo 1 blue 1 60000")
        writer.query("insert into br values (56); commit")
    # an undo that comes while the fence still waits
    with world.blue.connect("app0", "app") as writer:
        writer.query("begin; insert into br values (57)")
        fence = console.start("fence 2 blue 1 20000")
        time.sleep(0.3)
        console.do("undo 2 blue 1 60000")
        try:
            console.wait(fence)
            raise AssertionError("the fence was aborted")
        except Failed as aborted:
            assert aborted.code == "aborted", aborted
        writer.query("commit")
    assert rows(world.blue, "select count(*) from br where id in (55, 56, 57)") == [("3",)]
    console.do("active blue 1")
    console.healthy()
    console.flip(3, "blue", 1)
    console.stop()


def test_tables_must_agree(world):
    """A table that came after prepare refuses the flip, closes the way back, and is named."""
    console = pair(world)
    world.blue.query("create table late (id int primary key)", "app0", "app")
    sample = console.until(lambda s: s["tables_differ"], "the difference is seen")
    assert "late" in sample["problem"]
    failed = console.fails("fence 1 blue 1 3000")
    assert "public.late" in failed.message and failed.code == "not_prepared", failed
    console.do("undo 1 blue 1 60000")
    for side in (world.blue, world.green):
        side.query("update switchback.state set local_tables = '{public.l*te,other}'", "app0", "switchback")
    console.do("active blue 1")
    console.healthy()
    console.do("fence 2 blue 1 60000")
    console.do("undo 2 blue 1 60000")
    # both streams at once would send every row round and round
    world.blue.query("alter subscription switchback_from_green enable", "app0", "switchback")
    assert "enabled" in console.fails("fence 4 blue 1 3000").message
    console.do("undo 4 blue 1 60000")
    world.blue.query("alter subscription switchback_from_green disable", "app0", "switchback")
    # a table that only the target has
    world.green.query("create table public.only_green (id int)", "app0", "switchback")
    failed = console.fails("fence 5 blue 1 3000")
    assert "only_green" in failed.message or "same tables" in failed.message, failed
    console.do("undo 5 blue 1 60000")
    console.stop()


# --- ownership and recovery

def test_ownership(world):
    """A second controller ends the first one's sessions and deposes it; what the first sends afterwards is refused."""
    first = pair(world)
    first.do("fence 1 blue 1 60000")
    first.do("catchup 1 blue 1 60000")
    first.do("ready 1 blue 1 60000")  # its opening transaction holds green's state row
    second = Console(world)
    second.do("own")
    assert second.facts()["blue"]["app0"][:3] == ("active", 1, 1)
    failed = first.fails("open 1 blue 1 3000")
    assert failed.code in ("stale", "unreachable"), failed
    failed = first.fails("undo 1 blue 1 3000")
    assert failed.code == "stale", failed
    assert first.deposed
    assert first.fails("own").code == "stale"
    second.do("undo 1 blue 1 60000")
    second.do("active blue 1")
    second.healthy()
    second.flip(2, "blue", 1)
    second.healthy("green")
    second.stop()
    first.stop()


def test_a_former_life_deposes_nobody(world):
    """Each side was owned while the other was away: who owns later has the higher number, though it could not read the other."""
    pair(world).stop()
    world.green.stop("immediate")
    for _ in range(3):
        former = Console(world)
        former.do("own")
        former.stop()
    world.blue.stop("immediate")
    world.green.start()
    later = Console(world)
    later.do("own")
    later.do("active blue 1")
    world.blue.start()
    later.healthy()
    assert not later.deposed
    later.stop()


def test_a_side_comes_back_without_our_number(world):
    """Ownership was taken while it was away: what must reach it waits until it has the number, and nothing calls it stale."""
    console = pair(world)
    console.do("fence 1 blue 1 60000")
    behind = "update switchback.state set owner = owner - 1"
    rows(world.blue, behind)
    console.do("undo 1 blue 1 60000")
    rows(world.blue, behind)
    time.sleep(0.6)  # a few samples
    assert console.healthy()["blue"]["problem"] == ""
    console.flip(2, "blue", 1)
    rows(world.blue, behind)
    console.do("turn 2 blue 1 60000")
    console.healthy("green")
    console.stop()


def test_restart_after_commit(world):
    """A controller that knows nothing but the facts makes ready, opens and turns; twice does no harm."""
    first = pair(world)
    world.blue.query("select nextval('sq1') from generate_series(1, 40); select setval('unused', 500, false)", "app0", "app")
    first.do("fence 1 blue 1 60000")
    first.do("catchup 1 blue 1 60000")
    first.process.kill()
    second = Console(world)
    second.do("own")
    assert second.facts()["blue"]["app0"][:3] == ("active", 1, 1)
    for _ in range(2):
        second.do("ready 1 blue 1 60000")
        second.do("open 1 blue 1 60000")
    start = rows(world.green, "select start_lsn from switchback.state")
    world.green.query("insert into br values (66)", "app0", "app")
    second.do("ready 1 blue 1 60000")
    second.do("open 1 blue 1 60000")
    assert rows(world.green, "select start_lsn from switchback.state") == start, "a second open moved the start"
    second.do("active green 2")
    for _ in range(2):
        second.do("turn 1 blue 1 60000")
    second.healthy("green")
    second.do("probe green 60000")
    assert rows(world.blue, "select id from br where id = 66") == [("66",)]
    assert rows(world.green, "select last_value, is_called from unused") == [("500", "f")]
    assert rows(world.green, "select last_value from sq1") == [("40",)]
    assert second.facts()["blue"]["app0"][:3] == ("standby", 2, 0)
    second.stop()


def test_back_to_the_source(world):
    """A target that was opened in vain: the source opens again above it, the target is fenced on contact and rejoins."""
    console = pair(world)
    console.do("fence 1 blue 1 60000")
    console.do("catchup 1 blue 1 60000")
    console.do("ready 1 blue 1 60000")
    console.do("open 1 blue 1 60000")
    console.do("reopen 1 blue 1 60000")
    console.do("contact green 3")
    assert console.facts()["green"]["app0"][:3] == ("standby", 3, 0)
    refused(world.green, "insert into br values (1000)")
    console.do("active blue 3")
    world.blue.query("insert into br values (1001)", "app0", "app")
    console.healthy()
    console.do("probe blue 60000")
    assert rows(world.green, "select id from br where id = 1001") == [("1001",)]
    console.flip(2, "blue", 3)
    console.flip(3, "green", 4)
    console.healthy("blue")
    # the same with a write that only the target has
    console.do("fence 4 blue 5 60000")
    console.do("catchup 4 blue 5 60000")
    console.do("ready 4 blue 5 60000")
    console.do("open 4 blue 5 60000")
    world.green.query("insert into br values (1002)", "app0", "app")
    console.do("reopen 4 blue 5 60000")
    console.do("contact green 7")
    assert console.facts()["green"]["app0"][0] == "diverged"
    refused(world.green, "insert into br values (1003)")
    assert console.fails("contact blue 5").code == "undecided"
    console.stop()


def test_back_from_a_target_that_died(world):
    """The target dies while it is ready: the source opens again, the target follows when it is back."""
    console = pair(world)
    console.do("fence 1 blue 1 60000")
    console.do("catchup 1 blue 1 60000")
    console.do("ready 1 blue 1 60000")
    world.green.kill()
    console.fails("open 1 blue 1 2000")
    console.do("reopen 1 blue 1 60000")
    console.do("active blue 3")
    world.blue.query("insert into br values (1001)", "app0", "app")
    world.green.start()
    console.do("contact green 3")
    assert console.facts()["green"]["app0"][:2] == ("standby", 3)
    console.healthy()
    console.flip(2, "blue", 3)
    assert rows(world.green, "select id from br where id = 1001") == [("1001",)]
    console.flip(3, "green", 4)
    console.healthy("blue")
    console.stop()


def test_back_from_a_busy_target_that_was_open(world):
    """Its opening was committed after all. What it was fed with before is no divergence, however much it is."""
    console = pair(world)
    rows(world.blue, "insert into hist (delta) select 1 from generate_series(1, 12000)")
    console.healthy()
    for phase in ("fence", "catchup", "ready", "open"):
        console.do("%s 1 blue 1 60000" % phase)
    console.do("reopen 1 blue 1 60000")
    console.do("active blue 3")
    console.do("contact green 3", 60)
    assert console.facts()["green"]["app0"][:2] == ("standby", 3), console.facts()
    console.healthy()
    console.flip(2, "blue", 3)
    console.healthy("green")
    console.stop()


# --- the sample

def test_sample_of_a_broken_stream(world):
    """A failing worker, a lagging one, a lost slot, a lost side: seen, and said in words."""
    console = pair(world, max_slot_wal_keep_size="64MB")
    # lag: the worker waits for a lock
    with world.green.connect("app0", "postgres") as locker:
        locker.query("begin; lock table br in access exclusive mode")
        world.blue.query("update br set bal = bal", "app0", "app")
        for _ in range(20):
            world.blue.query("insert into hist (delta) values (1)", "app0", "app")
        sample = console.until(lambda s: s["lag_us"] > 500000 and s["at_risk"] >= 20, "lag is seen")
        assert sample["at_risk"] <= 60, sample
        assert sample["lag_bytes"] > 0
        failed = console.fails("probe blue 300")
        assert failed.code == "timeout", failed
        locker.query("rollback")
    assert console.healthy()["at_risk"] == 0
    # a conflict stops the worker again and again
    world.green.query("set session_replication_role = replica; insert into br values (500)", "app0", "switchback")
    world.blue.query("insert into br values (500)", "app0", "app")
    console.until(lambda s: s["broken"], "a failing worker is seen")
    world.green.query("set session_replication_role = replica; delete from br where id = 500", "app0", "switchback")
    console.until(lambda s: not s["broken"] and s["lag_us"] == 0, "it recovers", 40)
    # a disabled subscription, and its slot lost
    world.green.query("alter subscription switchback_from_blue disable", "app0", "switchback")
    console.until(lambda s: s["broken"] and not s["streaming"], "a disabled subscription is seen")
    for _ in range(10):
        world.blue.query("create table junk as select repeat('x', 1000) from generate_series(1, 20000); drop table junk; select pg_switch_wal()", "app0", "app")
    world.blue.query("checkpoint", "app0")
    console.until(lambda s: s["slot_lost"], "a lost slot is seen")
    console.stop()


def test_sample_of_lost_sides(world):
    console = pair(world)
    world.green.kill()
    sample = console.until(lambda s: not s["green"]["reachable"], "a dead standby is seen", 5)
    assert sample["problem"] and sample["green"]["problem"]
    world.green.start()
    console.healthy()
    world.green.pause()  # hangs: nothing answers, connections stay
    console.until(lambda s: not s["green"]["reachable"], "a hanging standby is seen", 5)
    assert console.fails("probe blue 500").code in ("timeout", "unreachable")
    world.green.resume()
    console.healthy()
    world.blue.kill()
    console.until(lambda s: not s["blue"]["reachable"] and s["blue"]["unreachable_us"] > 500000, "a dead active side is seen", 5)
    facts = console.facts()
    assert not facts["blue"]["reachable"] and facts["green"]["reachable"]
    world.blue.start()
    console.healthy()
    console.stop()


def test_owned_on_contact(world):
    """A side that was away when ownership was taken gets our number when it is back."""
    first = pair(world)
    first.stop()
    world.green.stop("immediate")
    second = Console(world)
    second.do("own")
    second.do("active blue 1")
    world.green.start()
    second.healthy()
    second.flip(1, "blue", 1)
    second.healthy("green")
    second.stop()


def test_idle_slot_moves(world):
    """The slot that feeds nobody lets go of the standby's WAL, and the way back still works."""
    console = pair(world)
    held = "select confirmed_flush_lsn from pg_replication_slots where slot_name like '%to_blue'"
    before = rows(world.green, held)
    world.blue.query("insert into hist (delta) select 1 from generate_series(1, 20000)", "app0", "app")
    end = time.monotonic() + 40 * LIMIT
    while rows(world.green, held) == before:
        assert time.monotonic() < end, "the idle slot stays at %s" % before
        time.sleep(0.2)
    assert "starting logical decoding" not in world.green.log_text(), "the server's log fills"
    console.flip(1, "blue", 1)
    world.green.query("insert into br values (800)", "app0", "app")
    console.do("probe green 60000")
    assert rows(world.blue, "select id from br where id = 800") == [("800",)]
    assert rows(world.blue, "select count(*) from hist") == rows(world.green, "select count(*) from hist")
    console.stop()


# --- the engine

def test_stop_in_the_middle(world):
    """Whatever is under way is answered, and nothing is left behind."""
    console = pair(world)
    with world.blue.connect("app0", "app") as writer:
        writer.query("begin; insert into br values (55)")
        fence = console.start("fence 1 blue 1 20000")
        query = console.start("query blue app0 20000 select pg_sleep(20)")
        world.green.pause()
        probe = console.start("probe blue 20000")
        time.sleep(0.3)
        console.stop()
        for number in fence, query, probe:
            try:
                console.wait(number)
                raise AssertionError("it was aborted")
            except Failed as failed:
                assert failed.code == "aborted", failed
    world.green.resume()


def test_hosts(world):
    """Names are resolved, socket directories used, and what can't be reached says why."""
    sockets = os.path.join(world.folder, "sockets")
    os.mkdir(sockets)
    cluster.own(sockets)
    world.blue = world.cluster("blue", unix_socket_directories=sockets)
    world.green = world.cluster("green")
    named = Console(world, addresses=("localhost:%d" % world.blue.port, "nowhere.invalid:%d" % world.green.port))
    facts = named.facts()
    assert facts["blue"]["reachable"] and not facts["green"]["reachable"]
    named.until(lambda s: "nowhere.invalid" in s["green"]["problem"], "the reason is said")
    named.stop()
    socket = Console(world, addresses=("%s:%d" % (sockets, world.blue.port), "127.0.0.1:1"))
    facts = socket.facts()
    assert facts["blue"]["reachable"] and not facts["green"]["reachable"]
    assert facts["blue"]["app0"][0] == "none"
    socket.until(lambda s: "refused" in s["green"]["problem"], "the reason is said")
    socket.stop()
    lost = Console(world, addresses=("127.0.0.1:1", "127.0.0.1:1"))
    assert lost.fails("facts").code == "unreachable"
    assert lost.fails("own").code == "unreachable"
    assert lost.fails("role blue app").code == "unreachable"
    lost.stop()


# --- questions

def test_questions(world):
    console = pair(world)
    world.blue.query("create role timid login password 'x'; create role past login password 'x' valid until '2020-01-01';"
                     " create role \"we'ird\\\" nologin", "app0")
    assert console.do("role blue timid") == "found login SCRAM-SHA-256$"
    assert console.do("role blue past") == "found login none"
    assert console.do("role blue we'ird\\") == "found nologin none"
    assert console.do("role blue nobody") == "missing nologin none"
    assert console.do("query blue app0 1000 select count(*) from br") == "10"
    assert console.do("query blue app0 1000 select null") == "NULL"
    assert console.do("query blue app0 1000 select 1 where false") == "NULL"
    assert console.fails("query blue app0 1000 insert into br values (7) returning 1").code == "sql"
    assert console.fails("query blue app0 1000 select 1; select 2").code == "sql"
    assert console.fails("query blue app0 1000 copy br to stdout").code in ("unreachable", "sql")
    assert console.do("query blue app0 1000 select 1") == "1"
    began = time.monotonic()
    assert console.fails("query blue app0 300 select pg_sleep(30)").code == "timeout"
    assert time.monotonic() - began < 20 * SLOW
    assert console.fails("query blue nowhere 300 select 1").code == "usage"
    world.blue.query("create type public.mood as enum ('sad', 'glad'); create domain public.moods as public.mood[];"
                     " create type public.span as range (subtype = public.mood)", "app0", "switchback")

    def types():
        return dict(word.split("=") for word in console.do("types app0").split()[1:])

    def oid(name, side=None):
        return rows(side or world.blue, "select '%s'::regtype::oid" % name)[0][0]

    found = types()
    assert found["public.mood"] == "b:%s/0:0/0" % oid("public.mood"), found
    assert found["public.mood[]"] == "a:%s/0:%s/0" % (oid("public.mood[]"), oid("public.mood")), found
    assert found["public.moods"] == "d:%s/0:%s/0" % (oid("public.moods"), oid("public.mood[]")), found
    assert found["public.span"] == "r:%s/0:%s/0" % (oid("public.span"), oid("public.mood")), found
    assert found["public.span_multirange" if "public.span_multirange" in found else "public.multirange_span"].startswith("m:"), found
    world.green.query("create type public.mood as enum ('sad', 'glad')", "app0", "switchback")
    assert types()["public.mood"] == "b:%s/%s:0/0" % (oid("public.mood"), oid("public.mood", world.green))
    console.stop()
