/* What an operator reads at 3 a.m., and the same figures for /metrics. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/version.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ALARM_SHOWN_US = 600 * CONTROLLER_SECOND_US };

static bool served(const struct controller *controller)
{
    const struct flip *flip = &controller->flip;
    return flip->history.known && flip->mode != FLIP_MODE_RECOVER && flip->mode != FLIP_MODE_UNDECIDED;
}

/* Before prepare nothing is journalled: the initial side takes the traffic all the same. */
static bool active_side(const struct controller *controller, enum side *side)
{
    const struct flip_follow *follow = &controller->flip.follow;
    if (controller->flip.mode == FLIP_MODE_DEPOSED && follow->known) {
        *side = follow->side;
        return follow->open;
    }
    *side = controller->flip.history.known ? controller->flip.history.active : controller->settings->initial;
    return served(controller) ||
           (controller->flip.mode == FLIP_MODE_STEADY && !controller->flip.history.known);
}

static json_t *milliseconds(int64_t us)
{
    return us < 0 ? json_null() : json_real((double)us / CONTROLLER_MS_US);
}

/* --- parts --- */

static json_t *side_json(const struct controller *controller, enum side side,
                         const struct replication_side_sample *sample)
{
    const struct flip_side_facts *facts = &controller->flip.facts.sides[side];
    enum side active;
    const char *standing = "none";
    if (controller->flip.prepared && active_side(controller, &active)) {
        standing = active == side ? "active" : facts->diverged > 0 ? "diverged" : "standby";
    }
    return json_pack("{s:b, s:b, s:o, s:s, s:o}", "reachable", sample->reachable ? 1 : 0, "fenced",
                     sample->fenced ? 1 : 0, "version", text_json_or_null(sample->version), "standing",
                     standing, "problem", text_json_or_null(sample->problem));
}

/* Why nothing is promised, while something could be: in the watch. */
static const char *no_promise(const struct flip *flip)
{
    const char *why =
        flip->promise.why.code != ERROR_NONE ? flip->promise.why.message : flip->history.promise_why;
    if (!flip->history.watching) {
        return "";
    }
    return !flip->options.lossless ? "flip.lossless is off" : why;
}

/* What stands behind "nothing is lost if the active side dies". */
static json_t *promise_json(const struct controller *controller, const struct replication_sample *sample)
{
    const struct flip_history *history = &controller->flip.history;
    char since[CLOCK_TEXT_SIZE];
    const bool on = flip_promise_stands(&controller->flip);
    const bool said = history->promise_us != 0;
    return json_pack("{s:b, s:o, s:o, s:I}", "on", on ? 1 : 0, "since",
                     said ? json_string(clock_format(history->promise_us, since)) : json_null(), "reason",
                     on ? json_null() : text_json_or_null(no_promise(&controller->flip)), "waiting",
                     (json_int_t)sample->sync_waiting);
}

static json_t *way_back_json(const struct controller *controller, const struct replication_sample *sample)
{
    struct error why;
    error_clear(&why);
    const bool open = controller_way_back(controller, &why);
    uint64_t at_risk;
    const bool known = controller_commits_at_risk(controller, &at_risk);
    return json_pack("{s:b, s:o, s:o, s:o, s:o}", "open", open ? 1 : 0, "reason",
                     text_json_or_null(why.message), "estimate_ms",
                     open ? milliseconds(controller_predict_stall_us(controller, FLIP_KIND_FLIP_BACK))
                          : json_null(),
                     "commits_at_risk", known ? json_integer((json_int_t)at_risk) : json_null(), "promise",
                     promise_json(controller, sample));
}

static json_t *lag_json(const struct replication_sample *sample)
{
    return json_pack(
        "{s:o, s:o, s:o, s:b}", "seconds",
        sample->lag_us < 0 ? json_null() : json_real((double)sample->lag_us / CONTROLLER_SECOND_US), "bytes",
        sample->lag_bytes < 0 ? json_null() : json_integer((json_int_t)sample->lag_bytes), "marker_age_ms",
        milliseconds(sample->marker_age_us), "streaming", sample->streaming ? 1 : 0);
}

