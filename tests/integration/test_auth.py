"""Who clients are: rules, md5, certificates, peer, lists and queries of verifiers, channel binding, wrong passwords."""
import hashlib
import os
import socket
import ssl
import struct
import threading

import pg
from certificates import Authority
from cluster import SCRAM, TRUST
from test_login import refusal, scram_opening
from test_tls import Scene

MD5 = SCRAM.replace("scram-sha-256", "md5")


def write(d, name, text):
    path = os.path.join(d.folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def reload(d, **settings):
    d.write(**settings)
    answer = d.verb("reload", json=False)
    assert answer.code == 0, answer


# --- md5


def test_md5(world):
    """A role with an md5 password logs in at both ends by it, a role with a SCRAM one by SCRAM, and both move."""
    world.pair(hba=MD5)
    world.blue.query("set password_encryption = 'md5'; create role old login password 'rusty'", "postgres")
    d = world.daemon(auth={"method": "md5"})
    d.prepare()
    d.wait_steady("blue")
    old, new = world.connect(user="old", password="rusty"), world.connect(password="secret")
    assert old.value("select current_user") == "old" and new.value("select current_user") == "app"
    error = refusal(d.address, user="old", password="wrong")
    assert error.sqlstate == "28P01" and error.message == 'password authentication failed for user "old"', error
    assert world.psql(d, ["-Atc", "select 1", "user=old password=rusty"]).stdout == "1\n"
    d.verb("cutover", code=0)
    assert old.value("select current_user") == "old" and new.value("select current_user") == "app"
    assert old.value("show port") == new.value("show port") == str(world.green.port)
    world.connect(user="old", password="rusty")


def test_md5_of_unknown_roles(world):
    """What password_encryption says is what a role that doesn't exist is asked for, as PostgreSQL does."""
    world.pair(hba=MD5)
    d = world.daemon(auth={"method": "md5"})

    def request(user):
        with pg.Raw(d.address) as raw:
            raw.send(pg.startup({"user": user, "database": "app"}))
            kind, body = raw.receive()
            assert kind == "R"
            return struct.unpack_from("!i", body)[0], len(body)

    assert request("nobody") == request("app") == (10, 19)
    world.blue.query("alter system set password_encryption = md5", "postgres")
    world.blue.query("select pg_reload_conf()", "postgres")
    d.until(lambda: request("nobody") == (5, 8), what="unknown roles are asked for md5")
    assert refusal(d.address, user="nobody", password="x").sqlstate == "28P01"


def test_iterations_of_unknown_roles(world):
    """16 and later say how often they hash: unknown roles are told the same number."""
    world.pair(hba=SCRAM, blue_new=True)
    if world.blue.version < 16:
        return
    world.blue.query("alter system set scram_iterations = 5000", "postgres")
    world.blue.query("select pg_reload_conf()", "postgres")
    d = world.daemon(auth={"method": "scram-sha-256"})
    world.blue.query("set scram_iterations = 5000; create role thorough login password 'x'", "postgres")
    known, unknown = (scram_opening(d.address, user) for user in ("thorough", "nobody"))
    assert known[:4] == unknown[:4] and known[3] == "5000", (known, unknown)


# --- rules


RULES = """
# TYPE  DATABASE     USER        ADDRESS        METHOD
local   all          all                        peer map=system
host    all          +guests     all            reject
host    sameuser     ann         127.0.0.1/32   trust
host    app,other    app         samehost       scram-sha-256
hostssl all          all         all            trust
"""


def test_rules(world):
    """A pg_hba.conf decides; groups are the active side's; a changed file counts after a reload, a bad one never."""
    world.pair(databases=("app", "other", "ann"))
    world.blue.query("create role ann login; create role guests; create role visitors in role guests;"
                     " create role bob login in role visitors; create role zoe login", "postgres")
    d = world.daemon(start=False, databases=["app", "other", "ann"])
    d.write(auth={"method": "hba", "hba_file": write(d, "hba.conf", RULES),
                  "ident_file": write(d, "ident.conf", "system root app\nsystem /^(r)oot$ \\1ob\n")})
    d.start()
    with pg.Connection(d.address, password="secret") as connection:
        assert connection.value("select 1") == "1"
    assert refusal(d.address, password="wrong").sqlstate == "28P01"
    assert refusal(d.address, user="ann", database="ann") is None
    for user, database, words in (("ann", "app", 'no rule of the proxy\'s HBA file for connection from host "127.0.0.1", user "ann", '
                                                  'database "app", no encryption'),
                                  ("bob", "app", 'the proxy\'s HBA file rejects connection from host "127.0.0.1", user "bob", '
                                                 'database "app", no encryption'),
                                  ("zoe", "app", "no rule"), ("nobody", "app", "no rule")):
        error = refusal(d.address, user=user, database=database)
        assert error.sqlstate == "28000" and words in error.message, (user, error)
    error = refusal(d.address, user="ann", replication="true")
    assert 'replication connection from host "127.0.0.1", user "ann", no encryption' in error.message, error

    write(d, "hba.conf", RULES + "host all ann all nonsense\nhost all\n")
    answer = d.verb("reload", json=False)
    assert answer.code != 0 and 'hba.conf:8: unknown method "nonsense"' in answer.err, answer
    assert "hba.conf:9: the line ends before its role" in answer.err and "hba.conf:9" in d.log_text(), answer
    assert refusal(d.address, user="zoe").sqlstate == "28000", "the old rules stand"
    write(d, "hba.conf", RULES + "host app zoe all trust\n")
    assert d.verb("reload", code=0).json["changed"] == ["auth.hba_file"]
    assert refusal(d.address, user="zoe") is None
    world.blue.query("grant guests to zoe", "postgres")
    assert "rejects" in refusal(d.address, user="zoe").message, "a membership counts at the next login"


def test_peer(world):
    """Who the system says one is: with and without a map."""
    world.pair()
    name = "root" if os.geteuid() == 0 else os.environ.get("USER", "")
    world.blue.query('create role "%s" login' % name, "postgres")
    d = world.daemon(start=False)
    hba = write(d, "hba.conf", "local all %s peer\nlocal all all peer map=m\n" % name)
    d.write(auth={"method": "hba", "hba_file": hba, "ident_file": write(d, "ident.conf", "m %s app\n" % name)})
    d.start()
    for user in (name, "app"):
        with pg.Connection(d.unix_address, user=user) as connection:
            assert connection.value("select current_user") == user
    error = refusal(d.unix_address, user="switchback")
    assert error.sqlstate == "28000" and error.message == 'Peer authentication failed for user "switchback"', error
    assert refusal(d.address, user="app").sqlstate == "28000", "no rule is for TCP"

    problems = []

    def come_and_go(number):
        for turn in range(5):
            error = refusal(d.unix_address, user="app" if number % 3 else "switchback")
            if (error is None) != bool(number % 3):
                problems.append(error)
            if turn == 2:  # gone while its name is looked up
                with pg.Raw(d.unix_address) as raw:
                    raw.send(pg.startup({"user": "app", "database": "app"}))

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]


