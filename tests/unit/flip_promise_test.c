/*
 * The lossless way back in the small world: the promise from a cutover's turn to the end of its watch, lost
 * and regained, and a takeover from a dead side; every strike at every action of both.
 */
#include "control/flip/recovery.h"
#include "tests/sim/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { SETTLE_STEPS = 60000 };

static struct flip_options lossless(void)
{
    struct flip_options options = world_options();
    options.lossless = true;
    return options;
}

static struct world *world_new(const struct flip_options *options)
{
    static struct world world;
    world_init(&world, options);
    world_start_daemon(&world);
    assert_true(world_settle(&world, SETTLE_STEPS));
    return &world;
}

static void must(struct world *world, bool condition, const char *what)
{
    if (condition && world->broken[0] == '\0') {
        return;
    }
    (void)fputs(world->story, stderr);
    fail_msg("%s%s%s; strike %d at action %llu, then %d at %llu; seed %llu", what,
             world->broken[0] != '\0' ? ", broken: " : "", world->broken, (int)world->strike,
             (unsigned long long)world->strike_at, (int)world->second, (unsigned long long)world->second_at,
             (unsigned long long)world->seed);
}

static void settle(struct world *world)
{
    must(world, world_settle(world, SETTLE_STEPS), "does not come to rest");
    must(world, world_is_sound(world), "is not sound");
}

static bool promised(const struct world *world)
{
    return world->journal_promises && flip_promise_stands(&world->runner);
}

static void cut_over(struct world *world)
{
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_DONE && world->runner.history.active == SIDE_GREEN,
         "the cutover is not done");
}

/* The active side dies for so long; steps until the runner has seen enough of it. */
static void kill_active(struct world *world, int64_t down_us)
{
    const enum side active = world->runner.history.active;
    world_go_down(world, active);
    world->clusters[active].up_again_us = world->now_us + down_us;
}

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

/* --- an operator decides --- */

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

/* --- strikes --- */

struct blow {
    enum world_strike first, second;
    uint64_t at, later, seed;
    int64_t zombie_us; /* how late late statements are */
    int64_t down_us,
        dead_us; /* how long struck clusters are away; and the active one that dies in the watch */
};

static struct world *struck(const struct blow *blow)
{
    const struct flip_options options = lossless();
    struct world *world = world_new(&options);
    world->down_us = blow->down_us != 0 ? blow->down_us : world->down_us;
    world->seed = blow->seed;
    world->zombie_us = blow->zombie_us != 0 ? blow->zombie_us : world->zombie_us;
    return world;
}

static void strike(struct world *world, const struct blow *blow)
{
    world->strike = blow->first;
    world->strike_at = world->actions + blow->at;
    world->second = blow->second;
    world->second_at = blow->second == WORLD_STRIKE_NONE ? 0 : world->strike_at + blow->later;
}

static void rejoin_if_diverged(struct world *world)
{
    const struct world_cluster *other = &world->clusters[side_other(world->runner.history.active)];
    if (other->databases[0].standing == WORLD_DIVERGED || !other->follows) {
        world_rejoin(world);
        settle(world);
    }
}

/* A cutover, its watch, and the flip-back that a gate asks for, struck. True: the strike came in time. */
static bool strike_watch(const struct blow *blow)
{
    struct world *world = struck(blow);
    strike(world, blow);
    world_cutover(world);
    settle(world);
    rejoin_if_diverged(world);
    if (world->runner.history.active == SIDE_BLUE) {
        world_cutover(world);
        settle(world);
    }
    rejoin_if_diverged(world);
    for (unsigned i = 0; i < SETTLE_STEPS && world->runner.history.active == SIDE_GREEN; i++) {
        if (world->running && world->runner.watch.on && !world->runner.watch.failing &&
            world->runner.mode == FLIP_MODE_STEADY) {
            world_tell(world, FLIP_EVENT_GATE_FAILED, "too many errors");
        }
        (void)world_step(world);
        must(world, true, "on the way back");
    }
    settle(world);
    must(world, world->runner.history.active == SIDE_BLUE && world->lost == 0, "it never went back");
    return world->actions >= world->strike_at;
}

/* The active side dies in the watch, and whatever it is met with is struck. */
static bool strike_takeover(const struct blow *blow)
{
    struct world *world = struck(blow);
    world_cutover(world);
    settle(world);
    strike(world, blow);
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

static void everywhere(bool (*run)(const struct blow *), struct blow blow, unsigned least)
{
    for (blow.at = 1; run(&blow); blow.at++) {
    }
    assert_true(blow.at > least);
}

static void test_every_strike_in_the_watch(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_FAIL; strike < WORLD_STRIKE_COUNT; strike++) {
        everywhere(strike_watch, (struct blow){.first = (enum world_strike)strike}, 60);
        everywhere(strike_watch, (struct blow){.first = (enum world_strike)strike, .down_us = 20000000}, 60);
    }
}

static void test_every_strike_in_a_takeover(void **state)
{
    (void)state;
    for (int strike = WORLD_STRIKE_FAIL; strike < WORLD_STRIKE_COUNT; strike++) {
        everywhere(strike_takeover, (struct blow){.first = (enum world_strike)strike, .dead_us = 60000000},
                   12);
        everywhere(strike_takeover, (struct blow){.first = (enum world_strike)strike, .dead_us = 4010000},
                   12);
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
            everywhere(strike_takeover, blow, 12);
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
        cmocka_unit_test(test_takeover),
        cmocka_unit_test(test_no_promise_no_takeover),
        cmocka_unit_test(test_back_from_the_dead),
        cmocka_unit_test(test_manual_only_alarms),
        cmocka_unit_test(test_takeover_is_aborted),
        cmocka_unit_test(test_source_dies_in_a_flip_back),
        cmocka_unit_test(test_given_up_undo_is_made_good),
        cmocka_unit_test(test_takeover_is_tried_again),
        cmocka_unit_test(test_the_dead_do_not_wait),
        cmocka_unit_test(test_commit_in_doubt_and_no_target),
        cmocka_unit_test(test_late_names),
        cmocka_unit_test(test_names_are_first_at_a_start),
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_decision_ends_a_stuck_flip),
        cmocka_unit_test(test_every_strike_in_the_watch),
        cmocka_unit_test(test_every_strike_in_a_takeover),
        cmocka_unit_test(test_two_strikes),
        cmocka_unit_test(test_seeded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
