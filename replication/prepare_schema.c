/* prepare, step 5: the schema, restored in one transaction into an empty database, or found to be the same.
 */
#include "replication/check_items.h"
#include "replication/dump.h"
#include "replication/prepare.h"

#include <stdlib.h>
#include <string.h>

/* Everything that a dump would create, except schemas: an empty one doesn't hurt. */
static const char count_objects[] =
    "select (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "where " USER_NAMESPACE " and c.relpersistence <> 't' and " NOT_OF_EXTENSION(
        "pg_class", "c.oid") ")"
                             " + (select count(*) from pg_proc c join pg_namespace n on n.oid = "
                             "c.pronamespace where " USER_NAMESPACE " and " NOT_OF_EXTENSION(
                                 "pg_proc",
                                 "c.oid") ")"
                                          " + (select count(*) from pg_type c join pg_namespace n on n.oid = "
                                          "c.typnamespace where " USER_NAMESPACE
                                          " and c.typtype in ('e', 'd', 'r') and " NOT_OF_EXTENSION(
                                              "pg_type", "c.oid") ")";

static bool count(struct blocking *blocking, int64_t *objects, struct error *error)
{
    char *value = blocking_value(blocking, error, count_objects, 0, NULL);
    if (value == NULL) {
        return false;
    }
    *objects = strtoll(value, NULL, 10);
    free(value);
    return true;
}

/* The statement that failed, from the error's position in the whole text; "" if the server gave none. */
static void put_failed_statement(struct strbuf *text, const struct strbuf *sql,
                                 const struct blocking *blocking)
{
    enum { SHOWN = 160 };
    if (blocking->position <= 0) {
        return;
    }
    const char *start = strbuf_text(sql);
    const char *at = start;
    for (int64_t characters = 1; characters < blocking->position && *at != '\0'; at++) {
        characters +=
            ((unsigned char)at[1] & 0xc0) != 0x80 ? 1 : 0; /* UTF-8: continuation bytes don't count */
    }
    while (at > start && strncmp(at, "\n\n", 2) != 0) {
        at--;
    }
    at += strspn(at, "\n");
    strbuf_printf(text, "%.*s", (int)strnlen(at, SHOWN), at);
}

/* BEGIN and COMMIT are messages of their own: if we die in between, the server never commits. */
static bool run_restore(struct blocking *blocking, const struct strbuf *sql, struct error *error)
{
    if (!blocking_run(blocking, error, "begin")) {
        return false;
    }
    if (!prepare_run(blocking, error, sql)) {
        struct strbuf statement;
        strbuf_init(&statement, ERROR_MESSAGE_SIZE);
        put_failed_statement(&statement, sql, blocking);
        if (error->code == ERROR_SQL && statement.length > 0) {
            error_set(error, ERROR_SQL, "restoring the schema: %s, in: %s", error->message,
                      strbuf_text(&statement));
        }
        strbuf_deinit(&statement);
        return false;
    }
    return blocking_run(blocking, error, "commit");
}

static bool restore(struct prepare *prepare, size_t database, struct error *error)
{
    const struct prepare_database *own = &prepare->databases[database];
    int active_major = own->sides[prepare->active]->version / 10000;
    int standby_major = own->sides[prepare->standby]->version / 10000;
    struct dump_tools tools;
    if (!dump_find_tools(prepare->task, prepare->brief, active_major, &tools, error)) {
        return false;
    }
    prepare_say(prepare, -1, -1, "%s: dumping the schema with %s/pg_dump", own->name, tools.directory);
    struct strbuf sql;
    strbuf_init(&sql, DUMP_LIMIT);
    /* A session of its own: a dump sets search_path and more. */
    struct blocking *blocking = NULL;
    bool ok = dump_schema(prepare->task, prepare->brief, &tools, prepare->active, own->name, standby_major,
                          &sql, error);
    if (ok) {
        prepare_say(prepare, -1, -1, "%s: restoring the schema", own->name);
        blocking = blocking_open(prepare->task, prepare->brief, prepare->standby, own->name, error);
        ok = blocking != NULL &&
             blocking_run(blocking, error,
                          "set session_replication_role = replica; set log_statement = none;"
                          "set log_min_duration_statement = -1; set log_min_error_statement = panic") &&
             run_restore(blocking, &sql, error);
    }
    blocking_close(blocking);
    strbuf_deinit(&sql);
    return ok;
}

static bool is_compared(const struct check *check)
{
    return strcmp(check->id, "tables") == 0 || strcmp(check->id, "columns") == 0;
}

static bool compare_one(struct prepare *prepare, const struct prepare_database *database,
                        const struct check *check, struct check_items *items, struct error *error)
{
    const char *const names[2] = {side_name(prepare->active), side_name(prepare->standby)};
    static const struct check_place nowhere = {.database = "", .side = ""};
    PGresult *here = blocking_query(database->sides[prepare->active], error, check->sql, 0, NULL);
    PGresult *there =
        here == NULL ? NULL : blocking_query(database->sides[prepare->standby], error, check->sql, 0, NULL);
    if (there != NULL) {
        check_items_compare(items, check, &nowhere, names, here, there);
    }
    PQclear(here);
    PQclear(there);
    return there != NULL;
}

