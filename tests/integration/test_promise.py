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
