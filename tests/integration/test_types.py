"""Clients that have learned types by their oids go on with them on the other side, where those are other types."""
import os
import random
import shutil
import struct
import subprocess

import pg

PROGRAMS = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "drivers", "types"))
PYTHON = "/usr/bin/python3"  # Debian's: it has the drivers
JDBC = "/usr/share/java/postgresql.jar"

# created in this order on blue, and in the other on green, from the same oid on
SWAPPED = [
    ("zmood", "create type zmood as enum ('sad', 'glad')"),
    ("late1", "create type late1 as enum ('a', 'b')"),
    ("late2", "create type late2 as enum ('c', 'd')"),
    ("late3", "create type late3 as enum ('e', 'f')"),
    ("late4", "create type late4 as enum ('g', 'h')"),
    ("acolor", "create type acolor as enum ('red', 'blue')"),
]
OTHERS = [
    "create domain moods as zmood[]",
    "create type pair as (mood zmood, color acolor, note text)",
    "create type span as range (subtype = zmood)",
    "create extension hstore",
    "create extension citext",
]


def oid(side, name, database="app"):
    return int(side.value("select 'public.%s'::regtype::oid" % name, database, "switchback"))


def count_up(side, to):
    """Uses up the side's oids, so that the next one is `to`."""
    with side.connect("app", "switchback") as connection:
        at = int(connection.value("select lo_create(0)"))
        connection.query("select count(lo_create(0)) from generate_series(1, %d)" % (to - 1 - at))
        assert int(connection.value("select max(oid::bigint) from pg_largeobject_metadata")) == to - 1
        connection.query("select count(lo_unlink(oid)) from pg_largeobject_metadata")


def create(side, sql):
    """The manager has a schema of its name, which is not for others."""
    side.query("set search_path = public; " + sql, "app", "switchback")


def make_types(world):
    """Both sides have the same types; the oid of each swapped one is the other's on the other side."""
    start = 100 + max(int(side.value("select lo_create(0)", "app", "switchback")) for side in (world.blue, world.green))
    for side, order in ((world.blue, SWAPPED), (world.green, SWAPPED[::-1])):
        count_up(side, start)
        for _, sql in order:
            create(side, sql)
        for sql in OTHERS if side is world.blue else OTHERS[1:2] + OTHERS[:1] + OTHERS[:1:-1]:
            create(side, sql)
    for (name, _), (other, _) in zip(SWAPPED, SWAPPED[::-1]):
        assert oid(world.blue, name) == oid(world.green, other), (name, other)


def prepared(world):
    d = world.prepared()
    make_types(world)
    return d


def flips(d, count=3):
    for i in range(count):
        verb, to = (("cutover", "green"), ("flip-back", "blue"))[i % 2]
        result = d.verb(verb, code=0).json
        assert result["disconnected"] == 0, result
        yield to
        d.wait_steady(to)


def number(value):
    return struct.pack("!I", value)


def sized(value):
    return struct.pack("!i", len(value)) + value


def array(element, values):
    """array_send() of one dimension."""
    return struct.pack("!iiIii", 1, 0, element, len(values), 1) + b"".join(sized(v) for v in values)


def record(*fields):
    return struct.pack("!i", len(fields)) + b"".join(number(t) + sized(v) for t, v in fields)


def bind_binary(statement, *values, portal="", results=(1,)):
    body = pg.cstr(portal) + pg.cstr(statement) + struct.pack("!hhh", 1, 1, len(values)) + b"".join(sized(v) for v in values)
    return pg.message(b"B", body + struct.pack("!h", len(results)) + b"".join(struct.pack("!h", f) for f in results))


LOOKUP = ("select oid, typarray, typelem, typbasetype, typname, array[oid], oid::regtype from pg_type where typname in ('zmood', '_zmood',"
          " 'acolor', '_acolor', 'moods', 'pair', 'span', 'hstore', 'citext') order by typname")


