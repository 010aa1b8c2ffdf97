"""Sessions that moved against sessions that never did: random state, several flips, and nothing may differ.

Each session runs random pieces of SQL and protocol that change its state. After every flip a new session, made directly
on the side that is active now, runs the same from the beginning; what both can see of themselves is compared. The seed
is printed; SWITCHBACK_SEED repeats a run, SWITCHBACK_SESSIONS and SWITCHBACK_FLIPS make it longer.
"""
import os
import random

import pg

SETTINGS = {
    "work_mem": ["'7MB'", "65536", "'1GB'"],
    "search_path": ["''", "public, pg_catalog", "\"Odd Schema\", public", "'\"$user\"'", "pg_catalog"],
    "timezone": ["'Asia/Tokyo'", "'UTC'", "-3.5", "interval '-08:00' hour to minute", "local", "default"],
    "datestyle": ["'German, DMY'", "'ISO, YMD'", "sql"],
    "intervalstyle": ["iso_8601", "sql_standard"],
    "client_encoding": ["'LATIN1'", "'UTF8'", "'SQL_ASCII'"],
    "client_min_messages": ["warning", "debug1", "notice", "error"],
    "application_name": ["'it''s'", "''", "'a\"b'"],
    "statement_timeout": ["'31s'", "0", "60000"],
    "lock_timeout": ["'30s'", "0"],
    "idle_session_timeout": ["'10min'", "0"],
    "idle_in_transaction_session_timeout": ["'10min'", "0"],
    "standard_conforming_strings": ["off", "on"],
    "default_transaction_isolation": ["serializable", "'repeatable read'", "'read committed'"],
    "default_transaction_read_only": ["on", "off"],
    "default_transaction_deferrable": ["off"],
    "synchronous_commit": ["off", "local", "on"],
    "bytea_output": ["escape", "hex"],
    "extra_float_digits": ["0", "3", "-2"],
    "enable_seqscan": ["off", "on"],
    "cursor_tuple_fraction": ["0.25", "1"],
    "vacuum_cost_delay": ["0.5", "'2ms'"],
    "xmloption": ["document", "content"],
    "default_tablespace": ["''"],
    "temp_tablespaces": ["''"],
    "row_security": ["off", "on"],
    "plan_cache_mode": ["force_custom_plan", "auto"],
    "lc_numeric": ["'C'"],
    "transform_null_equals": ["on", "off"],
    "jit": ["off", "on"],
}
SUPERUSER = {"log_min_duration_statement": ["1234", "-1"], "session_replication_role": ["replica", "origin"], "log_statement": ["ddl", "none"],
             "track_functions": ["pl", "none"], "lo_compat_privileges": ["on"]}
CUSTOM = ["app.tenant", "app.user_id", "\"App\".\"Mixed\"", "a.b.c"]
CHANNELS = ["news", "\"Odd Channel\"", "c3", "\"x\"\"y\""]
STALE = ["stale 1", "stale 2"]  # statements of a temporary table that is gone: SQL can't name them after a move
NAMES = ["s1", "S_2", "\"Odd name\"", "s4"]
TEXTS = [("select 1", ()), ("select $1::int + 1", ()), ("select $1, $2", (25, 1700)), ("select current_setting('work_mem')", ()),
         ("select $1::text || ';' -- ;", (25,)), ("values ($1)", (23,)), ("show timezone", ()), ("set work_mem = '9MB'", ())]




