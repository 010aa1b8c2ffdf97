"""The daemon as a service: what it tells systemd, and the sockets that it takes over."""
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading

import cluster
import pg
from daemon import BINARY

HERE = os.path.dirname(os.path.abspath(__file__))


class Listener:
    """A NOTIFY_SOCKET of ours."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(90)
        self.socket.bind(path)
        self.name = path.replace("\0", "@", 1)

    def next(self, *skip):
        """The next message that has none of these fields, as {name: value}."""
        while True:
            message = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))
            if not any(name in message for name in skip):
                return message

    def until(self, name):
        while True:
            message = self.next()
            if name in message:
                return message


def start_with(d, sockets, **extra):
    """The daemon with these sockets as systemd passes them."""
    copies = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 100) for s in sockets]

    def in_child():
        cluster.die_with_parent()
        for number, copy in enumerate(copies):
            os.dup2(copy, 3 + number)
            os.close(copy)

    with open(d.log_path, "ab") as log:
        d.process = subprocess.Popen(
            ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"', BINARY, "serve", "-c", d.config_path], stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, close_fds=False, preexec_fn=in_child,
            env=d.environment(LISTEN_FDS=str(len(sockets)), **extra))
    for copy in copies:
        os.close(copy)


def listening(address):
    made = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    made.bind(address)
    made.listen(100)
    return made


def test_tells_systemd(world):
    """READY, STATUS, WATCHDOG, RELOADING and STOPPING, to a path and to an abstract name."""
    world.pair()
    for name in (os.path.join(world.folder, "notify"), "\0switchback-test-%d" % os.getpid()):
        news = Listener(name)
        d = world.daemon(start=False, timeouts={"shutdown": "7s"})
        d.start(environment={"NOTIFY_SOCKET": news.name, "WATCHDOG_USEC": "600000", "LISTEN_FDS": "5", "LISTEN_PID": "1"})
        assert news.next("WATCHDOG", "STATUS") == {"READY": "1"}
        with pg.Connection(d.address) as client:
            assert client.value("select 1") == "1"
            while "blue active, steady, 1 clients" not in news.until("STATUS")["STATUS"]:
                pass
        for _ in range(4):
            news.until("WATCHDOG")
        d.process.send_signal(signal.SIGHUP)
        told = news.next("WATCHDOG", "STATUS")
        assert told["RELOADING"] == "1" and int(told["MONOTONIC_USEC"]) > 0, told
        assert news.next("WATCHDOG", "STATUS") == {"READY": "1"}
        # a hung daemon is silent; it isn't for a hook to speak for it
        d.process.send_signal(signal.SIGSTOP)
        news.socket.settimeout(1.5)
        try:
            while True:
                news.next()
        except TimeoutError:
            pass
        d.process.send_signal(signal.SIGCONT)
        news.socket.settimeout(90)
        news.until("WATCHDOG")
        d.process.terminate()
        told = news.until("STOPPING")
        assert int(told["EXTEND_TIMEOUT_USEC"]) > 7000000, told
        assert d.wait_exit() == 0
        news.socket.close()


def test_takes_over_sockets(world):
    """Clients reach it over the sockets that were passed, TCP and Unix, and over no other."""
    world.pair()
    d = world.daemon(start=False)
    local_path = os.path.join(world.folder, ".s.PGSQL.6432")
    tcp, local = listening(("127.0.0.1", 0)), listening(local_path)
    start_with(d, [tcp, local])
    d.wait_ready()
    for address in (tcp.getsockname(), local_path):
        with pg.Connection(address) as client:
            assert client.value("select 1") == "1"
    for address in (d.address, d.unix_address):
        try:
            pg.Raw(address).abandon()
            raise AssertionError("somebody listens on %r" % (address,))
        except OSError:
            pass
    assert d.stop() == 0
    assert os.path.exists(local_path)  # it isn't ours
    for kind, what in ((socket.SOCK_DGRAM, "UDP"), (socket.SOCK_STREAM, "not listening")):
        with socket.socket(socket.AF_INET, kind) as useless:
            useless.bind(("127.0.0.1", 0))
            start_with(d, [useless])
            assert d.wait_exit() == 2, what
            assert "$LISTEN_FDS" in d.log_text()
    d.expected_exits = (2,)


def test_restart_refuses_nobody(world):
    """With sockets that outlive it the daemon restarts, and a client that comes meanwhile waits."""
    world.pair()
    d = world.daemon(start=False)
    tcp = listening(("127.0.0.1", 0))
    address = tcp.getsockname()
    start_with(d, [tcp])
    d.wait_ready()
    over, logins, problems = threading.Event(), [0], []

    def client():
        while not over.is_set():
            try:
                with pg.Connection(address) as connection:
                    for _ in range(5):
                        connection.query("select 1")
                logins[0] += 1
            except pg.PgError as error:
                if error.sqlstate not in ("57P01", "57P03"):
                    problems.append(error)
            except Exception as error:  # refused, closed without a word ...
                problems.append(error)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            before = logins[0]
            d.until(lambda: logins[0] > before + 20, what="clients come and go")
            assert d.stop() == 0
            start_with(d, [tcp])
            d.wait_ready()
        before = logins[0]
        d.until(lambda: logins[0] > before + 20, what="clients come and go")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not problems, problems[:5]


def test_systemd_socket_activate(world):
    """systemd's own starter of services: the first client starts the daemon and is served by it."""
    program = shutil.which("systemd-socket-activate")
    assert program, "tests/packages.sh installs systemd"
    world.pair()
    d = world.daemon(start=False)
    port, local_path = cluster.free_port(), os.path.join(world.folder, ".s.PGSQL.1")
    names = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
    with open(d.log_path, "ab") as log:
        d.process = subprocess.Popen(
            [program, "-l", "127.0.0.1:%d" % port, "-l", local_path] + ["--setenv=" + name for name in names]
            + [os.path.abspath(BINARY), "serve", "-c", d.config_path],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=d.environment(), preexec_fn=cluster.die_with_parent)

    def connected():
        try:
            return pg.Connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            return None

    with d.until(connected, what="somebody listens") as client:
        assert client.value("select 1") == "1"
    with pg.Connection(local_path) as client:
        assert client.value("select 1") == "1"


def test_unit_files(world):
    """systemd takes the unit files, and the daemon all that they ask of it."""
    program = shutil.which("systemd-analyze")
    assert program, "tests/packages.sh installs systemd"
    folder = os.path.join(HERE, "..", "..", "conf", "systemd")
    for name in ("switchback.service", "switchback.socket"):
        with open(os.path.join(folder, name)) as file:
            text = file.read().replace("/usr/local/bin/switchback", os.path.abspath(BINARY))
        with open(os.path.join(world.folder, name), "w") as file:
            file.write(text.replace("User=switchback", "User=root"))
    done = world.run([program, "verify", "--man=no", os.path.join(world.folder, "switchback.service"),
                      os.path.join(world.folder, "switchback.socket")])
    assert done.returncode == 0 and not done.stderr.strip() and not done.stdout.strip(), (done.stdout, done.stderr)


def test_unit_is_a_sandbox(world):
    """What the service may do beyond its work is next to nothing: systemd's own measure of it, from 0 to 100."""
    program = shutil.which("systemd-analyze")
    assert program, "tests/packages.sh installs systemd"
    unit = os.path.join(HERE, "..", "..", "conf", "systemd", "switchback.service")
    done = world.run([program, "security", "--offline=yes", "--threshold=20", "--no-pager", unit])
    assert done.returncode == 0 and "Overall exposure level" in done.stdout, (done.stdout[-2000:], done.stderr)
