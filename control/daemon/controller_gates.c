/* Gathers what gates look at, once a second and when a gate is due, and tells the runner what they say. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GATE_TICK_MS = 50 };

/* --- traffic --- */

static void copy_traffic(const struct proxy_side_stats *stats, struct gate_traffic *traffic)
{
    _Static_assert((int)GATE_BUCKETS == (int)PROXY_LATENCY_BUCKETS, "gates judge the proxy's histogram");
    traffic->statements = stats->statements;
    traffic->errors = stats->errors;
    memcpy(traffic->latency, stats->latency, sizeof traffic->latency);
}

static void sample(struct controller *controller)
{
    struct proxy_stats stats;
    proxy_stats(controller->proxy, &stats);
    for (int i = 0; i < SIDE_COUNT; i++) {
        copy_traffic(&stats.sides[i], &controller->gates.now[i]);
    }
}

void controller_gates_second(struct controller *controller)
{
    struct controller_gates *gates = &controller->gates;
    if (controller->stopping) {
        return;
    }
    sample(controller);
    if (gates->seconds++ % CONTROLLER_BASELINE_SECONDS == 0) {
        memcpy(gates->ring[gates->ring_next], gates->now, sizeof gates->now);
        gates->ring_next = (gates->ring_next + 1) % CONTROLLER_BASELINE_SLOTS;
        gates->ring_count += gates->ring_count < CONTROLLER_BASELINE_SLOTS;
    }
}

/* Counters of `slots` slots ago, or as long ago as they go back; NULL: none yet. */
static const struct gate_traffic *earlier(const struct controller_gates *gates, enum side side, size_t slots)
{
    if (gates->ring_count == 0) {
        return NULL;
    }
    const size_t back = slots < gates->ring_count ? slots : gates->ring_count;
    return &gates->ring[(gates->ring_next + CONTROLLER_BASELINE_SLOTS - back) % CONTROLLER_BASELINE_SLOTS]
                       [side];
}

void controller_gates_hold(struct controller *controller, enum side source)
{
    struct controller_gates *gates = &controller->gates;
    sample(controller);
    gate_traffic_since(&gates->now[source], earlier(gates, source, CONTROLLER_BASELINE_SLOTS), &gates->held);
}

/* Not before: a flip-back that is undone would leave the watched side compared with itself. */
void controller_gates_moved(struct controller *controller)
{
    controller->gates.baseline = controller->gates.held;
}

/* --- judgements --- */

static void act(struct controller *controller, const struct gate *gate, enum gate_news news)
{
    struct flip_event event = {.kind = FLIP_EVENT_GATE_FAILED};
    bool failing = false;
    if (!controller->gates.acting) {
        return;
    }
    if (news == GATE_HAS_FAILED) {
        error_set(&event.error, ERROR_GATE_FAILED, "gate %s: %s", gate->settings->name, gate->reason);
        controller_feed(controller, &event);
        return;
    }
    for (size_t i = 0; i < controller->gates.count; i++) {
        failing |= controller->gates.gates[i].failed;
    }
    if (news == GATE_HAS_RECOVERED && !failing) {
        event.kind = FLIP_EVENT_GATES_PASS;
        controller_feed(controller, &event);
    }
}

/* What a gate raised is over when it passes: status shows alarms as trouble. */
static void forget_alarm(struct controller *controller, const struct gate *gate)
{
    char begins[GATE_REASON_SIZE];
    const int length = snprintf(begins, sizeof begins, "gate %s", gate->settings->name);
    const struct error *alarm = &controller->alarm;
    if (alarm->code == ERROR_GATE_FAILED && length > 0 && (size_t)length < sizeof begins &&
        strncmp(alarm->message, begins, (size_t)length) == 0 &&
        (alarm->message[length] == ':' || alarm->message[length] == ' ')) {
        error_clear(&controller->alarm);
    }
}

void controller_forget_gates(struct controller *controller)
{
    if (controller->alarm.code == ERROR_GATE_FAILED) {
        error_clear(&controller->alarm);
    }
}

