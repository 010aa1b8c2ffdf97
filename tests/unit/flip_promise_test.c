/*
 * The lossless way back in the small world: the promise from a cutover's turn to the end of its watch, lost
 * and regained, and every strike at every action of both.
 */
#include "tests/unit/flip_scene.h"

static void test_promise_from_turn_to_flip_back(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    for (unsigned round = 0; round < 3; round++) {
        cut_over(world);
        must(world, promised(world) && world->clusters[SIDE_GREEN].names, "no promise after a cutover");
        must(world, world->runner.history.done.turned && world->runner.history.done.lossless,
             "turn is not in the journal");
        world_flip_back(world);
        settle(world);
        must(world, world->outcome == FLIP_OUTCOME_DONE, "the flip-back is not done");
        must(world, !promised(world) && !world->clusters[SIDE_BLUE].names, "a promise after a flip-back");
    }
    must(world, world->errors == 0 && world->alarms == 0, "somebody noticed");
}

/* Each client that was released had the promise: nobody is swapped before the row is on disk. */
static void test_turn_is_before_release(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    world_cutover(world);
    while (!world->runner.settled) {
        must(world, world_step(world), "on the way");
        must(world, world->route == SIDE_BLUE || promised(world), "released without the promise");
    }
    settle(world);
}

static void test_promise_ends_with_the_watch(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    world_pass(world, options.watch_duration_us);
    settle(world);
    must(world, !world->runner.watch.on && !promised(world) && !world->clusters[SIDE_GREEN].names,
         "the promise outlives its watch");
    world = world_new(&options);
    cut_over(world);
    world_tell(world, FLIP_EVENT_END_WATCH, "finalized");
    settle(world);
    must(world, !promised(world) && world->alarms == 0, "the promise outlives a finalize");
}

/* The standby dies: the active side waits no longer than it may, says so, and promises again by itself. */
static void test_promise_is_lost_and_regained(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    const uint64_t commits = world->commits;
    world_go_down(world, SIDE_BLUE);
    world->clusters[SIDE_BLUE].up_again_us = 0;
    world_pass(world, options.lossless_max_wait_us / 2);
    must(world, promised(world) && world->alarms == 0, "given up too early");
    world_pass(world, options.lossless_max_wait_us);
    must(world, !promised(world) && !world->clusters[SIDE_GREEN].names, "not given up");
    must(world, world->alarm == ERROR_NO_PROMISE && world->runner.history.promise_why[0] != '\0',
         "nobody heard of it");
    world_pass(world, 20000000);
    must(world, world->commits > commits && world->runner.history.active == SIDE_GREEN, "traffic stopped");
    world->clusters[SIDE_BLUE].up_again_us = world->now_us;
    settle(world);
    must(world, promised(world), "it does not come back");
    must(world, world->alarms == 1, "alarmed again and again");
}

/* Somebody else changed the names: there is no promise from that moment on. */
static void test_names_that_others_changed(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    struct flip_event event = {.kind = FLIP_EVENT_STREAM, .side = SIDE_GREEN, .now_us = world->now_us};
    error_set(&event.error, ERROR_NO_PROMISE, "somebody emptied the names");
    flip_step(&world->runner, &event);
    must(world, !flip_promise_stands(&world->runner) && world->alarm == ERROR_NO_PROMISE, "it stands");
    settle(world);
    must(world, promised(world), "it does not come back");
}

/* A statement whose answer was lost may still happen: it must not empty the names under the next promise. */
static void test_late_names(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    world->zombie_us = 20000000;
    world->way_back_dead = true; /* both sides answer: nothing else would have them looked at */
    while (world->runner.await.action != FLIP_ACTION_NAMES) {
        must(world, world_step(world), "on the way to the end of the promise");
    }
    world->strike = WORLD_STRIKE_LATE;
    world->strike_at = world->actions + world->pending_count;
    world->way_back_dead = false;
    world_pass(world, 30000000);
    must(world, world->actions > world->strike_at && promised(world), "it does not come back");
    settle(world);
}

/* Whoever emptied the names while no daemon looked: nobody is served before they are back. */
static void test_names_are_first_at_a_start(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    world_kill_daemon(world);
    world->clusters[SIDE_GREEN].names = false;
    world->clusters[SIDE_BLUE].names = true;
    settle(world);
    must(world, promised(world) && world->alarms == 0, "it did not go by itself");
}

/* --- strikes --- */

/* A cutover, its watch, and the flip-back that a gate asks for, struck. True: the strike came in time. */
static bool strike_watch(const struct blow *blow)
{
    const struct flip_options options = lossless();
    struct world *world = struck(&options, blow);
    strike_from_now(world, blow);
    world_cutover(world);
    settle(world);
    rejoin_if_diverged(world);
    if (world->runner.history.active == SIDE_BLUE) {
        world_cutover(world);
        settle(world);
    }
    rejoin_if_diverged(world);
    flip_back_by_gate(world);
    must(world, world->lost == 0, "something was lost");
    return world->actions >= world->strike_at;
}

static void test_every_strike_in_the_watch(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_FAIL; strike < WORLD_STRIKE_COUNT; strike++) {
        strike_everywhere(strike_watch, (struct blow){.first = (enum world_strike)strike}, 60);
        strike_everywhere(strike_watch,
                          (struct blow){.first = (enum world_strike)strike, .down_us = 20000000}, 60);
    }
}

static void test_seeded(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        const struct blow blow = {.first = (enum world_strike)(1 + seed % (WORLD_STRIKE_COUNT - 1)),
                                  .second = (enum world_strike)(seed / 16 % WORLD_STRIKE_COUNT),
                                  .at = 1 + seed * 7 % 40,
                                  .later = 1 + seed % 13,
                                  .seed = seed,
                                  .zombie_us = (int64_t)(seed % 5) * 700000,
                                  .down_us = seed % 3 == 0 ? 20000000 : 500000};
        (void)strike_watch(&blow);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_promise_from_turn_to_flip_back),
        cmocka_unit_test(test_turn_is_before_release),
        cmocka_unit_test(test_promise_ends_with_the_watch),
        cmocka_unit_test(test_promise_is_lost_and_regained),
        cmocka_unit_test(test_names_that_others_changed),
        cmocka_unit_test(test_late_names),
        cmocka_unit_test(test_names_are_first_at_a_start),
        cmocka_unit_test(test_every_strike_in_the_watch),
        cmocka_unit_test(test_seeded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
