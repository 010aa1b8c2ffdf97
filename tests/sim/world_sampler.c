/* What the daemon's sampler tells the runner about once a second. */
#include "tests/sim/world_internal.h"

static bool something_to_tell(const struct world *world)
{
    const struct flip *runner = &world->runner;
    return world->running && runner->history.known &&
           (!world->clusters[runner->history.active].up || runner->watch.on || runner->history.promise);
}

/* A fence that contradicts its side's standing: the sampler sees it, and has it looked at. */
bool world_fence_is_wrong(const struct world *world)
{
    const enum side active = world->runner.history.active;
    bool wrong = false;
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        wrong |= world->clusters[active].up && world->clusters[active].databases[i].fence;
        wrong |=
            world->clusters[side_other(active)].up && !world->clusters[side_other(active)].databases[i].fence;
    }
    return wrong && world->running && world->runner.mode == FLIP_MODE_STEADY;
}

static void tell_wrong(struct world *world)
{
    struct flip_event event = {.kind = FLIP_EVENT_CONTACT};
    if (world_fence_is_wrong(world) && world->now_us >= world->looked_us + WORLD_LOOK_US) {
        world->looked_us = world->now_us;
        world_deliver(world, &event);
    }
}

void world_sample(struct world *world)
{
    const struct flip *runner = &world->runner;
    tell_wrong(world);
    if (!something_to_tell(world) || world->now_us < world->told_us + WORLD_SECOND_US) {
        return;
    }
    const struct world_cluster *active = &world->clusters[runner->history.active];
    const struct world_cluster *other = &world->clusters[side_other(runner->history.active)];
    struct flip_event event = {.kind = FLIP_EVENT_STREAM, .side = runner->history.active};
    world->told_us = world->now_us;
    if (active->up) {
        event.open = other->up && other->follows && !world->way_back_dead;
        error_set(&event.error, ERROR_UNREACHABLE, "the standby is gone");
        world_deliver(world, &event);
    } else if (world->now_us - active->down_since_us >= world->options.dead_after_us) {
        event.kind = FLIP_EVENT_SIDE_DEAD;
        error_set(&event.error, ERROR_UNREACHABLE, "the active side does not answer");
        world_deliver(world, &event);
    }
}

int64_t world_sample_us(const struct world *world)
{
    int64_t at_us = INT64_MAX;
    if (something_to_tell(world)) {
        at_us = world->told_us + WORLD_SECOND_US;
    }
    if (world_fence_is_wrong(world) && world->looked_us + WORLD_LOOK_US < at_us) {
        at_us = world->looked_us + WORLD_LOOK_US;
    }
    return at_us;
}
