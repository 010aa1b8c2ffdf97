/* replication_stranded: what a diverged side holds that the active one never got, for the operator to look
 * at. */
#include "replication/stranded.h"

#include "conf/base/ensure.h"
#include "replication/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTED_MOST = 1000 };

struct listing {
    struct brief *brief;
    enum side side;
    struct replication_stranded rows[LISTED_MOST];
    struct replication_stranded_list list;
    struct stranded *stranded; /* by database: the rows point into them */
    PGresult **left;           /* by database: of a rejoin that has begun */
    replication_stranded_done done;
    void *context;
};

static void list_row(struct listing *listing, const struct replication_stranded *row)
{
    if (listing->list.count < LISTED_MOST) {
        listing->rows[listing->list.count++] = *row;
    }
    listing->list.total++;
}

static void list_changes(struct listing *listing, const char *database, const struct stranded *stranded)
{
    for (size_t i = 0; i < stranded->count; i++) {
        const struct stranded_change *change = &stranded->changes[i];
        list_row(listing, &(struct replication_stranded){.database = database,
                                                         .xid = change->xid,
                                                         .lsn = change->lsn,
                                                         .table = change->table,
                                                         .operation = change->operation,
                                                         .key = change->shown});
    }
    listing->list.transactions += stranded->transactions;
    listing->list.incomplete = listing->list.incomplete || stranded->incomplete;
}

/* How much of it the active side has; that it can't be asked makes the list longer, not wrong. */
static char *ask_active(struct task *task, const struct listing *listing, const char *database)
{
    struct error ignored;
    struct blocking *active =
        blocking_open(task, listing->brief, side_other(listing->side), database, &ignored);
    char *has = active == NULL
                    ? NULL
                    : blocking_value(active, &ignored,
                                     "select coalesce(has, '0/0') from switchback.of_the_other()", 0, NULL);
    blocking_close(active);
    if (has == NULL) {
        has = strdup("0/0");
        ENSURE(has != NULL);
    }
    return has;
}

static bool list_database(struct task *task, struct listing *listing, size_t index, struct error *error)
{
    const char *database = listing->brief->databases.items[index];
    struct blocking *side = blocking_open(task, listing->brief, listing->side, database, error);
    if (side == NULL) {
        return false;
    }
    PGresult *left =
        blocking_query(side, error,
                       "select r.name, r.columns::text || ' = ' || r.key::text, s.standing from"
                       " switchback.state s left join switchback.rejoining r on true order by r.id",
                       0, NULL);
    listing->left[index] = left;
    bool ok = left != NULL;
    bool diverged = ok && PQntuples(left) > 0 && strcmp(row_text(left, 0, 2), "diverged") == 0;
    bool begun = diverged && PQgetisnull(left, 0, 0) == 0;
    for (int row = 0; begun && row < PQntuples(left); row++) {
        list_row(listing, &(struct replication_stranded){.database = database,
                                                         .xid = "",
                                                         .lsn = "",
                                                         .table = row_text(left, row, 0),
                                                         .operation = "copy",
                                                         .key = row_text(left, row, 1)});
    }
    if (diverged && !begun) {
        char *has = ask_active(task, listing, database);
        ok = stranded_read(side, has, &listing->stranded[index], error);
        free(has);
        if (ok) {
            list_changes(listing, database, &listing->stranded[index]);
        }
    }
    blocking_close(side);
    return ok;
}

static bool body(struct task *task, void *work, struct error *error)
{
    struct listing *listing = work;
    bool ok = true;
    for (size_t i = 0; ok && i < listing->brief->databases.count; i++) {
        ok = list_database(task, listing, i, error);
    }
    return ok;
}

static void deliver(void *work, const struct replication_result *result)
{
    struct listing *listing = work;
    listing->list.rows = listing->rows;
    listing->done(listing->context, result, &listing->list);
    for (size_t i = 0; i < listing->brief->databases.count; i++) {
        stranded_deinit(&listing->stranded[i]);
        PQclear(listing->left[i]);
    }
    free(listing->stranded);
    free((void *)listing->left);
    brief_free(listing->brief);
    free(listing);
}

void replication_stranded(struct replication *replication, enum side side, replication_stranded_done done,
                          void *context)
{
    struct listing *listing = calloc(1, sizeof *listing);
    ENSURE(listing != NULL);
    listing->brief = brief_new(engine_settings(replication));
    listing->side = side;
    listing->done = done;
    listing->context = context;
    listing->stranded = calloc(listing->brief->databases.count, sizeof *listing->stranded);
    listing->left = calloc(listing->brief->databases.count, sizeof(PGresult *));
    ENSURE(listing->stranded != NULL && listing->left != NULL);
    task_start(engine_tasks(replication), engine_loop(replication),
               &(struct task_spec){.name = "stranded", .body = body, .deliver = deliver}, listing);
}
