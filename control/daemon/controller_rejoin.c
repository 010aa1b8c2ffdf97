/* The verb rejoin: what only a diverged side holds, and that side brought back as the standby. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdlib.h>

struct rejoining {
    struct controller *controller;
    struct rpc_call *call;
    enum side side; /* that is diverged */
    bool dry_run;
    struct controller_operation operation;
    json_t *report;
};

static void refuse(struct rejoining *rejoining, const struct error *error)
{
    struct controller *controller = rejoining->controller;
    if (!rejoining->dry_run) {
        controller->busy = NULL;
    }
    rpc_fail(rejoining->call, error);
    json_decref(rejoining->report);
    free(rejoining);
    controller_unref(controller);
}

static void end(struct rejoining *rejoining, const struct error *error)
{
    struct controller *controller = rejoining->controller;
    const bool dry_run = rejoining->dry_run;
    struct flip_event event = {.kind = FLIP_EVENT_CONTACT};
    controller_ref(controller);
    if (error != NULL) {
        refuse(rejoining, error);
    } else {
        if (!dry_run) {
            controller->busy = NULL;
        }
        rpc_reply(rejoining->call, rejoining->report);
        free(rejoining);
        controller_unref(controller);
    }
    if (!dry_run) {
        controller_feed(controller, &event); /* its standing is another one now */
    }
    controller_unref(controller);
}

static void on_progress(void *context, const struct replication_progress *progress)
{
    const struct rejoining *rejoining = context;
    rpc_progress(rejoining->call, json_pack("{s:o, s:o}", "step", text_json(progress->step), "message",
                                            text_json(progress->message)));
}

static void begin_rejoin(void *context, const struct error *refused);

/* An attempt came to nothing: the next one, or the end. */
static void attempt_failed(struct rejoining *rejoining, const struct replication_result *result)
{
    struct controller *controller = rejoining->controller;
    struct error error;
    if (controller_operation_again(controller, &rejoining->operation, "rejoin", result, &error)) {
        controller_settle(controller, "rejoin", begin_rejoin, rejoining);
        return;
    }
    events_publish(controller->events, LOG_LEVEL_WARN, "rejoin", 0, NULL, "%s can't rejoin: %s",
                   side_name(rejoining->side), error.message);
    end(rejoining, &error);
}

static void on_rejoined(void *context, const struct replication_result *result)
{
    struct rejoining *rejoining = context;
    struct controller *controller = rejoining->controller;
    const char *side = side_name(rejoining->side);
    if (!result->ok) {
        attempt_failed(rejoining, result);
        return;
    }
    events_publish(controller->events, LOG_LEVEL_INFO, "rejoin", 0, NULL,
                   "%s follows %s again; %" JSON_INTEGER_FORMAT " of its rows were replaced", side,
                   side_name(side_other(rejoining->side)),
                   json_integer_value(json_object_get(rejoining->report, "rows")));
    end(rejoining, NULL);
}

/* --- what is stranded --- */

static json_t *row_json(const struct replication_stranded *row)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "database", text_json(row->database), "xid",
                     text_json(row->xid), "lsn", text_json(row->lsn), "table", text_json(row->table),
                     "operation", text_json(row->operation), "key", text_json_or_null(row->key));
}

static void on_stranded(void *context, const struct replication_result *result,
                        const struct replication_stranded_list *list)
{
    struct rejoining *rejoining = context;
    struct controller *controller = rejoining->controller;
    struct error error;
    if (!result->ok || controller->stopping) {
        controller_stopping_error(&error);
        end(rejoining, result->ok ? &error : &result->error);
        return;
    }
    json_t *rows = json_array();
    for (size_t i = 0; i < list->count; i++) {
        json_array_append_new(rows, row_json(&list->rows[i]));
    }
    rejoining->report =
        json_pack("{s:s, s:s, s:b, s:I, s:I, s:b, s:o}", "side", side_name(rejoining->side), "active",
                  side_name(side_other(rejoining->side)), "dry_run", rejoining->dry_run ? 1 : 0,
                  "transactions", (json_int_t)list->transactions, "rows", (json_int_t)list->total,
                  "incomplete", list->incomplete ? 1 : 0, "stranded", rows);
    if (rejoining->dry_run) {
        end(rejoining, NULL);
        return;
    }
    /* The last trace of them: who looks for a payment later finds it here. */
    audit_decision(controller->audit, "rejoin", json_deep_copy(rejoining->report));
    replication_rejoin(controller->replication, side_other(rejoining->side), on_progress, on_rejoined,
                       rejoining);
}

