"""Whose clusters these are, and whose daemon: other clusters at the addresses, an older state.dir or none, a second daemon,
sides that were restored or failed over. Recognised and named; nothing of another's is touched, nothing splits."""
import os
import shutil

import pg
from daemon import Daemon
from test_flip import assert_one_active, code_of

PAIR_ROWS = "select pair, side, standing, epoch, owner, fenced_for, aborted from switchback.state"
FENCES = "select count(*), count(*) filter (where tgenabled = 'A') from pg_trigger where tgname = '!switchback_fence'"


def trouble(d, *words):
    """Waits until nobody is served for a reason with these words, and status exits with 4; its document."""
    def seen():
        answer = d.verb("status")
        text = " ".join(t["message"] + (t["remedy"] or "") for t in answer.json["trouble"]) if answer.code == 4 else ""
        return answer.json if all(word in text for word in words) else None
    try:
        return d.until(seen, 60, "status says %s" % (words,))
    except AssertionError as error:
        raise AssertionError("%s; %r" % (error, d.verb("status"))) from None


def refused(d):
    """Nobody is served: a login waits, then gets 57P03."""
    try:
        pg.Connection(d.address).close()
        raise AssertionError("a login was served")
    except pg.PgError as error:
        assert error.sqlstate == "57P03", error


def second_pair(world):
    """Another prepared pair with its own daemon, which is stopped; (blue, green, its state.dir)."""
    blue, green = world.cluster("otherblue"), world.cluster("othergreen", new=True)
    with blue.connect() as connection:
        connection.query("create role app login password 'secret'")
        connection.query('create database "app" owner app')
    blue.query("create table other (id int primary key); insert into other values (1); grant all on other to app")
    d = Daemon(world.folder, blue, green, "other")
    world.daemons.append(d)
    d.start()
    d.prepare()
    d.wait_steady("blue")
    d.stop()
    return blue, green, d


def facts_of(*clusters):
    return [(c.query(PAIR_ROWS), c.query(FENCES)) for c in clusters]


def move(d, blue=None, green=None, state=None, hold="3s"):
    """Starts the daemon again with other addresses or another state.dir; who isn't served waits for `hold`."""
    changes = {}
    for name, cluster in (("blue", blue), ("green", green)):
        if cluster:
            # by two names the same cluster isn't seen to be one
            changes.setdefault("sides", {})[name] = {"port": cluster.port, "host": "127.0.0.1" if name == "blue" else "::ffff:127.0.0.1"}
    if state:
        changes["state"] = {"dir": state}
    d.write(flip={"max_hold": hold, "drain": {"timeout": "500ms"}, "catchup": {"timeout": "500ms" if hold == "3s" else "10s"}}, **changes)
    d.start(wait=False)
    d.until(lambda: d.verb("status").code in (0, 4), 60, "it answers")


def test_clusters_of_others(world):
    """Wrong addresses: nobody is served by a cluster that isn't the pair's, and that one isn't even owned."""
    d = world.prepared()
    state = d.settings["state"]["dir"]
    blue2, green2, other = second_pair(world)
    d.stop()
    before, ours = facts_of(blue2, green2), facts_of(world.blue, world.green)

    def wrong(served, *words, **changes):
        move(d, **changes)
        if served:
            d.wait_status(lambda s: s["active"] == "blue" and not s["way_back"]["open"] and all(
                word in (s["way_back"]["reason"] or "") + str(s["sides"]) for word in words), 60, "%s is named" % (words,))
            with pg.Connection(d.address) as client:
                assert client.value("select count(*) from account") == "1000"
            assert d.verb("cutover").code == 1
        else:
            s = trouble(d, *words)
            assert s["active"] is None and not s["way_back"]["open"], s
            refused(d)
            assert d.verb("cutover").code in (1, 4) and d.verb("prepare").code in (1, 4)
        d.stop()
        assert facts_of(blue2, green2) == before, "another pair was touched"

    # the standby's address leads to others: traffic stays, the way back is closed
    wrong(True, "another pair", green=green2)
    wrong(True, "answers blue", green=world.blue)
    # the active side's does: nobody is served
    wrong(False, "another pair", blue=blue2, green=world.green)
    wrong(False, "exchanged", blue=world.green, green=world.blue)
    # another pair's state.dir; none, with sides of two pairs
    wrong(False, "another pair", blue=world.blue, green=world.green, state=other.settings["state"]["dir"])
    wrong(False, "belongs to the pair", green=green2, state=os.path.join(d.folder, "empty"))
    assert [rows[0][0][:4] for rows in facts_of(world.blue, world.green)] == [rows[0][0][:4] for rows in ours]
    # right again, it goes on by itself
    move(d, blue=world.blue, green=world.green, state=state, hold="20s")
    d.wait_steady("blue")
    d.verb("cutover", code=0)
    d.wait_steady("green")
    # while it runs, another cluster takes the active side's place
    port = world.green.port
    client = world.connect()
    world.green.stop()
    with open(os.path.join(green2.data, "postgresql.conf"), "a") as conf:
        conf.write("port = %d\n" % port)
    green2.stop()
    green2.port, own_port = port, green2.port
    green2.start()
    trouble(d, "another pair")
    assert client.closed_by_peer()
    refused(d)
    green2.stop()
    green2.port = own_port
    world.green.start()
    d.wait_steady("green")
    assert_one_active(world, "green")


