/* The ways out of a flip: undo before commit, resolve in doubt, back before released. */
#include "control/flip/runner_internal.h"

#include "conf/base/ensure.h"

#include <inttypes.h>

static void hold_released(struct flip *flip, const struct flip_event *event)
{
    flip->hold.stands = flip->hold.left = false;
    flip->moved.stall_p50_us = event->counts.stall_p50_us;
    flip->moved.stall_p99_us = event->counts.stall_p99_us;
    flip->moved.stall_max_us = event->counts.stall_max_us;
}

/* --- undo --- */

/* Catching up only looks, and an undo takes over what runs. */
bool flip_touches_cluster(enum flip_action_kind action)
{
    return action == FLIP_ACTION_FENCE || action == FLIP_ACTION_READY || action == FLIP_ACTION_CUT_OFF ||
           action == FLIP_ACTION_READY_ALONE;
}

void flip_undo(struct flip *flip, const struct error *why, enum flip_outcome outcome)
{
    flip->in_doubt |= flip_touches_cluster(flip->await.action);
    flip->contact |= flip->await.action == FLIP_ACTION_NAMES_AHEAD;
    flip_drop_await(flip);
    flip->why = *why;
    flip->ends_as = outcome;
    flip->mode = FLIP_MODE_UNDO;
    flip->undo_phase = flip->phase;
    if (flip->hold.left && flip->phase < FLIP_PHASE_HOLD) {
        flip->undo_phase = FLIP_PHASE_HOLD; /* nobody else would release the hold that it has taken over */
    }
    flip->retry = (struct flip_retry){0};
    flip_undo_next(flip);
}

static enum flip_phase phase_before(const struct flip *flip, enum flip_phase phase)
{
    do {
        phase--;
    } while (phase > FLIP_PHASE_NONE && (flip_table_row(phase)->kinds & flip->spec.kind) == 0);
    return phase;
}

static void route_to_source(struct flip *flip)
{
    struct flip_request request = flip_request(flip, FLIP_ACTION_ACTIVE);
    request.side = flip->spec.source;
    request.epoch = flip->spec.epoch + (flip->reopened ? 2 : 0);
    request.open = true;
    flip_tell(flip, &request);
    request.kind = FLIP_ACTION_ROUTE;
    flip_tell(flip, &request);
}

/* The clients go on at the source. True if an answer is awaited. */
static bool let_go(struct flip *flip)
{
    if (flip->hold.stands) {
        if (flip->hold.refuses) { /* going on is right again, whatever the release finds in its way */
            struct flip_request expire = flip_request(flip, FLIP_ACTION_EXPIRE);
            expire.deadline_us = flip->hold.until_us;
            flip_tell(flip, &expire);
            flip->hold.refuses = false;
        }
        if (!flip->routed) { /* since a restart */
            route_to_source(flip);
        }
        flip_ask_simple(flip, FLIP_ACTION_RELEASE, flip->now_us + FLIP_HOLD_ANSWER_US);
        return true;
    }
    if (flip->hold.over && flip->hold.refuses) {
        flip->hold.over = flip->hold.left = false;
        route_to_source(flip);
    }
    return false;
}

static bool start_undo(struct flip *flip, enum flip_undo undo)
{
    switch (undo) {
    case FLIP_UNDO_UNFENCE:
        if (!flip->fenced) {
            return false;
        }
        flip_ask_simple(flip, FLIP_ACTION_UNDO, flip->now_us + FLIP_UNDO_US);
        return true;
    case FLIP_UNDO_REATTACH:
        return flip_start_reattach(flip);
    case FLIP_UNDO_RELEASE:
        return flip_look_at_source(flip) || let_go(flip);
    case FLIP_UNDO_DISARM:
        if (!flip->armed) {
            return false;
        }
        flip_ask_simple(flip, FLIP_ACTION_DISARM, flip->now_us + FLIP_HOLD_ANSWER_US);
        return true;
    default:
        return false;
    }
}

/* Walks backwards to the first phase; each undo that needs an answer comes back here. */
void flip_undo_next(struct flip *flip)
{
    if (flip->in_doubt) { /* a statement of ours may still be on its way: it must not outlive its undo */
        flip_learn(flip);
        return;
    }
    while (flip->undo_phase != FLIP_PHASE_NONE) {
        if (start_undo(flip, flip_table_undo(flip->spec.kind, flip_table_row(flip->undo_phase)))) {
            return;
        }
        flip->undo_phase = phase_before(flip, flip->undo_phase);
    }
    flip_finish(flip, flip->ends_as);
    flip->phase = FLIP_PHASE_NONE;
    flip->contact |= !flip->routed;
    if (!flip->routed || !flip_resume_turn(flip)) { /* a takeover that came to nothing had made it wait */
        flip_steady(flip);
    }
}

