/* proxy: what clients hear whose server goes in the middle, against a scripted server. */
#include "tests/unit/proxy_world.h"

#define ASK_ID     "F\0\0\0\x0e\0\0\x13\xc4\0\0\0\0\0\x01"
#define ASK_SERVER ASK_ID "F\0\0\0\x0e\0\0\x0c\x03\0\0\0\0\0\x01"
#define NO_ID      "V\0\0\0\x08\xff\xff\xff\xff"
#define ID_7                                                                                                 \
    "V\0\0\0\x10\0\0\0\x08\0\0\0\0\0\0\0"                                                                    \
    "\x07"
#define ERROR_FATAL "E\0\0\0\x18SFATAL\0C57P01\0Mbye\0\0"
#define ERROR_PANIC "E\0\0\0\x18SPANIC\0C53100\0Mbye\0\0"

static void on_doubt(void *context, const struct proxy_doubt *doubt)
{
    struct world *world = context;
    world->doubt = *doubt;
}

static struct world *start(int64_t wait_us)
{
    struct world *world = world_new();
    world->settings.timeouts.in_doubt_us = wait_us;
    world->on_doubt = on_doubt;
    world_start(world);
    return world;
}

/* A session whose COMMIT is under way; its server was asked for the transaction's id, in the same write. */
static struct pair committing(struct world *world)
{
    struct pair pair = pair_new(world);
    world->doubt.request = 0;
    put(pair.client, BYTES(QUERY_BEGIN));
    expect(world, pair.server, BYTES(ASK_SERVER QUERY_BEGIN));
    put(pair.server, BYTES(NO_ID READY_I ID_7 READY_I COMPLETE_BEGIN READY_T));
    expect(world, pair.client, BYTES(COMPLETE_BEGIN READY_T));
    put(pair.client, BYTES(QUERY_COMMIT));
    expect(world, pair.server, BYTES(ASK_ID QUERY_COMMIT));
    put(pair.server, BYTES(ID_7 READY_T));
    return pair;
}

static void wait_doubt(struct world *world)
{
    int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US;
    while (world->doubt.request == 0 && clock_mono_us() < end_us) {
        world_pump(world);
        (void)usleep(500);
    }
    assert_int_equal(world->doubt.transaction, 7);
    assert_int_equal(world->doubt.incarnation, 7);
    assert_int_equal(world->doubt.side, SIDE_BLUE);
    assert_int_equal(world->doubt.epoch, 1);
}

static void outcomes_are_told(void **state)
{
    (void)state;
    static const char *const states[PROXY_OUTCOME_COUNT] = {"08007", "08006", "08006"};
    struct world *world = start(WORLD_PATIENCE_US);
    for (enum proxy_outcome outcome = PROXY_OUTCOME_UNKNOWN; outcome < PROXY_OUTCOME_COUNT; outcome++) {
        struct pair pair = committing(world);
        (void)close(pair.server);
        wait_doubt(world);
        expect_silence(world, pair.client);
        proxy_doubt_answer(world->proxy, world->doubt.request ^ UINT64_C(1) << 32, PROXY_OUTCOME_ABORTED);
        expect_silence(world, pair.client); /* that was another session's */
        proxy_doubt_answer(world->proxy, world->doubt.request, outcome);
        if (outcome == PROXY_OUTCOME_COMMITTED) {
            expect(world, pair.client, BYTES(COMPLETE_END READY_I));
        }
        expect_error(world, pair.client, states[outcome]);
        expect_end(world, pair.client);
        (void)close(pair.client);
    }
    struct proxy_stats stats;
    proxy_stats(world->proxy, &stats);
    for (int i = 0; i < PROXY_OUTCOME_COUNT; i++) {
        assert_int_equal(stats.doubts[i], 1);
    }
    world_free(world);
}

