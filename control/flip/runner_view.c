/* What others may ask of a runner: nothing here changes it. */
#include "control/flip/runner.h"
#include "control/flip/runner_internal.h"

#include <inttypes.h>
#include <stdio.h>

static int64_t earlier(int64_t wake_us, int64_t at_us)
{
    return at_us != 0 && at_us < wake_us ? at_us : wake_us;
}

int64_t flip_wake(const struct flip *flip)
{
    int64_t wake_us = INT64_MAX;
    if (flip->mode == FLIP_MODE_DEPOSED) {
        return wake_us;
    }
    if (flip->await.action != FLIP_ACTION_NONE) {
        wake_us = earlier(wake_us, flip->await.guard_us);
    }
    wake_us = earlier(wake_us, flip->retry.at_us);
    if (flip->mode == FLIP_MODE_STEADY) {
        const int64_t promise_us = flip_promise_wake(flip);
        wake_us = promise_us < wake_us ? promise_us : wake_us;
    }
    if (flip->mode == FLIP_MODE_FORWARD && flip->await.action == FLIP_ACTION_DRAIN) {
        wake_us = earlier(wake_us, flip->hold.drain_until_us);
    }
    if (flip->mode == FLIP_MODE_STEADY && flip->watch.on) {
        wake_us = earlier(wake_us, flip->watch.until_us);
        wake_us = earlier(wake_us, flip->watch.retry.at_us);
        if (flip->watch.probe.action != FLIP_ACTION_NONE) {
            wake_us = earlier(wake_us, flip->watch.probe.guard_us);
        }
    }
    return wake_us;
}

bool flip_running(const struct flip *flip)
{
    return flip->mode == FLIP_MODE_FORWARD || flip->mode == FLIP_MODE_UNDO ||
           flip->mode == FLIP_MODE_RESOLVE || flip->mode == FLIP_MODE_BACK;
}

const char *flip_phase_text(const struct flip *flip)
{
    if (flip_running(flip)) {
        return flip_phase_name(flip->phase == FLIP_PHASE_NONE ? flip_table_first(flip->spec.kind)
                                                              : flip->phase);
    }
    return flip->watch.on ? flip_phase_name(FLIP_PHASE_WATCH) : flip_phase_name(FLIP_PHASE_NONE);
}

static bool may_begin(const struct flip *flip, enum flip_kind kind, enum side target, struct error *error)
{
    /* The side that is left may be dead: what goes on of its flip is not waited for. */
    const bool leaves = kind == FLIP_KIND_TAKEOVER &&
                        ((flip->mode == FLIP_MODE_FORWARD && flip->settled) || flip_is_stuck(flip));
    if (flip->mode == FLIP_MODE_DEPOSED) {
        *error = flip->why;
        return false;
    }
    if (flip->mode == FLIP_MODE_RECOVER || flip->mode == FLIP_MODE_UNDECIDED) {
        error_set(error, ERROR_UNDECIDED, "it isn't decided yet which side is active%s%s",
                  flip->why.code != ERROR_NONE ? ": " : "", flip->why.message);
        return error_remedy(error, "%s", flip->why.remedy);
    }
    if (flip_running(flip) && !leaves) {
        error_set(error, ERROR_FLIP_RUNNING, "flip %" PRIu64 " (%s to %s) is in the phase %s", flip->spec.id,
                  flip_kind_name(flip->spec.kind), side_name(flip_target(flip)), flip_phase_text(flip));
        return error_remedy(error, flip->mode == FLIP_MODE_FORWARD && flip->phase < FLIP_PHASE_COMMIT
                                       ? "wait for it (switchback watch), or switchback abort"
                                       : "wait for its end: switchback watch");
    }
    if (flip->history.known && flip->history.active == target) {
        error_set(error, ERROR_ALREADY_ACTIVE, "%s is already active", side_name(target));
        return error_remedy(error,
                            kind == FLIP_KIND_CUTOVER ? "switchback flip-back goes back to %s"
                                                      : "switchback cutover goes to %s",
                            side_name(side_other(target)));
    }
    if (!flip->prepared || flip->history.epoch == 0 || flip->history.finalized) {
        error_set(error, ERROR_NOT_PREPARED, "there is no replication from %s to %s yet",
                  side_name(side_other(target)), side_name(target));
        return error_remedy(error, "switchback prepare");
    }
    if (kind == FLIP_KIND_CUTOVER && flip->watch.on) {
        error_set(error, ERROR_IN_WATCH, "flip %" PRIu64 " is still being watched", flip->history.done.flip);
        return error_remedy(error, "switchback flip-back goes back now; switchback finalize ends the watch");
    }
    return true;
}

