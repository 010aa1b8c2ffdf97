#!/usr/bin/python3
"""The measurements of tests/bench/run.sh: traffic through the proxy and through PgBouncer, in turns within one run;
the pause of a cutover as the report and as the clients see it; the memory of idle clients.

Everything (clusters, load, proxy) shares two cores, as design.md section 8 has it. Figures are medians of the rounds,
ratios are formed within a round.
"""
import argparse
import datetime
import json
import os
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))
sys.dont_write_bytecode = True

import cluster  # noqa: E402
import takeover  # noqa: E402
import pg  # noqa: E402
from certificates import Authority  # noqa: E402
import world as worlds  # noqa: E402

PGBENCH = os.path.join(cluster.OLD_BIN, "pgbench")
TICK = os.sysconf("SC_CLK_TCK")
LARGE = "select repeat('x', 70000) from generate_series(1, 8);\n"  # 560 kB

checks = []  # (what, measured, target, met)


def target(what, measured, limit, met):
    checks.append((what, measured, limit, met))


def cpu_seconds(pid):
    """User and system time of a process so far."""
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_bytes(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def unverified():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class PgBouncer:
    """PgBouncer in session mode in front of a cluster; pair: certificate and key, then both its sides have TLS.

    fresh: a new server connection for each client, as the proxy and pgbench itself have them. Else those of the round
    before are used again, whose backends have their caches and the pages of shared memory mapped: of 64 clients in a
    round of 2 s those took 65 to 82 us of the server's CPU a transaction, new ones 112 to 162.
    """

    def __init__(self, folder, server, pair=None, fresh=False):
        self.port = cluster.free_port()
        folder = os.path.join(folder, "pgbouncer-tls" if pair else "pgbouncer")
        os.mkdir(folder)
        ini = os.path.join(folder, "pgbouncer.ini")
        with open(os.path.join(folder, "users"), "w") as file:
            file.write('"app" ""\n')
        with open(ini, "w") as file:
            file.write("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"
                       "unix_socket_dir =\nauth_type = trust\nauth_file = %s/users\npool_mode = session\nmax_client_conn = 2000\n"
                       "default_pool_size = 1000\nlogfile = %s/log\n" % (server.port, self.port, folder, folder))
            file.write("server_tls_sslmode = %s\nclient_tls_sslmode = %s\n" % (("require", "require") if pair else ("disable", "disable")))
            if fresh:
                file.write("server_lifetime = 0\n")
            if pair:
                file.write("client_tls_cert_file = %s\nclient_tls_key_file = %s\n" % pair)
        if os.geteuid() == 0:
            for path in (folder, ini, os.path.join(folder, "users")):
                cluster.own(path)
        self.process = subprocess.Popen([os.environ["PGBOUNCER"], "-q", ini], cwd="/", preexec_fn=cluster.die_with_parent,
                                        stderr=subprocess.DEVNULL, **cluster.identity())
        self.version = subprocess.run([os.environ["PGBOUNCER"], "--version"], capture_output=True, text=True).stdout.split("\n")[0]
        for _ in range(200):
            try:
                pg.Connection(("127.0.0.1", self.port), tls=unverified() if pair else None).close()
                return
            except (OSError, pg.Closed):
                time.sleep(0.02)
        raise RuntimeError("PgBouncer does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def pgbench(port, pid, clients, seconds, arguments, sslmode):
    """(transactions a second, microseconds of the proxy's CPU a transaction)."""
    environment = dict(os.environ, PGHOST="127.0.0.1", PGPORT=str(port), PGUSER="app", PGDATABASE="app", PGSSLMODE=sslmode)
    before = cpu_seconds(pid) if pid else 0
    done = subprocess.run([PGBENCH, "-n", "-c", str(clients), "-j", "1", "-T", str(seconds)] + arguments, env=environment,
                          capture_output=True, text=True)
    used = (cpu_seconds(pid) if pid else 0) - before
    found = re.search(r"number of transactions actually processed: (\d+)", done.stdout)
    if done.returncode != 0 or not found:
        raise RuntimeError("pgbench: " + done.stdout + done.stderr)
    return float(re.search(r"tps = ([0-9.]+)", done.stdout).group(1)), used * 1e6 / int(found.group(1))


def compare(title, ways, clients, arguments, options, sslmode="disable"):
    """Measures each way in turn, `rounds` times."""
    rounds = []
    for _ in range(options.rounds):
        rounds.append({name: pgbench(port, pid, clients, options.seconds, arguments, sslmode) for name, port, pid in ways})
    medians = {name: [statistics.median(r[name][i] for r in rounds) for i in (0, 1)] for name, _, _ in ways}
    throughput = statistics.median(r["switchback"][0] / r["pgbouncer"][0] for r in rounds)
    cpu = statistics.median(r["switchback"][1] / r["pgbouncer"][1] for r in rounds)
    print("%-26s" % title + "".join("  %s %8.0f tps %6.1f us" % (name, tps, us) if name != "direct" else "  direct %8.0f tps" % tps
                                   for name, (tps, us) in medians.items()) + "   ratio %.2f tps, %.2f CPU" % (throughput, cpu), flush=True)
    return throughput, cpu


def traffic(here, d, bouncer, options):
    """Small transactions and large results beside PgBouncer."""
    ways = [("switchback", d.port, d.process.pid), ("pgbouncer", bouncer.port, bouncer.process.pid), ("direct", here.blue.port, None)]
    if options.only in (None, "traffic"):
        for mode in ("simple", "prepared"):
            for clients in (8, 64):
                throughput, cpu = compare("%s, %d clients" % (mode, clients), ways, clients, ["-S", "-M", mode], options)
                target("%s, %d clients: throughput of PgBouncer's" % (mode, clients), "%.2f" % throughput, ">= 1.00", throughput >= 1)
                target("%s, %d clients: CPU of PgBouncer's" % (mode, clients), "%.2f" % cpu, "<= 0.90", cpu <= 0.9)
    if options.only in (None, "large"):
        script = os.path.join(here.folder, "large.sql")
        with open(script, "w") as file:
            file.write(LARGE)
        throughput, cpu = compare("results of 560 kB", ways, 8, ["-f", script, "-M", "prepared"], options)
        target("large results: CPU of PgBouncer's", "%.2f" % cpu, "<= 0.35", cpu <= 0.35)


def tls(here, options, folder):
    """The same with TLS on both sides of each proxy, and the memory of an idle client then."""
    ca = Authority(folder, "bench")
    cert, key = ca.sign("server", "localhost", "DNS:localhost", owner="cluster")
    here.blue.query("alter system set ssl_cert_file = '%s'" % cert, "postgres")
    here.blue.query("alter system set ssl_key_file = '%s'" % key, "postgres")
    here.blue.query("alter system set ssl = on", "postgres")
    here.blue.query("select pg_reload_conf()", "postgres")
    pair = ca.sign("proxy", "localhost", "DNS:localhost", owner="cluster")
    d = here.daemon(workers=1, log={"level": "info"}, listen={"tls": {"mode": "require", "cert": pair[0], "key": pair[1]}},
                    sides={"blue": {"tls": {"mode": "require"}}})
    bouncer = PgBouncer(folder, here.blue, pair)
    try:
        ways = [("switchback", d.port, d.process.pid), ("pgbouncer", bouncer.port, bouncer.process.pid), ("direct", here.blue.port, None)]
        script = os.path.join(here.folder, "large.sql")
        with open(script, "w") as file:
            file.write(LARGE)
        throughput, cpu = compare("TLS, simple, 8 clients", ways, 8, ["-S"], options, "require")
        target("TLS, small transactions: CPU of PgBouncer's", "%.2f" % cpu, "<= 1.00", cpu <= 1)
        throughput, cpu = compare("TLS, results of 560 kB", ways, 8, ["-f", script, "-M", "prepared"], options, "require")
        target("TLS, large results: CPU of PgBouncer's", "%.2f" % cpu, "<= 1.00", cpu <= 1)
        ways.pop()
        compare("TLS, a login each", ways, 8, ["-S", "-C"], options, "require")
        idle(d, options, tls=unverified())
    finally:
        bouncer.stop()
        d.stop()
        here.blue.query("alter system set ssl = off", "postgres")
        here.blue.query("select pg_reload_conf()", "postgres")


def idle(d, options, tls=None):
    """Resident memory that each idle client adds."""
    first = [pg.Connection(d.address, tls=tls) for _ in range(20)]  # what the first clients cost once
    before = resident_bytes(d.process.pid)
    clients = [pg.Connection(d.address, tls=tls) for _ in range(options.idle)]
    for client in clients:
        client.query("select 1")
    each = (resident_bytes(d.process.pid) - before) / len(clients)
    for client in first + clients:
        client.close()
    print("%-26s  %.1f KiB each, of %d" % ("idle clients" + (", TLS on both sides" if tls else ""), each / 1024, len(clients)), flush=True)
    if not tls:
        target("an idle client's memory", "%.1f KiB" % (each / 1024), "< 8 KiB", each < 8192)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def microseconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e6


def hold_window(d, flip):
    """From the beginning of a flip's hold to its end, in microseconds since 1970."""
    told = [event for event in map(json.loads, d.verb("events", code=0).out.splitlines()) if event["flip"] == flip]
    begin = next(event for event in told if event["phase"] == "hold")
    end = next(event["time"] for event in told if event["type"] == "flip" and event["seq"] > begin["seq"])  # released, then the turn
    return microseconds(begin["time"]), microseconds(end)


def gate(here, d, options):
    """From the moment at which a gate's condition breaks to the first answer from the other side, in the watch."""
    load = here.ledger(sessions=options.sessions, rate=options.rate)
    client = here.connect()
    waits = []
    for _ in range(3):
        d.wait_steady("blue")
        client.query("update flag set ok = true")
        d.verb("cutover", code=0)
        d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"], what="the watch")
        time.sleep(2)
        client.query("update flag set ok = false")
        begin = time.monotonic()
        while client.value("show server_version_num").startswith(str(here.green.version)):
            time.sleep(0.005)
        waits.append(time.monotonic() - begin)
    load.stop()
    load.assert_clean()
    median = statistics.median(waits) * 1000
    print("\nflip-back by a gate         median %.0f ms from the broken condition to the first answer of blue, %.0f at most" % (
        median, max(waits) * 1000))
    target("flip-back by a gate (interval 100 ms, failures 1)", "%.0f ms" % median, "<= 1100 ms", median <= 1100)


def flips(here, d, options):
    """Cutovers and flip-backs with 100 sessions under load."""
    load = here.ledger(sessions=options.sessions, rate=options.rate)
    time.sleep(3)
    windows, reports, cut, verbs = [], [], [], []
    for number in range(options.flips):
        verb, to = (("cutover", "green"), ("flip-back", "blue"))[number % 2]
        verbs.append(verb)
        result = d.verb(verb, code=0).json
        reports.append(result)
        cut.append(dict((p["phase"], p["ms"]) for p in result["phases"]))
        d.wait_status(lambda s: s["active"] == to and s["phase"] in ("steady", "watch") and s["way_back"]["open"], what="the way back")
        windows.append(hold_window(d, result["flip"]))
        time.sleep(1)
    summary = load.stop()
    seen, seen_by = [], {verb: [] for verb in verbs}  # the longest round trip of each session around each hold
    operations = list(load.operations())
    for verb, (begin, end) in zip(verbs, windows):
        longest = {}
        for _, session, _, _, start, elapsed, trip, _ in operations:
            if start + elapsed >= begin and start <= end:
                longest[session] = max(longest.get(session, 0), trip)
        seen += longest.values()
        seen_by[verb] += longest.values()
    print("\n%d flips, %d sessions, %d operations a second, %d errors" % (
        options.flips, options.sessions, summary["operations"] / max(1, (windows[-1][1] - windows[0][0]) / 1e6),
        summary["failed"] + summary["in_doubt"] + summary["reconnects"] + summary["wrong"]))
    for verb, trips in seen_by.items():
        told = statistics.median(r["stall_ms"]["p50"] for r, of in zip(reports, verbs) if of == verb)
        print("%-10s stall by the report: median %.1f ms; longest round trip of the clients: median %.1f ms, p99 %.1f ms" % (
            verb, told, percentile(trips, 0.5) / 1000, percentile(trips, 0.99) / 1000))
    for phase in cut[0]:
        values = [phases.get(phase, 0) for phases in cut]
        print("  %-10s median %8.1f ms, max %8.1f ms" % (phase, statistics.median(values), max(values)))
    p50 = statistics.median(r["stall_ms"]["p50"] for r in reports)
    p99 = statistics.median(r["stall_ms"]["p99"] for r in reports)
    print("stall by the report         median %.1f ms, p99 %.1f ms, max %.1f ms" % (p50, p99, max(r["stall_ms"]["max"] for r in reports)))
    median, worst = percentile(seen, 0.5) / 1000, percentile(seen, 0.99) / 1000
    print("longest round trip, clients median %.1f ms, p99 %.1f ms, max %.1f ms; without flips p50 %.1f, p99 %.1f" % (
        median, worst, max(seen) / 1000, summary["round_trip_ms"]["p50"], summary["round_trip_ms"]["p99"]))
    target("stall of a flip, %d sessions, median" % options.sessions, "%.1f ms" % median, "<= 50 ms", median <= 50)
    target("stall of a flip, %d sessions, p99" % options.sessions, "%.1f ms" % worst, "<= 150 ms", worst <= 150)
    load.verify(here.blue)
    load.verify(here.green)
    here.assert_same_data()
    target("errors and lost commits", "%d" % (summary["failed"] + summary["in_doubt"] + summary["wrong"]), "0",
           summary["failed"] + summary["in_doubt"] + summary["wrong"] == 0)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=5, help="of each measurement")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--flips", type=int, default=10)
    arguments.add_argument("--sessions", type=int, default=100)
    arguments.add_argument("--rate", type=float, default=10, help="operations a second of each session in the flips")
    arguments.add_argument("--idle", type=int, default=500, help="idle clients")
    arguments.add_argument("--cores", type=int, default=2)
    arguments.add_argument("--takeovers", type=int, default=3)
    arguments.add_argument("--asynchronous", action="store_true", help="flip.lossless: false")
    arguments.add_argument("--only", choices=("traffic", "large", "tls", "idle", "flip", "gate", "takeover"))
    options = arguments.parse_args()

    cores = sorted(os.sched_getaffinity(0))[:options.cores]
    os.sched_setaffinity(0, cores)
    folder = tempfile.mkdtemp(prefix="switchback-bench.")
    os.chmod(folder, 0o755)
    here = worlds.World(folder, {})
    bouncer = None
    failed = True
    try:
        here.pair(ledger=True, max_connections=options.idle + 200, shared_buffers="256MB", fsync="on")
        d = here.daemon(workers=1, log={"level": "info"}, flip={"drain": {"timeout": "5s"}, "catchup": {"timeout": "5s"}, "max_hold": "15s", "dead_after": "1s",
                                                                     "lossless": not options.asynchronous},
                        gates=[{"name": "flag", "sql": "select ok from flag", "expect": "t", "interval": "100ms", "failures": 1}],
                        watch={"duration": "30s"})
        with here.blue.connect("app", "app") as connection:
            connection.query("create table flag (ok bool primary key); insert into flag values (true)")
        bouncer = PgBouncer(folder, here.blue, fresh=True)
        print("%s, %s, PostgreSQL %d and %d, %d cores; %d rounds of %d s" % (
            d.verb("version", json=False).out.split("\n")[0], bouncer.version, here.blue.version, here.green.version, len(cores),
            options.rounds, options.seconds), flush=True)
        subprocess.run([PGBENCH, "-i", "-q", "-s", "10", here.conninfo(here.blue)], check=True, capture_output=True)
        if options.only in (None, "traffic", "large"):
            traffic(here, d, bouncer, options)
        if options.only in (None, "tls"):
            tls(here, options, folder)
        if options.only in (None, "idle"):
            idle(d, options)
        here.blue.query("drop table pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history")
        if options.only in (None, "flip", "gate", "takeover"):
            d.prepare()
            d.wait_steady("blue")
        if options.only in (None, "flip"):
            flips(here, d, options)
        if options.only in (None, "gate"):
            gate(here, d, options)
        if options.only in (None, "takeover") and not options.asynchronous:
            takeover.takeovers(here, d, options, target)
        failed = False
    finally:
        if bouncer:
            bouncer.stop()
        try:
            here.finish(failed)
        finally:
            if failed:
                here.print_logs()
            shutil.rmtree(folder, ignore_errors=True)
    print()
    for what, measured, limit, met in checks:
        print("%-4s %-58s %12s   target %s" % ("ok" if met else "MISS", what, measured, limit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