# --- certificates


def test_certificates(world):
    """auth.method cert: the certificate names the role, itself or by a map; by CN, DN or SAN."""
    s = Scene(world, start=False)
    d, ca = s.daemon, s.ca
    app, other = ca.sign("app"), ca.sign("other", alternatives="DNS:host.example,email:app@corp.example,URI:spiffe://x/app")
    d.write(listen={"tls": {"ca": ca.cert}}, auth={"method": "cert"})
    d.start()
    assert s.connect(app).value("select current_user") == "app"
    done = s.psql("host=localhost sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s" % (ca.cert, *app))
    assert done.stdout == "1\n", done

    def refused(cert, user="app"):
        try:
            s.connect(cert, user=user)
        except pg.PgError as error:
            assert error.sqlstate == "28000", error
            return error.message
        raise AssertionError("it came in")

    assert refused(other) == 'certificate authentication failed for user "app"'
    assert refused(app, "switchback") == 'certificate authentication failed for user "switchback"'
    assert refused(None) == "connection requires a valid client certificate"
    assert "auth.method cert of the proxy asks for TLS" in refusal(d.address).message
    assert "asks for TLS" in refusal(d.unix_address).message

    ident = write(d, "ident.conf", "by_name other app\nby_name /^CN=(.*)$ \\1\nby_name /^(.*)@corp.example$ \\1\n")
    reload(d, auth={"ident_file": ident, "map": "by_name"})
    assert s.connect(other).value("select current_user") == "app"
    refused(app)
    reload(d, auth={"cert_name": "dn"})
    assert s.connect(app).value("select current_user") == "app"
    refused(other)
    reload(d, auth={"cert_name": "san"})
    assert s.connect(other).value("select current_user") == "app"
    refused(app)
    ca.revoke("other")


