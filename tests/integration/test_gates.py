"""Gates and the watch: what flips back by itself, what only alarms, what refuses."""
import os
import stat
import threading
import time

import pg
from test_bypass import AGAINST_WRAPAROUND, AROUND_EVENT_TRIGGERS, against_wraparound
from test_flip import assert_one_active, code_of

FLAG = "create table flag (ok bool primary key); insert into flag values (true)"


def with_flag(world):
    """The pair that `prepared` makes, with a table that a gate asks."""
    world.pair(ledger=True)
    with world.blue.connect("app", "app") as connection:
        connection.query(FLAG)


def ready(world, **settings):
    d = world.daemon(**settings)
    d.prepare()
    d.wait_steady("blue")
    return d


def events(d, kind):
    return [event for event in d.verb("events", code=0).out.splitlines() if '"type": "%s"' % kind in event or '"type":"%s"' % kind in event]


SQL_GATE = {"name": "flag", "sql": "select ok from flag", "expect": "t", "interval": "200ms", "failures": 2}


def test_sql_gate_flips_back(world):
    """A query that stops answering what is expected: traffic goes back by itself; --watch exits 3; a second cutover works."""
    with_flag(world)
    d = ready(world, gates=[SQL_GATE], watch={"duration": "60s"})
    load = world.ledger(sessions=10, rate=25)
    watching = d.start_verb("cutover", "--watch")
    d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"], what="the watch")
    client = world.connect()
    client.query("update flag set ok = false")
    result = watching.finish(code=3).json
    assert result["result"] == "flipped_back" and "flag" in result["reason"], result
    d.wait_steady("blue")
    assert_one_active(world, "blue")
    assert client.value("select ok from flag") == "f"
    client.query("update flag set ok = true")
    d.wait_steady("blue")
    d.verb("cutover", code=0)
    d.wait_status(lambda s: s["active"] == "green" and s["phase"] == "watch", what="the second watch")
    d.verb("flip-back", code=0)
    load.stop()
    load.assert_rescued()
    world.assert_same_data()
    load.verify(world.blue)
    load.verify(world.green)


def test_foreign_idle_writer_does_not_stop_a_rescue(world):
    """A direct session that idles in a transaction with writes: a cutover by hand waits for it and gives up, a flip-back by a
    failing gate ends it."""
    with_flag(world)
    d = ready(world, gates=[SQL_GATE], watch={"duration": "10m"}, flip={"drain": {"timeout": "1s"}, "catchup": {"timeout": "5s"}, "max_hold": "9s"})

    def idle_writer(side):
        writer = side.connect("app", "app")
        writer.query("begin")
        writer.query("update account set note = 'idle' where id = 3")
        return writer

    with idle_writer(world.blue) as writer:
        refused = d.verb("cutover")
        assert refused.code == 1, refused
        writer.query("rollback")
    d.wait_steady("blue")
    d.verb("cutover", code=0)
    d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"], what="the watch")
    writer = idle_writer(world.green)
    world.connect().query("update flag set ok = false")
    d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, 90, "it flipped back")
    d.until(writer.closed_by_peer, what="the idle writer was ended")
    back = [line for line in d.log_text().splitlines() if "flip-back from green to blue" in line and "type=flip" in line]
    assert len(back) == 2 and "begins by itself" in back[0] and "done" in back[1], back  # at its first try
    d.wait_steady("blue")
    assert_one_active(world, "blue")
    world.assert_same_data()


def test_vacuum_does_not_stop_a_rescue(world):
    """One against wraparound yields to nobody: a flip-back by a failing gate ends it."""
    world.pair(ledger=True, autovacuum_naptime="1s")
    with world.blue.connect("app", "app") as connection:
        connection.query(FLAG)
    with world.blue.connect("app", "postgres") as connection:
        connection.query("create table public.old (id int primary key, v text) with (autovacuum_analyze_threshold = 2000000000, "
                         "autovacuum_vacuum_insert_threshold = -1)")
        connection.query("insert into old select n, repeat('x', 500) from generate_series(1, 20000) n")
    d = ready(world, gates=[SQL_GATE], watch={"duration": "10m"}, flip={"drain": {"timeout": "1s"}, "catchup": {"timeout": "5s"}, "max_hold": "9s"})
    d.verb("cutover", code=0)
    d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"], what="the watch")
    against_wraparound(world.green)
    d.until(lambda: world.green.value(AGAINST_WRAPAROUND) == "1", 120, "autovacuum works against wraparound")
    world.connect().query("update flag set ok = false")
    d.wait_status(lambda s: s["active"] == "blue" and s["flip"] is None, 90, "it flipped back")
    back = [line for line in d.log_text().splitlines() if "flip-back from green to blue: " in line and "type=flip" in line]
    assert len(back) == 1 and "done" in back[0], back  # at its first try
    d.wait_steady("blue")
    assert_one_active(world, "blue")


def test_watch_that_passes(world):
    """--watch ends with 0 when the gates have passed all the time."""
    with_flag(world)
    d = ready(world, gates=[SQL_GATE], watch={"duration": "2s"})
    load = world.ledger(sessions=5)
    result = d.verb("cutover", "--watch", code=0).json
    assert result["result"] == "done", result
    assert d.wait_steady("green")
    load.stop()
    load.assert_clean()