/* The undo itself goes wrong: nothing else is right but to try again. */
static void undo_again(struct flip *flip, const struct flip_event *event)
{
    /* Stale: the side isn't owned, since it could not be reached when ownership was taken last. */
    flip->in_doubt |= event->uncertain || event->error.code == ERROR_STALE;
    flip_alarm(flip, &event->error);
    flip_retry_later(flip, &flip->retry);
}

void flip_undo_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    const bool ok = event->kind != FLIP_EVENT_FAILED;
    if (flip_reattach_answer(flip, action, event)) {
        return;
    }
    switch (action) {
    case FLIP_ACTION_LEARN:
        if (!ok) {
            undo_again(flip, event);
            return;
        }
        flip->in_doubt = false;
        break;
    case FLIP_ACTION_UNDO:
        if (!ok) {
            undo_again(flip, event);
            return;
        }
        flip->fenced = false;
        flip->retry = (struct flip_retry){0};
        break;
    case FLIP_ACTION_RELEASE:
        hold_released(flip, event);
        break;
    case FLIP_ACTION_DISARM:
        flip->armed = false;
        break;
    default:
        break;
    }
    if (!ok) { /* of the workers: their own deadline ends the hold, and links close with their sessions */
        flip_alarm(flip, &event->error);
    }
    flip_undo_next(flip);
}

/* --- resolve: committed, and it isn't known whether the target is open  --- */

void flip_resolve(struct flip *flip, const struct error *why)
{
    flip->mode = FLIP_MODE_RESOLVE;
    flip->why = *why;
    flip->in_doubt = false;
    flip->retry = (struct flip_retry){0};
    flip_alarm(flip, why);
    flip_learn(flip);
}

/* Neither side can be opened now; both may come back. */
static void resolve_later(struct flip *flip)
{
    struct error why;
    error_set(&why, ERROR_UNREACHABLE,
              "flip %" PRIu64
              " was committed, %s can't be opened, and %s can't be reached either: nobody is served",
              flip->spec.id, side_name(flip_target(flip)), side_name(flip->spec.source));
    error_remedy(&why, "bring either side back; the flip then ends by itself");
    flip->why = why;
    flip_alarm(flip, &why);
    flip_retry_later(flip, &flip->retry);
}

static void resolve_alone_later(struct flip *flip)
{
    struct error why;
    error_set(&why, ERROR_UNREACHABLE,
              "flip %" PRIu64 " was committed, and %s can't be opened now: nobody is served%s%s",
              flip->spec.id, side_name(flip_target(flip)), flip->why.code != ERROR_NONE ? ": " : "",
              flip->why.message);
    error_remedy(&why, "bring %s back; the flip then ends by itself", side_name(flip_target(flip)));
    if (flip->retry.tries == 0) {
        flip_alarm(flip, &why);
    }
    flip_retry_later(flip, &flip->retry);
}

/* The flip is another journal's: intent comes before the act in this one, too. One row, since half of the
 * truth would be read as a flip that can be undone. */
static void say_committed(struct flip *flip)
{
    struct record row = flip_row_of(flip, RECORD_BEGIN);
    row.committed = true;
    const uint64_t number = flip_write(flip, &row, FLIP_ACTION_JOURNAL_COMMIT);
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL_COMMIT,
                                      .ticket = FLIP_ROW_TICKET | number,
                                      .guard_us = flip->now_us + FLIP_ROW_US};
}

void flip_resolve_facts(struct flip *flip)
{
    const struct flip_side_facts *source = &flip->facts.sides[flip->spec.source];
    const struct flip_side_facts *target = &flip->facts.sides[flip_target(flip)];
    const uint64_t open = flip->spec.epoch + 1;
    const bool whole = target->reachable && target->databases > 0 && target->installed == target->databases;
    const bool alone = flip->spec.kind == FLIP_KIND_TAKEOVER; /* every acknowledged commit is there */
    const bool turned = source->reachable && source->standby > 0 && source->epoch_max == open;
    const bool adopted = flip->history.flip.adopted && !whole;
    if (flip->commit_unsaid) {
        say_committed(flip);
    } else if (whole && target->epoch_min == open && target->epoch_max == open) {
        flip_settle_open(flip);
    } else if (alone && whole && target->epoch_max <= open) {
        flip_ask_simple(flip, FLIP_ACTION_READY_ALONE, flip->now_us + FLIP_READY_US);
    } else if (!alone && whole && target->epoch_min == flip->spec.epoch && target->epoch_max <= open &&
               flip->open_tries < FLIP_OPEN_TRIES) {
        flip->open_tries++;
        flip_ask_simple(flip, FLIP_ACTION_CATCHUP, flip->now_us + flip->options.catchup_timeout_us);
    } else if (alone || turned || adopted) { /* only forward: it was released, or may have been, by others */
        resolve_alone_later(flip);
    } else if (source->reachable) {
        flip_back(flip);
    } else {
        flip->open_tries = 0;
        resolve_later(flip);
    }
}