def test_rules_for_certificates(world):
    """clientcert= beside a password: one of the authority's, or one of the role's own."""
    s = Scene(world, start=False)
    d, ca = s.daemon, s.ca
    app, other = ca.sign("app"), ca.sign("other")
    world.blue.query("create role full login password 'secret'", "postgres")
    hba = write(d, "hba.conf", "hostssl all app  all scram-sha-256 clientcert=verify-ca\n"
                               "hostssl all full all scram-sha-256 clientcert=verify-full\n"
                               "hostnossl all app all trust\n")
    d.write(listen={"tls": {"ca": ca.cert}}, auth={"method": "hba", "hba_file": hba})
    d.start()
    assert s.connect(other, password="secret").value("select 1") == "1"
    s.connect(ca.sign("full"), user="full", password="secret")
    for cert, arguments, sqlstate in ((None, {}, "28000"), (other, {"password": "wrong"}, "28P01"),
                                      (app, {"user": "full", "password": "secret"}, "28P01")):
        try:
            s.connect(cert, **arguments)
            raise AssertionError("it came in: %r" % arguments)
        except pg.PgError as error:
            assert error.sqlstate == sqlstate, error
    assert refusal(d.address) is None
    refused = d.verb("serve", "-c", d.config_path, "--check-config", json=False)
    assert refused.code == 0, refused
    d.write(listen={"tls": {"ca": ""}})
    refused = d.verb("serve", "-c", d.config_path, "--check-config", json=False)
    assert refused.code == 2 and "listen.tls.ca" in refused.err and "hba.conf:1" in refused.err, refused


# --- channel binding


def test_channel_binding(world):
    """SCRAM-SHA-256-PLUS with libpq; a client that was told there is none notices, and so do we."""
    s = Scene(world, pair={"hba": SCRAM}, auth={"method": "scram-sha-256"})
    for setting in ("require", "prefer", "disable"):
        done = s.psql("host=localhost sslmode=require channel_binding=" + setting)
        assert done.stdout == "1\n", (setting, done)
    done = s.psql("host=localhost sslmode=disable channel_binding=require")
    assert done.returncode == 2 and "channel binding" in done.stderr, done

    def attempt(mechanism, header, binding=b"", good=True):
        with pg.Raw(s.address, tls=s.ca.client(), server_name="localhost") as raw:
            raw.send(pg.startup({"user": "app", "database": "app"}))
            assert raw.receive()[1][4:] == b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
            certificate = hashlib.sha256(raw.socket.getpeercert(True)).digest()
            scram = pg.Scram("secret", header, certificate if binding is None else binding)
            first = scram.first()
            raw.send(pg.message(b"p", pg.cstr(mechanism) + len(first).to_bytes(4, "big") + first))
            kind, body = raw.receive()
            if kind == "R":
                raw.send(pg.message(b"p", scram.final(body[4:])))
                kind, body = raw.receive()
            return (None if kind == "R" else pg.fields(body)["C"])

    plus, plain, flag = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "p=tls-server-end-point,,"
    assert attempt(plus, flag, None) is None
    assert attempt(plain, "n,,") is None
    assert attempt(plus, flag, b"x" * 32) == "28000"
    assert attempt(plus, flag, b"") == "28000"
    assert attempt(plain, "y,,") == "28000", "somebody has hidden the better mechanism"
    assert attempt(plus, "n,,") == attempt(plus, "y,,") == attempt(plain, flag, None) == "08P01"
    assert attempt(plus, "p=tls-unique,,", None) == "08P01"
    assert attempt("SCRAM-SHA-1", "n,,") == "08P01"

    # what the login revealed opens the other side, too, bound to that one's certificate
    s.daemon.prepare()
    s.daemon.wait_steady("blue")
    session = s.connect(password="secret")
    s.daemon.verb("cutover", code=0)
    assert session.value("show port") == str(world.green.port)


