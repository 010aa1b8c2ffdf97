/*
 * The active side is dead, in the small world: a takeover by itself or on somebody's word, what comes in its
 * way, and every strike at every action of it.
 */
#include "tests/unit/flip_scene.h"

static void test_takeover(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    for (unsigned round = 0; round < 2; round++) {
        cut_over(world);
        world->clusters[SIDE_GREEN].unacknowledged = true;
        kill_active(world, 20000000);
        while (world->runner.history.active == SIDE_GREEN || !world->serving || world->held) {
            must(world, world_step(world), "on the way to the takeover");
        }
        must(world, !world->clusters[SIDE_GREEN].up, "it waited for the dead side");
        settle(world);
        must(world, world->lost == 0 && world->runner.history.active == SIDE_BLUE, "something was lost");
        must(world,
             world->runner.history.done.kind == FLIP_KIND_TAKEOVER && world->runner.history.done.automatic,
             "it was not a takeover by itself");
        must(world,
             world->clusters[SIDE_GREEN].databases[0].standing == WORLD_DIVERGED &&
                 !world->clusters[SIDE_GREEN].follows,
             "the dead side came back as something else");
        world_rejoin(world);
        settle(world);
    }
    must(world, world->alarms == 0, "an alarm of something that went well");
}

static void test_no_promise_no_takeover(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    struct error error;
    cut_over(world);
    must(world,
         !flip_may_take_over(&world->runner, SIDE_BLUE, false, &error) && error.code == ERROR_COMMITS_AT_RISK,
         "a side that answers is taken over from");
    kill_active(world, 60000000);
    world_pass(world, 20000000);
    must(world,
         world->runner.history.active == SIDE_GREEN && world->alarms == 1 && world->alarm == ERROR_SIDE_DEAD,
         "it does not only alarm");
    must(world,
         !flip_may_start(&world->runner, FLIP_KIND_FLIP_BACK, SIDE_BLUE, &error) &&
             error.code == ERROR_SIDE_DEAD,
         "a flip-back of a dead side begins");
    must(world,
         !flip_may_take_over(&world->runner, SIDE_BLUE, false, &error) && error.code == ERROR_COMMITS_AT_RISK,
         "it does not say what is at risk");
    must(world, flip_may_take_over(&world->runner, SIDE_BLUE, true, &error), "--accept-loss is refused");
    world->clusters[SIDE_BLUE].seen -= 3;
    world_take_over(world, true);
    settle(world);
    must(world,
         world->outcome == FLIP_OUTCOME_DONE && world->runner.history.active == SIDE_BLUE && world->lost >= 3,
         "accepted, and not done");
}

/* At rest nothing tells the runner the time: what came back must not be dead until somebody asks. */
static void test_back_from_the_dead(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    struct error error;
    kill_active(world, 10000000);
    world_pass(world, 9000000);
    must(world, flip_side_dead(&world->runner), "it is not seen to be dead");
    settle(world);
    must(world, world->clusters[SIDE_BLUE].up, "it is not back");
    must(world, flip_may_start(&world->runner, FLIP_KIND_CUTOVER, SIDE_GREEN, &error),
         "a cutover is refused after the active side came back");
}

static void test_manual_only_alarms(void **state)
{
    (void)state;
    struct flip_options options = lossless();
    options.watch_flip_back = FLIP_BACK_MANUAL;
    struct world *world = world_new(&options);
    struct error error;
    cut_over(world);
    kill_active(world, 60000000);
    world_pass(world, 20000000);
    must(world, world->runner.history.active == SIDE_GREEN && world->alarms == 1, "manual acted");
    must(world, promised(world), "the promise is what a takeover stands on: it was given up");
    must(world, flip_may_take_over(&world->runner, SIDE_BLUE, false, &error), "it needs no leave");
    world_take_over(world, false);
    settle(world);
    must(world, world->runner.history.active == SIDE_BLUE && world->lost == 0, "it lost something");
}

