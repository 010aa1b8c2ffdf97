/*
 * proxy/numbering, proxy/type_map, proxy/type_values: the numbers of types on the way between a client that
 * began on blue and its server on green. tests/integration/test_types.py does the same with real servers and
 * drivers.
 */
#include "guard.h"
#include "proxy/numbering_internal.h"
#include "proxy/type_values.h"
#include "proxy/wire/build.h"
#include "proxy/wire/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BUFFER_SIZE = 16384 };

/* blue's numbers of 16400, 16401 are each other's on green; the rest of them moves */
enum {
    MOOD_BLUE = 16400,
    MOOD_GREEN = 16401,
    COLOR_BLUE = MOOD_GREEN,
    COLOR_GREEN = MOOD_BLUE,
    MOODS_BLUE = 16410,
    MOODS_GREEN = 16510,
    PAIR_BLUE = 16420,
    PAIR_GREEN = 16520,
    SPAN_BLUE = 16430,
    SPAN_GREEN = 16530,
    SPANS_BLUE = 16431,
    SPANS_GREEN = 16531,
    LIST_BLUE = 16440,
    LIST_GREEN = 16540,
    ONLY_BLUE = 16450,
    ONLY_GREEN = 16460,
    HIDDEN_GREEN = MOODS_BLUE, /* not on blue, where its number is another type's */
    SAME = 16470,
    BOTH = 16480,
    OID = 26,
    OIDS = 1028,
    RECORD = 2249
};

static const struct proxy_type types[] = {
    {.oids = {MOOD_BLUE, MOOD_GREEN}},
    {.oids = {COLOR_BLUE, COLOR_GREEN}},
    {.oids = {MOODS_BLUE, MOODS_GREEN}, .kind = PROXY_TYPE_ARRAY, .related = {MOOD_BLUE, MOOD_GREEN}},
    {.oids = {PAIR_BLUE, PAIR_GREEN}, .kind = PROXY_TYPE_COMPOSITE},
    {.oids = {SPAN_BLUE, SPAN_GREEN}, .kind = PROXY_TYPE_RANGE, .related = {MOODS_BLUE, MOODS_GREEN}},
    {.oids = {SPANS_BLUE, SPANS_GREEN}, .kind = PROXY_TYPE_MULTIRANGE, .related = {SPAN_BLUE, SPAN_GREEN}},
    {.oids = {LIST_BLUE, LIST_GREEN}, .kind = PROXY_TYPE_DOMAIN, .related = {MOODS_BLUE, MOODS_GREEN}},
    {.oids = {ONLY_BLUE, 0}},
    {.oids = {0, BOTH}},
    {.oids = {BOTH, 0}}, /* two types, each on one side */
    {.oids = {0, ONLY_GREEN}},
    {.oids = {0, HIDDEN_GREEN}},
    {.oids = {SAME, SAME}},
};

/* What went each way, and came out. */
struct scene {
    struct type_map *map;
    struct numbering *numbering;
    struct boundary boundary;
    uint8_t bytes[BUFFER_SIZE], out[BUFFER_SIZE];
    struct build build;
    size_t out_length;
    struct frame_cursor client, server;
};

static int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    assert_non_null(scene);
    scene->map = type_map_new(types, ARRAY_LENGTH(types));
    assert_non_null(scene->map);
    scene->numbering = numbering_new(scene->map, SIDE_BLUE);
    assert_non_null(scene->numbering);
    boundary_init(&scene->boundary);
    frame_init(&scene->client, FRAME_FROM_CLIENT);
    frame_init(&scene->server, FRAME_FROM_SERVER);
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    *state = scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;
    numbering_free(scene->numbering);
    type_map_unref(scene->map);
    free(scene);
    return 0;
}

static void emit(struct scene *scene, struct slice bytes)
{
    assert_true(scene->out_length + bytes.length <= sizeof scene->out);
    if (bytes.length > 0) {
        memcpy(scene->out + scene->out_length, bytes.data, bytes.length);
    }
    scene->out_length += bytes.length;
}

