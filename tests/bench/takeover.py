"""kill -9 of the active side in a lossless watch, again and again under load: what the clients lost (nothing that
was acknowledged), and how long they waited until they were served by the other side."""
import collections
import re
import statistics
import time


def waits_of(load, killed_us):
    """Seconds from the kill until each session was acknowledged something again."""
    first = {}
    for outcome, session, _, _, start, elapsed, _, _ in load.operations():
        end = start + elapsed
        if outcome == "ack" and start > killed_us:
            first[session] = min(first.get(session, end), end)
    return [(end - killed_us) / 1e6 for end in first.values()]


def one(here, d, options):
    d.verb("cutover", code=0)
    d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["promise"]["on"], timeout=60, what="the promise")
    load = here.ledger(sessions=options.sessions, rate=options.rate)
    time.sleep(2)
    here.green.kill()
    killed_us = time.time() * 1e6
    d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, timeout=60, what="blue took over")
    time.sleep(1)
    summary = load.stop()
    assert summary["wrong"] == 0, summary
    load.verify(here.blue)
    waits = waits_of(load, killed_us)
    assert len(waits) == options.sessions, "%d of %d sessions were served again" % (len(waits), options.sessions)
    here.green.start()
    status = d.wait_status(lambda s: s["sides"]["green"]["standing"] == "diverged" or s["way_back"]["open"], timeout=60, what="its standing")
    stranded = 0
    if not status["way_back"]["open"]:
        stranded = d.verb("rejoin", code=0).json["transactions"]
    d.wait_status(lambda s: s["phase"] == "steady" and s["way_back"]["open"], timeout=60, what="green follows")
    here.assert_same_data()  # once it has all that was done without it
    load.verify(here.green)
    return min(waits), max(waits), summary["in_doubt"], stranded


def takeovers(here, d, options, target):
    runs = []
    for _ in range(options.takeovers):
        runs.append(one(here, d, options))
        print("  first session served after %.2f s, the last after %.2f s; %d in doubt, %d transactions stranded" % runs[-1], flush=True)
    here.assert_same_data()
    firsts, lasts = [run[0] for run in runs], [run[1] for run in runs]
    print("\n%d takeovers, %d sessions: clients served %.2f s after the kill at the median, %.2f s at most (the last of them: %.2f, %.2f)" % (
        len(runs), options.sessions, statistics.median(firsts), max(firsts), statistics.median(lasts), max(lasts)))
    told = collections.Counter(re.findall(r" session_ended .* sqlstate=(\w+)", d.log_text()))
    print("what clients were told: %s" % ", ".join("%s %d times" % pair for pair in sorted(told.items())))
    dead_after = float(d.settings["flip"]["dead_after"].rstrip("s"))
    target("takeover: from death to clients served, beyond dead_after", "%.2f s" % (statistics.median(lasts) - dead_after), "<= 1 s",
           statistics.median(lasts) - dead_after <= 1)
