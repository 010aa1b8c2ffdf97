"""Replication connections through the proxy: PostgreSQL's own programs, and what they do on the wire."""
import itertools
import os
import signal
import struct

import cluster
import pg

SUPERUSER = {"user": "postgres", "database": "app"}


def program(world, name, to, *arguments, database=False):
    command = [os.path.join(cluster.OLD_BIN, name), "-h", "127.0.0.1", "-p", str(to.port), "-U", "postgres", "-w"]
    return command + (["-d", "app"] if database else []) + list(arguments)


def scene(world, **settings):
    world.pair()
    d = world.daemon(**settings)
    world.blue.query("create table t (id int primary key, v text)")
    return d


def test_pg_basebackup(world):
    """A whole cluster with its WAL, over two connections; what arrives is complete and starts."""
    d = scene(world)
    world.blue.query("insert into t select g, repeat('x', 100) from generate_series(1, 20000) g")
    for method in ("fetch", "stream"):
        folder = os.path.join(world.folder, "backup-" + method)
        done = world.run(program(world, "pg_basebackup", d, "-D", folder, "-X", method, "-c", "fast", "-P"))
        assert done.returncode == 0, done.stderr
        done = world.run([os.path.join(cluster.OLD_BIN, "pg_verifybackup"), folder])
        assert done.returncode == 0, done.stderr
    folder = os.path.join(world.folder, "backup-tar")
    done = world.run(program(world, "pg_basebackup", d, "-D", folder, "-F", "t", "-X", "stream", "-c", "fast"))
    assert done.returncode == 0 and os.path.getsize(os.path.join(folder, "base.tar")) > 10 << 20, done.stderr


def test_pg_receivewal(world):
    """WAL streams while it is written, its receipt is told the server, and Ctrl-C ends it cleanly."""
    d = scene(world)
    folder = os.path.join(world.folder, "wal")
    os.mkdir(folder)
    done = world.run(program(world, "pg_receivewal", d, "--slot", "waiting", "--create-slot"))
    assert done.returncode == 0, done.stderr
    process = world.spawn(program(world, "pg_receivewal", d, "--slot", "waiting", "-D", folder, "--synchronous", "-s", "1"))
    d.until(lambda: world.blue.value("select active from pg_replication_slots") == "t", what="it streams")
    for round_ in range(3):
        world.blue.query("insert into t select %d + g, repeat('x', 500) from generate_series(1, 5000) g" % (round_ * 5000))
        world.blue.query("select pg_switch_wal()")
        written = world.blue.value("select pg_current_wal_lsn()")
        d.until(lambda: world.blue.value("select restart_lsn >= '%s' from pg_replication_slots" % written) == "t",
                what="its receipt is known")
    kinds = {session["user"]: session for session in d.verb("sessions", code=0).json["sessions"]}
    assert kinds["postgres"]["movable"] is False and "replication" in str(kinds["postgres"]["reasons"]), kinds
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    segments = sorted(name for name in os.listdir(folder) if len(name) == 24)
    assert len(segments) >= 3
    done = world.run([os.path.join(cluster.OLD_BIN, "pg_waldump"), "-q", os.path.join(folder, segments[0]), os.path.join(folder, segments[-1])])
    assert done.returncode == 0, done.stderr
    d.until(lambda: world.blue.value("select count(*) from pg_stat_replication") == "0", what="no walsender is left")


def test_pg_recvlogical(world):
    """Changes stream, and a flip ends the stream as what it is: a session that can't move."""
    d = scene(world, flip={"immovable": "disconnect"})
    d.prepare()
    d.wait_steady("blue")
    arguments = ("--slot", "changes", "-P", "test_decoding")
    done = world.run(program(world, "pg_recvlogical", d, *arguments, "--create-slot", database=True))
    assert done.returncode == 0, done.stderr
    path = os.path.join(world.folder, "changes")
    process = world.spawn(program(world, "pg_recvlogical", d, *arguments, "--start", "-f", path, "-F", "0", "-n", database=True))

    def lines():
        if not os.path.exists(path):
            return []
        with open(path) as file:
            return [line for line in file if "INSERT" in line and "public.t:" in line]

    world.blue.query("insert into t select g, repeat('x', 2000) from generate_series(1, 3000) g")
    d.until(lambda: len(lines()) == 3000, what="all changes have come")
    d.verb("cutover", code=0)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "can't move" in err, (out, err)
    d.verb("flip-back", code=0)


