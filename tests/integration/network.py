"""A network that fails, for test_network.py: forwarders between the parts of a pair, strikes at the daemon's own
fault points, a witness that looks at both clusters past all of it, and what must hold afterwards.

    scene = Scene(world)                          # a prepared pair whose every connection goes through a forwarder
    scene.strikes.on("fence:before", lambda: scene.net.stall("blue", "down"))
    scene.d.start_verb("cutover")

The links of a network: `blue` and `green` lead from the proxy to the sides, `from_blue` and `from_green` from the other side's
subscription to the one that is named.
"""
import os
import socket
import threading
import time

import cluster
import pg
from daemon import LIMIT
from world import DRIVERS

LINKS = ("blue", "green", "from_blue", "from_green")
MAX_HOLD_S = 7
# the gate on lag would flip back once what had cut the sides off from each other is over, whenever that is
WATCH = {"watch": {"duration": "30m"}, "gates": [{"name": "lag", "metric": "replication_lag", "max": "1h"}]}


def _each(*words):
    return lambda net, links: [net.say(words[0], link, *words[1:]) for link in links]


def _refuse(net, links):
    for link in links:
        net.say("refuse", link)
        net.say("reset", link)


def _slow(net, links):
    for link in links:
        net.say("delay", link, "both", 150)
        net.say("throttle", link, "both", 200000)


class Forwarder:
    """tests/drivers/forwarder/forwarder.c: see there what each command does."""

    NAME = "network"
    FAULTS = {  # what can be done to some links, and whether it lasts until it is healed
        "partition": (_each("stall", "both"), True),
        "requests_lost": (_each("stall", "up"), True),
        "answers_lost": (_each("stall", "down"), True),
        "refused": (_refuse, True),
        "slow": (_slow, True),
        "reset": (_each("reset"), False),
        "cut_request": (_each("cut", "up", 40), False),
        "cut_answer": (_each("cut", "down", 9), False),
        "server_gone": (_each("half", "server"), True),
        "client_gone": (_each("half", "client"), True),
        "forgotten": (_each("forget"), True),
    }

    def __init__(self, world, targets=None):
        """`targets`: another set of links, by name the port that each leads to."""
        targets = targets or {name: (world.blue if name.endswith("blue") else world.green).port for name in LINKS}
        self.path = os.path.join(world.folder, "net")
        self.ports = {name: cluster.free_port() for name in targets}
        arguments = ["%s=%d:%d" % (name, port, targets[name]) for name, port in self.ports.items()]
        self.process = world.spawn([os.path.join(DRIVERS, "forwarder"), self.path] + arguments)
        end = time.monotonic() + 30 * LIMIT
        while not os.path.exists(self.path):
            assert self.process.poll() is None and time.monotonic() < end, "the forwarder doesn't start"
            time.sleep(0.01)

    def say(self, *words):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(30 * LIMIT)
            caller.connect(self.path)
            caller.sendall((" ".join(str(word) for word in words) + "\n").encode())
            answer = caller.recv(100).decode().split()
        assert answer and answer[0] == "ok", (words, answer)
        return answer[1:]

    def count(self, link):
        return int(self.say("count", link)[0])

    def heal(self):
        self.say("pass", "*")

    def sides(self):
        """The daemon's settings."""
        return {side: {"host": "127.0.0.1", "port": self.ports[side],
                       "replication": {"host": "127.0.0.1", "port": self.ports["from_" + side]}}
                for side in ("blue", "green")}


class Strikes:
    """Listens to where the daemon stands (SWITCHBACK_TEST_STRIKE) and does something there, once, while it waits."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "strike")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.wanted, self.seen, self.problems = {}, [], []
        self.struck = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def on(self, point, action):
        self.struck.clear()
        self.wanted = {point: action}

    def _serve(self):
        while True:
            caller = self.listener.accept()[0]
            with caller:
                point = caller.makefile().readline().strip()
                self.seen.append(point)
                action = self.wanted.pop(point, None)
                if action:
                    try:
                        action()
                    except Exception as problem:  # shown by the test
                        self.problems.append(repr(problem))
                    self.struck.set()
                try:
                    caller.sendall(b"\n")
                except OSError:
                    pass


class Witness:
    """Looks at both clusters directly, again and again: whether both accept writes at an instant, and how long clients
    have been held."""

    LOOK = ("select s.epoch, count(*) filter (where t.tgenabled in ('O', 'A')), count(t) from switchback.state s"
            " left join pg_trigger t on t.tgname = '!switchback_fence' group by 1")

    def __init__(self, world, daemon):
        self.world, self.daemon = world, daemon
        self.splits, self.longest_hold_s, self.looks = [], 0.0, 0
        self.stopping = threading.Event()
        self.connections = {}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _look(self, name):
        """(epoch, open) of a side; None if it doesn't say."""
        try:
            if name not in self.connections:
                self.connections[name] = self.world.side(name).connect("app", timeout=5)
            epoch, up, tables = self.connections[name].query(self.LOOK)[0]
            return int(epoch), int(up) < int(tables)
        except (OSError, pg.PgError, pg.Closed, IndexError):
            self.connections.pop(name, None)  # a fence ends foreign sessions
            return None

    def _run(self):
        while not self.stopping.is_set():
            before, other, after = self._look("blue"), self._look("green"), self._look("blue")
            self.looks += other is not None
            if before and other and before == after and before[1] and other[1]:
                self.splits.append((time.monotonic(), before, other))
            held = self.daemon.metric("switchback_oldest_wait_seconds") if self.daemon.running else None
            self.longest_hold_s = max(self.longest_hold_s, held or 0)
            self.stopping.wait(0.05)

    @property
    def split_s(self):
        """How long both sides were open."""
        return self.splits[-1][0] - self.splits[0][0] if self.splits else 0.0

    def stop(self):
        self.stopping.set()
        self.thread.join(60 * LIMIT)


