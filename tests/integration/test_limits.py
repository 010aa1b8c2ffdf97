"""Where clients come from, how many there may be, and how long things may last."""
import os
import socket
import signal
import struct

import pg
from cluster import SCRAM
from test_tls import Scene

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def proxied(address="203.0.113.7", port=5555, tlvs=b"", command=1):
    """A PROXY header, version 2."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    zeros = bytes(16 if family == socket.AF_INET6 else 4)
    body = socket.inet_pton(family, address) + zeros + struct.pack("!HH", port, 5432) + tlvs
    return V2 + bytes([0x20 | command, 0x21 if family == socket.AF_INET6 else 0x11]) + struct.pack("!H", len(body)) + body


def login(user="app", database="app"):
    return pg.startup({"user": user, "database": database})


def until_ready(raw):
    """Reads to ReadyForQuery; its BackendKeyData."""
    key = None
    while True:
        kind, body = raw.receive()
        assert kind != "E", pg.fields(body)
        if kind == "K":
            key = body
        if kind == "Z":
            return key


def clients_of(daemon):
    return [session["client"] for session in daemon.verb("sessions", code=0).json["sessions"]]


def test_proxy_protocol(world):
    """The address that a trusted balancer tells is the client's; nobody else may tell one, or leave it out."""
    world.pair()
    d = world.daemon(listen={"proxy_protocol": ["127.0.0.0/8"]}, timeouts={"login": "5s"})
    with pg.Raw(d.address) as v4, pg.Raw(d.address) as v6, pg.Raw(d.address) as split, pg.Raw(d.address) as itself:
        v4.send(proxied() + login())
        until_ready(v4)
        v6.send(proxied("2001:db8::7", 1))
        v6.send(login())
        until_ready(v6)
        split.send_bytewise(proxied("203.0.113.9", 9, tlvs=b"\x03\0\4abcd"))
        split.send(login())
        key = until_ready(split)
        itself.send(proxied(command=0) + login())
        until_ready(itself)
        found = clients_of(d)
        assert sorted(c for c in found if not c.startswith("127.")) == [
            "203.0.113.7:5555", "203.0.113.9:9", "[2001:db8::7]:1"], found
        assert len(found) == 4, found
        # a cancel has a header, too
        split.send(pg.query("select pg_sleep(60)"))
        d.until(lambda: world.blue.query("select 1 from pg_stat_activity where query like '%pg_sleep(60)' and state = 'active'"),
                what="the statement runs")
        with pg.Raw(d.address) as cancel:
            cancel.send(proxied() + struct.pack("!ii", 8 + len(key), pg.CANCEL_REQUEST) + key)
            assert cancel.closed_by_peer()
        while True:
            kind, body = split.receive()
            if kind == "E":
                break
        assert pg.fields(body)["C"] == "57014"
    # longer than anything that a login may buffer
    with pg.Raw(d.address) as long:
        long.send(proxied(tlvs=b"\xe0\xea\x60" + b"x" * 60000))
        long.send(login())
        until_ready(long)
    before = d.metric("switchback_sessions_refused_total", reason="proxy_header")
    for wrong in (login(), b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + login(), proxied()[:13] + b"\x12" + proxied()[14:]):
        with pg.Raw(d.address) as raw:
            raw.send(wrong)
            assert raw.closed_by_peer() and not raw.buffer, raw.buffer
    d.until(lambda: d.metric("switchback_sessions_refused_total", reason="proxy_header") == before + 3, what="the refusals are counted")
    assert "version 1" in d.log_text()
    # a health check that says nothing, or only its header
    pg.Raw(d.address).abandon()
    with pg.Raw(d.address) as check:
        check.send(proxied(command=0))
    # the Unix socket isn't in the list; a header there is no startup packet
    with pg.Connection(d.unix_address) as local:
        assert local.value("select 1") == "1"
    with pg.Raw(d.unix_address) as raw:
        raw.send(proxied() + login())
        assert raw.closed_by_peer()
    # reload: the balancer is gone
    d.write(listen={"proxy_protocol": ["10.0.0.0/8", "unix"]})
    d.verb("reload", code=0)
    with pg.Connection(d.address) as direct:
        assert direct.value("select 1") == "1"
    with pg.Raw(d.unix_address) as local:
        local.send(proxied("198.51.100.1") + login())
        until_ready(local)
        assert "198.51.100.1:5555" in clients_of(d)


