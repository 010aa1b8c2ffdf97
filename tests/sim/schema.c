/*
 * What the functions of the schema `switchback` do in one database (replication/schema.sql, schema_flip.sql):
 * each begins with claim(), which locks the state row and refuses whoever isn't the owner.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>

enum { FENCE_QUEUE_US = 2 * SIM_MS };

static struct database *database_of(struct sim *sim, const struct claim *claim)
{
    return &sim->clusters[claim->side].databases[claim->database];
}

static enum verdict stale(struct error *error, const struct claim *claim, const char *why)
{
    (void)error_set(error, ERROR_STALE, "%s/%u: %s", side_name(claim->side), claim->database, why);
    return VERDICT_FAILED;
}

/* A commit that changes only the catalog. */
static struct catalog *change(struct sim *sim, const struct claim *claim)
{
    (void)cluster_append(sim, claim->side, claim->database, WAL_CATALOG, 0, false);
    return &database_of(sim, claim)->now;
}

void schema_end_ready(struct sim *sim, enum side side, unsigned database)
{
    sim->clusters[side].databases[database].ready.open = false;
}

/*
 * A side that was away when ownership was taken has a lower number: it is given ours as soon as that is seen,
 * after what others have there was ended (replication/own.c, own_side).
 */
bool schema_owned(struct sim *sim, const struct claim *claim)
{
    struct database *database = database_of(sim, claim);
    if (database->now.owner < claim->owner) {
        call_end_backends(sim, claim->side, claim->connection);
        change(sim, claim)->owner = claim->owner;
        cluster_flush(sim, claim->side);
    }
    if (database->now.owner > claim->owner) {
        sim->my->owner_met = database->now.owner;
    }
    return database->now.owner == claim->owner;
}

enum verdict schema_claim(struct sim *sim, const struct claim *claim, struct error *error)
{
    struct database *database = database_of(sim, claim);
    if (database->ready.open && database->ready.connection != claim->connection) {
        return VERDICT_BLOCKED; /* by the state row, which the opening transaction has locked */
    }
    database->ready.open = false; /* left open on this connection: rolled back first */
    if (!schema_owned(sim, claim)) {
        return stale(error, claim, "owned by another controller");
    }
    return VERDICT_OK;
}

/* --- markers --- */

static void mark(struct sim *sim, const struct claim *claim, const struct marker *marker)
{
    struct cluster *cluster = &sim->clusters[claim->side];
    (void)cluster_append(sim, claim->side, claim->database, WAL_ROWS, 0, true);
    cluster->wal[cluster->end - 1].marker = *marker;
    cluster->databases[claim->database].now.markers[claim->side] = *marker;
}

enum verdict schema_beat(struct sim *sim, const struct claim *claim, bool check, struct error *error)
{
    const enum verdict verdict = schema_claim(sim, claim, error);
    const struct catalog *now = &database_of(sim, claim)->now;
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (now->standing != STANDING_ACTIVE || now->fenced_for != 0 || (!check && now->epoch != claim->epoch)) {
        return stale(error, claim, "not active");
    }
    struct marker marker = now->markers[claim->side];
    marker.check += check;
    marker.beat += !check;
    marker.beat_sequence = database_of(sim, claim)->sequence;
    mark(sim, claim, &marker);
    cluster_flush(sim, claim->side);
    return VERDICT_OK;
}

/* --- the flip, on its source --- */

enum verdict schema_raise_fence(struct sim *sim, const struct claim *claim, struct error *error)
{
    struct database *database = database_of(sim, claim);
    const struct catalog *now = &database->now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (now->standing != STANDING_ACTIVE || now->epoch != claim->epoch ||
        (now->fenced_for != 0 && now->fenced_for != claim->flip) || now->aborted >= claim->flip) {
        return stale(error, claim, "can't be fenced");
    }
    if (database->prepared) {
        (void)error_set(error, ERROR_CHECK_FAILED, "a transaction is prepared");
        return VERDICT_FAILED;
    }
    if (cluster_has_writers(sim, claim->side, claim->database)) {
        database->fence_waits_us = sim->now_us + FENCE_QUEUE_US; /* later writers queue behind it */
        return VERDICT_BLOCKED;                                  /* its locks wait for writers in flight */
    }
    if ((now->managed & ~now->published) != 0) {
        (void)error_set(error, ERROR_NOT_PREPARED, "a table isn't published");
        return VERDICT_FAILED;
    }
    struct catalog *changed = change(sim, claim);
    changed->fence = true;
    changed->fenced_for = claim->flip;
    return VERDICT_OK;
}

