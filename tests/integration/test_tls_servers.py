"""TLS with the servers: links of clients, the manager, replication."""
import os
import socket
import time

import pg
from certificates import Authority
from tls_scene import Scene, in_tls, relayed


def login_error(address, **arguments):
    try:
        pg.Connection(address, **arguments).close()
    except pg.PgError as error:
        return error
    return None


def until_listening(d):
    """A daemon whose active side it can't reach is never ready, but it takes clients."""
    def tries():
        try:
            socket.create_connection(d.address, 5).close()
            return True
        except OSError:
            return False
    d.until(tries, what="it takes clients")


def start_unreached(d, name):
    """Starts a daemon that can't reach its active side; that this is the active one it knows of an earlier start in plain text."""
    wanted = d.settings["sides"][name]["tls"]
    d.write(sides={name: {"tls": {"mode": "disable"}}})
    d.start()
    d.wait_status(lambda s: s["active"] == name, what="%s is active" % name)
    d.stop()
    d.write(sides={name: {"tls": wanted}})
    d.start(wait=False)
    until_listening(d)


def until_turned(d):
    """The reverse stream runs: a flip can begin."""
    d.wait_status(lambda status: status["phase"] in ("steady", "watch") and status["way_back"]["open"], what="the way back is open")


def test_modes_to_servers(world):
    """Each mode against a server with TLS and one without: green has none."""
    s = Scene(world)
    world.green.query("alter system set ssl = off", "postgres")
    world.green.query("select pg_reload_conf()", "postgres")
    other = Authority(world.folder, "other")
    connects = {"disable": "plain", "prefer": "TLS", "require": "TLS", "verify-ca": "TLS", "verify-full": "TLS"}
    for mode, outcome in connects.items():
        d = world.daemon(sides={"blue": {"tls": {"mode": mode, "ca": s.ca.cert if mode.startswith("verify") else ""}}})
        with pg.Connection(d.address) as connection:
            assert in_tls(connection) == (outcome == "TLS"), mode
        d.stop()
    # no TLS there
    for mode, works in (("prefer", True), ("require", False)):
        d = world.daemon(start=False, initial="green", sides={"green": {"tls": {"mode": mode}}})
        d.write(unmanaged="pass")
        start_unreached(d, "green")
        error = login_error(d.address, user="postgres", database="postgres")
        assert (error is None) == works, (mode, error)
        if error:
            assert error.sqlstate == "08006" and "does not speak TLS" in error.message, error
        d.stop()
    # somebody else's certificate, and another host's
    for tls, words in (({"mode": "verify-ca", "ca": other.cert}, "can't be trusted"),
                       ({"mode": "require", "ca": other.cert}, "can't be trusted"),
                       ({"mode": "verify-full", "ca": s.ca.cert, "server_name": "green.db"}, "not for \"green.db\"")):
        d = world.daemon(start=False, sides={"blue": {"tls": tls}})
        start_unreached(d, "blue")
        error = login_error(d.address)
        assert error and error.sqlstate == "08006" and words in error.message, (tls, error)
        d.stop()
    d = world.daemon(sides={"blue": {"tls": {"mode": "verify-full", "ca": s.ca.cert, "server_name": "blue.db"}}})
    with pg.Connection(d.address) as connection:
        assert in_tls(connection)


def test_reload_of_the_way_to_a_server(world):
    """A changed mode is for new links; those that stand go on as they began, and so do their cancels."""
    s = Scene(world, side={"mode": "disable"})
    plain = s.connect()
    assert not in_tls(plain)
    s.daemon.write(sides={name: {"tls": {"mode": "verify-full", "ca": s.ca.cert}} for name in ("blue", "green")})
    s.daemon.verb("reload", code=0)
    secured = s.connect()
    assert in_tls(secured) and not in_tls(plain)
    s.daemon.write(sides={name: {"tls": {"mode": "disable"}} for name in ("blue", "green")})
    s.daemon.verb("reload", code=0)
    assert in_tls(secured) and not in_tls(s.connect())
    for connection in (plain, secured):
        pid = connection.value("select pg_backend_pid()")
        connection.send(pg.query("select pg_sleep(60)"))
        s.daemon.until(lambda: world.blue.value("select query from pg_stat_activity where pid = " + pid) == "select pg_sleep(60)",
                       what="it runs")
        connection.cancel()
        try:
            connection.results()
            raise AssertionError("it was not cancelled")
        except pg.PgError as error:
            assert error.sqlstate == "57014", error
    # the manager's connections, too: the next ones it makes
    s.daemon.write(sides={name: {"tls": {"mode": "require"}} for name in ("blue", "green")})
    s.daemon.verb("reload", code=0)
    managers = "select count(*) from pg_stat_activity join pg_stat_ssl using (pid) where usename = 'switchback' and %s ssl"
    world.blue.query("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'switchback'", "postgres")
    s.daemon.until(lambda: world.blue.value(managers % "", "postgres") != "0" and world.blue.value(managers % "not", "postgres") == "0",
                   what="the manager came back in TLS")


