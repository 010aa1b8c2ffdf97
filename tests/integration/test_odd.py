"""Every kind of table and sequence, carried there and back by the daemon; and what `check` says of what can't be."""
from test_flip import assert_one_active, code_of

ODD = r'''
create schema "Odd Schema";
create schema empty;
create table "Odd Schema"."Täble ""x""" ("Key" text primary key, "select" int, arr int[], j jsonb, b bytea);
insert into "Odd Schema"."Täble ""x""" select 'k' || g, g, array[g, null], jsonb_build_object('a', g), decode('00ff', 'hex') from generate_series(1, 50) g;
create table wide as select g as id, repeat('x', 3000) as v from generate_series(1, 300) g;
alter table wide add primary key (id);
create table composite_key (a int, b text, c timestamptz default now(), primary key (b, a));
insert into composite_key (a, b) select g, 'b' || g from generate_series(1, 20) g;
create table by_unique (id int not null, v text);
create unique index by_unique_id on by_unique (id);
alter table by_unique replica identity using index by_unique_id;
create table whole (v text, n numeric);
alter table whole replica identity full;
insert into whole values ('dup', 1), ('dup', 1), (null, 2);
create table parted (id int, at date, v text, primary key (id, at)) partition by range (at);
create table parted_1 partition of parted for values from ('2020-01-01') to ('2021-01-01');
create table parted_2 partition of parted for values from ('2021-01-01') to ('2022-01-01') partition by list (id);
create table parted_2a partition of parted_2 for values in (1, 2, 3);
create table parted_2b partition of parted_2 default;
insert into parted select g, date '2020-06-01' + (g % 2) * 365, 'p' from generate_series(1, 40) g;
create table parent (id int primary key);
create table child (extra text, primary key (id)) inherits (parent);
insert into child values (1, 'c');
create table idents (id int generated always as identity (start 100 increment 5) primary key, v text, twice text generated always as (v || v) stored);
insert into idents (v) select 'v' || g from generate_series(1, 10) g;
create sequence down increment -3 minvalue -1000 maxvalue 0 start 0;
create sequence cycling maxvalue 3 cycle;
create sequence tiny as smallint;
create sequence untouched start 77;
create sequence "Odd Schema"."Sequence ö";
select nextval('down'), nextval('down'), nextval('cycling'), nextval('tiny'), setval('"Odd Schema"."Sequence ö"', 5000, false);
create domain positive as int check (value > 0);
create table linked (id int primary key, parent int references parent (id) deferrable initially deferred, amount positive);
insert into parent values (7); insert into linked values (1, 7, 3);
create view seen as select * from wide;
create materialized view counted as select count(*) from wide;
create unlogged table scratch (id int primary key);
create function stamp() returns trigger language plpgsql as $$ begin new.v = new.v || '!'; return new; end $$;
create trigger stamp before insert on by_unique for each row execute function stamp();
insert into by_unique values (1, 'a');
create table guarded (id int primary key, tenant text);
alter table guarded enable row level security;
create policy own on guarded using (tenant = current_setting('app.tenant', true));
insert into guarded values (1, 'a'), (2, 'b');
comment on table wide is 'it''s wide';
create index on wide (v text_pattern_ops) where id > 100;
'''

CHANGES = [
    "update \"Odd Schema\".\"Täble \"\"x\"\"\" set \"select\" = \"select\" + 1 where \"Key\" < 'k3'",
    "delete from wide where id % 7 = 0", "update wide set v = v || 'y' where id % 5 = 0",
    "update composite_key set a = a + 100 where a < 5", "insert into by_unique select coalesce(max(id), 0) + 1, 'n' from by_unique",
    "update by_unique set id = id + 1000 where id = (select max(id) from by_unique)", "insert into whole values ('dup', 1), (null, null)",
    "update whole set n = n + 1 where v is null", "update parted set at = at + 365 where at < '2021-01-01' and id < 10",
    "insert into parted select max(id) + 1, '2021-03-01', 'new' from parted", "insert into idents (v) values ('later')",
    "insert into child select max(id) + 1, 'd' from child", "update linked set amount = amount + 1",
    "update guarded set tenant = tenant || 'x'", "truncate composite_key; insert into composite_key (a, b) values (1, 'one')",
]
SEQUENCES = ("down", "cycling", "tiny", "untouched", '"Odd Schema"."Sequence ö"', "idents_id_seq", "entry_id_seq")


def everything(side):
    """All rows of all ordinary tables, by name."""
    with side.connect("app") as connection:
        connection.query("set timezone = 'UTC'")
        names = [name for name, in connection.query(
            "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = relnamespace where relkind = 'r'"
            " and relpersistence = 'p' and nspname not in ('switchback', 'pg_catalog', 'information_schema') order by 1")]
        return {name: sorted(connection.query("select t::text from only %s t" % name)) for name in names}


def assert_everything_same(world, d, timeout=30):
    try:
        d.until(lambda: everything(world.blue) == everything(world.green), timeout, "both sides hold the same")
    except AssertionError:
        left, right = everything(world.blue), everything(world.green)
        for name in sorted(set(left) | set(right)):
            if left.get(name) != right.get(name):
                print(name, left.get(name, "missing")[:5], right.get(name, "missing")[:5])
        raise


