"""prepare and finalize on real clusters: odd schemas, interruptions, refusals."""
import json
import os
import random
import socket
import threading
import time

import pg
from cluster import NEW_BIN, OLD_BIN
from daemon import LIMIT
from network import Strikes
from tool import Tool

HERE = os.path.dirname(os.path.abspath(__file__))
ODD = 'odd "db\'x'
LINGERS_S = 6  # a transaction behind which nobody else may wait; much longer than a busy machine makes them wait
STEPS = ["settings", "roles", "databases", "state", "schema", "fences", "forward stream", "initial copy", "reverse stream",
         "finish", "streaming"]


def odd_pair(world, rows=20000, **settings):
    """Blue with two databases full of odd things, green empty."""
    world.pair(**settings)
    with world.blue.connect() as connection:
        connection.query('create database "odd ""db\'x"')
        connection.query('create role "odd role" nologin')
        connection.query('grant app to "odd role"')
        connection.query("alter role app set work_mem = '8MB'")
        connection.query("alter role app in database app set search_path = public, \"$user\"")
    world.psql(world.blue, ["-q", "-v", "ON_ERROR_STOP=1", "-v", "rows=%d" % rows, "-f", os.path.join(HERE, "odd.sql")], "app",
               "postgres", check=True)
    with world.blue.connect(ODD) as connection:
        connection.query("create table t1 (id serial primary key, v text)")
        connection.query("insert into t1 (v) select 'x' || g from generate_series(1, 1000) g")
        connection.query("create table part (id int primary key) partition by hash (id)")
        connection.query("create table part0 partition of part for values with (modulus 2, remainder 0)")
        connection.query("create table part1 partition of part for values with (modulus 2, remainder 1)")
        connection.query("insert into part select generate_series(1, 1000)")
    return Tool(world, ["app", ODD], local_tables=["public.history_*"])


def content(side, database):
    """Every managed table's rows, and the sequences."""
    with side.connect(database) as connection:
        result = {}
        for name, in connection.query("select name from switchback.managed_table where leaf order by 1"):
            result[name] = connection.query(
                "select count(*), sum(hashtextextended(t::text, 0)) from only %s t" % name)
        return result


def await_same(world, databases, timeout=30):
    end = time.monotonic() + timeout * LIMIT
    for database in databases:
        while True:
            blue, green = content(world.blue, database), content(world.green, database)
            if blue == green:
                break
            assert time.monotonic() < end, [(n, blue.get(n), green.get(n)) for n in blue if blue.get(n) != green.get(n)]
            time.sleep(0.1)
        assert blue, "no tables in " + database


def test_odd_schema(world):
    tool = odd_pair(world, rows=200000)
    outcome = tool.prepare()
    assert [step for step in STEPS if any(p[1] == step for p in outcome.progress)] == STEPS, outcome
    copied = [float(p[3]) for p in outcome.progress if p[1] == "initial copy" and float(p[3]) >= 0]
    assert copied == sorted(copied) and copied[-1] == 1, outcome.progress  # a quick machine has nothing in between
    await_same(world, ["app", ODD])

    verifiers = "select rolname, rolpassword from pg_authid where rolname !~ '^pg_' order by 1"
    assert world.blue.query(verifiers) == world.green.query(verifiers)
    members = "select member::regrole::text, roleid::regrole::text from pg_auth_members where member >= 16384 order by 1, 2"
    assert world.blue.query(members) == world.green.query(members)
    settings = ("select coalesce(r.rolname, ''), coalesce(d.datname, ''), setconfig::text from pg_db_role_setting s left join"
                " pg_database d on d.oid = setdatabase left join pg_roles r on r.oid = setrole order by 1, 2")
    assert world.blue.query(settings) == world.green.query(settings)
    assert world.green.value("select count(*) from mv") == "1"

    check = tool.check()
    assert check.failing() == [], check
    assert check.state("type_oids") == "warn" or world.blue.version == world.green.version

    # changes cross: through the root of partitions, to generated columns, to a table without a key
    world.blue.query("insert into parent select g, 'us', g from generate_series(200000, 200500) g; update parent set v = v + 1 where id < 50;"
                     "update full_ident set b = 'w' where a = 3; delete from full_ident where a = 4; update gen set w = w + 1;"
                     "update plain set name = 'changed' where id < 100; delete from \"Odd \"\"Schema\".\"Ta ble's\" where \"Id col\" < 20;"
                     "truncate inh_child")
    await_same(world, ["app", ODD])

    # green is fenced, for rows and for DDL, by partition and root
    for sql in ("insert into plain (name) values ('x')", "truncate big", "insert into parent values (1, 'eu', 1)",
                "delete from parent_eu", "create table t (i int)", "drop table big"):
        try:
            world.green.query(sql, "app", "postgres")
            raise AssertionError("green took: " + sql)
        except pg.PgError as error:
            assert error.sqlstate == "25006", error

    # again: nothing is built or copied anew
    oids = "select oid, subname, (select count(*) from pg_subscription_rel) from pg_subscription order by 1"
    before = world.green.query(oids), world.blue.query(oids)
    tool.prepare()
    assert (world.green.query(oids), world.blue.query(oids)) == before


