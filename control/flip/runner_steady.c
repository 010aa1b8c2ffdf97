/* While no flip runs: a side that comes back is met, compared with what is known, and set right. */
#include "control/flip/runner_internal.h"

#include <string.h>

/* --- what is set right --- */

/*
 * The side that isn't active must refuse writes before the active one is served (invariant 1). A standby that
 * was away while a flip was taken back is fenced, but doesn't know of the epoch: it is told the same way.
 */
static bool fence_other(struct flip *flip, enum side active, uint64_t epoch)
{
    const enum side other = side_other(active);
    const struct flip_side_facts *facts = &flip->facts.sides[other];
    const bool behind =
        facts->standby == facts->databases && facts->epoch_min != epoch && facts->epoch_max <= epoch;
    if (!facts->reachable || facts->installed == 0 ||
        (facts->active == 0 && facts->fences_on == facts->installed && !behind)) {
        return false;
    }
    struct flip_request request = {.kind = FLIP_ACTION_FENCE_ON_CONTACT, .side = other, .epoch = epoch};
    flip_ask(flip, &request, flip->now_us + FLIP_CONTACT_US);
    return true;
}

/* What got around our event trigger (a session in replica mode) has fenced the side that takes the writes; or
 * a flip did that was given up. */
static bool unfence_active(struct flip *flip, enum side active, uint64_t epoch)
{
    const struct flip_side_facts *facts = &flip->facts.sides[active];
    const bool open = facts->fences_off == facts->installed && facts->fenced_for == 0;
    if (!facts->reachable || facts->installed == 0 || open || facts->active != facts->installed ||
        facts->fenced_for > flip->last_flip || facts->epoch_max != epoch) {
        return false;
    }
    /* Of no flip, or of one whose undo was given up because the side was dead. */
    struct flip_request request = {
        .kind = FLIP_ACTION_UNDO, .flip = facts->fenced_for, .side = side_other(active), .epoch = epoch + 1};
    flip_ask(flip, &request, flip->now_us + FLIP_UNDO_US);
    return true;
}

bool flip_set_right(struct flip *flip, enum flip_action_kind answered, enum side active, uint64_t epoch)
{
    switch (answered) {
    case FLIP_ACTION_LEARN:
        if (fence_other(flip, active, epoch)) {
            return true;
        }
        /* fall through */
    case FLIP_ACTION_FENCE_ON_CONTACT:
        if (unfence_active(flip, active, epoch)) {
            return true;
        }
        /* fall through */
    case FLIP_ACTION_UNDO:
        return flip_attach_standby(flip);
    default:
        return false;
    }
}

/* --- who may be let in --- */

void flip_note_unfenced(struct flip *flip)
{
    flip->facts.sides[flip->history.active].fenced_for = 0;
}

bool flip_may_let_in(const struct flip *flip, enum side active)
{
    const struct flip_side_facts *facts = &flip->facts.sides[active];
    return !flip->prepared || (facts->reachable && facts->fenced_for == 0);
}

/* The active side is met at last. True: what was left of its flip is gone on with. */
static bool let_in(struct flip *flip)
{
    const struct flip_request route = {
        .kind = FLIP_ACTION_ROUTE, .side = flip->history.active, .epoch = flip->history.epoch, .open = true};
    if (flip->routed || !flip_may_let_in(flip, route.side)) {
        return false;
    }
    flip_tell(flip, &route);
    return flip_resume_turn(flip);
}

/* --- at rest --- */

void flip_steady(struct flip *flip)
{
    flip->mode = FLIP_MODE_STEADY;
    flip->contact |= flip->await.action == FLIP_ACTION_LEARN;
    flip_drop_await(flip);
    flip->retry = (struct flip_retry){0};
    if (flip->history.watching && !flip->watch.on) {
        flip_watch_begin(flip);
    }
    if (flip->contact) {
        flip->contact = false;
        flip_learn(flip);
    }
    flip_promise_next(flip);
}

/* The pair was new when the daemon started, or its journal was lost: now the clusters can be asked. */
static void meet(struct flip *flip, const struct recovery *recovery)
{
    if (recovery->verdict == RECOVERY_UNPREPARED) {
        return;
    }
    struct flip_request closed = {.kind = FLIP_ACTION_ROUTE, .side = flip->initial, .epoch = 1};
    flip->mode = FLIP_MODE_RECOVER;
    flip->names_seen = false;
    flip_tell(flip, &closed);
    flip_learn(flip);
}

