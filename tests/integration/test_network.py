"""The network fails between proxy, blue and green, at each phase of a flip, in the watch and at rest: holds end by
their deadline, no instant has two open sides, and when it works again everything settles by itself."""
import random
import time

from daemon import SLOW
from network import FAULTS, MAX_HOLD_S, Scene, Witness
from test_flip import assert_one_active

PHASES = ("arm", "hold", "drain", "fence", "catchup", "ready", "commit", "open", "release", "turn")
PAIRS = ("source", "target", "between")
PATIENCE_S = 15  # of a hold past its deadline, on a machine that has other things to do


def strike(scene, verb, phase, pair, fault, lasts_s):
    """One flip, with one fault at the beginning of a phase. Returns what became of it."""
    world, d = scene.world, scene.d
    source = "blue" if verb == "cutover" else "green"
    if d.status()["active"] != source:
        d.verb("cutover" if source == "green" else "flip-back", code=0)
    d.wait_steady(source)
    load = world.ledger(sessions=6, rate=20)
    witness = Witness(world, d)
    time.sleep(0.3)
    began = time.monotonic()
    scene.strikes.on(phase + ":before", lambda: scene.inject(fault, pair, source))
    run = d.start_verb(verb)
    d.until(lambda: scene.strikes.struck.is_set() or not run.running, 60, "the flip comes to " + phase)
    if FAULTS[fault][1]:
        time.sleep(lasts_s)
    scene.heal()
    answer = run.finish(timeout=90)
    ended = time.monotonic()
    assert scene.strikes.struck.is_set(), (phase, answer)
    active = scene.settle(load)
    settled = time.monotonic()
    witness.stop()
    assert_one_active(world, active)
    assert answer.code in (0, 1, 4), answer
    if pair != "target":  # a target that can't be reached is open at most for itself
        assert not witness.splits, (verb, phase, pair, fault, witness.splits)
    assert witness.longest_hold_s < (MAX_HOLD_S + PATIENCE_S) * SLOW, witness.longest_hold_s
    result = {0: "done", 1: "stayed", 4: "inconclusive"}[answer.code]
    if (answer.code == 0) != (active != source):
        assert answer.code == 4, (answer, active)
    print("%-9s %-8s %-8s %-13s %4.1f s: %-12s %-5s verb %4.1f s, steady %4.1f s, held %4.1f s, doubt %d, looks %d" % (
        verb, phase, pair, fault, lasts_s, result, active, ended - began, settled - began, witness.longest_hold_s,
        load.summary["in_doubt"], witness.looks), flush=True)
    return result


def test_faults_in_a_flip(world):
    """A few of all, others each time."""
    scene = Scene(world)
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    print("seed", seed)
    for verb in ("cutover", "flip-back", "cutover", "flip-back"):
        strike(scene, verb, dice.choice(PHASES), dice.choice(PAIRS), dice.choice(sorted(FAULTS)), dice.choice((0.2, 1, 3)))


test_faults_in_a_flip.timeout = 400


def make(verb, phase):
    def test(world):
        scene = Scene(world)
        dice = random.Random(verb + phase)
        for pair in PAIRS:
            for fault in sorted(FAULTS):
                for lasts_s in ((0.3, MAX_HOLD_S + 3) if FAULTS[fault][1] else (0,)):
                    strike(scene, verb, phase, pair, fault, lasts_s * dice.uniform(0.7, 1.3))
    test.__doc__ = "Every fault between each pair at %s of a %s, short and longer than the hold." % (phase, verb)
    test.long = True
    test.timeout = 3000
    return test


for _verb in ("cutover", "flip-back"):
    for _phase in PHASES:
        globals()["test_every_fault_at_%s_of_a_%s" % (_phase, _verb.replace("-", "_"))] = make(_verb, _phase)
