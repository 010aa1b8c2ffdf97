/*
 * A diverged side becomes the standby again. Its stranded transactions, which no client was told of, are
 * undone by the active side's rows: the rows that they touched are deleted, so that the stream meets nothing
 * of them; the stream runs from where the active side was opened; then the rows are copied from there. What
 * is left to be copied stands in switchback.rejoining, so that a run that ended anywhere is continued by the
 * next one; until none is left the side stays diverged.
 */
#include "replication/rejoin.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/engine.h"
#include "replication/names.h"
#include "replication/sql.h"
#include "replication/stranded.h"
#include "replication/stream.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_PAUSE_US = 20000 };
static const int64_t stream_within_us = INT64_C(4) * 3600 * 1000000; /* it may be days behind */

/* --- progress, connections --- */

void rejoin_say(struct rejoin *rejoin, double fraction, const char *format, ...)
{
    struct replication_progress progress = {.fraction = fraction, .eta_us = -1};
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(progress.message, sizeof progress.message, format, arguments);
    va_end(arguments);
    (void)snprintf(progress.step, sizeof progress.step, "%s", rejoin->step);
    task_progress(rejoin->task, &progress);
}

static struct blocking *open_as_manager(struct rejoin *rejoin, enum side side, const char *database,
                                        struct error *error)
{
    struct blocking *blocking = blocking_open(rejoin->task, rejoin->brief, side, database, error);
    if (blocking != NULL && !blocking_run(blocking, error,
                                          "set session_replication_role = replica; set deadlock_timeout = "
                                          "'20ms'; set lock_timeout = '10s'")) {
        blocking_close(blocking);
        return NULL;
    }
    return blocking;
}

static void close_database(struct rejoin *rejoin)
{
    blocking_close(rejoin->sides[SIDE_BLUE]);
    blocking_close(rejoin->sides[SIDE_GREEN]);
    blocking_close(rejoin->marks);
    rejoin->sides[SIDE_BLUE] = rejoin->sides[SIDE_GREEN] = rejoin->marks = NULL;
}

static bool open_database(struct rejoin *rejoin, const char *database, struct error *error)
{
    rejoin->sides[SIDE_BLUE] = open_as_manager(rejoin, SIDE_BLUE, database, error);
    rejoin->sides[SIDE_GREEN] =
        rejoin->sides[SIDE_BLUE] == NULL ? NULL : open_as_manager(rejoin, SIDE_GREEN, database, error);
    rejoin->marks =
        rejoin->sides[SIDE_GREEN] == NULL ? NULL : open_as_manager(rejoin, rejoin->active, database, error);
    return rejoin->marks != NULL;
}

static struct blocking *other_of(const struct rejoin *rejoin)
{
    return rejoin->sides[side_other(rejoin->active)];
}

/* --- what can't be done this way --- */

static bool refuse(const struct rejoin *rejoin, struct error *error, const char *why)
{
    const struct blocking *other = other_of(rejoin);
    (void)error_set(error, ERROR_NOT_PREPARED, "%s, database %s: %s", side_name(other->side), other->database,
                    why);
    return error_remedy(error, "drop the managed databases on %s, then run: switchback prepare",
                        side_name(other->side));
}

static bool judge_changes(const struct rejoin *rejoin, const struct stranded *stranded, struct error *error)
{
    char why[256];
    if (stranded->incomplete) {
        (void)snprintf(why, sizeof why, "more than %d changes are stranded", STRANDED_MOST);
        return refuse(rejoin, error, why);
    }
    for (size_t i = 0; i < stranded->count; i++) {
        const struct stranded_change *change = &stranded->changes[i];
        if (change->key == NULL) {
            (void)snprintf(
                why, sizeof why,
                "a stranded transaction (%s of table %.100s) can't be undone row by row: it has no key",
                change->operation, change->table);
            return refuse(rejoin, error, why);
        }
    }
    return true;
}

