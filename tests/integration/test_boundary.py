"""The proxy's idea of what is owed is the server's: after random messages, sent in random pieces, a session that the server
says is idle is at its boundary, where a flip could take it. One that has lost count would keep a flip waiting.

One in some thousand may: Syncs between the rows of a COPY that fails, sent ahead together with what doesn't belong into a
COPY, are answered or ignored by the server without a difference that could be seen.

    SWITCHBACK_SEED=4711 SWITCHBACK_SEQUENCES=1 runner.py boundary      replays one
"""
import os
import random
import select
import socket
import time

import differential
import pg

SEED = int(os.environ.get("SWITCHBACK_SEED", "1"))
SEQUENCES = int(os.environ.get("SWITCHBACK_SEQUENCES", "600"))
AT_ONCE = 60


def dribble(connection, whole, chance):
    """Sends it in pieces with pauses now and then, so that a server's refusal overtakes what is on its way; what comes
    back is read meanwhile."""
    at, received = 0, b""
    while at < len(whole):
        size = chance.choice([1, 5, 30, 300, 5000])
        piece = whole[at:at + size]
        at += size
        if chance.random() < 0.1:
            time.sleep(chance.random() * 0.004)
        readable, _, _ = select.select([connection.socket], [], [], 0)
        if readable:
            data = connection.socket.recv(262144)
            if not data:
                raise pg.Closed("the end")
            received += data
        connection.socket.sendall(piece)
    return received


def played(address, seed):
    """A connection behind a random sequence, back at ReadyForQuery and idle by the server's word; None if it ended."""
    chance = random.Random(seed)
    generator = differential.Generator(seed)
    connection = pg.Connection(address, user="postgres")
    # nothing before the end may show the marker; a copy's failing and skipping end with it
    messages = generator.sequence() + differential.TAIL[:-1]
    try:
        connection.query(differential.SETUP)
        connection.buffer += dribble(connection, b"".join(messages), chance)
        while connection.receive() != ("D", differential.MARKED):
            pass
        while True:
            kind, body = connection.receive()
            if kind == "Z":
                assert body == b"I", (seed, body)
                # one more may come, for a Sync behind a copy that failed: quiet() reads it
                if not connection.readable(0):
                    return connection
    except (pg.Closed, ConnectionError, socket.timeout):
        connection.abandon()
        return None


def quiet(connections):
    """Those that are still there once what comes late, on a busy machine, has been read."""
    time.sleep(1)
    kept = {}
    for seed, connection in connections.items():
        try:
            while connection.readable(0):
                kind, body = connection.receive()
                assert kind != "Z" or body == b"I", (seed, body)
            kept[seed] = connection
        except (pg.Closed, ConnectionError, socket.timeout):
            connection.abandon()
    return kept


def wrong_states(d, connections, wanted):
    """{seed: state} of those that aren't where they should be."""
    states = {s["client"]: s["state"] for s in d.verb("sessions", code=0).json["sessions"]}
    found = {seed: states.get("127.0.0.1:%d" % c.socket.getsockname()[1]) for seed, c in connections.items()}
    return {seed: state for seed, state in found.items() if state != wanted}


def test_random_sequences_end_at_the_boundary(world):
    world.pair(max_connections=AT_ONCE + 40)
    d = world.daemon(log={"level": "info"})
    alive, lost = 0, {}
    for first in range(SEED, SEED + SEQUENCES, AT_ONCE):
        seeds = range(first, min(first + AT_ONCE, SEED + SEQUENCES))
        connections = {seed: c for seed in seeds for c in [played(d.address, seed)] if c}
        connections = quiet(connections)
        alive += len(connections)
        for seed, state in wrong_states(d, connections, "idle").items():
            lost[seed] = state
            connections.pop(seed).close()
        for connection in connections.values():
            connection.query("begin")
        assert not wrong_states(d, connections, "idle in transaction")
        for connection in connections.values():
            connection.query("commit")
        # and nothing of it keeps a hold from being drained
        d.verb("hold", "--for", "20s", "--reason", "a test", code=0)
        assert not wrong_states(d, connections, "held")
        d.verb("release", code=0)
        for seed, connection in connections.items():
            assert connection.value("select %d" % seed) == str(seed)
            connection.close()
    for seed in lost:
        print("seed %d: %r" % (seed, differential.Generator(seed).sequence()))
    assert len(lost) * 300 <= SEQUENCES, lost
    assert alive > SEQUENCES // 2, alive


test_random_sequences_end_at_the_boundary.timeout = 900
