/*
 * Drives the runner through its ports in the small world of tests/sim: clean runs, every failure at every
 * action, a crash before, at and after every action. What must hold is checked by the world after each step.
 */
#include "tests/unit/flip_scene.h"

/* So many actions at the least a cutover and its flip-back have. */
enum { BOTH_FLIPS = 60 };

static void test_cutover_and_back(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    for (unsigned round = 0; round < 3; round++) {
        world_cutover(world);
        settle(world);
        must(world, world->outcome == FLIP_OUTCOME_DONE, "the cutover is not done");
        must(world, world->runner.history.active == SIDE_GREEN && world->runner.watch.on,
             "green is not watched");
        world_flip_back(world);
        settle(world);
        must(world, world->outcome == FLIP_OUTCOME_DONE, "the flip-back is not done");
        must(world, world->runner.history.active == SIDE_BLUE && !world->runner.watch.on,
             "blue is not active");
        must(world, world->runner.history.epoch == 3 + 2 * round, "wrong epoch");
    }
    must(world, world->errors == 0 && world->alarms == 0, "somebody noticed");
}

static void test_gate_flips_back_once(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    world_cutover(world);
    settle(world);
    world->way_back_dead = true;
    world_tell(world, FLIP_EVENT_GATE_FAILED, "too many errors");
    for (unsigned i = 0; i < 10; i++) {
        (void)world_step(world);
    }
    must(world, world->runner.history.active == SIDE_GREEN && world->alarms >= 2,
         "a dead way back was taken");
    world->way_back_dead = false;
    for (unsigned i = 0; i < 200 && world->finished < 2; i++) {
        (void)world_step(world);
    }
    settle(world);
    must(world, world->runner.history.active == SIDE_BLUE, "it did not flip back");
    must(world, world->runner.history.done.automatic && world->runner.history.done.of == 1, "not by itself");
    world_tell(world, FLIP_EVENT_GATE_FAILED, "again");
    settle(world);
    must(world, world->runner.history.active == SIDE_BLUE && world->finished == 2,
         "gates act after a flip-back");
}

/* What comes in the way of a rescue is told as a closed way back, and it is tried again. */
static void test_failed_rescue_alarms(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    for (unsigned at = 2; at < 8; at++) {
        struct world *world = world_new(&options);
        world_cutover(world);
        settle(world);
        world->strike = WORLD_STRIKE_FAIL;
        world->strike_at = world->actions + at;
        world_tell(world, FLIP_EVENT_GATE_FAILED, "too many errors");
        for (unsigned i = 0; i < SETTLE_STEPS && world->finished < 2; i++) {
            (void)world_step(world);
        }
        must(world, world->outcome != FLIP_OUTCOME_DONE || world->actions < world->strike_at,
             "it did not come to nothing");
        must(world, world->outcome == FLIP_OUTCOME_DONE || world->alarm == ERROR_WAY_BACK_CLOSED,
             "nobody hears of it");
        for (unsigned i = 0; i < SETTLE_STEPS && world->runner.history.active == SIDE_GREEN; i++) {
            (void)world_step(world);
        }
        settle(world);
        must(world, world->runner.history.active == SIDE_BLUE, "it is not tried again");
    }
}

/* The longer a side was away, the longer the pauses between the tries; its clients must not wait for their
 * end. */
static void test_a_side_that_is_back_ends_the_pause(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    for (unsigned at = 1; at < 40; at++) {
        struct world *world = world_new(&options);
        world->strike = WORLD_STRIKE_SOURCE_DOWN;
        world->strike_at = world->actions + at;
        world->down_us = 215000000;
        world_cutover(world);
        while (world->clusters[SIDE_BLUE].up && world_step(world)) {
        }
        const int64_t back_us = world->clusters[SIDE_BLUE].up_again_us;
        const uint64_t commits = world->commits;
        while (world->commits == commits && world_step(world)) {
        }
        must(world, back_us == 0 || world->now_us < back_us + 1000000,
             "clients wait longer than it was away");
        settle(world);
    }
}

