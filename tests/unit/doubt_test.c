/* proxy/doubt.h: what is at stake, by what has passed in both directions. */
#include "proxy/doubt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define BYTES(literal) (literal), (sizeof(literal) - 1)
#define COMMIT_QUERY                                                                                         \
    "Q\0\0\0\x0b"                                                                                            \
    "commit\0"
#define COMMIT_PARSE                                                                                         \
    "P\0\0\0\x0e\0"                                                                                          \
    "COMMIT\0\0\0"
#define COMMIT_PREPARE                                                                                       \
    "P\0\0\0\x0fx\0"                                                                                         \
    "COMMIT\0\0\0"
#define BIND     "B\0\0\0\x0c\0\0\0\0\0\0\0\0"
#define BIND_X   "B\0\0\0\x0d\0x\0\0\0\0\0\0\0"
#define DESCRIBE "D\0\0\0\x06P\0"
#define EXECUTE  "E\0\0\0\x09\0\0\0\0\0"
#define SYNC     "S\0\0\0\x04"
#define SELECT   "Q\0\0\0\x0dselect 1\0"
#define BEGAN                                                                                                \
    "C\0\0\0\x0a"                                                                                            \
    "BEGIN\0"
#define COMMITTED                                                                                            \
    "C\0\0\0\x0b"                                                                                            \
    "COMMIT\0"
#define TURNED                                                                                               \
    "C\0\0\0\x0d"                                                                                            \
    "ROLLBACK\0"
#define READY_I "Z\0\0\0\x05I"
#define READY_T "Z\0\0\0\x05T"
#define READY_E                                                                                              \
    "Z\0\0\0\x05"                                                                                            \
    "E"
#define ID_7      "V\0\0\0\x10\0\0\0\x08\0\0\0\0\0\0\0\x07"
#define DEBUGGING "N\0\0\0\x09Mhi\0\0"
#define NO_ID     "V\0\0\0\x08\xff\xff\xff\xff"
#define CANCELLED "E\0\0\0\x18SERROR\0C57014\0Mbye\0\0"
#define DIED      "E\0\0\0\x18SFATAL\0C57P01\0Mbye\0\0"

struct scene {
    struct doubt doubt;
    struct boundary boundary;
    struct frame_cursor client, server;
    char passed[64]; /* types of what the client gets; * stands for what came in place of one */
    char asked[64];  /* questions */
    bool told;
};

static void scene_init(struct scene *scene)
{
    *scene = (struct scene){.told = true};
    doubt_begin(&scene->doubt);
    boundary_init(&scene->boundary);
    frame_init(&scene->client, FRAME_FROM_CLIENT);
    frame_init(&scene->server, FRAME_FROM_SERVER);
}

static void note(char *list, char what)
{
    size_t length = strlen(list);
    assert_true(length < 63);
    list[length] = what;
    list[length + 1] = '\0';
}

static void ask(struct scene *scene, const struct frame_piece *piece)
{
    uint8_t packet[DOUBT_QUESTION_SIZE];
    struct build build;
    enum doubt_question question = doubt_question(&scene->doubt, &scene->boundary, piece);
    if (question != DOUBT_QUESTION_NONE) {
        build_init(&build, packet, sizeof(packet));
        boundary_aside(&scene->boundary, doubt_ask(&scene->doubt, question, scene->told, &build));
        assert_true(build_fits(&build));
        note(scene->asked, question == DOUBT_QUESTION_SERVER ? 's' : 't');
    }
}

static void sends(struct scene *scene, const char *bytes, size_t length)
{
    struct slice rest = slice_of(bytes, length);
    struct frame_piece piece;
    while (frame_next(&scene->client, &rest, &piece) == WIRE_OK) {
        if (piece.first) {
            ask(scene, &piece);
            doubt_client(&scene->doubt, &scene->boundary, &piece);
        }
        assert_int_equal(boundary_client(&scene->boundary, &piece, 1), BOUNDARY_FORWARD);
    }
}

