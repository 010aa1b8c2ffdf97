/* Walks the table's rows forward. */
#include "control/flip/runner_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- phases --- */

/* Commit, open and release have rows of their own; the watch is part of the end of the flip. */
static bool has_intent(enum flip_phase phase)
{
    return phase != FLIP_PHASE_NONE && phase != FLIP_PHASE_COMMIT && phase != FLIP_PHASE_OPEN &&
           phase != FLIP_PHASE_RELEASE && phase != FLIP_PHASE_WATCH;
}

static bool wants_from(const struct flip *flip, enum flip_phase phase, unsigned step)
{
    const enum flip_action_kind *actions = flip_table_actions(flip->spec.kind, flip_table_row(phase));
    for (; step < FLIP_ROW_ACTIONS && actions[step] != FLIP_ACTION_NONE; step++) {
        if (flip_wants(flip, phase, actions[step])) {
            return true;
        }
    }
    return false;
}

bool flip_at_last_step(const struct flip *flip)
{
    return flip->mode == FLIP_MODE_FORWARD && flip->phase != FLIP_PHASE_NONE &&
           !wants_from(flip, flip->phase, flip->step + 1);
}

/* A phase of which nothing is wanted (no approval is configured) isn't gone through. */
static enum flip_phase phase_after(const struct flip *flip, enum flip_phase phase)
{
    do {
        phase = phase == FLIP_PHASE_NONE ? flip_table_first(flip->spec.kind)
                                         : flip_table_next(flip->spec.kind, flip->lossless, phase);
    } while (phase != FLIP_PHASE_NONE && !wants_from(flip, phase, 0));
    return phase;
}

void flip_enter(struct flip *flip, enum flip_phase phase)
{
    flip->phase = phase;
    flip->step = 0;
    flip->phase_began_us = flip->now_us;
    const struct flip_request news = flip_request(flip, FLIP_ACTION_PHASE);
    flip_tell(flip, &news);
    const enum flip_phase next = phase_after(flip, phase);
    if (has_intent(next) && flip->intents[next] == 0) {
        struct record row = flip_row_of(flip, RECORD_INTENT);
        row.phase = next;
        flip->intents[next] = flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    }
    flip_step_start(flip);
}

/* Goes on to the next phase once its intent is on disk; it was written a phase ahead, so mostly it is. */
void flip_forward_durable(struct flip *flip)
{
    const enum flip_phase next = phase_after(flip, flip->phase);
    if (next == FLIP_PHASE_NONE) {
        flip->mode = FLIP_MODE_STEADY;
        flip->phase = FLIP_PHASE_NONE;
        flip_steady(flip); /* and its watch, if it was a cutover */
        return;
    }
    if (flip->durable >= flip->intents[next]) {
        flip_enter(flip, next);
        return;
    }
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL,
                                      .ticket = FLIP_ROW_TICKET | flip->intents[next],
                                      .guard_us = flip->now_us + FLIP_ROW_US};
}

/* Traffic is on the target: for whoever asked, the flip is done. */
static void settle(struct flip *flip)
{
    flip->settled = true;
    flip->watch = (struct flip_watch){0};
    flip->dead = (struct flip_dead){0};
    if (flip->spec.kind != FLIP_KIND_CUTOVER) { /* the promise was of the side that was left */
        flip->promise = (struct flip_promise){0};
    }
    struct flip_request active = flip_request(flip, FLIP_ACTION_ACTIVE);
    flip_tell(flip, &active);
    error_clear(&flip->why);
    flip_finish(flip, FLIP_OUTCOME_DONE);
}

