#include "control/daemon/rpc.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "control/daemon/rpc_call.h"
#include "control/daemon/rpc_connection.h"
#include "control/daemon/rpc_socket.h"
#include "control/daemon/text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

enum {
    TABLES = 8,
    BACKLOG = 64,
    RESERVED_CONNECTIONS = 16, /* beyond RPC_CONNECTIONS, for operators: viewers can't lock them out */
    STRANGERS = 8,             /* connections of peers without a role */
    CALLS_AT_ONCE = 16,        /* of one connection */
    FAREWELL_MS = 1000,
    FAREWELL_SLOW_MS = 5000
};

struct table {
    const struct rpc_method *methods;
    size_t count;
    void *context;
};

struct rpc {
    uv_pipe_t listener;
    bool listener_closed;
    struct rpc_config config;
    char *socket_path;
    struct table tables[TABLES];
    size_t table_count;
    struct rpc_connection *connections;
    size_t connection_count, stranger_count;
    bool stopping;
    void (*stopped)(void *context);
    void *stopped_context;
};

/* --- requests --- */

static const struct rpc_method *find_method(const struct rpc *rpc, const char *name, void **context)
{
    for (size_t i = 0; i < rpc->table_count; i++) {
        const struct table *table = &rpc->tables[i];
        for (size_t j = 0; j < table->count; j++) {
            if (strcmp(table->methods[j].name, name) == 0) {
                *context = table->context;
                return &table->methods[j];
            }
        }
    }
    return NULL;
}

static bool is_request(const json_t *request)
{
    const json_t *id = json_object_get(request, "id");
    const char *version = json_string_value(json_object_get(request, "jsonrpc"));
    return json_is_object(request) && version != NULL && strcmp(version, "2.0") == 0 &&
           json_is_string(json_object_get(request, "method")) &&
           (id == NULL || json_is_string(id) || json_is_number(id) || json_is_null(id));
}

static bool may_call(struct rpc_connection *connection, const struct rpc_method *method, json_t *id,
                     const json_t *params)
{
    const struct rpc_config *config = &connection->rpc->config;
    bool allowed = (connection->peer.roles & method->role) != 0;
    if (config->called != NULL && (!allowed || method->role != ROLE_VIEWER)) {
        config->called(config->context, &connection->peer, method->name, params, allowed);
    }
    if (!allowed) {
        LOG_WARN("rpc_denied", LOG_STR("peer", connection->peer.name), LOG_U64("uid", connection->peer.uid),
                 LOG_STR("method", method->name));
        struct error error;
        error_clear(&error);
        error_set(&error, ERROR_PERMISSION, "%s needs the role %s, which %s (uid %lu) doesn't have",
                  method->name, role_name(method->role), connection->peer.name,
                  (unsigned long)connection->peer.uid);
        error_remedy(&error, "add the user to control.%ss in the configuration, and reload",
                     role_name(method->role));
        if (id != NULL) {
            call_error(connection, id, RPC_METHOD_FAILED, &error);
        }
    }
    return allowed;
}

static void dispatch(struct rpc_connection *connection, const struct rpc_method *method, void *context,
                     json_t *id, json_t *params)
{
    struct rpc_call *call = call_new(connection, id, params);
    if (call == NULL) {
        connection_close(connection);
        return;
    }
    LOG_DEBUG("rpc_call", LOG_STR("peer", connection->peer.name), LOG_STR("method", method->name));
    method->handler(context, call);
}

