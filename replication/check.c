/* replication_check: the walk over the tables of checks (check.h). */
#include "replication/check.h"

#include "conf/base/ensure.h"
#include "replication/blocking.h"
#include "replication/check_run.h"
#include "replication/engine.h"
#include "replication/names.h"
#include "replication/schema.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A check is a look, not a load: one that takes longer says so instead. */
static const char limits[] = "set statement_timeout = '20s'; set lock_timeout = '2s'";

static const struct check_group *const groups[] = {&check_resources,  &check_lossless, &check_objects,
                                                   &check_definition, &check_parity,   &check_streams};

/* What the walk itself finds. */
static const struct check reachable = {
    .id = "reachable",
    .passes = "both sides can be reached",
    .finds = "a side can't be reached",
    .remedy = "start it, or correct `sides` and `manager`; its pg_hba.conf must admit the manager",
};
static const struct check prepared = {
    .id = "prepared",
    .passes = "replication was prepared in every managed database",
    .finds = "not prepared yet",
    .remedy = "switchback prepare",
};
static const struct check unanswered = {
    .id = "unanswered",
    .passes = "every check was answered",
    .finds = "checks that could not be made",
    .remedy = "see the message of each; a manager that is a superuser may ask everything",
};

/* One run of the walk. */
struct walk {
    struct task *task;
    const struct brief *brief;
    enum side active;
    const char *const *ids; /* NULL: all */
    struct check_items *items;
    struct error gone[SIDE_COUNT]; /* why it doesn't answer */
};

/* One pass of the walk: the connections of both sides to one database, and what holds there. */
struct pass {
    struct walk *walk;
    struct blocking *sides[SIDE_COUNT]; /* NULL: can't be reached, or the database is missing there */
    struct check_place place;
    bool prepared;
};

static struct blocking *active_of(const struct pass *pass)
{
    return pass->sides[pass->walk->active];
}

static struct blocking *standby_of(const struct pass *pass)
{
    return pass->sides[side_other(pass->walk->active)];
}

static void put_setting(struct strbuf *sql, const char *name, const char *value)
{
    sql_format(sql, "set switchback.%s = %L;", name, value);
}

static void put_list(struct strbuf *sql, const char *name, const struct settings_list *list)
{
    sql_format(sql, "select set_config('switchback.%s', ", name);
    sql_text_array(sql, list);
    strbuf_puts(sql, "::text, false);");
}

/* Gives the session what the checks' SQL asks for (check.h). */
static bool configure(const struct pass *pass, enum side side, bool same_major, struct error *error)
{
    const struct brief *brief = pass->walk->brief;
    struct blocking *blocking = pass->sides[side];
    char slot[NAMES_SLOT_SIZE];
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    tables_put_setting(&sql, &brief->local_tables);
    put_list(&sql, "databases", &brief->databases);
    put_list(&sql, "migrators", &brief->migrators);
    put_list(&sql, "local_tables", &brief->local_tables);
    put_setting(&sql, "manager", brief->manager.user);
    put_setting(&sql, "side", side == pass->walk->active ? "active" : "standby");
    put_setting(&sql, "prepared", pass->prepared ? "on" : "off");
    put_setting(&sql, "md5_allowed", brief->md5_allowed ? "on" : "off");
    put_setting(&sql, "lossless", brief->lossless ? "on" : "off");
    put_setting(&sql, "same_major", same_major ? "on" : "off");
    put_setting(&sql, "publication", names_publication(side));
    put_setting(&sql, "subscription", names_subscription(side_other(side)));
    put_setting(&sql, "slot", names_slot(side, blocking->database, slot));
    sql_format(&sql, "set switchback.version = %d;", schema_version());
    strbuf_puts(&sql, limits);
    bool ok = blocking_run_buffer(blocking, error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

static bool fits_version(const struct check *check, const struct blocking *blocking)
{
    return blocking->version >= check->from_version &&
           (check->before_version == 0 || blocking->version < check->before_version);
}

/* NULL when the side didn't answer: that is a finding too. */
static PGresult *ask(const struct pass *pass, const struct check *check, struct blocking *blocking)
{
    struct error error;
    const char *sql = check->sql;
    if (check->standby_sql != NULL && blocking->side != pass->walk->active) {
        sql = check->standby_sql;
    }
    PGresult *rows = blocking_query(blocking, &error, sql, 0, NULL);
    if (rows == NULL) {
        char object[ERROR_MESSAGE_SIZE + 64];
        (void)snprintf(object, sizeof object, "%s: %s", check->id, error.message);
        check_items_add(pass->walk->items, &unanswered, CHECK_WARN, object);
    }
    return rows;
}

static void run_finding(const struct pass *pass, const struct check *check)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        struct blocking *blocking = pass->sides[side];
        int on = side == (int)pass->walk->active ? CHECK_ON_ACTIVE : CHECK_ON_STANDBY;
        if ((check->on & on) == 0 || blocking == NULL || !fits_version(check, blocking)) {
            continue;
        }
        PGresult *rows = ask(pass, check, blocking);
        if (rows != NULL) {
            struct check_place place = {pass->place.database, side_name(blocking->side)};
            (void)check_items_want(pass->walk->items, check);
            check_items_found(pass->walk->items, check, &place, rows);
            PQclear(rows);
        }
    }
}

