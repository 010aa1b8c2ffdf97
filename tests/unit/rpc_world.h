/* A control socket with a few methods, and plain sockets against it; for rpc_test, rpc_roles_test,
 * rpc_stream_test. */
#ifndef SWITCHBACK_TESTS_UNIT_RPC_WORLD_H
#define SWITCHBACK_TESTS_UNIT_RPC_WORLD_H

#include "control/daemon/rpc.h"

#include "conf/base/log.h"
#include "control/daemon/methods.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { ALICE = 1001, BOB = 1002, CAROL = 1003, MALLORY = 1004, DBA = 500 };

struct world {
    char directory[64];
    char path[96];
    uv_loop_t loop;
    struct settings settings;
    struct rpc *rpc;
    struct events *events;
    struct methods methods;
    uid_t next_uid; /* whom the next connection seems to come from */
    struct rpc_call *waiting[64];
    size_t waiting_count, gone;
    char audited[512];
    bool stopped, reload_fails;
};

/* --- the server's side --- */

static inline void echo(void *context, struct rpc_call *call)
{
    (void)context;
    rpc_reply(call, json_pack("{s:O}", "echo", (json_t *)(uintptr_t)rpc_call_params(call)));
}

static inline void add_one(void *context, struct rpc_call *call)
{
    (void)context;
    int number;
    if (rpc_call_unpack(call, "{s:i}", "number", &number)) {
        rpc_reply(call, json_integer(number + 1));
    }
}

static inline void on_gone(void *context)
{
    ((struct world *)context)->gone++;
}

static inline void wait_long(void *context, struct rpc_call *call)
{
    struct world *world = context;
    rpc_progress(call, json_pack("{s:s}", "step", "begun"));
    rpc_call_on_gone(call, on_gone, world);
    world->waiting[world->waiting_count++] = call;
}

static inline void refuse(void *context, struct rpc_call *call)
{
    (void)context;
    struct error error;
    error_clear(&error);
    error_set(&error, ERROR_IN_WATCH, "a watch is under way \xff");
    error_remedy(&error, "wait");
    rpc_fail(call, &error);
}

static const struct rpc_method table[] = {
    {"echo", ROLE_VIEWER, echo, "", "says what it heard"},
    {"add_one", ROLE_VIEWER, add_one, "number: integer", "adds one"},
    {"wait", ROLE_OPERATOR, wait_long, "", "answers later"},
    {"refuse", ROLE_OPERATOR, refuse, "", "says no"},
    {"approve", ROLE_APPROVER, echo, "", "an approver's"},
};

static inline void called(void *context, const struct rpc_peer *peer, const char *method,
                          const json_t *params, bool allowed)
{
    struct world *world = context;
    (void)params;
    (void)snprintf(world->audited, sizeof(world->audited), "%s %lu %s", method, (unsigned long)peer->uid,
                   allowed ? "allowed" : "denied");
}

static inline bool identify(void *context, int fd, uid_t *uid, gid_t *groups, size_t *group_count)
{
    const struct world *world = context;
    (void)fd;
    *uid = world->next_uid;
    groups[0] = world->next_uid == CAROL ? DBA : 1;
    *group_count = 1;
    return true;
}

static inline bool reload(void *context, struct reload_result *result, struct error *error)
{
    struct world *world = context;
    if (world->reload_fails) {
        return error_set(error, ERROR_CONFIG, "switchback.yaml:3: workers: a number was expected");
    }
    result->applied = true;
    return true;
}

static inline void set_roles(struct settings *settings)
{
    static char alice[] = "1001", bob[] = "1002", dba[] = "%500";
    static char *viewers[] = {alice}, *operators[] = {bob, dba}, *approvers[] = {alice};
    settings->control_viewers = (struct settings_list){viewers, 1};
    settings->control_operators = (struct settings_list){operators, 2};
    settings->control_approvers = (struct settings_list){approvers, 1};
}

static inline void start_server(struct world *world)
{
    struct error error;
    struct roles *roles = roles_new(&world->settings, &error);
    assert_non_null(roles);
    struct rpc_config config = {.socket_path = world->path,
                                .roles = roles,
                                .called = called,
                                .context = world,
                                .identify = world->next_uid == 0 ? NULL : identify};
    world->rpc = rpc_start(&world->loop, &config, &error);
    if (world->rpc == NULL) {
        fail_msg("%s", error.message);
    }
    rpc_register(world->rpc, table, ARRAY_LENGTH(table), world);
    world->events = events_new(&error);
    world->methods = (struct methods){.events = world->events, .reload = reload, .context = world};
    methods_register(world->rpc, &world->methods);
}

