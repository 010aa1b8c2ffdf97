/* What each request means in statements (replication/flip_source.c, flip_target.c, flip_turn.c, own.c). */
#include "tests/sim/scripts.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <string.h>

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
    return seen ? VERDICT_OK : not_yet(error, ERROR_NOT_IN_SYNC, "the marker has not arrived");
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
        oracle_before(sim, call->dead, call->request.flip, FLIP_ACTION_FENCE);
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
            if ((call->script.sides & (1U << s)) != 0 && !strand->failed &&
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
    return marker->closing >= call->request.flip ? VERDICT_OK
                                                 : not_yet(error, ERROR_NOT_IN_SYNC, "not all is applied");
}

static const struct step catchup_steps[] = {
    {.name = "see closing marker", .run = see_closing, .again_us = 5 * SIM_MS},
};

static enum verdict make_ready(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    const bool alone = call->request.kind == FLIP_ACTION_READY_ALONE;
    const enum verdict verdict = alone ? schema_make_ready_alone(sim, &claim, &strand->open, error)
                                       : schema_make_ready(sim, &claim, &strand->open, error);
    if (verdict == VERDICT_OK && !strand->open) {
        oracle_before(sim, call->dead, call->request.flip, FLIP_ACTION_READY);
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
bool scripts_any_failed(const struct call *call)
{
    bool failed = false;
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            failed |= call->strands[s][d].failed;
        }
    }
    return failed;
}

static bool ready_ended(struct sim *sim, struct call *call)
{
    for (unsigned d = 0; d < DATABASES; d++) {
        sim->my->target_open[d] |= call->strands[call->request.side][d].open;
    }
    return false;
}

static enum verdict commit_ready(struct sim *sim, struct call *call, struct strand *strand,
                                 struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    if (sim->my->target_open[strand->database]) {
        return VERDICT_OK;
    }
    const enum verdict verdict = schema_commit_ready(sim, &claim, error);
    if (verdict == VERDICT_OK) {
        oracle_before(sim, call->dead, call->request.flip, FLIP_ACTION_OPEN);
        oracle_opened(sim, call->request.flip, strand->at, strand->database);
        strand->open = true;
    }
    return verdict;
}

static const struct step open_steps[] = {{.name = "commit: opens", .run = commit_ready}};

/* Open here and not there is for recovery to sort out as much as a lost reply is. */
static bool open_ended(struct sim *sim, struct call *call)
{
    const bool failed = scripts_any_failed(call);
    for (unsigned d = 0; d < DATABASES; d++) {
        struct strand *strand = &call->strands[call->request.side][d];
        sim->my->target_open[d] |= strand->open;
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
        oracle_before(sim, call->dead, call->request.flip, FLIP_ACTION_REOPEN_SOURCE);
    }
    return verdict;
}