class Twin:
    """One proxied session and everything that was done in it: (kind, argument) of `act`, with how it ended."""

    def __init__(self, world, seed, index):
        self.world, self.index = world, index
        self.random = random.Random("%s/%d" % (seed, index))
        self.user = "postgres" if index % 4 == 0 else "app"
        self.startup = self.random.choice([{}, {"application_name": "twin"}, {"options": "-c work_mem=5MB -c app.started=yes"},
                                           {"TimeZone": "Europe/Rome", "client_encoding": "UTF8"}])
        self.log = []
        self.session = world.connect(user=self.user, **self.startup)

    # --- what is done

    def setting(self):
        known = dict(SETTINGS, **SUPERUSER) if self.user == "postgres" else SETTINGS
        name = self.random.choice(sorted(known))
        value = self.random.choice(known[name])
        if name == "timezone":
            return "time zone %s" % value, name
        if name == "client_encoding" and self.random.random() < 0.3:
            return "names %s" % value, name
        if value[0] != "'" or "\"" in value or self.random.random() < 0.8:
            return "%s %s %s" % (name, self.random.choice(["=", "to"]), value), name
        return "%s = default" % name, name

    def change(self):
        """A piece of SQL that changes something when it is committed."""
        r, choice = self.random.random(), self.random.choice
        assignment, name = self.setting()
        if r < 0.30:
            return "set %s%s" % (choice(["", "", "session "]), assignment)
        if r < 0.36:
            return "reset %s" % ("time zone" if name == "timezone" else name)
        if r < 0.38:
            return "reset all"
        if r < 0.48:
            return "set %s = '%s'" % (choice(CUSTOM), choice(["", "7", "it''s", "long " * 50]))
        if r < 0.52:
            return "select set_config('%s', '%s', false)" % (choice(["app.tenant", "by.function", "work_mem"]), choice(["8MB", "9MB"]))
        if r < 0.55:
            return "reset %s" % choice(CUSTOM)
        if r < 0.63:
            return choice(["set role helper", "set role none", "reset role", "set role \"Odd Role\""])
        if r < 0.70 and self.user == "postgres":
            return choice(["set session authorization app", "set session authorization default", "reset session authorization",
                           "set session authorization helper", "set session authorization postgres"])
        if r < 0.80:
            return choice(["listen %s", "listen %s", "unlisten %s"]) % choice(CHANNELS)
        if r < 0.82:
            return "unlisten *"
        if r < 0.90:
            text, types = choice(TEXTS[:6])
            return "prepare %s%s as %s" % (choice(NAMES), "(text, numeric)" if len(types) == 2 else "(int)" if "$1" in text else "", text)
        if r < 0.93:
            return "deallocate %s" % choice(NAMES + ["all"])
        if r < 0.95:
            return "do $$ begin perform set_config('search_path', 'public', false); end $$"
        if r < 0.97:
            return "set session characteristics as transaction %s" % choice(["isolation level serializable", "read only", "read write"])
        return "select 1/0"

    def draw(self):
        r, choice = self.random.random(), self.random.choice
        if r < 0.45:
            return "query", self.change()
        if r < 0.50:
            return "query", "set local %s" % self.setting()[0]
        if r < 0.65:
            body = [self.change() for _ in range(choice([1, 2, 3]))]
            if self.random.random() < 0.4:
                body.append("set local %s" % self.setting()[0])
            if self.random.random() < 0.3:
                body += ["savepoint s", self.change(), choice(["rollback to s", "release s"]), self.change()]
            pieces = ["begin"] + body + [choice(["commit", "rollback", "rollback", "commit"])]
            return "queries", pieces
        if r < 0.70:
            # one implicit transaction: an error takes all of it back. A PREPARE in it couldn't be told from the others
            pieces = [p for p in (self.change(), self.change(), choice(["select 1/0", "select 1"])) if not p.startswith("prepare")]
            return "query", "; ".join(pieces)
        if r < 0.80:
            text, types = choice(TEXTS)
            return "parse", (choice([n.strip("\"") for n in NAMES] + ["", ""]), text, types)
        if r < 0.83:
            return "close", choice([n.strip("\"") for n in NAMES + STALE] + [""])
        if r < 0.92:
            return "extended", [self.change() for _ in range(choice([1, 1, 2, 3]))]
        if r < 0.93:
            return choice(["stale", "use"]), choice(STALE)
        if r < 0.94:
            return "parameters", (choice(["by.parameter", "app.tenant", "work_mem"]), choice(["6MB", "11MB"]))
        if r < 0.96:
            return "query", choice(["discard all", "discard all", "discard plans", "discard sequences", "discard temp"])
        return "query", choice(["select 1", "begin; set local work_mem = '1MB'; commit", "show all"])

    @staticmethod
    def act(session, kind, argument):
        """Does one thing; how it ended, to be compared: SQLSTATEs and statuses."""
        ends = []

        def results():
            try:
                session.results()
                ends.append("ok " + session.status)
            except pg.PgError as error:
                ends.append("%s %s" % (error.sqlstate, session.status))
        if kind == "query":
            session.send(pg.query(argument))
            results()
        elif kind == "queries":
            for sql in argument:
                session.send(pg.query(sql))
                results()
        elif kind == "parse":
            session.send(pg.parse(*argument), pg.SYNC)
            results()
        elif kind == "close":
            session.send(pg.close("S", argument), pg.SYNC)
            results()
        elif kind == "extended":  # in one implicit transaction; the unnamed statement is the last one that was parsed
            for sql in argument:
                session.send(pg.parse("", sql), pg.bind("", ""), pg.execute())
            session.send(pg.SYNC)
            results()
        elif kind == "stale":
            for message in (pg.query("begin; create temporary table gone (i int) on commit drop"), pg.close("S", argument) + pg.SYNC,
                            pg.parse(argument, "select i, $1::text from gone", (25,)) + pg.SYNC, pg.query("commit")):
                session.send(message)
                results()
        elif kind == "use":  # it stands again for a moment
            for message in (pg.query("begin; create temporary table gone (i int) on commit drop"),
                            pg.bind("", argument, ["x"]) + pg.execute() + pg.SYNC, pg.query("rollback")):
                session.send(message)
                results()
        elif kind == "parameters":
            session.send(pg.parse("", "select set_config($1, $2, false)"), pg.bind("", "", argument), pg.execute(), pg.SYNC)
            results()
        return ends

    def live(self, steps):
        for _ in range(steps):
            kind, argument = self.draw()
            self.log.append((kind, argument, self.act(self.session, kind, argument)))

    # --- what is seen

    def ask(self, session, sql):
        session.send(pg.parse("differential", sql), pg.bind("", "differential"), pg.execute(), pg.close("S", "differential"), pg.SYNC)
        sets = session.results()
        return sets[0] if sets else []

    @staticmethod
    def describe(session, name):
        session.send(pg.describe("S", name), pg.SYNC)
        answer = [(kind, pg.fields(body)["C"] if kind == "E" else body) for kind, body in session.until_ready()]
        # of a statement that can't be planned any more a server describes the parameters before it says so
        return [(kind, what) for kind, what in answer if kind == "E"] or answer

    def see(self, session):
        """Everything a session can see of its state, without changing it: not even the unnamed statement."""
        seen = {}
        seen["unnamed"] = self.describe(session, "")
        rows = self.ask(session, "select name, setting, source, reset_val, pending_restart from pg_catalog.pg_settings"
                                 " where name not like 'plpgsql.%'"  # a library that was loaded is not carried
                                 " and name <> 'synchronous_standby_names'")  # the server's, which the flip changes
        for name, *rest in rows:
            seen["setting " + name] = rest
        for name in ["app.tenant", "app.user_id", "app.mixed", "a.b.c", "by.function", "by.parameter", "app.started", "app.never"]:
            seen["custom " + name] = self.ask(session, "select pg_catalog.current_setting('%s', true)" % name)
        seen["statements"] = sorted(self.ask(
            session, "select name, statement, parameter_types::pg_catalog.text, from_sql from pg_catalog.pg_prepared_statements"
                     " where name <> 'differential' and name not like 'stale%'"))
        seen["channels"] = sorted(self.ask(session, "select pg_catalog.pg_listening_channels()"))
        seen["who"] = self.ask(session, "select current_user, session_user, pg_catalog.current_setting('role'),"
                                        " pg_catalog.current_setting('session_authorization')")
        seen["schemas"] = self.ask(session, "select s from pg_catalog.unnest(pg_catalog.current_schemas(true)) s where s not like 'pg_temp_%'")
        seen["cursors"] = self.ask(session, "select name from pg_catalog.pg_cursors where name <> ''")
        seen["null"] = self.ask(session, "select null = null, 'a\\b'::pg_catalog.text")
        for name in [name for name, *_ in seen["statements"]] + STALE:
            seen["describe " + name] = self.describe(session, name)
        for name, value in session.parameters.items():
            seen["told " + name] = value
        return seen

    def compare(self, side):
        """None, or what differs from a session on `side` that never moved."""
        reference = pg.Connection(side.address, user=self.user, database="app", **self.startup)
        try:
            for number, (kind, argument, ends) in enumerate(self.log):
                again = self.act(reference, kind, argument)
                if again != ends:
                    return "step %d, %s %r: %r, never moved: %r" % (number, kind, argument, ends, again)
            expected, seen = self.see(reference), self.see(self.session)
        finally:
            reference.close()
        differs = ["%s: %r, never moved: %r" % (key, seen.get(key), expected.get(key))
                   for key in sorted(set(seen) | set(expected)) if seen.get(key) != expected.get(key)
                   and (key in expected or not key.startswith("told "))]  # what a newer side told can't be taken back
        return "\n".join(differs) or None