def refusal(address, **options):
    """The error that a login gets; None if it gets in."""
    try:
        pg.Connection(address, **options).close()
        return None
    except pg.PgError as error:
        return error


def admitted(world):
    """A client; None if there is no room: one that has just gone may still be counted."""
    try:
        return world.connect()
    except pg.PgError as error:
        assert error.sqlstate == "53300", error
        return None


def test_client_limits(world):
    """Clients of a database and of a role are counted over all workers; a reload changes the numbers."""
    world.pair(databases=("app", "other"))
    world.blue.query("create role batch login; create role free login")
    d = world.daemon(databases=["app", "other"], workers=4,
                     limits={"per_database": 6, "per_role": 4, "databases": {"other": 2}, "roles": {"batch": 1, "free": 0}})

    def full(user, database, what):
        error = refusal(d.address, user=user, database=database)
        assert error and error.sqlstate == "53300" and error.severity == "FATAL", error
        assert error.message == "too many connections for " + what, error

    clients = [world.connect() for _ in range(4)]
    full("app", "app", 'role "app"')
    full("app", "other", 'role "app"')
    clients.append(world.connect("batch"))
    full("batch", "app", 'role "batch"')
    clients.append(world.connect("free"))
    full("free", "app", 'database "app"')
    others = [world.connect("free", "other") for _ in range(2)]
    full("free", "other", 'database "other"')
    d.until(lambda: [d.metric("switchback_sessions_refused_total", reason=r) for r in ("role_limit", "database_limit")] == [3, 2],
            what="the refusals are counted")
    # who goes makes room, however it goes
    others[0].abandon()
    clients[0].close()
    d.until(lambda: refusal(d.address, user="free", database="other") is None, what="there is room in other")
    clients[0] = d.until(lambda: admitted(world), what="there is room for app")
    d.write(limits={"per_database": 0, "per_role": 5})
    d.verb("reload", code=0)
    clients.append(d.until(lambda: admitted(world), what="there is more room for app"))
    full("app", "app", 'role "app"')
    for client in clients + others[1:]:
        assert client.value("select 1") == "1"


def test_client_limits_need_the_password(world):
    """Who can't log in takes no place."""
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256"}, limits={"roles": {"app": 1}})
    with pg.Raw(d.address) as waiting:
        waiting.send(login())
        waiting.receive()
        assert refusal(d.address, password="wrong").sqlstate == "28P01"
        with pg.Connection(d.address, password="secret") as client:
            assert client.value("select 1") == "1"
            assert refusal(d.address, password="secret").sqlstate == "53300"


def ended(connection, timeout=60):
    """The last words of a connection that the other end closes."""
    assert connection.closed_by_peer(timeout)
    while connection.buffer:
        kind, body = connection.receive()
        if kind == "E":
            return pg.PgError(pg.fields(body))
    return None


def test_idle_timeouts(world):
    """As PostgreSQL's own: 57P05 and 25P03; whoever does something stays."""
    world.pair()
    d = world.daemon()
    idle, transaction, failed, busy = (world.connect() for _ in range(4))
    transaction.query("begin")
    failed.query("begin")
    failed.error("select 1/0")
    busy.send(pg.query("select 1 from pg_sleep(4)"), pg.query("select 2"))
    d.write(timeouts={"client_idle": "1s", "idle_in_transaction": "1s"})
    d.verb("reload", code=0)
    assert [busy.results(), busy.results()] == [[[("1",)]], [[("2",)]]]
    error = ended(idle)
    assert (error.severity, error.sqlstate, error.message) == (
        "FATAL", "57P05", "terminating connection due to idle-session timeout"), error
    for one in (transaction, failed):
        error = ended(one)
        assert (error.severity, error.sqlstate, error.message) == (
            "FATAL", "25P03", "terminating connection due to idle-in-transaction timeout"), error
    d.until(lambda: d.metric("switchback_timeouts_total", timeout="idle_in_transaction") == 2, what="they are counted")
    d.until(lambda: world.blue.value("select count(*) from pg_stat_activity where usename = 'app' and datname = 'app'") <= "1",
            what="their servers are gone")
    d.write(timeouts={"client_idle": "0s", "idle_in_transaction": "0s"})
    d.verb("reload", code=0)
    ended_by = d.status()["ended"]["timeouts"]
    assert ended_by["client_idle"] >= 1 and ended_by["idle_in_transaction"] == 2 and ended_by["query"] == 0, ended_by
    with pg.Connection(d.address) as stays:
        stays.query("begin")
        assert not stays.readable(2.5)