test_clusters_of_others.timeout = 400


def test_state_dir_lost(world):
    """state.dir is gone, an older copy, or of a time when a flip ran: the clusters tell."""
    d = world.prepared()
    state = d.settings["state"]["dir"]
    load = world.ledger(sessions=4, rate=20)
    d.stop()
    copy = os.path.join(d.folder, "older")
    shutil.copytree(state, copy)
    d.start()
    d.verb("cutover", code=0)
    epoch = d.wait_steady("green")["epoch"]
    for lost in (True, False):
        d.stop()
        shutil.rmtree(state)
        if not lost:
            shutil.copytree(copy, state)
        d.start()
        s = d.wait_steady("green")
        assert s["epoch"] == epoch, s
        assert_one_active(world, "green")
    # the copy is of a flip past its commit; others came after it
    d.stop()
    d.start(environment={"SWITCHBACK_TEST_CRASH": "journal_released:after"})
    d.wait_steady("green")
    run = d.start_verb("flip-back")
    d.wait_exit(60)
    run.finish()
    shutil.rmtree(copy)
    shutil.copytree(state, copy)
    d.start()
    d.wait_steady("blue")
    for verb, to in (("cutover", "green"), ("flip-back", "blue"), ("cutover", "green")):
        d.verb(verb, code=0)
        s = d.wait_steady(to)
    d.stop()
    shutil.rmtree(state)
    shutil.copytree(copy, state)
    d.start()
    again = d.wait_steady("green")
    assert again["epoch"] == s["epoch"], (s, again)
    assert_one_active(world, "green")
    # without a journal, and the standby away: it could be the active side, at a later epoch
    d.stop()
    shutil.rmtree(state)
    world.blue.stop()
    d.start(wait=False)
    trouble(d, "blue")
    assert d.verb("status").json["active"] is None
    world.blue.start()
    d.wait_steady("green")
    load.stop()
    assert load.summary["wrong"] == 0, load.summary
    world.assert_same_data()
    load.verify(world.green)


test_state_dir_lost.timeout = 300


def test_second_daemon(world):
    """Ownership moves to the later one; the first one decides nothing any more, and serves its clients wherever the
    clusters say. Nobody fights."""
    first = world.prepared()
    load = world.ledger(sessions=4, rate=20, to=first)
    client = world.connect(through=first)
    second = world.daemon(watch={"duration": "1s"})
    second.wait_steady("blue")
    trouble(first, "another controller")
    assert client.value("select count(*) from account") == "1000"
    for verb in ("cutover", "flip-back", "prepare", "hold"):
        answer = first.verb(*((verb, "--for", "1s", "--reason", "x") if verb == "hold" else (verb,)))
        assert answer.code in (1, 4) and code_of(answer) in ("stale", "undecided"), (verb, answer)
    own = load.stop()
    load.assert_clean()
    # the second one flips under the first one's clients: those of the old side are ended, others come in on the new one
    load = world.ledger(sessions=4, rate=20, to=first)
    second.verb("cutover", code=0)
    assert client.closed_by_peer()
    second.wait_steady("green")
    first.wait_status(lambda s: s["active"] == "green", what="the first one follows")
    with pg.Connection(first.address) as other:
        assert other.value("show server_version_num").startswith(str(world.green.version))
        other.query("update account set note = 'through the first' where id = 1")
    assert first.http("/readyz")[0] == 200
    load.stop()
    assert load.summary["wrong"] == 0, load.summary
    world.assert_same_data()
    load.verify(world.green)
    # started again, the first one is the owner, with what the clusters say and not its journal
    first.stop()
    first.start()
    s = first.wait_steady("green")
    trouble(second, "another controller")
    first.verb("flip-back", code=0)
    first.wait_steady("blue")
    second.wait_status(lambda s: s["active"] == "blue", what="the second one follows")
    assert_one_active(world, "blue")
    # in the middle of a flip of the first one, the second one comes again
    blocker, waiting = world.connect(through=first), world.connect(through=first)
    blocker.query("begin; update account set note = 'kept' where id = 2")
    run = first.start_verb("cutover")
    first.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    waiting.send(pg.query("select 'went on'"))
    second.stop()
    second.start()
    second.wait_steady("blue")
    run.finish()
    assert waiting.results() == [[("went on",)]]
    blocker.query("commit")
    assert waiting.value("select note from account where id = 2") == "kept"
    assert_one_active(world, "blue")
    world.assert_same_data()
    assert own["wrong"] == 0 and s["epoch"] >= 2


test_second_daemon.timeout = 300


def test_owner_is_remembered(world):
    """Our own number of a former life, on a side that was away since, deposes nobody."""
    d = world.prepared()
    for _ in range(3):
        d.stop()
        world.green.stop()
        d.start()
        d.stop()
        world.blue.stop()
        world.green.start()
        d.start(wait=False)
        d.wait_status(lambda s: s["sides"]["green"]["reachable"], 60, "it is up")
        world.blue.start()
        d.wait_steady("blue")
        assert "deposed" not in d.log_text()
    d.verb("cutover", code=0)


test_owner_is_remembered.long = True
