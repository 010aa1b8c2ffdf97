/* The dry run: the table's rows, what each would take, and what stands in the way. */
#include "control/daemon/controller_internal.h"

#include "conf/base/ensure.h"

#include <stdlib.h>

/* What the phases took in measurements, until flips of this pair say it better. */
static int64_t expected_us(const struct controller *controller, enum flip_phase phase, uint64_t sessions)
{
    static const int64_t first_us[FLIP_PHASE_COUNT] = {
        [FLIP_PHASE_PREFLIGHT] = 500000, [FLIP_PHASE_ARM] = 300000,  [FLIP_PHASE_HOLD] = 1000,
        [FLIP_PHASE_DRAIN] = 10000,      [FLIP_PHASE_FENCE] = 8000,  [FLIP_PHASE_CATCHUP] = 3000,
        [FLIP_PHASE_READY] = 6000,       [FLIP_PHASE_COMMIT] = 3000, [FLIP_PHASE_OPEN] = 4000,
        [FLIP_PHASE_RELEASE] = 5000,     [FLIP_PHASE_TURN] = 100000};
    static const int64_t each_us[FLIP_PHASE_COUNT] = {
        [FLIP_PHASE_HOLD] = 50, [FLIP_PHASE_DRAIN] = 100, [FLIP_PHASE_RELEASE] = 250};
    const int64_t usual_us = controller_usual_us(controller, phase, sessions);
    return usual_us >= 0 ? usual_us : first_us[phase] + each_us[phase] * (int64_t)sessions;
}

static uint64_t sessions_now(const struct controller *controller)
{
    struct proxy_stats stats;
    proxy_stats(controller->proxy, &stats);
    return stats.sessions;
}

/* A flip begins once a marker crosses in half the time that catching up may take: before that there is no
 * pause, whatever the lag. */
static bool could_begin(const struct controller *controller, const struct replication_sample *sample)
{
    return sample->sides[SIDE_BLUE].reachable && sample->sides[SIDE_GREEN].reachable && sample->streaming &&
           sample->lag_us >= 0 && sample->lag_us <= controller->settings->catchup_timeout_us / 2;
}

int64_t controller_predict_stall_us(const struct controller *controller, enum flip_kind kind)
{
    struct replication_sample sample;
    const uint64_t sessions = sessions_now(controller);
    int64_t sum_us = 0;
    replication_sample(controller->replication, &sample);
    if (!could_begin(controller, &sample)) {
        return -1;
    }
    for (int phase = FLIP_PHASE_HOLD; phase <= FLIP_PHASE_RELEASE; phase++) {
        sum_us += expected_us(controller, (enum flip_phase)phase, sessions);
    }
    if (kind == FLIP_KIND_CUTOVER && controller->settings->lossless) {
        sum_us += expected_us(controller, FLIP_PHASE_TURN, sessions); /* clients wait for the promise */
    }
    return sum_us + sample.lag_us;
}

static int64_t timeout_us(const struct flip_options *options, enum flip_timeout timeout)
{
    switch (timeout) {
    case FLIP_TIMEOUT_CHECK:
        return options->check_timeout_us;
    case FLIP_TIMEOUT_APPROVE:
        return options->approve_timeout_us;
    case FLIP_TIMEOUT_BACKUP:
        return options->backup_timeout_us;
    case FLIP_TIMEOUT_ARM:
        return options->arm_timeout_us;
    case FLIP_TIMEOUT_DRAIN:
        return options->drain_timeout_us;
    case FLIP_TIMEOUT_CATCHUP:
        return options->catchup_timeout_us;
    case FLIP_TIMEOUT_HOLD:
    case FLIP_TIMEOUT_FENCE:
    case FLIP_TIMEOUT_READY:
    case FLIP_TIMEOUT_MAX_HOLD:
        return options->max_hold_us;
    case FLIP_TIMEOUT_WATCH:
        return options->watch_duration_us;
    case FLIP_TIMEOUT_NONE:
    case FLIP_TIMEOUT_TURN:
        break;
    }
    return -1;
}

static json_t *phases_json(const struct controller *controller, enum flip_kind kind)
{
    struct flip_options options;
    const uint64_t sessions = sessions_now(controller);
    json_t *list = json_array();
    flip_options_from_settings(&options, controller->settings);
    for (enum flip_phase phase = flip_table_first(kind); phase != FLIP_PHASE_NONE;
         phase = flip_table_next(kind, options.lossless, phase)) {
        const struct flip_row *row = flip_table_row(phase);
        const int64_t limit_us = timeout_us(&options, row->timeout);
        if (phase == FLIP_PHASE_APPROVE && options.approvals == 0) {
            continue; /* nobody is asked */
        }
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:f, s:o, s:s, s:s}", "phase", flip_phase_name(phase), "does",
                      flip_table_comment(kind, row), "expected_ms",
                      (double)expected_us(controller, phase, sessions) / CONTROLLER_MS_US, "timeout_ms",
                      limit_us < 0 ? json_null() : json_integer((json_int_t)(limit_us / CONTROLLER_MS_US)),
                      "undo", flip_undo_name(row->undo), "on_failure", flip_failure_name(row->on_failure)));
    }
    return list;
}

static void add_blocker(json_t *blockers, const char *code, json_t *message, json_t *remedy)
{
    json_array_append_new(blockers,
                          json_pack("{s:s, s:o, s:o}", "code", code, "message", message, "remedy", remedy));
}

static void add_error(json_t *blockers, const struct error *error)
{
    add_blocker(blockers, error_code_text(error->code), text_json(error->message),
                text_json_or_null(error->remedy));
}

struct plan {
    struct rpc_call *call;
    enum flip_kind kind;
    enum side target;
};

static void on_checked(struct controller *controller, void *context, const struct check_outcome *outcome)
{
    struct plan *plan = context;
    json_t *blockers = json_array();
    struct error error;
    size_t index;
    json_t *check;
    if (!flip_may_start(&controller->flip, plan->kind, plan->target, &error) ||
        !controller_way_back(controller, &error)) {
        add_error(blockers, &error);
    }
    json_array_foreach(outcome->checks, index, check)
    {
        const char *state = json_string_value(json_object_get(check, "state"));
        if (state != NULL && state[0] == 'f') {
            add_blocker(blockers, error_code_text(ERROR_CHECK_FAILED),
                        json_incref(json_object_get(check, "message")),
                        json_incref(json_object_get(check, "remedy")));
        }
    }
    const int64_t stall_us = controller_predict_stall_us(controller, plan->kind);
    rpc_reply(plan->call,
              json_pack("{s:b, s:s, s:s, s:o, s:o, s:o}", "dry_run", 1, "from",
                        side_name(side_other(plan->target)), "to", side_name(plan->target),
                        "predicted_stall_ms",
                        stall_us < 0 ? json_null() : json_real((double)stall_us / CONTROLLER_MS_US), "phases",
                        phases_json(controller, plan->kind), "blockers", blockers));
    free(plan);
}

void controller_dry_run(struct controller *controller, struct rpc_call *call, enum flip_kind kind,
                        enum side target)
{
    struct plan *plan = malloc(sizeof *plan);
    ENSURE(plan != NULL);
    *plan = (struct plan){.call = call, .kind = kind, .target = target};
    controller_check(controller, on_checked, plan);
}
