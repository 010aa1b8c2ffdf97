"""The control socket, the verbs' manners, http, events and the audit log."""
import json
import os
import socket
import sqlite3
import struct
import subprocess
import time

import pg


def lines(connection):
    return connection.makefile("rb")


def opened(d):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(90)
    for _ in range(500):
        try:
            connection.connect(d.socket_path)
            break
        except BlockingIOError:  # its queue is full at the moment
            time.sleep(0.02)
    return connection


def test_socket_abuse(world):
    """Malformed, oversized and hostile requests get an error, and the daemon lives."""
    world.pair()
    d = world.daemon()
    good = b'{"jsonrpc":"2.0","id":7,"method":"version"}\n'
    for bad in (b"\n", b"nonsense\n", b"{}\n", b"[]\n", b"null\n", b'{"jsonrpc":"1.0","id":1,"method":"version"}\n',
                b'{"jsonrpc":"2.0","id":1}\n', b'{"jsonrpc":"2.0","id":1,"method":5}\n', b'{"jsonrpc":"2.0","id":1,"method":"no_such_method"}\n',
                b'{"jsonrpc":"2.0","id":1,"method":"version","params":[1]}\n', b'{"jsonrpc":"2.0","id":1,"method":"version","params":{"x":1}}\n',
                b'{"jsonrpc":"2.0","id":{"a":1},"method":"version"}\n', b"\0\0\0\n", b"\xff\xfe\n", b"[" * 30000 + b"\n",
                b'{"jsonrpc":"2.0","id":1,"method":"hold","params":{"for":"-5s","reason":"x"}}\n',
                b'{"jsonrpc":"2.0","id":1,"method":"cutover","params":{"dry_run":"yes"}}\n',
                b'[{"jsonrpc":"2.0","id":1,"method":"version"}]\n'):
        with opened(d) as connection:
            connection.sendall(bad)
            connection.sendall(good)
            seen = [json.loads(line) for line in _until_seven(connection)]
            if bad != b"\n":
                assert any("error" in answer for answer in seen) or seen[-1].get("id") != 7, (bad, seen)
    with opened(d) as connection:  # more than 64 KiB without an end of line
        try:
            connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 200000)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except OSError:
            pass
        assert not answer or "error" in json.loads(answer.splitlines()[0])
    with opened(d) as connection:  # byte by byte, and many at once
        for byte in good:
            connection.sendall(bytes([byte]))
        assert json.loads(lines(connection).readline())["result"]["version"]
    with opened(d) as connection:
        connection.sendall(b"".join(good.replace(b"7", b"%d" % i) for i in range(100, 400)))
        stream = lines(connection)
        ids = {json.loads(stream.readline())["id"] for _ in range(300)}
        assert len(ids) == 300
    crowd = [opened(d) for _ in range(60)]
    for connection in crowd:
        connection.close()
    for _ in range(20):
        connection = opened(d)
        connection.sendall(good)
        connection.close()
    assert d.verb("version", code=0).json["version"]


def _until_seven(connection):
    """The lines up to the answer to `good`, or up to the end."""
    for line in lines(connection):
        yield line
        if json.loads(line).get("id") == 7:
            return


def test_verbs_and_exit_codes(world):
    world.pair()
    d = world.daemon()
    assert d.verb("version", json=False, code=0).out.strip()
    overview = d.verb("help", json=False, code=0).out
    for verb in ("serve", "status", "check", "prepare", "cutover", "flip-back", "abort", "hold", "release", "sessions", "events", "watch",
                 "audit", "finalize", "reload", "rpc", "help", "version"):
        assert verb in overview, verb
        page = d.verb("help", verb, json=False, code=0)
        assert verb in page.out and len(page.out.splitlines()) > 3, page
        assert d.verb(verb, "--help", json=False, code=0).out == page.out, verb
    for wrong in (["no-such-verb"], ["status", "--no-such-flag"], ["cutover", "extra"], ["hold"], ["hold", "--for"], ["rpc"],
                  ["serve", "--nonsense"], ["help", "no-such-verb"], []):
        answer = d.verb(*wrong, json=False)
        assert answer.code == 2 and answer.err, (wrong, answer)
    for verb in ("status", "check", "cutover", "sessions", "reload"):
        answer = d.verb(verb, "--socket", "/nonexistent/socket")
        assert answer.code == 5 and answer.json["error"]["code"] == "daemon_unreachable", answer
    answer = d.verb("rpc", "version", "{}", json=False, code=0)
    assert json.loads(answer.out), answer
    assert d.verb("rpc", "no_such_method", "{}").code != 0
    human = d.verb("status", json=False, code=0).out
    for word in ("active", "blue", "way back", "clients"):
        assert word in human, human
    assert d.verb("sessions", json=False, code=0) and d.verb("check", json=False).out