static json_t *flip_json(const struct controller *controller)
{
    const struct flip *flip = &controller->flip;
    if (!flip_running(flip)) {
        return json_null();
    }
    const int64_t elapsed_us = clock_mono_us() - flip->began_us;
    json_t *json = json_pack("{s:I, s:s, s:s, s:s, s:s, s:f}", "id", (json_int_t)flip->spec.id, "kind",
                             flip_kind_name(flip->spec.kind), "from", side_name(flip->spec.source), "to",
                             side_name(side_other(flip->spec.source)), "phase", flip_phase_text(flip),
                             "elapsed_ms", (double)elapsed_us / CONTROLLER_MS_US);
    if (flip->why.code != ERROR_NONE) {
        json_object_set_new(json, "message", text_json(flip->why.message));
    }
    return json;
}

static json_t *sessions_json(const struct controller *controller, const struct proxy_stats *stats)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)stats->sessions, "held",
                     (json_int_t)stats->sessions_held, "in_transaction",
                     (json_int_t)stats->sessions_in_transaction, "immovable",
                     (json_int_t)stats->sessions_immovable, "waiting", (json_int_t)stats->sessions_waiting,
                     "max", (json_int_t)controller->settings->max_clients);
}

/* Who was turned away and who was ended, since the start. */
static json_t *ended_json(const struct proxy_stats *stats)
{
    json_t *refused = json_object(), *timeouts = json_object(), *failures = json_object();
    for (enum proxy_refusal i = 0; i < PROXY_REFUSAL_COUNT; i++) {
        json_object_set_new(refused, proxy_refusal_name(i), json_integer((json_int_t)stats->refused[i]));
    }
    for (enum proxy_timeout i = 0; i < PROXY_TIMEOUT_COUNT; i++) {
        json_object_set_new(timeouts, proxy_timeout_name(i), json_integer((json_int_t)stats->timeouts[i]));
    }
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        json_object_set_new(failures, side_name(side),
                            json_integer((json_int_t)stats->connect_failures[side]));
    }
    return json_pack("{s:I, s:o, s:o, s:o}", "logins_failed", (json_int_t)stats->logins_failed, "refused",
                     refused, "timeouts", timeouts, "connect_failures", failures);
}

static json_t *hold_json(const struct controller *controller)
{
    const struct hold *hold = &controller->holds.holds[HOLD_OPERATOR];
    if (!hold->stands) {
        return json_null();
    }
    return json_pack("{s:s, s:o, s:f}", "owner", controller->operator_name, "reason", text_json(hold->reason),
                     "remaining_ms", (double)(hold->deadline_us - clock_mono_us()) / CONTROLLER_MS_US);
}

static json_t *watch_json(const struct controller *controller)
{
    const struct flip *flip = &controller->flip;
    if (!flip->watch.on) {
        return json_null();
    }
    return json_pack("{s:I, s:f, s:s}", "flip", (json_int_t)flip->history.done.flip, "remaining_ms",
                     (double)(flip->watch.until_us - clock_mono_us()) / CONTROLLER_MS_US, "flip_back",
                     flip->options.watch_flip_back == FLIP_BACK_AUTO ? "auto" : "manual");
}

static const struct flip_story *last_story(const struct controller *controller)
{
    const struct flip_story *last = NULL;
    for (size_t i = 0; i < controller->story_count; i++) {
        const struct flip_story *story = &controller->stories[i];
        if (story->outcome != FLIP_OUTCOME_NONE && (last == NULL || story->flip > last->flip)) {
            last = story;
        }
    }
    return last;
}

static json_t *last_flip_json(const struct controller *controller)
{
    const struct flip_story *story = last_story(controller);
    char ended[CLOCK_TEXT_SIZE];
    if (story == NULL) {
        return json_null();
    }
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:o}", "id", (json_int_t)story->flip, "kind",
                     flip_kind_name(story->kind), "from", side_name(story->source), "to",
                     side_name(side_other(story->source)), "result", flip_outcome_name(story->outcome),
                     "ended", clock_format(story->ended_us, ended), "stall_ms", controller_stall(story));
}

/* --- trouble, worst first --- */

static void add_trouble(json_t *list, const struct error *error)
{
    json_array_append_new(list,
                          json_pack("{s:s, s:o, s:o}", "code", error_code_text(error->code), "message",
                                    text_json(error->message), "remedy", text_json_or_null(error->remedy)));
}