/* The journal is older than what the clusters say, and what they say can be acted on: as at a start. */
static void start_over(struct flip *flip)
{
    const struct flip_request closed = {
        .kind = FLIP_ACTION_ROUTE, .side = flip->history.active, .epoch = flip->history.epoch};
    struct error why;
    error_set(&why, ERROR_UNDECIDED, "the clusters know of flips that this journal doesn't");
    error_remedy(&why,
                 "it is settled by itself; another daemon has run the pair, or state.dir is an older copy");
    flip_alarm(flip, &why);
    flip_watch_pause(flip);
    flip->mode = FLIP_MODE_RECOVER;
    flip->names_seen = false;
    flip->learn_tries = 0;
    flip_tell(flip, &closed);
    flip_learn(flip);
}

static bool is_settleable(const struct recovery *recovery)
{
    return recovery->from_clusters &&
           (recovery->verdict == RECOVERY_STEADY || recovery->verdict == RECOVERY_FORWARD ||
            recovery->verdict == RECOVERY_UNDO || recovery->verdict == RECOVERY_BACK);
}

static void contradicted(struct flip *flip, const struct recovery *recovery)
{
    error_set(&flip->why, ERROR_UNDECIDED, "the clusters contradict what is known: %s",
              recovery->why.code != ERROR_NONE ? recovery->why.message
                                               : recovery_verdict_name(recovery->verdict));
    error_remedy(&flip->why, "traffic stays where it is; compare switchback.state on both sides");
    flip_alarm(flip, &flip->why);
}

/* What answers at the active side's address is none of the pair's: nobody is served by it until it is gone.
 */
static void stop_serving(struct flip *flip, const struct recovery *recovery)
{
    const struct flip_request route = {
        .kind = FLIP_ACTION_ROUTE, .side = flip->history.active, .epoch = flip->history.epoch};
    flip_watch_pause(flip);
    flip_tell(flip, &route);
    flip_doubt(flip, recovery);
}

/* A side was met again. True: an answer is awaited, or nobody is served any more. */
static bool compare(struct flip *flip, enum flip_action_kind answered)
{
    struct recovery recovery;
    const struct flip_history *history = &flip->history;
    recovery_decide(history, &flip->facts, flip->initial, &recovery);
    if (!history->known) {
        meet(flip, &recovery);
        return flip->mode != FLIP_MODE_STEADY;
    }
    if (recovery.verdict == RECOVERY_STEADY && recovery.active == history->active &&
        recovery.epoch == history->epoch) {
        return flip_set_right(flip, answered, recovery.active, recovery.epoch);
    }
    if (recovery.foreign) {
        stop_serving(flip, &recovery);
        return true;
    }
    if (is_settleable(&recovery)) {
        start_over(flip);
        return true;
    }
    if (recovery.verdict != RECOVERY_UNPREPARED) {
        contradicted(flip, &recovery);
    }
    return false;
}

enum { AGAIN_US = 5 * FLIP_SECOND_US };

void flip_steady_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    const bool failed = event->kind == FLIP_EVENT_FAILED;
    if (action == FLIP_ACTION_NAMES || action == FLIP_ACTION_PROMISE) {
        flip_promise_answer(flip, action, event);
        flip_steady(flip);
        return;
    }
    if (failed) {
        if (action != FLIP_ACTION_LEARN || strcmp(flip->why.message, event->error.message) != 0) {
            flip_alarm(flip, &event->error);
        }
        flip->why = event->error;
    } else if (action == FLIP_ACTION_REATTACH) {
        flip_attached(flip);
    } else if (action == FLIP_ACTION_UNDO) {
        flip_note_unfenced(flip);
    }
    if (!failed && action != FLIP_ACTION_REATTACH && compare(flip, action)) {
        return;
    }
    if (flip->promise.names != FLIP_NAMES_UNKNOWN && flip_names_matter(flip)) {
        flip->promise.names = FLIP_NAMES_UNKNOWN; /* who was away may have others */
    }
    /* Who came back wasn't looked at, or perhaps not told; what refuses is not asked for ever. */
    const bool again = failed && !flip->routed && ++flip->learn_tries < FLIP_LEARN_TRIES;
    const bool unmet = failed && (action == FLIP_ACTION_LEARN || again ||
                                  (action == FLIP_ACTION_FENCE_ON_CONTACT && event->uncertain));
    if (!again && let_in(flip)) {
        flip->contact |= unmet;
        return;
    }
    flip_steady(flip);
    if (unmet || (failed && action == FLIP_ACTION_REATTACH)) {
        flip->contact |= unmet;
        flip->retry.at_us = flip->now_us + AGAIN_US;
    }
}
