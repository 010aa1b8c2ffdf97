/*
 * What goes wrong, and when. Each seed switches some kinds of fault on and leaves the others off, so that a
 * seed is either calm, or shows what a few of them do together. Some strike at any time; some are aimed: just
 * after the runner has asked for something.
 */
#include "tests/sim/sim.h"

#include <string.h>

static const char *const names[FAULT_COUNT] = {
    [FAULT_PROXY_CRASH] = "proxy crashes",
    [FAULT_CLUSTER_CRASH] = "cluster crashes",
    [FAULT_CUT] = "partitions",
    [FAULT_ONE_WAY] = "one-way loss",
    [FAULT_SLOW_NETWORK] = "slow network",
    [FAULT_DISK_FULL] = "disk full",
    [FAULT_DISK_SLOW] = "slow disk",
    [FAULT_STALL] = "controller stalls",
    [FAULT_WALL_CLOCK] = "clock jumps",
    [FAULT_LAG] = "lag",
    [FAULT_DOUBLE] = "doubled answers",
    [FAULT_MUTE] = "no answers",
    [FAULT_BYPASS] = "writers around the proxy",
    [FAULT_TABLE] = "new tables",
    [FAULT_PREPARED] = "prepared transactions",
    [FAULT_BAD_GREEN] = "errors on green",
    [FAULT_OPERATOR] = "operator",
};

const char *fault_name(enum fault fault)
{
    return names[fault];
}

/* --- each --- */

static void any_daemon(struct sim *sim)
{
    if (sim->daemon_count > 1) {
        (void)sim_as(sim, (unsigned)sim_between(sim, 0, DAEMONS - 1));
    }
}

static enum side any_side(struct sim *sim)
{
    return sim_chance(sim, 500) ? SIDE_BLUE : SIDE_GREEN;
}

static void start_cluster(struct sim *sim, const struct moment *moment)
{
    cluster_start(sim, (enum side)moment->who);
}

static void crash_cluster(struct sim *sim, enum side side)
{
    if (sim->clusters[side].up) {
        cluster_crash(sim, side);
        const bool long_away = sim_chance(sim, 300);
        sim_later(sim,
                  long_away ? sim_between(sim, 0, 12 * SIM_SECOND)
                            : sim_between(sim, 20 * SIM_MS, 900 * SIM_MS),
                  start_cluster, side, 0, 0);
    }
}

static void mend_cut(struct sim *sim, const struct moment *moment)
{
    network_set_cut(sim, (enum node)(moment->who / NODE_COUNT), (enum node)(moment->who % NODE_COUNT), false);
}

static void cut(struct sim *sim, bool both)
{
    const int64_t nodes = network_nodes(sim);
    const enum node from = (enum node)sim_between(sim, 0, nodes - 1);
    const enum node to = (enum node)((from + (unsigned)sim_between(sim, 1, nodes - 1)) % (unsigned)nodes);
    const int64_t for_us =
        sim_chance(sim, 300) ? sim_between(sim, 0, 15 * SIM_SECOND) : sim_between(sim, 0, 1500 * SIM_MS);
    network_set_cut(sim, from, to, true);
    sim_later(sim, for_us, mend_cut, from * NODE_COUNT + to, 0, 0);
    if (both) {
        network_set_cut(sim, to, from, true);
        sim_later(sim, for_us, mend_cut, to * NODE_COUNT + from, 0, 0);
    }
}

static void mend_network(struct sim *sim, const struct moment *moment)
{
    (void)moment;
    memset(sim->network.slow_us, 0, sizeof sim->network.slow_us);
}

static void mend_disk(struct sim *sim, const struct moment *moment)
{
    (void)moment;
    sim->my->journal.full = false;
    sim->my->journal.slow_us = 0;
}

static void mend_lag(struct sim *sim, const struct moment *moment)
{
    sim->faults.lag_us[moment->who] = 0;
}

static void mend_green(struct sim *sim, const struct moment *moment)
{
    (void)moment;
    sim->faults.bad_green = false;
}