void flip_write_result(struct flip *flip, enum error_code code)
{
    struct record row = flip_row_of(flip, RECORD_RESULT);
    row.phase = flip->phase;
    row.code = code;
    row.elapsed_us = flip->now_us - flip->phase_began_us + 1; /* 0 is a phase that wasn't gone through */
    (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
}

static void phase_done(struct flip *flip)
{
    if (flip->phase != FLIP_PHASE_RELEASE) { /* its result was written as soon as nobody waited any more */
        flip_write_result(flip, ERROR_NONE);
    }
    flip_forward_durable(flip);
}

void flip_step_start(struct flip *flip)
{
    const enum flip_action_kind *actions = flip_table_actions(flip->spec.kind, flip_table_row(flip->phase));
    if (flip->in_doubt) { /* of turn: what a lost answer left behind must end first */
        flip_learn(flip);
        return;
    }
    while (flip->step < FLIP_ROW_ACTIONS && actions[flip->step] != FLIP_ACTION_NONE) {
        if (flip_wants(flip, flip->phase, actions[flip->step])) {
            flip_perform(flip, actions[flip->step]);
            return;
        }
        flip->step++;
    }
    phase_done(flip);
}

/* Where the step stands in what the flip's kind does in the phase. */
static unsigned step_of(const struct flip *flip, enum flip_action_kind action)
{
    const enum flip_action_kind *actions = flip_table_actions(flip->spec.kind, flip_table_row(flip->phase));
    unsigned step = 0;
    while (step < FLIP_ROW_ACTIONS && actions[step] != action) {
        step++;
    }
    ENSURE(step < FLIP_ROW_ACTIONS);
    return step;
}

void flip_step_done(struct flip *flip)
{
    flip->retry = (struct flip_retry){0};
    if (flip->phase == FLIP_PHASE_RELEASE && flip->step == step_of(flip, FLIP_ACTION_RELEASE)) {
        flip_write_result(flip, ERROR_NONE);
        settle(flip);
    }
    flip->step++;
    flip_step_start(flip);
}

void flip_settle_open(struct flip *flip)
{
    flip->mode = FLIP_MODE_FORWARD;
    flip->phase = FLIP_PHASE_OPEN;
    flip->in_doubt = false;
    flip->retry = (struct flip_retry){0};
    flip->step = step_of(flip, FLIP_ACTION_JOURNAL_RELEASED);
    flip_step_start(flip);
}

/* --- answers --- */

static void step_failed(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    const struct flip_row *row = flip_table_row(flip->phase);
    const struct error why = flip->abort_asked ? flip->why : event->error;
    flip->in_doubt |= event->uncertain && (flip->fenced || flip->cut_off);
    if (row->on_failure == FLIP_FAILURE_RESOLVE) {
        flip_resolve(flip, &why);
        return;
    }
    /* What was refused before anything was touched is not an abort. */
    const bool untouched = row->on_failure == FLIP_FAILURE_REFUSE || action == FLIP_ACTION_HOOK_BEFORE ||
                           action == FLIP_ACTION_PROBE;
    flip_undo(flip, &why, untouched && !flip->abort_asked ? FLIP_OUTCOME_REFUSED : FLIP_OUTCOME_ABORTED);
}

/* Past released nothing leads back: again, with an alarm. */
void flip_again(struct flip *flip, const struct flip_event *event)
{
    flip->why = event->error;
    /* Stale: the side isn't owned, since it could not be reached when ownership was taken last. */
    flip->in_doubt = (event->uncertain || event->error.code == ERROR_STALE) && flip->phase == FLIP_PHASE_TURN;
    flip_alarm(flip, &event->error);
    flip_retry_later(flip, &flip->retry);
}

/* What the policy says to sessions that can't move; true: go on. */
static bool moveable(struct flip *flip, const struct flip_counts *counts)
{
    struct error why;
    if (flip->spec.automatic) {
        return true; /* a rescue takes who can come */
    }
    if (counts->failed > 0) {
        error_set(&why, ERROR_CHECK_FAILED, "%s refused the links of %" PRIu64 " sessions: %s",
                  side_name(flip_target(flip)), counts->failed, counts->reason);
        flip_undo(flip, &why, FLIP_OUTCOME_ABORTED);
        return false;
    }
    if (counts->immovable == 0 || flip->options.immovable == IMMOVABLE_DISCONNECT) {
        return true;
    }
    if (flip->options.immovable == IMMOVABLE_WAIT && flip->phase == FLIP_PHASE_ARM &&
        flip->now_us - flip->phase_began_us < FLIP_IMMOVABLE_WAIT_US) {
        flip->retry.at_us = flip->now_us + FLIP_IMMOVABLE_AGAIN_US;
        return false;
    }
    error_set(&why, ERROR_IMMOVABLE, "%" PRIu64 " sessions can't move%s%s", counts->immovable,
              counts->reason[0] != '\0' ? ", the first because of " : "", counts->reason);
    error_remedy(&why, "switchback sessions --immovable names them; flip.immovable: disconnect ends them");
    flip_undo(flip, &why, FLIP_OUTCOME_ABORTED);
    return false;
}

static void add_counts(struct flip *flip, const struct flip_counts *counts)
{
    struct flip_counts *sum = &flip->moved;
    sum->moved += counts->moved;
    sum->disconnected += counts->disconnected;
    if (counts->stall_max_us > 0) {
        sum->stall_p50_us = counts->stall_p50_us;
        sum->stall_p99_us = counts->stall_p99_us;
        sum->stall_max_us = counts->stall_max_us;
    }
}

static void intent_answer(struct flip *flip, const struct flip_event *event)
{
    if (event->kind == FLIP_EVENT_DONE || flip->settled) {
        flip_enter(flip, phase_after(flip, flip->phase));
    } else if (flip->phase == FLIP_PHASE_NONE) {
        flip_undo(flip, &event->error, FLIP_OUTCOME_REFUSED);
    } else {
        flip_undo(flip, &event->error, FLIP_OUTCOME_ABORTED);
    }
}

static void failed_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    switch (action) {
    case FLIP_ACTION_READY:
        if (event->error.code == ERROR_NOT_IN_SYNC && !event->uncertain && !flip->abort_asked &&
            flip_before_open(flip, 1) > flip->now_us) {
            flip_enter(flip, FLIP_PHASE_CATCHUP); /* the target lost what it had: the stream is still on */
            return;
        }
        step_failed(flip, action, event);
        break;
    case FLIP_ACTION_FENCE_ON_CONTACT: /* by a takeover: nobody is sent there, and it is met again */
        flip->contact = true;
        flip_alarm(flip, &event->error);
        flip_step_done(flip);
        break;
    case FLIP_ACTION_NAMES_AHEAD:
        flip->contact |= event->uncertain;
        if (event->uncertain || flip->abort_asked) { /* set later, they would let commits wait for nobody */
            step_failed(flip, action, event);
        } else { /* then the turn sets them, or says why not */
            flip_step_done(flip);
        }
        break;
    case FLIP_ACTION_HOOK_AFTER:
        flip_alarm(flip, &event->error);
        flip_step_done(flip);
        break;
    case FLIP_ACTION_JOURNAL_PROMISE:
    case FLIP_ACTION_NAMES:
        flip_turn_answer(flip, action, event);
        break;
    case FLIP_ACTION_JOURNAL_RELEASED: /* nobody is released before it is on disk */
    case FLIP_ACTION_SWAP:
    case FLIP_ACTION_RELEASE:
    case FLIP_ACTION_LEARN:
        flip_again(flip, event);
        break;
    case FLIP_ACTION_TURN:
        if (flip->lossless) {
            flip_turn_answer(flip, action, event);
        } else {
            flip_again(flip, event);
        }
        break;
    default:
        step_failed(flip, action, event);
    }
}

