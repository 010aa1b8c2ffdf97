"""check: each fault is made, found, mended, and gone."""
import time

import pg
from daemon import LIMIT
from tool import Tool

# what the manager does with the fences, no event trigger undoes
AS_MANAGER = "set session authorization switchback; set session_replication_role = replica; "

# A prepared pair: (check, side, fault, state, words of its objects, mending); ";;" ends a request
FAULTS = [
    ("replica_identity", "blue", "create table f (id int); create table public.f2 (id int)", "fail", "public.f", "drop table f, f2"),
    ("replica_identity", "blue", "alter table orders replica identity nothing", "fail", "NOTHING",
     "alter table orders replica identity default"),
    ("replica_identity", "blue", "create table f (id int, primary key (id) deferrable)", "fail", "at once", "drop table f"),
    ("replica_identity", "green", "alter table orders drop constraint orders_pkey", "fail", "green: public.orders",
     "alter table orders add primary key (id)"),
    ("identity_full", "blue", "create table f (id int, j json[]); alter table f replica identity full", "fail", "json", "drop table f"),
    ("identity_full", "blue", "create domain jd as json; create table f (id int, j jd); alter table f replica identity full", "fail",
     "json", "drop table f; drop domain jd"),
    ("identity_full", "blue", "create table f (id int, j jsonb, v varchar, m mood, a int[]); alter table f replica identity full",
     "warn", "public.f", "drop table f"),
    ("unlogged_tables", "blue", "create unlogged table f (id int)", "fail", "public.f", "drop table f"),
    ("foreign_tables", "blue", "create extension postgres_fdw; create server s foreign data wrapper postgres_fdw;"
     "create foreign table f (id int) server s", "warn", "server s", "drop extension postgres_fdw cascade"),
    ("large_objects", "blue", "select lo_create(4711)", "fail", "4711", "select lo_unlink(4711)"),
    ("materialized_views", "green", "create materialized view f as select 1 as i with no data", "fail", "never populated",
     "drop materialized view f"),
    ("materialized_views", "green", "create materialized view f as select 1 as i", "warn", "public.f", "drop materialized view f"),
    ("always_triggers", "green", "alter table orders enable always trigger touch", "warn", "touch", "alter table orders enable trigger touch"),
    ("truncate", "blue", "create table history_x (id int references orders)", "warn", "history_x", "drop table history_x"),
    ("tables", "blue", "create table f (id int primary key)", "fail", "public.f: missing on green", "drop table f"),
    ("tables", "green", "create table f (id int primary key)", "fail", "public.f: missing on blue", "drop table f"),
    ("columns", "green", "alter table orders add f int", "warn", "public.orders.f: missing on blue", "alter table orders drop f"),
    ("columns", "green", "alter table notes add f int not null", "fail", "public.notes.f: missing on blue", "alter table notes drop f"),
    ("columns", "blue", "alter table orders add f int", "fail", "public.orders.f: missing on green", "alter table orders drop f"),
    ("columns", "green", "alter table orders alter n type bigint", "warn", "integer on blue, bigint on green",
     "alter table orders alter n type int"),
    ("columns", "green", "alter table notes alter v type int using 1", "fail", "text on blue, integer on green",
     "alter table notes alter v type text"),
    ("columns", "green", "alter table notes alter v set not null", "warn", "nullable on blue, not null on green",
     "alter table notes alter v drop not null"),
    ("columns", "green", "alter table notes add g int; alter table notes drop g; alter table notes drop v;"
     "alter table notes add v text generated always as ('x') stored", "fail", "not generated on blue",
     "alter table notes drop v; alter table notes add v text"),
    ("identity_columns", "green", "alter table orders drop constraint orders_pkey; alter table orders add primary key (id, n)", "fail",
     "public.orders", "alter table orders drop constraint orders_pkey; alter table orders add primary key (id)"),
    ("enums", "blue", "alter type mood add value 'new'", "fail", "mood 'new'", "!alter type mood add value 'new'"),
    ("types", "green", "alter domain even drop constraint even_check", "fail", "even",
     "alter domain even add constraint even_check check (value % 2 = 0)"),
    ("sequences", "blue", "create sequence f", "fail", "public.f", "drop sequence f"),
    ("sequences", "green", "alter sequence lonely maxvalue 1000", "fail", "lonely", "alter sequence lonely no maxvalue"),
    ("sequences", "green", "alter sequence lonely increment 7", "warn", "lonely", "alter sequence lonely increment 1"),
    ("unique_indexes", "green", "create unique index f on notes (v)", "warn", "public.notes (v)", "drop index f"),
    ("indexes", "green", "drop index orders_n", "warn", "orders_n", "create index orders_n on orders (n)"),
    ("constraints", "green", "alter table orders add constraint f check (n > 0) not valid", "warn", "public.orders f",
     "alter table orders drop constraint f"),
    ("programs", "green", "create or replace function touch() returns trigger language plpgsql as 'begin return null; end'", "warn",
     "touch()", "create or replace function touch() returns trigger language plpgsql as 'begin return new; end'"),
    ("programs", "blue", "create view f as select 1 as i", "warn", "view public.f", "drop view f"),
    ("programs", "green", "alter table notes enable row level security", "warn", "row security public.notes",
     "alter table notes disable row level security"),
    ("grants", "green", "grant delete on orders to app", "warn", "public.orders", "revoke delete on orders from app"),
    ("grants", "green", "alter table notes owner to app", "warn", "owner", "alter table notes owner to postgres"),
    ("grants", "blue", "revoke execute on function touch() from public", "warn", "touch", "grant execute on function touch() to public"),
    ("extensions", "blue", "create extension citext", "fail", "citext", "drop extension citext"),
    ("event_triggers", "blue", "create function ev() returns event_trigger language plpgsql as 'begin end';"
     "create event trigger f on sql_drop execute function ev()", "warn", "f", "drop event trigger f; drop function ev()"),
    ("roles", "blue", "create role f login", "fail", "f: missing on green", "drop role f"),
    ("roles", "green", "alter role app createdb", "warn", "app", "alter role app nocreatedb"),
    ("roles", "blue", "grant pg_monitor to app", "warn", "app member of pg_monitor", "revoke pg_monitor from app"),
    ("verifiers", "green", "alter role app password 'other'", "fail", "app: differs", "!copy verifier"),
    ("verifiers", "blue", "set password_encryption = md5; create role f login password 'x'", "warn", "f: an md5 password", "drop role f"),
    ("role_settings", "blue", "alter role app set work_mem = '9MB'", "warn", "work_mem", "alter role app reset work_mem"),
    ("role_settings", "green", "alter database app set search_path = pg_catalog, public", "warn", "search_path",
     "alter database app reset search_path"),
    ("replica_sessions", "blue", "alter role app set session_replication_role = replica", "fail", "app",
     "alter role app reset session_replication_role"),
    ("synchronous_commit", "blue", "alter role app set synchronous_commit = off", "fail", "app: synchronous_commit=off",
     "alter role app reset synchronous_commit"),
    ("synchronous_commit", "green", "alter database app set synchronous_commit = local", "fail", "every role",
     "alter database app reset synchronous_commit"),
    ("synchronous_commit", "blue", "alter function touch() set synchronous_commit = off", "warn", "touch",
     "alter function touch() reset synchronous_commit"),
    ("synchronous_standbys", "blue", "alter system set synchronous_standby_names = 'FIRST 1 (switchback_app_1234_to_green)'", "pass", "",
     "alter system reset synchronous_standby_names"),
    ("read_only", "green", "alter database app set default_transaction_read_only = on", "fail", "app",
     "set default_transaction_read_only = off; alter database app reset default_transaction_read_only"),
    ("prepared_transactions", "blue", "create table f (i int primary key);; begin;; insert into f values (1);; prepare transaction 'p'",
     "fail", "p: database app", "rollback prepared 'p';; drop table f"),
    ("state", "green", "update switchback.state set standing = 'diverged'", "fail", "diverged", "update switchback.state set standing = 'standby'"),
    ("state", "blue", "update switchback.state set epoch = 7", "fail", "epoch", "update switchback.state set epoch = 1"),
    ("state", "blue", "update switchback.state set system_identifier = '1'", "fail", "another system identifier",
     "update switchback.state set system_identifier = c.system_identifier::text from pg_control_system() c"),
    ("state", "green", "update switchback.state set timeline = 9", "fail", "timeline", "update switchback.state set timeline = 1"),
    ("table_sets", "blue", "alter publication switchback_blue drop table notes", "fail", "public.notes",
     "alter publication switchback_blue add table only public.notes"),
    ("fences", "green", AS_MANAGER + "alter table public.notes disable trigger \"!switchback_fence\"", "fail",
     "notes: open", AS_MANAGER + "alter table public.notes enable always trigger \"!switchback_fence\""),
    ("fences", "blue", AS_MANAGER + "alter table public.notes enable trigger \"!switchback_fence\"", "fail",
     "notes: fenced", AS_MANAGER + "alter table public.notes disable trigger \"!switchback_fence\""),
    ("fences", "blue", "alter event trigger switchback_refuse_ddl disable", "fail", "switchback_refuse_ddl",
     "alter event trigger switchback_refuse_ddl enable always"),
    ("stream", "green", "alter subscription switchback_from_blue disable", "fail", "disabled", "alter subscription switchback_from_blue enable"),
    ("way_back", "blue", "alter subscription switchback_from_green disable; update pg_subscription set subenabled = true where subname ="
     " 'switchback_from_green' and false; alter subscription switchback_from_green rename to f", "fail", "missing",
     "alter subscription f rename to switchback_from_green"),
    ("other_subscriptions", "green", "create subscription f connection 'dbname=x' publication p with (connect = false)", "fail", "f: disabled",
     "alter subscription f set (slot_name = none); drop subscription f"),
    ("other_slots", "blue", "select pg_create_logical_replication_slot('cdc', 'pgoutput')", "warn", "cdc", "select pg_drop_replication_slot('cdc')"),
    ("statistics", "green", "delete from pg_statistic where starelid = 'orders'::regclass", "warn", "public.orders", "analyze orders"),
]

