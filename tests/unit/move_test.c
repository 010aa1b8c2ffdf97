/*
 * proxy/move: what is learned from traffic, what is asked, and what travels to the target. The servers are
 * played here; tests/integration does the same with real ones.
 */
#include "proxy/move.h"
#include "proxy/wire/boundary.h"
#include "proxy/wire/build.h"
#include "proxy/wire/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BUFFER_SIZE = 65536, TEXT_SIZE = 4096 };

/* A session with its boundary, as the relay would drive them. */
struct scene {
    struct move *move;
    struct boundary boundary;
    struct move_types types;
    uint8_t bytes[BUFFER_SIZE];
    struct build build;
    size_t step; /* how many bytes come in one read */
};

static int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    assert_non_null(scene);
    scene->move = move_new(false);
    assert_non_null(scene->move);
    scene->step = BUFFER_SIZE;
    boundary_init(&scene->boundary);
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    move_parameter(scene->move, slice_text("server_version"), slice_text("15.1"));
    move_parameter(scene->move, slice_text("TimeZone"), slice_text("UTC"));
    *state = scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;
    move_free(scene->move);
    free(scene);
    return 0;
}

/* --- playing the two ends ----------------------------------------------------------------------------------
 */

/* The client sends what was built. */
static void client(struct scene *scene)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, FRAME_FROM_CLIENT);
    for (size_t at = 0; at < scene->build.length; at += scene->step) {
        size_t left = scene->build.length - at;
        struct slice range = slice_of(scene->bytes + at, left < scene->step ? left : scene->step);
        while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
            assert_int_equal(boundary_client(&scene->boundary, &piece, 1), BOUNDARY_FORWARD);
            move_client(scene->move, &piece, &scene->boundary, &scene->types);
        }
    }
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
}

/* The session's server sends what was built; the last verdict on our own question. */
static enum move_answer server(struct scene *scene)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    struct boundary_step step;
    enum move_answer answer = MOVE_MORE;
    frame_init(&cursor, FRAME_FROM_SERVER);
    for (size_t at = 0; at < scene->build.length; at += scene->step) {
        size_t left = scene->build.length - at;
        struct slice range = slice_of(scene->bytes + at, left < scene->step ? left : scene->step);
        while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
            boundary_server(&scene->boundary, &piece, 1, &step);
            if (step.ours) {
                answer = move_ask_answer(scene->move, &piece, &scene->types);
            } else {
                move_server(scene->move, &piece, &step, &scene->types);
            }
        }
    }
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    return answer;
}

static enum move_answer target(struct scene *scene)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    enum move_answer answer = MOVE_MORE;
    frame_init(&cursor, FRAME_FROM_SERVER);
    struct slice range = slice_of(scene->bytes, scene->build.length);
    while (answer == MOVE_MORE && frame_next(&cursor, &range, &piece) == WIRE_OK) {
        answer = move_replay_answer(scene->move, &piece);
    }
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    return answer;
}

static void empty(struct scene *scene, const char *types)
{
    for (; *types != '\0'; types++) {
        build_begin(&scene->build, *types);
        if (*types == 'C') {
            build_string(&scene->build, "SELECT 1");
        }
        build_end(&scene->build);
    }
}

static void tag(struct scene *scene, const char *text)
{
    build_begin(&scene->build, 'C');
    build_string(&scene->build, text);
    build_end(&scene->build);
}

/* The client runs a Query that succeeds with a tag. */
static void query(struct scene *scene, const char *sql, const char *result)
{
    build_query(&scene->build, sql);
    client(scene);
    tag(scene, result);
    build_ready(&scene->build, 'I');
    server(scene);
}

static void row(struct scene *scene, const char *k, const char *a, const char *b, const char *c,
                const char *d)
{
    const char *columns[5] = {k, a, b, c, d};
    build_begin(&scene->build, 'D');
    build_u16(&scene->build, 5);
    for (size_t i = 0; i < 5; i++) {
        if (columns[i] == NULL) {
            build_u32(&scene->build, UINT32_MAX);
        } else {
            build_u32(&scene->build, (uint32_t)strlen(columns[i]));
            build_bytes(&scene->build, columns[i], strlen(columns[i]));
        }
    }
    build_end(&scene->build);
}

static void parsed_names(struct slice text, char names[TEXT_SIZE])
{
    static const char before[] = "string_to_array('";
    const char *found = memmem(text.data, text.length, before, sizeof before - 1);
    if (found != NULL) {
        found += sizeof before - 1;
        (void)slice_copy(slice_of(found, strcspn(found, "'")), names, TEXT_SIZE);
    }
}

