/*
 * `struct replication` from the inside: the lanes (connections by purpose) to both sides, who owns the pair,
 * the sampler and the flip under way. Included by the files of replication/ only.
 */
#ifndef SWITCHBACK_REPLICATION_ENGINE_H
#define SWITCHBACK_REPLICATION_ENGINE_H

#include "replication/connection.h"
#include "replication/replication.h"

/* Connections by purpose, so that nothing waits behind something slow. They connect when first used. */
enum lane {
    /* of each managed database */
    LANE_WORK,   /* the flip, prepare, finalize: one procedure at a time */
    LANE_SAMPLE, /* heartbeats and standing checks */
    LANE_AUX,    /* what takes long and may: slot advance, questions */
    LANE_GATE,   /* the operator's queries */
    LANE_DATABASE_COUNT,
    /* of a side, connected to the database postgres (or a managed one where that is missing) */
    LANE_CONTROL = LANE_DATABASE_COUNT, /* ends backends, takes ownership, creates databases */
    LANE_ROLES,                         /* logins wait for it */
    LANE_COUNT
};

/* `database` is an index into settings->databases; ignored by the lanes of a side. */
struct connection *engine_lane(struct replication *replication, enum side side, enum lane lane,
                               size_t database);

const struct settings *engine_settings(const struct replication *replication);
size_t engine_database_count(const struct replication *replication);
const char *engine_database(const struct replication *replication, size_t database);
uv_loop_t *engine_loop(const struct replication *replication);
uint64_t engine_owner(const struct replication *replication); /* ours; 0 before replication_own */

/* Operations on threads of their own: prepare, check, finalize (task.h). replication_stop ends them by
 * task_list_stop and frees nothing before that has drained. */
struct task_list;
struct task_list *engine_tasks(struct replication *replication);

/* Every failed reply passes here: a higher owner than ours in it deposes this controller. */
void engine_note_reply(struct replication *replication, const struct reply *reply);

#endif
