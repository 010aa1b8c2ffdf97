/*
 * Rows that a diverged side lacks are copied from the active one while that goes on writing and its stream
 * runs. For a batch of keys: their rows are locked there against change and read; what was committed before
 * has then arrived here; the rows are written here; the lock goes. So nothing older can come after them, and
 * nothing newer before.
 */
#include "replication/rejoin.h"

#include "conf/base/clock.h"
#include "replication/sql.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 200, ARRIVE_WITHIN_US = 60000000, TRIES = 30, TRY_PAUSE_US = 500000 };

static struct blocking *active_of(const struct rejoin *rejoin)
{
    return rejoin->sides[rejoin->active];
}

static struct blocking *other_of(const struct rejoin *rejoin)
{
    return rejoin->sides[side_other(rejoin->active)];
}

/* --- what a batch is --- */

struct batch {
    PGresult *keys; /* id, key */
    char *table;    /* quoted */
    char *columns;  /* that both sides have, as a list */
    char *condition[SIDE_COUNT];
    PGresult *rows; /* of the active side */
};

static void batch_deinit(struct batch *batch)
{
    PQclear(batch->keys);
    PQclear(batch->rows);
    free(batch->table);
    free(batch->columns);
    free(batch->condition[SIDE_BLUE]);
    free(batch->condition[SIDE_GREEN]);
}

static bool find_columns(struct rejoin *rejoin, struct batch *batch, struct error *error)
{
    static const char sql[] =
        "select coalesce(array_agg(a.attname order by a.attnum), '{}')::text, coalesce(string_agg("
        "quote_ident(a.attname), ', ' order by a.attnum), '') from pg_attribute a where a.attrelid ="
        " to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and"
        " ($2 = '' or a.attname = any (nullif($2, '')::name[]))";
    const char *parameters[] = {batch->table, ""};
    char *here = blocking_value(other_of(rejoin), error, sql, 2, parameters);
    parameters[1] = here;
    PGresult *row = here == NULL ? NULL : blocking_query(active_of(rejoin), error, sql, 2, parameters);
    batch->columns = row == NULL ? NULL : strdup(row_text(row, 0, 1));
    PQclear(row);
    free(here);
    return batch->columns != NULL;
}

static bool next_batch(struct rejoin *rejoin, struct batch *batch, struct error *error)
{
    *batch = (struct batch){.keys = NULL};
    PGresult *first =
        blocking_query(other_of(rejoin), error,
                       "select name, columns::text from switchback.rejoining order by id limit 1", 0, NULL);
    if (first == NULL || PQntuples(first) == 0) {
        bool ended = first != NULL;
        PQclear(first);
        return ended; /* nothing is left: no table */
    }
    const char *const parameters[] = {row_text(first, 0, 0), row_text(first, 0, 1)};
    char most[128];
    (void)snprintf(
        most, sizeof most,
        "select id, key::text from switchback.rejoining where name = $1 and columns = $2::text[] order by id"
        " limit %d",
        BATCH);
    batch->keys = blocking_query(other_of(rejoin), error, most, 2, parameters);
    bool ok = batch->keys != NULL;
    for (int side = 0; ok && side < SIDE_COUNT; side++) {
        batch->condition[side] = blocking_value(
            rejoin->sides[side], error, "select switchback.key_condition($1, $2::text[])", 2, parameters);
        ok = batch->condition[side] != NULL;
    }
    batch->table = ok ? strdup(parameters[0]) : NULL;
    ok = batch->table != NULL && find_columns(rejoin, batch, error);
    PQclear(first);
    return ok;
}

/* --- its rows --- */

static void put_keys(const struct batch *batch, struct strbuf *sql)
{
    strbuf_puts(sql, "(values ");
    for (int row = 0; row < PQntuples(batch->keys); row++) {
        sql_format(sql, "%s(%L::text[])", row == 0 ? "" : ", ", row_text(batch->keys, row, 1));
    }
    strbuf_puts(sql, ") k(key)");
}

