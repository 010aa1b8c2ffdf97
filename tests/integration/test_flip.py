"""Cutover and flip-back on two clusters: what moves, what is refused, what is undone."""
import signal
import statistics
import threading
import time

import pg
from cluster import ask
from daemon import SLOW

FENCED = "25006"


def code_of(answer):
    """The error code of an answer, whether it came as an error or as a result."""
    document = answer.json
    return document["error"]["code"] if "error" in document else document.get("code")


def fenced(side, user="postgres"):
    """The side refuses an application's write. The write changes nothing."""
    def question():
        with side.connect("app", user) as connection:
            connection.query("update account set balance = balance where id = 1")
    try:
        ask(question)
        return False
    except pg.PgError as error:
        assert error.sqlstate == FENCED, error
        return True


def assert_one_active(world, active):
    assert not fenced(world.side(active)), "the active side is fenced"
    assert fenced(world.other(active)), "the standby is open"


def test_cutover_and_back(world):
    """Forward and back with one client that notices nothing but the other server."""
    d = world.prepared()
    assert_one_active(world, "blue")
    client = world.connect()
    client.query("insert into entry (run, session, n, amount, tenant) values (9, 1, 1, 0, 's1')")
    assert client.parameters["server_version"].startswith("15")
    before = d.status()
    assert before["active"] == "blue" and before["flip"] is None and before["way_back"]["open"], before

    result = d.verb("cutover", "--reason", "a test", code=0).json
    told = d.status()  # what the flip has proved is known at once, not with the next sample
    assert told["active"] == "green" and told["sides"]["blue"]["fenced"] and not told["sides"]["green"]["fenced"], told
    assert result["result"] == "done" and (result["from"], result["to"]) == ("blue", "green"), result
    assert result["moved"] == 1 and result["disconnected"] == 0, result
    phases = [phase["phase"] for phase in result["phases"]]
    for phase in ("preflight", "arm", "hold", "drain", "fence", "catchup", "ready", "commit", "open", "release"):
        assert phase in phases, (phase, phases)
    assert client.value("select count(*) from entry") == "1"
    assert client.parameters["server_version"].startswith(str(world.green.version)), client.parameters
    assert_one_active(world, "green")
    after = d.wait_steady("green")
    assert after["epoch"] == before["epoch"] + 1 and after["sides"]["blue"]["fenced"] and not after["sides"]["green"]["fenced"], after

    n = client.value("insert into entry (run, session, n, amount, tenant) values (9, 1, 2, 0, 's1') returning id")
    assert int(n) > 1, "the sequence came along"
    result = d.verb("flip-back", code=0).json
    told = d.status()
    assert told["active"] == "blue" and told["sides"]["green"]["fenced"] and not told["sides"]["blue"]["fenced"], told
    assert (result["result"], result["from"], result["to"]) == ("done", "green", "blue"), result
    assert client.value("select count(*) from entry") == "2"
    assert client.parameters["server_version"].startswith("15")
    assert_one_active(world, "blue")
    d.wait_steady("blue")
    world.assert_same_data()
    for word in ("cutover", "flip"):
        assert any(word in row["action"] + str(row["detail"]) for row in d.verb("audit", code=0).json["rows"]), word


def test_twenty_flips_under_load(world):
    """Twenty flips in a row: no error, nothing lost, doubled or different."""
    d = world.prepared(pair={"fsync": "on"})
    load = world.ledger(sessions=20, rate=25)
    stalls = []
    for flip in range(20):
        verb, to = (("cutover", "green"), ("flip-back", "blue"))[flip % 2]
        d.wait_steady("blue" if to == "green" else "green")
        result = d.verb(verb, code=0).json
        assert result["result"] == "done" and result["disconnected"] == 0, result
        stalls.append(result["stall_ms"]["max"])
        assert d.status()["active"] == to
        time.sleep(0.3)
    d.wait_steady("blue")
    summary = load.stop()
    print("stall: median %.1f ms, max %.1f ms; %d operations" % (statistics.median(stalls), max(stalls), summary["operations"]))
    load.assert_clean()
    world.assert_same_data()
    load.verify(world.blue)
    load.verify(world.green)
    for side in (world.blue, world.green):
        assert "duplicate key" not in side.log_text()
    assert d.metric("switchback_flips_total") is not None


test_twenty_flips_under_load.timeout = 400