/* A side that is back before its takeover has committed is gone on with, and nothing stays cut off. */
static void test_takeover_is_aborted(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    for (unsigned steps = 1; steps < 12; steps++) {
        struct world *world = world_new(&options);
        struct error error;
        cut_over(world);
        kill_active(world, 10000000);
        while (!flip_running(&world->runner)) {
            must(world, world_step(world), "on the way to the takeover");
        }
        for (unsigned i = 0; i < steps; i++) {
            (void)world_step(world);
        }
        if (!flip_may_abort(&world->runner, &error)) {
            break;
        }
        world->clusters[SIDE_GREEN].up_again_us = world->now_us;
        world_tell(world, FLIP_EVENT_ABORT, "an operator said so");
        settle(world);
        must(world, world->runner.history.active == SIDE_GREEN && world->clusters[SIDE_BLUE].follows,
             "undone");
        must(world, promised(world), "the promise is gone");
    }
}

/* The side that is left dies in the middle of a flip-back, which can't be undone there: it is taken over
 * from, or, past the point of no return, the flip-back needs it no more. */
static void test_source_dies_in_a_flip_back(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    for (uint64_t at = 1;; at++) {
        struct world *world = world_new(&options);
        cut_over(world);
        world_flip_back(world);
        const uint64_t from = world->actions;
        while (world->actions < from + at && world->finished < 2 && world_step(world)) {
        }
        if (world->finished == 2) {
            assert_true(at > 20);
            break;
        }
        world_go_down(world, SIDE_GREEN);
        world->clusters[SIDE_GREEN].up_again_us = world->now_us + 120000000;
        for (unsigned i = 0;
             i < SETTLE_STEPS && (world->route == SIDE_GREEN || !world->serving || world->held); i++) {
            (void)world_step(world);
        }
        must(world, !world->clusters[SIDE_GREEN].up && world->route == SIDE_BLUE,
             "it waited for the dead side");
        settle(world);
        must(world, world->lost == 0 && world->runner.history.active == SIDE_BLUE, "something was lost");
    }
}

/* A takeover came to nothing, and the side that it had left is back: its own fence, which the flip-back
 * before had set, is taken away. */
static void test_given_up_undo_is_made_good(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    world_flip_back(world);
    while (world->runner.await.action != FLIP_ACTION_CATCHUP) {
        must(world, world_step(world), "on the way to the fence");
    }
    world_go_down(world, SIDE_GREEN);
    world_go_down(world, SIDE_BLUE);
    world->clusters[SIDE_GREEN].up_again_us = world->now_us + 60000000;
    world->clusters[SIDE_BLUE].up_again_us = world->now_us + 90000000;
    settle(world);
    must(world, world->runner.history.active == SIDE_GREEN && promised(world), "it did not settle on green");
}

/* A try of a takeover whose first row isn't on disk yet. */
static bool beginning(const struct world *world)
{
    return flip_running(&world->runner) && world->runner.spec.kind == FLIP_KIND_TAKEOVER &&
           world->runner.phase == FLIP_PHASE_NONE;
}

/* A flip-back makes way for a takeover that can't begin, and the side that both would leave is back: whoever
 * the flip-back held (or `refused` since its deadline) goes on there. */
static void begin_in_vain(bool refused, bool aborted)
{
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    world_flip_back(world);
    while (world->runner.await.action != FLIP_ACTION_CATCHUP) {
        must(world, world_step(world), "on the way to the fence");
    }
    world_go_down(world, SIDE_GREEN);
    world_go_down(world, SIDE_BLUE);
    world->clusters[SIDE_GREEN].up_again_us = world->clusters[SIDE_BLUE].up_again_us = 0;
    for (unsigned i = 0; i < SETTLE_STEPS && (!beginning(world) || world->held == refused); i++) {
        must(world, world_step(world), "on the way to a takeover");
    }
    must(world, beginning(world) && world->held != refused && world->serving != refused, "there is none");
    const uint64_t flip = world->runner.spec.id;
    if (aborted) {
        world_tell(world, FLIP_EVENT_ABORT, "an operator said so");
    } else { /* the disk is full */
        world->strike = WORLD_STRIKE_FAIL;
        world->strike_at = world->actions + world->pending_count;
    }
    world->clusters[SIDE_GREEN].up_again_us = world->now_us;
    world->clusters[SIDE_BLUE].up_again_us = world->now_us + 60000000;
    settle(world);
    must(world, world->last_flip == flip && world->outcome != FLIP_OUTCOME_DONE, "it began all the same");
    must(world, world->serving && !world->held && world->route == SIDE_GREEN, "its clients were forgotten");
}

