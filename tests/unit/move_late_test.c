/* proxy/move_late: statements that the new server refuses until they are used. */
#include "move_scene.h"

#include "proxy/move_late.h"

/* The state is known, and has these statements; the target refuses the one that comes first. */
static void know(struct scene *scene, bool second)
{
    char text[TEXT_SIZE];
    bool settings = false;
    query(scene, "select 1", "SELECT 1");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    row(scene, "prep", "s1", "insert into gone values ($1)", "{23}", "false");
    if (second) {
        row(scene, "prep", "s2", "select 2", "{}", "false");
    }
    assert_int_equal(answered(scene), MOVE_DONE);
}

static void refuse_first(struct scene *scene, const char *sqlstate)
{
    empty(scene, "12C331"); /* the timeouts, set_config */
    empty(scene, "2C32C3"); /* user and role */
    build_error(&scene->build, "ERROR", sqlstate, "relation \"gone\" does not exist", NULL);
    build_ready(&scene->build, 'I');
}

static void swap_without_s1(struct scene *scene)
{
    char text[TEXT_SIZE];
    know(scene, true);
    assert_int_equal(replay(scene, text), 1);
    assert_non_null(strstr(text, "parse s1("));
    refuse_first(scene, "42P01");
    assert_int_equal(target(scene), MOVE_AGAIN);
    int syncs = replay(scene, text);
    assert_string_equal(text,
                        "session_authorization=anna; role=none; close s1; close s2; parse s2(select 2)/0; ");
    assert_int_equal(accept_all(scene, syncs), MOVE_DONE);
    assert_true(move_is_ready(scene->move));
    assert_false(move_has_late(scene->move));
    assert_false(move_swapped(scene->move));
    assert_true(move_has_late(scene->move));
    boundary_init(&scene->boundary);
}

/* What goes before a message of the client's, which is then sent. */
static enum move_late_verdict send_late(struct scene *scene)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    struct slice range = slice_of(scene->bytes, scene->build.length);
    struct slice message;
    enum move_late_verdict verdict = LATE_NONE;
    frame_init(&cursor, FRAME_FROM_CLIENT);
    assert_int_equal(frame_next(&cursor, &range, &piece), WIRE_OK);
    verdict = move_late_wanted(scene->move, &piece, &message);
    if (verdict == LATE_PARSE) {
        struct frame_piece parse;
        struct decode_parse what;
        frame_init(&cursor, FRAME_FROM_CLIENT);
        struct slice rest = message;
        assert_int_equal(frame_next(&cursor, &rest, &parse), WIRE_OK);
        assert_int_equal(rest.length, 0);
        assert_true(decode_parse(parse.bytes, &what));
        assert_true(slice_equals(what.name, "s1") && what.type_count == 1);
        assert_int_equal(boundary_client(&scene->boundary, &parse, 1), BOUNDARY_FORWARD);
        move_late_sent(scene->move, message, scene->boundary.parses_sent);
    }
    client(scene);
    return verdict;
}

static enum move_late_verdict use(struct scene *scene)
{
    build_bind(&scene->build, slice_of("", 0), slice_text("s1"), NULL, 0);
    return send_late(scene);
}

static void synced(struct scene *scene)
{
    build_sync(&scene->build);
    client(scene);
}

static void failed(struct scene *scene)
{
    build_error(&scene->build, "ERROR", "42P01", "relation \"gone\" does not exist", NULL);
    build_ready(&scene->build, 'I');
    server(scene);
}

static void it_is_prepared_when_it_is_used(void **state)
{
    struct scene *scene = *state;
    swap_without_s1(scene);
    assert_int_equal(use(scene), LATE_PARSE);
    assert_int_equal(use(scene), LATE_NONE); /* it is on its way */
    synced(scene);
    assert_int_equal(use(scene), LATE_WAIT); /* and may have failed */
    synced(scene);
    failed(scene);
    assert_int_equal(use(scene), LATE_PARSE); /* it had */
    synced(scene);
    assert_false(move_late_parsed(scene->move, scene->boundary.parses_sent));
    assert_true(move_late_parsed(scene->move, scene->boundary.parses_sent - 1));
    assert_false(move_has_late(scene->move));
}

