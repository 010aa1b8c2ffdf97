"""psycopg 3 with types that it looks up once: a round for each line on standard input, its answer on standard output."""
import enum
import sys
import traceback

import psycopg
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.hstore import register_hstore
from psycopg.types.range import Range, RangeInfo, register_range


class Mood(enum.Enum):
    SAD = "sad"
    GLAD = "glad"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def learn(connection):
    register_enum(EnumInfo.fetch(connection, "zmood"), connection, Mood, mapping={m: m.value for m in Mood})
    register_enum(EnumInfo.fetch(connection, "acolor"), connection, Color, mapping={c: c.value for c in Color})
    pair = CompositeInfo.fetch(connection, "pair")
    register_composite(pair, connection)
    register_range(RangeInfo.fetch(connection, "span"), connection)
    register_hstore(TypeInfo.fetch(connection, "hstore"), connection)
    TypeInfo.fetch(connection, "citext").register(connection)
    return pair.python_type


def late(connection, name):
    """A type that is first seen now."""
    info = EnumInfo.fetch(connection, name)
    kind = enum.Enum(name, {label: label for label in info.labels})
    register_enum(info, connection, kind, mapping={m: m.value for m in kind})
    first = next(iter(kind))
    for _ in range(3):
        got, = connection.execute("select %s", [first]).fetchone()
        assert got is first, (name, got)
    row = connection.execute("select typname from pg_type where oid = %s", [info.oid]).fetchone()
    assert row == (name,), (info, row)


def use(connection, Pair, binary):
    cursor = connection.cursor(binary=binary)
    pair = Pair(mood=Mood.SAD, color=Color.BLUE, note="n, o")

    def same(value, sql="select %s, 1"):
        got = cursor.execute(sql, [value]).fetchone()[0]
        assert got == value and type(got) is type(value), (sql, value, got, binary)

    for _ in range(7):  # from the sixth on it is a named statement
        same(Mood.GLAD)
        same(Color.RED)
        same([Mood.SAD, Mood.GLAD])
        same([Color.RED])
        same(pair)
        same(Range(Mood.SAD, Mood.GLAD, "[]"), "select %s::span, 1")
        if not binary:  # psycopg 3.1 reads these as text only
            same({"a": "1", "b": None}, "select %s::hstore, 1")
            same("Text", "select %s::citext, 1")
        got = cursor.execute("select array[%s, 'sad'::zmood]", [Mood.GLAD]).fetchone()[0]
        assert got == [Mood.GLAD, Mood.SAD], got
        got = cursor.execute("select %s, %s, row(1, %s)", [Mood.SAD, Color.RED, Mood.SAD]).fetchone()
        assert got[:2] == (Mood.SAD, Color.RED), got


def main():
    connection = psycopg.connect(sys.argv[1], autocommit=True)
    pair = learn(connection)
    for line in sys.stdin:
        for word in line.split():
            if word != "use":
                late(connection, word)
        for binary in (False, True):
            use(connection, pair, binary)
        print("ok", flush=True)


try:
    main()
except Exception:
    print(traceback.format_exc().replace("\n", " | "), flush=True)
