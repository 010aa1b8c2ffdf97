"""The lossless watch: what was acknowledged in it is on both sides, so that the active side may die under load."""
import time

import pg
from test_flip import FENCED, assert_one_active, code_of, fenced
from test_prepare import asked_while_taken

LOSSLESS = {"lossless": True, "lossless_max_wait": "5s", "dead_after": "1s", "drain": {"timeout": "5s"},
            "catchup": {"timeout": "5s"}, "max_hold": "15s"}


def watched(world, **settings):
    """Green is active, in a lossless watch whose promise stands."""
    settings.setdefault("flip", LOSSLESS)
    settings.setdefault("watch", {"duration": "30m"})
    settings.setdefault("timeouts", {"server_connect": "60s"})  # so long a login waits for a takeover
    d = world.prepared(pair={"fsync": "on"}, **settings)
    cut_over(d)
    return d


def cut_over(d, key="first"):
    d.verb("cutover", "--key", key, code=0)
    return d.wait_status(promised, timeout=60, what="the promise")


def promised(status):
    return status["phase"] == "watch" and status["way_back"]["open"] and status["way_back"]["promise"]["on"]


def names(side):
    return side.value("show synchronous_standby_names")


def refuses(side):
    """The side refuses a write; who was let in just before the fence is ended."""
    try:
        side.query("update account set balance = balance where id = 1")
    except pg.Closed:
        return False
    except pg.PgError as error:
        return error.sqlstate == FENCED
    return False


def waits_for_operator(d, side):
    """Nothing happens by itself: status says so, by its exit code too."""
    answer = d.verb("status", code=4)
    assert answer.json["active"] == side and answer.json["flip"] is None, answer
    return answer.json


def serve(world, timeout=60):
    """Seconds until a write of a new client is acknowledged."""
    begin = time.monotonic()
    while True:
        try:
            client = world.connect()
            client.query("update account set balance = balance where id = 1")
            client.close()
            return time.monotonic() - begin
        except (OSError, pg.PgError, pg.Closed):
            if time.monotonic() - begin > timeout:
                raise
            time.sleep(0.02)


def take_over(world, d):
    """kill -9 of the active side under load: the other one takes over by itself, with all that was acknowledged."""
    load = world.ledger(sessions=8, rate=50)
    time.sleep(1)
    assert d.status()["way_back"]["commits_at_risk"] == 0
    world.green.kill()
    begin = time.monotonic()
    with world.connect(timeout=90) as client:  # it waits for the side that takes over, and hears of no error
        client.query("update account set balance = balance where id = 1")
    waited = time.monotonic() - begin
    status = d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, timeout=60, what="blue took over")
    time.sleep(0.5)
    load.stop()
    assert load.summary["wrong"] == 0 and load.summary["acknowledged_writes"] > 0, load.summary
    load.verify(world.blue)
    assert not fenced(world.blue)
    assert names(world.blue) == "", "blue waits for nobody"
    print("served again after %.2f s; %r" % (waited, load.summary))
    return load, status


def test_active_side_killed(world):
    """kill -9 under load, automatic takeover, nothing acknowledged lost; the dead side rejoins."""
    d = watched(world)
    waiting = d.start_verb("cutover", "--watch", "--key", "first")  # whoever waits for the watch hears of it
    assert "switchback" in names(world.green) and names(world.blue) == ""
    load, status = take_over(world, d)
    last = status["last_flip"]
    assert (last["kind"], last["result"], last["to"]) == ("takeover", "done", "blue"), last
    assert waiting.finish(code=3).json["result"] == "flipped_back"
    assert not status["way_back"]["open"] and status["way_back"]["promise"]["on"] is False, status["way_back"]

    world.green.start()
    d.until(lambda: refuses(world.green), what="the dead side is fenced on contact")
    d.until(lambda: names(world.green) == "", what="its names are emptied")
    status = d.wait_status(lambda s: s["sides"]["green"]["standing"] == "diverged" or s["way_back"]["open"], timeout=60, what="its standing")
    assert_one_active(world, "blue")
    if status["sides"]["green"]["standing"] == "diverged":
        preview = d.verb("rejoin", "--dry-run", code=0).json
        print(preview)
        assert preview["side"] == "green" and preview["dry_run"], preview
        again = d.verb("rejoin", "--dry-run", code=0).json
        assert again["rows"] == preview["rows"], "a preview changes nothing"
        result = d.verb("rejoin", code=0).json
        assert result["rows"] == preview["rows"], result
    d.wait_status(lambda s: s["way_back"]["open"] and s["sides"]["green"]["standing"] == "standby", timeout=60, what="green follows")
    world.assert_same_data()
    load.verify(world.green)
    assert code_of(d.verb("rejoin", code=1)) == "not_diverged"
    cut_over(d, "second")
    assert_one_active(world, "green")


test_active_side_killed.timeout = 300


