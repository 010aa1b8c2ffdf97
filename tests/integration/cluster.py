"""PostgreSQL clusters of the tests: started as children of the test's process, on free ports, gone with it.

The binaries come from the environment, which tests/run.sh sets: SWITCHBACK_PG_BIN (Debian's 15),
SWITCHBACK_PG_NEW_BIN (17; empty where it can't be had, then both sides run the first) and SWITCHBACK_PG_VERSIONS
(of each version that the proxy serves, as far as they can be had). As root, clusters run as user postgres.
"""
import contextlib
import ctypes
import fcntl
import glob
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pg

OLD_BIN = os.environ.get("SWITCHBACK_PG_BIN") or max(glob.glob("/usr/lib/postgresql/*/bin"), default="")
NEW_BIN = os.environ.get("SWITCHBACK_PG_NEW_BIN") or OLD_BIN
ALL_BINS = os.environ.get("SWITCHBACK_PG_VERSIONS", "").split() or sorted({OLD_BIN, NEW_BIN})

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "fsync": "off",
    "max_connections": 400,
    "shared_buffers": "64MB",
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "max_worker_processes": 24,
    "max_logical_replication_workers": 12,
    "wal_retrieve_retry_interval": "20ms",
    "max_prepared_transactions": 10,
    "log_line_prefix": "%m [%p] %a ",
    "log_min_messages": "info",
    "lc_messages": "C",
    "timezone": "UTC",
    "jit": "off",
}

TRUST = "local all all trust\nhost all all 127.0.0.1/32 trust\nlocal replication all trust\nhost replication all 127.0.0.1/32 trust\n"
# the manager and the postgres role come in freely, applications with their password
SCRAM = (
    "local all all trust\nhost all postgres,switchback 127.0.0.1/32 trust\n"
    "host replication all 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
)

_libc = ctypes.CDLL(None)
_reserved = []  # descriptors whose locks keep our ports ours


def die_with_parent():
    """For preexec_fn: the child gets SIGQUIT (immediate shutdown) when the thread that started it ends."""
    _libc.prctl(1, signal.SIGQUIT)