def odd_pair(world):
    world.pair(ledger=True)
    with world.blue.connect("app") as connection:
        connection.query(ODD)
        connection.query("create role reader nologin; create role writer login password 'pw' in role reader; alter role writer set work_mem = '5MB';"
                         " grant usage on schema \"Odd Schema\" to reader; grant select on all tables in schema \"Odd Schema\" to reader;"
                         " alter database app set timezone = 'UTC'; grant all on all tables in schema public to app;"
                         " grant all on all sequences in schema public to app")


def sequence(side, name):
    return side.query("select last_value, is_called from %s" % name)[0]


def test_flips(world):
    """Changes of every kind on either side arrive on the other; sequences go on where they were."""
    odd_pair(world)
    d = world.daemon(local_tables=["public.scratch"])  # unlogged: nothing of it is replicated
    d.prepare()
    d.wait_steady("blue")
    assert_everything_same(world, d)
    with world.connect(user="postgres") as client:
        for sql in CHANGES:
            client.query(sql)
    assert_everything_same(world, d)
    for verb, to in (("cutover", "green"), ("flip-back", "blue"), ("cutover", "green")):
        before = [sequence(world.other(to), name) for name in SEQUENCES]
        assert d.verb(verb, code=0).json["result"] == "done"
        after = [sequence(world.side(to), name) for name in SEQUENCES]
        assert after == before, (verb, [row for row in zip(SEQUENCES, before, after) if row[1] != row[2]])
        d.wait_steady(to)
        with world.connect(user="postgres") as client:
            for sql in CHANGES:
                client.query(sql)
            client.query("select nextval('down'), nextval('cycling'), nextval('tiny')")
        assert_everything_same(world, d)
        assert_one_active(world, to)
    with world.green.connect("app") as connection:
        assert connection.value("select obj_description('wide'::regclass)") == "it's wide"
        assert connection.value("select rolconfig::text from pg_roles where rolname = 'writer'") == "{work_mem=5MB}"
        assert connection.value("select relrowsecurity from pg_class where relname = 'guarded'") == "t"
        assert connection.value("select has_schema_privilege('writer', 'Odd Schema', 'usage')") == "t"


def test_new_table_between_flips(world):
    """A table added since prepare: the cutover is refused and names it; prepare takes it in, under load."""
    odd_pair(world)
    d = world.daemon(local_tables=["public.scratch"])  # unlogged: nothing of it is replicated
    d.prepare()
    d.wait_steady("blue")
    load = world.ledger(sessions=5)
    d.prepare()
    with world.blue.connect("app", "app") as connection:
        connection.query("create table added (id int primary key, v text); insert into added select g, 'a' from generate_series(1, 100) g")
    answer = d.verb("cutover", code=1)
    assert "added" in answer.out, answer
    assert d.status()["active"] == "blue"
    with world.green.connect("app", "switchback") as connection:
        connection.query("create table public.added (id int primary key, v text); alter table public.added owner to app")
    d.prepare()
    d.wait_steady("blue")
    world.assert_same_data(tables=["added"])
    d.verb("cutover", code=0)
    d.wait_steady("green")
    load.stop()
    load.assert_clean()
    assert_everything_same(world, d)
    load.verify(world.green)


def test_check_names_what_is_wrong(world):
    """A table that replication would break, by name, with what to do; mended, the check passes."""
    world.pair(ledger=True)
    with world.blue.connect("app", "app") as connection:
        connection.query("create table keyless (v text)")
    d = world.daemon()
    answer = d.verb("prepare")
    document = d.verb("check")
    assert "keyless" in answer.out + document.out, (answer, document)
    with world.blue.connect("app", "app") as connection:
        connection.query("alter table keyless replica identity full")
    d.prepare()
    d.wait_steady("blue")
    document = d.verb("check", code=0).json
    assert document["ok"] and all(check["state"] in ("pass", "warn") for check in document["checks"]), document
    with world.blue.connect("app", "app") as connection:
        connection.query("create table later (id int primary key)")
    document = d.verb("check", code=1).json
    failing = [check for check in document["checks"] if check["state"] == "fail"]
    assert any("later" in str(check["objects"]) + check["message"] for check in failing), failing
    assert all(check["remedy"] for check in failing), failing
    assert code_of(d.verb("cutover", code=1)) in ("check_failed", "not_in_sync")


def test_large_copy_with_progress(world):
    world.pair(ledger=True, accounts=200000)
    d = world.daemon()
    answer = d.verb("prepare", json=False, timeout=300, code=0)
    assert "copy" in (answer.out + answer.err).lower(), answer
    d.wait_steady("blue")
    world.assert_same_data(tables=["account"])


def test_dump_too_old(world):
    """pg_dump must be at least as new as the active side; else prepare says so."""
    world.pair(ledger=True, blue_new=True)
    if world.blue.version == 15:
        return  # no newer release here
    d = world.daemon()
    answer = d.verb("prepare", timeout=300, code=1)
    assert "pg_dump" in answer.out, answer
