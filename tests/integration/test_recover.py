"""Doubts that only an operator can end: nobody is served, status exits with 4 and says why, `recover` says what each choice
would do, and `recover --use SIDE` does it."""
import shutil

import pg
from test_flip import assert_one_active
from test_lossless import LOSSLESS, promised
from test_pair import refused, trouble
from test_restored import closed, copy_of, restore, write

# nobody waits long for a side that doesn't come
SETTINGS = {"flip": dict(LOSSLESS, drain={"timeout": "1s"}, catchup={"timeout": "5s"}, max_hold="9s"), "watch": {"duration": "30m"}}


def doubt(d, *words):
    """Nobody is served for a reason with these words; what recover says of it, by side."""
    s = trouble(d, *words)
    assert s["active"] is None, s
    seen = d.verb("recover", code=4).json
    assert seen["needed"] and seen["active"] is None and not seen["decided"], seen
    human = d.verb("recover", json=False, code=4).out
    assert "recover --use" in human, human
    return {choice["use"]: choice for choice in seen["choices"]}


def served_by(d, side):
    """A client of the daemon is at that side, and may write."""
    with pg.Connection(d.address) as client:
        client.query("update account set note = 'decided' where id = 5")
    assert side.value("select note from account where id = 5") == "decided"


def decide(d, side):
    decided = d.verb("recover", "--use", side, code=0).json
    assert decided["decided"] and decided["active"] == side, decided
    return d.wait_status(lambda s: s["active"] == side and s["phase"] in ("steady", "watch"), 60, "%s serves" % side)


def test_journal_and_active_side_lost(world):
    """The machine of the daemon and of the active side burns: the standby that is left can't know that it may serve."""
    d = world.prepared(pair={"fsync": "on"}, **SETTINGS)
    d.flip("cutover")
    d.wait_status(promised, 60, "the promise")
    write(world, d, "acknowledged")
    d.stop()
    shutil.rmtree(d.settings["state"]["dir"])
    world.green.kill()
    d.start(wait=False)
    choices = doubt(d, "green")
    refused(d)
    assert not choices["green"]["possible"] and "bring it back" in choices["green"]["remedy"], choices
    blue = choices["blue"]
    assert blue["possible"] and blue["may_lack_commits"] and blue["other_unseen"] and "fenced when it comes back" in blue["does"], blue
    wrong = d.verb("recover", "--use", "green", code=1)
    assert "can't be reached" in wrong.out + wrong.err and d.verb("status").json["active"] is None, wrong

    assert decide(d, "blue")["epoch"] == blue["epoch"]
    served_by(d, world.blue)
    assert world.blue.value("select note from account where id = 1") == "acknowledged"
    # the word lasts: also past a restart, and when the other side says that it is the active one
    d.kill()
    d.start()
    served_by(d, world.blue)
    world.green.start()
    s = d.wait_status(lambda s: s["sides"]["green"]["fenced"] and (s["sides"]["green"]["standing"] == "diverged" or s["way_back"]["open"]),
                      60, "green is fenced on contact")
    assert s["active"] == "blue", s
    assert_one_active(world, "blue")
    if not s["way_back"]["open"]:
        d.verb("rejoin", code=0)
    d.wait_status(lambda s: s["way_back"]["open"], 60, "green follows")
    world.assert_same_data()
    d.flip("cutover")
    served_by(d, world.green)


def test_active_side_restored_from_before_the_flip(world):
    """A backup of the active side from before it was that: neither side says that it is the active one, both can be chosen."""
    d = world.prepared(pair={"fsync": "on"}, **SETTINGS)
    write(world, d, "old")
    copy = copy_of(world.green, "old")
    d.wait_steady("blue")
    d.flip("cutover")
    d.wait_status(promised, 60, "the promise")
    write(world, d, "acknowledged")
    d.stop()
    restore(world.green, copy)
    d.start(wait=False)
    choices = doubt(d, "active")
    refused(d)
    assert all(choice["possible"] for choice in choices.values()), choices
    # the one that has more epochs behind it has the later commits
    assert choices["green"]["may_lack_commits"] and not choices["blue"]["may_lack_commits"], choices

    decide(d, "blue")
    served_by(d, world.blue)
    assert world.blue.value("select note from account where id = 1") == "acknowledged"
    assert_one_active(world, "blue")
    # of what happened since the backup, green hears nothing by itself; a fault of its tables is looked for every second
    closed(d, "restored")
    answer = d.verb("check", code=1)
    assert "prepare" in answer.out, answer
    d.prepare()
    d.wait_status(lambda s: s["way_back"]["open"], 60, "green was copied anew")
    world.assert_same_data()
    d.flip("cutover")
    served_by(d, world.green)
    world.assert_same_data(tables=["account"])


def test_decision_outlives_a_crash(world):
    """The daemon dies right behind the word: it stands in the journal, and is carried out at the next start."""
    d = world.prepared(pair={"fsync": "on"}, **SETTINGS)
    d.flip("cutover")
    d.wait_status(promised, 60, "the promise")
    write(world, d, "acknowledged")
    d.stop()
    shutil.rmtree(d.settings["state"]["dir"])
    world.green.kill()
    d.start(wait=False, environment={"SWITCHBACK_TEST_CRASH": "adopt:before"})
    doubt(d, "green")
    d.verb("recover", "--use", "blue")
    d.wait_exit(60)
    d.start()
    s = d.wait_status(lambda s: s["active"] == "blue", 60, "blue serves, as was decided")
    assert s["flip"] is None, s
    served_by(d, world.blue)
    assert world.blue.value("select note from account where id = 1") == "acknowledged"


def test_half_a_takeover_without_a_journal(world):
    """A takeover ended between two databases and its journal is lost: the next start finishes it, and fences the side it left."""
    d = world.prepared(pair={"databases": ("app", "shop")}, databases=["app", "shop"], flip=dict(LOSSLESS, lossless=False))
    d.stop()
    shutil.rmtree(d.settings["state"]["dir"])
    for name in ("app", "shop"):
        with world.green.connect(name, "switchback") as manager:
            manager.query("set session_replication_role = replica")
            owner, epoch = manager.query("select owner, epoch from switchback.state")[0]
            manager.query("select switchback.cut_off(%s, %s, 7)" % (owner, epoch))
            if name == "app":
                manager.query("select switchback.make_ready_alone(%s, %s, 7)" % (owner, epoch))
    d.start()
    s = d.wait_status(lambda s: s["active"] == "green" and s["phase"] == "steady", 60, "green serves")
    d.wait_status(lambda s: s["sides"]["blue"]["fenced"], 60, "blue is fenced")
    for name in ("app", "shop"):
        state = world.green.query("select standing, epoch, opened_for from switchback.state", database=name)[0]
        assert list(state) == ["active", str(s["epoch"]), "7"], (name, state)
    assert_one_active(world, "green")
    served_by(d, world.green)
