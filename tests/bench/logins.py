#!/usr/bin/python3
"""Whether the time that a refused login takes tells if there is such a role: wrong passwords for roles that exist and
for names that don't, in turn, by SCRAM and by md5. Figures in microseconds; a difference of medians well below their
spread (the half of the samples around them) can't be seen from outside. Also how many logins a second one worker does.

    SWITCHBACK_BUILD=build-rel SWITCHBACK_PG_BIN=... tests/bench/logins.py [ROUNDS]
"""
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import pg  # noqa: E402
from cluster import SCRAM  # noqa: E402
from world import World  # noqa: E402

MD5 = SCRAM.replace("scram-sha-256", "md5")


def refused(address, user):
    """Seconds until the first question, and from the proof to the refusal."""
    with pg.Raw(address) as raw:
        begun = time.perf_counter()
        raw.send(pg.startup({"user": user, "database": "app"}))
        body = raw.receive()[1]
        asked = time.perf_counter()
        code, = struct.unpack_from("!i", body)
        if code == 5:
            proof = pg.cstr(pg.md5_answer(user, "wrong", body[4:]))
        else:
            scram = pg.Scram("wrong")
            first = scram.first()
            raw.send(pg.message(b"p", pg.cstr("SCRAM-SHA-256") + struct.pack("!i", len(first)) + first))
            proof = scram.final(raw.receive()[1][4:])
        message = pg.message(b"p", proof)
        proved = time.perf_counter()
        raw.send(message)
        assert raw.receive()[0] == "E"
        return asked - begun, time.perf_counter() - proved


def measure(address, rounds):
    times = {(kind, step): [] for kind in ("known", "unknown") for step in (0, 1)}
    for number in range(rounds):
        for kind, user in (("known", "app"), ("unknown", "nobody")) if number % 2 else (("unknown", "nobody"), ("known", "app")):
            for step, seconds in enumerate(refused(address, user)):
                times[kind, step].append(seconds * 1e6)
    for step, name in enumerate(("first question", "refusal")):
        known, unknown = times["known", step], times["unknown", step]
        quarters = statistics.quantiles(known, n=4)
        print("  %-15s known %7.1f  unknown %7.1f  difference %+6.1f  spread %6.1f" % (
            name, statistics.median(known), statistics.median(unknown), statistics.median(unknown) - statistics.median(known),
            quarters[2] - quarters[0]), flush=True)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    folder = tempfile.mkdtemp(prefix="switchback-bench.")
    os.chmod(folder, 0o755)
    world = World(folder, {})
    failed = True
    try:
        world.pair(hba=SCRAM)
        d = world.daemon(auth={"method": "scram-sha-256", "failed_logins": {"max": 0}}, workers=1, log={"level": "error"})
        print("SCRAM")
        measure(d.address, rounds)
        begun = time.perf_counter()
        for _ in range(rounds // 10):
            pg.Connection(d.address, password="secret").close()
        print("  %.0f logins a second by one client, hashing 4096 times itself" % (rounds // 10 / (time.perf_counter() - begun)))
        world.blue.query("set password_encryption = 'md5'; alter role app password 'secret'", "postgres")
        world.blue.query("alter system set password_encryption = md5", "postgres")
        world.blue.query("select pg_reload_conf()", "postgres")
        world.blue.write_hba(MD5)
        d.write(auth={"method": "md5"})
        d.verb("reload", code=0)
        print("md5")
        measure(d.address, rounds)
        failed = False
    finally:
        world.finish(failed)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
