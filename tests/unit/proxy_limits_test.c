/* What may not last for ever, and a side that doesn't answer; against a scripted server. */
#include "tests/unit/proxy_world.h"

#include <netinet/tcp.h>

/* what a test waits for; and what must not pass while this program does something, on a busy machine */
enum { SHORT_US = 100000, LONGER_US = 2000000 };

#define PARSE_FLUSH                                                                                          \
    "P\0\0\0\x10\0select 1\0\0\0"                                                                            \
    "H\0\0\0\x04"
#define PARSED    "1\0\0\0\x04"
#define CANCELLED "E\0\0\0\x13SERROR\0C57014\0\0"

static struct proxy_stats stats_of(struct world *world)
{
    struct proxy_stats stats;
    proxy_stats(world->proxy, &stats);
    return stats;
}

/* The server gets a cancel request; its connection. */
static int expect_cancel(struct world *world)
{
    int fd = server_accept(world, SIDE_BLUE);
    expect(world, fd, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a" SERVER_KEY));
    return fd;
}

static void an_idle_client_ends(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.client_idle_us = SHORT_US;
    world_start(world);
    struct pair pair = pair_new(world);
    expect_error(world, pair.client, "57P05");
    expect_end(world, pair.client);
    expect(world, pair.server, BYTES(TERMINATE));
    assert_int_equal(stats_of(world).timeouts[PROXY_TIMEOUT_CLIENT_IDLE], 1);
    pair_close(&pair);
    world_free(world);
}

static void a_busy_client_is_not_idle(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.client_idle_us = LONGER_US;
    world->settings.timeouts.idle_in_transaction_us = LONGER_US;
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    assert_false(world_readable(world, pair.client, 2 * LONGER_US));
    put(pair.server, BYTES(COMPLETE_1 READY_T));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_T));
    expect_error(world, pair.client, "25P03");
    assert_int_equal(stats_of(world).timeouts[PROXY_TIMEOUT_IDLE_IN_TRANSACTION], 1);
    assert_int_equal(stats_of(world).timeouts[PROXY_TIMEOUT_CLIENT_IDLE], 0);
    pair_close(&pair);
    world_free(world);
}

static void a_slow_statement_is_cancelled_and_no_other(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.query_us = LONGER_US; /* or a second cancel comes, on a busy machine */
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    int cancel = expect_cancel(world);
    put(pair.server, BYTES(CANCELLED READY_I));
    expect(world, pair.client, BYTES(CANCELLED READY_I));
    /* until the server has taken the cancel it could still meet the next statement: that one waits */
    put(pair.client, BYTES(QUERY_1));
    expect_silence(world, pair.server);
    (void)close(cancel);
    expect(world, pair.server, BYTES(QUERY_1));
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    assert_true(stats_of(world).timeouts[PROXY_TIMEOUT_QUERY] >= 1);
    pair_close(&pair);
    world_free(world);
}

/* A cancel that came at the wrong moment is repeated. */
static void a_cancel_that_has_no_effect_is_repeated(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.query_us = SHORT_US;
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(expect_cancel(world));
    (void)close(expect_cancel(world));
    put(pair.server, BYTES(CANCELLED READY_I));
    expect(world, pair.client, BYTES(CANCELLED READY_I));
    assert_int_equal(stats_of(world).timeouts[PROXY_TIMEOUT_QUERY], 1);
    pair_close(&pair);
    world_free(world);
}

/* A pipeline without Sync that waits for its client is no statement that runs. */
static void a_server_that_waits_is_not_cancelled(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.query_us = SHORT_US;
    world_start(world);
    struct pair pair = pair_new(world);
    bool in_time = false;
    uint64_t before = 0;
    for (int tries = 0; !in_time && tries < 20;
         tries++) { /* on a busy machine this server may be slow itself */
        before = stats_of(world).timeouts[PROXY_TIMEOUT_QUERY];
        int64_t began_us = clock_mono_us();
        put(pair.client, BYTES(PARSE_FLUSH));
        expect(world, pair.server, BYTES(PARSE_FLUSH));
        put(pair.server, BYTES(PARSED));
        expect(world, pair.client, BYTES(PARSED));
        in_time = clock_mono_us() - began_us < SHORT_US;
        int64_t end_us = clock_mono_us() + 4 * SHORT_US;
        while (clock_mono_us() < end_us) {
            world_pump(world);
            (void)poll(NULL, 0, 2);
        }
    }
    assert_true(in_time);
    assert_int_equal(stats_of(world).timeouts[PROXY_TIMEOUT_QUERY], before);
    put(pair.client, BYTES(PARSE_FLUSH));
    expect(world, pair.server, BYTES(PARSE_FLUSH));
    (void)close(expect_cancel(world));
    assert_int_equal(stats_of(world).timeouts[PROXY_TIMEOUT_QUERY], before + 1);
    pair_close(&pair);
    world_free(world);
}

