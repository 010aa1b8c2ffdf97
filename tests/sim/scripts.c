/* What each request means in statements (replication/flip_source.c, flip_target.c, flip_turn.c, own.c). */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <string.h>

#define BLUE            (1U << SIDE_BLUE)
#define GREEN           (1U << SIDE_GREEN)
#define MOST            4
#define STEPS_OF(steps) steps, ARRAY_LENGTH(steps)

typedef enum verdict run_step(struct sim *sim, struct call *call, struct strand *strand, struct error *error);

static struct database *database_at(struct sim *sim, const struct strand *strand)
{
    return &sim->clusters[strand->at].databases[strand->database];
}

static enum verdict not_yet(struct error *error, const char *what)
{
    (void)error_set(error, ERROR_NOT_IN_SYNC, "%s", what);
    return VERDICT_AGAIN;
}

/* --- probe --- */

static enum verdict write_check(struct sim *sim, struct call *call, struct strand *strand,
                                struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    const enum verdict verdict = schema_beat(sim, &claim, true, error);
    strand->marker = database_at(sim, strand)->now.markers[strand->at].check;
    return verdict;
}

static enum verdict see_check(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    const bool seen = database_at(sim, strand)->now.markers[strand->side].check >= strand->marker;
    return seen ? VERDICT_OK : not_yet(error, "the marker has not arrived");
}

static const struct step probe_steps[] = {
    {.name = "write marker", .run = write_check},
    {.name = "see marker", .other = true, .run = see_check, .again_us = 20 * SIM_MS},
};

/* --- fence --- */

static enum verdict compare_tables(struct sim *sim, struct call *call, struct strand *strand,
                                   struct error *error)
{
    (void)call;
    (void)error;
    strand->tables = database_at(sim, strand)->now.published;
    return VERDICT_OK;
}

static enum verdict raise_fence(struct sim *sim, struct call *call, struct strand *strand,
                                struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    const enum verdict verdict = schema_raise_fence(sim, &claim, error);
    if (verdict == VERDICT_OK) {
        oracle_before(sim, call->request.flip, FLIP_ACTION_FENCE);
    }
    return verdict;
}

static enum verdict seal(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    return schema_seal(sim, &claim, error);
}

static const struct step fence_steps[] = {
    {.name = "compare tables", .other = true, .run = compare_tables},
    {.name = "raise fence", .run = raise_fence},
    {.name = "seal", .batched = true, .run = seal},
};

static bool fence_compared(struct sim *sim, struct call *call)
{
    for (unsigned d = 0; d < DATABASES; d++) {
        for (int s = 0; s < SIDE_COUNT; s++) {
            struct strand *strand = &call->strands[s][d];
            if ((call->script->sides & (1U << s)) != 0 && !strand->failed &&
                strand->tables != sim->clusters[s].databases[d].now.published) {
                strand->failed = true;
                (void)error_set(&strand->error, ERROR_NOT_PREPARED, "not the same tables on both sides");
            }
        }
    }
    return false;
}

/* --- catchup, ready, open --- */

static enum verdict see_closing(struct sim *sim, struct call *call, struct strand *strand,
                                struct error *error)
{
    const struct marker *marker = &database_at(sim, strand)->now.markers[side_other(strand->side)];
    return marker->closing >= call->request.flip ? VERDICT_OK : not_yet(error, "not all is applied");
}

static const struct step catchup_steps[] = {
    {.name = "see closing marker", .run = see_closing, .again_us = 5 * SIM_MS},
};

static enum verdict make_ready(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    const enum verdict verdict = schema_make_ready(sim, &claim, &strand->open, error);
    if (verdict == VERDICT_OK && !strand->open) {
        oracle_before(sim, call->request.flip, FLIP_ACTION_READY);
    }
    return verdict;
}

static const struct step ready_steps[] = {{.name = "make ready", .run = make_ready}};

static enum verdict roll_back(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    (void)error;
    struct ready *ready = &database_at(sim, strand)->ready;
    ready->open = ready->open && ready->connection != strand->connection;
    return VERDICT_OK;
}

static const struct step rollback_steps[] = {{.name = "roll back", .run = roll_back}};
static const struct script rollback_scripts[SIDE_COUNT] = {
    {STEPS_OF(rollback_steps), .sides = BLUE},
    {STEPS_OF(rollback_steps), .sides = GREEN},
};

static bool any_failed(const struct call *call)
{
    bool failed = false;
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            failed |= call->strands[s][d].failed;
        }
    }
    return failed;
}

