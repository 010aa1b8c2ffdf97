/* proxy/numbering: what was prepared before, what failed, what is strange. */
#include "numbering_scene.h"

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

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_prepared_before_is_known), TEST(a_failed_parse_changes_nothing),
        TEST(a_skipped_parse_is_not_bound),      TEST(a_type_of_the_other_side_is_strange),
        TEST(a_length_alone_takes_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
