"""Clients that go away, servers that go away, and peers that don't read."""
import os
import signal
import socket
import threading
import time

import pg

SLEEPING = "select count(*) from pg_stat_activity where usename = 'app' and state <> 'idle'"
OURS = "select count(*) from pg_stat_activity where usename = 'app'"


def resident_bytes(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_client_gone_while_idle_in_transaction(world):
    world.pair()
    d = world.daemon()
    connection = pg.Connection(d.address)
    connection.query("begin; create table half (id int)")
    connection.abandon()
    d.until(lambda: world.blue.value(OURS) == "0", what="its backend is gone")
    assert world.blue.value("select to_regclass('half')") is None


def test_client_gone_in_mid_copy(world):
    world.pair()
    d = world.daemon()
    world.blue.query("create table t (id int); grant all on t to app")
    connection = pg.Connection(d.address)
    connection.send(pg.query("copy t from stdin"), pg.copy_data(b"1\n2\n"))
    d.until(lambda: world.blue.value(SLEEPING) == "1", what="the copy runs")
    connection.abandon()
    d.until(lambda: world.blue.value(OURS) == "0", what="its backend is gone")
    assert world.blue.value("select count(*) from t") == "0"


def test_server_killed(world):
    """kill -9 of the cluster: an error, not silence; once it is back, so are logins."""
    world.pair()
    d = world.daemon()
    idle, busy = world.connect(), world.connect()
    busy.send(pg.query("select pg_sleep(300)"))
    d.until(lambda: world.blue.value(SLEEPING) == "1", what="the statement runs")
    world.blue.kill()
    for connection, states in ((idle, ("08006", "57P01", "57P02")), (busy, ("08007",))):
        assert connection.closed_by_peer()
        kinds = []
        while connection.buffer:
            kinds.append(connection.receive())
        errors = [pg.fields(body) for kind, body in kinds if kind == "E"]
        assert errors and errors[0]["C"] in states, kinds
    try:
        pg.Connection(d.address).close()
        raise AssertionError("a login without a server")
    except pg.PgError as error:
        assert error.sqlstate in ("57P03", "08006", "08001"), error
    world.blue.start()

    def login():
        try:
            pg.Connection(d.address).close()
            return True
        except pg.PgError:
            return False
    d.until(login, what="logins work again")
    d.wait_status(lambda s: s["sides"]["blue"]["reachable"], what="blue is reachable")


def test_server_ends_a_session(world):
    """The server's last words reach the client."""
    world.pair()
    d = world.daemon()
    connection = world.connect()
    pid = connection.value("select pg_backend_pid()")
    world.blue.query("select pg_terminate_backend(%s)" % pid)
    kind, body = connection.receive()
    assert kind == "E" and pg.fields(body)["C"] == "57P01", (kind, body)
    assert connection.closed_by_peer()
    d.until(lambda: d.status()["sessions"]["total"] == 0, what="no session is left")


def test_standby_down(world):
    """Traffic goes on, readiness stays, and status says it."""
    d = world.prepared(ledger=True)
    load = world.ledger(sessions=5)
    world.green.stop("immediate")
    s = d.wait_status(lambda s: not s["sides"]["green"]["reachable"] and not s["way_back"]["open"], what="green is seen to be gone")
    assert s["active"] == "blue" and s["way_back"]["reason"], s
    assert d.http("/readyz")[0] == 200
    with world.connect() as connection:
        assert connection.value("select count(*) from account") == "1000"
    world.green.start()
    d.wait_steady("blue")
    load.stop()
    load.assert_clean()
    load.verify(world.blue)
    world.assert_same_data()


def test_start_without_standby(world):
    world.pair()
    world.green.stop()
    d = world.daemon()
    with world.connect() as connection:
        assert connection.value("select 1") == "1"
    assert d.status()["sides"]["green"]["reachable"] is False


def test_start_with_many_databases(world):
    """The daemon ends what an earlier one has left, and none of its own sessions that are logging in meanwhile."""
    databases = tuple("d%d" % i for i in range(8))
    world.pair(databases=databases)
    d = world.daemon(start=False, databases=list(databases))
    for _ in range(6):
        d.start()
        d.stop()
    ended = [line for side in (world.blue, world.green) for line in side.log_text().splitlines()
             if "switchback" in line and "administrator command" in line]
    assert not ended, ended


def test_slow_reader(world):
    """A client that doesn't read holds up its own server, not the proxy's memory."""
    world.pair()
    d = world.daemon()
    before = resident_bytes(d.process.pid)
    connections = [pg.Connection(d.address) for _ in range(4)]
    for connection in connections:
        connection.send(pg.query("select repeat('x', 1000000) from generate_series(1, 300)"))
    time.sleep(3)
    grown = resident_bytes(d.process.pid) - before
    assert grown < 64 << 20, "grown by %d MB" % (grown >> 20)
    with world.connect() as bystander:
        assert bystander.value("select 1") == "1"
    rows = sum(1 for kind, _ in connections[0].until_ready() if kind == "D")
    assert rows == 300
    for connection in connections:
        connection.abandon()
    d.until(lambda: world.blue.value(OURS) == "0", what="their backends are gone")


def test_slow_server(world):
    """A server that doesn't read holds up its own client."""
    world.pair()
    d = world.daemon()
    world.blue.query("create table big (v text); grant all on big to app")
    connection = world.connect()
    before = resident_bytes(d.process.pid)
    connection.send(pg.query("copy big from stdin"))
    d.until(lambda: world.blue.value(SLEEPING) == "1", what="the copy runs")
    pid = int(world.blue.value("select pid from pg_stat_activity where usename = 'app'"))
    os.kill(pid, signal.SIGSTOP)
    sent = [0]

    def feed():
        line = pg.copy_data(b"y" * 65000 + b"\n")
        try:
            while sent[0] < 200 << 20:
                connection.socket.sendall(line)
                sent[0] += len(line)
        except OSError:
            pass
    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    time.sleep(2)
    grown, sent_then = resident_bytes(d.process.pid) - before, sent[0]
    os.kill(pid, signal.SIGCONT)
    assert grown < 64 << 20, "grown by %d MB" % (grown >> 20)
    assert sent_then < 64 << 20, "took %d MB that nobody read" % (sent_then >> 20)
    feeder.join(600)
    assert not feeder.is_alive() and sent[0] >= 200 << 20
    connection.send(pg.COPY_DONE)
    connection.results()
    assert int(world.blue.value("select sum(length(v)) from big")) >= 199 << 20


def test_stop_tells_clients(world):
    """SIGTERM: idle clients get 57P01, the exit status is 0."""
    world.pair()
    d = world.daemon(timeouts={"shutdown": "120s"})
    idle, running = world.connect(), world.connect()
    lock = world.blue.connect("app", "app")
    lock.query("select pg_advisory_lock(1)")
    running.send(pg.query("select pg_advisory_lock(1), 'finished'"))
    d.until(lambda: world.blue.value(SLEEPING) == "1", what="the statement runs")
    d.process.terminate()
    kind, body = idle.receive()
    assert kind == "E" and pg.fields(body)["C"] == "57P01", (kind, body)
    assert idle.closed_by_peer()
    lock.close()
    last = []
    try:
        while True:
            last.append(running.receive())
    except pg.Closed:
        pass
    assert last and last[-1][0] == "E" and pg.fields(last[-1][1])["C"] == "57P01", last
    assert d.wait_exit() == 0
    assert d.http("/healthz")[0] == 0


def listens(address):
    try:
        socket.create_connection(address, 5).close()
        return True
    except ConnectionRefusedError:
        return False


def test_stop_lets_transactions_end(world):
    """SIGTERM: what runs goes on to its boundary within timeouts.shutdown; what is too long then gets 08007: it may be done."""
    world.pair()
    world.blue.query("create table t (a int); grant all on t to app")
    d = world.daemon(timeouts={"shutdown": "60s"})
    writer, endless, asking = world.connect(), world.connect(), pg.Raw(d.address)
    asking.send(pg.startup({"user": "app", "database": "app"})[:6])
    writer.query("begin")
    endless.send(pg.query("select pg_sleep(600)"))
    d.until(lambda: world.blue.value(SLEEPING) == "2", what="the statement runs")
    d.process.terminate()
    d.until(lambda: not listens(d.address), what="nobody listens any more")
    asking.send(pg.startup({"user": "app", "database": "app"})[6:])
    kind, body = asking.receive()
    assert kind == "E" and pg.fields(body)["C"] == "57P03", (kind, body)
    writer.query("insert into t select g from generate_series(1, 10) g")
    assert writer.value("select count(*) from t") == "10"
    writer.send(pg.query("commit"))
    answers = []
    try:
        while True:
            answers.append(writer.receive())
    except pg.Closed:
        pass
    assert [kind for kind, _ in answers] == ["C", "Z", "E"] and pg.fields(answers[-1][1])["C"] == "57P01", answers
    assert world.blue.value("select count(*) from t") == "10"
    assert not endless.readable(0.3) and d.running
    d.process.terminate()  # in a hurry
    kind, body = endless.receive()
    assert kind == "E" and pg.fields(body)["C"] == "08007", (kind, body)
    assert d.wait_exit() == 0
    assert world.blue.value("select count(*) from pg_stat_activity where query ~ 'sleep.600' and state = 'active' and usename = 'app'") == "0"
    asking.abandon()


def test_second_daemon_is_refused(world):
    """The same ports or the same state: the second ends with 1 and says why, the first goes on."""
    world.pair()
    d = world.daemon()
    for change, word in (({"state": {"dir": d.settings["state"]["dir"]}}, "state.dir"), ({"listen": {"port": d.port}}, str(d.port)),
                         ({"http": {"listen": "127.0.0.1:%d" % d.http_port}}, str(d.http_port))):
        second = world.daemon(start=False, **change)
        second.expected_exits = (1,)
        second.start(wait=False)
        assert second.wait_exit() == 1, (change, second.log_tail())
        assert word in second.log_text(), (change, second.log_tail())
    with world.connect() as connection:
        assert connection.value("select 1") == "1"
    # not even a probe of a port that is only listened on by another process
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        third = world.daemon(start=False, listen={"port": taken.getsockname()[1]})
        third.expected_exits = (1,)
        third.start(wait=False)
        assert third.wait_exit() == 1