static void run_comparison(const struct pass *pass, const struct check *check)
{
    struct blocking *active = active_of(pass);
    struct blocking *standby = standby_of(pass);
    if (active == NULL || standby == NULL || !fits_version(check, active) || !fits_version(check, standby)) {
        return;
    }
    const char *const names[2] = {side_name(active->side), side_name(standby->side)};
    PGresult *here = ask(pass, check, active);
    PGresult *there = ask(pass, check, standby);
    if (here != NULL && there != NULL) {
        (void)check_items_want(pass->walk->items, check);
        check_items_compare(pass->walk->items, check, &pass->place, names, here, there);
    }
    PQclear(here);
    PQclear(there);
}

static bool is_wanted(const char *const *ids, const char *id)
{
    if (ids == NULL) {
        return true;
    }
    for (; *ids != NULL; ids++) {
        if (strcmp(*ids, id) == 0) {
            return true;
        }
    }
    return false;
}

static bool run_checks(const struct pass *pass, enum check_scope scope, struct error *error)
{
    for (size_t g = 0; g < ARRAY_LENGTH(groups); g++) {
        for (size_t i = 0; i < groups[g]->count; i++) {
            const struct check *check = &groups[g]->checks[i];
            const struct blocking *any = active_of(pass) != NULL ? active_of(pass) : standby_of(pass);
            if (check->scope != scope || (check->prepared && !pass->prepared) || any == NULL ||
                !is_wanted(pass->walk->ids, check->id)) {
                continue;
            }
            if (task_stopping(any->task)) {
                return task_aborted(error);
            }
            if (check->compares) {
                run_comparison(pass, check);
            } else {
                run_finding(pass, check);
            }
        }
    }
    return true;
}

static void close_pass(struct pass *pass)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        blocking_close(pass->sides[side]);
        pass->sides[side] = NULL;
    }
}

static bool configure_pass(struct pass *pass, struct error *error)
{
    const struct blocking *active = active_of(pass);
    const struct blocking *standby = standby_of(pass);
    bool same = active != NULL && standby != NULL && active->version / 10000 == standby->version / 10000;
    for (int side = 0; side < SIDE_COUNT; side++) {
        if (pass->sides[side] != NULL && !configure(pass, (enum side)side, same, error)) {
            return false;
        }
    }
    return true;
}

/* Whether the state row of switchback stands in this database. */
static bool is_installed(struct blocking *blocking)
{
    static const char *const questions[] = {"select to_regclass('switchback.state') is not null",
                                            "select exists (select from switchback.state)"};
    struct error error;
    bool installed = blocking != NULL;
    for (size_t i = 0; installed && i < ARRAY_LENGTH(questions); i++) {
        char *value = blocking_value(blocking, &error, questions[i], 0, NULL);
        installed = value != NULL && *value == 't';
        free(value);
    }
    return installed;
}

/*
 * A missing database is found by the check of that name; what the other side is compared with is that its
 * cluster could offer. A side that doesn't answer isn't asked again for each database: each time is 10 s.
 */
static struct blocking *open_side(struct walk *walk, enum side side, const char *database)
{
    struct error refused;
    if (walk->gone[side].code != ERROR_NONE) {
        return NULL;
    }
    struct blocking *opened = blocking_open(walk->task, walk->brief, side, database, &refused);
    if (opened != NULL) {
        return opened;
    }
    struct blocking *cluster = blocking_open_cluster(walk->task, walk->brief, side, &refused);
    if (cluster == NULL) {
        walk->gone[side] = refused;
    } else if (side == walk->active) {
        blocking_close(cluster);
        cluster = NULL;
    }
    return cluster;
}

