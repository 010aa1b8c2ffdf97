/* prepare, steps 10 and 11: what a stream doesn't carry but the standby needs to serve, and the proof that it
 * runs. */
#include "replication/prepare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A sample: a flip sets them exactly. */
static bool copy_sequences(struct prepare *prepare, size_t database, struct error *error)
{
    struct blocking *active = prepare_connect(prepare, database, prepare->active, error);
    struct blocking *standby =
        active == NULL ? NULL : prepare_connect(prepare, database, prepare->standby, error);
    if (standby == NULL) {
        return false;
    }
    char *values = blocking_value(active, error, "select switchback.sequences()", 0, NULL);
    if (values == NULL) {
        return false;
    }
    const char *const parameters[] = {values};
    char *set =
        blocking_value(standby, error,
                       "select count(setval((w ->> 0)::regclass, (w ->> 1)::bigint, (w ->> 2)::boolean)) from"
                       " jsonb_array_elements($1::jsonb) w where to_regclass(w ->> 0) is not null",
                       1, parameters);
    free(values);
    free(set);
    return set != NULL;
}

/* Statements that a query of the standby writes, run one after the other. */
static bool run_list(struct prepare *prepare, size_t database, const char *what, const char *query,
                     bool *any_refused, struct error *error)
{
    struct settings_list statements;
    struct blocking *standby = prepare_connect(prepare, database, prepare->standby, error);
    if (standby == NULL || !prepare_list(standby, error, query, &statements)) {
        return false;
    }
    bool ok = true;
    *any_refused = false;
    for (size_t i = 0; ok && i < statements.count; i++) {
        prepare_say(prepare, (double)i / (double)statements.count, -1, "%s: %s %zu of %zu",
                    prepare->databases[database].name, what, i + 1, statements.count);
        ok = blocking_run(standby, error, statements.items[i]);
        if (!ok && error->code == ERROR_SQL) {
            *any_refused = true;
            ok = true;
        }
    }
    settings_list_deinit(&statements);
    return ok;
}

/* Without statistics the first statements after a flip are planned blindly. Roots of partitions too:
 * autovacuum never looks at them. */
static const char analyze_statements[] = "select 'analyze ' || m.name from switchback.managed_table m where "
                                         "pg_relation_size(m.oid) > 0 or not m.leaf"
                                         " group by m.name, m.oid having not exists (select from "
                                         "pg_statistic s where s.starelid = m.oid) order by 1";

/* One that reads another comes after it, so a refused one is tried again once the others are there. */
static const char refresh_statements[] =
    "select 'refresh materialized view ' || format('%I.%I', n.nspname, c.relname) from pg_class c join "
    "pg_namespace"
    " n on n.oid = c.relnamespace where c.relkind = 'm' and not c.relispopulated and " USER_NAMESPACE
    " order by c.oid";

static bool finish_database(struct prepare *prepare, size_t database, struct error *error)
{
    bool refused = false;
    if (!run_list(prepare, database, "statistics, table", analyze_statements, &refused, error)) {
        return false;
    }
    enum { PASSES = 5 }; /* views on views on views ... */
    for (int pass = 0; pass < PASSES; pass++) {
        if (!run_list(prepare, database, "materialized view", refresh_statements, &refused, error)) {
            return false;
        }
        if (!refused) {
            break;
        }
    }
    return copy_sequences(prepare, database, error);
}

bool prepare_finish(struct prepare *prepare, struct error *error)
{
    for (size_t i = 0; i < prepare->database_count; i++) {
        if (!finish_database(prepare, i, error)) {
            return false;
        }
    }
    return true;
}

/* --- streaming --- */

/* Managed tables, fences, publication and subscription of one side are one set; and the side is recorded as
 * the cluster that it is now. */
static bool settle(struct prepare *prepare, size_t database, enum side side, struct error *error)
{
    struct blocking *blocking = prepare_connect(prepare, database, side, error);
    char *fault = blocking == NULL ? NULL
                                   : blocking_value(blocking, error,
                                                    "select coalesce(switchback.table_fault(), '')", 0, NULL);
    if (fault == NULL) {
        return false;
    }
    bool ok = *fault == '\0';
    if (!ok) {
        error_set(error, ERROR_NOT_IN_SYNC, "%s, database %s: %s", side_name(side),
                  prepare->databases[database].name, fault);
        error_remedy(error, "tables changed while prepare ran: run it again");
    }
    free(fault);
    char sql[640];
    (void)snprintf(
        sql, sizeof sql,
        "begin; select switchback.claim(%" PRIu64 "); update switchback.state set system_identifier ="
        " c.id, timeline = c.line from (select (select system_identifier::text from pg_control_system())"
        " as id, ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint as"
        " line) c where (state.system_identifier, state.timeline) <> (c.id, c.line);"
        " update switchback.state set finalized = null where finalized is not null; commit",
        prepare->owner);
    return ok && blocking_run(blocking, error, sql);
}

bool prepare_streaming(struct prepare *prepare, struct error *error)
{
    for (size_t i = 0; i < prepare->database_count; i++) {
        prepare_say(prepare, (double)i / (double)prepare->database_count, -1, "%s: a marker crosses",
                    prepare->databases[i].name);
        if (!prepare_catch_up(prepare, i, error) || !settle(prepare, i, prepare->active, error) ||
            !settle(prepare, i, prepare->standby, error)) {
            return false;
        }
    }
    return true;
}
