/* prepare, step 8: the initial copy, which the standby's sync workers make; here it is watched. */
#include "replication/prepare.h"

#include "conf/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOK_EVERY_US = 500000,
    NUDGE_EVERY_US = 50000,
    STUCK_AFTER_US = 10 * 1000000,
    ERRORS_TOO_MANY = 5,             /* of the workers, while no table was finished */
    ENOUGH_TO_ESTIMATE_US = 2000000, /* before that an ETA is a guess */
};

static const char no_suspects[] = "{}"; /* an empty text[] */

struct copy_table {
    char *name;
    int64_t bytes;  /* of the table on the active side, with toast */
    int64_t tuples; /* its planner's estimate there; at most 0: unknown */
};

struct copy_database {
    struct copy_table *tables; /* sorted by name */
    size_t count;
    int64_t bytes; /* of all */

    /* as last seen */
    int64_t done_bytes, ready, errors;
    bool catching_up; /* a table is copied but not in sync */
    char *suspects;   /* those that may be stuck: a text[] */
    int64_t suspected_us;
    size_t relations;
};

struct copy {
    struct copy_database *databases;
    int64_t begun_us, begun_bytes; /* where this run found it, for the ETA */
    int64_t ready, errors;         /* when a table was last finished */
};

static int by_name(const void *a, const void *b)
{
    const struct copy_table *one = a;
    const struct copy_table *other = b;
    return strcmp(one->name, other->name);
}

static void free_copy(struct copy *copy, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < copy->databases[i].count; k++) {
            free(copy->databases[i].tables[k].name);
        }
        free(copy->databases[i].tables);
        free(copy->databases[i].suspects);
    }
    free(copy->databases);
}

static bool read_sizes(struct blocking *active, struct copy_database *database, struct error *error)
{
    PGresult *rows =
        blocking_query(active, error,
                       WITH_MANAGED "select m.name, pg_table_size(m.oid), m.reltuples::bigint from"
                                    " managed m order by m.name collate \"C\"",
                       0, NULL);
    if (rows == NULL) {
        return false;
    }
    size_t count = (size_t)PQntuples(rows);
    database->tables = calloc(count + 1, sizeof *database->tables);
    database->suspects = strdup(no_suspects);
    if (database->tables == NULL || database->suspects == NULL) {
        PQclear(rows);
        return error_set(error, ERROR_MEMORY, "out of memory");
    }
    bool ok = true;
    while (ok && database->count < count) {
        int row = (int)database->count;
        struct copy_table *table = &database->tables[row];
        *table = (struct copy_table){.name = strdup(row_text(rows, row, 0)),
                                     .bytes = row_number(rows, row, 1),
                                     .tuples = row_number(rows, row, 2)};
        ok = table->name != NULL;
        database->bytes += table->bytes;
        database->count++;
    }
    PQclear(rows);
    return ok || error_set(error, ERROR_MEMORY, "out of memory");
}

/* Of each relation of the subscription: its state, and the rows copied so far (14 and newer tell). */
static const char states_before_14[] = "select format('%I.%I', n.nspname, c.relname), r.srsubstate, 0 from "
                                       "pg_subscription_rel r join pg_subscription"
                                       " s on s.oid = r.srsubid join pg_class c on c.oid = r.srrelid join "
                                       "pg_namespace n on n.oid = c.relnamespace"
                                       " where s.subname = $1";
static const char states[] =
    "select format('%I.%I', n.nspname, c.relname), r.srsubstate, coalesce(p.tuples_processed, 0) from"
    " pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid join pg_class c on c.oid = r.srrelid"
    " join pg_namespace n on n.oid = c.relnamespace left join pg_stat_progress_copy p on p.relid = r.srrelid "
    "and"
    " p.datname = current_database() where s.subname = $1";
static const char errors_from_15[] = "select coalesce(sum(apply_error_count + sync_error_count), 0) from "
                                     "pg_stat_subscription_stats where subname"
                                     " = $1";

