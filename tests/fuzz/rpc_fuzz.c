/*
 * libFuzzer: what a peer of the control socket sends. Each line that comes back is one JSON-RPC document, and
 * the server lives. The first byte says whether the peer waits for its answers or goes at once.
 */
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "control/daemon/rpc.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TURNS_WITHOUT_NEWS = 20, TURNS_BEHIND = 50, ANSWER_SIZE = 1 << 20 };

static struct {
    uv_loop_t loop;
    struct rpc *rpc;
    struct sockaddr_un address;
    char answer[ANSWER_SIZE];
    size_t length;
} world;

/* --- the server's side --- */

static void echo(void *context, struct rpc_call *call)
{
    (void)context;
    rpc_progress(call, json_pack("{s:s}", "step", "begun"));
    rpc_reply(call, json_pack("{s:o}", "echo", json_deep_copy(rpc_call_params(call))));
}

static void add(void *context, struct rpc_call *call)
{
    int number = 0;
    const char *text = NULL;
    (void)context;
    if (rpc_call_unpack(call, "{s:i, s?s}", "number", &number, "text", &text)) {
        rpc_reply(call, json_pack("{s:I, s:s?}", "number", (json_int_t)number + 1, "text", text));
    }
}

static void refuse(void *context, struct rpc_call *call)
{
    struct error error;
    (void)context;
    error_clear(&error);
    (void)!error_set(&error, ERROR_IN_WATCH, "no \xff");
    rpc_fail(call, &error);
}

static void ended(void *context)
{
    (void)context;
}

static void flow(void *context, struct rpc_call *call)
{
    struct rpc_stream *stream = rpc_reply_stream(call, json_object(), ended, context);
    if (stream != NULL && rpc_stream_send(stream, "event", json_pack("{s:i}", "seq", 1))) {
        rpc_stream_end(stream);
    }
}

static const struct rpc_method methods[] = {
    {"echo", ROLE_VIEWER, echo, "", "says what it heard"},
    {"add", ROLE_OPERATOR, add, "number: integer, text?: string", "adds one"},
    {"refuse", ROLE_VIEWER, refuse, "", "says no"},
    {"flow", ROLE_VIEWER, flow, "", "goes on sending"},
    {"approve", ROLE_APPROVER, echo, "", "an approver's"},
};

static bool identify(void *context, int fd, uid_t *uid, gid_t *groups, size_t *group_count)
{
    (void)context;
    (void)fd;
    *uid = 1001;
    groups[0] = 1;
    *group_count = 1;
    return true;
}

static char folder[] = "/tmp/switchback-rpc-fuzz-XXXXXX";

static void leave_nothing(void)
{
    (void)unlink(world.address.sun_path);
    (void)rmdir(folder);
}

static void set_up(void)
{
    static char alice[] = "1001";
    static char *names[] = {alice};
    struct settings settings = {.control_viewers = {names, 1}, .control_operators = {names, 1}};
    struct error error;
    (void)signal(SIGPIPE, SIG_IGN);
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    ENSURE(mkdtemp(folder) != NULL && uv_loop_init(&world.loop) == 0);
    world.address.sun_family = AF_UNIX;
    (void)snprintf(world.address.sun_path, sizeof world.address.sun_path, "%s/socket", folder);
    error_clear(&error);
    struct rpc_config config = {
        .socket_path = world.address.sun_path, .roles = roles_new(&settings, &error), .identify = identify};
    world.rpc = rpc_start(&world.loop, &config, &error);
    ENSURE(world.rpc != NULL);
    rpc_register(world.rpc, methods, ARRAY_LENGTH(methods), NULL);
    ENSURE(atexit(leave_nothing) == 0);
}

/* --- the peer's side --- */

/* True if something came, or the end. */
static bool receive(int peer, bool *over)
{
    ssize_t count = recv(peer, world.answer + world.length, ANSWER_SIZE - world.length, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    *over = count <= 0;
    world.length += count > 0 ? (size_t)count : 0;
    return true;
}

static void judge(void)
{
    const char *line = world.answer;
    const char *end = NULL;
    size_t left = world.length;
    while ((end = memchr(line, '\n', left)) != NULL) {
        json_t *document = json_loadb(line, (size_t)(end - line), 0, NULL);
        ENSURE(json_is_object(document) && json_object_get(document, "jsonrpc") != NULL);
        json_decref(document);
        left -= (size_t)(end + 1 - line);
        line = end + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (world.rpc == NULL) {
        set_up();
    }
    if (size < 1) {
        return 0;
    }
    int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ENSURE(peer >= 0 && connect(peer, (struct sockaddr *)&world.address, sizeof world.address) == 0);
    size_t sent = 0;
    bool over = false;
    bool waits = data[0] % 4 != 0;
    world.length = 0;
    for (int idle = 0; idle < TURNS_WITHOUT_NEWS && !over; idle++) {
        ssize_t count = sent < size - 1 ? send(peer, data + 1 + sent, size - 1 - sent, MSG_DONTWAIT) : 0;
        sent += count > 0 ? (size_t)count : 0;
        if (sent == size - 1) {
            (void)shutdown(peer, SHUT_WR);
        }
        (void)uv_run(&world.loop, UV_RUN_NOWAIT);
        struct pollfd ready = {.fd = peer, .events = POLLIN};
        (void)poll(&ready, 1, waits ? 1 : 0);
        idle = count > 0 || receive(peer, &over) ? 0 : idle;
        if (!waits && sent == size - 1) {
            break;
        }
    }
    (void)close(peer);
    for (int i = 0; i < TURNS_BEHIND; i++) {
        (void)uv_run(&world.loop, UV_RUN_NOWAIT);
    }
    judge();
    return 0;
}
