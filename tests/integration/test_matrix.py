"""Every driver of tests/drivers/matrix, unchanged, through TLS and SCRAM, while the proxy flips every two seconds.

tests/drivers/matrix/build.sh makes the programs ready in the build folder and names those that can run, which
tests/run.sh and tests/drivers/matrix/run.sh hand on in SWITCHBACK_DRIVERS; SWITCHBACK_MATRIX_SECONDS says for how long,
SWITCHBACK_MATRIX_REPORT where to write what each of them did.
"""
import collections
import json
import os
import time

from certificates import Authority
from cluster import SCRAM
from daemon import BUILD, LIMIT

SOURCE = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "drivers", "matrix"))
BUILT = os.path.join(os.path.abspath(BUILD), "matrix")
SECONDS = float(os.environ.get("SWITCHBACK_MATRIX_SECONDS", "10"))
FLIP_EVERY_S = 2
LEAST_FLIPS = 4

SET_UP = "set app.tenant = 'tenant of %s';set TimeZone = 'Asia/Tokyo'"
# Four columns: the state that the session made, the server, its prepared statements, among which the proxy's own must
# never show, and a value of a type whose oid differs between the sides. No character in it is a placeholder of any driver.
STATE = (
    "select concat_ws(', ', current_setting('app.tenant'), current_setting('TimeZone'),"
    " (select count(*) from pg_class where relnamespace = pg_my_temp_schema())) as state,"
    " current_setting('server_version_num') as server,"
    " (select coalesce(string_agg(distinct concat_ws(' ', left(statement, 60), cast(parameter_types as text), from_sql), ', '), '')"
    " from pg_prepared_statements) as statements, cast('calm' as matrix_mood) as mood"
)
WANTED = "tenant of %s, Asia/Tokyo, 0"


def python(name):
    return ["/usr/bin/python3", os.path.join(SOURCE, name + "_driver.py")]


def node(name):
    return ["node", os.path.join(SOURCE, name + ".js")]


