"""TLS with clients."""
import concurrent.futures
import os
import socket
import ssl
import struct
import subprocess

import cluster
import pg
from certificates import Authority
from daemon import BINARY
from tls_scene import GSSENC_REQUEST, SSL_REQUEST, Scene, bytewise, in_tls, relayed


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
    s.daemon.until(lambda: "tls_failed" in s.daemon.log_text(), what="it was logged")


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
    s.daemon.write(listen={"tls": {"ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}})
    s.daemon.verb("reload", json=False, code=0)
    context = s.ca.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pg.Connection(s.address, tls=context) as connection:
        assert connection.socket.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    s.daemon.write(listen={"tls": {"ciphers": "no such"}})
    answer = s.daemon.verb("reload", json=False, code=2)
    assert "listen.tls.ciphers: no such: no cipher match" in answer.err, answer


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


def heard(address, context, direct, first, inside, patience=2):
    """What a peer makes of the bytes sent before TLS, and of those sent in it: its answers, until it waits or closes."""
    def collect(source, seen):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    return "closed"
                seen.append(data)
        except TimeoutError:
            return "waits"
        except (ssl.SSLError, ConnectionError):
            return "closed"

    def readable(data):
        """Errors without where they come from, keys without their value."""
        found, raw = [], b"".join(data)
        while raw[:1] in (b"N", b"S") and raw[1:5] and raw[1:2] != b"\0":
            found, raw = found + [raw[:1]], raw[1:]
        while len(raw) >= 5:
            length, = struct.unpack_from("!i", raw, 1)
            kind, body, raw = raw[:1], raw[5:length + 1], raw[length + 1:]
            if kind == b"E":
                body = sorted((k, v) for k, v in pg.fields(body).items() if k in "SVCM")
            found.append((kind, len(body) if kind == b"K" else body))
        return found + [raw]

    with socket.create_connection(address, patience) as plain:
        seen = []
        if first:
            plain.sendall(first)
        if not direct and inside is None:
            return readable(seen) if not first else (collect(plain, seen), readable(seen))
        if not direct:
            plain.sendall(SSL_REQUEST)
            assert plain.recv(1) == b"S"
        try:
            secured = context.wrap_socket(plain, server_hostname="localhost")
            if inside:
                secured.sendall(inside)
            end = collect(secured, seen)
            secured.close()
        except (ssl.SSLError, ConnectionError):
            return "no handshake"
        return end, readable(seen)


def heard_in_time(*arguments, **options):
    try:
        return heard(*arguments, **options)
    except TimeoutError:
        return "no handshake in time"


def test_openings_are_as_postgresql(world):
    """Before and in TLS, by request and at once: the same answers as the newest server gives itself."""
    newest = cluster.ALL_BINS[-1]
    s = Scene(world, binaries=newest)
    speaks_3_2 = world.blue.value("select current_setting('server_version_num')::int >= 180000") == "t"
    startup = pg.startup({"user": "app", "database": "app"})
    cancel = struct.pack("!iii", 16, pg.CANCEL_REQUEST, 1) + b"abcd"
    good, none, other = s.ca.client(), s.ca.client(protocol=None), s.ca.client(protocol="http/1.1")
    cases = {
        "GSS twice": (good, False, GSSENC_REQUEST * 2, None),
        "GSS and startup": (good, False, GSSENC_REQUEST + startup, None),
        "TLS, nothing": (good, False, b"", b""),
        "TLS, startup": (good, False, b"", startup),
        "TLS without ALPN, startup": (none, False, b"", startup),
        "TLS with another ALPN": (other, False, b"", startup),
        "TLS, SSL": (good, False, b"", SSL_REQUEST),
        "TLS, GSS": (good, False, b"", GSSENC_REQUEST),
        "TLS, cancel": (good, False, b"", cancel),
        "TLS, garbage": (good, False, b"", b"GET / HTTP/1.1\r\n\r\n"),
        "TLS, a handshake again": (good, False, b"", b"\x16\x03\x01\x00\x05hello"),
        "direct, startup": (good, True, b"", startup),
        "direct without ALPN": (none, True, b"", startup),
        "direct with another ALPN": (other, True, b"", startup),
        "direct, SSL": (good, True, b"", SSL_REQUEST),
        "direct, SSL twice": (good, True, b"", SSL_REQUEST + SSL_REQUEST),
        "direct, GSS": (good, True, b"", GSSENC_REQUEST),
        "direct, cancel": (good, True, b"", cancel),
    }
    different = []
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = {name: [pool.submit(heard_in_time, address, *case) for address in (world.blue.address, s.address)]
                 for name, case in cases.items()}
    for name, futures in asked.items():
        straight, through = (future.result() for future in futures)
        if straight != through:  # perhaps one of them was only slow
            straight, through = (heard_in_time(address, *cases[name], patience=20) for address in (world.blue.address, s.address))
        if straight != through and (speaks_3_2 or not pg.tells_its_protocols(straight)):
            different.append(name)
            print("%s: straight %r\n     through the proxy %r" % (name, straight, through))
    assert not different, different


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
                raw.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the proxy was quicker
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
    s = Scene(world, timeouts={"login": "5s"})
    with pg.Raw(s.address) as raw:
        raw.send(SSL_REQUEST)
        assert raw.take(1) == b"S"
        raw.send(b"\x16\x03\x01\x02\x00\x01")
        assert raw.closed_by_peer()
        assert raw.buffer == b"", "nothing may be sent in the clear once TLS was agreed"
    with pg.Raw(s.address, tls=s.ca.client()) as raw:
        assert raw.closed_by_peer()


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


def bytes_after_goodbye(address, context, sent, notify):
    """All that comes after the client has said in TLS (notify), and to TCP, that nothing follows."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(address, 30) as plain:
        plain.sendall(SSL_REQUEST)
        assert plain.recv(1) == b"S"

        def step(action):
            while True:
                try:
                    result = action()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    data = plain.recv(65536)
                    if data:
                        incoming.write(data)
                    else:
                        incoming.write_eof()
            plain.sendall(outgoing.read())
            return result

        step(tls.do_handshake)
        tls.write(sent)
        if notify:
            try:
                tls.unwrap()
            except ssl.SSLWantReadError:
                pass
        plain.sendall(outgoing.read())
        plain.shutdown(socket.SHUT_WR)
        while True:
            data = plain.recv(65536)
            if not data:
                break
            incoming.write(data)
        incoming.write_eof()
        received = []
        while True:
            try:
                data = tls.read(65536)
            except ssl.SSLError:
                data = b""
            if not data:
                return b"".join(received)
            received.append(data)


def test_sending_side_closed(world):
    """A client that has sent all and says so still gets the answers, as from PostgreSQL; and no backend is left."""
    s = Scene(world)
    startup = pg.startup({"user": "app", "database": "app"})
    for notify in (False, True):
        for sql in ("select 1", "select repeat('x', 1000) from generate_series(1, 2000)", "select pg_sleep(0.2)"):
            answers = []
            for address in (world.blue.address, s.address):
                received = bytes_after_goodbye(address, s.ca.client(), startup + pg.query(sql), notify)
                answers.append(received[received.index(b"Z\0\0\0\5I"):])
            assert answers[0] == answers[1] and len(answers[0]) > 30, (notify, sql, [len(answer) for answer in answers])
            s.daemon.until(lambda: world.blue.value("select count(*) from pg_stat_activity where usename = 'app'") == "0",
                           what="no backend is left")
    s.daemon.until(lambda: s.daemon.status()["sessions"]["total"] == 0, what="no session is left")


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
    s.daemon.until(lambda: "the certificate can't be trusted" in s.daemon.log_text(), what="it was logged")
    assert refused(s.ca.sign("old", "app", days=-1))
    crl = s.ca.revoke("good")
    s.daemon.write(listen={"tls": {"crl": crl}})
    s.daemon.verb("reload", json=False)
    assert refused(good)
    assert s.connect(s.ca.sign("new", "app")).value("select 1") == "1"


def test_starts_only_with_usable_files(world):
    """A certificate that can't be used is a bad configuration: for --check-config, and for serve."""
    s = Scene(world, start=False, servers=False, side={"mode": "disable"})
    cert, key = s.pair
    with open(os.path.join(s.daemon.folder, "locked.key"), "w") as file:
        file.write("")
    encrypted = s.ca.path("encrypted.key")
    world.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", encrypted], check=True)
    os.chmod(encrypted, 0o600)
    public = s.ca.path("public.key")
    with open(key) as source, open(public, "w") as out:
        out.write(source.read())
    os.chmod(public, 0o644)
    for listen, words in (({"cert": "/nowhere.crt"}, "listen.tls.cert: /nowhere.crt: No such file or directory"),
                          ({"key": "/nowhere.key"}, "listen.tls.key: /nowhere.key: No such file or directory"),
                          ({"key": encrypted}, "protected by a passphrase"),
                          ({"key": public}, "others may read it"),
                          ({"cert": key}, "listen.tls.cert"),
                          ({"ca": key}, "listen.tls.ca"),
                          ({"ca": s.ca.cert, "crl": cert}, "listen.tls.crl")):
        s.daemon.write(listen={"tls": {"cert": cert, "key": key, "ca": "", "crl": "", **listen}})
        checked = world.run([BINARY, "serve", "-c", s.daemon.config_path, "--check-config"])
        assert checked.returncode == 2 and words in checked.stderr, (words, checked)
        served = world.run([BINARY, "serve", "-c", s.daemon.config_path])
        assert served.returncode == 2 and words in served.stderr, (words, served)
    s.daemon.write(listen={"tls": {"cert": cert, "key": key, "ca": "", "crl": ""}})
    assert world.run([BINARY, "serve", "-c", s.daemon.config_path, "--check-config"], check=True)
    assert "certificate_expires" in world.run([BINARY, "serve", "-c", s.daemon.config_path, "--check-config"]).stderr


def test_sessions_say_what_is_spoken(world):
    s = Scene(world)
    s.connect(application_name="secure")
    world.connect(application_name="plain")
    found = {one["application"]: (one["tls"], one["server_tls"]) for one in s.daemon.verb("sessions", code=0).json["sessions"]}
    assert found == {"secure": ("TLSv1.3", "TLSv1.3"), "plain": (None, "TLSv1.3")}, found


def test_unix_sockets_have_no_tls(world):
    s = Scene(world, listen={"mode": "require"})
    with pg.Raw(s.daemon.unix_address) as raw:
        raw.send(SSL_REQUEST)
        assert raw.take(1) == b"N"
        raw.send(pg.startup({"user": "app", "database": "app"}))
        assert raw.receive()[0] == "R"
    with pg.Raw(s.daemon.unix_address) as raw:
        raw.send(b"\x16\x03\x01\x00\x05hello")
        assert raw.closed_by_peer() and not raw.buffer


def test_behind_a_balancer(world):
    """A PROXY header in the clear, then TLS, by request and at once, in one segment with it."""
    s = Scene(world, listen={"mode": "require"}, start=False)
    s.daemon.write(listen={"proxy_protocol": ["127.0.0.0/8"]})
    s.daemon.start()
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, bytes([10, 1, 2, 3]), bytes([10, 0, 0, 1]), 4321, 5432)
    context = s.ca.client()
    for direct in (False, True):
        with socket.create_connection(s.address, 30) as plain:
            if not direct:
                plain.sendall(header + SSL_REQUEST)
                assert plain.recv(1) == b"S"
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            first = header if direct else b""
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(first + outgoing.read())
                    first = b""
                    incoming.write(plain.recv(65536))
            tls.write(pg.startup({"user": "app", "database": "app", "application_name": "balanced"}))
            plain.sendall(outgoing.read())
            s.daemon.until(lambda: any(one["client"].startswith("10.1.2.3:") and one["tls"] for one in
                                       s.daemon.verb("sessions", code=0).json["sessions"]), what="the session has its client's address")


def test_key_update(world):
    """The openssl program: TLS 1.3 changes its keys in the middle, as either end may."""
    s = Scene(world)
    client = world.spawn(["openssl", "s_client", "-connect", "127.0.0.1:%d" % s.daemon.port, "-starttls", "postgres", "-CAfile", s.ca.cert,
                          "-verify_return_error", "-alpn", "postgresql"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    raw, seen = client.stdout.buffer, b""

    def until(word):
        nonlocal seen
        while word not in seen:
            data = os.read(raw.fileno(), 65536)
            assert data, seen[-2000:]
            seen += data
        seen = b""

    def say(data):
        os.write(client.stdin.fileno(), data)

    until(b"Verify return code: 0 (ok)")
    say(pg.startup({"user": "app", "database": "app"}))
    until(b"Z\0\0\0\5I")
    for number in range(3):
        say(b"K\n")  # a command of s_client: update, and ask the peer for one
        until(b"KEYUPDATE")
        say(pg.SYNC + pg.query("select 'answer %d'" % number))
        until(b"answer %d" % number)


def test_slow_reader(world):
    """A client that doesn't read stops its server; the proxy keeps little of the rest, and loses none."""
    s = Scene(world)
    connection = s.connect()

    def resident():
        with open("/proc/%d/statm" % s.daemon.process.pid) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    connection.send(pg.query("select repeat('x', 1000000) from generate_series(1, 100)"))
    pid = s.daemon.until(lambda: world.blue.value("select pid from pg_stat_activity where usename = 'app' and query like 'select repeat%'"),
                         what="the statement runs")
    s.daemon.until(lambda: world.blue.value("select wait_event from pg_stat_activity where pid = " + pid) == "ClientWrite",
                   what="the server waits for the proxy")
    assert resident() - before < 24 * 1024 * 1024, resident() - before
    rows = connection.results()
    rows = rows[0] if len(rows) == 1 else rows
    assert len(rows) == 100 and all(row[0] == "x" * 1000000 for row in rows)


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
        pid = connection.value("select pg_backend_pid()")
        connection.send(pg.query("select pg_sleep(60)"))
        s.daemon.until(lambda: world.blue.value("select query from pg_stat_activity where pid = " + pid) == "select pg_sleep(60)",
                       what="it runs")
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