def test_query_timeout(world):
    """A statement is cancelled, its session lives; a COPY too, whose client is slow."""
    world.pair()
    d = world.daemon(timeouts={"query": "3s"})
    with pg.Connection(d.address) as client:
        for _ in range(3):
            assert client.error("select pg_sleep(600)").sqlstate == "57014"
            assert client.value("select 1") == "1"
        client.query("begin; create temp table t (a int)")
        assert client.error("insert into t select 1 from pg_sleep(60)").sqlstate == "57014"
        assert client.status == "E"
        client.query("rollback")
        assert client.value("select 1 from pg_sleep(0.1)") == "1"
        client.query("create temp table c (a int)")
        client.send(pg.query("copy c from stdin"))
        assert client.receive()[0] == "G"
        d.until(lambda: d.status()["ended"]["timeouts"]["query"] == 5, what="the COPY has lasted too long")
        client.send(pg.copy_data(b"1\n"))  # PostgreSQL hears of it between two messages
        try:
            client.results()
            raise AssertionError("the COPY went on")
        except pg.PgError as error:
            assert error.sqlstate == "57014", error
        client.send(pg.COPY_DONE)
        assert client.value("select count(*) from c") == "0"
    assert world.blue.value("select count(*) from pg_stat_activity where query ~ 'sleep.60' and state = 'active' and usename = 'app'") == "0"
    d.until(lambda: d.metric("switchback_timeouts_total", timeout="query") == 5, what="they are counted")


def test_query_timeout_meets_no_other_statement(world):
    """A cancel that comes late, when its statement has ended by itself: the one behind it is not hit."""
    world.pair()
    d = world.daemon(timeouts={"query": "5s"})
    with pg.Connection(d.address) as client:
        client.query("select 1")
        os.kill(world.blue.process.pid, signal.SIGSTOP)  # the postmaster, which takes cancels; not the backends
        try:
            client.query("select pg_sleep(7)")
            client.send(pg.query("select 'mine' from pg_sleep(1)"))
            assert not client.readable(0.5)
            d.until(lambda: d.metric("switchback_timeouts_total", timeout="query") == 1, what="the cancel is under way")
        finally:
            os.kill(world.blue.process.pid, signal.SIGCONT)
        assert client.results() == [[("mine",)]]


def test_query_timeout_gives_up(world):
    """A backend that hangs and takes no cancel: the client hears of it all the same."""
    world.pair()
    d = world.daemon(timeouts={"query": "1s"})
    with pg.Connection(d.address) as client:
        backend = int(client.value("select pg_backend_pid()"))
        client.send(pg.query("select pg_sleep(600)"))
        d.until(lambda: world.blue.value("select wait_event from pg_stat_activity where pid = %d" % backend) == "PgSleep",
                what="it sleeps")
        os.kill(backend, signal.SIGSTOP)
        try:
            error = ended(client, 60)
        finally:
            os.kill(backend, signal.SIGCONT)
        assert (error.severity, error.sqlstate) == ("FATAL", "08007"), error
    d.until(lambda: world.blue.value("select count(*) from pg_stat_activity where pid = %d" % backend) == "0", what="it is gone")


