"""What both sides say about themselves, over the tool of replication."""
from test_replication import pair


def test_a_lost_connection_is_no_lost_side(world):
    """Reading begins anew where its connection is ended under it: it called a side unreachable that answers everybody."""
    console = pair(world)
    reader = "select max(pid) from pg_stat_activity where application_name like 'switchback aux %' and wait_event_type = 'Lock'"
    with world.blue.connect("app0") as blocker:
        blocker.query("begin; lock table switchback.state")
        facts = console.start("facts")
        console.until(lambda _: world.blue.value(reader, "app0"), "the reader waits")
        world.blue.query("select pg_terminate_backend((%s))" % reader, "app0")
        blocker.query("commit")
    assert " blue reachable " in console.wait(facts).replace("|", " ")
    console.stop()


def test_a_lost_side_is_said_so(world):
    """One that can't be reached anew is out of reach, at once."""
    console = pair(world)
    assert console.facts()["blue"]["reachable"]
    world.blue.kill()
    facts = console.facts()
    assert not facts["blue"]["reachable"] and facts["green"]["reachable"], facts
    console.stop()