/* --- the verb --- */

static bool may_rejoin(const struct controller *controller, enum side side, struct error *error)
{
    const struct flip *flip = &controller->flip;
    if (controller->begins.id != 0 || flip_running(flip)) {
        error_set(error, ERROR_FLIP_RUNNING, "a flip is under way");
        return error_remedy(error, "wait for its end, then: switchback rejoin");
    }
    if (flip->mode != FLIP_MODE_STEADY || !flip->history.known) {
        error_set(error, ERROR_UNDECIDED, "it isn't decided which side is active");
        return error_remedy(error, "switchback recover");
    }
    if (controller->side_seen[side] && !controller->side_reachable[side]) {
        return error_set(error, ERROR_UNREACHABLE, "%s can't be reached", side_name(side));
    }
    if (flip->facts.sides[side].diverged == 0) {
        return error_set(error, ERROR_NOT_DIVERGED, "%s is not diverged: there is nothing to rejoin",
                         side_name(side));
    }
    return true;
}

static void begin_rejoin(void *context, const struct error *refused)
{
    struct rejoining *rejoining = context;
    struct controller *controller = rejoining->controller;
    const enum side side = rejoining->side;
    struct error error;
    if (refused == NULL && side == controller->flip.history.active) {
        (void)error_set(&error, ERROR_STALE, "%s is active now", side_name(side));
        (void)error_remedy(&error, "see switchback status before anything else");
        refused = &error;
    } else if (refused == NULL && !may_rejoin(controller, side, &error)) {
        refused = &error;
    }
    if (refused != NULL) {
        events_publish(controller->events, LOG_LEVEL_WARN, "rejoin", 0, NULL, "%s can't rejoin: %s",
                       side_name(side), refused->message);
        refuse(rejoining, refused);
        return;
    }
    controller_operation_begins(controller, &rejoining->operation);
    if (rejoining->report == NULL) {
        replication_stranded(controller->replication, side, on_stranded, rejoining);
    } else { /* told already: another attempt, which may find less */
        replication_rejoin(controller->replication, side_other(side), on_progress, on_rejoined, rejoining);
    }
}

static struct rejoining *rejoining_new(struct controller *controller, struct rpc_call *call, enum side side,
                                       bool dry_run)
{
    struct rejoining *rejoining = calloc(1, sizeof *rejoining);
    ENSURE(rejoining != NULL);
    *rejoining = (struct rejoining){.controller = controller, .call = call, .side = side, .dry_run = dry_run};
    controller_ref(controller);
    return rejoining;
}

void controller_method_rejoin(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    const enum side side = side_other(controller->flip.history.active);
    int dry_run = 0;
    const char *reason = NULL;
    struct error error;
    if (!rpc_call_unpack(call, "{s?b, s?s}", "dry_run", &dry_run, "reason", &reason)) {
        return;
    }
    if (controller->stopping) {
        controller_say_stopping(call);
    } else if (controller->busy != NULL) {
        (void)error_set(&error, ERROR_FLIP_RUNNING, "%s is under way", controller->busy);
        (void)error_remedy(&error, "wait for its end, then: switchback rejoin");
        rpc_fail(call, &error);
    } else if ((dry_run != 0 || controller_is_settled(controller)) && !may_rejoin(controller, side, &error)) {
        rpc_fail(call, &error);
    } else if (dry_run != 0) {
        replication_stranded(controller->replication, side, on_stranded,
                             rejoining_new(controller, call, side, true));
    } else {
        events_publish(controller->events, LOG_LEVEL_INFO, "rejoin", 0, NULL, "%s asks that %s rejoin%s%s",
                       rpc_call_peer(call)->name, side_name(side), reason != NULL ? ": " : "",
                       reason != NULL ? reason : "");
        controller_settle(controller, "rejoin", begin_rejoin, rejoining_new(controller, call, side, false));
    }
}