/* One database isn't ready: none stays so. Nothing was committed, so nothing is uncertain. */
static bool ready_ended(struct sim *sim, struct call *call)
{
    for (unsigned d = 0; d < DATABASES; d++) {
        sim->target_open[d] |= call->strands[call->request.side][d].open;
    }
    if (!any_failed(call) || call->aborted) {
        return false;
    }
    for (unsigned d = 0; d < DATABASES; d++) {
        struct strand *strand = &call->strands[call->request.side][d];
        if (strand->failed && call->error.code == ERROR_NONE) {
            call->error = strand->error;
        }
        strand->uncertain = false;
    }
    call->forgives = true;
    if (sim->now_us >= call->deadline_us) {
        return false;
    }
    call_run(sim, call, &rollback_scripts[call->request.side]);
    return true;
}

static enum verdict commit_ready(struct sim *sim, struct call *call, struct strand *strand,
                                 struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    if (sim->target_open[strand->database]) {
        return VERDICT_OK;
    }
    const enum verdict verdict = schema_commit_ready(sim, &claim, error);
    if (verdict == VERDICT_OK) {
        oracle_before(sim, call->request.flip, FLIP_ACTION_OPEN);
        strand->open = true;
    }
    return verdict;
}

static const struct step open_steps[] = {{.name = "commit: opens", .run = commit_ready}};

/* Open here and not there is for recovery to sort out as much as a lost reply is. */
static bool open_ended(struct sim *sim, struct call *call)
{
    const bool failed = any_failed(call);
    for (unsigned d = 0; d < DATABASES; d++) {
        struct strand *strand = &call->strands[call->request.side][d];
        sim->target_open[d] |= strand->open;
        strand->uncertain |= failed && strand->open;
    }
    return false;
}

/* --- the ways back to the source --- */

static enum verdict lower_fence(struct sim *sim, struct call *call, struct strand *strand,
                                struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    return schema_lower_fence(sim, &claim, error);
}

static enum verdict reopen(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    const enum verdict verdict = schema_reopen(sim, &claim, error);
    if (verdict == VERDICT_OK) {
        oracle_before(sim, call->request.flip, FLIP_ACTION_REOPEN_SOURCE);
    }
    return verdict;
}

static bool target_has_no_transaction(const struct sim *sim, const struct strand *strand)
{
    const enum side target = side_other(strand->side);
    const struct ready *ready = &sim->clusters[target].databases[strand->database].ready;
    return !(ready->open && sim->connected[target] && ready->connection == sim->connection[target]);
}

static const struct step undo_steps[] = {
    {.name = "roll the target back",
     .other = true,
     .tolerant = true,
     .skip = target_has_no_transaction,
     .run = roll_back},
    {.name = "lower fence", .run = lower_fence},
};

static const struct step reopen_steps[] = {
    {.name = "roll the target back",
     .other = true,
     .tolerant = true,
     .skip = target_has_no_transaction,
     .run = roll_back},
    {.name = "reopen the source", .run = reopen},
};

/* --- turn --- */

static enum verdict read_start(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct database *target = database_at(sim, strand);
    if (target->worker.ends) {
        stream_end(sim, strand->at, strand->database);
    }
    if (target->now.standing != STANDING_ACTIVE || target->now.epoch != call->request.epoch ||
        target->now.opened_for != call->request.flip) {
        (void)error_set(error, ERROR_STALE, "it was not opened by this flip");
        return VERDICT_FAILED;
    }
    strand->start = target->now.start;
    return VERDICT_OK;
}

static enum verdict end_old_stream(struct sim *sim, struct call *call, struct strand *strand,
                                   struct error *error)
{
    (void)call;
    const struct cluster *target = &sim->clusters[side_other(strand->side)];
    const bool active = target->up && target->databases[strand->database].worker.runs;
    return active ? not_yet(error, "the old stream has not ended") : VERDICT_OK;
}

static enum verdict follow(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    return schema_follow(sim, &claim, strand->start, error);
}

static enum verdict see_stream(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    return stream_runs(sim, strand->side, strand->database) ? VERDICT_OK
                                                            : not_yet(error, "the way back isn't streaming");
}

static const struct step turn_steps[] = {
    {.name = "read start point", .other = true, .run = read_start},
    {.name = "end old stream", .run = end_old_stream, .again_us = 5 * SIM_MS},
    {.name = "follow", .run = follow},
    {.name = "see stream", .other = true, .run = see_stream, .again_us = 20 * SIM_MS},
};

/* --- contact --- */

static enum verdict fence_left_behind(struct sim *sim, struct call *call, struct strand *strand,
                                      struct error *error)
{
    struct claim claim = call_claim(sim, call, strand);
    bool compare = false;
    claim.epoch = call->request.epoch; /* the pair's */
    const enum verdict verdict = schema_fence_left_behind(sim, &claim, &compare, error);
    strand->skips = verdict == VERDICT_OK && !compare;
    return verdict;
}