static bool target_has_no_transaction(const struct sim *sim, const struct strand *strand)
{
    const enum side target = side_other(strand->side);
    const struct ready *ready = &sim->clusters[target].databases[strand->database].ready;
    return !(ready->open && sim->my->connected[target] && ready->connection == sim->my->connection[target]);
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

/* --- requests --- */

enum on { ON_TARGET, ON_SOURCE, ON_BOTH }; /* request.side is the target */

struct stage {
    const struct step *steps;
    unsigned count;
    enum on on;
    bool once;                                         /* for the whole cluster */
    bool (*ended)(struct sim *sim, struct call *call); /* looks at what came of it */
};

struct plan {
    enum flip_action_kind action;
    bool promise;    /* TURN: with it, or without */
    bool odd;        /* TURN with it: names and stream are begun at once, and either may be first */
    bool phase;      /* of a flip: one at a time */
    bool takes_over; /* the phase that runs is aborted */
    bool forgives;   /* what its cleanup rolled back is no longer uncertain */
    struct stage stages[3];
    struct stage cleanup; /* if it fails */
};

#define NAMES_STAGE                                                                                          \
    {                                                                                                        \
        .steps = scripts_names_steps, .count = 2, .on = ON_BOTH, .once = true, .ended = scripts_names_ended  \
    }
#define FOLLOW_STAGE                                                                                         \
    {                                                                                                        \
        .steps = scripts_follow_steps, .count = SCRIPTS_FOLLOW_STEPS, .on = ON_SOURCE                        \
    }
#define PROOF_STAGE                                                                                          \
    {                                                                                                        \
        .steps = scripts_proof_steps, .count = SCRIPTS_PROOF_STEPS, .on = ON_SOURCE                          \
    }

static const struct plan plans[] = {
    {.action = FLIP_ACTION_PROBE, .stages = {{STEPS_OF(probe_steps), .on = ON_TARGET}}},
    {.action = FLIP_ACTION_FENCE,
     .phase = true,
     .stages = {{STEPS_OF(fence_steps), .on = ON_SOURCE, .ended = fence_compared}}},
    {.action = FLIP_ACTION_CATCHUP, .phase = true, .stages = {{STEPS_OF(catchup_steps), .on = ON_TARGET}}},
    {.action = FLIP_ACTION_READY,
     .phase = true,
     .forgives = true,
     .stages = {{STEPS_OF(ready_steps), .on = ON_TARGET, .ended = ready_ended}},
     .cleanup = {STEPS_OF(rollback_steps), .on = ON_TARGET}},
    {.action = FLIP_ACTION_READY_ALONE,
     .phase = true,
     .forgives = true,
     .stages = {{STEPS_OF(ready_steps), .on = ON_TARGET, .ended = ready_ended}},
     .cleanup = {STEPS_OF(rollback_steps), .on = ON_TARGET}},
    {.action = FLIP_ACTION_OPEN,
     .phase = true,
     .stages = {{STEPS_OF(open_steps), .on = ON_TARGET, .ended = open_ended}}},
    {.action = FLIP_ACTION_UNDO,
     .phase = true,
     .takes_over = true,
     .stages = {{STEPS_OF(undo_steps), .on = ON_SOURCE}}},
    {.action = FLIP_ACTION_REOPEN_SOURCE,
     .phase = true,
     .takes_over = true,
     .stages = {{STEPS_OF(reopen_steps), .on = ON_SOURCE}}},
    {.action = FLIP_ACTION_TURN,
     .phase = true,
     .stages = {NAMES_STAGE, {.steps = scripts_turn_steps, .count = SCRIPTS_TURN_STEPS, .on = ON_SOURCE}}},
    {.action = FLIP_ACTION_TURN,
     .promise = true,
     .phase = true,
     .stages = {NAMES_STAGE, FOLLOW_STAGE, PROOF_STAGE},
     .cleanup = {.steps = scripts_unname_steps, .count = 1, .on = ON_TARGET, .once = true}},
    {.action = FLIP_ACTION_TURN,
     .promise = true,
     .odd = true,
     .phase = true,
     .stages = {FOLLOW_STAGE, NAMES_STAGE, PROOF_STAGE},
     .cleanup = {.steps = scripts_unname_steps, .count = 1, .on = ON_TARGET, .once = true}},
    {.action = FLIP_ACTION_FENCE_ON_CONTACT,
     .phase = true,
     .stages = {{.steps = scripts_contact_steps, .count = SCRIPTS_CONTACT_STEPS, .on = ON_TARGET},
                {.steps = scripts_unname_steps, .count = 1, .on = ON_TARGET, .once = true}}},
    {.action = FLIP_ACTION_NAMES, .stages = {NAMES_STAGE}},
    {.action = FLIP_ACTION_NAMES_AHEAD,
     .stages = {{.steps = scripts_names_ahead_steps, .count = 2, .on = ON_TARGET, .once = true}}},
    {.action = FLIP_ACTION_PROMISE,
     .promise = true,
     .stages = {NAMES_STAGE,
                {.steps = scripts_promise_steps, .count = SCRIPTS_PROMISE_STEPS, .on = ON_SOURCE}}},
    {.action = FLIP_ACTION_CUT_OFF,
     .phase = true,
     .stages = {{.steps = scripts_cut_off_steps, .count = SCRIPTS_CUT_OFF_STEPS, .on = ON_TARGET}}},
    {.action = FLIP_ACTION_REATTACH,
     .phase = true,
     .takes_over = true,
     .stages = {{.steps = scripts_reattach_steps, .count = 1, .on = ON_TARGET}}},
    {.action = FLIP_ACTION_ADOPT,
     .phase = true,
     .takes_over = true,
     .stages = {{.steps = scripts_adopt_steps, .count = SCRIPTS_ADOPT_STEPS, .on = ON_TARGET}}},
};

enum { CLEANUP_US = 1 * SIM_SECOND };

static bool stage_ended(struct sim *sim, struct call *call);

static void run_stage(struct sim *sim, struct call *call, const struct stage *stage)
{
    const unsigned target = 1U << call->request.side;
    const struct script script = {.steps = stage->steps,
                                  .count = stage->count,
                                  .sides = stage->on == ON_BOTH     ? BLUE | GREEN
                                           : stage->on == ON_TARGET ? target
                                                                    : (BLUE | GREEN) - target,
                                  .once = stage->once,
                                  .then = stage_ended};
    call_run(sim, call, &script);
}

static bool stage_ended(struct sim *sim, struct call *call)
{
    const struct plan *plan = call->plan;
    if (call->cleans) {
        call_forget(call);
        return false;
    }
    const struct stage *stage = &plan->stages[call->stage];
    if (stage->ended != NULL) {
        (void)stage->ended(sim, call);
    }
    if (call->aborted) {
        return false;
    }
    if (scripts_any_failed(call)) {
        call_collect(call);
        call->uncertain = call->uncertain && !plan->forgives;
        if (plan->cleanup.steps == NULL) {
            return false;
        }
        call->cleans = true;
        call_extend(sim, call, CLEANUP_US);
        run_stage(sim, call, &plan->cleanup);
        return true;
    }
    if (sim->now_us >= call->deadline_us) {
        (void)error_set(&call->error, ERROR_TIMEOUT, "not in time");
        return false;
    }
    if (++call->stage == ARRAY_LENGTH(plan->stages) || plan->stages[call->stage].steps == NULL) {
        return false;
    }
    run_stage(sim, call, &plan->stages[call->stage]);
    return true;
}

static const struct plan *plan_of(const struct flip_request *request)
{
    const bool odd = request->promise && request->ticket % 2 != 0;
    for (size_t i = 0; i < ARRAY_LENGTH(plans); i++) {
        if (plans[i].action == request->kind &&
            (request->kind != FLIP_ACTION_TURN ||
             (plans[i].promise == request->promise && plans[i].odd == odd))) {
            return &plans[i];
        }
    }
    return NULL;
}

/* True: it is refused, or waits until the phase that it takes over from has ended. */
static bool is_busy(struct sim *sim, const struct plan *plan, const struct flip_request *request)
{
    struct error busy;
    if (!plan->phase || sim->my->phase_call == 0) {
        return false;
    }
    if (plan->takes_over && !sim->my->undo_waits) {
        sim->my->undo = *request;
        sim->my->undo_waits = true;
        call_abort(sim, call_of(sim, sim->my->phase_call));
        return true;
    }
    (void)error_set(&busy, ERROR_FLIP_RUNNING, "another phase of a flip is running");
    ports_answer(sim, request->ticket, false, false, &busy, NULL);
    return true;
}

void scripts_begin(struct sim *sim, const struct flip_request *request)
{
    const struct plan *plan = plan_of(request);
    if (sim->my->deposed) {
        struct error stale;
        (void)error_set(&stale, ERROR_STALE, "another controller owns the pair");
        ports_answer(sim, request->ticket, false, false, &stale, NULL);
        return;
    }
    if (request->kind == FLIP_ACTION_LEARN) {
        call_run(sim, call_new(sim, request, sim->now_us + 3 * SIM_SECOND), &scripts_learn);
        return;
    }
    if (plan == NULL) {
        oracle_broke(sim, "nobody knows how to carry out %s", flip_action_name(request->kind));
        return;
    }
    if (is_busy(sim, plan, request)) {
        return;
    }
    if (request->kind == FLIP_ACTION_FENCE || request->kind == FLIP_ACTION_READY ||
        request->kind == FLIP_ACTION_READY_ALONE) {
        memset(sim->my->target_open, 0, sizeof sim->my->target_open);
    }
    const bool contact = request->kind == FLIP_ACTION_FENCE_ON_CONTACT;
    struct call *call =
        call_new(sim, request, contact ? sim->now_us + 10 * SIM_SECOND : request->deadline_us);
    call->plan = plan;
    if (plan->phase) {
        call->phase = true;
        sim->my->phase_call = call->life;
        sampler_rest(sim, call->deadline_us);
    }
    run_stage(sim, call, &plan->stages[0]);
}

void scripts_phase_over(struct sim *sim)
{
    if (sim->my->undo_waits && sim->my->running) {
        sim->my->undo_waits = false;
        const struct flip_request request = sim->my->undo;
        scripts_begin(sim, &request);
    }
}

/* What is told to the sampler when a call ends. */
void scripts_finish(struct sim *sim, struct call *call)
{
    const bool ok = call->error.code == ERROR_NONE;
    const enum flip_action_kind kind = call->request.kind;
    const bool wakes = kind == FLIP_ACTION_UNDO || kind == FLIP_ACTION_REOPEN_SOURCE ||
                       kind == FLIP_ACTION_REATTACH || kind == FLIP_ACTION_ADOPT;
    if (call->phase && (!ok || wakes)) {
        sampler_rest(sim, 0);
    }
    if (ok && kind == FLIP_ACTION_UNDO) {
        sampler_set_active(sim, side_other(call->request.side), call->request.epoch - 1);
    } else if (ok && kind == FLIP_ACTION_REOPEN_SOURCE) {
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
