/* Sessions as others see them, and what logins need of the clusters: verifiers, types that differ. */
#include "control/daemon/controller_internal.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the list of sessions --- */

void controller_ask_sessions(struct controller *controller, bool exactly,
                             void (*done)(struct controller *controller, void *context,
                                          struct proxy_session_info *sessions, size_t count),
                             void *context)
{
    struct session_request *request = malloc(sizeof *request);
    ENSURE(request != NULL);
    *request = (struct session_request){.id = ++controller->session_request_id,
                                        .done = done,
                                        .context = context,
                                        .next = controller->session_requests};
    controller->session_requests = request;
    proxy_sessions(controller->proxy, request->id, exactly);
}

void controller_sessions_event(struct controller *controller, const struct proxy_event *event)
{
    for (struct session_request **link = &controller->session_requests; *link != NULL;
         link = &(*link)->next) {
        struct session_request *request = *link;
        if (request->id == event->request) {
            *link = request->next;
            request->done(controller, request->context, event->sessions, event->session_count);
            free(request);
            break;
        }
    }
    free(event->sessions);
}

static json_t *reasons_json(const char *reasons)
{
    json_t *list = json_array();
    for (const char *at = reasons; *at != '\0';) {
        const char *end = strstr(at, "; ");
        char reason[PROXY_REASON_SIZE];
        (void)snprintf(reason, sizeof reason, "%.*s", (int)(end != NULL ? (size_t)(end - at) : strlen(at)),
                       at);
        json_array_append_new(list, text_json(reason));
        at = end != NULL ? end + 2 : at + strlen(at);
    }
    return list;
}

/* The names of one kind in the lines of what a session holds. */
static json_t *held_json(const char *holds, const char *kind)
{
    json_t *list = json_array();
    size_t length = strlen(kind);
    for (const char *line = holds; *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        if (strncmp(line, kind, length) == 0 && line[length] == ' ') {
            char name[PROXY_HOLDS_SIZE];
            (void)snprintf(name, sizeof name, "%.*s", (int)(end - line - (ptrdiff_t)length - 1),
                           line + length + 1);
            json_array_append_new(list, text_json(name));
        }
        line = *end == '\0' ? end : end + 1;
    }
    return list;
}

/* The first of them, null if there is none or it is `usual`. */
static json_t *held_one_json(const char *holds, const char *kind, const char *usual)
{
    json_t *list = held_json(holds, kind);
    json_t *one = json_array_get(list, 0);
    bool tells = one != NULL && strcmp(json_string_value(one), usual) != 0;
    json_t *result = tells ? json_incref(one) : json_null();
    json_decref(list);
    return result;
}

static json_t *holds_json(const struct proxy_session_info *session)
{
    if (session->asked_age_us < 0) {
        return json_null(); /* it was never asked */
    }
    return json_pack("{s:I, s:{s:I, s:I, s:I}, s:o, s:o, s:o, s:o, s:o}", "asked_ms_ago",
                     (json_int_t)(session->asked_age_us / CONTROLLER_MS_US), "counts", "settings",
                     (json_int_t)session->settings, "statements", (json_int_t)session->statements, "channels",
                     (json_int_t)session->channels, "settings", held_json(session->holds, "setting"),
                     "statements", held_json(session->holds, "statement"), "channels",
                     held_json(session->holds, "channel"), "role", held_one_json(session->holds, "role", ""),
                     "session_user", held_one_json(session->holds, "user", session->user));
}

static json_t *session_json(const struct proxy_session_info *session)
{
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:s, s:s, s:b, s:b, s:o, s:o, s:I, s:I, s:s?, s:s?}", "id",
                     (json_int_t)session->id, "user", text_json(session->user), "database",
                     text_json(session->database), "client", text_json(session->client), "application",
                     text_json(session->application), "side", side_name(session->side), "state",
                     proxy_session_state_name(session->state), "waiting", session->waiting ? 1 : 0, "movable",
                     session->movable ? 1 : 0, "reasons", reasons_json(session->reasons), "holds",
                     holds_json(session), "age_ms", (json_int_t)(session->age_us / CONTROLLER_MS_US),
                     "state_age_ms", (json_int_t)(session->state_age_us / CONTROLLER_MS_US), "tls",
                     session->tls, "server_tls", session->server_tls);
}

