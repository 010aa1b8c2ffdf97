"""The promise on real clusters: what is acknowledged on the active side has been confirmed by the other."""
import os
import signal
import threading
import time

import pg
from test_replication import Console, pair, refused, rows


def names(side):
    return rows(side, "show synchronous_standby_names")[0][0]


def test_names_follow_the_promise(world):
    console = pair(world, databases=2)
    console.do("names blue 1 on 60000")
    said = names(world.blue)
    assert said.startswith("FIRST 2 (switchback_app0_") and said.count("_to_green") == 2, said
    assert names(world.green) == ""

    # again without a change, and turned round: a standby's names are always empty
    console.do("names blue 1 on 60000")
    assert console.fails("names green 1 on 5000").code == "stale"
    assert console.fails("names blue 2 on 5000").code == "stale"
    assert names(world.blue) == said
    rows(world.green, "alter system set synchronous_standby_names = 'FIRST 1 (switchback_left_behind)'")
    console.do("names blue 1 on 60000")
    assert names(world.green) == ""

    # what was written and never loaded would be in force after a restart
    console.do("names blue 1 off 60000")
    assert names(world.blue) == ""
    rows(world.blue, "alter system set synchronous_standby_names = '%s'" % said)
    console.do("names blue 1 off 60000")
    assert rows(world.blue, "select count(*) from pg_file_settings where name = 'synchronous_standby_names'") == [("0",)]

    # another use is named, and left alone
    rows(world.blue, "alter system set synchronous_standby_names = 'somebody'")
    rows(world.blue, "select pg_reload_conf()")
    failed = console.fails("names blue 1 on 5000")
    assert failed.code == "check_failed" and "somebody" in failed.message, failed
    console.do("names blue 1 off 60000")
    assert names(world.blue) == "somebody"
    rows(world.blue, "alter system reset synchronous_standby_names")
    rows(world.blue, "select pg_reload_conf()")

    # a standby that is gone keeps nobody from anything
    world.green.stop("immediate")
    console.do("names blue 1 off 60000")
    console.do("names blue 1 on 60000")
    console.do("names blue 1 off 60000")
    console.stop()


def lossless_turn(console, flip, source, epoch):
    for phase in ("fence", "catchup", "ready", "open"):
        console.do("%s %d %s %d 60000" % (phase, flip, source, epoch))
    console.do("active %s %d" % ("green" if source == "blue" else "blue", epoch + 1))
    console.do("promise-turn %d %s %d 60000" % (flip, source, epoch))


def test_promise_of_a_turn(world):
    console = pair(world, databases=2)
    lossless_turn(console, 1, "blue", 1)
    assert names(world.green).startswith("FIRST 2 (") and names(world.blue) == ""
    assert {row[0] for row in rows(world.blue, "select subsynccommit from pg_subscription where subenabled")} == {"local"}
    states = rows(world.green, "select sync_state from pg_stat_replication where application_name like '%to_blue'")
    assert states == [("sync",), ("sync",)], states

    # again, with a stream that runs: each probe returns within milliseconds and is seen all the same
    console.do("promise-turn 1 blue 1 60000")
    console.do("promise green 60000")
    console.healthy("green")

    console.until(lambda s: s["synchronous"], "a synchronous stream")
    rows(world.blue, "alter system set synchronous_standby_names = 'FIRST 1 (switchback_left_behind)'")
    rows(world.blue, "select pg_reload_conf()")
    console.until(lambda s: s["blue"]["names_wrong"] and "names" in s["blue"]["problem"], "names on a standby")
    console.do("promise green 60000")
    console.until(lambda s: s["synchronous"] and not s["blue"]["names_wrong"], "no names on a standby")

    # a flip-back takes names along: empty on the standby, always
    console.do("names green 2 off 60000")
    assert names(world.green) == ""
    console.until(lambda s: not s["synchronous"], "an asynchronous stream")
    console.do("promise green 60000")
    console.flip(2, "green", 2)
    assert names(world.green) == "" and names(world.blue) == ""
    console.stop()