class Between:
    """Somebody between a client and a server of PostgreSQL, with TLS to both and a certificate of his own."""

    def __init__(self, target, cert, key):
        self.target, self.context = target, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.seen = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            assert client.recv(8) == struct.pack("!ii", 8, pg.SSL_REQUEST)
            client.sendall(b"S")
            client = self.context.wrap_socket(client, server_side=True)
            outer = ssl.create_default_context()
            outer.check_hostname, outer.verify_mode = False, ssl.CERT_NONE
            server = pg.Raw(self.target, tls=outer).socket
            threading.Thread(target=self.pump, args=(server, client), daemon=True).start()
            self.pump(client, server)
        except (OSError, AssertionError, pg.ProtocolError):
            client.close()

    def pump(self, source, target):
        try:
            while data := source.recv(65536):
                self.seen.append(data)
                target.sendall(data)
        except OSError:
            pass
        try:
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def test_somebody_between(world):
    """Without checking certificates, channel binding still ends a login through somebody in the middle: of a client with
    the proxy, and of the proxy with a server."""
    s = Scene(world, pair={"hba": SCRAM}, side={"mode": "require"}, auth={"method": "scram-sha-256"})
    pair = Authority(world.folder, "mallory").sign("localhost", alternatives="DNS:localhost")
    front = Between(s.address, *pair)
    done = world.psql(s.daemon, ["-Atc", "select 1", "host=localhost port=%d sslmode=require channel_binding=require" % front.port])
    assert done.returncode == 2 and "channel binding check failed" in done.stderr, done
    done = world.psql(s.daemon, ["-Atc", "select 1", "host=localhost port=%d sslmode=require channel_binding=disable" % front.port])
    assert done.stdout == "1\n", "the man in the middle works: %r" % done

    back = Between(world.blue.address, *pair)
    d = world.daemon(sides={"blue": {"port": back.port, "tls": {"mode": "require"}}}, auth={"method": "scram-sha-256"},
                     start=False)
    d.start(wait=False)

    def bound():
        try:
            error = refusal(d.address, password="secret")
        except (OSError, pg.Closed):
            return False  # it doesn't listen yet
        return error is not None and "channel binding check failed" in error.message

    d.until(bound, what="the server refuses what was bound to somebody else's certificate")
    assert any(b"SCRAM-SHA-256-PLUS\0" in data and b"p=tls-server-end-point,," in data for data in back.seen)


# --- where verifiers come from


def test_query(world):
    """The operator's query gives verifiers: quoted by nobody, with a search_path of ours, and VALID UNTIL still counts."""
    world.pair(hba=SCRAM)
    world.blue.query("create schema logins; create table logins.verifiers (name text, verifier text);"
                     " create function logins.find(text) returns table (n text, v text) language sql as"
                     " $$ select name, verifier from logins.verifiers where name = $1 $$;"
                     " insert into logins.verifiers select rolname, rolpassword from pg_authid where rolname = 'app';"
                     " create role late login password 'secret' valid until '2001-01-01'; create role other login password 'secret';"
                     " insert into logins.verifiers select rolname, rolpassword from pg_authid where rolname = 'late';"
                     " insert into logins.verifiers select 'ghost', rolpassword from pg_authid where rolname = 'app';"
                     # what a search_path of somebody else's would find first
                     " create function public.rolvaliduntil() returns int language sql as 'select 1'", "app")
    d = world.daemon(auth={"method": "scram-sha-256", "query": "select * from logins.find($1)", "database": "app"})
    with pg.Connection(d.address, password="secret") as connection:
        assert connection.value("select 1") == "1"
    for user in ("late", "other", "ghost", "app'); drop table logins.verifiers; --", "\xc3\x28", "$1"):
        error = refusal(d.address, user=user, password="secret")
        assert error and error.sqlstate == "28P01", (user, error)
    with pg.Raw(d.address) as raw:  # a name that is no text in UTF-8
        raw.send(pg.startup({"user": b"\xff\xfe", "database": "app"}))
        assert raw.receive()[0] == "R"
    assert refusal(d.address, password="secret") is None
    assert refusal(d.address, password="secret", options="-c search_path=evil") is None
    reload(d, auth={"query": "select nonsense from nowhere where $1 = ''"})
    error = refusal(d.address, password="secret")
    assert error.sqlstate == "57P03" and "role_not_read side=blue user=app" in d.log_text(), error
    reload(d, auth={"query": "select verifier from logins.verifiers where name = $1"})
    assert refusal(d.address, password="secret") is None, "one column is the verifier"


