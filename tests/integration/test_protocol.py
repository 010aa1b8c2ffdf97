"""The proxy can't be told from the server: the same messages, sent to both, are answered alike."""
import struct
import threading
import time

import pg

SETUP = """
create table t (id int primary key, v text);
insert into t select g, 'value ' || g from generate_series(1, 10) g;
create function noisy() returns int language plpgsql as $$ begin raise notice 'first'; raise warning 'second'; return 1; end $$;
"""

# name: messages. Each ends with something that is answered by ReadyForQuery.
EXCHANGES = {
    "simple": [pg.query("select 1, 'two', null")],
    "empty query": [pg.query("")],
    "many statements": [pg.query("select 1; select 2; insert into t values (11, 'x'); delete from t where id = 11; select 3")],
    "many statements, one fails": [pg.query("select 1; select 1/0; select 3")],
    "syntax error": [pg.query("selec 1")],
    "notices": [pg.query("select noisy()")],
    "transaction": [pg.query("begin"), pg.query("select 1"), pg.query("commit")],
    "failed transaction": [pg.query("begin"), pg.query("select 1/0"), pg.query("select 1"), pg.query("rollback")],
    "pipelined queries": [pg.query("select %d" % i) for i in range(50)],
    "extended": [pg.parse("", "select $1::int + 1"), pg.bind("", "", [41]), pg.describe("P", ""), pg.execute(), pg.SYNC],
    "named statement": [
        pg.parse("s1", "select * from t where id = $1"), pg.describe("S", "s1"), pg.SYNC, pg.bind("", "s1", [3]), pg.execute(),
        pg.SYNC, pg.bind("p1", "s1", [4]), pg.execute("p1"), pg.SYNC, pg.close("S", "s1"), pg.SYNC],
    "statement without rows": [pg.parse("s2", "update t set v = v where id = $1"), pg.describe("S", "s2"), pg.SYNC],
    "close of what isn't there": [pg.close("S", "nothing"), pg.close("P", "nothing"), pg.SYNC],
    "statement that isn't there": [pg.bind("", "nothing"), pg.execute(), pg.SYNC],
    "error skips to Sync": [
        pg.parse("", "select 1/0"), pg.bind("", ""), pg.execute(), pg.parse("lost", "select 1"), pg.query("select 'skipped'"),
        pg.describe("S", "lost"), pg.SYNC, pg.bind("", "lost"), pg.SYNC, pg.query("select 'alive'")],
    "parse error, then more": [pg.parse("", "selec"), pg.bind("", ""), pg.execute(), pg.SYNC, pg.SYNC, pg.SYNC],
    "portal in pieces": [
        pg.query("begin"), pg.parse("", "select * from t order by id"), pg.bind("p", ""), pg.execute("p", 3), pg.execute("p", 3),
        pg.FLUSH, pg.execute("p", 0), pg.SYNC, pg.query("commit")],
    "many syncs": [pg.SYNC] * 20,
    "pipeline of statements": [part for i in range(100) for part in (
        pg.parse("", "select %d" % i), pg.bind("", ""), pg.execute())] + [pg.SYNC],
    "binary results": [pg.parse("", "select 1::int8, 'x'::text"), pg.bind("", "", (), [1]), pg.execute(), pg.SYNC],
    "empty extended query": [pg.parse("", ""), pg.bind("", ""), pg.describe("P", ""), pg.execute(), pg.SYNC],
    "function call": [pg.function_call(177, [3, 4])],  # int4pl
    "function call that fails": [pg.function_call(154, [1, 0])],  # int4div
    "settings": [
        pg.query("set application_name = 'one'"), pg.query("begin; set application_name = 'two'; rollback"),
        pg.query("set timezone = 'Asia/Tokyo'"), pg.query("reset all"), pg.query("show application_name")],
    "copy in": [pg.query("begin"), pg.query("copy t from stdin"), pg.copy_data(b"100\ta\n101\t"), pg.copy_data(b"b\n"),
                pg.COPY_DONE, pg.query("select * from t where id >= 100"), pg.query("rollback")],
    "copy in, flush and sync are ignored": [
        pg.query("begin"), pg.query("copy t from stdin"), pg.FLUSH, pg.SYNC, pg.copy_data(b"100\ta\n"), pg.SYNC, pg.COPY_DONE,
        pg.query("rollback")],
    "copy in fails by the client": [pg.query("copy t from stdin"), pg.copy_data(b"100\ta\n"), pg.copy_fail("no more"),
                                    pg.query("select count(*) from t")],
    "copy in fails by the server": [
        pg.query("copy t from stdin"), pg.copy_data(b"100\ta\nx\tb\n"), *[pg.copy_data(b"%d\tc\n" % i) for i in range(200, 400)],
        pg.COPY_DONE, pg.query("select count(*) from t")],
    "copy in refused": [pg.query("copy nothing from stdin"), pg.copy_data(b"1\n"), pg.COPY_DONE, pg.query("select 'alive'")],
    "copy in, extended": [
        pg.parse("", "copy t from stdin"), pg.bind("", ""), pg.execute(), pg.SYNC, pg.copy_data(b"200\ta\n"), pg.COPY_DONE, pg.SYNC,
        pg.query("delete from t where id = 200")],
    "copy fail, extended": [
        pg.parse("", "copy t from stdin"), pg.bind("", ""), pg.execute(), pg.copy_data(b"200\ta\n"), pg.copy_fail("stop"),
        pg.query("select 'skipped'"), pg.SYNC, pg.query("select 'alive'")],
    "copy out": [pg.query("copy t to stdout"), pg.query("copy (select repeat('x', 100000) from generate_series(1, 20)) to stdout")],
    "copy out fails": [pg.query("copy (select 1/(5 - g) from generate_series(1, 9) g) to stdout"), pg.query("select 'alive'")],
    "copy between statements": [pg.query("select 1; copy t from stdin; select 2"), pg.copy_data(b"300\tz\n"), pg.COPY_DONE,
                                pg.query("delete from t where id = 300")],
    "large rows": [pg.query("select g, repeat('y', 70000 + g) from generate_series(1, 40) g")],
    "large statement": [pg.query("select length('%s')" % ("z" * 1000000))],
    "large parameter": [pg.parse("", "select length($1)"), pg.bind("", "", [b"w" * 3000000]), pg.execute(), pg.SYNC],
    "listen and notify": [pg.query("listen c"), pg.query("notify c, 'payload'"), pg.query("unlisten *")],
    "unnamed statement survives": [pg.parse("", "select 'kept'"), pg.SYNC, pg.bind("", ""), pg.execute(), pg.SYNC,
                                   pg.query("select 1"), pg.bind("", ""), pg.execute(), pg.SYNC],
}


