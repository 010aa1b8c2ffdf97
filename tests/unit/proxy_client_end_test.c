/* Clients that close, or only stop sending, in every state of a session. */
#include "proxy_world.h"

#include <string.h>

static void half_close(int fd)
{
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
}

/* Nothing else comes from the proxy: not even a cancel on a connection of its own. */
static void expect_only_the_end(struct world *world, int server)
{
    expect_end(world, server);
    expect_silence(world, world->servers[SIDE_BLUE]);
}

static struct proxy_stats stats_of(struct world *world)
{
    struct proxy_stats stats;
    world_pump(world);
    proxy_stats(world->proxy, &stats);
    return stats;
}

static void wait_gone(struct world *world)
{
    int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US;
    while (stats_of(world).sessions > 0) {
        assert_true(clock_mono_us() < end_us);
        (void)usleep(500);
    }
}

static void what_was_sent_is_answered(void **state)
{
    (void)state;
    static const struct {
        const char *sent;
        size_t sent_length;
        const char *answer;
        size_t answer_length;
    } cases[] = {
        {BYTES(QUERY_1), BYTES(COMPLETE_1 READY_I)},
        {BYTES(QUERY_1 QUERY_1 "Q\0\0"), BYTES(COMPLETE_1 READY_I COMPLETE_1 READY_I)}, /* half a header */
        {BYTES("P\0\0\0\x08\0\0\0\0S\0\0\0\x04"), BYTES("1\0\0\0\x04" READY_I)},
        {BYTES(QUERY_1 "P\0\0\0\x08\0\0\0\0"), BYTES(COMPLETE_1 READY_I)}, /* no Sync: never answered */
        {BYTES(QUERY_1 TERMINATE), BYTES(COMPLETE_1 READY_I)},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct world *world = world_new();
        world->settings.client_eof = CLIENT_EOF_FINISH;
        world_start(world);
        struct pair pair = pair_new(world);
        put(pair.client, cases[i].sent, cases[i].sent_length);
        half_close(pair.client);
        bool cut = memcmp(cases[i].sent + cases[i].sent_length - 3, "Q\0\0", 3) == 0;
        expect(world, pair.server, cases[i].sent, cases[i].sent_length - (cut ? 3 : 0));
        put(pair.server, cases[i].answer, cases[i].answer_length);
        expect(world, pair.client, cases[i].answer, cases[i].answer_length);
        (void)shutdown(pair.server, SHUT_WR); /* a server ends when it has seen the end */
        expect_end(world, pair.client);
        (void)close(pair.client);
        wait_gone(world);
        expect_silence(world, world->servers[SIDE_BLUE]);
        assert_int_equal(stats_of(world).sides[SIDE_BLUE].errors, 0);
        (void)close(pair.server);
        world_free(world);
    }
}

static void the_server_finishes_for_who_has_gone(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(pair.client);
    expect_only_the_end(world, pair.server);
    assert_int_equal(stats_of(world).sessions, 1); /* a drain still waits for it */
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    (void)close(pair.server);
    wait_gone(world);

    /* the end of the statement is not seen before something can't be sent to the client */
    pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    (void)close(pair.client);
    expect_only_the_end(world, pair.server);
    put(pair.server, BYTES(COMPLETE_1));
    wait_gone(world);
    (void)close(pair.server);
    expect_silence(world, world->servers[SIDE_BLUE]);
    world_free(world);
}

static void expect_cancel(struct world *world)
{
    int cancel = server_accept(world, SIDE_BLUE);
    expect(world, cancel, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a" SERVER_KEY));
    (void)close(cancel);
}

static void or_it_is_cancelled_by_setting(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.client_eof = CLIENT_EOF_CANCEL;
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(pair.client);
    expect_cancel(world);
    expect_end(world, pair.server);
    (void)close(pair.server);

    pair = pair_new(world); /* who said goodbye has not been cut off */
    put(pair.client, BYTES(QUERY_1 TERMINATE));
    expect(world, pair.server, BYTES(QUERY_1 TERMINATE));
    (void)close(pair.client);
    expect_silence(world, world->servers[SIDE_BLUE]);
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    (void)close(pair.server);
    wait_gone(world);
    expect_silence(world, world->servers[SIDE_BLUE]);
    world_free(world);
}

/* It came before the statement: what a server that is idle makes of a cancel. */
static void a_cancel_that_was_ignored_is_repeated(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.client_eof = CLIENT_EOF_CANCEL;
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(pair.client);
    for (int times = 0; times < 3; times++) {
        expect_cancel(world);
    }
    expect_end(world, pair.server); /* of its input: it can end as soon as nothing runs */
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    (void)close(pair.server);
    /* one may be under way when it ends */
    if (world_readable(world, world->servers[SIDE_BLUE], 300000)) {
        expect_cancel(world);
    }
    expect_silence(world, world->servers[SIDE_BLUE]);
    world_free(world);
}

static void so_is_that_of_a_drain(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_BEGIN));
    expect(world, pair.server, BYTES(QUERY_BEGIN));
    proxy_hold(world->proxy, 7, clock_mono_us() + 8000000, PROXY_EXPIRE_RELEASE);
    (void)world_event(world, PROXY_EVENT_HELD);
    proxy_cancel_undrained(world->proxy, 7);
    expect_cancel(world);
    expect_cancel(world);
    /* what begins behind it is not what was meant */
    put(pair.server, BYTES(COMPLETE_BEGIN READY_T));
    expect(world, pair.client, BYTES(COMPLETE_BEGIN READY_T));
    while (world_readable(world, world->servers[SIDE_BLUE], WORLD_QUIET_US)) {
        expect_cancel(world); /* under way */
    }
    put(pair.client, BYTES(QUERY_COMMIT));
    expect(world, pair.server, BYTES(QUERY_COMMIT));
    assert_false(world_readable(world, world->servers[SIDE_BLUE], 500000));
    put(pair.server, BYTES(COMPLETE_END READY_I));
    expect(world, pair.client, BYTES(COMPLETE_END READY_I));
    world_release(world, 7);
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