static inline int set_up_nobody(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    struct world *world = calloc(1, sizeof(*world));
    strcpy(world->directory, "/tmp/switchback-rpc-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    (void)snprintf(world->path, sizeof(world->path), "%s/run/control.sock", world->directory);
    assert_int_equal(uv_loop_init(&world->loop), 0);
    *state = world;
    return 0;
}

static inline int set_up(void **state)
{
    set_up_nobody(state);
    start_server(*state);
    return 0;
}

static inline int set_up_roles(void **state)
{
    set_up_nobody(state);
    struct world *world = *state;
    set_roles(&world->settings);
    world->next_uid = MALLORY;
    start_server(world);
    return 0;
}

static inline void on_stopped(void *context)
{
    ((struct world *)context)->stopped = true;
}

static inline void stop_server(struct world *world)
{
    rpc_stop(world->rpc, on_stopped, world);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_true(world->stopped);
    events_free(world->events);
}

static inline int tear_down(void **state)
{
    struct world *world = *state;
    char directory[96];
    if (!world->stopped && world->rpc != NULL) {
        stop_server(world);
    }
    assert_int_equal(uv_loop_close(&world->loop), 0);
    assert_int_equal(access(world->path, F_OK), -1); /* the socket was removed */
    (void)snprintf(directory, sizeof(directory), "%s/run", world->directory);
    rmdir(directory);
    rmdir(world->directory);
    free(world);
    return 0;
}

/* --- the client's side: a plain socket; the loop runs while it waits --- */

static inline int dial(struct world *world)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", world->path);
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(client, F_SETFL, O_NONBLOCK), 0);
    for (int i = 0; i < 3; i++) { /* accepted now, while next_uid is still this one's */
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    return client;
}

static inline int dial_as(struct world *world, uid_t uid)
{
    world->next_uid = uid;
    return dial(world);
}

static inline void say_bytes(struct world *world, int client, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(client, bytes, length);
        if (written < 0) {
            assert_int_equal(errno, EAGAIN);
        } else {
            bytes += written;
            length -= (size_t)written;
        }
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
}

static inline void say(struct world *world, int client, const char *text)
{
    say_bytes(world, client, text, strlen(text));
}

/* One line, without its newline; "" at the end of the stream. Not fast, but as raw as it gets. */
static inline char *hear(struct world *world, int client)
{
    static char line[512 * 1024];
    size_t length = 0;
    for (int idle = 0; idle < 20000 && length + 1 < sizeof(line);) {
        ssize_t count = read(client, line + length, 1);
        if (count == 0 || (count < 0 && errno == ECONNRESET)) {
            break;
        }
        if (count < 0) {
            uv_run(&world->loop, UV_RUN_NOWAIT);
            usleep(100);
            idle++;
        } else if (line[length] == '\n') {
            line[length] = '\0';
            return line;
        } else {
            length++;
        }
    }
    assert_int_equal(length, 0);
    line[0] = '\0';
    return line;
}

static inline json_t *hear_json(struct world *world, int client)
{
    json_t *document = json_loads(hear(world, client), 0, NULL);
    assert_non_null(document);
    assert_string_equal(json_string_value(json_object_get(document, "jsonrpc")), "2.0");
    return document;
}

static inline void expect(struct world *world, int client, const char *said, const char *heard)
{
    say(world, client, said);
    assert_string_equal(hear(world, client), heard);
}

/* Says something wrong and gets an error of this number and code. */
static inline void expect_error(struct world *world, int client, const char *said, int number,
                                const char *code)
{
    say(world, client, said);
    json_t *answer = hear_json(world, client);
    const json_t *error = json_object_get(answer, "error");
    const json_t *data = json_object_get(error, "data");
    assert_int_equal(json_integer_value(json_object_get(error, "code")), number);
    assert_string_equal(json_string_value(json_object_get(data, "code")), code);
    assert_true(json_is_string(json_object_get(data, "remedy")));
    assert_true(json_string_length(json_object_get(error, "message")) > 0);
    assert_non_null(json_object_get(answer, "id"));
    json_decref(answer);
}

#define ECHO_1  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"a\":[1]}}\n"
#define HEARD_1 "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"echo\":{\"a\":[1]}}}"

static inline void call_method(struct world *world, int client, const char *method)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\"}\n", method);
    say(world, client, text);
}

static inline void expect_allowed(struct world *world, int client, const char *method)
{
    call_method(world, client, method);
    json_t *answer = hear_json(world, client);
    assert_non_null(json_object_get(answer, "result"));
    json_decref(answer);
}

#endif