def test_sessions_that_moved(world):
    seed = os.environ.get("SWITCHBACK_SEED") or "%d" % random.SystemRandom().randrange(10 ** 9)
    count, flips = int(os.environ.get("SWITCHBACK_SESSIONS", "32")), int(os.environ.get("SWITCHBACK_FLIPS", "4"))
    print("SWITCHBACK_SEED=%s" % seed)
    world.pair(ledger=True)
    world.blue.query("create role helper; create role \"Odd Role\"; grant helper, \"Odd Role\" to app")
    d = world.daemon()
    d.prepare()
    d.wait_steady("blue")
    twins = [Twin(world, seed, index) for index in range(count)]
    to = "blue"
    for flip in range(flips):
        for twin in twins:
            twin.live(twin.random.choice([0, 1, 3, 6, 12]))
        to = "green" if to == "blue" else "blue"
        result = d.verb("cutover" if to == "green" else "flip-back", code=0).json
        immovable = [(s["id"], s["reasons"]) for s in d.verb("sessions", code=0).json["sessions"] if not s["movable"]]
        assert (result["moved"], result["disconnected"]) == (count, 0), (seed, result, immovable)
        for twin in twins:
            differs = twin.compare(world.side(to))
            if differs:
                for step in twin.log:
                    print("   ", step)
                raise AssertionError("seed %s, flip %d to %s, session %d (%s, %r):\n%s" % (
                    seed, flip, to, twin.index, twin.user, twin.startup, differs))
        d.wait_steady(to)


test_sessions_that_moved.timeout = 240
