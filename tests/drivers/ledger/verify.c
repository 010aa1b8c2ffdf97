/* Compares what the sessions were told with what a database holds. */
#include "ledger.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static PGconn *connect_once(const struct options *options)
{
    PGconn *conn = PQconnectdb(options->conninfo);
    if (PQstatus(conn) != CONNECTION_OK) {
        fatal("connect", PQerrorMessage(conn));
    }
    return conn;
}

static PGresult *ask(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fatal("query", PQerrorMessage(conn));
    }
    return result;
}

struct tally {
    uint64_t acknowledged, missing, doubled, unexpected, in_doubt, in_doubt_there, rows, elements, unseen;
};

/* --- rows of `entry` --------------------------------------------------------------------------------------
 * The file holds a session's operations in the order of n, and so does the table; both are walked side by
 * side. */

struct there {
    PGresult *rows; /* session, n, count */
    int next;
};

static int there_count(struct there *there, int session, int64_t n)
{
    while (there->next < PQntuples(there->rows)) {
        int s = atoi(PQgetvalue(there->rows, there->next, 0));
        int64_t at = strtoll(PQgetvalue(there->rows, there->next, 1), NULL, 10);
        if (s > session || (s == session && at > n)) {
            return 0;
        }
        there->next++;
        if (s == session && at == n) {
            return atoi(PQgetvalue(there->rows, there->next - 1, 2));
        }
    }
    return 0;
}

/* --- lists ------------------------------------------------------------------------------------------------
 */

struct lists {
    PGresult *rows;  /* id, element; in the order of the lists */
    int64_t *sorted; /* all elements, ascending */
    int count;
};

static int64_t lists_value(const struct lists *lists, int row, int column)
{
    return strtoll(PQgetvalue(lists->rows, row, column), NULL, 10);
}

static int compare_int64(const void *left, const void *right)
{
    int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;
    return (l > r) - (l < r);
}

static void lists_read(struct lists *lists, PGconn *conn, int run)
{
    char sql[512];
    snprintf(sql, sizeof(sql),
             "select id, i from list, unnest(items) with ordinality as u (i, place)"
             " where id / %d = %d order by id, place",
             LISTS_OF_A_RUN, run);
    lists->rows = ask(conn, sql);
    lists->count = PQntuples(lists->rows);
    lists->sorted = calloc((size_t)lists->count + 1, sizeof(int64_t));
    if (!lists->sorted) {
        fatal("verify", "out of memory");
    }
    for (int i = 0; i < lists->count; i++) {
        lists->sorted[i] = lists_value(lists, i, 1);
    }
    qsort(lists->sorted, (size_t)lists->count, sizeof(int64_t), compare_int64);
}