def exchanges(o):
    """What a client sends that knows the types by `o`, each up to the Syncs or Query that end it."""
    mood, color = o["zmood"], o["acolor"]
    every = pg.parse("", "select $1, 'red'::acolor, array['sad'::zmood], row(1, 'red'::acolor, array['red'::acolor]),"
                     " null::zmood[], '{}'::zmood[]", [mood])
    one = [pg.describe("S", ""), pg.bind("", "", ["glad"], [1]), pg.describe("P", ""), pg.execute(), pg.SYNC]
    yield "every kind in binary", [every] + one
    yield "arrays", [pg.parse("", "select $1 || 'sad'::zmood, $1[1]", [o["zmood[]"]]), pg.describe("S", ""),
                     bind_binary("", array(mood, [b"sad", b"glad"])), pg.execute(), pg.SYNC]
    yield "domain", [pg.parse("", "select $1, $1[2]", [o["moods"]]), pg.describe("S", ""),
                     bind_binary("", array(mood, [b"sad", b"glad"])), pg.execute(), pg.SYNC]
    yield "composite", [pg.parse("", "select $1, ($1).mood, array[$1]", [o["pair"]]), pg.describe("S", ""),
                        bind_binary("", record((mood, b"sad"), (color, b"blue"), (25, b"x"))), pg.execute(), pg.SYNC]
    yield "range", [pg.parse("", "select $1, upper($1), array[$1], span_multirange($1)", [o["span"]]), pg.describe("S", ""),
                    bind_binary("", b"\x02" + sized(b"sad") + sized(b"glad")), pg.execute(), pg.SYNC]
    yield "extensions", [pg.parse("", "select $1, $2, array[$2]", [o["hstore"], o["citext"]]), pg.describe("S", ""),
                         pg.bind("", "", ["a=>1", "Hey"], [1]), pg.execute(), pg.SYNC]
    yield "extensions as text", [pg.query("select 'a=>1'::hstore, 'Hey'::citext, array['sad'::zmood], row(1, 'red'::acolor)")]
    yield "found by names", [pg.query(LOOKUP), pg.parse("", LOOKUP), pg.bind("", "", [], [1]), pg.describe("P", ""), pg.execute(), pg.SYNC]
    by_oid = "select typname, oid, typarray from pg_type where oid = "
    yield "found by oids", [pg.parse("by", "select typname from pg_type where oid = any($1) order by 1", [1028]), pg.describe("S", "by"), pg.SYNC,
                            bind_binary("by", array(26, [number(mood), number(25)]), results=(0,)), pg.execute(), pg.SYNC,
                            pg.bind("", "by", ["{%d,%d}" % (color, 25)]), pg.execute(), pg.close("S", "by"), pg.SYNC]
    yield "found by integers", [pg.parse("", by_oid + "$1", [23]), bind_binary("", number(mood)), pg.describe("P", ""), pg.execute(), pg.SYNC,
                                pg.bind("", "", [color]), pg.execute(), pg.SYNC,
                                pg.parse("", by_oid + "$1", [20]), bind_binary("", struct.pack("!q", mood)), pg.describe("P", ""),
                                pg.execute(), pg.SYNC]
    yield "found untyped", [pg.parse("", by_oid + "$1"), pg.bind("", "", [mood]), pg.describe("P", ""), pg.execute(), pg.SYNC]
    yield "enum's labels", [pg.parse("", "select enumlabel, enumtypid from pg_enum where enumtypid = $1 order by 1"), pg.bind("", "", [mood]),
                            pg.describe("P", ""), pg.execute(), pg.SYNC]
    yield "numbers elsewhere", [pg.parse("", "select $1, $2, $3 || ''", [23, 26, 25]), pg.bind("", "", [mood, mood, mood]),
                                pg.execute(), pg.SYNC]
    yield "binary cursor", [pg.query("begin; declare c binary cursor for select array['sad'::zmood], 'red'::acolor, 26::oid;"
                                     " fetch c; close c; commit; select array['sad'::zmood]")]
    yield "portals", [pg.parse("", "select array['sad'::zmood] from generate_series(1, 3)"), pg.bind("p", "", [], [1]), pg.describe("P", "p"),
                      pg.execute("p", 1), pg.bind("", "", []), pg.execute(), pg.execute("p", 1), pg.describe("P", "p"), pg.execute("p", 0), pg.SYNC]
    yield "errors", [pg.parse("e", "select $1", [mood]), pg.parse("f", "select nothing"), pg.parse("g", "select 1", [color]), pg.SYNC,
                     pg.parse("e", "select array[$1]", [mood]), pg.describe("S", "e"), pg.bind("", "e", ["sad"], [1]), pg.execute(), pg.SYNC,
                     pg.parse("e", "select 1"), pg.SYNC,
                     pg.bind("", "e", ["bad"], [1]), pg.execute(), pg.query("select 'skipped'"), pg.SYNC,
                     pg.bind("", "e", ["sad"], [1]), pg.execute(), pg.close("S", "e"), pg.SYNC,
                     pg.bind("", "e", ["sad"], [1]), pg.execute(), pg.SYNC]
    yield "several at once", [pg.parse("a", "select array['sad'::zmood]"), pg.parse("b", "select $1::zmood"), pg.describe("S", "a"),
                              pg.describe("S", "b"), pg.bind("", "a", [], [1]), pg.execute(), pg.bind("", "b", ["sad"]), pg.execute(),
                              pg.close("S", "a"), pg.parse("a", "select array['red'::acolor]"), pg.bind("", "a", [], [1]), pg.describe("P", ""), pg.execute(),
                              pg.FLUSH, pg.close("S", "a"), pg.close("S", "b"), pg.SYNC, pg.query("select 'red'::acolor"),
                              pg.query("insert into no_table values (1)"), pg.query("select array['red'::acolor]")]
    yield "copy", [pg.parse("", "copy (select 'sad'::zmood) to stdout"), pg.bind("", ""), pg.execute(), pg.SYNC, pg.query("select 'sad'::zmood")]
    yield "large", [pg.parse("", "select $1, $2", [o["zmood[]"], 17]), pg.describe("S", ""),
                    bind_binary("", array(mood, [b"sad"] * 30000), b"x" * 100000), pg.execute(), pg.SYNC]


