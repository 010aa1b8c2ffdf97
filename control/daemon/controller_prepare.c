/* The verbs prepare and finalize: replication's work, and what the runner must know of it. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdlib.h>

struct building {
    struct controller *controller;
    struct rpc_call *call;
    enum side active;
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

/* False: the call was answered. */
static bool may_build(struct controller *controller, struct rpc_call *call, const char *verb)
{
    struct error error;
    const struct flip *flip = &controller->flip;
    const bool turning = flip->mode == FLIP_MODE_FORWARD && flip->phase == FLIP_PHASE_TURN;
    if (controller->stopping) {
        controller_say_stopping(call);
        return false;
    }
    if (controller->busy != NULL || controller->begins.id != 0 || (flip_running(flip) && !turning)) {
        error_set(&error, ERROR_FLIP_RUNNING, "%s is under way",
                  controller->busy != NULL ? controller->busy : "a flip");
        (void)error_remedy(&error, "wait for its end, then: switchback %s", verb);
        rpc_fail(call, &error);
        return false;
    }
    if (flip->mode != FLIP_MODE_STEADY && !turning) {
        error_set(&error, flip->mode == FLIP_MODE_DEPOSED ? ERROR_STALE : ERROR_UNDECIDED,
                  "it isn't decided yet which side is active: %s", flip->why.message);
        (void)error_remedy(&error, "%s", flip->why.remedy);
        rpc_fail(call, &error);
        return false;
    }
    return true;
}

static struct building *building_new(struct controller *controller, struct rpc_call *call, const char *verb)
{
    struct building *building = malloc(sizeof *building);
    ENSURE(building != NULL);
    *building = (struct building){.controller = controller,
                                  .call = call,
                                  .active = controller->flip.history.known ? controller->flip.history.active
                                                                           : controller->settings->initial,
                                  .began_us = clock_mono_us()};
    controller->busy = verb;
    controller_ref(controller);
    events_publish(controller->events, LOG_LEVEL_INFO, verb, 0, NULL, "%s begins, asked for by %s", verb,
                   rpc_call_peer(call)->name);
    return building;
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

static void on_prepared(void *context, const struct replication_result *result)
{
    struct building *building = context;
    struct controller *controller = building->controller;
    if (result->ok && !controller->stopping) {
        replication_read_facts(controller->replication, on_facts, building);
        return;
    }
    events_publish(controller->events, LOG_LEVEL_WARN, "prepare", 0, NULL, "prepare failed: %s",
                   result->error.message);
    end(building, &result->error, NULL);
}

void controller_method_prepare(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    if (!rpc_call_unpack(call, "{}") || !may_build(controller, call, "prepare")) {
        return;
    }
    struct building *building = building_new(controller, call, "prepare");
    replication_prepare(controller->replication, building->active, on_progress, on_prepared, building);
}

/* --- finalize --- */

static void on_finalized(void *context, const struct replication_result *result)
{
    struct building *building = context;
    if (!result->ok) {
        end(building, &result->error, NULL);
        return;
    }
    end(building, NULL, json_pack("{s:b}", "ok", 1));
}

void controller_method_finalize(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    struct flip_event event = {.kind = FLIP_EVENT_END_WATCH};
    const char *reason = NULL;
    struct error error;
    if (!rpc_call_unpack(call, "{s?s}", "reason", &reason) || !may_build(controller, call, "finalize")) {
        return;
    }
    if (!controller->flip.prepared) {
        error_set(&error, ERROR_NOT_PREPARED, "there is no way back to end");
        rpc_fail(call, &error);
        return;
    }
    struct building *building = building_new(controller, call, "finalize");
    controller_feed(controller, &event); /* from here nothing flips back by itself */
    replication_finalize(controller->replication, building->active, false, on_finalized, building);
}
