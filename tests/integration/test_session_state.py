"""What asking a session for its state, and undoing it, must not do to its client; and the odd ends of its traffic."""
import pg


def in_time(client, sql):
    """The rows of a statement that the client's own statement_timeout may end, on a busy machine: then it is made again."""
    while True:
        try:
            return client.query(sql)
        except pg.PgError as error:
            assert error.sqlstate == "57014", error


def ours(client):
    """What the proxy has left prepared in the client's server session."""
    return client.query("select name from pg_prepared_statements where name like 'switchback%'")


def test_undo_leaves_nothing(world):
    """A flip that is taken back after arming: the client sees no message, no statement, no changed setting."""
    d = world.prepared(flip={"immovable": "abort"})
    blocker, client = world.connect(), world.connect()
    blocker.query("create temporary table mine as select 7 as i")
    client.query("set work_mem = '7MB'; set app.tenant = '42'; listen news")
    client.prepare("mine", "select $1::int + 1")
    client.send(pg.parse("", "select 'unnamed'"), pg.SYNC)
    client.results()
    d.verb("cutover", code=1)
    assert not client.readable(0.5), client.receive()
    client.send(pg.bind("", ""), pg.execute(), pg.SYNC)
    assert client.results() == [[("unnamed",)]]
    assert ours(client) == []
    assert client.query("select name from pg_prepared_statements") == [("mine",)]
    assert client.run("mine", [1]) == [("2",)]
    assert client.query("select current_setting('work_mem'), current_setting('app.tenant')") == [("7MB", "42")]


def test_asking_survives_timeouts(world):
    """A client's statement_timeout ends our question, never a statement of the client's."""
    d = world.prepared()
    client = world.connect()
    client.query("set lock_timeout = 1; set statement_timeout = 1")
    for verb, to in (("cutover", "green"), ("flip-back", "blue")):
        result = d.verb(verb, code=0).json
        assert (result["moved"], result["disconnected"]) == (1, 0), result
        assert in_time(client, "show statement_timeout") == [("1ms",)] and in_time(client, "show lock_timeout") == [("1ms",)]
        d.wait_steady(to)


def test_settings_by_parameter_and_in_functions(world):
    """Names of settings come from set_config's parameters as well; a function's change of a common one is noticed."""
    d = world.prepared()
    world.blue.query("create function go_far() returns void language sql as"
                     " $$ select set_config('search_path', 'far, public', false) $$", "app")
    client = world.connect()
    client.prepare("set", "select set_config($1, $2, false)")
    client.run("set", ["app.by_parameter", "x"])
    client.extended("select set_config($1, $2, false)", ["app.unnamed", "y"])
    client.query("select go_far()")
    client.query("begin; set local app.by_parameter = 'never'; commit; begin; set app.unnamed = 'never'; rollback")
    assert d.verb("cutover", code=0).json["moved"] == 1
    assert client.query("select current_setting('app.by_parameter'), current_setting('app.unnamed'),"
                        " current_setting('search_path')") == [("x", "y", "far, public")]


def test_failed_copy_is_at_the_boundary(world):
    """COPY by the extended protocol fails while the client still sends: the session is drained and moves all the same."""
    d = world.prepared()
    bad_row, trigger, late = world.connect(), world.connect(), world.connect()
    trigger.query("begin; create temporary table refused (i int);"
                  " create function pg_temp.no() returns trigger language plpgsql as 'begin raise exception ''no''; end';"
                  " create trigger no before insert on refused for each statement execute function pg_temp.no()")
    for client, table, rows in ((bad_row, "account", [b"x\n"] * 500), (trigger, "refused", [b"1\n"])):
        client.send(pg.parse("", "copy %s (%s) from stdin" % (table, "id" if table == "account" else "i")),
                    pg.bind("", ""), pg.execute(), pg.SYNC)
        while client.receive()[0] != "G":
            pass
        client.send(*[pg.copy_data(row) for row in rows], pg.message(b"c"), pg.SYNC)
        try:
            client.results()
            raise AssertionError("the copy did not fail")
        except pg.PgError:
            pass
    trigger.until_ready()  # its copy failed before it read the first Sync, which was answered too
    trigger.query("rollback")
    late.send(pg.query("copy account (id) from stdin"))
    assert late.receive()[0] == "G"
    late.send(pg.copy_data(b"x\n"), pg.message(b"c"))
    assert late.until_ready()[0][0] == "E"
    late.send(pg.copy_data(b"1\n"), pg.message(b"c"))  # of no copy any more
    assert d.verb("cutover", code=0).json["moved"] == 3
    for client in (bad_row, trigger, late):
        assert client.value("select 1") == "1"
        assert client.value("show server_version_num").startswith(str(world.green.version))