# Settings of a cluster that a reload changes: (check, side, setting, value, state)
RELOADS = [
    ("slot_limits", "blue", "max_slot_wal_keep_size", "64GB", "warn"),
    ("slot_limits", "green", "max_slot_wal_keep_size", "64GB", "warn"),
    ("retry_interval", "green", "wal_retrieve_retry_interval", "5s", "warn"),
    ("settings", "green", "TimeZone", "Europe/Oslo", "warn"),
    ("settings", "blue", "standard_conforming_strings", "off", "warn"),
    ("read_only", "green", "default_transaction_read_only", "on", "fail"),
    ("synchronous_standbys", "blue", "synchronous_standby_names", "walreceiver", "fail"),
    ("synchronous_standbys", "green", "synchronous_standby_names", "ANY 1 (switchback_app_x, other)", "fail"),
    ("synchronous_commit", "green", "synchronous_commit", "remote_write", "fail"),
    ("sync_workers", "green", "max_sync_workers_per_subscription", "0", "fail"),
]

# Settings that need a restart, all at once on green: the checks that must find them
RESTARTS = {"max_connections": ("50", "connections", "warn"), "max_replication_slots": ("1", "slots", "warn"),
            "wal_level": ("replica", "wal_level", "fail"), "max_logical_replication_workers": ("1", "workers", "fail")}

