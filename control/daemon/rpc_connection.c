#include "control/daemon/rpc_connection.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"

#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    INPUT_START = 4096,
    UNSENT_PAUSE = 1024 * 1024, /* bytes: a peer that doesn't read isn't read from */
    STALL_MS = 30 * 1000,
    LOOKUP_MS = 1000, /* for a name; then the number does */
    NAME_BUFFER_SIZE = 16384
};

struct write {
    uv_write_t request;
    char *text;
};

/* --- end --- */

static void handle_closed(struct rpc_connection *connection)
{
    connection->open_handles--;
    if (connection->open_handles == 0) {
        rpc_connection_freed(connection->rpc, connection);
        free(connection->input);
        free(connection);
    }
}

static void on_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

void connection_close(struct rpc_connection *connection)
{
    if (connection->closing) {
        return;
    }
    connection->closing = true;
    rpc_connection_lost(connection);
    uv_close((uv_handle_t *)&connection->pipe, on_closed);
    uv_close((uv_handle_t *)&connection->timer, on_closed);
}

static void on_timer(uv_timer_t *timer)
{
    connection_close(timer->data);
}

size_t connection_unsent(const struct rpc_connection *connection)
{
    return uv_stream_get_write_queue_size((const uv_stream_t *)&connection->pipe);
}

void connection_finish(struct rpc_connection *connection, uint64_t within_ms)
{
    if (connection->closing) {
        return;
    }
    connection->farewell = true;
    uv_read_stop((uv_stream_t *)&connection->pipe);
    if (connection_unsent(connection) == 0) {
        connection_close(connection);
    } else {
        uv_timer_start(&connection->timer, on_timer, within_ms, 0);
    }
}

void connection_limit(struct rpc_connection *connection, uint64_t within_ms)
{
    uv_timer_start(&connection->timer, on_timer, within_ms, 0);
}

/* --- writing --- */

static void resume_reading(struct rpc_connection *connection);

static void on_written(uv_write_t *request, int status)
{
    struct rpc_connection *connection = request->data;
    struct write *write = CONTAINER_OF(request, struct write, request);
    free(write->text);
    free(write);
    if (connection->closing) {
        return;
    }
    bool empty = connection_unsent(connection) == 0;
    bool over = connection->farewell || (connection->ended && connection->call_count == 0);
    if (status != 0 || (empty && over)) {
        connection_close(connection);
    } else if (!connection->farewell) {
        if (empty) {
            uv_timer_stop(&connection->timer);
        } else {
            uv_timer_start(&connection->timer, on_timer, STALL_MS, 0);
        }
        resume_reading(connection);
    }
}

enum { FIGURES = 10 }; /* of a number with decimals: 429.031, not 429.03100000000001 */

void rpc_connection_send(struct rpc_connection *connection, json_t *document)
{
    char *text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(FIGURES));
    json_decref(document);
    struct write *write = calloc(1, sizeof(*write));
    if (text == NULL || write == NULL || connection->closing) {
        if (!connection->closing) {
            LOG_ERROR("rpc_answer_lost", LOG_STR("peer", connection->peer.name));
            connection_finish(connection, STALL_MS);
        }
        free(text);
        free(write);
        return;
    }
    /* The terminating NUL gives way to the newline. */
    size_t length = strlen(text);
    text[length] = '\n';
    write->text = text;
    write->request.data = connection;
    uv_buf_t buffer = uv_buf_init(text, (unsigned)length + 1);
    int status = uv_write(&write->request, (uv_stream_t *)&connection->pipe, &buffer, 1, on_written);
    if (status != 0) {
        free(text);
        free(write);
        connection_close(connection);
    } else if (!connection->farewell && !uv_is_active((uv_handle_t *)&connection->timer)) {
        uv_timer_start(&connection->timer, on_timer, STALL_MS, 0);
    }
}

/* --- reading --- */

static void provide_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct rpc_connection *connection = handle->data;
    if (connection->length == connection->capacity) {
        size_t capacity = connection->capacity == 0 ? INPUT_START : connection->capacity * 2;
        char *input = realloc(connection->input, capacity);
        if (input == NULL) {
            *buffer = uv_buf_init(NULL, 0); /* reported as ENOBUFS */
            return;
        }
        connection->input = input;
        connection->capacity = capacity;
    }
    *buffer = uv_buf_init(connection->input + connection->length,
                          (unsigned)(connection->capacity - connection->length));
}

/* Hands on each complete line and keeps what is left. */
static void cut_lines(struct rpc_connection *connection)
{
    size_t start = 0;
    while (!connection->closing && !connection->farewell) {
        char *line = connection->input + start;
        const char *end = memchr(line, '\n', connection->length - start);
        if (end == NULL) {
            break;
        }
        size_t length = (size_t)(end - line);
        if (!connection->skipping) {
            rpc_connection_line(connection, length > RPC_LINE_LIMIT ? NULL : line, length);
        }
        connection->skipping = false;
        start += length + 1;
    }
    connection->length -= start;
    memmove(connection->input, connection->input + start, connection->length);
    if (connection->skipping) {
        connection->length = 0;
    } else if (connection->length > RPC_LINE_LIMIT) {
        connection->skipping = true;
        connection->length = 0;
        rpc_connection_line(connection, NULL, 0);
    }
}

