"""A network of its own for test_network.py: blue, green and the proxy in network namespaces, joined by veth, where nft
loses packets. In place of network.Forwarder: the kernels see the loss, so that TCP's own ways count too (retransmission,
keepalive, timeouts, segments that come late). The test itself and the proxy live in one namespace, which only they
have. Needs root, ip and nft.
"""
import contextlib
import ctypes
import os
import shutil
import subprocess
import time

import cluster

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

HBA = cluster.TRUST + "host all all 10.9.0.0/16 trust\nhost replication all 10.9.0.0/16 trust\n"

# Each pair of parts has a network of its own; the test looks past the faults, through one that has none.
ADDRESSES = {  # of each end, by link and name of the namespace
    "blue": {"proxy": "10.9.1.1", "blue": "10.9.1.2"},
    "green": {"proxy": "10.9.2.1", "green": "10.9.2.2"},
    "between": {"blue": "10.9.3.1", "green": "10.9.3.2"},
    "look_blue": {"proxy": "10.9.4.1", "blue": "10.9.4.2"},
    "look_green": {"proxy": "10.9.5.1", "green": "10.9.5.2"},
}
LINK_OF = {"blue": "blue", "green": "green", "from_blue": "between", "from_green": "between"}


def _lose(*directions, match=""):
    def apply(net, links):
        for link in sorted({LINK_OF[name] for name in links}):
            for direction in directions:
                net.rule(link, direction, match + " drop")
    return apply


def _reject(net, links):
    for link in sorted({LINK_OF[name] for name in links}):
        for direction in ("out", "in"):
            net.rule(link, direction, "meta l4proto tcp reject with tcp reset")


def _forget(net, links):
    """As a firewall that lost its table: what is connected now carries nothing any more, new connections do."""
    for link in sorted({LINK_OF[name] for name in links}):
        pairs = ["%d . %d" % ports for ports in net.connected(link)]
        if pairs:
            net.rule(link, "out", "tcp sport . tcp dport { %s } drop" % ", ".join(pairs))
            net.rule(link, "in", "tcp dport . tcp sport { %s } drop" % ", ".join(pairs))


class Namespaces:
    NAME = "namespaces"
    # `out`: what the first part of the link sends, the proxy or blue
    FAULTS = {
        "partition": (_lose("out", "in"), True),
        "requests_lost": (_lose("out"), True),
        "answers_lost": (_lose("in"), True),
        "lossy": (_lose("out", "in", match="numgen random mod 100 < 25"), True),
        "rejected": (_reject, True),
        "forgotten": (_forget, True),
    }

    def __init__(self, world):
        if os.geteuid() != 0:
            world.skip("network namespaces need root")
        for program in ("ip", "nft", "unshare"):
            if not shutil.which(program):
                world.skip("there is no %s: apt-get install iproute2 nftables" % program)
        if _libc.unshare(CLONE_NEWNET) != 0:
            world.skip("no network namespace is to be had: %s" % os.strerror(ctypes.get_errno()))
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.pids, self.handles = {"proxy": os.getpid()}, {"proxy": self.home}
        for name in ("blue", "green"):
            self._hold(world, name)
        self._join()
        try:
            for link, ends in ADDRESSES.items():
                self._table(link, next(iter(ends)))
        except subprocess.CalledProcessError as problem:
            world.skip("nft doesn't work here: %s" % problem.stderr)
        world.place = self._place

    def _hold(self, world, name):
        """A namespace lives as long as the process that holds it."""
        holder = world.spawn(["unshare", "--net", "sleep", "infinity"], preexec_fn=cluster.die_with_parent)
        path = "/proc/%d/ns/net" % holder.pid
        end = time.monotonic() + 180
        while os.stat(path).st_ino == os.fstat(self.home).st_ino:
            assert holder.poll() is None and time.monotonic() < end, "unshare fails"
            time.sleep(0.01)
        self.pids[name] = holder.pid
        self.handles[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def _inside(self, name):
        """Of this thread, and what it starts."""
        assert _libc.setns(self.handles[name], CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert _libc.setns(self.home, CLONE_NEWNET) == 0

    def _run(self, name, *command, stdin=None):
        with self._inside(name):
            subprocess.run(command, check=True, capture_output=True, text=True, input=stdin)

    def _join(self):
        for link, ends in ADDRESSES.items():
            one, other = ends
            self._run(one, "ip", "link", "add", link, "type", "veth", "peer", "name", link, "netns", str(self.pids[other]))
            for name, address in ends.items():
                self._run(name, "ip", "address", "add", address + "/30", "dev", link)
                self._run(name, "ip", "link", "set", link, "up")
        for name in self.handles:
            self._run(name, "ip", "link", "set", "lo", "up")

    def _table(self, link, name):
        self._run(name, "nft", "-f", "-", stdin="""table inet %s {
            chain out { type filter hook output priority 0; }
            chain in { type filter hook input priority 0; }
        }""" % link)

    def _place(self, made):
        made.host = ADDRESSES["look_" + made.name][made.name]
        made.namespace = lambda: self._inside(made.name)

    def rule(self, link, direction, verdict):
        """At the link's first part."""
        chain, device = {"out": ("out", "oifname"), "in": ("in", "iifname")}[direction]
        self._run(next(iter(ADDRESSES[link])), "nft", "add", "rule", "inet", link, chain, device, link, *verdict.split())

    def connected(self, link):
        """The ports of each connection of the link: at its first part, and at the other one."""
        first, other = ADDRESSES[link]
        address = "".join("%02X" % int(part) for part in reversed(ADDRESSES[link][other].split(".")))
        with open("/proc/%d/net/tcp" % (os.getpid() if first == "proxy" else self.pids[first])) as table:
            ends = [line.split()[1:4] for line in table.readlines()[1:]]
        return [(int(here.split(":")[1], 16), int(there.split(":")[1], 16)) for here, there, state in ends
                if there.split(":")[0] == address and state == "01"]

    def pair(self):
        """Arguments of World.pair."""
        return {"hba": HBA, "listen_addresses": "*"}

    def sides(self):
        """The daemon's settings."""
        return {side: {"host": ADDRESSES[side][side], "replication": {"host": ADDRESSES["between"][side]}}
                for side in ("blue", "green")}

    def heal(self):
        for link, ends in ADDRESSES.items():
            self._run(next(iter(ends)), "nft", "flush", "table", "inet", link)
