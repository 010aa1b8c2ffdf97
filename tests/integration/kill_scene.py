"""A pair under a daemon, all of which can be killed and whose disks can be broken at a given place of a flip; for test_kill.py
and test_kill_watch.py."""
import os
import random
import re
import signal
import threading
import time

import disk
import pg
import strikes
from daemon import LIMIT, SLOW
from network import Strikes, Witness
from test_flip import assert_one_active

PAIR = {"fsync": "on"}  # what a kill takes must be what a power failure would take
MAX_HOLD_S = 9
PATIENCE_S = 15  # of a hold past its deadline, on a machine that has other things to do
FLIP = {"drain": {"timeout": "3s"}, "catchup": {"timeout": "3s"}, "max_hold": "%ds" % MAX_HOLD_S}
# How long a phase lasts about, in ms: a strike comes at any moment of it.
LASTS = {"preflight": 200, "arm": 100, "hold": 2, "drain": 100, "fence": 10, "catchup": 4, "ready": 8, "commit": 8, "open": 5,
         "release": 10, "turn": 50}


class Scene:
    def __init__(self, world, cluster_disks=False, lossless=None, **settings):
        self.world, self.lossless = world, lossless
        flip = FLIP if lossless is None else dict(FLIP, lossless=lossless)
        self.d = world.prepared(pair=PAIR, flip=flip, **settings)
        self.strikes = Strikes(world.folder)
        self.disks = {"daemon": disk.Disk(world, self.d.settings["state"]["dir"])}
        self.d.added = dict(self.disks["daemon"].environment, SWITCHBACK_TEST_STRIKE=self.strikes.path)
        self.d.stop()
        for name in ("blue", "green") if cluster_disks else ():
            side = world.side(name)
            side.stop()
            self.disks[name] = disk.Disk(world, side.data)
            side.environment, side.may_panic = self.disks[name].environment, True
            side.start()
        self.d.start()
        self.d.wait_steady("blue")

    def load(self):
        return self.world.ledger(sessions=8, rate=15, states=True)

    def kill_worker(self, name):
        """kill -9 of the apply worker: the server ends every session and recovers by itself."""
        pid = int(self.world.side(name).value(
            "select coalesce(max(pid), 0) from pg_stat_activity where backend_type like 'logical replication%worker'",
            "postgres"))  # in a managed database a fence would end the question
        if pid:
            os.kill(pid, signal.SIGKILL)

    def last_phase(self, since):
        """The phase that the daemon's log told of last."""
        found = re.findall(r" phase=(\w+) message", self.d.log_text()[since:])
        return found[-1] if found else "none"

    def strike(self, victim, source):
        """`victim`: daemon, everything, both_sides; or what and how: target_killed, source_worker, daemon_disk_full ..."""
        target = "green" if source == "blue" else "blue"
        who, _, how = victim.partition("_")
        name = {"source": source, "target": target}.get(who, who)
        if victim in ("everything", "both_sides"):
            if victim == "everything":
                self.d.kill()
            self.world.blue.kill()
            self.world.green.kill()
        elif how == "killed":
            (self.d if name == "daemon" else self.world.side(name)).kill()
        elif how == "worker":
            self.kill_worker(name)
        elif how == "disk_sync_fails_then_killed":  # what can't be synced may be on the disk all the same
            self.disks[name].set(disk.SYNC_FAILS)
            time.sleep(random.uniform(0, 0.3))
            self.d.kill()
        else:
            faults = {"disk_full": disk.FULL, "disk_read_only": disk.READ_ONLY, "disk_sync_fails": disk.SYNC_FAILS,
                      "disk_sync_slow": disk.SYNC_SLOW}
            self.disks[name].set(faults[how], slow_ms=1500)
            if how == "disk_full" and name != "daemon":
                fill_wal(self.world.side(name))

    def mend(self):
        """What an operator or a supervisor does who knows nothing: disks are healthy again, what doesn't run is started."""
        for one in self.disks.values():
            one.heal()
        for side in (self.world.blue, self.world.green):
            revive(side)
        if not self.d.running:
            self.d.start()

    def ready(self, source):
        """`source` is active, and a flip away from it may begin: out of the watch with the promise, if there is one."""
        watched = bool(self.lossless) and source == "green"
        for _ in range(10):
            s = self.d.wait_status(self.settled, timeout=120, what="a state in which a flip may begin")
            if s["active"] == source and (s["phase"] == "watch") == watched:
                return
            self.d.verb("cutover" if s["active"] == "blue" else "flip-back")
        raise AssertionError("%s doesn't become active" % source)

    def settled(self, s):
        """No flip, the way back open, and in a lossless watch what it promises."""
        if s["phase"] == "watch" and not (self.lossless and s["way_back"]["promise"]["on"]):
            return False
        return s["phase"] in ("steady", "watch") and s["way_back"]["open"] and s["flip"] is None

    def login(self):
        """A client; None where the proxy still believes that the side is down: it tries it again within a second."""
        try:
            return self.world.connect()
        except pg.PgError as error:
            assert error.sqlstate == "57P03", error
            return None

    def settle(self, load, active=None, phase=None):
        """One side active, the other fenced, the way back open, clients served; nothing promised is missing."""
        world, d = self.world, self.d
        def settled(s):
            if phase:
                return s["phase"] == phase and s["way_back"]["open"] and s["flip"] is None and active in (None, s["active"])
            return self.settled(s) and active in (None, s["active"])
        s = d.wait_status(lambda s: settled(s) or diverged(s), timeout=120, what="a settled state")
        if diverged(s):  # both were dead long enough: it was taken over from, and what to do with it is the operator's to say
            d.verb("rejoin", code=0)
            s = d.wait_status(settled, timeout=120, what="a settled state after a rejoin")
        check_sides(world, s["active"])
        with d.until(self.login, what="clients are served") as client:
            client.query("update account set note = 'served' where id = 1")
            client.query("update account set note = repeat('x', 40) where id = 1")
        load.stop()
        assert load.summary["wrong"] == 0 and load.summary["acknowledged_writes"] > 0, load.summary
        world.assert_same_data(settle=60)
        load.verify(world.blue)
        load.verify(world.green)
        assert not self.strikes.problems, self.strikes.problems
        d.until(lambda: d.verb("status").code == 0, what="status has no trouble left")
        return s["active"]

    def tell(self, group, what, victim, load, witness, elapsed):
        """What a strike showed, when it has settled. Only a side that was away may be open beside the other, until it is met."""
        assert not witness.splits or not victim.startswith("daemon"), witness.splits
        assert witness.split_s < PATIENCE_S * SLOW, witness.splits
        assert witness.longest_hold_s < (MAX_HOLD_S + PATIENCE_S) * SLOW, witness.longest_hold_s
        strikes.tell(self.world, group, what, [load], witness, elapsed)

    def reach(self, verb, phase):
        """A flip that has just come to `phase`; one that a slow machine ended before is made again."""
        for _ in range(20):
            self.strikes.on(phase + ":before", lambda: None)
            flip = self.d.start_verb(verb)
            # a cutover may return before its last phases
            self.d.until(lambda: self.strikes.struck.is_set() or (not flip.running and flip.process.returncode != 0), 60,
                         "%s comes to %s" % (verb, phase))
            if self.strikes.struck.is_set():
                return flip
            answer = flip.finish(code=1)
            print("%s didn't come to %s: %r" % (verb, phase, answer))
            self.ready("blue" if verb == "cutover" else "green")
        raise AssertionError("%s was not reached" % phase)

    def in_a_flip(self, verb, phase, victim, abort=False):
        """Strikes inside `phase` of a flip, or of its abort in that phase; the active side in the end."""
        d, source = self.d, "blue" if verb == "cutover" else "green"
        self.ready(source)
        witness = Witness(self.world, d)
        load = self.load()
        time.sleep(random.uniform(0.2, 0.5))
        since = len(d.log_text())
        flip = self.reach(verb, phase)
        time.sleep(random.uniform(0, LASTS[phase]) / 1000)
        aborting = d.start_verb("abort") if abort else None
        if abort:
            time.sleep(random.uniform(0, 0.05))
        started = time.monotonic()
        self.strike(victim, source)
        at = self.last_phase(since)
        result = []
        waiter = threading.Thread(target=lambda: result.append(flip.finish(timeout=120)))
        waiter.start()
        time.sleep(random.uniform(0, 2))
        self.mend()
        active = self.settle(load)
        elapsed = time.monotonic() - started
        witness.stop()
        waiter.join(120 * LIMIT)
        assert result, "the verb doesn't end"
        answer = result[0]
        assert answer.code in (0, 1, 3, 4, 5), answer
        if answer.code == 0 and answer.json.get("result") == "done":
            assert active != source or d.status()["last_flip"]["kind"] == "takeover", (answer, active)
        if aborting:
            code = aborting.finish().code
            assert code in (0, 1, 5), code
            assert code != 0 or active == source, "it said that it was aborted"
        group = "kill %s %s %s" % (strikes.MODES[self.lossless], "abort" if abort else verb, victim)
        self.tell(group, "%-9s last seen in %-9s -> %-5s exit %d" % (phase, at, active, answer.code), victim, load, witness, elapsed)
        return active


def diverged(s):
    """A side is, can be reached and is fenced, and nothing else is going on."""
    return s["flip"] is None and any(side["standing"] == "diverged" and side["reachable"] and side["fenced"]
                                     for side in s["sides"].values())


def fill_wal(side):
    """The server needs a new file for its log, as it does in time: it can't have it."""
    try:
        with side.connect() as connection:
            for _ in range(8):
                connection.query("select pg_logical_emit_message(true, 'full', 'x'); select pg_switch_wal()")
    except (OSError, pg.Closed, pg.PgError):
        pass


def check_sides(world, active, timeout=60):
    """One accepts writes, the other doesn't; a server that just recovers from a worker's death is waited for."""
    end = time.monotonic() + timeout * LIMIT
    while True:
        try:
            return assert_one_active(world, active)
        except (OSError, pg.Closed, pg.PgError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def revive(side, timeout=60):
    """Waits until a side answers; starts it where its server has ended."""
    end = time.monotonic() + timeout * LIMIT
    while True:
        if side.process.poll() is not None:
            side.start(wait=False)
        try:
            side.connect().close()
            return
        except (OSError, pg.Closed, pg.PgError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
