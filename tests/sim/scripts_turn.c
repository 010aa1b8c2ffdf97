/* The turn, with or without a promise; names, and the promise regained (replication/flip_turn.c, promise.c).
 */
#include "tests/sim/scripts.h"

/* --- the reverse stream: strands run on the old source --- */

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
    return active ? not_yet(error, ERROR_NOT_IN_SYNC, "the old stream has not ended") : VERDICT_OK;
}

static enum verdict follow(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    return schema_follow(sim, &claim, strand->start, error);
}

static enum verdict see_stream(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    return stream_runs(sim, strand->side, strand->database)
               ? VERDICT_OK
               : not_yet(error, ERROR_NOT_IN_SYNC, "the way back isn't streaming");
}

/* --- names: one strand a side, in two statements --- */

static enum verdict read_names(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct catalog *now = &database_at(sim, strand)->now;
    const bool active = strand->at == call->request.side;
    const struct claim claim = call_claim(sim, call, strand);
    if (!schema_owned(sim, &claim)) {
        (void)error_set(error, ERROR_STALE, "it is owned by another controller");
        return VERDICT_FAILED;
    }
    const bool ours =
        now->standing == STANDING_ACTIVE && now->epoch == call->request.epoch && now->fenced_for == 0;
    const bool later = now->standing == STANDING_ACTIVE && now->epoch >= call->request.epoch;
    if ((active && call->request.promise && !ours) || (!active && later)) {
        (void)error_set(error, ERROR_STALE, "its standing isn't what its names are for");
        return VERDICT_FAILED;
    }
    /* One that was left behind, and is open still: sessions that wait there are ended before its names go. */
    const bool behind = !active && now->standing == STANDING_ACTIVE && now->fenced_for == 0;
    strand->skips = behind || sim->clusters[strand->at].named == (active && call->request.promise);
    return VERDICT_OK;
}

static enum verdict set_names(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)error;
    cluster_set_names(sim, strand->at, strand->at == call->request.side && call->request.promise);
    return VERDICT_OK;
}

const struct step scripts_names_steps[2] = {
    {.name = "read names", .run = read_names},
    {.name = "set names", .run = set_names},
};

/* Of a standby that is about to be opened: what isn't one is left as it is. */
static enum verdict read_names_ahead(struct sim *sim, struct call *call, struct strand *strand,
                                     struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    if (!schema_owned(sim, &claim)) {
        (void)error_set(error, ERROR_STALE, "it is owned by another controller");
        return VERDICT_FAILED;
    }
    strand->skips = database_at(sim, strand)->now.standing != STANDING_STANDBY;
    return VERDICT_OK;
}

static enum verdict set_names_ahead(struct sim *sim, struct call *call, struct strand *strand,
                                    struct error *error)
{
    (void)call;
    (void)error;
    cluster_set_names(sim, strand->at, true);
    return VERDICT_OK;
}

const struct step scripts_names_ahead_steps[2] = {
    {.name = "read names", .run = read_names_ahead},
    {.name = "set names ahead", .run = set_names_ahead},
};

/* That the other side can't be reached is no failure: its names are emptied on contact. */
bool scripts_names_ended(struct sim *sim, struct call *call)
{
    struct strand *other = &call->strands[side_other(call->request.side)][0];
    (void)sim;
    other->failed = other->uncertain = false;
    return false;
}

static enum verdict unname(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    if (!schema_owned(sim, &claim)) {
        (void)error_set(error, ERROR_STALE, "it is owned by another controller");
        return VERDICT_FAILED;
    }
    cluster_set_names(sim, strand->at, false);
    return VERDICT_OK;
}

const struct step scripts_unname_steps[1] = {{.name = "empty names", .run = unname}};

/* --- the promise: a commit that waits, and returns --- */

static enum verdict confirm_at_once(struct sim *sim, struct call *call, struct strand *strand,
                                    struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    const enum verdict verdict = schema_claim(sim, &claim, error);
    if (verdict == VERDICT_OK) {
        sim->clusters[strand->at].sync_local = true;
    }
    return verdict;
}

static enum verdict probe(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct catalog *now = &database_at(sim, strand)->now;
    const struct claim claim = call_claim(sim, call, strand);
    if (!schema_owned(sim, &claim) || now->standing != STANDING_ACTIVE || now->fenced_for != 0) {
        (void)error_set(error, ERROR_STALE, "the side is not ours, or not active");
        return VERDICT_FAILED;
    }
    strand->commit = schema_promise_marker(sim, strand->at, strand->database, &strand->marker);
    if (!sim->clusters[strand->at].named) {
        return not_yet(error, ERROR_NO_PROMISE, "commits don't wait for the other side");
    }
    return VERDICT_OK; /* it is seen waiting */
}

static enum verdict returned(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    return cluster_confirmed(sim, strand->at, strand->commit)
               ? VERDICT_OK
               : not_yet(error, ERROR_NO_PROMISE, "the other side has not confirmed a commit");
}

static enum verdict synchronous(struct sim *sim, struct call *call, struct strand *strand,
                                struct error *error)
{
    (void)call;
    return sim->clusters[strand->at].named && stream_runs(sim, strand->side, strand->database)
               ? VERDICT_OK
               : not_yet(error, ERROR_NO_PROMISE, "the stream isn't synchronous");
}

static enum verdict arrived(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    if (database_at(sim, strand)->now.markers[side_other(strand->side)].promise >= strand->marker) {
        return VERDICT_OK;
    }
    (void)error_set(error, ERROR_NO_PROMISE, "a commit returned before the other side had it");
    return VERDICT_FAILED;
}

/* clang-format off */
#define READ_START  {.name = "read start point", .other = true, .run = read_start}
#define OLD_STREAM  {.name = "end old stream", .run = end_old_stream, .again_us = 5 * SIM_MS}
#define FOLLOW      {.name = "follow", .run = follow}
#define SEE_STREAM  {.name = "see stream", .other = true, .run = see_stream, .again_us = 20 * SIM_MS}
#define CONFIRM     {.name = "confirm at once", .run = confirm_at_once}
#define PROBE       {.name = "a probe waits", .other = true, .run = probe, .again_us = 5 * SIM_MS}
#define RETURNED    {.name = "the probe returns", .other = true, .run = returned, .again_us = 5 * SIM_MS}
#define SYNCHRONOUS {.name = "synchronous", .other = true, .run = synchronous, .again_us = 5 * SIM_MS}
#define ARRIVED     {.name = "the probe is here", .run = arrived}

const struct step scripts_turn_steps[] = {READ_START, OLD_STREAM, FOLLOW, SEE_STREAM};
const struct step scripts_follow_steps[] = {READ_START, OLD_STREAM, CONFIRM, FOLLOW};
const struct step scripts_proof_steps[] = {PROBE, RETURNED, SYNCHRONOUS, ARRIVED};
const struct step scripts_promise_steps[] = {CONFIRM, PROBE, RETURNED, SYNCHRONOUS, ARRIVED};
/* clang-format on */
