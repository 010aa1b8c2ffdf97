"""Random sequences of protocol messages, valid and not, from a seed: the same seed gives the same bytes. A server and
the proxy before it must answer them alike (test_differential.py)."""
import random
import re
import select
import socket
import ssl
import struct
import time

import pg

WANTS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
QUIET = 60  # seconds without a byte that count as a hang

SETUP = ("create temp table t (id int primary key, v text check (v <> 'bad')); insert into t select g, 'v' || g from generate_series(1, 5) g;"
         "create function pg_temp.noisy(int) returns int language plpgsql as $$ begin raise notice 'n%', $1; return $1; end $$")
MARKER = "select 'the end of the sequence'"
MARKED = b"\0\1\0\0\0\x17the end of the sequence"  # its DataRow
# What we say where a server closes without a word: a length is out of its bounds; its last words were lost.
OUR_WORDS = [("E", b"SFATAL\0VFATAL\0C08P01\0Minvalid message length\0\0"),
             ("E", b"SFATAL\0VFATAL\0C08006\0Mthe server closed the connection unexpectedly\0\0")]
# Gets every server back that can be: ends a COPY, ends the skipping behind an error, rolls back.
TAIL = [pg.copy_fail("tail"), pg.SYNC, pg.query("rollback"), pg.query(MARKER), pg.TERMINATE]

