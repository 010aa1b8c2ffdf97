"""What a test stands in: a folder, clusters, daemons and programs that end with it.

    def test_something(world):
        world.pair()                    # blue (15, with database app) and green (17, empty), started
        d = world.daemon()              # switchback in front of them
        d.prepare()
        with world.connect() as c: ...  # a client through the proxy
"""
import json
import os
import signal
import subprocess
import time

import pg
from cluster import NEW_BIN, OLD_BIN, TRUST, Cluster, ask
from daemon import BUILD, Daemon, LIMIT

HERE = os.path.dirname(os.path.abspath(__file__))
DRIVERS = os.path.join(BUILD, "tests")
LEDGER_SQL = os.path.join(HERE, "..", "drivers", "ledger.sql")


class Skipped(Exception):
    """The test can't run here; its text says why."""


class World:
    def __init__(self, folder, templates):
        self.folder, self.templates = folder, templates
        self.clusters, self.daemons, self.processes, self.connections = [], [], [], []
        self.blue = self.green = None
        self.place = lambda cluster: None  # where a cluster is to live, before it starts
        self.expect_reports = False

    def skip(self, why):
        """Ends the test, which counts as neither passed nor failed; `why` is printed."""
        raise Skipped(why)

    def note(self, text):
        """A figure that people want to see: printed, and appended to the file that $SWITCHBACK_NOTES names."""
        print(text, flush=True)
        if os.environ.get("SWITCHBACK_NOTES"):
            with open(os.environ["SWITCHBACK_NOTES"], "a") as file:
                file.write(text + "\n")

    # --- clusters

    def cluster(self, name, new=False, hba=TRUST, binaries=None, **settings):
        binaries = binaries or (NEW_BIN if new else OLD_BIN)
        made = Cluster(self.folder, name, binaries, self.templates.get(binaries), settings, hba)
        self.clusters.append(made)
        self.place(made)
        made.start()
        made.query("create role switchback superuser login password 'manager'", "postgres")
        return made

    def pair(self, accounts=1000, ledger=False, databases=("app",), hba=TRUST, blue_new=False, green_new=True,
             blue_binaries=None, green_binaries=None, **settings):
        """Blue has the roles and databases, green only the manager."""
        self.blue = self.cluster("blue", blue_new, hba, blue_binaries, **settings)
        self.green = self.cluster("green", green_new, hba, green_binaries, **settings)
        with self.blue.connect() as connection:
            connection.query("create role app login password 'secret'")
            for database in databases:
                connection.query('create database "%s" owner app' % database)
        if ledger:
            for database in databases:
                self.psql(self.blue, ["-q", "-v", "accounts=%d" % accounts, "-f", LEDGER_SQL], database, check=True)
        return self.blue, self.green

    def side(self, name):
        return self.blue if name == "blue" else self.green

    def other(self, name):
        return self.green if name == "blue" else self.blue

    # --- the daemon and clients

    def daemon(self, start=True, **settings):
        made = Daemon(self.folder, self.blue, self.green, "switchback%d" % len(self.daemons), **settings)
        self.daemons.append(made)
        if start:
            made.start()
        return made

    def prepared(self, ledger=True, pair=None, **settings):
        """A pair under a daemon, prepared and in sync."""
        self.pair(ledger=ledger, **(pair or {}))
        made = self.daemon(**settings)
        made.prepare()
        made.wait_steady("blue")
        return made

    def connect(self, user="app", database="app", through=None, **params):
        """A client through the (first) daemon; closed with the test."""
        address = (through or self.daemons[0]).address
        made = pg.Connection(address, user=user, database=database, **params)
        self.connections.append(made)
        return made

    def conninfo(self, to=None, database="app", user="app"):
        to = to or self.daemons[0]
        return "host=%s port=%d user=%s dbname=%s" % (to.address + (user, database))

    def psql(self, to, arguments, database="app", user="app", check=False, **options):
        environment = dict(os.environ, PGHOST=to.address[0], PGPORT=str(to.port), PGUSER=user, PGDATABASE=database,
                           PGCONNECT_TIMEOUT="20", PGPASSWORD="secret", **options.pop("environment", {}))
        return self.run([os.path.join(OLD_BIN, "psql"), "-X"] + arguments, env=environment, check=check, **options)

    def run(self, command, check=False, timeout=120, **options):
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout * LIMIT, **options)
        if check:
            assert done.returncode == 0, "%r ended with %d: %s%s" % (command, done.returncode, done.stdout, done.stderr)
        return done

    def spawn(self, command, **options):
        """A program in the background; ended with the test if it still runs."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen(command, text=True, start_new_session=True, **options)
        self.processes.append(process)
        return process

    # --- load

    def ledger(self, sessions=10, rate=50, seconds=0, database="app", user="app", accounts=1000, to=None, states=False):
        """Starts the load of tests/drivers/ledger, and waits until it writes; Ledger.stop() ends it. `states`: in all states
        that a drain may find."""
        load = Ledger(self, sessions, rate, seconds, database, user, accounts, to, states)
        load.wait_written()
        return load

    def assert_same_data(self, database="app", tables=None, settle=20):
        """Every table of schema public holds the same rows on both sides, once replication has settled."""
        def content(side):
            with side.connect(database) as connection:
                connection.query("set timezone = 'UTC'; set extra_float_digits = 1")
                names = tables or [name for name, in connection.query(
                    "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = relnamespace"
                    " where relkind = 'r' and nspname = 'public' order by 1")]
                return {name: sorted(connection.query("select t::text from %s t" % name)) for name in names}
        end = time.monotonic() + settle * LIMIT
        while True:
            blue, green = ask(lambda: content(self.blue)), ask(lambda: content(self.green))
            if blue == green:
                return
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        for name in sorted(set(blue) | set(green)):
            left, right = set(blue.get(name, [])), set(green.get(name, []))
            if left != right:
                print("%s differs: only on blue %s, only on green %s" % (name, sorted(left - right)[:5], sorted(right - left)[:5]))
        raise AssertionError("the sides differ in " + ", ".join(n for n in set(blue) | set(green) if blue.get(n) != green.get(n)))

    # --- the end

    def finish(self, failed):
        """Ends everything; raises if a daemon ended badly or a sanitizer reported."""
        problems = []
        for connection in self.connections:
            connection.abandon()
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.communicate(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
        for one in self.daemons:
            if one.running:
                try:
                    code = one.stop()
                    if code != 0:
                        problems.append("%s ended with %d on SIGTERM" % (one.folder, code))
                except subprocess.TimeoutExpired:
                    problems.append("%s doesn't end on SIGTERM" % one.folder)
                    one.process.send_signal(signal.SIGABRT)
                    try:
                        one.process.wait(60)
                    except subprocess.TimeoutExpired:
                        one.kill()
            elif one.process and one.process.returncode not in (0, -signal.SIGKILL, *getattr(one, "expected_exits", ())):
                problems.append("%s had ended with %d" % (one.folder, one.process.returncode))
        for one in self.clusters:
            one.stop("immediate")
        for one in self.daemons:
            problems += one.reports()
        for one in self.clusters:
            if "PANIC" in one.log_text() and not one.may_panic or "was terminated by signal 11" in one.log_text():
                problems.append("cluster %s crashed:\n%s" % (one.name, one.log_tail()))
        self._end_orphans()
        if problems and not self.expect_reports:
            raise AssertionError("\n".join(problems))

    def _end_orphans(self):
        """Children that were left to us (this process is their subreaper)."""
        for _ in range(200):
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                for child in self._children():
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.01)

    def _children(self):
        with open("/proc/self/task/%d/children" % os.getpid()) as file:
            return [int(pid) for pid in file.read().split()]

    def print_logs(self):
        for one in self.daemons:
            print("--- %s" % one.log_path)
            print(one.log_tail())
        for one in self.clusters:
            lines = [line for line in one.log_text().splitlines() if any(w in line for w in ("ERROR", "FATAL", "PANIC", "WARNING"))]
            print("--- %s, errors only" % one.log_path)
            print("\n".join(lines[-15:]))


class Ledger:
    runs = 0

    def __init__(self, world, sessions, rate, seconds, database, user, accounts, to, states):
        Ledger.runs += 1
        self.world, self.database, self.number = world, database, Ledger.runs
        self.out = os.path.join(world.folder, "ledger%d" % self.number)
        self.program = os.path.join(DRIVERS, "ledger")
        self.process = world.spawn([
            self.program, "run", world.conninfo(to, database, user), "--out", self.out, "--sessions", str(sessions), "--rate",
            str(rate), "--seconds", str(seconds), "--accounts", str(accounts), "--run", str(self.number)] + (["--states"] if states else []),
            env=world.daemons[0].environment() if world.daemons else None)
        self.summary = None

    def wait_written(self, timeout=60):
        """Until something of it is on a side, or it has ended."""
        end = time.monotonic() + timeout * LIMIT
        while self.process.poll() is None and not any(self._is_on(side) for side in (self.world.blue, self.world.green)):
            assert time.monotonic() < end, "the load writes nothing"
            time.sleep(0.05)

    def _is_on(self, side):
        try:
            return side.value("select run from entry where run = %d limit 1" % self.number, self.database) is not None
        except pg.PgError as error:
            return error.sqlstate == "28000"  # it lets nobody in without TLS: then nothing is waited for
        except (OSError, pg.Closed):
            return False

    def wait(self, timeout=120):
        out, err = self.process.communicate(timeout=timeout * LIMIT)
        assert out, "the ledger said nothing: %s" % err
        self.summary = json.loads(out)
        return self.summary

    def stop(self):
        """Ends the load; its summary."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()

    def assert_rescued(self):
        """As assert_clean, but for what a flip-back that begins by itself ends if it takes too long."""
        s = self.summary or self.stop()
        assert s["wrong"] == 0 and s["acknowledged_writes"] > 0, s
        states = {state for outcome, _, _, _, _, _, _, state in self.operations() if outcome != "ack"}
        assert states <= {"57014", "57P01"}, (states, s)

    def assert_clean(self):
        """No error, no lost connection, no lost state; and there was load."""
        s = self.summary or self.stop()
        assert s["failed"] == s["in_doubt"] == s["reconnects"] == s["wrong"] == 0, s
        assert s["acknowledged_writes"] > 0, s
        return s

    def verify(self, side, good=True):
        """What the load was promised is what `side` (a Cluster) holds; with `good` False: what the check says."""
        for _ in range(5):
            done = self.world.run([self.program, "verify", self.world.conninfo(side, self.database, "postgres"), "--out", self.out])
            if done.stdout or "terminating connection" not in done.stderr:  # a fence ends foreign sessions
                break
        result = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
        assert not good or done.returncode == 0 and result["ok"], "%r %s" % (result, done.stderr[:1000])
        return result

    def operations(self):
        """(outcome, session, n, kind, start_us, elapsed_us, longest_us, sqlstate) of each operation."""
        with open(self.out) as file:
            next(file)
            for line in file:
                o = line.split()  # of lists more follows
                yield (o[0], int(o[1]), int(o[2]), o[3], int(o[4]), int(o[5]), int(o[6]), o[7])
