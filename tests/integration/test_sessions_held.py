"""`switchback sessions`: what each session holds and why it can't move, asked for when it is wanted."""
import os
import signal

import pg


def listed(d, *flags):
    return {s["application"]: s for s in d.verb("sessions", *flags, code=0).json["sessions"]}


def test_what_sessions_hold(world):
    world.pair(ledger=True)
    world.blue.query("create role helper; grant helper to app")
    d = world.daemon()
    d.prepare()
    d.wait_steady("blue")
    world.blue.query("create function locks() returns text language sql as 'select pg_advisory_lock(7)::text'", "app")
    rich, plain, unused = (world.connect(application_name=name) for name in ("rich", "plain", "unused"))
    busy, holder = world.connect(application_name="busy"), world.connect(user="postgres", application_name="holder")
    rich.query("set work_mem = '7MB'; set app.tenant = '7'; listen news; set role helper")
    rich.query("prepare by_sql as select 1")
    rich.prepare("odd\nname", "select 1")
    rich.prepare("", "select 'unnamed'")
    plain.query("select 1")
    busy.query("begin; select 1")
    holder.query("set session authorization app")
    holder.query("select locks()")
    assert all(s["holds"] is None for s in listed(d).values())
    now = listed(d, "--ask")
    assert {name: s["state"] for name, s in now.items()} == dict(
        {name: "idle" for name in ("rich", "plain", "unused", "holder")}, busy="idle in transaction"), now
    assert now["unused"]["holds"]["counts"] == now["plain"]["holds"]["counts"] == {"settings": 0, "statements": 0, "channels": 0}
    assert now["busy"]["holds"] is None and now["busy"]["movable"]
    holds = now["rich"]["holds"]
    assert (holds["settings"], holds["channels"], holds["role"], holds["session_user"]) == (
        ["work_mem", "app.tenant"], ["news"], "helper", None), holds
    assert sorted(holds["statements"]) == ["by_sql", "odd?name"] and holds["counts"] == {"settings": 2, "statements": 2, "channels": 1}
    assert now["holder"]["holds"]["session_user"] == "app"
    assert not now["holder"]["movable"] and now["holder"]["reasons"] == ["advisory lock 7"], now["holder"]
    assert d.verb("status", code=0).json["sessions"]["immovable"] == 1
    text = d.verb("sessions", "--ask", json=False, code=0).out
    assert "2 settings, 2 statements, 1 channel, role helper" in text and "nothing" in text and "advisory lock 7" in text, text
    # nothing of it shows in the sessions
    assert rich.run("") == [("unnamed",)] and not plain.readable(0)
    assert sorted(rich.query("select name from pg_prepared_statements")) == [("by_sql",), ("odd\nname",)]
    busy.query("commit")
    holder.query("select pg_advisory_unlock(7)")
    assert d.verb("cutover", code=0).json["disconnected"] == 0
    assert listed(d)["rich"]["holds"]["counts"] == {"settings": 2, "statements": 2, "channels": 1}


def test_asking_does_not_wait_for_ever(world):
    """A server that doesn't answer, a client that cancels or goes meanwhile, and a flip that begins: the list comes."""
    d = world.prepared()
    stuck, gone, calm = (world.connect(application_name=name) for name in ("stuck", "gone", "calm"))
    for client in (stuck, gone, calm):
        client.query("select 1")
    pids = [int(client.value("select pg_backend_pid()")) for client in (stuck, gone)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        run = d.start_verb("sessions", "--ask")
        stuck.send(pg.query("select 2"))
        gone.abandon()
        now = {s["application"]: s for s in run.finish(code=0).json["sessions"]}
        assert now["stuck"]["holds"] is None, now
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert stuck.results() == [[("2",)]]
    assert listed(d, "--ask")["calm"]["holds"] is not None
    flip = d.start_verb("cutover")
    for _ in range(20):
        listed(d, "--ask")
    assert flip.finish(code=0).json["disconnected"] == 0
    assert calm.value("select 1") == "1" and stuck.value("select 1") == "1"
