#include "control/flip/recovery.h"

#include "control/flip/recovery_distrust.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void decide(struct recovery *recovery, enum recovery_verdict verdict)
{
    recovery->verdict = verdict;
}

static void decide_steady(struct recovery *recovery, enum side active, uint64_t epoch)
{
    recovery->active = active;
    recovery->epoch = epoch;
    decide(recovery, RECOVERY_STEADY);
}

static bool prepared(const struct flip_side_facts *facts)
{
    return facts->reachable && facts->installed > 0;
}

/* --- a flip that the journal knows to be under way */

static void take_spec(struct flip_spec *spec, const struct flip_story *story)
{
    *spec = (struct flip_spec){.id = story->flip,
                               .kind = story->kind,
                               .source = story->source,
                               .epoch = story->epoch,
                               .automatic = story->automatic,
                               .of = story->of};
    memcpy(spec->key, story->key, sizeof spec->key);
}

static void undecided_ahead(struct recovery *recovery, const struct flip_spec *spec, uint64_t epoch,
                            const char *journal_says)
{
    const char *target = side_name(side_other(spec->source));
    decide(recovery, RECOVERY_UNDECIDED);
    error_set(&recovery->why, ERROR_UNDECIDED,
              "flip %" PRIu64 ": %s is at epoch %" PRIu64
              ", but %s (was the state directory restored from an "
              "older copy, or a cluster?)",
              spec->id, target, epoch, journal_says);
    error_remedy(
        &recovery->why,
        "compare switchback.state on both sides; the side whose data is to stay must be the active one");
}

/* Every acknowledged commit is on the target, and the source is dead or may be again: only forward, unless
 * the target itself says that it was undone (REATTACH has marked it before it let it follow again). */
static void decide_taken_over(struct recovery *recovery, const struct flip_side_facts *target)
{
    const struct flip_spec *spec = &recovery->spec;
    if (!prepared(target)) {
        decide(recovery, RECOVERY_WAIT);
        error_set(&recovery->why, ERROR_UNDECIDED,
                  "%s was about to take over from %s (flip %" PRIu64
                  "), and can't be reached: it alone knows whether it has",
                  side_name(side_other(spec->source)), side_name(spec->source), spec->id);
        error_remedy(&recovery->why, "bring %s back; what follows then is decided by itself",
                     side_name(side_other(spec->source)));
    } else if (target->aborted == spec->id && target->epoch_max <= spec->epoch) {
        decide(recovery, RECOVERY_UNDO);
    } else {
        decide(recovery, RECOVERY_FORWARD);
    }
}

static void decide_committed(const struct flip_story *story, struct recovery *recovery,
                             const struct flip_side_facts *source, const struct flip_side_facts *target)
{
    const struct flip_spec *spec = &recovery->spec;
    const bool target_open = prepared(target) && target->epoch_max == spec->epoch + 1;
    if (!source->reachable) {
        if (target_open) { /* open is only sent while the flip stands, and taken back only in the journal */
            decide(recovery, RECOVERY_FORWARD);
            return;
        }
        decide(recovery, RECOVERY_WAIT);
        error_set(&recovery->why, ERROR_UNDECIDED,
                  "flip %" PRIu64
                  " was committed; only %s knows whether it was undone, and it can't be reached",
                  spec->id, side_name(spec->source));
        error_remedy(&recovery->why, "bring %s back; the flip then ends by itself", side_name(spec->source));
        return;
    }
    /* In one database lowered, in another not yet: the undo was under way, and the first may have written. */
    const bool undone = source->aborted == spec->id && source->epoch_max == spec->epoch && !target_open;
    const bool fenced = source->fenced_for == spec->id && source->epoch_max == spec->epoch &&
                        source->fenced_for_count == source->installed && source->aborted != spec->id;
    const bool turned = target_open && target->epoch_min == target->epoch_max && source->active == 0;
    if (source->epoch_max == spec->epoch + 2) {
        decide(recovery, RECOVERY_BACK);
    } else if (fenced && story->adopted && !target->reachable) {
        decide(recovery, RECOVERY_WAIT);
        error_set(&recovery->why, ERROR_UNDECIDED,
                  "flip %" PRIu64 " was committed, and may have been released: %s can't be reached", spec->id,
                  side_name(side_other(spec->source)));
        error_remedy(&recovery->why, "bring %s back; the flip then ends by itself",
                     side_name(side_other(spec->source)));
    } else if (undone) {
        decide(recovery, RECOVERY_UNDO);
    } else if (fenced || turned) {
        decide(recovery, RECOVERY_FORWARD);
    } else {
        undecided_ahead(recovery, spec, target->epoch_max,
                        "the source carries neither its fence nor its undoing");
    }
}