def test_verifier_file(world):
    """PgBouncer's userlist.txt: the sides aren't asked for roles."""
    world.pair(hba=SCRAM)
    verifier = world.blue.query("select rolpassword from pg_authid where rolname = 'app'", "postgres")[0][0]
    world.blue.query("create role other login password 'secret'", "postgres")
    d = world.daemon(start=False)
    users = write(d, "users.txt", '"app" "%s"\n; "other" is missing\n' % verifier)
    d.write(auth={"method": "scram-sha-256", "verifier_file": users})
    d.start()
    assert refusal(d.address, password="secret") is None
    assert refusal(d.address, user="other", password="secret").sqlstate == "28P01"
    verifier = world.blue.query("select rolpassword from pg_authid where rolname = 'other'", "postgres")[0][0]
    with open(users, "a") as file:
        file.write('"other" "%s"\n' % verifier)
    reload(d)
    assert refusal(d.address, user="other", password="secret") is None
    # the same password, hashed with another salt: the server takes no proof of that one
    world.blue.query("create role twin login password 'secret'", "postgres")
    other = world.blue.query("select rolpassword from pg_authid where rolname = 'twin'", "postgres")[0][0]
    write(d, "users.txt", '"app" "%s"\n' % other)
    reload(d)
    error = refusal(d.address, password="secret")
    assert error.sqlstate == "28P01" and "at side blue" in error.message and "switchback check" in error.fields["H"], error
    write(d, "users.txt", '"app" "%s"\n' % world.blue.query("select rolpassword from pg_authid where rolname = 'app'", "postgres")[0][0])
    reload(d)
    write(d, "users.txt", '"app" "hunter2"\n')
    answer = d.verb("reload", json=False)
    assert answer.code != 0 and "users.txt:1: " in answer.err and "hunter2" not in answer.err + d.log_text(), answer
    assert refusal(d.address, password="secret") is None


# --- wrong passwords


def test_failed_logins(world):
    """Past the limit an address isn't asked any more, also with the right password; others are, and time heals."""
    world.pair(hba=SCRAM)
    d = world.daemon(auth={"method": "scram-sha-256", "failed_logins": {"max": 3, "window": "1h", "local": True}})
    for _ in range(3):
        assert refusal(d.address, password="wrong").sqlstate == "28P01"
    error = refusal(d.address, password="secret")
    assert error.sqlstate == "28000" and error.message == "too many failed logins from your address", error
    assert refusal(d.unix_address, password="secret") is None, "another address"
    assert "logins_blocked client=127.0.0.1" in d.log_text()
    d.until(lambda: d.metric("switchback_sessions_refused_total", reason="failed_logins") == 1, what="it is counted")
    reload(d, auth={"failed_logins": {"local": False}})
    assert refusal(d.address, password="secret") is None
    for _ in range(5):
        assert refusal(d.address, password="wrong").sqlstate == "28P01"


def test_no_key_for_the_server(world):
    """A login without a password meets a server that wants one: the client learns which line is missing, with TLS as well."""
    s = Scene(world, pair={"hba": SCRAM})
    hint = refusal(s.address).fields.get("H", "")
    assert 'hostssl "app" "app" 127.0.0.1/32' in hint and "side blue" in hint, hint
    assert refusal(s.address).sqlstate == "28000"
    world.blue.write_hba(TRUST)
    s.daemon.until(lambda: refusal(s.address) is None, what="the server lets it in")