/* One piece, as the relay would handle it; quiet ones go on unseen, as there. */
static void piece_goes(struct scene *scene, const struct frame_piece *piece, uint8_t *bytes, bool from_client)
{
    struct slice instead;
    struct boundary_step step;
    uint8_t header[FRAME_HEADER_SIZE];
    enum numbering_verdict verdict = NUMBERING_PASS;
    if (from_client) {
        assert_int_equal(boundary_client(&scene->boundary, piece, 1), BOUNDARY_FORWARD);
        verdict = numbering_client(scene->numbering, piece, bytes, &scene->boundary, &instead);
    } else {
        boundary_server(&scene->boundary, piece, 1, &step);
        verdict = numbering_server(scene->numbering, piece, bytes, &scene->boundary, &instead);
    }
    if (verdict == NUMBERING_TAKE) {
        emit(scene, instead);
        numbering_done(scene->numbering);
        return;
    }
    if (piece->first) {
        frame_header(header, piece->type, piece->length);
        emit(scene, slice_of(header, sizeof header));
    }
    emit(scene, piece->bytes);
}

/* What was built goes, `step` bytes in a read. What comes out is in scene->out. */
static void goes(struct scene *scene, bool from_client, size_t step)
{
    struct frame_cursor *cursor = from_client ? &scene->client : &scene->server;
    struct frame_piece piece;
    assert_true(build_fits(&scene->build));
    scene->out_length = 0;
    for (size_t at = 0; at < scene->build.length; at += step) {
        size_t left = scene->build.length - at;
        struct slice range = slice_of(scene->bytes + at, left < step ? left : step);
        while (frame_next(cursor, &range, &piece) == WIRE_OK) {
            uint8_t *bytes = scene->bytes + (range.data - scene->bytes) - piece.bytes.length;
            piece_goes(scene, &piece, bytes, from_client);
        }
    }
    assert_false(numbering_has_failed(scene->numbering));
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
}

static void came_out(struct scene *scene, const uint8_t *expected, const struct build *built)
{
    assert_int_equal(scene->out_length, built->length);
    assert_memory_equal(scene->out, expected, built->length);
}

/* --- building ----------------------------------------------------------------------------------------------
 */

static void add_parse(struct build *build, const char *name, const char *sql, uint32_t type)
{
    build_parse(build, slice_text(name), slice_text(sql), &type, type == 0 ? 0 : 1);
}

static uint32_t table_of_columns;

static void add_columns(struct build *build, const uint32_t *columns, uint16_t count, uint16_t format)
{
    build_begin(build, 'T');
    build_u16(build, count);
    for (uint16_t i = 0; i < count; i++) {
        build_string(build, "column");
        build_u32(build, table_of_columns);
        build_u16(build, 1);
        build_u32(build, columns[i]);
        build_u16(build, 4);
        build_u32(build, UINT32_MAX);
        build_u16(build, format);
    }
    build_end(build);
}

static void add_simple(struct build *build, const char *kinds)
{
    for (; *kinds != '\0'; kinds++) {
        build_begin(build, *kinds);
        if (*kinds == 'C') {
            build_string(build, "SELECT 1");
        } else if (*kinds == 'Z') {
            build_u8(build, 'I');
        }
        build_end(build);
    }
}

static void add_parameters(struct build *build, uint32_t type)
{
    build_begin(build, 't');
    build_u16(build, 1);
    build_u32(build, type);
    build_end(build);
}

static void value(struct build *build, const void *bytes, size_t length)
{
    build_u32(build, (uint32_t)length);
    build_bytes(build, bytes, length);
}

static void array_of(struct build *build, uint32_t element)
{
    build_u32(build, 1);
    build_u32(build, 0);
    build_u32(build, element);
    build_u32(build, 2);
    build_u32(build, 1);
    value(build, "sad", 3);
    build_u32(build, UINT32_MAX);
}