SCHEMA = """
    create type mood as enum ('sad', 'ok');
    create domain even as int constraint even_check check (value % 2 = 0);
    create function touch() returns trigger language plpgsql as 'begin return new; end';
    create table orders (id int primary key, n int, m mood, e even);
    create index orders_n on orders (n);
    create trigger touch before update on orders for each row execute function touch();
    create table notes (id int primary key, v text);
    create sequence lonely;
    insert into orders select g, g, 'ok', 2 from generate_series(1, 100) g;
"""


def prepared(world):
    world.pair()
    world.blue.query(SCHEMA)
    tool = Tool(world, local_tables=["public.history_*"], flip={"lossless": True})
    tool.prepare()
    return tool


def as_manager(side, sql):
    with side.connect("app", "switchback") as connection:
        connection.query("set search_path = public; set default_transaction_read_only = off")
        for request in sql.split(";;"):
            connection.query(request)


def await_state(tool, item, state, timeout=20, why=None):
    """The outcome of check in which `item` is in that state."""
    end = time.monotonic() + timeout * LIMIT
    while True:
        outcome = tool.check()
        if outcome.state(item) == state:
            return outcome
        assert time.monotonic() < end, (item, state, why, outcome.items.get(item))
        time.sleep(0.2)


def find_faults(world, faults):
    tool = prepared(world)
    start = tool.check()
    assert start.failing() == [], start
    assert start.state("unanswered") in (None, "pass"), start.items["unanswered"]
    for item, name, fault, state, words, mending in faults:
        calm = start.state(item) or "pass"
        assert calm != state or state == "pass", "%s says %s of a pair without a fault" % (item, state)
        side = world.side(name)
        as_manager(side, fault)
        outcome = await_state(tool, item, state, why=fault)
        objects = " | ".join(outcome.items[item]["objects"])
        assert words in objects, (item, fault, objects)
        if state != "pass":
            assert outcome.items[item]["message"]
        if mending == "!copy verifier":
            verifier = world.blue.value("select rolpassword from pg_authid where rolname = 'app'")
            world.green.query("alter role app password '%s'" % verifier)
        elif mending.startswith("!"):
            as_manager(world.other(name), mending[1:])
        else:
            as_manager(side, mending)
        await_state(tool, item, calm, why=mending)
    assert tool.check().failing() == [], tool.check()


