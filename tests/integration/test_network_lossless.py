"""The network fails while each commit of the active side is confirmed by the other one: the promise holds, or commits go
on without it after flip.lossless_max_wait; a side that is cut off is taken over from, and nothing acknowledged is lost."""
import time

import pg
from daemon import SLOW
from network import Scene, Witness
from test_flip import assert_one_active

MAX_WAIT_S = 4
PATIENCE_S = 15  # of a commit past flip.lossless_max_wait, on a machine that has other things to do
MAX_HOLD_S = 9
FLIP = {"drain": {"timeout": "1500ms"}, "catchup": {"timeout": "5s"}, "max_hold": "%ds" % MAX_HOLD_S, "lossless": True,
        "lossless_max_wait": "%ds" % MAX_WAIT_S, "dead_after": "2s"}
# the gate on lag would flip back once what had cut the sides off from each other is over
WATCH = {"watch": {"duration": "30m"}, "gates": [{"name": "lag", "metric": "replication_lag", "max": "1h"}]}


def promised(s):
    return s["way_back"]["promise"]["on"]


def promising(world, net=None):
    """Green is active and watched, and each of its commits is confirmed by blue."""
    scene = Scene(world, net, flip=FLIP, lossless=True)
    scene.d.flip("cutover")
    scene.d.wait_status(promised, 60, "the promise is on")
    return scene


def longest_write_s(load):
    return max((longest for outcome, _, _, kind, _, _, longest, _ in load.operations() if outcome == "ack" and kind != "r"),
               default=0) / 1e6


def side_waits(side):
    """How many backends wait for the other side's confirmation."""
    return int(side.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'"))


def test_sides_cut_off_from_each_other(world):
    """Commits wait for the other side no longer than they may, then go on without the promise, which comes back by
    itself."""
    scene = promising(world)
    d = scene.d
    for fault in ("partition", "answers_lost", "server_gone", "reset", "slow"):
        load = world.ledger(sessions=6, rate=20)
        witness = Witness(world, d)
        time.sleep(0.5)
        scene.inject(fault, "between", "green")
        if fault not in ("reset", "slow"):
            s = d.wait_status(lambda s: not promised(s), 60, "the promise is given up")
            assert s["active"] == "green" and s["way_back"]["promise"]["reason"], s["way_back"]
            before = time.monotonic()
            d.until(lambda: side_waits(world.green) == 0, what="no commit waits")
            with pg.Connection(d.address) as client:
                client.query("update account set note = 'alone' where id = 7")
            print("%s: %.1f s until commits went on and one more was made" % (fault, time.monotonic() - before))
        else:
            time.sleep(3)
        scene.net.heal()
        s = d.wait_status(promised, 90, "the promise is back")
        assert s["active"] == "green"
        time.sleep(0.5)
        load.stop()
        load.assert_clean()
        witness.stop()
        assert not witness.splits, witness.splits
        longest = longest_write_s(load)
        print("%s: longest write %.1f s" % (fault, longest), flush=True)
        assert longest < (MAX_WAIT_S + PATIENCE_S) * SLOW, longest
    d.flip("flip-back")
    scene.settle_anew()
    assert_one_active(world, "blue")


test_sides_cut_off_from_each_other.timeout = 600


def cut_off(scene, fault):
    """The proxy loses the active side, which lives on: the other one takes over without a decision of anybody."""
    world, d = scene.world, scene.d
    load = world.ledger(sessions=6, rate=20)
    time.sleep(1)
    began = time.monotonic()
    scene.inject(fault, "source", "green")
    s = d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, 90, "blue takes over")
    over = time.monotonic() - began
    d.until(scene.served, what="clients are served by blue")
    print("%s: served by blue after %.1f s" % (fault, time.monotonic() - began), "taken over after %.1f s" % over, flush=True)
    with pg.Connection(d.address) as client:
        assert client.parameters["server_version"].startswith(str(world.blue.version))
    time.sleep(1)
    load.stop()
    assert load.summary["wrong"] == 0, load.summary
    load.verify(world.blue)  # whatever was acknowledged, by either
    # what a writer that is still there says on the old side isn't confirmed by anybody
    stray = world.green.connect("app", "app")
    stray.send(pg.query("insert into entry (run, session, n, amount, tenant) values (99, 1, 1, 0, 'stray')"))
    d.until(lambda: side_waits(world.green) == 1, what="the stray commit waits")
    assert not stray.readable(0.5)
    scene.net.heal()
    s = d.wait_status(lambda s: s["sides"]["green"]["fenced"] and s["sides"]["green"]["standing"] == "diverged", 60,
                      "green is fenced on contact")
    d.until(stray.closed_by_peer, what="the stray writer is ended")
    assert_one_active(world, "blue")
    assert s["active"] == "blue", s
    assert world.blue.value("select count(*) from entry where run = 99") == "0"
    d.verb("rejoin", code=0)
    s = d.wait_status(lambda s: s["way_back"]["open"] and s["sides"]["green"]["standing"] == "standby", 90, "green is back")
    scene.settle_anew()
    assert world.green.value("select count(*) from entry where run = 99") == "0"
    assert_one_active(world, "blue")