def test_flip_back_within_the_watch(world):
    d = world.prepared(watch={"duration": "10m"})
    load = world.ledger()
    for _ in range(2):
        d.verb("cutover", code=0)
        s = d.wait_status(lambda s: s["phase"] == "watch", what="the watch")
        assert s["active"] == "green" and s["watch"]["remaining_ms"] > 500000, s
        answer = d.verb("cutover", code=1)
        assert code_of(answer) in ("in_watch", "already_active"), answer
        d.wait_status(lambda s: s["way_back"]["open"], what="the way back is open")
        d.verb("flip-back", code=0)
        d.wait_steady("blue")
    load.stop()
    load.assert_clean()
    world.assert_same_data()
    load.verify(world.blue)


def test_dry_run(world):
    d = world.prepared()
    load = world.ledger()
    plan = d.verb("cutover", "--dry-run", code=0).json
    assert [p["phase"] for p in plan["phases"]][:2] == ["preflight", "backup"] and plan["predicted_stall_ms"] > 0, plan
    assert plan["blockers"] == [], plan
    human = d.verb("cutover", "--dry-run", json=False, code=0)
    assert "fence" in human.out, human
    assert d.status()["active"] == "blue"
    world.green.stop()
    d.wait_status(lambda s: not s["sides"]["green"]["reachable"], what="green is seen to be gone")
    plan = d.verb("cutover", "--dry-run", code=1).json
    assert plan["blockers"] and plan["predicted_stall_ms"] is None, plan
    assert d.verb("cutover").code == 1
    load.stop()
    load.assert_clean()


def test_refusals(world):
    """What can't begin says why, and changes nothing."""
    world.pair(ledger=True)
    d = world.daemon(watch={"duration": "10m"})
    assert code_of(d.verb("cutover", code=1)) == "not_prepared"
    assert code_of(d.verb("abort", code=1)) == "no_flip"
    d.prepare()
    d.wait_steady("blue")
    assert code_of(d.verb("flip-back", code=1)) == "already_active"
    # a prepared transaction would come back after the fence
    with world.blue.connect("app", "app") as connection:
        connection.query("begin; update account set note = 'prepared' where id = 500; prepare transaction 'left over'")
    answer = d.verb("cutover", code=1)
    assert d.status()["active"] == "blue", answer
    assert_one_active(world, "blue")
    world.blue.query("rollback prepared 'left over'")
    d.wait_steady("blue")
    d.verb("cutover", code=0)


def test_one_flip_at_a_time(world):
    """A second flip is refused while one runs; abort ends it, and clients go on as if nothing had happened."""
    d = world.prepared(flip={"drain": {"timeout": "20s"}, "max_hold": "40s"})
    blocker, other = world.connect(), world.connect()
    blocker.query("begin; update account set note = 'kept' where id = 1")
    first = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    s = d.status()
    assert s["flip"]["from"] == "blue" and s["flip"]["to"] == "green", s
    other.send(pg.query("select 'waited'"))
    for verb in ("cutover", "flip-back"):
        assert code_of(d.verb(verb, code=1)) in ("flip_running", "already_active")
    d.verb("abort", "--reason", "a test", code=0)
    result = first.finish(code=1).json
    assert result["result"] == "aborted", result
    assert other.results() == [[("waited",)]]
    blocker.query("commit")
    assert other.value("select note from account where id = 1") == "kept"
    assert_one_active(world, "blue")
    d.wait_steady("blue")
    d.verb("cutover", code=0)
    assert other.value("select note from account where id = 1") == "kept"


def test_idempotency_key(world):
    """The same key attaches to the first cutover or returns its result, also after a restart; a refusal is forgotten."""
    d = world.prepared()
    with world.blue.connect("app", "app") as connection:
        connection.query("begin; update account set note = 'p' where id = 1; prepare transaction 'p'")
    d.verb("cutover", "--key", "deploy 1", code=1)
    world.blue.query("rollback prepared 'p'")
    d.wait_steady("blue")
    blocker = world.connect()
    blocker.query("begin; update account set note = 'x' where id = 2")
    first, second = d.start_verb("cutover", "--key", "deploy 1"), d.start_verb("cutover", "--key", "deploy 1")
    d.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    blocker.query("commit")
    results = [run.finish(code=0).json for run in (first, second)]
    assert results[0]["flip"] == results[1]["flip"] and results[0]["result"] == "done", results
    d.wait_steady("green")
    assert d.verb("cutover", "--key", "deploy 1", code=0).json["flip"] == results[0]["flip"]
    d.verb("flip-back", code=0)
    d.wait_steady("blue")
    d.stop()
    d.start()
    again = d.verb("cutover", "--key", "deploy 1", code=3).json  # it happened, and was taken back
    assert again["flip"] == results[0]["flip"] and d.status()["active"] == "blue", again
    assert d.verb("cutover", "--key", "deploy 2", code=0).json["flip"] > results[0]["flip"]