struct listing {
    struct rpc_call *call;
    bool immovable;
};

/* Workers answer in any order; who reads looks for one. */
static int by_id(const void *one, const void *other)
{
    const struct proxy_session_info *a = one, *b = other;
    return a->id < b->id ? -1 : a->id > b->id;
}

static void list(struct controller *controller, void *context, struct proxy_session_info *sessions,
                 size_t count)
{
    struct listing *listing = context;
    json_t *array = json_array();
    (void)controller;
    if (count > 0) {
        qsort(sessions, count, sizeof sessions[0], by_id);
    }
    for (size_t i = 0; i < count; i++) {
        if (!listing->immovable || !sessions[i].movable) {
            json_array_append_new(array, session_json(&sessions[i]));
        }
    }
    rpc_reply(listing->call, json_pack("{s:o}", "sessions", array));
    free(listing);
}

void controller_method_sessions(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    int immovable = 0;
    int ask = 0;
    if (!rpc_call_unpack(call, "{s?b, s?b}", "immovable", &immovable, "ask", &ask)) {
        return;
    }
    if (ask != 0 && (rpc_call_peer(call)->roles & ROLE_OPERATOR) == 0) {
        struct error error;
        error_set(&error, ERROR_PERMISSION,
                  "asking the sessions makes their clients wait: it needs the role operator");
        rpc_fail(call, &error);
        return;
    }
    if (controller->stopping) {
        controller_say_stopping(call);
        return;
    }
    struct listing *listing = malloc(sizeof *listing);
    ENSURE(listing != NULL);
    *listing = (struct listing){.call = call, .immovable = immovable != 0};
    controller_ask_sessions(controller, ask != 0, list, listing);
}

/* --- verifiers ---
 *
 * Nothing is remembered, so that a role changed on the active side is seen at the next login. But a storm of
 * logins of one role asks once: who comes while a question is under way gets the answer of the next one,
 * which was asked after they came.
 */

struct role_waiter {
    uint64_t request;
    struct role_waiter *next;
};

struct role_request {
    struct controller *controller;
    enum side side;
    bool groups; /* asked for, too */
    char role[PROXY_NAME_SIZE];
    struct role_waiter *asked, *next_time;
    struct role_request *next;
};

static void ask(struct role_request *request);

static void answer(struct controller *controller, struct role_waiter *waiters,
                   const struct proxy_verifier *verifier)
{
    while (waiters != NULL) {
        struct role_waiter *waiter = waiters;
        waiters = waiter->next;
        if (controller->proxy != NULL) {
            proxy_verifier_answer(controller->proxy, waiter->request, verifier);
        }
        free(waiter);
    }
}

static void forget(struct role_request *request)
{
    struct controller *controller = request->controller;
    struct role_request **link = &controller->roles;
    while (*link != request) {
        link = &(*link)->next;
    }
    *link = request->next;
    free(request);
    controller_unref(controller);
}

static void on_role(void *context, const struct replication_result *result,
                    const struct replication_role *role)
{
    struct role_request *request = context;
    struct controller *controller = request->controller;
    bool silent = result->error.code == ERROR_UNREACHABLE || result->error.code == ERROR_TIMEOUT;
    struct proxy_verifier verifier = {.unavailable = !result->ok, .refused = !result->ok && !silent};
    if (result->ok) {
        verifier.found = role->found && role->verifier[0] != '\0';
        verifier.can_login = role->can_login;
        verifier.md5 = role->md5;
        verifier.iterations = role->iterations;
        verifier.groups = role->groups;
        verifier.groups_length = role->groups_length;
        (void)snprintf(verifier.text, sizeof verifier.text, "%s", role->verifier);
    }
    struct role_waiter *asked = request->asked;
    request->asked = request->next_time;
    request->next_time = NULL;
    answer(controller, asked, &verifier);
    explicit_bzero(&verifier, sizeof verifier);
    if (request->asked != NULL && !controller->stopping) {
        ask(request);
        return;
    }
    verifier = (struct proxy_verifier){.unavailable = true};
    answer(controller, request->asked, &verifier);
    request->asked = NULL;
    forget(request);
}

static void ask(struct role_request *request)
{
    replication_read_role(request->controller->replication, request->side, request->role, request->groups,
                          on_role, request);
}

