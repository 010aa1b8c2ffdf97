"""Who goes around the proxy: direct writers of all kinds, DDL, locks that don't yield. Refused, waited for within bounds,
or seen; never a row on one side only."""
import threading
import time

import pg
from test_flip import FENCED, assert_one_active, code_of

AROUND_EVENT_TRIGGERS = "set session authorization switchback; set session_replication_role = replica; "


class Direct(threading.Thread):
    """Writes to one side, without the proxy, whenever that lets it; keeps what was acknowledged."""

    def __init__(self, side, session, user="app", setup="", reconnect=True):
        super().__init__(daemon=True)
        self.side, self.session, self.user, self.setup, self.reconnect = side, session, user, setup, reconnect
        self.acknowledged, self.doubtful, self.refused, self.ended = set(), set(), 0, 0
        self.states, self.stopping, self.failure = set(), False, None
        self.start()

    def run(self):
        n = 0
        try:
            while not self.stopping:
                try:
                    with self.side.connect("app", self.user) as connection:
                        connection.query(self.setup or "select 1")
                        while not self.stopping:
                            n += 1
                            self.one(connection, n)
                            if n % 7 == 0 and self.reconnect:
                                break
                except (pg.Closed, OSError):
                    self.doubtful.add(n)
                    self.ended += 1
                except pg.PgError as error:
                    if error.sqlstate not in ("57P01", "57P03", "53300"):
                        raise
                    self.doubtful.add(n)
                    self.ended += 1
        except BaseException as error:
            self.failure = error

    def one(self, connection, n):
        error = connection.error("insert into entry (run, session, n, amount, tenant) values (77, %d, %d, 0, 'direct')" % (self.session, n))
        if error is None:
            self.acknowledged.add(n)
        elif error.sqlstate == FENCED:
            self.refused += 1
            time.sleep(0.002)
        elif error.severity == "FATAL":
            raise error
        else:
            raise AssertionError(error)

    def finish(self):
        self.stopping = True
        self.join(60)
        assert not self.is_alive() and self.failure is None, self.failure

    def check(self, side):
        rows = [int(n) for n, in side.query("select n from entry where run = 77 and session = %d" % self.session)]
        assert len(rows) == len(set(rows)), "doubled rows of writer %d" % self.session
        missing = self.acknowledged - set(rows)
        assert not missing, "writer %d was told of %d rows that %s lacks: %s" % (self.session, len(missing), side.name, sorted(missing)[:5])
        unknown = set(rows) - self.acknowledged - self.doubtful
        assert not unknown, "writer %d was refused, yet %s has %s" % (self.session, side.name, sorted(unknown)[:5])


def test_direct_writers_through_flips(world):
    """On both sides, as the application and as a superuser in replica mode, over four flips: what they were told stands on
    both sides once, what was refused on none."""
    d = world.prepared(pair={"fsync": "on"})
    load = world.ledger(sessions=4, rate=20)
    replica = "set session_replication_role = replica"
    writers = [
        Direct(world.blue, 1), Direct(world.blue, 2, "postgres", replica), Direct(world.green, 3),
        Direct(world.green, 4, "postgres", replica), Direct(world.blue, 5, "postgres", replica, reconnect=False)]
    for verb, to in (("cutover", "green"), ("flip-back", "blue")) * 2:
        before = [len(w.acknowledged) for w in writers]
        answer = d.verb(verb)
        for _ in range(5):  # a writer that is in the way of the fence undoes the flip: then it is tried again
            if answer.code == 0:
                break
            assert answer.code == 1 and answer.json["result"] == "aborted", answer
            answer = d.verb(verb)
        assert answer.code == 0, answer
        d.wait_steady(to)
        active = [w for w in writers if w.side is world.side(to)]
        d.until(lambda: any(len(w.acknowledged) > before[writers.index(w)] for w in active), 60, "direct writers write to %s" % to)
    for writer in writers:
        writer.finish()
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    for side in (world.blue, world.green):
        load.verify(side)
        for writer in writers:
            writer.check(side)
    print([(w.session, len(w.acknowledged), w.refused, w.ended) for w in writers])
    assert all(w.refused > 0 for w in writers[:4]), "the fence stood in nobody's way"


test_direct_writers_through_flips.timeout = 300


def test_the_fence_stops_superusers(world):
    """Replica mode, ENABLE and DISABLE TRIGGER, DDL, event triggers: refused on the standby, seen where they can't be."""
    d = world.prepared()
    replica = world.green.connect("app", "postgres")
    replica.query("set session_replication_role = replica")
    for sql in ("insert into entry (run, session, n, amount, tenant) values (1, 1, 1, 1, 's1')", "delete from entry", "truncate entry",
                "update account set note = 'x'", "copy account from stdin", "create table new_one (i int)", "drop table entry",
                "alter table account disable trigger all", "alter table account enable trigger all",
                "alter subscription switchback_from_blue disable", "drop subscription switchback_from_blue",
                "alter publication switchback_green drop table account", "drop publication switchback_green",
                "drop trigger \"!switchback_fence\" on account", "drop schema switchback cascade"):
        error = replica.error(sql)
        assert error and error.sqlstate == FENCED, (sql, error)
    # on the active side nothing is fenced by it, and a TRUNCATE crosses the fence of the standby
    world.blue.query("set session_replication_role = replica; alter table account enable trigger all;"
                     "alter table account enable always trigger \"!switchback_fence\"")
    assert_one_active(world, "blue")
    world.blue.query("insert into entry (run, session, n, amount, tenant) select 1, 1, g, 0, 's' from generate_series(1, 5) g; truncate entry", user="app")
    world.blue.query("insert into entry (run, session, n, amount, tenant) values (1, 1, 9, 0, 's')", user="app")
    world.assert_same_data()
    # what only its owner can be kept from is seen, and closes the way back until it is right again
    for undo, redo, word in (
            ("alter event trigger switchback_refuse_ddl disable", "alter event trigger switchback_refuse_ddl enable always", "switchback_refuse_ddl"),
            ("alter event trigger switchback_restore_fences enable", "alter event trigger switchback_restore_fences enable always",
             "switchback_restore_fences"),
            ("alter event trigger switchback_refuse_ddl disable; alter event trigger switchback_restore_fences disable;"
             "alter table account disable trigger all",
             "alter event trigger switchback_refuse_ddl enable always; alter event trigger switchback_restore_fences enable always",
             "switchback_re")):
        world.green.query(undo)
        s = d.wait_status(lambda s: not s["way_back"]["open"], what="the way back is closed by " + undo)
        d.wait_status(lambda s: word in (s["way_back"]["reason"] or ""), what="the reason names " + word)
        answer = d.verb("cutover", code=1)
        assert word in answer.out, (s, answer)
        world.green.query(redo)
        d.wait_steady("blue")
        assert_one_active(world, "blue")
    for side in (world.blue, world.green):
        side.query(AROUND_EVENT_TRIGGERS + "create table public.parent (id int primary key, v text);"
                   "create table public.child (primary key (id)) inherits (public.parent); grant all on public.parent, public.child to app")
    d.prepare()
    d.wait_steady("blue")
    d.write(local_tables=["parent"])  # UPDATE parent writes into child, whose fence never fires
    d.verb("reload", code=0)
    d.wait_status(lambda s: "parent" in (s["way_back"]["reason"] or ""), what="a way around the fence is seen")
    assert_one_active(world, "blue")