def test_no_wait(world):
    d = world.prepared()
    result = d.verb("cutover", "--no-wait", code=0).json
    assert result["result"] == "started", result
    d.wait_steady("green")


def test_epoch_and_active_survive_a_restart(world):
    d = world.prepared()
    d.verb("cutover", code=0)
    s = d.wait_steady("green")
    d.stop()
    d.start()
    again = d.wait_steady("green")
    assert again["epoch"] == s["epoch"], (s, again)
    client = world.connect()
    assert client.parameters["server_version"].startswith(str(world.green.version))
    assert_one_active(world, "green")


# --- drain


def test_drain_abort(world):
    """A transaction that doesn't end in time: the flip is undone, and it goes on."""
    d = world.prepared(flip={"drain": {"timeout": "1s", "on_timeout": "abort"}})
    long, waiting = world.connect(), world.connect()
    long.query("begin; update account set note = 'long' where id = 1")
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    waiting.send(pg.query("select 'went on'"))
    result = run.finish(code=1)
    assert result.json["result"] in ("aborted", "refused") and code_of(result) == "drain_timeout", result
    assert waiting.results() == [[("went on",)]]
    long.query("commit")
    assert waiting.value("select note from account where id = 1") == "long"
    assert_one_active(world, "blue")


def test_drain_cancel(world):
    """Running statements are cancelled; what is idle in a transaction ends the flip after the grace."""
    d = world.prepared(flip={"drain": {"timeout": "500ms", "on_timeout": "cancel", "grace": "5s"}})
    running = world.connect()
    running.send(pg.query("select pg_sleep(60)"))
    d.wait_status(lambda s: s["sessions"]["total"] == 1, what="the session")
    assert d.verb("cutover", code=0).json["disconnected"] == 0
    try:
        running.results()
        raise AssertionError("the statement was not cancelled")
    except pg.PgError as error:
        assert error.sqlstate == "57014", error
    assert running.parameters["server_version"].startswith(str(world.green.version)) or running.value("show server_version")
    d.wait_steady("green")
    running.query("begin; update account set note = 'idle' where id = 1")
    d.verb("flip-back", code=1)
    running.query("commit")
    assert running.value("select note from account where id = 1") == "idle"
    assert_one_active(world, "green")


def test_drain_terminate(world):
    """What is left at the timeout gets 57P01, nobody else notices."""
    d = world.prepared(flip={"drain": {"timeout": "500ms", "on_timeout": "terminate", "grace": "500ms"}})
    idle, calm = world.connect(), world.connect()
    idle.query("begin; update account set note = 'lost' where id = 1")
    result = d.verb("cutover", code=0).json
    assert result["disconnected"] == 1 and result["moved"] == 1, result
    kind, body = idle.receive()
    assert kind == "E" and pg.fields(body)["C"] == "57P01" and idle.closed_by_peer(), (kind, body)
    assert calm.value("select note from account where id = 1") != "lost"
    assert_one_active(world, "green")