static void handle_request(struct rpc_connection *connection, json_t *request)
{
    json_t *id = json_object_get(request, "id"); /* NULL: a notification, never answered */
    json_t *params = json_object_get(request, "params");
    const char *name = json_string_value(json_object_get(request, "method"));
    void *context = NULL;
    const struct rpc_method *method = find_method(connection->rpc, name, &context);
    if (method == NULL) {
        if (id != NULL) {
            struct error error;
            error_clear(&error);
            error_set(&error, ERROR_USAGE, "there is no method \"%s\"", name);
            error_remedy(&error, "the method `methods` lists them");
            call_error(connection, id, RPC_METHOD_NOT_FOUND, &error);
        }
    } else if (params != NULL && !json_is_object(params)) {
        if (id != NULL) {
            call_refuse(connection, id, RPC_INVALID_PARAMS,
                        "params: an object with named parameters was expected",
                        "the method `methods` says what each one takes");
        }
    } else if (!may_call(connection, method, id, params)) {
        return;
    } else if (connection->call_count >= CALLS_AT_ONCE) {
        if (id != NULL) {
            call_refuse(connection, id, RPC_METHOD_FAILED, "too many requests at once on this connection",
                        "wait for an answer");
        }
    } else {
        dispatch(connection, method, context, id, params);
    }
}

static bool is_blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
            return false;
        }
    }
    return true;
}

void rpc_connection_line(struct rpc_connection *connection, const char *line, size_t length)
{
    if (line == NULL) {
        call_refuse(connection, NULL, RPC_INVALID_REQUEST, "the request is longer than 64 KiB",
                    "one JSON document a line");
        return;
    }
    if (is_blank(line, length)) {
        return;
    }
    json_error_t problem;
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &problem);
    if (request == NULL) {
        struct error error;
        error_clear(&error);
        error_set(&error, ERROR_USAGE, "the request is not JSON: %s", problem.text);
        error_remedy(&error, "one JSON document a line");
        call_error(connection, NULL, RPC_PARSE_ERROR, &error);
    } else if (json_is_array(request)) {
        call_refuse(connection, NULL, RPC_INVALID_REQUEST, "batches are not supported",
                    "send each request on its own line, without waiting for answers");
    } else if (!is_request(request)) {
        call_refuse(connection, NULL, RPC_INVALID_REQUEST, "the request is not one of JSON-RPC 2.0",
                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"params\":{}}");
    } else {
        handle_request(connection, request);
    }
    json_decref(request);
    if (!connection->closing) {
        call_close_if_over(connection);
    }
}

/* --- connections --- */

void rpc_connection_admitted(struct rpc_connection *connection)
{
    if (connection->peer.roles == 0) {
        /* It hears why with its first request, and can't keep its place for long without one. */
        connection_limit(connection, FAREWELL_SLOW_MS);
    }
}

static void finish_stop(struct rpc *rpc)
{
    if (!rpc->stopping || !rpc->listener_closed || rpc->connection_count > 0) {
        return;
    }
    void (*stopped)(void *) = rpc->stopped;
    void *context = rpc->stopped_context;
    roles_free(rpc->config.roles);
    free(rpc->socket_path);
    free(rpc);
    if (stopped != NULL) {
        stopped(context);
    }
}

void rpc_connection_freed(struct rpc *rpc, struct rpc_connection *connection)
{
    DL_DELETE2(rpc->connections, connection, previous, next);
    rpc->connection_count--;
    rpc->stranger_count -= connection->is_stranger;
    finish_stop(rpc);
}

static bool has_room(const struct rpc *rpc, const struct rpc_connection *connection)
{
    bool operates = (connection->peer.roles & ROLE_OPERATOR) != 0;
    return rpc->connection_count <= RPC_CONNECTIONS + (operates ? RESERVED_CONNECTIONS : 0) &&
           (!connection->is_stranger || rpc->stranger_count <= STRANGERS);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct rpc *rpc = listener->data;
    if (status != 0) {
        LOG_WARN("rpc_accept_failed", LOG_STR("error", uv_strerror(status)));
        return;
    }
    const struct rpc_connection_owner owner = {.identify = rpc->config.identify,
                                               .identify_context = rpc->config.context};
    struct rpc_connection *connection = connection_accept(rpc, listener, &owner);
    if (connection == NULL) {
        LOG_ERROR("rpc_accept_failed", LOG_STR("error", "out of memory"));
        return;
    }
    connection->peer.roles =
        roles_of(rpc->config.roles, connection->peer.uid, connection->groups, connection->group_count);
    connection->is_stranger = connection->peer.roles == 0;
    DL_APPEND2(rpc->connections, connection, previous, next);
    rpc->connection_count++;
    rpc->stranger_count += connection->is_stranger;
    if (connection->closing) {
        return;
    }
    if (has_room(rpc, connection)) {
        connection_begin(connection);
    } else {
        call_refuse(connection, NULL, RPC_METHOD_FAILED, "too many connections to the control socket",
                    "close some and try again");
        connection_finish(connection, FAREWELL_MS);
    }
}

