"""A daemon that starts while a side is away: nobody is sent to a side before this daemon has met it, for it may stand behind
the fence of a flip that could not be undone there."""
import shutil
import threading

import pg
from cluster import TRUST
from test_flip import assert_one_active
from test_pair import trouble

# applications come in, the manager doesn't: clients would be quicker than it
WITHOUT_MANAGER = "host all switchback 127.0.0.1/32 reject\nhost replication switchback 127.0.0.1/32 reject\n" + TRUST


def leave_fence(world, d):
    """The active side as a flip leaves it whose undo could not reach it: the journal says aborted, the fence stands."""
    with world.connect() as busy:
        busy.query("begin; update account set note = 'busy' where id = 1")
        answer = d.verb("cutover", code=1).json
        assert answer["result"] == "aborted", answer
        busy.query("rollback")
    d.wait_steady("blue")
    d.stop()
    with world.blue.connect("app", "switchback") as manager:
        manager.query("update switchback.state set fenced_for = %d, aborted = 0; select switchback.set_fences(true)" % answer["flip"])


def test_active_side_comes_back_behind_a_fence(world):
    """The first client of the side that has come back is quicker than the manager: it waits, and writes when the fence is down."""
    d = world.prepared(flip={"drain": {"timeout": "300ms"}, "catchup": {"timeout": "10s"}, "max_hold": "200s"})
    leave_fence(world, d)
    world.blue.stop()
    world.blue.write_hba(WITHOUT_MANAGER)
    d.start(wait=False)
    d.wait_status(lambda s: s["active"] == "blue" and not s["sides"]["blue"]["reachable"], 60, "blue is known to be the active side")
    world.blue.start()
    got = []

    def write():
        try:
            with pg.Connection(d.address, timeout=250) as client:
                client.query("update account set note = 'met' where id = 1")
            got.append("written")
        except (pg.PgError, pg.Closed, OSError) as error:
            got.append(error)

    client = threading.Thread(target=write)
    client.start()
    d.until(lambda: got or d.verb("status").json["sessions"]["waiting"] > 0, 60, "the client waits")
    assert not got, got
    refused = d.verb("cutover", code=1)
    assert "met" in refused.out + refused.err or "reach" in refused.out + refused.err, refused
    world.blue.write_hba(TRUST)
    client.join()
    assert got == ["written"], got
    d.wait_steady("blue")
    assert_one_active(world, "blue")
    d.verb("cutover", code=0)
    world.assert_same_data()


def test_start_that_reached_one_side_only(world):
    """No journal, and a clock that has gone back: the start takes one side, then meets its own earlier number on the other,
    a higher one. It isn't over before it knows who is active, and takes over there, too; once over, such a number deposes it."""
    d = world.prepared(flip={"drain": {"timeout": "1s"}, "catchup": {"timeout": "1s"}, "max_hold": "200s"})
    raise_owner = "update switchback.state set owner = owner + 1000000000000000"
    d.stop()
    with world.blue.connect("app", "switchback") as manager:
        manager.query(raise_owner)
    world.blue.stop()
    shutil.rmtree(d.settings["state"]["dir"])
    d.start(wait=False)
    trouble(d, "blue can't be reached")
    world.blue.start()
    with pg.Connection(d.address, timeout=200) as client:
        client.query("update account set note = 'taken' where id = 1")
    d.wait_steady("blue")
    assert_one_active(world, "blue")
    assert world.blue.value("select owner from switchback.state") == world.green.value("select owner from switchback.state")
    d.verb("cutover", code=0)
    d.wait_steady("green")
    with world.blue.connect("app", "switchback") as manager:
        manager.query(raise_owner)
    trouble(d, "another controller has taken ownership", "restart this one")
    d.stop()
    d.start()
    d.wait_status(lambda s: s["active"] == "green" and s["way_back"]["open"], 60, "the restart takes over")