static void a_client_that_a_hold_keeps_is_told(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.hold_notice_us = SHORT_US;
    world->settings.timeouts.client_idle_us = LONGER_US; /* it isn't idle */
    world->settings.timeouts.query_us = SHORT_US;        /* and nothing of it runs */
    world_start(world);
    struct pair pair = pair_new(world);
    char body[256];
    proxy_hold(world->proxy, 7, clock_mono_us() + WORLD_PATIENCE_US, PROXY_EXPIRE_RELEASE);
    put(pair.client, BYTES(QUERY_1));
    assert_int_equal(expect_message(world, pair.client, body, sizeof(body)), 'N');
    assert_string_equal(body, "SNOTICE");
    assert_false(world_readable(world, pair.client, 2 * LONGER_US)); /* once */
    proxy_release(world->proxy, 7);
    expect(world, pair.server, BYTES(QUERY_1));
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    pair_close(&pair);
    world_free(world);
}

static void refused_login(struct world *world)
{
    int client = client_connect(world);
    client_startup(client);
    expect_error(world, client, "57P03");
    expect_end(world, client);
    (void)close(client);
}

/* At once: were blue still down, one of them at most would be let through. */
static void three_log_in(struct world *world)
{
    int clients[3], servers[3];
    for (size_t i = 0; i < 3; i++) {
        clients[i] = client_connect(world);
        client_startup(clients[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        servers[i] = server_login(world, SIDE_BLUE);
    }
    for (size_t i = 0; i < 3; i++) {
        client_greeted(world, clients[i], NULL);
        (void)close(clients[i]);
        (void)close(servers[i]);
    }
}

/* It died while it was the active side, came back, and is the active side again: that it was down is long
 * past. */
static void a_side_that_becomes_active_is_not_down(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.workers = 1;
    world_close_side(world, SIDE_BLUE);
    world_start(world);
    while (!stats_of(world).side_down[SIDE_BLUE]) {
        refused_login(world);
    }
    proxy_set_route(world->proxy, (struct proxy_route){.side = SIDE_GREEN, .epoch = 2, .open = true});
    assert_int_equal(listen(world->servers[SIDE_BLUE], 64), 0);
    proxy_set_route(world->proxy, (struct proxy_route){.side = SIDE_BLUE, .epoch = 3, .open = true});
    three_log_in(world);
    world_free(world);
}

/* The manager has met it: nobody waits for the login that is let through now and then to find out. */
static void a_side_that_is_back_is_not_down(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.workers = 1;
    world_close_side(world, SIDE_BLUE);
    world_start(world);
    while (!stats_of(world).side_down[SIDE_BLUE]) {
        refused_login(world);
    }
    assert_int_equal(listen(world->servers[SIDE_BLUE], 64), 0);
    proxy_side_back(world->proxy, SIDE_BLUE);
    three_log_in(world);
    world_free(world);
}

static void a_dead_side_is_not_asked_by_everyone(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.workers = 1;
    world_close_side(world, SIDE_BLUE);
    world_start(world);
    for (int i = 0; i < 20; i++) {
        refused_login(world);
    }
    struct proxy_stats stats = stats_of(world);
    assert_true(stats.side_down[SIDE_BLUE] && !stats.side_down[SIDE_GREEN]);
    assert_true(stats.refused[PROXY_REFUSED_SERVER] > 0);
    assert_true(stats.connect_failures[SIDE_BLUE] >= 3);
    assert_int_equal(stats.connect_failures[SIDE_BLUE] + stats.refused[PROXY_REFUSED_SERVER], 20);
    /* it comes back: one of those who ask finds out, and then everybody gets in */
    assert_int_equal(listen(world->servers[SIDE_BLUE], 64), 0);
    const int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US;
    int client = -1;
    while (!world_readable(world, world->servers[SIDE_BLUE], SHORT_US / 10)) {
        assert_true(clock_mono_us() < end_us);
        if (client >= 0 && !world_readable(world, client, 0)) {
            continue; /* it may be the one: its end would be the end of its connection there */
        }
        if (client >= 0) {
            (void)close(client);
        }
        client = client_connect(world);
        client_startup(client);
    }
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    assert_false(stats_of(world).side_down[SIDE_BLUE]);
    struct pair pair = pair_new(world);
    pair_works(world, &pair);
    pair_close(&pair);
    (void)close(client);
    (void)close(server);
    world_free(world);
}

/* A refusal is an answer: its reason reaches every client. */
static void a_side_that_refuses_is_not_dead(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.workers = 1;
    world_start(world);
    for (int i = 0; i < 6; i++) {
        int client = client_connect(world);
        client_startup(client);
        int server = server_accept_login(world, SIDE_BLUE);
        put(server, BYTES("E\0\0\0\x13SFATAL\0C53300\0\0"));
        (void)close(server);
        expect_error(world, client, "53300");
        (void)close(client);
    }
    assert_int_equal(stats_of(world).connect_failures[SIDE_BLUE], 0);
    world_free(world);
}

/* The proxy's end of a connection of ours: it lives in this process. */
static int other_end(int fd)
{
    struct sockaddr_in ours, theirs;
    socklen_t length = sizeof(ours);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&ours, &length), 0);
    for (int other = 0; other < 1024; other++) {
        length = sizeof(theirs);
        if (other != fd && getpeername(other, (struct sockaddr *)&theirs, &length) == 0 &&
            theirs.sin_family == AF_INET && theirs.sin_port == ours.sin_port) {
            return other;
        }
    }
    fail_msg("the other end is not here");
    return -1;
}

