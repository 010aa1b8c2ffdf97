/* control/daemon: running hooks, backups and gate commands. */
#include "control/daemon/command.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct outcome {
    struct command_result result;
    char output[COMMAND_OUTPUT_LIMIT * 4 + 64];
    int answers;
};

static struct outcome outcome;

static void keep(void *context, const struct command_result *result)
{
    (void)context;
    outcome.result = *result;
    (void)snprintf(outcome.output, sizeof(outcome.output), "%s", result->output);
    outcome.answers++;
}

static struct command *start(uv_loop_t *loop, const char *script, int64_t timeout_us)
{
    static const struct command_environment environment = {
        .flip = 12, .from = "blue", .to = "green", .phase = "backup"};
    char shell[] = "/bin/sh", flag[] = "-c";
    char *items[] = {shell, flag, (char *)(uintptr_t)script};
    struct settings_list argv = {.items = items, .count = 3};
    outcome = (struct outcome){0};
    return command_run(loop, &argv, timeout_us, &environment, keep, NULL);
}

static void run(const char *script, int64_t timeout_us)
{
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_non_null(start(&loop, script, timeout_us));
    assert_int_equal(outcome.answers, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(outcome.answers, 1);
}

static void both_outputs_are_kept_in_order(void **state)
{
    (void)state;
    run("echo one; echo two >&2; echo three", 5000000);
    assert_true(outcome.result.ok);
    assert_string_equal(outcome.output, "one\ntwo\nthree\n");
    assert_string_equal(outcome.result.words, "exited with 0");
}

static void it_is_told_about_the_flip_and_nothing_else(void **state)
{
    (void)state;
    setenv("PGPASSWORD", "secret", 1);
    run("echo $SWITCHBACK_FLIP $SWITCHBACK_FROM $SWITCHBACK_TO $SWITCHBACK_PHASE; "
        "env | grep -c -e PGPASSWORD -e SWITCHBACK_EVENT; test -n \"$PATH\"",
        5000000);
    assert_true(outcome.result.ok);
    assert_string_equal(outcome.output, "12 blue green backup\n0\n");
}

static void an_exit_status_is_a_failure_in_words(void **state)
{
    (void)state;
    run("echo no space >&2; exit 3", 5000000);
    assert_false(outcome.result.ok);
    assert_true(outcome.result.started);
    assert_int_equal(outcome.result.exit_status, 3);
    assert_string_equal(outcome.result.words, "exited with 3");
    assert_string_equal(outcome.output, "no space\n");
    run("kill -SEGV $$", 5000000);
    assert_int_equal(outcome.result.signal, SIGSEGV);
    assert_int_equal(outcome.result.exit_status, -1);
    assert_non_null(strstr(outcome.result.words, "signal 11"));
}

static void what_cannot_start_is_a_result_too(void **state)
{
    (void)state;
    uv_loop_t loop;
    char missing[] = "/nonexistent/hook";
    char *items[] = {missing};
    struct settings_list argv = {.items = items, .count = 1};
    struct command_environment environment = {0};
    assert_int_equal(uv_loop_init(&loop), 0);
    outcome = (struct outcome){0};
    assert_non_null(command_run(&loop, &argv, 1000000, &environment, keep, NULL));
    assert_int_equal(outcome.answers, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(outcome.answers, 1);
    assert_false(outcome.result.started);
    assert_non_null(strstr(outcome.result.words, "/nonexistent/hook could not be started: no such file"));
}

static bool is_alive(long pid)
{
    char path[64], line[256] = "";
    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    bool read = fgets(line, sizeof(line), file) != NULL;
    fclose(file);
    const char *after_name = read ? strrchr(line, ')') : NULL;
    return after_name != NULL && after_name[2] != 'Z' && after_name[2] != 'X';
}

static bool dies_soon(long pid)
{
    for (int i = 0; i < 6000 && is_alive(pid); i++) {
        usleep(10000);
    }
    return !is_alive(pid);
}

static void a_time_limit_ends_grandchildren_that_ignore_it(void **state)
{
    (void)state;
    int64_t start_us = clock_mono_us();
    run("trap '' TERM; (trap '' TERM; sleep 60) & echo $!; sleep 60; sleep 60", 200000);
    int64_t took_us = clock_mono_us() - start_us;
    assert_false(outcome.result.ok);
    assert_true(outcome.result.timed_out);
    assert_string_equal(outcome.result.words, "did not end within 200 ms and was stopped");
    assert_true(took_us >= 1100000); /* TERM at the limit, and time to heed it before KILL */
    assert_true(dies_soon(strtol(outcome.output, NULL, 10)));
}

static void a_polite_command_ends_by_itself(void **state)
{
    (void)state;
    /* On a busy machine it may not have come to its trap, or not get its say in time. */
    for (int64_t limit_us = 200000; limit_us < 10000000; limit_us *= 3) {
        run("trap 'echo cleaning up; exit 0' TERM; sleep 60 & wait", limit_us);
        assert_false(outcome.result.ok); /* too late all the same */
        assert_true(outcome.result.timed_out);
        if (outcome.output[0] != '\0') {
            break;
        }
    }
    assert_string_equal(outcome.output, "cleaning up\n");
}

static void what_it_leaves_behind_is_not_waited_for(void **state)
{
    (void)state;
    run("sleep 30 & echo $!", 5000000);
    assert_true(outcome.result.ok);
    long left_behind = strtol(outcome.output, NULL, 10);
    assert_true(is_alive(left_behind));
    kill((pid_t)left_behind, SIGKILL);
}

static void output_is_bounded_and_escaped(void **state)
{
    (void)state;
    run("i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i + 1)); done", 20000000);
    assert_true(outcome.result.ok);
    assert_true(strncmp(outcome.output, "[...]", 5) == 0);
    assert_non_null(strstr(outcome.output, "line 2999\n"));
    assert_true(strlen(outcome.output) <= COMMAND_OUTPUT_LIMIT + 5);
    run("printf 'a\\033[31mb\\000c\\177'", 5000000);
    assert_string_equal(outcome.output, "a\\x1b[31mb\\x00c\\x7f");
}

static void kill_soon(uv_timer_t *timer)
{
    command_kill(timer->data);
    uv_close((uv_handle_t *)timer, NULL);
}

static void it_can_be_killed(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_timer_t timer;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_timer_init(&loop, &timer), 0);
    timer.data = start(&loop, "sleep 60; echo no", 60000000);
    uv_timer_start(&timer, kill_soon, 50, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(outcome.answers, 1);
    assert_int_equal(outcome.result.signal, SIGKILL);
    assert_string_equal(outcome.output, "");
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_outputs_are_kept_in_order),
        cmocka_unit_test(it_is_told_about_the_flip_and_nothing_else),
        cmocka_unit_test(an_exit_status_is_a_failure_in_words),
        cmocka_unit_test(what_cannot_start_is_a_result_too),
        cmocka_unit_test(a_time_limit_ends_grandchildren_that_ignore_it),
        cmocka_unit_test(a_polite_command_ends_by_itself),
        cmocka_unit_test(what_it_leaves_behind_is_not_waited_for),
        cmocka_unit_test(output_is_bounded_and_escaped),
        cmocka_unit_test(it_can_be_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
