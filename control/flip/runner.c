#include "control/flip/runner.h"

#include "conf/base/ensure.h"
#include "control/flip/runner_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- what goes out --- */

enum side flip_target(const struct flip *flip)
{
    return side_other(flip->spec.source);
}

struct flip_request flip_request(const struct flip *flip, enum flip_action_kind kind)
{
    return (struct flip_request){.kind = kind,
                                 .flip = flip->spec.id,
                                 .side = flip_target(flip),
                                 .epoch = flip->spec.epoch + 1,
                                 .phase = flip->phase};
}

void flip_tell(struct flip *flip, const struct flip_request *request)
{
    if (request->kind == FLIP_ACTION_ROUTE || request->kind == FLIP_ACTION_SWAP) {
        flip->routed = request->kind == FLIP_ACTION_SWAP || request->open;
    }
    flip->port.request(flip->port.context, request);
}

void flip_ask(struct flip *flip, struct flip_request *request, int64_t deadline_us)
{
    request->ticket = ++flip->ticket;
    if (request->deadline_us == 0) {
        request->deadline_us = deadline_us;
    }
    flip->await = (struct flip_await){
        .action = request->kind, .ticket = request->ticket, .guard_us = deadline_us + FLIP_GUARD_US};
    flip_tell(flip, request);
}

void flip_drop_await(struct flip *flip)
{
    if (flip->await.ticket != 0 && (flip->await.ticket & FLIP_ROW_TICKET) == 0) {
        struct flip_request abandon = flip_request(flip, FLIP_ACTION_ABANDON);
        abandon.ticket = flip->await.ticket;
        flip_tell(flip, &abandon);
    }
    flip->await = (struct flip_await){0};
}

void flip_ask_simple(struct flip *flip, enum flip_action_kind kind, int64_t deadline_us)
{
    struct flip_request request = flip_request(flip, kind);
    flip_ask(flip, &request, deadline_us);
}

void flip_learn(struct flip *flip)
{
    flip_ask_simple(flip, FLIP_ACTION_LEARN, flip->now_us + FLIP_LEARN_US);
}

void flip_alarm(struct flip *flip, const struct error *error)
{
    struct flip_request request = flip_request(flip, FLIP_ACTION_ALARM);
    request.error = *error;
    flip_tell(flip, &request);
}

struct record flip_row_of(const struct flip *flip, enum record_kind kind)
{
    return (struct record){.kind = kind,
                           .flip = flip->spec.id,
                           .flip_kind = flip->spec.kind,
                           .side = flip->spec.source,
                           .epoch = flip->spec.epoch};
}

uint64_t flip_write(struct flip *flip, struct record *row, enum flip_action_kind kind)
{
    row->time_us = flip->wall_us;
    flip_history_fold(&flip->history, row);
    struct flip_request request = flip_request(flip, kind);
    request.ticket = FLIP_ROW_TICKET | flip->history.rows;
    request.row = *row;
    flip_tell(flip, &request);
    return flip->history.rows;
}

void flip_retry_later(struct flip *flip, struct flip_retry *retry)
{
    int64_t pause_us = FLIP_RETRY_FIRST_US;
    for (unsigned i = 0; i < retry->tries && pause_us < FLIP_RETRY_LAST_US; i++) {
        pause_us *= 2;
    }
    retry->tries++;
    retry->at_us = flip->now_us + (pause_us < FLIP_RETRY_LAST_US ? pause_us : FLIP_RETRY_LAST_US);
}

/* --- begin and end of a flip --- */

