/*
 * The clients' gate: the runner's holds and the operator's, joined by the ledger, on the proxy's one gate;
 * and the proxy's events on their way to the runner.
 */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/settings/unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static enum proxy_expire expire_of(bool refuse)
{
    return refuse ? PROXY_EXPIRE_REFUSE : PROXY_EXPIRE_RELEASE;
}

static void take_for_flip(struct controller *controller, const struct flip_request *request)
{
    char reason[HOLD_REASON_SIZE];
    (void)snprintf(reason, sizeof reason, "%s to %s (flip %" PRIu64 ")",
                   flip_kind_name(controller->flip.spec.kind),
                   side_name(side_other(controller->flip.spec.source)), request->flip);
    hold_take(&controller->holds, HOLD_FLIP, clock_mono_us(), request->deadline_us, request->refuse, reason);
}

void controller_hold(struct controller *controller, const struct flip_request *request)
{
    take_for_flip(controller, request);
    controller->gate_hold = request->flip;
    controller->gate_refusing = false;
    controller->drain = (struct proxy_counts){0};
    controller->proxy_tickets[PROXY_EVENT_HELD] = request->ticket;
    /* The flip's deadline counts while it holds; what the operator holds longer is held again after it. */
    proxy_hold(controller->proxy, request->flip, request->deadline_us, expire_of(request->refuse));
}

void controller_expire(struct controller *controller, const struct flip_request *request)
{
    take_for_flip(controller, request);
    if (request->ticket != 0) {
        controller->proxy_tickets[PROXY_EVENT_EXPIRE_SET] = request->ticket;
    }
    proxy_expire(controller->proxy, controller->gate_hold, request->deadline_us, expire_of(request->refuse));
}

/* The gate of an operator who holds on: true if there is one. */
static bool hold_for_operator(struct controller *controller)
{
    const struct hold_gate gate = hold_gate(&controller->holds);
    if (!gate.closed) {
        return false;
    }
    controller->gate_hold = CONTROLLER_OPERATOR_HOLD + ++controller->operator_hold;
    proxy_hold(controller->proxy, controller->gate_hold, gate.deadline_us, expire_of(gate.refuse));
    return true;
}

void controller_release(struct controller *controller, const struct flip_request *request)
{
    const uint64_t held = controller->gate_hold;
    (void)hold_drop(&controller->holds, HOLD_FLIP);
    if (hold_for_operator(controller)) {
        controller->proxy_tickets[PROXY_EVENT_HELD] = request->ticket;
        return;
    }
    controller->gate_hold = 0;
    controller->proxy_tickets[PROXY_EVENT_RELEASED] = request->ticket;
    proxy_release(controller->proxy, held != 0 ? held : request->flip);
}

void controller_route(struct controller *controller, const struct flip_request *request)
{
    const struct proxy_route route = {.side = request->side, .epoch = request->epoch, .open = request->open};
    proxy_set_route(controller->proxy, route);
    if (controller->gate_refusing) { /* it was closed by its deadline, and only waited for this */
        controller->gate_refusing = false;
        proxy_release(controller->proxy, controller->gate_hold);
        controller->gate_hold = 0;
    }
    (void)hold_drop(&controller->holds, HOLD_FLIP);
}

/* --- the proxy's events --- */

static void copy_counts(struct flip_counts *counts, const struct proxy_event *event)
{
    *counts = (struct flip_counts){.sessions = event->counts.sessions,
                                   .undrained = event->counts.undrained,
                                   .immovable = event->counts.immovable,
                                   .failed = event->counts.failed,
                                   .moved = event->counts.moved,
                                   .disconnected = event->counts.disconnected,
                                   .stall_p50_us = event->stall.p50_us,
                                   .stall_p99_us = event->stall.p99_us,
                                   .stall_max_us = event->stall.max_us};
    (void)snprintf(counts->reason, sizeof counts->reason, "%s", event->reason);
}

/* Answers the runner's request that waits for an event of this kind. */
static void answer(struct controller *controller, const struct proxy_event *event)
{
    const uint64_t ticket = controller->proxy_tickets[event->kind];
    struct flip_event told = {.kind = FLIP_EVENT_DONE, .ticket = ticket};
    if (ticket == 0) {
        return;
    }
    controller->proxy_tickets[event->kind] = 0;
    copy_counts(&told.counts, event);
    if (event->kind == PROXY_EVENT_ARMED) {
        controller_armed(controller, &told);
    } else {
        controller_feed(controller, &told);
    }
}

