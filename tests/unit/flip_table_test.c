/*
 * The flip's table: every phase can be undone or lies past the commit point, flip-back is reachable from
 * every state past it, and README.md shows the table as it is. The journal's rows survive being written.
 */
#include "control/flip/hold_ledger.h"
#include "control/flip/record.h"
#include "control/flip/table.h"

#include "conf/base/strbuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_every_phase_has_a_way_out(void **state)
{
    (void)state;
    bool past = false;
    for (enum flip_phase phase = flip_table_first(FLIP_KIND_CUTOVER); phase != FLIP_PHASE_NONE;
         phase = flip_table_next(FLIP_KIND_CUTOVER, false, phase)) {
        const struct flip_row *row = flip_table_row(phase);
        assert_int_equal(row->phase, phase);
        assert_int_not_equal(row->undo, FLIP_UNDO_MISSING);
        assert_true(row->actions[0] != FLIP_ACTION_NONE);
        assert_true(strlen(row->comment) > 0);
        assert_true(row->past_commit || !past); /* there is one commit point */
        past = row->past_commit;
        /* Before it a failure leads to where traffic was; past it never to "nothing happened". */
        assert_int_equal(past,
                         row->on_failure != FLIP_FAILURE_REFUSE && row->on_failure != FLIP_FAILURE_UNDO);
        assert_int_equal(past, row->undo == FLIP_UNDO_BACK || row->undo == FLIP_UNDO_FLIP_BACK);
        if (row->on_failure == FLIP_FAILURE_UNDO && row->timeout == FLIP_TIMEOUT_NONE) {
            fail_msg("%s has no deadline", flip_phase_name(phase));
        }
    }
    assert_true(past);
}

/* From each phase past the commit point, `next` ends where a flip-back may begin: nothing runs any more. */
static void test_flip_back_is_reachable(void **state)
{
    (void)state;
    for (int i = FLIP_PHASE_PREFLIGHT; i < FLIP_PHASE_COUNT; i++) {
        if (flip_table_row((enum flip_phase)i)->past_commit) {
            enum flip_phase phase = (enum flip_phase)i;
            for (int steps = 0; phase != FLIP_PHASE_NONE; steps++) {
                assert_true(steps < FLIP_PHASE_COUNT);
                phase = flip_table_next(FLIP_KIND_CUTOVER, false, phase);
            }
        }
    }
}

static void walk(enum flip_kind kind, bool lossless, const enum flip_phase *expected, size_t count)
{
    enum flip_phase phase = flip_table_first(kind);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(phase, expected[i]);
        phase = flip_table_next(kind, lossless, phase);
    }
    assert_int_equal(phase, FLIP_PHASE_NONE);
}

/* Of a lossless cutover nobody is released before its turn; nothing else of the walk differs. */
static void test_lossless_turns_first(void **state)
{
    (void)state;
    const enum flip_phase expected[] = {
        FLIP_PHASE_PREFLIGHT, FLIP_PHASE_APPROVE, FLIP_PHASE_BACKUP,  FLIP_PHASE_ARM,   FLIP_PHASE_HOLD,
        FLIP_PHASE_DRAIN,     FLIP_PHASE_FENCE,   FLIP_PHASE_CATCHUP, FLIP_PHASE_READY, FLIP_PHASE_COMMIT,
        FLIP_PHASE_OPEN,      FLIP_PHASE_TURN,    FLIP_PHASE_RELEASE, FLIP_PHASE_WATCH};
    walk(FLIP_KIND_CUTOVER, true, expected, ARRAY_LENGTH(expected));
}

/* It asks nothing of the source, and can be taken back until its commit; then it only goes forward. */
static void test_takeover(void **state)
{
    (void)state;
    const enum flip_phase expected[] = {FLIP_PHASE_HOLD,   FLIP_PHASE_CATCHUP, FLIP_PHASE_READY,
                                        FLIP_PHASE_COMMIT, FLIP_PHASE_OPEN,    FLIP_PHASE_RELEASE};
    walk(FLIP_KIND_TAKEOVER, true, expected, ARRAY_LENGTH(expected));
    for (size_t i = 0; i < ARRAY_LENGTH(expected); i++) {
        const struct flip_row *row = flip_table_row(expected[i]);
        const enum flip_undo undo = flip_table_undo(FLIP_KIND_TAKEOVER, row);
        assert_int_equal(undo == FLIP_UNDO_FORWARD, row->past_commit);
        for (size_t a = 0; a < FLIP_ROW_ACTIONS; a++) {
            const enum flip_action_kind action = flip_table_actions(FLIP_KIND_TAKEOVER, row)[a];
            assert_true(action != FLIP_ACTION_FENCE && action != FLIP_ACTION_TURN);
        }
    }
    enum flip_kind kind = FLIP_KIND_CUTOVER;
    assert_true(flip_kind_parse(flip_kind_name(FLIP_KIND_TAKEOVER), &kind) && kind == FLIP_KIND_TAKEOVER);
}