test_odd_schema.timeout = 300


def test_killed_at_each_step(world):
    tool = odd_pair(world, rows=50000)
    for step in STEPS:
        for delay in (0, random.random() * 0.4):
            tool.kill_at(step, delay)
    tool.prepare()
    await_same(world, ["app", ODD])
    assert tool.check().failing() == []
    slots = "select slot_name from pg_replication_slots where slot_name not like 'switchback%'"
    assert world.blue.query(slots) == [] and world.green.query(slots) == []


test_killed_at_each_step.timeout = 600


def kill_cluster_during_copy(world, name):
    tool = odd_pair(world, rows=600000)
    process = tool.start("prepare")
    for line in process.stdout:
        if line.startswith("progress\tinitial copy\t") and "MB" in line:
            break
    world.side(name).kill()
    world.side(name).start()
    out, _ = process.communicate(timeout=180 * LIMIT)
    tool.no_reports()
    if process.returncode != 0:
        tool.prepare()
    await_same(world, ["app", ODD])
    assert tool.check().failing() == [], out


def test_standby_killed_during_copy(world):
    kill_cluster_during_copy(world, "green")


def test_active_killed_during_copy(world):
    kill_cluster_during_copy(world, "blue")


test_standby_killed_during_copy.timeout = test_active_killed_during_copy.timeout = 400


def refused(tool, code, *words):
    outcome = tool.run("prepare")
    assert outcome.code == 1 and outcome.error and outcome.error[0] == code, outcome
    for word in words:
        assert word in " ".join(outcome.error), (word, outcome)
    return outcome


def test_foreign_rows_are_refused(world):
    world.pair()
    world.blue.query("create table orders (id int primary key, v text); insert into orders values (1, 'blue')")
    with world.green.connect() as connection:
        connection.query("create database app")
    world.green.query("create table orders (id int primary key, v text); insert into orders values (7, 'mine')")
    tool = Tool(world)
    refused(tool, "check_failed", "public.orders", "no prepare has copied")
    assert world.green.query("select * from orders") == [("7", "mine")]
    assert world.green.value("select to_regnamespace('switchback')") is None  # nor is it fenced
    world.green.query("delete from orders")
    tool.prepare()
    assert world.green.query("select * from orders") == [("1", "blue")]


def test_other_schema_is_refused(world):
    world.pair()
    world.blue.query("create table orders (id int primary key, v text)")
    with world.green.connect() as connection:
        connection.query("create database app")
    world.green.query("create table orders (id int primary key); create table more (id int primary key)")
    tool = Tool(world)
    refused(tool, "check_failed", "public.orders.v: missing on green", "public.more: missing on blue")
    world.green.query("drop table more; alter table orders add v text")
    tool.prepare()


