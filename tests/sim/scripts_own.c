/*
 * Ownership and the facts of both sides (replication/own.c, facts.c).
 */
#include "tests/sim/scripts.h"

static enum verdict end_others(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    (void)error;
    call_end_backends(sim, strand->at, strand->connection);
    oracle_met(sim, strand->at);
    strand->reached = true;
    return VERDICT_OK;
}

static enum verdict read_owner(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const uint64_t owner = database_at(sim, strand)->now.owner;
    (void)error;
    uint64_t *highest = &call->highest[strand->at];
    *highest = owner > *highest ? owner : *highest;
    return VERDICT_OK;
}

static enum verdict raise_owner(struct sim *sim, struct call *call, struct strand *strand,
                                struct error *error)
{
    if (!call->strands[strand->side][0].reached) {
        return VERDICT_OK;
    }
    const struct ready *ready = &database_at(sim, strand)->ready;
    if (ready->open && ready->connection != strand->connection) {
        return VERDICT_BLOCKED; /* another's opening transaction has locked the row since its backends were
                                   ended */
    }
    if (database_at(sim, strand)->now.owner == call->owner) {
        return VERDICT_OK; /* when it connected */
    }
    if (database_at(sim, strand)->now.owner > call->owner) {
        (void)error_set(error, ERROR_STALE, "another controller took ownership just now");
        return VERDICT_FAILED;
    }
    (void)cluster_append(sim, strand->at, strand->database, WAL_CATALOG, 0, false);
    database_at(sim, strand)->now.owner = call->owner;
    cluster_flush(sim, strand->at);
    return VERDICT_OK;
}

static enum verdict read_facts(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)error;
    struct flip_side_facts *side = &call->facts.sides[strand->side];
    const struct catalog *now = &database_at(sim, strand)->now;
    side->databases = DATABASES;
    side->epoch_min = side->installed == 0 || now->epoch < side->epoch_min ? now->epoch : side->epoch_min;
    side->epoch_max = now->epoch > side->epoch_max ? now->epoch : side->epoch_max;
    side->installed++;
    side->active += now->standing == STANDING_ACTIVE;
    side->standby += now->standing == STANDING_STANDBY;
    side->diverged += now->standing == STANDING_DIVERGED;
    side->fenced_for = now->fenced_for > side->fenced_for ? now->fenced_for : side->fenced_for;
    side->fenced_for_count += now->fenced_for != 0;
    if (now->standing == STANDING_ACTIVE && now->opened_for > side->opened_for) {
        side->opened_for = now->opened_for;
    }
    side->aborted = now->aborted > side->aborted ? now->aborted : side->aborted;
    const uint64_t heard[] = {now->fenced_for, now->aborted, now->opened_for, now->markers[0].closing,
                              now->markers[1].closing};
    for (size_t i = 0; i < ARRAY_LENGTH(heard); i++) {
        side->last_flip = heard[i] > side->last_flip ? heard[i] : side->last_flip;
    }
    side->fences_on += now->fence;
    side->fences_off += !now->fence;
    return VERDICT_OK;
}

static const struct step end_steps[] = {{.name = "end earlier sessions", .run = end_others}};
static const struct step owner_steps[] = {{.name = "read owner", .run = read_owner}};
static const struct step raise_steps[] = {{.name = "take ownership", .run = raise_owner}};
static const struct step facts_steps[] = {{.name = "read facts", .run = read_facts}};

static bool facts_ended(struct sim *sim, struct call *call)
{
    call->facts.owned_since = sim->my->owned_since;
    for (int s = 0; s < SIDE_COUNT; s++) {
        struct flip_side_facts *side = &call->facts.sides[s];
        side->reachable = side->installed == DATABASES;
        if (!side->reachable) {
            *side = (struct flip_side_facts){0};
        }
        for (unsigned d = 0; d < DATABASES; d++) {
            call->strands[s][d].failed = false;
        }
    }
    return false;
}

static const struct script facts_scripts[SIDES_MOST] = {
    {STEPS_OF(facts_steps), 0, false, facts_ended},
    {STEPS_OF(facts_steps), BLUE, false, facts_ended},
    {STEPS_OF(facts_steps), GREEN, false, facts_ended},
    {STEPS_OF(facts_steps), BLUE | GREEN, false, facts_ended},
};

