/*
 * Faults that are aimed at the moments flip.md's experiments struck at: between two phases, where the runner
 * trusts what it has just seen. A share of the seeds has them; the others don't notice that they exist.
 */
#include "tests/sim/sim.h"

enum { SEEDS_WITH = 4 /* one in so many */ };

void faults_choose_aimed(struct sim *sim)
{
    sim->faults.aimed = sim->faults.any && sim->seed % SEEDS_WITH == 0;
}

static bool strikes(struct sim *sim, unsigned in_a_thousand)
{
    return sim->faults.aimed && !sim->faults.over && sim_chance(sim, in_a_thousand);
}

/* --- a cluster that is away and back before anybody asks it again --- */

static void up_again(struct sim *sim, const struct moment *moment)
{
    cluster_start(sim, (enum side)moment->who);
}

static void crash(struct sim *sim, const struct moment *moment)
{
    if (!sim->faults.over && sim->clusters[moment->who].up) {
        SAY(sim, "fault", "a quick restart");
        cluster_crash(sim, (enum side)moment->who);
        sim_later(sim, moment->value, up_again, moment->who, 0, 0);
    }
}

static void mend_disk(struct sim *sim, const struct moment *moment)
{
    (void)moment;
    sim->journal.slow_us = 0;
    sim->journal.full = false;
}

/* The intent of the next phase is slow to reach the disk; meanwhile the target restarts, or the source. */
static void restart_before(struct sim *sim)
{
    const enum side target = side_other(sim->runner.spec.source);
    const enum side side = sim_chance(sim, 800) ? target : side_other(target);
    const int64_t away_us = sim_between(sim, 20 * SIM_MS, 300 * SIM_MS);
    sim->journal.slow_us = 2 * away_us;
    sim_later(sim, 2 * away_us, mend_disk, 0, 0, 0);
    sim_later(sim, sim_between(sim, 0, SIM_MS), crash, side, 0, away_us);
}

void faults_aim_between(struct sim *sim, const struct flip_request *request)
{
    const bool intent = request->kind == FLIP_ACTION_JOURNAL && request->row.kind == RECORD_INTENT;
    if (intent && strikes(sim, request->row.phase == FLIP_PHASE_READY ? 200 : 10)) {
        restart_before(sim);
    }
}