enum verdict schema_seal(struct sim *sim, const struct claim *claim, struct error *error)
{
    struct database *database = database_of(sim, claim);
    writers_end(sim, claim->side, claim->database); /* foreign sessions */
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (database->now.fenced_for != claim->flip) {
        return stale(error, claim, "not fenced for this flip");
    }
    if (cluster_has_writers(sim, claim->side, claim->database)) {
        return VERDICT_BLOCKED; /* a transaction is still under way */
    }
    if (database->prepared || (database->now.managed & ~database->now.published) != 0) {
        (void)error_set(error, ERROR_CHECK_FAILED, "a prepared transaction or a table came meanwhile");
        return VERDICT_FAILED;
    }
    struct marker marker = database->now.markers[claim->side];
    marker.closing = claim->flip;
    marker.closing_sequence = database->sequence;
    mark(sim, claim, &marker);
    cluster_flush(sim, claim->side);
    return VERDICT_OK;
}

enum verdict schema_lower_fence(struct sim *sim, const struct claim *claim, struct error *error)
{
    const struct catalog *now = &database_of(sim, claim)->now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (now->standing != STANDING_ACTIVE || now->epoch != claim->epoch ||
        (now->fenced_for != 0 && now->fenced_for != claim->flip)) {
        return stale(error, claim, "this flip can't be undone");
    }
    struct catalog *changed = change(sim, claim);
    changed->fence = false;
    changed->fenced_for = 0;
    changed->aborted = claim->flip > changed->aborted ? claim->flip : changed->aborted;
    cluster_flush(sim, claim->side);
    return VERDICT_OK;
}

enum verdict schema_reopen(struct sim *sim, const struct claim *claim, struct error *error)
{
    const struct catalog *now = &database_of(sim, claim)->now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (now->standing == STANDING_ACTIVE && now->epoch == claim->epoch + 2 && now->fenced_for == 0) {
        return VERDICT_OK;
    }
    if (now->standing != STANDING_ACTIVE || now->epoch != claim->epoch || now->fenced_for != claim->flip) {
        return stale(error, claim, "can't be reopened");
    }
    struct catalog *changed = change(sim, claim);
    changed->fence = false;
    changed->fenced_for = 0;
    changed->epoch = claim->epoch + 2;
    changed->aborted = claim->flip > changed->aborted ? claim->flip : changed->aborted;
    cluster_flush(sim, claim->side);
    return VERDICT_OK;
}

/* The start is L of the new active side; the origin never moves back. */
enum verdict schema_follow(struct sim *sim, const struct claim *claim, position start, struct error *error)
{
    const struct catalog *now = &database_of(sim, claim)->now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    const bool again = now->standing == STANDING_STANDBY && now->epoch == claim->epoch + 1;
    const bool first =
        now->standing == STANDING_ACTIVE && now->epoch == claim->epoch && now->fenced_for == claim->flip;
    if (!again && !first) {
        return stale(error, claim, "can't follow");
    }
    const bool enable = !now->subscribed;
    struct catalog *changed = change(sim, claim);
    if (enable && changed->origin < start) {
        changed->origin = start;
    }
    changed->subscribed = true;
    changed->standing = STANDING_STANDBY;
    changed->epoch = claim->epoch + 1;
    changed->fenced_for = 0;
    cluster_flush(sim, claim->side);
    stream_launch(sim, claim->side, claim->database);
    return VERDICT_OK;
}

/* --- the flip, on its target --- */

enum verdict schema_make_ready(struct sim *sim, const struct claim *claim, bool *open, struct error *error)
{
    struct database *database = database_of(sim, claim);
    const struct catalog *now = &database->now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    *open =
        now->standing == STANDING_ACTIVE && now->epoch == claim->epoch + 1 && now->opened_for == claim->flip;
    if (*open) {
        return VERDICT_OK; /* never twice */
    }
    if (now->standing != STANDING_STANDBY || now->epoch > claim->epoch) {
        return stale(error, claim, "can't be opened");
    }
    const struct marker *closing = &now->markers[side_other(claim->side)];
    if (closing->closing < claim->flip) {
        (void)error_set(error, ERROR_NOT_IN_SYNC, "the closing marker isn't here");
        return VERDICT_FAILED;
    }
    if (closing->closing > claim->flip) {
        return stale(error, claim, "the closing marker of a later flip is here");
    }
    struct catalog opened = *now;
    opened.subscribed = false;
    opened.fence = false;
    opened.standing = STANDING_ACTIVE;
    opened.epoch = claim->epoch + 1;
    opened.fenced_for = 0;
    opened.opened_for = claim->flip;
    opened.start = sim->clusters[claim->side].end;
    if (database->sequence < closing->closing_sequence) {
        database->sequence = closing->closing_sequence; /* setval() passes every transaction */
    }
    database->ready =
        (struct ready){.open = true, .flip = claim->flip, .connection = claim->connection, .opened = opened};
    return VERDICT_OK;
}

