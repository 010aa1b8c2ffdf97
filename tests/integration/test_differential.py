"""Random messages are answered by the proxy as by the server (differential.py has them).

    SWITCHBACK_SEED=4711 SWITCHBACK_SEQUENCES=1 runner.py differential      replays one
"""
import os
import multiprocessing

import differential
import pg
from tls_scene import Scene

SEED = int(os.environ.get("SWITCHBACK_SEED", "1"))
SEQUENCES = int(os.environ.get("SWITCHBACK_SEQUENCES", "2400"))
LOGINS = int(os.environ.get("SWITCHBACK_LOGINS", "600"))
WORKERS = 4
RETRIES = 8
SHOWN = 10  # differences that are printed; each is made small first


class Pair:
    """Where a sequence is sent: the server, and the proxy before it."""

    def __init__(self, number, direct, proxied, **login):
        self.direct, self.proxied, self.login = (direct, "direct%d" % number), (proxied, "proxied%d" % number), login

    def answers(self, messages, seed):
        direct = differential.answers(*self.direct, messages, lambda whole: [whole])
        cut = differential.Generator(seed).pieces
        proxied = differential.answers(*self.proxied, messages, cut, slowly=seed % 8 == 0, **self.login)
        if proxied and proxied[-1] in differential.OUR_WORDS:
            proxied.pop()
        return direct, proxied


def cut_off(direct, proxied):
    """A server that ends a connection before it has read everything resets it, and the reset can take its last words
    along: of either run one may lack the end, now and then."""
    direct, proxied = ([answer for answer in side if answer[0] != "..."] for side in (direct, proxied))
    least = min(direct, proxied, key=len)
    return ("D", differential.MARKED) not in direct + proxied and direct[:len(least)] == proxied[:len(least)]


def differs(pair, messages, seed):
    """None, or (the place of the first difference, what came directly, what came through the proxy)."""
    for _ in range(RETRIES):
        direct, proxied = pair.answers(messages, seed)
        if direct == proxied:
            return None
        if not cut_off(direct, proxied):
            break
    at = next((i for i, (d, p) in enumerate(zip(direct, proxied)) if d != p), min(len(direct), len(proxied)))
    return at, *([(kind, body[:200], len(body)) for kind, body in side[at:at + 2]] for side in (direct, proxied))


def smaller(pair, messages, seed):
    """The sequence without what the difference doesn't need."""
    at = 0
    while at < len(messages):
        fewer = messages[:at] + messages[at + 1:]
        if differs(pair, fewer, seed):
            messages = fewer
        else:
            at += 1
    return messages


def work(pair, seeds, found):
    for seed in seeds:
        try:
            messages = differential.Generator(seed).sequence()
            first = differs(pair, messages, seed)
            if first:
                least = smaller(pair, messages, seed)
                found.put("seed %d: %r\n  %r" % (seed, least, differs(pair, least, seed) or ("not again", first)))
        except (OSError, pg.PgError, pg.Closed, pg.ProtocolError) as error:
            found.put("seed %d: %r" % (seed, error))
    found.put(None)


def judge(world, daemon, count, **login):
    """Plays the sequences of `count` seeds, a few at a time, each beside another pair of databases."""
    with world.blue.connect() as connection:
        for number in range(WORKERS):
            for name in ("direct", "proxied"):
                connection.query("create database %s%d" % (name, number))
    found = multiprocessing.Queue()
    seeds = range(SEED, SEED + count)
    workers = [multiprocessing.Process(target=work, args=(Pair(n, world.blue.address, daemon.address, **login), seeds[n::WORKERS], found))
               for n in range(WORKERS)]
    for worker in workers:
        worker.start()
    differences, running = [], WORKERS
    while running:
        text = found.get()
        if text is None:
            running -= 1
        else:
            differences.append(text)
    for worker in workers:
        worker.join()
    for text in differences[:SHOWN]:
        print(text)
    assert not differences, "%d of %d sequences are answered differently" % (len(differences), count)


def test_sequences(world):
    world.pair()
    judge(world, world.daemon(unmanaged="pass", log={"level": "info"}), SEQUENCES)


def test_sequences_in_tls(world):
    """Both the client's connection and the server's are in TLS."""
    scene = Scene(world, unmanaged="pass", log={"level": "info"})
    judge(world, scene.daemon, SEQUENCES // 4, tls=scene.ca.client(), server_name="localhost")


test_sequences.timeout = 900


def test_startup(world):
    world.pair()
    d = world.daemon(unmanaged="pass", log={"level": "info"})
    found = 0
    for seed in range(SEED, SEED + LOGINS):
        packets = differential.startup_packets(seed)
        direct, proxied = (differential.startup_answers(address, packets) for address in (world.blue.address, d.address))
        if direct != proxied:
            found += 1
            print("seed %d: %r\n  directly %r\n  proxied  %r" % (seed, packets, direct[:40], proxied[:40]))
    assert not found, "%d of %d logins are answered differently" % (found, LOGINS)
