"""The network fails between proxy, blue and green, at each phase of a flip, in the watch and at rest: holds end by
their deadline, no instant has two open sides, and when it works again everything settles by itself."""
import random
import select
import socket
import threading
import time

import strikes
from daemon import SLOW
from namespaces import Namespaces
from network import LINKS, MAX_HOLD_S, WATCH, Forwarder, Scene, Witness
from test_flip import assert_one_active

PHASES = ("arm", "hold", "drain", "fence", "catchup", "ready", "commit", "open", "release", "turn")
PAIRS = ("source", "target", "between")
PATIENCE_S = 15  # of a hold past its deadline, on a machine that has other things to do


def strike(scene, verb, phase, pair, fault, lasts_s):
    """One flip, with one fault at the beginning of a phase. A flip that a slow machine ended before is made again."""
    for _ in range(20):
        if strike_once(scene, verb, phase, pair, fault, lasts_s):
            return
    raise AssertionError("no %s came to %s" % (verb, phase))


def strike_once(scene, verb, phase, pair, fault, lasts_s):
    """False: the flip didn't come to the phase."""
    world, d = scene.world, scene.d
    source = "blue" if verb == "cutover" else "green"
    scene.ready(source)
    loads = scene.load()
    witness = Witness(world, d)
    time.sleep(0.3)
    began = time.monotonic()
    scene.strikes.on(phase + ":before", lambda: scene.inject(fault, pair, source))
    run = d.start_verb(verb)
    d.until(lambda: scene.strikes.struck.is_set() or (not run.running and (phase != "turn" or run.process.returncode == 1)), 60,
            "the flip comes to " + phase)
    if not scene.strikes.struck.is_set():
        assert run.finish().code == 1
        witness.stop()
        scene.settle(loads)
        return False
    if scene.net.FAULTS[fault][1]:
        time.sleep(lasts_s)
    scene.net.heal()
    answer = run.finish(timeout=90)
    ended = time.monotonic()
    active = scene.settle(loads)
    settled = time.monotonic()
    witness.stop()
    assert_one_active(world, active)
    assert answer.code in (0, 1, 4), answer
    taken_over = d.status()["last_flip"]["kind"] == "takeover"
    if pair != "target" and not taken_over:  # a side that can't be reached is open at most for itself
        assert not witness.splits, (verb, phase, pair, fault, witness.splits)
    assert witness.longest_hold_s < (MAX_HOLD_S + PATIENCE_S) * SLOW, witness.longest_hold_s
    result = {0: "done", 1: "stayed", 4: "inconclusive"}[answer.code]
    if (answer.code == 0) != (active != source) and answer.code != 4:
        assert taken_over, (answer, d.status())
    strikes.tell(world, "%s %s %s %s" % (scene.net.NAME, strikes.MODES[scene.lossless], verb, phase),
                 "%-8s %-13s %4.1f s: %-12s %-5s verb %4.1f s, looks %d" % (
                     pair, fault, lasts_s, result, active, ended - began, witness.looks),
                 loads, witness, settled - began)
    return True