/* The state row and the triggers were locked meanwhile; what the apply worker did beside it stays. */
enum verdict schema_commit_ready(struct sim *sim, const struct claim *claim, struct error *error)
{
    struct database *database = database_of(sim, claim);
    const struct ready ready = database->ready;
    if (!ready.open || ready.connection != claim->connection || ready.flip != claim->flip) {
        return stale(error, claim, "the opening transaction is gone");
    }
    const struct catalog now = database->now;
    struct catalog *changed = change(sim, claim);
    *changed = ready.opened;
    changed->origin = now.origin;
    changed->markers[SIDE_BLUE] = now.markers[SIDE_BLUE];
    changed->markers[SIDE_GREEN] = now.markers[SIDE_GREEN];
    changed->managed = now.managed;
    changed->published = now.published;
    database->ready.open = false;
    cluster_flush(sim, claim->side);
    stream_disable(sim, claim->side, claim->database);
    return VERDICT_OK;
}

/* --- a side that comes back --- */

enum verdict schema_fence_left_behind(struct sim *sim, const struct claim *claim, uint64_t opened_for,
                                      bool *compare, struct error *error)
{
    const struct catalog *now = &database_of(sim, claim)->now;
    const uint64_t pair_epoch = claim->epoch;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (now->epoch > pair_epoch || (now->epoch == pair_epoch && now->standing == STANDING_ACTIVE)) {
        (void)error_set(error, ERROR_UNDECIDED, "it is no lower than the pair");
        return VERDICT_FAILED;
    }
    sessions_end(sim, claim->side, claim->database); /* what waits there must not be acknowledged any more */
    *compare = false;
    struct catalog *changed = change(sim, claim);
    changed->fence = true;
    const bool turns = changed->standing == STANDING_ACTIVE && changed->fenced_for != 0 &&
                       changed->epoch == pair_epoch - 1 &&
                       (opened_for == 0 || opened_for == changed->fenced_for);
    if (changed->standing == STANDING_STANDBY) {
        changed->epoch = pair_epoch;
        changed->fenced_for = 0;
    } else if (!turns) {
        changed->standing = STANDING_DIVERGED;
        changed->fenced_for = 0;
        *compare = true;
    }
    cluster_flush(sim, claim->side);
    return VERDICT_OK;
}

/* Did it take changes, other than markers, that the active side lacks? */
bool schema_holds_more(const struct sim *sim, const struct claim *claim, position has)
{
    const struct cluster *cluster = &sim->clusters[claim->side];
    const struct catalog *now = &cluster->databases[claim->database].now;
    const position since = now->start > has ? now->start : has;
    for (position at = since; at < cluster->end; at++) {
        const struct wal_record *record = &cluster->wal[at];
        if (record->database == claim->database && record->transaction != 0) {
            return true;
        }
    }
    return since == 0;
}

static void follow_from(struct sim *sim, const struct claim *claim, struct catalog *changed, position start)
{
    if (!changed->subscribed && changed->origin < start) {
        changed->origin = start; /* it never moves back */
    }
    changed->subscribed = true;
    stream_launch(sim, claim->side, claim->database);
}

enum verdict schema_rejoin_unchanged(struct sim *sim, const struct claim *claim, position start,
                                     struct error *error)
{
    const struct catalog *now = &database_of(sim, claim)->now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (now->standing != STANDING_DIVERGED || now->epoch >= claim->epoch) {
        return stale(error, claim, "can't rejoin");
    }
    struct catalog *changed = change(sim, claim);
    follow_from(sim, claim, changed, start);
    changed->standing = STANDING_STANDBY;
    changed->epoch = claim->epoch;
    changed->fenced_for = 0;
    cluster_flush(sim, claim->side);
    return VERDICT_OK;
}
