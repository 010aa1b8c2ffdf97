"""The rules of an HBA file, judged by PostgreSQL and by the proxy: random files, the same verdicts."""
import os
import pwd
import random
import struct

import pg
from certificates import Authority
from test_auth import write

USERS = ("ann", "bob", "eve", "ann_x", "svc_1", "a b", "all", "+team", "nobody")
DATABASES = ("app", "shop", "ann", "team", "db_1", "db 2")
TYPES = ("host", "host", "host", "local", "hostnossl", "hostssl", "hostnogssenc")
ADDRESSES = ("all", "127.0.0.1/32", "127.0.0.0/8", "127.0.0.9/8", "10.0.0.0/8", "0.0.0.0/0", "::1/128", "::/0", "samehost", "samenet",
             "127.0.0.1 255.255.255.255", "127.0.0.0 255.0.0.0", "10.0.0.0 255.0.0.0", "0.0.0.0 0.0.0.0")
METHODS = ("trust", "trust", "reject", "scram-sha-256", "md5")
NONSENSE = ("hots all all all trust", "host", "host all", "host all all", "host all all all", "local all all", "host all all all nonsense",
            "host all all 127.0.0.1/33 trust", "host all all 127.0.0.1 trust", "host all all ::1 255.255.255.0 trust", "local all all peer x",
            "host all all 127.0.0.0/8,10.0.0.0/8 trust", "host all all all trust,reject", "local,host all all trust", "host all all all peer",
            "host all all all trust map=x", "host all all all trust clientcert=verify-ca", "host all all all cert", "host /( all all trust",
            "host all /( all trust", "host all all 127.0.0.1/ trust", "host all all 127.0.0.1/8x trust", "host all all 1.2.3.4/-1 trust",
            "hostssl all all all cert clientcert=verify-ca", "include /nowhere/at/all",
            "host all all all trust nonsense=1", "host @nowhere all all trust")


def names(rng, plain, keywords, group):
    """A field of names as somebody might write it."""
    words = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        word = rng.choice(plain)
        kind = rng.random()
        if kind < 0.35:
            word = rng.choice(keywords)
        elif kind < 0.45:
            word = "/" + rng.choice(("^a", "_", "^svc_[0-9]+$", "b$", "^(ann|bob)$", "."))
            word = '"%s{1,9}"' % word if rng.random() < 0.1 and word[-1] not in "$" else word
        elif kind < 0.55:
            word = group
        elif " " in word or word.startswith("+") or rng.random() < 0.2:
            word = '"%s"' % word
        elif kind > 0.95:
            word = '"%s"' % rng.choice(keywords)
        words.append(word)
    return rng.choice((",", ", ", ",")).join(words)


