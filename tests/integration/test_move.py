"""Sessions that move keep what their clients gave them; those that can't are found, named, and handled as asked."""
import pg

# what makes a session immovable, and a word of the reason
IMMOVABLE = {
    "temporary table": ("create temporary table mine (i int)", "temp"),
    "temporary view": ("create temporary view mine as select 1", "temp"),
    "cursor with hold": ("begin; declare c cursor with hold for select 1; commit", "cursor"),
    "advisory lock": ("select pg_advisory_lock(42)", "advisory"),
    "prepared in SQL": ("select 1; prepare p as select 1", "prepare"),
}


def immovable(d):
    return {s["id"]: s for s in d.verb("sessions", code=0).json["sessions"] if not s["movable"]}


def test_state_moves(world):
    """Everything that a session can carry, there and back."""
    world.pair(ledger=True)
    world.blue.query("create role helper; grant helper to app; grant all on account to helper")
    d = world.daemon()
    d.prepare()
    d.wait_steady("blue")
    client = world.connect(application_name="mover", options="-c geqo=off")
    reported = [name for name in client.parameters if name != "server_version"]  # a newer server reports more of them
    talker = world.connect()
    client.query("set work_mem = '7MB'; set timezone = 'Asia/Tokyo'; set app.tenant = 'it''s 42'; set search_path = public, pg_catalog")
    client.query("select set_config('app.other', 'by function', false)")
    client.query("set client_encoding = 'LATIN1'; set datestyle = 'German, DMY'; set default_transaction_isolation = 'serializable'")
    client.query("set application_name = 'renamed'; listen news; listen \"Odd Channel\"")
    client.query("set role helper")
    client.prepare("plain", "select id, balance from account where id = $1")
    client.prepare("typed", "select $1::numeric + $2", (1700, 1700))
    client.prepare("Odd \"name\"", "select $1::text || current_setting('app.tenant')", (25,))
    client.send(pg.parse("", "select 'unnamed', $1::int"), pg.SYNC)
    client.results()
    asked = ("select current_setting('work_mem'), current_setting('timezone'), current_setting('app.tenant'),"
             " current_setting('app.other'), current_setting('search_path'), current_setting('client_encoding'),"
             " current_setting('datestyle'), current_setting('default_transaction_isolation'), current_setting('application_name'),"
             " current_setting('geqo'), current_user, session_user")

    def state():
        # the unnamed statement first: a simple query would destroy it
        client.send(pg.bind("", "", [5]), pg.execute(), pg.SYNC)
        unnamed = client.results()
        client.send(pg.parse("ask", asked), pg.bind("", "ask"), pg.execute(), pg.close("S", "ask"), pg.parse("", "select 'unnamed', $1::int"), pg.SYNC)
        settings = client.results()
        statements = [client.run("plain", [1]), client.run("typed", ["1.5", "2.5"]), client.run("Odd \"name\"", ["x"])]
        return unnamed, settings, statements, {name: client.parameters[name] for name in reported}

    before = state()
    assert before[1][0][0][:4] == ("7MB", "Asia/Tokyo", "it's 42", "by function"), before
    for verb, to in (("cutover", "green"), ("flip-back", "blue"), ("cutover", "green")):
        result = d.verb(verb, code=0).json
        assert result["disconnected"] == 0, result
        after = state()
        assert after == before, (verb, [pair for pair in zip(before, after) if pair[0] != pair[1]])
        talker.query("notify news, '%s'" % to)
        assert client.notification()[1:] == ("news", to)
        talker.query("notify \"Odd Channel\", 'x'")
        assert client.notification()[1:] == ("Odd Channel", "x")
        assert client.parameters["server_version"].split(".")[0].split(" ")[0] == str(world.side(to).version)
        d.wait_steady(to)
        # changes after a move are carried by the next
        client.query("set work_mem = '%s'" % {"green": "9MB", "blue": "11MB"}[to])
        client.send(pg.parse("", "select 'unnamed', $1::int"), pg.SYNC)
        client.results()
        before = state()
    client.query("reset role")
    assert client.value("select current_user") == "app"
    client.query("reset work_mem; reset timezone")
    assert client.value("show timezone") == "UTC"


def test_state_that_ends_does_not_come_back(world):
    d = world.prepared()
    client = world.connect()
    client.query("set work_mem = '7MB'; set app.tenant = 'a'; listen news")
    client.prepare("gone", "select 1")
    client.query("begin; set local work_mem = '8MB'; commit; begin; set timezone = 'Asia/Tokyo'; rollback")
    client.query("reset work_mem; unlisten news; set app.tenant = ''")
    client.send(pg.close("S", "gone"), pg.SYNC)
    client.results()
    reference = world.connect()
    d.verb("cutover", code=0)
    for name in ("work_mem", "timezone"):
        assert client.value("show " + name) == reference.value("show " + name), name
    assert client.value("show app.tenant") == ""
    client.send(pg.bind("", "gone"), pg.SYNC)
    try:
        client.results()
        raise AssertionError("a closed statement came back")
    except pg.PgError as error:
        assert error.sqlstate == "26000", error
    reference.query("notify news, 'x'")
    assert client.notification(0.5) is None