static bool tell_differences(const struct prepare *prepare, const struct prepare_database *database,
                             const struct check_items *items, struct error *error)
{
    enum { SHOWN = 5 };
    struct strbuf text;
    strbuf_init(&text, ERROR_MESSAGE_SIZE - 1);
    for (size_t i = 0; i < items->count; i++) {
        const struct check_item *item = &items->items[i];
        for (size_t k = 0; item->state == CHECK_FAIL && k < item->objects.count && k < SHOWN; k++) {
            strbuf_printf(&text, "%s%s", text.length == 0 ? "" : "; ", item->objects.items[k]);
        }
    }
    if (text.length > 0) {
        error_set(error, ERROR_CHECK_FAILED, "%s, database %s is neither empty nor like %s: %s",
                  side_name(prepare->standby), database->name, side_name(prepare->active),
                  strbuf_text(&text));
        error_remedy(error, "change one side's schema until they agree, or empty the database on %s",
                     side_name(prepare->standby));
    }
    bool ok = text.length == 0;
    strbuf_deinit(&text);
    return ok;
}

/* Tables and columns of both sides fit. */
static bool compare(struct prepare *prepare, const struct prepare_database *database, struct error *error)
{
    struct check_items items = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < check_definition.count; i++) {
        if (is_compared(&check_definition.checks[i])) {
            ok = compare_one(prepare, database, &check_definition.checks[i], &items, error);
        }
    }
    if (ok && items.failed) {
        ok = error_set(error, ERROR_MEMORY, "out of memory");
    }
    ok = ok && tell_differences(prepare, database, &items, error);
    check_items_deinit(&items);
    return ok;
}

/* Tables that the subscription doesn't have yet, or all if it is made anew, and that no prepare has filled.
 */
static bool list_unknown(struct prepare *prepare, const struct prepare_database *database,
                         struct settings_list *tables, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    strbuf_puts(&sql, WITH_MANAGED "select m.name from managed m where true");
    if (database->installed[prepare->standby]) {
        if (!database->rebuild) {
            sql_format(&sql,
                       " and not exists (select from pg_subscription_rel r join pg_subscription s on s.oid ="
                       " r.srsubid where s.subname = %L and r.srrelid = m.oid)",
                       names_subscription(prepare->active));
        }
        strbuf_puts(&sql, " and m.name not in (" COPIED_TABLES ")");
    }
    bool ok = prepare_list(database->sides[prepare->standby], error, strbuf_text(&sql), tables);
    strbuf_deinit(&sql);
    return ok;
}

static bool has_rows(struct blocking *blocking, const char *table, bool *rows, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    sql_format(&sql, "select exists (select from only %s)", table);
    char *value = blocking_value(blocking, error, strbuf_text(&sql), 0, NULL);
    strbuf_deinit(&sql);
    *rows = value != NULL && *value == 't';
    bool ok = value != NULL;
    free(value);
    return ok;
}

bool prepare_refuse_foreign_rows(struct prepare *prepare, size_t database, struct error *error)
{
    enum { SHOWN = 10 };
    const struct prepare_database *own = &prepare->databases[database];
    struct settings_list tables;
    if (!list_unknown(prepare, own, &tables, error)) {
        return false;
    }
    struct strbuf found;
    strbuf_init(&found, ERROR_MESSAGE_SIZE / 2);
    size_t filled = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < tables.count; i++) {
        bool rows = false;
        ok = has_rows(own->sides[prepare->standby], tables.items[i], &rows, error);
        if (ok && rows && ++filled <= SHOWN) {
            strbuf_printf(&found, "%s%s", filled == 1 ? "" : ", ", tables.items[i]);
        }
    }
    settings_list_deinit(&tables);
    if (ok && filled > 0) {
        const char *standby = side_name(prepare->standby);
        ok = error_set(error, ERROR_CHECK_FAILED,
                       "%s, database %s: %zu tables hold rows that no prepare has copied: %s%s", standby,
                       own->name, filled, strbuf_text(&found), filled > SHOWN ? ", ..." : "");
        error_remedy(
            error,
            "prepare never removes them: empty these tables, or drop the database, on %s (a fence is "
            "passed with SET session_replication_role = replica)",
            standby);
    }
    strbuf_deinit(&found);
    return ok;
}

bool prepare_schema(struct prepare *prepare, struct error *error)
{
    for (size_t i = 0; i < prepare->database_count; i++) {
        struct prepare_database *database = &prepare->databases[i];
        int64_t here = 0;
        int64_t there = 0;
        if (!count(database->sides[prepare->active], &here, error) ||
            !count(database->sides[prepare->standby], &there, error)) {
            return false;
        }
        if (here > 0 && there == 0 && !restore(prepare, i, error)) {
            return false;
        }
        if (!compare(prepare, database, error) || !prepare_refuse_foreign_rows(prepare, i, error)) {
            return false;
        }
    }
    return true;
}