bool flip_may_start(const struct flip *flip, enum flip_kind kind, enum side target, struct error *error)
{
    if (!may_begin(flip, kind, target, error)) {
        return false;
    }
    if (kind != FLIP_KIND_TAKEOVER && !flip->routed) {
        error_set(error, ERROR_UNREACHABLE, "%s, the active side, has not been met since the start",
                  side_name(flip->history.active));
        return error_remedy(error, "bring it back: clients wait until it was met");
    }
    if (kind != FLIP_KIND_TAKEOVER && flip_side_dead(flip)) {
        const char *active = side_name(flip->history.active);
        error_set(error, ERROR_SIDE_DEAD, "%s", flip->dead.why.message);
        return error_remedy(error, "bring %s back; switchback flip-back --accept-loss goes without it",
                            active);
    }
    return true;
}

bool flip_may_take_over(const struct flip *flip, enum side target, bool accept_loss, struct error *error)
{
    const char *active = side_name(flip->history.active);
    if (!may_begin(flip, FLIP_KIND_TAKEOVER, target, error)) {
        return false;
    }
    if (accept_loss) {
        return true;
    }
    if (flip->facts.sides[target].identity_changed) {
        error_set(error, ERROR_COMMITS_AT_RISK,
                  "%s is not the cluster that was prepared: it was restored or "
                  "promoted, and may lack what it had",
                  side_name(target));
        return error_remedy(error, "bring %s back; --accept-loss goes to %s as it is", active,
                            side_name(target));
    }
    if (!flip_side_dead(flip)) {
        error_set(error, ERROR_COMMITS_AT_RISK,
                  "%s answers, and what it has acknowledged may not be on %s yet", active, side_name(target));
        return error_remedy(error, "switchback flip-back without --accept-loss waits for it");
    }
    if (!flip_promise_stands(flip)) {
        error_set(error, ERROR_COMMITS_AT_RISK, "what %s acknowledged last may not be on %s: %s", active,
                  side_name(target), flip->dead.why.message);
        return error_remedy(error, "bring %s back; --accept-loss goes to %s without what it lacks", active,
                            side_name(target));
    }
    return true;
}

bool flip_may_decide(const struct flip *flip, enum side side, struct error *error)
{
    struct recovery_choice choices[SIDE_COUNT];
    if (flip->mode == FLIP_MODE_DEPOSED) {
        *error = flip->why;
        return false;
    }
    /* A flip that can end neither way is a doubt like any other. */
    const bool stuck =
        (flip->mode == FLIP_MODE_UNDO || flip->mode == FLIP_MODE_RESOLVE || flip->mode == FLIP_MODE_BACK) &&
        flip->retry.tries >= FLIP_STUCK_TRIES;
    const bool doubt = flip->mode == FLIP_MODE_RECOVER || flip->mode == FLIP_MODE_UNDECIDED || stuck;
    if (!doubt || flip->why.code == ERROR_NONE) {
        error_set(error, ERROR_USAGE, "there is nothing to decide");
        return error_remedy(error, "switchback status says what goes on");
    }
    recovery_choices(&flip->history, &flip->facts, choices);
    if (!choices[side].possible) {
        *error = choices[side].why_not;
        return false;
    }
    return true;
}

bool flip_may_abort(const struct flip *flip, struct error *error)
{
    if (!flip_running(flip)) {
        return error_set(error, ERROR_NO_FLIP, "no flip is running");
    }
    if (flip->mode == FLIP_MODE_UNDO || flip->abort_asked) {
        return error_set(error, ERROR_NO_FLIP, "flip %" PRIu64 " is being undone already", flip->spec.id);
    }
    if (flip->mode != FLIP_MODE_FORWARD || flip->phase >= FLIP_PHASE_COMMIT) {
        error_set(error, ERROR_TOO_LATE, "flip %" PRIu64 " is past its commit point", flip->spec.id);
        return error_remedy(error, "switchback flip-back, once it is done");
    }
    return true;
}

void flip_next_spec(const struct flip *flip, enum flip_kind kind, struct flip_spec *spec)
{
    *spec = (struct flip_spec){.id = flip->last_flip + 1,
                               .kind = kind,
                               .source = flip->history.active,
                               .epoch = flip->history.epoch};
    if (kind != FLIP_KIND_CUTOVER && flip->history.done.kind == FLIP_KIND_CUTOVER) {
        spec->of = flip->history.done.flip;
    }
}