def test_unfit_settings_are_refused(world):
    world.pair()
    tool = Tool(world)
    world.blue.query("create table t (id int)")
    refused(tool, "check_failed", "replica_identity", "public.t", "REPLICA IDENTITY")
    world.blue.query("alter table t replica identity full; alter table t add j json")
    refused(tool, "check_failed", "identity_full", "json")
    world.blue.query("alter table t drop j")
    world.green.query("alter system set wal_level = replica", "postgres")
    world.green.stop()
    world.green.start()
    refused(tool, "check_failed", "wal_level", "ALTER SYSTEM SET wal_level = logical")
    world.green.query("alter system reset wal_level", "postgres")
    world.green.stop()
    world.green.start()
    tool.prepare()


def test_lost_slot_is_rebuilt(world):
    world.pair()
    world.blue.query("create table orders (id int primary key, v text); insert into orders select g, 'v' from generate_series(1, 1000) g")
    tool = Tool(world)
    tool.prepare()
    slot = world.blue.value("select slot_name from pg_replication_slots")
    world.green.query("set session_replication_role = replica; alter subscription switchback_from_blue disable",
                      user="switchback")
    end = time.monotonic() + 20 * LIMIT
    while world.blue.value("select active from pg_replication_slots") == "t":
        assert time.monotonic() < end
        time.sleep(0.05)
    refused(tool, "undecided", "disabled")
    world.blue.query("select pg_drop_replication_slot('%s')" % slot)
    world.blue.query("update orders set v = 'w' where id <= 500; delete from orders where id > 900")
    check = tool.check()
    assert check.state("stream") == "fail", check
    tool.prepare()
    await_same(world, ["app"])
    assert tool.check().failing() == []


def test_stuck_table_is_rebuilt(world):
    """A standby that crashed may have forgotten that a table was done, after its slot was dropped: it waits for ever."""
    world.pair()
    world.blue.query("create table orders (id int primary key, v text); insert into orders select g, 'v' from generate_series(1, 1000) g")
    tool = Tool(world)
    tool.prepare()
    with world.green.connect("app", "switchback") as connection:
        connection.query("alter subscription switchback_from_blue disable")
        connection.query("update pg_subscription_rel set srsubstate = 'f', srsublsn = '0/1' where srrelid = 'orders'::regclass")
        connection.query("alter subscription switchback_from_blue enable")
    world.blue.query("update orders set v = 'w' where id < 10")
    outcome = tool.prepare()
    assert any("can't get in sync" in p[2] for p in outcome.progress), outcome
    await_same(world, ["app"])
    assert world.green.value("select subsynccommit from pg_subscription") == "local"


def test_new_table_and_column(world):
    world.pair()
    world.blue.query("create table orders (id int primary key, v text); insert into orders select g, 'v' from generate_series(1, 100) g")
    tool = Tool(world)
    tool.prepare()
    world.blue.query("create table late (id int primary key, v text); insert into late select g, 'v' from generate_series(1, 50) g")
    check = tool.check()
    assert check.state("tables") == "fail" and check.state("table_sets") == "fail", check
    refused(tool, "check_failed", "public.late")
    world.green.query("create table public.late (id int primary key, v text)", user="switchback")
    tool.prepare()
    await_same(world, ["app"])
    # expanded on green only: the way back leaves the new column out
    world.green.query("alter table public.orders add note text default 'n'", user="switchback")
    assert tool.check().state("columns") == "warn"
    tool.prepare()
    published = "select attnames::text from pg_publication_tables where tablename = 'orders'"
    if world.green.version >= 15:
        assert world.green.value(published) == "{id,v}"
    world.blue.query("insert into orders values (1000, 'new')")
    end = time.monotonic() + 20 * LIMIT
    while world.green.query("select v, note from orders where id = 1000") != [("new", "n")]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert tool.check().failing() == []


