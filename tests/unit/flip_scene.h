/*
 * The stage of the tests that drive the runner through its ports: the small world of tests/sim, what must
 * hold in it, and what strikes it.
 */
#ifndef SWITCHBACK_TESTS_UNIT_FLIP_SCENE_H
#define SWITCHBACK_TESTS_UNIT_FLIP_SCENE_H

#include "tests/sim/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { SETTLE_STEPS = 60000 };

static inline struct flip_options lossless(void)
{
    struct flip_options options = world_options();
    options.lossless = true;
    return options;
}

/* One at a time: each test starts it anew. */
static inline struct world *world_new(const struct flip_options *options)
{
    static struct world world;
    world_init(&world, options);
    world_start_daemon(&world);
    assert_true(world_settle(&world, SETTLE_STEPS));
    return &world;
}

static inline void must(struct world *world, bool condition, const char *what)
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

static inline void settle(struct world *world)
{
    must(world, world_settle(world, SETTLE_STEPS), "does not come to rest");
    must(world, world_is_sound(world), "is not sound");
}

static inline bool promised(const struct world *world)
{
    return world->journal_promises && flip_promise_stands(&world->runner);
}

static inline void cut_over(struct world *world)
{
    world_cutover(world);
    settle(world);
    must(world, world->outcome == FLIP_OUTCOME_DONE && world->runner.history.active == SIDE_GREEN,
         "the cutover is not done");
}

/* The active side dies for so long; steps until the runner has seen enough of it. */
static inline void kill_active(struct world *world, int64_t down_us)
{
    const enum side active = world->runner.history.active;
    world_go_down(world, active);
    world->clusters[active].up_again_us = world->now_us + down_us;
}

static inline void flip_back_by_gate(struct world *world)
{
    for (unsigned i = 0; i < SETTLE_STEPS && world->runner.history.active == SIDE_GREEN; i++) {
        if (world->running && world->runner.watch.on && !world->runner.watch.failing &&
            world->runner.mode == FLIP_MODE_STEADY) { /* a daemon that died judges its gates anew */
            world_tell(world, FLIP_EVENT_GATE_FAILED, "too many errors");
        }
        (void)world_step(world);
        must(world, true, "on the way back");
    }
    settle(world);
    must(world, world->runner.history.active == SIDE_BLUE, "it never went back");
}

static inline void rejoin_if_diverged(struct world *world)
{
    const struct world_cluster *other = &world->clusters[side_other(world->runner.history.active)];
    if (other->databases[0].standing == WORLD_DIVERGED || !other->follows) {
        world_rejoin(world);
        settle(world);
    }
}

/* What strikes a run: one thing, or a second one some actions later. */
struct blow {
    enum world_strike first, second;
    uint64_t at, later, seed;
    int64_t zombie_us; /* how late late statements are; 0: as the world has it, as below */
    int64_t down_us;   /* how long struck clusters are away */
    int64_t dead_us;   /* and the active one that dies in the watch */
};

static inline struct world *struck(const struct flip_options *options, const struct blow *blow)
{
    struct world *world = world_new(options);
    world->down_us = blow->down_us != 0 ? blow->down_us : world->down_us;
    world->seed = blow->seed;
    world->zombie_us = blow->zombie_us != 0 ? blow->zombie_us : world->zombie_us;
    return world;
}

static inline void strike_from_now(struct world *world, const struct blow *blow)
{
    world->strike = blow->first;
    world->strike_at = world->actions + blow->at;
    world->second = blow->second;
    world->second_at = blow->second == WORLD_STRIKE_NONE ? 0 : world->strike_at + blow->later;
}

/* `run` answers whether the strike came in time; it must have been so for more than `least` actions. */
static inline void strike_everywhere(bool (*run)(const struct blow *), struct blow blow, unsigned least)
{
    for (blow.at = 1; run(&blow); blow.at++) {
    }
    assert_true(blow.at > least);
}

#endif