static unsigned sides_reached(const struct call *call)
{
    return (call->strands[SIDE_BLUE][0].reached ? BLUE : 0) |
           (call->strands[SIDE_GREEN][0].reached ? GREEN : 0);
}

static bool raise_ended(struct sim *sim, struct call *call)
{
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            sim->my->owned[s] |= call->strands[s][0].reached && !call->strands[s][d].failed;
        }
    }
    if (scripts_any_failed(call)) {
        return false;
    }
    call_run(sim, call, &facts_scripts[sides_reached(call)]);
    return true;
}

static const struct script raise_scripts[SIDES_MOST] = {
    {STEPS_OF(raise_steps), 0, false, raise_ended},
    {STEPS_OF(raise_steps), BLUE, false, raise_ended},
    {STEPS_OF(raise_steps), GREEN, false, raise_ended},
    {STEPS_OF(raise_steps), BLUE | GREEN, false, raise_ended},
};

static bool owners_read(struct sim *sim, struct call *call)
{
    if (scripts_any_failed(call)) {
        return false;
    }
    uint64_t highest = 0;
    bool deposed = sim->my->deposed, all_ours = true;
    for (int s = 0; s < SIDE_COUNT; s++) {
        deposed |= daemon_is_deposed_by(sim, (enum side)s, call->highest[s]);
        all_ours &= !sim->my->owned[s] || call->strands[s][0].reached;
        highest = call->highest[s] > highest ? call->highest[s] : highest;
    }
    if (deposed) {
        ports_deposed(sim);
    }
    if (deposed || (sim->my->owner != 0 && highest > sim->my->owner && !all_ours)) {
        (void)error_set(&call->error, ERROR_STALE, "another controller owns the pair");
        return false;
    }
    sim->my->owned_since |= highest > sim->my->owner_kept;
    highest = highest > sim->my->owner_kept ? highest : sim->my->owner_kept;
    const uint64_t wall = (uint64_t)sim_wall_us(sim);
    highest = highest > wall ? highest : wall;
    sim->my->owner = sim->my->owner_kept = call->owner = highest + 1 + sim_random(sim) % 1000;
    call_run(sim, call, &raise_scripts[sides_reached(call)]);
    return true;
}

static const struct script owner_scripts[SIDES_MOST] = {
    {STEPS_OF(owner_steps), 0, false, owners_read},
    {STEPS_OF(owner_steps), BLUE, false, owners_read},
    {STEPS_OF(owner_steps), GREEN, false, owners_read},
    {STEPS_OF(owner_steps), BLUE | GREEN, false, owners_read},
};

/* A side that doesn't answer is owned when it comes back. */
static bool end_ended(struct sim *sim, struct call *call)
{
    const unsigned sides = sides_reached(call);
    if (sides == 0) {
        call->strands[SIDE_BLUE][0].failed = true;
        call->strands[SIDE_BLUE][0].uncertain = call->strands[SIDE_GREEN][0].uncertain = false;
        return false;
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        call->strands[s][0].failed = call->strands[s][0].uncertain = false;
    }
    call_extend(sim, call, 5 * SIM_SECOND);
    call_run(sim, call, &owner_scripts[sides]);
    return true;
}

const struct script scripts_learn = {STEPS_OF(end_steps), BLUE | GREEN, true, end_ended};

/* As replication/engine.c: a start that isn't over takes over from whoever is where it has not been. */
bool daemon_is_deposed_by(const struct sim *sim, enum side side, uint64_t owner)
{
    return sim->my->owner != 0 && owner > sim->my->owner && (sim->my->settled || sim->my->owned[side]);
}

bool scripts_own_side(struct sim *sim, struct call *call, struct strand *strand)
{
    struct cluster *cluster = &sim->clusters[strand->at];
    if (call->owner == 0 || call->dead) {
        oracle_met(sim, strand->at);
        return !call->dead;
    }
    call_end_backends(sim, strand->at, strand->connection);
    for (unsigned d = 0; d < DATABASES; d++) {
        struct database *database = &cluster->databases[d];
        if (database->now.owner > call->owner && (sim->my->settled || sim->my->owned[strand->at])) {
            sim->my->owner_met = database->now.owner;
            return false;
        }
        if (database->now.owner < call->owner) {
            (void)cluster_append(sim, strand->at, d, WAL_CATALOG, 0, false);
            database->now.owner = call->owner;
        }
    }
    cluster_flush(sim, strand->at);
    oracle_met(sim, strand->at);
    return true;
}