/* The first place in `sorted` that isn't below `element`. */
static int lists_place(const struct lists *lists, int64_t element)
{
    int low = 0, high = lists->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (lists->sorted[middle] < element) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int lists_count(const struct lists *lists, int64_t element)
{
    return lists_place(lists, element + 1) - lists_place(lists, element);
}

/* Does list `id` begin with `seen` elements that have this hash? */
static bool lists_begin_with(const struct lists *lists, int64_t id, int64_t seen, uint64_t expected)
{
    int low = 0, high = lists->count;
    while (low < high) { /* its first row */
        int middle = low + (high - low) / 2;
        if (lists_value(lists, middle, 0) < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    uint64_t hash = 0;
    for (int64_t i = 0; i < seen; i++, low++) {
        if (low >= lists->count || lists_value(lists, low, 0) != id) {
            return false;
        }
        hash = list_hash(hash, lists_value(lists, low, 1));
    }
    return hash == expected;
}

/* Elements that stand in a list behind a later one of the same session. */
static uint64_t lists_out_of_order(const struct lists *lists)
{
    static int64_t last[MAX_SESSIONS];
    uint64_t wrong = 0;
    for (int i = 0; i < lists->count; i++) {
        int64_t element = lists_value(lists, i, 1), session = element >> 40;
        if (i == 0 || lists_value(lists, i - 1, 0) != lists_value(lists, i, 0)) {
            memset(last, 0, sizeof(last));
        }
        if (session < 0 || session >= MAX_SESSIONS) {
            wrong++;
            continue;
        }
        wrong += element < last[session];
        last[session] = element;
    }
    return wrong;
}

/* --- the whole file ---------------------------------------------------------------------------------------
 */

static void tally_line(struct tally *tally, struct there *there, const struct lists *lists, const char *line)
{
    char outcome[8], kind;
    int session;
    int64_t n, list = 0, seen = 0;
    uint64_t hash = 0;
    if (sscanf(line, "%7s %d %" SCNd64 " %c %*s %*s %*s %*s %" SCNd64 " %" SCNd64 " %" SCNx64, outcome,
               &session, &n, &kind, &list, &seen, &hash) < 4) {
        fatal("verify", "a line of the file is not an operation");
    }
    if (kind == 's' && list && strcmp(outcome, "ack") == 0) {
        tally->unseen += !lists_begin_with(lists, list, seen, hash);
    }
    if (strchr("rsn", kind)) {
        return;
    }
    int count = kind == 'l' ? lists_count(lists, list_element(session, n)) : there_count(there, session, n);
    tally->doubled += count > 1;
    if (strcmp(outcome, "ack") == 0) {
        tally->acknowledged++;
        tally->missing += count == 0;
    } else if (strcmp(outcome, "doubt") == 0) {
        tally->in_doubt++;
        tally->in_doubt_there += count == 1;
    } else {
        tally->unexpected += count != 0;
    }
    *(kind == 'l' ? &tally->elements : &tally->rows) += (uint64_t)count;
    if (outcome[0] == 'a' ? count != 1 : count > 1 || (outcome[0] == 'f' && count)) {
        fprintf(stderr, "there %d times: %s", count, line);
    }
}

static uint64_t ask_number(PGconn *conn, const char *sql)
{
    PGresult *result = ask(conn, sql);
    uint64_t number = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return number;
}

/* Accounts whose balance isn't what their entries, of all runs, make of the opening one. */
static uint64_t wrong_balances(PGconn *conn)
{
    char sql[1024];
    snprintf(sql, sizeof(sql),
             "with moved as materialized (select source, target, amount from entry where source is not null)"
             " select count(*) from account left join (select id, sum(amount) as amount from"
             " (select target as id, amount from moved union all select source, -amount from moved) m group "
             "by id) s"
             " using (id) where balance <> %d + coalesce(amount, 0)",
             OPENING_BALANCE);
    return ask_number(conn, sql);
}

static FILE *open_run(const char *name, int *run)
{
    FILE *file = name ? fopen(name, "re") : NULL;
    char line[256];
    int accounts = 0;
    if (!file || !fgets(line, sizeof(line), file) ||
        sscanf(line, "# run %d accounts %d", run, &accounts) != 2) {
        fatal("verify", "--out names no file of a run");
    }
    return file;
}

int ledger_verify(const struct options *options)
{
    char line[256], sql[256];
    int run = 0;
    FILE *file = open_run(options->out, &run);
    PGconn *conn = connect_once(options);
    snprintf(sql, sizeof(sql),
             "select session, n, count(*) from entry where run = %d group by 1, 2 order by 1, 2", run);
    struct there there = {.rows = ask(conn, sql)};
    struct lists lists = {0};
    lists_read(&lists, conn, run);
    struct tally tally = {0};
    while (fgets(line, sizeof(line), file)) {
        tally_line(&tally, &there, &lists, line);
    }
    fclose(file);
    snprintf(sql, sizeof(sql), "select count(*) from entry where run = %d", run);
    uint64_t rows = ask_number(conn, sql);
    snprintf(sql, sizeof(sql), "select count(*) from entry where run = %d and tenant <> 's' || session", run);
    uint64_t foreign = ask_number(conn, sql), wrong = wrong_balances(conn),
             disordered = lists_out_of_order(&lists);
    uint64_t unknown = rows - tally.rows + (uint64_t)lists.count - tally.elements;
    bool good = tally.missing + tally.doubled + tally.unexpected + tally.unseen + wrong + foreign + unknown +
                    disordered ==
                0;
    printf("{\"ok\": %s, \"acknowledged\": %" PRIu64 ", \"missing\": %" PRIu64 ", \"doubled\": %" PRIu64
           ", \"unexpected\": %" PRIu64 ", \"in_doubt\": %" PRIu64 ", \"in_doubt_there\": %" PRIu64
           ", \"rows\": %" PRIu64 ", \"unknown_rows\": %" PRIu64 ", \"wrong_balances\": %" PRIu64
           ", \"wrong_tenant\": %" PRIu64 ", \"elements\": %d, \"gone_after_seen\": %" PRIu64
           ", \"out_of_order\": %" PRIu64 "}\n",
           good ? "true" : "false", tally.acknowledged, tally.missing, tally.doubled, tally.unexpected,
           tally.in_doubt, tally.in_doubt_there, rows, unknown, wrong, foreign, lists.count, tally.unseen,
           disordered);
    PQclear(there.rows);
    PQclear(lists.rows);
    free(lists.sorted);
    PQfinish(conn);
    return good ? 0 : 1;
}
