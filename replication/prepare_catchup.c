/*
 * prepare, step 11: what was written on the active side before this moment is on the standby.
 *
 * A stream flushes each transaction that it applies (stream.h), so it applies about as many a second as the
 * standby's disk can flush: plenty for most, but an hour's backlog would take hours where it takes a minute
 * without. So one that is far behind is relaxed until it has caught up, and tightened again. Between the two
 * a crash of the standby may lose rows for good, and must not go unnoticed: the row in switchback.unflushed,
 * an unlogged table, is gone after any crash. Nobody flips to a relaxed standby (switchback.table_fault).
 */
#include "replication/prepare.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "replication/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOK_EVERY_US = 50000,
    RELAX_AFTER_US = 5 * 1000000,
    STUCK_AFTER_US = 60 * 1000000, /* nothing was sent, nothing applied */
    END_WITHIN_US = 60 * 1000000   /* of an apply worker whose subscription is disabled */
};

#define THIS_STREAM(name)                                                                                    \
    "s.subname = " name " and s.subdbid = (select oid from pg_database where datname = current_database())"

struct catch_up {
    struct prepare *prepare;
    size_t database;
    const char *n;  /* of the marker */
    char *position; /* behind it, in the active side's WAL */
    int64_t began_us, moved_us;
    char *seen; /* how far it was when it was looked at last */
    double first_bytes;
    bool relaxed;
    bool waited_for; /* commits on the active side wait for this stream: what it confirms must be flushed */
};

