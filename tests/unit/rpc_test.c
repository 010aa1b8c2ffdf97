/* control/daemon: the control socket against raw sockets, its roles, events and the methods of its own. */
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

static void echo(void *context, struct rpc_call *call)
{
    (void)context;
    rpc_reply(call, json_pack("{s:O}", "echo", (json_t *)(uintptr_t)rpc_call_params(call)));
}

static void add_one(void *context, struct rpc_call *call)
{
    (void)context;
    int number;
    if (rpc_call_unpack(call, "{s:i}", "number", &number)) {
        rpc_reply(call, json_integer(number + 1));
    }
}

static void on_gone(void *context)
{
    ((struct world *)context)->gone++;
}

static void wait_long(void *context, struct rpc_call *call)
{
    struct world *world = context;
    rpc_progress(call, json_pack("{s:s}", "step", "begun"));
    rpc_call_on_gone(call, on_gone, world);
    world->waiting[world->waiting_count++] = call;
}

static void refuse(void *context, struct rpc_call *call)
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

static void called(void *context, const struct rpc_peer *peer, const char *method, const json_t *params,
                   bool allowed)
{
    struct world *world = context;
    (void)params;
    (void)snprintf(world->audited, sizeof(world->audited), "%s %lu %s", method, (unsigned long)peer->uid,
                   allowed ? "allowed" : "denied");
}

static bool identify(void *context, int fd, uid_t *uid, gid_t *groups, size_t *group_count)
{
    const struct world *world = context;
    (void)fd;
    *uid = world->next_uid;
    groups[0] = world->next_uid == CAROL ? DBA : 1;
    *group_count = 1;
    return true;
}

static bool reload(void *context, struct reload_result *result, struct error *error)
{
    struct world *world = context;
    if (world->reload_fails) {
        return error_set(error, ERROR_CONFIG, "switchback.yaml:3: workers: a number was expected");
    }
    result->applied = true;
    return true;
}

static void set_roles(struct settings *settings)
{
    static char alice[] = "1001", bob[] = "1002", dba[] = "%500";
    static char *viewers[] = {alice}, *operators[] = {bob, dba}, *approvers[] = {alice};
    settings->control_viewers = (struct settings_list){viewers, 1};
    settings->control_operators = (struct settings_list){operators, 2};
    settings->control_approvers = (struct settings_list){approvers, 1};
}

static void start_server(struct world *world)
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

static int set_up_nobody(void **state)
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

static int set_up(void **state)
{
    set_up_nobody(state);
    start_server(*state);
    return 0;
}

static int set_up_roles(void **state)
{
    set_up_nobody(state);
    struct world *world = *state;
    set_roles(&world->settings);
    world->next_uid = MALLORY;
    start_server(world);
    return 0;
}

static void on_stopped(void *context)
{
    ((struct world *)context)->stopped = true;
}

static void stop_server(struct world *world)
{
    rpc_stop(world->rpc, on_stopped, world);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_true(world->stopped);
    events_free(world->events);
}

static int tear_down(void **state)
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

static int dial(struct world *world)
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

static int dial_as(struct world *world, uid_t uid)
{
    world->next_uid = uid;
    return dial(world);
}

static void say_bytes(struct world *world, int client, const char *bytes, size_t length)
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

static void say(struct world *world, int client, const char *text)
{
    say_bytes(world, client, text, strlen(text));
}

/* One line, without its newline; "" at the end of the stream. Not fast, but as raw as it gets. */
static char *hear(struct world *world, int client)
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

static json_t *hear_json(struct world *world, int client)
{
    json_t *document = json_loads(hear(world, client), 0, NULL);
    assert_non_null(document);
    assert_string_equal(json_string_value(json_object_get(document, "jsonrpc")), "2.0");
    return document;
}

static void expect(struct world *world, int client, const char *said, const char *heard)
{
    say(world, client, said);
    assert_string_equal(hear(world, client), heard);
}

/* Says something wrong and gets an error of this number and code. */
static void expect_error(struct world *world, int client, const char *said, int number, const char *code)
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

/* --- tests --- */

static void a_request_is_answered(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect(world, client, ECHO_1, HEARD_1);
    expect(world, client,
           "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"add_one\",\"params\":{\"number\":4}}\n",
           "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":5}");
    expect(world, client, "\r\n  \n{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"echo\"}\r\n",
           "{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":{\"echo\":{}}}");
    close(client);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    for (const char *byte = ECHO_1; *byte != '\0'; byte++) {
        say_bytes(world, client, byte, 1);
    }
    assert_string_equal(hear(world, client), HEARD_1);
    say(world, client, ECHO_1 ECHO_1 ECHO_1);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(hear(world, client), HEARD_1);
    }
    close(client);
}