/* In pieces of `step` bytes. */
static void answers_split(struct scene *scene, const char *bytes, size_t length, size_t step_size)
{
    for (size_t at = 0; at < length; at += step_size) {
        struct slice rest = slice_of(bytes + at, length - at < step_size ? length - at : step_size);
        struct frame_piece piece;
        struct boundary_step step;
        struct slice instead;
        while (frame_next(&scene->server, &rest, &piece) == WIRE_OK) {
            boundary_server(&scene->boundary, &piece, 1, &step);
            if (step.aside) {
                doubt_answered(&scene->doubt, &piece, &step);
                continue;
            }
            bool replaced = doubt_replaces(&scene->doubt, &piece, &instead);
            doubt_server(&scene->doubt, &scene->boundary, &piece, &step);
            if (replaced && instead.length > 0) {
                assert_int_equal(instead.data[0], 'E');
                note(scene->passed, '*');
            } else if (!replaced && piece.first) {
                note(scene->passed, (char)piece.type);
            }
        }
    }
}

static void answers(struct scene *scene, const char *bytes, size_t length)
{
    answers_split(scene, bytes, length, length);
}

/* In a transaction, of a session that may ask. */
static void begin(struct scene *scene)
{
    scene_init(scene);
    sends(scene, BYTES("Q\0\0\0\x0a"
                       "begin\0"));
    assert_string_equal(scene->asked, "s");
    answers(scene, BYTES(NO_ID READY_I ID_7 READY_I BEGAN READY_T));
    assert_string_equal(scene->passed, "CZ");
    assert_true(scene->doubt.may_ask);
    assert_int_equal(scene->doubt.incarnation, 7);
    scene->passed[0] = '\0';
}

static void texts_of_commits(void **state)
{
    (void)state;
    static const char *const commits[] = {
        "commit", "COMMIT", " Commit ;", "end", "end work", "COMMIT TRANSACTION;;", "\ncommit\twork\n"};
    static const char *const others[] = {"",
                                         "commit and chain",
                                         "commit prepared 'x'",
                                         "committed",
                                         "end_of",
                                         "rollback",
                                         "commit; select 1",
                                         "commit work work",
                                         "select end",
                                         "com",
                                         "/* a */ commit"};
    for (size_t i = 0; i < sizeof(commits) / sizeof(commits[0]); i++) {
        assert_true(doubt_is_commit(slice_text(commits[i])));
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_false(doubt_is_commit(slice_text(others[i])));
    }
}

static enum doubt_stake stake(const struct scene *scene, bool may_end)
{
    return doubt_stake(&scene->doubt, &scene->boundary, may_end);
}