static void drain_news(struct controller *controller, const struct proxy_event *event)
{
    struct flip_event told = {.kind = event->kind == PROXY_EVENT_DRAINED ? FLIP_EVENT_DRAINED
                                                                         : FLIP_EVENT_PROGRESS};
    if (event->hold != controller->flip.spec.id || event->hold != controller->gate_hold) {
        return;
    }
    controller->drain = event->counts;
    copy_counts(&told.counts, event);
    controller_feed(controller, &told);
}

static void expired(struct controller *controller, const struct proxy_event *event)
{
    if (event->hold != controller->gate_hold) {
        return;
    }
    const bool by_flip = controller->holds.holds[HOLD_FLIP].stands;
    const bool refused = hold_gate(&controller->holds).refuse;
    events_publish(controller->events, LOG_LEVEL_WARN, "hold", by_flip ? controller->flip.spec.id : 0, NULL,
                   "the hold reached its deadline: clients %s", refused ? "were refused" : "go on");
    (void)hold_drop(&controller->holds, by_flip ? HOLD_FLIP : HOLD_OPERATOR);
    controller->gate_refusing = refused;
    if (!refused) {
        controller->gate_hold = 0;
        (void)hold_for_operator(controller);
    }
    if (by_flip) {
        struct flip_event told = {.kind = FLIP_EVENT_EXPIRED};
        controller_feed(controller, &told);
    }
}

static json_t *stall_json(const struct proxy_stall *stall)
{
    return json_pack("{s:f, s:f, s:f}", "p50", (double)stall->p50_us / CONTROLLER_MS_US, "p99",
                     (double)stall->p99_us / CONTROLLER_MS_US, "max",
                     (double)stall->max_us / CONTROLLER_MS_US);
}

static void operator_held(struct controller *controller, const struct proxy_event *event)
{
    char deadline[CLOCK_TEXT_SIZE];
    const struct hold *hold = &controller->holds.holds[HOLD_OPERATOR];
    struct rpc_call *call = controller->hold_call;
    if (call == NULL) {
        return;
    }
    controller->hold_call = NULL;
    clock_format(clock_wall_us() + hold->deadline_us - clock_mono_us(), deadline);
    rpc_reply(call, json_pack("{s:I, s:s, s:o, s:s, s:I, s:I}", "hold", (json_int_t)controller->operator_hold,
                              "owner", controller->operator_name, "reason", text_json(hold->reason),
                              "deadline", deadline, "sessions", (json_int_t)event->counts.sessions, "held",
                              (json_int_t)(event->counts.sessions - event->counts.undrained)));
}

static void operator_released(struct controller *controller, const struct proxy_event *event)
{
    struct rpc_call *call = controller->release_call;
    if (call != NULL) {
        controller->release_call = NULL;
        rpc_reply(call, json_pack("{s:I, s:o}", "released", (json_int_t)event->stall.clients, "stall_ms",
                                  stall_json(&event->stall)));
    }
}

void controller_proxy_event(void *context, const struct proxy_event *event)
{
    struct controller *controller = context;
    switch (event->kind) {
    case PROXY_EVENT_STOPPED:
        controller_proxy_stopped(controller);
        break;
    case PROXY_EVENT_ALIVE:
        controller->pings_answered = event->hold;
        break;
    case PROXY_EVENT_SESSIONS:
        controller_sessions_event(controller, event);
        break;
    case PROXY_EVENT_PROGRESS:
    case PROXY_EVENT_DRAINED:
        drain_news(controller, event);
        break;
    case PROXY_EVENT_EXPIRED:
        expired(controller, event);
        break;
    case PROXY_EVENT_HELD:
        if (event->hold > CONTROLLER_OPERATOR_HOLD) {
            operator_held(controller, event);
        }
        answer(controller, event);
        break;
    case PROXY_EVENT_RELEASED:
        if (event->hold > CONTROLLER_OPERATOR_HOLD) {
            operator_released(controller, event);
        }
        answer(controller, event);
        break;
    default:
        answer(controller, event);
    }
}