static bool check_database(struct walk *walk, const char *database, bool *prepared_all, struct error *error)
{
    struct pass pass = {.walk = walk,
                        .place = {.database = walk->brief->databases.count > 1 ? database : "", .side = ""}};
    for (int side = 0; side < SIDE_COUNT; side++) {
        pass.sides[side] = open_side(walk, (enum side)side, database);
    }
    pass.prepared = is_installed(pass.sides[SIDE_BLUE]) && is_installed(pass.sides[SIDE_GREEN]);
    *prepared_all = *prepared_all && pass.prepared;
    bool ok = task_stopping(walk->task)
                  ? task_aborted(error)
                  : configure_pass(&pass, error) && run_checks(&pass, CHECK_DATABASE, error);
    if (ok && pass.sides[SIDE_BLUE] != NULL && pass.sides[SIDE_GREEN] != NULL) { /* else nobody knows */
        check_items_add(walk->items, &prepared, pass.prepared ? CHECK_PASS : CHECK_FAIL, database);
    }
    close_pass(&pass);
    return ok || error->code == ERROR_UNREACHABLE; /* lost on the way: `reachable` tells at the next run */
}

static bool check_cluster(struct walk *walk, bool all_prepared, struct error *error)
{
    struct pass pass = {.walk = walk, .place = {.database = "", .side = ""}, .prepared = all_prepared};
    (void)check_items_want(walk->items, &reachable);
    for (int side = 0; side < SIDE_COUNT; side++) {
        struct error refused = walk->gone[side];
        if (refused.code == ERROR_NONE) {
            pass.sides[side] = blocking_open_cluster(walk->task, walk->brief, (enum side)side, &refused);
        }
        if (pass.sides[side] == NULL && refused.code == ERROR_ABORTED) {
            close_pass(&pass);
            return task_aborted(error);
        }
        if (pass.sides[side] == NULL) {
            check_items_add(walk->items, &reachable, CHECK_FAIL, refused.message);
        }
    }
    bool ok = configure_pass(&pass, error) && run_checks(&pass, CHECK_CLUSTER, error);
    close_pass(&pass);
    return ok || error->code == ERROR_UNREACHABLE;
}

static void describe(struct check_items *items)
{
    for (size_t g = 0; g < ARRAY_LENGTH(groups); g++) {
        for (size_t i = 0; i < groups[g]->count; i++) {
            if (groups[g]->checks[i].passes != NULL) {
                check_items_describe(items, &groups[g]->checks[i]);
            }
        }
    }
    check_items_describe(items, &reachable);
    check_items_describe(items, &prepared);
    check_items_describe(items, &unanswered);
}

bool check_run(struct task *task, const struct brief *brief, enum side active, const char *const *ids,
               struct check_items *items, struct error *error)
{
    struct walk walk = {.task = task, .brief = brief, .active = active, .ids = ids, .items = items};
    bool all_prepared = brief->databases.count > 0;
    (void)check_items_want(items, &reachable);
    for (size_t i = 0; i < brief->databases.count; i++) {
        if (!check_database(&walk, brief->databases.items[i], &all_prepared, error)) {
            return false;
        }
    }
    if (!check_cluster(&walk, all_prepared, error)) {
        return false;
    }
    describe(items);
    return !items->failed || error_set(error, ERROR_MEMORY, "out of memory");
}

/* --- replication_check --- */

struct check_work {
    struct brief *brief;
    enum side active;
    replication_checked done;
    void *context;
    struct check_items items;
};

static bool check_body(struct task *task, void *context, struct error *error)
{
    struct check_work *work = context;
    return check_run(task, work->brief, work->active, NULL, &work->items, error);
}

static void check_deliver(void *context, const struct replication_result *result)
{
    struct check_work *work = context;
    work->done(work->context, result, result->ok ? work->items.items : NULL,
               result->ok ? work->items.count : 0);
    check_items_deinit(&work->items);
    brief_free(work->brief);
    free(work);
}

void replication_check(struct replication *replication, enum side active, replication_checked done,
                       void *context)
{
    static const struct task_spec spec = {.name = "check", .body = check_body, .deliver = check_deliver};
    struct check_work *work = calloc(1, sizeof *work);
    ENSURE(work != NULL);
    *work = (struct check_work){
        .brief = brief_new(engine_settings(replication)), .active = active, .done = done, .context = context};
    task_start(engine_tasks(replication), engine_loop(replication), &spec, work);
}
