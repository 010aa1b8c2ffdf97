#!/usr/bin/python3
"""The figures of tests that strike: each strike is a note (world.note), and this adds up a file of them.

    SWITCHBACK_NOTES=notes tests/integration/runner.py --long kill. network. ; tests/integration/strikes.py notes

The whole of them takes hours: SWITCHBACK_EVERY=N makes each Nth strike of a test only, others each time.
"""
import os
import random
import sys

MODES = {None: "default", False: "plain", True: "lossless"}  # what a scene was told about flip.lossless
SUMS = ("flips", "acknowledged", "in_doubt", "failed")
MAXIMA = ("hold_s", "both_open_s", "recovery_s")
EVERY = int(os.environ.get("SWITCHBACK_EVERY", "1"))


def chosen(strikes):
    """Those that are to be made of a test's."""
    return strikes[random.randrange(EVERY)::EVERY]


def tell(world, group, what, loads, witness, recovery_s, flips=1):
    """One strike: `group` is the row that it counts in, `what` is for people."""
    total = {name: sum(load.summary[name] for load in loads) for name in ("acknowledged_writes", "in_doubt", "failed")}
    world.note("strike | %s | %s | flips %d acknowledged %d in_doubt %d failed %d hold_s %.1f both_open_s %.1f"
               " recovery_s %.1f" % (group, what, flips, total["acknowledged_writes"], total["in_doubt"], total["failed"],
                                     witness.longest_hold_s, witness.split_s, recovery_s))


def table(lines):
    rows = {}
    for line in lines:
        parts = [part.strip() for part in line.split("|")]
        if parts[0] != "strike" or len(parts) != 4:
            continue
        words = parts[3].split()
        row = rows.setdefault(parts[1], dict.fromkeys(("strikes",) + SUMS + MAXIMA, 0))
        row["strikes"] += 1
        for name, value in zip(words[::2], words[1::2]):
            row[name] = max(row[name], float(value)) if name in MAXIMA else row[name] + int(value)
    return rows


def main():
    rows = {}
    for path in sys.argv[1:]:
        with open(path) as file:
            for group, row in table(file).items():
                kept = rows.setdefault(group, row)
                if kept is not row:
                    for name, value in row.items():
                        kept[name] = max(kept[name], value) if name in MAXIMA else kept[name] + value
    columns = ("strikes",) + SUMS + MAXIMA
    print("%-60s" % "" + "".join("%13s" % name for name in columns))
    for group, row in sorted(rows.items()):
        print("%-60s" % group + "".join("%13s" % row[name] for name in columns))


if __name__ == "__main__":
    main()
