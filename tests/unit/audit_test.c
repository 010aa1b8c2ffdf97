/* control/daemon: the audit log and its chain of hashes. */
#include "control/daemon/audit.h"

#include "conf/base/log.h"
#include "control/daemon/methods.h"

#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    char directory[64];
    uv_loop_t loop;
    struct store *store;
    struct audit *audit;
    struct audit_verdict verdict;
    json_t *rows;
    bool answered;
};

static void open_audit(struct world *world)
{
    struct error error;
    world->store = store_open(&world->loop, world->directory, &error);
    assert_non_null(world->store);
    world->audit = audit_new(world->store, &error);
    assert_non_null(world->audit);
}

static void close_audit(struct world *world)
{
    audit_free(world->audit);
    store_close(world->store, NULL, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    strcpy(world->directory, "/tmp/switchback-audit-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    assert_int_equal(uv_loop_init(&world->loop), 0);
    open_audit(world);
    for (int i = 1; i <= 5; i++) {
        audit_append(world->audit, 1000, "alice", "cutover", json_pack("{s:i}", "n", i));
    }
    audit_decision(world->audit, "flip_back", NULL);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    static const char *const names[] = {"switchback.db", "switchback.db-wal", "switchback.db-shm", "lock"};
    close_audit(world);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%s", world->directory, names[i]);
        unlink(path);
    }
    rmdir(world->directory);
    json_decref(world->rows);
    free(world);
    return 0;
}

static void wait_for_answer(struct world *world)
{
    while (!world->answered) {
        uv_run(&world->loop, UV_RUN_ONCE);
    }
    world->answered = false;
}

static void keep_verdict(void *context, const struct audit_verdict *verdict, const struct error *error)
{
    struct world *world = context;
    assert_null(error);
    world->verdict = *verdict;
    world->answered = true;
}

static void keep_rows(void *context, json_t *rows, const struct error *error)
{
    struct world *world = context;
    assert_null(error);
    json_decref(world->rows);
    world->rows = json_incref(rows);
    world->answered = true;
}

static void verify(struct world *world)
{
    audit_verify(world->audit, keep_verdict, world);
    wait_for_answer(world);
}

/* What somebody with access to the file does behind our back. */
static void tamper(struct world *world, const char *sql)
{
    char path[128];
    sqlite3 *database;
    close_audit(world);
    (void)snprintf(path, sizeof(path), "%s/switchback.db", world->directory);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(database);
    open_audit(world);
}

static void rows_are_listed_oldest_first(void **state)
{
    struct world *world = *state;
    tamper(world, "select 1"); /* everything is written now */
    audit_list(world->audit, 0, 3, keep_rows, world);
    wait_for_answer(world);
    assert_int_equal(json_array_size(world->rows), 3);
    const json_t *row = json_array_get(world->rows, 0);
    assert_int_equal(json_integer_value(json_object_get(row, "seq")), 4);
    assert_string_equal(json_string_value(json_object_get(row, "actor")), "alice");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(row, "detail"), "n")), 4);
    row = json_array_get(world->rows, 2);
    assert_string_equal(json_string_value(json_object_get(row, "actor")), "switchback");
    assert_int_equal(json_integer_value(json_object_get(row, "uid")), AUDIT_NOBODY);

    audit_list(world->audit, 6, 100, keep_rows, world);
    wait_for_answer(world);
    assert_int_equal(json_array_size(world->rows), 0);
}

static void an_untouched_chain_is_intact(void **state)
{
    struct world *world = *state;
    tamper(world, "select 1");
    verify(world);
    assert_true(world->verdict.intact);
    assert_int_equal(world->verdict.rows, 6);
    assert_int_equal(strlen(world->verdict.last_hash), 64);
    audit_append(world->audit, 0, "root", "reload", NULL); /* goes on after a restart */
    tamper(world, "select 1");
    verify(world);
    assert_true(world->verdict.intact);
    assert_int_equal(world->verdict.rows, 7);
}

static void expect_broken(struct world *world, const char *sql, uint64_t seq, const char *reason)
{
    tamper(world, sql);
    verify(world);
    assert_false(world->verdict.intact);
    assert_int_equal(world->verdict.broken_seq, seq);
    assert_string_equal(world->verdict.reason, reason);
}

static void a_changed_row_is_found(void **state)
{
    expect_broken(*state, "update audit set actor = 'mallory' where seq = 3", 3, "row 3 was changed");
}

static void a_changed_time_is_found(void **state)
{
    expect_broken(*state, "update audit set time = time + 1 where seq = 1", 1, "row 1 was changed");
}

static void a_removed_row_is_found(void **state)
{
    expect_broken(*state, "delete from audit where seq = 2", 2, "row 2 is missing");
}

static void rows_moved_up_are_found(void **state)
{
    expect_broken(*state, "delete from audit where seq = 2; update audit set seq = seq - 1 where seq > 2", 2,
                  "row 2 doesn't continue the row before it");
}

static void text_moved_between_columns_is_found(void **state)
{
    expect_broken(*state, "update audit set actor = 'alic', action = 'ecutover' where seq = 4", 4,
                  "row 4 was changed");
}

static void denied_calls_are_listed_up_to_a_bound(void **state)
{
    struct world *world = *state;
    struct methods methods = {.audit = world->audit};
    struct rpc_peer peer = {.uid = 1004, .name = "mallory"};
    for (int i = 0; i < 1000; i++) {
        methods_audit_call(&methods, &peer, "cutover", NULL, false);
    }
    methods_audit_call(&methods, &peer, "cutover", NULL, true);
    tamper(world, "select 1");
    audit_list(world->audit, 0, 1000, keep_rows, world);
    wait_for_answer(world);
    assert_int_equal(json_array_size(world->rows), 6 + METHODS_DENIED_A_MINUTE + 1);
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_are_listed_oldest_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_untouched_chain_is_intact, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_row_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_time_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_removed_row_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rows_moved_up_are_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(denied_calls_are_listed_up_to_a_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(text_moved_between_columns_is_found, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
