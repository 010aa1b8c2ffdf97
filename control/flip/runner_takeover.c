/*
 * The active side is dead (flip.md's chapter): when a takeover begins, and how it is undone. Its rows are the
 * table's; what differs from other flips is that nothing can be asked of the source.
 *
 * No fence on the source says whether an undone takeover had committed. The target says it: `aborted = flip`
 * in its state rows, written by REATTACH before it follows again. Where the target can't be reached, a row
 * BACK in the journal says it; without either of the two nobody is served at the source once the commit's
 * row was on its way to the disk, since it may be there, and recovery would then open the target.
 */
#include "control/flip/runner_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool flip_side_dead(const struct flip *flip)
{
    return flip->dead.seen_us != 0 && flip->now_us - flip->dead.seen_us <= FLIP_FRESH_US;
}

bool flip_takes_over(const struct flip *flip)
{
    const struct flip_history *history = &flip->history;
    /* A side that was restored meanwhile has lost what it once confirmed. */
    const bool whole = !flip->facts.sides[side_other(history->active)].identity_changed;
    return history->known && history->watching && flip_promise_stands(flip) && whole &&
           flip->options.watch_flip_back == FLIP_BACK_AUTO;
}

/* --- when it begins --- */

/* Traffic is released, and what goes on of the flip can wait. */
static void leave_settled(struct flip *flip)
{
    flip_drop_await(flip);
    flip->retry = (struct flip_retry){0};
    flip->mode = FLIP_MODE_STEADY;
    flip->phase = FLIP_PHASE_NONE;
    flip->in_doubt = false;
}

/* A flip-back whose source died can't be undone there: its fence is seen to when the side is met again. */
static void give_way(struct flip *flip)
{
    if (flip->armed) {
        const struct flip_request disarm = flip_request(flip, FLIP_ACTION_DISARM);
        flip_tell(flip, &disarm);
        flip->armed = false;
    }
    flip_drop_await(flip);
    flip->fenced = flip->in_doubt = false;
    flip->hold.left = flip->hold.stands || (flip->hold.over && flip->hold.refuses);
    flip->retry = (struct flip_retry){0};
    error_set(&flip->why, ERROR_SIDE_DEAD, "%s does not answer: a takeover follows",
              side_name(flip->spec.source));
    flip_finish(flip, FLIP_OUTCOME_ABORTED);
    flip->mode = FLIP_MODE_STEADY;
    flip->phase = FLIP_PHASE_NONE;
    flip->contact = true;
}

bool flip_is_stuck(const struct flip *flip)
{
    return flip->mode == FLIP_MODE_UNDO && (flip->fenced || flip->spec.kind == FLIP_KIND_TAKEOVER) &&
           flip->retry.tries > 0 && flip_side_dead(flip);
}

void flip_make_way(struct flip *flip)
{
    if (flip->mode == FLIP_MODE_FORWARD && flip->settled) {
        leave_settled(flip);
    } else if (flip_is_stuck(flip)) {
        give_way(flip);
    }
}

static void begin(struct flip *flip)
{
    struct flip_spec spec;
    flip_next_spec(flip, FLIP_KIND_TAKEOVER, &spec);
    spec.automatic = true;
    (void)snprintf(spec.reason, sizeof spec.reason, "%.*s", RECORD_TEXT_SIZE - 1, flip->dead.why.message);
    flip_begin(flip, &spec);
}

static void alarm_dead(struct flip *flip)
{
    const enum side active = flip->history.active;
    const char *other = side_name(side_other(active));
    struct error why;
    if (flip_promise_stands(flip)) {
        error_set(&why, ERROR_SIDE_DEAD, "%s; %s has every commit that it acknowledged",
                  flip->dead.why.message, other);
        error_remedy(&why, "switchback flip-back goes to %s and loses nothing", other);
    } else {
        error_set(&why, ERROR_SIDE_DEAD, "%s; what it acknowledged and %s doesn't have would be lost there",
                  flip->dead.why.message, other);
        error_remedy(&why, "bring %s back; switchback flip-back --accept-loss goes to %s without it",
                     side_name(active), other);
    }
    flip_alarm(flip, &why);
}

/* Something of a flip still goes on whose traffic is released; the promise stands, so its turn is done. */
static bool is_only_hooked(const struct flip *flip)
{
    return flip->mode == FLIP_MODE_FORWARD && flip->settled && flip->await.action == FLIP_ACTION_HOOK_AFTER;
}

void flip_side_dead_event(struct flip *flip, const struct flip_event *event)
{
    struct flip_dead *dead = &flip->dead;
    const struct flip_history *history = &flip->history;
    if (!history->known || event->side != history->active) {
        return;
    }
    if (!flip_side_dead(flip)) {
        *dead = (struct flip_dead){.since_us = flip->now_us};
    }
    dead->seen_us = flip->now_us;
    dead->why = event->error;
    if (flip->mode != FLIP_MODE_STEADY && !is_only_hooked(flip) && !flip_is_stuck(flip)) {
        return;
    }
    if (!flip_takes_over(flip)) {
        if (!dead->told && flip->prepared && !history->finalized) {
            dead->told = true;
            alarm_dead(flip);
        }
    } else if (dead->retry.at_us == 0 || flip->now_us >= dead->retry.at_us) {
        dead->retry.at_us = 0;
        flip_make_way(flip);
        begin(flip);
    }
}

