/* replication/task: operations on a thread of their own. */
#include "replication/child.h"
#include "replication/task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct work {
    uv_loop_t loop;
    struct task_list list;
    int delivered, drained, progressed;
    bool ok;
    struct error error;
    char steps[256];
};

static void deliver(void *context, const struct replication_result *result)
{
    struct work *work = context;
    work->delivered++;
    work->ok = result->ok;
    work->error = result->error;
}

static void on_progress(void *context, const struct replication_progress *progress)
{
    struct work *work = context;
    size_t length = strlen(work->steps);
    work->progressed++;
    (void)snprintf(work->steps + length, sizeof work->steps - length, "%s=%s ", progress->step,
                   progress->message);
}

static void on_drained(void *context)
{
    struct work *work = context;
    work->drained++;
}

static void start(struct work *work, bool (*body)(struct task *, void *, struct error *))
{
    *work = (struct work){.ok = false};
    assert_int_equal(uv_loop_init(&work->loop), 0);
    const struct task_spec spec = {.name = "test",
                                   .body = body,
                                   .deliver = deliver,
                                   .progressed = on_progress,
                                   .progress_context = work};
    task_start(&work->list, &work->loop, &spec, work);
    assert_int_equal(work->delivered, 0); /* never from inside the call */
}

static void finish(struct work *work)
{
    assert_int_equal(uv_run(&work->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(work->delivered, 1);
    assert_null(work->list.first);
    assert_int_equal(uv_loop_close(&work->loop), 0);
}

static bool say(struct task *task, void *context, struct error *error)
{
    (void)context;
    (void)error;
    static const char *const lines[][2] = {
        {"one", "a"}, {"one", "b"}, {"two", "c"}, {"two", "d"}, {"one", "e"}};
    for (size_t i = 0; i < ARRAY_LENGTH(lines); i++) {
        struct replication_progress progress = {.fraction = 0};
        (void)snprintf(progress.step, sizeof progress.step, "%s", lines[i][0]);
        (void)snprintf(progress.message, sizeof progress.message, "%s", lines[i][1]);
        task_progress(task, &progress);
    }
    return true;
}

static void progress_keeps_each_steps_last_word(void **state)
{
    (void)state;
    struct work work;
    start(&work, say);
    finish(&work);
    assert_true(work.ok);
    const char *b = strstr(work.steps, "one=b ");
    assert_non_null(b);
    const char *d = strstr(b, "two=d ");
    assert_non_null(d);
    assert_non_null(strstr(d, "one=e "));
}

static bool refuse(struct task *task, void *context, struct error *error)
{
    (void)task;
    (void)context;
    return error_set(error, ERROR_SQL, "no");
}

static void failure_reaches_the_loop(void **state)
{
    (void)state;
    struct work work;
    start(&work, refuse);
    finish(&work);
    assert_false(work.ok);
    assert_int_equal(work.error.code, ERROR_SQL);
}

static bool sleep_long(struct task *task, void *context, struct error *error)
{
    (void)context;
    return task_sleep(task, 3600 * 1000000LL, error);
}

static bool run_sleep(struct task *task, void *context, struct error *error)
{
    (void)context;
    char path[] = "/bin/sleep";
    char time[] = "3600";
    char *const arguments[] = {path, time, NULL};
    char *const environment[] = {NULL};
    return child_run(
        task,
        &(struct child_plan){
            .arguments = arguments, .environment = environment, .input = -1, .output = -1, .extra = -1},
        error);
}

static void stop(struct work *work)
{
    task_list_stop(&work->list, on_drained, work);
    assert_int_equal(work->drained, 0);
    finish(work);
    assert_int_equal(work->drained, 1);
    assert_false(work->ok);
    assert_int_equal(work->error.code, ERROR_ABORTED);
}

static void stop_ends_sleep_and_children(void **state)
{
    (void)state;
    struct work work;
    start(&work, sleep_long);
    stop(&work);
    start(&work, run_sleep);
    stop(&work);
    task_list_stop(&work.list, on_drained, &work); /* none left: drained at once */
    assert_int_equal(work.drained, 2);
}

static bool run_shell(struct task *task, void *context, struct error *error)
{
    struct work *work = context;
    char path[] = "/bin/sh";
    char option[] = "-c";
    char script[] = "cat; echo \"$GREETING\"; echo complaint >&2; exit 3";
    char greeting[] = "GREETING=hello";
    char *const arguments[] = {path, option, script, NULL};
    char *const environment[] = {greeting, NULL};
    struct strbuf output;
    strbuf_init(&output, 100);
    bool ok = child_run(task,
                        &(struct child_plan){.arguments = arguments,
                                             .environment = environment,
                                             .input = -1,
                                             .output = -1,
                                             .extra = -1,
                                             .captured = &output},
                        error);
    (void)snprintf(work->steps, sizeof work->steps, "%s", strbuf_text(&output));
    strbuf_deinit(&output);
    return ok;
}

static void child_fails_with_what_it_said(void **state)
{
    (void)state;
    struct work work;
    start(&work, run_shell);
    finish(&work);
    assert_string_equal(work.steps, "hello\n");
    assert_int_equal(work.error.code, ERROR_COMMAND_FAILED);
    assert_non_null(strstr(work.error.message, "status 3"));
    assert_non_null(strstr(work.error.message, "complaint"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_keeps_each_steps_last_word),
        cmocka_unit_test(failure_reaches_the_loop),
        cmocka_unit_test(stop_ends_sleep_and_children),
        cmocka_unit_test(child_fails_with_what_it_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