def test_roles(world):
    """Who may look may not act; strangers may do nothing."""
    if os.geteuid() != 0:
        return  # needs other users to be
    world.pair()
    d = world.daemon(control={"viewers": ["nobody"], "operators": ["daemon"]})

    def ask(user, method, params=None):
        text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})
        program = ("import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()+b'\\n');"
                   " print(s.makefile().readline())")
        done = subprocess.run(["/usr/bin/python3", "-c", program, d.socket_path, text], user=user, group="nogroup", extra_groups=[],
                              capture_output=True, text=True, timeout=180)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            return "unreachable"
        return answer["error"]["data"]["code"] if "error" in answer else "ok"
    assert ask("nobody", "status") == "ok" and ask("daemon", "status") == "ok"
    assert ask("nobody", "reload") == "permission_denied" and ask("nobody", "cutover") == "permission_denied"
    assert ask("daemon", "reload") == "ok"
    assert ask("games", "status") in ("permission_denied", "unreachable")
    rows = d.verb("audit", code=0).json["rows"]
    assert any(row["actor"] == "daemon" and "reload" in row["action"] + str(row["detail"]) for row in rows), rows
    assert any(row["actor"] == "nobody" and "reload" in row["action"] + str(row["detail"]) for row in rows), rows


def test_http(world):
    d = world.prepared()
    client = world.connect()
    for _ in range(20):
        client.query("select 1")
    client.error("select 1/0")
    assert d.http("/healthz")[0] == 200 and d.http("/readyz")[0] == 200 and d.http("/nothing")[0] == 404
    text = d.http("/metrics")[1]
    for line in text.splitlines():
        assert line.startswith("# ") or line.rpartition(" ")[0].startswith("switchback_"), line
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for name in ("switchback_active", "switchback_sessions", "switchback_statements_total", "switchback_errors_total",
                 "switchback_statement_seconds", "switchback_lag_seconds", "switchback_lag_bytes", "switchback_flips_total"):
        assert name in typed, (name, typed)
    d.until(lambda: (d.metric("switchback_statements_total", side="blue") or 0) >= 21, what="statements are counted")
    assert d.metric("switchback_active", side="blue") == 1 and d.metric("switchback_active", side="green") == 0
    assert d.metric("switchback_errors_total", side="blue") >= 1
    for bad in (b"POST /metrics HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n", b"GET /" + b"x" * 100000 + b" HTTP/1.0\r\n\r\n", b"\0" * 100):
        with socket.create_connection(("127.0.0.1", d.http_port)) as connection:
            connection.settimeout(90)
            try:
                connection.sendall(bad)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(100)
            except OSError:
                continue
            assert not answer.startswith(b"HTTP/1.0 200") and not answer.startswith(b"HTTP/1.1 200"), (bad[:20], answer)
    world.blue.stop()
    d.until(lambda: d.http("/readyz")[0] == 503, what="not ready without the active side")
    assert d.http("/healthz")[0] == 200
    world.blue.start()
    d.until(lambda: d.http("/readyz")[0] == 200, what="ready again")