static void decide_running(const struct flip_story *story, const struct flip_facts *facts,
                           struct recovery *recovery)
{
    const struct flip_side_facts *source = &facts->sides[story->source];
    const struct flip_side_facts *target = &facts->sides[side_other(story->source)];
    take_spec(&recovery->spec, story);
    if (story->released) {
        if (prepared(target) && target->epoch_max < story->epoch + 1) {
            undecided_ahead(recovery, &recovery->spec, target->epoch_max,
                            "the journal says that it went further");
        } else {
            decide(recovery, RECOVERY_FORWARD);
        }
    } else if (story->back) {
        decide(recovery, story->kind == FLIP_KIND_TAKEOVER ? RECOVERY_UNDO : RECOVERY_BACK);
    } else if (story->committed && story->kind == FLIP_KIND_TAKEOVER) {
        decide_taken_over(recovery, target);
    } else if (story->committed) {
        decide_committed(story, recovery, source, target);
    } else if (prepared(target) && target->epoch_max > story->epoch) {
        undecided_ahead(recovery, &recovery->spec, target->epoch_max, "the journal knows of no commit");
    } else if (!story->fence_intended) {
        decide_steady(recovery, story->source, story->epoch);
    } else {
        decide(recovery, RECOVERY_UNDO);
    }
}

/* --- what the clusters say by themselves */

static void wait_for(struct recovery *recovery, enum side side, const char *why)
{
    decide(recovery, RECOVERY_WAIT);
    error_set(&recovery->why, ERROR_UNDECIDED, "%s can't be reached, and %s", side_name(side), why);
    error_remedy(&recovery->why, "bring %s back; what follows then is decided by itself", side_name(side));
}

/* The journal may be an older copy, whose word would send clients to a side that was left behind. */
static void wait_for_either(struct recovery *recovery)
{
    decide(recovery, RECOVERY_WAIT);
    error_set(&recovery->why, ERROR_UNDECIDED,
              "neither side can be reached, to say whether the journal is the last word");
    error_remedy(&recovery->why, "bring either side back; what follows then is decided by itself");
}

/* A side that stands fenced for a flip, as the active one: the flip is under way. */
static bool decide_fenced(const struct flip_facts *facts, enum side source, struct recovery *recovery)
{
    const struct flip_side_facts *from = &facts->sides[source];
    const struct flip_side_facts *to = &facts->sides[side_other(source)];
    if (!prepared(from) || from->fenced_for == 0 || from->active == 0) {
        return false;
    }
    if (prepared(to) && to->active > 0 && to->epoch_max == from->epoch_min + 1 && to->opened_for != 0 &&
        to->opened_for != from->fenced_for) {
        return false; /* it made way for a takeover: what was left behind still has its fence */
    }
    recovery->spec = (struct flip_spec){
        .id = from->fenced_for, .kind = FLIP_KIND_CUTOVER, .source = source, .epoch = from->epoch_min};
    if (!to->reachable) {
        wait_for(recovery, side_other(source), "it alone knows whether the flip under way was opened on it");
    } else {
        decide(recovery,
               prepared(to) && to->epoch_max == from->epoch_min + 1 ? RECOVERY_FORWARD : RECOVERY_UNDO);
    }
    return true;
}

