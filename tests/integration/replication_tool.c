/*
 * Calls one operation of replication.h without a daemon, for the integration tests:
 *
 *   replication_tool CONFIG prepare|check|finalize|finalize-everything|stop-prepare ACTIVE
 *
 * Progress goes to standard output, a line each; so does the result: check items as
 * "id<TAB>state<TAB>message<TAB>object|object...", then "ok" or "error<TAB>code<TAB>message<TAB>remedy".
 */
#include "conf/base/ensure.h"
#include "conf/settings/settings.h"
#include "replication/replication.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tool {
    uv_loop_t loop;
    uv_timer_t timer;
    struct settings *settings;
    const char *operation;
    enum side active;
    struct replication *replication;
    bool stop_early;
    int status;
};

static void on_stopped(void *context)
{
    (void)context;
}

static void finish(struct tool *tool, const struct replication_result *result)
{
    if (result->ok) {
        puts("ok");
    } else {
        printf("error\t%s\t%s\t%s\n", error_code_text(result->error.code), result->error.message,
               result->error.remedy);
    }
    (void)fflush(stdout);
    tool->status = result->ok ? 0 : 1;
    if (!tool->stop_early) {
        replication_stop(tool->replication, on_stopped, tool);
    }
}

static void on_done(void *context, const struct replication_result *result)
{
    finish(context, result);
}

static void on_progress(void *context, const struct replication_progress *progress)
{
    (void)context;
    printf("progress\t%s\t%s\t%.3f\t%lld\n", progress->step, progress->message, progress->fraction,
           (long long)progress->eta_us);
    (void)fflush(stdout);
}

static void on_checked(void *context, const struct replication_result *result, const struct check_item *items,
                       size_t count)
{
    static const char *const states[] = {"pass", "warn", "fail"};
    for (size_t i = 0; i < count; i++) {
        printf("%s\t%s\t%s\t", items[i].id, states[items[i].state], items[i].message);
        for (size_t k = 0; k < items[i].objects.count; k++) {
            printf("%s%s", k == 0 ? "" : "|", items[i].objects.items[k]);
        }
        puts("");
    }
    finish(context, result);
}

static void on_timer(uv_timer_t *timer)
{
    struct tool *tool = timer->data;
    uv_close((uv_handle_t *)timer, NULL);
    replication_stop(tool->replication, on_stopped, tool);
}

static void ignore(void *context)
{
    (void)context;
}

/* Ownership was taken, as the daemon does at its start. */
static void on_owned(void *context, const struct replication_result *result)
{
    struct tool *tool = context;
    const char *operation = tool->operation;
    enum side active = tool->active;
    if (!result->ok) {
        finish(tool, result);
        return;
    }
    if (strcmp(operation, "prepare") == 0) {
        replication_prepare(tool->replication, active, on_progress, on_done, tool);
    } else if (strcmp(operation, "stop-prepare") == 0) {
        tool->stop_early = true;
        replication_prepare(tool->replication, active, on_progress, on_done, tool);
        tool->timer.data = tool;
        (void)uv_timer_init(&tool->loop, &tool->timer);
        (void)uv_timer_start(&tool->timer, on_timer, 300, 0);
    } else if (strcmp(operation, "check") == 0) {
        replication_check(tool->replication, active, on_checked, tool);
    } else {
        bool everything = strcmp(operation, "finalize-everything") == 0;
        replication_finalize(tool->replication, active, everything, on_done, tool);
    }
}

static bool is_operation(const char *name)
{
    static const char *const names[] = {"prepare", "stop-prepare", "check", "finalize",
                                        "finalize-everything"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

int main(int count, char **arguments)
{
    struct tool tool = {.status = 1};
    struct error error;
    if (count != 4 || !is_operation(arguments[2]) || !side_parse(arguments[3], &tool.active)) {
        fputs("usage: replication_tool CONFIG OPERATION ACTIVE\n", stderr);
        return 2;
    }
    tool.operation = arguments[2];
    tool.settings = settings_load(arguments[1], &error);
    if (tool.settings == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    static const struct replication_callbacks callbacks = {.changed = ignore, .deposed = ignore};
    ENSURE(uv_loop_init(&tool.loop) == 0);
    tool.replication = replication_new(&tool.loop, tool.settings, &callbacks, &error);
    if (tool.replication == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    replication_own(tool.replication, on_owned, &tool);
    (void)uv_run(&tool.loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&tool.loop);
    settings_free(tool.settings);
    return tool.status;
}
