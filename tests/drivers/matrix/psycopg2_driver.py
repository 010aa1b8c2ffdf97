"""psycopg 2 in the matrix."""
import io
import select
import threading
import time

import psycopg2
import psycopg2.extensions

from common import CANCEL_AFTER_S, COPY_ROWS, COUNT, INSERT, NAME, SET_UP, STATE, conninfo, expect, run


def connect(autocommit=True):
    connection = psycopg2.connect(conninfo())
    connection.autocommit = True
    cursor = connection.cursor()
    for sql in SET_UP:
        cursor.execute(sql)
    connection.autocommit = autocommit
    return connection, cursor


def one(cursor, sql, values=()):
    cursor.execute(sql, values)
    return cursor.fetchone()


def transactions(worker):
    connection, cursor = connect(autocommit=False)
    # psycopg 2 prepares nothing by itself: its users do it in SQL
    cursor.execute("prepare put (text, text, bigint) as insert into matrix_entry (driver, worker, n) values ($1, $2, $3)")
    cursor.execute("prepare see (text, text, bigint) as select count(*) from matrix_entry where driver = $1 and worker = $2 and n = $3")
    connection.commit()
    for n in worker.loop():
        cursor.execute("execute put (%s, %s, %s)", (NAME, worker.name, n))
        expect("the count in the transaction", one(cursor, "execute see (%s, %s, %s)", (NAME, worker.name, n)), (1,))
        connection.commit()
        worker.acknowledge(n)
        cursor.execute(INSERT, (NAME, worker.name, -n))
        connection.rollback()
        expect("what was rolled back", one(cursor, COUNT, (NAME, worker.name, -n)), (0,))
        expect("the last commit", one(cursor, COUNT, (NAME, worker.name, n)), (1,))
        worker.check_state(one(cursor, STATE))
        connection.commit()
        with connection.cursor(name="walk") as walk:  # a cursor of the server
            walk.itersize = 7
            walk.execute("select g from generate_series(1, 30) g")
            expect("what a cursor gives", sum(g for g, in walk), 465)
        connection.commit()


def copy(worker):
    connection, cursor = connect()
    for n in worker.loop():
        numbers = range(n * COPY_ROWS, (n + 1) * COPY_ROWS)
        rows = "".join("%s\t%s\t%d\n" % (NAME, worker.name, number) for number in numbers)
        cursor.copy_expert("copy matrix_entry (driver, worker, n) from stdin", io.StringIO(rows))
        worker.acknowledge(*numbers)
        out = io.StringIO()
        cursor.copy_expert(
            "copy (select n from matrix_entry where driver = '%s' and worker = '%s' and n >= %d order by n) to stdout"
            % (NAME, worker.name, numbers[0]), out)
        expect("what COPY gives back", out.getvalue(), "".join("%d\n" % number for number in numbers))
        worker.check_state(one(cursor, STATE))


def notify(worker):
    listener, listening = connect()
    listening.execute('listen "%s"' % NAME)
    _, cursor = connect()
    for n in worker.loop():
        cursor.execute("select pg_notify(%s, %s)", (NAME, str(n)))
        end = time.monotonic() + 2
        while not listener.notifies and time.monotonic() < end:
            if select.select([listener], [], [], 0.1)[0]:
                listener.poll()
        got = [notification.payload for notification in listener.notifies]
        del listener.notifies[:]
        if got == []:
            worker.lost += 1
        else:
            expect("the notification", got, [str(n)])
        worker.check_state(one(listening, STATE))


def cancel(worker):
    connection, cursor = connect()
    for _ in worker.loop():
        timer = threading.Timer(CANCEL_AFTER_S, connection.cancel)
        timer.start()
        try:
            cursor.execute("select pg_sleep(5)")
            raise AssertionError("the cancel did not arrive")
        except psycopg2.extensions.QueryCanceledError:
            pass
        timer.join()
        worker.check_state(one(cursor, STATE))


def logins(worker):
    for n in worker.loop():
        connection, cursor = connect()
        cursor.execute(INSERT, (NAME, worker.name, n))
        worker.acknowledge(n)
        worker.check_state(one(cursor, STATE))
        connection.close()


run({"transactions": transactions, "copy": copy, "notify": notify, "cancel": cancel, "logins": logins})