/* The runner raises it as an alarm, with the gate's reason: once is enough. */
static bool is_alarmed(const struct controller *controller, enum gate_news news)
{
    const struct flip_watch *watch = &controller->flip.watch;
    return news == GATE_CANT_JUDGE ||
           (news == GATE_HAS_FAILED && controller->gates.acting && watch->on && !watch->failing);
}

static void judged(struct controller *controller, struct gate *gate, enum gate_news news)
{
    static const char *const words[] = {[GATE_NO_NEWS] = "",
                                        [GATE_HAS_FAILED] = "failed",
                                        [GATE_HAS_RECOVERED] = "passes again",
                                        [GATE_CANT_JUDGE] = "can't be judged"};
    if (gate->state == GATE_PASS) {
        forget_alarm(controller, gate);
    }
    if (news == GATE_NO_NEWS) {
        return;
    }
    const uint64_t flip = controller->flip.history.done.flip;
    if (!is_alarmed(controller, news)) {
        events_publish(controller->events, news == GATE_HAS_RECOVERED ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
                       "gate", flip, flip_phase_text(&controller->flip), "gate %s %s: %s",
                       gate->settings->name, words[news], gate->reason);
    }
    audit_decision(controller->audit, "gate",
                   json_pack("{s:I, s:s, s:s, s:o, s:o, s:I, s:b}", "flip", (json_int_t)flip, "gate",
                             gate->settings->name, "verdict", words[news], "value", text_json(gate->value),
                             "reason", text_json(gate->reason), "failures", (json_int_t)gate->failures,
                             "acts", controller->gates.acting ? 1 : 0));
    if (news == GATE_CANT_JUDGE) {
        struct error alarm;
        error_set(&alarm, ERROR_GATE_FAILED, "gate %s can't be judged: %s", gate->settings->name,
                  gate->reason);
        controller_raise(controller, &alarm, flip);
    }
    act(controller, gate, news);
}

/* An answer that comes later: of a query, of a command. */
struct gate_answer {
    struct controller *controller;
    size_t gate;
    uint64_t run;
};

static struct gate *gate_of(const struct gate_answer *answer)
{
    const struct controller *controller = answer->controller;
    return controller->stopping || answer->run != controller->gates.run
               ? NULL
               : &controller->gates.gates[answer->gate];
}

static void on_value(void *context, const struct replication_result *result, const char *value)
{
    struct gate_answer *answer = context;
    struct gate *gate = gate_of(answer);
    if (gate != NULL) {
        judged(answer->controller, gate,
               gate_judge_value(gate, clock_mono_us(), value, result->ok ? NULL : &result->error));
    }
    controller_unref(answer->controller);
    free(answer);
}

static void ask_value(struct controller *controller, size_t index)
{
    const struct settings_gate *settings = controller->gates.gates[index].settings;
    struct gate_answer *answer = malloc(sizeof *answer);
    ENSURE(answer != NULL);
    *answer = (struct gate_answer){.controller = controller, .gate = index, .run = controller->gates.run};
    controller_ref(controller);
    replication_query(controller->replication, controller->gates.side,
                      settings->database[0] != '\0' ? settings->database
                                                    : controller->settings->databases.items[0],
                      settings->sql, settings->timeout_us, on_value, answer);
}

static void on_gate_command(void *context, const struct command_result *result)
{
    const struct running_command *running = context;
    struct controller *controller = running->controller;
    if (!controller->stopping && running->gates_run == controller->gates.run) {
        struct gate *gate = &controller->gates.gates[running->gate];
        judged(controller, gate,
               gate_judge_command(gate, clock_mono_us(), result->ok, result->started, result->words));
    }
}

static void run_command(struct controller *controller, size_t index)
{
    struct gate *gate = &controller->gates.gates[index];
    const struct flip_story *done = &controller->flip.history.done;
    const struct command_environment environment = {.flip = done->flip,
                                                    .from = side_name(done->source),
                                                    .to = side_name(controller->gates.side),
                                                    .phase = flip_phase_text(&controller->flip)};
    const struct running_command running = {.ticket = UINT64_MAX,
                                            .name = gate->settings->name,
                                            .gate = index,
                                            .gates_run = controller->gates.run};
    if (!controller_run(controller, &gate->settings->command, gate->settings->timeout_us, &environment,
                        running, on_gate_command)) {
        judged(controller, gate,
               gate_judge_command(gate, clock_mono_us(), false, false, "can't run: no memory"));
    }
}

