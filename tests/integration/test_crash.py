"""kill -9 of the daemon at each phase, and of the clusters at any moment: the next start settles it by itself."""
import random
import threading
import time

from test_flip import assert_one_active

PHASES = ("preflight", "arm", "hold", "drain", "fence", "catchup", "ready", "commit", "open", "release", "turn")


def settle(world, d, load):
    """One side active, the other fenced, the way back open; nothing promised is missing."""
    s = d.wait_status(lambda s: s["phase"] == "steady" and s["way_back"]["open"] and s["flip"] is None, timeout=60, what="a steady state")
    assert_one_active(world, s["active"])
    time.sleep(0.5)
    load.stop()
    assert load.summary["wrong"] == 0 and load.summary["acknowledged_writes"] > 0, load.summary
    world.assert_same_data()
    load.verify(world.blue)
    load.verify(world.green)
    return s["active"]


def crash_at(world, verb, start, points):
    """Crashes the daemon at each point of a flip in turn; each time it must come back by itself."""
    d = world.prepared(pair={"fsync": "on"}, hooks={"after_cutover": ["/bin/true"]})
    sides = []
    for point in points:
        if d.status()["active"] != start:
            d.verb("cutover" if start == "green" else "flip-back", code=0)
            d.wait_steady(start)
        d.stop()
        d.start(environment={"SWITCHBACK_TEST_CRASH": point})
        d.wait_steady(start)
        load = world.ledger(sessions=8, rate=25)
        run = d.start_verb(verb)
        d.wait_exit(60)
        assert d.process.returncode not in (0, 1, 2), (point, d.process.returncode)
        # a cutover returns before its turn and before the hook after it, which ends the release of a lossless one
        assert run.finish().code in ((0, 5) if point.startswith("turn") or point == "release:after" else (5,)), point
        d.start()
        active = settle(world, d, load)
        sides.append((point, active))
    print(sides)
    return dict(sides)


def make(verb, start, phase):
    def test(world):
        other = "green" if start == "blue" else "blue"
        sides = crash_at(world, verb, start, ["%s:before" % phase, "%s:after" % phase])
        if PHASES.index(phase) < PHASES.index("commit"):
            assert sides[phase + ":before"] == sides[phase + ":after"] == start, sides
        elif PHASES.index(phase) > PHASES.index("commit"):
            assert sides[phase + ":after"] == other, sides
    test.__doc__ = "The daemon dies before and after phase %s of a %s." % (phase, verb)
    test.timeout = 300
    return test


for _phase in PHASES:
    globals()["test_daemon_killed_at_" + _phase] = make("cutover", "blue", _phase)
for _phase in ("fence", "commit", "open", "release"):
    globals()["test_daemon_killed_at_%s_of_a_flip_back" % _phase] = make("flip-back", "green", _phase)


def test_daemon_killed_around_the_point_of_no_return(world):
    """Between the journal's rows, the target's COMMIT and the first session that moves."""
    points = ["%s:%s" % (action, when) for action in ("journal_commit", "journal_released", "swap") for when in ("before", "after")]
    sides = crash_at(world, "cutover", "blue", points)
    assert sides["journal_commit:before"] == "blue" and sides["journal_commit:after"] == "green", sides
    assert {sides[point] for point in points[2:]} == {"green"}, sides


test_daemon_killed_around_the_point_of_no_return.timeout = 400


def test_daemon_killed_at_random(world):
    """kill -9 at any moment of flips, again and again."""
    d = world.prepared(pair={"fsync": "on"})
    for _ in range(8):
        load = world.ledger(sessions=8, rate=25)
        time.sleep(0.3)
        verb = "cutover" if d.status()["active"] == "blue" else "flip-back"
        run = d.start_verb(verb)
        time.sleep(random.uniform(0, 0.6))
        d.kill()
        run.finish()
        d.start()
        settle(world, d, load)


test_daemon_killed_at_random.timeout = 400


def cluster_dies(world, which):
    d = world.prepared(pair={"fsync": "on"}, flip={"drain": {"timeout": "2s"}, "catchup": {"timeout": "2s"}, "max_hold": "6s"})
    for _ in range(4):
        load = world.ledger(sessions=8, rate=25)
        time.sleep(0.3)
        active = d.status()["active"]
        victim = {"source": world.side(active), "target": world.other(active)}[which]
        done = []
        run = d.start_verb("cutover" if active == "blue" else "flip-back")
        threading.Thread(target=lambda: done.append(run.finish(timeout=60))).start()
        time.sleep(random.uniform(0, 0.5))
        victim.kill()
        time.sleep(random.uniform(0, 2))
        victim.start()
        d.until(lambda: done, 60, "the verb ends")
        print(done[0].code, done[0].out[:300])
        settle(world, d, load)


def test_source_killed_in_a_flip(world):
    cluster_dies(world, "source")


def test_target_killed_in_a_flip(world):
    cluster_dies(world, "target")


test_source_killed_in_a_flip.timeout = test_target_killed_in_a_flip.timeout = 400


def test_target_hangs_in_a_flip(world):
    """A target that stops answering: clients go on at their deadline, on the source."""
    d = world.prepared(flip={"drain": {"timeout": "1s"}, "catchup": {"timeout": "1s"}, "max_hold": "4s"})
    load = world.ledger(sessions=8, rate=25)
    world.green.pause()
    started = time.monotonic()
    d.verb("cutover", code=1)
    print("refused after %.1f s" % (time.monotonic() - started))
    assert d.status()["active"] == "blue"
    world.green.resume()
    d.wait_steady("blue")
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    load.verify(world.blue)
    d.verb("cutover", code=0)