STATEMENTS = [
    "select 1", "select 1, 'two', null", "", ";", " -- nothing", "select 1; select 2", "select 1; select 1/0; select 3", "selec", "select 1/0",
    "begin", "begin", "commit", "rollback", "savepoint a", "rollback to a", "release a", "begin; select 1; commit", "begin; select 1/0",
    "insert into t values (10, 'ten')", "insert into t values (1, 'twice')", "insert into t values (11, 'bad')", "delete from t where id > 5",
    "update t set v = v || '!' where id = 2", "select * from t order by id", "select * from t where id = 3", "truncate t",
    "select g, repeat('x', g) from generate_series(1, 50) g", "select repeat('y', 20000)",
    "select g, repeat('z', 8000 * g) from generate_series(1, 8) g", "select 'ü', E'\\\\x00', '☃'",
    "select pg_temp.noisy(1)", "select pg_temp.noisy(g) from generate_series(1, 3) g", "do $$ begin raise warning 'w'; raise exception 'e'; end $$",
    "set application_name = 'one'", "set application_name = 'two'", "reset application_name", "set datestyle = 'German'", "set timezone = 'Asia/Tokyo'",
    "set local timezone = 'UTC'", "set my.own = 'x'", "show my.own", "show timezone", "set nonsense = 1", "reset all", "set client_encoding = 'LATIN1'",
    "set client_min_messages = 'error'", "set standard_conforming_strings = off", "select set_config('datestyle', 'SQL', false)",
    "select set_config('timezone', 'Europe/Paris', true)", "set role postgres", "set session authorization default", "reset role",
    "listen c", "notify c", "notify c, 'payload'", "unlisten *", "listen c; notify c, 'both'", "begin; listen d; rollback", "begin; notify c, 'late'",
    "prepare s as select $1::int", "execute s(4)", "deallocate s", "deallocate all", "prepare s2 as select 1; execute s2; deallocate s2", "discard all",
    "discard plans", "declare p cursor for select * from t", "declare h cursor with hold for select 7", "fetch 2 from p", "fetch all from h", "close p", "close all",
    "copy t to stdout", "copy (select 1/(3 - g) from generate_series(1, 5) g) to stdout", "copy t from stdin", "copy t from stdin",
    "copy t (v, id) from stdin with (format csv)", "copy t from stdin binary", "copy nothing from stdin", "copy t to stdout; copy t from stdin; select 'behind'",
    "create temp table u (a int)", "drop table if exists u", "drop table if exists nothing", "vacuum t", "lock t", "rollback prepared 'nothing'", "explain (costs off) select * from t",
    "select pg_terminate_backend(pg_backend_pid())", "select pg_cancel_backend(pg_backend_pid())",
]
PARAMETRIC = [
    ("select $1::int + 1", 1), ("select $1::text, $2::int", 2), ("select * from t where id = $1", 1), ("insert into t values ($1, $2)", 2),
    ("select pg_temp.noisy($1)", 1), ("select set_config('application_name', $1, false)", 1), ("select length($1)", 1), ("select $2", 2), ("select $1::nonsense", 1),
]
NAMES = ["", "", "", "s", "s", "s2", "p", "h", "other"]
FUNCTIONS = [177, 154, 0, 4294967295, 810, 870]  # int4pl, int4div, two that aren't, pg_client_encoding, lower
ROWS = [b"20\ttwenty\n", b"21\t", b"one\n22\ttwo\n", b"nonsense\n", b"1\ttwice\n", b"\\.\n", b"", b"23,x\n", b"v,24\n", b"PGCOPY\n\xff\r\n\0", b"\0", b"30\tx\n" * 2000]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def any_of(self, things):
        return self.random.choice(things)

    def query(self):
        return pg.query(self.any_of(STATEMENTS))

    def parse(self):
        if self.random.random() < 0.5:
            return pg.parse(self.any_of(NAMES), self.any_of(STATEMENTS))
        sql, count = self.any_of(PARAMETRIC)
        return pg.parse(self.any_of(NAMES), sql, [self.any_of([0, 0, 23, 25, 20, 999999])] * self.random.randint(0, count + 1))

    def bind(self):
        count = self.any_of([0, 0, 0, 1, 1, 2, 3])
        values = [self.any_of([None, 1, 2, "text", "", b"\0\0\0\1", "7" * 5000]) for _ in range(count)]
        formats = [self.any_of([0, 1, 0, 1, 2]) for _ in range(self.any_of([0, 0, 1, 2]))]
        return pg.bind(self.any_of(NAMES), self.any_of(NAMES), values, formats)

    def describe(self):
        return pg.describe(self.any_of("SPSPX"), self.any_of(NAMES))

    def execute(self):
        # never the unnamed portal as a failed Query left it: PostgreSQL 15 crashes
        return pg.execute(self.any_of([name for name in NAMES if name]), self.any_of([0, 0, 0, 1, 2, -1]))

    def close(self):
        return pg.close(self.any_of("SPSPX"), self.any_of(NAMES))

    def function_call(self):
        return pg.function_call(self.any_of(FUNCTIONS), [self.any_of([0, 1, 3, "x", "AbC"]) for _ in range(self.random.randint(0, 3))])

    def copy(self):
        return self.any_of([pg.copy_data(self.any_of(ROWS)), pg.copy_data(self.any_of(ROWS)), pg.COPY_DONE, pg.copy_fail("by hand")])

    def extended(self):
        """A whole cycle, which mere chance would make too rarely."""
        name, portal, (sql, count) = self.any_of(NAMES), self.any_of(NAMES), self.any_of(PARAMETRIC + [(s, 0) for s in STATEMENTS])
        parts = [pg.parse(name, sql), pg.describe("S", name), pg.bind(portal, name, [self.any_of([1, 2, 7, None])] * count),
                 pg.describe("P", portal), pg.execute(portal, self.any_of([0, 0, 1])), self.any_of([pg.SYNC, pg.SYNC, pg.FLUSH, b""])]
        dropped = self.random.randrange(len(parts) * 4)
        if dropped < len(parts) and (dropped != 2 or portal):
            del parts[dropped]
        return b"".join(parts)

    def copy_cycle(self):
        """A COPY in, with what a client may do to it, and may not."""
        start = self.any_of([pg.query("copy t from stdin"), pg.parse("", "copy t from stdin") + pg.bind("", "") + pg.execute()])
        inside = [pg.copy_data(self.any_of(ROWS)), pg.copy_data(b"40\tforty\n"), pg.FLUSH, pg.SYNC, b"", b""]
        parts = [start] + [self.any_of(inside) for _ in range(self.random.randint(0, 5))]
        parts.append(self.any_of([pg.COPY_DONE, pg.COPY_DONE, pg.copy_fail("no"), b""]))
        parts.append(self.any_of([pg.SYNC, pg.SYNC, b"", pg.COPY_DONE]))
        return b"".join(parts)

    def mutated(self):
        """A message whose body is not what its type asks for; its length is right."""
        whole = self.any_of([self.query, self.parse, self.bind, self.describe, self.execute, self.close, self.function_call, self.copy])()
        kind, body = whole[:1], bytearray(whole[5:])
        how = self.random.randrange(4)
        if how == 0 and body:
            del body[self.random.randrange(len(body)):]
        elif how == 1:
            body += bytes(self.random.randrange(256) for _ in range(self.random.randint(1, 6)))
        elif how == 2 and body:
            body[self.random.randrange(len(body))] = self.any_of([0, 1, 255, 65])
        elif body:
            body.insert(self.random.randrange(len(body)), 0)
        return pg.message(kind, bytes(body))

    def hostile(self):
        """What ends a connection."""
        return self.any_of([
            pg.message(b"p", b"secret\0"), pg.message(b"!", b"x"), pg.message(b"\0"), pg.message(b"Z", b"I"), pg.TERMINATE, b"Q\0\0\0\3", b"S\0\0\0\0",
            b"Q\xff\xff\xff\xff", b"P\x7f\xff\xff\xff" + b"x" * 100, b"d\0\0\0\2", pg.message(b"S", b"behind"), pg.message(b"H", b"behind"),
            pg.message(b"c", b"behind"), pg.message(b"X", b"behind"), pg.startup({"user": "app"})])

    KINDS = [("extended", 22), ("query", 22), ("parse", 6), ("bind", 7), ("describe", 5), ("execute", 7), ("close", 4), ("sync", 9), ("flush", 3),
             ("function_call", 3), ("copy", 6), ("copy_cycle", 7), ("mutated", 3), ("hostile", 0.35)]

    def one(self):
        kind = self.random.choices([k for k, _ in self.KINDS], [w for _, w in self.KINDS])[0]
        if kind == "sync":
            return pg.SYNC
        return pg.FLUSH if kind == "flush" else getattr(self, kind)()

    def sequence(self):
        length = self.any_of([3, 8, 15, 30, 60])
        return [message for message in (self.one() for _ in range(length)) if message]

    def pieces(self, whole):
        """How the bytes are cut into segments."""
        how = self.random.randrange(3)
        cuts = {0: [], 1: [self.random.randrange(len(whole) + 1) for _ in range(20)], 2: list(range(0, min(len(whole), 400)))}[how]
        cuts = sorted(set([0, len(whole)] + cuts))
        return [whole[start:end] for start, end in zip(cuts, cuts[1:])]


