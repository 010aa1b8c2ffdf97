/* The runner in its world: what it asks for goes out, what happened comes in; its life and its death. */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <string.h>

enum { ANSWER_MOST_US = 200, LOCAL_MOST_US = 3 * SIM_MS, FAILS_IN_1000 = 10 };

/* --- events --- */

static void check_runner(struct sim *sim, enum flip_mode before)
{
    if (sim->my->runner.mode != before && sim->my->runner.mode == FLIP_MODE_UNDECIDED) {
        SAY(sim, "runner", "UNDECIDED: %s", sim->my->runner.why.message);
    }
}

void ports_feed(struct sim *sim, struct flip_event *event)
{
    if (!sim->my->running) {
        return;
    }
    const enum flip_mode mode = sim->my->runner.mode;
    event->now_us = sim->now_us;
    event->wall_us = sim_wall_us(sim);
    event->options = &sim->options;
    sim->my->feeding = true;
    flip_step(&sim->my->runner, event);
    sim->my->feeding = false;
    check_runner(sim, mode);
    ports_wake(sim);
}

static struct answer_slot *slot_of(struct sim *sim, const struct moment *moment)
{
    struct answer_slot *slot = &sim->my->answers[moment->who];
    return slot->used && slot->life == moment->life && sim->my->running ? slot : NULL;
}

static void deliver(struct sim *sim, const struct moment *moment)
{
    struct answer_slot *slot = slot_of(sim, moment);
    if (slot == NULL) {
        return;
    }
    if (sim->now_us < sim->my->stalled_until_us) {
        sim_later(sim, sim->my->stalled_until_us - sim->now_us, deliver, moment->who, moment->life,
                  moment->value);
        return;
    }
    struct flip_event event = slot->event;
    struct flip_facts facts = slot->facts;
    if (event.kind == FLIP_EVENT_FACTS) {
        event.facts = &facts;
    }
    slot->used = slot->again;
    slot->again = false;
    if (slot->used) {
        sim_later(sim, sim_between(sim, 0, 2 * SIM_SECOND), deliver, moment->who, moment->life, 0);
    }
    ports_feed(sim, &event);
}

/* The controller's loop brings it to the runner soon; twice or never where a fault says so. */
static void post(struct sim *sim, const struct flip_event *event, const struct flip_facts *facts)
{
    struct answer_slot *slot = sim->my->answers;
    while (slot->used) {
        slot++;
        ENSURE(slot < &sim->my->answers[ANSWERS]);
    }
    if (event->ticket != 0 && faults_mute(sim)) {
        return;
    }
    slot->used = true;
    slot->again = event->ticket != 0 && faults_double(sim);
    slot->life = ++sim->life;
    slot->event = *event;
    if (facts != NULL) {
        slot->facts = *facts;
    }
    sim_later(sim, sim_between(sim, 0, ANSWER_MOST_US), deliver, (uint32_t)(slot - sim->my->answers),
              slot->life, 0);
}

void ports_post(struct sim *sim, const struct flip_event *event)
{
    if (sim->my->running) {
        post(sim, event, NULL);
    }
}

void ports_answer(struct sim *sim, uint64_t ticket, bool ok, bool uncertain, const struct error *error,
                  const struct flip_counts *counts)
{
    struct flip_event event = {
        .kind = ok ? FLIP_EVENT_DONE : FLIP_EVENT_FAILED, .ticket = ticket, .uncertain = uncertain};
    if (ticket == 0 || !sim->my->running) {
        return;
    }
    if (!ok) {
        event.error = *error;
    }
    if (counts != NULL) {
        event.counts = *counts;
    }
    post(sim, &event, NULL);
}

void ports_facts(struct sim *sim, uint64_t ticket, const struct flip_facts *facts)
{
    const struct flip_event event = {.kind = FLIP_EVENT_FACTS, .ticket = ticket};
    if (sim->my->running) {
        post(sim, &event, facts);
    }
}

/* It decides nothing from here on (replication/engine.c, engine_note_owner). */
void ports_deposed(struct sim *sim)
{
    struct flip_event event = {.kind = FLIP_EVENT_DEPOSED};
    if (sim->my->deposed || sim->my->owner == 0 || !sim->my->running) {
        return;
    }
    SAY(sim, "daemon", "is deposed");
    sim->my->deposed = true;
    if (sim->now_us < sim->my->stalled_until_us) {
        ports_post(sim, &event);
    } else {
        ports_feed(sim, &event); /* before the answer that brought the news */
    }
}

/* --- ticks: late ones, and some that nobody asked for --- */

static void tick(struct sim *sim, const struct moment *moment)
{
    if (!sim->my->running || moment->life != sim->my->wake) {
        return;
    }
    if (sim->now_us < sim->my->stalled_until_us) {
        sim_later(sim, sim->my->stalled_until_us - sim->now_us, tick, 0, moment->life, 0);
        return;
    }
    struct flip_event event = {.kind = FLIP_EVENT_TICK};
    ports_feed(sim, &event);
}

void ports_wake(struct sim *sim)
{
    const int64_t wake_us = flip_wake(&sim->my->runner);
    if (wake_us == sim->my->wake_us) {
        return;
    }
    sim->my->wake_us = wake_us;
    sim->my->wake = ++sim->life;
    if (wake_us != INT64_MAX) {
        const int64_t late_us = sim->faults.any && sim_chance(sim, 20) ? sim_between(sim, 0, 300 * SIM_MS)
                                                                       : sim_between(sim, 0, 1 * SIM_MS);
        sim_later(sim, wake_us - sim->now_us + late_us, tick, 0, sim->my->wake, 0);
    }
}