static void test_a_takeover_that_does_not_begin(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        begin_in_vain(i % 2 != 0, i / 2 != 0);
    }
}

/* Both sides are away, the controller dies in a takeover, and what its successor resumes makes way for the
 * next try: whichever of them is undone at last, the clients are routed again, who were routed nowhere since
 * the restart. */
static void test_a_resumed_takeover_makes_way(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    for (int64_t away_us = 20000000; away_us < 90000000; away_us += 3000000) {
        struct world *world = world_new(&options);
        cut_over(world);
        world_go_down(world, SIDE_GREEN);
        world_go_down(world, SIDE_BLUE);
        world->clusters[SIDE_GREEN].up_again_us = world->now_us + away_us;
        world->clusters[SIDE_BLUE].up_again_us = world->now_us + away_us + 1000000;
        while (world->runner.await.action != FLIP_ACTION_CUT_OFF) {
            must(world, world_step(world), "on the way to a takeover");
        }
        world->strike = WORLD_STRIKE_CRASH;
        world->strike_at = world->actions + 1;
        settle(world);
        must(world, world->serving && !world->held, "its clients were forgotten");
    }
}

/* Neither side can be reached for a while; the standby is back first, and the promise still stands. */
static void test_takeover_is_tried_again(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    world_go_down(world, SIDE_GREEN);
    world_go_down(world, SIDE_BLUE);
    world->clusters[SIDE_GREEN].up_again_us = world->now_us + 400000000;
    world->clusters[SIDE_BLUE].up_again_us = world->now_us + 60000000;
    world_pass(world, 120000000);
    must(world, world->runner.history.active == SIDE_BLUE && world->serving && !world->held, "it isn't");
    settle(world);
    must(world, world->lost == 0, "something was lost");
}

/* The standby is ill, then the active side dies: nobody waits for the standby, and the promise is needed. */
static void test_the_dead_do_not_wait(void **state)
{
    (void)state;
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    cut_over(world);
    world->way_back_dead = true;
    world_pass(world, options.lossless_max_wait_us / 2);
    kill_active(world, 60000000);
    world_pass(world, 10000000);
    must(world, world->runner.history.active == SIDE_BLUE && world->lost == 0, "the promise was given up");
    world->way_back_dead = false;
    settle(world);
}

/* The commit's row is in doubt, the target goes away, the source is back and acknowledges what the target
 * will never have: the target must not be opened after that, whatever is found in the journal. */
static void test_commit_in_doubt_and_no_target(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    cut_over(world);
    kill_active(world, 10000000);
    world_take_over(world, true);
    while (world->runner.await.action != FLIP_ACTION_JOURNAL_COMMIT) {
        must(world, world_step(world), "on the way to its commit");
    }
    world->strike = WORLD_STRIKE_LOST_DONE; /* of all that is still on its way to the disk the last is it */
    world->strike_at = world->actions + world->pending_count;
    world_go_down(world, SIDE_BLUE);
    world->clusters[SIDE_BLUE].up_again_us = world->now_us + 200000000;
    const uint64_t commits = world->commits;
    while (!world->clusters[SIDE_GREEN].up || !world->serving || world->held) {
        must(world, world_step(world) && !world->clusters[SIDE_BLUE].up, "on the way back to green");
    }
    world->second = WORLD_STRIKE_CRASH; /* one commit on, and before the flip's end is on disk */
    world->second_at = world->actions + 1;
    (void)world_step(world);
    must(world, !world->running && world->commits == commits + 1, "it was to crash now");
    settle(world);
    must(world, world->runner.history.active == SIDE_GREEN && world->lost == 0,
         "the takeover happened all the same");
}

/* --- strikes --- */

