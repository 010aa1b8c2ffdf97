"""Runs PostgreSQL's own tests (tests/regress/fetch.sh gets and builds them) against one address: a cluster, or the
proxy before it. A run is {test: outcome}, and leaves what each test printed in its folder."""
import glob
import os
import re
import subprocess

import cluster
import pg

HOME = os.environ.get("SWITCHBACK_REGRESS", "")  # the folder that fetch.sh printed; empty: not to be had
BIN = os.path.join(HOME, "bin")
CONCURRENT = 20  # as `make installcheck-parallel` runs them
PIPELINE_ROWS = 700  # as its own script has it

_LINE = re.compile(r"^(?:test |     |  )\s*(?P<name>\S+)\s+(?:\.\.\. )?(?P<outcome>ok|FAILED|failed)\b")


class Run:
    def __init__(self, outcomes, folder, output):
        self.outcomes, self.folder, self.output = outcomes, folder, output

    def result(self, test):
        """What the test printed; None if it left nothing."""
        try:
            with open(os.path.join(self.folder, "results", test + ".out"), errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def difference(self, test):
        """What pg_regress found: the part of regression.diffs that is this test's."""
        try:
            with open(os.path.join(self.folder, "regression.diffs"), errors="replace") as file:
                parts = re.split(r"^(?=diff )", file.read(), flags=re.M)
        except OSError:
            return ""
        return "".join(part for part in parts if part.split("\n", 1)[0].endswith("/%s.out" % test))


def _environment(port):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return dict(kept, PGHOST="127.0.0.1", PGPORT=str(port), PGUSER="postgres", PGSSLMODE="disable", LC_ALL="C.UTF-8")


def _folder(parent, name):
    folder = os.path.join(parent, name)
    os.mkdir(folder)
    cluster.own(folder)
    return folder


def _pg_regress(program, tests, port, folder, options, timeout):
    # the tests read and write files of the server, so they run as its user
    command = [os.path.join(BIN, program), "--inputdir=" + os.path.join(HOME, tests), "--outputdir=" + folder,
               "--bindir=" + BIN, "--dlpath=" + os.path.join(HOME, "lib"), "--host=127.0.0.1", "--port=%d" % port,
               "--user=postgres", "--max-concurrent-tests=%d" % CONCURRENT] + options
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout,
                          env=_environment(port), **cluster.identity())
    outcomes = {}
    for line in done.stdout.splitlines():
        match = _LINE.match(line)
        if match:
            outcomes[match["name"]] = match["outcome"].lower()
    return Run(outcomes, folder, done.stdout + done.stderr)


def regression(port, parent, name, timeout=600):
    schedule = os.path.join(HOME, "regress", "parallel_schedule")
    return _pg_regress("pg_regress", "regress", port, _folder(parent, name), ["--schedule=" + schedule], timeout)


def isolation(port, parent, name, timeout=900):
    schedule = os.path.join(HOME, "isolation", "isolation_schedule")
    return _pg_regress("pg_isolation_regress", "isolation", port, _folder(parent, name), ["--schedule=" + schedule], timeout)


def pipeline(port, parent, name, timeout=300):
    """libpq_pipeline: its tests one by one, and the traces that it comes with."""
    folder = _folder(parent, name)
    program = os.path.join(HOME, "lib", "libpq_pipeline")
    traced = {os.path.basename(path)[:-6]: path for path in glob.glob(os.path.join(HOME, "pipeline", "traces", "*.trace"))}
    os.mkdir(os.path.join(folder, "results"))
    with pg.Connection(("127.0.0.1", port), user="postgres", database="postgres") as connection:
        connection.query('create database "%s"' % name)  # the traces show whether tables of an earlier run were there
    outcomes, output = {}, []
    for test in subprocess.run([program, "tests"], capture_output=True, text=True, check=True).stdout.split():
        trace = os.path.join(folder, "results", test + ".out")
        done = subprocess.run(
            [program, "-r", str(PIPELINE_ROWS), "-t", trace, test, "dbname=" + name], capture_output=True, text=True,
            timeout=timeout, env=_environment(port))
        outcomes[test] = "ok" if done.returncode == 0 else "failed"
        output.append("%s: %d\n%s%s" % (test, done.returncode, done.stdout, done.stderr))
        if test in traced and outcomes[test] == "ok":
            with open(traced[test]) as expected, open(trace) as seen:
                outcomes[test] = "ok" if expected.read() == seen.read() else "another trace"
    return Run(outcomes, folder, "\n".join(output))


def compare(direct, proxied):
    """Texts about the tests that went another way through the proxy; and how many were the same."""
    found, same = [], 0
    for test in sorted(set(direct.outcomes) | set(proxied.outcomes)):
        left, right = direct.outcomes.get(test, "not run"), proxied.outcomes.get(test, "not run")
        if left == right == "ok" or (left == right and direct.result(test) == proxied.result(test)):
            same += 1
        else:
            found.append("%s: %s directly, %s through the proxy\n%s" % (test, left, right, proxied.difference(test)[:4000]))
    return found, same