def test_sql_prepare_moves(world):
    """PREPARE in SQL moves with its text; EXECUTE, EXPLAIN EXECUTE and the protocol use it; the names pass both ways."""
    d = world.prepared()
    client = world.connect()
    client.query("prepare plain as select 'sql'")
    client.query("/* first */ prepare \"Typed\"(int, numeric) as select $1 + $2, ';', $$;$$;")
    client.query("do $$ begin execute 'prepare inside as select 3'; end $$")
    client.extended("prepare extended(int) as select $1 * 2")
    client.prepare("turned", "select 'protocol'")
    client.prepare("protocol", "select $1::int")
    asked = "select name, statement, parameter_types, from_sql from pg_prepared_statements order by 1"
    before = client.query(asked)
    for verb, to in (("cutover", "green"), ("flip-back", "blue")):
        assert d.verb(verb, code=0).json["moved"] == 1
        assert client.query(asked) == before
        assert client.query("execute plain") == [("sql",)] and client.query("execute \"Typed\"(1, 2.5)") == [("3.5", ";", ";")]
        assert client.query("execute inside") == [("3",)] and client.run("extended", [4]) == [("8",)]
        assert client.query("execute protocol(7)") == [("7",)]
        assert client.run("turned") == [("protocol",)] if to == "green" else client.query("execute turned") == [("sql now",)]
        d.wait_steady(to)
        client.query("deallocate turned")
        client.query("prepare turned as select 'sql now'")
        before = client.query(asked)
    assert client.error("prepare plain as select 2").sqlstate == "42P05"


def test_role_of_its_own(world):
    """A role by ALTER ROLE SET is what every link begins with: a session that left it stays out of it."""
    d = world.prepared()
    for side in (world.blue, world.green):
        side.query("do $$ begin if not exists (select from pg_roles where rolname = 'helper') then create role helper; end if; end $$;"
                   " grant helper to app; alter role app set role = 'helper'; alter role app set idle_session_timeout = '200s'")
    stays, leaves, returns = world.connect(), world.connect(), world.connect()
    stays.query("select 1")
    leaves.query("set role none")
    returns.query("set role none; set work_mem = '7MB'; reset role")
    for verb, to in (("cutover", "green"), ("flip-back", "blue")):
        assert d.verb(verb, code=0).json["moved"] == 3
        for client, user in ((stays, "helper"), (leaves, "app"), (returns, "helper")):
            assert client.query("select current_user, session_user") == [(user, "app")]
        leaves.query("set work_mem = '7MB'")
        d.wait_steady(to)


def test_timeouts_of_all_kinds(world):
    """None of them ends our questions, on either link, and each stands afterwards, with its source."""
    d = world.prepared()
    for side in (world.blue, world.green):
        side.query("alter role app set lock_timeout = '9s'")
    asked = ("select name, setting, source from pg_settings where name in ('statement_timeout', 'lock_timeout', 'transaction_timeout',"
             " 'idle_session_timeout', 'idle_in_transaction_session_timeout') and name <> 'transaction_timeout' order by 1")
    clients = [world.connect() for _ in range(20)]
    for i, client in enumerate(clients):
        in_time(client, "set statement_timeout = %d; set idle_session_timeout = '300s'; set idle_in_transaction_session_timeout = 5" % (2 + i % 3))
    plain = world.connect()
    plain.query("select 1")
    for verb, to in (("cutover", "green"), ("flip-back", "blue")):
        result = d.verb(verb, code=0).json
        assert (result["moved"], result["disconnected"]) == (21, 0), result
        for i, client in enumerate(clients):
            in_time(client, "set statement_timeout = 0")
            assert client.query(asked) == [("idle_in_transaction_session_timeout", "5", "session"), ("idle_session_timeout", "300000", "session"),
                                           ("lock_timeout", "9000", "user"), ("statement_timeout", "0", "session")], client.query(asked)
            client.query("set statement_timeout = %d" % (2 + i % 3))
        assert plain.query(asked)[2] == ("lock_timeout", "9000", "user")
        d.wait_steady(to)
        if to == "green" and world.green.version >= 17:
            for client in clients:
                in_time(client, "set transaction_timeout = '10s'; select 1")
            # blue doesn't know that setting: it can't be carried there
            assert in_time(clients[0], "show transaction_timeout") == [("10s",)]
            for client in clients:
                in_time(client, "reset transaction_timeout")


def test_nothing_of_ours_is_seen(world):
    """While a flip waits armed for a busy session, the others find only their own statements."""
    d = world.prepared(flip={"drain": {"timeout": "15s"}, "max_hold": "30s"})
    busy, client = world.connect(), world.connect()
    client.prepare("mine", "select 1")
    busy.query("begin; select 1")
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] == "drain", what="the drain")
    busy_names = busy.query("select name from pg_prepared_statements")
    client.send(pg.query("select name from pg_prepared_statements"))
    busy.query("commit")
    assert run.finish(code=0).json["moved"] == 2
    assert busy_names == [] and client.results() == [[("mine",)]]
    assert ours(client) == [] and ours(busy) == []


