/*
 * The promise of a lossless watch (flip.md "Lossless watch"): what the active side acknowledges has been
 * confirmed by the other side. Three things say whether it stands: the journal, the names that both sides'
 * synchronous_standby_names hold, and the stream between them. They may differ, in one direction only:
 *
 *   names set, journal "off": commits wait for a side that nobody relies on. Safe, at worst slow.
 *   journal "on", names not set: a takeover would lose what was acknowledged. Never.
 *
 * Hence "on" is written after the probe has returned under the names, and "off" is on disk before names are
 * emptied; and this is why each failure below leads to names that are set rather than to a row that lies.
 */
#include "control/flip/runner_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- what holds --- */

bool flip_promise_stands(const struct flip *flip)
{
    return flip->history.promise && !flip->promise.broken && !flip->promise.row_lost &&
           flip->durable >= flip->promise.row;
}

bool flip_names_matter(const struct flip *flip)
{
    return flip->options.lossless || flip->history.lossless || flip->history.promise;
}

/* Only in the watch, and only between the clusters that were prepared: what was restored from a backup lacks
 * what it had confirmed. */
static bool is_wanted(const struct flip *flip)
{
    return flip->options.lossless && flip->history.watching &&
           !flip->facts.sides[SIDE_BLUE].identity_changed && !flip->facts.sides[SIDE_GREEN].identity_changed;
}

static bool is_fresh(const struct flip *flip)
{
    return flip->promise.heard_us != 0 && flip->now_us - flip->promise.heard_us <= FLIP_FRESH_US;
}

static void write_row(struct flip *flip, bool on, const char *why)
{
    struct record row = {.kind = on ? RECORD_PROMISE_ON : RECORD_PROMISE_OFF,
                         .flip = flip->history.done.flip,
                         .side = flip->history.active,
                         .epoch = flip->history.epoch};
    (void)snprintf(row.text, sizeof row.text, "%.*s", RECORD_TEXT_SIZE - 1, why);
    flip->promise.row_lost = false;
    flip->promise.row = flip_write(flip, &row, FLIP_ACTION_JOURNAL_PROMISE);
}

void flip_promise_row_answer(struct flip *flip, uint64_t number, const struct flip_event *event)
{
    struct flip_promise *promise = &flip->promise;
    if (number != promise->row) {
        return;
    }
    if (event->kind == FLIP_EVENT_FAILED) {
        promise->row_lost = true;
        flip_retry_later(flip, &promise->retry);
    } else {
        promise->retry = (struct flip_retry){0};
    }
}

/* --- ahead of the hold --- */

/*
 * The target's names, while it is still the standby: every session there reads its configuration anew when
 * they change, and would do so in the hold. They make nobody wait who matters: what applies the stream there
 * and we ourselves commit `local`. However the flip ends, they are looked at then: the turn sets both sides'
 * names, and what is steady brings them in line with the journal.
 */
void flip_start_names_ahead(struct flip *flip)
{
    struct flip_request request = flip_request(flip, FLIP_ACTION_NAMES_AHEAD);
    flip->promise.names = FLIP_NAMES_UNKNOWN;
    flip_ask(flip, &request, flip->now_us + FLIP_NAMES_US);
}

/* --- the lossless turn: before release, the clients wait --- */

static void give_up(struct flip *flip, const struct error *why)
{
    struct flip_request names = flip_request(flip, FLIP_ACTION_NAMES);
    struct error *told = &flip->promise.why;
    error_set(told, ERROR_NO_PROMISE,
              "%s goes on without %s confirming its commits: until it does, a flip-back of a dead %s loses "
              "what had not arrived: %s",
              side_name(flip_target(flip)), side_name(flip->spec.source), side_name(flip_target(flip)),
              why->message);
    error_remedy(told, "it is tried again by itself; flip.lossless_max_wait is how long a flip waits for it");
    flip_alarm(flip, told);
    flip_write_result(flip, ERROR_NO_PROMISE);
    flip->lossless = false;
    flip->contact = true; /* a statement of ours may still be on its way: then look again */
    flip->in_doubt = false;
    flip->retry = (struct flip_retry){0};
    flip->promise.names = FLIP_NAMES_UNKNOWN;
    flip_retry_later(flip, &flip->promise.regain);
    flip_ask(flip, &names, flip->now_us + FLIP_RELEASE_BUDGET_US / 2);
}

void flip_start_turn(struct flip *flip)
{
    struct flip_request request = flip_request(flip, FLIP_ACTION_TURN);
    if (!flip->lossless) {
        flip_ask(flip, &request, flip->now_us + FLIP_TURN_US);
        return;
    }
    if (flip->turn_until_us == 0) {
        const int64_t last_us = flip->hold.until_us - FLIP_RELEASE_BUDGET_US;
        flip->turn_until_us = flip->now_us + flip->options.lossless_max_wait_us;
        if (flip->hold.stands && flip->turn_until_us > last_us) {
            flip->turn_until_us = last_us;
        }
    }
    if (flip->now_us >= flip->turn_until_us) {
        if (flip->why.code == ERROR_NONE) {
            error_set(&flip->why, ERROR_TIMEOUT, "too little of the hold was left");
        }
        give_up(flip, &flip->why);
        return;
    }
    request.promise = true;
    flip->promise.names = FLIP_NAMES_UNKNOWN;
    flip_ask(flip, &request, flip->turn_until_us);
}

