#include "control/daemon/rpc_call.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "control/daemon/text.h"

#include <stdlib.h>
#include <utlist.h>

enum {
    STREAM_UNSENT_LIMIT = 256 * 1024, /* bytes; a subscriber further behind is dropped */
    FAREWELL_MS = 5000
};

struct rpc_call {
    struct rpc_connection *connection; /* NULL: gone */
    json_t *id, *params;               /* id NULL: a notification */
    struct rpc_peer peer;
    void (*gone)(void *context);
    void *gone_context;
    struct rpc_call *prev, *next;
};

struct rpc_stream {
    struct rpc_connection *connection;
    void (*ended)(void *context);
    void *context;
    struct rpc_stream *next;
};

/* --- documents --- */

void call_error(struct rpc_connection *connection, json_t *id, int code, const struct error *error)
{
    rpc_connection_send(connection,
                        json_pack("{s:s, s:O, s:{s:i, s:o, s:{s:s, s:o, s:o}}}", "jsonrpc", "2.0", "id",
                                  id == NULL ? json_null() : id, "error", "code", code, "message",
                                  text_json(error->message), "data", "code", error_code_text(error->code),
                                  "message", text_json(error->message), "remedy", text_json(error->remedy)));
}

void call_refuse(struct rpc_connection *connection, json_t *id, int code, const char *message,
                 const char *remedy)
{
    struct error error;
    error_clear(&error);
    error_set(&error, ERROR_USAGE, "%s", message);
    error_remedy(&error, "%s", remedy);
    call_error(connection, id, code, &error);
}

/* --- calls --- */

struct rpc_call *call_new(struct rpc_connection *connection, json_t *id, json_t *params)
{
    struct rpc_call *call = calloc(1, sizeof(*call));
    json_t *given = params == NULL ? json_object() : json_incref(params);
    if (call == NULL || given == NULL) {
        free(call);
        json_decref(given);
        return NULL;
    }
    call->connection = connection;
    call->id = id == NULL ? NULL : json_incref(id);
    call->params = given;
    call->peer = connection->peer;
    DL_APPEND(connection->calls, call);
    connection->call_count++;
    return call;
}

/* Takes the call off its connection: its answer goes nowhere from now on. */
static void detach_call(struct rpc_call *call)
{
    if (call->connection != NULL) {
        DL_DELETE(call->connection->calls, call);
        call->connection->call_count--;
        call->connection = NULL;
    }
}

/* A connection whose peer has nothing more to ask closes after its last answer; so does one without a role.
 */
void call_close_if_over(struct rpc_connection *connection)
{
    if (connection->call_count == 0 && (connection->ended || connection->peer.roles == 0)) {
        connection_finish(connection, FAREWELL_MS);
    }
}

static void free_call(struct rpc_call *call)
{
    struct rpc_connection *connection = call->connection;
    detach_call(call);
    json_decref(call->id);
    json_decref(call->params);
    free(call);
    if (connection != NULL) {
        call_close_if_over(connection);
    }
}

const struct rpc_peer *rpc_call_peer(const struct rpc_call *call)
{
    return &call->peer;
}

const json_t *rpc_call_params(const struct rpc_call *call)
{
    return call->params;
}

static bool wants_answer(const struct rpc_call *call)
{
    return call->connection != NULL && call->id != NULL;
}

/* --- parameters --- */

enum { PARAMETERS_MAX = 8 };

static const struct {
    char format; /* jansson's */
    const char *what;
} parameter_kinds[] = {
    {'s', "a text"}, {'b', "true or false"}, {'i', "a whole number"}, {'I', "a whole number"}};

static bool is_of_kind(const json_t *value, char format)
{
    return format == 's'   ? json_is_string(value)
           : format == 'b' ? json_is_boolean(value)
                           : json_is_integer(value);
}

static const char *kind_name(char format)
{
    size_t i = 0;
    while (i + 1 < ARRAY_LENGTH(parameter_kinds) && parameter_kinds[i].format != format) {
        i++;
    }
    ENSURE(parameter_kinds[i].format == format); /* no method asks for another */
    return parameter_kinds[i].what;
}

/* What is wrong with them, by name: the format is read as jansson did, which only says that something is. */
static void say_wrong(const json_t *params, const char *format, va_list arguments, struct error *error)
{
    const char *names[PARAMETERS_MAX];
    size_t count = 0;
    for (const char *at = strchr(format, 's'); at != NULL; at = strchr(at + 1, 's')) { /* of each key */
        const bool optional = at[1] == '?';
        at += strspn(at + 1, "?: ") + 1;
        ENSURE(count < PARAMETERS_MAX);
        const char *name = names[count++] = va_arg(arguments, const char *);
        (void)va_arg(arguments, void *);
        const json_t *value = json_object_get(params, name);
        if (value == NULL && !optional) {
            error_set(error, ERROR_USAGE, "the parameter %s is missing", name);
            return;
        }
        if (value != NULL && !is_of_kind(value, *at)) {
            error_set(error, ERROR_USAGE, "the parameter %s must be %s", name, kind_name(*at));
            return;
        }
    }
    void *member = json_object_iter((json_t *)params); /* not changed by it */
    for (; member != NULL; member = json_object_iter_next((json_t *)params, member)) {
        size_t i = 0;
        while (i < count && strcmp(names[i], json_object_iter_key(member)) != 0) {
            i++;
        }
        if (i == count) {
            error_set(error, ERROR_USAGE, "there is no parameter %s", json_object_iter_key(member));
            return;
        }
    }
}