def answers(address, messages, send, user="app"):
    """Every message that answers, asynchronous ones too, up to a marker that follows the exchange."""
    connection = pg.Connection(address, user=user, database="app", application_name="exchange")
    try:
        whole = b"".join(messages) + pg.query("select 'the end of it'")
        sender = threading.Thread(target=send, args=(connection, whole))
        sender.start()
        seen = []
        while True:
            kind, body = connection.receive()
            if kind == "A":
                body = body[4:]  # without the pid
            if kind in "EN":
                body = sorted((k, v) for k, v in pg.fields(body).items() if k not in "FLR")
            seen.append((kind, body))
            if kind == "D" and b"the end of it" in body:
                break
        sender.join()
        return seen
    finally:
        connection.close()


def plain(connection, whole):
    connection.send(whole)


def bytewise(connection, whole):
    # the first kilobytes at one byte each, what is large in uneven pieces
    connection.send_bytewise(whole[:1500])
    rest = whole[1500:]
    step = 7 if len(rest) < 20000 else 65521
    for start in range(0, len(rest), step):
        connection.send(rest[start:start + step])


def compare(world, send):
    world.pair()
    compare_sides(world.blue, world.daemon(), send)


def compare_sides(server, proxy, send):
    with server.connect("app", "app") as connection:
        connection.query(SETUP)
    different = []
    for name in EXCHANGES:
        direct = answers(server.address, EXCHANGES[name], plain)
        through = answers(proxy.address, EXCHANGES[name], send)
        if direct != through:
            at = next((i for i, (d, t) in enumerate(zip(direct, through)) if d != t), min(len(direct), len(through)))
            different.append(name)
            print("%s differs at message %d: direct %r, through the proxy %r" % (name, at, direct[at:at + 3], through[at:at + 3]))
    assert not different, different


