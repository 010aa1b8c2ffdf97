/*
 * Faults that are aimed at the moments flip.md's experiments struck at: between two phases, where the runner
 * trusts what it has just seen. A share of the seeds has them; the others don't notice that they exist.
 */
#include "tests/sim/sim.h"

/* Of so many seeds one has these, another those. */
enum { SEEDS_WITH = 4, RESTARTS = 0, ORPHANS = 1, ENDED_WORKERS = 2, DEATHS = 3, WORLD_OF = 6 };

/* Which world a seed has is asked of its number alone, so that one more kind of world leaves the others
 * alone. */
enum world { WORLD_SECOND = 1, WORLD_JOURNALS, WORLD_LEFT, WORLD_ONE_SIDED };

static bool has(const struct sim *sim, enum world world)
{
    uint64_t mixed = (sim->seed * 31 + (uint64_t)world) * UINT64_C(0x9e3779b97f4a7c15);
    mixed ^= mixed >> 32;
    return sim->faults.any && mixed * UINT64_C(0xd6e8feb86659fd93) >> 32 < UINT32_MAX / WORLD_OF;
}

void faults_choose_aimed(struct sim *sim)
{
    sim->faults.restarts = sim->faults.any && sim->seed % SEEDS_WITH == RESTARTS;
    sim->faults.orphans = sim->faults.any && sim->seed % SEEDS_WITH == ORPHANS;
    sim->faults.workers = sim->faults.any && sim->seed % SEEDS_WITH == ENDED_WORKERS;
    sim->faults.deaths = sim->faults.any && sim->seed % SEEDS_WITH == DEATHS;
    sim->faults.second = has(sim, WORLD_SECOND);
    sim->faults.journals = has(sim, WORLD_JOURNALS);
    sim->faults.left = has(sim, WORLD_LEFT);
    sim->faults.one_sided = has(sim, WORLD_ONE_SIDED);
}

static bool strikes(struct sim *sim, bool has, unsigned in_a_thousand)
{
    return has && !sim->faults.over && sim_chance(sim, in_a_thousand);
}

/* --- what a daemon that died finds at its next start --- */

/* What a takeover that was cut short has disabled, only its journal can tell from what never was enabled: it
 * is an operator's decision then (prepare), and no rest that a daemon comes to by itself. */
static bool knows_of_a_takeover(const struct flip_history *history)
{
    return history->detached != 0 ||
           (flip_story_running(&history->flip) && history->flip.kind == FLIP_KIND_TAKEOVER);
}

static void restore_journal(struct sim *sim)
{
    if (knows_of_a_takeover(&sim->my->runner.history)) {
        return;
    }
    const bool all = sim_chance(sim, 500);
    journal_restore(sim, all ? 0 : (uint32_t)sim_between(sim, 0, sim->my->journal.count));
}

static void cut_off(struct sim *sim, enum node node, enum side side, bool cut)
{
    network_set_cut(sim, node, (enum node)side, cut);
    network_set_cut(sim, (enum node)side, node, cut);
}

static void mend_cut(struct sim *sim, const struct moment *moment)
{
    cut_off(sim, (enum node)moment->value, (enum side)moment->who, false);
}

/* Its own earlier number may stand on a side that it reaches only later, and be higher than its new one. */
static void start_with_one_side(struct sim *sim)
{
    const enum side side = sim_chance(sim, 500) ? SIDE_BLUE : SIDE_GREEN;
    SAY(sim, "fault", "it starts without %s, by a clock that went back", side_name(side));
    sim->wall_offset_us -= sim_between(sim, 0, 60) * SIM_SECOND;
    cut_off(sim, sim->my->node, side, true);
    sim_later(sim, sim_between(sim, 0, 6 * SIM_SECOND), mend_cut, side, 0, (int64_t)sim->my->node);
    if (sim_chance(sim, 500)) {
        restore_journal(sim);
    }
}

