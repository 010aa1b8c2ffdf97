"""TLS with clients and with the servers."""
import os
import socket
import ssl
import struct
import threading
import time

import pg
from certificates import Authority

SSL_REQUEST = struct.pack("!ii", 8, pg.SSL_REQUEST)
GSSENC_REQUEST = struct.pack("!ii", 8, pg.GSSENC_REQUEST)


class Scene:
    """A pair whose servers speak TLS, and a daemon that does, all with certificates of one authority."""

    def __init__(self, world, start=True, pair=None, listen=None, side=None, servers=True, **settings):
        self.world, self.ca = world, Authority(world.folder)
        made = {}
        for name in ("blue", "green"):
            cert, key = self.ca.sign(name, alternatives="DNS:%s.db,DNS:localhost,IP:127.0.0.1" % name, owner="cluster")
            made[name] = dict(ssl="on", ssl_cert_file=cert, ssl_key_file=key, ssl_ca_file=self.ca.cert) if servers else {}
        pair = dict(pair or {})
        hba = pair.pop("hba", None)
        arguments = {"hba": hba} if hba else {}
        world.blue = world.cluster("blue", **arguments, **made["blue"], **pair)
        world.green = world.cluster("green", new=True, **arguments, **made["green"], **pair)
        world.blue.query("create role app login password 'secret'", "postgres")
        world.blue.query("create database app owner app", "postgres")
        self.pair = self.ca.sign("proxy", "localhost", "DNS:localhost,DNS:proxy.example,IP:127.0.0.1")
        listen = {"mode": "prefer", "cert": self.pair[0], "key": self.pair[1], **(listen or {})}
        side = {"mode": "verify-ca", "ca": self.ca.cert} if side is None else side
        self.daemon = world.daemon(start=start, listen={"tls": listen},
                                   sides={name: {"tls": side} for name in ("blue", "green")}, **settings)

    @property
    def address(self):
        return self.daemon.address

    def connect(self, cert=None, protocol="postgresql", **arguments):
        made = pg.Connection(self.address, tls=self.ca.client(cert, protocol), server_name="localhost", **arguments)
        self.world.connections.append(made)
        return made

    def psql(self, conninfo, sql="select 1", **environment):
        return self.world.psql(self.daemon, ["-Atc", sql, conninfo], environment=environment)


def in_tls(connection):
    """The backend of that session has TLS."""
    return connection.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "t"


# --- clients


def test_modes_of_libpq(world):
    """psql with every sslmode against every mode of the listener."""
    s = Scene(world, listen={"ca": ""})
    expected = {  # can it connect, does it with TLS
        "disable": dict(disable="plain", allow="plain", prefer="plain", require="no", **{"verify-ca": "no", "verify-full": "no"}),
        "prefer": dict(disable="plain", allow="plain", prefer="TLS", require="TLS", **{"verify-ca": "TLS", "verify-full": "TLS"}),
        "require": dict(disable="no", allow="TLS", prefer="TLS", require="TLS", **{"verify-ca": "TLS", "verify-full": "TLS"}),
    }
    for mode, outcomes in expected.items():
        s.daemon.write(listen={"tls": {"mode": mode}})
        s.daemon.verb("reload", json=False)
        for sslmode, outcome in outcomes.items():
            done = world.psql(s.daemon, ["-At", "host=localhost sslmode=%s sslrootcert=%s" % (sslmode, s.ca.cert), "-c", r"\conninfo"])
            found = "no" if done.returncode else "TLS" if "SSL connection" in done.stdout else "plain"
            assert found == outcome, (mode, sslmode, outcome, done)
    refused = world.psql(s.daemon, ["host=localhost sslmode=disable", "-c", "select 1"])
    assert "connections without TLS are not accepted here" in refused.stderr, refused
    assert world.psql(s.daemon, ["host=%s" % s.daemon.folder, "-c", "select 1"]).returncode == 0, "require is for TCP only"