def test_prefer_goes_without_where_the_server_wants_that(world):
    """hostnossl: libpq's prefer connects there, and so must ours."""
    hba = "local all all trust\nhostnossl all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
    s = Scene(world, pair={"hba": hba}, side={"mode": "prefer"})
    with pg.Connection(s.address) as connection:
        assert not in_tls(connection)


def test_certificates_for_the_servers(world):
    """The sides ask for certificates instead of passwords: of the proxy's links, the manager, and the other side."""
    hba = ("local all all trust\nhost all postgres 127.0.0.1/32 trust\nhostssl all switchback 127.0.0.1/32 cert\n"
           "hostssl all all 127.0.0.1/32 cert map=proxy\n")
    s = Scene(world, start=False)
    for side in (world.blue, world.green):
        with open(os.path.join(side.data, "pg_ident.conf"), "w") as file:
            file.write("proxy switchback app\n")
        side.write_hba(hba)
    cert, key = s.ca.sign("switchback")
    theirs = s.ca.sign("replicator", "switchback", owner="cluster")  # a key that the clusters' user may read
    s.daemon.write(sides={name: {"tls": {"cert": cert, "key": key}, "replication": {"tls": {"cert": theirs[0], "key": theirs[1]}}}
                          for name in ("blue", "green")})
    s.daemon.start()
    with s.connect() as connection:
        assert connection.value("select current_user || ssl::text from pg_stat_ssl where pid = pg_backend_pid()") == "apptrue"
        assert connection.value("select client_dn from pg_stat_ssl where pid = pg_backend_pid()") == "/CN=switchback"
    world.blue.query("create table t (id int primary key); alter table t owner to app; insert into t values (1)")
    s.daemon.prepare()
    s.daemon.wait_steady("blue")
    client = s.connect()
    assert s.daemon.verb("cutover").json["result"] == "done"
    client.query("insert into t values (2)")
    assert world.green.value("select count(*) from t") == "2"
    until_turned(s.daemon)
    assert s.daemon.verb("flip-back").json["result"] == "done"
    assert client.value("select count(*) from t") == "2"


def test_bytes_with_the_servers_answer_are_refused(world):
    """Whoever stands between could put them there, to be read as if TLS had brought them."""
    s = Scene(world, side={"mode": "prefer"})

    def add(data):
        return [data + b"E\0\0\0\x0eSFATAL\0M\0\0"] if data == b"S" else [data]

    address = relayed(world.blue.address, None, add)
    d = world.daemon(start=False, sides={"blue": {"port": address[1], "tls": {"mode": "prefer"}}})
    start_unreached(d, "blue")
    error = login_error(d.address)
    assert error and error.sqlstate == "08006" and "unencrypted data" in error.message, error


def test_flip_in_tls(world):
    """The whole way in TLS: clients, their links, the manager, replication. No error, no lost commit."""
    hba = "local all all trust\nhostssl all all 127.0.0.1/32 trust\nhostssl replication all 127.0.0.1/32 trust\n"
    s = Scene(world, start=False)
    world.psql(world.blue, ["-q", "-v", "accounts=1000", "-f", os.path.join(os.path.dirname(__file__), "..", "drivers", "ledger.sql")], check=True)
    for side in (world.blue, world.green):
        side.write_hba(hba)  # nothing comes in without
    sides = {name: {"tls": {"mode": "verify-full", "server_name": name + ".db"}} for name in ("blue", "green")}
    s.daemon.write(sides=sides)
    s.daemon.start()
    s.daemon.prepare()
    s.daemon.wait_steady("blue")
    load = world.ledger(sessions=8)
    client = s.connect()
    client.query("set application_name = 'moved'")
    client.query("prepare p as select 7")
    for target in ("green", "blue"):
        answer = s.daemon.verb("cutover" if target == "green" else "flip-back")
        assert answer.code == 0 and answer.json["result"] == "done", answer
        assert client.value("show application_name") == "moved" and client.value("execute p") == "7"
        assert in_tls(client)
        until_turned(s.daemon)
    load.stop()
    load.assert_clean()
    load.verify(world.blue)
    with world.green.connect("app", tls=s.ca.client()) as connection:
        subscriptions = connection.value("select string_agg(subconninfo, ' ') from pg_subscription")
    assert "sslmode='verify-full'" in subscriptions and "hostaddr='127.0.0.1'" in subscriptions, subscriptions
