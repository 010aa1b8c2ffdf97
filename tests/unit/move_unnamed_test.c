/* proxy/move: the unnamed statement, which no catalog shows. */
#include "move_scene.h"

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
        assert_true(move_is_ready(scene->move) || move_lacks_scout(scene->move));
    }
    query(scene, "select 1", "SELECT 1"); /* destroys it */
    assert_true(ask(scene, &settings, text));
    rows_of_a_plain_session(scene);
    assert_int_equal(answered(scene), MOVE_DONE);
    assert_int_equal(replay(scene, text), 1);
    assert_string_equal(text, "close ; ");
}

/* Whether a Query that failed, or a Close among messages that did, has destroyed it: its server knows. */
static void whether_the_unnamed_statement_lives_is_asked(void **state)
{
    struct scene *scene = *state;
    char text[TEXT_SIZE];
    bool settings = false;
    for (int lives = 1; lives >= 0; lives--) {
        parse_unnamed(scene, "select 1");
        build_sync(&scene->build);
        client(scene);
        empty(scene, "1");
        build_ready(&scene->build, 'I');
        server(scene);
        assert_true(ask(scene, &settings, text));
        rows_of_a_plain_session(scene);
        for (unsigned i = 0; i < scene->questions; i++) {
            empty(scene, "C");
        }
        if (lives == 0) {
            build_error(&scene->build, "ERROR", "26000", "unnamed prepared statement does not exist", NULL);
        } else { /* it is there, and can't be described any more */
            build_error(&scene->build, "ERROR", "42P01", "relation does not exist", NULL);
        }
        build_ready(&scene->build, 'I');
        assert_int_equal(server(scene), MOVE_DONE);
        (void)replay(scene, text);
        assert_true((strstr(text, "parse (select 1)/0; ") != NULL) == (lives == 1));
        assert_int_equal(accept_all(scene, lives == 1 ? 2 : 1), MOVE_DONE);
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_unnamed_statement_follows),
        TEST(whether_the_unnamed_statement_lives_is_asked),
        TEST(a_refused_unnamed_statement_is_no_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