/* A value of the composite type: moods[], mood, text. Its numbers are that side's. */
static void pair_of(struct build *build, enum side side)
{
    uint8_t bytes[256];
    struct build moods;
    build_init(&moods, bytes, sizeof bytes);
    array_of(&moods, side == SIDE_BLUE ? MOOD_BLUE : MOOD_GREEN);
    build_u32(build, 3);
    build_u32(build, side == SIDE_BLUE ? MOODS_BLUE : MOODS_GREEN);
    value(build, bytes, moods.length);
    build_u32(build, side == SIDE_BLUE ? MOOD_BLUE : MOOD_GREEN);
    value(build, "glad", 4);
    build_u32(build, 25);
    build_u32(build, UINT32_MAX);
}

static void one_column(struct build *build, const struct build *content)
{
    build_begin(build, 'D');
    build_u16(build, 1);
    value(build, content->data, content->length);
    build_end(build);
}

static void add_bind(struct build *build, const char *statement, const struct build *content, uint16_t format)
{
    build_begin(build, 'B');
    build_string(build, "");
    build_string(build, statement);
    build_u16(build, 1);
    build_u16(build, format);
    build_u16(build, 1);
    value(build, content->data, content->length);
    build_u16(build, 1);
    build_u16(build, 1); /* results in binary */
    build_end(build);
}

/* --- the map -----------------------------------------------------------------------------------------------
 */

static void translation_is_one_to_one(void **state)
{
    struct scene *scene = *state;
    struct translation there = {.map = scene->map, .from = SIDE_BLUE, .to = SIDE_GREEN};
    struct translation back = {.map = scene->map, .from = SIDE_GREEN, .to = SIDE_BLUE};
    static bool taken[200];
    memset(taken, 0, sizeof taken);
    for (uint32_t oid = 16384; oid < 16584; oid++) {
        uint32_t other = translate(there, oid);
        assert_int_equal(translate(back, other), oid);
        assert_int_equal(translate(there, translate(back, oid)), oid);
        if (other >= 16384 && other < 16584) {
            assert_false(taken[other - 16384]);
            taken[other - 16384] = true;
        }
    }
    assert_int_equal(translate(there, MOOD_BLUE), MOOD_GREEN);
    assert_int_equal(translate(there, COLOR_BLUE), COLOR_GREEN);
    assert_int_equal(translate(there, SAME), SAME);
    assert_int_equal(translate(there, 25), 25);
    assert_int_equal(translate(back, ONLY_GREEN), ONLY_GREEN);
    /* what is nobody's there must not become somebody's */
    assert_int_equal(translate(there, ONLY_BLUE), ONLY_BLUE);
    assert_true(translate(back, HIDDEN_GREEN) > INT32_MAX);
    assert_true(translate(there, MOODS_GREEN) > INT32_MAX);
    assert_true(translate(there, BOTH) > INT32_MAX);
    assert_int_equal(translate_known(back, HIDDEN_GREEN), HIDDEN_GREEN);
    assert_int_equal(translate((struct translation){.map = NULL, .to = SIDE_GREEN}, MOOD_BLUE), MOOD_BLUE);
}

static void a_new_map_must_keep_the_clients_numbers(void **state)
{
    struct scene *scene = *state;
    struct proxy_type changed[ARRAY_LENGTH(types)];
    memcpy(changed, types, sizeof types);
    changed[0].oids[SIDE_GREEN] = 16999; /* made again on the other side: the client doesn't see it */
    changed[2].oids[SIDE_BLUE] = 0;      /* dropped at home */
    struct type_map *map = type_map_new(changed, ARRAY_LENGTH(types));
    assert_int_equal(type_map_disagreement(scene->map, map, SIDE_BLUE), 0);
    type_map_unref(map);
    changed[1].oids[SIDE_BLUE] = 16998; /* made again at home: its client's number is nobody's now */
    map = type_map_new(changed, ARRAY_LENGTH(types));
    assert_int_equal(type_map_disagreement(scene->map, map, SIDE_BLUE), COLOR_BLUE);
    assert_true(type_map_differs(map));
    type_map_unref(map);
    map = type_map_new(&types[ARRAY_LENGTH(types) - 1], 1);
    assert_false(type_map_differs(map));
    type_map_unref(map);
}