def test_drain_waits_for_work_in_flight(world):
    """COPY, pipelines and extended work without a Sync finish where they began; what follows runs on the other side."""
    d = world.prepared()
    copying, piped, unsynced = world.connect(), world.connect(), world.connect()
    copying.query("create temporary table x (i int); drop table x")
    copying.send(pg.query("copy entry (run, session, n, amount, tenant) from stdin"))
    copying.send(pg.copy_data(b"5\t1\t1\t0\ts1\n"))
    piped.send(*[part for i in range(20) for part in (pg.query("select pg_sleep(0.05), %d" % i),)])
    unsynced.send(pg.parse("", "select 'later'"), pg.bind("", ""), pg.execute(), pg.FLUSH)
    while unsynced.receive()[0] != "C":
        pass
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    copying.send(pg.copy_data(b"5\t1\t2\t0\ts1\n"))
    copying.send(pg.COPY_DONE, pg.query("select count(*) from entry where run = 5"), pg.query("show server_version_num"))
    assert len(piped.results()) == 1
    time.sleep(0.3)
    assert run.running, "the flip did not wait for the Sync"
    unsynced.send(pg.SYNC, pg.query("show server_version_num"))
    result = run.finish(code=0).json
    assert result["disconnected"] == 0 and result["moved"] == 3, result
    copying.results()
    assert copying.results() == [[("2",)]]
    assert copying.results()[0][0][0].startswith(str(world.green.version))
    while unsynced.receive()[0] != "Z":
        pass
    assert unsynced.results()[0][0][0].startswith(str(world.green.version))
    for _ in range(19):
        piped.results()
    assert piped.value("show server_version_num").startswith(str(world.green.version))
    world.assert_same_data()


def test_waiting_pipeline_runs_once(world):
    """What a client sent during the hold runs once, in order, on the new side."""
    d = world.prepared()
    blocker, client = world.connect(), world.connect()
    blocker.query("begin; update account set note = 'x' where id = 1")
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    insert = "insert into entry (run, session, n, amount, tenant) values (6, 1, %d, 0, 's1')"
    client.send(*[pg.query(insert % i) for i in range(50)], pg.parse("", insert % 50), pg.bind("", ""), pg.execute(), pg.SYNC,
                pg.query("show server_version_num"))
    d.wait_status(lambda s: s["sessions"]["waiting"] >= 1, what="the client waits")
    blocker.query("commit")
    run.finish(code=0)
    for _ in range(51):
        client.results()
    assert client.results()[0][0][0].startswith(str(world.green.version))
    assert client.query("select count(*), count(distinct n) from entry where run = 6") == [("51", "51")]


