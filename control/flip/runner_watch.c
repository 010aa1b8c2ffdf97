/* The watch after a cutover: gates that fail go back by themselves, until its time is over. */
#include "control/flip/runner_internal.h"

#include <string.h>

void flip_watch_begin(struct flip *flip)
{
    const struct flip_story *done = &flip->history.done;
    const int64_t since_us = flip->wall_us - done->ended_us;
    const int64_t left_us = flip->options.watch_duration_us - (since_us > 0 ? since_us : 0);
    const bool failing = flip->watch.failing; /* an automatic flip-back that came to nothing is tried again */
    flip->watch.on = true;
    flip->watch.until_us = flip->now_us + (left_us > 1 ? left_us : 1);
    if (failing) {
        flip_retry_later(flip, &flip->watch.retry);
    }
    const struct flip_request request = {.kind = FLIP_ACTION_WATCH,
                                         .flip = done->flip,
                                         .side = side_other(done->source),
                                         .epoch = done->epoch + 1,
                                         .open = true};
    flip_tell(flip, &request);
}

void flip_watch_pause(struct flip *flip)
{
    if (!flip->watch.on) {
        return;
    }
    flip->watch.on = false;
    flip->watch.probe = (struct flip_await){0};
    flip->watch.retry.at_us = 0;
    const struct flip_request request = {.kind = FLIP_ACTION_WATCH, .flip = flip->history.done.flip};
    flip_tell(flip, &request);
}

static void watch_end(struct flip *flip, enum record_kind kind, const char *why)
{
    struct record row = {.kind = kind,
                         .flip = flip->history.done.flip,
                         .side = flip->history.active,
                         .epoch = flip->history.epoch};
    memcpy(row.text, why, strlen(why) + 1);
    flip_watch_pause(flip);
    flip->watch = (struct flip_watch){0};
    (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
}

/* The way back is only taken when a marker passes it: a dead standby must not draw traffic onto itself. */
static void try_way_back(struct flip *flip)
{
    struct flip_request request = {.kind = FLIP_ACTION_PROBE,
                                   .ticket = ++flip->ticket,
                                   .flip = flip->history.done.flip,
                                   .side = flip->history.active,
                                   .deadline_us = flip->now_us + flip->options.catchup_timeout_us / 2};
    if (!flip->routed) { /* the side that would be left isn't even met */
        flip_retry_later(flip, &flip->watch.retry);
        return;
    }
    flip->watch.retry.at_us = 0;
    flip->watch.probe = (struct flip_await){
        .action = request.kind, .ticket = request.ticket, .guard_us = request.deadline_us + FLIP_GUARD_US};
    flip_tell(flip, &request);
}

static void gate_failed(struct flip *flip, const struct flip_event *event)
{
    if (!flip->watch.on || flip->watch.failing) {
        return;
    }
    flip_alarm(flip, &event->error);
    if (flip->options.watch_flip_back == FLIP_BACK_MANUAL) {
        return;
    }
    flip->watch.failing = true;
    flip->watch.why = event->error;
    flip->watch.retry = (struct flip_retry){0};
    if (flip->mode == FLIP_MODE_STEADY) {
        try_way_back(flip);
    }
}

void flip_watch_event(struct flip *flip, const struct flip_event *event)
{
    switch (event->kind) {
    case FLIP_EVENT_GATE_FAILED:
        gate_failed(flip, event);
        break;
    case FLIP_EVENT_GATES_PASS:
        flip->watch.failing = false;
        flip->watch.retry = (struct flip_retry){0};
        flip->watch.probe = (struct flip_await){0};
        break;
    case FLIP_EVENT_END_WATCH:
        if (flip->mode == FLIP_MODE_STEADY || (flip->mode == FLIP_MODE_FORWARD && flip->settled)) {
            flip_make_way(flip);
            watch_end(flip, RECORD_FINALIZED, "the way back was ended");
            flip_steady(flip);
        }
        break;
    default:
        break;
    }
}

void flip_watch_answer(struct flip *flip, const struct flip_event *event)
{
    flip->watch.probe = (struct flip_await){0};
    if (!flip->watch.on || !flip->watch.failing || flip->mode != FLIP_MODE_STEADY) {
        return;
    }
    if (event->kind == FLIP_EVENT_FAILED) {
        struct error why;
        error_set(&why, ERROR_WAY_BACK_CLOSED, "%s, but %s can't be gone back to: %s",
                  flip->watch.why.message, side_name(side_other(flip->history.active)), event->error.message);
        error_remedy(&why, "traffic stays on %s; it is tried again", side_name(flip->history.active));
        flip_alarm(flip, &why);
        flip_retry_later(flip, &flip->watch.retry);
        return;
    }
    struct flip_spec spec;
    flip_next_spec(flip, FLIP_KIND_FLIP_BACK, &spec);
    spec.automatic = true;
    memcpy(spec.reason, flip->watch.why.message, sizeof spec.reason - 1);
    flip_begin(flip, &spec);
}

void flip_watch_tick(struct flip *flip)
{
    struct flip_watch *watch = &flip->watch;
    if (!watch->on) {
        return;
    }
    if (watch->probe.action != FLIP_ACTION_NONE && flip->now_us >= watch->probe.guard_us) {
        struct flip_event lost = {.kind = FLIP_EVENT_FAILED};
        error_set(&lost.error, ERROR_TIMEOUT, "no marker passed in time");
        flip_watch_answer(flip, &lost);
    } else if (watch->retry.at_us != 0 && flip->now_us >= watch->retry.at_us) {
        try_way_back(flip);
    } else if (flip->now_us >= watch->until_us && flip_side_dead(flip) && flip_promise_stands(flip)) {
        watch->until_us = flip->now_us + FLIP_SECOND_US; /* a takeover is due, and stands on the promise */
    } else if (flip->now_us >= watch->until_us) {
        watch_end(flip, RECORD_WATCH_END, "the watch's time is over");
        flip_steady(flip);
    }
}
