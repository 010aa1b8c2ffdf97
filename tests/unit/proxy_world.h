/*
 * A small world for the tests of the data plane: the proxy on a free port, a scripted server behind it, and
 * clients, all in one thread. Whoever waits pumps the proxy's main loop, and fails after a while.
 */
#ifndef SWITCHBACK_TESTS_UNIT_PROXY_WORLD_H
#define SWITCHBACK_TESTS_UNIT_PROXY_WORLD_H

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "proxy/proxy.h"
#include "proxy/wire/build.h"
#include "proxy/wire/frame.h"
#include "proxy/wire/startup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORLD_PATIENCE_US = 10 * 1000000, WORLD_EVENTS = 256, WORLD_QUIET_US = 60000 };

/* Literal messages: their bytes without the literal's final NUL. */
#define BYTES(literal) (literal), (sizeof(literal) - 1)
#define QUERY_1        "Q\0\0\0\x0dselect 1\0"
#define QUERY_BEGIN                                                                                          \
    "Q\0\0\0\x0a"                                                                                            \
    "begin\0"
#define QUERY_COMMIT                                                                                         \
    "Q\0\0\0\x0b"                                                                                            \
    "commit\0"
#define READY_I    "Z\0\0\0\x05I"
#define READY_T    "Z\0\0\0\x05T"
#define COMPLETE_1 "C\0\0\0\x0dSELECT 1\0"
#define COMPLETE_BEGIN                                                                                       \
    "C\0\0\0\x0a"                                                                                            \
    "BEGIN\0"
#define COMPLETE_END                                                                                         \
    "C\0\0\0\x0b"                                                                                            \
    "COMMIT\0"
#define TERMINATE "X\0\0\0\x04"
#define NEGOTIATE_3_0                                                                                        \
    "v\0\0\0\x0c\0\x03\0\0"                                                                                  \
    "\0\0\0\0"
#define SERVER_KEY "\x01\x02\x03\x04"

struct world {
    uv_loop_t loop;
    struct settings settings;
    char *databases[1];
    struct proxy *proxy;
    int servers[SIDE_COUNT]; /* listening sockets */
    int reserved;            /* bound to the proxy's port */
    struct proxy_event events[WORLD_EVENTS];
    size_t event_count, event_seen;
    const char *verifier; /* of every role; NULL: unknown */
    const char *stray;    /* an answer that comes for a session that had the ticket before; NULL: none */
    bool refuses;         /* the side answers by an error */
    bool unavailable;     /* it doesn't answer */
    bool md5;             /* unknown roles are asked for md5 */
    const char *group;    /* that every role is a member of; NULL: none */
    bool stopped;
    void (*on_doubt)(void *context, const struct proxy_doubt *doubt); /* NULL: nobody knows */
    struct proxy_doubt doubt;                                         /* the last one */
};

/* A side's port on which nobody listens, and which nobody else is given; listen() on it brings the side back.
 */
