"""Processes that stand still in the middle of a flip: the daemon past the end of its own hold, the sender or the
receiver of the stream while the target catches up, a writer that doesn't end."""
import os
import signal
import time

from test_flip import assert_one_active

SHORT = {"drain": {"timeout": "1s"}, "catchup": {"timeout": "2s"}, "max_hold": "5s"}


def wait_for_fence(d):
    """By the log: a status would take longer than the fence waits."""
    d.until(lambda: "phase=fence" in d.log_text(), what="the fence")


def test_daemon_stands_still_in_the_fence(world):
    """It wakes up long after its hold should have ended: the source is open again, nothing is lost or held."""
    d = world.prepared(flip=SHORT)
    load = world.ledger(sessions=8, rate=25)
    with world.blue.connect("app", "switchback") as in_the_way:
        in_the_way.query("begin; lock table account in row exclusive mode")
        run = d.start_verb("cutover")
        wait_for_fence(d)
        d.process.send_signal(signal.SIGSTOP)
        time.sleep(7)
        in_the_way.query("rollback")
        d.process.send_signal(signal.SIGCONT)
    assert run.finish(code=1).json["result"] == "aborted"
    d.wait_steady("blue")
    assert_one_active(world, "blue")
    with world.connect() as client:
        client.query("update account set note = 'again' where id = 1")
    load.stop()
    world.assert_same_data()
    load.verify(world.blue)
    d.flip("cutover")


def stream_stands_still(world, side, pid_of):
    d = world.prepared(flip=SHORT)
    load = world.ledger(sessions=8, rate=25)
    with world.blue.connect("app", "switchback") as in_the_way:
        in_the_way.query("begin; lock table account in row exclusive mode")
        run = d.start_verb("cutover")
        wait_for_fence(d)
        pid = int(getattr(world, side).value(pid_of))
        os.kill(pid, signal.SIGSTOP)
        in_the_way.query("rollback")
    try:
        assert run.finish(code=1).json["result"] == "aborted"
        assert_one_active(world, "blue")
    finally:
        os.kill(pid, signal.SIGCONT)
    d.wait_steady("blue")
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    load.verify(world.blue)
    d.flip("cutover")
    assert_one_active(world, "green")


def test_walsender_stands_still(world):
    """No marker arrives: undone in time, nobody sees an error."""
    stream_stands_still(world, "blue", "select active_pid from pg_replication_slots where active and database = 'app'")


def test_apply_worker_stands_still(world):
    stream_stands_still(world, "green", "select pid from pg_stat_subscription where relid is null and pid is not null")


def test_writer_that_does_not_end(world):
    """A foreign transaction holds its locks through the fence: undone in time, then the flip ends it no earlier."""
    d = world.prepared(flip=SHORT)
    load = world.ledger(sessions=8, rate=25)
    writer = world.blue.connect("app", "app")
    writer.query("begin; update account set note = 'long' where id = 7")
    assert d.verb("cutover", code=1).json["result"] == "aborted"
    assert_one_active(world, "blue")
    writer.query("commit")
    d.flip("cutover")
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    load.verify(world.green)
    with world.connect() as client:
        assert client.value("select note from account where id = 7") == "long"