def test_server_connect_timeout(world):
    """A side that takes connections and says nothing: 57P03 in time, then at once, and it recovers by itself."""
    world.pair()
    d = world.daemon(timeouts={"server_connect": "1s"}, workers=1)
    world.blue.pause()
    try:
        errors = [refusal(d.address) for _ in range(8)]
        assert all(error and error.sqlstate == "57P03" for error in errors), errors
        d.until(lambda: (d.metric("switchback_server_down", side="blue") == 1
                         and d.metric("switchback_sessions_refused_total", reason="server_down") > 0
                         and d.metric("switchback_timeouts_total", timeout="server_connect") >= 3), what="it counts as down")
    finally:
        world.blue.resume()
    d.until(lambda: refusal(d.address) is None, what="the side is back")
    d.until(lambda: d.metric("switchback_server_down", side="blue") == 0, what="it counts as up")


def test_dead_side_with_passwords(world):
    """Where roles are asked of the side the same holds: nobody waits behind those who found out."""
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256"}, workers=1)
    assert refusal(d.address, password="secret") is None
    world.blue.stop()
    errors = [refusal(d.address, password="secret") for _ in range(8)]
    assert all(error and error.sqlstate == "57P03" for error in errors), errors
    assert any("does not answer" in error.message for error in errors), errors
    world.blue.start()
    d.until(lambda: refusal(d.address, password="secret") is None, what="the side is back")


def test_hold_notice(world):
    """By setting, a client that a hold keeps is told so, and loses nothing by it."""
    world.pair()
    d = world.daemon(timeouts={"hold_notice": "1s"})
    with pg.Connection(d.address) as client, pg.Connection(d.address) as quiet:
        client.query("set application_name = 'held'")
        d.verb("hold", "--for", "60s", "--reason", "test", code=0)
        client.send(pg.query("select 'answer'"))
        kind, body = client.receive()
        assert kind == "N" and pg.fields(body)["V"] == "NOTICE", (kind, body)
        d.verb("release", code=0)
        client.until_ready()
        assert not quiet.readable(0.1)
        assert quiet.value("select 1") == "1" and not quiet.notices


def tls_behind_balancer(scene, address, direct):
    """A client whose balancer passes TLS through; its header and the first bytes come in one segment."""
    made = socket.create_connection(scene.address, 30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    made.sendall(proxied(address))
    if not direct:
        made.sendall(struct.pack("!ii", 8, pg.SSL_REQUEST))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        assert made.recv(1) == b"S"
    raw = pg.Raw.__new__(pg.Raw)
    raw.buffer = b""
    raw.socket = scene.ca.client().wrap_socket(made, server_hostname="localhost")
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    return raw


def test_proxy_protocol_before_tls(world):
    """TLS begins behind the header, and the rules for addresses go by what the header says."""
    scene = Scene(world, start=False)
    rules = os.path.join(world.folder, "hba.conf")
    with open(rules, "w") as file:
        file.write("hostssl all all 203.0.113.0/24 trust\nhost all all 127.0.0.0/8 reject\n")
    d = scene.daemon
    d.write(auth={"method": "hba", "hba_file": rules}, listen={"proxy_protocol": ["127.0.0.1"]})
    d.start()
    for direct in (False, True):
        with tls_behind_balancer(scene, "203.0.113.7", direct) as raw:
            raw.send(login())
            until_ready(raw)
            assert "203.0.113.7:5555" in clients_of(d)
        with tls_behind_balancer(scene, "198.51.100.1", direct) as raw:
            raw.send(login())
            kind, body = raw.receive()
            assert kind == "E" and pg.fields(body)["C"] == "28000" and "198.51.100.1" in pg.fields(body)["M"], (kind, body)
    with pg.Raw(d.address) as raw:
        raw.send(proxied() + login())
        kind, body = raw.receive()
        assert kind == "E" and pg.fields(body)["C"] == "28000", (kind, body)


def test_timeouts_in_flips(world):
    """With every timeout on, flips under load end nobody and cancel nothing."""
    d = world.prepared(timeouts={"client_idle": "20s", "idle_in_transaction": "20s", "query": "20s", "hold_notice": "20ms"})
    load = world.ledger(sessions=12, rate=40)
    for target in ("green", "blue", "green"):
        d.verb("cutover" if target == "green" else "flip-back", code=0)
        d.wait_steady(target)
    load.assert_clean()
    assert not any(d.status()["ended"]["timeouts"].values()), d.status()["ended"]
