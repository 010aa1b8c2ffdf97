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

bool flip_may_start(const struct flip *flip, enum flip_kind kind, enum side target, struct error *error)
{
    if (flip->mode == FLIP_MODE_DEPOSED) {
        *error = flip->why;
        return false;
    }
    if (flip->mode == FLIP_MODE_RECOVER || flip->mode == FLIP_MODE_UNDECIDED) {
        error_set(error, ERROR_UNDECIDED, "it isn't decided yet which side is active%s%s",
                  flip->why.code != ERROR_NONE ? ": " : "", flip->why.message);
        return error_remedy(error, "%s", flip->why.remedy);
    }
    if (flip_running(flip)) {
        error_set(error, ERROR_FLIP_RUNNING, "flip %" PRIu64 " (%s to %s) is in the phase %s", flip->spec.id,
                  flip_kind_name(flip->spec.kind), side_name(flip_target(flip)), flip_phase_text(flip));
        return error_remedy(error, flip->mode == FLIP_MODE_FORWARD && flip->phase < FLIP_PHASE_COMMIT
                                       ? "wait for it (switchback watch), or switchback abort"
                                       : "wait for its end: switchback watch");
    }
    if (flip->history.known && flip->history.active == target) {
        return error_set(error, ERROR_ALREADY_ACTIVE, "%s is already active", side_name(target));
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
    if (kind == FLIP_KIND_FLIP_BACK && flip->history.done.kind == FLIP_KIND_CUTOVER) {
        spec->of = flip->history.done.flip;
    }
}