def test_locks_that_functions_take(world):
    """What a session takes between arming and the hold, unseen in its SQL, is found by the one that asks for all."""
    d = world.prepared()
    world.blue.query("create function f() returns text language sql as 'select pg_advisory_lock(4711)::text'", "app")
    holder, busy = world.connect(), world.connect()
    movers = [world.connect() for _ in range(8)]
    for client in (holder, *movers):
        client.query("select 1")
    busy.query("begin; select 1")  # arming waits a moment for it, and works for the others meanwhile
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] in ("arm", "hold", "drain"), what="arming")
    for client in movers:
        client.send(pg.query("select 2"))
    for _ in range(1000):
        holder.send(pg.query("select f()"))
        if not holder.readable(4):
            break  # held
        holder.results()
    busy.query("commit")
    result = run.finish(code=0).json
    assert (result["moved"], result["disconnected"]) == (len(movers) + 1, 1), result
    try:
        holder.results()
        raise AssertionError("it moved")
    except pg.PgError as error:
        assert error.sqlstate == "57P01" and "advisory lock 4711" in error.message, error
    for client in movers:
        assert client.results() == [[("2",)]]


def test_statements_of_tables_that_come_and_go(world):
    """What is prepared for a temporary table stays when that is dropped, fails until it is made again, then works: on
    the new side, too, where it can't be prepared before."""
    d = world.prepared()
    client, other = world.connect(), world.connect()
    make = "create temporary table mine (i int) on commit drop"
    client.query("begin; " + make)
    client.prepare("S_1", "insert into mine values ($1) returning i")
    client.prepare("S_2", "select count(*) from mine where i = $1", (20,))
    client.prepare("S_3", "select 3")
    client.prepare("S_4", "select * from mine")
    client.query("commit")
    for verb, to in (("cutover", "green"), ("flip-back", "blue")):
        result = d.verb(verb, code=0).json
        assert (result["moved"], result["disconnected"]) == (2, 0), result
        assert client.run("S_3") == [("3",)]
        for ask in (pg.bind("", "S_1", [1]), pg.describe("S", "S_1")):  # as on the side where they were prepared
            client.send(ask, pg.execute(), pg.SYNC)
            answer = client.until_ready()
            assert [kind for kind, _ in answer] == ["E", "Z"] and pg.fields(answer[0][1])["C"] == "42P01", answer
        for flush in (b"", pg.message(b"H")):
            client.send(pg.query("begin; " + make), pg.bind("", "S_1", [5]), flush, pg.execute(), flush, pg.bind("", "S_2", [5]), pg.execute(),
                        pg.describe("S", "S_2"), pg.bind("", "S_1", [6]), pg.execute(), pg.SYNC, pg.query("commit"))
            kinds = "".join(kind for kind, _ in client.until_ready() + client.until_ready() + client.until_ready())
            assert kinds == "CCZ" + "2DC" + "2DC" + "tT" + "2DC" + "Z" + "CZ", kinds
        other.query("select 1")
        d.wait_steady(to)
    # in a pipeline with an error before it, closed while it is on its way, and closed before it was needed
    assert d.verb("cutover", code=0).json["disconnected"] == 0
    client.send(pg.parse("", "selec"), pg.bind("", "S_1", [1]), pg.SYNC, pg.bind("", "S_1", [1]), pg.close("S", "S_1"), pg.SYNC,
                pg.close("S", "S_2"), pg.bind("", "S_2", [1]), pg.SYNC)
    answers = [[pg.fields(body)["C"] if kind == "E" else kind for kind, body in client.until_ready()] for _ in range(3)]
    assert answers == [["42601", "Z"], ["42P01", "Z"], ["3", "26000", "Z"]], answers
    client.query("begin; " + make)
    assert client.run("S_1", [7]) == [("7",)]
    client.send(pg.parse("S_4", "select 4"), pg.SYNC)
    client.results()
    assert client.run("S_4") == [("4",)]
    client.query("commit; deallocate all")
    client.send(pg.bind("", "S_1", [1]), pg.SYNC)
    assert pg.fields(client.until_ready()[0][1])["C"] == "26000"


def test_state_that_the_other_side_refuses(world):
    """A setting that only the newer side knows is its session's trouble, not the flip's: the others go back, and so does
    whoever takes it back in time."""
    d = world.prepared()
    stays, returns, calm = world.connect(application_name="stays"), world.connect(), world.connect()
    assert d.verb("cutover", code=0).json["moved"] == 3
    d.wait_steady("green")
    for client in (stays, returns):
        client.query("set transaction_timeout = '1min'")
        client.query("prepare p as select 1")
    returns.query("reset transaction_timeout")
    result = d.verb("flip-back", code=0).json
    assert (result["moved"], result["disconnected"]) == (2, 1), result
    try:
        stays.query("select 1")
        raise AssertionError("it moved")
    except pg.PgError as error:
        assert error.sqlstate == "57P01" and "transaction_timeout" in error.message, error
    assert returns.query("execute p") == [("1",)] and calm.value("select 1") == "1"
