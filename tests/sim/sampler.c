/*
 * What the controller sees of the clusters while nothing runs: heartbeats on the active side, lag, who can be
 * reached, fences that contradict a standing; and the gates of the watch, judged by control/gates.
 */
#include "tests/sim/sim.h"

#include <string.h>

enum {
    SAMPLE_US = 250 * SIM_MS,
    BEAT_TIMEOUT_US = 2 * SIM_SECOND,
    CONTACT_AGAIN_US = 5 * SIM_SECOND,
    LOST_AFTER_US = 700 * SIM_MS,
    FIRST_ANSWER_US = 1300 * SIM_MS
};

static struct settings_gate gate_settings[] = {
    {.name = (char[]){"lag"},
     .kind = GATE_REPLICATION_LAG,
     .has_max = true,
     .interval_us = 500 * SIM_MS,
     .grace_us = 1 * SIM_SECOND,
     .failures = 4},
    {.name = (char[]){"errors"},
     .kind = GATE_ERROR_RATE,
     .has_max = true,
     .max_ratio = 0.02,
     .interval_us = 300 * SIM_MS,
     .failures = 3,
     .min_samples = 10},
};

/* --- heartbeats --- */

static enum verdict beat(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    struct claim claim = call_claim(sim, call, strand);
    claim.epoch = call->request.epoch;
    return schema_beat(sim, &claim, false, error);
}

static const struct step beat_steps[] = {{.name = "beat", .run = beat}};
static const struct script beat_scripts[SIDE_COUNT] = {
    {.steps = beat_steps, .count = 1, .sides = 1U << SIDE_BLUE},
    {.steps = beat_steps, .count = 1, .sides = 1U << SIDE_GREEN},
};

static bool beats(const struct sim *sim)
{
    for (unsigned i = 0; i < CALLS; i++) {
        if (sim->my->calls[i].used && !sim->my->calls[i].dead && sim->my->calls[i].for_sampler) {
            return true;
        }
    }
    return false;
}

static void send_beat(struct sim *sim)
{
    const struct sampler *sampler = &sim->my->sampler;
    if (!sampler->told || sim->now_us < sampler->rest_until_us || beats(sim)) {
        return;
    }
    const struct flip_request request = {.side = sampler->active, .epoch = sampler->epoch};
    struct call *call = call_new(sim, &request, sim->now_us + BEAT_TIMEOUT_US);
    call->for_sampler = true;
    call_run(sim, call, &beat_scripts[sampler->active]);
}

/* --- what is seen --- */

static bool stream_serves(const struct sim *sim)
{
    const enum side standby = side_other(sim->my->sampler.active);
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct catalog *to = &sim->clusters[standby].databases[d].now;
        const struct catalog *from = &sim->clusters[sim->my->sampler.active].databases[d].now;
        if (!stream_runs(sim, standby, d) || to->standing != STANDING_STANDBY ||
            from->managed != from->published || to->managed != from->managed ||
            to->published != from->published) {
            return false;
        }
    }
    return true;
}

/* What a flip asks before it begins: check, or whether the way back is open. */
bool sampler_way_back_open(const struct sim *sim, struct error *error)
{
    const struct sampler *sampler = &sim->my->sampler;
    if (!sampler->told || !sampler->reachable[SIDE_BLUE] || !sampler->reachable[SIDE_GREEN]) {
        return error_set(error, ERROR_UNREACHABLE, "a side can't be reached");
    }
    return stream_serves(sim) ||
           error_set(error, ERROR_CHECK_FAILED, "the stream doesn't run, or tables differ");
}

static int64_t lag_us(struct sim *sim)
{
    struct sampler *sampler = &sim->my->sampler;
    bool seen = true;
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct marker *written =
            &sim->clusters[sampler->active].databases[d].now.markers[sampler->active];
        const struct marker *arrived =
            &sim->clusters[side_other(sampler->active)].databases[d].now.markers[sampler->active];
        seen &= written->beat <= arrived->beat + 1;
    }
    if (seen) {
        sampler->seen_us = sim->now_us;
    }
    const int64_t age_us = sim->now_us - sampler->seen_us;
    return age_us > 2 * SAMPLE_US ? age_us : 0;
}

/* As control/daemon/controller.c: a side that was found dead and answers again is to be met. */
static void note_sides(struct sim *sim)
{
    struct sampler *sampler = &sim->my->sampler;
    for (int s = 0; s < SIDE_COUNT; s++) {
        const bool answers = sim->clusters[s].up && network_both_ways(sim, sim->my->node, (enum node)s);
        if (answers) {
            sampler->contact_due |= sampler->lost[s];
            sampler->lost[s] = false;
            sampler->reachable[s] = true;
            sampler->answered_us[s] = sim->now_us;
        } else if (sim->now_us - sampler->answered_us[s] > LOST_AFTER_US) {
            sampler->reachable[s] = false;
            sampler->lost[s] = true;
        }
    }
}