/* --- traffic -----------------------------------------------------------------------------------------------
 */

/* Runs a case with whole messages and with pieces of every size. */
static void in_all_pieces(void (*run)(struct scene *scene, size_t step), struct scene *scene)
{
    run(scene, BUFFER_SIZE);
    for (size_t step = 1; step < 90; step++) {
        run(scene, step);
    }
}

static void descriptions(struct scene *scene, size_t step)
{
    static const uint32_t green[] = {MOOD_GREEN, COLOR_GREEN, 25, MOODS_GREEN, PAIR_GREEN, SAME};
    static const uint32_t blue[] = {MOOD_BLUE, COLOR_BLUE, 25, MOODS_BLUE, PAIR_BLUE, SAME};
    uint8_t expected[BUFFER_SIZE];
    struct build out;
    table_of_columns = MOOD_BLUE; /* not a type */
    add_parse(&scene->build, "s", "select $1", MOOD_BLUE);
    build_describe(&scene->build, 'S', slice_text("s"));
    build_sync(&scene->build);
    goes(scene, true, step);
    build_init(&out, expected, sizeof expected);
    add_parse(&out, "s", "select $1", MOOD_GREEN);
    build_describe(&out, 'S', slice_text("s"));
    build_sync(&out);
    came_out(scene, expected, &out);

    add_simple(&scene->build, "1");
    add_parameters(&scene->build, MOOD_GREEN);
    add_columns(&scene->build, green, ARRAY_LENGTH(green), 0);
    add_simple(&scene->build, "Z");
    goes(scene, false, step);
    build_init(&out, expected, sizeof expected);
    add_simple(&out, "1");
    add_parameters(&out, MOOD_BLUE);
    add_columns(&out, blue, ARRAY_LENGTH(blue), 0);
    add_simple(&out, "Z");
    came_out(scene, expected, &out);
    assert_int_equal(numbering_strange(scene->numbering), 0);
    table_of_columns = 0;
}

static void descriptions_speak_the_clients_numbers(void **state)
{
    in_all_pieces(descriptions, *state);
}

/* A parameter and a result of that type, in binary, from what the sides write. */
static void binary_both_ways(struct scene *scene, size_t step, uint32_t blue, uint32_t green,
                             const struct build *blue_value, const struct build *green_value)
{
    uint8_t expected[BUFFER_SIZE];
    struct build out;
    add_parse(&scene->build, "", "select $1", blue);
    add_bind(&scene->build, "", blue_value, 1);
    build_describe(&scene->build, 'P', slice_text(""));
    build_execute(&scene->build, slice_text(""), 0);
    build_sync(&scene->build);
    goes(scene, true, step);
    build_init(&out, expected, sizeof expected);
    add_parse(&out, "", "select $1", green);
    add_bind(&out, "", green_value, 1);
    build_describe(&out, 'P', slice_text(""));
    build_execute(&out, slice_text(""), 0);
    build_sync(&out);
    came_out(scene, expected, &out);

    add_simple(&scene->build, "12");
    add_columns(&scene->build, &green, 1, 1);
    one_column(&scene->build, green_value);
    one_column(&scene->build, green_value);
    add_simple(&scene->build, "CZ");
    goes(scene, false, step);
    build_init(&out, expected, sizeof expected);
    add_simple(&out, "12");
    add_columns(&out, &blue, 1, 1);
    one_column(&out, blue_value);
    one_column(&out, blue_value);
    add_simple(&out, "CZ");
    came_out(scene, expected, &out);
}

