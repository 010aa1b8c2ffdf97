/* The verb recover: what is seen of both sides, what happens by itself, what an operator may choose. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "control/flip/recovery.h"

#include <inttypes.h>
#include <stdlib.h>

enum { DECISION_US = 60 * CONTROLLER_SECOND_US }; /* a side that must be fenced first may take its time */

/* --- what is seen --- */

static const char *standing_of(const struct flip_side_facts *facts)
{
    if (facts->installed == 0) {
        return "not prepared";
    }
    return facts->active == facts->installed    ? "active"
           : facts->diverged > 0                ? "diverged"
           : facts->standby == facts->installed ? "standby"
                                                : "mixed";
}

static json_t *side_json(const struct controller *controller, const struct flip_side_facts *facts,
                         enum side side)
{
    struct replication_sample sample;
    replication_sample(controller->replication, &sample);
    const bool reachable = facts->reachable && sample.sides[side].reachable;
    return json_pack("{s:b, s:s, s:I, s:I, s:b, s:I, s:b, s:o}", "reachable", reachable ? 1 : 0, "standing",
                     standing_of(facts), "epoch", (json_int_t)facts->epoch_max, "lowest_epoch",
                     (json_int_t)facts->epoch_min, "fenced",
                     facts->installed > 0 && facts->fences_on == facts->installed ? 1 : 0, "fenced_for",
                     (json_int_t)facts->fenced_for, "identity_changed", facts->identity_changed ? 1 : 0,
                     "problem", text_json_or_null(sample.sides[side].problem));
}

static json_t *choices_json(const struct controller *controller, const struct flip_facts *facts)
{
    json_t *list = json_array();
    struct recovery_choice choices[SIDE_COUNT];
    recovery_choices(&controller->flip.history, facts, choices);
    for (int i = 0; i < SIDE_COUNT; i++) {
        const struct recovery_choice *choice = &choices[i];
        json_array_append_new(
            list, json_pack("{s:s, s:b, s:I, s:o, s:b, s:b, s:b, s:o, s:o}", "use", side_name(choice->side),
                            "possible", choice->possible ? 1 : 0, "epoch", (json_int_t)choice->epoch, "does",
                            text_json(choice->does), "fences_other", choice->fences_other ? 1 : 0,
                            "other_unseen", choice->other_unseen ? 1 : 0, "may_lack_commits",
                            choice->may_lack ? 1 : 0, "reason", text_json_or_null(choice->why_not.message),
                            "remedy", text_json_or_null(choice->why_not.remedy)));
    }
    return list;
}

static bool is_needed(const struct flip *flip)
{
    return flip->mode == FLIP_MODE_UNDECIDED || flip->mode == FLIP_MODE_RECOVER;
}

/* What happens without a decision, or what the decision has brought. */
static json_t *would_json(const struct controller *controller, bool decided)
{
    const struct flip *flip = &controller->flip;
    if (decided) {
        return json_sprintf("%s is active at epoch %" PRIu64, side_name(flip->history.active),
                            flip->history.epoch);
    }
    switch (flip->mode) {
    case FLIP_MODE_RECOVER:
        return json_string("it looks again until it knows; nobody is served meanwhile");
    case FLIP_MODE_UNDECIDED:
        return json_string("nothing: nobody is served before you decide");
    case FLIP_MODE_DEPOSED:
        return json_string("nothing: another controller decides");
    default:
        return json_null();
    }
}

static json_t *report(const struct controller *controller, const struct flip_facts *facts, bool decided)
{
    const struct flip *flip = &controller->flip;
    const bool needed = is_needed(flip);
    const bool served = flip->history.known && !needed;
    return json_pack(
        "{s:b, s:b, s:o, s:I, s:o, s:o, s:{s:o, s:o}, s:o, s:o}", "needed", needed ? 1 : 0, "decided",
        decided ? 1 : 0, "active", served ? json_string(side_name(flip->history.active)) : json_null(),
        "epoch", (json_int_t)flip->history.epoch, "reason", text_json_or_null(flip->why.message), "remedy",
        text_json_or_null(flip->why.remedy), "sides", "blue",
        side_json(controller, &facts->sides[SIDE_BLUE], SIDE_BLUE), "green",
        side_json(controller, &facts->sides[SIDE_GREEN], SIDE_GREEN), "would",
        would_json(controller, decided), "choices", needed ? choices_json(controller, facts) : json_array());
}

