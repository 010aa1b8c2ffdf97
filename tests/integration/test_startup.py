"""Everything that can come first on a connection: the proxy answers as a server of the newest version it speaks does."""
import concurrent.futures
import struct

import cluster
import pg

SSL = struct.pack("!ii", 8, pg.SSL_REQUEST)
GSS = struct.pack("!ii", 8, pg.GSSENC_REQUEST)
USER = {"user": "app", "database": "app"}


def packet(code, body=b"", length=None):
    return struct.pack("!iI", 8 + len(body) if length is None else length, code) + body


OPENINGS = {
    "nothing": b"",
    "one byte": b"\0",
    "half a length": b"\0\0\0",
    "length 0": b"\0\0\0\0",
    "length 3": b"\0\0\0\3",
    "length 4": b"\0\0\0\4",
    "length 7": b"\0\0\0\7abc",
    "length only": b"\0\0\0\x08",
    "negative length": b"\xff\xff\xff\xff\0\3\0\0",
    "length 10000": packet(196608, cstr := b"user\0app\0", 10000),
    "length 10001": struct.pack("!ii", 10001, 196608) + b"x" * 9993,
    "length 10000, whole": struct.pack("!ii", 10000, 196608) + b"user\0app\0database\0app\0application_name\0" + b"x" * 9951 + b"\0\0",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "protocol 0.0": packet(0),
    "protocol 1.0": packet(1 << 16),
    "protocol 2.0": packet(2 << 16, b"x" * 288),
    "protocol 4.0": packet(4 << 16, b"user\0app\0\0"),
    "protocol 65535.65535": packet(0xffffffff, b"user\0app\0\0"),
    "protocol 1234.0": packet(1234 << 16),
    "3.0": pg.startup(USER),
    "3.1": pg.startup(USER, 3 << 16 | 1),
    "3.2": pg.startup(USER, 3 << 16 | 2),
    "3.3": pg.startup(USER, 3 << 16 | 3),
    "3.9999": pg.startup(USER, 3 << 16 | 9999),
    "3.65535": pg.startup(USER, 3 << 16 | 65535),
    "3.0, options": pg.startup(dict(USER, **{"_pq_.a": "1", "_pq_.": "", "_pq_": "x"})),
    "3.0, unknown options": pg.startup(dict(USER, **{"_pq_.a": "1", "_pq_.b": ""})),
    "3.2, unknown options": pg.startup(dict(USER, **{"_pq_.a": "1", "_pq_.b": ""}), 3 << 16 | 2),
    "3.9999, unknown options": pg.startup(dict(USER, **{"_pq_.test_protocol_negotiation": ""}), 3 << 16 | 9999),
    "options before the user": packet(196608, b"_pq_.x\0y\0user\0app\0database\0app\0\0"),
    "no user": pg.startup({"database": "app"}),
    "an empty user": pg.startup({"user": "", "database": "app"}),
    "an empty database": pg.startup({"user": "app", "database": ""}),
    "no parameters": packet(196608, b"\0"),
    "nothing at all": packet(196608),
    "no terminator": packet(196608, b"user\0app\0"),
    "no final NUL": packet(196608, b"user\0app"),
    "a name without value": packet(196608, b"user\0app\0database\0\0"),
    "garbage behind the end": packet(196608, b"user\0app\0\0database\0app\0\0"),
    "twice the same": packet(196608, b"user\0nobody\0user\0app\0database\0app\0\0"),
    "an unknown setting": pg.startup(dict(USER, no_such_setting="1")),
    "a prefixed setting": pg.startup(dict(USER, **{"my.setting": "1"})),
    "a wrong value": pg.startup(dict(USER, work_mem="much")),
    "a setting that can't be set": pg.startup(dict(USER, max_connections="5")),
    "options": pg.startup(dict(USER, options="-c geqo=off")),
    "wrong options": pg.startup(dict(USER, options="-c geqo=perhaps")),
    "broken options": pg.startup(dict(USER, options="-c")),
    "unknown options": pg.startup(dict(USER, options="-Z")),
    "replication": pg.startup(dict(USER, replication="perhaps")),
    "a long user": pg.startup({"user": "u" * 100, "database": "app"}),
    "no such user": pg.startup({"user": "nobody", "database": "app"}),
    "an odd encoding": pg.startup(dict(USER, client_encoding="no such")),
    "a query behind it": pg.startup(USER) + pg.query("select 1"),
    "a password behind it": pg.startup(USER) + pg.message(b"p", b"secret\0"),
    "garbage behind it": pg.startup(USER) + b"\0\0\0\0\0\0",
    "SSL, body": packet(pg.SSL_REQUEST, b"x"),
    "GSS, body": packet(pg.GSSENC_REQUEST, b"x"),
    "cancel, short": packet(pg.CANCEL_REQUEST, b"\0\0\0"),
    "cancel, no key": packet(pg.CANCEL_REQUEST, b"\0\0\0\1"),
    "cancel, unknown": packet(pg.CANCEL_REQUEST, b"\0\0\0\1abcd"),
    "cancel, long": packet(pg.CANCEL_REQUEST, b"\0\0\0\1" + b"k" * 256),
    "cancel, too long": packet(pg.CANCEL_REQUEST, b"\0\0\0\1" + b"k" * 257),
    "cancel, more behind it": packet(pg.CANCEL_REQUEST, b"\0\0\0\1abcd") + pg.startup(USER),
    "negotiation twice": pg.startup(USER, 3 << 16 | 3) + pg.startup(USER, 3 << 16 | 3),
}


def heard(address, sent, patience=5):
    """What a peer makes of it, up to ReadyForQuery or the end; or that it waits for more for so long (seconds)."""
    with pg.Raw(address, timeout=patience) as raw:
        raw.send(sent)
        seen = []
        try:
            while True:
                kind, body = raw.receive()
                if kind == "K":
                    body = len(body)
                elif kind in "EN":
                    body = sorted((k, v) for k, v in pg.fields(body).items() if k not in "FLR")
                seen.append((kind, body))
                if kind == "Z" and not raw.readable(0.05):
                    return seen
        except pg.Closed:
            return seen + ["closed", raw.buffer]
        except TimeoutError:
            return seen + ["waits"]
        except pg.ProtocolError:
            return seen + ["not a message", raw.buffer]


def test_openings(world):
    newest = cluster.ALL_BINS[-1]
    world.pair(blue_binaries=newest)
    d = world.daemon()
    speaks_3_2 = world.blue.value("select current_setting('server_version_num')::int >= 180000") == "t"
    different = []
    with concurrent.futures.ThreadPoolExecutor(20) as pool:  # some wait for more, and so do we
        asked = {name: [pool.submit(heard, address, sent) for address in (world.blue.address, d.address)]
                 for name, sent in OPENINGS.items()}
    for name, futures in asked.items():
        direct, through = (future.result() for future in futures)
        if direct != through:  # perhaps one of them was only slow
            direct, through = (heard(address, OPENINGS[name], 20) for address in (world.blue.address, d.address))
        if direct != through and (speaks_3_2 or not pg.tells_its_protocols(direct)):
            different.append(name)
            print("%s: direct %r\n     through the proxy %r" % (name, direct[:3], through[:3]))
    assert not different, different
