"""replication_tool: one operation of replication.h on a pair of clusters, without a daemon."""
import json
import os
import subprocess
import threading

from daemon import BUILD, LIMIT

PROGRAM = os.path.join(BUILD, "tests", "replication_tool")


class Outcome:
    """What the tool printed."""

    def __init__(self, code, lines):
        self.code, self.lines = code, lines
        self.progress = [line.split("\t") for line in lines if line.startswith("progress\t")]
        self.items = {}
        for line in lines:
            parts = line.split("\t")
            if len(parts) == 4 and parts[1] in ("pass", "warn", "fail"):
                self.items[parts[0]] = {"state": parts[1], "message": parts[2], "objects": [o for o in parts[3].split("|") if o]}
        self.error = next((line.split("\t")[1:] for line in lines if line.startswith("error\t")), None)

    @property
    def ok(self):
        return self.code == 0 and self.error is None

    def state(self, item):
        return self.items[item]["state"] if item in self.items else None

    def failing(self):
        return sorted(name for name, item in self.items.items() if item["state"] == "fail")

    def __repr__(self):
        return "<exit %s: %s>" % (self.code, "\n".join(self.lines[-12:]))


class Tool:
    def __init__(self, world, databases=("app",), password="", **settings):
        self.folder = os.path.join(world.folder, "tool")
        os.makedirs(self.folder, exist_ok=True)
        self.config = os.path.join(self.folder, "switchback.yaml")
        self.reports = os.path.join(self.folder, "sanitizer")
        self.password = password
        manager = {"user": "switchback"}
        if password:
            manager["password_env"] = "MANAGER_PASSWORD"
        with open(self.config, "w") as file:
            json.dump(dict({
                "sides": {"blue": {"host": "127.0.0.1", "port": world.blue.port},
                          "green": {"host": "127.0.0.1", "port": world.green.port}},
                "manager": manager,
                "databases": list(databases),
                "state": {"dir": os.path.join(self.folder, "state")},
                "prepare": {"pg_bin_dir": world.blue.binaries if world.blue.version == 15 else ""},
            }, **settings), file)

    def start(self, operation, active="blue"):
        environment = dict(os.environ, MANAGER_PASSWORD=self.password,
                           ASAN_OPTIONS="log_path=%s:handle_abort=1" % self.reports,
                           UBSAN_OPTIONS="print_stacktrace=1:log_path=%s" % self.reports)
        log = open(os.path.join(self.folder, "tool.log"), "ab")
        process = subprocess.Popen([PROGRAM, self.config, operation, active], stdout=subprocess.PIPE, stderr=log,
                                   text=True, env=environment, start_new_session=True)
        log.close()
        return process

    def run(self, operation, active="blue", timeout=120):
        process = self.start(operation, active)
        out, _ = process.communicate(timeout=timeout * LIMIT)
        self.no_reports()
        return Outcome(process.returncode, out.splitlines())

    def prepare(self, active="blue"):
        outcome = self.run("prepare", active)
        assert outcome.ok, outcome
        return outcome

    def check(self, active="blue"):
        outcome = self.run("check", active)
        assert outcome.ok, outcome
        return outcome

    def kill_at(self, step, delay=0.0, operation="prepare"):
        """Runs until the progress of `step` begins, then kill -9. Whether it had come so far."""
        process = self.start(operation)
        reached = False
        guard = threading.Timer(120 * LIMIT, process.kill)
        guard.start()
        for line in process.stdout:
            if line.startswith("progress\t%s\t" % step):
                reached = True
                if delay:
                    threading.Event().wait(delay)
                process.kill()
                break
        process.stdout.close()
        process.wait()
        guard.cancel()
        self.no_reports()
        return reached

    def no_reports(self):
        for name in os.listdir(self.folder):
            if name.startswith("sanitizer") or name == "tool.log":
                with open(os.path.join(self.folder, name), errors="replace") as file:
                    text = file.read()
                if name != "tool.log" or "runtime error" in text or "broken invariant" in text or "Sanitizer" in text:
                    raise AssertionError(text[-5000:])