static void what_is_wrong_is_said_and_the_connection_lives(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect_error(world, client, "garbage\n", -32700, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\"\n", -32700, "usage");
    expect_error(world, client, "{\"a\":1,\"a\":2}\n", -32700, "usage");
    expect_error(world, client, "\"\xff\xfe\"\n", -32700, "usage");
    expect_error(world, client, "17\n", -32700, "usage");
    expect_error(world, client, "[]\n", -32600, "usage");
    expect_error(world, client,
                 "["
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}"
                 "]\n",
                 -32600, "usage");
    expect_error(world, client, "{\"id\":1,\"method\":\"echo\"}\n", -32600, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"echo\"}\n", -32600, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}\n", -32600, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"no\\nsuch\"}\n", -32601, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":[1]}\n", -32602,
                 "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"add_one\",\"params\":{}}\n",
                 -32602, "usage");
    expect_error(world, client,
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"add_one\",\"params\":{\"number\":1,\"x\":2}}\n",
                 -32602, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"refuse\"}\n", -32000, "in_watch");
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

static void deep_nesting_is_only_an_error(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    static char deep[60001];
    memset(deep, '[', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\n';
    say_bytes(world, client, deep, sizeof(deep));
    json_t *answer = hear_json(world, client);
    assert_non_null(json_object_get(answer, "error"));
    json_decref(answer);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

static void an_oversized_request_is_refused_once(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    static char large[300000];
    memset(large, 'x', sizeof(large));
    say_bytes(world, client, large, sizeof(large));
    expect_error(world, client, "", -32600, "usage");
    expect(world, client, "the rest of it\n" ECHO_1, HEARD_1);
    close(client);

    /* Just fits, and just doesn't. */
    client = dial(world);
    static char line[RPC_LINE_LIMIT + 2];
    memset(line, ' ', sizeof(line));
    memcpy(line, ECHO_1, strlen(ECHO_1) - 1);
    line[RPC_LINE_LIMIT] = '\n';
    say_bytes(world, client, line, RPC_LINE_LIMIT + 1);
    assert_string_equal(hear(world, client), HEARD_1);
    line[RPC_LINE_LIMIT] = ' ';
    line[RPC_LINE_LIMIT + 1] = '\n';
    say_bytes(world, client, line, RPC_LINE_LIMIT + 2);
    expect_error(world, client, "", -32600, "usage");
    close(client);
}

static void a_notification_is_never_answered(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect(world, client,
           "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}\n"
           "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}\n"
           "{\"jsonrpc\":\"2.0\",\"method\":\"add_one\"}\n" ECHO_1,
           HEARD_1);
    close(client);
}

static void progress_comes_before_the_answer(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect(world, client, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"wait\"}\n",
           "{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":{\"step\":\"begun\",\"id\":7}}");
    expect(world, client, ECHO_1, HEARD_1); /* out of order */
    rpc_progress(world->waiting[0], json_pack("{s:i}", "fraction", 1));
    rpc_reply(world->waiting[0], json_string("done"));
    assert_string_equal(hear(world, client),
                        "{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":{\"fraction\":1,"
                        "\"id\":7}}");
    assert_string_equal(hear(world, client), "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"done\"}");
    assert_int_equal(world->gone, 0);
    close(client);
}

static void who_hangs_up_does_not_end_what_was_asked(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"wait\"}\n");
    hear(world, client);
    close(client);
    for (int i = 0; i < 1000 && world->gone == 0; i++) {
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(world->gone, 1);
    rpc_progress(world->waiting[0], json_pack("{s:i}", "fraction", 1));
    rpc_reply(world->waiting[0], json_string("done"));
}

static void a_closed_write_side_still_gets_its_answer(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    say(world, client, ECHO_1 "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"wait\"}\n");
    shutdown(client, SHUT_WR);
    assert_string_equal(hear(world, client), HEARD_1);
    hear(world, client);
    assert_int_equal(world->gone, 0);
    rpc_reply(world->waiting[0], json_string("done"));
    assert_string_equal(hear(world, client), "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"done\"}");
    assert_string_equal(hear(world, client), ""); /* and then it is closed */
    close(client);
}

static void requests_at_once_are_bounded(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    for (int i = 0; i < 16; i++) {
        say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"wait\"}\n");
        hear(world, client);
    }
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"wait\"}\n", -32000, "usage");
    for (size_t i = 0; i < 16; i++) {
        rpc_reply(world->waiting[i], json_null());
        hear(world, client);
    }
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

static void connections_are_bounded(void **state)
{
    struct world *world = *state;
    int clients[RPC_CONNECTIONS + 5];
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++) {
        clients[i] = dial(world);
    }
    for (size_t i = 0; i < RPC_CONNECTIONS; i++) {
        expect(world, clients[i], ECHO_1, HEARD_1);
    }
    expect_error(world, clients[RPC_CONNECTIONS], "", -32000, "usage");
    assert_string_equal(hear(world, clients[RPC_CONNECTIONS]), "");
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++) {
        close(clients[i]);
    }
    for (int i = 0; i < 200; i++) {
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    int client = dial(world);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

static void call_method(struct world *world, int client, const char *method)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\"}\n", method);
    say(world, client, text);
}

static void expect_allowed(struct world *world, int client, const char *method)
{
    call_method(world, client, method);
    json_t *answer = hear_json(world, client);
    assert_non_null(json_object_get(answer, "result"));
    json_decref(answer);
}

static void expect_denied(struct world *world, int client, const char *method)
{
    call_method(world, client, method);
    expect_error(world, client, "", -32000, "permission_denied");
    assert_non_null(strstr(world->audited, "denied"));
}

static void roles_decide_who_may_do_what(void **state)
{
    struct world *world = *state;
    int alice = dial_as(world, ALICE), bob = dial_as(world, BOB), carol = dial_as(world, CAROL);
    int own = dial_as(world, geteuid());
    expect_allowed(world, alice, "echo");
    expect_allowed(world, alice, "approve");
    expect_denied(world, alice, "reload");
    assert_string_equal(world->audited, "reload 1001 denied");
    expect_allowed(world, bob, "echo");
    expect_allowed(world, bob, "reload");
    assert_string_equal(world->audited, "reload 1002 allowed");
    expect_denied(world, bob, "approve");
    expect_allowed(world, carol, "reload"); /* through her group */
    expect_allowed(world, own, "reload");
    expect_allowed(world, own, "approve");

    /* A reload takes a role away from connections that stand. */
    struct error error;
    world->settings.control_operators.count = 0;
    struct roles *roles = roles_new(&world->settings, &error);
    assert_non_null(roles);
    rpc_set_roles(world->rpc, roles);
    expect_denied(world, bob, "reload");
    close(alice);
    close(bob);
    close(carol);
    close(own);
}

static void who_has_no_role_is_told_and_closed(void **state)
{
    struct world *world = *state;
    int mallory = dial_as(world, MALLORY);
    expect_denied(world, mallory, "echo");
    assert_string_equal(hear(world, mallory), "");
    close(mallory);
}

static mode_t socket_mode(const struct world *world)
{
    struct stat status;
    assert_int_equal(stat(world->path, &status), 0);
    return status.st_mode & 0777;
}

static void the_socket_is_open_to_whom_roles_can_name(void **state)
{
    struct world *world = *state;
    struct error error;
    assert_int_equal(socket_mode(world), 0660);
    set_roles(&world->settings);
    rpc_set_roles(world->rpc, roles_new(&world->settings, &error));
    assert_int_equal(socket_mode(world), 0666);
}

static void unknown_names_in_roles_are_errors(void **state)
{
    (void)state;
    static char nobody[] = "no-such-user-here", group[] = "%no-such-group", root[] = "root";
    static char *items[1];
    struct settings settings = {.control_operators = {items, 1}};
    struct error error;
    items[0] = nobody;
    assert_null(roles_new(&settings, &error));
    assert_string_equal(error.message,
                        "control.operators: user \"no-such-user-here\" is not known to the system");
    items[0] = group;
    assert_null(roles_new(&settings, &error));
    items[0] = root;
    struct roles *roles = roles_new(&settings, &error);
    assert_non_null(roles);
    roles_free(roles);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    struct world *world = *state;
    struct error error;
    struct rpc_config config = {.socket_path = world->path, .roles = roles_new(&world->settings, &error)};
    assert_null(rpc_start(&world->loop, &config, &error)); /* ours listens */
    assert_non_null(strstr(error.message, "another program listens"));
    roles_free(config.roles);
    stop_server(world);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", world->path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&address, sizeof(address)), 0);
    close(dead); /* its file stays */
    world->stopped = false;
    start_server(world);
    int client = dial(world);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
    stop_server(world);

    int file = open(world->path, O_CREAT | O_WRONLY, 0600);
    close(file);
    config.roles = roles_new(&world->settings, &error);
    assert_null(rpc_start(&world->loop, &config, &error));
    assert_non_null(strstr(error.message, "is not a socket"));
    roles_free(config.roles);
    unlink(world->path);
}

static void subscribers_hear_every_event(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    events_publish(world->events, LOG_LEVEL_DEBUG, "start", 0, NULL, "one");
    uint64_t first = events_last_seq(world->events);
    events_publish(world->events, LOG_LEVEL_DEBUG, "phase", 3, "drain", "two \xff");
    char text[128];
    (void)snprintf(text, sizeof(text),
                   "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\",\"params\":{\"since\":%llu}}\n",
                   (unsigned long long)first);
    say(world, client, text);
    json_t *answer = hear_json(world, client);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(answer, "result"), "last_seq")),
                     first + 1);
    json_decref(answer);
    events_publish(world->events, LOG_LEVEL_DEBUG, "alarm", 0, "", "three");
    json_t *second = hear_json(world, client), *third = hear_json(world, client);
    assert_string_equal(json_string_value(json_object_get(second, "method")), "event");
    const json_t *event = json_object_get(second, "params");
    assert_int_equal(json_integer_value(json_object_get(event, "seq")), first + 1);
    assert_int_equal(json_integer_value(json_object_get(event, "flip")), 3);
    assert_string_equal(json_string_value(json_object_get(event, "phase")), "drain");
    assert_string_equal(json_string_value(json_object_get(event, "message")), "two ?");
    event = json_object_get(third, "params");
    assert_true(json_is_null(json_object_get(event, "flip")));
    assert_true(json_is_null(json_object_get(event, "phase")));
    json_decref(second);
    json_decref(third);
    expect(world, client, ECHO_1, HEARD_1); /* a subscriber may still ask */
    close(client);
    for (int i = 0; i < 100; i++) {
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    events_publish(world->events, LOG_LEVEL_DEBUG, "alarm", 0, "", "nobody hears this");
}