def test_manual_watch_only_alarms(world):
    with_flag(world)
    d = ready(world, gates=[SQL_GATE], watch={"duration": "60s", "flip_back": "manual"})
    watching = d.start_verb("cutover", "--watch")
    d.wait_status(lambda s: s["phase"] == "watch", what="the watch")
    with world.connect() as client:
        client.query("update flag set ok = false")
    d.until(lambda: events(d, "alarm"), what="an alarm")
    assert "manual" in watching.finish(code=4).json["remedy"]
    time.sleep(1)
    assert len([e for e in events(d, "alarm") + events(d, "gate") if "flag" in e]) == 1, "told once"
    s = d.status()
    assert s["active"] == "green" and s["phase"] == "watch", s
    assert [g for g in s["gates"] if g["name"] == "flag"][0]["state"] == "fail", s
    d.verb("flip-back", code=0)
    d.wait_steady("blue")


def slow_green(world):
    """Writes to green take longer, as a missing index or a bad plan would make them."""
    world.green.query(AROUND_EVENT_TRIGGERS + "create function public.slow() returns trigger language plpgsql as"
                      " $$ begin perform pg_sleep(0.1); return new; end $$;"
                      " create trigger slow before insert on public.entry for each row execute function public.slow()")


def test_latency_gate_flips_back(world):
    """Green is slower than blue was: back within seconds, without an error."""
    d = world.prepared(watch={"duration": "120s"}, gates=[
        {"name": "slower", "metric": "latency_p95", "max_increase": "20%", "failures": 3, "interval": "500ms", "min_samples": 20}])
    slow_green(world)  # what replication brings doesn't fire it
    load = world.ledger(sessions=10, rate=25)
    # blue's latencies are what green is compared with
    d.until(lambda: (d.metric("switchback_statements_total", side="blue") or 0) > 500, 120, "blue has served many statements")
    result = d.verb("cutover", "--watch", code=3).json
    assert "slower" in result["reason"], result
    d.wait_steady("blue")
    load.stop()
    load.assert_rescued()
    world.assert_same_data()
    load.verify(world.blue)


test_latency_gate_flips_back.timeout = 240


def test_lag_flips_back(world):
    """The way back falls behind for longer than its grace: back before it is lost."""
    d = world.prepared(watch={"duration": "120s"}, flip={"catchup": {"timeout": "10s"}}, gates=[
        {"name": "lag", "metric": "replication_lag", "max": "0s", "failures": 3, "interval": "300ms", "grace": "1s"}])
    load = world.ledger(sessions=5, rate=20)
    watching = d.start_verb("cutover", "--watch")
    d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"], what="the watch")
    time.sleep(1)
    blocker = world.blue.connect("app")
    blocker.query("begin; lock table entry in access exclusive mode")
    d.until(lambda: any("gate lag" in event for event in events(d, "alarm")), what="the lag gate fails")
    blocker.query("rollback")
    result = watching.finish(code=3).json
    assert "lag" in result["reason"], result
    d.wait_steady("blue")
    load.stop()
    load.assert_rescued()
    world.assert_same_data()
    load.verify(world.blue)


def test_error_rate_flips_back(world):
    d = world.prepared(watch={"duration": "120s"}, gates=[
        {"name": "errors", "metric": "error_rate", "max": "5%", "failures": 2, "interval": "500ms", "min_samples": 10}])
    done = threading.Event()

    def noise():
        # division by zero on one side only: what the application does is the same
        with pg.Connection(d.address) as client:
            while not done.is_set():
                client.error("select breaks()")
                time.sleep(0.01)
    with world.blue.connect("app") as connection:
        connection.query("create function breaks() returns int language sql as 'select 1'")
    with world.green.connect("app", "switchback") as connection:
        connection.query("create function public.breaks() returns int language plpgsql as $$ begin raise exception using errcode = '53100'; end $$")
    thread = threading.Thread(target=noise)
    thread.start()
    try:
        time.sleep(1)
        result = d.verb("cutover", "--watch", code=3).json
        assert "errors" in result["reason"], result
        d.wait_steady("blue")
    finally:
        done.set()
        thread.join()


def script(world, name, text):
    path = os.path.join(world.folder, name)
    with open(path, "w") as file:
        file.write("#!/bin/sh\n" + text)
    os.chmod(path, stat.S_IRWXU | stat.S_IROTH | stat.S_IXOTH)
    return path


def test_command_gate(world):
    """A command's exit status judges; one that can't start is inconclusive and draws no traffic back."""
    mark = os.path.join(world.folder, "broken")
    health = script(world, "health", "test ! -e %s\n" % mark)
    d = world.prepared(watch={"duration": "60s"}, gates=[
        {"name": "health", "command": [health], "interval": "200ms", "failures": 2},
        {"name": "absent", "command": ["/nonexistent/program"], "interval": "200ms", "failures": 2}])
    watching = d.start_verb("cutover", "--watch")
    s = d.wait_status(lambda s: s["phase"] == "watch" and any(g["state"] == "inconclusive" for g in s["gates"]), what="the watch")
    s = d.wait_status(lambda s: {g["name"]: g["state"] for g in s["gates"]}["health"] == "pass", what="the command passes")
    assert s["active"] == "green", s
    open(mark, "w").close()
    result = watching.finish(code=3).json
    assert "health" in result["reason"], result
    d.wait_steady("blue")