def answers(client, parts, bytewise=0):
    """Everything up to the error of a request of ours behind it all, which touches nothing."""
    parts = parts + [pg.SYNC, pg.describe("S", "the end"), pg.SYNC]
    if bytewise:
        client.send_bytewise(b"".join(parts), bytewise)
    else:
        client.send(*parts)
    seen = []
    while True:
        messages = client.until_ready()
        if messages[0][0] == "E" and b'"the end"' in messages[0][1]:
            break
        seen += messages
    if client.status != "I":
        client.query("rollback")
    return seen


def burst(o, seed):
    """Exchanges in any order, sent before any answer is read; now and then a message is missing, or one too many."""
    choose = random.Random(seed)
    parts = []
    for _ in range(choose.randint(2, 12)):
        name, more = choose.choice([e for e in exchanges(o) if e[0] not in ("large", "errors")])
        more = list(more)
        if choose.random() < 0.3:  # what is never described isn't known
            more.remove(choose.choice([part for part in more if part[:1] != b"D"]))
        if choose.random() < 0.3:
            more.insert(choose.randrange(len(more) or 1), choose.choice([
                pg.FLUSH, pg.parse("", "select nonsense"), pg.describe("S", "none"), pg.close("P", ""), pg.execute("none"),
                pg.bind("", "", ["sad"]), pg.parse("", "select 1", [o["zmood"]]), pg.describe("P", "")]))
        parts += more
    return parts + [pg.SYNC] + [pg.close("S", name) for name in ("a", "b", "e", "f", "g", "by")] + [pg.SYNC]


def same(before, after):
    """Error positions and lines of the server's source are the version's own."""
    def plain(kind, body):
        return (kind, {k: v for k, v in pg.fields(body).items() if k in "SVCM"}) if kind == "E" else (kind, body)
    return [plain(*m) for m in before] == [plain(*m) for m in after]


def test_a_moved_client_sees_the_same_bytes(world):
    """Nothing that a client sees of types changes when it moves, nor does what it says mean another type."""
    d = prepared(world)
    names = ["zmood", "acolor", "zmood[]", "acolor[]", "moods", "pair", "span", "hstore", "citext"]
    home = {name: oid(world.blue, name) for name in names}
    client, slow = world.connect(), world.connect()
    for c in (client, slow):
        c.prepare("early", "select $1, array[$1], $2, $2[1]", [home["zmood"], home["zmood[]"]])
        c.prepare("early by", "select typname, oid from pg_type where oid = any($1)")
    early = [("unnamed before", [pg.bind("", "", ["sad"], [1]), pg.execute(), pg.SYNC,
                                 pg.parse("", "select array[$1]", [home["zmood"]]), pg.SYNC]),
             ("named before", [bind_binary("early", b"sad", array(home["zmood"], [b"glad"])), pg.execute(), pg.SYNC,
                               pg.describe("S", "early"), pg.SYNC]),
             ("lookup before", [bind_binary("early by", array(26, [number(home["acolor"])])), pg.execute(), pg.SYNC])]
    leave_unnamed = [pg.parse("", "select array[$1]", [home["zmood"]]), pg.SYNC]
    for c in (client, slow):
        answers(c, leave_unnamed)
    cases = early + list(exchanges(home))
    before = {name: answers(client, parts) for name, parts in cases}
    for c in (client, slow):
        answers(c, leave_unnamed)
    assert before["found by oids"][5:7] == [("D", b"\0\1" + sized(b"text")), ("D", b"\0\1" + sized(b"zmood"))], before["found by oids"]
    bursts = [burst(home, seed) for seed in range(30)]
    together = [answers(client, parts) for parts in bursts]
    for c in (client, slow):
        answers(c, leave_unnamed)
    failing = {name for name, messages in before.items() if any(kind == "E" for kind, _ in messages)}
    assert failing == {"errors", "several at once"}, {name: before[name] for name in failing}
    for to in flips(d):
        for name, parts in cases:
            after = answers(client, parts)
            assert same(before[name], after), "%s on %s:\n%r\n%r" % (name, to, before[name], after)
        for name, parts in cases:
            if name != "large":
                after = answers(slow, parts, 3)
                assert same(before[name], after), "%s in pieces on %s:\n%r\n%r" % (name, to, before[name], after)
        for seed, parts in enumerate(bursts):
            after = answers(client, parts, seed % 3 * 700)
            assert same(together[seed], after), "burst %d on %s:\n%r\n%r\n%r" % (seed, to, parts, together[seed], after)
        for c in (client, slow):
            answers(c, leave_unnamed)
    born = world.connect()
    there = {name: oid(world.green, name) for name in names}
    for name, parts in exchanges(there):
        assert len(answers(born, parts)) == len(before[name]), name