/* Around our event trigger somebody enabled or disabled triggers: seen, and put right on either side. */
static void test_fences_are_put_right(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    for (unsigned round = 0; round < 2; round++) {
        const enum side active = world->runner.history.active;
        world->clusters[active].databases[1].fence = true;
        world->clusters[side_other(active)].databases[0].fence = round == 0;
        world->serving = false; /* who writes meanwhile is refused, which the world would call broken */
        if (round == 0) {
            world_tell(world, FLIP_EVENT_CONTACT, "a fence is wrong");
        } else {
            world_start_daemon(world);
        }
        must(world, world_settle(world, SETTLE_STEPS), "does not come to rest");
        world->serving = true;
        settle(world);
        if (round == 0) {
            world_cutover(world);
            settle(world);
        }
    }
    must(world, world->alarms == 0 && world->finished == 1, "it did not go by itself");
}

static void test_manual_watch_only_alarms(void **state)
{
    (void)state;
    struct flip_options options = world_options();
    options.watch_flip_back = FLIP_BACK_MANUAL;
    struct world *world = world_new(&options);
    world_cutover(world);
    settle(world);
    world_tell(world, FLIP_EVENT_GATE_FAILED, "too slow");
    settle(world);
    must(world, world->runner.history.active == SIDE_GREEN && world->alarms == 1, "manual acted");
}

static void test_drain_policies(void **state)
{
    (void)state;
    struct flip_options options = world_options();
    struct world *world = world_new(&options);
    world->drain_stuck = true;
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_ABORTED && world->why.code == ERROR_DRAIN_TIMEOUT, "abort");

    options.drain_on_timeout = DRAIN_CANCEL;
    world = world_new(&options);
    world->drain_stuck = true; /* idle in transaction: there is nothing to cancel */
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_ABORTED && world->why.code == ERROR_DRAIN_TIMEOUT, "cancel");

    options.drain_on_timeout = DRAIN_TERMINATE;
    world = world_new(&options);
    world->drain_stuck = true;
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_DONE, "terminate");

    /* A rescue cancels, then terminates, whatever the policy. */
    world->runner.options.drain_on_timeout = DRAIN_ABORT;
    world->drain_stuck = true;
    const int64_t from_us = world->now_us;
    world_tell(world, FLIP_EVENT_GATE_FAILED, "too slow");
    while (world->finished < 2 && world_step(world)) {
    }
    must(world, world->outcome == FLIP_OUTCOME_DONE && world->now_us - from_us < 1000000, "rescue");
    settle(world);
}

static void test_immovable_policies(void **state)
{
    (void)state;
    struct flip_options options = world_options();
    struct world *world = world_new(&options);
    world->immovable = 1;
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_DONE, "disconnect");

    options.immovable = IMMOVABLE_ABORT;
    world = world_new(&options);
    world->immovable = 1;
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_ABORTED && world->why.code == ERROR_IMMOVABLE, "abort");

    options.immovable = IMMOVABLE_WAIT;
    world = world_new(&options);
    world->immovable = 1;
    world_cutover(world);
    const int64_t from_us = world->now_us;
    while (world->now_us - from_us < 5000000) {
        must(world, world_step(world), "wait");
    }
    must(world, world->runner.phase == FLIP_PHASE_ARM && !world->held,
         "it does not wait where nobody is held");
    world->immovable = 0;
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_DONE, "it could move, and was not moved");
}

static void test_approvals(void **state)
{
    (void)state;
    struct flip_options options = world_options();
    options.approvals = 2;
    struct world *world = world_new(&options);
    world_cutover(world);
    while (world->runner.await.action != FLIP_ACTION_APPROVAL) {
        must(world, world_step(world), "on the way to its approval");
    }
    world_tell(world, FLIP_EVENT_APPROVED, "");
    must(world, world->runner.phase == FLIP_PHASE_APPROVE, "one approval was enough");
    world_tell(world, FLIP_EVENT_APPROVED, "");
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_DONE, "it was approved");

    world = world_new(&options); /* nobody answers */
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_REFUSED && world->why.code == ERROR_TIMEOUT,
         "nobody approved");
}