def test_what_a_client_verifies(world):
    """A wrong authority and a wrong host stop libpq, as they should; an expired certificate too."""
    s = Scene(world)
    other = Authority(world.folder, "other")
    wrong_ca = s.psql("host=localhost sslmode=verify-ca sslrootcert=" + other.cert)
    assert wrong_ca.returncode == 2 and "certificate verify failed" in wrong_ca.stderr, wrong_ca
    wrong_host = s.psql("host=elsewhere hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=" + s.ca.cert)
    assert wrong_host.returncode == 2 and "does not match host name" in wrong_host.stderr, wrong_host
    cert, key = s.ca.sign("expired", "localhost", "DNS:localhost", days=-1)
    s.daemon.write(listen={"tls": {"cert": cert, "key": key}})
    s.daemon.verb("reload", json=False)
    expired = s.psql("host=localhost sslmode=verify-ca sslrootcert=" + s.ca.cert)
    assert expired.returncode == 2 and "certificate verify failed" in expired.stderr, expired
    assert "tls_failed" in s.daemon.log_text()


def test_versions(world):
    s = Scene(world, listen={"min_version": "TLSv1.3"})

    def handshake(version):
        context = s.ca.client()
        context.minimum_version = context.maximum_version = version
        with pg.Connection(s.address, tls=context) as connection:
            return connection.socket.version()

    assert handshake(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    try:
        handshake(ssl.TLSVersion.TLSv1_2)
        raise AssertionError("TLS 1.2 was accepted")
    except ssl.SSLError:
        pass
    s.daemon.write(listen={"tls": {"min_version": "TLSv1.2"}})
    s.daemon.verb("reload", json=False)
    assert handshake(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"


def test_direct_tls(world):
    """The first byte is a handshake's: only with PostgreSQL's protocol in ALPN."""
    s = Scene(world)
    with pg.Connection(s.address, tls=s.ca.client(), direct=True) as connection:
        assert connection.socket.selected_alpn_protocol() == "postgresql"
        assert connection.value("select 1") == "1"
    with pg.Raw(s.address, tls=s.ca.client(), direct=True) as raw:
        raw.send(SSL_REQUEST)  # as PostgreSQL 17: TLS stands already
        assert raw.take(1) == b"N"
        raw.send(pg.startup({"user": "app", "database": "app"}))
        assert raw.receive()[0] == "R"
    for protocol in (None, "http/1.1"):
        try:
            with pg.Raw(s.address, tls=s.ca.client(protocol=protocol), direct=True) as raw:
                raw.send(pg.startup({"user": "app", "database": "app"}))
                assert raw.closed_by_peer() and not raw.buffer, (protocol, raw.buffer)
        except (ssl.SSLError, ConnectionError, pg.Closed):
            pass
    # not once something else has been said
    with pg.Raw(s.address) as raw:
        raw.send(GSSENC_REQUEST)
        assert raw.take(1) == b"N"
        raw.send(b"\x16\x03\x01\x00\x05hello")
        assert raw.closed_by_peer()
    # without TLS a handshake is nothing that could be answered
    s.daemon.write(listen={"tls": {"mode": "disable"}})
    s.daemon.verb("reload", json=False)
    with pg.Raw(s.address) as raw:
        raw.send(b"\x16\x03\x01\x00\x05hello")
        assert raw.closed_by_peer() and not raw.buffer


def test_requests_before_startup(world):
    """GSSENCRequest and then SSLRequest, each once; not within TLS; nothing may come with them."""
    s = Scene(world)
    with pg.Raw(s.address) as raw:
        raw.send(GSSENC_REQUEST)
        assert raw.take(1) == b"N"
        raw.send(SSL_REQUEST)
        assert raw.take(1) == b"S"
        raw.socket = s.ca.client().wrap_socket(raw.socket, server_hostname="localhost")
        raw.send(pg.startup({"user": "app", "database": "app"}))
        assert raw.receive()[0] == "R"
    for second in (SSL_REQUEST, GSSENC_REQUEST):
        with pg.Raw(s.address, tls=s.ca.client()) as raw:
            raw.send(second)
            kind, body = raw.receive()
            assert kind == "E" and pg.fields(body)["S"] == "FATAL", (kind, body)
            assert raw.closed_by_peer()
    for first in (SSL_REQUEST, GSSENC_REQUEST):
        with pg.Raw(s.address) as raw:
            raw.send(first + pg.startup({"user": "app", "database": "app"}))
            assert raw.closed_by_peer()
            assert b"08P01" in raw.buffer and b"S" != raw.buffer[:1], raw.buffer


def relayed(address, client_to_proxy, proxy_to_client=None):
    """A man in the middle on a port of his own: what passes goes through the functions. Returns its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source, target, change):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                for piece in (change(data) if change else [data]):
                    target.sendall(piece)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(address)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=carry, args=(client, server, client_to_proxy), daemon=True).start()
            threading.Thread(target=carry, args=(server, client, proxy_to_client), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


def bytewise(data):
    return [data[i:i + 1] for i in range(len(data))]


def test_handshake_byte_by_byte(world):
    """A handshake and a session in pieces of one byte, with the client, and with the server."""
    s = Scene(world)
    address = relayed(s.address, bytewise, bytewise)
    for direct in (False, True):
        with pg.Connection(address, tls=s.ca.client(), direct=direct) as connection:
            assert connection.value("select repeat('x', 1000)") == "x" * 1000
    servers = relayed(world.blue.address, bytewise, bytewise)
    d = world.daemon(sides={"blue": {"port": servers[1], "tls": {"mode": "verify-full", "ca": s.ca.cert}}})
    with pg.Connection(d.address) as connection:
        assert in_tls(connection) and connection.value("select repeat('x', 1000)") == "x" * 1000


def test_garbage_instead_of_a_handshake(world):
    s = Scene(world)
    for garbage in (b"\0" * 100, b"Q" * 5000, b"\x16\x03\x01\xff\xff" + b"\1" * 70000, b"GET / HTTP/1.1\r\n\r\n", b"\x80\x2e\x01"):
        with pg.Raw(s.address) as raw:
            raw.send(SSL_REQUEST)
            assert raw.take(1) == b"S"
            try:
                raw.send(garbage)
            except ConnectionError:
                pass
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.closed_by_peer(), garbage[:10]
    # garbage within TLS that stands, below it, and after it
    with pg.Raw(s.address, tls=s.ca.client()) as raw:
        raw.send(b"\xff" * 100)
        assert raw.closed_by_peer()
    connection = s.connect()
    plain = socket.socket(fileno=os.dup(connection.socket.fileno()))
    plain.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    try:
        assert connection.closed_by_peer()
    except ssl.SSLError:
        pass  # an alert says so
    plain.close()
    assert s.connect().value("select 1") == "1"
    s.daemon.until(lambda: "tls_failed" in s.daemon.log_text(), what="it was logged")


def test_half_a_handshake_ends_by_the_login_timeout(world):
    s = Scene(world, timeouts={"login": "1s"})
    with pg.Raw(s.address) as raw:
        raw.send(SSL_REQUEST)
        assert raw.take(1) == b"S"
        raw.send(b"\x16\x03\x01\x02\x00\x01")
        assert raw.closed_by_peer(20)
        assert raw.buffer == b"", "nothing may be sent in the clear once TLS was agreed"
    with pg.Raw(s.address, tls=s.ca.client()) as raw:
        kind, body = raw.receive()
        assert kind == "E", "after the handshake the client is told why"


def test_close(world):
    """close_notify in both directions; a client that only stops sending still gets its answer."""
    s = Scene(world)
    connection = s.connect()
    connection.send(pg.query("select pg_sleep(0.3), repeat('x', 200000)"), pg.TERMINATE)
    seen = b""
    while True:
        data = connection.socket.recv(65536)  # raises if the end comes without close_notify
        if not data:
            break
        seen += data
    assert b"x" * 200000 in seen
    ended = s.connect()
    pid = ended.value("select pg_backend_pid()")
    ended.socket.unwrap()  # close_notify only
    s.daemon.until(lambda: not world.blue.query("select 1 from pg_stat_activity where pid = " + pid), what="its backend is gone")
    cut = s.connect()
    pid = cut.value("select pg_backend_pid()")
    socket.socket(fileno=cut.socket.detach()).close()  # without close_notify, as many drivers do
    world.connections.remove(cut)
    s.daemon.until(lambda: not world.blue.query("select 1 from pg_stat_activity where pid = " + pid), what="its backend is gone, too")


def test_client_certificates(world):
    """Asked for where there is a CA; may be missing; what is shown must be signed by it, and not be revoked."""
    s = Scene(world, start=False)
    s.daemon.write(listen={"tls": {"ca": s.ca.cert}})
    s.daemon.start()
    assert s.connect().value("select 1") == "1"
    good, bad = s.ca.sign("good", "app"), Authority(world.folder, "strangers").sign("bad", "app")
    assert s.connect(good).value("select 1") == "1"

    def refused(cert):
        try:
            s.connect(cert).value("select 1")
        except (ssl.SSLError, ConnectionError, pg.Closed):
            return True
        return False

    assert refused(bad)
    assert "the certificate can't be trusted" in s.daemon.log_text()
    assert refused(s.ca.sign("old", "app", days=-1))
    crl = s.ca.revoke("good")
    s.daemon.write(listen={"tls": {"crl": crl}})
    s.daemon.verb("reload", json=False)
    assert refused(good)
    assert s.connect(s.ca.sign("new", "app")).value("select 1") == "1"


def test_reload_of_certificates(world):
    """A new pair serves new clients, who is connected stays; a bad one changes nothing and says why."""
    s = Scene(world)
    old = s.connect()
    first = old.socket.getpeercert(True)
    cert, key = s.ca.sign("second", "localhost", "DNS:localhost")
    for source, target in ((cert, s.pair[0]), (key, s.pair[1])):  # the same paths, as renewals do
        with open(source, "rb") as file, open(target, "wb") as out:
            out.write(file.read())
    answer = s.daemon.verb("reload", json=False)
    assert answer.code == 0, answer
    new = s.connect()
    second = new.socket.getpeercert(True)
    assert second != first and old.value("select 1") == "1"
    with open(s.pair[1], "w") as file:
        file.write("no key\n")
    answer = s.daemon.verb("reload", json=False)
    assert answer.code == 2 and "listen.tls.key" in answer.err, answer
    assert s.connect().socket.getpeercert(True) == second and old.value("select 1") == "1" == new.value("select 1")
    with open(s.pair[1], "w") as out, open(s.ca.sign("third")[1]) as file:
        out.write(file.read())
    answer = s.daemon.verb("reload", json=False)
    assert answer.code == 2 and "listen.tls" in answer.err and "mismatch" in answer.err, answer
    os.remove(s.pair[1])
    assert s.daemon.verb("reload", json=False).code == 2
    assert s.connect().socket.getpeercert(True) == second


def test_large_results_and_copy(world):
    """Bytes come whole and in order, much more of them than fits into any buffer."""
    s = Scene(world)
    connection = s.connect()
    rows = connection.query("select i, repeat(md5(i::text), 30) from generate_series(1, 20000) i")
    assert len(rows) == 20000 and rows[-1][1] == rows[19999][1] and len(rows[-1][1]) == 960
    done = world.psql(s.daemon, ["host=localhost sslmode=require", "-qc", "create table t (i int, x text)", "-c",
                                 r"\copy t from program 'seq -f ""%.0f,$(printf %0500d 7)"" 40000' csv".replace('""', '"'), "-Atc",
                                 "select count(*), sum(i), sum(length(x)) from t", "-c", r"\copy t to '/dev/null'"])
    assert done.returncode == 0 and "40000|800020000|20000000" in done.stdout, done


def test_cancel(world):
    """A CancelRequest in the clear, within TLS and within direct TLS; all reach the server, whose link has TLS."""
    s = Scene(world)
    for ways in (dict(), dict(tls=s.ca.client()), dict(tls=s.ca.client(), direct=True)):
        connection = s.connect()
        connection.send(pg.query("select pg_sleep(60)"))
        time.sleep(0.2)
        with pg.Raw(s.address, **ways) as raw:
            raw.send(struct.pack("!iii", 12 + len(connection.key), pg.CANCEL_REQUEST, connection.pid) + connection.key)
            assert raw.closed_by_peer(), ways
        try:
            connection.results()
            raise AssertionError("it was not cancelled")
        except pg.PgError as error:
            assert error.sqlstate == "57014", error
    log = world.blue.log_text()
    assert "cancel" in log and "cancel_failed" not in s.daemon.log_text(), s.daemon.log_text()


# --- servers


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
        d.start(wait=False)
        until_listening(d)
        error = login_error(d.address, user="postgres", database="postgres", timeout=60)
        assert (error is None) == works, (mode, error)
        if error:
            assert error.sqlstate == "08006" and "does not speak TLS" in error.message, error
        d.stop()
    # somebody else's certificate, and another host's
    for tls, words in (({"mode": "verify-ca", "ca": other.cert}, "can't be trusted"),
                       ({"mode": "require", "ca": other.cert}, "can't be trusted"),
                       ({"mode": "verify-full", "ca": s.ca.cert, "server_name": "green.db"}, "not for \"green.db\"")):
        d = world.daemon(start=False, sides={"blue": {"tls": tls}})
        d.start(wait=False)
        until_listening(d)
        error = login_error(d.address, timeout=60)
        assert error and error.sqlstate == "08006" and words in error.message, (tls, error)
        d.stop()
    d = world.daemon(sides={"blue": {"tls": {"mode": "verify-full", "ca": s.ca.cert, "server_name": "blue.db"}}})
    with pg.Connection(d.address) as connection:
        assert in_tls(connection)


def test_prefer_goes_without_where_the_server_wants_that(world):
    """hostnossl: libpq's prefer connects there, and so must ours."""
    hba = "local all all trust\nhostnossl all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
    s = Scene(world, pair={"hba": hba}, side={"mode": "prefer"})
    with pg.Connection(s.address) as connection:
        assert not in_tls(connection)


def test_client_certificate_for_the_server(world):
    """The side asks for a certificate instead of a password (pg_hba: cert with a map)."""
    hba = ("local all all trust\nhost all postgres,switchback 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
           "hostssl all all 127.0.0.1/32 cert map=proxy\n")
    s = Scene(world, start=False, pair={"hba": hba})
    for side in (world.blue, world.green):
        with open(os.path.join(side.data, "pg_ident.conf"), "w") as file:
            file.write("proxy switchback app\n")
        side.query("select pg_reload_conf()", "postgres")
    cert, key = s.ca.sign("switchback")
    s.daemon.write(sides={name: {"tls": {"cert": cert, "key": key}} for name in ("blue", "green")})
    s.daemon.start()
    with s.connect() as connection:
        assert connection.value("select current_user || ssl::text from pg_stat_ssl where pid = pg_backend_pid()") == "apptrue"
        assert connection.value("select client_dn from pg_stat_ssl where pid = pg_backend_pid()") == "/CN=switchback"


def test_bytes_with_the_servers_answer_are_refused(world):
    """Whoever stands between could put them there, to be read as if TLS had brought them."""
    s = Scene(world, side={"mode": "prefer"})

    def add(data):
        return [data + b"E\0\0\0\x0eSFATAL\0M\0\0"] if data == b"S" else [data]

    address = relayed(world.blue.address, None, add)
    d = world.daemon(start=False, sides={"blue": {"port": address[1], "tls": {"mode": "prefer"}}})
    d.start(wait=False)
    until_listening(d)
    error = login_error(d.address, timeout=60)
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
    load.stop()
    load.verify(world.blue)
    with world.green.connect("app", tls=s.ca.client()) as connection:
        subscriptions = connection.value("select string_agg(subconninfo, ' ') from pg_subscription")
    assert "sslmode='verify-full'" in subscriptions and "hostaddr='127.0.0.1'" in subscriptions, subscriptions