def test_exchanged_and_foreign_sides_are_refused(world):
    world.pair()
    world.blue.query("create table orders (id int primary key)")
    tool = Tool(world)
    tool.prepare()
    outcome = tool.run("prepare", "green")
    assert outcome.error[0] == "undecided", outcome
    world.blue, world.green = world.green, world.blue
    refused(Tool(world), "wrong_cluster", "exchanged")


def test_finalize(world):
    world.pair(databases=("app", "shop"))
    for database in ("app", "shop"):
        world.blue.query("create table orders (id int primary key, v text); insert into orders values (1, 'a')", database)
    tool = Tool(world, ["app", "shop"])
    tool.prepare()
    outcome = tool.run("finalize")
    assert outcome.ok, outcome
    for side in (world.blue, world.green):
        assert side.query("select 1 from pg_subscription") == []
        assert side.query("select 1 from pg_replication_slots") == []
        assert side.query("select 1 from pg_replication_origin") == []
        for database in ("app", "shop"):
            assert side.query("select 1 from pg_publication", database) == []
            assert side.value("select finalized is not null from switchback.state", database) == "t"
    assert tool.run("finalize").ok  # again: nothing to do
    world.blue.query("insert into orders values (2, 'b')")
    tool.prepare()  # the standby's copies are removed and made again
    await_same(world, ["app", "shop"])
    assert world.green.value("select finalized is null from switchback.state") == "t"

    # everything, with green away: blue is cleaned, and what is left is named
    world.green.stop()
    outcome = tool.run("finalize-everything")
    assert outcome.error[0] == "unreachable" and "green" in outcome.error[1], outcome
    assert world.blue.query("select 1 from pg_replication_slots") == []
    world.green.start()
    assert tool.run("finalize-everything").ok
    for side in (world.blue, world.green):
        for database in ("app", "shop"):
            assert side.value("select to_regnamespace('switchback')", database) is None
            assert side.query("select tgname from pg_trigger where tgname like '%switchback%'", database) == []
            assert side.query("select evtname from pg_event_trigger", database) == []
            assert side.query("select 1 from pg_publication", database) == []
        assert side.query("select 1 from pg_subscription") == []
        assert side.query("select 1 from pg_replication_slots") == []
        assert side.query("select id, v from orders order by 1") == [("1", "a"), ("2", "b")]
    world.green.query("insert into orders values (3, 'c')")  # no fence any more


def test_writers_go_on(world):
    """prepare beside writers and a long transaction: nobody waits for long, nothing is lost."""
    world.pair()
    world.blue.query("".join("create table t%d (id serial primary key, v int);" % i for i in range(40)))
    tool = Tool(world)
    stop, longest, errors, written = threading.Event(), [0.0], [], [0]

    def write(number):
        try:
            with world.blue.connect("app") as connection:
                while not stop.is_set():
                    began = time.monotonic()
                    connection.query("insert into t%d (v) values (1)" % random.randrange(40))
                    longest[0] = max(longest[0], time.monotonic() - began)
                    written[0] += 1
        except Exception as error:
            errors.append(error)

    def linger():
        with world.blue.connect("app") as connection:
            while not stop.is_set():
                connection.query("begin; insert into t7 (v) values (2)")
                stop.wait(LINGERS_S)
                connection.query("commit")
                stop.wait(2)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)] + [threading.Thread(target=linger)]
    for thread in threads:
        thread.start()
    try:
        tool.prepare()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors
    assert written[0] > 100
    assert longest[0] < LINGERS_S * 0.7, "a writer waited %.2f s" % longest[0]
    await_same(world, ["app"])