def test_same_answers(world):
    compare(world, plain)


def test_same_answers_split_at_any_byte(world):
    compare(world, bytewise)


def test_unix_socket(world):
    world.pair()
    d = world.daemon()
    with pg.Connection(d.unix_address) as connection:
        assert connection.value("select 1") == "1"


def test_startup_parameters(world):
    """Parameters and options reach the server as they are; the login shows what the server's would."""
    world.pair()
    d = world.daemon()
    params = {"application_name": "näme", "options": '-c geqo=off --work_mem=5MB -c search_path="a\\ b",public',
              "client_encoding": "LATIN1", "DateStyle": "German, DMY"}
    asked = "select current_setting('geqo'), current_setting('work_mem'), current_setting('search_path'), current_setting('client_encoding')"
    with world.blue.connect("app", "app", **params) as direct, pg.Connection(d.address, **params) as through:
        assert direct.query(asked) == through.query(asked)
        assert direct.parameters == through.parameters
        assert through.parameters["DateStyle"] == "German, DMY"
    for bad in ({"options": "-c no_such_setting=1"}, {"DateStyle": "nonsense"}, {"database": "nowhere"}):
        error = None
        try:
            pg.Connection(d.address, **bad)
        except pg.PgError as caught:
            error = caught
        assert error and error.severity == "FATAL", bad


def test_database_defaults_to_user(world):
    world.pair(databases=("app", "other"))
    d = world.daemon()
    with pg.Raw(d.address) as raw:
        raw.send(pg.startup({"user": "app"}))
        assert raw.receive() == ("R", b"\0\0\0\0")


def test_startup_abuse(world):
    """Broken, hostile and unusual openings: an answer or a closed connection, never harm to others."""
    world.pair()
    d = world.daemon(timeouts={"login": "5s"})

    def opened(*parts, **options):
        raw = pg.Raw(d.address, **options)
        raw.send(*parts)
        return raw

    def refused(*parts):
        """Closed, with an error or without a word."""
        with opened(*parts) as raw:
            assert raw.closed_by_peer(), parts
            return raw.buffer

    good = pg.startup({"user": "app", "database": "app"})
    ssl = struct.pack("!ii", 8, pg.SSL_REQUEST)
    gss = struct.pack("!ii", 8, pg.GSSENC_REQUEST)
    for bad in (b"\0\0\0\0", b"\0\0\0\3", b"\xff\xff\xff\xff", struct.pack("!i", 10001) + b"x" * 100, b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", struct.pack("!ii", 9, 196608) + b"x",
                struct.pack("!ii", 8, 0), struct.pack("!ii", 8, 131072), struct.pack("!ii", 8, 4 << 16),
                pg.startup({"database": "app"}), struct.pack("!ii", 20, 196608) + b"user\0app\0xx",
                struct.pack("!ii", 12, pg.CANCEL_REQUEST) + b"abcd", struct.pack("!ii", 12, pg.SSL_REQUEST) + b"abcd"):
        refused(bad)
    # bytes in the same segment as an encryption request are not what an encrypted client would have sent
    refused(ssl + good)
    refused(gss + good)
    for opening in ([ssl], [gss], [gss, ssl]):
        with opened() as raw:
            for request in opening:
                raw.send(request)
                assert raw.take(1) == b"N"
            raw.send(good)
            assert raw.receive() == ("R", b"\0\0\0\0")
    with opened(ssl) as raw:
        assert raw.take(1) == b"N"
        raw.send(ssl)
        assert raw.closed_by_peer()
    with opened(good) as raw:  # bytes of the next message already there
        raw.send(pg.query("select 'early'"))
        while raw.receive()[0] != "D":
            pass
    with opened(pg.startup({"user": "app", "database": "app", "_pq_.unknown": "1", "_pq_.other": "x"}, 196608 + 9999)) as raw:
        kind, body = raw.receive()
        assert kind == "v" and struct.unpack("!ii", body[:8]) == (pg.PROTOCOL_3_2, 2), (kind, body)
        assert sorted(body[8:].rstrip(b"\0").split(b"\0")) == [b"_pq_.other", b"_pq_.unknown"]
        assert raw.receive() == ("R", b"\0\0\0\0")
    with opened() as raw:
        raw.send_bytewise(good)
        assert raw.receive() == ("R", b"\0\0\0\0")
    # silence, half a packet and abandoned connections end by the login timeout
    silent = [opened(part) for part in (b"", good[:7], ssl)]
    for raw in silent:
        assert raw.closed_by_peer()
    for _ in range(50):
        opened(good).reset()
    for _ in range(50):
        opened(good[:10]).abandon()
    with pg.Connection(d.address) as connection:
        assert connection.value("select 1") == "1"