void flip_begin(struct flip *flip, const struct flip_spec *spec)
{
    flip_watch_pause(flip);
    flip->spec = *spec;
    flip->mode = FLIP_MODE_FORWARD;
    flip->phase = FLIP_PHASE_NONE;
    flip->step = 0;
    flip->began_us = flip->now_us;
    flip->approvals = 0;
    flip->open_tries = 0;
    flip->abort_asked = flip->settled = flip->armed = flip->fenced = false;
    flip->in_doubt = flip->back_durable = flip->contacted = flip->reopened = false;
    flip->cut_off = flip->commit_asked = flip->given_up = flip->source_seen = false;
    flip->lossless = spec->kind == FLIP_KIND_CUTOVER && flip->options.lossless;
    flip->turn_until_us = 0;
    if (!flip->hold.left) { /* else the clients of the flip that made way for this one are still waiting */
        flip->hold = (struct flip_hold){0};
    }
    flip->moved = (struct flip_counts){0};
    flip->retry = (struct flip_retry){0};
    error_clear(&flip->why);
    memset(flip->intents, 0, sizeof flip->intents);
    if (spec->id > flip->last_flip) {
        flip->last_flip = spec->id;
    }
    struct record row = flip_row_of(flip, RECORD_BEGIN);
    row.automatic = spec->automatic;
    row.lossless = flip->lossless;
    row.of = spec->of;
    memcpy(row.key, spec->key, sizeof row.key);
    memcpy(row.text, spec->reason, sizeof row.text);
    flip->intents[flip_table_first(spec->kind)] = flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    if (flip->await.action == FLIP_ACTION_PROMISE || flip->await.action == FLIP_ACTION_NAMES) {
        flip_drop_await(flip); /* a rescue doesn't wait for it */
        flip->promise.names = FLIP_NAMES_UNKNOWN;
        flip->contact = true;
    }
    if (flip->await.action == FLIP_ACTION_NONE) { /* else facts are being read: one thing at a time */
        flip_forward_durable(flip);
    }
}

/* A rescue came to nothing: somebody must hear it, and whoever waits for the watch can't be told "done". */
static void alarm_rescue(struct flip *flip)
{
    struct error why;
    error_set(&why, ERROR_WAY_BACK_CLOSED, "%s, but %s can't be gone back to: %s", flip->spec.reason,
              side_name(flip_target(flip)), flip->why.message);
    error_remedy(&why, "traffic stays on %s; it is tried again", side_name(flip->spec.source));
    flip_alarm(flip, &why);
}