static void add_table(struct sim *sim)
{
    const enum side active = sim->my->runner.history.active;
    const unsigned number = (unsigned)sim_between(sim, 0, DATABASES - 1);
    struct cluster *cluster = &sim->clusters[active];
    struct catalog *now = &cluster->databases[number].now;
    if (cluster->up && now->standing == STANDING_ACTIVE && !now->fence && active == SIDE_BLUE) {
        SAY(sim, "somebody", "adds a table to blue/%u", number);
        (void)cluster_append(sim, active, number, WAL_CATALOG, 0, false);
        now->managed |= 1U << TABLES;
        cluster_flush(sim, active);
    }
}

static void commit_prepared(struct sim *sim, const struct moment *moment)
{
    sim->clusters[moment->who].databases[moment->value].prepared = false;
}

static void prepare_transaction(struct sim *sim)
{
    const enum side side = any_side(sim);
    const unsigned number = (unsigned)sim_between(sim, 0, DATABASES - 1);
    if (cluster_open_for_writes(sim, side, number)) {
        sim->clusters[side].databases[number].prepared = true;
        sim_later(sim, sim_between(sim, 0, 2 * SIM_SECOND), commit_prepared, side, 0, number);
    }
}

static void strike(struct sim *sim, enum fault fault)
{
    const enum side side = any_side(sim);
    SAY(sim, "fault", "%s", names[fault]);
    switch (fault) {
    case FAULT_PROXY_CRASH:
        any_daemon(sim);
        daemon_crash(sim);
        break;
    case FAULT_CLUSTER_CRASH:
        crash_cluster(sim, side);
        break;
    case FAULT_CUT:
    case FAULT_ONE_WAY:
        cut(sim, fault == FAULT_CUT);
        break;
    case FAULT_SLOW_NETWORK:
        sim->network.slow_us[sim_between(sim, 0, network_nodes(sim) - 1)] = sim_between(sim, 0, 400 * SIM_MS);
        sim_later(sim, sim_between(sim, 0, 3 * SIM_SECOND), mend_network, 0, 0, 0);
        break;
    case FAULT_DISK_FULL:
        any_daemon(sim);
        sim->my->journal.full = true;
        sim_later(sim, sim_between(sim, 0, 4 * SIM_SECOND), mend_disk, 0, 0, 0);
        break;
    case FAULT_DISK_SLOW:
        any_daemon(sim);
        sim->my->journal.slow_us = sim_between(sim, 0, 4 * SIM_SECOND);
        sim_later(sim, sim_between(sim, 0, 4 * SIM_SECOND), mend_disk, 0, 0, 0);
        break;
    case FAULT_STALL: { /* never shortened: what waits for its end would come after what came later */
        any_daemon(sim);
        const int64_t until_us =
            sim->now_us + sim_between(sim, 0, sim_chance(sim, 200) ? 12 * SIM_SECOND : SIM_SECOND);
        sim->my->stalled_until_us =
            until_us > sim->my->stalled_until_us ? until_us : sim->my->stalled_until_us;
        break;
    }
    case FAULT_WALL_CLOCK:
        sim->wall_offset_us += sim_between(sim, -3600, 3600) * SIM_SECOND;
        break;
    case FAULT_LAG:
        sim->faults.lag_us[side] = sim_between(sim, 0, 60 * SIM_MS);
        sim_later(sim, sim_between(sim, 0, 5 * SIM_SECOND), mend_lag, side, 0, 0);
        break;
    case FAULT_TABLE:
        add_table(sim);
        break;
    case FAULT_PREPARED:
        prepare_transaction(sim);
        break;
    case FAULT_BAD_GREEN:
        sim->faults.bad_green = true;
        sim_later(sim, sim_between(sim, 0, 6 * SIM_SECOND), mend_green, 0, 0, 0);
        break;
    default:
        break;
    }
}

/* --- when --- */

static bool strikes(enum fault fault)
{
    return fault != FAULT_DOUBLE && fault != FAULT_MUTE && fault != FAULT_BYPASS && fault != FAULT_OPERATOR;
}

