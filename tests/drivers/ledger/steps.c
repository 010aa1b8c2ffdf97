/* The operations of the ledger. An operation is acknowledged when the server said that it committed, in doubt
 * when the connection was lost after the commit had been asked for (or the server itself says that it doesn't
 * know), and failed otherwise. */
#include "ledger.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINGER_LEAST_US = 20000, LINGER_MOST_US = 220000, NOTIFY_WAIT_MS = 10000 };

static const struct {
    const char *name, *sql;
} statements[] = {
    {"take", "update account set balance = balance - $2 where id = $1"},
    {"give", "update account set balance = balance + $2 where id = $1"},
    {"record", "insert into entry (run, session, n, source, target, amount)"
               " values ($1, $2, $3, $4, $5, $6)"},
    {"recall", "select count(*), current_setting('app.tenant'), current_setting('TimeZone') from entry"
               " where run = $1 and session = $2 and n = $3 and tenant = current_setting('app.tenant')"},
    {"linger", "insert into entry (run, session, n, amount) select $1, $2, $3, 0 from pg_sleep($4)"},
    {"extend", "insert into list (id, items) values ($1, array[$2::bigint])"
               " on conflict (id) do update set items = list.items || excluded.items"},
    {"see", "select i from list, unnest(items) with ordinality as u (i, place) where id = $1 order by place"},
    {"notify", "select pg_notify($1, $2)"},
};
enum { PLAIN_STATEMENTS = 4 /* that are prepared without --states */ };

static const char *const zones[] = {"UTC", "Europe/Berlin", "Asia/Tokyo", "America/Lima"};

static const char *session_zone(const struct session *session)
{
    return zones[(size_t)session->number % (sizeof(zones) / sizeof(zones[0]))];
}

