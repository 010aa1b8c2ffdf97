/*
 * proxy/move: what is learned from traffic, what is asked, and what travels to the target. The servers are
 * played here; tests/integration does the same with real ones.
 */
#include "move_scene.h"

static void a_session_that_ran_nothing_is_not_asked(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    assert_false(ask(scene, &settings, text));
    assert_int_equal(replay(scene, text), 0);
    assert_true(move_is_ready(scene->move));
    query(scene, "select 1", "SELECT 1");
    assert_false(move_is_ready(scene->move));
}

static void all_of_a_state_travels_in_order(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    char names[TEXT_SIZE];
    bool settings = false;
    query(scene, "set app.tenant = '7'", "SET");
    assert_true(ask(scene, &settings, names));
    assert_true(settings);
    assert_string_equal(names, "app.tenant");
    row(scene, "auth", "bob", "carol", "1", "0");
    row(scene, "custom", "app.tenant", "7", NULL, NULL);
    row(scene, "custom", "never.set", NULL, NULL, NULL);
    row(scene, "prep", "s1", "select $1, $2", "{23,25}", "false");
    row(scene, "prep", "switchback ask", "select ...", "{25}", "false");
    row(scene, "prep", "s2", "prepare s2 as select 1", "{}", "true");
    row(scene, "listen", "my\"channel", NULL, NULL, NULL);
    row(scene, "set", "work_mem", "77MB", NULL, NULL);
    row(scene, "set", "client_encoding", "LATIN1", NULL, NULL);
    row(scene, "set", "statement_timeout", "1s", NULL, NULL);
    row(scene, "set", "transaction_isolation", "read committed", NULL, NULL);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_true(move_is_movable(scene->move, NULL, 0));
    move_target_parameter(scene->move, slice_text("session_authorization"), slice_text("anna"));
    int syncs = replay(scene, text);
    assert_string_equal(text, "set role none; client_encoding=LATIN1; work_mem=77MB; app.tenant=7; "
                              "session_authorization=bob; role=carol; listen \"my\"\"channel\"; "
                              "parse s1(select $1, $2)/2; prepare s2 as select 1; statement_timeout=1s; ");
    assert_int_equal(accept_all(scene, syncs), MOVE_DONE);
    assert_true(move_is_ready(scene->move));
}

static void only_differences_travel_again(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    query(scene, "select 1", "SET");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    row(scene, "prep", "s1", "select 1", "{}", "false");
    row(scene, "prep", "s2", "select 2", "{}", "false");
    row(scene, "prep", "s4", "select 4", "{}", "false"); /* later by SQL */
    row(scene, "listen", "old", NULL, NULL, NULL);
    row(scene, "set", "a.b", "1", NULL, NULL);
    row(scene, "set", "work_mem", "77MB", NULL, NULL);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_int_equal(accept_all(scene, replay(scene, text)), MOVE_DONE);

    query(scene, "select 2", "SELECT 1"); /* nothing that could change a setting: they aren't asked for */
    assert_true(ask(scene, &settings, text));
    assert_false(settings);
    rows_of_a_plain_session(scene);
    row(scene, "prep", "s1", "select 1", "{}", "false");
    row(scene, "prep", "s2", "select 3", "{}", "false");
    row(scene, "prep", "s3", "select 3", "{}", "false");
    row(scene, "prep", "s4", "prepare s4 as select 1", "{}", "true");
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_false(move_is_ready(scene->move));
    int syncs = replay(scene, text);
    assert_string_equal(text,
                        "unlisten \"old\"; close s2; close s4; parse s2(select 3)/0; parse s3(select 3)/0; "
                        "prepare s4 as select 1; ");
    assert_int_equal(accept_all(scene, syncs), MOVE_DONE);
    assert_false(move_is_ready(scene->move)); /* it may hold a lock since */
    assert_true(move_lacks_scout(scene->move));
    move_scouted(scene->move, NULL);
    assert_true(move_is_ready(scene->move));

    query(scene, "reset a.b", "RESET");
    assert_true(ask(scene, &settings, text));
    assert_true(settings);
    rows_of_a_plain_session(scene);
    row(scene, "prep", "s1", "select 1", "{}", "false");
    row(scene, "prep", "s2", "select 3", "{}", "false");
    row(scene, "prep", "s3", "select 3", "{}", "false");
    row(scene, "prep", "s4", "prepare s4 as select 1", "{}", "true");
    row(scene, "set", "work_mem", "78MB", NULL, NULL);
    assert_int_equal(answered(scene), MOVE_DONE);
    syncs = replay(scene, text);
    assert_string_equal(text, "reset session authorization; set role none; reset \"a\".\"b\"; work_mem=78MB; "
                              "session_authorization=anna; role=none; ");
    assert_int_equal(accept_all(scene, syncs), MOVE_DONE);
}