def test_forwarder(world):
    """What the other tests trust in: each fault does what it says."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(90)
    net = Forwarder(world, {"it": server.getsockname()[1]})

    def joined():
        client = socket.create_connection(("127.0.0.1", net.ports["it"]), 30)
        there = server.accept()[0]
        there.settimeout(90)
        return client, there

    def silent(end):
        return not select.select([end], [], [], 0.3)[0]

    def lost(end):
        try:
            return end.recv(100) == b""
        except ConnectionResetError:
            return True
    client, there = joined()
    net.say("stall", "it", "up")
    client.sendall(b"one")
    there.sendall(b"other")
    assert client.recv(100) == b"other" and silent(there)
    client.close()
    assert silent(there), "not even the end passes"
    with socket.create_connection(("127.0.0.1", net.ports["it"]), 30) as late:
        late.sendall(b"late")
        net.say("pass", "it")
        assert there.recv(100) == b"one" and there.recv(100) == b"", "kept, not lost"
        assert server.accept()[0].recv(100) == b"late"
    for way, length in (("up", 5), ("down", 3)):
        client, there = joined()
        sender, receiver = (client, there) if way == "up" else (there, client)
        net.say("cut", "it", way, length)
        sender.sendall(b"0123456789")
        try:
            assert receiver.recv(100)[:length + 1] in (b"", b"0123456789"[:length])
        except ConnectionResetError:
            pass
        assert lost(receiver) and lost(sender)
        client, there = joined()
        sender.close()
        client.sendall(b"once")
        assert there.recv(100) == b"once"
    net.say("delay", "it", "both", 300)
    began = time.monotonic()
    client.sendall(b"slow")
    assert there.recv(100) == b"slow" and time.monotonic() - began >= 0.29
    net.say("pass", "it")
    net.say("throttle", "it", "down", 1000)
    began = time.monotonic()
    there.sendall(b"x" * 500)
    received = b""
    while len(received) < 500:
        received += client.recv(500)
    assert time.monotonic() - began >= 0.4
    net.say("pass", "it")
    assert net.count("it") >= 1
    for gone in ("server", "client"):
        client, there = joined()
        lives, dead = (client, there) if gone == "server" else (there, client)
        net.say("half", "it", gone)
        assert lost(dead) and silent(lives), gone
        net.say("pass", "it")
        assert lost(lives), gone
    client, there = joined()
    net.say("refuse", "it")
    client.sendall(b"still")
    assert there.recv(100) == b"still"
    try:
        socket.create_connection(("127.0.0.1", net.ports["it"]), 30)
        raise AssertionError("not refused")
    except ConnectionRefusedError:
        pass
    net.say("reset", "it")
    assert lost(client) and lost(there)
    net.say("pass", "it")
    joined()


def test_witness(world):
    """It sees two open sides, and the daemon puts it right."""
    scene = Scene(world)
    witness = Witness(world, scene.d)
    def seen():  # until the daemon has put it right again, which the witness may miss
        world.green.query("set session_replication_role = replica; select switchback.set_fences(false)", user="switchback")
        return witness.splits
    scene.d.until(seen, what="the witness sees it")
    scene.d.wait_status(lambda s: s["sides"]["green"]["fenced"], what="green is fenced again")
    witness.stop()


def test_faults_in_a_flip(world):
    """A few of all, others each time."""
    scene = Scene(world)
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    print("seed", seed)
    for verb in ("cutover", "flip-back", "cutover", "flip-back"):
        strike(scene, verb, dice.choice(PHASES), dice.choice(PAIRS), dice.choice(sorted(Forwarder.FAULTS)), dice.choice((0.2, 1, 3)))


test_faults_in_a_flip.timeout = 400


def faults(lasting_s):
    """(pair, fault, seconds): each fault between each pair; one that lasts once for each of the times."""
    return [(pair, fault, lasts_s) for pair in PAIRS for fault in sorted(Forwarder.FAULTS)
            for lasts_s in (lasting_s if Forwarder.FAULTS[fault][1] else (0,))]


def make(verb, phase, lossless):
    def test(world):
        scene = Scene(world, databases=("app", "shop"), lossless=lossless)
        for pair, fault, lasts_s in strikes.chosen(faults((0.3, MAX_HOLD_S + 3))):
            strike(scene, verb, phase, pair, fault, lasts_s * random.uniform(0.7, 1.3))
    test.__doc__ = "Every fault between each pair at %s of a %s, short and longer than the hold, %s the promise." % (
        phase, verb, "with" if lossless else "without")
    test.long = True
    test.timeout = 3000
    return test


for _verb in ("cutover", "flip-back"):
    for _phase in PHASES:
        for _name, _lossless in (("plain", False), ("lossless", True)):
            globals()["test_%s_%s_every_fault_at_%s" % (_name, _verb.replace("-", "_"), _phase)] = make(_verb, _phase, _lossless)


def test_packets_lost_in_a_flip(world):
    """The same in network namespaces, where packets are lost and TCP itself must see to it."""
    scene = Scene(world, Namespaces(world))
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    print("seed", seed)
    for verb in ("cutover", "flip-back", "cutover", "flip-back"):
        strike(scene, verb, dice.choice(PHASES), dice.choice(PAIRS), dice.choice(sorted(Namespaces.FAULTS)), dice.choice((0.2, 1, 3)))


test_packets_lost_in_a_flip.timeout = 400


def test_lost_transaction_lives_on(world):
    """The proxy loses the target at the point of no return, the target's server isn't told: what its session holds must
    not be in the way when it is back."""
    scene = Scene(world)
    d = scene.d

    def lose():
        scene.net.say("refuse", "green")
        scene.net.say("half", "green", "client")
    scene.strikes.on("open:before", lose)
    assert d.verb("cutover", code=1).json["result"] == "aborted"
    left = "select count(*) from pg_stat_activity where application_name ~ '^switchback work' and state = 'idle in transaction'"
    d.until(lambda: world.green.value(left) == "1", what="its session is left")
    d.wait_status(lambda s: not s["sides"]["green"]["reachable"], what="green is lost")
    scene.net.say("admit", "green")
    d.wait_steady("blue")
    d.until(lambda: world.green.value("select epoch from switchback.state") == world.blue.value("select epoch from switchback.state"),
            what="green knows of the epoch")
    assert world.green.value(left) == "0"
    d.verb("cutover", code=0)
    assert_one_active(world, "green")


def go_green(scene):
    scene.d.until(lambda: scene.d.verb("status").json["active"] == "green" or scene.d.verb("cutover").code == 0, 180, "a cutover")


def at_rest(scene, pair, fault, lasts_s, clean):
    """No flip runs, perhaps a watch does. `clean`: clients must not notice. Returns who is active afterwards."""
    world, d = scene.world, scene.d
    before = d.status()
    active = before["active"]
    loads = scene.load()
    witness = Witness(world, d)
    time.sleep(0.5)
    scene.inject(fault, pair, active)
    end = time.monotonic() + (lasts_s if scene.net.FAULTS[fault][1] else 0)
    while True:
        assert d.verb("status").code in (0, 4) and d.http("/healthz")[0] == 200
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    scene.net.heal()
    began = time.monotonic()
    after = scene.settle(loads)
    witness.stop()
    assert_one_active(world, after)
    assert not witness.splits or after != active, (pair, fault, witness.splits)  # one that was taken over from lives on unseen
    for load in loads if clean else []:
        load.assert_clean()
    strikes.tell(world, "%s %s" % (scene.net.NAME, before["phase"]), "%-8s %-13s %4.1f s: %s, then %s" % (
        pair, fault, lasts_s, active, after), loads, witness, time.monotonic() - began, flips=after != active)
    return after


def test_faults_at_rest(world):
    """What doesn't touch the active side isn't noticed by clients; what does ends when it is over."""
    scene = Scene(world)
    dice = random.Random()
    for pair in PAIRS:
        for fault in dice.sample(sorted(Forwarder.FAULTS), 3):
            assert at_rest(scene, pair, fault, dice.choice((0.5, 3)), clean=pair != "source") == "blue"


test_faults_at_rest.timeout = 400


def test_faults_in_the_watch(world):
    """A gate moves traffic, and the loss of a side whose commits are confirmed; none goes where it can't be served."""
    scene = Scene(world, **WATCH)
    go_green(scene)
    dice = random.Random()
    for pair in PAIRS:
        fault = dice.choice(sorted(Forwarder.FAULTS))
        if at_rest(scene, pair, fault, dice.choice((0.5, 3)), clean=pair != "source") == "blue":
            go_green(scene)


