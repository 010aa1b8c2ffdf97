/*
 * The simulator: the runner, the recovery, the journal's logic, the hold ledger and the gates, nothing of
 * them left out, in a world that is made of one seed. Everything that happens is a moment on one clock; the
 * world's faults are moments too. What the world does follows PostgreSQL as far as a flip can feel it, and
 * the procedures of replication/ and schema_flip.sql step by step; an oracle looks at it after every moment.
 *
 *   main.c      seeds, processes, the report
 *   run.c       one seed: the safety phase, then the liveness phase
 *   clock.c     moments, chance, the trace
 *   network.c   who reaches whom: cuts, one-way loss, delay, messages that come late
 *   cluster.c   WAL, flush, crash, backends with transactions, locks
 *   stream.c    walsender and apply worker of each database
 *   schema.c    what the functions of the schema `switchback` do in one database
 *   call.c      procedures of the controller: statements, lost replies, orphans, ownership
 *   ports.c     what the runner asks for; scripts.c: each as its statements
 *   journal.c   the disk; a journal that is lost, or an older copy
 *   daemon.h    what one daemon has of all this: there may be a second one for the same pair
 *   proxy.c     workers, sessions; gate.c: holds; client.c: who uses them, and who goes around
 *   sampler.c   heartbeats, lag, gates, contact
 *   operator.c  who starts, aborts, holds, prepares
 *   faults.c    what goes wrong, and when; faults_aimed.c: at which moment
 *   oracle.c    what must hold
 */
#ifndef SWITCHBACK_TESTS_SIM_SIM_H
#define SWITCHBACK_TESTS_SIM_SIM_H

#include "control/flip/runner.h"
#include "tests/sim/call.h"
#include "tests/sim/client.h"
#include "tests/sim/clock.h"
#include "tests/sim/cluster.h"
#include "tests/sim/daemon.h"
#include "tests/sim/faults.h"
#include "tests/sim/network.h"
#include "tests/sim/proxy.h"
#include "tests/sim/schema.h"

/* --- operator.c */

void operator_start(struct sim *sim);
bool operator_prepare(struct sim *sim);

/* --- oracle.c */

void oracle_broke(struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);
void oracle_look(struct sim *sim);
/* Invariant 8; `orphan`: done by a statement that outlived its daemon. */
void oracle_before(struct sim *sim, bool orphan, uint64_t flip, enum flip_action_kind action);
void oracle_client_error(struct sim *sim, unsigned client, const char *sqlstate);
bool oracle_in_charge(const struct sim *sim); /* both sides' owner is this daemon */
void oracle_away(struct sim *sim, enum side side);
void oracle_opened(struct sim *sim, uint64_t flip, enum side side, unsigned database);
void oracle_met(struct sim *sim, enum side side);
const char *oracle_unrest(struct sim *sim);
void oracle_final(struct sim *sim);

/* --- all of it */

struct sim_figures {
    uint64_t seeds, flips, done, aborted, refused, automatic, alarms, transactions, acknowledged, crashes,
        moments;
};

struct sim {
    uint64_t seed, state;
    int64_t now_us, wall_offset_us;
    uint64_t order, life;
    struct moment *moments; /* a heap */
    size_t moment_count, moment_size;
    uint64_t moments_run;
    bool telling;
    char broken[256]; /* the first invariant that broke; "" */

    struct network network;
    struct cluster clusters[SIDE_COUNT];

    /* One daemon, or two for the same pair. What happens is one's: a moment belongs to who brought it about.
     */
    struct daemon daemons[DAEMONS];
    struct daemon *my;
    unsigned daemon_count;
    struct flip_options options;
    uint64_t connections;
    struct client clients[CLIENTS];
    struct writer writers[WRITERS];
    struct link links[LINKS];
    struct transaction *transactions;
    uint32_t transaction_count, transaction_size;
    int64_t sequence_used[DATABASES];

    struct faults faults;
    unsigned haste;         /* of the operator, in a thousand */
    uint64_t loss_accepted; /* by an operator, in this flip */
    uint64_t given_up_epoch;
    bool strayed;      /* someone wrote, around the proxy, where nobody may count on it */
    enum side settled; /* as the journal on disk has it */
    uint64_t settled_epoch, settled_last;
    uint64_t commits_before[CLIENTS]; /* the liveness phase */
    bool quiet;                       /* nobody begins anything any more */
    struct sim_figures figures;
};

/* From here on it is that daemon's doing. Returns whose it was. */
struct daemon *sim_as(struct sim *sim, unsigned daemon);

/* One seed, from beginning to end: NULL, or what broke (valid until the next run). */
const char *sim_run(struct sim *sim, uint64_t seed, bool telling);
struct sim *sim_new(void);
void sim_free(struct sim *sim);

/* What was told is kept: its last lines are printed when a seed fails. */
void sim_print_story(size_t lines);

#endif