static bool succeed(PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

bool ledger_set_up(struct session *session)
{
    char sql[TEXT_SIZE];
    snprintf(sql, sizeof(sql), "set app.tenant = 's%d'; set TimeZone = '%s'", session->number,
             session_zone(session));
    if (!succeed(PQexec(session->conn, sql))) {
        return false;
    }
    snprintf(sql, sizeof(sql), "listen s%d", session->number);
    if (session->options->states && !succeed(PQexec(session->conn, sql))) {
        return false;
    }
    size_t count = session->options->states ? sizeof(statements) / sizeof(statements[0]) : PLAIN_STATEMENTS;
    for (size_t i = 0; i < count; i++) {
        if (!succeed(PQprepare(session->conn, statements[i].name, statements[i].sql, 0, NULL))) {
            return false;
        }
    }
    return true;
}

static struct operation *begin(struct session *session, char kind)
{
    if (session->count == session->capacity) {
        session->capacity = session->capacity ? session->capacity * 2 : 1024;
        session->operations = realloc(session->operations, session->capacity * sizeof(struct operation));
        if (!session->operations) {
            fatal("run", "out of memory");
        }
    }
    struct operation *operation = &session->operations[session->count++];
    *operation = (struct operation){.kind = kind, .n = (int64_t)session->count, .outcome = FAILED};
    operation->start_us = now_us(CLOCK_REALTIME);
    return operation;
}

static void note_wrong(struct session *session, const char *what, const char *value)
{
    if (session->wrong++ == 0) {
        snprintf(session->wrong_text, sizeof(session->wrong_text), "session %d, n %zu: %s is %s",
                 session->number, session->count, what, value);
    }
}

static bool good(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_COPY_IN;
}

static void note_error(struct operation *operation, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    snprintf(operation->sqlstate, sizeof(operation->sqlstate), "%s", sqlstate ? sqlstate : "08006");
}

static void note_round_trip(struct operation *operation, int64_t start)
{
    int64_t elapsed = now_us(CLOCK_MONOTONIC) - start;
    if (elapsed > operation->longest_us) {
        operation->longest_us = elapsed;
    }
}

/* One statement of an operation; NULL once it failed. Keeps the SQLSTATE of the failure. */
static PGresult *step(struct session *session, struct operation *operation, const char *name, int count,
                      const char *const *values)
{
    int64_t start = now_us(CLOCK_MONOTONIC);
    PGresult *result = count < 0 ? PQexec(session->conn, name)
                                 : PQexecPrepared(session->conn, name, count, values, NULL, NULL, 0);
    note_round_trip(operation, start);
    if (good(result)) {
        return result;
    }
    note_error(operation, result);
    PQclear(result);
    return NULL;
}

static bool run_step(struct session *session, struct operation *operation, const char *name, int count,
                     const char *const *values)
{
    PGresult *result = step(session, operation, name, count, values);
    PQclear(result);
    return result != NULL;
}

struct texts {
    char run[16], session[16], n[24], source[16], target[16], amount[16];
};

static void fill_texts(struct session *session, const struct operation *operation, struct texts *texts)
{
    int accounts = session->options->accounts;
    int source = 1 + (int)((unsigned)rand_r(&session->seed) % (unsigned)accounts);
    int target = 1 + source % accounts;
    snprintf(texts->run, sizeof(texts->run), "%d", session->options->run);
    snprintf(texts->session, sizeof(texts->session), "%d", session->number);
    snprintf(texts->n, sizeof(texts->n), "%" PRId64, operation->n);
    snprintf(texts->source, sizeof(texts->source), "%d", source);
    snprintf(texts->target, sizeof(texts->target), "%d", target);
    snprintf(texts->amount, sizeof(texts->amount), "%d", 1 + rand_r(&session->seed) % 20);
}

static int64_t linger_us(struct session *session)
{
    return LINGER_LEAST_US + rand_r(&session->seed) % (LINGER_MOST_US - LINGER_LEAST_US);
}

/* What an error says about a commit that had been asked for. 40003 and 08007: the outcome is unknown. */
static void judge_failed_commit(struct session *session, struct operation *operation)
{
    if (PQstatus(session->conn) != CONNECTION_OK || strcmp(operation->sqlstate, "08007") == 0 ||
        strcmp(operation->sqlstate, "40003") == 0) {
        operation->outcome = IN_DOUBT;
    }
}

static void acknowledge(struct session *session, struct operation *operation)
{
    operation->outcome = ACKNOWLEDGED;
    if (strchr(ENTRY_KINDS, operation->kind)) {
        session->last_acknowledged = operation->n;
    }
}

/* A statement that commits. A COMMIT of a failed transaction answers ROLLBACK. */
static bool commit_step(struct session *session, struct operation *operation, const char *name, int count,
                        const char *const *values)
{
    PGresult *result = step(session, operation, name, count, values);
    bool committed = result && strcmp(PQcmdStatus(result), "ROLLBACK") != 0;
    if (committed) {
        acknowledge(session, operation);
    } else if (!result) {
        judge_failed_commit(session, operation);
    }
    PQclear(result);
    return committed;
}

/* --- in each state in which a drain may find a session ----------------------------------------------------
 */

static void transfer(struct session *session)
{
    struct operation *operation = begin(session, 't');
    struct texts texts;
    fill_texts(session, operation, &texts);
    const char *take[] = {texts.source, texts.amount}, *give[] = {texts.target, texts.amount};
    const char *record[] = {texts.run, texts.session, texts.n, texts.source, texts.target, texts.amount};
    /* in the order of the accounts, so that sessions don't wait for each other in a circle */
    bool forward = atoi(texts.source) < atoi(texts.target);
    if (run_step(session, operation, "begin", -1, NULL) &&
        run_step(session, operation, forward ? "take" : "give", 2, forward ? take : give) &&
        run_step(session, operation, forward ? "give" : "take", 2, forward ? give : take) &&
        run_step(session, operation, "record", 6, record)) {
        commit_step(session, operation, "commit", -1, NULL);
    }
}

/*
 * The results of a pipeline of `count` statements, the last of which commits. Acknowledged is what the Sync's
 * reply confirms, too: when its postmaster dies, a backend that waits for the other side in a COMMIT gives
 * up, and if it LISTENs and a notification is due, what it had ready is flushed to the client, the COMMIT's
 * CommandComplete among it.
 */
static void collect_pipeline(struct session *session, struct operation *operation, int count)
{
    int64_t start = now_us(CLOCK_MONOTONIC);
    bool committed = false, synced = false;
    for (int at = 0, nulls = 0; !synced && nulls < 2;) {
        PGresult *result = PQgetResult(session->conn);
        if (!result) { /* ends a statement's results; two in a row: nothing comes any more */
            nulls++;
            continue;
        }
        nulls = 0;
        synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        if (PQresultStatus(result) == PGRES_FATAL_ERROR && !operation->sqlstate[0]) {
            note_error(operation, result);
        }
        if (++at == count && good(result)) {
            committed = strcmp(PQcmdStatus(result), "ROLLBACK") != 0;
        }
        PQclear(result);
    }
    note_round_trip(operation, start);
    if (committed && synced) {
        acknowledge(session, operation);
    } else {
        judge_failed_commit(session, operation);
    }
    PQexitPipelineMode(session->conn);
}

static void transfer_in_a_pipeline(struct session *session)
{
    struct operation *operation = begin(session, 'p');
    struct texts texts;
    fill_texts(session, operation, &texts);
    const char *take[] = {texts.source, texts.amount}, *give[] = {texts.target, texts.amount};
    const char *record[] = {texts.run, texts.session, texts.n, texts.source, texts.target, texts.amount};
    bool forward = atoi(texts.source) < atoi(texts.target);
    PGconn *conn = session->conn;
    bool sent = PQenterPipelineMode(conn) && PQsendQueryParams(conn, "begin", 0, NULL, NULL, NULL, NULL, 0);
    sent =
        sent && PQsendQueryPrepared(conn, forward ? "take" : "give", 2, forward ? take : give, NULL, NULL, 0);
    sent =
        sent && PQsendQueryPrepared(conn, forward ? "give" : "take", 2, forward ? give : take, NULL, NULL, 0);
    sent = sent && PQsendQueryPrepared(conn, "record", 6, record, NULL, NULL, 0);
    sent = sent && PQsendQueryParams(conn, "commit", 0, NULL, NULL, NULL, NULL, 0) && PQpipelineSync(conn);
    if (!sent) { /* the connection is lost, perhaps after a part was sent */
        snprintf(operation->sqlstate, sizeof(operation->sqlstate), "08006");
        judge_failed_commit(session, operation);
        return;
    }
    collect_pipeline(session, operation, 5);
}

static void append(struct session *session)
{
    struct operation *operation = begin(session, 'a');
    struct texts texts;
    fill_texts(session, operation, &texts);
    const char *record[] = {texts.run, texts.session, texts.n, NULL, NULL, "0"};
    commit_step(session, operation, "record", 6, record);
}

static void append_idle_in_transaction(struct session *session)
{
    struct operation *operation = begin(session, 'i');
    struct texts texts;
    fill_texts(session, operation, &texts);
    const char *record[] = {texts.run, texts.session, texts.n, NULL, NULL, "0"};
    if (run_step(session, operation, "begin", -1, NULL) &&
        run_step(session, operation, "record", 6, record)) {
        sleep_us(linger_us(session));
        commit_step(session, operation, "commit", -1, NULL);
    }
}

static void append_in_a_long_statement(struct session *session)
{
    struct operation *operation = begin(session, 'w');
    struct texts texts;
    fill_texts(session, operation, &texts);
    char seconds[24];
    int64_t pause = linger_us(session);
    snprintf(seconds, sizeof(seconds), "%.3f", (double)pause / 1e6);
    const char *linger[] = {texts.run, texts.session, texts.n, seconds};
    commit_step(session, operation, "linger", 4, linger);
    operation->longest_us -= operation->longest_us > pause ? pause : operation->longest_us;
}

static void append_by_copy(struct session *session)
{
    struct operation *operation = begin(session, 'c');
    char line[TEXT_SIZE];
    int length = snprintf(line, sizeof(line), "%d\t%d\t%" PRId64 "\t0\n", session->options->run,
                          session->number, operation->n);
    if (!run_step(session, operation, "copy entry (run, session, n, amount) from stdin", -1, NULL)) {
        return;
    }
    bool put = PQputCopyData(session->conn, line, length) == 1 && PQflush(session->conn) == 0;
    sleep_us(linger_us(session));
    int64_t start = now_us(CLOCK_MONOTONIC);
    put = PQputCopyEnd(session->conn, NULL) == 1 && put;
    for (PGresult *result; (result = PQgetResult(session->conn)) != NULL; PQclear(result)) {
        if (!good(result) && !operation->sqlstate[0]) {
            note_error(operation, result);
        }
        if (PQresultStatus(result) == PGRES_COPY_IN) { /* the connection is out of step: give it up */
            PQclear(result);
            break;
        }
    }
    note_round_trip(operation, start);
    if (put && !operation->sqlstate[0] && PQstatus(session->conn) == CONNECTION_OK) {
        acknowledge(session, operation);
    } else {
        judge_failed_commit(session, operation);
    }
}

/* --- lists ------------------------------------------------------------------------------------------------
 */

static void extend_list(struct session *session)
{
    struct operation *operation = begin(session, 'l');
    operation->list = (int64_t)session->options->run * LISTS_OF_A_RUN +
                      operation->n / LIST_OPERATIONS * LISTS + rand_r(&session->seed) % LISTS;
    char list[24], element[24];
    snprintf(list, sizeof(list), "%" PRId64, operation->list);
    snprintf(element, sizeof(element), "%" PRId64, list_element(session->number, operation->n));
    const char *values[] = {list, element};
    if (commit_step(session, operation, "extend", 2, values)) {
        session->list = operation->list;
        session->list_n = operation->n;
    }
}

/* What is seen of a list must be how it begins in the end; the session's own last element is in it. */
static void see_list(struct session *session)
{
    struct operation *operation = begin(session, 's');
    if (!session->list_n) {
        operation->outcome = ACKNOWLEDGED;
        return;
    }
    operation->list = session->list;
    char list[24];
    snprintf(list, sizeof(list), "%" PRId64, operation->list);
    const char *values[] = {list};
    PGresult *result = step(session, operation, "see", 1, values);
    if (!result) {
        return;
    }
    operation->outcome = ACKNOWLEDGED;
    operation->seen = PQntuples(result);
    bool own = false;
    for (int i = 0; i < PQntuples(result); i++) {
        int64_t element = strtoll(PQgetvalue(result, i, 0), NULL, 10);
        operation->hash = list_hash(operation->hash, element);
        own |= element == list_element(session->number, session->list_n);
    }
    if (!own) {
        note_wrong(session, "the list of its last acknowledged append", "without it");
    }
    PQclear(result);
}

/* --- what a session has besides rows ----------------------------------------------------------------------
 */

/* The last acknowledged write is there, and so are the session's settings. */
static void read_back(struct session *session)
{
    struct operation *operation = begin(session, 'r');
    char tenant[24], last[24];
    snprintf(tenant, sizeof(tenant), "s%d", session->number);
    snprintf(last, sizeof(last), "%" PRId64, session->last_acknowledged);
    struct texts texts;
    fill_texts(session, operation, &texts);
    const char *values[] = {texts.run, texts.session, last};
    PGresult *result = step(session, operation, "recall", 3, values);
    if (!result) {
        return;
    }
    operation->outcome = ACKNOWLEDGED;
    if (strcmp(PQgetvalue(result, 0, 1), tenant) != 0) {
        note_wrong(session, "app.tenant", PQgetvalue(result, 0, 1));
    }
    if (strcmp(PQgetvalue(result, 0, 2), session_zone(session)) != 0) {
        note_wrong(session, "TimeZone", PQgetvalue(result, 0, 2));
    }
    if (session->last_acknowledged && strcmp(PQgetvalue(result, 0, 0), "1") != 0) {
        note_wrong(session, "the count of its last acknowledged write", PQgetvalue(result, 0, 0));
    }
    PQclear(result);
}

/* Waits for one notification; true if it was the one of operation `n`. */
static bool notified(struct session *session, int64_t n)
{
    int64_t end = now_us(CLOCK_MONOTONIC) + NOTIFY_WAIT_MS * 1000;
    for (bool found = false; !found;) {
        struct pollfd readable = {.fd = PQsocket(session->conn), .events = POLLIN};
        for (PGnotify *one; (one = PQnotifies(session->conn)) != NULL; PQfreemem(one)) {
            found |= strtoll(one->extra, NULL, 10) == n;
        }
        int64_t left_ms = (end - now_us(CLOCK_MONOTONIC)) / 1000;
        if (found || left_ms <= 0 || poll(&readable, 1, (int)left_ms) < 0 || !PQconsumeInput(session->conn)) {
            return found;
        }
    }
    return true;
}

/* The session still listens. */
static void notify(struct session *session)
{
    struct operation *operation = begin(session, 'n');
    char channel[24], payload[24];
    snprintf(channel, sizeof(channel), "s%d", session->number);
    snprintf(payload, sizeof(payload), "%" PRId64, operation->n);
    const char *values[] = {channel, payload};
    PGresult *result = step(session, operation, "notify", 2, values);
    if (!result) {
        return;
    }
    PQclear(result);
    operation->outcome = ACKNOWLEDGED;
    if (!notified(session, operation->n) && PQstatus(session->conn) == CONNECTION_OK) {
        note_wrong(session, "what it listens to", "silent");
    }
}

/* --- which of them ----------------------------------------------------------------------------------------
 */

typedef void step_function(struct session *session);

void ledger_step(struct session *session)
{
    static step_function *const plain[] = {transfer, transfer, transfer,  transfer,  transfer,
                                           append,   append,   read_back, read_back, read_back};
    static step_function *const all[] = {
        transfer,
        transfer,
        transfer,
        transfer_in_a_pipeline,
        transfer_in_a_pipeline,
        append,
        extend_list,
        extend_list,
        append_idle_in_transaction,
        append_in_a_long_statement,
        append_by_copy,
        see_list,
        see_list,
        read_back,
        notify,
    };
    unsigned choice = (unsigned)rand_r(&session->seed);
    if (session->options->states) {
        all[choice % (sizeof(all) / sizeof(all[0]))](session);
    } else {
        plain[choice % (sizeof(plain) / sizeof(plain[0]))](session);
    }
}