def test_subscription(world):
    """A subscription whose publisher is the proxy: initial copy, changes, feedback."""
    d = scene(world)
    world.blue.query("insert into t select g, 'first' from generate_series(1, 5000) g")
    world.blue.query("create publication p for table t")
    world.green.query("create database copy", "postgres")
    world.green.query("create table t (id int primary key, v text)", "copy")
    world.green.query("create subscription s connection 'host=127.0.0.1 port=%d user=postgres dbname=app' publication p" % d.port, "copy")
    d.until(lambda: world.green.value("select count(*) from t", "copy") == "5000", what="the copy has come")
    world.blue.query("update t set v = repeat('changed ', 100); insert into t values (0, 'last')")
    d.until(lambda: world.green.value("select v from t where id = 0", "copy") == "last", what="the changes have come")
    assert world.green.value("select count(*) from t where v like 'changed%'", "copy") == "5000"
    sent = world.blue.value("select pg_current_wal_lsn()")
    d.until(lambda: world.blue.value("select flush_lsn >= '%s' from pg_stat_replication" % sent) == "t", what="feedback has come")
    world.green.query("drop subscription s", "copy")
    d.until(lambda: d.status()["sessions"]["total"] == 0, what="no session is left")


def both_ways(world, address, numbers):
    """What a walsender says on the wire: commands, an error, a stream that the client ends, more commands, and a stream
    that is cut by an ordinary message."""
    seen = []

    def tell(message):
        connection.send(message)
        for kind, body in connection.until_ready():
            if kind != "d":  # a walsender sends its keepalives when it likes
                seen.append((kind, pg.fields(body)["C"] if kind == "E" else None if kind == "D" else body))

    with pg.Connection(address, replication="database", **SUPERUSER) as connection:
        tell(pg.query("IDENTIFY_SYSTEM"))
        tell(pg.query("SHOW server_version_num"))
        tell(pg.query("START_REPLICATION SLOT nothing LOGICAL 0/0"))
        tell(pg.query("CREATE_REPLICATION_SLOT w TEMPORARY LOGICAL test_decoding"))
        connection.send(pg.query("START_REPLICATION SLOT w LOGICAL 0/0"))
        kind, body = connection.receive()
        assert kind == "W", (kind, body)
        seen.append((kind, body))
        world.blue.query("insert into t values (%d)" % next(numbers))
        while b"COMMIT" not in connection.receive()[1]:
            pass
        end = int(world.blue.value("select pg_current_wal_insert_lsn() - '0/0'"))
        connection.send(pg.copy_data(struct.pack("!cQQQQB", b"r", end, end, end, 0, 0)))
        tell(pg.COPY_DONE)
        tell(pg.query("select 1"))
    with pg.Connection(address, replication="database", **SUPERUSER) as connection:
        tell(pg.query("CREATE_REPLICATION_SLOT w2 TEMPORARY LOGICAL test_decoding"))
        connection.send(pg.query("START_REPLICATION SLOT w2 LOGICAL 0/0"))
        assert connection.receive()[0] == "W"
        connection.send(pg.query("select 1"))
        try:
            while True:
                kind, body = connection.receive()
                if kind == "E":
                    seen.append((kind, pg.fields(body)["C"], pg.fields(body)["M"]))
        except pg.Closed:
            seen.append("closed")
    return seen


def test_copy_both(world):
    d = scene(world)
    numbers = itertools.count()
    direct, through = (both_ways(world, address, numbers) for address in (world.blue.address, d.address))
    # columns hold positions of WAL and the slot's snapshot
    simple = [[item if isinstance(item, str) else item[:1] if item[0] in "DC" else item for item in seen] for seen in (direct, through)]
    assert simple[0] == simple[1], simple
    assert direct[-1] == "closed" and len(direct) > 10


def test_physical_replication_needs_no_managed_database(world):
    """It names no database; what is refused is a logical one to a database that isn't managed."""
    d = scene(world)
    with pg.Connection(d.address, user="postgres", database="", replication="true") as connection:
        connection.send(pg.query("IDENTIFY_SYSTEM"))
        assert [kind for kind, _ in connection.until_ready()] == ["T", "D", "C", "Z"]
        error = connection.error("select 1")
        assert error and error.sqlstate == "42601" or error.sqlstate == "0A000", error
    try:
        pg.Connection(d.address, user="postgres", database="postgres", replication="database")
        raise AssertionError("let in")
    except pg.PgError as error:
        assert error.sqlstate == "3D000", error


def test_walsender_survives_a_hold(world):
    """A hold that is released again: the stream goes on, it has waited for nobody and nobody for it."""
    d = scene(world)
    done = world.run(program(world, "pg_receivewal", d, "--slot", "waiting", "--create-slot"))
    assert done.returncode == 0, done.stderr
    folder = os.path.join(world.folder, "wal")
    os.mkdir(folder)
    process = world.spawn(program(world, "pg_receivewal", d, "--slot", "waiting", "-D", folder, "--synchronous", "-s", "1"))
    d.until(lambda: world.blue.value("select active from pg_replication_slots") == "t", what="it streams")
    d.verb("hold", "--for", "10s", "--reason", "a test", code=0)
    world.blue.query("insert into t values (1, 'held')")
    written = world.blue.value("select pg_current_wal_lsn()")
    d.until(lambda: world.blue.value("select flush_lsn >= '%s' from pg_stat_replication" % written) == "t", what="it goes on")
    d.verb("release", code=0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
