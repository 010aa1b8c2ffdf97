/* How the small world begins, what operators do in it, and whether all is well at its end. */
#include "tests/sim/world.h"
#include "tests/sim/world_internal.h"

#include <string.h>

struct flip_options world_options(void)
{
    return (struct flip_options){
        .check_timeout_us = 10000000,
        .approve_timeout_us = 10000000,
        .backup_timeout_us = 10000000,
        .hook_timeout_us = 10000000,
        .arm_timeout_us = 5000000,
        .drain_timeout_us = 2000000,
        .drain_grace_us = 1000000,
        .catchup_timeout_us = 2000000,
        .max_hold_us = 8000000,
        .watch_duration_us = INT64_C(1800000000),
        .lossless_max_wait_us = 4000000,
        .dead_after_us = 3000000,
        .immovable = IMMOVABLE_DISCONNECT,
        .has_backup = true,
        .has_backup_verify = true,
        .has_hook_before = true,
        .has_hook_after = true,
        .has_hook_on_flip_back = true,
    };
}

void world_init(struct world *world, const struct flip_options *options)
{
    memset(world, 0, offsetof(struct world, rows));
    memset(&world->row_count, 0, sizeof *world - offsetof(struct world, row_count));
    world->options = *options;
    world->broken = "";
    world->down_us = WORLD_DOWN_US;
    world->zombie_us = WORLD_ZOMBIE_US;
    for (int s = 0; s < SIDE_COUNT; s++) {
        struct world_cluster *cluster = &world->clusters[s];
        cluster->up = true;
        cluster->follows = s == SIDE_GREEN;
        for (size_t i = 0; i < WORLD_DATABASES; i++) {
            cluster->databases[i] =
                (struct world_database){.epoch = 1,
                                        .standing = s == SIDE_BLUE ? WORLD_ACTIVE : WORLD_STANDBY,
                                        .fence = s == SIDE_GREEN};
        }
    }
    world->rows[world->row_count++] = (struct record){.kind = RECORD_STEADY, .side = SIDE_BLUE, .epoch = 1};
}

/* --- operators --- */

static void begin(struct world *world, enum flip_kind kind)
{
    struct flip_spec spec;
    struct flip_event event = {.kind = FLIP_EVENT_START, .spec = &spec};
    flip_next_spec(&world->runner, kind, &spec);
    world_deliver(world, &event);
}

void world_cutover(struct world *world)
{
    begin(world, FLIP_KIND_CUTOVER);
}

void world_flip_back(struct world *world)
{
    begin(world, FLIP_KIND_FLIP_BACK);
}

void world_take_over(struct world *world, bool accept_loss)
{
    struct flip_spec spec;
    struct flip_event event = {.kind = FLIP_EVENT_START, .spec = &spec};
    flip_next_spec(&world->runner, FLIP_KIND_TAKEOVER, &spec);
    spec.accept_loss = accept_loss;
    world_deliver(world, &event);
}

void world_rejoin(struct world *world)
{
    const enum side active = world->runner.history.active;
    struct world_cluster *standby = &world->clusters[side_other(active)];
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (standby->databases[i].standing == WORLD_ACTIVE) {
            world_broke(world, "a side rejoins that was not fenced");
        }
        standby->databases[i] = (struct world_database){.epoch = world->runner.history.epoch,
                                                        .standing = WORLD_STANDBY,
                                                        .aborted = standby->databases[i].aborted,
                                                        .fence = true};
    }
    standby->seen = standby->flushed = world->clusters[active].seen;
    standby->follows = true;
    standby->unacknowledged = false;
}

void world_decide(struct world *world, enum side side)
{
    struct flip_event event = {.kind = FLIP_EVENT_DECIDE, .side = side};
    world_deliver(world, &event);
}

void world_pass(struct world *world, int64_t duration_us)
{
    const int64_t until_us = world->now_us + duration_us;
    while (world->now_us < until_us && world_step(world)) {
    }
}

/* --- the end --- */

bool world_is_sound(struct world *world)
{
    const enum side active = world->runner.history.active;
    const struct world_cluster *standby = &world->clusters[side_other(active)];
    for (unsigned i = 0; i < 10; i++) {
        world_replicate(world);
        world_clients_write(world);
        world_check(world);
    }
    if (!world->serving || world->route != active) {
        world_broke(world, "clients are not served by the active side");
    }
    if (!world->told_active || world->active != active ||
        world->active_epoch != world->runner.history.epoch) {
        world_broke(world, "the sampler does not know the active side");
    }
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (world->clusters[active].databases[i].fence) {
            world_broke(world, "the active side is fenced");
        }
        if (!standby->databases[i].fence) {
            world_broke(world, "the standby is open");
        }
        if (standby->up && standby->databases[i].standing == WORLD_STANDBY &&
            standby->databases[i].epoch != world->runner.history.epoch) {
            world_broke(world, "the standby was not told of the epoch: check refuses the next flip");
        }
    }
    if (standby->names) {
        world_broke(world, "names are left on a standby");
    }
    if (world->clusters[active].names != flip_promise_stands(&world->runner)) {
        world_broke(world, "names and promise differ");
    }
    if (!world_all_at(&world->clusters[active], world->runner.history.epoch)) {
        world_broke(world, "journal and cluster name different epochs");
    }
    return world->broken[0] == '\0';
}
