#include "control/daemon/methods.h"

#include "conf/base/clock.h"
#include "conf/base/version.h"
#include "control/daemon/text.h"

#include <stdlib.h>

enum { AUDIT_ROWS = 100, AUDIT_ROWS_MAX = 10000, JOURNAL_FLIPS_MAX = 1000 };

#define MINUTE_US ((int64_t)60 * 1000 * 1000)

/* --- version --- */

static void version(void *context, struct rpc_call *call)
{
    const struct methods *methods = context;
    char started[CLOCK_TEXT_SIZE];
    if (!rpc_call_unpack(call, "{}")) {
        return;
    }
    rpc_reply(call, json_pack("{s:s, s:s, s:s}", "version", version_number(), "build", version_build(),
                              "started", clock_format(methods->started_us, started)));
}

/* --- events, subscribe --- */

/* False: the call was answered. */
static bool read_since(struct rpc_call *call, uint64_t *since)
{
    json_int_t number = 0;
    if (!rpc_call_unpack(call, "{s?I}", "since", &number)) {
        return false;
    }
    *since = number < 0 ? 0 : (uint64_t)number;
    return true;
}

static void add_event(void *context, const struct event *event)
{
    json_array_append_new(context, event_json(event));
}

static void list_events(void *context, struct rpc_call *call)
{
    const struct methods *methods = context;
    uint64_t since;
    if (!read_since(call, &since)) {
        return;
    }
    json_t *list = json_array();
    events_each(methods->events, since, add_event, list);
    rpc_reply(call, json_pack("{s:o, s:I}", "events", list, "last_seq",
                              (json_int_t)events_last_seq(methods->events)));
}

struct subscription {
    struct events *events;
    struct events_subscriber *subscriber;
    struct rpc_stream *stream;
};

static void subscription_ended(void *context)
{
    struct subscription *subscription = context;
    events_unsubscribe(subscription->events, subscription->subscriber);
    free(subscription);
}

static void send_event(void *context, const struct event *event)
{
    const struct subscription *subscription = context;
    rpc_stream_send(subscription->stream, "event", event_json(event));
}

/* Past events that the subscriber missed go one by one: any of them may find that it can't keep up. */
struct replay {
    struct rpc_stream *stream;
    bool ended;
};

static void replay_event(void *context, const struct event *event)
{
    struct replay *replay = context;
    if (!replay->ended) {
        replay->ended = !rpc_stream_send(replay->stream, "event", event_json(event));
    }
}

static void subscribe(void *context, struct rpc_call *call)
{
    const struct methods *methods = context;
    uint64_t since;
    if (!read_since(call, &since)) {
        return;
    }
    bool replays = json_object_get(rpc_call_params(call), "since") != NULL;
    struct subscription *subscription = calloc(1, sizeof(*subscription));
    struct events_subscriber *subscriber =
        subscription == NULL ? NULL : events_subscribe(methods->events, send_event, subscription);
    if (subscriber == NULL) {
        free(subscription);
        rpc_reply(call, NULL);
        return;
    }
    subscription->events = methods->events;
    subscription->subscriber = subscriber;
    json_t *result = json_pack("{s:I}", "last_seq", (json_int_t)events_last_seq(methods->events));
    subscription->stream = rpc_reply_stream(call, result, subscription_ended, subscription);
    if (subscription->stream == NULL) {
        subscription_ended(subscription);
    } else if (replays) {
        struct replay replay = {.stream = subscription->stream};
        events_each(methods->events, since, replay_event, &replay);
    }
}

/* --- audit --- */

/* Whether one more denied call may be written; says how many were not when a new minute begins. */
static bool may_write_denied(struct methods *methods)
{
    int64_t now_us = clock_mono_us();
    if (methods->denied_since_us == 0 || now_us - methods->denied_since_us > MINUTE_US) {
        if (methods->denied > METHODS_DENIED_A_MINUTE) {
            audit_decision(
                methods->audit, "denied_calls_not_listed",
                json_pack("{s:I}", "calls", (json_int_t)(methods->denied - METHODS_DENIED_A_MINUTE)));
        }
        methods->denied_since_us = now_us;
        methods->denied = 0;
    }
    methods->denied++;
    return methods->denied <= METHODS_DENIED_A_MINUTE;
}

void methods_audit_call(struct methods *methods, const struct rpc_peer *peer, const char *method,
                        const json_t *params, bool allowed)
{
    if (!allowed && !may_write_denied(methods)) {
        return;
    }
    json_t *detail = json_pack("{s:b}", "allowed", allowed);
    if (params != NULL) {
        json_object_set_new(detail, "params", json_deep_copy(params));
    }
    audit_append(methods->audit, (int64_t)peer->uid, peer->name, method, detail);
}

