/* The verbs prepare and finalize: replication's work, and what the runner must know of it. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdlib.h>

struct building {
    struct controller *controller;
    struct rpc_call *call;
    const char *verb;
    enum side active;
    struct controller_operation operation;
    bool watch_ended; /* of finalize */
    int64_t began_us;
};

static json_t *nonnegative(double value)
{
    return value < 0 ? json_null() : json_real(value);
}

static void on_progress(void *context, const struct replication_progress *progress)
{
    const struct building *building = context;
    rpc_progress(building->call,
                 json_pack("{s:o, s:o, s:o, s:o}", "step", text_json(progress->step), "message",
                           text_json(progress->message), "fraction", nonnegative(progress->fraction),
                           "eta_ms", nonnegative((double)progress->eta_us / CONTROLLER_MS_US)));
}

static void end(struct building *building, const struct error *error, json_t *result)
{
    struct controller *controller = building->controller;
    controller->busy = NULL;
    if (error != NULL) {
        rpc_fail(building->call, error);
        json_decref(result);
    } else {
        rpc_reply(building->call, result);
    }
    free(building);
    controller_unref(controller);
}

static enum side active_side(const struct controller *controller)
{
    return controller->flip.history.known ? controller->flip.history.active : controller->settings->initial;
}

/* False: the call was answered. */
static bool may_ask(struct controller *controller, struct rpc_call *call, const char *verb)
{
    struct error error;
    if (controller->stopping) {
        controller_say_stopping(call);
        return false;
    }
    if (controller->busy != NULL) {
        (void)error_set(&error, ERROR_FLIP_RUNNING, "%s is under way", controller->busy);
        (void)error_remedy(&error, "wait for its end, then: switchback %s", verb);
        rpc_fail(call, &error);
        return false;
    }
    return true;
}

static void ask(struct controller *controller, struct rpc_call *call, const char *verb,
                controller_begin begin)
{
    struct building *building = malloc(sizeof *building);
    ENSURE(building != NULL);
    *building =
        (struct building){.controller = controller, .call = call, .verb = verb, .began_us = clock_mono_us()};
    controller_ref(controller);
    controller_settle(controller, verb, begin, building);
}

/* False: it has ended. */
static bool may_begin(struct building *building, const struct error *refused)
{
    struct controller *controller = building->controller;
    const enum side active = active_side(controller);
    struct error error;
    if (refused != NULL) {
        end(building, refused, NULL);
        return false;
    }
    if (building->operation.beginnings == 0) {
        building->active = active;
        events_publish(controller->events, LOG_LEVEL_INFO, building->verb, 0, NULL,
                       "%s begins, asked for by %s", building->verb, rpc_call_peer(building->call)->name);
    } else if (building->active != active) {
        (void)error_set(&error, ERROR_STALE, "%s is active now, it was %s when %s began", side_name(active),
                        side_name(building->active), building->verb);
        (void)error_remedy(&error, "see switchback status before anything else");
        end(building, &error, NULL);
        return false;
    }
    controller_operation_begins(controller, &building->operation);
    return true;
}

/* --- prepare --- */

static void on_facts(void *context, const struct replication_result *result, const struct pair_facts *facts)
{
    struct building *building = context;
    struct controller *controller = building->controller;
    const struct side_facts *active = &facts->sides[building->active];
    if (!result->ok) {
        end(building, &result->error, NULL);
        return;
    }
    if (!controller->stopping && active->reachable && active->database_count > 0) {
        struct flip_event event = {
            .kind = FLIP_EVENT_PREPARED, .side = building->active, .epoch = active->databases[0].epoch};
        controller_feed(controller, &event);
        controller_refresh_types(controller);
    }
    const int64_t elapsed_us = clock_mono_us() - building->began_us;
    events_publish(controller->events, LOG_LEVEL_INFO, "prepare", 0, NULL, "replication from %s to %s stands",
                   side_name(building->active), side_name(side_other(building->active)));
    end(building, NULL,
        json_pack("{s:b, s:s, s:f}", "ok", 1, "active", side_name(building->active), "elapsed_ms",
                  (double)elapsed_us / CONTROLLER_MS_US));
}

static void begin_prepare(void *context, const struct error *refused);

static void on_prepared(void *context, const struct replication_result *result)
{
    struct building *building = context;
    struct controller *controller = building->controller;
    struct error error;
    if (result->ok && !controller->stopping) {
        replication_read_facts(controller->replication, on_facts, building);
    } else if (result->ok) {
        controller_stopping_error(&error);
        end(building, &error, NULL);
    } else if (controller_operation_again(controller, &building->operation, building->verb, result, &error)) {
        controller_settle(controller, building->verb, begin_prepare, building);
    } else {
        events_publish(controller->events, LOG_LEVEL_WARN, "prepare", 0, NULL, "prepare failed: %s",
                       error.message);
        end(building, &error, NULL);
    }
}

static void begin_prepare(void *context, const struct error *refused)
{
    struct building *building = context;
    if (may_begin(building, refused)) {
        replication_prepare(building->controller->replication, building->active, on_progress, on_prepared,
                            building);
    }
}

void controller_method_prepare(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    if (rpc_call_unpack(call, "{}") && may_ask(controller, call, "prepare")) {
        ask(controller, call, "prepare", begin_prepare);
    }
}

/* --- finalize --- */

static void begin_finalize(void *context, const struct error *refused);

static void on_finalized(void *context, const struct replication_result *result)
{
    struct building *building = context;
    struct controller *controller = building->controller;
    struct error error;
    if (result->ok) {
        end(building, NULL, json_pack("{s:b}", "ok", 1));
    } else if (controller_operation_again(controller, &building->operation, building->verb, result, &error)) {
        controller_settle(controller, building->verb, begin_finalize, building);
    } else {
        end(building, &error, NULL);
    }
}

static void begin_finalize(void *context, const struct error *refused)
{
    struct building *building = context;
    struct controller *controller = building->controller;
    struct flip_event event = {.kind = FLIP_EVENT_END_WATCH};
    struct error error;
    if (refused == NULL && !controller->flip.prepared) {
        (void)error_set(&error, ERROR_NOT_PREPARED, "there is no way back to end");
        refused = &error;
    }
    if (refused == NULL && !building->watch_ended) {
        building->watch_ended = true;
        controller_feed(controller, &event); /* from here nothing flips back by itself */
        controller_settle(controller, building->verb, begin_finalize,
                          building); /* it may look at the sides */
    } else if (may_begin(building, refused)) {
        replication_finalize(controller->replication, building->active, false, on_finalized, building);
    }
}

void controller_method_finalize(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    const char *reason = NULL;
    if (rpc_call_unpack(call, "{s?s}", "reason", &reason) && may_ask(controller, call, "finalize")) {
        ask(controller, call, "finalize", begin_finalize);
    }
}