static void add_side_trouble(json_t *list, enum side side, bool active,
                             const struct replication_side_sample *sample, bool down)
{
    struct error error;
    if (!sample->reachable) {
        error_set(&error, ERROR_UNREACHABLE, "%s, the %s side, can't be reached: %s", side_name(side),
                  active ? "active" : "standby", sample->problem);
        add_trouble(list, &error);
    } else if (sample->fence_wrong) {
        error_set(&error, ERROR_SQL, "%s, the %s side: %s", side_name(side), active ? "active" : "standby",
                  sample->problem);
        add_trouble(list, &error);
    }
    if (sample->reachable && sample->other_schema) {
        error_set(&error, ERROR_NOT_PREPARED,
                  "%s was prepared by another version of switchback: no cutover begins before it is prepared "
                  "again",
                  side_name(side));
        error_remedy(&error, "switchback prepare: it copies nothing anew");
        add_trouble(list, &error);
    }
    if (sample->reachable && active && down) {
        error_set(&error, ERROR_UNREACHABLE,
                  "%s, the active side, does not answer the logins of clients, though it does the manager's",
                  side_name(side));
        error_remedy(&error, "see side_down in the log; is timeouts.server_connect too short for it?");
        add_trouble(list, &error);
    }
}

/* The active side is dead, the other one could serve, and nothing takes over by itself. */
static bool waits_for_operator(const struct controller *controller)
{
    const struct flip *flip = &controller->flip;
    const bool by_itself = flip_promise_stands(flip) && flip->options.watch_flip_back == FLIP_BACK_AUTO;
    return flip->mode == FLIP_MODE_STEADY && flip->prepared && !flip->history.finalized && !by_itself &&
           flip->history.active != controller->settings->initial && controller_is_active_dead(controller);
}

static json_t *trouble_json(const struct controller *controller, const struct replication_sample *sample,
                            const struct proxy_stats *stats)
{
    json_t *list = json_array();
    const struct flip *flip = &controller->flip;
    enum side active;
    const bool known = active_side(controller, &active);
    const bool doubt = flip->mode == FLIP_MODE_RECOVER || flip->mode == FLIP_MODE_UNDECIDED ||
                       flip->mode == FLIP_MODE_DEPOSED || (flip_running(flip) && flip->retry.tries > 0);
    if (doubt && flip->why.code != ERROR_NONE) {
        add_trouble(list, &flip->why);
    }
    if (sample->taken_us != 0) {
        add_side_trouble(list, active, known, &sample->sides[active], stats->side_down[active]);
        add_side_trouble(list, side_other(active), false, &sample->sides[side_other(active)], false);
    }
    if (waits_for_operator(controller)) {
        struct error error;
        controller_dead_error(controller, &error);
        add_trouble(list, &error);
    }
    if (flip->watch.failing) {
        add_trouble(list, &flip->watch.why);
    }
    /* A side that is away, or dead and waits for a decision, is told above, for as long as it does. */
    const enum error_code code = controller->alarm.code;
    const bool side_told = code == ERROR_UNREACHABLE &&
                           !(sample->sides[SIDE_BLUE].reachable && sample->sides[SIDE_GREEN].reachable);
    const bool fresh = clock_mono_us() - controller->alarm_us < (int64_t)ALARM_SHOWN_US && !side_told &&
                       code != ERROR_SIDE_DEAD && code != ERROR_COMMITS_AT_RISK;
    if (code != ERROR_NONE && fresh && strcmp(controller->alarm.message, flip->why.message) != 0) {
        add_trouble(list, &controller->alarm);
    }
    return list;
}

/* --- status --- */

void controller_method_status(void *context, struct rpc_call *call)
{
    const struct controller *controller = context;
    const struct flip *flip = &controller->flip;
    struct replication_sample sample;
    struct proxy_stats stats;
    char since[CLOCK_TEXT_SIZE], started[CLOCK_TEXT_SIZE];
    enum side active;
    if (!rpc_call_unpack(call, "{}")) {
        return;
    }
    if (controller->stopping) {
        controller_say_stopping(call);
        return;
    }
    replication_sample(controller->replication, &sample);
    proxy_stats(controller->proxy, &stats);
    const bool known = active_side(controller, &active);
    json_t *status =
        json_pack("{s:o, s:o, s:I, s:s, s:o, s:o, s:{s:o, s:o}, s:o, s:o, s:o, s:o}", "active",
                  known ? json_string(side_name(active)) : json_null(), "since",
                  known && flip->history.active_since_us > 0
                      ? json_string(clock_format(flip->history.active_since_us, since))
                      : json_null(),
                  "epoch", (json_int_t)flip->history.epoch, "phase", flip_phase_text(flip), "flip",
                  flip_json(controller), "trouble", trouble_json(controller, &sample, &stats), "sides",
                  "blue", side_json(controller, SIDE_BLUE, &sample.sides[SIDE_BLUE]), "green",
                  side_json(controller, SIDE_GREEN, &sample.sides[SIDE_GREEN]), "way_back",
                  way_back_json(controller, &sample), "lag", lag_json(&sample), "sessions",
                  sessions_json(controller, &stats), "gates", controller_gates_json(controller));
    json_t *more =
        json_pack("{s:o, s:o, s:o, s:o, s:b, s:s, s:s}", "ended", ended_json(&stats), "hold",
                  hold_json(controller), "watch", watch_json(controller), "last_flip",
                  last_flip_json(controller), "prepared", flip->prepared && !flip->history.finalized ? 1 : 0,
                  "version", version_number(), "started", clock_format(controller->started_us, started));
    if (status != NULL && more != NULL) {
        json_object_update(status, more);
    }
    json_decref(more);
    rpc_reply(call, status);
}