def test_audit(world):
    """Each act is in the chain; a changed row is found."""
    d = world.prepared()
    d.verb("cutover", "--reason", "for the audit", code=0)
    d.wait_steady("green")
    answer = d.verb("audit", "--verify", code=0).json
    assert answer["intact"] and answer["rows"] >= 2, answer
    rows = d.verb("audit", code=0).json["rows"]
    assert rows[0]["actor"] and any("for the audit" in str(row["detail"]) for row in rows), rows
    seq = rows[len(rows) // 2]["seq"]
    d.stop()
    base = os.path.join(d.settings["state"]["dir"], "switchback.db")
    with sqlite3.connect(base) as connection:
        names = [name for name, in connection.execute("select name from sqlite_master where type = 'table'")]
        table = next(name for name in names if "audit" in name)
        for trigger, in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            connection.execute('drop trigger "%s"' % trigger)
        connection.execute("update %s set detail = detail || ' forged' where seq = ?" % table, (seq,))
    connection.close()
    d.start()
    answer = d.verb("audit", "--verify", code=1).json
    assert not answer["intact"] and answer["broken_seq"] == seq, (answer, seq)


def test_events(world):
    """The stream tells what happens, in order, and can be picked up again."""
    d = world.prepared()
    run = d.start_verb("events", "--follow")
    seen = [json.loads(run.process.stdout.readline())]  # what was before comes first: it listens
    d.verb("cutover", code=0)
    d.wait_steady("green")
    last = [json.loads(line) for line in d.verb("events", code=0).out.splitlines()][-1]["seq"]
    while seen[-1]["seq"] < last:
        seen.append(json.loads(run.process.stdout.readline()))
    run.process.terminate()
    run.process.communicate(timeout=120)
    assert [e["seq"] for e in seen] == sorted({e["seq"] for e in seen}), seen
    phases = [e["phase"] for e in seen if e["type"] == "phase"]
    assert phases and phases.index("fence") < phases.index("open"), phases
    last = seen[len(seen) // 2]["seq"]
    rest = [json.loads(line) for line in d.verb("events", "--since", last, code=0).out.splitlines()]
    assert rest and rest[0]["seq"] == seen[len(seen) // 2 + 1]["seq"], (last, rest[:2])
    watch = d.start_verb("watch")
    first = watch.process.stdout.readline()
    d.verb("flip-back", code=0)
    second = watch.process.stdout.readline()
    watch.process.terminate()
    out, err = watch.process.communicate(timeout=120)
    assert all(json.loads(line) for line in [first, second] + out.splitlines()), (first, second, out, err)


def test_statistics_by_side(world):
    d = world.prepared()
    client = world.connect()
    client.query("select 1")
    d.verb("cutover", code=0)
    for _ in range(10):
        client.query("select 1")
    d.until(lambda: (d.metric("switchback_statements_total", side="green") or 0) >= 10, what="green's statements are counted")
    sessions = d.verb("sessions", code=0).json["sessions"]
    assert [s["side"] for s in sessions] == ["green"] and sessions[0]["user"] == "app", sessions


def test_log_cannot_be_forged(world):
    """What clients call themselves is escaped in the log and in the output."""
    world.pair()
    d = world.daemon()
    evil = "a\nforged line event=x\r\x1b[31m"
    for arguments in ({"user": evil}, {"database": evil}, {"application_name": evil}):
        try:
            pg.Connection(d.address, **arguments).close()
        except pg.PgError:
            pass
    client = world.connect(application_name=evil)
    d.until(lambda: d.verb("sessions", code=0).json["sessions"], what="the session")
    human = d.verb("sessions", json=False, code=0).out
    assert "\x1b" not in human and "\nforged" not in human, human
    assert "\nforged" not in d.log_text() and "\x1b" not in d.log_text()
    assert client.value("select 1") == "1"


def test_clients_with_reset_connections(world):
    """Half-open control connections don't keep the daemon from ending."""
    world.pair()
    d = world.daemon()
    stuck = [opened(d) for _ in range(5)]
    stuck[0].sendall(b'{"jsonrpc":"2.0","id":1,"method":"subscribe"}\n')
    stuck[1].sendall(b'{"jsonrpc":"2.0"')
    stuck[2].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stuck[2].close()
    assert d.stop() == 0
    for connection in stuck:
        connection.close()
    assert not os.path.exists(d.socket_path)
