/* Who starts flips, aborts them, holds by hand, ends the way back, and prepares again what needs it. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void start(struct sim *sim, enum flip_kind kind)
{
    struct flip_spec spec;
    struct error error;
    struct flip_event event = {.kind = FLIP_EVENT_START, .spec = &spec};
    if (!flip_may_start(&sim->my->runner, kind, side_other(sim->my->runner.history.active), &error)) {
        return;
    }
    flip_next_spec(&sim->my->runner, kind, &spec);
    (void)snprintf(spec.reason, sizeof spec.reason, "by hand");
    SAY(sim, "operator", "%s %" PRIu64 " to %s", flip_kind_name(kind), spec.id,
        side_name(side_other(spec.source)));
    ports_feed(sim, &event);
}

/* The active side doesn't answer, and nobody promised anything: go, and say what is lost. */
static void take_over(struct sim *sim)
{
    struct flip_spec spec;
    struct error error;
    struct flip_event event = {.kind = FLIP_EVENT_START, .spec = &spec};
    const enum side target = side_other(sim->my->runner.history.active);
    const bool accept_loss = sim_chance(sim, 500);
    if (!flip_side_dead(&sim->my->runner) ||
        !flip_may_take_over(&sim->my->runner, target, accept_loss, &error)) {
        return;
    }
    flip_next_spec(&sim->my->runner, FLIP_KIND_TAKEOVER, &spec);
    spec.accept_loss = accept_loss;
    (void)snprintf(spec.reason, sizeof spec.reason, "by hand");
    sim->loss_accepted = accept_loss ? spec.id : 0;
    SAY(sim, "operator", "takeover %" PRIu64 " to %s%s", spec.id, side_name(target),
        accept_loss ? ", whatever is lost" : "");
    ports_feed(sim, &event);
}

static void abort_flip(struct sim *sim)
{
    struct flip_event event = {.kind = FLIP_EVENT_ABORT};
    if (flip_may_abort(&sim->my->runner, &event.error)) {
        (void)error_set(&event.error, ERROR_ABORTED, "aborted by hand");
        SAY(sim, "operator", "aborts");
        ports_feed(sim, &event);
    }
}

/* --- prepare --- */

static bool needs_prepare(const struct sim *sim, enum side active)
{
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct catalog *from = &sim->clusters[active].databases[d].now;
        const struct catalog *to = &sim->clusters[side_other(active)].databases[d].now;
        const bool cut_off = (sim->faults.journals || sim->daemon_count > 1) &&
                             !to->subscribed; /* and no journal says so any more */
        if (cut_off || to->standing == STANDING_DIVERGED || to->managed != from->managed ||
            from->published != from->managed || to->published != from->published) {
            return true;
        }
    }
    return sim->my->runner.history.finalized;
}

/* The standby becomes a copy of the active side, and follows it from here. */
static void copy_database(struct sim *sim, enum side active, unsigned number)
{
    struct cluster *from = &sim->clusters[active];
    struct cluster *to = &sim->clusters[side_other(active)];
    struct database *source = &from->databases[number];
    struct database *copy = &to->databases[number];
    (void)cluster_append(sim, active, number, WAL_CATALOG, 0, false);
    (void)cluster_append(sim, side_other(active), number, WAL_CATALOG, 0, false);
    source->now.published = copy->now.managed = copy->now.published = source->now.managed;
    source->now.subscribed = false;
    copy->now.subscribed = true;
    copy->now.origin = from->end;
    copy->now.standing = STANDING_STANDBY;
    copy->now.epoch = source->now.epoch;
    copy->now.fenced_for = 0;
    copy->now.fence = true;
    memcpy(copy->now.markers, source->now.markers, sizeof copy->now.markers);
    memcpy(copy->rows, source->rows, sim->transaction_count);
    copy->missing = source->missing;
    copy->excused = source->excused;
    copy->sequence = source->sequence;
    source->slot = (struct slot){.confirmed = from->end, .saved = from->end};
    copy->slot = (struct slot){.confirmed = to->end, .saved = to->end};
}

bool operator_prepare(struct sim *sim)
{
    const struct flip *runner = &sim->my->runner;
    const enum side active = runner->history.active;
    const bool idle = sim->my->running && runner->mode == FLIP_MODE_STEADY && sim->my->phase_call == 0 &&
                      runner->await.action == FLIP_ACTION_NONE &&
                      runner->watch.probe.action == FLIP_ACTION_NONE && runner->history.known;
    if (!idle || !needs_prepare(sim, active) || !sim->clusters[SIDE_BLUE].up ||
        !sim->clusters[SIDE_GREEN].up || !network_both_ways(sim, sim->my->node, NODE_BLUE) ||
        !network_both_ways(sim, sim->my->node, NODE_GREEN)) {
        return false;
    }
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct catalog *now = &sim->clusters[active].databases[d].now;
        if (now->standing != STANDING_ACTIVE || now->fence || now->owner != sim->my->owner) {
            return false;
        }
    }
    SAY(sim, "operator", "prepares: %s follows %s", side_name(side_other(active)), side_name(active));
    for (unsigned d = 0; d < DATABASES; d++) {
        writers_end(sim, side_other(active), d);
        copy_database(sim, active, d);
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        cluster_flush(sim, (enum side)s);
        for (unsigned d = 0; d < DATABASES; d++) {
            stream_end(sim, (enum side)s, d);
        }
    }
    struct flip_event event = {
        .kind = FLIP_EVENT_PREPARED, .side = active, .epoch = sim->clusters[active].databases[0].now.epoch};
    ports_feed(sim, &event);
    return true;
}

/* --- what it occurs to them to do --- */

static void interfere(struct sim *sim)
{
    switch (sim_between(sim, 0, 5)) {
    case 0:
        abort_flip(sim);
        break;
    case 1:
        (void)gate_operator_holds(sim, sim_between(sim, 10 * SIM_MS, 3 * SIM_SECOND));
        break;
    case 2:
        (void)gate_operator_releases(sim);
        break;
    case 3:
        if (sim_chance(sim, 100) && sim->my->runner.mode == FLIP_MODE_STEADY) {
            struct flip_event event = {.kind = FLIP_EVENT_END_WATCH};
            SAY(sim, "operator", "ends the watch");
            ports_feed(sim, &event);
        }
        break;
    default:
        break;
    }
}

static void act(struct sim *sim, const struct moment *moment)
{
    sim_later(sim, sim_between(sim, 50 * SIM_MS, 900 * SIM_MS), act, 0, 0, 0);
    (void)moment;
    if (!sim->my->running || sim->now_us < sim->my->stalled_until_us) {
        return;
    }
    if (sim->faults.over) {
        (void)operator_prepare(sim);
        return;
    }
    if (sim->faults.on[FAULT_OPERATOR]) {
        interfere(sim);
    }
    if (sim_chance(sim, 300)) {
        (void)operator_prepare(sim);
    }
    if (sim->my->runner.mode == FLIP_MODE_STEADY && flip_side_dead(&sim->my->runner) &&
        sim_chance(sim, 400)) {
        take_over(sim);
    }
    if (sim->my->runner.mode == FLIP_MODE_STEADY && sim_chance(sim, sim->haste)) {
        const bool back = sim->my->runner.watch.on || sim_chance(sim, 300);
        start(sim, back ? FLIP_KIND_FLIP_BACK : FLIP_KIND_CUTOVER);
    }
}

void operator_start(struct sim *sim)
{
    sim_later(sim, 500 * SIM_MS, act, 0, 0, 0);
}
