/*
 * `struct replication` from the inside: the lanes (connections by purpose) to both sides, who owns the pair,
 * the sampler and the flip under way. Included by the files of replication/ only.
 */
#ifndef SWITCHBACK_REPLICATION_ENGINE_H
#define SWITCHBACK_REPLICATION_ENGINE_H

#include "replication/connection.h"
#include "replication/replication.h"
#include "replication/task.h"

/* Connections by purpose, so that nothing waits behind something slow. They connect when first used. */
enum lane {
    /* of each managed database */
    LANE_WORK,   /* the flip, prepare, finalize: one procedure at a time */
    LANE_SAMPLE, /* heartbeats and standing checks */
    LANE_AUX,    /* what takes long and may: slot advance, questions */
    LANE_GATE,   /* the operator's queries */
    LANE_PROBE,  /* a commit that waits for the other side */
    LANE_ANEW,   /* connects each time: is the side silent, or only a connection? (sampler_anew.c) */
    LANE_DATABASE_COUNT,
    /* of a side, connected to the database postgres (or a managed one where that is missing) */
    LANE_CONTROL = LANE_DATABASE_COUNT, /* ends backends, takes ownership, creates databases */
    LANE_ROLES,                         /* logins wait for it */
    LANE_COUNT
};

/* `database` is an index into settings->databases; ignored by the lanes of a side. */
struct sampler;
struct owning;
struct procedure;

struct replication {
    uv_loop_t *loop;
    const struct settings *settings;
    struct replication_callbacks callbacks;
    size_t database_count;
    struct connection **lanes[SIDE_COUNT][LANE_COUNT]; /* by database; lanes of a side have one */
    uint64_t owner;
    bool owned[SIDE_COUNT]; /* since it began, it has raised its number there */
    bool settled;           /* a side was said to be the active one: the start is over */
    bool deposed;
    struct replication_identity identity;
    bool identity_told;
    struct owning *choosing;  /* whose number is being remembered, the first one first (own.c) */
    bool foreign[SIDE_COUNT]; /* what answered there last is none of the pair's (identity.h) */
    bool owning;              /* replication_own is under way */
    uint64_t
        names_asked[SIDE_COUNT];  /* the last replication_names: an earlier one changes nothing any more */
    bool names_ahead[SIDE_COUNT]; /* of a standby, by the last replication_names_ahead or _names */
    struct sampler *sampler;
    struct procedure *procedures; /* all that run */
    struct flip_memory *flip;     /* of the flip under way (flip.h) */
    struct task_list tasks;
    bool stopping;
    size_t open_parts; /* connections, procedures, sampler, tasks: freed when none is left */
    void (*stopped)(void *context);
    void *stopped_context;
};

struct connection *engine_lane(struct replication *replication, enum side side, enum lane lane,
                               size_t database);

/* The settings were replaced: connections made from now on log in as they say. */
void engine_set_logins(struct replication *replication);

/* The side's old connections have died without a word, new ones work: what nobody uses, or what others wait
 * for, is opened again. What else is under way ends by its own deadline. */
void engine_renew(struct replication *replication, enum side side);

const struct settings *engine_settings(const struct replication *replication);
size_t engine_database_count(const struct replication *replication);
const char *engine_database(const struct replication *replication, size_t database);
uv_loop_t *engine_loop(const struct replication *replication);
uint64_t engine_owner(const struct replication *replication); /* ours; 0 before replication_own */

/* Operations on threads of their own: prepare, check, finalize (task.h). replication_stop ends them by
 * task_list_stop and frees nothing before that has drained. */
struct task_list *engine_tasks(struct replication *replication);

/* A part (connection, procedure, sampler) of a stopping engine is gone. */
void engine_part_closed(struct replication *replication);

/* Every failed reply passes here: a higher owner than ours in it deposes this controller. */
void engine_note_reply(struct replication *replication, enum side side, const struct reply *reply);
void engine_note_owner(struct replication *replication, enum side side, uint64_t owner);
/* A higher number on that side is another's who came after us. Else the start isn't over and has not been
 * there before: it takes over from whoever was (own.c). */
bool engine_is_deposed_by(const struct replication *replication, enum side side, uint64_t owner);

#endif
