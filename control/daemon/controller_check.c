/* The preflight list: what replication finds in the clusters, the sessions, the gates with when: preflight.
 */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/strbuf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { OBJECTS_SHOWN = 20, OBJECTS_IN_REFUSAL = 3, REFUSAL_NAMES_MAX = 256 };

struct check_run {
    struct controller *controller;
    check_done done;
    void *context;
    unsigned pending; /* parts that have not answered; one more until all are asked */
    json_t *checks;
    bool ok;
    struct error first;
};

static const char *const state_names[] = {
    [CHECK_PASS] = "pass", [CHECK_WARN] = "warn", [CHECK_FAIL] = "fail"};

/* The refusal of a flip is one line: it names the first objects, `check` names all. */
static void refuse(struct check_run *run, const char *id, const char *message, const json_t *objects,
                   enum error_code code)
{
    struct strbuf names;
    strbuf_init(&names, REFUSAL_NAMES_MAX);
    const size_t count = json_array_size(objects);
    for (size_t i = 0; i < count && i < OBJECTS_IN_REFUSAL; i++) {
        strbuf_printf(&names, "%s%s", i == 0 ? ": " : ", ", json_string_value(json_array_get(objects, i)));
    }
    if (count > OBJECTS_IN_REFUSAL) {
        strbuf_printf(&names, " and %zu more", count - OBJECTS_IN_REFUSAL);
    }
    error_set(&run->first, code, "check %s: %s%s", id, message, strbuf_text(&names));
    strbuf_deinit(&names);
}

static void add(struct check_run *run, const char *id, enum check_state state, const char *message,
                const char *remedy, json_t *objects, enum error_code code)
{
    json_array_append_new(run->checks, json_pack("{s:s, s:s, s:o, s:o, s:o}", "id", id, "state",
                                                 state_names[state], "message", text_json(message), "objects",
                                                 objects, "remedy", text_json_or_null(remedy)));
    if (state != CHECK_FAIL) {
        return;
    }
    run->ok = false;
    if (run->first.code == ERROR_NONE) {
        refuse(run, id, message, objects, code);
        if (remedy != NULL && remedy[0] != '\0') {
            (void)error_remedy(&run->first, "%s", remedy);
        }
    }
}

static void part_done(struct check_run *run)
{
    struct controller *controller = run->controller;
    if (--run->pending > 0) {
        return;
    }
    const struct check_outcome outcome = {.checks = run->checks, .ok = run->ok, .first = run->first};
    run->done(controller, run->context, &outcome);
    json_decref(run->checks);
    free(run);
    controller_unref(controller);
}

/* --- the clusters --- */

static void on_clusters(void *context, const struct replication_result *result,
                        const struct check_item *items, size_t count)
{
    struct check_run *run = context;
    if (!result->ok) {
        add(run, "clusters", CHECK_FAIL, result->error.message, result->error.remedy, json_array(),
            ERROR_CHECK_FAILED);
    }
    for (size_t i = 0; result->ok && i < count; i++) {
        json_t *objects = json_array();
        for (size_t o = 0; o < items[i].objects.count; o++) {
            json_array_append_new(objects, text_json(items[i].objects.items[o]));
        }
        add(run, items[i].id, items[i].state, items[i].message, items[i].remedy, objects, ERROR_CHECK_FAILED);
    }
    part_done(run);
}

/* --- the sessions --- */

static void on_sessions(struct controller *controller, void *context, struct proxy_session_info *sessions,
                        size_t count)
{
    struct check_run *run = context;
    json_t *objects = json_array();
    char message[160];
    size_t immovable = 0;
    for (size_t i = 0; i < count; i++) {
        char object[512];
        if (sessions[i].movable || immovable++ >= OBJECTS_SHOWN) {
            continue;
        }
        (void)snprintf(object, sizeof object, "session %" PRIu64 ", %s@%s: %s", sessions[i].id,
                       sessions[i].user, sessions[i].database, sessions[i].reasons);
        json_array_append_new(objects, text_json(object));
    }
    if (immovable == 0) {
        (void)snprintf(message, sizeof message, "all %zu sessions can move", count);
        add(run, "sessions", CHECK_PASS, message, NULL, objects, ERROR_IMMOVABLE);
    } else {
        /* never a failure: traffic only makes them suspicious, the flip asks their servers before it holds */
        const enum immovable_policy policy = controller->settings->immovable;
        (void)snprintf(message, sizeof message, "%zu of %zu sessions can't move: the flip %s", immovable,
                       count,
                       policy == IMMOVABLE_DISCONNECT ? "ends them (57P01)"
                       : policy == IMMOVABLE_WAIT     ? "waits for them"
                                                      : "is aborted if they still can't when it asks them");
        add(run, "sessions", CHECK_WARN, message,
            "switchback sessions --immovable says why; flip.immovable decides what becomes of them", objects,
            ERROR_IMMOVABLE);
    }
    part_done(run);
}

