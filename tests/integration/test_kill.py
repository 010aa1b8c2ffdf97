"""The kill matrix: kill -9 of the daemon, of either side or of an apply worker, and disks that fail, *inside* each phase of
cutovers and flip-backs, of an abort and of the watch. (test_crash.py strikes exactly at the phases' boundaries.)

After each strike, without help: one side active, the other fenced, clients served, the ledger right, both sides equal.
The matrix runs by hand (`runner.py kill --long`, figures in the file that $SWITCHBACK_NOTES names); a slice of it runs always.
"""
import os
import random
import re
import signal
import threading
import time

import disk
from daemon import SLOW
from network import Strikes
from test_crash import PHASES
from test_flip import assert_one_active

PAIR = {"fsync": "on"}  # what a kill takes must be what a power failure would take
FLIP = {"drain": {"timeout": "3s"}, "catchup": {"timeout": "3s"}, "max_hold": "9s"}
# How long a phase lasts about, in ms: a strike comes at any moment of it.
LASTS = {"preflight": 200, "arm": 100, "hold": 2, "drain": 100, "fence": 10, "catchup": 4, "ready": 8, "commit": 8, "open": 5,
         "release": 10, "turn": 50}


def apply_worker(side):
    return int(side.value("select coalesce(max(pid), 0) from pg_stat_activity where backend_type like 'logical replication%worker'"
                          " and backend_type <> 'logical replication launcher'"))


def kill_worker(side):
    """kill -9 of the apply worker: the server ends every session and recovers by itself."""
    pid = apply_worker(side)
    if pid:
        os.kill(pid, signal.SIGKILL)
    return pid


def settle(world, d, load, active=None):
    """One side active, the other fenced, the way back open, clients served; nothing promised is missing."""
    s = d.wait_status(lambda s: s["phase"] == "steady" and s["way_back"]["open"] and s["flip"] is None
                      and active in (None, s["active"]), timeout=120, what="a steady state")
    assert_one_active(world, s["active"])
    with world.connect() as client:
        client.query("update account set note = 'served' where id = 1")
        client.query("update account set note = repeat('x', 40) where id = 1")
    load.stop()
    assert load.summary["wrong"] == 0 and load.summary["acknowledged_writes"] > 0, load.summary
    world.assert_same_data(settle=60)
    load.verify(world.blue)
    load.verify(world.green)
    assert d.verb("status").code == 0, d.verb("status")
    return s["active"]


def last_phase(d, since):
    """The phase that the daemon's log told of last."""
    found = re.findall(r" phase=(\w+) message", d.log_text()[since:])
    return found[-1] if found else "none"