void flip_start_promise_row(struct flip *flip)
{
    write_row(flip, true, "");
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL_PROMISE,
                                      .ticket = FLIP_ROW_TICKET | flip->promise.row,
                                      .guard_us = flip->now_us + FLIP_RELEASE_BUDGET_US / 2};
}

static void turn_failed(struct flip *flip, const struct flip_event *event)
{
    const int64_t left_us = flip->turn_until_us - flip->now_us;
    /* What a lost answer left behind must end first, and a dead side makes that slow. */
    const int64_t needed_us = event->uncertain ? FLIP_LEARN_US + FLIP_GUARD_US + FLIP_SECOND_US : 0;
    flip->why = event->error;
    if (event->error.code == ERROR_NO_PROMISE || left_us <= needed_us) {
        give_up(flip, &event->error);
        return;
    }
    flip->in_doubt = event->uncertain;
    flip_retry_later(flip, &flip->retry);
    if (flip->retry.at_us > flip->turn_until_us) {
        flip->retry.at_us = flip->turn_until_us;
    }
}

void flip_turn_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    const bool ok = event->kind != FLIP_EVENT_FAILED;
    switch (action) {
    case FLIP_ACTION_TURN:
        if (!ok) {
            turn_failed(flip, event);
            return;
        }
        if (flip->lossless) {
            flip->promise.names = FLIP_NAMES_ON;
            flip->promise.healthy = true;
            flip->promise.broken = false;
            flip->promise.ill_us = 0;
            flip->promise.regain = (struct flip_retry){0};
            error_clear(&flip->why);
        }
        flip_step_done(flip);
        break;
    case FLIP_ACTION_JOURNAL_PROMISE: /* the names are set all the same: nothing is acknowledged unconfirmed
                                       */
        if (!ok) {
            flip_alarm(flip, &event->error);
        }
        flip_step_done(flip);
        break;
    default: /* the names were emptied, or will be */
        if (ok) {
            flip->promise.names = FLIP_NAMES_OFF;
        } else {
            flip_alarm(flip, &event->error);
        }
        flip_enter(flip, FLIP_PHASE_RELEASE);
    }
}

/* --- in the watch --- */

bool flip_ask_names(struct flip *flip, enum side active, uint64_t epoch, bool promise)
{
    struct flip_request request = {.kind = FLIP_ACTION_NAMES,
                                   .flip = flip->history.done.flip,
                                   .side = active,
                                   .epoch = epoch,
                                   .promise = promise};
    if (!flip_names_matter(flip) || epoch == 0) {
        flip->promise.names = FLIP_NAMES_OFF;
        return false;
    }
    flip->promise.names = FLIP_NAMES_UNKNOWN;
    flip_ask(flip, &request, flip->now_us + FLIP_NAMES_US);
    return true;
}

static void ask_promise(struct flip *flip)
{
    struct flip_request request = {.kind = FLIP_ACTION_PROMISE,
                                   .flip = flip->history.done.flip,
                                   .side = flip->history.active,
                                   .epoch = flip->history.epoch,
                                   .promise = true};
    flip->promise.names = FLIP_NAMES_UNKNOWN; /* set before it returns */
    flip_ask(flip, &request, flip->now_us + flip->options.lossless_max_wait_us / 2); /* commits wait for it */
}

/* True: the journal says, or is being told, that there is no promise. */
static bool put_off(struct flip *flip)
{
    const char *why = "the watch is over";
    if (!flip->history.promise) {
        return true;
    }
    if (flip->promise.broken) {
        why = flip->promise.why.message;
    } else if (is_wanted(flip)) {
        return false;
    } else if (flip->history.watching) {
        why = flip->options.lossless ? "a side is not the cluster that was prepared" : "flip.lossless is off";
    }
    write_row(flip, false, why);
    return true;
}

static bool is_due(const struct flip *flip, const struct flip_retry *retry)
{
    return retry->at_us == 0 || flip->now_us >= retry->at_us;
}