/* --- how it is undone --- */

static void ask_reattach(struct flip *flip, uint64_t id, enum side target, uint64_t epoch)
{
    struct flip_request request = {
        .kind = FLIP_ACTION_REATTACH, .flip = id, .side = target, .epoch = epoch, .phase = flip->phase};
    flip_ask(flip, &request, flip->now_us + FLIP_UNDO_US);
}

void flip_attached(struct flip *flip)
{
    struct record row = {
        .kind = RECORD_ATTACHED, .flip = flip->history.flip.flip, .side = flip->history.active};
    row.epoch = flip->history.epoch;
    (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
}

bool flip_start_reattach(struct flip *flip)
{
    if (!flip->cut_off) {
        return false;
    }
    ask_reattach(flip, flip->spec.id, flip_target(flip), flip->spec.epoch + 1);
    return true;
}

static void write_given_up(struct flip *flip)
{
    struct record row = flip_row_of(flip, RECORD_BACK);
    (void)snprintf(row.text, sizeof row.text, "%s can't be reached, nor opened",
                   side_name(flip_target(flip)));
    const uint64_t number = flip_write(flip, &row, FLIP_ACTION_JOURNAL_BACK);
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL_BACK,
                                      .ticket = FLIP_ROW_TICKET | number,
                                      .guard_us = flip->now_us + FLIP_ROW_US};
}

/* The target can't be told: it is when it comes back (history.detached). */
static void go_on_without(struct flip *flip, const struct flip_event *event)
{
    if (flip->commit_asked && !flip->given_up) {
        if (flip->retry.tries == 0) {
            flip_alarm(flip, &event->error);
        }
        write_given_up(flip);
        return;
    }
    flip_alarm(flip, &event->error);
    flip->in_doubt = flip->cut_off = false;
    flip->retry = (struct flip_retry){0};
    flip->contact = true;
    flip_undo_next(flip);
}

/*
 * Nobody is served at a dead side, nor at one that an earlier flip has left fenced (a flip-back whose source
 * died under it): both are seen to before the clients are let go there. Meanwhile the takeover may be tried
 * again (flip_is_stuck).
 */
bool flip_look_at_source(struct flip *flip)
{
    if (flip->spec.kind != FLIP_KIND_TAKEOVER || flip->source_seen) {
        return false;
    }
    flip_learn(flip);
    return true;
}

static void look_later(struct flip *flip, const struct flip_event *event)
{
    if (flip->retry.tries == 0) {
        struct error why = event->error;
        if (event->kind != FLIP_EVENT_FAILED) {
            error_set(&why, ERROR_UNREACHABLE,
                      "%s can't be reached, and %s could not take over: nobody is served",
                      side_name(flip->spec.source), side_name(flip_target(flip)));
            error_remedy(&why, "bring either side back; switchback flip-back tries again");
        }
        flip_alarm(flip, &why);
    }
    flip_retry_later(flip, &flip->retry);
}

static void source_learned(struct flip *flip, const struct flip_event *event)
{
    const struct flip_side_facts *source = &flip->facts.sides[flip->spec.source];
    if (event->kind == FLIP_EVENT_FAILED || !source->reachable) {
        look_later(flip, event);
    } else if (source->fenced_for != 0) {
        struct flip_request request = flip_request(flip, FLIP_ACTION_UNDO);
        request.flip = source->fenced_for;
        flip_ask(flip, &request, flip->now_us + FLIP_UNDO_US);
    } else {
        flip->source_seen = true;
        flip_undo_next(flip);
    }
}

bool flip_reattach_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    const bool ok = event->kind != FLIP_EVENT_FAILED;
    if (flip->spec.kind != FLIP_KIND_TAKEOVER) {
        return false;
    }
    switch (action) {
    case FLIP_ACTION_LEARN: /* both sides may be away: what is in doubt then is seen to on contact */
        if (!flip->cut_off) {
            flip->in_doubt = false;
            source_learned(flip, event);
            return true;
        }
        if (!ok) {
            go_on_without(flip, event);
            return true;
        }
        return false;
    case FLIP_ACTION_UNDO:
        if (!ok) {
            look_later(flip, event);
            return true;
        }
        flip->source_seen = true;
        break;
    case FLIP_ACTION_REATTACH:
        if (!ok) {
            go_on_without(flip, event);
            return true;
        }
        flip->cut_off = false;
        flip_attached(flip);
        break;
    case FLIP_ACTION_JOURNAL_BACK:
        flip->given_up = ok;
        if (ok) {
            flip->cut_off = flip->in_doubt = false;
            flip->contact = true;
        } else { /* neither the target nor the disk can be told: whichever comes first */
            flip_retry_later(flip, &flip->retry);
            return true;
        }
        break;
    default:
        return false;
    }
    flip->retry = (struct flip_retry){0};
    flip_undo_next(flip);
    return true;
}

/* After the undo, or after a restart: the standby is there again, and still cut off. */
bool flip_attach_standby(struct flip *flip)
{
    const struct flip_history *history = &flip->history;
    const struct flip_side_facts *standby = &flip->facts.sides[side_other(history->active)];
    if (history->detached == 0 || flip_story_running(&history->flip) || !standby->reachable ||
        standby->active > 0) {
        return false;
    }
    ask_reattach(flip, history->detached, side_other(history->active), history->epoch + 1);
    return true;
}