/* A peer that has closed both directions wants no answer; one that only said all it has to say does. */
static bool peer_is_gone(struct rpc_connection *connection)
{
    uv_os_fd_t descriptor;
    if (uv_fileno((uv_handle_t *)&connection->pipe, &descriptor) != 0) {
        return true;
    }
    struct pollfd state = {.fd = descriptor};
    return poll(&state, 1, 0) == 1 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    (void)buffer;
    struct rpc_connection *connection = stream->data;
    if (count > 0) {
        connection->length += (size_t)count;
        cut_lines(connection);
    } else if (count == UV_EOF && !peer_is_gone(connection) &&
               (connection->call_count > 0 || connection_unsent(connection) > 0)) {
        connection->ended = true;
        uv_read_stop(stream);
    } else if (count < 0) {
        connection_close(connection);
        return;
    }
    if (!connection->closing && connection_unsent(connection) > UNSENT_PAUSE) {
        uv_read_stop(stream);
    }
}

static void resume_reading(struct rpc_connection *connection)
{
    if (!connection->ended && connection_unsent(connection) <= UNSENT_PAUSE) {
        uv_read_start((uv_stream_t *)&connection->pipe, provide_room, on_read); /* EALREADY is fine */
    }
}

/* --- beginning --- */

static bool ask_kernel(int descriptor, uid_t *uid, pid_t *pid, gid_t *groups, size_t *group_count)
{
    struct ucred credentials;
    socklen_t size = sizeof(credentials);
    if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        return false;
    }
    *uid = credentials.uid;
    *pid = credentials.pid;
    size = (socklen_t)((*group_count - 1) * sizeof(*groups));
    /* A peer with more groups than there is room for counts with its first one only. */
    bool listed = getsockopt(descriptor, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0;
    *group_count = listed ? size / sizeof(*groups) : 0;
    groups[(*group_count)++] = credentials.gid;
    return true;
}

static void admit(struct rpc_connection *connection)
{
    if (!connection->admitted && !connection->closing && !connection->farewell) {
        connection->admitted = true;
        uv_timer_stop(&connection->timer);
        rpc_connection_admitted(connection);
        resume_reading(connection);
    }
}

/* Name services may take their time: off the loop. */
static void look_up_name(uv_work_t *work)
{
    struct rpc_connection *connection = work->data;
    struct passwd entry, *found = NULL;
    char *buffer = malloc(NAME_BUFFER_SIZE);
    if (buffer != NULL && getpwuid_r(connection->peer.uid, &entry, buffer, NAME_BUFFER_SIZE, &found) == 0 &&
        found != NULL) {
        (void)snprintf(connection->found_name, sizeof(connection->found_name), "%s", found->pw_name);
    }
    free(buffer);
}

static void name_found(uv_work_t *work, int status)
{
    (void)status;
    struct rpc_connection *connection = work->data;
    if (connection->found_name[0] != '\0') {
        memcpy(connection->peer.name, connection->found_name, sizeof(connection->peer.name));
    }
    admit(connection);
    handle_closed(connection);
}

/* Nobody may be kept out because a directory service hangs. */
static void name_is_late(uv_timer_t *timer)
{
    admit(timer->data);
}

void connection_begin(struct rpc_connection *connection)
{
    connection->open_handles++;
    ENSURE(uv_queue_work(connection->pipe.loop, &connection->lookup, look_up_name, name_found) == 0);
    uv_timer_start(&connection->timer, name_is_late, LOOKUP_MS, 0);
}

static bool identify(struct rpc_connection *connection, const struct rpc_connection_owner *owner)
{
    uv_os_fd_t descriptor;
    connection->group_count = RPC_GROUPS;
    if (uv_fileno((uv_handle_t *)&connection->pipe, &descriptor) != 0) {
        return false;
    }
    if (owner->identify != NULL) {
        return owner->identify(owner->identify_context, descriptor, &connection->peer.uid, connection->groups,
                               &connection->group_count);
    }
    return ask_kernel(descriptor, &connection->peer.uid, &connection->peer.pid, connection->groups,
                      &connection->group_count);
}

struct rpc_connection *connection_accept(struct rpc *rpc, uv_stream_t *listener,
                                         const struct rpc_connection_owner *owner)
{
    struct rpc_connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        return NULL;
    }
    connection->rpc = rpc;
    connection->pipe.data = connection;
    connection->timer.data = connection;
    connection->lookup.data = connection;
    ENSURE(uv_pipe_init(listener->loop, &connection->pipe, 0) == 0);
    ENSURE(uv_timer_init(listener->loop, &connection->timer) == 0);
    connection->open_handles = 2;
    if (uv_accept(listener, (uv_stream_t *)&connection->pipe) != 0 || !identify(connection, owner)) {
        connection_close(connection);
        return connection;
    }
    (void)snprintf(connection->peer.name, sizeof(connection->peer.name), "%lu",
                   (unsigned long)connection->peer.uid);
    return connection;
}
