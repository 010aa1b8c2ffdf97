"""What the Python programs of the matrix share: README.md beside this says what each program does.

A program gives run() its workers by name; each is called with a Worker, in a thread of its own, until the run is
over. An exception ends its worker and is an error of the run.
"""
import json
import os
import sys
import threading
import time
import traceback

HOST, PORT = os.environ["MATRIX_HOST"], int(os.environ["MATRIX_PORT"])
USER, PASSWORD, DATABASE = os.environ["MATRIX_USER"], os.environ["MATRIX_PASSWORD"], os.environ["MATRIX_DATABASE"]
CA = os.environ.get("MATRIX_CA", "")
NAME = os.environ["MATRIX_NAME"]

INSERT = "insert into matrix_entry (driver, worker, n) values (%s, %s, %s)"
COUNT = "select count(*) from matrix_entry where driver = %s and worker = %s and n = %s"
SET_UP = os.environ["MATRIX_SET_UP"].split(";")
STATE, WANTED = os.environ["MATRIX_STATE"], os.environ["MATRIX_WANTED"]
COPY_ROWS = 40
MANY = 1000000  # more rounds than there can be: a batch numbers its rows beyond them
WARM_UP = 20  # rounds after which a driver has prepared all that it prepares
CANCEL_AFTER_S = 0.1
PACE_S = 0.02


def conninfo():
    """For drivers on libpq."""
    info = "host=%s port=%d user=%s password=%s dbname=%s" % (HOST, PORT, USER, PASSWORD, DATABASE)
    return info + (" sslmode=verify-full channel_binding=require sslrootcert=" + CA if CA else " sslmode=disable")


def over():
    return os.path.exists(os.environ["MATRIX_STOP"])


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError("%s is %r instead of %r" % (what, got, wanted))


class Worker:
    """One worker's ledger and what it has seen."""

    def __init__(self, name):
        self.name, self.rounds, self.switches, self.lost = name, 0, 0, 0
        self.acknowledged, self.errors = [], []
        self.server = self.statements = None
        self.last = False

    def acknowledge(self, *numbers):
        self.acknowledged.extend(numbers)

    def check_state(self, row):
        """A row of STATE: all is as this session made it, on whichever side it is."""
        state, server, statements, mood = row
        expect("the session's state", state, WANTED)
        expect("an enum", mood, "calm")
        self.saw_server(server)
        if self.rounds > WARM_UP:
            if self.statements is not None:
                expect("the list of prepared statements", statements, self.statements)
            self.statements = statements

    def saw_server(self, server):
        if self.server is not None and self.server != server:
            self.switches += 1
        self.server = server

    def loop(self):
        """The numbers of this worker's rounds; the last one begins when the run is over."""
        while not self.last:
            self.next_round()
            yield self.rounds
            time.sleep(PACE_S)

    def next_round(self):
        self.last = over()
        self.rounds += 1


def _guarded(worker, function):
    try:
        function(worker)
    except BaseException as error:
        worker.errors.append("%s: %s: %s" % (worker.name, type(error).__name__, str(error).strip()))
        traceback.print_exc()


def report(workers):
    """Writes the ledger and the summary; the exit status."""
    with open(os.environ["MATRIX_LEDGER"], "w") as ledger:
        for worker in workers:
            ledger.writelines("%s %d\n" % (worker.name, n) for n in worker.acknowledged)
    errors = [error for worker in workers for error in worker.errors]
    print(json.dumps({
        "name": NAME, "errors": errors,
        "workers": {w.name: {"rounds": w.rounds, "switches": w.switches, "acknowledged": len(w.acknowledged), "lost": w.lost}
                    for w in workers}}))
    return 1 if errors else 0


def run(functions):
    workers = [Worker(name) for name in functions]
    threads = [threading.Thread(target=_guarded, args=(worker, functions[worker.name])) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(report(workers))