def test_every_fault_is_found(world):
    find_faults(world, FAULTS[0::2])


def test_every_other_fault_is_found(world):
    find_faults(world, FAULTS[1::2])


test_every_fault_is_found.timeout = test_every_other_fault_is_found.timeout = 300


def test_settings_are_found(world):
    tool = prepared(world)
    start = tool.check()
    for item, name, setting, value, state in RELOADS:
        side = world.side(name)
        side.query("alter system set %s = '%s'" % (setting, value), "postgres")
        side.query("select pg_reload_conf()", "postgres")
        outcome = await_state(tool, item, state)
        assert any(name in o for o in outcome.items[item]["objects"]), outcome.items[item]
        with side.connect() as connection:
            connection.query("set default_transaction_read_only = off")
            connection.query("alter system reset %s" % setting)
            connection.query("select pg_reload_conf()")
        await_state(tool, item, start.state(item))


def test_before_prepare(world):
    """Works on an empty standby, and finds what prepare would trip over."""
    world.pair()
    world.blue.query("create extension hstore; create table t (id int)")
    tool = Tool(world)
    outcome = tool.check()
    assert outcome.failing() == ["prepared", "replica_identity"], outcome
    assert outcome.state("databases") == "warn" and outcome.state("reachable") == "pass", outcome
    assert outcome.state("unanswered") is None, outcome
    for setting, (value, item, state) in RESTARTS.items():
        world.green.query("alter system set %s = '%s'" % (setting, value), "postgres")
    world.green.query("alter system set max_wal_senders = 0", "postgres")
    world.green.stop()
    world.green.start()
    outcome = tool.check()
    for value, item, state in RESTARTS.values():
        assert outcome.state(item) == state, (item, outcome.items[item])
    assert outcome.state("wal_senders") == "fail", outcome
    world.green.stop()
    outcome = tool.check()
    assert "reachable" in outcome.failing() and any("green" in o for o in outcome.items["reachable"]["objects"]), outcome
    assert outcome.state("replica_identity") == "fail", outcome  # what can be asked is


def test_clusters_that_differ(world):
    world.blue = world.cluster("blue", shared_preload_libraries="pg_stat_statements")
    world.green = world.cluster("green", new=True)
    for side, encoding in ((world.blue, "UTF8"), (world.green, "LATIN1")):
        with side.connect() as connection:
            connection.query("create database app template template0 encoding '%s' lc_collate 'C' lc_ctype 'C'" % encoding)
            connection.query("create database shop template template0 lc_collate '%s' lc_ctype 'C'"
                             % ("C" if side is world.blue else "C.UTF-8"))
    outcome = Tool(world, ["app", "shop"]).check()
    assert outcome.state("encoding") == "fail" and outcome.items["encoding"]["objects"] == ["app: UTF8 on blue, LATIN1 on green"], outcome
    assert outcome.state("collation") == "warn" and "shop" in outcome.items["collation"]["objects"][0], outcome
    assert outcome.state("preload") == "warn" and "pg_stat_statements" in outcome.items["preload"]["objects"][0], outcome


def test_manager_without_superuser(world):
    world.pair()
    world.blue.query("create table t (id int primary key)")
    for side in (world.blue, world.green):
        side.query("alter role switchback nosuperuser", "postgres")
    outcome = Tool(world).check()
    assert outcome.state("manager") == "fail", outcome
    lacks = " ".join(outcome.items["manager"]["objects"])
    for word in ("REPLICATION", "BYPASSRLS", "pg_authid", "pg_signal_backend", "superuser"):
        assert word in lacks, lacks
    assert outcome.state("unanswered") == "warn", outcome


def test_running_work_is_found(world):
    tool = prepared(world)
    with world.blue.connect("app") as holder, world.blue.connect("app") as builder:
        holder.query("begin")
        holder.query("insert into notes values (1, 'x')")
        builder.send(pg.query("create index concurrently f on notes (v)"))
        outcome = await_state(tool, "busy_tables", "fail")
        assert "CREATE INDEX CONCURRENTLY" in " ".join(outcome.items["busy_tables"]["objects"]), outcome.items["busy_tables"]
        holder.query("commit")
        await_state(tool, "busy_tables", "pass")
    world.blue.query("drop index f")
    with world.blue.connect("app") as holder:
        holder.query("create temp table tt (i int)")
        outcome = await_state(tool, "temporary_tables", "warn")
    await_state(tool, "temporary_tables", "pass")