def free_port():
    """A port that no other test of this machine takes while this process lives."""
    folder = os.path.join(tempfile.gettempdir(), "switchback-ports")
    os.makedirs(folder, exist_ok=True)
    try:
        os.chmod(folder, 0o1777)
    except PermissionError:
        pass
    while True:
        port = random.randint(20000, 31999)  # below the ports that the kernel gives to outgoing connections
        try:
            lock = os.open(os.path.join(folder, str(port)), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                os.close(lock)
                continue
        _reserved.append(lock)
        return port


def identity():
    """Arguments of Popen that make a child run as the clusters' user."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist("postgres", user.pw_gid)}


def own(path):
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", pwd.getpwnam("postgres").pw_gid)


def make_template(binaries, folder):
    """A cluster as initdb leaves it; each test copies it, which is ten times faster than initdb."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    os.mkdir(folder)
    own(folder)
    command = [os.path.join(binaries, "initdb"), "-D", folder, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8",
               "--locale=C.UTF-8"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, **identity())
    if done.returncode != 0:
        raise RuntimeError("initdb failed: " + done.stderr)


class Cluster:
    def __init__(self, folder, name, binaries=OLD_BIN, template=None, settings=None, hba=TRUST, port=None):
        self.name, self.binaries = name, binaries
        self.data = os.path.join(folder, name)
        self.log_path = os.path.join(folder, name + ".log")
        self.host, self.port = "127.0.0.1", port or free_port()
        self.namespace = contextlib.nullcontext  # entered while the server starts
        self.process = None
        self.environment = {}  # that is added to ours
        self.may_panic = False  # because a test breaks its disk
        if template:
            subprocess.run(["cp", "-a", "--reflink=auto", template, self.data], check=True)
        else:
            make_template(self.binaries, self.data)
        self.settings = {**SETTINGS, "port": self.port, "unix_socket_directories": "", **(settings or {})}
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            for key, value in self.settings.items():
                conf.write("%s = '%s'\n" % (key, value))
        self.write_hba(hba)

    def write_hba(self, text):
        with open(os.path.join(self.data, "pg_hba.conf"), "w") as hba:
            hba.write(text)
        if self.process and self.process.poll() is None:
            self.connect().query("select pg_reload_conf()")

    @property
    def address(self):
        return (self.host, self.port)

    @property
    def version(self):
        with open(os.path.join(self.data, "PG_VERSION")) as file:
            return int(file.read())

    # --- life

    def start(self, wait=True):
        """Starts the server as our child. Call it on the main thread only: the server ends with its parent thread."""
        log = open(self.log_path, "ab")
        if os.geteuid() == 0:
            own(self.log_path)
        with self.namespace():
            self.process = subprocess.Popen(
                [os.path.join(self.binaries, "postgres"), "-D", self.data], cwd="/", stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, preexec_fn=die_with_parent, env=dict(os.environ, **self.environment), **identity())
        log.close()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=180):
        end = time.monotonic() + timeout
        while True:
            if self.process.poll() is not None:
                raise RuntimeError("cluster %s does not start:\n%s" % (self.name, self.log_tail(20)))
            try:
                self.connect().close()
                return
            except (OSError, pg.PgError, pg.Closed):
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def stop(self, mode="fast"):
        if not self.process or self.process.poll() is not None:
            return
        self.resume()
        self.process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        try:
            self.process.wait(120 if mode != "immediate" else 60)
        except subprocess.TimeoutExpired:
            self.kill()

    def family(self):
        """The postmaster's pid and its children's."""
        pids = [self.process.pid]
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path) as file:
                    stat = file.read()
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == self.process.pid:
                pids.append(int(stat.split(" ", 1)[0]))
        return pids

    def signal_all(self, number):
        if self.process and self.process.poll() is None:
            for pid in self.family():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass

    def kill(self):
        """kill -9 of every process at once, as a power failure would."""
        os.kill(self.process.pid, signal.SIGSTOP)  # or it could start another child behind our back
        pids = self.family()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        end = time.monotonic() + 60
        while any(_running(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.005)
        if os.path.exists(os.path.join(self.data, "postmaster.pid")):
            os.remove(os.path.join(self.data, "postmaster.pid"))

    def pause(self):
        """The machine hangs: connections stay, nothing answers."""
        self.signal_all(signal.SIGSTOP)

    def resume(self):
        self.signal_all(signal.SIGCONT)

    # --- questions

    def connect(self, database="postgres", user="postgres", **params):
        return pg.Connection(self.address, user=user, database=database, **params)

    def query(self, sql, database="app", user="postgres"):
        """Rows of a statement on a connection of its own; a select is asked again where a fence ended that."""
        def question():
            with self.connect(database, user) as connection:
                return connection.query(sql)
        return ask(question) if sql.lstrip().lower().startswith("select") else question()

    def value(self, sql, database="app", user="postgres"):
        rows = self.query(sql, database, user)
        return rows[0][0] if rows else None

    def log_text(self):
        try:
            with open(self.log_path, errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def log_tail(self, lines=40):
        return "\n".join(self.log_text().splitlines()[-lines:])


def ended_by_a_fence(error):
    """Whether a session was ended from outside; a fence does that to foreign ones, when a daemon meets a standby, too."""
    return error.sqlstate == "57P01" if isinstance(error, pg.PgError) else isinstance(error, (pg.Closed, ConnectionError))


def ask(question, tries=5):
    """The answer to a question that changes nothing: asked again where a fence ended its session."""
    for attempt in range(tries):
        try:
            return question()
        except (pg.PgError, pg.Closed, OSError) as error:
            if not ended_by_a_fence(error) or attempt == tries - 1:
                raise


def _running(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