/* Asks; true if there was anything to ask, and then whether settings were, and for which names. */
static bool ask(struct scene *scene, bool *settings, char names[TEXT_SIZE])
{
    struct strbuf out;
    struct frame_cursor cursor;
    struct frame_piece piece;
    strbuf_init(&out, BUFFER_SIZE);
    assert_true(move_ask(scene->move, &out));
    bool asked = out.length > 0;
    *settings = false;
    if (asked) {
        boundary_inject(&scene->boundary, 1);
        frame_init(&cursor, FRAME_FROM_CLIENT);
        struct slice range = slice_of(out.data, out.length);
        int syncs = 0;
        while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
            struct decode_parse parse;
            if (piece.type == 'P' && decode_parse(piece.bytes, &parse)) {
                assert_true(parse.name.length > 0); /* the unnamed statement is the client's */
                parsed_names(parse.text, names);
                *settings = *settings || (slice_equals(parse.name, "switchback ask") &&
                                          memmem(parse.text.data, parse.text.length, "'set'", 5) != NULL);
            }
            syncs += piece.type == 'S' ? 1 : 0;
        }
        assert_int_equal(syncs, 1);
        empty(scene, "312");
    }
    strbuf_deinit(&out);
    return asked;
}

static enum move_answer answered(struct scene *scene)
{
    empty(scene, "C33");
    build_ready(&scene->build, 'I');
    return server(scene);
}

static void rows_of_a_plain_session(struct scene *scene)
{
    row(scene, "auth", "anna", "none", NULL, NULL);
    row(scene, "quick", "d41d8cd98f00b204e9800998ecf8427e", NULL, NULL, NULL);
}

/* What a replay would do, in words. Returns how many Syncs it has. */
static int replay(struct scene *scene, char text[TEXT_SIZE])
{
    struct strbuf out;
    struct frame_cursor cursor;
    struct frame_piece piece;
    int syncs = 0;
    size_t length = 0;
    strbuf_init(&out, BUFFER_SIZE);
    assert_true(move_replay(scene->move, &out));
    frame_init(&cursor, FRAME_FROM_CLIENT);
    struct slice range = slice_of(strbuf_text(&out), out.length);
    text[0] = '\0';
    while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
        struct decode_parse parse;
        struct decode_bind bind;
        struct slice name;
        char kind = 0;
        char *end = text + length;
        size_t room = TEXT_SIZE - length;
        if (piece.type == 'P' && decode_parse(piece.bytes, &parse)) {
            bool helper = slice_equals(parse.name, "switchback set") ||
                          memmem(parse.text.data, parse.text.length, "statement_timeout", 17) != NULL;
            if (helper) {
                continue;
            }
            if (slice_equals(parse.name, "switchback run")) {
                (void)snprintf(end, room, "%.*s; ", (int)parse.text.length, (const char *)parse.text.data);
            } else {
                (void)snprintf(end, room, "parse %.*s(%.*s)/%u; ", (int)parse.name.length,
                               (const char *)parse.name.data, (int)parse.text.length,
                               (const char *)parse.text.data, parse.type_count);
            }
        } else if (piece.type == 'B' && decode_bind(piece.bytes, &bind) && bind.parameter_count == 2) {
            struct slice value;
            bool is_null = false;
            assert_true(decode_column_next(&bind.parameters, &name, &is_null));
            assert_true(decode_column_next(&bind.parameters, &value, &is_null));
            (void)snprintf(end, room, "%.*s=%.*s; ", (int)name.length, (const char *)name.data,
                           (int)value.length, (const char *)value.data);
        } else if (piece.type == 'C' && decode_target(piece.bytes, &kind, &name) && kind == 'S' &&
                   !(name.length > 10 && memcmp(name.data, "switchback", 10) == 0)) {
            (void)snprintf(end, room, "close %.*s; ", (int)name.length, (const char *)name.data);
        }
        syncs += piece.type == 'S' ? 1 : 0;
        length = strlen(text);
    }
    strbuf_deinit(&out);
    return syncs;
}

/* The target accepts everything. */
static enum move_answer accept_all(struct scene *scene, int syncs)
{
    for (int i = 0; i < syncs; i++) {
        build_ready(&scene->build, 'I');
    }
    return target(scene);
}