/* Another controller owns the pair: this one holds nothing and decides nothing, wherever it was. */
static void test_deposed_at_every_action(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    bool running = true;
    for (uint64_t at = 1; running; at++) {
        struct world *world = world_new(&options);
        struct error error;
        world_cutover(world);
        const uint64_t from = world->actions;
        while (world->actions < from + at && world->finished == 0 && world_step(world)) {
        }
        running = flip_running(&world->runner) && world->finished == 0;
        const bool fenced = world->runner.fenced;
        world_tell(world, FLIP_EVENT_DEPOSED, "");
        for (unsigned i = 0; i < 100 && world->broken[0] == '\0'; i++) {
            (void)world_step(world);
        }
        must(world, !world->held, "a deposed controller holds");
        must(world, world->runner.mode == FLIP_MODE_DEPOSED && world->alarms == 1, "it does not say so");
        must(world,
             !running || !fenced || !world->serving || !world->clusters[world->route].databases[0].fence,
             "clients go on at a fenced side");
        assert_false(flip_may_start(&world->runner, FLIP_KIND_FLIP_BACK, SIDE_BLUE, &error));
        assert_int_equal(error.code, ERROR_STALE);
    }
}

static void test_abort_at_every_action(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    bool aborted = true;
    for (uint64_t at = 1; aborted; at++) {
        struct world *world = world_new(&options);
        struct error error;
        world_cutover(world);
        const uint64_t from = world->actions;
        while (world->actions < from + at && world->finished == 0 && world_step(world)) {
        }
        aborted = flip_may_abort(&world->runner, &error);
        world_tell(world, FLIP_EVENT_ABORT, "an operator said so");
        settle(world);
        must(world, world->outcome == (aborted ? FLIP_OUTCOME_ABORTED : FLIP_OUTCOME_DONE), "abort");
        must(world, world->errors == 0, "a client noticed an abort");
    }
}

/* Cutover, then a failed gate: all that a pair goes through, struck. True: the strike came in time. */
static bool strike_once(const struct blow *blow)
{
    const struct flip_options options = world_options();
    struct world *world = struck(&options, blow);
    strike_from_now(world, blow);
    world_cutover(world);
    settle(world);
    if (world->runner.history.active == SIDE_BLUE && world->clusters[SIDE_GREEN].follows) {
        world_cutover(world); /* it was undone: it can be tried again */
        settle(world);
    }
    if (world->runner.history.active == SIDE_GREEN && world->runner.watch.on) {
        flip_back_by_gate(world);
    }
    return world->actions >= world->strike_at;
}

static void test_every_strike_at_every_action(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_FAIL; strike < WORLD_STRIKE_COUNT; strike++) {
        strike_everywhere(strike_once, (struct blow){.first = (enum world_strike)strike}, BOTH_FLIPS);
    }
}

/* A cluster that stays away longer than any hold: clients are refused, and it still ends by itself. */
static void test_a_side_away_for_long(void **state)
{
    (void)state;
    strike_everywhere(strike_once, (struct blow){.first = WORLD_STRIKE_SOURCE_DOWN, .down_us = 20000000},
                      BOTH_FLIPS);
    strike_everywhere(strike_once, (struct blow){.first = WORLD_STRIKE_TARGET_DOWN, .down_us = 20000000},
                      BOTH_FLIPS);
}

/* Two blows: the second hits what the runner or recovery does about the first. */
static void test_crash_after_every_strike(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_FAIL; strike < WORLD_STRIKE_COUNT; strike++) {
        for (uint64_t later = 1; later <= 9; later++) {
            strike_everywhere(
                strike_once,
                (struct blow){.first = (enum world_strike)strike,
                              .second = later % 2 == 0 ? WORLD_STRIKE_CRASH : WORLD_STRIKE_CRASH_DONE,
                              .later = later},
                BOTH_FLIPS);
        }
    }
}

static void test_seeded(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        const struct blow blow = {.first = (enum world_strike)(1 + seed % (WORLD_STRIKE_COUNT - 1)),
                                  .second = (enum world_strike)(seed / 16 % WORLD_STRIKE_COUNT),
                                  .at = 1 + seed * 7 % 90,
                                  .later = 1 + seed % 13,
                                  .seed = seed,
                                  .down_us = seed % 3 == 0 ? 20000000 : 500000};
        (void)strike_once(&blow);
    }
}