void flip_forward_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    if (action == FLIP_ACTION_JOURNAL) {
        intent_answer(flip, event);
        return;
    }
    if (flip->phase ==
        FLIP_PHASE_NONE) { /* what was under way when the flip began: it is looked at after it */
        flip->contact = true;
        flip_forward_durable(flip);
        return;
    }
    if (event->kind == FLIP_EVENT_FAILED) {
        failed_answer(flip, action, event);
        return;
    }
    if (flip->abort_asked && flip->phase < FLIP_PHASE_COMMIT) {
        const struct error why = flip->why;
        flip_undo(flip, &why, FLIP_OUTCOME_ABORTED);
        return;
    }
    switch (action) {
    case FLIP_ACTION_ARM:
        flip->hold.counts = event->counts;
        if (!moveable(flip, &event->counts)) {
            return;
        }
        break;
    case FLIP_ACTION_SWAP:
    case FLIP_ACTION_RELEASE:
        add_counts(flip, &event->counts);
        break;
    case FLIP_ACTION_LEARN:
        flip->in_doubt = false;
        flip_step_start(flip);
        return;
    case FLIP_ACTION_TURN:
    case FLIP_ACTION_JOURNAL_PROMISE:
    case FLIP_ACTION_NAMES:
        flip_turn_answer(flip, action, event);
        return;
    default:
        break;
    }
    flip_step_done(flip);
}

/* --- drain --- */

void flip_drained(struct flip *flip)
{
    if (flip->mode != FLIP_MODE_FORWARD || flip->await.action != FLIP_ACTION_DRAIN) {
        return;
    }
    flip->await = (struct flip_await){0};
    if (moveable(flip, &flip->hold.counts)) {
        flip_step_done(flip);
    }
}

static void drain_failed(struct flip *flip)
{
    struct error why;
    char duration[CLOCK_TEXT_SIZE];
    error_set(&why, ERROR_DRAIN_TIMEOUT, "%" PRIu64 " sessions were still busy after %s%s%s",
              flip->hold.counts.undrained,
              clock_format_duration(flip->now_us - flip->phase_began_us, duration),
              flip->hold.counts.reason[0] != '\0' ? ": " : "", flip->hold.counts.reason);
    error_remedy(&why, "flip.drain.on_timeout: cancel or terminate ends what doesn't end by itself; "
                       "switchback sessions shows who is busy");
    flip_undo(flip, &why, FLIP_OUTCOME_ABORTED);
}

void flip_forward_tick(struct flip *flip)
{
    struct flip_hold *hold = &flip->hold;
    if (flip->await.action != FLIP_ACTION_DRAIN || flip->now_us < hold->drain_until_us) {
        return;
    }
    const bool rescue = flip->spec.automatic;
    const int64_t grace_us = rescue ? FLIP_RESCUE_GRACE_US : flip->options.drain_grace_us;
    const enum drain_policy policy = flip->options.drain_on_timeout;
    enum flip_action_kind action = FLIP_ACTION_NONE;
    if (hold->drain == FLIP_DRAIN_WAIT && (rescue || policy == DRAIN_CANCEL)) {
        action = FLIP_ACTION_CANCEL_UNDRAINED;
        hold->drain = FLIP_DRAIN_CANCELLED;
    } else if ((hold->drain == FLIP_DRAIN_WAIT && policy == DRAIN_TERMINATE) ||
               (hold->drain == FLIP_DRAIN_CANCELLED && rescue)) {
        action = FLIP_ACTION_TERMINATE_UNDRAINED;
        hold->drain = FLIP_DRAIN_TERMINATED;
    } else {
        drain_failed(flip);
        return;
    }
    const struct flip_request request = flip_request(flip, action);
    flip_tell(flip, &request);
    /* What was terminated only has to be cleared away. */
    hold->drain_until_us =
        flip->now_us + (action == FLIP_ACTION_TERMINATE_UNDRAINED ? FLIP_SECOND_US : grace_us);
}