def test_secrets_stay_secret(world):
    """The manager's password is needed everywhere, and shows in no log, argv or error."""
    scram = ("local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
             "host replication all 127.0.0.1/32 scram-sha-256\n")
    world.pair(log_statement="all", log_min_duration_statement=0, hba="local all all trust\nhost all all 127.0.0.1/32 trust\n")
    secret = "5ecret'\\ word"
    for side in (world.blue, world.green):
        side.query("set password_encryption = 'scram-sha-256'; alter role switchback password 'x'", "postgres")
        with side.connect() as connection:
            connection.query("set password_encryption = 'scram-sha-256'")
            connection.query("set log_statement = none; set log_min_duration_statement = -1")
            connection.query("alter role switchback password E'5ecret''\\\\ word'")
        side.write_hba(scram)
    world.blue.query("create table orders (id int primary key); insert into orders values (1)")
    verifier = world.blue.value("select rolpassword from pg_authid where rolname = 'switchback'")
    tool = Tool(world, password=secret)
    tool.prepare()
    await_same(world, ["app"])
    for side in (world.blue, world.green):
        assert "5ecret" not in side.log_text(), side.log_path
        assert verifier[30:60] not in side.log_text(), side.log_path
    wrong = Tool(world, password="wrong")
    refused(wrong, "unreachable", "password authentication failed")


def test_same_version_backwards(world):
    """Newer to older without a pg_dump that is new enough: says so, and goes on once the schema is there."""
    world.pair(blue_new=True, green_new=False)
    if world.blue.version == world.green.version:
        return
    world.blue.query("create table orders (id int primary key); insert into orders values (1)")
    tool = Tool(world, prepare={"pg_bin_dir": OLD_BIN})
    if not os.path.exists(os.path.join(NEW_BIN, "pg_dump")):
        refused(tool, "command_failed", "no pg_dump of version %d" % world.blue.version, "postgresql-client")
    world.green.query("create table orders (id int primary key)")
    tool.prepare()
    await_same(world, ["app"])
    assert tool.check().state("version") == "warn"


def test_stop_while_it_runs(world):
    tool = odd_pair(world, rows=50000)
    outcome = tool.run("stop-prepare")
    assert outcome.code == 1 and outcome.error[0] == "aborted", outcome
    tool.prepare()


def test_after_a_cutover(world):
    """Both ways: what prepare built is found whole after a flip, and prepare run again then changes nothing."""
    d = world.prepared(watch={"duration": "1s"})
    d.verb("check", code=0)
    for active, verb in (("green", "cutover"), ("blue", "flip-back"), ("green", "cutover")):
        d.verb(verb, code=0)
        d.wait_steady(active)
        answer = d.verb("check", code=0)
        assert answer.json["ok"], answer
        oids = "select oid, subname, subenabled from pg_subscription order by 1"
        before = world.blue.query(oids), world.green.query(oids)
        d.prepare()
        assert (world.blue.query(oids), world.green.query(oids)) == before
        d.wait_steady(active)
    world.assert_same_data()


def test_prepared_by_another_version(world):
    """The schema is an older one: status and check say so and no cutover begins, though the way back is open. Another
    prepare gives it what it lacks, and copies nothing."""
    hear_anew = "select tgname from pg_trigger where tgname = 'switchback_hear_anew'"
    oids = "select oid, subname, subenabled from pg_subscription order by 1"
    d = world.prepared()
    for side in (world.blue, world.green):
        side.query("drop trigger switchback_hear_anew on switchback.marker; update switchback.state set version = 3", user="switchback")
    told = d.wait_status(lambda s: sum("another version" in t["message"] for t in s["trouble"]) == 2, timeout=60, what="both are told")
    assert told["way_back"]["open"] and told["active"] == "blue", told
    found = [o for item in d.verb("check", code=1).json["checks"] if item["state"] == "fail" for o in item["objects"]]
    assert found and all("another version" in o for o in found), found
    refused = d.verb("cutover", code=1).json
    assert "another version" in refused["reason"] and "prepare" in refused["remedy"], refused
    before = world.blue.query(oids), world.green.query(oids)
    d.prepare()
    assert (world.blue.query(oids), world.green.query(oids)) == before
    assert all(side.query(hear_anew) for side in (world.blue, world.green))
    d.wait_status(lambda s: not s["trouble"], timeout=60, what="all is well")
    d.verb("check", code=0)
    for verb, active in (("cutover", "green"), ("flip-back", "blue")):
        d.verb(verb, code=0)
        d.wait_steady(active)
    world.assert_same_data()


