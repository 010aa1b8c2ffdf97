/* control/daemon: the store, the journal on it, and what survives a crash. */
#include "control/daemon/journal.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    char directory[64];
    uv_loop_t loop;
    struct store *store;
    struct journal *journal;
    uint64_t answered[256]; /* in the order of the answers */
    size_t count, failed;
};

static void open_journal(struct world *world)
{
    struct error error;
    world->store = store_open(&world->loop, world->directory, &error);
    if (world->store == NULL) {
        fail_msg("%s", error.message);
    }
    world->journal = journal_new(world->store, &error);
    assert_non_null(world->journal);
}

static void close_journal(struct world *world)
{
    journal_free(world->journal);
    store_close(world->store, NULL, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    world->journal = NULL;
    world->store = NULL;
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    strcpy(world->directory, "/tmp/switchback-journal-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    assert_int_equal(uv_loop_init(&world->loop), 0);
    *state = world;
    return 0;
}

static void remove_directory(const char *directory)
{
    static const char *const names[] = {"switchback.db", "switchback.db-wal", "switchback.db-shm", "lock"};
    char path[128];
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
}

static int tear_down(void **state)
{
    struct world *world = *state;
    assert_int_equal(uv_loop_close(&world->loop), 0);
    remove_directory(world->directory);
    free(world);
    return 0;
}

struct expected {
    struct world *world;
    uint64_t seq;
};

static void note(void *context, const struct error *error)
{
    struct expected *expected = context;
    struct world *world = expected->world;
    world->failed += error != NULL;
    assert_true(world->count < ARRAY_LENGTH(world->answered));
    world->answered[world->count++] = expected->seq;
    free(expected);
}

static uint64_t append(struct world *world, uint64_t flip, const char *kind, const char *data)
{
    struct expected *expected = calloc(1, sizeof(*expected));
    expected->world = world;
    expected->seq = journal_append(world->journal, flip, kind, "fence", data, note, expected);
    return expected->seq;
}

static void run_until(struct world *world, size_t count)
{
    while (world->count < count) {
        uv_run(&world->loop, UV_RUN_ONCE);
    }
}

static bool collect(void *context, const struct journal_row *row)
{
    struct world *world = context;
    assert_string_equal(row->phase, "fence");
    world->answered[world->count++] = row->seq;
    return true;
}

static void rows_become_durable_in_their_order(void **state)
{
    struct world *world = *state;
    open_journal(world);
    for (int i = 0; i < 100; i++) {
        append(world, 7, "intent", "{\"n\":1}");
    }
    assert_int_equal(world->count, 0); /* never from inside the call */
    run_until(world, 100);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(world->answered[i], i + 1);
    }
    assert_int_equal(world->failed, 0);
    close_journal(world);

    world->count = 0;
    open_journal(world);
    struct error error;
    assert_true(journal_each(world->journal, collect, world, &error));
    assert_int_equal(world->count, 100);
    assert_int_equal(world->answered[99], 100);
    assert_int_equal(append(world, 8, "intent", ""), 101);
    close_journal(world);
}

static void closing_writes_what_is_queued(void **state)
{
    struct world *world = *state;
    open_journal(world);
    for (int i = 0; i < 20; i++) {
        append(world, 1, "intent", "");
    }
    close_journal(world);
    assert_int_equal(world->count, 20);
    assert_int_equal(world->failed, 0);
}

/* A child appends, says after each answer that the row is durable, and is killed in the midst of it. */
static void what_was_answered_survives_a_kill(void **state)
{
    struct world *world = *state;
    int told[2];
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        struct error error;
        uv_loop_t loop;
        ENSURE(uv_loop_init(&loop) == 0);
        struct world own = {.loop = loop};
        memcpy(own.directory, world->directory, sizeof(own.directory));
        own.store = store_open(&loop, own.directory, &error);
        own.journal = journal_new(own.store, &error);
        for (uint64_t n = 1;; n++) {
            struct expected *expected = calloc(1, sizeof(*expected));
            expected->world = &own;
            expected->seq = n;
            own.count = 0;
            journal_append(own.journal, 1, "intent", "fence", "", note, expected);
            while (own.count == 0) {
                uv_run(&loop, UV_RUN_ONCE);
            }
            ENSURE(write(told[1], &n, sizeof(n)) == sizeof(n));
        }
    }
    close(told[1]);
    uint64_t last = 0, n;
    while (last < 50 && read(told[0], &n, sizeof(n)) == sizeof(n)) {
        last = n;
    }
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    while (read(told[0], &n, sizeof(n)) == sizeof(n)) {
        last = n;
    }
    close(told[0]);
    assert_true(last >= 50);

    open_journal(world);
    struct error error;
    assert_true(journal_each(world->journal, collect, world, &error));
    assert_true(world->count >= last && world->count <= last + 1);
    close_journal(world);
}

static void a_second_daemon_is_told_who_has_the_lock(void **state)
{
    struct world *world = *state;
    open_journal(world);
    struct error error;
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_null(store_open(&loop, world->directory, &error));
    char pid[32];
    (void)snprintf(pid, sizeof(pid), "(pid %ld)", (long)getpid());
    assert_non_null(strstr(error.message, pid));
    assert_int_equal(uv_loop_close(&loop), 0);
    close_journal(world);
}

