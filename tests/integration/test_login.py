"""Who may come in, and what those see who may not."""
import threading
import time

import pg
from cluster import SCRAM


def refusal(address, **arguments):
    """The error that a login ends in."""
    try:
        pg.Connection(address, **arguments).close()
    except pg.PgError as error:
        return error
    return None


def test_scram(world):
    """Right password in, everybody else gets the same answer."""
    world.pair(hba=SCRAM)
    world.blue.query("create role late login password 'secret' valid until '2001-01-01'; create role nologin password 'secret';"
                     " create role nopassword login; create role spaced login password ' p%w ä '")
    d = world.daemon(auth={"method": "scram-sha-256"})
    with pg.Connection(d.address, password="secret") as connection:
        assert connection.query("select current_user, session_user") == [("app", "app")]
    with pg.Connection(d.unix_address, password="secret") as connection:
        assert connection.value("select 1") == "1"
    with pg.Connection(d.address, user="spaced", password=" p%w ä ") as connection:
        assert connection.value("select current_user") == "spaced"
    wrong = refusal(d.address, password="wrong")
    assert wrong and wrong.sqlstate == "28P01" and wrong.severity == "FATAL", wrong
    for user in ("nobody", "late", "nopassword", "switchback' or 1=1"):
        error = refusal(d.address, user=user, password="secret")
        assert error and error.sqlstate == "28P01", (user, error)
        assert error.message == wrong.message.replace('"app"', '"%s"' % user), (user, error, wrong)
    told = [line for line in d.log_text().splitlines() if "login_refused" in line]  # the operator may know
    assert "user=app " in told[0] and "is not the role's" in told[0], told
    assert len(told) == 5 and all("no such role" in line for line in told[1:]), told
    error = refusal(d.address, user="nologin", password="secret")
    assert error and error.sqlstate in ("28000", "28P01"), error


def scram_opening(address, user):
    """What the server says before it can know whether the password is right."""
    with pg.Raw(address) as raw:
        raw.send(pg.startup({"user": user, "database": "app"}))
        first = raw.receive()
        scram = pg.Scram("x")
        message = scram.first()
        raw.send(pg.message(b"p", pg.cstr("SCRAM-SHA-256") + len(message).to_bytes(4, "big") + message))
        second = raw.receive()
        parts = dict(part.split("=", 1) for part in second[1][4:].decode().split(","))
        return first, second[0], len(parts["s"]), parts["i"], parts["s"]


def test_unknown_users_look_like_known_ones(world):
    """A mock exchange: same shape, and the same salt each time one asks."""
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256"})
    known, unknown, again = (scram_opening(d.address, user) for user in ("app", "nobody", "nobody"))
    assert known[:4] == unknown[:4], (known, unknown)
    assert unknown[4] == again[4] and unknown[4] != known[4]
    d.stop()
    d.start()
    assert scram_opening(d.address, "nobody") == unknown, "a salt that a restart changes is nobody's"
    # a wrong proof is answered in the same words, in one message
    for user in ("app", "nobody"):
        with pg.Raw(d.address) as raw:
            scram = pg.Scram("wrong")
            raw.send(pg.startup({"user": user, "database": "app"}))
            raw.receive()
            message = scram.first()
            raw.send(pg.message(b"p", pg.cstr("SCRAM-SHA-256") + len(message).to_bytes(4, "big") + message))
            raw.send(pg.message(b"p", scram.final(raw.receive()[1][4:])))
            kind, body = raw.receive()
            assert kind == "E" and pg.fields(body)["M"] == 'password authentication failed for user "%s"' % user, body
            assert raw.closed_by_peer() and not raw.buffer


def test_scram_abuse(world):
    """Broken SCRAM messages end that login only."""
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256"})
    for bad in (b"", b"SCRAM-SHA-256\0", b"SCRAM-SHA-1\0\0\0\0\4n,,x", b"SCRAM-SHA-256\0\xff\xff\xff\xff", b"SCRAM-SHA-256\0\0\0\0\4n,,x",
                b"SCRAM-SHA-256\0\0\0\0\x14p=tls-unique,,n=,r=x", b"SCRAM-SHA-256\0\x7f\xff\xff\xff" + b"n,,n=,r=x", b"x" * 9000, b"x" * 70000):
        with pg.Raw(d.address) as raw:
            raw.send(pg.startup({"user": "app", "database": "app"}))
            assert raw.receive()[0] == "R"
            raw.send(pg.message(b"p", bad))
            assert raw.closed_by_peer(), bad[:40]
    with pg.Raw(d.address) as raw:
        raw.send(pg.startup({"user": "app", "database": "app"}))
        raw.receive()
        raw.send(pg.query("select 1"))
        assert raw.closed_by_peer()
    pg.Connection(d.address, password="secret").close()


def test_password_change_is_seen(world):
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256"})
    pg.Connection(d.address, password="secret").close()
    world.blue.query("alter role app password 'changed'")
    assert refusal(d.address, password="secret").sqlstate == "28P01"
    pg.Connection(d.address, password="changed").close()


def test_trust_needs_trust_behind(world):
    """With auth trust the side must accept the role without a secret; else the client learns which line is missing."""
    world.pair(hba=SCRAM)
    d = world.daemon()
    error = refusal(d.address)
    assert error and error.sqlstate == "28000", error
    assert "pg_hba" in error.message + error.fields.get("H", "") + error.fields.get("D", ""), error.fields


def test_max_clients(world):
    world.pair()
    d = world.daemon(listen={"max_clients": 5})
    clients = [pg.Connection(d.address) for _ in range(5)]
    error = refusal(d.address)
    assert error and error.sqlstate == "53300" and error.severity == "FATAL", error
    clients.pop().close()
    d.until(lambda: refusal(d.address) is None, what="there is room again")
    for client in clients:
        assert client.value("select 1") == "1"
        client.close()


def test_login_timeout(world):
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256"}, timeouts={"login": "4s"})
    started = time.monotonic()
    with pg.Raw(d.address) as raw:
        raw.send(pg.startup({"user": "app", "database": "app"}))
        raw.receive()
        assert raw.closed_by_peer() and time.monotonic() - started >= 3.9


def test_server_too_full(world):
    """The server's own refusals reach the client."""
    world.pair(databases=("app",), max_connections=30)
    world.blue.query("alter role app connection limit 2")
    d = world.daemon()
    first, second = world.connect(), world.connect()
    error = refusal(d.address)
    assert error and error.sqlstate == "53300", error
    assert first.value("select 1") == second.value("select 1") == "1"


def test_unmanaged_database(world):
    world.pair(databases=("app", "other"))
    d = world.daemon()
    error = refusal(d.address, database="other")
    assert error and error.sqlstate == "3D000", error
    d.stop()
    d.write(unmanaged="pass")
    d.start()
    with pg.Connection(d.address, database="other") as connection:
        assert connection.value("select current_database()") == "other"


def test_login_storm(world):
    """Many logins at once, right and wrong ones."""
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256"}, workers=4)
    problems = []

    def client(number):
        for _ in range(5):
            good = number % 2 == 0
            error = refusal(d.address, password="secret" if good else "wrong")
            if good != (error is None) or (error and error.sqlstate != "28P01"):
                problems.append(error)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]
