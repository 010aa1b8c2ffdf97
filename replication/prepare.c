/* replication_prepare: the table of its steps, and what they share. */
#include "replication/prepare.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/engine.h"
#include "replication/tables.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECONNECT_FOR_US = 60 * 1000000, RECONNECT_PAUSE_US = 500000 };

/* The order matters: nothing touches the standby's data before `state` and `schema` have looked at it, and
 * the reverse slot comes after the copy, so that it doesn't keep the copy's WAL. */
static const struct {
    const char *name;
    bool (*run)(struct prepare *prepare, struct error *error);
} steps[] = {
    {"settings", prepare_settings}, /* both sides have what a stream needs */
    {"roles", prepare_roles}, /* roles, memberships and verifiers on the standby as on the active side */
    {"databases", prepare_databases},    /* missing ones are created with the same encoding and locale */
    {"state", prepare_state},            /* who the sides are: one pair, this one active, that one standby */
    {"schema", prepare_schema},          /* dumped and restored in one transaction, or the same already */
    {"fences", prepare_fences},          /* schema switchback and the fence triggers; the standby is fenced */
    {"forward stream", prepare_forward}, /* publication, slot, subscription */
    {"initial copy", prepare_copy},
    {"reverse stream", prepare_reverse}, /* the same the other way, without copy, disabled */
    {"finish", prepare_finish},          /* statistics, sequences, materialized views */
    {"streaming", prepare_streaming},    /* a marker crosses in every database */
};

void prepare_say(struct prepare *prepare, double fraction, int64_t eta_us, const char *format, ...)
{
    struct replication_progress progress = {.fraction = fraction, .eta_us = eta_us};
    (void)snprintf(progress.step, sizeof progress.step, "%s", prepare->step);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(progress.message, sizeof progress.message, format, arguments);
    va_end(arguments);
    task_progress(prepare->task, &progress);
}

static bool configure(const struct prepare *prepare, struct blocking *blocking, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    /* Fences and triggers are for others; passwords in our statements are for nobody's log. */
    strbuf_puts(&sql, "set session_replication_role = replica; set log_statement = none;"
                      "set log_min_duration_statement = -1; set log_min_error_statement = panic;");
    sql_format(&sql, "set switchback.side = %L;", blocking->side == prepare->active ? "active" : "standby");
    strbuf_puts(&sql, "set switchback.same_major = off; set switchback.prepared = on;");
    tables_put_setting(&sql, &prepare->brief->local_tables);
    bool ok = blocking_run_buffer(blocking, error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

struct blocking *prepare_connect(struct prepare *prepare, size_t database, enum side side,
                                 struct error *error)
{
    struct prepare_database *own = &prepare->databases[database];
    struct blocking **slot = &own->sides[side];
    if (*slot != NULL && PQstatus((*slot)->connection) == CONNECTION_OK) {
        return *slot;
    }
    int64_t deadline = clock_mono_us() + RECONNECT_FOR_US;
    for (;;) {
        blocking_close(*slot);
        *slot = blocking_open(prepare->task, prepare->brief, side, own->name, error);
        if (*slot != NULL && configure(prepare, *slot, error)) {
            return *slot;
        }
        if (error->code != ERROR_UNREACHABLE || clock_mono_us() > deadline) {
            return NULL;
        }
        prepare_say(prepare, -1, -1, "%s can't be reached, trying again", side_name(side));
        if (!task_sleep(prepare->task, RECONNECT_PAUSE_US, error)) {
            return NULL;
        }
    }
}

bool prepare_run(struct blocking *blocking, struct error *error, const struct strbuf *sql)
{
    if (blocking_run_buffer(blocking, error, sql)) {
        return true;
    }
    if (PQstatus(blocking->connection) == CONNECTION_OK &&
        PQtransactionStatus(blocking->connection) != PQTRANS_IDLE) {
        struct error ignored; /* the first error is the one to tell */
        char sqlstate[SQLSTATE_SIZE];
        int64_t position = blocking->position;
        memcpy(sqlstate, blocking->sqlstate, sizeof sqlstate);
        (void)!blocking_run(blocking, &ignored, "rollback");
        memcpy(blocking->sqlstate, sqlstate, sizeof sqlstate);
        blocking->position = position;
    }
    return false;
}

bool prepare_list(struct blocking *blocking, struct error *error, const char *sql, struct settings_list *list)
{
    *list = (struct settings_list){0};
    PGresult *result = blocking_query(blocking, error, sql, 0, NULL);
    if (result == NULL) {
        return false;
    }
    size_t count = (size_t)PQntuples(result);
    list->items = calloc(count + 1, sizeof *list->items);
    bool ok = list->items != NULL;
    while (ok && list->count < count) {
        list->items[list->count] = strdup(row_text(result, (int)list->count, 0));
        ok = list->items[list->count] != NULL;
        list->count += ok ? 1 : 0;
    }
    PQclear(result);
    if (!ok) {
        settings_list_deinit(list);
        error_set(error, ERROR_MEMORY, "out of memory");
    }
    return ok;
}

char *prepare_mark(struct prepare *prepare, size_t database, struct error *error)
{
    struct blocking *active = prepare_connect(prepare, database, prepare->active, error);
    if (active == NULL) {
        return NULL;
    }
    char sql[320];
    (void)snprintf(
        sql, sizeof sql,
        "with s as materialized (select switchback.claim(%" PRIu64
        ") as row), n as (select coalesce(max(m.n),"
        " 0) + 1 as n from switchback.marker m, s where m.side = (s.row).side and m.purpose = 'prepare')"
        " select n.n from n, s, lateral (select switchback.mark(s.row, 'prepare', n.n, null)) w",
        prepare->owner);
    return blocking_value(active, error, sql, 0, NULL);
}

static bool open_clusters(struct prepare *prepare, struct error *error)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        prepare->clusters[side] =
            blocking_open_cluster(prepare->task, prepare->brief, (enum side)side, error);
        if (prepare->clusters[side] == NULL) {
            if (error->code == ERROR_UNREACHABLE) {
                error_remedy(error, "%s must run and admit the manager", side_name((enum side)side));
            }
            return false;
        }
    }
    return true;
}