static void nested(struct scene *scene, size_t step)
{
    uint8_t bytes[2][1024], inner[2][512];
    struct build of[2], part[2];
    for (int side = 0; side < SIDE_COUNT; side++) {
        build_init(&of[side], bytes[side], sizeof bytes[side]);
        pair_of(&of[side], (enum side)side);
    }
    binary_both_ways(scene, step, PAIR_BLUE, PAIR_GREEN, &of[0], &of[1]);
    binary_both_ways(scene, step, RECORD, RECORD, &of[0], &of[1]);
    for (int side = 0; side < SIDE_COUNT; side++) { /* a domain over an array */
        build_init(&of[side], bytes[side], sizeof bytes[side]);
        array_of(&of[side], side == SIDE_BLUE ? MOOD_BLUE : MOOD_GREEN);
    }
    binary_both_ways(scene, step, LIST_BLUE, LIST_GREEN, &of[0], &of[1]);
    for (int side = 0; side < SIDE_COUNT; side++) { /* a multirange of ranges of arrays */
        build_init(&part[side], inner[side], sizeof inner[side]);
        build_u8(&part[side], 0x02);
        value(&part[side], bytes[side], of[side].length);
        value(&part[side], bytes[side], of[side].length);
        build_init(&of[side], bytes[side], sizeof bytes[side]);
        build_u32(&of[side], 1);
        value(&of[side], inner[side], part[side].length);
    }
    binary_both_ways(scene, step, SPANS_BLUE, SPANS_GREEN, &of[0], &of[1]);
}

static void values_speak_them_too(void **state)
{
    in_all_pieces(nested, *state);
}

/* Oids in results, and in parameters of statements on types only. */
static void oids(struct scene *scene, size_t step)
{
    static const uint32_t columns[] = {OID, OIDS, 25};
    static const char *const queries[] = {"select 16420, pg_typeof(1)::regtype", "select 16420"};
    static const char green[] = "{16401,16400,7}", blue[] = "{16400,16401,7}";
    static const char *const texts[] = {"select oid from pg_type where oid = $1", "select $1::oid"};
    uint8_t expected[BUFFER_SIZE];
    struct build out, number;
    for (int i = 0; i < 2; i++) {
        build_init(&number, expected, sizeof expected);
        build_bytes(&number, "16420", 5);
        add_parse(&scene->build, "", texts[i], OID);
        add_bind(&scene->build, "", &number, 0);
        build_sync(&scene->build);
        goes(scene, true, step);
        assert_int_equal(memmem(scene->out, scene->out_length, "16520", 5) != NULL, i == 0);
        add_simple(&scene->build, "12Z");
        goes(scene, false, step);
    }
    for (int i = 0; i < 2; i++) {
        build_query(&scene->build, queries[i]);
        goes(scene, true, step);
        assert_non_null(memmem(scene->out, scene->out_length, "16420", 5));
        add_columns(&scene->build, columns, 3, 0);
        build_begin(&scene->build, 'D');
        build_u16(&scene->build, 3);
        value(&scene->build, "16520", 5);
        value(&scene->build, green, sizeof green - 1);
        value(&scene->build, "16520", 5);
        build_end(&scene->build);
        add_simple(&scene->build, "CZ");
        goes(scene, false, step);
        build_init(&out, expected, sizeof expected);
        add_columns(&out, columns, 3, 0);
        build_begin(&out, 'D');
        build_u16(&out, 3);
        value(&out, i == 0 ? "16420" : "16520", 5);
        value(&out, i == 0 ? blue : green, sizeof blue - 1);
        value(&out, "16520", 5); /* that is text */
        build_end(&out);
        add_simple(&out, "CZ");
        came_out(scene, expected, &out);
    }
}

