"""The daemon under test: writes its configuration, starts `switchback serve`, calls verbs, collects what
sanitizers say."""
import glob
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import cluster

BUILD = os.environ.get("SWITCHBACK_BUILD", "build")
BINARY = os.path.join(BUILD, "switchback")
SLOW = float(os.environ.get("SWITCHBACK_SLOW", "1"))  # what is measured may take so many times longer than here
LIMIT = 3 * SLOW  # of deadlines, which only a failure comes to: on a busy machine with two cores, too


def merge(base, extra):
    """`extra` over `base`, key by key."""
    result = dict(base)
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


class Answer:
    """What a verb printed and how it ended."""

    def __init__(self, done, command):
        self.code, self.out, self.err, self.command = done.returncode, done.stdout, done.stderr, command

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError:
            raise AssertionError("%s printed no JSON (exit %d): %r %r" % (self.command, self.code, self.out, self.err)) from None

    def __repr__(self):
        return "<%s: exit %d, out %r, err %r>" % (" ".join(self.command), self.code, self.out[-2000:], self.err[-2000:])


class Daemon:
    def __init__(self, folder, blue, green, name="switchback", **settings):
        self.folder = os.path.join(folder, name)
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        self.port, self.http_port = cluster.free_port(), cluster.free_port()
        self.socket_path = os.path.join(self.folder, "control.sock")
        self.config_path = os.path.join(self.folder, "switchback.yaml")
        self.log_path = os.path.join(self.folder, "daemon.log")
        self.process = None
        self.added = {}  # to the environment of each start
        self.settings = merge({
            "listen": {"host": "127.0.0.1", "port": self.port, "unix_dir": self.folder},
            "workers": 2,
            "control": {"socket": self.socket_path},
            "http": {"listen": "127.0.0.1:%d" % self.http_port},
            "state": {"dir": os.path.join(self.folder, "state")},
            "sides": {
                "blue": {"host": "127.0.0.1", "port": blue.port},
                "green": {"host": "127.0.0.1", "port": green.port},
            },
            "initial": "blue",
            "manager": {"user": "switchback"},
            "databases": ["app"],
            "auth": {"method": "trust"},
            "flip": {"drain": {"timeout": "10s"}, "catchup": {"timeout": "10s"}, "max_hold": "25s"},
            "prepare": {"pg_bin_dir": cluster.OLD_BIN},
            "watch": {"duration": "1s"},
            "log": {"level": "debug"},
        }, settings)
        self.write()

    def write(self, **settings):
        """Writes the configuration, changed by `settings`. JSON is YAML."""
        self.settings = merge(self.settings, settings)
        self.write_text(json.dumps(self.settings, indent=1) + "\n")

    def write_text(self, text):
        with open(self.config_path, "w") as file:
            file.write(text)

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def unix_address(self):
        return os.path.join(self.folder, ".s.PGSQL.%d" % self.port)

    def environment(self, **extra):
        report = os.path.join(self.folder, "sanitizer")
        options = "verify_asan_link_order=0:log_path=%s:handle_abort=1:detect_stack_use_after_return=0:strict_string_checks=1" % report
        return dict(
            os.environ, ASAN_OPTIONS=options, UBSAN_OPTIONS="print_stacktrace=1:log_path=" + report,
            TSAN_OPTIONS="log_path=%s:halt_on_error=0" % report,
            SWITCHBACK_SOCKET=self.socket_path, **extra)

    # --- life

    def start(self, wait=True, environment=None):
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [BINARY, "serve", "-c", self.config_path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=self.environment(**self.added, **(environment or {})), preexec_fn=cluster.die_with_parent, start_new_session=True)
        log.close()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=30):
        self.until(lambda: self.http("/readyz")[0] == 200, timeout, "the daemon is ready")

    def until(self, fact, timeout=30, what="a fact"):
        """Waits until fact() is true; the daemon must live meanwhile."""
        end = time.monotonic() + timeout * LIMIT
        while True:
            result = fact()
            if result:
                return result
            if self.process.poll() is not None:
                raise AssertionError("the daemon ended with %d while waiting until %s" % (self.process.returncode, what))
            if time.monotonic() > end:
                raise AssertionError("timed out waiting until %s" % what)
            time.sleep(0.02)

    def wait_exit(self, timeout=30):
        return self.process.wait(timeout * LIMIT)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, timeout=90):
        """SIGTERM; returns the exit status. Its journal is closed with a sync, which a disk that others keep busy may let wait."""
        if self.running:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.wait_exit(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def reports(self):
        """What sanitizers found, in all runs of this daemon and its verbs."""
        texts = []
        for path in sorted(glob.glob(os.path.join(self.folder, "sanitizer*"))):
            with open(path, errors="replace") as file:
                texts.append(file.read())
        return texts

    def log_text(self):
        try:
            with open(self.log_path, errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def log_tail(self, lines=60):
        kept = [line for line in self.log_text().splitlines() if "procedure_ended name=sample" not in line]
        return "\n".join(kept[-lines:])

    # --- verbs

    def verb(self, *arguments, timeout=120, json=True, code=None, environment=None):
        """Runs `switchback VERB...`; with `code` the exit status must be that."""
        command = [str(argument) for argument in arguments] + (["--json"] if json else [])
        done = subprocess.run([BINARY] + command, capture_output=True, text=True, timeout=timeout * LIMIT,
                              env=self.environment(**(environment or {})))
        answer = Answer(done, command)
        assert code is None or answer.code == code, "expected exit %d: %r" % (code, answer)
        return answer

    def start_verb(self, *arguments, json=True):
        """Runs a verb in the background."""
        command = [str(argument) for argument in arguments] + (["--json"] if json else [])
        return Running(subprocess.Popen([BINARY] + command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=self.environment()), command)

    def status(self):
        return self.verb("status", code=0).json

    def wait_status(self, fact, timeout=30, what="a status"):
        """Waits until fact(status) is true."""
        last = [None]

        def ask():
            answer = self.verb("status")
            if answer.code not in (0, 4):
                return False
            last[0] = answer.json
            return fact(last[0])

        try:
            self.until(ask, timeout, what)
        except AssertionError as error:
            raise AssertionError("%s; last status %r" % (error, last[0])) from None
        return last[0]

    def wait_steady(self, active=None, timeout=60):
        """No flip, no watch, the way back open; `active` serves."""
        return self.wait_status(
            lambda s: s["phase"] == "steady" and s["way_back"]["open"] and (active is None or s["active"] == active),
            timeout, "steady with an open way back, active %s" % active)

    def flip(self, verb, tries=20):
        """A flip that comes through in the end: with short deadlines a slow machine may undo or refuse one, which leaves traffic
        where it was."""
        for _ in range(tries):
            self.wait_status(lambda s: s["flip"] is None and s["way_back"]["open"], 60, "a state in which a flip may begin")
            answer = self.verb(verb)
            if answer.code == 0:
                return answer
            assert answer.code == 1, answer
        raise AssertionError("%s never came through: %r" % (verb, answer))

    def prepare(self):
        return self.verb("prepare", timeout=300, code=0)

    def rpc(self, method, params=None, timeout=60 * LIMIT):
        """One request over the control socket, by hand; notifications before the answer are dropped."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self.socket_path)
            request = {"jsonrpc": "2.0", "id": 1, "method": method}
            if params is not None:
                request["params"] = params
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in connection.makefile("rb"):
                answer = json.loads(line)
                if answer.get("id") == 1:
                    return answer
        raise AssertionError("the control socket closed without an answer to " + method)

    def http(self, path):
        """(status, body); status 0 if nobody listens."""
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.http_port, path), timeout=20 * LIMIT) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name, **labels):
        """The value of a metric whose labels include `labels`; None if there is none."""
        for line in self.http("/metrics")[1].splitlines():
            if line.startswith("#"):
                continue
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and all('%s="%s"' % pair in head for pair in labels.items()):
                return float(value)
        return None


class Running:
    """A verb that runs in the background."""

    def __init__(self, process, command):
        self.process, self.command = process, command

    def finish(self, timeout=120, code=None):
        out, err = self.process.communicate(timeout=timeout * LIMIT)
        answer = Answer(subprocess.CompletedProcess(self.command, self.process.returncode, out, err), self.command)
        assert code is None or answer.code == code, "expected exit %d: %r" % (code, answer)
        return answer

    @property
    def running(self):
        return self.process.poll() is None