/* --- metrics --- */

static void count_flips(const struct controller *controller, struct metrics *metrics)
{
    static const enum metrics_result results[FLIP_OUTCOME_COUNT] = {
        [FLIP_OUTCOME_DONE] = METRICS_RESULT_DONE,
        [FLIP_OUTCOME_REFUSED] = METRICS_RESULT_REFUSED,
        [FLIP_OUTCOME_ABORTED] = METRICS_RESULT_ABORTED,
        [FLIP_OUTCOME_FLIPPED_BACK] = METRICS_RESULT_FLIPPED_BACK,
        [FLIP_OUTCOME_INCONCLUSIVE] = METRICS_RESULT_INCONCLUSIVE,
    };
    for (size_t i = 0; i < controller->story_count; i++) {
        if (controller->stories[i].outcome != FLIP_OUTCOME_NONE) {
            metrics->flips[results[controller->stories[i].outcome]]++;
        }
    }
}

static void count_gates(const struct controller *controller, struct metrics *metrics)
{
    for (size_t i = 0; i < controller->gates.count; i++) {
        const struct gate *gate = &controller->gates.gates[i];
        const enum gate_state state = gate->state;
        metrics->gates_pass += state == GATE_PASS || (state == GATE_FAIL && !gate->failed);
        metrics->gates_fail += gate->failed;
        metrics->gates_inconclusive += state == GATE_INCONCLUSIVE;
    }
}

void controller_metrics(struct controller *controller, struct metrics *metrics)
{
    const struct flip *flip = &controller->flip;
    const struct flip_story *last = last_story(controller);
    struct error ignored;
    *metrics =
        (struct metrics){.way_back_estimate_us = -1, .stall_us = -1, .stall_p50_us = -1, .stall_p99_us = -1};
    metrics->started_wall_us = controller->started_us;
    if (controller->stopping) {
        (void)snprintf(metrics->phase, sizeof metrics->phase, "stopping");
        (void)snprintf(metrics->unready_reason, sizeof metrics->unready_reason, "the daemon is stopping");
        return;
    }
    metrics->has_active = active_side(controller, &metrics->active);
    metrics->epoch = flip->history.epoch;
    (void)snprintf(metrics->phase, sizeof metrics->phase, "%s", flip_phase_text(flip));
    metrics->held = hold_gate(&controller->holds).closed;
    metrics->way_back_open = controller_way_back(controller, &ignored);
    metrics->promise = flip_promise_stands(flip);
    if (metrics->way_back_open) {
        metrics->way_back_estimate_us = controller_predict_stall_us(controller, FLIP_KIND_FLIP_BACK);
    }
    if (last != NULL && last->stall_max_us > 0) {
        metrics->stall_us = last->stall_max_us;
        metrics->stall_p50_us = last->stall_p50_us;
        metrics->stall_p99_us = last->stall_p99_us;
    }
    count_flips(controller, metrics);
    count_gates(controller, metrics);
    proxy_stats(controller->proxy, &metrics->proxy);
    replication_sample(controller->replication, &metrics->replication);
    (void)controller_commits_at_risk(controller, &metrics->replication.commits_at_risk);
    const struct replication_side_sample *side = &metrics->replication.sides[metrics->active];
    metrics->ready = metrics->has_active && side->reachable;
    if (!metrics->has_active) {
        (void)snprintf(metrics->unready_reason, sizeof metrics->unready_reason, "no side is active");
    } else if (!metrics->ready) {
        (void)snprintf(metrics->unready_reason, sizeof metrics->unready_reason,
                       "%s, the active side, can't be reached: %.200s", side_name(metrics->active),
                       side->problem);
    }
}