# --- an exchange


def messages_of(data):
    """[(type, body)] of what came; the rest, if it isn't whole, under the type '...'."""
    found, at = [], 0
    while at + 5 <= len(data):
        length, = struct.unpack_from("!i", data, at + 1)
        if length < 4 or at + 1 + length > len(data):
            break
        found.append((chr(data[at]), data[at + 5:at + 1 + length]))
        at += 1 + length
    if at < len(data):
        found.append(("...", data[at:]))
    return found


def talk(connection, pieces, slowly=False):
    """Sends the pieces, reads until the end: the bytes that came."""
    received, waiting = [], list(pieces)
    connection.setblocking(False)
    if slowly:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    last = time.monotonic()
    while True:
        pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
        readable, writable, _ = select.select([connection], [connection] if waiting else [], [], 0 if pending else 1)
        if readable or pending:
            try:
                data = connection.recv(1000 if slowly else 262144)
            except WANTS:
                data = None
            except OSError:
                data = b""
            if data == b"":
                return b"".join(received)
            received, last = received + [data or b""], time.monotonic()
        if writable:
            try:
                sent = connection.send(waiting[0])
                waiting[0] = waiting[0][sent:]
                waiting = waiting if waiting[0] else waiting[1:]
            except WANTS:
                pass
            except OSError:
                waiting = []  # it has ended: what it said before is still to be read
            last = time.monotonic()
        if time.monotonic() - last > QUIET:
            return b"".join(received) + b"?HANG"


def answers(address, database, messages, cut, slowly=False, **login):
    """Logs in, sets up, sends the messages and the tail: what came after the setup, normalised. cut(bytes) gives the
    pieces in which they are sent."""
    with pg.Connection(address, user="postgres", database=database, **login) as connection:
        connection.query(SETUP)
        whole = b"".join(messages + TAIL)
        return [normalised(kind, body) for kind, body in messages_of(connection.buffer + talk(connection.socket, cut(whole), slowly))]


def normalised(kind, body):
    """Without what differs between two sessions: pids, oids and names of what is temporary."""
    if kind == "A":
        return kind, b"pid " + body[4:]
    if kind in "NE":
        return kind, re.sub(rb"pg_temp_\d+", b"pg_temp_N", body)
    if kind == "T":
        at, out = 2, [body[:2]]
        while at < len(body):
            end = body.index(b"\0", at) + 1
            table, = struct.unpack_from("!I", body, end)
            out.append(body[at:end] + struct.pack("!I", min(table, 16384)) + body[end + 4:end + 18])
            at = end + 18
        return kind, b"".join(out)
    return kind, body


# --- the beginning

