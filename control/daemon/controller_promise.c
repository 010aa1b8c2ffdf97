/*
 * The lossless watch and the dead side, as the runner must hear of them: whether the active side is dead, and
 * whether the stream of the promise is healthy.
 */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    TELL_EVERY_US = 1 * CONTROLLER_SECOND_US, /* what stays as it is */
    STREAM_LAG_US = 1 * CONTROLLER_SECOND_US, /* a marker that takes longer: commits wait as long */
    PULSE_US = CONTROLLER_PULSE_MS * CONTROLLER_MS_US
};

/* --- the active side is dead --- */

/* When the active side last answered a client. */
static void note_answers(struct controller_promise *promise, enum side active,
                         const struct proxy_stats *stats)
{
    if (promise->side != active || promise->answers != stats->sides[active].statements) {
        promise->side = active;
        promise->answers = stats->sides[active].statements;
        promise->answered_us = clock_mono_us();
    }
}

/* Two views must agree: a side that still serves clients isn't dead, however few connections are left for
 * us. */
bool controller_is_active_dead(const struct controller *controller)
{
    const struct controller_promise *promise = &controller->promise;
    const int64_t dead_after_us = controller->settings->dead_after_us;
    struct replication_sample sample;
    replication_sample(controller->replication, &sample);
    const struct replication_side_sample *side = &sample.sides[promise->side];
    return promise->answered_us != 0 && sample.taken_us != 0 && !side->reachable &&
           side->unreachable_us >= dead_after_us &&
           clock_mono_us() - promise->answered_us >= dead_after_us - PULSE_US;
}

static void tell_dead(struct controller *controller, const struct replication_side_sample *side)
{
    struct controller_promise *promise = &controller->promise;
    const int64_t now_us = clock_mono_us();
    if (!controller_is_active_dead(controller)) {
        promise->told_dead_us = 0;
        return;
    }
    if (promise->told_dead_us != 0 && now_us - promise->told_dead_us < TELL_EVERY_US) {
        return;
    }
    promise->told_dead_us = now_us;
    struct flip_event event = {.kind = FLIP_EVENT_SIDE_DEAD, .side = promise->side};
    char silence[CLOCK_TEXT_SIZE];
    clock_format_duration(side->unreachable_us, silence);
    error_set(&event.error, ERROR_SIDE_DEAD, "%s, the active side, has not answered for %s: %s",
              side_name(promise->side), silence, side->problem);
    controller_feed(controller, &event);
}

/* --- the stream under the promise --- */

static bool is_healthy(const struct replication_sample *sample, enum side standby, struct error *why)
{
    if (!sample->sides[standby].reachable) {
        return error_set(why, ERROR_UNREACHABLE, "%s can't be reached: %s", side_name(standby),
                         sample->sides[standby].problem);
    }
    if (sample->problem[0] != '\0' || !sample->streaming || sample->broken) {
        return error_set(why, ERROR_WAY_BACK_CLOSED, "%s",
                         sample->problem[0] != '\0' ? sample->problem : "the stream does not run");
    }
    if (sample->lag_us < 0 || sample->lag_us > STREAM_LAG_US) {
        return error_set(why, ERROR_NOT_IN_SYNC, "%s is behind: no marker passed for %" PRId64 " ms",
                         side_name(standby), sample->lag_us < 0 ? 0 : sample->lag_us / CONTROLLER_MS_US);
    }
    return true;
}

static void tell_stream(struct controller *controller, const struct replication_sample *sample)
{
    struct controller_promise *promise = &controller->promise;
    const struct flip *flip = &controller->flip;
    const enum side active = flip->history.active;
    const int64_t now_us = clock_mono_us();
    const bool matters = flip->history.known && (flip->history.promise || flip->watch.on) &&
                         (flip->options.lossless || flip->history.promise);
    struct flip_event event = {.kind = FLIP_EVENT_STREAM, .side = active};
    if (!matters || sample->taken_us == 0 || !sample->sides[active].reachable) {
        promise->told_stream_us = 0;
        return;
    }
    event.open = is_healthy(sample, side_other(active), &event.error);
    if (promise->told_stream_us != 0 && promise->stream_open == event.open &&
        now_us - promise->told_stream_us < TELL_EVERY_US) {
        return;
    }
    promise->told_stream_us = now_us;
    promise->stream_open = event.open;
    controller_feed(controller, &event);
}

/* --- the pulse --- */

void controller_promise_pulse(struct controller *controller)
{
    struct replication_sample sample;
    struct proxy_stats stats;
    if (controller->stopping || controller->proxy == NULL || controller->replication == NULL) {
        return;
    }
    replication_sample(controller->replication, &sample);
    proxy_stats(controller->proxy, &stats);
    if (controller->flip.history.known) {
        note_answers(&controller->promise, controller->flip.history.active, &stats);
        tell_dead(controller, &sample.sides[controller->flip.history.active]);
        tell_stream(controller, &sample);
    }
}