/* A function may set something: the digest of what they like to set gives it away. */
static void a_changed_digest_asks_for_all(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    query(scene, "select 1", "SELECT 1");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    query(scene, "select f()", "SELECT 1");
    assert_true(ask(scene, &settings, text));
    assert_false(settings);
    row(scene, "auth", "anna", "none", "another", "0");
    assert_int_equal(answered(scene), MOVE_AGAIN);
    assert_true(ask(scene, &settings, text));
    assert_true(settings);
    row(scene, "auth", "anna", "none", "another", "0");
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_false(ask(scene, &settings, text));
}

/* SET LOCAL answers with the same tag as SET: it needs no asking for all, unless a SET was seen as well. */
static void set_local_is_no_change(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    query(scene, "select 1", "SELECT 1");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    query(scene, "begin; set local a = 1; commit", "SET");
    assert_true(ask(scene, &settings, text));
    assert_false(settings);
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    build_parse(&scene->build, slice_text("s"), slice_text("set a = 1"), NULL, 0);
    build_sync(&scene->build);
    client(scene);
    empty(scene, "1");
    build_ready(&scene->build, 'I');
    server(scene);
    assert_true(ask(scene, &settings, text));
    assert_false(settings);
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    build_bind(&scene->build, slice_text(""), slice_text("s"), NULL, 0); /* it runs now, or any time */
    build_execute(&scene->build, slice_text(""), 0);
    build_sync(&scene->build);
    client(scene);
    empty(scene, "2");
    tag(scene, "SET");
    build_ready(&scene->build, 'I');
    server(scene);
    assert_true(ask(scene, &settings, text));
    assert_true(settings);
}

static void what_cannot_move_is_named(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    char reasons[1024];
    bool settings = false;
    query(scene, "create temp table t(); select pg_advisory_lock(1); declare c cursor with hold for select 1",
          "SELECT 1");
    assert_false(move_is_movable(scene->move, reasons, sizeof reasons));
    assert_string_equal(reasons,
                        "may have temporary objects; may hold advisory locks; may have cursors WITH HOLD");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    row(scene, "temp", "table", "pg_temp.t", NULL, NULL);
    row(scene, "temp", "view", "pg_temp.v", NULL, NULL);
    row(scene, "temp", "function", "pg_temp.f()", NULL, NULL);
    row(scene, "lock", "0", "42", "1", NULL);
    row(scene, "lock", "4294967295", "4294967291", "1", NULL);
    row(scene, "lock", "1", "4294967294", "2", NULL);
    row(scene, "cursor", "c\n", NULL, NULL, NULL);
    row(scene, "prep", "p", "select 1; prepare p as select 1", "{}", "true");
    row(scene, "slot", "z", NULL, NULL, NULL);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_false(move_is_movable(scene->move, reasons, sizeof reasons));
    assert_string_equal(
        reasons, "temporary table t; temporary view v; temporary function f(); advisory lock 42; "
                 "advisory lock -5; advisory lock (1, -2); cursor c? is declared WITH HOLD; "
                 "statement p was prepared by SQL among other statements; temporary replication slot z");
    assert_false(move_is_ready(scene->move));
    query(scene, "discard all", "DISCARD ALL");
    assert_true(move_is_movable(scene->move, NULL, 0));
}