static mode_t mode_of(const struct world *world, const char *name)
{
    char path[128];
    struct stat status;
    (void)snprintf(path, sizeof(path), "%s/%s", world->directory, name);
    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & 0777;
}

static void files_are_the_owners_alone(void **state)
{
    struct world *world = *state;
    mode_t before = umask(0);
    rmdir(world->directory);
    open_journal(world);
    append(world, 1, "intent", "");
    run_until(world, 1);
    assert_int_equal(mode_of(world, "."), 0700);
    assert_int_equal(mode_of(world, "switchback.db"), 0600);
    assert_int_equal(mode_of(world, "switchback.db-wal"), 0600);
    assert_int_equal(mode_of(world, "lock"), 0600);
    close_journal(world);
    umask(before);
}

static void overwrite(const struct world *world, off_t from, const char *bytes, size_t length)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/switchback.db", world->directory);
    int descriptor = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(descriptor >= 0);
    assert_int_equal(pwrite(descriptor, bytes, length, from), (ssize_t)length);
    close(descriptor);
}

static void a_damaged_database_is_said_to_be_damaged(void **state)
{
    struct world *world = *state;
    struct error error;
    char garbage[8192];
    memset(garbage, 'x', sizeof(garbage));
    overwrite(world, 0, garbage, sizeof(garbage));
    assert_null(store_open(&world->loop, world->directory, &error));
    assert_non_null(strstr(error.message, "switchback.db"));
    assert_non_null(strstr(error.remedy, "damaged"));

    remove_directory(world->directory);
    open_journal(world);
    for (int i = 0; i < 60; i++) {
        append(world, 1, "intent", "{\"filling\":\"................................................\"}");
    }
    close_journal(world);
    overwrite(world, 4096 + 16, garbage, 4096);
    assert_null(store_open(&world->loop, world->directory, &error));
    assert_true(strstr(error.message, "damaged") != NULL || strstr(error.remedy, "damaged") != NULL);
}

static void another_version_is_refused(void **state)
{
    struct world *world = *state;
    struct error error;
    open_journal(world);
    close_journal(world);
    overwrite(world, 60, "\0\0\0\x63", 4); /* user_version of the file header */
    assert_null(store_open(&world->loop, world->directory, &error));
    assert_non_null(strstr(error.message, "has version 99"));
}

/* After a reservation a flip's rows need no byte of new space: the files may not grow any more. */
static void reserved_rows_fit_on_a_full_disk(void **state)
{
    struct world *world = *state;
    signal(SIGXFSZ, SIG_IGN);
    open_journal(world);
    struct expected *expected = calloc(1, sizeof(*expected));
    expected->world = world;
    journal_reserve(world->journal, note, expected);
    run_until(world, 1);
    assert_int_equal(world->failed, 0);

    char path[128];
    struct stat log, database;
    (void)snprintf(path, sizeof(path), "%s/switchback.db-wal", world->directory);
    assert_int_equal(stat(path, &log), 0);
    (void)snprintf(path, sizeof(path), "%s/switchback.db", world->directory);
    assert_int_equal(stat(path, &database), 0);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit full = {.rlim_cur =
                              (rlim_t)(log.st_size > database.st_size ? log.st_size : database.st_size),
                          .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    for (size_t i = 0; i < 60; i++) { /* one at a time, as a flip does */
        append(world, 1, "intent",
               "{\"text\":\"................................................................\"}");
        run_until(world, i + 2);
    }
    assert_int_equal(world->failed, 0);
    /* And when space has really run out, the row's answer says so. */
    char *large = calloc(1, 3 * 1024 * 1024);
    memset(large, 'x', 3 * 1024 * 1024 - 1);
    append(world, 1, "intent", large);
    run_until(world, 62);
    assert_int_equal(world->failed, 1);
    free(large);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    journal_idle(world->journal);
    append(world, 1, "intent", "");
    run_until(world, 63);
    assert_int_equal(world->failed, 1);
    close_journal(world);
}

static void keep_report(void *context, json_t *rows, const struct error *error)
{
    struct world *world = context;
    assert_null(error);
    assert_int_equal(json_array_size(rows), 3);
    const json_t *row = json_array_get(rows, 2);
    assert_int_equal(json_integer_value(json_object_get(row, "flip")), 3);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(row, "data"), "ms")), 12);
    world->count = 1000;
}

static void a_report_has_the_last_flips(void **state)
{
    struct world *world = *state;
    open_journal(world);
    append(world, 1, "intent", "");
    append(world, 2, "intent", "");
    append(world, 2, "result", "");
    append(world, 3, "result", "{\"ms\":12}");
    run_until(world, 4);
    journal_report(world->journal, 2, keep_report, world);
    run_until(world, 1000);
    close_journal(world);
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_become_durable_in_their_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(closing_writes_what_is_queued, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_answered_survives_a_kill, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_daemon_is_told_who_has_the_lock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_are_the_owners_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_database_is_said_to_be_damaged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_version_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reserved_rows_fit_on_a_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_report_has_the_last_flips, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
