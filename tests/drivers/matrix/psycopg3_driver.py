"""psycopg 3 in the matrix: it prepares by itself, and speaks binary when asked."""
import threading
import datetime
import decimal
import uuid

import psycopg
from psycopg.types.json import Jsonb

from common import CANCEL_AFTER_S, COPY_ROWS, COUNT, INSERT, NAME, SET_UP, STATE, conninfo, expect, run

VALUES = (7, "zürich", b"\0\1\xff", datetime.datetime(2024, 2, 29, 12, 0, tzinfo=datetime.timezone.utc),
          decimal.Decimal("-12345678901234567890.000100"), [1, 2, 3], uuid.UUID(int=42))
ECHO = "select %s::int8, %s::text, %s::bytea, %s::timestamptz, %s::numeric, %s::int8[], %s::uuid, %s::jsonb"


def connect(autocommit=True):
    connection = psycopg.connect(conninfo(), autocommit=True)
    for sql in SET_UP:
        connection.execute(sql)
    connection.autocommit = autocommit
    return connection


def transactions(worker):
    connection = connect()
    connection.prepare_threshold = 2
    binary = connection.cursor(binary=True)
    for n in worker.loop():
        with connection.transaction():
            connection.execute(INSERT, (NAME, worker.name, n), prepare=True)
            expect("the count in the transaction", connection.execute(COUNT, (NAME, worker.name, n), prepare=True).fetchone(), (1,))
        worker.acknowledge(n)
        try:
            with connection.transaction():
                connection.execute(INSERT, (NAME, worker.name, -n))
                connection.execute("select 1 / 0")
        except psycopg.errors.DivisionByZero:
            pass
        expect("what was rolled back", connection.execute(COUNT, (NAME, worker.name, -n)).fetchone(), (0,))
        expect("the last commit", connection.execute(COUNT, (NAME, worker.name, n)).fetchone(), (1,))
        expect("what comes back in binary", binary.execute(ECHO, VALUES + (Jsonb({"a": [1]}),)).fetchone(), VALUES + ({"a": [1]},))
        worker.check_state(connection.execute(STATE).fetchone())
        if n % 5 == 0:
            with connection.pipeline():
                cursors = [connection.execute("select %s::int + 1", (i,)) for i in range(10)]
            expect("what a pipeline gives", [cursor.fetchone()[0] for cursor in cursors], list(range(1, 11)))


def copy(worker):
    connection = connect()
    for n in worker.loop():
        numbers = range(n * COPY_ROWS, (n + 1) * COPY_ROWS)
        with connection.cursor() as cursor:
            with cursor.copy("copy matrix_entry (driver, worker, n) from stdin (format binary)") as stream:
                stream.set_types(["text", "text", "int8"])
                for number in numbers:
                    stream.write_row((NAME, worker.name, number))
            worker.acknowledge(*numbers)
            with cursor.copy("copy (select n from matrix_entry where driver = '%s' and worker = '%s' and n >= %d order by n) to stdout"
                             % (NAME, worker.name, numbers[0])) as stream:
                expect("what COPY gives back", [int(row[0]) for row in stream.rows()], list(numbers))
        worker.check_state(connection.execute(STATE).fetchone())


def notify(worker):
    listener, connection = connect(), connect()
    listener.execute('listen "%s"' % NAME)
    got = []
    listener.add_notify_handler(lambda notification: got.append(notification.payload))
    for n in worker.loop():
        del got[:]
        connection.execute("select pg_notify(%s, %s)", (NAME, str(n)))
        for _ in range(40):  # its handler is called while it runs something
            worker.check_state(listener.execute(STATE).fetchone())
            if got:
                break
            threading.Event().wait(0.05)
        if not got:
            worker.lost += 1
        else:
            expect("the notification", got, [str(n)])


def cancel(worker):
    connection = connect()
    for _ in worker.loop():
        timer = threading.Timer(CANCEL_AFTER_S, connection.cancel)
        timer.start()
        try:
            connection.execute("select pg_sleep(5)")
            raise AssertionError("the cancel did not arrive")
        except psycopg.errors.QueryCanceled:
            pass
        timer.join()
        worker.check_state(connection.execute(STATE).fetchone())


def logins(worker):
    for n in worker.loop():
        with connect() as connection:
            connection.execute(INSERT, (NAME, worker.name, n))
            worker.acknowledge(n)
            worker.check_state(connection.execute(STATE).fetchone())


run({"transactions": transactions, "copy": copy, "notify": notify, "cancel": cancel, "logins": logins})
