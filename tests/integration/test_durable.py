"""What a stream has confirmed is on the disk of the side that received it, whoever dies.

PostgreSQL's own default for a subscription, synchronous_commit = off, isn't enough for that, though its manual says so: an
apply worker that starts again confirms what its predecessor applied, flushed or not, because its own list of commits is
empty. A crash of that side then takes rows back that are never sent again.
"""
import os
import signal
import time

from daemon import LIMIT
from tool import Tool

ROWS = "select coalesce(string_agg(id::text, ',' order by id), '') from orders"


def until(what, true):
    end = time.monotonic() + 120 * LIMIT
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def insert(publisher, first, last):
    """Returns the publisher's position behind these rows, each of which was committed on its own."""
    with publisher.connect("app") as connection:
        for id in range(first, last + 1):
            connection.query("insert into orders values (%d)" % id)
        return connection.query("select pg_current_wal_lsn()")[0][0]


def confirmed(publisher, position):
    return publisher.value("select bool_and(confirmed_flush_lsn >= '%s') from pg_replication_slots where active" % position) == "t"


def worker(subscriber):
    return subscriber.value("select pid from pg_stat_subscription where pid is not null and relid is null", "app")


def rows_survive(world, **pair):
    """The WAL writer stands still, as though the power failed a moment before its turn; the apply worker is ended and starts
    again; then the standby dies with all that it had not flushed."""
    world.pair(fsync="on", autovacuum="off", wal_writer_delay="10s", checkpoint_timeout="1h", **pair)
    world.blue.query("create table orders (id int primary key)")
    if world.green.version < world.blue.version:  # pg_dump of the old one can't read the new one
        world.green.query("create role app login", "postgres")
        world.green.query("create database app owner app", "postgres")
        world.green.query("create table orders (id int primary key)")
    tool = Tool(world)
    tool.prepare()
    for round in range(3):
        first = 100 * round + 1
        writer = int(world.green.value("select pid from pg_stat_activity where backend_type = 'walwriter'"))
        os.kill(writer, signal.SIGSTOP)
        end = insert(world.blue, first, first + 20)
        until("the rows are applied", lambda: world.green.value("select count(*) from orders where id = %d" % (first + 20)) == "1")
        ended = worker(world.green)
        world.green.query("select pg_terminate_backend(%s)" % ended)
        until("the worker starts again", lambda: worker(world.green) not in (None, ended))
        until("it confirms what was applied", lambda: confirmed(world.blue, end))
        world.green.kill()
        world.green.start()
        insert(world.blue, first + 50, first + 50)
        until("the stream goes on", lambda: world.green.value("select count(*) from orders where id = %d" % (first + 50)) == "1")
        assert world.green.value(ROWS) == world.blue.value(ROWS), "round %d: rows are lost for good" % round
    assert tool.check().failing() == []


def test_confirmed_rows_survive(world):
    rows_survive(world)


def test_confirmed_rows_survive_from_new_to_old(world):
    rows_survive(world, blue_new=True, green_new=False)


def test_streams_flush_what_they_apply(world):
    """Whoever weakens a stream by hand hears of it; prepare mends it, in both directions."""
    world.pair()
    world.blue.query("create table orders (id int primary key)")
    tool = Tool(world)
    tool.prepare()
    for side, item in ((world.green, "stream"), (world.blue, "way_back")):
        name = side.value("select subname from pg_subscription")
        side.query("alter subscription %s set (synchronous_commit = off)" % name, user="switchback")
        check = tool.check()
        assert check.state(item) == "fail" and name in str(check.items[item]), check
    tool.prepare()
    assert {side.value("select subsynccommit from pg_subscription") for side in (world.blue, world.green)} == {"local"}
    assert tool.check().failing() == []


def behind(world):
    """A prepared pair whose stream has something to catch up with, and is held up by a lock on green."""
    world.pair()
    world.blue.query("create table orders (id int primary key)")
    tool = Tool(world)
    tool.prepare()
    lock = world.green.connect("app", "switchback")
    lock.query("begin; lock table orders in exclusive mode")
    insert(world.blue, 1, 20)
    process = tool.start("prepare")
    until("it is relaxed", lambda: world.green.value("select subsynccommit from pg_subscription") == "off")
    assert "catching up" in world.green.value("select switchback.table_fault()", user="switchback")  # so nobody flips to it
    return tool, lock, process


def flushes(world):
    return (world.green.value("select bool_and(subsynccommit = 'local' and subenabled) from pg_subscription") == "t"
            and world.green.value("select count(*) from switchback.unflushed") == "0")


def test_prepare_relaxes_a_stream_that_is_behind(world):
    """It doesn't flush each transaction while it catches up, and does afterwards."""
    tool, lock, process = behind(world)
    lock.close()
    out, _ = process.communicate(timeout=120 * LIMIT)
    assert process.returncode == 0 and "catching up" in out, out
    assert flushes(world) and tool.check().failing() == []
    assert world.green.value(ROWS) == world.blue.value(ROWS)


def test_a_crash_of_a_relaxed_standby_is_noticed(world):
    """Whether anything was lost can't be told any more: its tables are copied again."""
    tool, lock, process = behind(world)
    process.kill()  # it is the next prepare that notices
    process.communicate()
    world.green.kill()
    world.green.start()
    check = tool.check()
    assert check.state("stream") == "fail" and check.state("table_sets") == "fail", check
    outcome = tool.prepare()
    assert any("copied again" in p[2] for p in outcome.progress), outcome
    assert flushes(world) and tool.check().failing() == []
    assert world.green.value(ROWS) == world.blue.value(ROWS)


def test_an_interrupted_catching_up_is_continued(world):
    """Without a crash of the standby nothing is lost, whatever becomes of prepare."""
    tool, lock, process = behind(world)
    process.kill()
    process.communicate()
    lock.close()
    outcome = tool.prepare()
    assert not any("copied again" in p[2] for p in outcome.progress), outcome
    assert flushes(world) and tool.check().failing() == []
    assert world.green.value(ROWS) == world.blue.value(ROWS)