def test_finalize_after_a_cutover(world):
    """The old side's rows were never ours to remove: the next prepare says so, and goes on once they are gone."""
    d = world.prepared()
    d.verb("cutover", code=0)
    d.wait_steady("green")
    d.verb("finalize", code=0)
    assert d.status()["way_back"]["open"] is False
    check = d.verb("check", code=1).json
    assert any("ended by finalize" in o for item in check["checks"] for o in item["objects"]), check
    d.verb("cutover", code=1)
    answer = d.verb("prepare", code=1)
    assert "no prepare has copied" in answer.json["error"]["message"], answer
    with world.blue.connect("app", "switchback") as connection:
        connection.query("set session_replication_role = replica")
        names = connection.query("select name from switchback.managed_table where leaf")
        connection.query("truncate " + ", ".join(name for name, in names))
    d.prepare()
    d.wait_steady("green")
    world.assert_same_data()
    d.verb("check", code=0)
    d.verb("flip-back", code=0)
    d.wait_steady("blue")
    world.assert_same_data()


def test_standby_killed_under_the_daemon(world):
    """The daemon takes ownership of a side that comes back, which ends prepare's sessions there: it goes on."""
    world.pair()
    world.blue.query("create table big (id int primary key, v text); insert into big select g, repeat('x', 200) from"
                     " generate_series(1, 300000) g")
    d = world.daemon()
    verb = d.start_verb("prepare")
    d.until(lambda: 'prepare_step step="initial copy"' in d.log_text(), 60, "the copy begins")
    world.green.kill()
    world.green.start()
    answer = verb.finish(timeout=180)
    if answer.code != 0:
        print(answer)
        d.prepare()
    d.wait_steady("blue")
    world.assert_same_data()
    assert answer.code == 0, answer


def asked_while_taken(d, world, verb):
    """The answer to a verb that comes when the daemon is about to take ownership, because a side has come back."""
    strikes, calls = Strikes(world.folder), []

    def ask():
        caller = socket.socket(socket.AF_UNIX)
        caller.settimeout(120 * LIMIT)
        caller.connect(d.socket_path)
        caller.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": verb}).encode() + b"\n")
        calls.append(caller)

    d.stop()
    d.start(environment={"SWITCHBACK_TEST_STRIKE": strikes.path})
    d.wait_status(lambda s: s["phase"] == "steady" and s["active"] == "blue" and s["sides"]["green"]["reachable"], 60, "steady")
    number = "select owner from switchback.state"
    before = int(world.blue.value(number))
    world.green.stop()
    d.wait_status(lambda s: not s["sides"]["green"]["reachable"], 60, "green is seen to be away")
    strikes.on("learn:before", ask)
    world.green.start()
    assert strikes.struck.wait(120 * LIMIT) and not strikes.problems, strikes.problems
    with calls[0] as caller:
        answer = next(answer for answer in map(json.loads, caller.makefile("rb")) if answer.get("id") == 1)
    assert int(world.blue.value(number)) > before
    return answer


def test_prepare_while_ownership_is_taken(world):
    """A side that comes back makes the daemon take ownership anew; a prepare of that moment waits, and isn't another controller's."""
    d = world.prepared()
    answer = asked_while_taken(d, world, "prepare")
    assert answer["result"]["ok"] is True, answer
    d.wait_steady("blue")
    world.assert_same_data()


def test_finalize_while_ownership_is_taken(world):
    d = world.prepared()
    answer = asked_while_taken(d, world, "finalize")
    assert answer["result"]["ok"] is True, answer