class Scene:
    def __init__(self, world, net=None, databases=("app",), lossless=None, **settings):
        """`lossless`: a flip back begins in a watch in which each commit is confirmed by both sides."""
        self.world, self.databases, self.lossless = world, databases, lossless
        world.pair(ledger=True, databases=databases, **(net.pair() if net else {}))
        self.net = net or Forwarder(world)
        self.strikes = Strikes(world.folder)
        flip = {"drain": {"timeout": "1500ms"}, "catchup": {"timeout": "3s"}, "max_hold": "%ds" % MAX_HOLD_S}
        self.d = world.daemon(start=False, sides=self.net.sides(), databases=list(databases), **{
            "flip": flip if lossless is None else dict(flip, lossless=lossless), **(WATCH if lossless else {}), **settings})
        self.d.start(environment={"SWITCHBACK_TEST_STRIKE": self.strikes.path})
        self.d.prepare()
        self.d.wait_steady("blue")

    def inject(self, fault, pair, source):
        """`pair`: the links between two parts, as seen from a flip away from `source`."""
        target = "green" if source == "blue" else "blue"
        links = {"source": [source], "target": [target], "between": ["from_blue", "from_green"]}[pair]
        self.net.FAULTS[fault][0](self.net, links)

    @staticmethod
    def _diverged(s):
        """The side that is, if it can be reached and is fenced."""
        return next((name for name, side in s["sides"].items()
                     if side["standing"] == "diverged" and side["reachable"] and side["fenced"]), None)

    def ready(self, source):
        """`source` is active, and a flip away from it may begin."""
        def waiting(s):
            if s["phase"] == "watch" and not (self.lossless and s["way_back"]["promise"]["on"]):
                return False
            return s["phase"] in ("steady", "watch") and s["way_back"]["open"]
        watched = bool(self.lossless) and source == "green"
        for _ in range(10):
            s = self.d.wait_status(waiting, 90, "a state in which a flip may begin")
            if s["active"] == source and (s["phase"] == "watch") == watched:
                return
            self.d.verb("cutover" if s["active"] == "blue" else "flip-back")
        raise AssertionError("%s doesn't become active" % source)

    def load(self):
        """On every database; for settle."""
        return [self.world.ledger(sessions=6, rate=20, database=database) for database in self.databases]

    def served(self):
        try:
            with pg.Connection(self.d.address, timeout=10) as client:  # a side is tried again within a second
                return client.value("select 1") == "1"
        except (pg.PgError, pg.Closed, OSError):
            return False

    def settle(self, loads, timeout=90):
        """What must hold when all faults are over: one side is active and open, the other one fenced, the way back
        runs, clients are served, nothing is left that an operator should look at, and the ledgers are right on both
        sides."""
        def settled(s):
            return s["phase"] in ("steady", "watch") and (s["way_back"]["open"] or self._diverged(s))
        try:
            s = self.d.wait_status(settled, timeout, "steady, or in the watch, with an open way back")
            if self._diverged(s):  # it was taken over from: what to do with it is the operator's to say
                print("%s diverged: rejoin" % self._diverged(s))
                self.d.verb("rejoin", code=0)
                s = self.d.wait_status(lambda s: settled(s) and not self._diverged(s), timeout, "the diverged side is back")
        finally:
            assert not self.strikes.problems, self.strikes.problems
        self.d.until(self.served, what="clients are served again")
        self.d.until(lambda: self.d.verb("status").code == 0, what="status has no trouble left")
        for load in loads:
            load.stop()
            assert load.summary["wrong"] == 0 and load.summary["acknowledged_writes"] > 0, load.summary
            self.world.assert_same_data(load.database)
            load.verify(self.world.blue)
            load.verify(self.world.green)
        return s["active"]

    def settle_anew(self):
        """The same with a load that begins now."""
        loads = self.load()
        time.sleep(0.5)
        return self.settle(loads)