def test_logins_during_a_flip(world):
    """Who comes during the hold waits, and lands on the new side."""
    d = world.prepared()
    blocker = world.connect()
    blocker.query("begin; update account set note = 'x' where id = 1")
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    versions = []

    def login():
        with pg.Connection(d.address) as connection:
            versions.append(connection.value("show server_version_num"))
    threads = [threading.Thread(target=login) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    blocker.query("commit")
    run.finish(code=0)
    for thread in threads:
        thread.join(180)
    assert len(versions) == 5 and all(v.startswith(str(world.green.version)) for v in versions), versions


def test_cancel_reaches_the_new_side(world):
    d = world.prepared()
    client = world.connect()
    d.verb("cutover", code=0)
    error = client.cancelled()
    assert error.sqlstate == "57014", error


# --- fences


def test_standby_refuses_writes(world):
    """Directly on the standby: no writes of anybody, no truncate, no DDL; reads are fine, and so is the active side."""
    d = world.prepared()
    for active in ("blue", "green"):
        standby = world.other(active)
        with standby.connect("app") as connection:
            for sql in ("insert into entry (run, session, n, amount, tenant) values (1, 1, 1, 1, 's1')", "delete from entry",
                        "truncate entry", "update account set note = 'x'", "create table new_one (i int)", "drop table entry",
                        "alter table account disable trigger all", "copy account from stdin"):
                error = connection.error(sql)
                assert error and error.sqlstate == FENCED, (active, sql, error)
            assert connection.value("select count(*) from account") == "1000"
            assert int(connection.value("select count(*) from (select 1 from account for update) x") or 0) == 1000
        if active == "blue":
            d.verb("cutover", code=0)
            d.wait_steady("green")
    # fixtures do this: it must not fence the active side, nor open the standby
    world.green.query("alter table account disable trigger all; alter table account enable trigger all")
    assert_one_active(world, "green")
    d.wait_steady("green")
    d.verb("flip-back", code=0)
    assert_one_active(world, "blue")


def test_fences_are_put_right(world):
    """What gets around the event trigger, as the manager in replica mode, is put right on both sides."""
    d = world.prepared()
    around = "set session authorization switchback; set session_replication_role = replica; alter table account %s trigger all"
    d.process.send_signal(signal.SIGSTOP)  # or it puts them right before that is seen
    world.blue.query(around % "enable")
    world.green.query(around % "disable")
    assert fenced(world.blue) and not fenced(world.green)
    d.process.send_signal(signal.SIGCONT)
    d.until(lambda: not fenced(world.blue) and fenced(world.green), 30, "the fences are right")
    d.wait_steady("blue")
    d.stop()
    world.blue.query(around % "enable")
    d.start()
    with world.connect() as client:
        client.query("update account set note = 'open' where id = 1")
    assert_one_active(world, "blue")


def test_a_restored_standby_closes_the_way_back(world):
    d = world.prepared()
    d.verb("cutover", code=0)
    d.wait_steady("green")
    d.stop()
    world.blue.query("update switchback.state set timeline = timeline + 1")
    d.start()
    s = d.wait_status(lambda s: not s["way_back"]["open"] and "restored" in s["way_back"]["reason"], what="the way back is closed")
    assert s["active"] == "green", s
    d.verb("flip-back", code=1)
    answer = d.verb("prepare", code=4)  # rows that it lost would never come again
    assert "restored" in answer.out + answer.err, answer
    assert_one_active(world, "green")


def test_sessions_of_others_end_at_the_fence(world):
    """Who connects around the proxy is ended, and can't write to the old side afterwards."""
    d = world.prepared()
    around = world.blue.connect("app", "app")
    around.query("update account set note = 'around' where id = 3")
    d.verb("cutover", code=0)
    assert around.closed_by_peer()
    assert fenced(world.blue, "app")
    with world.connect() as client:
        assert client.value("select note from account where id = 3") == "around"


# --- holds by hand


def test_hold_and_release(world):
    d = world.prepared()
    client = world.connect()
    answer = d.verb("hold", "--for", "300s", "--reason", "maintenance of something", code=0).json
    assert answer["hold"], answer
    client.send(pg.query("select 'after'"))
    d.wait_status(lambda s: s["sessions"]["waiting"] == 1, what="the client waits")
    assert not client.readable(0.5)
    s = d.status()
    assert s["hold"]["reason"] == "maintenance of something" and s["hold"]["remaining_ms"] > 0, s
    assert d.http("/readyz")[0] == 200
    d.verb("release", code=0)
    assert client.results() == [[("after",)]]
    assert d.status()["hold"] is None
    # a hold ends by its deadline, whoever forgot it
    started = time.monotonic()
    d.verb("hold", "--for", "1s", "--reason", "forgotten", code=0)
    assert client.value("select 'by itself'") == "by itself"
    assert 0.5 < time.monotonic() - started < 15 * SLOW
    d.wait_status(lambda s: s["hold"] is None, what="the hold is over")
    assert d.verb("release").code == 1
    assert d.verb("hold", "--for", "forever", "--reason", "x").code in (1, 2)
    d.verb("cutover", code=0)


def test_two_databases(world):
    """Both move together, or not at all."""
    d = world.prepared(pair={"databases": ("app", "shop")}, databases=["app", "shop"])
    loads = [world.ledger(sessions=6, rate=25, database=name) for name in ("app", "shop")]
    for verb, to in (("cutover", "green"), ("flip-back", "blue"), ("cutover", "green")):
        assert d.verb(verb, code=0).json["result"] == "done"
        d.wait_steady(to)
    for load, name in zip(loads, ("app", "shop")):
        load.stop()
        load.assert_clean()
        world.assert_same_data(name)
        load.verify(world.green)
        load.verify(world.blue)
    # a long transaction in one of them: neither moves
    d.write(flip={"drain": {"timeout": "1s"}})
    d.verb("reload", code=0)
    long = world.connect(database="shop")
    long.query("begin; update account set note = 'long' where id = 1")
    d.verb("flip-back", code=1)
    long.query("commit")
    for name in ("app", "shop"):
        with world.connect(database=name) as client:
            assert client.value("show server_version_num").startswith(str(world.green.version))


def test_finalize(world):
    """The operator ends the way back."""
    d = world.prepared()
    d.verb("cutover", code=0)
    d.wait_steady("green")
    d.verb("finalize", code=0)
    s = d.wait_status(lambda s: not s["way_back"]["open"], what="the way back is closed")
    assert s["active"] == "green", s
    d.verb("flip-back", code=1)
    with world.connect() as client:
        client.query("update account set note = 'on green alone' where id = 1")
    assert world.green.value("select count(*) from pg_replication_slots", "postgres") == "0"
    assert world.blue.value("select count(*) from pg_subscription", "postgres") == "0"
