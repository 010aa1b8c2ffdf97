/* The daemon's start: what the journal and both sides say is gone on with. */
#include "control/flip/runner_internal.h"

#include <stdio.h>
#include <string.h>

void flip_recover(struct flip *flip, const struct flip_event *event)
{
    flip->history = *event->history;
    flip->durable = flip->history.rows;
    flip->last_flip = flip->history.last_flip;
    flip->initial = event->side;
    flip->mode = FLIP_MODE_RECOVER;
    flip_learn(flip);
}

static void serve(struct flip *flip, enum side active, uint64_t epoch)
{
    struct flip_request request = {.kind = FLIP_ACTION_ACTIVE, .side = active, .epoch = epoch};
    flip_tell(flip, &request);
    request.kind = FLIP_ACTION_ROUTE;
    request.open = flip_may_let_in(flip, active);
    flip_tell(flip, &request);
    if (flip->hold.stands) { /* of a flip that an operator has decided about */
        request.kind = FLIP_ACTION_RELEASE;
        request.flip = flip->spec.id;
        flip_tell(flip, &request);
        flip->hold = (struct flip_hold){0};
    }
}

/* The way back of the last flip was not open yet when the daemon ended: that is what is left of it. */
static bool turn_is_left(const struct flip *flip)
{
    const struct flip_story *done = &flip->history.done;
    return flip->prepared && done->flip != 0 && !done->turned && !flip->history.promise &&
           done->kind != FLIP_KIND_TAKEOVER && !flip->history.finalized &&
           flip->history.active == side_other(done->source) && flip->history.epoch == done->epoch + 1;
}

static void resume(struct flip *flip, const struct flip_spec *spec)
{
    flip->spec = *spec;
    flip->await = (struct flip_await){0};
    flip->retry = (struct flip_retry){0};
    flip->hold = (struct flip_hold){.over = true, .refuses = true};
    flip->moved = (struct flip_counts){0};
    flip->armed = flip->abort_asked = flip->settled = flip->in_doubt = false;
    flip->back_durable = flip->contacted = flip->reopened = false;
    flip->cut_off = flip->commit_asked = flip->given_up = flip->source_seen = flip->lossless = false;
    flip->commit_unsaid = false;
    flip->turn_until_us = 0;
    flip->open_tries = 0;
    flip->began_us = flip->phase_began_us = flip->now_us;
    memset(flip->intents, 0, sizeof flip->intents);
}

bool flip_resume_turn(struct flip *flip)
{
    const struct flip_story *done = &flip->history.done;
    if (!turn_is_left(flip)) {
        return false;
    }
    const struct flip_spec spec = {
        .id = done->flip, .kind = done->kind, .source = done->source, .epoch = done->epoch, .of = done->of};
    resume(flip, &spec);
    flip->settled = true;
    flip->fenced = true;
    flip->mode = FLIP_MODE_FORWARD;
    flip_enter(flip, FLIP_PHASE_TURN);
    return true;
}

/* It ended before it had touched anything; or how it ended isn't in this journal, which is older than what
 * the clusters know. */