static enum verdict compare(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)error;
    const struct claim claim = call_claim(sim, call, strand);
    strand->skips = schema_holds_more(sim, &claim);
    return VERDICT_OK;
}

static enum verdict rejoin(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    struct claim claim = call_claim(sim, call, strand);
    claim.epoch = call->request.epoch;
    return schema_rejoin_unchanged(sim, &claim, error);
}

static const struct step contact_steps[] = {
    {.name = "fence what was left behind", .run = fence_left_behind},
    {.name = "compare", .run = compare},
    {.name = "rejoin", .run = rejoin},
};

/* --- names --- */

static enum verdict set_names(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)error;
    const bool active = strand->at == call->request.side;
    cluster_set_names(sim, strand->at, active && call->request.promise);
    return VERDICT_OK;
}

static const struct step names_steps[] = {{.name = "set names", .run = set_names}};

/* The other side is emptied on contact, if it can't be reached. */
static bool names_ended(struct sim *sim, struct call *call)
{
    (void)sim;
    struct strand *other = &call->strands[side_other(call->request.side)][0];
    other->failed = other->uncertain = false;
    return false;
}

static const struct script names_script = {STEPS_OF(names_steps), BLUE | GREEN, true, names_ended};

/* --- ownership and facts --- */

static enum verdict end_others(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)error;
    call_end_backends(sim, strand->at, strand->connection);
    oracle_met(sim, strand->at);
    strand->reached = true;
    for (unsigned d = 0; d < DATABASES; d++) {
        const uint64_t owner = sim->clusters[strand->at].databases[d].now.owner;
        call->highest = owner > call->highest ? owner : call->highest;
    }
    return VERDICT_OK;
}