def test_promise_of_a_turn_that_fails(world):
    """The old source doesn't answer: commits on the new one must not wait for it."""
    console = pair(world)
    for phase in ("fence", "catchup", "ready", "open"):
        console.do("%s 1 blue 1 60000" % phase)
    console.do("active green 2")
    # its apply worker can't write: the probe of the turn waits in vain
    holder = world.blue.connect("app0", "postgres")
    holder.query("begin")
    holder.query("lock table switchback.marker in exclusive mode")
    failed = console.fails("promise-turn 1 blue 1 3000")
    assert failed.code == "timeout" and "has not confirmed a commit" in failed.message, failed
    assert names(world.green) == ""
    assert rows(world.green, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == [("0",)]
    holder.query("rollback")
    console.do("promise-turn 1 blue 1 60000")
    assert names(world.green).startswith("FIRST 1 (")
    console.stop()


class Writers:
    """Clients of one side that insert a row each, and know which were acknowledged."""

    def __init__(self, side, count):
        self.side, self.stopping, self.acknowledged, self.lock = side, False, set(), threading.Lock()
        self.threads = [threading.Thread(target=self._write, args=(index,), daemon=True) for index in range(count)]
        for thread in self.threads:
            thread.start()

    def _write(self, index):
        connection = self.side.connect("app0", "app")
        tag = index * 1000000 + 1
        try:
            while not self.stopping:
                connection.query("insert into hist (tag, aid, delta) values (%d, 1, nextval('odd'))" % tag)
                with self.lock:
                    self.acknowledged.add(tag)
                tag += 1
        except (OSError, pg.Closed, pg.PgError):
            return

    def wait_for(self, count):
        end = time.monotonic() + 180
        while len(self.acknowledged) < count:
            assert time.monotonic() < end, len(self.acknowledged)
            time.sleep(0.01)

    def join(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(180)
            assert not thread.is_alive()


def promised(world, databases=1):
    """A pair whose green side is active and promises."""
    console = pair(world, databases)
    lossless_turn(console, 1, "blue", 1)
    console.healthy("green")
    return console


def take_over(console, flip, source, epoch):
    target = "green" if source == "blue" else "blue"
    for phase in ("cut-off", "ready-alone", "open"):
        console.do("%s %d %s %d 60000" % (phase, flip, source, epoch))
    console.do("active %s %d" % (target, epoch + 1))


def test_turn_fails_once(world):
    """A lock on the old source's subscription: the turn fails in the middle of a transaction, and works when asked again."""
    console = pair(world)
    for phase in ("fence", "catchup", "ready", "open"):
        console.do("%s 1 blue 1 60000" % phase)
    console.do("active green 2")
    for turn in ("turn", "promise-turn"):
        holder = world.blue.connect("app0", "postgres")
        holder.query("begin")
        holder.query("lock table switchback.state in exclusive mode" if turn == "turn"
                     else "lock table pg_subscription in access exclusive mode")
        failed = console.fails("%s 1 blue 1 1500" % turn)
        assert failed.code == "timeout", failed
        again = console.start("%s 1 blue 1 60000" % turn)
        holder.query("rollback")
        console.wait(again)
        holder.close()
    console.healthy("green")
    console.do("names green 2 off 60000")
    console.stop()


def test_takeover_loses_nothing(world):
    """kill -9 of the active side under load: each acknowledged row is on the side that takes over, and its sequences give
    out nothing twice."""
    console = promised(world)
    writers = Writers(world.green, 4)
    writers.wait_for(400)
    world.green.kill()
    writers.join()
    take_over(console, 2, "green", 2)
    there = {int(row[0]) for row in rows(world.blue, "select tag from hist")}
    lost = writers.acknowledged - there
    assert not lost, "%d of %d acknowledged are lost: %s" % (len(lost), len(writers.acknowledged), sorted(lost)[:5])
    taken = {int(row[0]) for row in rows(world.blue, "select id from hist union all select delta from hist")}
    fresh = [int(row[0]) for row in rows(world.blue, "insert into hist (tag, aid, delta) select 9000000000 + g, 1, nextval('odd') "
                                         "from generate_series(1, 10) g returning id")]
    assert not taken & set(fresh)
    odd = [int(row[0]) for row in rows(world.blue, "select delta from hist where tag >= 9000000000")]
    assert max(odd) < min(int(row[0]) for row in rows(world.blue, "select delta from hist where tag < 9000000000")), odd
    # not a number that was never given out is counted as given: 'unused' stood at 77, not called
    assert 77 <= int(rows(world.blue, "select nextval('unused')")[0][0]) < 77 + 2000
    facts = console.facts()
    assert facts["blue"]["app0"][:2] == ("active", 3) and not facts["green"]["reachable"], facts
    console.stop()


def test_worker_that_was_being_started(world):
    """The active side is dead, its subscriber starts again and again: one that began while it was cut off is no reason not to
    take over."""
    console = promised(world)
    rows(world.green, "insert into hist (tag, aid, delta) values (1, 1, 1)")
    worker = int(rows(world.blue, "select pid from pg_stat_subscription where pid is not null")[0][0])
    os.kill(worker, signal.SIGSTOP)
    try:
        world.blue.query("alter subscription switchback_from_green disable", "app0", "switchback")
        ready = console.start("ready-alone 2 green 2 60000")
        end = time.monotonic() + 180
        while rows(world.blue, "select count(*) from pg_stat_activity where query like '%make_ready_alone%' and state = 'active'"
                               " and pid <> pg_backend_pid()") == [("0",)]:
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.1)
    finally:
        os.kill(worker, signal.SIGCONT)
    console.wait(ready)
    console.do("open 2 green 2 60000")
    console.do("active blue 3")
    assert console.facts()["blue"]["app0"][:2] == ("active", 3)
    console.stop()


def test_cut_off_side_acknowledges_nothing(world):
    """The active side lives on, cut off from us and the other: its clients wait, and are never told that they committed."""
    console = promised(world)
    rows(world.green, "insert into hist (tag, aid, delta) values (7000000000, 1, 1)")
    console.do("cut-off 2 green 2 60000")
    writers = Writers(world.green, 3)
    end = time.monotonic() + 180
    while rows(world.green, "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and usename = 'app'") != [("3",)]:
        assert time.monotonic() < end
        time.sleep(0.02)
    for phase in ("ready-alone", "open"):
        console.do("%s 2 green 2 60000" % phase)
    console.do("active blue 3")
    console.do("names blue 3 off 60000")  # as the daemon does then: whoever waits on green must go on waiting
    assert "switchback" in names(world.green)

    console.do("contact green 3", 90)
    writers.join()
    assert not writers.acknowledged, writers.acknowledged
    assert names(world.green) == ""
    refused(world.green, "insert into hist (tag) values (2)")
    assert console.facts()["green"]["app0"][:2] == ("diverged", 2), console.facts()
    console.do("contact green 3", 90)  # again: nothing changes
    assert console.facts()["green"]["app0"][:2] == ("diverged", 2), console.facts()
    assert rows(world.blue, "select count(*) from hist where aid = 1 and delta = 1") == [("1",)]
    console.stop()


def test_idle_side_rejoins_by_itself(world):
    """Nothing was under way when it died: it follows the other from where that was opened."""
    console = promised(world)
    rows(world.green, "insert into hist (tag, aid, delta) values (1, 1, 1)")
    world.green.kill()
    take_over(console, 2, "green", 2)
    rows(world.blue, "insert into hist (tag, aid, delta) values (2, 1, 2)")
    world.green.start()
    console.do("contact green 3", 90)
    assert console.facts()["green"]["app0"][:2] == ("standby", 3), console.facts()
    console.healthy("blue")
    assert rows(world.green, "select tag from hist order by 1") == [("1",), ("2",)]
    console.do("promise blue 60000")
    console.do("names blue 3 off 60000")
    console.flip(3, "blue", 3)
    console.stop()


def diverged(world, console, stranded):
    """Green, which promised, was cut off with `stranded` statements waiting, and blue took over."""
    console.do("cut-off 2 green 2 60000")
    hung = []
    for index, sql in enumerate(stranded):
        connection = world.green.connect("app0", "app")
        thread = threading.Thread(target=hang, args=(connection, sql), daemon=True)
        thread.start()
        hung.append(thread)
        end = time.monotonic() + 180
        while int(rows(world.green, "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and usename = 'app'")[0][0]) <= index:
            assert time.monotonic() < end, sql
            time.sleep(0.02)
    for phase in ("ready-alone", "open"):
        console.do("%s 2 green 2 60000" % phase)
    console.do("active blue 3")
    console.do("contact green 3", 90)
    for thread in hung:
        thread.join(180)
        assert not thread.is_alive()
    assert console.facts()["green"]["app0"][:2] == ("diverged", 2), console.facts()


def hang(connection, sql):
    try:
        connection.query(sql)
        print("acknowledged: %s" % sql)
    except (OSError, pg.Closed, pg.PgError):
        pass


def equal(world, tables):
    for table in tables:
        sql = "select * from %s t order by t::text" % table
        assert rows(world.blue, sql) == rows(world.green, sql), table


def test_diverged_side_rejoins(world):
    """What its stranded transactions did is undone by the active side's rows, while that goes on writing."""
    console = promised(world, databases=2)
    write = lambda sql: rows(world.green, sql)
    for i in range(10):
        write("insert into hist (tag, aid, delta) values (%d, 1, 0)" % (7000000000 + i))
    write("insert into part values (1, 0), (2, 1)")
    diverged(world, console, [
        "insert into hist (id, tag, aid) values (1000001, 7000000100, 1)",
        "update hist set tag = 7000000200, delta = 9 where tag = 7000000000",
        "begin; delete from hist where tag = 7000000001; update hist set id = 1000002 where tag = 7000000002; commit",
        "update part set k = 1 where id = 1",
        "insert into part values (3, 0)",
        "update acc set bal = bal + 5 where id in (1, 2)",
        "delete from acc where id in (3, 4, 5)",
    ])
    said = console.do("stranded green")
    assert said.split("|")[0].split() == ["13", "7"], said
    for part in ("app0 insert public.hist id=1000001", "app0 delete public.acc id=4", "app0 insert public.part1 id=1, k=1"):
        assert part in said.split("|"), (part, said)

    # the active side used what is stranded on the other: keys, unique values, rows that are gone there
    on_blue = lambda sql: rows(world.blue, sql)
    on_blue("insert into hist (id, tag, aid, delta) values (1000001, 7000000200, 1, 3)")
    on_blue("insert into hist (id, tag, aid, delta) values (1000002, 7000000100, 1, 4)")
    on_blue("delete from acc where id = 4")
    on_blue("update acc set bal = 77 where id = 5")
    on_blue("update part set k = 1 where id = 1")
    on_blue("delete from hist where tag = 7000000000")
    writers = Writers(world.blue, 2)
    writers.wait_for(50)
    console.do("rejoin blue", 120)
    writers.wait_for(100)
    writers.join()
    assert console.facts()["green"]["app0"][:2] == ("standby", 3), console.facts()
    console.healthy("blue")
    console.do("probe blue 60000")
    equal(world, ("hist", "acc", "part", "tel", "br"))
    assert console.do("stranded green").split() == ["0", "0"]
    console.do("rejoin blue", 60)  # again: nothing is left to do

    # it is a standby as any: the next flip takes it, and nothing echoes
    console.flip(3, "blue", 3)
    console.healthy("green")
    rows(world.green, "insert into hist (tag, aid, delta) values (7000000999, 1, 1)")
    console.do("probe green 60000")
    equal(world, ("hist", "acc", "part", "tel", "br"))
    console.stop()


def test_rejoin_that_stops_half_way(world):
    console = promised(world)
    diverged(world, console, ["update acc set bal = bal + 5 where id <= 600"])
    # a client's lock on one of the rows: the copy waits for it, and is ended
    holder = world.blue.connect("app0", "app")
    holder.query("begin")
    holder.query("update acc set bal = 1 where id = 500")
    going = console.start("rejoin blue")
    end = time.monotonic() + 180
    while rows(world.green, "select count(*) from switchback.rejoining") not in ([("200",)], [("100",)]):
        assert time.monotonic() < end
        time.sleep(0.05)
    console.do("stop")
    try:
        console.wait(going, 5)
    except Exception:
        pass
    other = Console(world)
    other.do("own")
    other.do("active blue 3")
    other.do("contact green 3", 90)
    assert other.facts()["green"]["app0"][:2] == ("diverged", 2), other.facts()
    assert int(other.do("stranded green").split()[0]) in (100, 200)
    failed = other.fails("promise blue 10000")  # its rows aren't whole: nothing can be promised by it
    assert failed.code == "no_promise" and "diverged" in failed.message, failed
    other.do("names blue 3 off 60000")
    holder.query("commit")
    other.do("rejoin blue", 120)
    assert other.facts()["green"]["app0"][:2] == ("standby", 3), other.facts()
    other.healthy("blue")
    other.do("probe blue 60000")
    equal(world, ("acc",))
    other.stop()


def test_rejoin_that_rows_cannot_tell(world):
    console = promised(world)
    diverged(world, console, ["truncate tel"])
    failed = console.fails("rejoin blue")
    assert failed.code == "not_prepared" and "truncate of table public.tel" in failed.message, failed
    assert console.facts()["green"]["app0"][:2] == ("diverged", 2), console.facts()
    rows(world.blue, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like '%app0%to_green'")
    failed = console.fails("rejoin blue")
    assert failed.code == "not_prepared" and "slot" in failed.message, failed
    console.stop()


def test_takeover_undone(world):
    console = promised(world)
    # nothing of it is left: blue follows again, and that flip passes no more
    console.do("cut-off 2 green 2 60000")
    console.do("cut-off 2 green 2 60000")
    assert rows(world.blue, "select count(*) from pg_stat_subscription where pid is not null") == [("0",)]
    console.do("ready-alone 2 green 2 60000")
    console.do("reattach 2 green 2 60000")
    console.do("reattach 2 green 2 60000")
    for phase in ("cut-off", "ready-alone"):
        assert console.fails("%s 2 green 2 10000" % phase).code == "stale"
    assert console.facts()["blue"]["app0"][:5] == ("standby", 2, 0, 2, 2)
    console.healthy("green")
    assert console.fails("ready-alone 3 green 2 5000").code == "check_failed"  # not cut off
    console.do("promise green 60000")

    # an operator's word instead: at a higher epoch, whatever stood there
    console.do("cut-off 3 green 2 60000")
    console.do("adopt blue 5 60000")
    console.do("adopt blue 5 60000")
    facts = console.facts()["blue"]["app0"]
    assert facts[:3] == ("active", 5, 0), facts
    assert console.fails("adopt blue 4 10000").code == "stale"
    rows(world.blue, "insert into hist (tag) values (1)")
    console.stop()