static void a_slow_subscriber_is_dropped_and_told(void **state)
{
    struct world *world = *state;
    int client = dial(world), other = dial(world);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\"}\n");
    char message[500];
    memset(message, 'm', sizeof(message) - 1);
    message[sizeof(message) - 1] = '\0';
    for (int i = 0; i < 2000; i++) {
        events_publish(world->events, LOG_LEVEL_DEBUG, "test", 0, NULL, "%s", message);
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    expect(world, other, ECHO_1, HEARD_1);
    int events = 0;
    for (;;) {
        json_t *heard = hear_json(world, client);
        const char *method = json_string_value(json_object_get(heard, "method"));
        bool dropped = method != NULL && strcmp(method, "dropped") == 0;
        events += method != NULL && strcmp(method, "event") == 0;
        json_decref(heard);
        if (dropped) {
            break;
        }
    }
    assert_in_range(events, 100, 1999);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
    close(other);
}

static void events_are_kept_up_to_a_bound(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    for (int i = 1; i <= EVENTS_KEPT + 10; i++) {
        events_publish(world->events, LOG_LEVEL_DEBUG, "test", 0, NULL, "%d", i);
    }
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events\"}\n");
    json_t *answer = hear_json(world, client);
    const json_t *list = json_object_get(json_object_get(answer, "result"), "events");
    assert_int_equal(json_array_size(list), EVENTS_KEPT);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "message")), "11");
    json_decref(answer);
    close(client);
}