static void it_can_be_closed_and_replaced(void **state)
{
    struct scene *scene = *state;
    swap_without_s1(scene);
    build_close(&scene->build, 'S', slice_text("s1"));
    assert_int_equal(send_late(scene), LATE_NONE);
    assert_int_equal(use(scene), LATE_NONE);
    synced(scene);
    failed(scene); /* perhaps before the Close */
    assert_true(move_has_late(scene->move));
    build_parse(&scene->build, slice_text("s1"), slice_text("selec"), NULL, 0);
    assert_int_equal(send_late(scene), LATE_NONE);
    synced(scene);
    failed(scene);
    assert_int_equal(use(scene), LATE_PARSE);
    synced(scene);
    failed(scene);
    build_parse(&scene->build, slice_text("s1"), slice_text("select 1"), NULL, 0);
    assert_int_equal(send_late(scene), LATE_NONE);
    synced(scene);
    empty(scene, "1");
    build_ready(&scene->build, 'I');
    server(scene);
    assert_false(move_has_late(scene->move));
}

/* Nothing will be answered to it, so nothing may wait for that. */
static void a_parse_that_is_skipped_replaces_nothing(void **state)
{
    struct scene *scene = *state;
    swap_without_s1(scene);
    build_parse(&scene->build, slice_text("s9"), slice_text("selec"), NULL, 0);
    assert_int_equal(send_late(scene), LATE_NONE);
    build_error(&scene->build, "ERROR", "42601", "syntax error", NULL);
    server(scene);
    build_parse(&scene->build, slice_text("s1"), slice_text("select 1"), NULL, 0);
    assert_int_equal(send_late(scene), LATE_NONE);
    synced(scene);
    build_ready(&scene->build, 'I');
    server(scene);
    assert_int_equal(use(scene), LATE_PARSE);
}

static void a_close_that_succeeds_forgets_it(void **state)
{
    struct scene *scene = *state;
    swap_without_s1(scene);
    build_close(&scene->build, 'S', slice_text("s1"));
    assert_int_equal(send_late(scene), LATE_NONE);
    synced(scene);
    empty(scene, "3");
    build_ready(&scene->build, 'I');
    server(scene);
    assert_false(move_has_late(scene->move));
}

static void all_are_forgotten(void **state)
{
    struct scene *scene = *state;
    swap_without_s1(scene);
    query(scene, "deallocate all", "DEALLOCATE ALL");
    assert_false(move_has_late(scene->move));
}

/* The next move takes it along. */
static void it_moves_again(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    swap_without_s1(scene);
    query(scene, "select 1", "SELECT 1");
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    row(scene, "prep", "s2", "select 2", "{}", "false");
    assert_int_equal(answered(scene), MOVE_DONE);
    int syncs = replay(scene, text);
    assert_string_equal(text, "session_authorization=anna; role=none; parse s1(insert into gone values "
                              "($1))/1; parse s2(select 2)/0; ");
    assert_int_equal(accept_all(scene, syncs), MOVE_DONE);
    assert_false(move_swapped(scene->move));
    assert_false(move_has_late(scene->move));
}

/* Only a text that doesn't fit is left for later. */
static void other_errors_are_failures(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    know(scene, false);
    assert_int_equal(replay(scene, text), 1);
    refuse_first(scene, "53200");
    assert_int_equal(target(scene), MOVE_FAILED);
    assert_string_equal(move_failure(scene->move),
                        "the target refuses statement s1: relation \"gone\" does not exist");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_prepared_when_it_is_used),
        TEST(it_can_be_closed_and_replaced),
        TEST(a_parse_that_is_skipped_replaces_nothing),
        TEST(a_close_that_succeeds_forgets_it),
        TEST(all_are_forgotten),
        TEST(it_moves_again),
        TEST(other_errors_are_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
