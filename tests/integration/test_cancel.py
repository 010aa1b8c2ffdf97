"""Cancels while sessions wait, move and come and go: each ends its own statement, whichever server runs it by then, and
nobody else's."""
import threading

import pg


class Load:
    """Victims that cancel their own statements, bystanders that must never see an error, and short-lived sessions whose
    last cancel arrives about when they end, and whose pids come again."""

    def __init__(self, world, d):
        self.world, self.d, self.over = world, d, threading.Event()
        self.wrong, self.cancelled, self.short = [], 0, 0
        jobs = [self.victim] * 4 + [self.bystander] * 6 + [self.visitor] * 4
        self.threads = [threading.Thread(target=self.run, args=(job, n)) for n, job in enumerate(jobs)]
        for thread in self.threads:
            thread.start()

    def run(self, job, number):
        version = pg.PROTOCOL_3_2 if number % 2 else pg.PROTOCOL_3_0
        try:
            while not self.over.is_set():
                job(version)
        except Exception as error:  # whatever it is, it fails the test
            self.wrong.append("%s: %r" % (job.__name__, error))

    def victim(self, version):
        with pg.Connection(self.d.address, version=version) as connection:
            while not self.over.is_set():
                timer = threading.Timer(0.05, connection.cancel)
                timer.start()
                error = connection.error("select pg_sleep(0.3)")
                timer.join()
                # in a hold the statement may wait longer than its cancel: it is cancelled there, or not at all
                assert error is None or error.sqlstate == "57014", error
                self.cancelled += error is not None

    def bystander(self, version):
        with pg.Connection(self.d.address, version=version) as connection:
            while not self.over.is_set():
                connection.query("select pg_sleep(0.002)")

    def visitor(self, version):
        with pg.Connection(self.d.address, version=version) as connection:
            connection.query("select 1")
            pid, key = connection.pid, connection.key
            late = threading.Thread(target=pg.cancel, args=(self.d.address, pid, key))
            late.start()
        late.join()
        self.short += 1

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        assert not self.wrong, self.wrong[:5]


def test_cancel_under_flips(world):
    d = world.prepared(ledger=False, workers=4, watch={"duration": "1h"})
    load = Load(world, d)
    try:
        for _ in range(3):
            d.verb("cutover", code=0)
            d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"])
            d.verb("flip-back", code=0)
            d.wait_steady("blue")
        d.until(lambda: load.cancelled > 20 and load.short > 50, what="cancels have come")
    finally:
        load.stop()
    d.until(lambda: d.status()["sessions"]["total"] == 0, what="no session is left")


def test_cancel_in_a_hold(world):
    """What waits is answered by 57014 without having been sent; what was running before is cancelled on its server."""
    world.pair()
    d = world.daemon()
    world.blue.query("create table t (id int); grant all on t to app")
    kinds = {
        "a Query": pg.query("insert into t values (1)"),
        "extended": pg.parse("", "insert into t values (1)") + pg.bind("", "") + pg.execute() + pg.SYNC,
        "Close first": pg.close("S", "s") + pg.parse("", "insert into t values (1)") + pg.bind("", "") + pg.execute() + pg.SYNC,
        "Flush first": pg.FLUSH + pg.parse("", "insert into t values (1)") + pg.bind("", "") + pg.execute() + pg.SYNC,
        "pipelined": pg.query("insert into t values (1)") + pg.query("select 'behind'"),
    }
    running = pg.Connection(d.address)
    running.send(pg.query("select pg_sleep(60)"))
    runs = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'"
    d.until(lambda: world.blue.value(runs) == "1", what="it runs")
    waiting = {name: pg.Connection(d.address) for name in kinds}
    d.verb("hold", "--for", "300s", "--reason", "a test", code=0)
    for name, connection in waiting.items():
        connection.send(kinds[name])
    # what was sent has to be read first: a cancel that comes before it cancels nothing
    d.wait_status(lambda s: s["sessions"]["waiting"] >= len(kinds), what="they wait")
    for name, connection in waiting.items():
        connection.cancel()
        seen = connection.until_ready()
        assert [kind for kind, _ in seen] == ["E", "Z"] and pg.fields(seen[0][1])["C"] == "57014", (name, seen)
    running.cancel()
    seen = running.until_ready()
    assert pg.fields(seen[-2][1])["C"] == "57014", seen
    d.verb("release", code=0)
    assert waiting["pipelined"].until_ready()[1] == ("D", b"\0\1\0\0\0\6behind")
    for connection in list(waiting.values()) + [running]:
        assert connection.value("select 1") == "1"
        connection.close()
    assert world.blue.value("select count(*) from t") == "0"
