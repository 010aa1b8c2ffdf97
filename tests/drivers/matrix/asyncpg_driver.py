"""asyncpg in the matrix: everything in binary, everything prepared, its own implementation of the protocol."""
import asyncio
import datetime
import decimal
import io
import ssl
import sys
import traceback
import uuid

import asyncpg

from common import (CA, CANCEL_AFTER_S, COPY_ROWS, DATABASE, HOST, MANY, NAME, PACE_S, PASSWORD, PORT, SET_UP, STATE, USER, Worker,
                    expect, report)

INSERT = "insert into matrix_entry (driver, worker, n) values ($1, $2, $3)"
COUNT = "select count(*) from matrix_entry where driver = $1 and worker = $2 and n = $3"
VALUES = (7, "zürich", b"\0\1\xff", datetime.datetime(2024, 2, 29, 12, 0, tzinfo=datetime.timezone.utc),
          decimal.Decimal("-12345678901234567890.000100"), [1, 2, 3], uuid.UUID(int=42), '{"a": [1]}')
ECHO = "select $1::int8, $2::text, $3::bytea, $4::timestamptz, $5::numeric, $6::int8[], $7::uuid, $8::jsonb"


async def connect():
    context = ssl.create_default_context(cafile=CA) if CA else False
    connection = await asyncpg.connect(host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE, ssl=context,
                                       max_cached_statement_lifetime=0)  # else they go after five minutes
    for sql in SET_UP:
        await connection.execute(sql)
    return connection


async def rounds(worker):
    while not worker.last:
        worker.next_round()
        yield worker.rounds
        await asyncio.sleep(PACE_S)


async def check_state(worker, connection):
    worker.check_state(tuple(await connection.fetchrow(STATE)))


async def transactions(worker):
    connection = await connect()
    put = await connection.prepare(INSERT)
    async for n in rounds(worker):
        async with connection.transaction():
            await put.fetch(NAME, worker.name, n)
            expect("the count in the transaction", await connection.fetchval(COUNT, NAME, worker.name, n), 1)
        worker.acknowledge(n)
        try:
            async with connection.transaction():
                await put.fetch(NAME, worker.name, -n)
                await connection.fetchval("select 1 / $1::int", 0)
        except asyncpg.DivisionByZeroError:
            pass
        expect("what was rolled back", await connection.fetchval(COUNT, NAME, worker.name, -n), 0)
        expect("the last commit", await connection.fetchval(COUNT, NAME, worker.name, n), 1)
        expect("what comes back in binary", tuple(await connection.fetchrow(ECHO, *VALUES)), VALUES)
        numbers = [n * MANY + i for i in range(5)]
        await connection.executemany(INSERT, [(NAME, worker.name, number) for number in numbers])
        worker.acknowledge(*numbers)
        async with connection.transaction():
            total = 0
            async for row in connection.cursor("select g from generate_series(1, $1::int) g", 30, prefetch=7):
                total += row[0]
        expect("what a cursor gives", total, 465)
        await check_state(worker, connection)


async def copy(worker):
    connection = await connect()
    async for n in rounds(worker):
        numbers = range(n * COPY_ROWS, (n + 1) * COPY_ROWS)
        await connection.copy_records_to_table(
            "matrix_entry", columns=("driver", "worker", "n"), records=[(NAME, worker.name, number) for number in numbers])
        worker.acknowledge(*numbers)
        out = io.BytesIO()
        await connection.copy_from_query(
            "select n from matrix_entry where driver = $1 and worker = $2 and n >= $3 order by n", NAME, worker.name, numbers[0], output=out)
        expect("what COPY gives back", out.getvalue().decode(), "".join("%d\n" % number for number in numbers))
        await check_state(worker, connection)


async def notify(worker):
    listener, connection = await connect(), await connect()
    got = asyncio.Queue()
    await listener.add_listener(NAME, lambda _connection, _pid, _channel, payload: got.put_nowait(payload))
    async for n in rounds(worker):
        await connection.execute("select pg_notify($1, $2)", NAME, str(n))
        try:
            expect("the notification", await asyncio.wait_for(got.get(), 2), str(n))
        except asyncio.TimeoutError:
            worker.lost += 1
        await check_state(worker, listener)


async def cancel(worker):
    connection = await connect()
    async for _ in rounds(worker):
        try:
            await connection.execute("select pg_sleep(5)", timeout=CANCEL_AFTER_S)
            raise AssertionError("the cancel did not arrive")
        except asyncio.TimeoutError:
            pass
        await check_state(worker, connection)


async def logins(worker):
    async for n in rounds(worker):
        connection = await connect()
        await connection.execute(INSERT, NAME, worker.name, n)
        worker.acknowledge(n)
        await check_state(worker, connection)
        await connection.close()


async def guarded(worker, function):
    try:
        await function(worker)
    except Exception as error:
        worker.errors.append("%s: %s: %s" % (worker.name, type(error).__name__, error))
        traceback.print_exc()


async def main():
    functions = {"transactions": transactions, "copy": copy, "notify": notify, "cancel": cancel, "logins": logins}
    workers = [Worker(name) for name in functions]
    await asyncio.gather(*(guarded(worker, functions[worker.name]) for worker in workers))
    return report(workers)


sys.exit(asyncio.run(main()))