/* The way from the active side to the other one, and that both still are what prepare made of them. */
static bool judge_sides(struct rejoin *rejoin, struct error *error)
{
    char slot[NAMES_SLOT_SIZE];
    struct blocking *active = rejoin->sides[rejoin->active], *other = other_of(rejoin);
    const char *const of_active[] = {names_slot(rejoin->active, active->database, slot)};
    const char *const of_other[] = {names_subscription(rejoin->active)};
    char *usable =
        blocking_value(active, error,
                       "select count(*) from pg_replication_slots where slot_name = $1 and wal_status in"
                       " ('reserved', 'extended', 'unreserved')",
                       1, of_active);
    char *same =
        usable == NULL
            ? NULL
            : blocking_value(other, error,
                             "select count(*) from pg_subscription u, switchback.state s where u.subname"
                             " = $1 and u.subdbid = (select oid from pg_database where datname ="
                             " current_database()) and s.system_identifier = (select"
                             " c.system_identifier::text from pg_control_system() c)",
                             1, of_other);
    char *leaves[SIDE_COUNT] = {NULL, NULL};
    bool ok = same != NULL;
    for (int side = 0; ok && side < SIDE_COUNT; side++) {
        leaves[side] =
            blocking_value(rejoin->sides[side], error, "select switchback.leaves()::text", 0, NULL);
        ok = leaves[side] != NULL;
    }
    if (ok && strcmp(usable, "1") != 0) {
        ok = refuse(rejoin, error, "the slot that would feed it is lost");
    } else if (ok && strcmp(same, "1") != 0) {
        ok = refuse(rejoin, error, "its subscription is missing, or it is another cluster than it was");
    } else if (ok && strcmp(leaves[SIDE_BLUE], leaves[SIDE_GREEN]) != 0) {
        ok = refuse(rejoin, error, "the tables of both sides differ");
    }
    free(usable);
    free(same);
    free(leaves[SIDE_BLUE]);
    free(leaves[SIDE_GREEN]);
    return ok;
}

/* --- where the sides stand --- */

static bool read_active(struct rejoin *rejoin, struct error *error)
{
    struct blocking *active = rejoin->sides[rejoin->active];
    PGresult *row =
        blocking_query(active, error,
                       "select s.owner, s.epoch, o.start_lsn, coalesce(o.has, '0/0') from switchback.state s,"
                       " switchback.of_the_other() o where s.standing = 'active' and s.fenced_for is null",
                       0, NULL);
    if (row == NULL) {
        return false;
    }
    bool is_active = PQntuples(row) == 1;
    uint64_t owner = is_active ? strtoull(row_text(row, 0, 0), NULL, 10) : 0;
    if (is_active) {
        rejoin->epoch = strtoull(row_text(row, 0, 1), NULL, 10);
        (void)snprintf(rejoin->start_lsn, sizeof rejoin->start_lsn, "%s",
                       PQgetisnull(row, 0, 2) != 0 ? "0/0" : row_text(row, 0, 2));
        (void)snprintf(rejoin->has, sizeof rejoin->has, "%s", row_text(row, 0, 3));
    }
    PQclear(row);
    if (!is_active || owner != rejoin->owner) {
        return error_set(error, ERROR_STALE, "%s, database %s is not active and ours",
                         side_name(active->side), active->database);
    }
    return true;
}

enum where { REJOIN_BEGIN, REJOIN_GO_ON, REJOIN_NOTHING, REJOIN_NOT };

static enum where read_other(struct rejoin *rejoin, struct error *error)
{
    struct blocking *other = other_of(rejoin);
    PGresult *row = blocking_query(
        other, error, "select s.standing, exists (select from switchback.rejoining) from switchback.state s",
        0, NULL);
    if (row == NULL) {
        return REJOIN_NOT;
    }
    char standing[16] = "";
    (void)snprintf(standing, sizeof standing, "%s", PQntuples(row) == 1 ? row_text(row, 0, 0) : "");
    bool begun = PQntuples(row) == 1 && row_truth(row, 0, 1);
    PQclear(row);
    if (strcmp(standing, "standby") == 0) {
        return REJOIN_NOTHING;
    }
    if (strcmp(standing, "diverged") != 0) {
        (void)error_set(error, ERROR_UNDECIDED, "%s, database %s is recorded as \"%s\", not as diverged",
                        side_name(other->side), other->database, standing);
        return REJOIN_NOT;
    }
    return begun ? REJOIN_GO_ON : REJOIN_BEGIN;
}

/* --- the steps --- */

static bool begin(struct rejoin *rejoin, struct error *error)
{
    struct blocking *other = other_of(rejoin);
    struct stranded stranded;
    if (!stranded_read(other, rejoin->has, &stranded, error)) {
        return false;
    }
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    strbuf_puts(&sql, "begin; ");
    for (size_t i = 0; i < stranded.count; i++) {
        const struct stranded_change *change = &stranded.changes[i];
        if (change->key != NULL) {
            sql_format(&sql, "%s(%u, %L, %L::text[], %L::text[])",
                       i == 0 ? "insert into switchback.rejoining (id, name, columns, key) values " : ", ",
                       (uint64_t)i + 1, change->table, change->columns, change->key);
        }
    }
    sql_format(&sql,
               stranded.count == 0 ? "select switchback.rejoin_unchanged(%u, %u, %L); commit"
                                   : "; select switchback.begin_rejoin(%u, %u, %L); commit",
               rejoin->owner, rejoin->epoch, rejoin->start_lsn);
    rejoin_say(rejoin, -1, "%s: %zu changes of %zu transactions never arrived", other->database,
               stranded.count, stranded.transactions);
    bool ok = judge_changes(rejoin, &stranded, error) && blocking_run_buffer(other, error, &sql);
    if (ok) {
        LOG_WARN("rejoin_began", LOG_STR("side", side_name(other->side)),
                 LOG_STR("database", other->database), LOG_U64("changes", stranded.count),
                 LOG_U64("transactions", stranded.transactions));
    }
    strbuf_deinit(&sql);
    stranded_deinit(&stranded);
    return ok;
}