test_faults_in_the_watch.timeout = 400


def every_fault_at_rest(watch):
    def test(world):
        scene = Scene(world, **WATCH)
        for pair, fault, lasts_s in strikes.chosen(faults((0.7, 12))):
            if watch:
                go_green(scene)
            at_rest(scene, pair, fault, lasts_s, clean=pair != "source")
    test.__doc__ = "Every fault between each pair, " + ("in the watch." if watch else "when nothing runs.")
    test.long = True
    test.timeout = 3000
    return test


test_every_fault_at_rest = every_fault_at_rest(False)
test_every_fault_in_the_watch = every_fault_at_rest(True)


def every_loss(verb, lossless):
    def test(world):
        scene = Scene(world, Namespaces(world), lossless=lossless)
        losses = [(phase, pair, fault) for phase in PHASES for pair in PAIRS for fault in sorted(Namespaces.FAULTS)]
        for phase, pair, fault in strikes.chosen(losses):
            strike(scene, verb, phase, pair, fault, random.choice((0.3, 2, MAX_HOLD_S + 4)))
    test.__doc__ = "Every loss of packets between each pair at each phase of a %s, %s the promise." % (
        verb, "with" if lossless else "without")
    test.long = True
    test.timeout = 4000
    return test


test_plain_cutover_every_loss = every_loss("cutover", False)
test_lossless_cutover_every_loss = every_loss("cutover", True)
test_plain_flip_back_every_loss = every_loss("flip-back", False)
test_lossless_flip_back_every_loss = every_loss("flip-back", True)