def test_standby_dies(world):
    """It may not stop the active side for longer than lossless_max_wait; the promise comes back with it."""
    d = watched(world, flip=dict(LOSSLESS, lossless_max_wait="2s"))
    client = world.connect()
    client.query("update account set balance = balance where id = 1")
    world.blue.kill()
    client.query("update account set balance = balance where id = 1")  # waits, then goes on
    status = d.wait_status(lambda s: not s["way_back"]["promise"]["on"], what="the promise is off")
    assert status["way_back"]["promise"]["reason"] and not status["way_back"]["open"], status["way_back"]
    assert any(t["code"] == "no_promise" for t in status["trouble"]), status["trouble"]
    assert names(world.green) == "", "nobody waits for a dead side"
    world.green.kill()  # now commits are at risk: nothing is taken over by itself
    d.wait_status(lambda s: any(t["code"] == "side_dead" or "at risk" in t["message"] for t in s["trouble"]), what="an alarm")
    waits_for_operator(d, "green")
    world.green.start()
    world.blue.start()
    d.wait_status(promised, timeout=90, what="the promise is back by itself")
    world.assert_same_data()


test_standby_dies.timeout = 300


def test_flip_back_with_loss(world):
    """Without the promise a dead active side is an operator's: refused with a number, and only --accept-loss goes."""
    d = world.prepared(pair={"fsync": "on"}, flip=dict(LOSSLESS, lossless=False), watch={"duration": "30m"})
    d.verb("cutover", code=0)
    d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"], what="the watch")
    with world.connect() as client:
        client.query("update account set balance = balance where id = 1")
    world.blue.stop("immediate")  # what follows never arrives
    with world.connect() as client:
        for n in range(10):
            client.query("insert into entry (run, session, n, amount, tenant) values (9, 1, %d, 0, 's1')" % n)
        d.wait_status(lambda s: s["way_back"]["commits_at_risk"] >= 10, what="they are at risk")
        world.green.kill()
    world.blue.start()
    d.wait_status(lambda s: any(t["code"] == "side_dead" or "at risk" in t["message"] for t in s["trouble"]), what="an alarm")
    refused = d.verb("flip-back", code=1)
    assert code_of(refused) == "commits_at_risk" and "--accept-loss" in refused.out, refused
    waits_for_operator(d, "green")
    result = d.verb("flip-back", "--accept-loss", code=0).json
    assert (result["result"], result["kind"], result["to"]) == ("done", "takeover", "blue"), result
    serve(world)
    assert world.connect().value("select count(*) from entry where run = 9") == "0"
    world.green.start()
    d.wait_status(lambda s: s["sides"]["green"]["standing"] == "diverged" and s["sides"]["green"]["fenced"], what="green is diverged")
    preview = d.verb("rejoin", "--dry-run", code=0).json
    assert preview["transactions"] >= 10 and preview["rows"] >= 10, preview
    lines = d.verb("rejoin", "--dry-run", json=False, code=0).out
    assert "public.entry" in lines, lines
    rejoined = asked_while_taken(d, world, "rejoin")  # it waits until the side that comes back is met
    assert rejoined["result"]["rows"] == preview["rows"], rejoined
    d.wait_status(lambda s: s["way_back"]["open"] and s["sides"]["green"]["standing"] == "standby", timeout=60, what="green follows")
    world.assert_same_data()


test_flip_back_with_loss.timeout = 300


def test_active_side_hangs(world):
    """Its machine accepts connections, and nothing answers on them: that is dead, too. Logins wait for the other side; what it
    was about to do when it goes on is fenced, and never acknowledged."""
    d = watched(world)
    load = world.ledger(sessions=6, rate=25)
    time.sleep(1)
    world.green.pause()
    try:
        with world.connect(timeout=90) as client:
            client.query("update account set balance = balance where id = 1")
        d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, timeout=60, what="blue took over")
        time.sleep(0.5)
        load.stop()
        assert load.summary["wrong"] == 0 and load.summary["acknowledged_writes"] > 0, load.summary
        load.verify(world.blue)
    finally:
        world.green.resume()
    status = d.wait_status(lambda s: s["sides"]["green"]["standing"] == "diverged" or s["way_back"]["open"], timeout=60, what="its standing")
    if not status["way_back"]["open"]:
        d.verb("rejoin", code=0)
    d.wait_status(lambda s: s["phase"] == "steady" and s["way_back"]["open"], timeout=60, what="green follows")
    assert_one_active(world, "blue")
    world.assert_same_data()
    load.verify(world.green)