static void audit_listed(void *context, json_t *rows, const struct error *error)
{
    struct rpc_call *call = context;
    if (error != NULL) {
        rpc_fail(call, error);
    } else {
        rpc_reply(call, json_pack("{s:O}", "rows", rows));
    }
}

static void audit_verified(void *context, const struct audit_verdict *verdict, const struct error *error)
{
    struct rpc_call *call = context;
    if (error != NULL) {
        rpc_fail(call, error);
        return;
    }
    rpc_reply(call, json_pack("{s:b, s:I, s:o, s:o, s:o}", "intact", verdict->intact, "rows",
                              (json_int_t)verdict->rows, "broken_seq",
                              verdict->intact ? json_null() : json_integer((json_int_t)verdict->broken_seq),
                              "reason", text_json_or_null(verdict->reason), "last_hash",
                              text_json_or_null(verdict->last_hash)));
}

static void audit(void *context, struct rpc_call *call)
{
    const struct methods *methods = context;
    json_int_t since = 0, limit = AUDIT_ROWS;
    int verify = 0;
    if (!rpc_call_unpack(call, "{s?I, s?I, s?b}", "since", &since, "limit", &limit, "verify", &verify)) {
        return;
    }
    if (limit < 1 || limit > AUDIT_ROWS_MAX || since < 0) {
        struct error error;
        error_clear(&error);
        error_set(&error, ERROR_USAGE, "limit: 1 to %d was expected, since: a seq", AUDIT_ROWS_MAX);
        rpc_fail(call, &error);
    } else if (verify) {
        audit_verify(methods->audit, audit_verified, call);
    } else {
        audit_list(methods->audit, (uint64_t)since, (size_t)limit, audit_listed, call);
    }
}

/* --- journal --- */

static void journal_read(void *context, json_t *rows, const struct error *error)
{
    struct rpc_call *call = context;
    if (error != NULL) {
        rpc_fail(call, error);
    } else {
        rpc_reply(call, json_pack("{s:O}", "rows", rows));
    }
}

static void journal(void *context, struct rpc_call *call)
{
    const struct methods *methods = context;
    json_int_t flips = 1;
    if (!rpc_call_unpack(call, "{s?I}", "flips", &flips)) {
        return;
    }
    if (flips < 1 || flips > JOURNAL_FLIPS_MAX) {
        struct error error;
        error_clear(&error);
        error_set(&error, ERROR_USAGE, "flips: 1 to %d was expected", JOURNAL_FLIPS_MAX);
        rpc_fail(call, &error);
        return;
    }
    journal_report(methods->journal, (size_t)flips, journal_read, call);
}

/* --- reload --- */

static json_t *list_json(const struct settings_list *list)
{
    json_t *array = json_array();
    for (size_t i = 0; i < list->count; i++) {
        json_array_append_new(array, text_json(list->items[i]));
    }
    return array;
}

static void reload(void *context, struct rpc_call *call)
{
    const struct methods *methods = context;
    struct reload_result result = {0};
    struct error error;
    if (!rpc_call_unpack(call, "{}")) {
        return;
    }
    error_clear(&error);
    if (!methods->reload(methods->context, &result, &error)) {
        rpc_fail(call, &error);
        return;
    }
    rpc_reply(call, json_pack("{s:b, s:o, s:o}", "applied", result.applied, "changed",
                              list_json(&result.changed), "restart", list_json(&result.restart)));
    settings_list_deinit(&result.changed);
    settings_list_deinit(&result.restart);
}

static const struct rpc_method table[] = {
    {"version", ROLE_VIEWER, version, "", "version, build and start of the daemon"},
    {"events", ROLE_VIEWER, list_events, "since?: integer", "the events that are kept, oldest first"},
    {"subscribe", ROLE_VIEWER, subscribe, "since?: integer",
     "answers with last_seq, then sends each event as a notification"},
    {"audit", ROLE_VIEWER, audit, "since?: integer, limit?: integer, verify?: boolean",
     "rows of the audit log, or whether its chain is intact"},
    {"journal", ROLE_VIEWER, journal, "flips?: integer",
     "the journal's rows of the last flips, oldest first"},
    {"reload", ROLE_OPERATOR, reload, "", "apply the changed configuration file; all of it or none"},
};

void methods_register(struct rpc *rpc, struct methods *methods)
{
    rpc_register(rpc, table, ARRAY_LENGTH(table), methods);
}