static bool run_on(struct blocking *standby, struct error *error, const char *format, const char *name)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    sql_format(&sql, format, name, name);
    bool ok = prepare_run(standby, error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

static bool relax(struct catch_up *up, struct blocking *standby, struct error *error)
{
    const char *name = names_subscription(up->prepare->active);
    LOG_INFO("stream_relaxed", LOG_STR("database", up->prepare->databases[up->database].name));
    up->relaxed = true;
    return run_on(standby, error,
                  "begin; insert into switchback.unflushed values (clock_timestamp()) on conflict do nothing;"
                  " alter subscription %I set (synchronous_commit = off); commit",
                  name);
}

bool prepare_read_relaxed(struct blocking *standby, enum side publisher, bool *relaxed, bool *crashed,
                          struct error *error)
{
    const char *const parameters[] = {names_subscription(publisher)};
    PGresult *result =
        blocking_query(standby, error,
                       "select s.subsynccommit <> 'local', not exists (select from"
                       " switchback.unflushed) from pg_subscription s where " THIS_STREAM("$1"),
                       1, parameters);
    *relaxed = result != NULL && PQntuples(result) > 0 && row_truth(result, 0, 0);
    *crashed = *relaxed && row_truth(result, 0, 1);
    PQclear(result);
    return result != NULL;
}

/* Ends it, too: on 15 and older a worker lingers. */
static bool await_worker_end(struct prepare *prepare, struct blocking *standby, struct error *error)
{
    const char *const parameters[] = {names_subscription(prepare->active)};
    int64_t deadline = clock_mono_us() + END_WITHIN_US;
    for (;;) {
        char *left = blocking_value(standby, error,
                                    "select count(pg_terminate_backend(w.pid)) from pg_stat_subscription w"
                                    " join pg_subscription s on s.oid = w.subid where w.pid is not null and"
                                    " " THIS_STREAM("$1"),
                                    1, parameters);
        bool ended = left != NULL && strcmp(left, "0") == 0;
        bool ok = left != NULL;
        free(left);
        if (!ok || ended) {
            return ok;
        }
        if (clock_mono_us() > deadline) {
            return error_set(error, ERROR_TIMEOUT, "%s, database %s: the apply worker does not end",
                             side_name(standby->side), standby->database);
        }
        if (!task_sleep(prepare->task, LOOK_EVERY_US, error)) {
            return false;
        }
    }
}

bool prepare_tighten(struct prepare *prepare, size_t database, struct error *error)
{
    const char *name = names_subscription(prepare->active);
    struct blocking *standby = prepare_connect(prepare, database, prepare->standby, error);
    bool relaxed = false;
    bool crashed = false;
    if (standby == NULL || !prepare_read_relaxed(standby, prepare->active, &relaxed, &crashed, error)) {
        return false;
    }
    if (!relaxed) {
        return true;
    }
    /* The commit flushes what the worker has applied, and only then does one start that confirms it. */
    if (!run_on(standby, error, "alter subscription %I disable", name) ||
        !await_worker_end(prepare, standby, error) ||
        !prepare_read_relaxed(standby, prepare->active, &relaxed, &crashed, error) ||
        (crashed && !run_on(standby, error,
                            "update switchback.state set gap = coalesce(gap, 'rows may be missing: it crashed"
                            " while it caught up')",
                            name)) ||
        !run_on(standby, error,
                "begin; alter subscription %I set (synchronous_commit = local); delete from"
                " switchback.unflushed; alter subscription %I enable; commit",
                name)) {
        return false;
    }
    LOG_INFO("stream_tightened", LOG_STR("database", prepare->databases[database].name),
             LOG_BOOL("crashed", crashed));
    if (crashed) {
        error_set(error, ERROR_NOT_IN_SYNC,
                  "%s, database %s: it crashed while it caught up, so rows may be missing",
                  side_name(prepare->standby), prepare->databases[database].name);
        return error_remedy(error, "run prepare again: the tables are copied again");
    }
    return true;
}

/* --- how far it is --- */

static bool look_how_far(struct catch_up *up, struct error *error)
{
    char slot[NAMES_SLOT_SIZE];
    struct blocking *active = prepare_connect(up->prepare, up->database, up->prepare->active, error);
    if (active == NULL) {
        return error->code == ERROR_UNREACHABLE;
    }
    const char *const parameters[] = {
        names_slot(up->prepare->active, up->prepare->databases[up->database].name, slot), up->position};
    PGresult *result = blocking_query(
        active, error,
        "select concat(r.sent_lsn, ' ', r.replay_lsn), l.bytes, pg_size_pretty(l.bytes),"
        " coalesce(r.sync_state in ('sync', 'quorum'), false) from pg_replication_slots k left join"
        " pg_stat_replication r on r.pid = k.active_pid, lateral (select greatest(pg_wal_lsn_diff($2::pg_lsn,"
        " coalesce(r.replay_lsn, k.confirmed_flush_lsn)), 0)::bigint as bytes) l where k.slot_name = $1",
        2, parameters);
    if (result == NULL) {
        return error->code == ERROR_UNREACHABLE;
    }
    up->waited_for = PQntuples(result) > 0 && row_truth(result, 0, 3);
    if (PQntuples(result) > 0 && (up->seen == NULL || strcmp(up->seen, row_text(result, 0, 0)) != 0)) {
        free(up->seen);
        up->seen = strdup(row_text(result, 0, 0));
        up->moved_us = clock_mono_us();
        const double left = strtod(row_text(result, 0, 1), NULL);
        up->first_bytes = left > up->first_bytes ? left : up->first_bytes;
        const double done = up->first_bytes - left;
        const double elapsed_us = (double)(up->moved_us - up->began_us);
        prepare_say(up->prepare, up->first_bytes > 0 ? done / up->first_bytes : -1,
                    done > 0 ? (int64_t)(elapsed_us * left / done) : -1, "%s: catching up, %s to go",
                    up->prepare->databases[up->database].name, row_text(result, 0, 2));
    }
    PQclear(result);
    return true;
}

static bool look(struct catch_up *up, bool *crossed, struct error *error)
{
    struct prepare *prepare = up->prepare;
    const char *const parameters[] = {side_name(prepare->active), up->n};
    struct blocking *standby = prepare_connect(prepare, up->database, prepare->standby, error);
    char *seen = standby == NULL ? NULL
                                 : blocking_value(standby, error,
                                                  "select count(*) from switchback.marker where side = $1 and"
                                                  " purpose = 'prepare' and n >= $2::bigint",
                                                  2, parameters);
    *crossed = seen != NULL && strcmp(seen, "0") != 0;
    bool ok = seen != NULL || error->code == ERROR_UNREACHABLE;
    free(seen);
    if (!ok || *crossed) {
        return ok;
    }
    if (!look_how_far(up, error)) {
        return false;
    }
    const bool late = clock_mono_us() - up->began_us > RELAX_AFTER_US;
    return up->relaxed || up->waited_for || !late || standby == NULL || relax(up, standby, error) ||
           error->code == ERROR_UNREACHABLE;
}

static bool refuse_stuck(const struct catch_up *up, struct error *error)
{
    error_set(error, ERROR_NOT_IN_SYNC,
              "database %s: a marker written on %s doesn't reach %s: for a minute nothing has moved",
              up->prepare->databases[up->database].name, side_name(up->prepare->active),
              side_name(up->prepare->standby));
    return error_remedy(error,
                        "the stream may be broken: see switchback status, and the log of %s; then run "
                        "prepare again",
                        side_name(up->prepare->standby));
}

static bool await_marker(struct catch_up *up, struct error *error)
{
    bool crossed = false;
    while (look(up, &crossed, error)) {
        if (crossed) {
            return true;
        }
        if (clock_mono_us() - up->moved_us > STUCK_AFTER_US) {
            return refuse_stuck(up, error);
        }
        if (!task_sleep(up->prepare->task, LOOK_EVERY_US, error)) {
            return false;
        }
    }
    return false;
}

bool prepare_catch_up(struct prepare *prepare, size_t database, struct error *error)
{
    struct catch_up up = {.prepare = prepare, .database = database};
    char *n = prepare_mark(prepare, database, error);
    struct blocking *active = n == NULL ? NULL : prepare_connect(prepare, database, prepare->active, error);
    up.n = n;
    up.position =
        active == NULL ? NULL : blocking_value(active, error, "select pg_current_wal_insert_lsn()", 0, NULL);
    up.began_us = up.moved_us = clock_mono_us();
    bool ok = up.position != NULL && await_marker(&up, error);
    struct error ignored; /* the first one is the one to tell; the next prepare tightens, too */
    ok = prepare_tighten(prepare, database, ok ? error : &ignored) && ok;
    free(up.position);
    free(up.seen);
    free(n);
    return ok;
}
