/* What must hold (design.md section 2), looked at after every moment; and what must have come of it at the
 * end. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { CONTACT_WITHIN_US = 15 * SIM_SECOND, LATE_US = 2 * SIM_MS, OPERATOR_MOST_US = 3 * SIM_SECOND };

void oracle_broke(struct sim *sim, const char *format, ...)
{
    if (sim->broken[0] != '\0') {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sim->broken, sizeof sim->broken, format, arguments);
    va_end(arguments);
    SAY(sim, "ORACLE", "%s", sim->broken);
}

/* --- invariant 1: never two open sides --- */

/* A side that was away may be open until it is met again; then soon no more. */
void oracle_away(struct sim *sim, enum side side)
{
    sim->clusters[side].excused_until_us = INT64_MAX;
}

void oracle_met(struct sim *sim, enum side side)
{
    struct cluster *cluster = &sim->clusters[side];
    if (cluster->excused_until_us == INT64_MAX && network_both_ways(sim, sim->my->node, (enum node)side)) {
        cluster->excused_until_us = sim->now_us + CONTACT_WITHIN_US;
    }
}

/*
 * A side takes over alone. With --accept-loss what is missing at this moment was given up; without, what
 * stands in a table that was in no publication: the sampler breaks the promise when it sees such a table.
 */
void oracle_opened(struct sim *sim, uint64_t flip, enum side side, unsigned database)
{
    struct database *place = &sim->clusters[side].databases[database];
    if (sim->loss_accepted == flip) { /* an orphan's, too: the runner may know nothing of its flip yet */
        place->excused = place->missing;
        sim->given_up_epoch = place->now.epoch;
        sim->sequence_used[database] = 0; /* numbers of rows that are lost may come again */
        return;
    }
    if (sim->my->runner.spec.kind != FLIP_KIND_TAKEOVER) {
        return;
    }
    for (uint32_t t = 1; t < sim->transaction_count; t++) {
        const struct transaction *transaction = &sim->transactions[t];
        if (transaction->state == TRANSACTION_ACKNOWLEDGED && transaction->database == database &&
            !transaction->published && place->rows[t] == 0) {
            place->excused++;
            sim->sequence_used[database] = 0;
        }
    }
}

static void look_at_sides(struct sim *sim)
{
    for (unsigned d = 0; d < DATABASES; d++) {
        if (cluster_open_for_writes(sim, SIDE_BLUE, d) && cluster_open_for_writes(sim, SIDE_GREEN, d) &&
            sim->now_us > sim->clusters[SIDE_BLUE].excused_until_us &&
            sim->now_us > sim->clusters[SIDE_GREEN].excused_until_us) {
            oracle_broke(sim, "both sides accept writes in database %u", d);
        }
    }
}

/* --- invariant 5: holds end --- */

static void look_at_holds(struct sim *sim)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        const struct worker *worker = &sim->my->proxy.workers[i];
        if (!worker->stands || worker->refusing) {
            continue;
        }
        const int64_t end_us =
            worker->deadline_us > worker->since_us ? worker->deadline_us : worker->since_us;
        if (sim->now_us > end_us + LATE_US) {
            oracle_broke(sim, "hold %" PRIu64 " of worker %u outlived its deadline", worker->hold, i);
        }
        if (worker->deadline_us - worker->since_us > sim->options.max_hold_us + OPERATOR_MOST_US + LATE_US) {
            oracle_broke(sim, "clients are held for longer than flip.max_hold");
        }
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (sim->my->proxy.sessions[i].waits && !proxy_is_held(proxy_worker(sim, i))) {
            oracle_broke(sim, "client %u waits at an open gate", i);
        }
    }
}

void oracle_look(struct sim *sim)
{
    look_at_sides(sim);
    for (unsigned i = 0; i < sim->daemon_count; i++) {
        struct daemon *before = sim_as(sim, i);
        look_at_holds(sim);
        sim->my = before;
    }
}

/* --- invariant 4 --- */

/* Another daemon's flips come upon the clients of one that was deposed. */
bool oracle_in_charge(const struct sim *sim)
{
    bool owns = true;
    for (int s = 0; s < SIDE_COUNT && sim->daemon_count > 1; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            owns &= daemon_owns(sim, (enum side)s, d);
        }
    }
    return owns;
}

void oracle_client_error(struct sim *sim, unsigned client, const char *sqlstate)
{
    const bool fenced = sqlstate[0] == '2' && sqlstate[1] == '5' && oracle_in_charge(sim);
    if (fenced || !sim->faults.any) {
        oracle_broke(sim, "client %u sees %s%s", client,
                     sqlstate[0] != '\0' ? sqlstate : "its connection close",
                     fenced ? ": it was sent to a fenced side" : ", and nothing went wrong");
    }
}

/* --- invariant 8: intent is on disk before it is acted on --- */

