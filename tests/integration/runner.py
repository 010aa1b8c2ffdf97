#!/usr/bin/python3
"""Runs the integration tests: every function test_* of every test_*.py here, each in a process and a folder of its
own, a few at a time. tests/run.sh builds and sets the environment, then calls this.

    runner.py [--jobs N] [--keep] [--list] [--long] [PATTERN...]     a PATTERN is a part of FILE.FUNCTION

A test gets a World (world.py): clusters, daemons and programs that it starts through it end with it. A report of a
sanitizer fails the test that caused it. A test marked `long = True` runs only with --long or when a PATTERN is its whole
name. One that can't run here says why (world.skip). The last line says `N passed, N failed`.
"""
import argparse
import ctypes
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import cluster  # noqa: E402
import daemon  # noqa: E402
import world  # noqa: E402

DEFAULT_TIMEOUT = 180
SKIPPED = 77  # exit status of a test's process


def collect(patterns, long):
    """(name, function), the slowest first so that they don't run alone at the end."""
    tests = []
    for file in sorted(os.listdir(HERE)):
        if not (file.startswith("test_") and file.endswith(".py")):
            continue
        module = importlib.import_module(file[:-3])
        for name, function in vars(module).items():
            if name.startswith("test_") and callable(function):
                full = "%s.%s" % (file[5:-3], name[5:])
                if getattr(function, "long", False) and not long and full not in patterns:
                    continue
                if not patterns or any(pattern in full for pattern in patterns):
                    tests.append((full, function))
    return sorted(tests, key=lambda test: -getattr(test[1], "timeout", DEFAULT_TIMEOUT))


def run_one(function, folder, templates, output):
    """In the child: runs one test; the exit status tells the parent.

    Each test, daemon and driver is a session of its own, as every PostgreSQL backend is: the kernel shares its processors
    among sessions (sched_autogroup), and all tests together in one would get what a single busy backend gets, seconds apart."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGALRM, 0, 0, 0)  # a session of its own hears neither ^C nor that the runner is gone
    os.dup2(output, 1)
    os.dup2(output, 2)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # what our children leave behind becomes ours to end
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    here = world.World(folder, templates)
    failed, skipped = False, False
    try:
        function(here)
    except world.Skipped as why:
        skipped = True
        print("skipped: %s" % why)
    except BaseException:
        failed = True
        traceback.print_exc()
    try:
        here.finish(failed)
    except BaseException:
        if not failed:
            traceback.print_exc()
        failed = True
    if failed:
        here.print_logs()
    sys.stdout.flush()
    sys.stderr.flush()
    return 1 if failed else SKIPPED if skipped else 0


class Job:
    count = 0

    def __init__(self, name, function, root, templates):
        self.name, self.started = name, time.monotonic()
        self.limit = getattr(function, "timeout", DEFAULT_TIMEOUT) * daemon.LIMIT
        Job.count += 1
        self.folder = os.path.join(root, "%03d.%s" % (Job.count, name[:30]))  # a socket's path has at most 107 bytes
        self.output = self.folder + ".out"
        self.timed_out = False
        descriptor = os.open(self.output, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                status = run_one(function, self.folder, templates, descriptor)
            finally:
                os._exit(status)
        os.close(descriptor)

    def poll(self):
        """None while it runs, then "ok", "skip" or "FAIL"."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            return {0: "ok", SKIPPED: "skip"}.get(os.waitstatus_to_exitcode(status), "FAIL")
        passed = time.monotonic() - self.started
        if passed > self.limit and not self.timed_out:
            self.timed_out = True
            os.kill(self.pid, signal.SIGALRM)  # raises in the test, so that it prints where it hangs and cleans up
        elif passed > self.limit + 60:
            os.kill(self.pid, signal.SIGKILL)
        return None


def on_alarm(*_):
    raise TimeoutError("the test took too long")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("patterns", nargs="*")
    arguments.add_argument("--jobs", type=int, default=max(2, min(4, os.cpu_count() or 2)))
    arguments.add_argument("--keep", action="store_true", help="keep the folders of the tests")
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--long", action="store_true", help="the long tests, too")
    options = arguments.parse_args()

    tests = collect(options.patterns, options.long)
    if options.list:
        print("\n".join(name for name, _ in tests))
        return 0
    if not tests:
        print("no test matches")
        return 2

    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the end of main(), which ends the tests
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 65536 else 65536, hard))
    root = tempfile.mkdtemp(prefix="switchback-test.")
    os.chmod(root, 0o755)
    print("clusters: %s and %s; folders in %s" % (cluster.OLD_BIN, cluster.NEW_BIN, root))
    templates = {}
    for binaries in (cluster.OLD_BIN, cluster.NEW_BIN):
        if binaries not in templates:
            templates[binaries] = os.path.join(root, "templates", str(len(templates)))
            cluster.make_template(binaries, templates[binaries])

    passed, failures, running = 0, [], []
    try:
        while tests or running:
            while tests and len(running) < options.jobs:
                running.append(Job(*tests.pop(0), root, templates))
            time.sleep(0.02)
            for job in list(running):
                result = job.poll()
                if result is None:
                    continue
                running.remove(job)
                print("%-4s %-58s %6.1f s" % (result, job.name, time.monotonic() - job.started), flush=True)
                if result == "FAIL":
                    failures.append(job.name)
                else:
                    passed += result == "ok"
                    if not options.keep:
                        shutil.rmtree(job.folder, ignore_errors=True)
                if result != "ok":
                    with open(job.output, errors="replace") as file:
                        print("".join("     | " + line for line in file), flush=True)
    finally:
        for job in running:
            os.kill(job.pid, signal.SIGALRM)
        for job in running:
            os.waitpid(job.pid, 0)
        if not options.keep and not failures:
            shutil.rmtree(root, ignore_errors=True)
    if failures:
        print("failed: " + " ".join(failures))
        print("their folders: " + root)
    print("%d passed, %d failed" % (passed, len(failures)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