void flip_resolve_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    if (event->kind == FLIP_EVENT_FAILED) {
        flip->why = event->error;
        if (flip->spec.kind == FLIP_KIND_TAKEOVER || action == FLIP_ACTION_JOURNAL_COMMIT) {
            resolve_alone_later(flip);
        } else if (action == FLIP_ACTION_LEARN) {
            resolve_later(flip);
        } else {
            flip_learn(flip);
        }
        return;
    }
    switch (action) {
    case FLIP_ACTION_JOURNAL_COMMIT:
        flip->commit_unsaid = false;
        /* fall through */
    case FLIP_ACTION_LEARN:
        flip_resolve_facts(flip);
        break;
    case FLIP_ACTION_CATCHUP:
        flip_ask_simple(flip, FLIP_ACTION_READY, flip->now_us + FLIP_READY_US);
        break;
    case FLIP_ACTION_READY:
    case FLIP_ACTION_READY_ALONE:
        flip_ask_simple(flip, FLIP_ACTION_OPEN, flip->now_us + FLIP_OPEN_US);
        break;
    case FLIP_ACTION_OPEN:
        flip_settle_open(flip);
        break;
    default:
        break;
    }
}

/* --- back: committed, not released, and the target can't be opened  --- */

static void write_back(struct flip *flip)
{
    struct record row = flip_row_of(flip, RECORD_BACK);
    row.epoch = flip->spec.epoch + 2;
    const uint64_t number = flip_write(flip, &row, FLIP_ACTION_JOURNAL_BACK);
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL_BACK,
                                      .ticket = FLIP_ROW_TICKET | number,
                                      .guard_us = flip->now_us + FLIP_ROW_US};
}

void flip_back(struct flip *flip)
{
    flip->mode = FLIP_MODE_BACK;
    flip->back_durable = flip->contacted = flip->reopened = false;
    flip->retry = (struct flip_retry){0};
    flip_back_next(flip);
}

void flip_back_next(struct flip *flip)
{
    struct flip_request request;
    if (!flip->back_durable) {
        write_back(flip);
    } else if (flip->in_doubt) {
        flip_learn(flip);
    } else if (!flip->contacted && flip->facts.sides[flip_target(flip)].reachable) {
        request = flip_request(flip, FLIP_ACTION_FENCE_ON_CONTACT);
        request.epoch = flip->spec.epoch + 2;
        flip_ask(flip, &request, flip->now_us + FLIP_CONTACT_US);
    } else if (!flip->reopened) {
        flip_ask_simple(flip, FLIP_ACTION_REOPEN_SOURCE, flip->now_us + FLIP_UNDO_US);
    } else if (let_go(flip)) {
        return;
    } else if (flip->armed) {
        flip_ask_simple(flip, FLIP_ACTION_DISARM, flip->now_us + FLIP_HOLD_ANSWER_US);
    } else {
        request = flip_request(flip, FLIP_ACTION_ACTIVE);
        request.side = flip->spec.source;
        request.epoch = flip->spec.epoch + 2;
        flip_tell(flip, &request);
        flip_finish(flip, FLIP_OUTCOME_ABORTED);
        flip->phase = FLIP_PHASE_NONE;
        flip->contact = true; /* the target, once it is back, must be found fenced */
        flip_steady(flip);
    }
}

static void back_failed(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    const bool gone = event->uncertain || event->error.code == ERROR_UNREACHABLE;
    flip_alarm(flip, &event->error);
    switch (action) {
    case FLIP_ACTION_FENCE_ON_CONTACT:
        if (gone) { /* it is fenced when it comes back */
            flip->contacted = true;
            flip_back_next(flip);
            return;
        }
        break;
    case FLIP_ACTION_REOPEN_SOURCE:
        flip->in_doubt = true;
        break;
    case FLIP_ACTION_RELEASE:
        flip->hold.stands = false;
        flip_back_next(flip);
        return;
    case FLIP_ACTION_DISARM:
        flip->armed = false;
        flip_back_next(flip);
        return;
    default:
        break;
    }
    flip_retry_later(flip, &flip->retry);
}

void flip_back_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    if (event->kind == FLIP_EVENT_FAILED) {
        back_failed(flip, action, event);
        return;
    }
    switch (action) {
    case FLIP_ACTION_JOURNAL_BACK:
        flip->back_durable = true;
        break;
    case FLIP_ACTION_LEARN:
        flip->in_doubt = false;
        break;
    case FLIP_ACTION_FENCE_ON_CONTACT:
        flip->contacted = true;
        break;
    case FLIP_ACTION_REOPEN_SOURCE:
        flip->reopened = true;
        flip->fenced = false;
        break;
    case FLIP_ACTION_RELEASE:
        hold_released(flip, event);
        break;
    case FLIP_ACTION_DISARM:
        flip->armed = false;
        break;
    default:
        break;
    }
    flip->retry = (struct flip_retry){0};
    flip_back_next(flip);
}