/* --- requests --- */

static void answer_local(struct sim *sim, const struct flip_request *request)
{
    struct error error;
    error_clear(&error);
    const bool ok = !sim->faults.any || sim->faults.over || !sim_chance(sim, FAILS_IN_1000);
    if (!ok) {
        (void)error_set(&error, ERROR_COMMAND_FAILED, "%s exited with 1", flip_action_name(request->kind));
    }
    ports_answer(sim, request->ticket, ok, false, &error, NULL);
}

static void check(struct sim *sim, const struct flip_request *request)
{
    struct error error;
    error_clear(&error);
    const bool ok = sampler_way_back_open(sim, &error);
    ports_answer(sim, request->ticket, ok, false, &error, NULL);
}

static void finished(struct sim *sim, const struct flip_request *request)
{
    struct sim_figures *figures = &sim->figures;
    SAY(sim, "runner", "flip %" PRIu64 " is %s%s%s", request->flip, flip_outcome_name(request->outcome),
        request->error.code != ERROR_NONE ? ": " : "", request->error.message);
    figures->flips++;
    figures->done += request->outcome == FLIP_OUTCOME_DONE;
    figures->aborted += request->outcome == FLIP_OUTCOME_ABORTED;
    figures->refused += request->outcome == FLIP_OUTCOME_REFUSED;
    figures->automatic += request->outcome == FLIP_OUTCOME_DONE && request->story->automatic;
}

static void news(struct sim *sim, const struct flip_request *request)
{
    switch (request->kind) {
    case FLIP_ACTION_ACTIVE:
        SAY(sim, "runner", "%s is active, epoch %" PRIu64, side_name(request->side), request->epoch);
        sampler_set_active(sim, request->side, request->epoch);
        sim->my->owned_since = false;
        sim->my->settled = true;
        break;
    case FLIP_ACTION_WATCH:
        sampler_watch(sim, request->open);
        break;
    case FLIP_ACTION_PHASE:
        SAY(sim, "runner", "flip %" PRIu64 ": %s", request->flip, flip_phase_name(request->phase));
        break;
    case FLIP_ACTION_ALARM:
        sim->figures.alarms++;
        SAY(sim, "runner", "ALARM: %s", request->error.message);
        break;
    case FLIP_ACTION_FINISHED:
        finished(sim, request);
        break;
    default:
        break;
    }
}

void ports_request(void *context, const struct flip_request *request)
{
    struct sim *sim = context;
    ENSURE(sim->my->feeding);
    faults_aim(sim, request);
    switch (flip_action_port(request->kind)) {
    case FLIP_PORT_COMMANDS:
        if (request->kind == FLIP_ACTION_CHECK) {
            check(sim, request);
        } else {
            answer_local(sim, request);
        }
        break;
    case FLIP_PORT_JOURNAL:
        journal_write(sim, &request->row, request->ticket);
        break;
    case FLIP_PORT_CLUSTERS:
        scripts_begin(sim, request);
        break;
    case FLIP_PORT_PROXY:
        proxy_request(sim, request);
        break;
    case FLIP_PORT_NEWS:
        news(sim, request);
        break;
    case FLIP_PORT_NOBODY:
        ENSURE(false);
    }
}

/* --- life and death --- */

void daemon_start(struct sim *sim)
{
    struct flip_history history;
    if (sim->my->running) {
        return;
    }
    flip_history_init(&history);
    for (uint32_t i = 0; i < sim->my->journal.count; i++) {
        sim->my->journal.rows[i].seq = i + 1;
        flip_history_fold(&history, &sim->my->journal.rows[i]);
    }
    SAY(sim, "daemon", "starts; the journal has %" PRIu32 " rows", sim->my->journal.count);
    sim->my->running = true;
    sim->my->deposed = sim->my->settled = false;
    sim->my->owned[SIDE_BLUE] = sim->my->owned[SIDE_GREEN] = false;
    sim->my->owner = 0;
    sim->my->stalled_until_us = 0;
    sim->my->wake_us = -1;
    flip_init(&sim->my->runner, (struct flip_port){.context = sim, .request = ports_request}, &sim->options);
    proxy_start(sim);
    sampler_start(sim);
    struct flip_event event = {.kind = FLIP_EVENT_RECOVER, .history = &history, .side = SIDE_BLUE};
    ports_feed(sim, &event);
}

static void start_again(struct sim *sim, const struct moment *moment)
{
    if (moment->life == sim->my->life && !sim->my->running) {
        faults_before_start(sim);
        daemon_start(sim);
    }
}

bool daemon_owns(const struct sim *sim, enum side side, unsigned database)
{
    return sim->my->owner == sim->clusters[side].databases[database].now.owner;
}

void daemon_crash(struct sim *sim)
{
    if (!sim->my->running) {
        return;
    }
    SAY(sim, "daemon", "DIES, in %s", flip_phase_text(&sim->my->runner));
    sim->figures.crashes++;
    sim->my->running = false;
    sim->my->life = ++sim->life;
    memset(sim->my->answers, 0, sizeof sim->my->answers);
    call_daemon_died(sim);
    journal_crash(sim);
    proxy_crash(sim);
    sim_later(sim, sim_between(sim, 1 * SIM_MS, 3 * SIM_SECOND), start_again, 0, sim->my->life, 0);
}