/* Too little left of the hold: the flip is taken back instead of committed. */
static void test_no_commit_without_budget(void **state)
{
    (void)state;
    struct flip_options options = world_options();
    options.drain_timeout_us = options.max_hold_us - FLIP_OPEN_BUDGET_US / 2;
    options.drain_on_timeout = DRAIN_TERMINATE;
    struct world *world = world_new(&options);
    world->drain_stuck = true;
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_ABORTED && world->why.code == ERROR_TIMEOUT, "it committed");
    must(world, world->errors == 0, "a client noticed");
}

/* Whoever starts while the active side is away sends nobody there before it was met: it may carry the fence
 * of a flip whose undo never reached it. */
static void test_nobody_is_sent_to_a_side_that_was_not_met(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    struct error error;
    world_cutover(world);
    settle(world);
    world_flip_back(world);
    settle(world);
    world_kill_daemon(world);
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        world->clusters[SIDE_BLUE].databases[i].fence = true;
        world->clusters[SIDE_BLUE].databases[i].fenced_for = world->last_flip;
    }
    world_go_down(world, SIDE_BLUE);
    world->clusters[SIDE_BLUE].up_again_us = world->now_us + 20000000;
    world_start_daemon(world);
    while (world->runner.mode != FLIP_MODE_STEADY) {
        must(world, world_step(world), "on the way to rest");
    }
    must(world, world->told_active && !world->serving, "clients are sent to a side that nobody has met");
    must(world,
         !flip_may_start(&world->runner, FLIP_KIND_CUTOVER, SIDE_GREEN, &error) &&
             error.code == ERROR_UNREACHABLE,
         "it may be left, though nobody has met it");
    while (!world->serving) {
        must(world, world_step(world), "on the way to being met");
    }
    must(world, !world->clusters[SIDE_BLUE].databases[0].fence, "clients are sent behind a fence");
    settle(world);
    must(world, world->runner.history.active == SIDE_BLUE, "another side is active");
}

/* What was left of the last flip waits for that, too, and is gone on with then. */
static void test_turn_waits_for_a_side_that_was_not_met(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    world_cutover(world);
    while (world->finished == 0 || world->runner.durable < world->runner.history.rows) {
        must(world, world_step(world), "on the way to the turn");
    }
    must(world, world->runner.phase == FLIP_PHASE_TURN, "it was turned already");
    world_kill_daemon(world);
    world_go_down(world, SIDE_GREEN);
    world->clusters[SIDE_GREEN].up_again_us = world->now_us + 20000000;
    world_start_daemon(world);
    while (world->runner.mode != FLIP_MODE_STEADY) {
        must(world, world_step(world), "on the way to rest");
    }
    must(world, !world->serving && world->clusters[SIDE_GREEN].up_again_us > world->now_us,
         "it did not wait for the side");
    settle(world);
    must(world, world->runner.history.active == SIDE_GREEN && world->clusters[SIDE_BLUE].follows,
         "the way back was not opened");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cutover_and_back),
        cmocka_unit_test(test_gate_flips_back_once),
        cmocka_unit_test(test_failed_rescue_alarms),
        cmocka_unit_test(test_a_side_that_is_back_ends_the_pause),
        cmocka_unit_test(test_fences_are_put_right),
        cmocka_unit_test(test_manual_watch_only_alarms),
        cmocka_unit_test(test_drain_policies),
        cmocka_unit_test(test_immovable_policies),
        cmocka_unit_test(test_approvals),
        cmocka_unit_test(test_deposed_at_every_action),
        cmocka_unit_test(test_abort_at_every_action),
        cmocka_unit_test(test_every_strike_at_every_action),
        cmocka_unit_test(test_no_commit_without_budget),
        cmocka_unit_test(test_a_side_away_for_long),
        cmocka_unit_test(test_crash_after_every_strike),
        cmocka_unit_test(test_seeded),
        cmocka_unit_test(test_nobody_is_sent_to_a_side_that_was_not_met),
        cmocka_unit_test(test_turn_waits_for_a_side_that_was_not_met),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
