/*
 * replication_finalize: ends the way back. Both streams go, with their slots, so that no cluster keeps WAL
 * for the other any more; the standby stays fenced. With `everything` all that is ours goes but data, the
 * standby's fence last. A side that can't be reached doesn't keep the other from being cleaned; it is named
 * at the end.
 */
#include "replication/stream.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/engine.h"
#include "replication/names.h"
#include "replication/sql.h"
#include "replication/standby_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOCKS_WITHIN_US = 5 * 60 * 1000000, LOCKS_PAUSE_US = 500000 };

struct finalize {
    struct task *task;
    struct brief *brief;
    enum side active;
    bool everything;
    uint64_t owner;
    struct error unreachable; /* the first side and database that couldn't be cleaned; code NONE: all could */
    replication_done done;
    void *context;
};

/* NULL if it can't be reached, which is noted, or with *error filled if it is not that. */
static struct blocking *open_side(struct finalize *finalize, enum side side, const char *database,
                                  struct error *error)
{
    struct blocking *blocking = blocking_open(finalize->task, finalize->brief, side, database, error);
    if (blocking == NULL) {
        if (error->code == ERROR_UNREACHABLE && finalize->unreachable.code == ERROR_NONE) {
            finalize->unreachable = *error;
        }
        return NULL;
    }
    if (!blocking_run(blocking, error,
                      "set session_replication_role = replica; set lock_timeout = '300ms';"
                      "set deadlock_timeout = '20ms'")) {
        blocking_close(blocking);
        return NULL;
    }
    return blocking;
}

static bool is_installed(struct blocking *blocking, bool *installed, struct error *error)
{
    char *value =
        blocking_value(blocking, error, "select to_regclass('switchback.state') is not null", 0, NULL);
    *installed = value != NULL && *value == 't';
    bool ok = value != NULL;
    free(value);
    return ok;
}

/* The state row is ours, says what we were told, and no flip is under way. */
static bool judge_state(const struct finalize *finalize, struct blocking *blocking, struct error *error)
{
    bool installed = false;
    if (!is_installed(blocking, &installed, error)) {
        return false;
    }
    if (!installed) {
        return true;
    }
    char sql[128];
    (void)snprintf(sql, sizeof sql, "select standing, fenced_for from switchback.claim(%" PRIu64 ")",
                   finalize->owner);
    PGresult *row = blocking_query(blocking, error, sql, 0, NULL);
    if (row == NULL) {
        return false;
    }
    bool is_active = PQntuples(row) > 0 && strcmp(row_text(row, 0, 0), "active") == 0;
    bool in_flip = PQntuples(row) > 0 && PQgetisnull(row, 0, 1) == 0;
    PQclear(row);
    if (in_flip) {
        return error_set(error, ERROR_FLIP_RUNNING, "%s, database %s is fenced for a flip",
                         side_name(blocking->side), blocking->database);
    }
    return is_active == (blocking->side == finalize->active) ||
           error_set(error, ERROR_UNDECIDED, "%s, database %s is recorded as %s", side_name(blocking->side),
                     blocking->database, is_active ? "active" : "standby");
}

/* Runs one statement that takes a table's lock: gives up soon, so that nobody queues behind it, and comes
 * again. */
static bool run_patiently(struct finalize *finalize, struct blocking *blocking, const char *sql,
                          struct error *error)
{
    int64_t deadline = clock_mono_us() + LOCKS_WITHIN_US;
    while (!blocking_run(blocking, error, sql)) {
        bool again = strcmp(blocking->sqlstate, "55P03") == 0 || strcmp(blocking->sqlstate, "40P01") == 0;
        if (!again || clock_mono_us() > deadline || !task_sleep(finalize->task, LOCKS_PAUSE_US, error)) {
            return false;
        }
    }
    return true;
}

static bool drop_triggers(struct finalize *finalize, struct blocking *blocking, struct error *error)
{
    PGresult *rows = blocking_query(
        blocking, error,
        "select format('drop trigger %I on %s', tgname, tgrelid::regclass) from pg_trigger where"
        " tgname = '" NAMES_FENCE_TRIGGER "' and tgparentid = 0 order by tgrelid",
        0, NULL);
    bool ok = rows != NULL;
    for (int row = 0; ok && row < PQntuples(rows); row++) {
        ok = run_patiently(finalize, blocking, row_text(rows, row, 0), error);
    }
    PQclear(rows);
    return ok;
}

/* What is left after the streams: fence, event triggers, schema. */
static bool drop_schema(struct finalize *finalize, struct blocking *blocking, struct error *error)
{
    return run_patiently(finalize, blocking,
                         "drop event trigger if exists switchback_refuse_ddl;"
                         "drop event trigger if exists switchback_restore_fences",
                         error) &&
           drop_triggers(finalize, blocking, error) &&
           run_patiently(finalize, blocking, "drop schema if exists " NAMES_SCHEMA " cascade", error);
}

/* The copies of tables that were under way have slots of their own, which a subscription that was dropped
 * while its publisher was away leaves behind. Their names hold the subscriber's system identifier. */
static bool drop_sync_slots(struct blocking *publisher, struct blocking *subscriber, struct error *error)
{
    if (subscriber == NULL) {
        return true;
    }
    char *identifier =
        blocking_value(subscriber, error, "select system_identifier from pg_control_system()", 0, NULL);
    if (identifier == NULL) {
        return false;
    }
    const char *const parameters[] = {identifier};
    char *dropped =
        blocking_value(publisher, error,
                       "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots"
                       " where slot_name ~ ('^pg_[0-9]+_sync_[0-9]+_' || $1 || '$') and not active and"
                       " database = current_database()",
                       1, parameters);
    free(identifier);
    free(dropped);
    return dropped != NULL;
}

