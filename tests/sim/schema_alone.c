/* What the functions of schema_promise.sql do: the promise, the takeover from a dead side, an operator's
 * word. */
#include "tests/sim/sim.h"

enum { SEQUENCE_MARGIN = 1000 };

static enum verdict stale(struct error *error, const struct claim *claim, const char *why)
{
    (void)error_set(error, ERROR_STALE, "%s/%u: %s", side_name(claim->side), claim->database, why);
    return VERDICT_FAILED;
}

static struct catalog *change(struct sim *sim, const struct claim *claim)
{
    (void)cluster_append(sim, claim->side, claim->database, WAL_CATALOG, 0, false);
    return &sim->clusters[claim->side].databases[claim->database].now;
}

/* A marker whose commit waits like any other. Returns where it stands. */
position schema_promise_marker(struct sim *sim, enum side side, unsigned database, uint64_t *n)
{
    struct cluster *cluster = &sim->clusters[side];
    struct marker marker = cluster->databases[database].now.markers[side];
    *n = ++marker.promise;
    const position commit = cluster_append(sim, side, database, WAL_ROWS, 0, true);
    cluster->wal[commit - 1].marker = marker;
    cluster->databases[database].now.markers[side] = marker;
    cluster_flush(sim, side);
    return commit;
}

/* --- takeover --- */

static bool opened_by(const struct catalog *now, const struct claim *claim)
{
    return now->standing == STANDING_ACTIVE && now->epoch == claim->epoch + 1 &&
           now->opened_for == claim->flip;
}

enum verdict schema_cut_off(struct sim *sim, const struct claim *claim, struct error *error)
{
    const struct catalog *now = &sim->clusters[claim->side].databases[claim->database].now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK || opened_by(now, claim)) {
        return verdict;
    }
    if (now->standing != STANDING_STANDBY || now->epoch > claim->epoch || now->aborted >= claim->flip) {
        return stale(error, claim, "can't take over");
    }
    change(sim, claim)->subscribed = false;
    cluster_flush(sim, claim->side);
    stream_disable(sim, claim->side, claim->database);
    return VERDICT_OK;
}

enum verdict schema_reattach(struct sim *sim, const struct claim *claim, struct error *error)
{
    const struct catalog *now = &sim->clusters[claim->side].databases[claim->database].now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (now->standing != STANDING_STANDBY || now->epoch > claim->epoch) {
        return stale(error, claim, "can't follow again");
    }
    struct catalog *changed = change(sim, claim);
    changed->aborted = claim->flip > changed->aborted ? claim->flip : changed->aborted;
    changed->subscribed = true;
    cluster_flush(sim, claim->side);
    stream_launch(sim, claim->side, claim->database);
    return VERDICT_OK;
}

/* Beyond all that the other side can have given out. */
static int64_t sequence_alone(const struct database *database, enum side peer)
{
    const int64_t sampled = database->now.markers[peer].beat_sequence;
    return (sampled > database->sequence ? sampled : database->sequence) + SEQUENCE_MARGIN;
}

enum verdict schema_make_ready_alone(struct sim *sim, const struct claim *claim, bool *open,
                                     struct error *error)
{
    struct database *database = &sim->clusters[claim->side].databases[claim->database];
    const struct catalog *now = &database->now;
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    *open = opened_by(now, claim);
    if (*open) {
        return VERDICT_OK;
    }
    if (now->standing != STANDING_STANDBY || now->epoch > claim->epoch || now->aborted >= claim->flip) {
        return stale(error, claim, "can't be opened alone");
    }
    if (now->subscribed || database->worker.runs) {
        (void)error_set(error, ERROR_CHECK_FAILED, "the stream is not cut off");
        return VERDICT_FAILED;
    }
    database->sequence = sequence_alone(database, side_other(claim->side));
    struct ready ready = {.open = true, .flip = claim->flip, .connection = claim->connection, .opened = *now};
    ready.opened.fence = false;
    ready.opened.standing = STANDING_ACTIVE;
    ready.opened.epoch = claim->epoch + 1;
    ready.opened.fenced_for = 0;
    ready.opened.opened_for = claim->flip;
    ready.opened.start = sim->clusters[claim->side].end;
    database->ready = ready;
    return VERDICT_OK;
}

/* --- an operator's word --- */

enum verdict schema_adopt(struct sim *sim, const struct claim *claim, struct error *error)
{
    struct database *database = &sim->clusters[claim->side].databases[claim->database];
    const enum verdict verdict = schema_claim(sim, claim, error);
    if (verdict != VERDICT_OK) {
        return verdict;
    }
    if (database->now.epoch > claim->epoch) {
        return stale(error, claim, "is at a higher epoch already");
    }
    const bool active = database->now.standing == STANDING_ACTIVE;
    const bool keeps = database->now.standing != STANDING_STANDBY && database->now.start != 0;
    struct catalog *changed = change(sim, claim);
    if (!active) {
        database->sequence = sequence_alone(database, side_other(claim->side));
    }
    changed->subscribed = false;
    changed->fence = false;
    changed->standing = STANDING_ACTIVE;
    changed->epoch = claim->epoch;
    changed->aborted = changed->fenced_for > changed->aborted ? changed->fenced_for : changed->aborted;
    changed->fenced_for = 0;
    changed->start = keeps ? changed->start : sim->clusters[claim->side].end;
    cluster_flush(sim, claim->side);
    stream_disable(sim, claim->side, claim->database);
    return VERDICT_OK;
}