/* Open in one database and not in another: an opening was under way, whose source holds no fence (else
 * decide_fenced has found it): a takeover. It is finished, since it may have been released in no way before.
 */
static bool decide_half_open(const struct flip_facts *facts, enum side target, struct recovery *recovery)
{
    const struct flip_side_facts *to = &facts->sides[target];
    const struct flip_side_facts *from = &facts->sides[side_other(target)];
    const uint64_t last = to->last_flip > from->last_flip ? to->last_flip : from->last_flip;
    if (!prepared(to) || !from->reachable || to->active == 0 || to->standby == 0 ||
        to->epoch_max <= to->epoch_min || from->epoch_max >= to->epoch_max) {
        return false;
    }
    /* Under its own number: the database that is open knows by it that it is open already. */
    recovery->spec = (struct flip_spec){.id = to->opened_for != 0 ? to->opened_for : last + 1,
                                        .kind = FLIP_KIND_TAKEOVER,
                                        .source = side_other(target),
                                        .epoch = to->epoch_max - 1};
    decide(recovery, RECOVERY_FORWARD);
    return true;
}

static void decide_two_active(const struct flip_facts *facts, struct recovery *recovery)
{
    const uint64_t blue = facts->sides[SIDE_BLUE].epoch_max;
    const uint64_t green = facts->sides[SIDE_GREEN].epoch_max;
    if (blue != green) { /* the lower one lost a flip, and is fenced on contact */
        decide_steady(recovery, blue > green ? SIDE_BLUE : SIDE_GREEN, blue > green ? blue : green);
        return;
    }
    decide(recovery, RECOVERY_UNDECIDED);
    error_set(&recovery->why, ERROR_UNDECIDED,
              "both sides say that they are active at epoch %" PRIu64 " and neither is fenced", blue);
    error_remedy(&recovery->why,
                 "find out which side took the last writes; make the other one standby by prepare");
}

static void decide_by_clusters(const struct flip_history *history, const struct flip_facts *facts,
                               enum side initial, struct recovery *recovery)
{
    recovery->from_clusters = true;
    for (int i = 0; i < SIDE_COUNT; i++) {
        if (decide_fenced(facts, (enum side)i, recovery)) {
            return;
        }
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        if (decide_half_open(facts, (enum side)i, recovery)) {
            return;
        }
    }
    const bool blue = prepared(&facts->sides[SIDE_BLUE]) && facts->sides[SIDE_BLUE].active > 0;
    const bool green = prepared(&facts->sides[SIDE_GREEN]) && facts->sides[SIDE_GREEN].active > 0;
    if (blue && green) {
        decide_two_active(facts, recovery);
        return;
    }
    if (blue || green) {
        const enum side active = blue ? SIDE_BLUE : SIDE_GREEN;
        const struct flip_side_facts *other = &facts->sides[side_other(active)];
        if (other->reachable) {
            decide_steady(recovery, active, facts->sides[active].epoch_max);
        } else {
            wait_for(recovery, side_other(active),
                     "without a journal that knows of it, it may be the active side at a later epoch");
        }
        return;
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        const enum side side = (enum side)i;
        if (prepared(&facts->sides[side]) && !facts->sides[side_other(side)].reachable) {
            wait_for(recovery, side_other(side), "the side that can is not the active one");
            return;
        }
    }
    if (prepared(&facts->sides[SIDE_BLUE]) && prepared(&facts->sides[SIDE_GREEN])) {
        decide(recovery, RECOVERY_UNDECIDED);
        error_set(&recovery->why, ERROR_UNDECIDED, "neither side says that it is the active one");
        error_remedy(&recovery->why,
                     "find out which side took the last writes; make the other standby by prepare");
        return;
    }
    recovery->from_clusters = false;
    if (!facts->sides[initial].reachable && !history->unprepared) {
        /* A new pair, or one whose journal was lost: only the clusters know. */
        wait_for(recovery, initial, "nothing else says which side is active");
        return;
    }
    recovery->active = initial;
    decide(recovery, RECOVERY_UNPREPARED);
}

