"""Sides that were restored from a copy, failed over, or came back as they once were: recognised, named, and mended by what is
offered. The naive way loses rows in silence: a subscriber asks for what follows, never for what lies between."""
import os
import shutil
import subprocess
import time

import pg
from cluster import own
from test_flip import assert_one_active


def copy_of(cluster, name):
    """A cold copy of a cluster's files; it is running before and after."""
    cluster.stop()
    folder = cluster.data + "." + name
    subprocess.run(["cp", "-a", "--reflink=auto", cluster.data, folder], check=True)
    cluster.start()
    return folder


def restore(cluster, folder, promote=False):
    """The cluster is what it was when it was copied; promote: as a server that was promoted, on a new timeline."""
    cluster.stop("immediate")
    shutil.rmtree(cluster.data)
    subprocess.run(["cp", "-a", "--reflink=auto", folder, cluster.data], check=True)
    if promote:
        signal = os.path.join(cluster.data, "recovery.signal")
        with open(signal, "w"):
            pass
        own(signal)
        with open(os.path.join(cluster.data, "postgresql.conf"), "a") as conf:
            conf.write("restore_command = 'false'\nrecovery_target_timeline = 'current'\n")
    cluster.start()
    end = time.monotonic() + 180
    while cluster.value("select pg_is_in_recovery()") != "f":
        assert time.monotonic() < end, "it isn't promoted"
        time.sleep(0.05)


def write(world, d, text, id=1):
    def written():  # a side that was just started may still count as down
        try:
            with world.connect(through=d) as client:
                client.query("update account set note = '%s' where id = %d" % (text, id))
            return True
        except pg.PgError as error:
            assert error.sqlstate in ("57P03", "08006"), error
            return False
    d.until(written, what="it is written")


def closed(d, *words):
    return d.wait_status(lambda s: not s["way_back"]["open"] and all(
        word in (s["way_back"]["reason"] or "") + str(s["trouble"]) for word in words), 60, "the way back is closed: %s" % (words,))


def test_standby_restored_from_a_copy(world):
    """Same identifier, same timeline, older rows: the next heartbeat's number tells."""
    d = world.prepared(pair={"fsync": "on"})
    write(world, d, "before the copy")
    world.assert_same_data()
    copy = copy_of(world.green, "old")
    d.wait_steady("blue")
    write(world, d, "after the copy")
    write(world, d, "after it too", 2)
    world.assert_same_data()
    restore(world.green, copy)
    closed(d, "restored")
    assert d.verb("cutover").code == 1
    assert "restored" in d.verb("check", code=1).out
    d.stop()
    d.start()
    closed(d, "restored")
    d.prepare()
    d.wait_steady("blue")
    world.assert_same_data()
    d.verb("cutover", code=0)
    d.wait_steady("green")
    # a flip starts the counting anew; so does the way back
    d.verb("flip-back", code=0)
    d.wait_steady("blue")
    world.assert_same_data()


def test_active_restored_from_a_copy(world):
    """The standby has what the active side lost; what the active side does now it would skip."""
    d = world.prepared(pair={"fsync": "on"})
    copy = copy_of(world.blue, "old")
    d.wait_steady("blue")
    for i in range(20):
        write(world, d, "lost %d" % i, 3)
    world.assert_same_data()
    restore(world.blue, copy)
    closed(d, "restored")
    write(world, d, "since", 4)
    assert d.verb("cutover").code == 1
    d.prepare()
    d.wait_steady("blue")
    world.assert_same_data()
    assert world.green.value("select note from account where id = 4") == "since"
    d.verb("cutover", code=0)
    d.wait_steady("green")
    # restored to before the last flip it is no active side any more: nobody is served before somebody has decided
    copy = copy_of(world.green, "later")
    d.wait_steady("green")
    for verb, to in (("flip-back", "blue"), ("cutover", "green")):
        d.verb(verb, code=0)
        d.wait_steady(to)
    d.stop()
    restore(world.green, copy)
    d.start(wait=False)
    d.until(lambda: d.verb("status").code == 4, 60, "it is undecided")
    s = d.verb("status").json
    assert s["active"] is None and any("restored" in t["message"] for t in s["trouble"]), s


def test_failed_over(world):
    """A promoted server in the active side's place goes on serving; the way back is closed until it is prepared anew."""
    d = world.prepared(pair={"fsync": "on"})
    write(world, d, "before")
    copy = copy_of(world.blue, "replica")
    d.wait_steady("blue")
    restore(world.blue, copy, promote=True)
    closed(d, "failed over")
    write(world, d, "on the promoted one")
    assert d.verb("cutover").code == 1
    assert_one_active(world, "blue")
    d.prepare()
    d.wait_steady("blue")
    world.assert_same_data()
    d.verb("cutover", code=0)
    d.wait_steady("green")
    # the standby this time: its rows can't be trusted to be ours
    copy = copy_of(world.blue, "standby")
    d.wait_steady("green")
    restore(world.blue, copy, promote=True)
    closed(d, "failed over")
    answer = d.verb("prepare", code=4)
    assert "drop the managed databases" in answer.out + answer.err, answer
    assert_one_active(world, "green")


test_failed_over.long = True