static void replies(const struct scene *scene, const char *want, size_t length)
{
    uint8_t packet[64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    doubt_build_replies(&scene->doubt, &build);
    assert_int_equal(build.length, length);
    assert_memory_equal(packet, want, length);
}

static void a_commit_is_at_stake_once_its_id_is_told(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    assert_int_equal(stake(&scene, false), DOUBT_ROLLED_BACK);
    sends(&scene, BYTES(SELECT));
    assert_int_equal(stake(&scene, false), DOUBT_ROLLED_BACK);
    assert_int_equal(stake(&scene, true), DOUBT_UNKNOWN);
    answers(&scene, BYTES("C\0\0\0\x0dSELECT 1\0" READY_T));
    sends(&scene, BYTES(COMMIT_QUERY));
    assert_int_equal(stake(&scene, true), DOUBT_UNKNOWN);
    answers_split(&scene, BYTES(DEBUGGING ID_7 READY_T), 1);
    assert_int_equal(stake(&scene, true), DOUBT_COMMIT);
    assert_int_equal(scene.doubt.transaction, 7);
    replies(&scene, BYTES(COMMITTED READY_I));
    answers(&scene, BYTES(COMMITTED));
    assert_int_equal(stake(&scene, true), DOUBT_NOTHING);
    answers(&scene, BYTES(READY_I));
    assert_int_equal(stake(&scene, false), DOUBT_NOTHING);
    assert_string_equal(scene.passed, "CZCZ");
    assert_string_equal(scene.asked, "st");
    doubt_deinit(&scene.doubt);
}

static void outside_of_a_transaction_all_is_possible(void **state)
{
    (void)state;
    struct scene scene;
    scene_init(&scene);
    assert_int_equal(stake(&scene, false), DOUBT_NOTHING);
    sends(&scene, BYTES(SELECT));
    assert_int_equal(stake(&scene, false), DOUBT_UNKNOWN);
    doubt_deinit(&scene.doubt);
}

static void extended_commits(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    sends(&scene, BYTES(COMMIT_PARSE BIND DESCRIBE EXECUTE));
    answers(&scene, BYTES(ID_7 READY_T));
    assert_int_equal(stake(&scene, true), DOUBT_COMMIT);
    sends(&scene, BYTES(SYNC));
    replies(&scene, BYTES("1\0\0\0\x04"
                          "2\0\0\0\x04"
                          "n\0\0\0\x04" COMMITTED READY_I));
    answers(&scene, BYTES("1\0\0\0\x04"
                          "2\0\0\0\x04"));
    replies(&scene, BYTES("n\0\0\0\x04" COMMITTED READY_I));
    assert_false(scene.doubt.more);
    sends(&scene, BYTES(SELECT));
    assert_true(scene.doubt.more);
    assert_int_equal(stake(&scene, true), DOUBT_COMMIT);
    answers(&scene, BYTES("n\0\0\0\x04" COMMITTED READY_I));
    assert_int_equal(stake(&scene, true), DOUBT_UNKNOWN);
    doubt_deinit(&scene.doubt);

    begin(&scene); /* behind something else nobody could ask */
    sends(&scene, BYTES(BIND EXECUTE COMMIT_PARSE BIND EXECUTE SYNC));
    assert_string_equal(scene.asked, "s");
    assert_int_equal(stake(&scene, true), DOUBT_UNKNOWN);
    doubt_deinit(&scene.doubt);

    begin(&scene); /* the COMMIT and more in one */
    sends(&scene, BYTES(COMMIT_PARSE BIND EXECUTE BIND EXECUTE SYNC));
    answers(&scene, BYTES(ID_7 READY_T));
    assert_int_equal(stake(&scene, true), DOUBT_UNKNOWN);
    doubt_deinit(&scene.doubt);
}

static void prepared_commits(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    sends(&scene, BYTES(COMMIT_PREPARE SYNC));
    answers(&scene, BYTES(ID_7 READY_T "1\0\0\0\x04" READY_T));
    scene.asked[0] = '\0';
    sends(&scene, BYTES(BIND EXECUTE SYNC));
    assert_string_equal(scene.asked, "");
    answers(&scene, BYTES("2\0\0\0\x04"
                          "C\0\0\0\x0dSELECT 1\0" READY_T));
    sends(&scene, BYTES(BIND_X EXECUTE SYNC));
    assert_string_equal(scene.asked, "t");
    answers(&scene, BYTES(ID_7 READY_T));
    assert_int_equal(stake(&scene, true), DOUBT_COMMIT);
    replies(&scene, BYTES("2\0\0\0\x04" COMMITTED READY_I));
    doubt_deinit(&scene.doubt);
}

/* Our question was cancelled or timed out, and took the transaction along: the client sees an error, not a
 * ROLLBACK that it did not ask for. */
static void a_question_that_fails_says_so(void **state)
{
    (void)state;
    struct scene scene;
    for (size_t split = 1; split < 60; split++) {
        begin(&scene);
        sends(&scene, BYTES(COMMIT_QUERY));
        answers_split(&scene, BYTES(CANCELLED READY_E TURNED READY_I), split);
        assert_string_equal(scene.passed, "*Z");
        sends(&scene, BYTES(SELECT));
        answers_split(&scene, BYTES("C\0\0\0\x0dSELECT 1\0" READY_I), split);
        assert_string_equal(scene.passed, "*ZCZ");
        doubt_deinit(&scene.doubt);
    }
    begin(&scene);
    sends(&scene, BYTES(COMMIT_PARSE BIND EXECUTE SYNC));
    answers(&scene, BYTES(CANCELLED READY_E "1\0\0\0\x04"
                                            "2\0\0\0\x04" TURNED READY_I));
    assert_string_equal(scene.passed, "12*Z");
    doubt_deinit(&scene.doubt);
}

static void an_end_in_front_of_the_answer_is_the_clients(void **state)
{
    (void)state;
    struct scene scene;
    for (size_t split = 1; split < 30; split++) {
        begin(&scene);
        sends(&scene, BYTES(COMMIT_QUERY));
        answers_split(&scene, BYTES(DIED), split);
        assert_string_equal(scene.passed, split >= 25 ? "E" : "*");
        doubt_deinit(&scene.doubt);
    }
}

static void who_may_not_ask_does_not(void **state)
{
    (void)state;
    struct scene scene;
    scene_init(&scene);
    sends(&scene, BYTES("Q\0\0\0\x0a"
                        "begin\0"));
    answers(&scene, BYTES(CANCELLED READY_I ID_7 READY_I BEGAN READY_T));
    assert_string_equal(scene.passed, "CZ");
    sends(&scene, BYTES(COMMIT_QUERY));
    assert_string_equal(scene.asked, "s");
    assert_int_equal(stake(&scene, true), DOUBT_UNKNOWN);
    doubt_deinit(&scene.doubt);
}

/* How many notices say it, read in pieces of so many bytes. */
static unsigned count_unconfirmed(struct doubt *doubt, const struct build *notice, size_t split)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    unsigned found = 0;
    frame_init(&cursor, FRAME_FROM_SERVER);
    for (size_t at = 0; at < notice->length; at += split) {
        size_t left = notice->length - at;
        struct slice rest = slice_of(notice->data + at, left < split ? left : split);
        while (frame_next(&cursor, &rest, &piece) == WIRE_OK) {
            found += doubt_notice(doubt, &piece);
        }
    }
    return found;
}