/* Where a column comes from decides: a catalog's oids are known, a user's table may keep any number. */
static void oids_of_users_tables_are_left_alone(void **state)
{
    struct scene *scene = *state;
    static const uint8_t oid[] = {0, 0, MOODS_GREEN >> 8, MOODS_GREEN & 0xff};
    static const struct {
        uint32_t table;
        bool changed;
    } cases[] = {{1247, true}, {1249, true}, {2995, false}, {16390, false}};
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        for (int nested = 0; nested < 2; nested++) {
            const uint32_t type = nested != 0 ? RECORD : OID;
            uint8_t bytes[64];
            struct build content;
            build_init(&content, bytes, sizeof bytes);
            if (nested != 0) {
                build_u32(&content, 1);
                build_u32(&content, OID);
                build_u32(&content, sizeof oid);
            }
            build_bytes(&content, oid, sizeof oid);
            build_query(&scene->build, "select");
            goes(scene, true, BUFFER_SIZE);
            table_of_columns = cases[i].table;
            add_columns(&scene->build, &type, 1, 1);
            table_of_columns = 0;
            one_column(&scene->build, &content);
            add_simple(&scene->build, "CZ");
            goes(scene, false, BUFFER_SIZE);
            assert_int_equal(memmem(scene->out, scene->out_length, oid, sizeof oid) == NULL,
                             cases[i].changed && nested == 0);
        }
    }
}

static void oids_are_numbers_of_types(void **state)
{
    in_all_pieces(oids, *state);
}

/* Text that becomes longer makes the message another one. */
static void longer_text(void **state)
{
    struct scene *scene = *state;
    struct proxy_type longer[] = {{.oids = {99999, 100000}}, {.oids = {100000, 99999}}};
    static const uint32_t column = OID;
    struct type_map *map = type_map_new(longer, 2);
    numbering_set_map(scene->numbering, map);
    uint8_t expected[BUFFER_SIZE];
    struct build out;
    build_query(&scene->build, "select regtype");
    goes(scene, true, BUFFER_SIZE);
    for (int side = 0; side < SIDE_COUNT; side++) {
        build_init(&out, side == 0 ? scene->bytes : expected, BUFFER_SIZE);
        add_columns(&out, &column, 1, 0);
        for (int i = 0; i < 2; i++) {
            build_begin(&out, 'D');
            build_u16(&out, 2);
            value(&out, (side == 0) == (i == 0) ? "100000" : "99999", (side == 0) == (i == 0) ? 6 : 5);
            build_u32(&out, UINT32_MAX);
            build_end(&out);
        }
        add_simple(&out, "CZ");
        scene->build = side == 0 ? out : scene->build;
    }
    goes(scene, false, BUFFER_SIZE);
    came_out(scene, expected, &out);
    type_map_unref(map);
}

/* --- what was prepared, what failed, what is strange
 * --------------------------------------------------------- */

static void array_row(struct scene *scene, struct build *build, enum side side)
{
    uint8_t bytes[128];
    struct build content;
    (void)scene;
    build_init(&content, bytes, sizeof bytes);
    array_of(&content, side == SIDE_BLUE ? MOOD_BLUE : MOOD_GREEN);
    one_column(build, &content);
}

/* The rows of a named statement that nobody describes now: it was before the move, or before an error. */
static void run_named(struct scene *scene, const char *name, enum side expected_side)
{
    uint8_t expected[BUFFER_SIZE], nothing = 0;
    struct build out, empty;
    build_init(&empty, &nothing, 1);
    add_bind(&scene->build, name, &empty, 0);
    build_execute(&scene->build, slice_text(""), 0);
    build_sync(&scene->build);
    goes(scene, true, BUFFER_SIZE);
    add_simple(&scene->build, "2");
    array_row(scene, &scene->build, SIDE_GREEN);
    add_simple(&scene->build, "CZ");
    goes(scene, false, BUFFER_SIZE);
    build_init(&out, expected, sizeof expected);
    add_simple(&out, "2");
    array_row(scene, &out, expected_side);
    add_simple(&out, "CZ");
    came_out(scene, expected, &out);
}