/* The types of each Parse of a replay that has any, but our own. */
static void replayed_types(struct scene *scene, char text[TEXT_SIZE])
{
    struct strbuf out;
    struct frame_cursor cursor;
    struct frame_piece piece;
    struct decode_parse parse;
    strbuf_init(&out, BUFFER_SIZE);
    assert_true(move_replay(scene->move, &scene->numbers, &out));
    frame_init(&cursor, FRAME_FROM_CLIENT);
    struct slice range = slice_of(strbuf_text(&out), out.length);
    text[0] = '\0';
    while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
        if (piece.type == 'P' && decode_parse(piece.bytes, &parse) && parse.type_count > 0 &&
            !slice_equals(parse.name, "switchback set")) {
            size_t length = strlen(text);
            (void)snprintf(text + length, TEXT_SIZE - length, "%.*s", (int)parse.name.length,
                           (const char *)parse.name.data);
            for (uint16_t i = 0; i < parse.type_count; i++) {
                length = strlen(text);
                (void)snprintf(text + length, TEXT_SIZE - length, " %u", decode_oid(parse.types, i));
            }
            strcat(text, ";");
        }
    }
    strbuf_deinit(&out);
}

/* The client of a session that began on green, on blue now, speaks green's numbers; its server has blue's. */
static void statements_get_the_targets_types(void **state)
{
    struct scene *scene = *state;
    static const struct proxy_type types[] = {{.oids = {16400, 16500}}, {.oids = {16500, 16400}}};
    static const uint32_t used[] = {23, 16500};
    struct type_map *map = type_map_new(types, 2);
    assert_non_null(map);
    char text[TEXT_SIZE];
    bool settings = false;
    build_parse(&scene->build, slice_text(""), slice_text("select $1, $2"), used, 2);
    build_sync(&scene->build);
    client(scene);
    empty(scene, "1");
    build_ready(&scene->build, 'I');
    (void)server(scene);
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    row(scene, "prep", "s", "select $1, $2", "{16400,25}", "false");
    assert_int_equal(answered(scene), MOVE_DONE);
    scene->numbers.statements = (struct translation){.map = map, .from = SIDE_BLUE, .to = SIDE_GREEN};
    scene->numbers.unnamed = (struct translation){.map = map, .from = SIDE_GREEN, .to = SIDE_GREEN};
    replayed_types(scene, text);
    assert_string_equal(text, "s 16500 25; 23 16500;");
    scene->numbers.unnamed = (struct translation){.map = map, .from = SIDE_BLUE, .to = SIDE_GREEN};
    replayed_types(scene, text);
    assert_string_equal(text, "s 16500 25; 23 16400;");
    type_map_unref(map);
}

static void a_type_that_the_other_side_lacks_stays(void **state)
{
    struct scene *scene = *state;
    char reasons[256];
    assert_true(move_is_movable(scene->move, reasons, sizeof reasons));
    move_knows_type(scene->move, 16500);
    assert_false(move_is_movable(scene->move, reasons, sizeof reasons));
    assert_string_equal(reasons, "knows type 16500, which the other side lacks or numbers otherwise");
}

static void names_come_from_parameters_too(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    struct slice parameters[2] = {slice_text("App.Tenant"), slice_text("7")};
    build_parse(&scene->build, slice_text("s"), slice_text("select set_config($1, $2, false)"), NULL, 0);
    build_bind(&scene->build, slice_text(""), slice_text("s"), parameters, 2);
    build_execute(&scene->build, slice_text(""), 0);
    build_sync(&scene->build);
    scene->step = 5;
    client(scene);
    empty(scene, "12C");
    build_ready(&scene->build, 'I');
    server(scene);
    assert_true(ask(scene, &settings, text));
    assert_true(settings);
    assert_string_equal(text, "app.tenant");
    assert_true(move_is_movable(scene->move, NULL, 0));
}

