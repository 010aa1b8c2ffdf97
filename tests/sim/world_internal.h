/* What the files of the small world share. Included by tests/sim/world*.c only. */
#ifndef SWITCHBACK_TESTS_SIM_WORLD_INTERNAL_H
#define SWITCHBACK_TESTS_SIM_WORLD_INTERNAL_H

#include "tests/sim/world.h"

enum {
    WORLD_STEP_US = 1000,
    WORLD_DOWN_US = 3000000,
    WORLD_HANG_US = 6000000,
    WORLD_ZOMBIE_US = 20000,
    WORLD_SECOND_US = 1000000,
    WORLD_LOOK_US = 5000000,
    WORLD_WALL_US = 1000000000
};

/* --- world.c */
void world_tell_story(struct world *world, const char *what, const char *name);
void world_broke(struct world *world, const char *what);
void world_deliver(struct world *world, struct flip_event *event);

/* --- world_sampler.c */
void world_sample(struct world *world);
int64_t
world_sample_us(const struct world *world); /* when it is next to be called; INT64_MAX: not by itself */
bool world_fence_is_wrong(const struct world *world);

/* --- world_clients.c */
void world_clients_write(struct world *world);
void world_check(struct world *world);

/* --- world_clusters.c */
bool world_open_for_writes(const struct world_cluster *cluster, size_t database);
void world_replicate(struct world *world);
bool world_all_at(const struct world_cluster *cluster, uint64_t epoch);
void world_check_intent(struct world *world, const struct flip_request *request);
/* Carries out a request on the world's clusters, in `count` databases. */
bool world_carry_out(struct world *world, const struct flip_request *request, size_t count,
                     struct error *error);
void world_read_facts(const struct world *world, struct flip_facts *facts);
void world_take_ownership(struct world *world);

#endif