static void look_at_replication(const struct controller *controller, struct gate_replication *replication,
                                struct replication_sample *sampled)
{
    replication_sample(controller->replication, sampled);
    const bool both = sampled->sides[SIDE_BLUE].reachable && sampled->sides[SIDE_GREEN].reachable;
    *replication =
        (struct gate_replication){.known = sampled->taken_us != 0 && both,
                                  .broken = sampled->broken || sampled->slot_lost || sampled->tables_differ,
                                  .lag_us = sampled->lag_us,
                                  .lag_bytes = sampled->lag_bytes,
                                  .problem = sampled->problem};
}

static void judge(struct controller *controller, size_t index)
{
    struct controller_gates *gates = &controller->gates;
    struct gate *gate = &gates->gates[index];
    const int64_t now_us = clock_mono_us();
    if (gate_is_traffic(gate->settings)) {
        const struct gate_sides sides = {side_name(gates->side), side_name(side_other(gates->side))};
        sample(controller);
        judged(controller, gate,
               gate_judge_traffic(gate, now_us, &gates->now[gates->side],
                                  gates->baseline.statements > 0 ? &gates->baseline : NULL, gates->bounds_us,
                                  sides));
    } else if (gate_is_replication(gate->settings)) {
        struct gate_replication replication;
        struct replication_sample sampled;
        look_at_replication(controller, &replication, &sampled);
        judged(controller, gate, gate_judge_replication(gate, now_us, &replication));
    } else {
        gate->next_us = INT64_MAX; /* until its answer is here */
        if (gate->settings->kind == GATE_SQL) {
            ask_value(controller, index);
        } else {
            run_command(controller, index);
        }
    }
}

static void on_gate_timer(uv_timer_t *timer)
{
    struct controller *controller = timer->data;
    struct controller_gates *gates = &controller->gates;
    const int64_t now_us = clock_mono_us();
    const uint64_t run = gates->run;
    if (now_us >= gates->until_us && !gates->acting) {
        controller_gates_stop(controller);
        return;
    }
    /* A judgement may end the watch, and with it this run. */
    for (size_t i = 0; i < gates->count && gates->judging && gates->run == run; i++) {
        if (gates->gates[i].settings->when & GATE_WHEN_WATCH && now_us >= gates->gates[i].next_us) {
            judge(controller, i);
        }
    }
}

/* --- life --- */

static void start_all(struct controller *controller, bool go_on)
{
    struct controller_gates *gates = &controller->gates;
    gates->run++;
    for (size_t i = 0; i < gates->count; i++) {
        const bool failed = go_on && gates->gates[i].failed;
        gate_start(&gates->gates[i], &controller->settings->gates[i], clock_mono_us());
        gates->gates[i].failed = failed;
    }
}

static bool take_settings(struct controller *controller)
{
    struct controller_gates *gates = &controller->gates;
    struct gate *new = calloc(controller->settings->gate_count + 1, sizeof *new);
    if (new == NULL) {
        return false;
    }
    free(gates->gates);
    gates->gates = new;
    gates->count = controller->settings->gate_count;
    start_all(controller, false);
    return true;
}

bool controller_gates_init(struct controller *controller, struct error *error)
{
    for (size_t i = 0; i < GATE_BUCKETS; i++) {
        controller->gates.bounds_us[i] = proxy_latency_bucket_us(i);
    }
    return take_settings(controller) || error_set(error, ERROR_MEMORY, "out of memory for the gates");
}

void controller_gates_deinit(struct controller *controller)
{
    free(controller->gates.gates);
    controller->gates.gates = NULL;
}

void controller_gates_reload(struct controller *controller)
{
    struct flip_event event = {.kind = FLIP_EVENT_GATES_PASS};
    ENSURE(take_settings(controller));
    controller_forget_gates(controller);
    if (controller->gates.acting) { /* they are judged anew: what failed before may have been the mistake */
        controller_feed(controller, &event);
    }
}

