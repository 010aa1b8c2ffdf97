"""The kill matrix: kill -9 of the daemon, of either side or of an apply worker, and disks that fail, *inside* each phase of
cutovers, flip-backs and aborts. (test_crash.py strikes exactly at the phases' boundaries, test_kill_watch.py in the watch.)

After each strike, without help: one side active, the other fenced, clients served, the ledger right, both sides equal.
The matrix runs by hand (`runner.py --long kill.`, figures in the file that $SWITCHBACK_NOTES names); a slice of it runs always.
"""
import random

import disk
import strikes
from kill_scene import Scene
from network import WATCH
from test_crash import PHASES

KILLS = ("daemon_killed", "source_killed", "target_killed", "source_worker", "target_worker", "both_sides", "everything")
FAULTS = ("disk_full", "disk_read_only", "disk_sync_fails", "disk_sync_slow")
DAEMON_DISKS = tuple("daemon_" + fault for fault in FAULTS + ("disk_sync_fails_then_killed",))
CLUSTER_DISKS = tuple("%s_%s" % (side, fault) for side in ("source", "target") for fault in FAULTS)


def make(verb, victim, lossless):
    def test(world):
        scene = Scene(world, cluster_disks=victim in CLUSTER_DISKS, lossless=lossless, **(WATCH if lossless else {}))
        for phase in strikes.chosen(PHASES):
            scene.in_a_flip(verb, phase, victim)
        if "disk" in victim and "full" not in victim:  # what a flip writes has room before anybody is held
            assert any(one.struck for one in scene.disks.values()), "no call was struck"
    test.__doc__ = "%s in each phase of a %s, %s the promise." % (victim, verb, "with" if lossless else "without")
    test.timeout = 1500
    test.long = True
    return test


for _verb in ("cutover", "flip-back"):
    for _victim in KILLS + DAEMON_DISKS + CLUSTER_DISKS:
        for _name, _lossless in (("plain", False), ("lossless", True)):
            globals()["test_%s_%s_%s" % (_name, _verb.replace("-", "_"), _victim)] = make(_verb, _victim, _lossless)


def make_abort(victim):
    def test(world):
        scene = Scene(world)
        for phase in strikes.chosen(PHASES[:PHASES.index("open") + 1]):
            scene.in_a_flip("cutover", phase, victim, abort=True)
    test.__doc__ = "%s while an abort runs in each phase that one may come in, and where it comes too late." % victim
    test.timeout = 1500
    test.long = True
    return test


for _victim in KILLS + DAEMON_DISKS:
    globals()["test_abort_" + _victim] = make_abort(_victim)


def test_a_slice(world):
    """A few strikes of the matrix, others in each run."""
    scene = Scene(world)
    chosen = random.sample([(victim, phase) for victim in KILLS + DAEMON_DISKS for phase in PHASES[4:]], 7)
    print(chosen)
    for victim, phase in chosen:
        scene.in_a_flip("cutover" if scene.d.status()["active"] == "blue" else "flip-back", phase, victim)


test_a_slice.timeout = 400


def test_a_full_disk_refuses_a_flip(world):
    """A flip that finds no room for its journal is refused before anybody waits, clients go on, and with room it works."""
    scene = Scene(world)  # it has just started: no flip has reserved its room yet
    d, faulty = scene.d, scene.disks["daemon"]
    load = scene.load()
    faulty.set(disk.FULL)
    answer = d.verb("cutover", code=1)
    assert faulty.struck > 0 and "disk" in answer.out, answer
    s = d.status()
    assert s["active"] == "blue" and s["hold"] is None, s
    faulty.heal()
    d.wait_steady("blue")
    d.verb("cutover", code=0)
    d.wait_steady("green")
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    load.verify(world.green)