/* The active side dies in the watch, and whatever it is met with is struck. */
static bool strike_takeover(const struct blow *blow)
{
    const struct flip_options options = lossless();
    struct world *world = struck(&options, blow);
    world_cutover(world);
    settle(world);
    strike_from_now(world, blow);
    kill_active(world, blow->dead_us);
    world_pass(world, 4000000);
    settle(world);
    must(world, world->lost == 0, "something was lost");
    const bool in_time = world->actions >= world->strike_at;
    rejoin_if_diverged(world);
    if (world->runner.history.active == SIDE_BLUE) {
        world->strike_at = world->second_at = 0;
        world_cutover(world);
        settle(world);
        must(world, world->runner.history.active == SIDE_GREEN, "no cutover after a takeover");
    }
    return in_time;
}

static void test_every_strike_in_a_takeover(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_FAIL; strike < WORLD_STRIKE_COUNT; strike++) {
        strike_everywhere(strike_takeover,
                          (struct blow){.first = (enum world_strike)strike, .dead_us = 60000000}, 12);
        strike_everywhere(strike_takeover,
                          (struct blow){.first = (enum world_strike)strike, .dead_us = 4010000}, 12);
    }
}

static void test_two_strikes(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_FAIL; strike < WORLD_STRIKE_COUNT; strike++) {
        for (uint64_t later = 1; later <= 7; later++) {
            const struct blow blow = {.first = (enum world_strike)strike,
                                      .second = later % 2 == 0 ? WORLD_STRIKE_CRASH : WORLD_STRIKE_CRASH_DONE,
                                      .later = later,
                                      .dead_us = later % 3 == 0 ? 4012000 : 60000000,
                                      .down_us = later % 2 == 0 ? 5000000 : 0};
            strike_everywhere(strike_takeover, blow, 12);
        }
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
                                  .dead_us = 3990000 + (int64_t)(seed % 40) * 1000,
                                  .down_us = seed % 3 == 0 ? 20000000 : 500000};
        (void)strike_takeover(&blow);
    }
}

/* What it had made wait of the last flip is gone on with, though a restart lies between. */
static void test_undone_takeover_leaves_the_turn(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    world_cutover(world);
    while (world->finished == 0 || world->runner.durable < world->runner.history.rows) {
        must(world, world_step(world), "on the way to the turn");
    }
    world_kill_daemon(world);
    kill_active(world, 20000000);
    world_start_daemon(world);
    while (world->runner.mode != FLIP_MODE_STEADY) {
        must(world, world_step(world), "on the way to rest");
    }
    must(world, !world->clusters[SIDE_BLUE].follows, "it was turned already");
    world_take_over(world, true);
    while (world->runner.phase != FLIP_PHASE_CATCHUP) {
        must(world, world_step(world), "on the way to the takeover");
    }
    world_kill_daemon(world);
    world->clusters[SIDE_GREEN].up = true;
    world_start_daemon(world);
    settle(world);
    must(world, world->runner.history.active == SIDE_GREEN && world->outcome == FLIP_OUTCOME_ABORTED,
         "the takeover was not undone");
    must(world, world->clusters[SIDE_BLUE].follows && world->runner.history.done.turned,
         "the way back was not opened");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takeover),
        cmocka_unit_test(test_no_promise_no_takeover),
        cmocka_unit_test(test_back_from_the_dead),
        cmocka_unit_test(test_manual_only_alarms),
        cmocka_unit_test(test_takeover_is_aborted),
        cmocka_unit_test(test_source_dies_in_a_flip_back),
        cmocka_unit_test(test_given_up_undo_is_made_good),
        cmocka_unit_test(test_a_takeover_that_does_not_begin),
        cmocka_unit_test(test_a_resumed_takeover_makes_way),
        cmocka_unit_test(test_takeover_is_tried_again),
        cmocka_unit_test(test_the_dead_do_not_wait),
        cmocka_unit_test(test_commit_in_doubt_and_no_target),
        cmocka_unit_test(test_every_strike_in_a_takeover),
        cmocka_unit_test(test_two_strikes),
        cmocka_unit_test(test_seeded),
        cmocka_unit_test(test_undone_takeover_leaves_the_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
