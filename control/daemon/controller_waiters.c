/* Calls that wait for a flip: progress on the way, its result at the end. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <stdlib.h>

void controller_wait(struct controller *controller, struct rpc_call *call, uint64_t flip, bool watch)
{
    struct flip_waiter *waiter = malloc(sizeof *waiter);
    ENSURE(waiter != NULL);
    *waiter = (struct flip_waiter){.call = call, .flip = flip, .watch = watch, .next = controller->waiters};
    controller->waiters = waiter;
}

static json_t *progress_json(const struct controller *controller, const struct flip_waiter *waiter)
{
    const struct flip *flip = &controller->flip;
    struct replication_sample sample;
    struct proxy_stats stats;
    replication_sample(controller->replication, &sample);
    proxy_stats(controller->proxy, &stats);
    const int64_t now_us = clock_mono_us();
    json_t *progress = json_pack(
        "{s:I, s:s, s:f, s:o, s:I, s:I}", "flip", (json_int_t)waiter->flip, "phase", flip_phase_text(flip),
        "elapsed_ms", (double)(now_us - flip->began_us) / CONTROLLER_MS_US, "lag_seconds",
        sample.lag_us < 0 ? json_null() : json_real((double)sample.lag_us / CONTROLLER_SECOND_US), "held",
        (json_int_t)stats.sessions_held, "undrained", (json_int_t)controller->drain.undrained);
    if (flip->watch.on) {
        json_object_set_new(progress, "remaining_ms",
                            json_integer((json_int_t)((flip->watch.until_us - now_us) / CONTROLLER_MS_US)));
    }
    if (flip->why.code != ERROR_NONE && flip_running(flip)) {
        json_object_set_new(progress, "message", text_json(flip->why.message));
    }
    return progress;
}

enum { WATCH_PROGRESS_EVERY = 6 }; /* of the timer's rounds */

void controller_waiters_progress(struct controller *controller)
{
    if (controller->stopping || controller->waiters == NULL || controller->begins.id != 0) {
        return;
    }
    if (!flip_running(&controller->flip) && controller->progress_round++ % WATCH_PROGRESS_EVERY != 0) {
        return;
    }
    for (const struct flip_waiter *waiter = controller->waiters; waiter != NULL; waiter = waiter->next) {
        rpc_progress(waiter->call, progress_json(controller, waiter));
    }
}

void controller_waiters_answer(struct controller *controller, uint64_t flip, bool watchers,
                               enum flip_outcome outcome, const struct error *error)
{
    for (struct flip_waiter **link = &controller->waiters; *link != NULL;) {
        struct flip_waiter *waiter = *link;
        if (flip == 0 || waiter->flip != flip || (waiter->watch && !watchers)) {
            link = &waiter->next;
            continue;
        }
        const struct flip_story *story = controller_story(controller, flip);
        *link = waiter->next;
        if (story != NULL) {
            rpc_reply(waiter->call, controller_result(story, outcome, error));
        } else {
            rpc_fail(waiter->call, error);
        }
        free(waiter);
    }
}

void controller_waiters_fail(struct controller *controller, const struct error *error)
{
    while (controller->waiters != NULL) {
        struct flip_waiter *waiter = controller->waiters;
        controller->waiters = waiter->next;
        rpc_fail(waiter->call, error);
        free(waiter);
    }
}