static bool drop_streams(struct blocking *const sides[SIDE_COUNT], struct error *error)
{
    /* Subscriptions first: they hold the slots. */
    for (int side = 0; side < SIDE_COUNT; side++) {
        if (sides[side] != NULL &&
            !stream_drop_subscription(sides[side], side_other((enum side)side), error)) {
            return false;
        }
    }
    for (int side = 0; side < SIDE_COUNT; side++) {
        if (sides[side] != NULL &&
            (!stream_drop_slot(sides[side], error) || !stream_drop_publication(sides[side], error) ||
             !drop_sync_slots(sides[side], sides[side_other((enum side)side)], error))) {
            return false;
        }
    }
    return true;
}

/* For those who ask later why there is no way back; the next prepare takes it away. */
static bool mark_finalized(struct finalize *finalize, struct blocking *blocking, struct error *error)
{
    bool installed = false;
    if (!is_installed(blocking, &installed, error)) {
        return false;
    }
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "begin; select switchback.claim(%" PRIu64
                   "); update switchback.state set finalized = now();"
                   "commit",
                   finalize->owner);
    return !installed || run_patiently(finalize, blocking, sql, error);
}

/* Commits would wait for ever for a stream that is dropped. */
static bool drop_names(struct blocking *const sides[SIDE_COUNT], struct error *error)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        if (sides[side] == NULL) {
            continue;
        }
        char *names = blocking_value(
            sides[side], error, "select setting from pg_settings where name = 'synchronous_standby_names'", 0,
            NULL);
        bool ok = names != NULL &&
                  (!standby_names_are_ours(names) ||
                   (blocking_run(sides[side], error, "alter system reset synchronous_standby_names") &&
                    blocking_run(sides[side], error, "select pg_reload_conf()")));
        free(names);
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* Both sides of one database, as far as they can be reached. */
static bool finalize_sides(struct finalize *finalize, struct blocking *const sides[SIDE_COUNT],
                           struct error *error)
{
    const enum side order[] = {finalize->active, side_other(finalize->active)};
    for (size_t i = 0; i < ARRAY_LENGTH(order); i++) {
        if (sides[order[i]] != NULL && !judge_state(finalize, sides[order[i]], error)) {
            return false;
        }
    }
    if (!drop_names(sides, error) || !drop_streams(sides, error)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(order); i++) {
        struct blocking *blocking = sides[order[i]];
        if (blocking == NULL) {
            continue;
        }
        if (!finalize->everything) {
            if (!mark_finalized(finalize, blocking, error)) {
                return false;
            }
            continue;
        }
        if (blocking->side != finalize->active) {
            LOG_WARN("fence_removed", LOG_STR("side", side_name(blocking->side)),
                     LOG_STR("database", blocking->database),
                     LOG_STR("message", "from now on it takes writes of its own"));
        }
        if (!drop_schema(finalize, blocking, error)) {
            return false;
        }
    }
    return true;
}

static bool finalize_database(struct finalize *finalize, const char *database, struct error *error)
{
    struct blocking *sides[SIDE_COUNT] = {NULL, NULL};
    bool ok = true;
    for (int side = 0; ok && side < SIDE_COUNT; side++) {
        sides[side] = open_side(finalize, (enum side)side, database, error);
        ok = sides[side] != NULL || error->code == ERROR_UNREACHABLE;
    }
    ok = ok && finalize_sides(finalize, sides, error);
    blocking_close(sides[SIDE_BLUE]);
    blocking_close(sides[SIDE_GREEN]);
    return ok;
}

static bool finalize_body(struct task *task, void *context, struct error *error)
{
    struct finalize *finalize = context;
    finalize->task = task;
    struct blocking *lock = blocking_open_cluster(task, finalize->brief, finalize->active, error);
    bool ok = lock != NULL && blocking_lock_out(lock, error);
    for (size_t i = 0; ok && i < finalize->brief->databases.count; i++) {
        ok = finalize_database(finalize, finalize->brief->databases.items[i], error);
    }
    blocking_close(lock);
    if (!ok) {
        return false;
    }
    if (finalize->unreachable.code != ERROR_NONE) {
        error_set(error, ERROR_UNREACHABLE, "only the side that could be reached was finalized: %s",
                  finalize->unreachable.message);
        return error_remedy(
            error, "run finalize again when the other side is back; until then it keeps its slots and "
                   "its fence");
    }
    return true;
}

static void finalize_deliver(void *context, const struct replication_result *result)
{
    struct finalize *finalize = context;
    finalize->done(finalize->context, result);
    brief_free(finalize->brief);
    free(finalize);
}

void replication_finalize(struct replication *replication, enum side active, bool everything,
                          replication_done done, void *context)
{
    static const struct task_spec spec = {
        .name = "finalize", .body = finalize_body, .deliver = finalize_deliver};
    struct finalize *finalize = calloc(1, sizeof *finalize);
    ENSURE(finalize != NULL);
    *finalize = (struct finalize){.brief = brief_new(engine_settings(replication)),
                                  .active = active,
                                  .everything = everything,
                                  .owner = engine_owner(replication),
                                  .done = done,
                                  .context = context};
    task_start(engine_tasks(replication), engine_loop(replication), &spec, finalize);
}