class Strike:
    """One flip, and what is done to it inside one phase."""

    def __init__(self, world, d, strikes, verb, phase, disk=None):
        self.world, self.d, self.strikes, self.verb, self.phase, self.disk = world, d, strikes, verb, phase, disk
        self.source = "blue" if verb == "cutover" else "green"
        if d.status()["active"] != self.source:
            d.verb("flip-back" if verb == "cutover" else "cutover", code=0)
            d.wait_steady(self.source)
        self.load = world.ledger(sessions=8, rate=15, states=True)
        time.sleep(random.uniform(0.2, 0.5))

    def run(self, victim):
        since = len(self.d.log_text())
        self.strikes.on(self.phase + ":before", lambda: None)
        verb = self.d.start_verb(self.verb)
        assert self.strikes.struck.wait(60 * SLOW), "%s was not reached: %r" % (self.phase, verb.finish())
        time.sleep(random.uniform(0, LASTS[self.phase]) / 1000)
        started = time.monotonic()
        getattr(self, victim)()
        at = last_phase(self.d, since)
        result = []
        waiter = threading.Thread(target=lambda: result.append(verb.finish(timeout=120)))
        waiter.start()
        self.mend(victim)
        active = settle(self.world, self.d, self.load)
        elapsed = time.monotonic() - started
        waiter.join(120 * SLOW)
        assert result, "the verb doesn't end"
        answer = result[0]
        assert answer.code in (0, 1, 3, 4, 5), answer
        if answer.code == 0 and answer.json.get("result") == "done":
            assert active != self.source, (answer, active)
        s = self.load.summary
        self.world.note("%-9s %-9s %-27s last seen in %-9s -> %-5s exit %d, settled after %5.1f s, acknowledged %d, in doubt %d, "
                        "failed %d" % (self.verb, self.phase, victim, at, active, answer.code, elapsed,
                                       s["acknowledged_writes"], s["in_doubt"], s["failed"]))
        return active

    # --- victims

    def daemon(self):
        self.d.kill()

    def source_side(self):
        self.world.side(self.source).kill()

    def target_side(self):
        self.world.other(self.source).kill()

    def source_worker(self):
        kill_worker(self.world.side(self.source))

    def target_worker(self):
        kill_worker(self.world.other(self.source))

    def both_sides(self):
        self.source_side()
        self.target_side()

    def everything(self):
        self.d.kill()
        self.both_sides()

    def disk_full(self):
        self.disk.set(disk.FULL)

    def disk_read_only(self):
        self.disk.set(disk.READ_ONLY)

    def disk_sync_fails(self):
        self.disk.set(disk.SYNC_FAILS)

    def disk_sync_slow(self):
        self.disk.set(disk.SYNC_SLOW, 1500)

    def disk_sync_fails_and_daemon(self):
        """What can't be synced may be on the disk all the same: the next start reads it, or not."""
        self.disk.set(disk.SYNC_FAILS)
        time.sleep(random.uniform(0, 0.3))
        self.d.kill()

    def mend(self, victim):
        time.sleep(random.uniform(0, 2))
        for side, names in ((self.world.side(self.source), ("source_side", "both_sides", "everything")),
                            (self.world.other(self.source), ("target_side", "both_sides", "everything"))):
            if victim in names:
                side.start()
        if self.disk:
            self.disk.heal()
        if victim in ("daemon", "everything") or victim.endswith("_daemon"):
            self.d.start()


def scene(world, **settings):
    """A pair under a daemon whose disk can be broken and that tells where it stands."""
    d, strikes = world.prepared(pair=PAIR, flip=FLIP, **settings), Strikes(world.folder)
    faulty = disk.Disk(world, d.settings["state"]["dir"])
    d.added = dict(faulty.environment, SWITCHBACK_TEST_STRIKE=strikes.path)
    d.stop()
    d.start()
    d.wait_steady("blue")
    return d, strikes, faulty


def matrix(world, verb, victim, phases):
    d, strikes, faulty = scene(world)
    for phase in phases:
        Strike(world, d, strikes, verb, phase, faulty).run(victim)
    assert not strikes.problems, strikes.problems
    if "disk" in victim and victim != "disk_full":  # a flip needs no room that it hasn't got before it holds anybody
        assert faulty.struck > 0, "no call was struck"


VICTIMS = ("daemon", "source_side", "target_side", "source_worker", "target_worker", "both_sides", "everything", "disk_full",
           "disk_read_only", "disk_sync_fails", "disk_sync_slow", "disk_sync_fails_and_daemon")


def make(verb, victim):
    def test(world):
        matrix(world, verb, victim, PHASES)
    test.__doc__ = "%s strikes in each phase of a %s." % (victim, verb)
    test.timeout = 1200
    test.long = True
    return test


for _verb in ("cutover", "flip-back"):
    for _victim in VICTIMS:
        globals()["test_%s_%s" % (_verb.replace("-", "_"), _victim)] = make(_verb, _victim)


def test_a_slice(world):
    """A few strikes of the matrix, others in each run."""
    d, strikes, faulty = scene(world)
    chosen = random.sample([(victim, phase) for victim in VICTIMS for phase in PHASES[4:]], 7)
    print(chosen)
    for victim, phase in chosen:
        verb = "cutover" if d.status()["active"] == "blue" else "flip-back"
        Strike(world, d, strikes, verb, phase, faulty).run(victim)


test_a_slice.timeout = 400


def test_a_full_disk_refuses_a_flip(world):
    """A flip that finds no room for its journal is refused before anybody waits, clients go on, and with room it works."""
    d, _strikes, faulty = scene(world)  # it has just started: no flip has reserved its room yet
    load = world.ledger(sessions=8, rate=15, states=True)
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