static void the_daemons_own_methods_answer(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect_allowed(world, client, "version");
    expect_allowed(world, client, "methods");
    expect(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"reload\"}\n",
           "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"applied\":true,\"changed\":[],\"restart\":[]}}");
    world->reload_fails = true;
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"reload\"}\n", -32000,
                 "configuration");
    close(client);
}

static void stopping_ends_streams_and_open_calls(void **state)
{
    struct world *world = *state;
    int client = dial(world), idle = dial(world);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\"}\n");
    hear(world, client);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"wait\"}\n");
    hear(world, client);
    stop_server(world);
    assert_int_equal(world->gone, 1);
    rpc_reply(world->waiting[0], json_null()); /* outlives the server */
    assert_string_equal(hear(world, client), "");
    close(client);
    close(idle);
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_is_answered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_may_come_one_by_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_said_and_the_connection_lives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deep_nesting_is_only_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_oversized_request_is_refused_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_notification_is_never_answered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(progress_comes_before_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_hangs_up_does_not_end_what_was_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_closed_write_side_still_gets_its_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_at_once_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(connections_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(roles_decide_who_may_do_what, set_up_roles, tear_down),
        cmocka_unit_test_setup_teardown(who_has_no_role_is_told_and_closed, set_up_roles, tear_down),
        cmocka_unit_test_setup_teardown(the_socket_is_open_to_whom_roles_can_name, set_up, tear_down),
        cmocka_unit_test(unknown_names_in_roles_are_errors),
        cmocka_unit_test_setup_teardown(a_stale_socket_is_replaced_and_a_live_one_is_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(subscribers_hear_every_event, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slow_subscriber_is_dropped_and_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(events_are_kept_up_to_a_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_daemons_own_methods_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stopping_ends_streams_and_open_calls, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
