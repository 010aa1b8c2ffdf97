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
    UNNAMED_US = 2 * CONTROLLER_SECOND_US,
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

/* All views must agree: a side that still serves clients isn't dead, however few connections are left for us,
 * nor is one that a new connection reaches while the old ones have died without a word. */
bool controller_is_active_dead(const struct controller *controller)
{
    const struct controller_promise *promise = &controller->promise;
    const int64_t dead_after_us = controller->settings->dead_after_us;
    struct replication_sample sample;
    replication_sample(controller->replication, &sample);
    const struct replication_side_sample *side = &sample.sides[promise->side];
    return promise->answered_us != 0 && sample.taken_us != 0 && !side->reachable &&
           side->unreachable_us >= dead_after_us && side->gone &&
           clock_mono_us() - promise->answered_us >= dead_after_us - PULSE_US;
}

void controller_dead_error(const struct controller *controller, struct error *error)
{
    const enum side active = controller->promise.side;
    struct replication_sample sample;
    char silence[CLOCK_TEXT_SIZE];
    replication_sample(controller->replication, &sample);
    clock_format_duration(sample.sides[active].unreachable_us, silence);
    if (flip_promise_stands(&controller->flip)) {
        error_set(error, ERROR_SIDE_DEAD,
                  "%s, the active side, has not answered for %s; what it acknowledged is on %s",
                  side_name(active), silence, side_name(side_other(active)));
        (void)error_remedy(error, "switchback flip-back goes to %s and loses nothing",
                           side_name(side_other(active)));
        return;
    }
    if (sample.risk_known) {
        error_set(error, ERROR_COMMITS_AT_RISK,
                  "%s, the active side, has not answered for %s; up to %" PRIu64
                  " commits at risk: they may not be on %s",
                  side_name(active), silence, sample.commits_at_risk, side_name(side_other(active)));
    } else {
        error_set(
            error, ERROR_COMMITS_AT_RISK,
            "%s, the active side, has not answered for %s; what it acknowledged last may not be on %s: how "
            "many commits are at risk isn't known",
            side_name(active), silence, side_name(side_other(active)));
    }
    (void)error_remedy(error, "bring %s back, which loses nothing; or switchback flip-back --accept-loss",
                       side_name(active));
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
    if (sample->tables_differ) { /* commits in a table that isn't published wait for nobody */
        return error_set(why, ERROR_NO_PROMISE, "%s",
                         sample->problem[0] != '\0' ? sample->problem : "the sides' tables differ");
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

/* Names that somebody else took away: what is acknowledged now is on one side only. Not believed at once, a
 * sample may be older than the turn. */
static bool is_unnamed(struct controller *controller, const struct replication_sample *sample,
                       struct error *why)
{
    struct controller_promise *promise = &controller->promise;
    const struct flip_history *history = &controller->flip.history;
    if (!history->promise || !sample->streaming || sample->synchronous) {
        promise->unnamed_us = 0;
        return false;
    }
    const int64_t now_us = clock_mono_us();
    promise->unnamed_us = promise->unnamed_us == 0 ? now_us : promise->unnamed_us;
    if (now_us - promise->unnamed_us < UNNAMED_US) {
        return false;
    }
    error_set(why, ERROR_NO_PROMISE, "synchronous_standby_names of %s no longer name all of the way back",
              side_name(history->active));
    return true;
}

static void tell_stream(struct controller *controller, const struct replication_sample *sample)
{
    struct controller_promise *promise = &controller->promise;
    const struct flip *flip = &controller->flip;
    const enum side active = flip->history.active;
    const int64_t now_us = clock_mono_us();
    const bool matters = flip->history.promise || (flip->history.watching && controller->settings->lossless);
    struct flip_options options;
    struct flip_event event = {.kind = FLIP_EVENT_STREAM, .side = active, .options = &options};
    if (!matters || sample->taken_us == 0 || !sample->sides[active].reachable) {
        promise->told_stream_us = 0;
        return;
    }
    event.open =
        !is_unnamed(controller, sample, &event.error) && is_healthy(sample, side_other(active), &event.error);
    if (promise->told_stream_us != 0 && promise->stream_open == event.open &&
        now_us - promise->told_stream_us < TELL_EVERY_US) {
        return;
    }
    promise->told_stream_us = now_us;
    flip_options_from_settings(&options, controller->settings);
    promise->stream_open = event.open;
    controller_feed(controller, &event);
}

/* --- logins meanwhile --- */

static void tell_rescue(struct controller *controller)
{
    const bool rescue = flip_takes_over(&controller->flip);
    if (rescue != controller->promise.rescue) {
        controller->promise.rescue = rescue;
        proxy_set_rescue(controller->proxy, rescue);
    }
}

/* --- the pulse --- */

void controller_promise_pulse(struct controller *controller)
{
    struct replication_sample sample;
    struct proxy_stats stats;
    if (controller->stopping || controller->proxy == NULL || controller->replication == NULL) {
        return;
    }
    controller_recover_pulse(controller);
    replication_sample(controller->replication, &sample);
    proxy_stats(controller->proxy, &stats);
    controller_risk_note(controller, &stats);
    if (controller->flip.history.known) {
        note_answers(&controller->promise, controller->flip.history.active, &stats);
        tell_dead(controller, &sample.sides[controller->flip.history.active]);
        tell_stream(controller, &sample);
    }
    tell_rescue(controller);
}