static void what_is_held_is_done_later(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    proxy_hold(world->proxy, 7, clock_mono_us() + 5000000, PROXY_EXPIRE_RELEASE);
    (void)world_event(world, PROXY_EVENT_HELD);
    put(pair.client, BYTES(QUERY_1));
    half_close(pair.client);
    expect_silence(world, pair.server);
    proxy_release(world->proxy, 7);
    expect(world, pair.server, BYTES(QUERY_1));
    expect_end(world, pair.server);
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    expect_end(world, pair.client);
    wait_gone(world);
    pair_close(&pair);
    world_free(world);
}

static void also_on_the_other_side(void **state)
{
    (void)state;
    const struct proxy_route target = {.side = SIDE_GREEN, .epoch = 2, .open = true};
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    proxy_arm(world->proxy, 5, target, 5000000);
    int green = server_login(world, SIDE_GREEN);
    (void)world_event(world, PROXY_EVENT_ARMED);
    proxy_hold(world->proxy, 5, clock_mono_us() + 5000000, PROXY_EXPIRE_REFUSE);
    (void)world_event(world, PROXY_EVENT_DRAINED);
    put(pair.client, BYTES(QUERY_1));
    half_close(pair.client);
    expect_silence(world, pair.server);
    proxy_swap(world->proxy, 5, target);
    assert_int_equal(world_event(world, PROXY_EVENT_SWAPPED)->counts.moved, 1);
    proxy_release(world->proxy, 5);
    expect(world, green, BYTES(QUERY_1));
    put(green, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    expect_end(world, pair.client);
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

/* What is left running in the way of a flip is cancelled as anybody's. */
static void a_policy_ends_it(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(pair.client);
    expect_only_the_end(world, pair.server);
    proxy_hold(world->proxy, 7, clock_mono_us() + 5000000, PROXY_EXPIRE_RELEASE);
    assert_int_equal(world_event(world, PROXY_EVENT_HELD)->counts.undrained, 1);
    proxy_terminate_undrained(world->proxy, 7);
    expect_cancel(world);
    wait_gone(world);
    (void)close(pair.server);
    world_free(world);
}

static void a_login_that_was_sent_ahead_goes_on(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int client = client_connect(world);
    uint8_t packet[512];
    size_t length = startup_packet(packet, "joe", "app");
    memcpy(packet + length, QUERY_1, sizeof(QUERY_1) - 1);
    put(client, packet, length + sizeof(QUERY_1) - 1);
    half_close(client);
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    expect(world, server, BYTES(QUERY_1));
    expect_end(world, server);
    put(server, BYTES(COMPLETE_1 READY_I));
    expect(world, client, BYTES(COMPLETE_1 READY_I));
    expect_end(world, client);
    (void)close(client);
    (void)close(server);

    client = client_connect(world); /* with nothing behind it there is nothing to be done */
    client_startup(client);
    half_close(client);
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

static void a_server_that_stops_sending_is_heard_out(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    static const char fatal[] = "E\0\0\0\x1cSFATAL\0C57P01\0Mbye bye\0\0";
    put(pair.server, fatal, sizeof(fatal) - 1);
    half_close(pair.server);
    expect(world, pair.client, fatal, sizeof(fatal) - 1);
    expect_end(world, pair.client);
    pair_close(&pair);
    pair = pair_new(world);
    put(pair.server, fatal, sizeof(fatal) - 1); /* while idle */
    half_close(pair.server);
    expect(world, pair.client, fatal, sizeof(fatal) - 1);
    expect_end(world, pair.client);
    pair_close(&pair);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_sent_is_answered),
        cmocka_unit_test(the_server_finishes_for_who_has_gone),
        cmocka_unit_test(or_it_is_cancelled_by_setting),
        cmocka_unit_test(a_cancel_that_was_ignored_is_repeated),
        cmocka_unit_test(so_is_that_of_a_drain),
        cmocka_unit_test(what_is_held_is_done_later),
        cmocka_unit_test(also_on_the_other_side),
        cmocka_unit_test(a_policy_ends_it),
        cmocka_unit_test(a_login_that_was_sent_ahead_goes_on),
        cmocka_unit_test(a_server_that_stops_sending_is_heard_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
