"""Programs that people use, through the proxy and against the server: psql, pgbench, libpq in pipeline mode."""
import os
import re
import signal
import time

import cluster
import world as worlds

PGBENCH = os.path.join(cluster.OLD_BIN, "pgbench")

SCRIPT = r"""
create table fruit (id serial primary key, name text not null, price numeric(8, 2));
comment on table fruit is 'what we sell';
insert into fruit (name, price) values ('apple', 1.20), ('pear', 2), ('Möhre', null);
\d fruit
\d+ fruit_id_seq
\dt
\l app
\x on
select * from fruit order by id;
\x off
select count(*) as n from fruit \gset
\echo :n
select 1/0;
select * from no_such_table;
do $$ begin raise notice 'a notice'; raise warning 'a warning' using hint = 'a hint'; end $$;
begin;
savepoint s;
insert into fruit (name) values (null);
rollback to s;
insert into fruit (name) values ('plum');
commit;
\copy fruit to 'copied'
delete from fruit;
\copy fruit from 'copied'
\copy fruit from 'missing'
select * from fruit order by id;
prepare p as select name from fruit where id = $1;
execute p(2);
select 1 \; select 2 \; select 3;
declare c cursor with hold for select * from fruit order by id;
fetch 2 from c;
fetch 2 from c;
close c;
\timing off
set statement_timeout = '50ms';
select pg_sleep(60);
reset statement_timeout;
drop table fruit;
"""


def test_psql(world):
    """A script of many things prints the same."""
    world.pair()
    d = world.daemon()
    outputs = []
    for name, to in (("direct", world.blue), ("through", d)):
        folder = os.path.join(world.folder, name)
        os.mkdir(folder)
        done = world.psql(to, ["-a", "-f", "-"], input=SCRIPT, cwd=folder)
        outputs.append((done.returncode, done.stdout.splitlines(), done.stderr.splitlines()))
    for direct, through in zip(outputs[0], outputs[1]):
        assert direct == through, (direct, through)
    assert any("Möhre" in line for line in outputs[1][1]) and any("a notice" in line for line in outputs[1][2])


def test_psql_interrupt(world):
    """Ctrl-C in psql cancels the statement on the server."""
    world.pair()
    d = world.daemon()
    process = world.spawn([os.path.join(cluster.OLD_BIN, "psql"), "-X", world.conninfo(), "-c", "select pg_sleep(60)"])
    running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'"
    d.until(lambda: world.blue.value(running) == "1", what="the statement runs")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert "canceling statement due to user request" in err, (out, err)
    assert world.blue.value(running) == "0"


def bench(world, to, database, *arguments):
    environment = dict(os.environ, PGHOST="127.0.0.1", PGPORT=str(to.port), PGUSER="app", PGDATABASE=database)
    done = world.run([PGBENCH] + [str(a) for a in arguments], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pgbench(world):
    """Every mode of pgbench: no failure, and one client with one seed leaves the same rows as without the proxy."""
    world.pair(databases=("app", "direct"))
    d = world.daemon()
    for to, database in ((d, "app"), (world.blue, "direct")):
        bench(world, to, database, "-i", "-s", "1", "-q")
        for mode in ("simple", "extended", "prepared"):
            out = bench(world, to, database, "-M", mode, "-c", 1, "-t", 200, "--random-seed", 7, "-n")
            assert "number of transactions actually processed: 200/200" in out, out
        bench(world, to, database, "-C", "-c", 1, "-t", 50, "--random-seed", 8, "-n")
    for table in ("pgbench_accounts", "pgbench_tellers", "pgbench_branches"):
        rows = [world.blue.query("select t::text from %s t order by 1" % table, database) for database in ("app", "direct")]
        assert rows[0] == rows[1], table
    history = [world.blue.query("select tid, bid, aid, delta from pgbench_history order by 1, 2, 3, 4", database) for database in ("app", "direct")]
    assert history[0] == history[1]
    for mode in ("simple", "extended", "prepared"):
        out = bench(world, d, "app", "-M", mode, "-c", 16, "-j", 2, "-t", 100, "-n")
        assert "number of transactions actually processed: 1600/1600" in out, out
        assert re.search(r"number of failed transactions: 0 ", out), out
    out = bench(world, d, "app", "-C", "-c", 8, "-j", 2, "-t", 30, "-n")
    assert "number of transactions actually processed: 240/240" in out, out
    sums = world.blue.query("select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),"
                            " (select sum(delta) from pgbench_history)")
    assert len(set(sums[0])) == 1, sums


def test_pgbench_pipeline(world):
    world.pair()
    d = world.daemon()
    bench(world, d, "app", "-i", "-s", "1", "-q")
    script = os.path.join(world.folder, "pipeline.sql")
    with open(script, "w") as file:
        file.write("\\set aid random(1, 100000)\n\\startpipeline\nselect abalance from pgbench_accounts where aid = :aid;\n"
                   "update pgbench_accounts set abalance = abalance + 1 where aid = :aid;\nselect 1;\n\\endpipeline\n")
    for mode in ("extended", "prepared"):
        out = bench(world, d, "app", "-M", mode, "-f", script, "-c", 8, "-j", 2, "-t", 100, "-n")
        assert "number of transactions actually processed: 800/800" in out, out
    assert world.blue.value("select sum(abalance) from pgbench_accounts") == "1600"


def test_libpq_pipeline(world):
    world.pair()
    d = world.daemon()
    program = os.path.join(worlds.DRIVERS, "pipeline")
    outputs = [world.run([program, world.conninfo(to)], env=d.environment()) for to in (world.blue, d)]
    for done in outputs:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    direct, through = (done.stdout.splitlines() for done in outputs)
    assert direct == through, [pair for pair in zip(direct, through) if pair[0] != pair[1]][:5]


def test_many_connections(world):
    """Clients that come and go at once, on every worker; none is left behind."""
    world.pair()
    d = world.daemon(workers=4)
    bench(world, d, "app", "-i", "-s", "1", "-q")
    out = bench(world, d, "app", "-C", "-S", "-c", 40, "-j", 4, "-T", 5, "-n")
    assert re.search(r"number of failed transactions: 0 ", out), out
    ours = "select count(*) from pg_stat_activity where usename = 'app'"
    d.until(lambda: world.blue.value(ours) == "0", what="no server link is left")
    d.until(lambda: d.status()["sessions"]["total"] == 0, what="no session is left")


def test_large_result_and_copy(world):
    """A few hundred megabytes each way arrive whole."""
    world.pair()
    d = world.daemon()
    started = time.monotonic()
    done = world.psql(d, ["-qAt", "-c", "select repeat(md5(g::text), 320) from generate_series(1, 10000) g"])
    assert done.returncode == 0 and len(done.stdout) == 10000 * 10241, len(done.stdout)
    world.psql(d, ["-q", "-c", "create table big (v text)"], check=True)
    done = world.psql(d, ["-q", "-c", "\\copy big from stdin"], input=done.stdout)
    assert done.returncode == 0, done.stderr
    assert world.blue.query("select count(*), sum(length(v)) from big") == [("10000", "102400000")]
    print("%.1f s" % (time.monotonic() - started))