void controller_gates_start(struct controller *controller, enum side side, bool acting)
{
    struct controller_gates *gates = &controller->gates;
    gates->side = side;
    gates->acting = acting;
    gates->judging = true;
    gates->until_us = clock_mono_us() + controller->settings->watch_duration_us;
    /* A watch that goes on after an undone flip-back: who had failed must be heard when it passes again. */
    start_all(controller, acting && controller->flip.watch.failing);
    ENSURE(uv_timer_start(&controller->gate_timer, on_gate_timer, GATE_TICK_MS, GATE_TICK_MS) == 0);
}

void controller_gates_stop(struct controller *controller)
{
    struct controller_gates *gates = &controller->gates;
    gates->judging = gates->acting = false;
    gates->run++;
    (void)uv_timer_stop(&controller->gate_timer);
    for (size_t i = 0; i < gates->count; i++) { /* nobody would hear that it can be judged again */
        if (gates->gates[i].state == GATE_INCONCLUSIVE) {
            forget_alarm(controller, &gates->gates[i]);
            gate_start(&gates->gates[i], gates->gates[i].settings, clock_mono_us());
        }
    }
}

/* A gate fails by `failures` in a row: until then it says how many it has seen, and passes. */
static json_t *gate_json(const struct gate *gate)
{
    const bool not_yet = gate->state == GATE_FAIL && !gate->failed;
    char reason[GATE_REASON_SIZE + 64];
    (void)snprintf(reason, sizeof reason, "%s", gate->reason);
    if (not_yet) {
        (void)snprintf(reason, sizeof reason, "%u of %" PRId64 " failures in a row: %s", gate->failures,
                       gate->settings->failures, gate->reason);
    }
    return json_pack("{s:o, s:s, s:o, s:o}", "name", text_json(gate->settings->name), "state",
                     gate_state_name(not_yet ? GATE_PASS : gate->state), "value",
                     text_json_or_null(gate->value), "reason", text_json_or_null(reason));
}

json_t *controller_gates_json(const struct controller *controller)
{
    json_t *list = json_array();
    for (size_t i = 0; i < controller->gates.count; i++) {
        json_array_append_new(list, gate_json(&controller->gates.gates[i]));
    }
    return list;
}

/* --- preflight --- */

static const struct settings_gate *preflight_gate(const struct controller *controller, size_t index)
{
    const struct settings_gate *settings = &controller->settings->gates[index];
    return (settings->when & GATE_WHEN_PREFLIGHT) != 0 ? settings : NULL;
}

/* Judged once, on the side that is active now. What needs an answer of somebody else is asked for by `ask`.
 */
enum { PREFLIGHT_SLOTS = 6 }; /* traffic of the last minute */

void controller_gates_preflight(struct controller *controller, void *context,
                                void (*told)(void *context, const struct gate *gate),
                                void (*ask)(void *context, size_t gate))
{
    const enum side active = controller->flip.history.active;
    for (size_t i = 0; i < controller->settings->gate_count; i++) {
        const struct settings_gate *settings = preflight_gate(controller, i);
        struct gate gate;
        if (settings == NULL) {
            continue;
        }
        gate_start(&gate, settings, 0);
        if (gate_is_traffic(settings)) {
            const struct gate_traffic *from = earlier(&controller->gates, active, PREFLIGHT_SLOTS);
            const struct gate_sides sides = {side_name(active), side_name(side_other(active))};
            gate.window = from != NULL ? *from : (struct gate_traffic){0};
            gate.window_set = true;
            struct settings_gate alone = *settings; /* there is no other side to compare with yet */
            alone.has_max_increase = false;
            gate.settings = &alone;
            (void)gate_judge_traffic(&gate, 0, &controller->gates.now[active], NULL,
                                     controller->gates.bounds_us, sides);
            gate.settings = settings;
            told(context, &gate);
        } else if (gate_is_replication(settings)) {
            struct gate_replication replication;
            struct replication_sample sampled;
            look_at_replication(controller, &replication, &sampled);
            (void)gate_judge_replication(&gate, 0, &replication);
            told(context, &gate);
        } else {
            ask(context, i);
        }
    }
}