void controller_verifier(void *context, uint64_t id, enum side side, const char *role, bool groups)
{
    struct controller *controller = context;
    struct role_waiter *waiter = malloc(sizeof *waiter);
    ENSURE(waiter != NULL);
    *waiter = (struct role_waiter){.request = id};
    if (controller->stopping || strlen(role) >= PROXY_NAME_SIZE) {
        const struct proxy_verifier verifier = {.unavailable = controller->stopping};
        answer(controller, waiter, &verifier);
        return;
    }
    for (struct role_request *request = controller->roles; request != NULL; request = request->next) {
        if (request->side == side && request->groups == groups && strcmp(request->role, role) == 0) {
            waiter->next = request->next_time;
            request->next_time = waiter;
            return;
        }
    }
    struct role_request *request = calloc(1, sizeof *request);
    ENSURE(request != NULL);
    request->controller = controller;
    request->side = side;
    request->groups = groups;
    (void)snprintf(request->role, sizeof request->role, "%s", role);
    request->asked = waiter;
    request->next = controller->roles;
    controller->roles = request;
    controller_ref(controller);
    ask(request);
}

/* --- the types of both sides --- */

static const enum proxy_type_kind kinds[] = {
    [REPLICATION_TYPE_PLAIN] = PROXY_TYPE_PLAIN,
    [REPLICATION_TYPE_ARRAY] = PROXY_TYPE_ARRAY,
    [REPLICATION_TYPE_COMPOSITE] = PROXY_TYPE_COMPOSITE,
    [REPLICATION_TYPE_DOMAIN] = PROXY_TYPE_DOMAIN,
    [REPLICATION_TYPE_RANGE] = PROXY_TYPE_RANGE,
    [REPLICATION_TYPE_MULTIRANGE] = PROXY_TYPE_MULTIRANGE,
};

/* What waits until the types of every database have been read, or can't be. */
struct types_waiter {
    struct controller *controller;
    size_t missing;
    bool failed;
    void (*done)(struct controller *controller, void *context);
    void *context;
};

static void on_types(void *context, const struct replication_result *result, const char *database,
                     const struct replication_type *types, size_t count)
{
    struct types_waiter *waiter = context;
    struct controller *controller = waiter->controller;
    if (result->ok && !controller->stopping) {
        struct proxy_type *told = calloc(count + 1, sizeof *told);
        ENSURE(told != NULL);
        for (size_t i = 0; i < count; i++) {
            told[i].kind = kinds[types[i].kind];
            memcpy(told[i].oids, types[i].oids, sizeof told[i].oids);
            memcpy(told[i].related, types[i].related, sizeof told[i].related);
        }
        proxy_set_types(controller->proxy, database, told, count);
        free(told);
    } else if (!result->ok) {
        waiter->failed = true;
        LOG_WARN("types_not_read", LOG_STR("database", database), LOG_STR("error", result->error.message));
    }
    if (--waiter->missing == 0) {
        controller->types_known = controller->types_known || !waiter->failed;
        waiter->done(controller, waiter->context);
        free(waiter);
    }
    controller_unref(controller);
}

void controller_read_types(struct controller *controller,
                           void (*done)(struct controller *controller, void *context), void *context)
{
    const struct settings_list *databases = &controller->settings->databases;
    if (!controller->flip.prepared || databases->count == 0) {
        done(controller, context);
        return;
    }
    struct types_waiter *waiter = calloc(1, sizeof *waiter);
    ENSURE(waiter != NULL);
    *waiter = (struct types_waiter){
        .controller = controller, .missing = databases->count, .done = done, .context = context};
    for (size_t i = 0; i < databases->count; i++) {
        controller_ref(controller);
        replication_read_types(controller->replication, databases->items[i], on_types, waiter);
    }
}

static void nothing_more(struct controller *controller, void *context)
{
    (void)controller;
    (void)context;
}

void controller_refresh_types(struct controller *controller)
{
    controller_read_types(controller, nothing_more, NULL);
}

void controller_sessions_stop(struct controller *controller)
{
    while (controller->session_requests != NULL) {
        struct session_request *request = controller->session_requests;
        controller->session_requests = request->next;
        request->done(controller, request->context, NULL, 0);
        free(request);
    }
}