/* The client never sees it: asked again with its timeout put aside, and given up with a reason. */
static void asking_fails(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    char reasons[256];
    bool settings = false;
    query(scene, "select 1", "SELECT 1");
    for (int attempt = 0; attempt < 20; attempt++) {
        assert_true(ask(scene, &settings, text));
        build_error(&scene->build, "ERROR", "57014", "canceling statement due to statement timeout", NULL);
        build_ready(&scene->build, 'I');
        assert_int_equal(server(scene), MOVE_AGAIN);
    }
    assert_true(ask(scene, &settings, text)); /* removes what the errors left behind */
    build_ready(&scene->build, 'I');
    assert_int_equal(server(scene), MOVE_FAILED);
    assert_false(move_is_movable(scene->move, reasons, sizeof reasons));
    assert_string_equal(reasons, "its state can't be read: canceling statement due to statement timeout");
    assert_true(boundary_at(&scene->boundary));
    assert_true(ask(scene, &settings, text)); /* another flip tries again */
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_true(move_is_movable(scene->move, NULL, 0));
}

static void the_target_refuses(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    query(scene, "set work_mem = '1GB'", "SET");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    row(scene, "set", "maintenance_work_mem", "1GB", NULL, NULL);
    row(scene, "set", "work_mem", "1GB", NULL, NULL);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_int_equal(replay(scene, text), 1);
    empty(scene, "12C33"); /* the timeout */
    empty(scene, "1");
    empty(scene, "12C33"); /* the role */
    empty(scene, "2C3");   /* maintenance_work_mem */
    build_error(&scene->build, "ERROR", "22023", "not here", NULL);
    build_ready(&scene->build, 'I');
    assert_int_equal(target(scene), MOVE_FAILED);
    assert_string_equal(move_failure(scene->move), "the target refuses setting work_mem: not here");
    move_reset_target(scene->move);
    assert_true(move_is_movable(scene->move, NULL, 0));
    assert_true(move_is_dirty(scene->move));
}

static void the_client_is_told_what_differs(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    query(scene, "set x.y = '1'", "SET");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    move_target_parameter(scene->move, slice_text("server_version"), slice_text("17.0"));
    move_target_parameter(scene->move, slice_text("TimeZone"), slice_text("GMT"));
    int syncs = replay(scene, text);
    build_parameter_status(&scene->build, slice_text("TimeZone"), slice_text("UTC"));
    assert_int_equal(accept_all(scene, syncs), MOVE_DONE);
    struct strbuf out;
    strbuf_init(&out, 1024);
    assert_true(move_swapped(scene->move));
    assert_true(move_tell(scene->move, &out));
    assert_int_equal(out.length, 25);
    assert_memory_equal(out.data,
                        "S\0\0\0\x18server_version\0"
                        "17.0",
                        25);
    strbuf_deinit(&out);
    assert_false(move_is_ready(scene->move));
    assert_true(ask(scene, &settings, text)); /* the way back begins anew */
    assert_true(settings);
    assert_string_equal(text, "x.y");
    assert_int_equal(answered(scene), MOVE_DONE);
}

static void move_to(struct scene *scene, const char *version)
{
    char text[TEXT_SIZE];
    bool settings = false;
    query(scene, "set x.y = '1'", "SET");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    move_target_parameter(scene->move, slice_text("server_version"), slice_text(version));
    move_target_parameter(scene->move, slice_text("TimeZone"), slice_text("UTC"));
    assert_int_equal(accept_all(scene, replay(scene, text)), MOVE_DONE);
}