/* It comes in the midst of a commit, and would be taken for its failure. */
static void a_panic_is_no_answer(void **state)
{
    (void)state;
    struct world *world = start(WORLD_PATIENCE_US);
    struct pair pair = committing(world);
    put(pair.server, BYTES(ERROR_PANIC));
    (void)shutdown(pair.server, SHUT_RDWR);
    wait_doubt(world);
    proxy_doubt_answer(world->proxy, world->doubt.request, PROXY_OUTCOME_COMMITTED);
    expect(world, pair.client, BYTES(COMPLETE_END READY_I));
    expect_error(world, pair.client, "08006");
    expect_end(world, pair.client);
    pair_close(&pair);

    pair = committing(world); /* what ends by the server's own word has failed */
    put(pair.server, BYTES(ERROR_FATAL));
    (void)shutdown(pair.server, SHUT_RDWR);
    expect(world, pair.client, BYTES(ERROR_FATAL));
    expect_end(world, pair.client);
    assert_int_equal(world->doubt.request, 0);
    pair_close(&pair);
    world_free(world);
}

static void nobody_waits_for_ever(void **state)
{
    (void)state;
    struct world *world = start(300000);
    struct pair pair = committing(world);
    (void)close(pair.server);
    expect_error(world, pair.client, "08007");
    expect_end(world, pair.client);
    (void)close(pair.client);
    proxy_doubt_answer(world->proxy, world->doubt.request, PROXY_OUTCOME_COMMITTED); /* too late */
    world_free(world);

    world = start(100 * (int64_t)WORLD_PATIENCE_US);
    pair = committing(world);
    struct pair gone = committing(world);
    (void)close(gone.server);
    wait_doubt(world);
    (void)close(gone.client);
    world->doubt.request = 0;
    (void)close(pair.server);
    wait_doubt(world);
    proxy_stop(world->proxy, 0);
    expect_error(world, pair.client, "08007");
    expect_end(world, pair.client);
    (void)close(pair.client);
    world_free(world);
}

/* A client that has sent all and reads on, and one that is in a hold's way. */
static void also_others_are_told(void **state)
{
    (void)state;
    struct world *world = start(WORLD_PATIENCE_US);
    struct pair pair = committing(world);
    assert_int_equal(shutdown(pair.client, SHUT_WR), 0);
    (void)close(pair.server);
    wait_doubt(world);
    proxy_doubt_answer(world->proxy, world->doubt.request, PROXY_OUTCOME_COMMITTED);
    expect(world, pair.client, BYTES(COMPLETE_END READY_I));
    expect_error(world, pair.client, "08006");
    (void)close(pair.client);

    pair = committing(world);
    proxy_hold(world->proxy, 1, clock_mono_us() + WORLD_PATIENCE_US, PROXY_EXPIRE_RELEASE);
    assert_int_equal(world_event(world, PROXY_EVENT_HELD)->counts.undrained, 1);
    proxy_terminate_undrained(world->proxy, 1);
    wait_doubt(world);
    assert_int_equal(world_event(world, PROXY_EVENT_DRAINED)->hold, 1);
    proxy_doubt_answer(world->proxy, world->doubt.request, PROXY_OUTCOME_ABORTED);
    expect_error(world, pair.client, "57P01");
    expect_end(world, pair.client);
    pair_close(&pair);
    world_free(world);
}

static void what_was_open_is_rolled_back(void **state)
{
    (void)state;
    struct world *world = start(0);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_BEGIN));
    expect(world, pair.server, BYTES(QUERY_BEGIN));
    put(pair.server, BYTES(COMPLETE_BEGIN READY_T));
    expect(world, pair.client, BYTES(COMPLETE_BEGIN READY_T));
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(pair.server);
    expect_error(world, pair.client, "08006");
    (void)close(pair.client);

    pair = pair_new(world); /* switched off, nobody is asked */
    put(pair.client, BYTES(QUERY_BEGIN));
    expect(world, pair.server, BYTES(QUERY_BEGIN));
    put(pair.server, BYTES(COMPLETE_BEGIN READY_T));
    expect(world, pair.client, BYTES(COMPLETE_BEGIN READY_T));
    put(pair.client, BYTES(QUERY_COMMIT));
    expect(world, pair.server, BYTES(QUERY_COMMIT));
    (void)close(pair.server);
    expect_error(world, pair.client, "08007");
    (void)close(pair.client);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outcomes_are_told),
        cmocka_unit_test(a_panic_is_no_answer),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(also_others_are_told),
        cmocka_unit_test(what_was_open_is_rolled_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
