"""The ledger (tests/drivers/ledger) in all states that a drain may find, over flips without end; and that it finds what is wrong.

SWITCHBACK_LEDGER_SECONDS: how long `flips_for_a_minute` runs, for hours by hand.
"""
import os
import random
import time

from test_flip import assert_one_active

SECONDS = float(os.environ.get("SWITCHBACK_LEDGER_SECONDS", "60"))


def test_flips_for_a_minute(world):
    """Cutovers, flip-backs and aborts one after the other: no error, nothing lost, doubled or stale, both sides equal."""
    d = world.prepared()
    end, flips, runs = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end or flips < 2:
        load = world.ledger(sessions=15, rate=12, states=True)
        part = time.monotonic() + min(SECONDS, 300)  # its record is kept in memory
        while (time.monotonic() < part and time.monotonic() < end) or flips < 2:
            active = d.status()["active"]
            verb = d.start_verb("cutover" if active == "blue" else "flip-back")
            if random.random() < 0.2:
                d.verb("abort")  # in time or not
            answer = verb.finish()
            assert answer.code in (0, 1) and answer.json["result"] in ("done", "aborted"), answer
            flips += answer.code == 0
            d.wait_steady(None if answer.code else ("green" if active == "blue" else "blue"))
        summary = load.stop()
        load.assert_clean()
        world.assert_same_data(settle=60)
        load.verify(world.blue)
        load.verify(world.green)
        runs += 1
        world.note("%d flips: %s" % (flips, summary))
    assert_one_active(world, d.status()["active"])


test_flips_for_a_minute.timeout = SECONDS + 300


def test_the_ledger_finds_what_is_wrong(world):
    """Each kind of loss, made by hand behind its back, is found."""
    world.pair(ledger=True)
    load = world.ledger(sessions=4, rate=100, seconds=6, states=True, to=world.blue)
    load.wait()
    load.assert_clean()
    good = load.verify(world.blue)
    assert good["acknowledged"] > 100 and good["elements"] > 10, good
    longest = "(select id from list order by cardinality(items) desc, id limit 1)"
    for fault, sql in (
            ("missing", "delete from entry where id = (select max(id) from entry where source is null)"),
            ("doubled", "insert into entry (run, session, n, source, target, amount, tenant)"
                        " select run, session, n, source, target, amount, tenant from entry where source is null limit 1"),
            ("unknown_rows", "insert into entry (run, session, n, amount, tenant) select run, 77, 1, 0, 's77' from entry limit 1"),
            ("wrong_balances", "update account set balance = balance + 1 where id = 7"),
            ("wrong_balances", "delete from entry where id = (select max(id) from entry where source is not null)"),
            ("wrong_tenant", "update entry set tenant = 'other' where id = (select max(id) from entry)"),
            ("missing", "update list set items = items[:cardinality(items) - 1] where id = " + longest),
            ("gone_after_seen", "update list set items = items[2:] || items[1] where id = " + longest),
            ("gone_after_seen", "update list set items = items[2:] where id = " + longest),
            ("out_of_order", "update list set items = items[2:] || items[1] where id = " + longest),
            ("doubled", "update list set items = items || items[cardinality(items)] where id = " + longest),
    ):
        with world.blue.connect("app") as connection:
            connection.query("create temp table kept_entry as table entry; create temp table kept_list as table list;"
                             " create temp table kept_account as table account")
            connection.query(sql)
            found = load.verify(world.blue, good=False)
            assert not found["ok"] and found[fault] > 0, (fault, sql, found)
            connection.query("truncate entry, list, account; insert into entry table kept_entry;"
                             " insert into list table kept_list; insert into account table kept_account")
    load.verify(world.blue)