static void build_warning(struct build *build, const char *routine)
{
    static const char *const fields[] = {"SWARNUNG", "VWARNING", "C01000", "Mbreche das Warten ab",
                                         "Fsyncrep.c"};
    build_begin(build, 'N');
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        build_string(build, fields[i]);
    }
    build_string(build, routine);
    build_u8(build, 0);
    build_end(build);
}

static void warnings_of_unconfirmed_commits(void **state)
{
    (void)state;
    uint8_t bytes[256];
    struct build notice;
    for (size_t split = 1; split < 110; split++) {
        struct doubt doubt = {.error = NULL};
        build_init(&notice, bytes, sizeof(bytes));
        build_warning(&notice, "RSyncRepWaitForLSN");
        assert_int_equal(count_unconfirmed(&doubt, &notice, split), 1);
        assert_true(doubt.unconfirmed);
    }
    struct doubt doubt = {.error = NULL};
    build_init(&notice, bytes, sizeof(bytes));
    build_warning(&notice, "RSyncRepWaitForLSNs");
    build_warning(&notice, "MRSyncRepWaitForLSN");
    assert_int_equal(count_unconfirmed(&doubt, &notice, sizeof(bytes)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_commits),
        cmocka_unit_test(a_commit_is_at_stake_once_its_id_is_told),
        cmocka_unit_test(outside_of_a_transaction_all_is_possible),
        cmocka_unit_test(extended_commits),
        cmocka_unit_test(prepared_commits),
        cmocka_unit_test(a_question_that_fails_says_so),
        cmocka_unit_test(an_end_in_front_of_the_answer_is_the_clients),
        cmocka_unit_test(who_may_not_ask_does_not),
        cmocka_unit_test(warnings_of_unconfirmed_commits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