static int option_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
    return value;
}

static void dead_peers_are_noticed_as_configured(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.tcp_clients = (struct settings_tcp){.keepalives_idle_us = 90000000,
                                                        .keepalives_interval_us = 7000000,
                                                        .keepalives_count = 3,
                                                        .user_timeout_us = 45000000};
    world->settings.tcp_servers = (struct settings_tcp){.keepalives_idle_us = 0};
    world_start(world);
    struct pair pair = pair_new(world);
    int client = other_end(pair.client), server = other_end(pair.server);
    assert_int_equal(option_of(client, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option_of(client, IPPROTO_TCP, TCP_KEEPIDLE), 90);
    assert_int_equal(option_of(client, IPPROTO_TCP, TCP_KEEPINTVL), 7);
    assert_int_equal(option_of(client, IPPROTO_TCP, TCP_KEEPCNT), 3);
    assert_int_equal(option_of(client, IPPROTO_TCP, TCP_USER_TIMEOUT), 45000);
    assert_int_equal(option_of(server, SOL_SOCKET, SO_KEEPALIVE), 0);
    assert_int_equal(option_of(server, IPPROTO_TCP, TCP_USER_TIMEOUT), 0);
    assert_int_equal(option_of(server, IPPROTO_TCP, TCP_NODELAY), 1);
    pair_close(&pair);
    world_free(world);
}

static void all_workers_say_that_they_live(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.workers = 3;
    world_start(world);
    proxy_ping(world->proxy, 5);
    proxy_ping(world->proxy, 6);
    assert_int_equal(world_event(world, PROXY_EVENT_ALIVE)->hold, 5);
    assert_int_equal(world_event(world, PROXY_EVENT_ALIVE)->hold, 6);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_client_ends),
        cmocka_unit_test(a_busy_client_is_not_idle),
        cmocka_unit_test(a_slow_statement_is_cancelled_and_no_other),
        cmocka_unit_test(a_cancel_that_has_no_effect_is_repeated),
        cmocka_unit_test(a_server_that_waits_is_not_cancelled),
        cmocka_unit_test(a_client_that_a_hold_keeps_is_told),
        cmocka_unit_test(a_side_that_is_back_is_not_down),
        cmocka_unit_test(a_dead_side_is_not_asked_by_everyone),
        cmocka_unit_test(a_side_that_becomes_active_is_not_down),
        cmocka_unit_test(a_side_that_refuses_is_not_dead),
        cmocka_unit_test(dead_peers_are_noticed_as_configured),
        cmocka_unit_test(all_workers_say_that_they_live),
    };
    return cmocka_run_group_tests_name("proxy limits", tests, NULL, NULL);
}
