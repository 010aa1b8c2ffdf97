#!/usr/bin/python3
"""The last page of docker/demo.sh: each flip's phases and pause, and what became of every promised transaction.

    report.py FOLDER      with the files that the demo left there: events, ledger, ledger.json, verify.blue, verify.green

Exit status 1 if there was an error or a loss.
"""
import datetime
import json
import os
import sys


def microseconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e6


def flips(events):
    """[(flip, [(phase, begin)], end)] in order, from the events."""
    found = {}
    for event in events:
        if event["flip"] is None:
            continue
        flip = found.setdefault(event["flip"], {"phases": [], "end": None})
        if event["type"] == "phase":
            flip["phases"].append((event["phase"], microseconds(event["time"])))
    return [(number, flip["phases"]) for number, flip in sorted(found.items()) if len(flip["phases"]) > 3]


def operations(path):
    """(session, begin, end, longest round trip), in microseconds."""
    with open(path) as file:
        next(file)
        for line in file:
            _, session, _, _, begin, elapsed, longest, _ = line.split()
            yield int(session), int(begin), int(begin) + int(elapsed), int(longest)


def failures(path):
    """What was not acknowledged: (kind, outcome, SQLSTATE) to the times at which it began."""
    kinds, outcomes = {"t": "transfer", "a": "append", "r": "read"}, {"fail": "failure", "doubt": "doubt"}
    found = {}
    with open(path) as file:
        next(file)
        for line in file:
            outcome, _, _, kind, begin, _, _, sqlstate = line.split()
            if outcome != "ack":
                found.setdefault((kinds[kind], outcomes[outcome], sqlstate), []).append(int(begin))
    return found


def clock(microseconds_since_1970):
    return datetime.datetime.fromtimestamp(microseconds_since_1970 / 1e6, datetime.timezone.utc).strftime("%H:%M:%S.%f")[:-3]


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0


def main():
    folder = sys.argv[1]

    def load(name):
        with open(os.path.join(folder, name)) as file:
            return json.load(file)
    with open(os.path.join(folder, "events")) as file:
        events = [json.loads(line) for line in file]
    done = list(operations(os.path.join(folder, "ledger")))
    summary, blue, green = load("ledger.json"), load("verify.blue"), load("verify.green")

    print("\n   %-8s%s" % ("flip", "phases in ms"))
    pauses = []
    for number, phases in flips(events):
        names = [name for name, _ in phases]
        steps = []
        for (name, begin), (_, end) in zip(phases, phases[1:]):
            steps.append("%s %.0f" % (name, (end - begin) / 1000))
            if name == "turn":
                break
        print("   %-8s%s" % (number, " · ".join(steps)))
        if "hold" in names and "turn" in names:
            begin, end = dict(phases)["hold"], dict(phases)["turn"]
            longest = {}
            for session, first, last, trip in done:
                if last >= begin and first <= end:
                    longest[session] = max(longest.get(session, 0), trip)
            pauses.append((number, longest.values()))
    print("\n   %-8s%10s%10s%10s   longest wait of a client for one answer, as the clients measured it" % ("flip", "p50", "p99", "max"))
    for number, waits in pauses:
        print("   %-8s%7.1f ms%7.1f ms%7.1f ms" % (number, percentile(waits, 0.5) / 1000, percentile(waits, 0.99) / 1000,
                                                   max(waits, default=0) / 1000))
    errors = summary["failed"] + summary["in_doubt"] + summary["reconnects"]
    lost = max(side["missing"] + side["doubled"] + side["unexpected"] + side["wrong_balances"] for side in (blue, green))
    print("\n   %-44s%10d" % ("operations of the %d clients" % summary["sessions"], summary["operations"]))
    print("   %-44s%10d" % ("errors and lost connections", errors))
    for (kind, outcome, sqlstate), times in sorted(failures(os.path.join(folder, "ledger")).items()):
        print("   %-44s%10d   the first at %s" % ("  %s of a %s, SQLSTATE %s" % (outcome, kind, sqlstate), len(times), clock(min(times))))
    print("   %-44s%10d" % ("settings or statements lost", summary["wrong"]))
    print("   %-44s%10d" % ("transactions acknowledged", summary["acknowledged_writes"]))
    print("   %-44s%10d" % ("of them lost, doubled or different", lost))
    return 1 if errors or lost or summary["wrong"] or not (blue["ok"] and green["ok"]) else 0


if __name__ == "__main__":
    sys.exit(main())
