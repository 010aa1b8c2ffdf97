"""Who goes around the proxy: direct writers of all kinds, DDL, locks that don't yield. Refused, waited for within bounds,
or seen; never a row on one side only."""
import threading
import time

import pg
from test_flip import FENCED, assert_one_active

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
        self.join(180)
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
        d.flip(verb)  # a writer that is in the way of the fence undoes it: then it is tried again
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


def test_ddl_and_prepared_transactions_through_flips(world):
    """Tables that come and go on both sides, indexes, sequences, transactions that are prepared, while it flips: each is
    refused, or undoes the flip, or is on both sides."""
    d = world.prepared()
    load = world.ledger(sessions=4, rate=20)
    stopping, failures, accepted, refused, committed = threading.Event(), [], [], [], set()

    def go_on(side, name, statements, pause):
        n = 0
        try:
            while not stopping.is_set():
                n += 1
                for sql in statements:
                    try:
                        with side.connect("app", "app") as connection:
                            error = None
                            for part in sql.replace("$n", str(n)).split(";"):
                                error = error or connection.error(part)
                    except (pg.Closed, OSError):
                        continue
                    except pg.PgError as ended:
                        error = ended
                    if error is None:
                        accepted.append((side.name, sql))
                        if sql.startswith("commit prepared"):
                            committed.add((name, n))
                    else:
                        assert error.sqlstate in (FENCED, "57P01", "57P03", "42P01", "42P07", "42704", "55P03", "40P01", "25P02"), (sql, error)
                        refused.append((side.name, sql))
                stopping.wait(pause)
        except BaseException as failure:
            failures.append(failure)
    entry = "insert into entry (run, session, n, amount, tenant) values (78, %d, $n, 0, 'prepared')"
    threads = [threading.Thread(target=go_on, args=arguments) for arguments in (
        (world.blue, 1, ["create table brief (id int primary key)", "drop table brief"], 0.7),
        (world.green, 2, ["create table brief (id int primary key)", "drop table brief"], 0.7),
        (world.blue, 3, ["create index by_note on account (note)", "drop index by_note", "select nextval('entry_id_seq')"], 0.2),
        (world.green, 4, ["create index by_note on account (note)", "drop index by_note", "select nextval('entry_id_seq')"], 0.2),
        (world.blue, 5, ["begin;" + entry % 5 + ";prepare transaction 'p5 $n'", "commit prepared 'p5 $n'"], 0.9),
        (world.green, 6, ["begin;" + entry % 6 + ";prepare transaction 'p6 $n'", "commit prepared 'p6 $n'"], 0.9))]
    for thread in threads:
        thread.start()
    for verb, to in (("cutover", "green"), ("flip-back", "blue"), ("cutover", "green")):
        d.flip(verb)
        d.wait_steady(to)
    stopping.set()
    for thread in threads:
        thread.join(180)
    assert not failures, failures
    for side in (world.blue, world.green):
        for gid, in side.query("select gid from pg_prepared_xacts"):
            side.query("rollback prepared '%s'" % gid)
    print("%d accepted, %d refused, %d prepared transactions" % (len(accepted), len(refused), len(committed)))
    assert any("create table" in sql for _, sql in refused) and committed
    world.green.query("drop table if exists brief; drop index if exists by_note", user="app")
    assert world.blue.value("select to_regclass('brief')") is None, "a table came on the fenced side"
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    for name, n in committed:
        rows = world.green.value("select count(*) from entry where run = 78 and session = %d and n = %d" % (name, n))
        assert rows == "1", (name, n, rows)
    assert world.green.value("select count(*) - count(distinct id) from entry") == "0", "a number was given twice"
    load.verify(world.green)
    world.green.query("select lo_create(0)")  # no fence stops it, and it doesn't cross: the next flip is refused
    answer = d.verb("check", code=1)
    assert any(item["id"] == "large_objects" and item["state"] != "pass" for item in answer.json["checks"]), answer


test_ddl_and_prepared_transactions_through_flips.timeout = 400


AGAINST_WRAPAROUND = "select count(*) from pg_stat_activity where query like 'autovacuum: %public.old (to prevent wraparound)'"


