/* What each step of the table's rows asks of the world, and how long it may take. */
#include "control/flip/runner_internal.h"

#include "conf/base/ensure.h"

#include <inttypes.h>

/* Bounded so that what is left of the hold still suffices to open the target. */
int64_t flip_before_open(const struct flip *flip, int64_t duration_us)
{
    const int64_t at_us = flip->now_us + duration_us;
    const int64_t last_us = flip->hold.until_us - FLIP_OPEN_BUDGET_US;
    return at_us < last_us ? at_us : last_us;
}

/* The hook runs once nobody waits: in turn, or behind a release that nothing follows. */
static bool wants_hook_after(const struct flip *flip, enum flip_phase phase)
{
    const struct flip_options *options = &flip->options;
    const bool cutover = flip->spec.kind == FLIP_KIND_CUTOVER;
    const bool at_release = flip->lossless || flip->spec.kind == FLIP_KIND_TAKEOVER;
    return (phase == FLIP_PHASE_RELEASE) == at_release &&
           (cutover ? options->has_hook_after : options->has_hook_on_flip_back);
}

bool flip_wants(const struct flip *flip, enum flip_phase phase, enum flip_action_kind action)
{
    const struct flip_options *options = &flip->options;
    const bool cutover = flip->spec.kind == FLIP_KIND_CUTOVER;
    switch (action) {
    case FLIP_ACTION_APPROVAL:
        return flip->approvals < options->approvals;
    case FLIP_ACTION_BACKUP:
        return options->has_backup;
    case FLIP_ACTION_BACKUP_VERIFY:
        return options->has_backup_verify;
    case FLIP_ACTION_HOOK_BEFORE:
        return cutover && options->has_hook_before;
    case FLIP_ACTION_HOOK_AFTER:
        return wants_hook_after(flip, phase);
    case FLIP_ACTION_JOURNAL_PROMISE:
        return flip->lossless;
    case FLIP_ACTION_NAMES_AHEAD: /* others' commits on the standby wait from then on: not for minutes */
        return flip->lossless && options->immovable != IMMOVABLE_WAIT;
    case FLIP_ACTION_FENCE_ON_CONTACT: /* what doesn't answer is fenced when it comes back */
        return !flip_side_dead(flip);
    case FLIP_ACTION_WATCH: /* not a step: it begins when nothing runs any more */
        return false;
    case FLIP_ACTION_SWAP:
        return !flip->hold.over;
    default:
        return true;
    }
}

static int64_t drain_timeout_us(const struct flip *flip)
{
    const int64_t timeout_us = flip->options.drain_timeout_us;
    return flip->spec.automatic && timeout_us > FLIP_RESCUE_DRAIN_US ? FLIP_RESCUE_DRAIN_US : timeout_us;
}

static void start_hold(struct flip *flip)
{
    const bool alone = flip->spec.kind == FLIP_KIND_TAKEOVER; /* there is no side to go on at */
    flip->hold = (struct flip_hold){
        .stands = true, .refuses = alone, .until_us = flip->now_us + flip->options.max_hold_us};
    struct flip_request request = flip_request(flip, FLIP_ACTION_HOLD);
    request.refuse = alone;
    request.deadline_us = flip->hold.until_us;
    flip_ask(flip, &request, flip->now_us + FLIP_HOLD_ANSWER_US);
}

static void start_drain(struct flip *flip)
{
    flip->await = (struct flip_await){.action = FLIP_ACTION_DRAIN, .guard_us = INT64_MAX};
    flip->hold.drain = FLIP_DRAIN_WAIT;
    flip->hold.drain_until_us = flip->now_us + drain_timeout_us(flip);
    if (flip->hold.drained) {
        flip_drained(flip);
    }
}

/* From now on an expiring hold refuses: the source is about to be fenced. */
static void start_refusing(struct flip *flip)
{
    struct flip_request request = flip_request(flip, FLIP_ACTION_EXPIRE);
    flip->hold.refuses = true;
    request.refuse = true;
    request.deadline_us = flip->hold.until_us;
    flip_ask(flip, &request, flip->now_us + FLIP_HOLD_ANSWER_US);
}

static void start_commit(struct flip *flip)
{
    const int64_t left_us = flip->hold.until_us - flip->now_us;
    if (left_us < FLIP_OPEN_BUDGET_US) {
        struct error why;
        error_set(&why, ERROR_TIMEOUT, "only %" PRId64 " ms of the hold were left, too few to open %s safely",
                  left_us / FLIP_MS_US, side_name(flip_target(flip)));
        error_remedy(&why, "raise flip.max_hold");
        flip_undo(flip, &why, FLIP_OUTCOME_ABORTED);
        return;
    }
    struct record row = flip_row_of(flip, RECORD_COMMIT);
    row.side = flip_target(flip);
    row.epoch = flip->spec.epoch + 1;
    flip->commit_asked = true;
    const uint64_t number = flip_write(flip, &row, FLIP_ACTION_JOURNAL_COMMIT);
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL_COMMIT,
                                      .ticket = FLIP_ROW_TICKET | number,
                                      .guard_us = flip->hold.until_us - FLIP_OPEN_BUDGET_US / 2};
}

