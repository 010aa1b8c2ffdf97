"""Flips without end, under load, with kills at any moment: nothing is lost, and nothing grows.

SWITCHBACK_SOAK_FLIPS: how many flips each takes (default 1000); best run with a release build, by hand.
"""
import os
import random
import time

from kill_scene import Scene
from test_flip import assert_one_active

FLIPS = int(os.environ.get("SWITCHBACK_SOAK_FLIPS", "1000"))
ROUND = 20  # flips on one record of the load, after which everything is compared
SLOTS = "select coalesce(max(pg_current_wal_lsn() - restart_lsn), 0) from pg_replication_slots"
MIB = 1 << 20


def resident(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def sizes(world, d):
    pid = d.process.pid
    return {"resident": resident(pid), "descriptors": descriptors(pid),
            "journal": sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(d.settings["state"]["dir"])
                           for name in names),
            "kept_blue": int(world.blue.value(SLOTS)), "kept_green": int(world.green.value(SLOTS))}


def flip(d):
    """The answer to a flip to the other side."""
    return d.verb("cutover" if d.status()["active"] == "blue" else "flip-back", timeout=120)


def test_nothing_grows(world):
    """Memory, descriptors, journal and the WAL that slots keep stay what they are after the first flips."""
    d = world.prepared(pair={"max_wal_size": "64MB", "min_wal_size": "32MB"}, watch={"duration": "1s"})
    seen, flips = [], 0
    while flips < FLIPS:
        load = world.ledger(sessions=20, rate=10)
        for _ in range(min(ROUND, FLIPS - flips)):
            answer = flip(d)
            assert answer.code == 0, answer
            d.wait_status(lambda s: s["phase"] == "steady" and s["way_back"]["open"], timeout=120, what="a steady state")
            flips += 1
        load.stop()
        load.assert_clean()
        world.assert_same_data(settle=60)
        load.verify(world.blue)
        load.verify(world.green)
        seen.append(sizes(world, d))
        world.note("%d flips: %s" % (flips, seen[-1]))
    early, late = seen[min(4, len(seen) - 1)], seen[-1]
    assert late["resident"] < early["resident"] * 1.2 + 16 * MIB, (early, late)
    assert late["descriptors"] <= early["descriptors"] + 8, (early, late)
    assert max(late["kept_blue"], late["kept_green"]) < 256 * MIB, late
    assert_one_active(world, d.status()["active"])


def rejoined(world, d):
    """A side that was taken over from comes back: what only it has is given up, as an operator would say."""
    s = d.wait_status(lambda s: all(side["reachable"] for side in s["sides"].values()) and s["flip"] is None, timeout=120,
                      what="both sides are there")
    if "diverged" in [side["standing"] for side in s["sides"].values()]:
        d.verb("rejoin", timeout=300, code=0)


def test_random_kills(world):
    """kill -9 of the proxy, of either cluster and of apply workers at any moment of flips and watches."""
    scene = Scene(world, watch={"duration": "2s"})
    d, flips, kills, doubts, acknowledged = scene.d, 0, 0, 0, 0
    while flips < FLIPS:
        load = scene.load()
        for _ in range(min(ROUND, FLIPS - flips)):
            source = d.status()["active"]
            verb = d.start_verb("cutover" if source == "blue" else "flip-back")
            time.sleep(random.uniform(0, 1.5))
            if random.random() < 0.25:
                scene.strike(random.choice(("daemon_killed", "source_killed", "target_killed", "source_worker", "target_worker")),
                             source)
                kills += 1
                time.sleep(random.choice((0, 0.5, 4)))
            scene.mend()
            verb.finish(timeout=120)
            rejoined(world, d)
            d.wait_status(lambda s: s["phase"] in ("steady", "watch") and s["flip"] is None and s["way_back"]["open"], timeout=180,
                          what="the way back is open")
            if d.status()["phase"] == "watch":
                d.wait_status(lambda s: s["phase"] == "steady", timeout=60, what="the watch is over")
            flips += 1
        rejoined(world, d)
        scene.settle(load)
        doubts += load.summary["in_doubt"]
        acknowledged += load.summary["acknowledged_writes"]
        world.note("%d flips, %d kills, %d acknowledged, %d in doubt, nothing lost: %s"
                   % (flips, kills, acknowledged, doubts, sizes(world, d)))


for _test in (test_nothing_grows, test_random_kills):
    _test.long = True
    _test.timeout = 120 + FLIPS * 30
