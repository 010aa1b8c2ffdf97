"""The promise on real clusters: what is acknowledged on the active side has been confirmed by the other."""
from test_replication import pair, rows


def names(side):
    return rows(side, "show synchronous_standby_names")[0][0]


def test_names_follow_the_promise(world):
    console = pair(world, databases=2)
    console.do("names blue 1 on 5000")
    said = names(world.blue)
    assert said.startswith("FIRST 2 (switchback_app0_") and said.count("_to_green") == 2, said
    assert names(world.green) == ""

    # again without a change, and turned round: a standby's names are always empty
    console.do("names blue 1 on 5000")
    assert console.fails("names green 1 on 5000").code == "stale"
    assert console.fails("names blue 2 on 5000").code == "stale"
    assert names(world.blue) == said
    rows(world.green, "alter system set synchronous_standby_names = 'FIRST 1 (switchback_left_behind)'")
    console.do("names blue 1 on 5000")
    assert names(world.green) == ""

    # what was written and never loaded would be in force after a restart
    console.do("names blue 1 off 5000")
    assert names(world.blue) == ""
    rows(world.blue, "alter system set synchronous_standby_names = '%s'" % said)
    console.do("names blue 1 off 5000")
    assert rows(world.blue, "select count(*) from pg_file_settings where name = 'synchronous_standby_names'") == [("0",)]

    # another use is named, and left alone
    rows(world.blue, "alter system set synchronous_standby_names = 'somebody'")
    rows(world.blue, "select pg_reload_conf()")
    failed = console.fails("names blue 1 on 5000")
    assert failed.code == "check_failed" and "somebody" in failed.message, failed
    console.do("names blue 1 off 5000")
    assert names(world.blue) == "somebody"
    rows(world.blue, "alter system reset synchronous_standby_names")
    rows(world.blue, "select pg_reload_conf()")

    # a standby that is gone keeps nobody from anything
    world.green.stop("immediate")
    console.do("names blue 1 off 5000")
    console.do("names blue 1 on 5000")
    console.do("names blue 1 off 5000")
    console.stop()


def lossless_turn(console, flip, source, epoch):
    for phase in ("fence", "catchup", "ready", "open"):
        console.do("%s %d %s %d 10000" % (phase, flip, source, epoch))
    console.do("active %s %d" % ("green" if source == "blue" else "blue", epoch + 1))
    console.do("promise-turn %d %s %d 20000" % (flip, source, epoch))


def test_promise_of_a_turn(world):
    console = pair(world, databases=2)
    lossless_turn(console, 1, "blue", 1)
    assert names(world.green).startswith("FIRST 2 (") and names(world.blue) == ""
    assert {row[0] for row in rows(world.blue, "select subsynccommit from pg_subscription where subenabled")} == {"local"}
    states = rows(world.green, "select sync_state from pg_stat_replication where application_name like '%to_blue'")
    assert states == [("sync",), ("sync",)], states

    # again, with a stream that runs: each probe returns within milliseconds and is seen all the same
    console.do("promise-turn 1 blue 1 20000")
    console.do("promise green 20000")
    console.healthy("green")

    # a flip-back takes names along: empty on the standby, always
    console.do("names green 2 off 5000")
    assert names(world.green) == ""
    console.do("promise green 20000")
    console.flip(2, "green", 2)
    assert names(world.green) == "" and names(world.blue) == ""
    console.stop()


def test_promise_of_a_turn_that_fails(world):
    """The old source doesn't answer: commits on the new one must not wait for it."""
    console = pair(world)
    for phase in ("fence", "catchup", "ready", "open"):
        console.do("%s 1 blue 1 10000" % phase)
    console.do("active green 2")
    # its apply worker can't write: the probe of the turn waits in vain
    holder = world.blue.connect("app0", "postgres")
    holder.query("begin")
    holder.query("lock table switchback.marker in exclusive mode")
    failed = console.fails("promise-turn 1 blue 1 3000")
    assert failed.code == "timeout" and "has not confirmed a commit" in failed.message, failed
    assert names(world.green) == ""
    assert rows(world.green, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == [("0",)]
    holder.query("rollback")
    console.do("promise-turn 1 blue 1 20000")
    assert names(world.green).startswith("FIRST 1 (")
    console.stop()