static void what_was_prepared_before_is_known(void **state)
{
    struct scene *scene = *state;
    static const uint32_t column = MOODS_GREEN;
    struct build out;
    uint8_t described[256];
    build_init(&out, described, sizeof described);
    add_columns(&out, &column, 1, 0);
    run_named(scene, "s", SIDE_GREEN); /* nothing is known of it */
    numbering_prepared(scene->numbering, "s", "select moods");
    numbering_described(scene->numbering, "s", 'T',
                        slice_of(described + FRAME_HEADER_SIZE, out.length - FRAME_HEADER_SIZE));
    run_named(scene, "s", SIDE_BLUE);
}

static void a_failed_parse_changes_nothing(void **state)
{
    struct scene *scene = *state;
    what_was_prepared_before_is_known(state);
    /* a second one of that name fails; so does what was sent behind it, up to the Sync */
    add_parse(&scene->build, "s", "select 1", 0);
    build_describe(&scene->build, 'S', slice_text("s"));
    build_close(&scene->build, 'S', slice_text("s"));
    goes(scene, true, BUFFER_SIZE);
    build_error(&scene->build, "ERROR", "42P05", "exists", NULL);
    goes(scene, false, BUFFER_SIZE);
    build_close(&scene->build, 'S', slice_text("s"));
    build_query(&scene->build, "skipped");
    build_sync(&scene->build);
    goes(scene, true, BUFFER_SIZE);
    add_simple(&scene->build, "Z");
    goes(scene, false, BUFFER_SIZE);
    run_named(scene, "s", SIDE_BLUE);
    build_close(&scene->build, 'S', slice_text("s"));
    build_sync(&scene->build);
    goes(scene, true, BUFFER_SIZE);
    add_simple(&scene->build, "3Z");
    goes(scene, false, BUFFER_SIZE);
    run_named(scene, "s", SIDE_GREEN);
}

/* What is bound behind a Parse that was skipped is the statement before, whatever was expected when it was
 * sent. */
static void a_skipped_parse_is_not_bound(void **state)
{
    struct scene *scene = *state;
    static const uint32_t column = MOODS_GREEN;
    uint8_t expected[BUFFER_SIZE], nothing = 0;
    struct build out, empty;
    build_init(&empty, &nothing, 1);
    add_parse(&scene->build, "", "select moods", 0);
    build_describe(&scene->build, 'S', slice_text(""));
    build_sync(&scene->build);
    goes(scene, true, BUFFER_SIZE);
    add_simple(&scene->build, "1");
    add_columns(&scene->build, &column, 1, 0);
    add_simple(&scene->build, "Z");
    goes(scene, false, BUFFER_SIZE);
    build_execute(&scene->build, slice_text("no portal"), 0);
    add_parse(&scene->build, "", "select 1", 0);
    build_sync(&scene->build);
    add_bind(&scene->build, "", &empty, 0);
    build_execute(&scene->build, slice_text(""), 0);
    build_sync(&scene->build);
    goes(scene, true, BUFFER_SIZE);
    build_error(&scene->build, "ERROR", "34000", "none", NULL);
    add_simple(&scene->build, "Z2");
    array_row(scene, &scene->build, SIDE_GREEN);
    add_simple(&scene->build, "CZ");
    goes(scene, false, BUFFER_SIZE);
    build_init(&out, expected, sizeof expected);
    build_error(&out, "ERROR", "34000", "none", NULL);
    add_simple(&out, "Z2");
    array_row(scene, &out, SIDE_BLUE);
    add_simple(&out, "CZ");
    came_out(scene, expected, &out);
}