def maps(rng):
    """Lines of pg_ident.conf: whom this process may be."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    lines = ["m somebody ann"]
    for _ in range(rng.randint(0, 3)):
        groups = rng.random() < 0.5
        name = "/" + rng.choice(("^(.*)$", "(.)", "^%s(.*)$" % me, "^(x)")) if groups else rng.choice((me, "/^" + me[0], "/^x", "joe"))
        roles = ("ann", "all", '"all"', "+team", "/^svc_", '"a b"', "nobody")
        lines.append("%s %s %s" % (rng.choice("mmn"), name, rng.choice(roles + ("\\1", "svc_\\11", "ann\\1") if groups else roles)))
    return lines


def rules(rng):
    lines = []
    for _ in range(rng.randint(2, 7)):
        if rng.random() < 0.1:
            lines.append(rng.choice(("# a comment", "", "   ", "include more.conf", "include_if_exists /nowhere/at/all", "\t# x")))
            continue
        kind = rng.choice(TYPES)
        parts = [kind, names(rng, DATABASES, ("all", "sameuser", "samerole", "replication"), "@dbs"), names(rng, USERS, ("all",), "+team")]
        if kind != "local":
            parts.append(rng.choice(ADDRESSES))
        parts.append(rng.choice(METHODS) if kind != "local" or rng.random() < 0.5 else rng.choice(("peer", "peer map=m", "ident map=m")))
        line = rng.choice((" ", "\t", "   ")).join(parts)
        if rng.random() < 0.1:
            line = line.replace(" ", " \\\n ", 1)
        lines.append(line + rng.choice(("", "", " # why")))
    return lines


def verdict(address, user, database, tls=None, **more):
    """What a client is asked for first, or why it is refused."""
    with pg.Raw(address, tls=tls) as raw:
        raw.send(pg.startup(dict({"user": user, "database": database}, **more)))
        kind, body = raw.receive()
        if kind == "R":
            code, = struct.unpack_from("!i", body)
            return "asked for %d" % code if code else "may come in"
        sqlstate = pg.fields(body)["C"]
        return "may come in" if sqlstate != "28000" else "rejected"


class Judges:
    """A cluster with the rules, and the proxy with them in front of one that lets in everybody."""

    def __init__(self, world):
        sockets = os.path.join(world.folder, "sockets")
        os.mkdir(sockets)
        os.chmod(sockets, 0o777)
        world.pair(databases=("app", "shop", "ann", "team", "db_1", "db 2"))
        self.ca = Authority(world.folder)
        cert, key = self.ca.sign("reference", owner="cluster")
        self.reference = world.cluster("reference", new=True, unix_socket_directories=sockets, ssl="on", ssl_cert_file=cert,
                                       ssl_key_file=key, ssl_ca_file=self.ca.cert)
        self.local = os.path.join(sockets, ".s.PGSQL.%d" % self.reference.port)
        for side in (world.blue, self.reference):
            for user in USERS[:-1]:
                side.query('create role "%s" login' % user, "postgres")
            side.query('create role team; grant team to ann; grant ann to bob', "postgres")
        for database in DATABASES:
            self.reference.query('create database "%s"' % database, "postgres")
        cert, key = self.ca.sign("proxy")
        self.daemon = world.daemon(databases=list(DATABASES), start=False,
                                   listen={"tls": {"mode": "prefer", "cert": cert, "key": key, "ca": self.ca.cert}})
        self.daemon.write(auth={"method": "hba", "hba_file": self.set("host all all all trust\n", "m x y\n"), "ident_file": "ident.conf"})
        self.daemon.start()

    def set(self, text, ident="m x y\n"):
        """The files for both, with the way in for this test above the rules."""
        write(self.daemon, "ident.conf", ident)
        with open(os.path.join(self.reference.data, "pg_ident.conf"), "w") as file:
            file.write(ident)
        for folder in (self.daemon.folder, self.reference.data):
            for name, content in (("dbs", "shop\ndb_1 # two\n"), ("more.conf", "host shop eve all reject\n")):
                with open(os.path.join(folder, name), "w") as file:
                    file.write(content)
        with open(os.path.join(self.reference.data, "pg_hba.conf"), "w") as file:
            file.write("host all,replication postgres 127.0.0.1/32 trust\n" + text)
        return write(self.daemon, "hba.conf", "host all,replication postgres 127.0.0.1/32 trust\n" + text)

    def wrong_lines(self):
        """Of the file as it stands: (PostgreSQL's, the proxy's)."""
        rows = self.reference.query("select line_number from pg_hba_file_rules where error is not null order by 1", "postgres")
        answer = self.daemon.verb("serve", "-c", self.daemon.config_path, "--check-config", json=False)
        ours = sorted({int(part.split("hba.conf:")[1].split(":")[0]) for part in answer.err.splitlines() + answer.err.split("; ")
                       if "hba.conf:" in part and "event" not in part})
        return [int(row[0]) for row in rows], ours

    def load(self):
        before = self.reference.query("select clock_timestamp()", "postgres")[0][0]
        self.reference.query("select pg_reload_conf()", "postgres")
        self.daemon.until(lambda: self.reference.query("select pg_conf_load_time() > '%s'" % before, "postgres") == [("t",)],
                          what="the reference has read its rules")
        answer = self.daemon.verb("reload", json=False)
        assert answer.code == 0, answer


def test_the_same_verdicts(world):
    judges = Judges(world)
    if judges.reference.version < 16:
        return  # patterns and included files came with 16
    seed = int(os.environ.get("SWITCHBACK_SEED", random.randrange(1 << 30)))
    rng = random.Random(seed)
    print("seed", seed)
    kinds = {}
    for number in range(int(os.environ.get("SWITCHBACK_ROUNDS", 6))):
        text, ident = "\n".join(rules(rng)) + "\n", "\n".join(maps(rng)) + "\n"
        judges.set(text, ident)
        theirs, ours = judges.wrong_lines()
        assert theirs == ours, "round %d of seed %d: lines %r, here %r:\n%s" % (number, seed, theirs, ours, text)
        if theirs:
            continue
        judges.load()
        for user in USERS:
            for database, more in [(name, {}) for name in DATABASES] + [("", {"replication": "true"})]:
                for address, reference, tls in ((judges.daemon.address, judges.reference.address, None),
                                                (judges.daemon.address, judges.reference.address, judges.ca.client()),
                                                (judges.daemon.unix_address, judges.local, None)):
                    expected = verdict(reference, user, database, tls, **more)
                    found = verdict(address, user, database, tls, **more)
                    kinds[expected] = kinds.get(expected, 0) + 1
                    # a rule for a role that doesn't exist may let it in, then it is told so in other words
                    assert expected == found or user == "nobody" and "asked for" not in expected + found, \
                        "round %d of seed %d: %r %s as %r to %r %r: %s, here %s:\n%s" % (
                            number, seed, address, "with TLS" if tls else "", user, database, more, expected, found, text + ident)
    print(kinds)


def test_the_same_mistakes(world):
    """Each of these lines is refused by both, at the same place."""
    judges = Judges(world)
    if judges.reference.version < 16:
        return
    for line in NONSENSE:
        judges.set("local all all trust\n\n%s\nhost all all all trust\n" % line)
        theirs, ours = judges.wrong_lines()
        assert theirs == ours == [4], (line, theirs, ours)
