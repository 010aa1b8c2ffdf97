"""asyncpg, which looks types up by their oids and keeps a codec for each: a round for each line on standard input."""
import asyncio
import sys
import traceback

import asyncpg


async def late(connection, name):
    """A type that is first seen now: asyncpg asks pg_type for its oid, and for its array's."""
    labels = await connection.fetchval("select enum_range(null::%s)::text[]" % name)
    for label in labels:
        assert await connection.fetchval("select $1::%s" % name, label) == label
    assert await connection.fetchval("select $1::%s[]" % name, labels) == labels
    statement = await connection.prepare("select null::%s" % name)
    assert statement.get_attributes()[0].type.name == name, statement.get_attributes()


async def use(connection, prepared):
    async def same(value, kind):
        for _ in range(2):
            got = await connection.fetchval("select $1::%s" % kind, value)
            assert got == value, (kind, value, got)

    await same("sad", "zmood")
    await same("red", "acolor")
    await same(["sad", "glad"], "zmood[]")
    await same(["red", None], "acolor[]")
    await same(["glad"], "moods")
    await same(("sad", "blue", "note"), "pair")
    await same([("sad", "blue", "note")], "pair[]")
    await same(asyncpg.Range("sad", "glad", upper_inc=True), "span")
    await same({"a": "1"}, "hstore")
    await same("Text", "citext")
    for wrong, kind in (("red", "zmood"), ("sad", "acolor")):
        try:
            await connection.fetchval("select $1::%s" % kind, wrong)
        except asyncpg.exceptions.InvalidTextRepresentationError:
            continue
        raise AssertionError("%s is no %s" % (wrong, kind))
    got = await prepared.fetchrow("sad", ["red"])
    assert (got["m"], got["c"], got["p"]) == ("sad", ["red"], ("sad", "red", "x")), got
    row = await connection.fetchrow("select row(1, 'sad'::zmood, array['red'::acolor]) as r, array['sad'::zmood] as a")
    assert tuple(row["r"]) == (1, "sad", ["red"]) and row["a"] == ["sad"], row
    async with connection.transaction():
        got = [r[0] async for r in connection.cursor("select array['sad'::zmood] from generate_series(1, 120)")]
    assert got == [["sad"]] * 120


async def main():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.set_builtin_type_codec("hstore", codec_name="pg_contrib.hstore")
    await connection.set_builtin_type_codec("citext", codec_name="text")
    prepared = await connection.prepare("select $1::zmood as m, $2::acolor[] as c, row($1, $2[1], 'x')::pair as p")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for word in line.split():
            if word == "again":
                await connection.reload_schema_state()
            elif word != "use":
                await late(connection, word)
        await use(connection, prepared)
        print("ok", flush=True)


try:
    asyncio.run(main())
except Exception:
    print(traceback.format_exc().replace("\n", " | "), flush=True)