void flip_finish(struct flip *flip, enum flip_outcome outcome)
{
    struct record row = flip_row_of(flip, RECORD_END);
    if (outcome == FLIP_OUTCOME_DONE) {
        row.side = flip_target(flip);
        row.epoch = flip->spec.epoch + 1;
    } else if (flip->reopened) {
        row.epoch = flip->spec.epoch + 2;
    }
    row.of = flip->spec.of;
    row.automatic = flip->spec.automatic;
    row.outcome = outcome;
    row.code = flip->why.code;
    row.stall_p50_us = flip->moved.stall_p50_us;
    row.stall_p99_us = flip->moved.stall_p99_us;
    row.stall_max_us = flip->moved.stall_max_us;
    row.moved = flip->moved.moved;
    row.disconnected = flip->moved.disconnected;
    (void)snprintf(row.text, sizeof row.text, "%.*s", RECORD_TEXT_SIZE - 1,
                   flip->why.code != ERROR_NONE ? flip->why.message : flip->spec.reason);
    (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    struct flip_request request = flip_request(flip, FLIP_ACTION_FINISHED);
    request.outcome = outcome;
    request.error = flip->why;
    request.story = &flip->history.flip;
    flip_tell(flip, &request);
    if (flip->spec.automatic && outcome != FLIP_OUTCOME_DONE && flip->why.code != ERROR_SIDE_DEAD) {
        alarm_rescue(flip);
    }
    if (flip->spec.kind == FLIP_KIND_TAKEOVER && outcome != FLIP_OUTCOME_DONE) {
        flip_retry_later(flip, &flip->dead.retry);
    }
}

/* --- what comes in --- */

static void take_facts(struct flip *flip, const struct flip_facts *facts)
{
    flip->facts.owned_since = facts->owned_since;
    for (int i = 0; i < SIDE_COUNT; i++) {
        const struct flip_side_facts *side = &facts->sides[i];
        const bool changed = flip->facts.sides[i].identity_changed;
        flip->facts.sides[i] = *side;
        flip->facts.sides[i].identity_changed = side->reachable ? side->identity_changed : changed;
        if (side->reachable && flip->dead.seen_us != 0 && i == (int)flip->history.active) {
            flip->dead = (struct flip_dead){0}; /* it answers: at rest no later event would say so */
        }
        if (side->epoch_max > flip->facts.epoch_seen) {
            flip->facts.epoch_seen = side->epoch_max;
        }
        if (side->last_flip > flip->last_flip) {
            flip->last_flip = side->last_flip;
        }
    }
}

static void answer(struct flip *flip, const struct flip_event *event)
{
    const enum flip_action_kind action = flip->await.action;
    flip->await = (struct flip_await){0};
    if (event->kind == FLIP_EVENT_FACTS) {
        take_facts(flip, event->facts);
    }
    switch (flip->mode) {
    case FLIP_MODE_FORWARD:
        flip_forward_answer(flip, action, event);
        break;
    case FLIP_MODE_UNDO:
        flip_undo_answer(flip, action, event);
        break;
    case FLIP_MODE_RESOLVE:
        flip_resolve_answer(flip, action, event);
        break;
    case FLIP_MODE_BACK:
        flip_back_answer(flip, action, event);
        break;
    case FLIP_MODE_RECOVER:
    case FLIP_MODE_UNDECIDED:
        flip_recover_answer(flip, action, event);
        break;
    case FLIP_MODE_STEADY:
        flip_steady_answer(flip, action, event);
        break;
    case FLIP_MODE_DEPOSED:
        break;
    }
}

/* A row is on disk, with all before it; or it is not, which stops a flip that can still be undone. */
static void row_answer(struct flip *flip, const struct flip_event *event)
{
    const uint64_t number = event->ticket & ~FLIP_ROW_TICKET;
    const bool awaited = flip->await.ticket == event->ticket;
    if (event->kind == FLIP_EVENT_DONE && number > flip->durable) {
        flip->durable = number;
    }
    flip_promise_row_answer(flip, number, event);
    if (awaited) {
        answer(flip, event);
    } else if (event->kind == FLIP_EVENT_FAILED) {
        struct error error = event->error;
        if (flip->mode == FLIP_MODE_FORWARD && flip->phase < FLIP_PHASE_COMMIT) {
            flip_undo(flip, &error, FLIP_OUTCOME_ABORTED);
        } else {
            flip_alarm(flip, &error);
        }
    } else {
        flip_promise_next(flip); /* "off" is on disk: the names may be emptied */
    }
}

static void any_answer(struct flip *flip, const struct flip_event *event)
{
    if ((event->ticket & FLIP_ROW_TICKET) != 0) {
        row_answer(flip, event);
    } else if (event->ticket != 0 && event->ticket == flip->watch.probe.ticket) {
        flip_watch_answer(flip, event);
    } else if (event->ticket != 0 && event->ticket == flip->await.ticket) {
        answer(flip, event);
    }
}

static void expired(struct flip *flip)
{
    struct error error;
    if (!flip->hold.stands) {
        return;
    }
    flip->hold.stands = false;
    flip->hold.over = true;
    error_set(&error, ERROR_TIMEOUT, "the hold reached flip.max_hold in the phase %s",
              flip_phase_name(flip->phase));
    if (flip->mode == FLIP_MODE_FORWARD && flip->phase <= FLIP_PHASE_COMMIT) {
        flip_undo(flip, &error, FLIP_OUTCOME_ABORTED);
    } else {
        flip_alarm(flip, &error);
    }
}

static void abort_asked(struct flip *flip, const struct flip_event *event)
{
    struct error ignored;
    if (!flip_may_abort(flip, &ignored)) {
        return;
    }
    flip->abort_asked = true;
    flip->why = event->error;
    /* A transaction of ours on its way is waited for: its answer is near, and known is better than lost. */
    if (!flip_touches_cluster(flip->await.action)) {
        struct error why = event->error;
        flip_undo(flip, &why, FLIP_OUTCOME_ABORTED);
    }
}

static void retry(struct flip *flip);

/* A side is back: what waits to be tried again is tried now, not after a pause that had grown meanwhile. */
static void contact(struct flip *flip)
{
    const bool idle = flip->await.action == FLIP_ACTION_NONE;
    flip->contact = true;
    if (flip->mode == FLIP_MODE_STEADY && idle) {
        flip_steady(flip);
    } else if ((flip->mode == FLIP_MODE_RECOVER || flip->mode == FLIP_MODE_UNDECIDED) && idle) {
        flip->retry.at_us = 0;
        flip_learn(flip);
    } else if (flip_running(flip) && flip->retry.tries > 0) {
        flip->retry.tries = 1;
        if (idle && flip->retry.at_us != 0) {
            retry(flip);
        }
    }
}

static void prepared(struct flip *flip, const struct flip_event *event)
{
    flip->prepared = true;
    for (int i = 0; i < SIDE_COUNT; i++) {
        flip->facts.sides[i].identity_changed = false; /* it is what prepare has recorded */
    }
    if (flip->history.known && flip->history.active == event->side && flip->history.epoch == event->epoch &&
        !flip->history.finalized) {
        return;
    }
    struct record row = {.kind = RECORD_STEADY, .side = event->side, .epoch = event->epoch};
    (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    struct flip_request request = {.kind = FLIP_ACTION_ACTIVE, .side = event->side, .epoch = event->epoch};
    flip_tell(flip, &request);
    flip->promise.names = FLIP_NAMES_UNKNOWN;
    flip_promise_next(flip);
}

static void retry(struct flip *flip)
{
    flip->retry.at_us = 0;
    switch (flip->mode) {
    case FLIP_MODE_FORWARD:
        flip_step_start(flip);
        break;
    case FLIP_MODE_UNDO:
        flip_undo_next(flip);
        break;
    case FLIP_MODE_BACK:
        flip_back_next(flip);
        break;
    case FLIP_MODE_RESOLVE:
    case FLIP_MODE_RECOVER:
    case FLIP_MODE_UNDECIDED:
        flip_learn(flip);
        break;
    case FLIP_MODE_STEADY:
        if (!flip_attach_standby(flip)) {
            flip_steady(flip);
        }
        break;
    case FLIP_MODE_DEPOSED:
        break;
    }
}

static void tick(struct flip *flip)
{
    if (flip->await.action != FLIP_ACTION_NONE && flip->now_us >= flip->await.guard_us) {
        struct flip_event lost = {.kind = FLIP_EVENT_FAILED, .uncertain = true, .now_us = flip->now_us};
        error_set(&lost.error, ERROR_TIMEOUT, "no answer to %s in time",
                  flip_action_name(flip->await.action));
        answer(flip, &lost);
        return;
    }
    if (flip->retry.at_us != 0 && flip->now_us >= flip->retry.at_us) {
        retry(flip);
        return;
    }
    if (flip->mode == FLIP_MODE_FORWARD) {
        flip_forward_tick(flip);
    } else if (flip->mode == FLIP_MODE_STEADY) {
        flip_watch_tick(flip);
        flip_promise_tick(flip);
    }
}

void flip_init(struct flip *flip, struct flip_port port, const struct flip_options *options)
{
    memset(flip, 0, sizeof *flip);
    flip->port = port;
    flip->options = *options;
    flip->mode = FLIP_MODE_RECOVER;
}

void flip_step(struct flip *flip, const struct flip_event *event)
{
    flip->now_us = event->now_us;
    flip->wall_us = event->wall_us;
    if (flip->mode == FLIP_MODE_DEPOSED) {
        if (event->kind == FLIP_EVENT_FOLLOW) {
            flip_follow(flip, event);
        }
        return;
    }
    switch (event->kind) {
    case FLIP_EVENT_RECOVER:
        flip_recover(flip, event);
        break;
    case FLIP_EVENT_START:
        flip_make_way(flip);
        ENSURE(flip->mode == FLIP_MODE_STEADY);
        flip->options = *event->options;
        flip_begin(flip, event->spec);
        break;
    case FLIP_EVENT_DONE:
    case FLIP_EVENT_FAILED:
    case FLIP_EVENT_FACTS:
        any_answer(flip, event);
        break;
    case FLIP_EVENT_PROGRESS:
        flip->hold.counts = event->counts;
        break;
    case FLIP_EVENT_DRAINED:
        flip->hold.counts = event->counts;
        flip->hold.drained = true;
        flip_drained(flip);
        break;
    case FLIP_EVENT_EXPIRED:
        expired(flip);
        break;
    case FLIP_EVENT_APPROVED:
        flip->approvals++;
        if (flip->await.action == FLIP_ACTION_APPROVAL && flip->approvals >= flip->options.approvals) {
            answer(flip, &(struct flip_event){.kind = FLIP_EVENT_DONE});
        }
        break;
    case FLIP_EVENT_ABORT:
        abort_asked(flip, event);
        break;
    case FLIP_EVENT_GATE_FAILED:
    case FLIP_EVENT_GATES_PASS:
    case FLIP_EVENT_END_WATCH:
        flip_watch_event(flip, event);
        break;
    case FLIP_EVENT_PREPARED:
        prepared(flip, event);
        break;
    case FLIP_EVENT_CONTACT:
        contact(flip);
        break;
    case FLIP_EVENT_SIDE_DEAD:
        flip_side_dead_event(flip, event);
        break;
    case FLIP_EVENT_STREAM:
        flip_stream(flip, event);
        break;
    case FLIP_EVENT_DECIDE:
        flip_decide(flip, event);
        break;
    case FLIP_EVENT_DEPOSED:
        flip_deposed(flip);
        break;
    case FLIP_EVENT_FOLLOW: /* of one that has become the owner again since */
        break;
    case FLIP_EVENT_TICK:
        tick(flip);
        break;
    }
}