def test_takeover_by_hand(world):
    """watch.flip_back: manual only raises an alarm; flip-back needs no --accept-loss while the promise stands."""
    d = watched(world, watch={"duration": "30m", "flip_back": "manual"})
    load = world.ledger(sessions=4, rate=25)
    time.sleep(0.5)
    # what its slot will have forgotten to be confirmed, after the crash: nothing of it is stranded
    world.green.query("insert into entry (run, session, n, amount, tenant) select 9, 1, n, 0, 's1' from generate_series(1, 120000) n")
    world.green.kill()
    d.wait_status(lambda s: any(t["code"] == "side_dead" for t in s["trouble"]), what="an alarm")
    time.sleep(2)
    waits_for_operator(d, "green")
    assert d.verb("flip-back", code=0).json["to"] == "blue"
    serve(world)
    load.stop()
    load.verify(world.blue)
    world.green.start()
    status = d.wait_status(lambda s: s["sides"]["green"]["standing"] == "diverged" or s["way_back"]["open"], timeout=60, what="its standing")
    if not status["way_back"]["open"]:
        result = d.verb("rejoin", code=0).json
        assert result["rows"] < 1000, result
    d.wait_status(lambda s: s["way_back"]["open"], timeout=60, what="green follows")
    world.assert_same_data(tables=["account"])


def undisturbed(world, d):
    """Blue is active, and nothing is left of a flip that came to nothing."""
    d.wait_steady("blue")
    d.until(lambda: names(world.green) == "", 60, "the names are taken away")


def stand_in_drain(world, d):
    """A cutover that waits for one client: that client. On green all is ready; on a busy machine not the first time."""
    for _ in range(5):
        world.blue.query("update account set balance = balance", "app", "app")
        d.wait_status(lambda s: s["lag"]["bytes"] == 0, timeout=60, what="green has it")
        before = world.green.value("select pg_current_wal_flush_lsn()")
        client = world.connect()
        client.query("begin; update account set note = 'held' where id = 1")
        d.verb("cutover", "--no-wait", code=0)
        d.wait_status(lambda s: s["phase"] == "drain", timeout=60, what="the drain")
        assert names(world.blue) == ""
        moved = world.green.value("select restart_lsn >= '%s' from pg_replication_slots where slot_name like '%%to_blue'" % before)
        if names(world.green).startswith("FIRST 1 (switchback_app_") and moved == "t":
            return client
        d.verb("abort", code=0)
        client.query("rollback")
        undisturbed(world, d)
    raise AssertionError("the hold begins, and the names of green or the slot of the way back aren't ready")


def test_prepared_before_anyone_waits(world):
    """When the hold begins, the standby's names are set, and its stream back has little to read; what arrives is applied
    all the same. An abort takes the names away again, and so does the start after a death of the daemon."""
    d = world.prepared(pair={"fsync": "on"}, watch={"duration": "30m"}, flip=dict(LOSSLESS, drain={"timeout": "60s"}, max_hold="90s"))
    for how in ("abort", "death"):
        client = stand_in_drain(world, d)
        with world.blue.connect("app", "app") as writer:  # around the proxy
            writer.query("update account set note = '%s' where id = 2" % how)
        d.until(lambda: world.green.value("select note from account where id = 2") == how, 60, "green applies")
        if how == "abort":
            d.verb("abort", code=0)
            client.query("rollback")
        else:
            d.kill()
            d.start()
        undisturbed(world, d)
    cut_over(d)


def test_what_gets_around_the_promise(world):
    """Commits of a client that asked not to wait are at risk until the other side has them, and said to be."""
    d = watched(world, flip=dict(LOSSLESS, lossless_max_wait="2m"))
    client = world.connect()
    assert d.status()["way_back"]["commits_at_risk"] == 0
    client.query("set synchronous_commit = local")
    world.blue.pause()
    for _ in range(5):
        client.query("update account set balance = balance where id = 1")
    way = d.wait_status(lambda s: (s["way_back"]["commits_at_risk"] or 0) >= 5, what="they are at risk")["way_back"]
    assert way["promise"]["on"] and way["commits_at_risk"] < 50, way
    world.blue.resume()
    d.wait_status(lambda s: s["way_back"]["commits_at_risk"] == 0 and s["way_back"]["promise"]["on"], timeout=60, what="none is any more")


def test_daemon_restarted_under_the_promise(world):
    """The promise stands in the journal and in the cluster: a restart keeps it, and takes over a side that died meanwhile."""
    d = watched(world)
    d.kill()
    d.start()
    d.wait_status(promised, timeout=60, what="the promise, after a restart")
    d.kill()
    world.green.kill()
    d.start(wait=False)
    d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, timeout=60, what="blue took over")
    serve(world)


def test_recover(world):
    """Where nothing is to be decided it says so; where something is, it says what each choice would do, and does it."""
    d = world.prepared(pair={"fsync": "on"}, flip=LOSSLESS)
    seen = d.verb("recover", code=0).json
    assert not seen["needed"] and seen["active"] == "blue", seen
    refused = d.verb("recover", "--use", "green", code=2)
    assert "nothing to decide" in refused.out and d.status()["active"] == "blue", refused
    assert d.verb("recover", "--use", "purple").code == 2