bool rpc_call_unpack(struct rpc_call *call, const char *format, ...)
{
    json_error_t problem;
    va_list arguments;
    va_start(arguments, format);
    int status = json_vunpack_ex(call->params, &problem, JSON_STRICT, format, arguments);
    va_end(arguments);
    if (status == 0) {
        return true;
    }
    if (wants_answer(call)) {
        struct error error;
        error_clear(&error);
        error_set(&error, ERROR_USAGE, "params: %s", problem.text);
        va_start(arguments, format);
        say_wrong(call->params, format, arguments, &error);
        va_end(arguments);
        error_remedy(&error, "the method `methods` says what each one takes");
        call_error(call->connection, call->id, RPC_INVALID_PARAMS, &error);
    }
    free_call(call);
    return false;
}

void rpc_progress(struct rpc_call *call, json_t *params)
{
    if (!wants_answer(call) || params == NULL) {
        json_decref(params);
        return;
    }
    json_object_set(params, "id", call->id);
    rpc_connection_send(call->connection, json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", "progress",
                                                    "params", params));
}

void rpc_reply(struct rpc_call *call, json_t *result)
{
    if (result == NULL) {
        struct error error;
        error_clear(&error);
        error_set(&error, ERROR_MEMORY, "the answer could not be put together");
        rpc_fail(call, &error);
        return;
    }
    call->gone = NULL;
    if (wants_answer(call)) {
        rpc_connection_send(call->connection,
                            json_pack("{s:s, s:O, s:O}", "jsonrpc", "2.0", "id", call->id, "result", result));
    }
    json_decref(result);
    free_call(call);
}

void rpc_fail(struct rpc_call *call, const struct error *error)
{
    call->gone = NULL;
    if (wants_answer(call)) {
        call_error(call->connection, call->id, RPC_METHOD_FAILED, error);
    }
    free_call(call);
}

void rpc_call_on_gone(struct rpc_call *call, void (*gone)(void *context), void *context)
{
    call->gone = gone;
    call->gone_context = context;
}

/* --- streams --- */

struct rpc_stream *rpc_reply_stream(struct rpc_call *call, json_t *result, void (*ended)(void *context),
                                    void *context)
{
    struct rpc_connection *connection = call->connection;
    rpc_reply(call, result);
    if (connection == NULL || connection->closing || connection->farewell) {
        return NULL;
    }
    struct rpc_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL) {
        connection_close(connection);
        return NULL;
    }
    stream->connection = connection;
    stream->ended = ended;
    stream->context = context;
    stream->next = connection->streams;
    connection->streams = stream;
    return stream;
}

void rpc_stream_end(struct rpc_stream *stream)
{
    struct rpc_stream **link = &stream->connection->streams;
    while (*link != stream) {
        link = &(*link)->next;
    }
    *link = stream->next;
    free(stream);
}

static void break_stream(struct rpc_stream *stream)
{
    void (*ended)(void *) = stream->ended;
    void *context = stream->context;
    rpc_stream_end(stream);
    ended(context);
}

bool rpc_stream_send(struct rpc_stream *stream, const char *method, json_t *params)
{
    struct rpc_connection *connection = stream->connection;
    if (connection_unsent(connection) <= STREAM_UNSENT_LIMIT) {
        rpc_connection_send(
            connection, json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", method, "params", params));
        return true;
    }
    json_decref(params);
    LOG_WARN("rpc_stream_dropped", LOG_STR("peer", connection->peer.name),
             LOG_U64("unsent_bytes", connection_unsent(connection)));
    rpc_connection_send(connection, json_pack("{s:s, s:s, s:{s:s}}", "jsonrpc", "2.0", "method", "dropped",
                                              "params", "reason", "the subscriber did not keep up"));
    break_stream(stream);
    return false;
}

void rpc_connection_lost(struct rpc_connection *connection)
{
    struct rpc_call *call;
    while ((call = connection->calls) != NULL) {
        detach_call(call);
        if (call->gone != NULL) {
            call->gone(call->gone_context);
        }
    }
    struct rpc_stream *stream;
    while ((stream = connection->streams) != NULL) {
        connection->streams = stream->next;
        stream->ended(stream->context);
        free(stream);
    }
}
