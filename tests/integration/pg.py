"""A client of PostgreSQL's wire protocol, 3.0 and 3.2, that can send anything in any order, split at any byte.

The tests use it where libpq is too well behaved: broken startup packets, pipelines without a Sync, a client that
goes away in mid-query. `Connection` also has the ordinary verbs (query, extended query, COPY, SCRAM login, cancel).
"""
import base64
import hashlib
import hmac
import os
import select
import socket
import struct
import time

PROTOCOL_3_0 = 196608
PROTOCOL_3_2 = 196610
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102


class PgError(Exception):
    """An ErrorResponse of the server."""

    def __init__(self, fields):
        self.fields = fields
        self.severity = fields.get("V") or fields.get("S")
        self.sqlstate = fields.get("C", "")
        self.message = fields.get("M", "")
        super().__init__("%s %s: %s" % (self.severity, self.sqlstate, self.message))


class Closed(Exception):
    """The server closed the connection."""


class ProtocolError(Exception):
    """The server sent what the protocol doesn't allow here."""


# --- building messages: each returns the bytes of one whole message


def message(kind, body=b""):
    return kind + struct.pack("!i", len(body) + 4) + body


def cstr(text):
    return (text.encode() if isinstance(text, str) else text) + b"\0"


def tells_its_protocols(answer):
    """The proxy speaks 3.2 as PostgreSQL 18 does. Where the newest server here is older, what names the range differs."""
    text = repr(answer)
    return "('v', " in text or "server supports 3.0 to 3.0" in text


def startup(params, version=PROTOCOL_3_0):
    body = struct.pack("!i", version) + b"".join(cstr(k) + cstr(v) for k, v in params.items()) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def query(sql):
    return message(b"Q", cstr(sql))


def parse(name, sql, oids=()):
    return message(b"P", cstr(name) + cstr(sql) + struct.pack("!h", len(oids)) + b"".join(struct.pack("!I", o) for o in oids))