static inline void world_close_side(struct world *world, enum side side)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    address.sin_port = htons((uint16_t)world->settings.sides[side].port);
    const int on = 1, kept = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(kept >= 0);
    assert_int_equal(setsockopt(world->servers[side], SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    assert_int_equal(setsockopt(kept, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    assert_int_equal(bind(kept, (struct sockaddr *)&address, sizeof(address)), 0);
    (void)close(world->servers[side]);
    world->servers[side] = kept;
}

static inline void world_on_event(void *context, const struct proxy_event *event)
{
    struct world *world = context;
    assert_true(world->event_count < WORLD_EVENTS);
    world->events[world->event_count++] = *event;
    world->stopped = world->stopped || event->kind == PROXY_EVENT_STOPPED;
}

static inline void world_on_verifier(void *context, uint64_t request, enum side side, const char *role,
                                     bool groups)
{
    struct world *world = context;
    struct proxy_verifier verifier = {.found = world->verifier != NULL, .can_login = true, .md5 = world->md5};
    (void)side;
    if (groups && world->group != NULL) {
        verifier.groups = world->group;
        verifier.groups_length = strlen(world->group) + 1;
    }
    assert_true(role[0] != '\0');
    if (world->stray != NULL) {
        struct proxy_verifier other = {.found = true, .can_login = true};
        (void)snprintf(other.text, sizeof(other.text), "%s", world->stray);
        proxy_verifier_answer(world->proxy, request ^ UINT64_C(1) << 32, &other);
    }
    if (verifier.found) {
        (void)snprintf(verifier.text, sizeof(verifier.text), "%s", world->verifier);
    }
    verifier.refused = world->refuses;
    verifier.unavailable = world->refuses || world->unavailable;
    proxy_verifier_answer(world->proxy, request, &verifier);
}

static inline int world_bind(int64_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(made >= 0);
    assert_int_equal(bind(made, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(made, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return made;
}

static inline int world_listen(int64_t *port)
{
    int made = world_bind(port);
    assert_int_equal(listen(made, 64), 0);
    return made;
}

/* Settings that a test may change before world_start(). */
static inline struct world *world_new(void)
{
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    (void)signal(SIGPIPE, SIG_IGN);
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    assert_int_equal(uv_loop_init(&world->loop), 0);
    struct settings *settings = &world->settings;
    static char host[] = "127.0.0.1", empty[] = "", app[] = "app";
    for (int side = 0; side < SIDE_COUNT; side++) {
        world->servers[side] = world_listen(&settings->sides[side].port);
        settings->sides[side].host = host;
    }
    int64_t port = 0;
    world->reserved = world_bind(&port);
    /* now, not before: the proxy may share the port, but nobody else is given it */
    const int on = 1;
    assert_int_equal(setsockopt(world->reserved, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(setsockopt(world->reserved, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    world->databases[0] = app;
    settings->databases = (struct settings_list){.items = world->databases, .count = 1};
    settings->listen_host = host;
    settings->listen_port = port;
    settings->listen_unix_dir = empty;
    settings->listen_backlog = 64;
    settings->max_clients = 100;
    settings->timeouts.login_us = WORLD_PATIENCE_US;
    settings->timeouts.server_connect_us = WORLD_PATIENCE_US;
    settings->max_hold_us = WORLD_PATIENCE_US;
    settings->workers = 2;
    settings->auth_method = AUTH_TRUST;
    return world;
}

static inline void world_start_route(struct world *world, struct proxy_route route)
{
    const struct proxy_callbacks callbacks = {
        .context = world, .event = world_on_event, .verifier = world_on_verifier, .doubt = world->on_doubt};
    struct error error;
    world->proxy = proxy_start(&world->loop, &world->settings, route, &callbacks, NULL, &error);
    if (world->proxy == NULL) {
        fail_msg("%s", error.message);
    }
}

static inline void world_start(struct world *world)
{
    world_start_route(world, (struct proxy_route){.side = SIDE_BLUE, .epoch = 1, .open = true});
}

static inline void world_pump(struct world *world)
{
    (void)uv_run(&world->loop, UV_RUN_NOWAIT);
}

/* True if the descriptor becomes readable within the time. */
static inline bool world_readable(struct world *world, int fd, int64_t patience_us)
{
    int64_t end_us = clock_mono_us() + patience_us;
    do {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        world_pump(world);
        if (poll(&wait, 1, 2) > 0) {
            return true;
        }
    } while (clock_mono_us() < end_us);
    return false;
}

static inline struct proxy_event *world_event(struct world *world, enum proxy_event_kind kind)
{
    int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US;
    while (clock_mono_us() < end_us) {
        while (world->event_seen < world->event_count) {
            struct proxy_event *event = &world->events[world->event_seen++];
            if (event->kind == kind) {
                return event;
            }
        }
        world_pump(world);
        (void)usleep(500);
    }
    fail_msg("event %d did not come", (int)kind);
    return NULL;
}

static inline void world_free(struct world *world)
{
    if (world->proxy != NULL) {
        proxy_stop(world->proxy, 0);
        int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US;
        while (!world->stopped && clock_mono_us() < end_us) {
            world_pump(world);
            (void)usleep(500);
        }
        assert_true(world->stopped);
        proxy_free(world->proxy);
    }
    (void)uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    (void)close(world->reserved);
    (void)close(world->servers[SIDE_BLUE]);
    (void)close(world->servers[SIDE_GREEN]);
    free(world);
}

/* --- bytes --- */

static inline void put(int fd, const void *bytes, size_t length)
{
    assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
}

/* The next bytes are exactly these. */
static inline void expect(struct world *world, int fd, const void *bytes, size_t length)
{
    uint8_t got[4096];
    size_t have = 0;
    assert_true(length <= sizeof(got));
    while (have < length) {
        if (!world_readable(world, fd, WORLD_PATIENCE_US)) {
            fail_msg("%zu of %zu bytes came", have, length);
        }
        ssize_t count = recv(fd, got + have, length - have, 0);
        if (count <= 0) {
            fail_msg("the end came after %zu of %zu bytes", have, length);
        }
        have += (size_t)count;
    }
    assert_memory_equal(got, bytes, length);
}

/* The next message; returns its type, its body NUL-terminated. */
static inline char expect_message(struct world *world, int fd, char *body, size_t size)
{
    uint8_t header[5];
    size_t have = 0;
    while (have < sizeof(header)) {
        assert_true(world_readable(world, fd, WORLD_PATIENCE_US));
        ssize_t count = recv(fd, header + have, sizeof(header) - have, 0);
        if (count <= 0) {
            return 0; /* the end */
        }
        have += (size_t)count;
    }
    size_t length = ((size_t)header[3] << 8 | header[4]) - 4;
    assert_true(length < size);
    for (have = 0; have < length;) {
        assert_true(world_readable(world, fd, WORLD_PATIENCE_US));
        ssize_t count = recv(fd, body + have, length - have, 0);
        assert_true(count > 0);
        have += (size_t)count;
    }
    body[length] = '\0';
    return (char)header[0];
}

/* An ErrorResponse with that SQLSTATE. */
static inline void expect_error(struct world *world, int fd, const char *sqlstate)
{
    char body[2048] = "";
    assert_int_equal(expect_message(world, fd, body, sizeof(body)), 'E');
    for (const char *field = body; *field != '\0'; field += strlen(field) + 1) {
        if (*field == 'C') {
            assert_string_equal(field + 1, sqlstate);
            return;
        }
    }
    fail_msg("an error without SQLSTATE");
}

static inline void expect_end(struct world *world, int fd)
{
    char byte;
    assert_true(world_readable(world, fd, WORLD_PATIENCE_US));
    assert_true(recv(fd, &byte, 1, 0) <= 0);
}

static inline void expect_silence(struct world *world, int fd)
{
    assert_false(world_readable(world, fd, WORLD_QUIET_US));
}

/* --- parties --- */

static inline int client_connect(struct world *world)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {htonl(INADDR_LOOPBACK)},
                                  .sin_port = htons((uint16_t)world->settings.listen_port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static inline size_t startup_packet_of(uint8_t packet[512], uint32_t version, const char *user,
                                       const char *database)
{
    struct build build;
    build_init(&build, packet, 512);
    build_startup_begin(&build, version);
    build_startup_parameter(&build, slice_text("user"), slice_text(user));
    build_startup_parameter(&build, slice_text("database"), slice_text(database));
    build_startup_end(&build);
    return build.length;
}

static inline size_t startup_packet(uint8_t packet[512], const char *user, const char *database)
{
    return startup_packet_of(packet, STARTUP_PROTOCOL_3_0, user, database);
}

static inline void client_startup(int fd)
{
    uint8_t packet[512];
    put(fd, packet, startup_packet(packet, "joe", "app"));
}

static inline int server_accept(struct world *world, enum side side)
{
    assert_true(world_readable(world, world->servers[side], WORLD_PATIENCE_US));
    int fd = accept(world->servers[side], NULL, NULL);
    assert_true(fd >= 0);
    return fd;
}

/* The next connection that isn't a cancel: those of sessions that are gone may still be on their way. */
static inline int server_accept_login(struct world *world, enum side side)
{
    static const uint8_t cancel[] = {0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e};
    uint8_t first[sizeof(cancel)] = {0};
    for (;;) {
        int fd = server_accept(world, side);
        while (world_readable(world, fd, WORLD_PATIENCE_US) && recv(fd, first, sizeof(first), MSG_PEEK) > 0 &&
               recv(fd, first, sizeof(first), MSG_PEEK) < (ssize_t)sizeof(first)) {
        }
        if (memcmp(first, cancel, sizeof(cancel)) != 0) {
            return fd;
        }
        (void)close(fd);
    }
}

static inline void server_greet(int fd)
{
    put(fd, BYTES("R\0\0\0\x08\0\0\0\0"
                  "S\0\0\0\x16server_version\00016\0"
                  "K\0\0\0\x0c\0\0\0\x2a" SERVER_KEY READY_I));
}

/* Takes a startup packet for joe and app, and logs him in, as a server before 18 does. */
static inline int server_login(struct world *world, enum side side)
{
    uint8_t packet[512];
    int fd = server_accept_login(world, side);
    expect(world, fd, packet, startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app"));
    put(fd, BYTES(NEGOTIATE_3_0));
    server_greet(fd);
    return fd;
}

/* What a client sees of that; key receives the proxy's own BackendKeyData body. */
static inline void client_greeted(struct world *world, int fd, uint8_t key[8])
{
    char body[256];
    expect(world, fd,
           BYTES("R\0\0\0\x08\0\0\0\0"
                 "S\0\0\0\x16server_version\00016\0"));
    assert_int_equal(expect_message(world, fd, body, sizeof(body)), 'K');
    if (key != NULL) {
        memcpy(key, body, 8);
    }
    expect(world, fd, BYTES(READY_I));
}

/* Asks to cancel what the session of that key runs. */
static inline void put_cancel(int fd, const uint8_t key[8])
{
    uint8_t cancel[16] = {0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e};
    memcpy(cancel + 8, key, 8);
    put(fd, cancel, sizeof(cancel));
}

/* The same on a connection of its own, which it returns. */
static inline int client_cancel(struct world *world, const uint8_t key[8])
{
    int fd = client_connect(world);
    put_cancel(fd, key);
    return fd;
}

/* --- flips --- */

/* All workers hold. */
static inline void world_hold(struct world *world, uint64_t hold, int64_t ms, enum proxy_expire expire)
{
    proxy_hold(world->proxy, hold, clock_mono_us() + ms * 1000, expire);
    (void)world_event(world, PROXY_EVENT_HELD);
}

/* All workers have taken in what they were told before. */
static inline void world_heard(struct world *world)
{
    proxy_ping(world->proxy, 1);
    (void)world_event(world, PROXY_EVENT_ALIVE);
}

static inline void world_release(struct world *world, uint64_t hold)
{
    proxy_release(world->proxy, hold);
    (void)world_event(world, PROXY_EVENT_RELEASED);
}

/* Arms its one session; returns its target link, logged in. */
static inline int world_arm(struct world *world, uint64_t flip, struct proxy_route target)
{
    proxy_arm(world->proxy, flip, target, WORLD_PATIENCE_US);
    int server = server_login(world, target.side);
    assert_int_equal(world_event(world, PROXY_EVENT_ARMED)->counts.armed, 1);
    return server;
}

static inline void world_disarm(struct world *world, uint64_t flip)
{
    proxy_disarm(world->proxy, flip);
    (void)world_event(world, PROXY_EVENT_DISARMED);
}

struct pair {
    int client, server;
    uint8_t key[8];
};

static inline struct pair pair_new(struct world *world)
{
    struct pair pair = {.client = client_connect(world)};
    client_startup(pair.client);
    pair.server = server_login(world, SIDE_BLUE);
    client_greeted(world, pair.client, pair.key);
    return pair;
}

static inline void pair_close(struct pair *pair)
{
    (void)close(pair->client);
    (void)close(pair->server);
}

/* A statement there and back. */
static inline void pair_works(struct world *world, const struct pair *pair)
{
    put(pair->client, BYTES(QUERY_1));
    expect(world, pair->server, BYTES(QUERY_1));
    put(pair->server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair->client, BYTES(COMPLETE_1 READY_I));
}

#endif
