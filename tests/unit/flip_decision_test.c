/* What only an operator can decide, in the small world: which side it is that goes on. */
#include "control/flip/recovery.h"
#include "tests/unit/flip_scene.h"

static void forget_journal(struct world *world)
{
    world->row_count = 0;
    world->journal_promises = false;
    world->running = world->serving = world->told_active = false;
    world->pending_count = 0;
}

static bool undecided(const struct world *world)
{
    return world->running &&
           (world->runner.mode == FLIP_MODE_UNDECIDED || world->runner.mode == FLIP_MODE_RECOVER) &&
           world->runner.why.code != ERROR_NONE && world->runner.await.action == FLIP_ACTION_NONE;
}

/* Both sides say that they are active, and there is no journal; with `away`: only one is there to ask. */
static bool strike_decision(enum world_strike first, uint64_t at, bool away)
{
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    struct recovery_choice choices[SIDE_COUNT];
    struct error error;
    cut_over(world);
    forget_journal(world);
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        world->clusters[SIDE_BLUE].databases[i] = world->clusters[SIDE_GREEN].databases[i];
    }
    world->clusters[SIDE_BLUE].follows = false;
    if (away) {
        world_go_down(world, SIDE_BLUE);
        world->clusters[SIDE_BLUE].up_again_us = 0;
    }
    for (unsigned i = 0; i < 100 && !undecided(world); i++) {
        (void)world_step(world);
    }
    must(world, undecided(world) && !world->serving, "it decided by itself");
    recovery_choices(&world->runner.history, &world->runner.facts, choices);
    must(world, choices[SIDE_GREEN].possible && choices[SIDE_GREEN].may_lack, "green can't be chosen");
    must(world, choices[SIDE_BLUE].possible == !away, "blue can be chosen, or not");
    must(world, flip_may_decide(&world->runner, SIDE_GREEN, &error), "it may not be decided");
    must(world, flip_may_decide(&world->runner, SIDE_BLUE, &error) == !away, "what is away may be chosen");
    world->strike = first;
    world->strike_at = world->actions + at;
    world_decide(world, SIDE_GREEN);
    for (unsigned i = 0; i < SETTLE_STEPS && !world->serving; i++) {
        if (undecided(world) &&
            !world->runner.history.decided) { /* the daemon died before the word was on disk */
            world_decide(world, SIDE_GREEN);
        }
        (void)world_step(world);
    }
    if (away) {
        world->clusters[SIDE_BLUE].up_again_us = world->now_us + 1000000;
    }
    settle(world);
    must(world,
         world->runner.history.active == SIDE_GREEN &&
             world->runner.history.epoch >= choices[SIDE_GREEN].epoch,
         "it isn't what was decided");
    must(world, world->clusters[SIDE_BLUE].databases[0].standing == WORLD_DIVERGED,
         "blue is not left behind");
    must(world, !flip_may_decide(&world->runner, SIDE_BLUE, &error), "there is nothing to decide any more");
    return world->actions >= world->strike_at;
}

static void test_decisions(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_NONE; strike < WORLD_STRIKE_COUNT; strike++) {
        for (int away = 0; away < 2; away++) {
            uint64_t at = 1;
            while (strike_decision((enum world_strike)strike, at, away != 0) && strike != WORLD_STRIKE_NONE) {
                at++;
            }
            assert_true(strike == WORLD_STRIKE_NONE || at > 4);
        }
    }
}

/* A flip that can end neither way: committed, the target is gone for good, and so is the source. */
static void test_decision_ends_a_stuck_flip(void **state)
{
    (void)state;
    const struct flip_options options = world_options();
    struct world *world = world_new(&options);
    struct error error;
    world_cutover(world);
    while (world->runner.await.action != FLIP_ACTION_CATCHUP) {
        must(world, world_step(world), "on the way to the fence");
    }
    world_go_down(world, SIDE_BLUE);
    world->clusters[SIDE_BLUE].up_again_us = 0;
    for (unsigned i = 0; i < SETTLE_STEPS && !flip_may_decide(&world->runner, SIDE_GREEN, &error); i++) {
        (void)world_step(world);
    }
    must(world, flip_may_decide(&world->runner, SIDE_GREEN, &error), "it may not be decided");
    world->runner.spec.accept_loss = true; /* what the world is told by */
    world_decide(world, SIDE_GREEN);
    world->commits = world->clusters[SIDE_GREEN].seen;
    for (unsigned i = 0; i < SETTLE_STEPS && world->finished == 0; i++) {
        (void)world_step(world);
    }
    must(world, world->runner.history.active == SIDE_GREEN && world->outcome == FLIP_OUTCOME_INCONCLUSIVE,
         "it is not what was decided");
    world->clusters[SIDE_BLUE].up_again_us = world->now_us;
    settle(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_decision_ends_a_stuck_flip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
