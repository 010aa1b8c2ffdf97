/*
 * What the phases of one flip share: which of them runs, and which databases of the target are ready or open.
 * flip_source.c, flip_target.c and flip_turn.c are the phases.
 */
#ifndef SWITCHBACK_REPLICATION_FLIP_H
#define SWITCHBACK_REPLICATION_FLIP_H

#include "replication/procedure.h"

enum target_state { TARGET_CLOSED, TARGET_READY, TARGET_OPEN };

struct probe;

/* One phase: an operation of replication.h in flight. */
struct phase {
    struct replication *replication;
    struct replication_flip flip;
    int64_t deadline_us;
    replication_done done;
    void *context;
    char *sessions;     /* '{1,2}': backends that stay */
    bool wakes_sampler; /* the flip is over when this phase is */
    bool promise;       /* of a turn */
    bool alone;         /* ready without the source's closing marker */
    unsigned under_way; /* parts of a turn that run side by side */
    bool named;         /* by this turn */
    int64_t began_us;
    struct replication_result result; /* kept while what failed is cleaned up */
    struct phase_database {
        char *text;               /* L */
        char *leaves[SIDE_COUNT]; /* names of the tables on each side */
        uint64_t n;               /* of a marker, a flip */
        char lsn[2][REPLICATION_LSN_SIZE];
        bool committed;
        bool blocked;        /* foreign sessions stood in the way of the fence */
        bool asked;          /* the active side has told what it knows of the other */
        struct probe *probe; /* promise.h */
    } * databases;           /* by index */
};

struct flip_memory {
    struct procedure *running; /* the phase's procedure */
    struct phase *phase;
    struct phase *waiting; /* an undo that comes when the running phase has ended */
    void (*waiting_start)(struct phase *phase);
    enum target_state target[]; /* by database */
};

MUST_USE struct flip_memory *flip_memory_new(size_t databases);

struct phase *phase_new(struct replication *replication, const struct replication_flip *flip,
                        int64_t deadline_us, replication_done done, void *context);

/* Runs the steps in every database of `sides`, one phase at a time; finish is called with phase as its data.
 */
void phase_run(struct phase *phase, const char *name, unsigned sides, const struct step *steps,
               size_t step_count, void (*finish)(void *phase, const struct replication_result *result));

/* Aborts the phase that runs, if one does, and calls start when it has ended. */
void phase_take_over(struct phase *phase, void (*start)(struct phase *phase));

/* Another phase may run from now on, though this one hasn't answered. */
void phase_leave(struct phase *phase, bool wakes_sampler);

/* Tells the caller, frees the phase, lets a waiting one begin. The usual `finish`. */
void phase_finish(void *phase, const struct replication_result *result);

/* The database of a strand, in its phase. */
struct phase_database *phase_database(const struct strand *strand);
enum target_state *phase_target(const struct strand *strand);
const struct replication_flip *phase_flip(const struct strand *strand);

/* "begin; set local ...; select switchback.": how every writing request of a phase on its side begins. */
void phase_begin_sql(const struct strand *strand, struct strbuf *sql);
/* The same, waiting for a lock no longer than that. */
void phase_begin_hasty_sql(const struct strand *strand, struct strbuf *sql, int64_t lock_us);

#endif