/* An idle client may be moved many times before it is told, once, of what it has then. */
static void an_idle_client_is_told_once(void **state)
{
    struct scene *scene = *state;
    struct strbuf out;
    move_to(scene, "17.0");
    assert_true(move_swapped(scene->move));
    move_to(scene, "15.1");
    assert_false(move_swapped(scene->move)); /* back where it was */
    move_to(scene, "17.0");
    assert_true(move_swapped(scene->move));
    move_to(scene, "17.1");
    assert_true(move_swapped(scene->move));
    strbuf_init(&out, 1024);
    assert_true(move_tell(scene->move, &out));
    assert_int_equal(out.length, 25);
    assert_memory_equal(out.data,
                        "S\0\0\0\x18server_version\0"
                        "17.1",
                        25);
    strbuf_clear(&out);
    move_to(scene, "15.1");
    assert_true(move_swapped(scene->move));
    move_parameter(scene->move, slice_text("server_version"), slice_text("15.2")); /* passed on to it */
    assert_true(move_tell(scene->move, &out));
    assert_int_equal(out.length, 0);
    strbuf_deinit(&out);
}

static void replication_never_moves(void **state)
{
    (void)state;
    struct strbuf out;
    char reasons[64];
    struct move *move = move_new(true);
    assert_non_null(move);
    strbuf_init(&out, 64);
    assert_false(move_ask(move, &out));
    assert_false(move_is_movable(move, reasons, sizeof reasons));
    assert_string_equal(reasons, "replication connection");
    strbuf_deinit(&out);
    move_free(move);
}

/* One asks for all who holds something; whoever does can't move, the others are ready. */
static void one_asks_who_holds_locks(void **state)
{
    struct scene *scene = *state;
    char holding[MOVE_HOLDING_SIZE];
    char reasons[256];
    struct strbuf out;
    uint32_t pid = 0;
    for (int fails = 0; fails < 2; fails++) {
        strbuf_init(&out, BUFFER_SIZE);
        assert_true(move_scout(scene->move, &out));
        strbuf_deinit(&out);
        row(scene, "timeout", "lock_timeout", "1s", "session", "0");
        tag(scene, "SELECT 1");
        row(scene, "lock", "4711", "0", "42", "1");
        row(scene, "slot", "4712", "z", NULL, NULL);
        if (fails == 0) {
            tag(scene, "SELECT 2");
        } else {
            build_error(&scene->build, "ERROR", "57014", "canceled", NULL);
        }
        build_ready(&scene->build, 'I');
        struct frame_cursor cursor;
        struct frame_piece piece;
        struct slice range = slice_of(scene->bytes, scene->build.length);
        enum move_answer answer = MOVE_MORE;
        unsigned found = 0;
        frame_init(&cursor, FRAME_FROM_SERVER);
        while (answer == MOVE_MORE && frame_next(&cursor, &range, &piece) == WIRE_OK) {
            answer = move_scout_answer(scene->move, &piece, &pid, holding);
            if (pid != 0) {
                assert_int_equal(pid, 4711 + found);
                assert_string_equal(holding,
                                    found == 0 ? "advisory lock 42" : "temporary replication slot z");
                found++;
            }
        }
        build_init(&scene->build, scene->bytes, sizeof scene->bytes);
        assert_int_equal(found, 2);
        assert_int_equal(answer, fails == 0 ? MOVE_DONE : MOVE_FAILED);
    }
    assert_true(move_is_movable(scene->move, NULL, 0));
    move_scouted(scene->move, "advisory lock 42");
    assert_false(move_is_movable(scene->move, reasons, sizeof reasons));
    assert_string_equal(reasons, "advisory lock 42");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_session_that_ran_nothing_is_not_asked),
        TEST(all_of_a_state_travels_in_order),
        TEST(only_differences_travel_again),
        TEST(a_changed_digest_asks_for_all),
        TEST(set_local_is_no_change),
        TEST(what_cannot_move_is_named),
        TEST(statements_get_the_targets_types),
        TEST(a_type_that_the_other_side_lacks_stays),
        TEST(names_come_from_parameters_too),
        TEST(asking_fails),
        TEST(the_target_refuses),
        TEST(the_client_is_told_what_differs),
        TEST(one_asks_who_holds_locks),
        TEST(an_idle_client_is_told_once),
        cmocka_unit_test(replication_never_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