static int64_t bytes_done(const struct copy_database *database, const PGresult *rows, int row)
{
    struct copy_table key = {.name = PQgetvalue(rows, row, 0)};
    if (database->count == 0) {
        return 0;
    }
    const struct copy_table *table =
        bsearch(&key, database->tables, database->count, sizeof *database->tables, by_name);
    if (table == NULL) {
        return 0; /* the markers, or a table that came since */
    }
    char state = *row_text(rows, row, 1);
    if (state == 'f' || state == 's' || state == 'r') {
        return table->bytes;
    }
    int64_t copied = row_number(rows, row, 2);
    if (copied <= 0 || table->tuples <= 0) {
        return 0;
    }
    return copied >= table->tuples ? table->bytes
                                   : (int64_t)((double)table->bytes * (double)copied / (double)table->tuples);
}

static bool look(struct prepare *prepare, size_t index, struct copy_database *database, struct error *error)
{
    const char *const parameters[] = {names_subscription(prepare->active)};
    struct blocking *standby = prepare_connect(prepare, index, prepare->standby, error);
    if (standby == NULL) {
        return false;
    }
    PGresult *rows =
        blocking_query(standby, error, standby->version < 140000 ? states_before_14 : states, 1, parameters);
    if (rows == NULL) {
        return false;
    }
    database->done_bytes = 0;
    database->ready = 0;
    database->catching_up = false;
    database->relations = (size_t)PQntuples(rows);
    for (int row = 0; row < PQntuples(rows); row++) {
        database->done_bytes += bytes_done(database, rows, row);
        database->ready += *row_text(rows, row, 1) == 'r' ? 1 : 0;
        database->catching_up = database->catching_up || *row_text(rows, row, 1) == 'f';
    }
    PQclear(rows);
    if (standby->version >= 150000) {
        char *errors = blocking_value(standby, error, errors_from_15, 1, parameters);
        if (errors == NULL) {
            return false;
        }
        database->errors = strtoll(errors, NULL, 10);
        free(errors);
    }
    return true;
}

/* A table that is suspect in look after look is stuck: only a new stream helps. */
static bool look_closely(struct prepare *prepare, size_t index, struct copy_database *database,
                         struct error *error)
{
    if (!look(prepare, index, database, error)) {
        return false;
    }
    bool suspected = strcmp(database->suspects, no_suspects) != 0;
    if (!database->catching_up && !suspected) {
        return true;
    }
    if (prepare_connect(prepare, index, prepare->active, error) == NULL ||
        !prepare_suspect(prepare, index, &database->suspects, error)) {
        return false;
    }
    if (!suspected || strcmp(database->suspects, no_suspects) == 0) {
        database->suspected_us = clock_mono_us();
        return true;
    }
    if (clock_mono_us() - database->suspected_us < STUCK_AFTER_US) {
        return true;
    }
    (void)memcpy(database->suspects, no_suspects, sizeof no_suspects);
    database->errors = 0; /* they were of the stream that goes now */
    return prepare_unstick(prepare, index, error);
}

/* Looks at one database; a lost connection is only a reason to look again, prepare_connect gives up in time.
 */
static bool look_again(struct prepare *prepare, size_t index, struct copy_database *database,
                       struct error *error)
{
    return look_closely(prepare, index, database, error) ||
           (error->code == ERROR_UNREACHABLE && look_closely(prepare, index, database, error));
}

static void tell(struct prepare *prepare, const struct copy *copy, int64_t done, int64_t bytes, int64_t ready,
                 int64_t relations)
{
    enum { MEGABYTE = 1000000 };
    int64_t elapsed = clock_mono_us() - copy->begun_us;
    int64_t eta = -1;
    if (elapsed > ENOUGH_TO_ESTIMATE_US && done > copy->begun_bytes) {
        eta = (int64_t)((double)elapsed * (double)(bytes - done) / (double)(done - copy->begun_bytes));
    }
    double fraction = bytes == 0 ? 0 : (double)done / (double)bytes;
    prepare_say(prepare, fraction > 1 ? 1 : fraction, eta,
                "%" PRId64 " of %" PRId64 " tables, %" PRId64 " of %" PRId64 " MB", ready, relations,
                done / MEGABYTE, bytes / MEGABYTE);
}

