"""ODBC (psqlodbc, through pyodbc) in the matrix. ODBC knows neither COPY nor LISTEN."""
import glob
import threading

import pyodbc

from common import CA, CANCEL_AFTER_S, DATABASE, HOST, MANY, NAME, PASSWORD, PORT, SET_UP, STATE, USER, expect, run

DRIVER = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")[0]
INSERT = "insert into matrix_entry (driver, worker, n) values (?, ?, ?)"
COUNT = "select count(*) from matrix_entry where driver = ? and worker = ? and n = ?"


def connect(autocommit=True):
    # SSLmode and the root certificate are libpq's
    connection = pyodbc.connect(
        "DRIVER=%s;SERVER=%s;PORT=%d;UID=%s;PWD=%s;DATABASE=%s;SSLmode=%s;UseServerSidePrepare=1" % (
            DRIVER, HOST, PORT, USER, PASSWORD, DATABASE, "verify-full;pqopt={sslrootcert=%s}" % CA if CA else "disable"),
        autocommit=True)
    for sql in SET_UP:
        connection.execute(sql)
    connection.autocommit = autocommit
    return connection


def count(cursor, worker, n):
    return cursor.execute(COUNT, (NAME, worker.name, n)).fetchone()[0]


def transactions(worker):
    connection = connect(autocommit=False)
    put, see = connection.cursor(), connection.cursor()  # each keeps its statement prepared
    for n in worker.loop():
        put.execute(INSERT, (NAME, worker.name, n))
        expect("the count in the transaction", count(see, worker, n), 1)
        connection.commit()
        worker.acknowledge(n)
        put.execute(INSERT, (NAME, worker.name, -n))
        connection.rollback()
        expect("what was rolled back", count(see, worker, -n), 0)
        expect("the last commit", count(see, worker, n), 1)
        numbers = [MANY * n + i for i in range(5)]
        put.executemany(INSERT, [(NAME, worker.name, number) for number in numbers])
        connection.commit()
        worker.acknowledge(*numbers)
        worker.check_state(tuple(connection.execute(STATE).fetchone()))
        connection.commit()


def cancel(worker):
    connection = connect()
    for _ in worker.loop():
        cursor = connection.cursor()
        timer = threading.Timer(CANCEL_AFTER_S, cursor.cancel)
        timer.start()
        try:
            cursor.execute("select pg_sleep(5)")
            raise AssertionError("the cancel did not arrive")
        except pyodbc.Error as error:
            expect("the error of a cancelled statement", error.args[0] in ("57014", "HY008"), True)
        timer.join()
        worker.check_state(tuple(connection.execute(STATE).fetchone()))


def logins(worker):
    for n in worker.loop():
        connection = connect()
        connection.execute(INSERT, (NAME, worker.name, n))
        worker.acknowledge(n)
        worker.check_state(tuple(connection.execute(STATE).fetchone()))
        connection.close()


run({"transactions": transactions, "cancel": cancel, "logins": logins})