/* A deadline that the proxy doesn't know of, because a flip held the gate in front of it. */
void controller_holds_tick(struct controller *controller)
{
    if (controller->holds.holds[HOLD_FLIP].stands && controller->holds.holds[HOLD_OPERATOR].stands &&
        controller->holds.holds[HOLD_OPERATOR].deadline_us <= clock_mono_us()) {
        (void)hold_drop(&controller->holds, HOLD_OPERATOR);
    }
}

/* --- the verbs --- */

enum { HOLD_LONGEST_S = 3600 };

static bool may_hold(const struct controller *controller, struct error *error)
{
    const struct flip *flip = &controller->flip;
    if (controller->stopping) {
        return error_set(error, ERROR_ABORTED, "the daemon is stopping");
    }
    if (flip->mode == FLIP_MODE_RECOVER || flip->mode == FLIP_MODE_UNDECIDED ||
        flip->mode == FLIP_MODE_DEPOSED) {
        error_set(error, ERROR_UNDECIDED, "no side is active: there is nobody to hold");
        return error_remedy(error, "switchback status says why");
    }
    if (controller->gate_refusing) {
        /* The gate is closed for good until a side is open: a hold in its place would end by opening it. */
        error_set(error, ERROR_HELD, "flip %" PRIu64 " has reached its deadline: no side serves clients now",
                  flip->spec.id);
        return error_remedy(error, "wait for its end: switchback watch");
    }
    if (controller->holds.holds[HOLD_FLIP].stands) {
        error_set(error, ERROR_HELD, "flip %" PRIu64 " holds the clients now", flip->spec.id);
        return error_remedy(error, "wait for its end: switchback watch");
    }
    if (controller->hold_call != NULL || controller->release_call != NULL) {
        error_set(error, ERROR_HELD, "another hold or release is being carried out");
        return error_remedy(error, "try again");
    }
    return true;
}

void controller_method_hold(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    const char *duration = NULL, *reason = NULL;
    struct error error;
    int64_t us = 0;
    if (!rpc_call_unpack(call, "{s:s, s:s}", "for", &duration, "reason", &reason)) {
        return;
    }
    const enum unit_result result = unit_parse_duration(duration, &us);
    if (result != UNIT_OK || us <= 0 || us > (int64_t)HOLD_LONGEST_S * CONTROLLER_SECOND_US) {
        error_set(&error, ERROR_USAGE, "expected a duration of at most %d s with its unit, found \"%s\"%s",
                  HOLD_LONGEST_S, duration, unit_explain(result));
        rpc_fail(call, &error);
        return;
    }
    if (!may_hold(controller, &error)) {
        rpc_fail(call, &error);
        return;
    }
    hold_take(&controller->holds, HOLD_OPERATOR, clock_mono_us(), clock_mono_us() + us, false, reason);
    controller->hold_call = call;
    (void)snprintf(controller->operator_name, sizeof controller->operator_name, "%s",
                   rpc_call_peer(call)->name);
    events_publish(controller->events, LOG_LEVEL_INFO, "hold", 0, NULL, "%s holds the clients for %s: %s",
                   rpc_call_peer(call)->name, duration, reason);
    (void)hold_for_operator(controller);
}

void controller_method_release(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    struct error error;
    if (!rpc_call_unpack(call, "{}")) {
        return;
    }
    if (controller->gate_refusing) { /* the flip's gate, closed for good: it is the flip that opens it */
        error_set(&error, ERROR_HELD, "no side serves clients now");
        (void)error_remedy(&error, "wait for the end of the flip: switchback watch");
        rpc_fail(call, &error);
        return;
    }
    if (controller->stopping || controller->release_call != NULL ||
        !hold_drop(&controller->holds, HOLD_OPERATOR)) {
        error_set(&error, ERROR_HELD, "no hold by hand stands");
        if (controller->holds.holds[HOLD_FLIP].stands) {
            (void)error_remedy(&error, "the running flip's own hold ends with it: switchback abort");
        }
        rpc_fail(call, &error);
        return;
    }
    events_publish(controller->events, LOG_LEVEL_INFO, "hold", 0, NULL, "%s released the clients",
                   rpc_call_peer(call)->name);
    if (controller->holds.holds[HOLD_FLIP].stands) { /* the flip's hold goes on, and lets go by itself */
        rpc_reply(call, json_pack("{s:i, s:n}", "released", 0, "stall_ms"));
        return;
    }
    controller->release_call = call;
    proxy_release(controller->proxy, controller->gate_hold);
    controller->gate_hold = 0;
}
