/* prepare, step 4: who the sides are. What stands in their state rows decides; a first run makes it up. */
#include "replication/prepare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state_row {
    bool found;
    char pair[PAIR_SIZE], standing[16], side[16];
    uint64_t epoch, owner;
    bool fenced_for; /* a flip is, or was, under way */
    bool same_cluster;
    bool gap; /* rows of the other side are missing */
};

static bool read_row(struct blocking *blocking, struct state_row *row, struct error *error)
{
    *row = (struct state_row){.found = false};
    char *exists =
        blocking_value(blocking, error, "select to_regclass('switchback.state') is not null", 0, NULL);
    if (exists == NULL) {
        return false;
    }
    bool installed = *exists == 't';
    free(exists);
    if (!installed) {
        return true;
    }
    PGresult *result = blocking_query(
        blocking, error,
        "select pair, standing, side, epoch, owner, fenced_for is not null, system_identifier = (select"
        " c.system_identifier::text from pg_control_system() c) and timeline = ('x' ||"
        " substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,"
        " coalesce((to_jsonb(t) ->> 'gap') is not null, false) from switchback.state t",
        0, NULL);
    if (result == NULL) {
        return false;
    }
    if (PQntuples(result) == 1) {
        row->found = true;
        (void)snprintf(row->pair, sizeof row->pair, "%s", row_text(result, 0, 0));
        (void)snprintf(row->standing, sizeof row->standing, "%s", row_text(result, 0, 1));
        (void)snprintf(row->side, sizeof row->side, "%s", row_text(result, 0, 2));
        row->epoch = (uint64_t)row_number(result, 0, 3);
        row->owner = (uint64_t)row_number(result, 0, 4);
        row->fenced_for = row_truth(result, 0, 5);
        row->same_cluster = row_truth(result, 0, 6);
        row->gap = row_truth(result, 0, 7);
    }
    PQclear(result);
    return true;
}

/* A row that contradicts what we were asked to do: refusing is all that is safe. */
static bool judge_row(const struct prepare *prepare, const struct blocking *blocking,
                      const struct state_row *row, struct error *error)
{
    const char *side = side_name(blocking->side);
    const char *wanted = blocking->side == prepare->active ? "active" : "standby";
    if (strcmp(row->side, side) != 0) {
        error_set(error, ERROR_CHECK_FAILED, "database %s: this cluster is %s of its pair, not %s",
                  blocking->database, row->side, side);
        return error_remedy(error, "correct `sides`: the addresses seem to be exchanged");
    }
    if (*prepare->pair != '\0' && strcmp(row->pair, prepare->pair) != 0) {
        error_set(error, ERROR_CHECK_FAILED, "%s, database %s belongs to another pair (%s, not %s)", side,
                  blocking->database, row->pair, prepare->pair);
        return error_remedy(error,
                            "drop its database there, or run finalize --everything for its own pair first");
    }
    if (row->owner > prepare->owner) {
        error_set(error, ERROR_STALE, "%s, database %s is owned by controller %" PRIu64 ", not %" PRIu64,
                  side, blocking->database, row->owner, prepare->owner);
        return error_remedy(error, "switchback status tells whether another daemon has taken the pair: stop "
                                   "one of the two, then prepare again");
    }
    if (row->fenced_for) {
        return error_set(error, ERROR_FLIP_RUNNING, "%s, database %s is fenced for a flip that hasn't ended",
                         side, blocking->database);
    }
    if (strcmp(row->standing, wanted) != 0) {
        error_set(error, ERROR_UNDECIDED, "%s, database %s is recorded as %s, not as %s", side,
                  blocking->database, row->standing, wanted);
        return error_remedy(error,
                            strcmp(row->standing, "diverged") == 0
                                ? "it may hold commits that %s lacks: compare, then drop the managed "
                                  "databases there and prepare anew"
                                : "switchback status says which side is active; if a flip stopped half "
                                  "way, the daemon ends it first (other side: %s)",
                            side_name(side_other(blocking->side)));
    }
    if (!row->same_cluster && blocking->side == prepare->standby) {
        error_set(
            error, ERROR_UNDECIDED,
            "%s, database %s was restored, failed over or comes from another cluster (its timeline or system "
            "identifier is a new one): its rows can't be trusted to be ours",
            side, blocking->database);
        return error_remedy(error, "drop the managed databases on %s, then prepare anew", side);
    }
    return true;
}

static bool take_row(struct prepare *prepare, struct prepare_database *database, enum side side,
                     struct error *error)
{
    struct state_row row;
    if (!read_row(database->sides[side], &row, error)) {
        return false;
    }
    database->installed[side] = row.found;
    if (!row.found) {
        return true;
    }
    if (!judge_row(prepare, database->sides[side], &row, error)) {
        return false;
    }
    /* The active side was restored or failed over: its slots didn't come along. Or what the standby has isn't
     * all. */
    database->rebuild = database->rebuild || !row.same_cluster || (row.gap && side == prepare->standby);
    (void)snprintf(prepare->pair, sizeof prepare->pair, "%s", row.pair);
    if (row.epoch > prepare->epoch) {
        prepare->epoch = row.epoch;
    }
    return true;
}

static bool read_heartbeat(const struct prepare *prepare, struct blocking *side, int64_t *n,
                           struct error *error)
{
    const char *const parameters[] = {side_name(prepare->active)};
    char *value = blocking_value(side, error,
                                 "select coalesce(max(n), 0) from switchback.marker where side = $1 and"
                                 " purpose = 'heartbeat'",
                                 1, parameters);
    if (value == NULL) {
        return false;
    }
    *n = strtoll(value, NULL, 10);
    free(value);
    return true;
}

/* The standby has heard what the active side never said: that one is older than it was, and the stream would
 * skip what it does until it is where it had been. */
static bool find_lost_time(const struct prepare *prepare, struct prepare_database *database,
                           struct error *error)
{
    int64_t heard = 0, said = 0;
    if (!database->installed[prepare->active] || !database->installed[prepare->standby]) {
        return true;
    }
    if (!read_heartbeat(prepare, database->sides[prepare->standby], &heard, error) ||
        !read_heartbeat(prepare, database->sides[prepare->active], &said, error)) {
        return false;
    }
    database->rebuild = database->rebuild || heard > said;
    return true;
}

bool prepare_state(struct prepare *prepare, struct error *error)
{
    prepare->epoch = 1;
    for (size_t i = 0; i < prepare->database_count; i++) {
        if (!take_row(prepare, &prepare->databases[i], prepare->active, error) ||
            !take_row(prepare, &prepare->databases[i], prepare->standby, error) ||
            !find_lost_time(prepare, &prepare->databases[i], error)) {
            return false;
        }
    }
    if (*prepare->pair == '\0') {
        char *made =
            blocking_value(prepare->clusters[prepare->active], error, "select gen_random_uuid()", 0, NULL);
        if (made == NULL) {
            return false;
        }
        (void)snprintf(prepare->pair, sizeof prepare->pair, "%s", made);
        free(made);
    }
    return true;
}
