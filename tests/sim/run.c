/* One seed: a safety phase in which things go wrong, then a liveness phase in which all must come to rest. */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <string.h>

enum {
    TRANSACTIONS = 1 << 14,
    WAL = 1 << 12,
    SAFETY_US = 25 * SIM_SECOND,
    LIVENESS_US = 240 * SIM_SECOND,
    REST_US = 100 * SIM_MS,
    MOMENTS_MOST = 2000000 /* some hundred times as many as a seed needs */
};

struct sim *sim_new(void)
{
    struct sim *sim = calloc(1, sizeof *sim);
    ENSURE(sim != NULL);
    sim->transaction_size = TRANSACTIONS;
    sim->transactions = calloc(TRANSACTIONS, sizeof *sim->transactions);
    ENSURE(sim->transactions != NULL);
    for (int s = 0; s < SIDE_COUNT; s++) {
        sim->clusters[s].wal_size = WAL;
        sim->clusters[s].wal = calloc(WAL, sizeof *sim->clusters[s].wal);
        ENSURE(sim->clusters[s].wal != NULL);
        for (unsigned d = 0; d < DATABASES; d++) {
            sim->clusters[s].databases[d].rows = calloc(TRANSACTIONS, 1);
            ENSURE(sim->clusters[s].databases[d].rows != NULL);
        }
    }
    return sim;
}

void sim_free(struct sim *sim)
{
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            free(sim->clusters[s].databases[d].rows);
        }
        free(sim->clusters[s].wal);
    }
    for (unsigned i = 0; i < DAEMONS; i++) {
        free(sim->daemons[i].journal.rows);
        free(sim->daemons[i].journal.lost);
        free(sim->daemons[i].journal.owners);
    }
    free(sim->transactions);
    free(sim->moments);
    free(sim);
}

/* Everything but what is allocated starts anew. */
static void reset(struct sim *sim, uint64_t seed, bool telling)
{
    struct sim kept = *sim;
    memset(sim, 0, sizeof *sim);
    sim->moments = kept.moments;
    sim->moment_size = kept.moment_size;
    sim->transactions = kept.transactions;
    sim->transaction_size = kept.transaction_size;
    sim->transaction_count = 1; /* 0 is none */
    for (unsigned i = 0; i < DAEMONS; i++) {
        sim->daemons[i].journal.rows = kept.daemons[i].journal.rows;
        sim->daemons[i].journal.size = kept.daemons[i].journal.size;
        sim->daemons[i].journal.owners = kept.daemons[i].journal.owners;
        sim->daemons[i].journal.owners_size = kept.daemons[i].journal.owners_size;
        sim->daemons[i].journal.lost = kept.daemons[i].journal.lost;
        sim->daemons[i].journal.lost_size = kept.daemons[i].journal.lost_size;
        sim->daemons[i].node = (enum node)(NODE_PROXY + i);
    }
    sim->my = &sim->daemons[0];
    sim->daemon_count = 1;
    sim->figures = kept.figures;
    for (int s = 0; s < SIDE_COUNT; s++) {
        sim->clusters[s].wal = kept.clusters[s].wal;
        sim->clusters[s].wal_size = kept.clusters[s].wal_size;
        for (unsigned d = 0; d < DATABASES; d++) {
            sim->clusters[s].databases[d].rows = kept.clusters[s].databases[d].rows;
        }
    }
    sim->seed = sim->state = seed;
    sim->telling = telling;
}

struct daemon *sim_as(struct sim *sim, unsigned daemon)
{
    struct daemon *before = sim->my;
    sim->my = &sim->daemons[daemon];
    return before;
}