static bool lock_rows(struct rejoin *rejoin, struct batch *batch, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    sql_format(&sql, "select %s from only %s t, ", batch->columns, batch->table);
    put_keys(batch, &sql);
    sql_format(&sql, " where %s for share of t", batch->condition[rejoin->active]);
    bool ok = !sql.failed && blocking_run(active_of(rejoin), error, "begin; set local lock_timeout = '2s'");
    batch->rows = ok ? blocking_query(active_of(rejoin), error, strbuf_text(&sql), 0, NULL) : NULL;
    strbuf_deinit(&sql);
    return batch->rows != NULL;
}

static void put_rows(const struct batch *batch, struct strbuf *sql)
{
    sql_format(sql, "insert into %s (%s) overriding system value values ", batch->table, batch->columns);
    for (int row = 0; row < PQntuples(batch->rows); row++) {
        strbuf_puts(sql, row == 0 ? "(" : ", (");
        for (int column = 0; column < PQnfields(batch->rows); column++) {
            strbuf_puts(sql, column == 0 ? "" : ", ");
            if (PQgetisnull(batch->rows, row, column) != 0) {
                strbuf_puts(sql, "null");
            } else {
                sql_literal(sql, row_text(batch->rows, row, column));
            }
        }
        strbuf_puts(sql, ")");
    }
    strbuf_puts(sql, "; ");
}

static bool write_rows(struct rejoin *rejoin, const struct batch *batch, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    sql_format(&sql, "begin; select switchback.claim(%u); delete from only %s t using ", rejoin->owner,
               batch->table);
    put_keys(batch, &sql);
    sql_format(&sql, " where %s; ", batch->condition[side_other(rejoin->active)]);
    if (PQntuples(batch->rows) > 0) {
        put_rows(batch, &sql);
    }
    strbuf_puts(&sql, "delete from switchback.rejoining where id = any ('{");
    for (int row = 0; row < PQntuples(batch->keys); row++) {
        strbuf_printf(&sql, "%s%s", row == 0 ? "" : ",", row_text(batch->keys, row, 0));
    }
    strbuf_puts(&sql, "}'); commit");
    bool ok = blocking_run_buffer(other_of(rejoin), error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

static void roll_back(struct blocking *blocking)
{
    struct error ignored;
    if (PQtransactionStatus(blocking->connection) != PQTRANS_IDLE) {
        (void)!blocking_run(blocking, &ignored, "rollback");
    }
}

static bool copy_batch(struct rejoin *rejoin, struct batch *batch, struct error *error)
{
    bool ok = lock_rows(rejoin, batch, error) && rejoin_catch_up(rejoin, ARRIVE_WITHIN_US, error) &&
              write_rows(rejoin, batch, error);
    roll_back(active_of(rejoin)); /* it wrote nothing */
    roll_back(other_of(rejoin));
    PQclear(batch->rows);
    batch->rows = NULL;
    return ok;
}

/* Clients' locks are waited for, a little and again. */
static bool copy_patiently(struct rejoin *rejoin, struct batch *batch, struct error *error)
{
    for (int tries = 1;; tries++) {
        if (copy_batch(rejoin, batch, error)) {
            return true;
        }
        const char *why = active_of(rejoin)->sqlstate;
        bool again = strcmp(why, "55P03") == 0 || strcmp(why, "40P01") == 0;
        if (!again || tries == TRIES || !task_sleep(rejoin->task, TRY_PAUSE_US, error)) {
            return false;
        }
    }
}

bool rejoin_copy(struct rejoin *rejoin, struct error *error)
{
    for (uint64_t copied = 0;;) {
        struct batch batch;
        bool ok = next_batch(rejoin, &batch, error);
        bool ended = ok && batch.table == NULL;
        if (ok && !ended) {
            ok = copy_patiently(rejoin, &batch, error);
            copied += (uint64_t)PQntuples(batch.keys);
            rejoin_say(rejoin, -1, "%s: %" PRIu64 " rows", other_of(rejoin)->database, copied);
        }
        batch_deinit(&batch);
        if (!ok || ended) {
            return ok;
        }
    }
}