/* --- tests -------------------------------------------------------------------------------------------------
 */

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
    row(scene, "auth", "bob", "carol", NULL, NULL);
    row(scene, "quick", "x", NULL, NULL, NULL);
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
    row(scene, "auth", "anna", "none", NULL, NULL);
    row(scene, "quick", "another", NULL, NULL, NULL);
    assert_int_equal(answered(scene), MOVE_AGAIN);
    assert_true(ask(scene, &settings, text));
    assert_true(settings);
    row(scene, "auth", "anna", "none", NULL, NULL);
    row(scene, "quick", "another", NULL, NULL, NULL);
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

static void parse_unnamed(struct scene *scene, const char *sql)
{
    build_parse(&scene->build, slice_text(""), slice_text(sql), NULL, 0);
}

static void the_unnamed_statement_follows(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    for (size_t step = 1; step < 40; step += 3) {
        scene->step = step;
        parse_unnamed(scene, "select 1");
        parse_unnamed(scene, "select 2");
        parse_unnamed(scene, "select three");
        build_sync(&scene->build);
        client(scene);
        empty(scene, "11");
        build_error(&scene->build, "ERROR", "42703", "no such column", NULL);
        build_ready(&scene->build, 'I');
        server(scene);
        scene->step = BUFFER_SIZE;
        assert_true(ask(scene, &settings, text));
        rows_of_a_plain_session(scene);
        assert_int_equal(answered(scene), MOVE_DONE);
        int syncs = replay(scene, text);
        assert_non_null(strstr(text, "parse (select 2)/0; "));
        assert_null(strstr(text, "three"));
        assert_int_equal(accept_all(scene, syncs), MOVE_DONE);
        assert_true(move_is_ready(scene->move));
    }
    query(scene, "select 1", "SELECT 1"); /* destroys it */
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_int_equal(replay(scene, text), 1);
    assert_string_equal(text, "close ; ");
}

/* The target refuses it, say because a table is gone: the rest of the state stands all the same. */
static void a_refused_unnamed_statement_is_no_failure(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    parse_unnamed(scene, "select 1");
    build_sync(&scene->build);
    client(scene);
    empty(scene, "1");
    build_ready(&scene->build, 'I');
    server(scene);
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_int_equal(replay(scene, text), 2);
    build_ready(&scene->build, 'I');
    build_error(&scene->build, "ERROR", "42P01", "no such table", NULL);
    build_ready(&scene->build, 'I');
    assert_int_equal(target(scene), MOVE_DONE);
    assert_true(move_is_ready(scene->move));
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

static void differing_types_are_noticed(void **state)
{
    struct scene *scene = *state;
    static const uint32_t oids[] = {16400, 16500};
    static const uint32_t used[] = {23, 16500};
    char reasons[256];
    scene->types = (struct move_types){.oids = oids, .count = 2};
    build_parse(&scene->build, slice_text(""), slice_text("select $1"), used, 1);
    build_sync(&scene->build);
    client(scene);
    assert_true(move_is_movable(scene->move, NULL, 0));
    build_begin(&scene->build, 'T');
    build_u16(&scene->build, 2);
    for (uint32_t i = 0; i < 2; i++) {
        build_string(&scene->build, "column");
        build_u32(&scene->build, 16400); /* of the table: not a type */
        build_u16(&scene->build, 1);
        build_u32(&scene->build, i == 0 ? 25 : 16500);
        build_bytes(&scene->build, "\xff\xff\xff\xff\xff\xff\0\0", 8);
    }
    build_end(&scene->build);
    scene->step = 7;
    server(scene);
    assert_false(move_is_movable(scene->move, reasons, sizeof reasons));
    assert_string_equal(reasons, "used type 16500, whose oid differs between the sides");
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_session_that_ran_nothing_is_not_asked),
        TEST(all_of_a_state_travels_in_order),
        TEST(only_differences_travel_again),
        TEST(a_changed_digest_asks_for_all),
        TEST(set_local_is_no_change),
        TEST(the_unnamed_statement_follows),
        TEST(a_refused_unnamed_statement_is_no_failure),
        TEST(what_cannot_move_is_named),
        TEST(differing_types_are_noticed),
        TEST(names_come_from_parameters_too),
        TEST(asking_fails),
        TEST(the_target_refuses),
        TEST(the_client_is_told_what_differs),
        TEST(an_idle_client_is_told_once),
        cmocka_unit_test(replication_never_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