static void a_type_of_the_other_side_is_strange(void **state)
{
    struct scene *scene = *state;
    static const uint32_t columns[] = {ONLY_GREEN, HIDDEN_GREEN, 17777};
    for (size_t i = 0; i < ARRAY_LENGTH(columns); i++) {
        build_query(&scene->build, "select");
        goes(scene, true, BUFFER_SIZE);
        add_columns(&scene->build, &columns[i], 1, 0);
        add_simple(&scene->build, "CZ");
        goes(scene, false, BUFFER_SIZE);
        assert_int_equal(numbering_strange(scene->numbering), ONLY_GREEN); /* the first one */
    }
}

/* A length that a client says takes no memory before its bytes come. */
static void a_length_alone_takes_no_memory(void **state)
{
    struct scene *scene = *state;
    frame_header(scene->bytes, 'B', 0x3ffffff0);
    memset(scene->bytes + FRAME_HEADER_SIZE, 'x', 100);
    scene->build.length = FRAME_HEADER_SIZE + 100;
    goes(scene, true, BUFFER_SIZE);
    assert_int_equal(scene->out_length, 0);
    assert_in_range(scene->numbering->from_client.capacity, 105, 1024);
}

/* --- anything ----------------------------------------------------------------------------------------------
 */

static void broken_values_are_left_alone(void **state)
{
    struct scene *scene = *state;
    struct translation t = {.map = scene->map, .from = SIDE_GREEN, .to = SIDE_BLUE};
    static const uint32_t kinds[] = {MOODS_GREEN, PAIR_GREEN, SPAN_GREEN, SPANS_GREEN, LIST_GREEN, OID,
                                     OIDS,        RECORD,     20,         21,          23};
    struct guard guard;
    uint8_t bytes[128];
    uint64_t seed = 42;
    guard_init(&guard, sizeof bytes);
    for (int i = 0; i < 200000; i++) {
        size_t length = random_next(&seed) % sizeof bytes;
        for (size_t j = 0; j < length; j++) { /* small numbers, and now and then a type of ours */
            bytes[j] = (uint8_t)(random_next(&seed) % 4 == 0 ? random_next(&seed) % 8 : 0);
        }
        if (length > 12) {
            static const uint8_t mood[] = {0, 0, MOOD_GREEN >> 8, MOOD_GREEN & 0xff};
            memcpy(bytes + 4 * (random_next(&seed) % (length / 4)), mood, sizeof mood);
        }
        uint8_t *copy = guard_copy(&guard, bytes, length);
        value_translate_binary(t, kinds[random_next(&seed) % ARRAY_LENGTH(kinds)], copy, length);
    }
    guard_deinit(&guard);
}

/* A nesting that no server makes doesn't use up the stack. */
static void endless_nesting_ends(void **state)
{
    struct scene *scene = *state;
    struct translation t = {.map = scene->map, .from = SIDE_GREEN, .to = SIDE_BLUE};
    size_t length = (size_t)12 * 100000;
    uint8_t *bytes = malloc(length);
    struct build build;
    assert_non_null(bytes);
    build_init(&build, bytes, length);
    for (size_t left = length; left >= 12; left -= 12) {
        build_u32(&build, 1);
        build_u32(&build, RECORD);
        build_u32(&build, (uint32_t)left - 12);
    }
    value_translate_binary(t, RECORD, bytes, build.length);
    free(bytes);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(translation_is_one_to_one),
        TEST(a_new_map_must_keep_the_clients_numbers),
        TEST(descriptions_speak_the_clients_numbers),
        TEST(values_speak_them_too),
        TEST(oids_are_numbers_of_types),
        TEST(oids_of_users_tables_are_left_alone),
        TEST(longer_text),
        TEST(what_was_prepared_before_is_known),
        TEST(a_failed_parse_changes_nothing),
        TEST(a_skipped_parse_is_not_bound),
        TEST(a_type_of_the_other_side_is_strange),
        TEST(a_length_alone_takes_no_memory),
        TEST(broken_values_are_left_alone),
        TEST(endless_nesting_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