static void test_flip_back_is_shorter(void **state)
{
    (void)state;
    const enum flip_phase expected[] = {FLIP_PHASE_PREFLIGHT, FLIP_PHASE_ARM,    FLIP_PHASE_HOLD,
                                        FLIP_PHASE_DRAIN,     FLIP_PHASE_FENCE,  FLIP_PHASE_CATCHUP,
                                        FLIP_PHASE_READY,     FLIP_PHASE_COMMIT, FLIP_PHASE_OPEN,
                                        FLIP_PHASE_RELEASE,   FLIP_PHASE_TURN};
    walk(FLIP_KIND_FLIP_BACK, true, expected, ARRAY_LENGTH(expected));
}

/* What a takeover does in a row: the same, or other actions. */
static void draw_takeover(struct strbuf *text, const struct flip_row *row)
{
    const bool differs = row->alone[0] != FLIP_ACTION_NONE;
    strbuf_puts(text, (row->kinds & FLIP_KIND_TAKEOVER) == 0 ? "" : differs ? "other:" : "too");
    for (size_t i = 0; i < FLIP_ROW_ACTIONS && row->alone[i] != FLIP_ACTION_NONE; i++) {
        strbuf_printf(text, "%s `%s`", i == 0 ? "" : ",", flip_action_name(row->alone[i]));
    }
}

static void draw(struct strbuf *text)
{
    strbuf_puts(text, "| phase | what happens | undo | on failure | flip-back | takeover |\n"
                      "|---|---|---|---|---|---|\n");
    for (enum flip_phase phase = flip_table_first(FLIP_KIND_CUTOVER); phase != FLIP_PHASE_NONE;
         phase = flip_table_next(FLIP_KIND_CUTOVER, false, phase)) {
        const struct flip_row *row = flip_table_row(phase);
        strbuf_printf(text, "| %s | %s | %s | %s | %s | ", flip_phase_name(phase), row->comment,
                      flip_undo_name(row->undo), flip_failure_name(row->on_failure),
                      (row->kinds & FLIP_KIND_FLIP_BACK) != 0 ? "too" : "");
        draw_takeover(text, row);
        strbuf_puts(text, " |\n");
    }
}

static void test_readme_shows_the_table(void **state)
{
    (void)state;
    static char readme[1 << 20];
    struct strbuf table;
    strbuf_init(&table, sizeof readme);
    draw(&table);
    FILE *file = fopen(SOURCE_DIR "/README.md", "r");
    assert_non_null(file);
    readme[fread(readme, 1, sizeof readme - 1, file)] = '\0';
    (void)fclose(file);
    if (strstr(readme, strbuf_text(&table)) == NULL) {
        (void)fprintf(stderr, "README.md must hold this table:\n%s", strbuf_text(&table));
        fail();
    }
    strbuf_deinit(&table);
}