/* --- the server --- */

void rpc_register(struct rpc *rpc, const struct rpc_method *methods, size_t count, void *context)
{
    ENSURE(rpc->table_count < TABLES);
    void *ignored;
    for (size_t i = 0; i < count; i++) {
        ENSURE(find_method(rpc, methods[i].name, &ignored) == NULL);
    }
    rpc->tables[rpc->table_count++] = (struct table){methods, count, context};
}

static void list_methods(void *context, struct rpc_call *call)
{
    const struct rpc *rpc = context;
    if (!rpc_call_unpack(call, "{}")) {
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < rpc->table_count; i++) {
        for (size_t j = 0; j < rpc->tables[i].count; j++) {
            const struct rpc_method *method = &rpc->tables[i].methods[j];
            json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", method->name, "role",
                                                  role_name(method->role), "params", method->params, "doc",
                                                  method->doc));
        }
    }
    rpc_reply(call, json_pack("{s:o}", "methods", list));
}

static const struct rpc_method own_methods[] = {
    {"methods", ROLE_VIEWER, list_methods, "",
     "what this socket offers, and the role that each method needs"},
};

struct rpc *rpc_start(uv_loop_t *loop, const struct rpc_config *config, struct error *error)
{
    struct rpc *rpc = calloc(1, sizeof(*rpc));
    char *path = strdup(config->socket_path);
    if (rpc == NULL || path == NULL) {
        free(rpc);
        free(path);
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    int descriptor = rpc_socket_listen(path, roles_any_configured(config->roles), BACKLOG, error);
    if (descriptor < 0) {
        free(rpc);
        free(path);
        return NULL;
    }
    rpc->config = *config;
    rpc->socket_path = path;
    rpc->listener.data = rpc;
    ENSURE(uv_pipe_init(loop, &rpc->listener, 0) == 0);
    ENSURE(uv_pipe_open(&rpc->listener, descriptor) == 0);
    ENSURE(uv_listen((uv_stream_t *)&rpc->listener, BACKLOG, on_connection) == 0);
    rpc_register(rpc, own_methods, 1, rpc);
    return rpc;
}

void rpc_set_roles(struct rpc *rpc, struct roles *roles)
{
    struct rpc_connection *connection;
    roles_free(rpc->config.roles);
    rpc->config.roles = roles;
    rpc_socket_mode(rpc->socket_path, roles_any_configured(roles));
    DL_FOREACH2(rpc->connections, connection, next)
    {
        connection->peer.roles =
            roles_of(roles, connection->peer.uid, connection->groups, connection->group_count);
    }
}

static void listener_closed(uv_handle_t *handle)
{
    struct rpc *rpc = handle->data;
    rpc->listener_closed = true;
    finish_stop(rpc);
}

void rpc_stop(struct rpc *rpc, void (*done)(void *context), void *context)
{
    struct rpc_connection *connection, *next;
    rpc->stopping = true;
    rpc->stopped = done;
    rpc->stopped_context = context;
    unlink(rpc->socket_path);
    uv_close((uv_handle_t *)&rpc->listener, listener_closed);
    DL_FOREACH_SAFE2(rpc->connections, connection, next, next)
    {
        rpc_connection_lost(connection);
        connection_finish(connection, FAREWELL_MS);
    }
}