def test_active_side_cut_off_from_the_proxy(world):
    scene = promising(world)
    for fault in ("partition", "answers_lost"):
        cut_off(scene, fault)
        scene.d.flip("cutover")
        scene.d.wait_status(promised, 60, "the promise is on")


test_active_side_cut_off_from_the_proxy.timeout = 400


def test_active_side_cut_off_from_all(world):
    """From proxy and blue at once, as a machine without a network."""
    scene = promising(world)
    world, d = scene.world, scene.d
    load = world.ledger(sessions=6, rate=20)
    time.sleep(1)
    for link in ("green", "from_blue", "from_green"):
        scene.net.say("stall", link, "both")
    d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, 90, "blue takes over")
    d.until(scene.served, what="clients are served by blue")
    load.stop()
    assert load.summary["wrong"] == 0, load.summary
    load.verify(world.blue)
    scene.net.heal()
    d.wait_status(lambda s: s["sides"]["green"]["fenced"], 60, "green is fenced on contact")
    assert_one_active(world, "blue")
    assert scene.settle_anew() == "blue"


test_active_side_cut_off_from_all.timeout = 300


def test_old_connections_forgotten(world):
    """A firewall forgets every connection to the active side, ours and the clients': they die without a word, new ones work.
    Nobody takes over from a side that is well."""
    scene = promising(world)
    d = scene.d
    load = world.ledger(sessions=6, rate=20)
    time.sleep(0.5)
    for _ in range(3):
        lost = d.log_text().count("green can't be reached")  # a statement's own deadline may be quicker than their silence
        scene.inject("forgotten", "source", "green")
        d.until(lambda: d.log_text().count("green can't be reached") > lost, what="the old connections are given up")
        s = d.wait_status(lambda s: s["sides"]["green"]["reachable"], 60, "green answers by new connections")
        assert s["active"] == "green" and s["phase"] == "watch", s
        d.until(scene.served, what="clients are served")
    began = time.monotonic()
    while time.monotonic() - began < 6:
        s = d.status()
        assert s["active"] == "green" and s["flip"] is None, s
        time.sleep(0.2)
    d.wait_status(promised, 60, "the promise is on")
    scene.net.heal()
    d.flip("flip-back")
    load.stop()
    assert load.summary["wrong"] == 0, load.summary
    load.verify(world.blue)
    scene.settle_anew()
    assert_one_active(world, "blue")


test_old_connections_forgotten.timeout = 300


def test_turn_cannot_promise(world):
    """The sides are cut off from each other when the flip comes to its turn: clients go on in time, without the promise."""
    scene = Scene(world, flip=FLIP, **WATCH)
    d = scene.d
    load = world.ledger(sessions=6, rate=20)
    witness = Witness(world, d)
    time.sleep(0.5)
    scene.strikes.on("turn:before", lambda: scene.inject("partition", "between", "blue"))
    result = d.verb("cutover", code=0).json
    assert scene.strikes.struck.is_set() and result["result"] == "done", result
    s = d.status()
    assert s["active"] == "green" and not promised(s), s
    d.until(scene.served, what="clients are served by green")
    scene.net.heal()
    d.wait_status(lambda s: promised(s) and s["phase"] == "watch", 90, "the promise is on after all")
    witness.stop()
    assert not witness.splits and witness.longest_hold_s < (MAX_HOLD_S + PATIENCE_S) * SLOW, (witness.splits, witness.longest_hold_s)
    assert scene.settle([load]) == "green"
    load.assert_clean()


test_turn_cannot_promise.timeout = 300


def test_marker_that_never_arrived(world):
    """A side writes its first closing marker and dies before the other one has it. When it is active again, a flip away from
    it must see the next one: that was an update of a row which the other side lacked, passed over there for ever."""
    scene = promising(world)
    d = scene.d

    def cut():
        scene.net.say("stall", "from_green", "both")
    scene.strikes.on("fence:before", cut)
    run = d.start_verb("flip-back")
    d.until(lambda: world.green.query("select from switchback.marker where side = 'green' and purpose = 'sequences'"), 60,
            "the closing marker is written")
    assert not world.blue.query("select from switchback.marker where side = 'green' and purpose = 'sequences'")
    world.green.kill()
    d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, 90, "blue takes over")
    run.finish()
    scene.net.heal()
    world.green.start()
    scene.settle_anew()
    scene.ready("green")
    for _ in range(2):
        d.flip("flip-back")
        d.wait_steady("blue")
        d.flip("cutover")
        d.wait_status(promised, 60, "the promise is on")


test_marker_that_never_arrived.timeout = 300