static bool refuse_errors(const struct prepare *prepare, struct error *error)
{
    error_set(error, ERROR_NOT_IN_SYNC, "the workers on %s fail again and again: the copy doesn't go on",
              side_name(prepare->standby));
    return error_remedy(error,
                        "the server log on %s says why (lines with 'logical replication'); mend it, then run "
                        "prepare again",
                        side_name(prepare->standby));
}

/* One look at all databases. *finished: every table is in sync. */
static bool look_at_all(struct prepare *prepare, struct copy *copy, bool *finished, struct error *error)
{
    int64_t done = 0;
    int64_t bytes = 0;
    int64_t ready = 0;
    int64_t relations = 0;
    int64_t errors = 0;
    bool suspected = false; /* then the errors are about to be mended */
    for (size_t i = 0; i < prepare->database_count; i++) {
        struct copy_database *database = &copy->databases[i];
        if (!look_again(prepare, i, database, error)) {
            return false;
        }
        done += database->done_bytes;
        bytes += database->bytes;
        ready += database->ready;
        relations += (int64_t)database->relations;
        errors += database->errors;
        suspected = suspected || strcmp(database->suspects, no_suspects) != 0;
    }
    if (copy->begun_us == 0 || ready != copy->ready || errors < copy->errors) {
        copy->errors = errors;
        copy->ready = ready;
    }
    if (copy->begun_us == 0) {
        copy->begun_us = clock_mono_us();
        copy->begun_bytes = done;
    }
    *finished = ready == relations && relations > 0;
    tell(prepare, copy, done, bytes, ready, relations);
    return suspected || errors - copy->errors < ERRORS_TOO_MANY || refuse_errors(prepare, error);
}

/*
 * Until it is time to look again. An apply worker that receives nothing looks after its tables once a second
 * only, and that is what many small ones would wait for: a marker now and then makes it look at once.
 */
static bool nudge(struct prepare *prepare, const struct copy *copy, struct error *error)
{
    int64_t look_us = clock_mono_us() + LOOK_EVERY_US;
    while (clock_mono_us() < look_us) {
        for (size_t i = 0; i < prepare->database_count; i++) {
            if (copy->databases[i].ready == (int64_t)copy->databases[i].relations) {
                continue;
            }
            char *n = prepare_mark(prepare, i, error);
            free(n);
            if (n == NULL && error->code != ERROR_UNREACHABLE) {
                return false;
            }
        }
        if (!task_sleep(prepare->task, NUDGE_EVERY_US, error)) {
            return false;
        }
    }
    return true;
}

static bool watch(struct prepare *prepare, struct copy *copy, struct error *error)
{
    for (size_t i = 0; i < prepare->database_count; i++) {
        struct blocking *active = prepare_connect(prepare, i, prepare->active, error);
        if (active == NULL || !read_sizes(active, &copy->databases[i], error)) {
            return false;
        }
    }
    bool finished = false;
    while (look_at_all(prepare, copy, &finished, error)) {
        if (finished) {
            return true;
        }
        if (!nudge(prepare, copy, error)) {
            return false;
        }
    }
    return false;
}

bool prepare_copy(struct prepare *prepare, struct error *error)
{
    struct copy copy = {.databases = calloc(prepare->database_count + 1, sizeof *copy.databases)};
    if (copy.databases == NULL) {
        return error_set(error, ERROR_MEMORY, "out of memory");
    }
    bool ok = watch(prepare, &copy, error);
    free_copy(&copy, prepare->database_count);
    return ok;
}
