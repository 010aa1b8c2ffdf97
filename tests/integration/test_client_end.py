"""Clients that stop sending, or close, in the middle of something: what the server does and what they are told is the
same with and without the proxy."""
import socket
import time

import pg

RUNNING = "select count(*) from pg_stat_activity where usename = 'app' and state <> 'idle'"
OURS = "select count(*) from pg_stat_activity where usename = 'app'"
COPY = pg.query("copy t from stdin")

# what is sent behind the startup packet, before the sending side is closed
ENDS = {
    "nothing": b"",
    "a statement": pg.query("insert into t values (1) returning id"),
    "pipelined statements": pg.query("insert into t values (1)") + pg.query("select pg_sleep(0.1)") + pg.query("insert into t values (2)"),
    "terminate behind it": pg.query("insert into t values (1)") + pg.TERMINATE,
    "half a header": pg.query("insert into t values (1)") + b"Q\0",
    "half a message": pg.query("insert into t values (1)") + pg.query("insert into t values (2)")[:-4],
    "a transaction": pg.query("begin; insert into t values (1)"),
    "extended": pg.parse("", "insert into t values (1)") + pg.bind("", "") + pg.execute() + pg.SYNC,
    "extended, flushed": pg.parse("", "select 1") + pg.bind("", "") + pg.execute() + pg.FLUSH,
    "copy, no data": COPY,
    "copy, cut": COPY + pg.copy_data(b"1\n2\n"),
    "copy, half a message": COPY + pg.copy_data(b"1\n2\n")[:-2],
    "copy, done": COPY + pg.copy_data(b"1\n2\n") + pg.COPY_DONE,
    "copy, failed": COPY + pg.copy_data(b"1\nx\n"),
    "copy out": pg.query("copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout"),
    "large result": pg.query("select repeat('x', 1000) from generate_series(1, 20000)"),
}


def heard(address, sent):
    """All that comes after the sending side was closed, but for what is the connection's own (pid, key, sources' lines)."""
    with pg.Raw(address) as raw:
        raw.send(pg.startup({"user": "app", "database": "app"}), sent)
        raw.socket.shutdown(socket.SHUT_WR)
        seen = []
        try:
            while True:
                kind, body = raw.receive()
                if kind == "K":
                    body = len(body)
                elif kind in "EN":
                    body = sorted((k, v) for k, v in pg.fields(body).items() if k not in "FLR")
                seen.append((kind, body))
        except pg.Closed:
            return seen


def test_sending_side_closed(world):
    world.pair()
    d = world.daemon()
    world.blue.query("create table t (id int); grant all on t to app")
    different = []
    for name, sent in ENDS.items():
        results = []
        for address in (world.blue.address, d.address, d.unix_address):
            messages = heard(address, sent)
            d.until(lambda: world.blue.value(OURS) == "0", what="no backend is left")
            rows = world.blue.query("select id from t order by 1")
            world.blue.query("truncate t")
            results.append((messages, rows))
        if not sent:
            # the login of a client that is gone isn't begun: nobody waits for it
            assert results[1] in (results[0], ([], [])), results
        elif not results[0] == results[1] == results[2]:
            different.append(name)
            print(name, [(m[-4:], r) for m, r in results])
    assert not different, different
    d.until(lambda: d.status()["sessions"]["total"] == 0, what="no session is left")


def test_closed_in_mid_statement(world):
    """The statement is finished, as PostgreSQL does it; or cancelled, by setting."""
    world.pair()
    d = world.daemon()
    world.blue.query("create table t (id int); grant all on t to app")
    for number, leave in enumerate((pg.Raw.abandon, pg.Raw.reset)):
        connection = pg.Connection(d.address)
        with world.blue.connect("app") as lock:
            lock.query("select pg_advisory_lock(1)")
            connection.send(pg.query("insert into t select 1 from pg_advisory_lock(1)"))
            d.until(lambda: world.blue.value(RUNNING) == "1", what="the statement runs")
            leave(connection)
            time.sleep(0.2)  # so that the proxy hears of it meanwhile, at most times
        d.until(lambda: world.blue.value(OURS) == "0", what="its backend is gone")
        assert world.blue.value("select count(*) from t") == str(number + 1)
    d.until(lambda: d.status()["sessions"]["total"] == 0, what="no session is left")
    d.write(listen={"client_eof": "cancel"})
    d.verb("reload", code=0)
    for leave in (pg.Raw.abandon, pg.Raw.reset):
        connection = pg.Connection(d.address)
        connection.query("begin; insert into t values (3)")
        connection.send(pg.query("select pg_sleep(300)"))
        d.until(lambda: world.blue.value(RUNNING) == "1", what="the statement runs")
        leave(connection)
        d.until(lambda: world.blue.value(OURS) == "0", what="its backend is gone")
    assert world.blue.value("select count(*) from t where id = 3") == "0"
    d.until(lambda: d.status()["sessions"]["total"] == 0, what="no session is left")
