/* Logins while the active side can't be reached and is about to be taken over from: proxy/login_await.c. */
#include "proxy_world.h"

enum { SHORT_US = 300000 };

static struct world *world_of_a_dead_side(void)
{
    struct world *world = world_new();
    world->settings.workers = 1;
    world_close_side(world, SIDE_BLUE);
    world_start(world);
    proxy_set_rescue(world->proxy, true);
    return world;
}

static int login(struct world *world)
{
    int client = client_connect(world);
    client_startup(client);
    return client;
}

static void waits(struct world *world, int client)
{
    assert_false(world_readable(world, client, SHORT_US));
}

static void served(struct world *world, int client, enum side side)
{
    int server = server_login(world, side);
    client_greeted(world, client, NULL);
    struct pair pair = {.client = client, .server = server};
    pair_works(world, &pair);
    pair_close(&pair);
}

static void a_login_waits_for_the_takeover(void **state)
{
    (void)state;
    struct world *world = world_of_a_dead_side();
    int clients[5];
    for (size_t i = 0; i < 5; i++) { /* some that try, and some that the side isn't asked for any more */
        clients[i] = login(world);
        waits(world, clients[i]);
    }
    const struct proxy_route green = {.side = SIDE_GREEN, .epoch = 2, .open = true};
    world_hold(world, 1, 10000, PROXY_EXPIRE_REFUSE);
    waits(world, clients[0]);
    proxy_set_rescue(world->proxy, false);
    proxy_swap(world->proxy, 1, green);
    (void)world_event(world, PROXY_EVENT_SWAPPED);
    proxy_release(world->proxy, 1);
    int servers[5];
    for (size_t i = 0; i < 5; i++) {
        servers[i] = server_login(world, SIDE_GREEN);
    }
    for (size_t i = 0; i < 5; i++) {
        client_greeted(world, clients[i], NULL);
        (void)close(clients[i]);
        (void)close(servers[i]);
    }
    assert_int_equal(world_event(world, PROXY_EVENT_RELEASED)->stall.clients, 5);
    world_free(world);
}

static void a_login_waits_for_the_sides_return(void **state)
{
    (void)state;
    struct world *world = world_of_a_dead_side();
    int client = login(world);
    waits(world, client);
    assert_int_equal(listen(world->servers[SIDE_BLUE], 64), 0);
    served(world, client, SIDE_BLUE);
    world_free(world);
}

/* A server that starts, or stops: it answers, and takes nobody. */
static void a_login_waits_for_a_server_that_starts(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    proxy_set_rescue(world->proxy, true);
    int client = login(world);
    int server = server_accept_login(world, SIDE_BLUE);
    put(server, BYTES("E\0\0\0\x1dSFATAL\0C57P03\0Mstarting\0\0"));
    (void)close(server);
    served(world, client, SIDE_BLUE);
    world_free(world);
}

static void a_role_is_asked_for_again(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.auth_method = AUTH_SCRAM_SHA_256;
    world->unavailable = true;
    world_start(world);
    proxy_set_rescue(world->proxy, true);
    int client = login(world);
    waits(world, client);
    world->unavailable = false;
    char body[256];
    assert_int_equal(expect_message(world, client, body, sizeof body),
                     'R'); /* it is asked for its password */
    (void)close(client);
    world_free(world);
}

static void nobody_waits_longer_than_for_any_server(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.server_connect_us = 400000;
    world_close_side(world, SIDE_BLUE);
    world_start(world);
    proxy_set_rescue(world->proxy, true);
    int client = login(world);
    expect_error(world, client, "57P03");
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

static void a_hold_that_ends_badly_ends_the_waiting(void **state)
{
    (void)state;
    struct world *world = world_of_a_dead_side();
    int client = login(world);
    waits(world, client);
    world_hold(world, 1, 300, PROXY_EXPIRE_REFUSE);
    expect_error(world, client, "57P03");
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

/* Nobody takes over: then waiting is in vain, and 57P03 the truth. */
static void without_a_rescue_nobody_waits(void **state)
{
    (void)state;
    struct world *world = world_of_a_dead_side();
    int client = login(world);
    waits(world, client);
    proxy_set_rescue(world->proxy, false);
    expect_error(world, client, "57P03");
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

static void who_waits_may_go(void **state)
{
    (void)state;
    struct world *world = world_of_a_dead_side();
    int client = login(world);
    waits(world, client);
    (void)close(client);
    struct proxy_stats stats;
    const int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US;
    do {
        assert_true(clock_mono_us() < end_us);
        world_pump(world);
        proxy_stats(world->proxy, &stats);
    } while (stats.sessions != 0);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_login_waits_for_the_takeover),
        cmocka_unit_test(a_login_waits_for_the_sides_return),
        cmocka_unit_test(a_login_waits_for_a_server_that_starts),
        cmocka_unit_test(a_role_is_asked_for_again),
        cmocka_unit_test(nobody_waits_longer_than_for_any_server),
        cmocka_unit_test(a_hold_that_ends_badly_ends_the_waiting),
        cmocka_unit_test(without_a_rescue_nobody_waits),
        cmocka_unit_test(who_waits_may_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