# --- drivers that cache types


class Driver:
    """A program of tests/drivers/types, or None if what it needs isn't installed."""

    def __init__(self, world, name, command):
        self.name = name
        self.process = world.spawn(command, stdin=-1)

    def round(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer == "ok", "%s, %s: %s" % (self.name, words, answer or self.process.communicate()[1])


def drivers(world, d):
    conninfo = "postgresql://app@127.0.0.1:%d/app" % d.port
    for module, program in (("psycopg", "psycopg3_types.py"), ("asyncpg", "asyncpg_types.py")):
        if subprocess.run([PYTHON, "-c", "import " + module], stderr=subprocess.DEVNULL).returncode == 0:
            yield Driver(world, module, [PYTHON, os.path.join(PROGRAMS, program), conninfo])
    if os.path.exists(JDBC) and shutil.which("java"):
        yield Driver(world, "pgjdbc", ["java", "-XX:TieredStopAtLevel=1", "-cp", JDBC, os.path.join(PROGRAMS, "PgjdbcTypes.java"),
                                       "jdbc:" + conninfo.replace("app@", "") + "?user=app"])


def test_drivers_keep_their_types(world):
    """psycopg 3, asyncpg and pgjdbc use what they have learned, and learn more on either side."""
    d = prepared(world)
    programs = list(drivers(world, d))
    assert programs, "none of the drivers is installed"
    for program in programs:
        program.round("use", "late1")
    for i, to in enumerate(flips(d, 4)):
        for program in programs:
            program.round("use", *(["late%d" % (i + 2)] if i < 3 else []))


# --- types that come and go


def told(client, sql):
    """The types of a RowDescription."""
    client.send(pg.query(sql))
    description = next(body for kind, body in client.until_ready() if kind == "T")
    count, = struct.unpack_from("!h", description)
    at, oids = 2, []
    for _ in range(count):
        at = description.index(b"\0", at) + 1
        oids.append(struct.unpack_from("!I", description, at + 6)[0])
        at += 18
    return oids


def test_types_made_after_the_move(world):
    """A moved client knows a new type by a number that its home never gave: it is the one that can't go back."""
    d = prepared(world)
    user, other, fails = world.connect(application_name="user"), world.connect(), world.connect()
    assert d.verb("cutover", code=0).json["disconnected"] == 0
    born = world.connect()
    create(world.blue, "create type waste as enum ('x')")
    for side in (world.green, world.blue):
        create(side, "create type fresh as enum ('x', 'y')")
    create(world.green, "create type lonely as enum ('x')")
    fresh = {side: oid(side, "fresh") for side in (world.blue, world.green)}
    assert fresh[world.blue] != fresh[world.green]
    query = "select 'x'::fresh, 'sad'::zmood"
    assert told(user, query) == told(user, query)
    assert told(user, query)[1] == oid(world.blue, "zmood")
    assert told(born, query) == [fresh[world.green], oid(world.green, "zmood")]
    assert told(fails, "select 'x'::lonely, 'red'::acolor")[1] == oid(world.blue, "acolor")
    told(other, "select 'sad'::zmood")
    immovable = [s for s in d.verb("sessions", code=0).json["sessions"] if not s["movable"]]
    assert len(immovable) == 2 and all("knows type" in s["reasons"][0] for s in immovable), immovable
    d.wait_steady("green")
    result = d.verb("flip-back", code=0).json
    assert (result["to"], result["moved"], result["disconnected"]) == ("blue", 2, 2), result
    for client in (user, fails):
        try:
            client.results()
            raise AssertionError("it is still there")
        except pg.PgError as error:
            assert error.sqlstate == "57P01" and "knows type" in error.message, error
    assert told(other, query) == [fresh[world.blue], oid(world.blue, "zmood")]
    assert told(born, query) == [fresh[world.green], oid(world.green, "zmood")]
    born.send(pg.parse("", "select $1", [fresh[world.green]]), pg.bind("", "", ["y"]), pg.execute(), pg.SYNC)
    assert born.results() == [[("y",)]]
