/*
 * proxy/numbering: the numbers of types on the way between a client that began on blue and its server on
 * green. tests/integration/test_types.py does the same with real servers and drivers.
 */
#include "numbering_scene.h"

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

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(descriptions_speak_the_clients_numbers),
        TEST(values_speak_them_too),
        TEST(oids_are_numbers_of_types),
        TEST(oids_of_users_tables_are_left_alone),
        TEST(longer_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