/* state.dir is gone, or a copy was restored; a side is out of reach. */
void faults_before_start(struct sim *sim)
{
    if (strikes(sim, sim->faults.journals, 300)) {
        restore_journal(sim);
    }
    if (strikes(sim, sim->faults.one_sided, 500)) {
        start_with_one_side(sim);
    }
}

/* --- a cluster that is away and back before anybody asks it again --- */

static void up_again(struct sim *sim, const struct moment *moment)
{
    cluster_start(sim, (enum side)moment->who);
}

static void crash(struct sim *sim, const struct moment *moment)
{
    if (!sim->faults.over && sim->clusters[moment->who].up) {
        SAY(sim, "fault", "a restart");
        cluster_crash(sim, (enum side)moment->who);
        sim_later(sim, moment->value, up_again, moment->who, 0, 0);
    }
}

static void mend_disk(struct sim *sim, const struct moment *moment)
{
    (void)moment;
    sim->my->journal.slow_us = 0;
    sim->my->journal.full = false;
}

/* The intent of the next phase is slow to reach the disk; meanwhile the target restarts, or the source. */
static void restart_before(struct sim *sim)
{
    const enum side target = side_other(sim->my->runner.spec.source);
    const enum side side = sim_chance(sim, 800) ? target : side_other(target);
    const int64_t away_us = sim_between(sim, 20 * SIM_MS, 300 * SIM_MS);
    sim->my->journal.slow_us = 2 * away_us;
    sim_later(sim, 2 * away_us, mend_disk, 0, 0, 0);
    sim_later(sim, sim_between(sim, 0, SIM_MS), crash, side, 0, away_us);
}

/* --- an apply worker that starts again, before the WAL writer's next turn --- */

enum { WORKER_PAUSE_US = 3 * SIM_SECOND, UNFLUSHED_US = 300 * SIM_MS };

static void end_worker(struct sim *sim, const struct moment *moment)
{
    const enum side side = sim_chance(sim, 500) ? SIDE_BLUE : SIDE_GREEN;
    const unsigned database = (unsigned)sim_between(sim, 0, DATABASES - 1);
    if (!sim->faults.over && stream_runs(sim, side, database)) {
        SAY(sim, "fault", "the apply worker of %s/%u ends", side_name(side), database);
        stream_end(sim, side, database);
        if (sim_chance(sim, 300)) { /* what it had applied may not be on the disk */
            sim_later(sim, sim_between(sim, 0, UNFLUSHED_US), crash, side, 0,
                      sim_between(sim, 20 * SIM_MS, 300 * SIM_MS));
        }
    }
    sim_later(sim, sim_between(sim, 0, WORKER_PAUSE_US), end_worker, moment->who, 0, 0);
}

/* --- the death of an active side, while one database of the other is behind --- */

enum { LAME_US = 200 * SIM_MS, DEATH_PAUSE_US = 6 * SIM_SECOND };

static void mend_apply(struct sim *sim, const struct moment *moment)
{
    sim->faults.lame_us[moment->who / DATABASES][moment->who % DATABASES] = 0;
}

static void let_die(struct sim *sim, const struct moment *moment)
{
    const enum side active = sim->my->runner.history.active;
    const unsigned behind =
        (unsigned)side_other(active) * DATABASES + (unsigned)sim_between(sim, 0, DATABASES - 1);
    if (!sim->faults.over && flip_promise_stands(&sim->my->runner) && sim->clusters[active].up) {
        sim->faults.lame_us[behind / DATABASES][behind % DATABASES] = sim_between(sim, 0, LAME_US);
        sim_later(sim, 3 * LAME_US, mend_apply, behind, 0, 0);
        sim_later(sim, sim_between(sim, 0, 2 * LAME_US), crash, active, 0,
                  sim_between(sim, 100 * SIM_MS, 12 * SIM_SECOND));
    }
    sim_later(sim, sim_between(sim, 0, DEATH_PAUSE_US), let_die, moment->who, 0, 0);
}