COMMANDS = {
    "psycopg2": python("psycopg2"),
    "psycopg3": python("psycopg3"),
    "asyncpg": python("asyncpg"),
    "odbc": python("odbc"),
    "pgjdbc": ["java", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar:" + BUILT, "Pgjdbc"],
    "dbd_pg": ["perl", os.path.join(SOURCE, "dbd_pg.pl")],
    "ruby_pg": ["ruby", os.path.join(SOURCE, "ruby_pg.rb")],
    "lib_pq": [os.path.join(BUILT, "lib_pq")],
    "pgx": [os.path.join(BUILT, "pgx")],
    "node_postgres": node("node_postgres"),
    "postgres_js": node("postgres_js"),
    "sequelize": node("sequelize"),
}


class Driver:
    """A driver's program at work."""

    def __init__(self, world, name, stop, ca):
        self.name, self.ledger = name, os.path.join(world.folder, name + ".ledger")
        self.errors = os.path.join(world.folder, name + ".err")
        environment = dict(
            os.environ, MATRIX_NAME=name, MATRIX_HOST="127.0.0.1", MATRIX_PORT=str(world.daemons[0].port), MATRIX_USER="app",
            MATRIX_PASSWORD="secret", MATRIX_DATABASE="app", MATRIX_CA=ca, MATRIX_STOP=stop, MATRIX_LEDGER=self.ledger,
            MATRIX_SET_UP=SET_UP % name, MATRIX_STATE=STATE, MATRIX_WANTED=WANTED % name, PYTHONDONTWRITEBYTECODE="1",
            NODE_PATH=os.path.join(BUILT, "node_modules"))
        with open(self.errors, "w") as errors:
            self.process = world.spawn(COMMANDS[name], env=environment, cwd=world.folder, stderr=errors)

    def works(self, world):
        """It has written something; or it has ended, and finish() will say why."""
        return self.process.poll() is not None or world.blue.value(
            "select count(distinct worker) > 1 from matrix_entry where driver = '%s'" % self.name) == "t"

    def finish(self):
        """The driver's summary; what went wrong is in its errors."""
        out, _ = self.process.communicate(timeout=60 * LIMIT)
        with open(self.errors) as file:
            said = file.read()
        ended = "ended with %d: %s %s" % (self.process.returncode, out, said[-3000:])
        try:
            summary = json.loads(out)
        except ValueError:
            return {"workers": {}, "errors": [ended]}
        if self.process.returncode != 0 and not summary["errors"]:
            summary["errors"].append(ended)
        return summary

    def compare(self, side):
        """What is wrong with what `side` holds of what this driver was promised."""
        with open(self.ledger) as file:
            promised = collections.Counter((worker, int(n)) for worker, n in (line.split() for line in file))
        rows = side.query("select worker, n, tenant from matrix_entry where driver = '%s'" % self.name)
        held = collections.Counter((worker, int(n)) for worker, n, _ in rows)
        problems = ["%s wrote as %s" % (worker, tenant) for worker, _, tenant in rows if tenant != "tenant of " + self.name]
        if promised - held:
            problems.append("acknowledged and missing on %s: %s" % (side.name, sorted(promised - held)[:10]))
        if held - promised:
            problems.append("twice or never acknowledged on %s: %s" % (side.name, sorted(held - promised)[:10]))
        return problems


def flip(d, flips):
    """One flip, forth or back."""
    verb, to = (("cutover", "green"), ("flip-back", "blue"))[flips % 2]
    d.wait_steady("blue" if to == "green" else "green")
    result = d.verb(verb, code=0).json
    assert result["result"] == "done" and result["disconnected"] == 0, result
    return result


def flip_again_and_again(d):
    """The results of an even number of flips."""
    results, end = [], time.monotonic() + SECONDS
    while len(results) < LEAST_FLIPS or len(results) % 2 or time.monotonic() < end:
        begun = time.monotonic()
        results.append(flip(d, len(results)))
        time.sleep(max(0, begun + FLIP_EVERY_S - time.monotonic()))
    return results


def report(results, summaries):
    stalls = sorted(result["stall_ms"]["max"] for result in results)
    lines = ["%d flips; the longest pause in each: median %.0f ms, at most %.0f ms" % (len(stalls), stalls[len(stalls) // 2], stalls[-1])]
    for name, summary in sorted(summaries.items()):
        lines += ["%-14s %-13s %6d rounds, %7d rows, %4d changes of the server, %d notifications lost" % (
            name, worker, did["rounds"], did["acknowledged"], did["switches"], did["lost"])
            for worker, did in sorted(summary["workers"].items())]
    text = "\n".join(lines) + "\n"
    print(text)
    if "SWITCHBACK_MATRIX_REPORT" in os.environ:
        with open(os.environ["SWITCHBACK_MATRIX_REPORT"], "w") as file:
            file.write(text)


def problems_of(driver, summary, flips, world):
    problems = list(summary["errors"])
    for worker, did in summary["workers"].items():
        if did["switches"] < 2:  # a round may outlast a flip and the way back
            problems.append("%s saw the server change %d times in %d flips: that proves nothing" % (worker, did["switches"], flips))
        if did["lost"] > flips:
            problems.append("%s lost %d notifications in %d flips" % (worker, did["lost"], flips))
    if os.path.exists(driver.ledger):
        problems += driver.compare(world.blue) + driver.compare(world.green)
    return ["%s: %s" % (driver.name, problem) for problem in problems]


def test_drivers_through_flips(world):
    """No driver sees an error, loses its session's state or a commit, or has one twice."""
    names = os.environ.get("SWITCHBACK_DRIVERS", "").split()
    assert names, "SWITCHBACK_DRIVERS is empty: tests/drivers/matrix/run.sh builds the drivers and runs this"
    authority = Authority(world.folder)
    names_of_host = "IP:127.0.0.1,DNS:localhost"  # postgres.js takes an address for localhost
    cert, key = authority.sign("proxy", alternatives=names_of_host)
    server_cert, server_key = authority.sign("cluster", alternatives=names_of_host, owner="cluster")
    world.pair(hba=SCRAM, ssl="on", ssl_cert_file=server_cert, ssl_key_file=server_key)
    world.psql(world.blue, ["-q", "-f", os.path.join(SOURCE, "matrix.sql")], check=True)
    side = {"tls": {"mode": "verify-full", "ca": authority.cert}}
    d = world.daemon(
        auth={"method": "scram-sha-256"}, sides={"blue": side, "green": side},
        listen={"tls": {"mode": "require", "cert": cert, "key": key}})
    d.prepare()
    d.wait_steady("blue")
    stop = os.path.join(world.folder, "stop")
    drivers = [Driver(world, name, stop, authority.cert) for name in names]
    for driver in drivers:
        d.until(lambda: driver.works(world), 60, driver.name + " works")
    results = flip_again_and_again(d)
    d.wait_steady("blue")
    open(stop, "w").close()
    summaries = {driver.name: driver.finish() for driver in drivers}
    report(results, summaries)
    world.assert_same_data(tables=["matrix_entry"])
    problems = [problem for driver in drivers for problem in problems_of(driver, summaries[driver.name], len(results), world)]
    assert not problems, "\n".join(problems)
    oids = [side.value("select 'matrix_mood'::regtype::oid") for side in (world.blue, world.green)]
    assert oids[0] != oids[1], "the type has the same oid on both sides, which proves less"


test_drivers_through_flips.timeout = SECONDS + 300