void flip_promise_next(struct flip *flip)
{
    struct flip_promise *promise = &flip->promise;
    const struct flip_history *history = &flip->history;
    if (flip->mode != FLIP_MODE_STEADY || !flip->prepared || !history->known || history->epoch == 0) {
        return;
    }
    const bool off = put_off(flip);
    if (!is_due(flip, &promise->retry)) {
        return;
    }
    promise->retry.at_us = 0;
    if (promise->row_lost) {
        write_row(flip, history->promise, history->promise_why);
    }
    if (flip->await.action != FLIP_ACTION_NONE || (off && flip->durable < promise->row)) {
        return; /* its answer comes back here */
    }
    if (promise->names != (off ? FLIP_NAMES_OFF : FLIP_NAMES_ON)) {
        (void)flip_ask_names(flip, history->active, history->epoch, !off);
        return;
    }
    if (off) {
        promise->broken = false;
        if (is_wanted(flip) && promise->healthy && is_fresh(flip) && !flip_side_dead(flip) &&
            is_due(flip, &promise->regain)) {
            promise->regain.at_us = 0;
            ask_promise(flip);
        }
    }
}

static void lose(struct flip *flip, const struct error *why)
{
    struct error told;
    error_set(&told, ERROR_NO_PROMISE, "commits on %s are no longer confirmed by %s: %s",
              side_name(flip->history.active), side_name(side_other(flip->history.active)), why->message);
    error_remedy(&told, "they go on without; the promise comes back by itself once the way back is healthy");
    flip->promise.why = *why; /* the row's: who reads it says the rest */
    flip->promise.broken = true;
    flip_alarm(flip, &told);
}

/* An answer was lost: what it was about may still happen, later than what is asked next. Ownership ends it,
 * and is what a side lacks that calls us stale.
 */
static void mind_lost(struct flip *flip, const struct flip_event *event)
{
    flip->contact |=
        event->kind == FLIP_EVENT_FAILED && (event->uncertain || event->error.code == ERROR_STALE);
}

static void names_answer(struct flip *flip, const struct flip_event *event)
{
    struct flip_promise *promise = &flip->promise;
    if (event->kind != FLIP_EVENT_FAILED) {
        promise->names = flip->history.promise ? FLIP_NAMES_ON : FLIP_NAMES_OFF;
        promise->retry = (struct flip_retry){0};
        return;
    }
    if (promise->retry.tries == 0) {
        flip_alarm(flip, &event->error);
    }
    flip_retry_later(flip, &promise->retry);
    /* What can't be reached keeps the names that it has. What refuses them acknowledges without. */
    if (flip->history.promise && !event->uncertain && event->error.code != ERROR_UNREACHABLE &&
        event->error.code != ERROR_TIMEOUT && !promise->broken) {
        lose(flip, &event->error);
    }
}

static void promise_answer(struct flip *flip, const struct flip_event *event)
{
    struct flip_promise *promise = &flip->promise;
    if (event->kind != FLIP_EVENT_FAILED) {
        promise->names = FLIP_NAMES_ON;
        promise->ill_us = 0;
        error_clear(&promise->why);
        if (is_wanted(flip)) {
            write_row(flip, true, "");
        }
        return;
    }
    promise->why = event->error;
    if (promise->regain.tries == 0) {
        flip_alarm(flip, &event->error);
    }
    flip_retry_later(flip, &promise->regain);
}

void flip_promise_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    mind_lost(flip, event);
    if (action == FLIP_ACTION_NAMES) {
        names_answer(flip, event);
    } else {
        promise_answer(flip, event);
    }
}

/* --- news of the stream --- */

/*
 * The standby keeps the active side waiting. Only news of an active side that answers count, hence it is
 * judged as they come: while it is the active side that is gone nobody waits, and the promise is what its
 * rescue stands on. Names that others have changed are another matter: there is no promise any more.
 */
static void judge_stream(struct flip *flip)
{
    struct flip_promise *promise = &flip->promise;
    const struct error why = promise->why;
    if (flip->mode != FLIP_MODE_STEADY || !flip->history.promise || promise->broken) {
        return;
    }
    if (why.code == ERROR_NO_PROMISE ||
        flip->now_us - promise->ill_us + FLIP_STREAM_US >= flip->options.lossless_max_wait_us) {
        lose(flip, &why);
    }
}

void flip_stream(struct flip *flip, const struct flip_event *event)
{
    struct flip_promise *promise = &flip->promise;
    const bool gap = !is_fresh(flip);
    promise->heard_us = flip->now_us;
    promise->healthy = event->open;
    if (event->options != NULL) { /* a reload reaches into a watch */
        flip->options.lossless = event->options->lossless;
        flip->options.lossless_max_wait_us = event->options->lossless_max_wait_us;
    }
    if (event->open) {
        promise->ill_us = 0;
    } else {
        promise->ill_us = promise->ill_us == 0 || gap ? flip->now_us : promise->ill_us;
        promise->why = event->error;
        judge_stream(flip);
    }
    flip_promise_next(flip);
}

void flip_promise_tick(struct flip *flip)
{
    struct flip_retry *retry = &flip->promise.retry;
    if (is_due(flip, retry)) {
        retry->at_us = 0;
    }
    flip_promise_next(flip);
}

int64_t flip_promise_wake(const struct flip *flip)
{
    return flip->promise.retry.at_us != 0 ? flip->promise.retry.at_us : INT64_MAX;
}