void faults_start_aimed(struct sim *sim)
{
    if (sim->faults.workers) {
        sim_later(sim, SIM_SECOND, end_worker, 0, 0, 0);
    }
    if (sim->faults.deaths) {
        sim_later(sim, SIM_SECOND, let_die, 0, 0, 0);
    }
}

/* --- a statement that outlives its controller --- */

static void die(struct sim *sim, const struct moment *moment)
{
    (void)moment;
    if (!sim->faults.over) {
        daemon_crash(sim);
    }
}

/*
 * The commit row can't be written, but is there; the undo that follows lies in the socket of a backend of the
 * source that stands still, and the controller dies. The next one finds the commit, and the fence.
 */
static void orphan_an_undo(struct sim *sim)
{
    const enum side source = sim->my->runner.spec.source;
    sim->my->journal.full = true;
    sim_later(sim, sim_between(sim, 3 * SIM_MS, 30 * SIM_MS), mend_disk, 0, 0, 0);
    sim->faults.still_connection[source] = sim->my->connected[source] ? sim->my->connection[source] : 0;
    sim->faults.still_until_us[source] = sim->now_us + sim_between(sim, 20 * SIM_MS, 400 * SIM_MS);
    sim_later(sim, sim_between(sim, 3 * SIM_MS, 30 * SIM_MS), die, 0, 0, 0);
}

/* The fence lies in the socket of a backend that stands still, until it is given up and undone. */
static void delay_the_fence(struct sim *sim)
{
    const enum side source = sim->my->runner.spec.source;
    sim->faults.still_connection[source] = sim->my->connected[source] ? sim->my->connection[source] : 0;
    sim->faults.still_until_us[source] = sim->now_us + sim_between(sim, 2 * SIM_SECOND, 5 * SIM_SECOND);
}

/* The backend begins with what it was sent so much later. */
int64_t faults_stand_still(const struct sim *sim, enum side side, uint64_t connection)
{
    const bool still = connection != 0 && sim->faults.still_connection[side] == connection &&
                       sim->faults.still_until_us[side] > sim->now_us;
    return still ? sim->faults.still_until_us[side] - sim->now_us : 0;
}

enum { LEFT_DEAD_MOST_US = 9 * SIM_SECOND, LEFT_DIES_MOST_US = 3 * SIM_MS };

/*
 * The source of a flip-back dies behind its fence, so that a takeover follows; the daemon dies before that
 * has begun, or has touched anything: the fence is still there when the side comes back, and the journal says
 * that it is the active one.
 */
static void leave_a_fence(struct sim *sim, const struct flip_request *request)
{
    const struct flip_spec *spec = &sim->my->runner.spec;
    if (request->kind == FLIP_ACTION_CATCHUP && spec->kind == FLIP_KIND_FLIP_BACK &&
        strikes(sim, sim->faults.left, 500)) {
        sim_later(sim, 0, crash, spec->source, 0, sim_between(sim, 3 * SIM_SECOND, LEFT_DEAD_MOST_US));
    }
    if (request->kind == FLIP_ACTION_FINISHED && request->error.code == ERROR_SIDE_DEAD &&
        strikes(sim, sim->faults.left, 700)) {
        sim_later(sim, sim_between(sim, 0, LEFT_DIES_MOST_US), die, 0, 0, 0);
    }
}

void faults_aim_between(struct sim *sim, const struct flip_request *request)
{
    leave_a_fence(sim, request);
    if (request->kind == FLIP_ACTION_JOURNAL_COMMIT && strikes(sim, sim->faults.orphans, 300)) {
        orphan_an_undo(sim);
    }
    if (request->kind == FLIP_ACTION_FENCE && strikes(sim, sim->faults.orphans, 60)) {
        delay_the_fence(sim);
    }
    const bool intent = request->kind == FLIP_ACTION_JOURNAL && request->row.kind == RECORD_INTENT;
    if (intent && strikes(sim, sim->faults.restarts, request->row.phase == FLIP_PHASE_READY ? 200 : 10)) {
        restart_before(sim);
    }
}