static bool prepare_body(struct task *task, void *context, struct error *error)
{
    struct prepare *prepare = context;
    prepare->task = task;
    if (!open_clusters(prepare, error) || !blocking_lock_out(prepare->clusters[prepare->active], error)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
        prepare->step = steps[i].name;
        LOG_INFO("prepare_step", LOG_STR("step", steps[i].name));
        prepare_say(prepare, 0, -1, "started");
        if (!steps[i].run(prepare, error)) {
            return false;
        }
        prepare_say(prepare, 1, 0, "done");
    }
    return true;
}

static void prepare_deliver(void *context, const struct replication_result *result)
{
    struct prepare *prepare = context;
    for (size_t i = 0; i < prepare->database_count; i++) {
        blocking_close(prepare->databases[i].sides[SIDE_BLUE]);
        blocking_close(prepare->databases[i].sides[SIDE_GREEN]);
    }
    blocking_close(prepare->clusters[SIDE_BLUE]);
    blocking_close(prepare->clusters[SIDE_GREEN]);
    prepare->done(prepare->context, result);
    free(prepare->databases);
    brief_free(prepare->brief);
    free(prepare);
}

void replication_prepare(struct replication *replication, enum side active, replication_progressed progress,
                         replication_done done, void *context)
{
    const struct task_spec spec = {.name = "prepare",
                                   .body = prepare_body,
                                   .deliver = prepare_deliver,
                                   .progressed = progress,
                                   .progress_context = context};
    struct prepare *prepare = calloc(1, sizeof *prepare);
    ENSURE(prepare != NULL);
    *prepare = (struct prepare){.brief = brief_new(engine_settings(replication)),
                                .active = active,
                                .standby = side_other(active),
                                .owner = engine_owner(replication),
                                .done = done,
                                .context = context};
    (void)snprintf(prepare->pair, sizeof prepare->pair, "%s", replication_identity(replication)->pair);
    prepare->database_count = prepare->brief->databases.count;
    prepare->databases = calloc(prepare->database_count + 1, sizeof *prepare->databases);
    ENSURE(prepare->databases != NULL);
    for (size_t i = 0; i < prepare->database_count; i++) {
        prepare->databases[i].name = prepare->brief->databases.items[i];
    }
    task_start(engine_tasks(replication), engine_loop(replication), &spec, prepare);
}