static enum verdict raise_owner(struct sim *sim, struct call *call, struct strand *strand,
                                struct error *error)
{
    if (!call->strands[strand->side][0].reached) {
        return VERDICT_OK;
    }
    if (database_at(sim, strand)->now.owner >= call->owner) {
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
static const struct step raise_steps[] = {{.name = "take ownership", .run = raise_owner}};
static const struct step facts_steps[] = {{.name = "read facts", .run = read_facts}};

static bool facts_ended(struct sim *sim, struct call *call)
{
    (void)sim;
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

static const struct script facts_scripts[MOST] = {
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
    if (any_failed(call)) {
        return false;
    }
    call_run(sim, call, &facts_scripts[sides_reached(call)]);
    return true;
}

static const struct script raise_scripts[MOST] = {
    {STEPS_OF(raise_steps), 0, false, raise_ended},
    {STEPS_OF(raise_steps), BLUE, false, raise_ended},
    {STEPS_OF(raise_steps), GREEN, false, raise_ended},
    {STEPS_OF(raise_steps), BLUE | GREEN, false, raise_ended},
};

/* A side that doesn't answer is owned when it comes back. */
static bool end_ended(struct sim *sim, struct call *call)
{
    const unsigned sides = sides_reached(call);
    if (sides == 0) {
        call->strands[SIDE_BLUE][0].failed = true;
        return false;
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        call->strands[s][0].failed = call->strands[s][0].uncertain = false;
    }
    const uint64_t highest = call->highest > sim->owner ? call->highest : sim->owner;
    sim->owner = call->owner = highest + 1 + sim_random(sim) % 1000;
    call->deadline_us = sim->now_us + 5 * SIM_SECOND;
    call_again(sim, call);
    call_run(sim, call, &raise_scripts[sides]);
    return true;
}

static const struct script learn_script = {STEPS_OF(end_steps), BLUE | GREEN, true, end_ended};

bool scripts_own_side(struct sim *sim, struct call *call, struct strand *strand)
{
    struct cluster *cluster = &sim->clusters[strand->at];
    oracle_met(sim, strand->at);
    if (call->owner == 0 || call->dead) {
        return !call->dead;
    }
    call_end_backends(sim, strand->at, strand->connection);
    for (unsigned d = 0; d < DATABASES; d++) {
        struct database *database = &cluster->databases[d];
        if (database->now.owner > call->owner) {
            return false;
        }
        if (database->now.owner < call->owner) {
            (void)cluster_append(sim, strand->at, d, WAL_CATALOG, 0, false);
            database->now.owner = call->owner;
        }
    }
    cluster_flush(sim, strand->at);
    return true;
}

/* --- requests --- */

struct request_script {
    enum flip_action_kind action;
    const struct step *steps;
    unsigned count;
    bool source; /* its strands run on the side that isn't request.side */
    bool phase;  /* of a flip: one at a time */
    bool takes_over;
    bool (*then)(struct sim *sim, struct call *call);
};

static const struct request_script known[] = {
    {FLIP_ACTION_PROBE, STEPS_OF(probe_steps), false, false, false, NULL},
    {FLIP_ACTION_FENCE, STEPS_OF(fence_steps), true, true, false, fence_compared},
    {FLIP_ACTION_CATCHUP, STEPS_OF(catchup_steps), false, true, false, NULL},
    {FLIP_ACTION_READY, STEPS_OF(ready_steps), false, true, false, ready_ended},
    {FLIP_ACTION_OPEN, STEPS_OF(open_steps), false, true, false, open_ended},
    {FLIP_ACTION_UNDO, STEPS_OF(undo_steps), true, true, true, NULL},
    {FLIP_ACTION_REOPEN_SOURCE, STEPS_OF(reopen_steps), true, true, true, NULL},
    {FLIP_ACTION_TURN, STEPS_OF(turn_steps), true, true, false, NULL},
    {FLIP_ACTION_FENCE_ON_CONTACT, STEPS_OF(contact_steps), false, true, false, NULL},
};

static struct script scripts[ARRAY_LENGTH(known)][SIDE_COUNT]; /* by request.side */

static void fill_scripts(void)
{
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        for (int s = 0; s < SIDE_COUNT; s++) {
            const unsigned side = known[i].source ? 1U - (unsigned)s : (unsigned)s;
            scripts[i][s] = (struct script){
                .steps = known[i].steps, .count = known[i].count, .sides = 1U << side, .then = known[i].then};
        }
    }
}

static void begin_known(struct sim *sim, const struct flip_request *request, size_t i)
{
    if (known[i].phase && sim->phase_call != 0) {
        if (known[i].takes_over && !sim->undo_waits) {
            sim->undo = *request;
            sim->undo_waits = true;
            call_abort(sim, call_of(sim, sim->phase_call));
            return;
        }
        struct error busy;
        (void)error_set(&busy, ERROR_FLIP_RUNNING, "another phase of a flip is running");
        ports_answer(sim, request->ticket, false, false, &busy, NULL);
        return;
    }
    if (request->kind == FLIP_ACTION_FENCE || request->kind == FLIP_ACTION_READY) {
        memset(sim->target_open, 0, sizeof sim->target_open);
    }
    const bool contact = request->kind == FLIP_ACTION_FENCE_ON_CONTACT;
    struct call *call =
        call_new(sim, request, contact ? sim->now_us + 10 * SIM_SECOND : request->deadline_us);
    if (known[i].phase) {
        call->phase = true;
        sim->phase_call = call->life;
        sampler_rest(sim, call->deadline_us);
    }
    call_run(sim, call, &scripts[i][request->side]);
}

void scripts_begin(struct sim *sim, const struct flip_request *request)
{
    if (scripts[0][0].steps == NULL) {
        fill_scripts();
    }
    if (request->kind == FLIP_ACTION_LEARN) {
        call_run(sim, call_new(sim, request, sim->now_us + 3 * SIM_SECOND), &learn_script);
        return;
    }
    if (request->kind == FLIP_ACTION_NAMES) {
        call_run(sim, call_new(sim, request, request->deadline_us), &names_script);
        return;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        if (known[i].action == request->kind) {
            begin_known(sim, request, i);
            return;
        }
    }
    oracle_broke(sim, "nobody knows how to carry out %s", flip_action_name(request->kind));
}

void scripts_phase_over(struct sim *sim)
{
    if (sim->undo_waits && sim->running) {
        sim->undo_waits = false;
        const struct flip_request request = sim->undo;
        scripts_begin(sim, &request);
    }
}

/* What is told to the sampler when a call ends. */
void scripts_finish(struct sim *sim, struct call *call)
{
    const bool ok = call->error.code == ERROR_NONE;
    if (call->forgives) {
        call->uncertain = false;
    }
    if (call->phase &&
        (!ok || call->request.kind == FLIP_ACTION_UNDO || call->request.kind == FLIP_ACTION_REOPEN_SOURCE)) {
        sampler_rest(sim, 0);
    }
    if (ok && call->request.kind == FLIP_ACTION_UNDO) {
        sampler_set_active(sim, side_other(call->request.side), call->request.epoch - 1);
    } else if (ok && call->request.kind == FLIP_ACTION_REOPEN_SOURCE) {
        sampler_set_active(sim, side_other(call->request.side), call->request.epoch + 1);
    }
}

void scripts_answer(struct sim *sim, struct call *call)
{
    const bool ok = call->error.code == ERROR_NONE;
    if (call->dead || call->request.kind == FLIP_ACTION_NONE) {
        return;
    }
    if (ok && call->request.kind == FLIP_ACTION_LEARN) {
        ports_facts(sim, call->request.ticket, &call->facts);
    } else {
        ports_answer(sim, call->request.ticket, ok, call->uncertain, &call->error, NULL);
    }
}