static void test_record_round_trip(void **state)
{
    (void)state;
    char line[RECORD_LINE_SIZE];
    struct error error;
    const struct record row = {.seq = 7,
                               .time_us = 11,
                               .kind = RECORD_BEGIN,
                               .flip = 3,
                               .flip_kind = FLIP_KIND_FLIP_BACK,
                               .phase = FLIP_PHASE_FENCE,
                               .side = SIDE_GREEN,
                               .epoch = UINT64_MAX,
                               .automatic = true,
                               .lossless = true,
                               .of = 2,
                               .outcome = FLIP_OUTCOME_ABORTED,
                               .code = ERROR_DRAIN_TIMEOUT,
                               .elapsed_us = 1,
                               .stall_p50_us = 2,
                               .stall_p99_us = 3,
                               .stall_max_us = INT64_MAX,
                               .moved = 5,
                               .disconnected = 6,
                               .key = "release-1.2 \"quoted\\",
                               .text = "line\nbreak, {brace}, \x01 and \xc3\xa4"};
    struct record back = {.seq = 7, .time_us = 11};
    record_encode(&row, line);
    assert_null(strchr(line, '\n'));
    assert_true(record_decode(line, &back, &error));
    assert_int_equal(back.flip_kind, row.flip_kind);
    assert_string_equal(back.text, row.text);
    assert_string_equal(back.key, row.key);
    assert_true(back.seq == 7 && back.time_us == 11 && back.kind == row.kind && back.flip == 3 &&
                back.phase == row.phase && back.side == row.side && back.epoch == row.epoch &&
                back.automatic && back.lossless && back.of == 2 && back.outcome == row.outcome &&
                back.code == row.code && back.elapsed_us == 1 && back.stall_p50_us == 2 &&
                back.stall_p99_us == 3 && back.stall_max_us == INT64_MAX && back.moved == 5 &&
                back.disconnected == 6);
}

static void test_record_fits_its_line(void **state)
{
    (void)state;
    char line[RECORD_LINE_SIZE];
    struct error error;
    struct record row = {.kind = RECORD_END}, back = {0};
    memset(row.key, 1, sizeof row.key - 1);
    memset(row.text, 1, sizeof row.text - 1);
    record_encode(&row, line);
    assert_true(record_decode(line, &back, &error));
    assert_memory_equal(row.text, back.text, sizeof row.text);
}

static void test_bad_records(void **state)
{
    (void)state;
    const char *const bad[] = {"",
                               "{}",
                               "{\"flip\":1}",
                               "{\"kind\":\"nonsense\"}",
                               "{\"kind\":\"end\"",
                               "{\"kind\":\"end\"}x",
                               "{\"kind\":\"end\",\"epoch\":-1}",
                               "{\"kind\":\"end\",\"epoch\":99999999999999999999}",
                               "{\"kind\":\"end\",\"side\":\"red\"}",
                               "{\"kind\":\"end\",\"text\":\"\\u1234\"}",
                               "{\"kind\":\"end\",\"text\":\"unended}"};
    struct record row = {0};
    struct error error;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        error_clear(&error);
        assert_false(record_decode(bad[i], &row, &error));
        assert_true(error.message[0] != '\0');
    }
    assert_true(record_decode("{\"kind\":\"end\",\"later\":5,\"more\":\"x\"}", &row, &error));
}

static void test_holds(void **state)
{
    (void)state;
    struct hold_ledger ledger = {0};
    assert_false(hold_gate(&ledger).closed);
    hold_take(&ledger, HOLD_OPERATOR, 0, 100, false, "by hand");
    hold_take(&ledger, HOLD_FLIP, 0, 50, false, "flip 1");
    assert_int_equal(hold_gate(&ledger).deadline_us, 100);
    assert_int_equal(hold_next_us(&ledger), 50);
    hold_take(&ledger, HOLD_FLIP, 0, 50, true, "flip 1"); /* behind the fence its deadline counts */
    assert_true(hold_gate(&ledger).refuse);
    assert_int_equal(hold_gate(&ledger).deadline_us, 50);
    assert_true(hold_drop(&ledger, HOLD_FLIP));
    assert_false(hold_drop(&ledger, HOLD_FLIP));
    assert_true(hold_gate(&ledger).closed); /* neither lets go of the other's */
    assert_false(hold_expire(&ledger, 99));
    assert_true(hold_expire(&ledger, 100));
    assert_false(hold_gate(&ledger).closed);
    assert_true(hold_next_us(&ledger) == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_phase_has_a_way_out),
        cmocka_unit_test(test_flip_back_is_reachable),
        cmocka_unit_test(test_flip_back_is_shorter),
        cmocka_unit_test(test_lossless_turns_first),
        cmocka_unit_test(test_takeover),
        cmocka_unit_test(test_readme_shows_the_table),
        cmocka_unit_test(test_record_round_trip),
        cmocka_unit_test(test_record_fits_its_line),
        cmocka_unit_test(test_bad_records),
        cmocka_unit_test(test_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