struct looking {
    struct controller *controller;
    struct rpc_call *call;
};

static void on_facts(void *context, const struct replication_result *result, const struct pair_facts *pair)
{
    struct looking *looking = context;
    struct controller *controller = looking->controller;
    struct flip_facts facts = controller->flip.facts;
    if (controller->stopping) {
        controller_say_stopping(looking->call);
    } else {
        if (result->ok) {
            controller_sum_facts(pair, &facts);
        }
        rpc_reply(looking->call, report(controller, &facts, false));
    }
    free(looking);
    controller_unref(controller);
}

static void look(struct controller *controller, struct rpc_call *call)
{
    const struct flip *flip = &controller->flip;
    if (flip->mode != FLIP_MODE_STEADY || flip->await.action != FLIP_ACTION_NONE ||
        controller->busy != NULL) {
        rpc_reply(call, report(controller, &flip->facts, false)); /* it looks itself, and often */
        return;
    }
    struct looking *looking = malloc(sizeof *looking);
    ENSURE(looking != NULL);
    *looking = (struct looking){.controller = controller, .call = call};
    controller_ref(controller);
    replication_read_facts(controller->replication, on_facts, looking);
}

/* --- the decision --- */

static void decide(struct controller *controller, struct rpc_call *call, enum side side, const char *reason)
{
    struct flip_event event = {.kind = FLIP_EVENT_DECIDE, .side = side};
    struct controller_decision *decision = &controller->decision;
    struct error error;
    if (decision->call != NULL) {
        error_set(&error, ERROR_FLIP_RUNNING, "%s has just been decided for", side_name(decision->side));
        rpc_fail(call, &error);
        return;
    }
    if (!flip_may_decide(&controller->flip, side, &error)) {
        rpc_fail(call, &error);
        return;
    }
    const char *who = rpc_call_peer(call)->name;
    error_set(&event.error, ERROR_UNDECIDED, "%s decided for %s%s%s", who, side_name(side),
              reason != NULL ? ": " : "", reason != NULL ? reason : "");
    events_publish(controller->events, LOG_LEVEL_WARN, "recover", 0, NULL, "%s", event.error.message);
    audit_decision(controller->audit, "recover",
                   json_pack("{s:s, s:s, s:o, s:o}", "use", side_name(side), "by", who, "reason",
                             text_json_or_null(reason != NULL ? reason : ""), "seen",
                             report(controller, &controller->flip.facts, false)));
    *decision = (struct controller_decision){
        .call = call, .side = side, .until_us = clock_mono_us() + (int64_t)DECISION_US};
    controller_feed(controller, &event);
    controller_recover_pulse(controller);
}

void controller_recover_pulse(struct controller *controller)
{
    struct controller_decision *decision = &controller->decision;
    const struct flip *flip = &controller->flip;
    struct rpc_call *call = decision->call;
    struct error error;
    if (call == NULL) {
        return;
    }
    if (controller->stopping) {
        decision->call = NULL;
        controller_say_stopping(call);
    } else if (!is_needed(flip) && flip->history.active == decision->side && !flip->history.decided) {
        decision->call = NULL;
        rpc_reply(call, report(controller, &flip->facts, true));
    } else if (clock_mono_us() >= decision->until_us) {
        decision->call = NULL;
        error_set(&error, ERROR_UNDECIDED,
                  "the decision for %s stands, but it could not be carried out yet%s%s",
                  side_name(decision->side), flip->why.code != ERROR_NONE ? ": " : "", flip->why.message);
        (void)error_remedy(&error, "it is tried again by itself; switchback status tells");
        rpc_fail(call, &error);
    }
}

void controller_method_recover(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    const char *use = NULL, *reason = NULL;
    enum side side;
    struct error error;
    if (!rpc_call_unpack(call, "{s?s, s?s}", "use", &use, "reason", &reason)) {
        return;
    }
    if (controller->stopping) {
        controller_say_stopping(call);
    } else if (use == NULL) {
        look(controller, call);
    } else if (!side_parse(use, &side)) {
        error_set(&error, ERROR_USAGE, "use: expected blue or green");
        rpc_fail(call, &error);
    } else {
        decide(controller, call, side, reason);
    }
}