def bind(portal, statement, values=(), result_formats=()):
    body = cstr(portal) + cstr(statement) + struct.pack("!hh", 0, len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            raw = value if isinstance(value, bytes) else str(value).encode()
            body += struct.pack("!i", len(raw)) + raw
    body += struct.pack("!h", len(result_formats)) + b"".join(struct.pack("!h", f) for f in result_formats)
    return message(b"B", body)


def execute(portal="", rows=0):
    return message(b"E", cstr(portal) + struct.pack("!i", rows))


def describe(kind, name):
    return message(b"D", kind.encode() + cstr(name))


def close(kind, name):
    return message(b"C", kind.encode() + cstr(name))


def copy_data(data):
    return message(b"d", data)


def copy_fail(reason):
    return message(b"f", cstr(reason))


def function_call(oid, arguments):
    body = struct.pack("!Ihh", oid, 0, len(arguments))
    for argument in arguments:
        raw = str(argument).encode()
        body += struct.pack("!i", len(raw)) + raw
    return message(b"F", body + struct.pack("!h", 0))


SYNC = message(b"S")
FLUSH = message(b"H")
COPY_DONE = message(b"c")
TERMINATE = message(b"X")


# --- reading messages


def fields(body):
    """The fields of an ErrorResponse or NoticeResponse."""
    return {chr(part[0]): part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}


def row(body):
    """The columns of a DataRow, as text."""
    count, = struct.unpack_from("!h", body)
    offset, columns = 2, []
    for _ in range(count):
        length, = struct.unpack_from("!i", body, offset)
        offset += 4
        if length < 0:
            columns.append(None)
        else:
            columns.append(body[offset:offset + length].decode("utf-8", "replace"))
            offset += length
    return tuple(columns)


class Raw:
    """A socket that speaks messages: for tests of startup and of broken streams."""

    def __init__(self, address, timeout=90, tls=None, server_name=None, direct=False):
        """tls: an SSLContext; the handshake follows an SSLRequest, or at once if `direct`."""
        self.address = address
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        if tls and not direct:
            self.send(struct.pack("!ii", 8, SSL_REQUEST))
            answer = self.socket.recv(1)
            if answer != b"S":
                self.socket.close()
                raise ProtocolError("the answer to an SSLRequest is %r" % answer)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def send_bytewise(self, data, size=1):
        """Each piece in a segment of its own."""
        for start in range(0, len(data), size):
            self.socket.sendall(data[start:start + size])
            time.sleep(0.0005)

    def fill(self, size):
        while len(self.buffer) < size:
            try:
                data = self.socket.recv(65536)
            except ConnectionError as error:
                raise Closed(str(error)) from None
            if not data:
                raise Closed("the server closed the connection")
            self.buffer += data

    def take(self, size):
        self.fill(size)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def receive(self):
        """One message: (type, body)."""
        self.fill(5)
        length, = struct.unpack_from("!i", self.buffer, 1)
        if length < 4:
            raise ProtocolError("length %d in a message of type %r" % (length, self.buffer[:1]))
        raw = self.take(length + 1)
        return chr(raw[0]), raw[5:]

    def readable(self, timeout):
        pending = getattr(self.socket, "pending", int)()
        return bool(self.buffer) or pending > 0 or bool(select.select([self.socket], [], [], timeout)[0])

    def closed_by_peer(self, timeout=25):
        """True if the peer closes, with or without last words, in time."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
                try:
                    data = self.socket.recv(65536)
                except ConnectionError:
                    return True
                if not data:
                    return True
                self.buffer += data
        return False

    def abandon(self):
        """Closes the socket without a word."""
        self.socket.close()

    def reset(self):
        """Closes the socket with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class Connection(Raw):
    """A logged-in session."""

    def __init__(self, address, user="app", database="app", password=None, timeout=90, version=PROTOCOL_3_0, tls=None,
                 server_name=None, direct=False, **params):
        super().__init__(address, timeout, tls, server_name, direct)
        self.parameters, self.notices, self.notifications = {}, [], []
        self.pid = self.key = None
        self.status = "?"
        self.tags = []
        try:
            self.send(startup(dict({"user": user, "database": database}, **params), version))
            self._login(user, password)
        except BaseException:
            self.socket.close()
            raise

    def _login(self, user, password):
        scram = None
        while True:
            kind, body = self.receive()
            if kind == "R":
                code, = struct.unpack_from("!i", body)
                if code == 10:
                    if b"SCRAM-SHA-256" not in body[4:].split(b"\0"):
                        raise ProtocolError("no SCRAM-SHA-256 in %r" % body)
                    scram = Scram(password or "")
                    first = scram.first()
                    self.send(message(b"p", cstr("SCRAM-SHA-256") + struct.pack("!i", len(first)) + first))
                elif code == 11:
                    self.send(message(b"p", scram.final(body[4:])))
                elif code == 12:
                    scram.check(body[4:])
                elif code == 5:
                    self.send(message(b"p", cstr(md5_answer(user, password or "", body[4:]))))
                elif code != 0:
                    raise ProtocolError("authentication request %d" % code)
            elif self._aside(kind, body):
                pass
            elif kind == "K":
                self.pid, = struct.unpack_from("!i", body)
                self.key = body[4:]
            elif kind == "E":
                raise PgError(fields(body))
            elif kind == "Z":
                self.status = body.decode()
                return
            elif kind != "v":
                raise ProtocolError("message %r during login" % kind)

    def _aside(self, kind, body):
        """Messages that may come at any time."""
        if kind == "N":
            self.notices.append(fields(body))
        elif kind == "S":
            name, value = body[:-1].split(b"\0")[:2]
            self.parameters[name.decode()] = value.decode()
        elif kind == "A":
            channel, payload = body[4:-1].split(b"\0")
            self.notifications.append((struct.unpack_from("!i", body)[0], channel.decode(), payload.decode()))
        else:
            return False
        return True

    def until_ready(self):
        """Everything up to ReadyForQuery as [(type, body)], asynchronous messages set aside."""
        seen = []
        while True:
            kind, body = self.receive()
            if self._aside(kind, body):
                continue
            seen.append((kind, body))
            if kind == "Z":
                self.status = body.decode()
                return seen

    def results(self):
        """The result sets up to ReadyForQuery; the first error is raised once that has come."""
        sets, current, error, self.tags = [], None, None, []
        while True:
            try:
                kind, body = self.receive()
            except Closed:
                if error:
                    raise error from None
                raise
            if self._aside(kind, body):
                continue
            if kind == "T":
                current = []
                sets.append(current)
            elif kind == "D":
                if current is None:
                    current = []
                    sets.append(current)
                current.append(row(body))
            elif kind == "C":
                self.tags.append(body[:-1].decode())
                current = None
            elif kind == "E":
                error = error or PgError(fields(body))
            elif kind == "Z":
                self.status = body.decode()
                if error:
                    raise error
                return sets

    def query(self, sql):
        """Rows of the last result set of a simple query."""
        self.send(query(sql))
        sets = self.results()
        return sets[-1] if sets else []

    def value(self, sql):
        rows = self.query(sql)
        return rows[0][0] if rows else None

    def extended(self, sql, values=()):
        """Rows of an unnamed statement."""
        self.send(parse("", sql), bind("", "", values), describe("P", ""), execute(), SYNC)
        sets = self.results()
        return sets[-1] if sets else []

    def prepare(self, name, sql, oids=()):
        self.send(parse(name, sql, oids), SYNC)
        self.results()

    def run(self, name, values=()):
        """Rows of a named statement."""
        self.send(bind("", name, values), execute(), SYNC)
        sets = self.results()
        return sets[-1] if sets else []

    def error(self, sql):
        """The error that a simple query ends in, None if it succeeds."""
        try:
            self.query(sql)
        except PgError as error:
            return error
        return None

    def notification(self, timeout=60):
        """The next notification; None if none comes in time."""
        end = time.monotonic() + timeout
        while not self.notifications:
            if not self.readable(max(0, end - time.monotonic())):
                return None
            kind, body = self.receive()
            if not self._aside(kind, body):
                raise ProtocolError("message %r while idle" % kind)
        return self.notifications.pop(0)

    def cancel(self):
        """Sends a cancel request for this session, on a connection of its own, and waits until that is closed."""
        cancel(self.address, self.pid, self.key)

    def cancelled(self, sql="select pg_sleep(300)"):
        """The error that a statement ends in when it is cancelled: more than once, as a cancel may come before it runs."""
        self.send(query(sql))
        while not self.readable(0.5):
            self.cancel()
        try:
            self.results()
        except PgError as error:
            return error
        raise AssertionError("it was not cancelled")

    def close(self):
        try:
            self.socket.sendall(TERMINATE)
        except OSError:
            pass
        self.socket.close()

    def __exit__(self, *_):
        self.close()


def cancel(address, pid, key):
    with Raw(address) as raw:
        raw.send(struct.pack("!iii", 12 + len(key), CANCEL_REQUEST, pid) + key)
        raw.closed_by_peer()


def md5_answer(user, password, salt):
    stored = hashlib.md5(password.encode() + user.encode()).hexdigest()
    return "md5" + hashlib.md5(stored.encode() + salt).hexdigest()


class Scram:
    """The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677); header and binding: of channel binding."""

    def __init__(self, password, header="n,,", binding=b""):
        self.password, self.header, self.binding = password.encode(), header, binding
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.bare = "n=,r=" + self.nonce

    def first(self):
        return (self.header + self.bare).encode()

    def final(self, server_first):
        server_first = server_first.decode()
        parts = dict(part.split("=", 1) for part in server_first.split(","))
        if not parts["r"].startswith(self.nonce):
            raise ProtocolError("the server's nonce doesn't extend ours")
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        channel = base64.b64encode(self.header.encode() + self.binding).decode()
        without_proof = "c=%s,r=%s" % (channel, parts["r"])
        text = ",".join((self.bare, server_first, without_proof)).encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), text, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self.server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), text, "sha256")
        return (without_proof + ",p=" + base64.b64encode(proof).decode()).encode()

    def check(self, server_final):
        if server_final != b"v=" + base64.b64encode(self.server_signature):
            raise ProtocolError("the server's signature is wrong")