def chaos(scene, dice, seconds):
    """Faults come and go between all parts, while flips are asked for; then all of it must settle."""
    world, d = scene.world, scene.d
    loads = scene.load()
    over = threading.Event()

    def strike_at_random():
        while not over.is_set():
            link, fault = dice.choice(LINKS), dice.choice(sorted(Forwarder.FAULTS))
            Forwarder.FAULTS[fault][0](scene.net, [link])
            over.wait(dice.choice((0.05, 0.3, 1, 4)))
            scene.net.say("pass", dice.choice((link, "*")))
            over.wait(dice.choice((0.1, 0.5, 2)))
    striker = threading.Thread(target=strike_at_random, daemon=True)
    striker.start()
    end = time.monotonic() + seconds
    codes = []
    while time.monotonic() < end:
        answer = d.verb("status")
        verb = "cutover" if answer.code in (0, 4) and answer.json["active"] == "blue" else "flip-back"
        codes.append(d.verb(verb).code)
        time.sleep(dice.choice((0.1, 1, 3)))
    over.set()
    striker.join(180)
    scene.net.heal()
    began = time.monotonic()
    active = scene.settle(loads)
    assert_one_active(world, active)
    print("flips by exit code %s; settled on %s after %.1f s; %d acknowledged writes, %d in doubt" % (
        {code: codes.count(code) for code in sorted(set(codes))}, active, time.monotonic() - began,
        sum(load.summary["acknowledged_writes"] for load in loads), sum(load.summary["in_doubt"] for load in loads)), flush=True)


def test_faults_come_and_go(world):
    scene = Scene(world, databases=("app", "shop"))
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    print("seed", seed)
    for _ in range(10):
        chaos(scene, dice, 60)


test_faults_come_and_go.long = True
test_faults_come_and_go.timeout = 3000


def test_verbs_with_a_silent_side(world):
    """Whatever an operator asks while a side hangs, there is an answer; it isn't the verb that hangs."""
    scene = Scene(world)
    d = scene.d
    for pair in ("target", "source", "between"):
        scene.inject("partition", pair, "blue")
        for verb in (["status"], ["check"], ["sessions"], ["cutover", "--dry-run"], ["cutover"], ["flip-back"], ["prepare"],
                     ["finalize"], ["hold", "--for", "1s", "--reason", "test"], ["release"], ["reload"]):
            began = time.monotonic()
            answer = d.verb(*verb, timeout=90)
            print("%-8s %-18s exit %d after %4.1f s: %s" % (pair, " ".join(verb)[:18], answer.code, time.monotonic() - began, answer.out[:160] + answer.err[:160]))
        scene.net.heal()
        d.prepare()
        d.wait_steady("blue")


test_verbs_with_a_silent_side.long = True
test_verbs_with_a_silent_side.timeout = 900