def test_session_authorization_moves(world):
    d = world.prepared()
    client = world.connect(user="postgres")
    client.query("set session authorization app; set role none")
    d.verb("cutover", code=0)
    assert client.query("select session_user, current_user") == [("app", "app")]
    client.query("reset session authorization")
    assert client.value("select session_user") == "postgres"


def test_discard_all(world):
    d = world.prepared()
    client = world.connect()
    client.query("set work_mem = '7MB'; create temporary table mine (i int); listen c; prepare p as select 1")
    client.query("discard all")
    assert d.verb("cutover", code=0).json["disconnected"] == 0
    assert client.value("show work_mem") == "4MB"


def test_many_statements_move(world):
    """Hundreds of prepared statements, large ones among them."""
    d = world.prepared()
    client = world.connect()
    for i in range(400):
        client.prepare("s%d" % i, "select %d + $1::int" % i)
    client.prepare("large", "select length('%s')" % ("x" * 200000))
    d.verb("cutover", code=0)
    assert client.run("s399", [1]) == [("400",)] and client.run("s0", [1]) == [("1",)]
    assert client.run("large") == [("200000",)]


def test_immovable_sessions_are_named(world):
    d = world.prepared()
    clients = {}
    for name, (sql, _) in IMMOVABLE.items():
        clients[name] = world.connect(application_name=name)
        clients[name].query(sql)
    calm = world.connect(application_name="calm")
    # what they hold is asked for when a flip is near; `check` and `sessions` must both find it
    d.until(lambda: len(immovable(d)) == len(IMMOVABLE), what="all are found: %r" % immovable(d))
    reasons = {s["application"]: " ".join(s["reasons"]).lower() for s in immovable(d).values()}
    for name, (_, word) in IMMOVABLE.items():
        assert word in reasons.get(name, ""), (name, reasons)
    checks = d.verb("check").json["checks"]
    assert any(check["state"] == "warn" and "session" in check["id"] + check["message"] for check in checks), checks
    result = d.verb("cutover", code=0).json
    assert result["disconnected"] == len(IMMOVABLE) and result["moved"] == 1, result
    for name, client in clients.items():
        kind, body = client.receive()
        assert kind == "E" and pg.fields(body)["C"] == "57P01", (name, kind, body)
        assert client.closed_by_peer()
    assert calm.value("select 1") == "1"


def test_immovable_abort(world):
    d = world.prepared(flip={"immovable": "abort"})
    client, calm = world.connect(), world.connect()
    client.query("create temporary table mine as select 7 as i")
    answer = d.verb("cutover", code=1)
    document = answer.json
    assert (document.get("code") or document["error"]["code"]) == "immovable_sessions", answer
    assert client.value("select i from mine") == "7" and calm.value("select 1") == "1"
    assert d.status()["active"] == "blue"
    client.query("drop table mine")
    d.wait_steady("blue")
    d.verb("cutover", code=0)
    assert client.value("select 1") == "1"


def test_immovable_wait(world):
    """A session that becomes movable in time moves."""
    d = world.prepared(flip={"immovable": "wait", "drain": {"timeout": "15s"}, "max_hold": "30s"})
    client = world.connect()
    client.query("begin; create temporary table mine on commit drop as select 7 as i")
    run = d.start_verb("cutover")
    d.wait_status(lambda s: s["phase"] not in ("steady", "watch"), what="the flip")
    client.query("select pg_sleep(0.5)")
    client.query("commit")
    result = run.finish(code=0).json
    assert result["disconnected"] == 0 and result["moved"] == 1, result
    assert client.value("select 1") == "1"


def test_scram_sessions_move(world):
    """The key that a client's proof revealed logs in to the other side, whose roles are the same."""
    from cluster import SCRAM
    d = world.prepared(pair={"hba": SCRAM}, auth={"method": "scram-sha-256"}, manager={"user": "switchback"})
    client = pg.Connection(d.address, password="secret")
    world.connections.append(client)
    for verb, to in (("cutover", "green"), ("flip-back", "blue")):
        assert d.verb(verb, code=0).json["moved"] == 1
        assert client.value("show server_version_num").startswith(str(world.side(to).version))
        pg.Connection(d.address, password="secret").close()
        d.wait_steady(to)
