/* proxy: where sessions go, and how all of them end, against a scripted server. */
#include "tests/unit/proxy_world.h"

static void a_closed_route_keeps_logins_for_a_while(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.max_hold_us = 400000;
    world_start_route(world, (struct proxy_route){.side = SIDE_GREEN, .epoch = 3, .open = false});
    int client = client_connect(world);
    client_startup(client);
    expect_silence(world, world->servers[SIDE_GREEN]);
    proxy_set_route(world->proxy, (struct proxy_route){.side = SIDE_GREEN, .epoch = 3, .open = true});
    int server = server_login(world, SIDE_GREEN);
    client_greeted(world, client, NULL);
    proxy_set_route(world->proxy, (struct proxy_route){.side = SIDE_GREEN, .epoch = 3, .open = false});
    world_heard(world);
    put(client, BYTES(QUERY_1));
    expect_silence(world, server);
    expect_error(world, client, "57P03");
    expect_end(world, client);
    (void)close(client);
    client = client_connect(world);
    client_startup(client);
    expect_error(world, client, "57P03");
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void a_link_to_another_side_carries_nothing(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    proxy_set_route(world->proxy, (struct proxy_route){.side = SIDE_BLUE, .epoch = 3, .open = true});
    world_heard(world);
    pair_works(world, &pair); /* back where it was, before anything moved */
    proxy_set_route(world->proxy, (struct proxy_route){.side = SIDE_GREEN, .epoch = 4, .open = true});
    expect_error(world, pair.client, "57P01");
    expect(world, pair.server, BYTES(TERMINATE));
    expect_end(world, pair.server);
    pair_close(&pair);
    int client = client_connect(world);
    client_startup(client);
    int server = server_login(world, SIDE_GREEN);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void stopping_waits_for_the_boundary(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair idle = pair_new(world), running = pair_new(world), stuck = pair_new(world);
    put(running.client, BYTES(QUERY_1));
    expect(world, running.server, BYTES(QUERY_1));
    put(stuck.client, BYTES(QUERY_1));
    expect(world, stuck.server, BYTES(QUERY_1));
    proxy_stop(world->proxy, 3000000);
    expect_error(world, idle.client, "57P01");
    put(running.server, BYTES(COMPLETE_1 READY_I));
    expect(world, running.client, BYTES(COMPLETE_1 READY_I));
    expect_error(world, running.client, "57P01");
    pair_close(&idle);
    pair_close(&running);
    expect_error(world, stuck.client, "08007"); /* the server may finish it, or have done so */
    expect_end(world, stuck.client);
    pair_close(&stuck);
    (void)world_event(world, PROXY_EVENT_STOPPED);
    proxy_free(world->proxy);
    world->proxy = NULL;
    world_free(world);
}

static void stopping_can_be_hurried(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair stuck = pair_new(world);
    put(stuck.client, BYTES(QUERY_1));
    expect(world, stuck.server, BYTES(QUERY_1));
    int late = client_connect(world);
    put(late, "\0\0", 2); /* the rest is on its way */
    (void)world_readable(world, late, WORLD_QUIET_US);
    proxy_stop(world->proxy, 3 * (int64_t)WORLD_PATIENCE_US);
    uint8_t packet[512];
    size_t length = startup_packet(packet, "joe", "app");
    put(late, packet + 2, length - 2);
    expect_error(world, late, "57P03");
    expect_silence(world, stuck.client);
    proxy_stop(world->proxy, 0);
    expect_error(world, stuck.client, "08007");
    expect_end(world, stuck.client);
    (void)close(late);
    pair_close(&stuck);
    (void)world_event(world, PROXY_EVENT_STOPPED);
    proxy_free(world->proxy);
    world->proxy = NULL;
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_route_keeps_logins_for_a_while),
        cmocka_unit_test(a_link_to_another_side_carries_nothing),
        cmocka_unit_test(stopping_waits_for_the_boundary),
        cmocka_unit_test(stopping_can_be_hurried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