/* --- the gates --- */

static void gate_told(void *context, const struct gate *gate)
{
    struct check_run *run = context;
    char id[128];
    (void)snprintf(id, sizeof id, "gate:%s", gate->settings->name);
    const enum check_state state = gate->state == GATE_FAIL           ? CHECK_FAIL
                                   : gate->state == GATE_INCONCLUSIVE ? CHECK_FAIL
                                   : gate->state == GATE_WAITING      ? CHECK_WARN
                                                                      : CHECK_PASS;
    add(run, id, state, gate->reason, "", json_array(), ERROR_GATE_FAILED);
}

struct gate_question {
    struct check_run *run;
    struct gate gate;
};

static void on_gate_value(void *context, const struct replication_result *result, const char *value)
{
    struct gate_question *question = context;
    (void)gate_judge_value(&question->gate, 0, value, result->ok ? NULL : &result->error);
    gate_told(question->run, &question->gate);
    part_done(question->run);
    free(question);
}

static void on_gate_command(void *context, const struct command_result *result)
{
    const struct running_command *running = context;
    struct gate_question *question = running->context;
    (void)gate_judge_command(&question->gate, 0, result->ok, result->started, result->words);
    gate_told(question->run, &question->gate);
    part_done(question->run);
    free(question);
}

static void gate_ask(void *context, size_t index)
{
    struct check_run *run = context;
    struct controller *controller = run->controller;
    const struct settings_gate *settings = &controller->settings->gates[index];
    struct gate_question *question = malloc(sizeof *question);
    ENSURE(question != NULL);
    question->run = run;
    gate_start(&question->gate, settings, 0);
    run->pending++;
    if (settings->kind == GATE_SQL) {
        replication_query(controller->replication, controller->flip.history.active,
                          settings->database[0] != '\0' ? settings->database
                                                        : controller->settings->databases.items[0],
                          settings->sql, settings->timeout_us, on_gate_value, question);
        return;
    }
    const struct command_environment environment = {.phase = "preflight"};
    const struct running_command running = {
        .ticket = UINT64_MAX, .name = settings->name, .context = question};
    if (!controller_run(controller, &settings->command, settings->timeout_us, &environment, running,
                        on_gate_command)) {
        (void)gate_judge_command(&question->gate, 0, false, false, "can't run: no memory");
        gate_told(run, &question->gate);
        run->pending--;
        free(question);
    }
}

void controller_check(struct controller *controller, check_done done, void *context)
{
    struct check_run *run = calloc(1, sizeof *run);
    ENSURE(run != NULL);
    *run = (struct check_run){.controller = controller,
                              .done = done,
                              .context = context,
                              .pending = 3,
                              .checks = json_array(),
                              .ok = true};
    controller_ref(controller);
    replication_check(controller->replication, controller->flip.history.active, on_clusters, run);
    controller_ask_sessions(controller, false, on_sessions, run);
    controller_gates_preflight(controller, run, gate_told, gate_ask);
    part_done(run);
}

/* --- the way back --- */

