/* While no flip runs: the daemon's start, a side that comes back, the watch after a cutover. */
#include "control/flip/runner_internal.h"

#include <stdio.h>
#include <string.h>

/* --- recovery --- */

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
    request.open = true;
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
    flip->hold = (struct flip_hold){.over = true, .refuses = true, .shut = true};
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

static void resume_turn(struct flip *flip)
{
    const struct flip_story *done = &flip->history.done;
    const struct flip_spec spec = {
        .id = done->flip, .kind = done->kind, .source = done->source, .epoch = done->epoch, .of = done->of};
    resume(flip, &spec);
    flip->settled = true;
    flip->fenced = true;
    flip->mode = FLIP_MODE_FORWARD;
    flip_enter(flip, FLIP_PHASE_TURN);
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
    if (turn_is_left(flip)) {
        resume_turn(flip);
        return;
    }
    flip_steady(flip);
}

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
    if (!facts->reachable || facts->installed == 0 || facts->fences_off == facts->installed ||
        facts->active != facts->installed || facts->fenced_for > flip->last_flip ||
        facts->epoch_max != epoch) {
        return false;
    }
    /* Of no flip, or of one whose undo was given up because the side was dead. */
    struct flip_request request = {
        .kind = FLIP_ACTION_UNDO, .flip = facts->fenced_for, .side = side_other(active), .epoch = epoch + 1};
    flip_ask(flip, &request, flip->now_us + FLIP_UNDO_US);
    return true;
}

/* One after the other: the other side's fence, the active side's, a standby that is still cut off. True: an
 * answer is awaited. */
static bool set_right(struct flip *flip, enum flip_action_kind answered, enum side active, uint64_t epoch)
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

static void doubt(struct flip *flip, const struct recovery *recovery)
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
        doubt(flip, recovery);
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

/* So often, before the journal alone must do though something answers. */
enum { LEARN_TRIES = 4 };

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
    } else if (failed && (action == FLIP_ACTION_LEARN || action == FLIP_ACTION_FENCE_ON_CONTACT) &&
               event->error.code != ERROR_UNREACHABLE && ++flip->learn_tries < LEARN_TRIES) {
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
    if (recovery.verdict == RECOVERY_STEADY && set_right(flip, action, recovery.active, recovery.epoch)) {
        return;
    }
    if (!see_to_names(flip, &recovery)) {
        apply(flip, &recovery);
    }
}

/* --- contact --- */

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
    doubt(flip, recovery);
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
        return set_right(flip, answered, recovery.active, recovery.epoch);
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
    } else if (compare(flip, action)) {
        return;
    }
    if (flip->promise.names != FLIP_NAMES_UNKNOWN && flip_names_matter(flip)) {
        flip->promise.names = FLIP_NAMES_UNKNOWN; /* who was away may have others */
    }
    flip_steady(flip);
    /* Who came back wasn't looked at, or perhaps not told; what refuses is not asked for ever. */
    const bool unmet = failed && (action == FLIP_ACTION_LEARN ||
                                  (action == FLIP_ACTION_FENCE_ON_CONTACT && event->uncertain));
    if (unmet || (failed && action == FLIP_ACTION_REATTACH)) {
        flip->contact |= unmet;
        flip->retry.at_us = flip->now_us + AGAIN_US;
    }
}

/* --- watch --- */

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
