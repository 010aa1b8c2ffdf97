"""Bad configurations: the file, the line and what was expected; exit status 2. Reload: all or nothing."""
import os
import signal
import subprocess

import daemon
import pg

GOOD = """\
sides:
  blue: { host: 127.0.0.1, port: 5001 }
  green: { host: 127.0.0.1, port: 5002 }
manager: { user: switchback }
databases: [ app ]
"""

# what is added to GOOD, the line it is on, a word of the message
BAD = [
    ("lisen: { port: 1 }\n", 6, "lisen"),
    ("listen: { prot: 1 }\n", 6, "prot"),
    ("listen:\n  port: many\n", 7, "port"),
    ("listen:\n  port: 70000\n", 7, "port"),
    ("listen:\n  max_clients: -1\n", 7, "max_clients"),
    ("workers: 1.5\n", 6, "workers"),
    ("flip:\n  drain: { timeout: 5 }\n", 7, "timeout"),
    ("flip:\n  drain: { timeout: 5 parsecs }\n", 7, "timeout"),
    ("flip:\n  max_hold: 1s\n", 7, "max_hold"),
    ("flip:\n  immovable: maybe\n", 7, "immovable"),
    ("flip: 5\n", 6, "flip"),
    ("unmanaged: perhaps\n", 6, "unmanaged"),
    ("auth: { method: md6 }\n", 6, "method"),
    ("auth: { method: hba }\n", 6, "hba_file"),
    ("auth:\n  method: hba\n  hba_file: /nowhere/hba.conf\n", 8, "/nowhere/hba.conf: can't be read"),
    ("auth:\n  verifier_file: /nowhere/users\n", 7, "/nowhere/users: can't be read"),
    ("gates:\n  - { name: a, metric: nonsense, max: 1 }\n", 7, "nonsense"),
    ("gates:\n  - { name: a, sql: select 1, command: [ x ] }\n", 7, "a"),
    ("gates:\n  - { name: a, metric: latency_p99, max_increase: many }\n", 7, "max_increase"),
    ("gates:\n  - { metric: latency_p99, max: 1s }\n", 7, "name"),
    ("databases: [ app ]\n", 6, "databases"),
    ("watch: { duration: 30m, flip_back: sometimes }\n", 6, "flip_back"),
    ("http: { listen: nowhere }\n", 6, "listen"),
    ("log: { level: loud }\n", 6, "level"),
    ("manager2: x\n", 6, "manager2"),
    ("log: { level: [ info ] }\n", 6, "level"),
    ("backup: { command: ls }\n", 6, "command"),
    ("listen: {\n", None, ""),
    ("\tlisten: x\n", 6, ""),
]


def check(world, text, *arguments):
    path = os.path.join(world.folder, "c.yaml")
    with open(path, "w") as file:
        file.write(text)
    done = subprocess.run([daemon.BINARY, "serve", "-c", path, *(arguments or ["--check-config"])], capture_output=True, text=True, timeout=180)
    return done, path


def test_errors(world):
    done, _ = check(world, GOOD)
    assert done.returncode == 0, done
    for text, line, word in BAD:
        done, path = check(world, GOOD + text)
        assert done.returncode == 2, (text, done)
        assert path in done.stderr and word in done.stderr, (text, done.stderr)
        if line:
            assert "%s:%d:" % (path, line) in done.stderr, (text, done.stderr)
    for missing in ("sides", "manager", "databases"):
        kept, keep = "", True
        for part in GOOD.splitlines(True):
            if not part.startswith(" "):
                keep = not part.startswith(missing)
            kept += part if keep else ""
        done, _ = check(world, kept)
        assert done.returncode == 2 and missing in done.stderr, (missing, done)
    for text in ("", "just text", "[]", "- a\n", "\0\0", "a: &x [*x]\n", GOOD + "x: " + "[" * 5000, "!!binary x"):
        done, _ = check(world, text)
        assert done.returncode == 2, (text[:50], done)
    done = subprocess.run([daemon.BINARY, "serve", "-c", "/nonexistent/file.yaml"], capture_output=True, text=True, timeout=180)
    assert done.returncode == 2 and "/nonexistent/file.yaml" in done.stderr, done
    done, path = check(world, GOOD + "listen: { port: many }\n", "--socket", "/tmp/none")
    assert done.returncode == 2, done


def test_secrets_are_masked(world):
    password = os.path.join(world.folder, "pw")
    with open(password, "w") as file:
        file.write("very-secret\n")
    os.chmod(password, 0o600)
    done, _ = check(world, GOOD.replace("{ user: switchback }", "{ user: switchback, password_file: %s }" % password), "--print-config")
    assert done.returncode == 0 and "very-secret" not in done.stdout + done.stderr, done
    assert "max_hold" in done.stdout and "manager" in done.stdout, done.stdout
    done, _ = check(world, GOOD.replace("{ user: switchback }", "{ user: switchback, password_file: /nonexistent/pw }"))
    assert done.returncode == 2 and "/nonexistent/pw" in done.stderr, done


def test_bad_start(world):
    """serve with a bad configuration or an impossible one ends at once."""
    world.pair()
    d = world.daemon(start=False)
    d.expected_exits = (1, 2)
    d.write_text("nonsense\n")
    d.start(wait=False)
    assert d.wait_exit() == 2
    d.write(state={"dir": "/proc/nowhere"})
    d.start(wait=False)
    assert d.wait_exit() == 1, d.log_tail()


def test_reload(world):
    """A reloadable key takes effect, a bad file changes nothing, a key that needs a restart is named."""
    world.pair()
    d = world.daemon()
    clients = [world.connect() for _ in range(3)]
    d.write(listen={"max_clients": 3})
    d.verb("reload", code=0)
    try:
        world.connect()
        raise AssertionError("a fourth client came in")
    except pg.PgError as error:
        assert error.sqlstate == "53300"
    good = d.settings
    d.write_text(open(d.config_path).read().replace('"max_clients": 3', '"max_clients": "three"'))
    answer = d.verb("reload", code=2)
    assert "max_clients" in answer.out + answer.err, answer
    d.settings = good
    d.write(listen={"max_clients": 50}, workers=3)
    answer = d.verb("reload")
    assert "workers" in answer.out + answer.err, answer
    d.write(listen={"max_clients": 50}, workers=2)
    d.process.send_signal(signal.SIGHUP)
    d.until(lambda: _comes_in(world), what="a SIGHUP reloads")
    for client in clients:
        assert client.value("select 1") == "1"


def _comes_in(world):
    try:
        world.connect().close()
        return True
    except pg.PgError:
        return False