/* What can't pass by itself within moments; whether a marker crosses is for the probe to tell. */
bool controller_can_go_back(const struct controller *controller, struct error *why)
{
    const struct flip *flip = &controller->flip;
    struct replication_sample sample;
    if (!flip->prepared) {
        error_set(why, ERROR_NOT_PREPARED, "there is no replication yet");
        return error_remedy(why, "switchback prepare");
    }
    if (flip->history.finalized) {
        error_set(why, ERROR_WAY_BACK_CLOSED, "it was ended by finalize");
        return error_remedy(why, "switchback prepare builds it anew");
    }
    /* What it replays may begin before what it has, or after: rows would be missing without a word. */
    for (int i = 0; i < SIDE_COUNT; i++) {
        if (flip->facts.sides[i].identity_changed) {
            error_set(why, ERROR_WAY_BACK_CLOSED, "%s was restored or failed over since it was prepared",
                      side_name((enum side)i));
            return error_remedy(why, "run switchback prepare: it says what must go first");
        }
    }
    replication_sample(controller->replication, &sample);
    const enum side other = side_other(flip->history.active);
    if (sample.taken_us != 0 && !sample.sides[other].reachable) {
        return error_set(why, ERROR_WAY_BACK_CLOSED, "%s can't be reached: %s", side_name(other),
                         sample.sides[other].problem);
    }
    if (flip->facts.sides[other].diverged > 0) {
        error_set(why, ERROR_DIVERGED, "%s is diverged: it may hold what %s never got", side_name(other),
                  side_name(flip->history.active));
        return error_remedy(why, "switchback rejoin --dry-run lists it, switchback rejoin brings it back");
    }
    if (sample.broken || sample.slot_lost || sample.tables_differ) {
        return error_set(why, ERROR_WAY_BACK_CLOSED, "%s", sample.problem);
    }
    return true;
}

bool controller_is_unmet(const struct controller *controller, enum side side)
{
    const struct flip *flip = &controller->flip;
    const struct flip_side_facts *facts = &flip->facts.sides[side];
    return flip->prepared && !facts->reachable && facts->foreign[0] == '\0';
}

/* No flip would begin: a marker would have to cross within half the time that catching up may take. */
static bool say_behind(const struct controller *controller, int64_t lag_us, struct error *why)
{
    const char *standby = side_name(side_other(controller->flip.history.active));
    char lag[CLOCK_TEXT_SIZE], most[CLOCK_TEXT_SIZE];
    if (lag_us < 0) {
        return error_set(why, ERROR_WAY_BACK_CLOSED, "it isn't known how far %s is behind", standby);
    }
    return error_set(
        why, ERROR_WAY_BACK_CLOSED,
        "%s is %s behind: a flip begins once that is less than %s (half of flip.catchup.timeout)", standby,
        clock_format_duration(lag_us, lag),
        clock_format_duration(controller->settings->catchup_timeout_us / 2, most));
}

bool controller_way_back(const struct controller *controller, struct error *why)
{
    struct replication_sample sample;
    if (!controller_can_go_back(controller, why)) {
        return false;
    }
    for (int i = 0; i < SIDE_COUNT; i++) { /* it may not know of the epoch yet, nor be fenced */
        if (controller_is_unmet(controller, (enum side)i)) {
            return error_set(why, ERROR_WAY_BACK_CLOSED, "%s has just come back", side_name((enum side)i));
        }
    }
    replication_sample(controller->replication, &sample);
    if (sample.taken_us == 0) {
        return error_set(why, ERROR_WAY_BACK_CLOSED, "nothing is known of the clusters yet");
    }
    if (sample.problem[0] != '\0' || !sample.streaming) {
        return error_set(why, ERROR_WAY_BACK_CLOSED, "%s",
                         sample.problem[0] != '\0' ? sample.problem : "the stream does not run");
    }
    if (sample.lag_us < 0 || sample.lag_us > controller->settings->catchup_timeout_us / 2) {
        return say_behind(controller, sample.lag_us, why);
    }
    return true;
}

/* --- the verb --- */

static void answer(struct controller *controller, void *context, const struct check_outcome *outcome)
{
    struct rpc_call *call = context;
    (void)controller;
    rpc_reply(call, json_pack("{s:b, s:O}", "ok", outcome->ok ? 1 : 0, "checks", outcome->checks));
}

void controller_method_check(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    if (!rpc_call_unpack(call, "{}")) {
        return;
    }
    if (controller->stopping) {
        controller_say_stopping(call);
        return;
    }
    controller_check(controller, answer, call);
}
