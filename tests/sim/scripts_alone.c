/*
 * A side that comes back (replication/contact.c), one that takes over from a dead one, and one that an
 * operator chooses (replication/takeover.c).
 */
#include "tests/sim/scripts.h"

/* --- contact --- */

static enum verdict ask_active(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct catalog *now = &database_at(sim, strand)->now;
    (void)call;
    (void)error;
    if (now->standing == STANDING_ACTIVE) {
        strand->asked = true;
        strand->opened_for = now->opened_for;
        strand->start = now->start;
        strand->has = now->origin;
    }
    return VERDICT_OK;
}

static enum verdict fence(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    struct claim claim = call_claim(sim, call, strand);
    bool compare = false;
    claim.epoch = call->request.epoch; /* the pair's */
    const enum verdict verdict = schema_fence_left_behind(sim, &claim, strand->opened_for, &compare, error);
    strand->skips = verdict == VERDICT_OK && !compare;
    return verdict;
}

/* Nobody is to hear from it any more. */
static enum verdict end_stream(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    (void)error;
    stream_end(sim, side_other(strand->at), strand->database);
    return VERDICT_OK;
}

static enum verdict compare(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)error;
    const struct claim claim = call_claim(sim, call, strand);
    strand->skips = schema_holds_more(sim, &claim, strand->has) || !strand->asked;
    return VERDICT_OK;
}

static enum verdict rejoin(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    struct claim claim = call_claim(sim, call, strand);
    claim.epoch = call->request.epoch;
    return schema_rejoin_unchanged(sim, &claim, strand->start, error);
}

const struct step scripts_contact_steps[] = {
    {.name = "ask the active side", .other = true, .tolerant = true, .run = ask_active},
    {.name = "fence what was left behind", .run = fence},
    {.name = "end its stream", .run = end_stream},
    {.name = "compare", .run = compare},
    {.name = "rejoin", .run = rejoin},
};

/* --- takeover --- */

static enum verdict apply_rest(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    const struct apply_worker *worker = &database_at(sim, strand)->worker;
    const enum side dead = side_other(strand->at);
    const bool hears = network_both_ways(sim, (enum node)strand->at, (enum node)dead);
    return !worker->runs || !hears || worker->asleep ? VERDICT_OK
                                                     : not_yet(error, ERROR_NOT_IN_SYNC, "it still applies");
}

static enum verdict cut_off(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    return schema_cut_off(sim, &claim, error);
}

static enum verdict end_worker(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    (void)call;
    (void)error;
    if (!database_at(sim, strand)->now.subscribed) {
        stream_end(sim, strand->at, strand->database);
    }
    return VERDICT_OK;
}

const struct step scripts_cut_off_steps[] = {
    {.name = "apply what came", .run = apply_rest, .again_us = 10 * SIM_MS},
    {.name = "cut off", .run = cut_off},
    {.name = "end the stream", .run = end_worker},
};

static enum verdict reattach(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    const struct claim claim = call_claim(sim, call, strand);
    return schema_reattach(sim, &claim, error);
}

const struct step scripts_reattach_steps[] = {{.name = "follow again", .run = reattach}};

/* --- an operator's word --- */

static enum verdict adopt(struct sim *sim, struct call *call, struct strand *strand, struct error *error)
{
    struct claim claim = call_claim(sim, call, strand);
    claim.epoch = call->request.epoch;
    return schema_adopt(sim, &claim, error);
}

const struct step scripts_adopt_steps[] = {
    {.name = "adopt", .run = adopt},
    {.name = "end the stream", .run = end_worker},
};
