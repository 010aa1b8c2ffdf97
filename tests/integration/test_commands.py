"""Hooks, the backup and its proof: when they run, what they are told, what their failure means."""
import os
import time

SCRIPT = """#!/bin/sh
echo "$1 $SWITCHBACK_FLIP $SWITCHBACK_FROM $SWITCHBACK_TO $SWITCHBACK_PHASE $SWITCHBACK_EVENT" >> %s
env > %s.$1
exit ${2:-0}
"""


def script(world):
    """A command that notes what it was called with; its second argument is its exit status."""
    path, notes = os.path.join(world.folder, "note"), os.path.join(world.folder, "notes")
    with open(path, "w") as file:
        file.write(SCRIPT % (notes, notes))
    os.chmod(path, 0o755)
    return path, notes


def noted(notes):
    try:
        with open(notes) as file:
            return [line.split() for line in file]
    except OSError:
        return []


def test_hooks_run_at_their_phases(world):
    path, notes = script(world)
    d = world.prepared(
        watch={"duration": "30s"},
        backup={"command": [path, "backup"], "verify_command": [path, "proof"]},
        hooks={"before_cutover": [path, "before"], "after_cutover": [path, "after"], "on_flip_back": [path, "back"],
               "notify": [path, "notify"]})
    flip = str(d.verb("cutover", code=0).json["flip"])
    d.until(lambda: any(note[0] == "after" for note in noted(notes)), what="the hook after the cutover")
    heard = noted(notes)
    order = [note[0] for note in heard if note[0] != "notify"]
    assert order == ["backup", "proof", "before", "after"], heard
    assert all(note[1:4] == [flip, "blue", "green"] for note in heard), heard
    assert any(note[0] == "notify" for note in heard), heard
    d.wait_status(lambda s: s["phase"] == "watch", what="the watch")
    back = str(d.verb("flip-back", code=0).json["flip"])
    d.until(lambda: any(note[0] == "back" for note in noted(notes)), what="the hook of the flip-back")
    heard = [note for note in noted(notes) if note[1] == back and note[0] != "notify"]
    assert [note[0] for note in heard] == ["back"] and heard[0][2:4] == ["green", "blue"], heard


def test_hooks_are_told_no_secrets(world):
    path, notes = script(world)
    d = world.prepared(hooks={"before_cutover": [path, "before"]})
    d.stop()
    d.start(environment={"PGPASSWORD": "very-secret", "MANAGER_PASSWORD": "also-secret"})
    d.wait_steady("blue")
    d.verb("cutover", code=0)
    with open(notes + ".before") as file:
        environment = file.read()
    assert "secret" not in environment and "PATH=" in environment and "SWITCHBACK_PHASE=" in environment, environment


def refused(d, word):
    answer = d.verb("cutover", code=1)
    assert answer.json.get("result") in ("refused", "aborted"), answer
    assert word in (answer.json.get("reason") or ""), answer
    status = d.wait_steady("blue")
    assert status["flip"] is None and status["sessions"]["held"] == 0, status
    return answer


def test_a_failing_backup_refuses(world):
    """No change without a backup: nothing was touched, and the clients felt nothing."""
    path, _ = script(world)
    d = world.prepared(backup={"command": [path, "backup", "3"], "verify_command": [path, "proof"], "timeout": "5s"})
    client = world.connect()
    refused(d, "exited with 3")
    assert client.value("select 1") == "1"
    d.write(backup={"command": [path, "backup"], "verify_command": [path, "proof", "4"]})
    d.verb("reload", code=0)
    refused(d, "exited with 4")
    d.write(backup={"command": ["/nonexistent/program"], "verify_command": [path, "proof"]})
    d.verb("reload", code=0)
    refused(d, "could not be started")
    d.write(backup={"command": ["/bin/sh", "-c", "sleep 60 & sleep 60"], "verify_command": [path, "proof"]})
    d.verb("reload", code=0)
    refused(d, "did not end within")
    d.write(backup={"command": [path, "backup"], "verify_command": [path, "proof"]})
    d.verb("reload", code=0)
    assert d.verb("cutover", code=0).json["result"] == "done"
    assert client.value("select 1") == "1"


def running(mark):
    """Processes whose arguments hold `mark`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                if mark.encode() in file.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def test_a_stop_ends_commands(world):
    """A daemon that stops in a backup ends it, and its children; the next start undoes the flip."""
    mark = os.path.join(world.folder, "mark")
    slow = ["/bin/sh", "-c", "sleep 601 & sleep 602; : %s" % mark]
    d = world.prepared(backup={"command": slow}, hooks={"notify": slow, "timeout": "5m"})
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] == "backup", what="the backup")
    d.until(lambda: running(mark), what="the backup runs")
    begun = time.monotonic()
    assert d.stop() == 0
    assert time.monotonic() - begun < 120, "the stop waited for a command"
    assert not running(mark)
    assert run.finish().code != 0
    d.start()
    d.wait_steady("blue")
    d.write(backup={"command": ["/bin/true"]})
    d.verb("reload", code=0)
    d.verb("cutover", code=0)  # and now while only the notification is on its way
    d.until(lambda: running(mark), what="the notification runs")
    assert d.stop() == 0
    assert not running(mark)


def test_flips_of_before_are_among_the_events(world):
    d = world.prepared(watch={"duration": "1s"})
    flip = d.verb("cutover", code=0).json["flip"]
    d.wait_steady("green")
    assert d.stop() == 0
    d.start()
    rows = d.rpc("journal", {"flips": 1})["result"]["rows"]
    assert rows and {row["flip"] for row in rows} == {flip} and rows[0]["kind"] == "begin", rows
    events = d.rpc("events")["result"]["events"]
    assert any(event["flip"] == flip and "green is open" in event["message"] for event in events), events
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