bool rejoin_catch_up(struct rejoin *rejoin, int64_t within_us, struct error *error)
{
    char sql[128];
    const char *const parameters[] = {side_name(rejoin->active)};
    (void)snprintf(sql, sizeof sql, "select written_n from switchback.beat(%" PRIu64 ", null, 'rejoin')",
                   rejoin->owner);
    char *written = blocking_value(rejoin->marks, error, sql, 0, NULL);
    uint64_t wanted = written == NULL ? 0 : strtoull(written, NULL, 10);
    bool ok = written != NULL;
    free(written);
    for (int64_t until_us = clock_mono_us() + within_us; ok;) {
        char *seen = blocking_value(
            other_of(rejoin), error,
            "select max(n) from switchback.marker where side = $1 and purpose = 'rejoin'", 1, parameters);
        ok = seen != NULL;
        bool there = ok && strtoull(seen, NULL, 10) >= wanted;
        free(seen);
        if (there) {
            return true;
        }
        if (ok && clock_mono_us() > until_us) {
            (void)error_set(error, ERROR_NOT_IN_SYNC, "%s, database %s: the stream does not catch up",
                            side_name(side_other(rejoin->active)), rejoin->marks->database);
            return error_remedy(error,
                                "see its server log, then run rejoin again: it goes on where it stopped");
        }
        ok = ok && task_sleep(rejoin->task, LOOK_PAUSE_US, error);
    }
    return false;
}

static bool end(struct rejoin *rejoin, struct error *error)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql, "begin; select switchback.end_rejoin(%" PRIu64 ", %" PRIu64 "); commit",
                   rejoin->owner, rejoin->epoch);
    return blocking_run(other_of(rejoin), error, sql);
}

static bool rejoin_database(struct rejoin *rejoin, const char *database, struct error *error)
{
    rejoin->step = "compare";
    if (!open_database(rejoin, database, error) || !read_active(rejoin, error)) {
        return false;
    }
    enum where where = read_other(rejoin, error);
    if (where == REJOIN_NOTHING || where == REJOIN_NOT) {
        return where == REJOIN_NOTHING;
    }
    if (!judge_sides(rejoin, error) || (where == REJOIN_BEGIN && !begin(rejoin, error))) {
        return false;
    }
    rejoin->step = "stream";
    rejoin_say(rejoin, -1, "%s: catching up", database);
    bool ok = rejoin_catch_up(rejoin, stream_within_us, error);
    where = ok ? read_other(rejoin, error) : REJOIN_NOT;
    if (where == REJOIN_NOTHING) {
        return true; /* nothing was stranded */
    }
    rejoin->step = "rows";
    return where != REJOIN_NOT && rejoin_copy(rejoin, error) && end(rejoin, error);
}

static bool body(struct task *task, void *work, struct error *error)
{
    struct rejoin *rejoin = work;
    rejoin->task = task;
    rejoin->cluster = blocking_open_cluster(task, rejoin->brief, rejoin->active, error);
    bool ok = rejoin->cluster != NULL && blocking_lock_out(rejoin->cluster, error);
    for (size_t i = 0; ok && i < rejoin->brief->databases.count; i++) {
        ok = rejoin_database(rejoin, rejoin->brief->databases.items[i], error);
        close_database(rejoin);
    }
    blocking_close(rejoin->cluster);
    return ok;
}

static void deliver(void *work, const struct replication_result *result)
{
    struct rejoin *rejoin = work;
    rejoin->done(rejoin->context, result);
    brief_free(rejoin->brief);
    free(rejoin);
}

void replication_rejoin(struct replication *replication, enum side active, replication_progressed progressed,
                        replication_done done, void *context)
{
    struct rejoin *rejoin = calloc(1, sizeof *rejoin);
    ENSURE(rejoin != NULL);
    *rejoin = (struct rejoin){.brief = brief_new(engine_settings(replication)),
                              .active = active,
                              .owner = engine_owner(replication),
                              .done = done,
                              .context = context};
    task_start(engine_tasks(replication), engine_loop(replication),
               &(struct task_spec){.name = "rejoin",
                                   .body = body,
                                   .deliver = deliver,
                                   .progressed = progressed,
                                   .progress_context = context},
               rejoin);
}