static void choose_options(struct sim *sim)
{
    const bool calm = !sim->faults.any;
    struct flip_options *options = &sim->options;
    *options = (struct flip_options){
        .check_timeout_us = 5 * SIM_SECOND,
        .approve_timeout_us = 5 * SIM_SECOND,
        .backup_timeout_us = 5 * SIM_SECOND,
        .hook_timeout_us = 5 * SIM_SECOND,
        .arm_timeout_us = 3 * SIM_SECOND,
        .drain_timeout_us = calm ? 3 * SIM_SECOND : sim_between(sim, 100 * SIM_MS, 2 * SIM_SECOND),
        .drain_grace_us = sim_between(sim, 50 * SIM_MS, SIM_SECOND),
        .catchup_timeout_us = sim_between(sim, SIM_SECOND, 3 * SIM_SECOND),
        .watch_duration_us = sim_between(sim, SIM_SECOND, 15 * SIM_SECOND),
        .dead_after_us = sim_between(sim, SIM_SECOND, 3 * SIM_SECOND),
        .lossless = sim_chance(sim, 600),
        .lossless_max_wait_us = sim_between(sim, SIM_SECOND, 4 * SIM_SECOND),
        .drain_on_timeout =
            calm ? DRAIN_ABORT : (enum drain_policy)sim_between(sim, DRAIN_ABORT, DRAIN_TERMINATE),
        .immovable = IMMOVABLE_DISCONNECT,
        .watch_flip_back = sim_chance(sim, 900) ? FLIP_BACK_AUTO : FLIP_BACK_MANUAL,
        .has_backup = sim_chance(sim, 200),
        .has_backup_verify = sim_chance(sim, 200),
        .has_hook_before = sim_chance(sim, 200),
        .has_hook_after = sim_chance(sim, 200),
        .has_hook_on_flip_back = sim_chance(sim, 200),
    };
    options->max_hold_us = options->drain_timeout_us + options->catchup_timeout_us + 2 * SIM_SECOND;
}

/* Its journal is empty: what it knows it has from the clusters. */
static void start_second(struct sim *sim, const struct moment *moment)
{
    (void)moment;
    operator_start(sim);
    daemon_start(sim);
}

static void begin(struct sim *sim)
{
    faults_choose(sim);
    sim->haste = sim_chance(sim, 500) ? 700 : 100; /* else flips are watched for long */
    choose_options(sim);
    for (int i = 0; i < FAULT_COUNT; i++) {
        if (sim->faults.on[i]) {
            SAY(sim, "seed", "with %s", fault_name((enum fault)i));
        }
    }
    cluster_begin(sim);
    sim_later(sim, SIM_MS, stream_heartbeat, 0, 0, 0);
    const struct record first = {.kind = RECORD_STEADY, .side = SIDE_BLUE, .epoch = 1};
    journal_begin(sim, &first);
    client_start(sim);
    writers_start(sim);
    operator_start(sim);
    faults_start(sim);
    daemon_start(sim);
    if (sim->faults.second) {
        sim->daemon_count = DAEMONS;
        sim->my = &sim->daemons[1];
        sim_later(sim, sim_between(sim, 0, SAFETY_US * 2 / 3), start_second, 0, 0, 0);
    }
}

/* Until then, or until something breaks. */
static void run_until(struct sim *sim, int64_t until_us)
{
    struct moment moment;
    while (sim->broken[0] == '\0' && sim->moment_count > 0 && sim->moments[0].at_us <= until_us &&
           sim_next(sim, &moment)) {
        sim->now_us = moment.at_us;
        sim->figures.moments++;
        sim->my = &sim->daemons[moment.daemon];
        if (++sim->moments_run > MOMENTS_MOST) {
            oracle_broke(sim, "it goes round in circles");
        }
        moment.happen(sim, &moment);
        oracle_look(sim);
    }
}

/* Whose pair it is in the end. */
static void choose_daemon(struct sim *sim)
{
    sim->my = &sim->daemons[0];
    for (unsigned i = 0; i < sim->daemon_count; i++) {
        if (sim->daemons[i].running && !sim->daemons[i].deposed) {
            sim->my = &sim->daemons[i];
        }
    }
}

static bool run_to_rest(struct sim *sim, int64_t until_us)
{
    while (sim->broken[0] == '\0' && sim->now_us < until_us) {
        choose_daemon(sim);
        if (oracle_unrest(sim) == NULL) {
            return true;
        }
        run_until(sim, sim->now_us + REST_US);
        sim->now_us += sim->moment_count == 0 ? REST_US : 0;
    }
    choose_daemon(sim);
    const char *unrest = oracle_unrest(sim);
    if (unrest != NULL) {
        oracle_broke(sim, "it doesn't come to rest: %s", unrest);
    }
    return false;
}

const char *sim_run(struct sim *sim, uint64_t seed, bool telling)
{
    reset(sim, seed, telling);
    sim->figures.seeds++;
    begin(sim);
    run_until(sim, SAFETY_US);
    faults_heal(sim);
    for (unsigned i = 0; i < CLIENTS; i++) {
        sim->commits_before[i] = sim->clients[i].commits;
    }
    if (run_to_rest(sim, SAFETY_US + LIVENESS_US)) {
        SAY(sim, "seed", "all is at rest; the clients stop");
        sim->quiet = true;
        if (run_to_rest(sim, SAFETY_US + 2 * (int64_t)LIVENESS_US)) {
            oracle_final(sim);
        }
    }
    return sim->broken[0] != '\0' ? sim->broken : NULL;
}