static bool pick(struct sim *sim, enum fault *fault)
{
    *fault = (enum fault)sim_between(sim, 0, FAULT_COUNT - 1);
    return sim->faults.on[*fault] && strikes(*fault) && !sim->faults.over;
}

static void strike_now(struct sim *sim, const struct moment *moment)
{
    if (!sim->faults.over) {
        strike(sim, (enum fault)moment->who);
    }
}

static void strike_any_time(struct sim *sim, const struct moment *moment)
{
    enum fault fault;
    (void)moment;
    if (pick(sim, &fault)) {
        strike(sim, fault);
    }
    sim_later(sim, sim_between(sim, 0, sim->faults.pause_us), strike_any_time, 0, 0, 0);
}

void faults_aim(struct sim *sim, const struct flip_request *request)
{
    enum fault fault;
    faults_aim_between(sim, request);
    if (request->ticket != 0 && sim_chance(sim, sim->faults.aims) && pick(sim, &fault)) {
        const int64_t soon_us = sim_chance(sim, 500) ? 400 : 8 * SIM_MS;
        sim_later(sim, sim_between(sim, 0, soon_us), strike_now, fault, 0, 0);
        if (sim_chance(sim, 300) && pick(sim, &fault)) { /* misfortunes come in pairs */
            sim_later(sim, sim_between(sim, 0, soon_us), strike_now, fault, 0, 0);
        }
    }
}

/* The disk took a row that it said it didn't: the interesting moment to die at. */
void faults_unseen_row(struct sim *sim)
{
    if (sim->faults.on[FAULT_PROXY_CRASH] && !sim->faults.over && sim_chance(sim, 500)) {
        sim_later(sim, sim_between(sim, 0, 60 * SIM_MS), strike_now, FAULT_PROXY_CRASH, 0, 0);
    }
}

bool faults_double(struct sim *sim)
{
    return sim->faults.on[FAULT_DOUBLE] && !sim->faults.over && sim_chance(sim, 30);
}

bool faults_mute(struct sim *sim)
{
    return sim->faults.on[FAULT_MUTE] && !sim->faults.over && sim_chance(sim, 6);
}

void faults_choose(struct sim *sim)
{
    struct faults *faults = &sim->faults;
    faults->any = sim_chance(sim, 930);
    const unsigned share = (unsigned)sim_between(sim, 100, 600);
    for (int i = 0; i < FAULT_COUNT && faults->any; i++) {
        faults->on[i] = sim_chance(sim, share);
    }
    faults->aims = faults->any ? (unsigned)sim_between(sim, 0, 300) : 0;
    faults->pause_us = sim_between(sim, 100 * SIM_MS, 4 * SIM_SECOND);
    faults_choose_aimed(sim);
}

void faults_start(struct sim *sim)
{
    if (sim->faults.any) {
        sim_later(sim, SIM_SECOND, strike_any_time, 0, 0, 0);
    }
    faults_start_aimed(sim);
}

/* The liveness phase: nothing goes wrong any more, and what was broken is mended. */
void faults_heal(struct sim *sim)
{
    SAY(sim, "fault", "all of them end");
    sim->faults.over = true;
    sim->faults.bad_green = false;
    sim->faults.lag_us[SIDE_BLUE] = sim->faults.lag_us[SIDE_GREEN] = 0;
    memset(sim->faults.lame_us, 0, sizeof sim->faults.lame_us);
    memset(sim->network.slow_us, 0, sizeof sim->network.slow_us);
    for (int from = 0; from < NODE_COUNT; from++) {
        for (int to = 0; to < NODE_COUNT; to++) {
            network_set_cut(sim, (enum node)from, (enum node)to, false);
        }
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            sim->clusters[s].databases[d].prepared = false;
        }
        cluster_start(sim, (enum side)s);
    }
    for (unsigned i = 0; i < sim->daemon_count; i++) {
        (void)sim_as(sim, i);
        mend_disk(sim, NULL);
        sim->my->stalled_until_us = 0;
        daemon_start(sim);
    }
}
