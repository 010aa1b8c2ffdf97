"""Random messages are answered by the proxy as by the server (differential.py has them).

    SWITCHBACK_SEED=4711 SWITCHBACK_SEQUENCES=1 runner.py differential      replays one
"""
import os
import multiprocessing

import differential
import pg

SEED = int(os.environ.get("SWITCHBACK_SEED", "1"))
SEQUENCES = int(os.environ.get("SWITCHBACK_SEQUENCES", "2400"))
LOGINS = int(os.environ.get("SWITCHBACK_LOGINS", "600"))
WORKERS = 4
RETRIES = 4
SHOWN = 10  # differences that are printed; each is made small first


def both(addresses, databases, messages, seed):
    direct = differential.answers(addresses[0], databases[0], messages, lambda whole: [whole])
    proxied = differential.answers(addresses[1], databases[1], messages, differential.Generator(seed).pieces)
    if proxied and proxied[-1] in differential.OUR_WORDS:
        proxied.pop()
    return direct, proxied


def cut_off(direct, proxied):
    """A server that ends a connection before it has read everything resets it, and the reset can take its last words
    along: of either run one may lack the end, now and then."""
    least = min(direct, proxied, key=len)
    return ("D", differential.MARKED) not in direct + proxied and direct[:len(least)] == proxied[:len(least)]


def differs(addresses, databases, messages, seed):
    """None, or (the place of the first difference, what came directly, what came through the proxy)."""
    for _ in range(RETRIES):
        direct, proxied = both(addresses, databases, messages, seed)
        if direct == proxied:
            return None
        if not cut_off(direct, proxied):
            break
    at = next((i for i, (d, p) in enumerate(zip(direct, proxied)) if d != p), min(len(direct), len(proxied)))
    return at, direct[at:at + 2], proxied[at:at + 2]


def smaller(addresses, databases, messages, seed):
    """The sequence without what the difference doesn't need."""
    at = 0
    while at < len(messages):
        fewer = messages[:at] + messages[at + 1:]
        if differs(addresses, databases, fewer, seed):
            messages = fewer
        else:
            at += 1
    return messages


def work(number, addresses, seeds, found):
    databases = ["direct%d" % number, "proxied%d" % number]
    for seed in seeds:
        try:
            messages = differential.Generator(seed).sequence()
            first = differs(addresses, databases, messages, seed)
            if first:
                least = smaller(addresses, databases, messages, seed)
                found.put("seed %d: %r\n  %r" % (seed, least, differs(addresses, databases, least, seed) or ("not again", first)))
        except (OSError, pg.PgError, pg.Closed, pg.ProtocolError) as error:
            found.put("seed %d: %r" % (seed, error))
    found.put(None)


def test_sequences(world):
    world.pair()
    d = world.daemon(unmanaged="pass", log={"level": "info"})
    with world.blue.connect() as connection:
        for number in range(WORKERS):
            for name in ("direct", "proxied"):
                connection.query("create database %s%d" % (name, number))
    found = multiprocessing.Queue()
    seeds = range(SEED, SEED + SEQUENCES)
    workers = [multiprocessing.Process(target=work, args=(n, (world.blue.address, d.address), seeds[n::WORKERS], found)) for n in range(WORKERS)]
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
    assert not differences, "%d of %d sequences are answered differently" % (len(differences), SEQUENCES)


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