def test_preflight_gate_refuses(world):
    with_flag(world)
    d = ready(world, gates=[dict(SQL_GATE, when=["preflight"])])
    with world.connect() as client:
        client.query("update flag set ok = false")
        answer = d.verb("cutover", code=1)
        assert code_of(answer) == "gate_failed" and "flag" in answer.out, answer
        assert d.status()["active"] == "blue"
        client.query("update flag set ok = true")
    d.verb("cutover", code=0)


def test_flip_back_that_cannot_be_done(world):
    """The gate fails while blue is down: traffic stays, an alarm says so; when blue is back it goes."""
    with_flag(world)
    d = ready(world, gates=[SQL_GATE], watch={"duration": "10m"}, flip={"dead_after": "1s"})
    d.verb("cutover", code=0)
    d.wait_status(lambda s: s["phase"] == "watch" and s["way_back"]["open"], what="the watch")
    world.blue.stop("immediate")
    s = d.wait_status(lambda s: not s["way_back"]["open"], what="the way back is closed")
    client = world.connect()
    client.query("update flag set ok = false")
    d.until(lambda: events(d, "alarm"), what="an alarm")
    s = d.status()
    assert s["active"] == "green", s
    assert client.value("select ok from flag") == "f"
    world.blue.start()
    d.wait_status(lambda s: s["active"] == "blue", timeout=60, what="traffic is back on blue")
    assert client.value("select ok from flag") == "f"
    d.wait_steady("blue")


def test_gate_that_cannot_be_judged(world):
    """It is trouble while it is watched; afterwards nobody would hear that it can be judged again."""
    with_flag(world)
    d = ready(world, gates=[dict(SQL_GATE, sql="select 1 / 0 = 1")], watch={"duration": "30m"})
    d.verb("cutover", code=0)
    told = d.wait_status(lambda s: any("can't be judged" in t["message"] for t in s["trouble"]), timeout=60, what="the trouble")
    assert told["phase"] == "watch" and told["gates"][0]["state"] == "inconclusive", told
    d.verb("finalize", code=0)
    s = d.status()
    assert s["phase"] == "steady" and s["gates"][0]["state"] == "waiting", s
    assert not any("gate" in t["message"] for t in s["trouble"]), s["trouble"]


def test_hooks_and_backup(world):
    """They run at their phases with the flip in their environment; a failing one refuses, a hanging one too."""
    log = os.path.join(world.folder, "hooks")
    hook = script(world, "hook", 'echo "$1 $SWITCHBACK_FLIP $SWITCHBACK_FROM $SWITCHBACK_TO $SWITCHBACK_PHASE" >> %s\n' % log)
    fails = script(world, "fails", "echo the disk is full >&2; exit 3\n")
    hangs = script(world, "hangs", "sleep 600\n")
    d = world.prepared(
        backup={"command": [hook, "backup"], "verify_command": [hook, "verify"]},
        hooks={"before_cutover": [hook, "before"], "after_cutover": [hook, "after"], "on_flip_back": [hook, "back"], "notify": [hook, "notify"]})

    def lines(first):
        with open(log) as file:
            return [line.split() for line in file if line.startswith(first + " ")]
    flip = d.verb("cutover", code=0).json["flip"]
    d.wait_steady("green")
    d.until(lambda: lines("after"), what="the hook after the cutover")
    for name in ("backup", "verify", "before", "after"):
        assert lines(name)[0][1:4] == [str(flip), "blue", "green"], (name, lines(name))
    with open(log) as file:
        order = [line.split()[0] for line in file]
    assert order.index("backup") < order.index("verify") < order.index("before") < order.index("after"), order
    d.verb("flip-back", code=0)
    d.wait_steady("blue")
    d.until(lambda: lines("back"), what="the hook of the flip-back")
    assert len(lines("backup")) == 1 and lines("notify")

    for section, key, command in (("backup", "command", [fails]), ("backup", "verify_command", [fails]), ("hooks", "before_cutover", [fails]),
                                  ("hooks", "before_cutover", [hangs]), ("backup", "command", ["/nonexistent/backup"])):
        settings = {"backup": {"command": [hook, "backup"], "verify_command": [hook, "verify"]}, "hooks": {"before_cutover": [], "timeout": "5s"}}
        settings[section][key] = command
        d.write(**settings)
        d.verb("reload", code=0)
        answer = d.verb("cutover", code=1)
        assert code_of(answer) in ("command_failed", "timeout"), answer
        if command == [fails]:
            assert "the disk is full" in answer.out, answer
        s = d.status()
        assert s["active"] == "blue" and s["phase"] == "steady", s
        assert_one_active(world, "blue")