def test_broken_streams(world):
    """What a client may not send after login ends its session with 08P01, and nobody else's."""
    world.pair()
    d = world.daemon()
    with pg.Connection(d.address) as bystander:
        for bad in (b"Q\0\0\0\3", b"Q\xff\xff\xff\xff", b"\0\0\0\0\4", b"!\0\0\0\4", b"Q\x7f\xff\xff\xff" + b"x" * 1000, b"R\0\0\0\x08\0\0\0\0"):
            connection = pg.Connection(d.address)
            connection.send(bad)
            if bad[1:3] == b"\x7f\xff":
                connection.socket.settimeout(3)
            try:
                seen = connection.receive()
                assert seen[0] == "E" and pg.fields(seen[1])["C"] == "08P01", (bad, seen)
            except pg.Closed:
                pass
            except TimeoutError:
                assert bad[1:3] == b"\x7f\xff", bad  # a length that the server itself would wait for
            connection.abandon()
        assert bystander.value("select 1") == "1"


def test_cancel(world):
    world.pair()
    d = world.daemon()
    for address in (d.address, d.unix_address):
        connection = pg.Connection(address)
        with connection:
            error = connection.cancelled()
            assert error.sqlstate == "57014", error
            assert connection.value("select 1") == "1"
            # a wrong key and an idle session: silence, and no effect
            pg.cancel(address, connection.pid, bytes([connection.key[0] ^ 1]) + connection.key[1:])
            pg.cancel(address, connection.pid + 1, connection.key)
            connection.cancel()
            assert connection.value("select pg_sleep(0.3), 'fine'") is not None


def test_cancel_under_load(world):
    """Cancels hit their own session only."""
    world.pair()
    d = world.daemon(workers=4)
    failures = []

    def victim(connection):
        for _ in range(10):
            error = connection.error("select pg_sleep(30)")
            if not error or error.sqlstate != "57014":
                failures.append(error)

    def bystander(connection, done):
        while not done.is_set():
            error = connection.error("select pg_sleep(0.005)")
            if error:
                failures.append(error)

    victims, others, done = [world.connect() for _ in range(5)], [world.connect() for _ in range(5)], threading.Event()
    threads = [threading.Thread(target=victim, args=(c,)) for c in victims]
    rest = [threading.Thread(target=bystander, args=(c, done)) for c in others]
    for thread in threads + rest:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for connection in victims:
            pg.cancel(d.address, connection.pid, connection.key)
        time.sleep(0.02)
    done.set()
    for thread in rest:
        thread.join()
    assert not failures, failures[:3]


def test_notifications_while_idle(world):
    world.pair()
    world.daemon()
    listener, talker = world.connect(), world.connect()
    listener.query("listen news")
    talker.query("notify news, 'hello'")
    assert listener.notification()[1:] == ("news", "hello")
    with world.blue.connect("app") as direct:
        direct.query("notify news, 'from outside'")
    assert listener.notification()[1:] == ("news", "from outside")