/* --- what the journal says is steady, unless the clusters know better */

static bool clusters_know_better(const struct flip_history *history, const struct flip_facts *facts)
{
    const struct flip_side_facts *active = &facts->sides[history->active];
    const struct flip_side_facts *other = &facts->sides[side_other(history->active)];
    if (prepared(active) && (active->epoch_max > history->epoch || active->fenced_for > history->last_flip ||
                             active->active == 0)) {
        return true;
    }
    return prepared(other) && (other->epoch_max > history->epoch ||
                               (!active->reachable && other->last_flip > history->last_flip));
}

static void decide_known(const struct flip_history *history, const struct flip_facts *facts,
                         enum side initial, struct recovery *recovery)
{
    const struct flip_side_facts *active = &facts->sides[history->active];
    if (clusters_know_better(history, facts) || facts->epoch_seen > history->epoch) {
        decide_by_clusters(history, facts, initial, recovery);
        return;
    }
    if (prepared(active) && active->epoch_min < history->epoch) {
        decide(recovery, RECOVERY_UNDECIDED);
        error_set(&recovery->why, ERROR_UNDECIDED,
                  "%s was active at epoch %" PRIu64 " and now says %" PRIu64
                  ": it was restored from before the last "
                  "flip",
                  side_name(history->active), history->epoch, active->epoch_min);
        error_remedy(&recovery->why, "decide whose data counts; the other side must be prepared anew");
        return;
    }
    decide_steady(recovery, history->active, history->epoch);
}

void recovery_decide(const struct flip_history *history, const struct flip_facts *facts, enum side initial,
                     struct recovery *recovery)
{
    struct flip_facts ours = *facts;
    const bool running = flip_story_running(&history->flip);
    memset(recovery, 0, sizeof *recovery);
    if (recovery_is_foreign(history, &ours, recovery)) {
        return;
    }
    if (history->known && history->epoch > 0 && !ours.sides[SIDE_BLUE].reachable &&
        !ours.sides[SIDE_GREEN].reachable) {
        wait_for_either(recovery);
    } else if (!ours.owned_since && running && !recovery_journal_is_older(history, &ours)) {
        decide_running(&history->flip, &ours, recovery);
    } else if (!ours.owned_since && history->known && history->epoch > 0 && !running) {
        decide_known(history, &ours, initial, recovery);
    } else {
        decide_by_clusters(history, &ours, initial, recovery);
    }
    const enum side other = side_other(recovery->active);
    if (recovery->verdict == RECOVERY_STEADY && recovery->epoch < facts->epoch_seen &&
        !ours.sides[other].reachable) {
        wait_for(recovery, other, "it has been further than the one that can");
    }
    /* No flip is undone at a side that is known to be behind: the journal is an old copy, then. */
    const enum side target = side_other(recovery->spec.source);
    if (recovery->verdict == RECOVERY_UNDO && recovery->spec.epoch < facts->epoch_seen &&
        !ours.sides[target].reachable) {
        wait_for(recovery, target, "it has been further than the one that can");
    }
}

const char *recovery_verdict_name(enum recovery_verdict verdict)
{
    static const char *const names[] = {
        [RECOVERY_UNPREPARED] = "unprepared",
        [RECOVERY_STEADY] = "steady",
        [RECOVERY_FORWARD] = "forward",
        [RECOVERY_UNDO] = "undo",
        [RECOVERY_BACK] = "back",
        [RECOVERY_WAIT] = "wait",
        [RECOVERY_UNDECIDED] = "undecided",
    };
    return names[verdict];
}
