/* The proxy's clients in the small world, and what must hold after each of its steps. */
#include "tests/sim/world_internal.h"

void world_clients_write(struct world *world)
{
    if (!world->serving || world->held) {
        return;
    }
    struct world_cluster *cluster = &world->clusters[world->route];
    if (!cluster->up) {
        return; /* the client sees its server go: no fault of ours */
    }
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (cluster->databases[i].fence) {
            world->errors++;
            world_broke(world, "a client was sent to a fenced side");
            return;
        }
    }
    if (cluster->seen != world->commits) {
        world_broke(world, "an acknowledged commit is missing on the side that is served");
    }
    struct world_cluster *other = &world->clusters[side_other(world->route)];
    if (cluster->names && (!other->up || !other->follows)) { /* it waits, and isn't acknowledged */
        world->waiting_since_us = world->waiting_since_us == 0 ? world->now_us : world->waiting_since_us;
        cluster->unacknowledged = true;
        return;
    }
    world->waiting_since_us = 0;
    world->commits++;
    cluster->seen = cluster->flushed = world->commits;
    if (cluster->names) {
        other->seen = other->flushed = world->commits;
    }
}

/* What the promise's journal row means, and how long a dead standby may keep the active side waiting. */
static void check_promise(struct world *world)
{
    const struct flip *runner = &world->runner;
    const struct world_cluster *active = &world->clusters[world->route];
    if (world->journal_promises && world->serving && !world->held && active->up && !active->names) {
        world_broke(world, "the journal promises what the names do not hold");
    }
    if (world->waiting_since_us != 0 && (!world->serving || world->held || !active->up)) {
        world->waiting_since_us = 0;
    }
    if (world->waiting_since_us != 0 && world->running && runner->mode == FLIP_MODE_STEADY &&
        world->strike == WORLD_STRIKE_NONE &&
        world->now_us - world->waiting_since_us > world->options.lossless_max_wait_us + 2000000) {
        world_broke(world, "a dead standby keeps the active side waiting");
    }
}

void world_check(struct world *world)
{
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (world_open_for_writes(&world->clusters[SIDE_BLUE], i) &&
            world_open_for_writes(&world->clusters[SIDE_GREEN], i) && world->serving && !world->held) {
            /* A side that just came back is fenced on contact; until then nobody is sent there. */
            if (!world->clusters[side_other(world->route)].came_back) {
                world_broke(world, "both sides accept writes");
            }
        }
    }
    if (world->held && world->now_us > world->hold_until_us) {
        world_broke(world, "a hold outlived its deadline");
    }
    if (world->held && world->now_us - world->held_since_us > world->options.max_hold_us + WORLD_STEP_US) {
        world_broke(world, "a hold lasted longer than max_hold");
    }
    check_promise(world);
}