/* A fence that contradicts the standing, names that nobody asked for. */
static bool is_wrong(const struct sim *sim)
{
    const struct sampler *sampler = &sim->my->sampler;
    for (int s = 0; s < SIDE_COUNT; s++) {
        if (sampler->reachable[s] && sim->my->runner.prepared && !sim->my->runner.facts.sides[s].reachable) {
            return true; /* nobody has met it yet */
        }
        if (sampler->reachable[s] && sim->clusters[s].up && sim->clusters[s].named &&
            sampler->active != (enum side)s) {
            return true;
        }
        for (unsigned d = 0; sampler->reachable[s] && sim->clusters[s].up && d < DATABASES; d++) {
            if (sim->clusters[s].databases[d].now.fence == (sampler->active == (enum side)s)) {
                return true;
            }
        }
    }
    return false;
}

static void tell_contact(struct sim *sim)
{
    struct sampler *sampler = &sim->my->sampler;
    const bool wrong = sampler->told && is_wrong(sim) && sim->my->runner.mode == FLIP_MODE_STEADY &&
                       sim->now_us - sampler->contact_us > CONTACT_AGAIN_US;
    if (wrong || sampler->contact_due) {
        const struct flip_event event = {.kind = FLIP_EVENT_CONTACT};
        SAY(sim, "sampler", "contact: %s",
            wrong ? "fences or names contradict a standing" : "a side is back");
        sampler->contact_us = sim->now_us;
        sampler->contact_due = false;
        ports_post(sim, &event);
    }
}

/* --- the promise, and a side that is dead (control/daemon/controller_promise.c) --- */

static void tell_dead(struct sim *sim)
{
    struct sampler *sampler = &sim->my->sampler;
    const enum side active = sim->my->runner.history.active;
    const bool silent = sim->now_us - sampler->answered_us[active] >= sim->options.dead_after_us;
    if (sampler->reachable[active] || !silent || sim->now_us - sampler->told_dead_us < SIM_SECOND) {
        return;
    }
    struct flip_event event = {.kind = FLIP_EVENT_SIDE_DEAD, .side = active};
    (void)error_set(&event.error, ERROR_SIDE_DEAD, "%s has not answered", side_name(active));
    sampler->told_dead_us = sim->now_us;
    ports_post(sim, &event);
}

/* Commits in a table that isn't published wait for nobody. */
static bool tables_differ(const struct sim *sim)
{
    bool differ = false;
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct catalog *now = &sim->clusters[sim->my->sampler.active].databases[d].now;
        differ |= now->managed != now->published;
    }
    return differ;
}

static void tell_stream(struct sim *sim)
{
    struct sampler *sampler = &sim->my->sampler;
    const struct flip *runner = &sim->my->runner;
    const enum side active = runner->history.active;
    const bool matters = (runner->history.promise || runner->watch.on) &&
                         (runner->options.lossless || runner->history.promise);
    struct flip_event event = {.kind = FLIP_EVENT_STREAM, .side = active};
    if (!matters || !sampler->reachable[active] || !sampler->told || sampler->active != active) {
        sampler->told_stream_us = 0;
        return;
    }
    event.open = sampler->reachable[side_other(active)] && stream_serves(sim) && lag_us(sim) <= SIM_SECOND;
    if (sampler->told_stream_us != 0 && sampler->told_open == event.open &&
        sim->now_us - sampler->told_stream_us < SIM_SECOND) {
        return;
    }
    (void)error_set(&event.error, tables_differ(sim) ? ERROR_NO_PROMISE : ERROR_WAY_BACK_CLOSED,
                    "the stream isn't healthy");
    sampler->told_stream_us = sim->now_us;
    sampler->told_open = event.open;
    ports_post(sim, &event);
}

/* --- gates --- */

static bool any_failed(const struct sampler *sampler)
{
    return sampler->gates[0].failed || sampler->gates[1].failed;
}

static void judge(struct sim *sim)
{
    struct sampler *sampler = &sim->my->sampler;
    const int64_t behind_us = lag_us(sim);
    const struct gate_replication replication = {
        .lag_us = behind_us, .known = true, .broken = !stream_serves(sim), .problem = ""};
    int64_t bounds_us[GATE_BUCKETS];
    for (int i = 0; i < GATE_BUCKETS; i++) {
        bounds_us[i] = (i + 1) * SIM_MS;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(sampler->gates); i++) {
        struct gate *gate = &sampler->gates[i];
        if (!sampler->watch || sim->now_us < gate->next_us) {
            continue;
        }
        const enum gate_news news =
            i == 0 ? gate_judge_replication(gate, sim->now_us, &replication)
                   : gate_judge_traffic(gate, sim->now_us, &sampler->traffic[sampler->active], NULL,
                                        bounds_us, (struct gate_sides){.side = "green", .other = "blue"});
        struct flip_event event = {.kind = FLIP_EVENT_GATE_FAILED};
        (void)error_set(&event.error, ERROR_GATE_FAILED, "gate %s: %s", gate->settings->name, gate->reason);
        if (news == GATE_HAS_FAILED) {
            SAY(sim, "gates", "%s fails: %s", gate->settings->name, gate->reason);
            ports_post(sim, &event);
        } else if (news == GATE_HAS_RECOVERED && !any_failed(sampler)) {
            event = (struct flip_event){.kind = FLIP_EVENT_GATES_PASS};
            ports_post(sim, &event);
        }
    }
}