void oracle_before(struct sim *sim, bool orphan, uint64_t flip, enum flip_action_kind action)
{
    bool there = true;
    switch (action) {
    case FLIP_ACTION_FENCE:
        there = journal_says(sim, orphan, flip, RECORD_INTENT, FLIP_PHASE_FENCE);
        break;
    case FLIP_ACTION_READY:
        there = journal_says(sim, orphan, flip, RECORD_INTENT, FLIP_PHASE_READY) ||
                journal_says(sim, orphan, flip, RECORD_COMMIT, FLIP_PHASE_NONE);
        break;
    case FLIP_ACTION_OPEN:
        there = journal_says(sim, orphan, flip, RECORD_COMMIT, FLIP_PHASE_NONE);
        break;
    case FLIP_ACTION_SWAP:
        there = journal_says(sim, orphan, flip, RECORD_RELEASED, FLIP_PHASE_NONE);
        break;
    case FLIP_ACTION_REOPEN_SOURCE:
        there = journal_says(sim, orphan, flip, RECORD_BACK, FLIP_PHASE_NONE);
        break;
    default:
        break;
    }
    if (!there) {
        oracle_broke(sim, "%s of flip %" PRIu64 " was done before its intent was on disk",
                     flip_action_name(action), flip);
    }
}

/* --- invariant 6: the end --- */

static bool streams_rest(const struct sim *sim)
{
    const enum side standby = side_other(sim->my->runner.history.active);
    for (unsigned d = 0; d < DATABASES; d++) {
        if (!stream_is_idle(sim, standby, d)) {
            return false;
        }
    }
    return true;
}

static bool clients_are_held(const struct sim *sim)
{
    for (unsigned i = 0; i < sim->daemon_count * WORKERS; i++) {
        if (proxy_is_held(&sim->daemons[i / WORKERS].proxy.workers[i % WORKERS])) {
            return true;
        }
    }
    return false;
}

/* Who was deposed follows when it looks again. */
static bool is_left_behind(const struct sim *sim, enum side active)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct daemon *daemon = &sim->daemons[sim->clients[i].daemon];
        const int link = daemon->proxy.sessions[i].link;
        if (daemon->deposed && link != NO_LINK && sim->links[link].side != active) {
            return true;
        }
    }
    return false;
}

/* What keeps the world from rest; NULL: nothing. */
const char *oracle_unrest(struct sim *sim)
{
    const struct flip *runner = &sim->my->runner;
    if (!sim->my->running || !sim->clusters[SIDE_BLUE].up || !sim->clusters[SIDE_GREEN].up) {
        return "something isn't up";
    }
    if (runner->mode != FLIP_MODE_STEADY) {
        return runner->mode == FLIP_MODE_UNDECIDED ? "an operator is to decide" : flip_phase_text(runner);
    }
    if (runner->await.action != FLIP_ACTION_NONE || runner->watch.probe.action != FLIP_ACTION_NONE ||
        sim->my->phase_call != 0 || sim->my->journal.queued > 0) {
        return "the runner waits for an answer";
    }
    if (clients_are_held(sim)) {
        return "clients are held";
    }
    for (unsigned i = 0; i < sim->daemon_count; i++) {
        if (&sim->daemons[i] != sim->my && !sim->daemons[i].deposed) {
            return "two daemons decide";
        }
    }
    if (!streams_rest(sim) && sim->quiet) {
        return "the stream to the standby doesn't run, or has not ended";
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (sim->clients[i].commits <= sim->commits_before[i]) {
            return "a client isn't served";
        }
        if (sim->quiet && sim->clients[i].transaction != 0) {
            return "a client is at work";
        }
    }
    if (sim->clusters[side_other(runner->history.active)].named) {
        return "names are left behind on a standby";
    }
    if (is_left_behind(sim, runner->history.active)) {
        return "a client is on the standby";
    }
    struct error error;
    return sampler_way_back_open(sim, &error) ? NULL : "the way back is closed";
}

static void look_at_catalogs(struct sim *sim, enum side active, unsigned d)
{
    const struct catalog *now = &sim->clusters[active].databases[d].now;
    const struct catalog *other = &sim->clusters[side_other(active)].databases[d].now;
    if (now->standing != STANDING_ACTIVE || now->fence || now->fenced_for != 0) {
        oracle_broke(sim, "%s/%u should be active and open", side_name(active), d);
    }
    if (now->epoch != sim->my->runner.history.epoch) {
        oracle_broke(sim, "%s/%u is at epoch %" PRIu64 ", the journal at %" PRIu64, side_name(active), d,
                     now->epoch, sim->my->runner.history.epoch);
    }
    if (other->standing != STANDING_STANDBY || !other->fence || other->epoch > now->epoch) {
        oracle_broke(sim, "%s/%u should be a fenced standby", side_name(side_other(active)), d);
    }
}

void oracle_final(struct sim *sim)
{
    const enum side active = sim->my->runner.history.active;
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct database *here = &sim->clusters[active].databases[d];
        const struct database *there = &sim->clusters[side_other(active)].databases[d];
        look_at_catalogs(sim, active, d);
        if (here->missing > here->excused) {
            oracle_broke(sim, "%" PRIu32 " acknowledged commits are missing in database %u in the end",
                         here->missing, d);
        }
        for (uint32_t t = 1; t < sim->transaction_count; t++) {
            if (here->rows[t] != there->rows[t]) {
                oracle_broke(sim, "transaction %" PRIu32 " is only on %s in the end", t,
                             side_name(here->rows[t] ? active : side_other(active)));
            }
        }
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        const int link = sim->daemons[sim->clients[i].daemon].proxy.sessions[i].link;
        if (link != NO_LINK && sim->links[link].side != active) {
            oracle_broke(sim, "client %u is on %s in the end", i, side_name(side_other(active)));
        }
    }
}