static void start_released(struct flip *flip)
{
    struct record row = flip_row_of(flip, RECORD_RELEASED);
    row.side = flip_target(flip);
    row.epoch = flip->spec.epoch + 1;
    const uint64_t number = flip_write(flip, &row, FLIP_ACTION_JOURNAL_RELEASED);
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL_RELEASED,
                                      .ticket = FLIP_ROW_TICKET | number,
                                      .guard_us = flip->now_us + FLIP_ROW_US};
}

static void start_release(struct flip *flip)
{
    if (!flip->hold.over) {
        flip_ask_simple(flip, FLIP_ACTION_RELEASE, flip->now_us + FLIP_SWAP_US);
        return;
    }
    struct flip_request request = flip_request(flip, FLIP_ACTION_ROUTE);
    request.open = true;
    flip_tell(flip, &request);
    flip_step_done(flip);
}

/* Of a takeover. The proxy is told and nothing is waited for: what it ends can't go on anywhere. */
static void start_terminating(struct flip *flip)
{
    const struct flip_request request = flip_request(flip, FLIP_ACTION_TERMINATE_UNDRAINED);
    flip_tell(flip, &request);
    flip_step_done(flip);
}

static void start_fencing_the_left(struct flip *flip)
{
    struct flip_request request = flip_request(flip, FLIP_ACTION_FENCE_ON_CONTACT);
    request.side = flip->spec.source;
    flip_ask(flip, &request, flip->now_us + FLIP_SECOND_US);
}

static void perform_alone(struct flip *flip, enum flip_action_kind action)
{
    struct flip_request request = flip_request(flip, action);
    switch (action) {
    case FLIP_ACTION_TERMINATE_UNDRAINED:
        start_terminating(flip);
        break;
    case FLIP_ACTION_CUT_OFF:
        flip->cut_off = true;
        request.promise = !flip->spec.accept_loss;
        flip_ask(flip, &request, flip_before_open(flip, flip->options.catchup_timeout_us));
        break;
    case FLIP_ACTION_READY_ALONE:
        flip_ask(flip, &request, flip_before_open(flip, FLIP_READY_US));
        break;
    case FLIP_ACTION_FENCE_ON_CONTACT:
        start_fencing_the_left(flip);
        break;
    default:
        ENSURE(false); /* no row of the table names it */
    }
}

void flip_perform(struct flip *flip, enum flip_action_kind action)
{
    const struct flip_options *options = &flip->options;
    const int64_t now_us = flip->now_us;
    struct flip_request request = flip_request(flip, action);
    switch (action) {
    case FLIP_ACTION_CHECK:
        flip_ask(flip, &request, now_us + options->check_timeout_us);
        break;
    case FLIP_ACTION_APPROVAL:
        flip->await = (struct flip_await){.action = action, .guard_us = now_us + options->approve_timeout_us};
        break;
    case FLIP_ACTION_BACKUP:
    case FLIP_ACTION_BACKUP_VERIFY:
        flip_ask(flip, &request, now_us + options->backup_timeout_us);
        break;
    case FLIP_ACTION_RESTORE_POINT:
    case FLIP_ACTION_HOOK_BEFORE:
    case FLIP_ACTION_HOOK_AFTER:
        flip_ask(flip, &request, now_us + options->hook_timeout_us);
        break;
    case FLIP_ACTION_PROBE:
        request.side = flip->spec.source;
        flip_ask(flip, &request, now_us + options->catchup_timeout_us / 2);
        break;
    case FLIP_ACTION_NAMES_AHEAD:
        flip_start_names_ahead(flip);
        break;
    case FLIP_ACTION_ARM:
        flip->armed = true;
        flip_ask(flip, &request, now_us + options->arm_timeout_us);
        break;
    case FLIP_ACTION_HOLD:
        start_hold(flip);
        break;
    case FLIP_ACTION_DRAIN:
        start_drain(flip);
        break;
    case FLIP_ACTION_EXPIRE:
        start_refusing(flip);
        break;
    case FLIP_ACTION_FENCE:
        flip->fenced = true;
        flip_ask(flip, &request, flip_before_open(flip, FLIP_FENCE_US));
        break;
    case FLIP_ACTION_CATCHUP:
        flip_ask(flip, &request, flip_before_open(flip, options->catchup_timeout_us));
        break;
    case FLIP_ACTION_READY:
        flip_ask(flip, &request, flip_before_open(flip, FLIP_READY_US));
        break;
    case FLIP_ACTION_JOURNAL_COMMIT:
        start_commit(flip);
        break;
    case FLIP_ACTION_OPEN:
        flip_ask(flip, &request, now_us + FLIP_OPEN_US);
        break;
    case FLIP_ACTION_JOURNAL_RELEASED:
        start_released(flip);
        break;
    case FLIP_ACTION_SWAP:
        flip_ask(flip, &request, now_us + FLIP_SWAP_US);
        break;
    case FLIP_ACTION_RELEASE:
        start_release(flip);
        break;
    case FLIP_ACTION_TURN:
        flip_start_turn(flip);
        break;
    case FLIP_ACTION_JOURNAL_PROMISE:
        flip_start_promise_row(flip);
        break;
    default:
        perform_alone(flip, action);
    }
}
