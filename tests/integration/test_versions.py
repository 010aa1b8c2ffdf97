"""Every version of PostgreSQL that the proxy serves, from 13 to 18: answers, cancels with keys of either length, and a
cutover with clients connected. A test for each version that can be had."""
import ctypes
import os
import re
import subprocess
import threading

import cluster
import pg
import test_protocol


def asked_version(world, to):
    """What a server, or the proxy, makes of a client's 3.2, and how long the secret of its cancel key is."""
    with pg.Raw(to.address) as raw:
        raw.send(pg.startup({"user": "app", "database": "app"}, pg.PROTOCOL_3_2))
        kind, body = raw.receive()
        spoken = pg.PROTOCOL_3_2 if kind == "R" else int.from_bytes(body[:4], "big")
        while kind != "K":
            kind, body = raw.receive()
        return spoken, len(body) - 4


def cancels(connection):
    error = connection.cancelled()
    assert error.sqlstate == "57014", error
    assert connection.value("select 1") == "1"


def flips(world, d):
    """A cutover and the way back, under clients of both versions of the protocol."""
    d.prepare()
    d.wait_steady("blue")
    clients = [world.connect(through=d, version=version) for version in (pg.PROTOCOL_3_0, pg.PROTOCOL_3_2)]
    for number, client in enumerate(clients):
        client.query("set application_name = 'moved'; listen c%d" % number)
        client.prepare("s", "select v from t where id = $1")
    for verb, side in (("cutover", world.green), ("flip-back", world.blue)):
        d.verb(verb, code=0)
        for number, client in enumerate(clients):
            assert client.value("select current_setting('server_version_num')::int / 10000") == str(side.version)
            assert client.value("show application_name") == "moved"
            assert client.run("s", [3]) == [("value 3",)]
            assert client.parameters["server_version"].startswith(str(side.version))
            cancels(client)
            # its own notification comes from the pid that it knows
            client.query("notify c%d, 'mine'" % number)
            assert client.notification() == (client.pid, "c%d" % number, "mine")


def serves(world, binaries):
    major = int(major_of(binaries))
    # prepare needs a pg_dump as new as blue, and there is only the oldest one
    old = major <= int(major_of(cluster.OLD_BIN))
    world.pair(blue_binaries=binaries if old else None, green_binaries=None if old else binaries)
    d = world.daemon(initial="blue" if old else "green")
    side = world.blue if old else world.green
    if not old:
        side.query("create role app login", "postgres")
        side.query("create database app owner app", "postgres")
    test_protocol.compare_sides(side, d, test_protocol.plain)
    assert asked_version(world, side) == ((pg.PROTOCOL_3_2, 32) if major >= 18 else (pg.PROTOCOL_3_0, 4))
    assert asked_version(world, d) == (pg.PROTOCOL_3_2, 32)
    for version, length in ((pg.PROTOCOL_3_0, 4), (pg.PROTOCOL_3_2, 32)):
        with pg.Connection(d.address, version=version) as connection:
            assert len(connection.key) == length
            assert connection.value("select pg_backend_pid()") == str(connection.pid)
            cancels(connection)
    if not old:
        d.stop()
        side.query("drop database app", "postgres")
        side.query("drop role app", "postgres")
        with world.blue.connect("app", "app") as connection:
            connection.query(test_protocol.SETUP)
        d = world.daemon()
    flips(world, d)


def newest_libpq():
    """That of PostgreSQL 18, which speaks 3.2, if it can be had; Debian's is older."""
    for folder in reversed(cluster.ALL_BINS):
        path = os.path.join(folder, "..", "lib", "libpq.so.5")
        if int(major_of(folder)) >= 18 and os.path.exists(path):
            return ctypes.CDLL(path)
    return None


def test_libpq_of_18(world):
    """A client that asks for the newest protocol gets it, and cancels with a long key."""
    libpq = newest_libpq()
    if libpq is None:
        print("no libpq of 18")
        return
    world.pair()
    d = world.daemon()
    for name in ("PQconnectdb", "PQexec", "PQcancelCreate"):
        getattr(libpq, name).restype = ctypes.c_void_p
    libpq.PQresultErrorField.restype = ctypes.c_char_p
    for version, spoken in (("latest", 30002), ("3.2", 30002), ("3.0", 30000)):
        conninfo = "%s max_protocol_version=%s" % (world.conninfo(d), version)
        connection = ctypes.c_void_p(libpq.PQconnectdb(conninfo.encode()))
        assert libpq.PQstatus(connection) == 0 and libpq.PQfullProtocolVersion(connection) == spoken, version

        over = threading.Event()

        def cancel():  # more than once: one may come before the statement runs
            while not over.wait(0.5):
                request = ctypes.c_void_p(libpq.PQcancelCreate(connection))
                assert libpq.PQcancelBlocking(request) == 1
                libpq.PQcancelFinish(request)

        thread = threading.Thread(target=cancel)
        thread.start()
        result = ctypes.c_void_p(libpq.PQexec(connection, b"select pg_sleep(300)"))
        over.set()
        thread.join()
        assert libpq.PQresultErrorField(result, ord("C")) == b"57014"
        libpq.PQclear(result)
        libpq.PQfinish(connection)


def make_test(binaries):
    def test(world):
        serves(world, binaries)
    return test


def major_of(binaries):
    out = subprocess.run([os.path.join(binaries, "postgres"), "--version"], cwd="/", capture_output=True, text=True,
                         **cluster.identity()).stdout
    return re.search(r"\d+", out).group()


for folder in cluster.ALL_BINS:
    globals()["test_postgresql_" + major_of(folder)] = make_test(folder)