static void close_story(struct flip *flip, const struct recovery *recovery)
{
    const struct flip_story *story = &flip->history.flip;
    if (!flip_story_running(story)) {
        return;
    }
    struct record row = {.kind = RECORD_END,
                         .flip = story->flip,
                         .side = story->source,
                         .epoch = story->epoch,
                         .outcome = FLIP_OUTCOME_ABORTED,
                         .code = ERROR_ABORTED,
                         .text = "the daemon ended before the flip had touched anything"};
    if (recovery->from_clusters) {
        row.outcome = FLIP_OUTCOME_INCONCLUSIVE;
        row.code = ERROR_UNDECIDED;
        (void)snprintf(row.text, sizeof row.text,
                       "this journal doesn't say how it ended: the clusters know of later flips");
    }
    (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
}

static void settle_steady(struct flip *flip, const struct recovery *recovery)
{
    close_story(flip, recovery);
    if (recovery->epoch > 0 &&
        (!flip->history.known || flip->facts.owned_since || flip->history.active != recovery->active ||
         flip->history.epoch != recovery->epoch)) {
        struct record row = {.kind = RECORD_STEADY,
                             .side = recovery->active,
                             .epoch = recovery->epoch,
                             .text = "learned from the clusters"};
        (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    }
    if (recovery->verdict == RECOVERY_UNPREPARED && !flip->history.unprepared) {
        struct record row = {.kind = RECORD_UNPREPARED, .side = recovery->active};
        (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    }
    flip->mode = FLIP_MODE_STEADY;
    error_clear(&flip->why);
    serve(flip, recovery->active, recovery->epoch > 0 ? recovery->epoch : 1);
    if (!flip->routed || !flip_resume_turn(flip)) {
        flip_steady(flip);
    }
}

/* The clusters knew of a flip that the journal doesn't: from here on it does. */
static void adopt(struct flip *flip, const struct recovery *recovery)
{
    if (!recovery->from_clusters) {
        return;
    }
    if (flip->history.flip.flip != recovery->spec.id) {
        close_story(flip, recovery);
    }
    flip->commit_unsaid = recovery->verdict == RECOVERY_FORWARD;
    if (!flip->commit_unsaid) {
        struct record row = flip_row_of(flip, RECORD_BEGIN);
        (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
        row = flip_row_of(flip, RECORD_INTENT);
        row.phase = FLIP_PHASE_FENCE;
        (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    }
}

/* Released, and perhaps turned: a lossless turn comes first, since nobody is served yet. */
static void resume_released(struct flip *flip)
{
    flip->mode = FLIP_MODE_FORWARD;
    flip_enter(flip, flip->lossless && !flip->history.promise ? FLIP_PHASE_TURN : FLIP_PHASE_RELEASE);
}

static void resume_flip(struct flip *flip, const struct recovery *recovery)
{
    const struct flip_story unknown = {.flip = 0}; /* another journal's */
    const struct flip_story *story = recovery->from_clusters ? &unknown : &flip->history.flip;
    const bool alone = recovery->spec.kind == FLIP_KIND_TAKEOVER;
    resume(flip, &recovery->spec);
    flip->fenced = !alone;
    flip->cut_off = alone && recovery->verdict == RECOVERY_UNDO;
    flip->commit_asked = story->committed;
    flip->given_up = story->back;
    flip->lossless = story->lossless && flip->options.lossless;
    adopt(flip, recovery);
    error_set(&flip->why, ERROR_ABORTED, "the daemon ended in the phase %s",
              flip_phase_name(flip->history.flip.phase));
    (void)snprintf(flip->spec.reason, sizeof flip->spec.reason,
                   "gone on with after the daemon ended in the phase %s",
                   flip_phase_name(flip->history.flip.phase));
    switch (recovery->verdict) {
    case RECOVERY_FORWARD:
        flip->phase = FLIP_PHASE_OPEN;
        if (story->released) {
            resume_released(flip);
        } else {
            flip->mode = FLIP_MODE_RESOLVE;
            flip_resolve_facts(flip);
        }
        break;
    case RECOVERY_BACK:
        flip->phase = FLIP_PHASE_OPEN;
        flip->mode = FLIP_MODE_BACK;
        flip->back_durable = story->back;
        flip_back_next(flip);
        break;
    default:
        flip->phase = flip->undo_phase = FLIP_PHASE_COMMIT;
        flip->mode = FLIP_MODE_UNDO;
        flip->ends_as = FLIP_OUTCOME_ABORTED;
        flip_undo_next(flip);
        break;
    }
}

void flip_doubt(struct flip *flip, const struct recovery *recovery)
{
    const bool news = strcmp(flip->why.message, recovery->why.message) != 0;
    if (flip->deciding && !recovery->foreign) {
        flip->why = recovery->why;
        flip_adopt(flip);
        return;
    }
    flip->mode = recovery->verdict == RECOVERY_WAIT ? FLIP_MODE_RECOVER : FLIP_MODE_UNDECIDED;
    flip->why = recovery->why;
    if (news) {
        flip_alarm(flip, &flip->why);
    }
    flip_retry_later(flip, &flip->retry);
}

static void apply(struct flip *flip, const struct recovery *recovery)
{
    const bool doubtful = recovery->verdict == RECOVERY_WAIT || recovery->verdict == RECOVERY_UNDECIDED;
    flip->deciding &= doubtful; /* what settles itself needs no word of an operator's */
    switch (recovery->verdict) {
    case RECOVERY_UNPREPARED:
    case RECOVERY_STEADY:
        settle_steady(flip, recovery);
        break;
    case RECOVERY_FORWARD:
    case RECOVERY_UNDO:
    case RECOVERY_BACK:
        resume_flip(flip, recovery);
        break;
    case RECOVERY_WAIT:
    case RECOVERY_UNDECIDED:
        flip_doubt(flip, recovery);
        break;
    }
}

static void learn_prepared(struct flip *flip)
{
    bool prepared = flip->history.known && flip->history.epoch > 0;
    for (int i = 0; i < SIDE_COUNT; i++) {
        prepared |= flip->facts.sides[i].reachable && flip->facts.sides[i].installed > 0;
    }
    flip->prepared = prepared;
}

/* Before anyone is served: both sides' names are what the journal says. */
static bool see_to_names(struct flip *flip, const struct recovery *recovery)
{
    const struct flip_history *history = &flip->history;
    const bool steady = recovery->verdict == RECOVERY_STEADY;
    const enum side active = steady ? recovery->active : history->active;
    const uint64_t epoch = steady ? recovery->epoch : history->epoch;
    if (flip->names_seen || recovery->verdict == RECOVERY_UNPREPARED || recovery->verdict == RECOVERY_WAIT ||
        recovery->verdict == RECOVERY_UNDECIDED) {
        return false;
    }
    flip->names_seen = true;
    return flip_ask_names(flip, active, epoch,
                          history->promise && active == history->active && epoch == history->epoch &&
                              !flip->facts.owned_since);
}

void flip_recover_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    struct recovery recovery;
    const bool failed = event->kind == FLIP_EVENT_FAILED;
    if (action == FLIP_ACTION_JOURNAL || action == FLIP_ACTION_ADOPT) {
        flip_adopt_answer(flip, action, event);
        return;
    }
    if (action == FLIP_ACTION_NAMES) {
        flip_promise_answer(flip, action, event);
    } else if (action == FLIP_ACTION_REATTACH && !failed) {
        flip_attached(flip);
    } else if (action == FLIP_ACTION_UNDO && !failed) {
        flip_note_unfenced(flip);
    } else if (failed && (action == FLIP_ACTION_LEARN || action == FLIP_ACTION_FENCE_ON_CONTACT) &&
               event->error.code != ERROR_UNREACHABLE && ++flip->learn_tries < FLIP_LEARN_TRIES) {
        flip_alarm(flip, &event->error); /* a side is there, which may be open and must not be */
        flip_retry_later(flip, &flip->retry);
        return;
    } else if (failed && action == FLIP_ACTION_LEARN) {
        memset(flip->facts.sides, 0,
               sizeof flip->facts.sides); /* nothing can be reached: the journal alone may say enough */
        flip_alarm(flip, &event->error);
    } else if (failed) {
        flip_alarm(flip, &event->error);
    }
    learn_prepared(flip);
    if (flip->history.decided && !flip->facts.owned_since) {
        flip_adopt(flip);
        return;
    }
    recovery_decide(&flip->history, &flip->facts, flip->initial, &recovery);
    if (recovery.verdict == RECOVERY_STEADY &&
        flip_set_right(flip, action, recovery.active, recovery.epoch)) {
        return;
    }
    if (!see_to_names(flip, &recovery)) {
        apply(flip, &recovery);
    }
}