/* --- deposed: which side takes the writes, as the clusters say (replication/sampler_follow.c) --- */

static bool takes_writes(const struct sim *sim, enum side side, uint64_t *epoch)
{
    *epoch = 0;
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct catalog *now = &sim->clusters[side].databases[d].now;
        if (now->standing != STANDING_ACTIVE || now->fenced_for != 0) {
            return false;
        }
        *epoch = now->epoch > *epoch ? now->epoch : *epoch;
    }
    return true;
}

/* The flip that opened the other side may still be taken back. */
static bool is_fenced_for_a_flip(const struct sim *sim, enum side side, uint64_t epoch)
{
    bool fenced = false;
    for (unsigned d = 0; d < DATABASES; d++) {
        const struct catalog *now = &sim->clusters[side].databases[d].now;
        fenced |= now->standing == STANDING_ACTIVE && now->fenced_for != 0 && now->epoch + 1 == epoch;
    }
    return fenced;
}

/* Whoever owns the pair beats on the side whose clients it has released, and on no other. */
static bool has_beaten(struct sim *sim, enum side side)
{
    const uint64_t beat = sim->clusters[side].databases[0].now.markers[side].beat;
    const bool again =
        sim->my->sampler.followed_beat[side] != 0 && beat > sim->my->sampler.followed_beat[side];
    sim->my->sampler.followed_beat[side] = beat;
    return again;
}

static void follow(struct sim *sim)
{
    struct flip_event event = {.kind = FLIP_EVENT_FOLLOW};
    bool known = false;
    for (int s = 0; s < SIDE_COUNT; s++) {
        uint64_t epoch;
        if (!sim->clusters[s].up || !network_both_ways(sim, sim->my->node, (enum node)s)) {
            continue;
        }
        known = true;
        if (takes_writes(sim, (enum side)s, &epoch) && (!event.open || epoch > event.epoch)) {
            event.open = true;
            event.side = (enum side)s;
            event.epoch = epoch;
        }
    }
    const enum side other = side_other(event.side);
    const bool answers = sim->clusters[other].up && network_both_ways(sim, sim->my->node, (enum node)other);
    const bool beats = has_beaten(sim, event.side);
    if (event.open && (answers ? is_fenced_for_a_flip(sim, other, event.epoch)
                               : event.epoch != sim->my->runner.follow.epoch && !beats)) {
        event.open = false;
    }
    if (known) {
        ports_post(sim, &event);
    }
}

/* --- life --- */

static void sample(struct sim *sim, const struct moment *moment)
{
    struct sampler *sampler = &sim->my->sampler;
    if (!sim->my->running || moment->life != sampler->life) {
        return;
    }
    sim_later(sim, SAMPLE_US, sample, 0, moment->life, 0);
    if (sim->now_us < sim->my->stalled_until_us) {
        return;
    }
    if (sim->my->deposed) {
        follow(sim);
        gate_tick(sim);
        return;
    }
    note_sides(sim);
    send_beat(sim);
    tell_contact(sim);
    if (sim->my->runner.history.known) {
        tell_dead(sim);
        tell_stream(sim);
    }
    gate_tick(sim);
    judge(sim);
}

void sampler_start(struct sim *sim)
{
    struct sampler *sampler = &sim->my->sampler;
    memset(sampler, 0, sizeof *sampler);
    sampler->life = ++sim->life;
    sampler->answered_us[SIDE_BLUE] = sampler->answered_us[SIDE_GREEN] = sim->now_us + FIRST_ANSWER_US;
    sim_later(sim, SAMPLE_US, sample, 0, sampler->life, 0);
}

void sampler_set_active(struct sim *sim, enum side active, uint64_t epoch)
{
    struct sampler *sampler = &sim->my->sampler;
    sampler->told = true;
    sampler->active = active;
    sampler->epoch = epoch;
    sampler->seen_us = sim->now_us;
    sampler->rest_until_us = 0;
}

void sampler_rest(struct sim *sim, int64_t until_us)
{
    sim->my->sampler.rest_until_us = until_us;
}

void sampler_watch(struct sim *sim, bool on)
{
    struct sampler *sampler = &sim->my->sampler;
    sampler->watch = on;
    for (size_t i = 0; on && i < ARRAY_LENGTH(sampler->gates); i++) {
        gate_start(&sampler->gates[i], &gate_settings[i], sim->now_us);
    }
}