USERS = ["app", "app", "app", "app", "app", "postgres", "nobody", "", "long" * 20, "a\\b", "ä", None]
DATABASES = ["app", "app", "app", "postgres", "nowhere", "", "long" * 20, "replication", None, None]
PARAMETERS = [
    ("application_name", "one"), ("application_name", "n\u00e4me"), ("application_name", "x" * 100), ("client_encoding", "LATIN1"), ("client_encoding", "nonsense"),
    ("DateStyle", "German"), ("datestyle", "nonsense"), ("TimeZone", "Asia/Tokyo"), ("extra_float_digits", "2"), ("search_path", "a, \"B c\""), ("work_mem", "5MB"),
    ("work_mem", "-1"), ("fsync", "off"), ("log_connections", "on"), ("no_such_setting", "1"), ("my.own", "kept"), ("options", "-c geqo=off"),
    ("options", "-cwork_mem=3MB --timezone=UTC"), ("options", "-c application_name=with\\ space"), ("options", "-c"), ("options", "--nonsense=1"), ("options", "-z"),
    ("options", "-c my.own=by_options -c search_path=a"), ("options", "one two"), ("options", ""), ("replication", "false"), ("replication", "true"),
    ("replication", "database"), ("", "empty"), ("user", "postgres"), ("database", "postgres"), ("session_authorization", "postgres"),
    ("role", "postgres"), ("is_superuser", "on"), ("_pq_.one", "1"), ("_pq_.two", "x"), ("ssl_renegotiation_limit", "0"), ("client_min_messages", "debug5"),
    ("standard_conforming_strings", "off"), ("default_transaction_read_only", "on"), ("statement_timeout", "10s"),
]
VERSIONS = [pg.PROTOCOL_3_0] * 8 + [pg.PROTOCOL_3_0 + 1, pg.PROTOCOL_3_0 + 2, pg.PROTOCOL_3_0 + 9999, 131072, 262144, 0, 65536, 0x7fffffff, 80877105]
OPENINGS = [[]] * 12 + [[pg.SSL_REQUEST], [pg.SSL_REQUEST], [pg.SSL_REQUEST] * 2]  # a Debian server could speak GSSAPI, the proxy can't
SHOWN = ("select current_user, session_user, current_database(), current_setting('my.own', true), name, setting from pg_settings"
         " where source in ('client', 'session', 'user', 'database') order by name")


def startup_packets(seed):
    """The packets of a login: requests of encryption, then the startup packet, right or wrong."""
    rng = random.Random(seed)
    user, database = rng.choice(USERS), rng.choice(DATABASES)
    pairs = [(key, value) for key, value in (("user", user), ("database", database)) if value is not None]
    pairs += rng.sample(PARAMETERS, rng.choice([0, 0, 1, 1, 2, 3, 5]))
    if rng.random() < 0.2:
        rng.shuffle(pairs)
    body = struct.pack("!I", rng.choice(VERSIONS)) + b"".join(pg.cstr(key) + pg.cstr(value) for key, value in pairs) + b"\0"
    how = rng.randrange(20)
    if how == 0:
        body = body[:rng.randrange(4, len(body))]
    elif how == 1:
        body += rng.choice([b"\0", b"behind\0", b"a\0b\0\0"])
    elif how == 2:
        body += b"x" * rng.choice([5000, 9990, 20000])
    length = len(body) + 4
    if rng.random() < 0.03:
        length = rng.choice([0, 3, 7, 10005, -1])
    return [struct.pack("!II", 8, code) for code in rng.choice(OPENINGS)] + [struct.pack("!i", length) + body]


def startup_answers(address, packets):
    """What came, normalised. Behind a login that succeeds the session is asked what became of its parameters."""
    raw, asked = pg.Raw(address, 10), pg.query(SHOWN) + pg.TERMINATE
    with raw:
        for packet in packets[:-1]:
            raw.send(packet)
            byte = raw.socket.recv(1)
            if byte != b"N":
                return [common(kind, body) for kind, body in messages_of(byte + talk(raw.socket, []))]
        received = talk(raw.socket, [packets[-1], asked])
    answers = [common(kind, body) for kind, body in messages_of(received)]
    answers = [answer for answer in answers if answer != ("v", b"\0\0\0\0")]  # of a minor version that we do speak
    if len(answers) > 1 and answers[0] == ("R", b"\0\0\0\0") and answers[1][0] == "E":
        return answers[1:]  # the proxy says that a client is welcome when the server has said so
    return answers


def common(kind, body):
    """Without what depends on who says it, and on the newest minor version that it speaks."""
    if kind == "K":
        return kind, b""
    if kind == "v":
        return kind, body[4:]
    if kind in ("E", "N", "..."):  # the last is the form of protocol 2
        fields = [field for field in body.split(b"\0") if field[:1] not in b"FLR"]
        return kind, re.sub(rb"supports 3.0 to 3.\d", b"supports 3.0 to 3.x", b"\0".join(fields))
    return normalised(kind, body)