def against_wraparound(side):
    """Table `old` grows so old that autovacuum must freeze it, slowly. Only a side's own transaction numbers make it old."""
    side.query("alter table old set (autovacuum_freeze_max_age = 100000, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)")
    with side.connect("app", "postgres") as connection:
        connection.query("create temp table burnt (n int)")
        for _ in range(6):
            connection.query("do $$ begin for i in 1..20000 loop begin insert into burnt values (i); "
                             "exception when others then null; end; end loop; end $$")


def test_locks_that_do_not_yield(world):
    """A transaction of others, an index that is built concurrently, a vacuum by hand and autovacuum's own against wraparound:
    the fence waits no longer than its time, then everything goes on where it was; what stands in the way is named."""
    d = world.prepared(pair={"autovacuum_naptime": "1s"})
    load = world.ledger(sessions=4, rate=20)

    def in_the_way(*words):
        answer = d.verb("cutover", code=1)
        assert any(word in answer.out for word in words), (words, answer)
        d.wait_status(lambda s: s["phase"] == "steady" and s["active"] == "blue", what="traffic is where it was")
        assert_one_active(world, "blue")

    # of others, idle in its transaction
    other = world.blue.connect("app", "app")
    other.query("begin; update account set note = 'mine' where id = 900")
    in_the_way("lock", "timeout", "did not end")
    other.query("commit")
    # an index that waits for an old snapshot
    old = world.blue.connect("app", "app")
    old.query("begin isolation level repeatable read; select count(*) from entry")
    building = world.blue.connect("app", "app")
    building.send(pg.query("create index concurrently slow on account (note)"))
    d.until(lambda: world.blue.value("select count(*) from pg_stat_progress_create_index") == "1", 30, "the index is built")
    in_the_way("busy_tables")
    old.query("commit")
    building.results()
    world.green.query(AROUND_EVENT_TRIGGERS + "create index slow on public.account (note)")
    # a vacuum
    world.blue.query("create table public.old (id int primary key, v text) with (autovacuum_analyze_threshold = 2000000000, "
                     "autovacuum_vacuum_insert_threshold = -1)")  # so that autovacuum comes for nothing else
    world.green.query(AROUND_EVENT_TRIGGERS + "create table public.old (id int primary key, v text)")
    d.prepare()
    world.blue.query("insert into old select g, repeat('x', 500) from generate_series(1, 20000) g")
    d.wait_steady("blue")
    vacuum = world.blue.connect("app", "postgres")
    vacuum.query("set vacuum_cost_delay = 100; set vacuum_cost_limit = 1")
    vacuum.send(pg.query("vacuum freeze old"))
    d.until(lambda: world.blue.value("select count(*) from pg_stat_progress_vacuum where relid = 'old'::regclass") == "1", 60, "the vacuum runs")
    in_the_way("busy_tables")
    world.blue.query("select pg_terminate_backend(pid) from pg_stat_progress_vacuum where relid = 'old'::regclass")
    # autovacuum's own against wraparound, which no deadlock_timeout makes yield
    against_wraparound(world.blue)
    d.until(lambda: world.blue.value(AGAINST_WRAPAROUND) == "1", 120, "autovacuum works against wraparound")
    in_the_way("busy_tables")
    assert world.blue.value(AGAINST_WRAPAROUND) == "1", "the vacuum was ended"
    young = world.blue.connect("app", "postgres")
    young.send(pg.query("alter table old set (autovacuum_freeze_max_age = 200000000)"))  # waits for the vacuum, and is next
    d.until(lambda: world.blue.value("select count(*) from pg_locks where relation = 'old'::regclass and not granted") == "1", 60, "it waits")
    world.blue.query("select pg_cancel_backend(pid) from pg_stat_progress_vacuum where relid = 'old'::regclass")
    young.results()
    for verb, to in (("cutover", "green"), ("flip-back", "blue")):
        d.flip(verb)
        d.wait_steady(to)
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    load.verify(world.blue)
    assert world.green.value("select note from account where id = 900") == "mine"


test_locks_that_do_not_yield.timeout = 300
