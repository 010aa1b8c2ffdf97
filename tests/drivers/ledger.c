/*
 * A load that knows what it was promised: sessions that transfer between accounts, append and read, each with
 * prepared statements and settings of its own, and a record of what became of every operation: acknowledged,
 * in doubt (the connection was lost while COMMIT was under way) or failed. Used by the integration tests, the
 * bench and the demo.
 *
 *   psql -v accounts=N -f ledger.sql            the tables, and N accounts
 *   ledger run    CONNINFO --out FILE --accounts N [--sessions N] [--seconds S] [--rate PER_SECOND] [--run
 * ID] ledger verify CONNINFO --out FILE
 *
 * `run` ends after S seconds or on SIGTERM/SIGINT, writes a line for each operation to FILE and a summary as
 * JSON to standard output; its exit status is 1 if anything failed. `verify` compares FILE with the database:
 * nothing acknowledged may be missing, nothing may be there twice, nothing that failed may be there, and each
 * account's balance is the sum of its entries.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

enum {
    OPENING_BALANCE = 1000 /* as in ledger.sql */,
    MAX_SESSIONS = 10000,
    RECONNECT_MS = 20,
    TEXT_SIZE = 128
};

enum outcome { ACKNOWLEDGED, IN_DOUBT, FAILED, OUTCOMES };
static const char *const outcome_names[OUTCOMES] = {"ack", "doubt", "fail"};

/* One operation, as it goes into the file. */
struct operation {
    char kind; /* t: transfer, a: append, r: read */
    enum outcome outcome;
    char sqlstate[6];
    int64_t n;          /* the operation's number in its session */
    int64_t start_us;   /* since 1970 */
    int64_t elapsed_us; /* of the whole operation */
    int64_t longest_us; /* its longest round trip, what a client feels of a pause */
};

struct options {
    const char *conninfo, *out;
    int accounts, sessions, run;
    double seconds, rate;
};

struct session {
    const struct options *options;
    int number;
    unsigned seed;
    pthread_t thread;
    PGconn *conn;
    struct operation *operations;
    size_t count, capacity;
    int64_t last_acknowledged; /* n of the last append or transfer; 0: none */
    uint64_t reconnects, wrong;
    char wrong_text[TEXT_SIZE * 2]; /* the first thing that was not as the session had set it */
};

static atomic_bool stopping;

static void fatal(const char *what, const char *why)
{
    fprintf(stderr, "ledger: %s: %s\n", what, why);
    exit(2);
}

static int64_t now_us(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void sleep_us(int64_t us)
{
    struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

/* --- a session --------------------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *sql;
} statements[] = {
    {"take", "update account set balance = balance - $2 where id = $1"},
    {"give", "update account set balance = balance + $2 where id = $1"},
    {"record", "insert into entry (run, session, n, source, target, amount)"
               " values ($1, $2, $3, $4, $5, $6)"},
    {"recall", "select count(*), current_setting('app.tenant'), current_setting('TimeZone') from entry"
               " where run = $1 and session = $2 and n = $3 and tenant = current_setting('app.tenant')"},
};

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

/* What an application does after it connected: its settings, then its prepared statements. */
static bool session_set_up(struct session *session)
{
    char sql[TEXT_SIZE];
    snprintf(sql, sizeof(sql), "set app.tenant = 's%d'; set TimeZone = '%s'", session->number,
             session_zone(session));
    if (!succeed(PQexec(session->conn, sql))) {
        return false;
    }
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (!succeed(PQprepare(session->conn, statements[i].name, statements[i].sql, 0, NULL))) {
            return false;
        }
    }
    return true;
}

/* Connects, again and again until it works or the run ends. */
static bool session_connect(struct session *session)
{
    while (!atomic_load(&stopping)) {
        session->conn = PQconnectdb(session->options->conninfo);
        if (PQstatus(session->conn) == CONNECTION_OK && session_set_up(session)) {
            return true;
        }
        PQfinish(session->conn);
        session->conn = NULL;
        sleep_us(RECONNECT_MS * 1000);
    }
    return false;
}

static struct operation *session_begin(struct session *session, char kind)
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
        snprintf(session->wrong_text, sizeof(session->wrong_text), "session %d: %s is %s", session->number,
                 what, value);
    }
}

/* One statement of an operation; NULL once it failed. Keeps the SQLSTATE of the failure. */
static PGresult *step(struct session *session, struct operation *operation, const char *name, int count,
                      const char *const *values)
{
    int64_t start = now_us(CLOCK_MONOTONIC);
    PGresult *result = count < 0 ? PQexec(session->conn, name)
                                 : PQexecPrepared(session->conn, name, count, values, NULL, NULL, 0);
    int64_t elapsed = now_us(CLOCK_MONOTONIC) - start;
    if (elapsed > operation->longest_us) {
        operation->longest_us = elapsed;
    }
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        return result;
    }
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    snprintf(operation->sqlstate, sizeof(operation->sqlstate), "%s", sqlstate ? sqlstate : "08006");
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

/* A statement that commits: a lost connection leaves its outcome in doubt, an error that leaves the
 * connection alive does not. */
static void commit_step(struct session *session, struct operation *operation, const char *name, int count,
                        const char *const *values)
{
    PGresult *result = step(session, operation, name, count, values);
    if (result) {
        if (strcmp(PQcmdStatus(result), "ROLLBACK") != 0) {
            operation->outcome = ACKNOWLEDGED;
            session->last_acknowledged = operation->n;
        }
    } else if (PQstatus(session->conn) != CONNECTION_OK) {
        operation->outcome = IN_DOUBT;
    }
    PQclear(result);
}

static void transfer(struct session *session)
{
    struct operation *operation = session_begin(session, 't');
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

static void append(struct session *session)
{
    struct operation *operation = session_begin(session, 'a');
    struct texts texts;
    fill_texts(session, operation, &texts);
    const char *record[] = {texts.run, texts.session, texts.n, NULL, NULL, "0"};
    commit_step(session, operation, "record", 6, record);
}

/* The last acknowledged write is there, and so are the session's settings. */
static void read_back(struct session *session)
{
    struct operation *operation = session_begin(session, 'r');
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

static void recover(struct session *session)
{
    struct operation *operation = &session->operations[session->count - 1];
    if (PQstatus(session->conn) == CONNECTION_OK && operation->sqlstate[0] &&
        PQtransactionStatus(session->conn) != PQTRANS_IDLE) {
        PQclear(PQexec(session->conn, "rollback"));
    }
    if (PQstatus(session->conn) != CONNECTION_OK) {
        PQfinish(session->conn);
        session->conn = NULL;
        session->reconnects++;
        session_connect(session);
    }
}

static void *session_run(void *context)
{
    struct session *session = context;
    session->seed = (unsigned)(session->options->run * 7919 + session->number);
    int64_t pause = session->options->rate > 0 ? (int64_t)(1e6 / session->options->rate) : 0;
    int64_t next = now_us(CLOCK_MONOTONIC) + (pause ? rand_r(&session->seed) % pause : 0);
    bool connected = session_connect(session);
    while (connected && !atomic_load(&stopping)) {
        if (pause) {
            int64_t wait = next - now_us(CLOCK_MONOTONIC);
            if (wait > 0) {
                sleep_us(wait > 100000 ? 100000 : wait);
                if (wait > 100000) {
                    continue;
                }
            }
            next = wait < -1000000 ? now_us(CLOCK_MONOTONIC) : next + pause;
        }
        int choice = rand_r(&session->seed) % 10;
        if (choice < 5) {
            transfer(session);
        } else if (choice < 7) {
            append(session);
        } else {
            read_back(session);
        }
        int64_t end = now_us(CLOCK_REALTIME);
        struct operation *operation = &session->operations[session->count - 1];
        operation->elapsed_us = end - operation->start_us;
        recover(session);
        connected = session->conn != NULL;
    }
    PQfinish(session->conn);
    return NULL;
}

/* --- run --------------------------------------------------------------------------------------------------
 */

static void write_operations(const struct options *options, const struct session *sessions)
{
    FILE *file = fopen(options->out, "we");
    if (!file) {
        fatal(options->out, strerror(errno));
    }
    fprintf(file, "# run %d accounts %d\n", options->run, options->accounts);
    for (int s = 0; s < options->sessions; s++) {
        for (size_t i = 0; i < sessions[s].count; i++) {
            const struct operation *o = &sessions[s].operations[i];
            fprintf(file, "%s %d %" PRId64 " %c %" PRId64 " %" PRId64 " %" PRId64 " %s\n",
                    outcome_names[o->outcome], s, o->n, o->kind, o->start_us, o->elapsed_us, o->longest_us,
                    o->sqlstate[0] ? o->sqlstate : "-");
        }
    }
    if (fclose(file) != 0) {
        fatal(options->out, strerror(errno));
    }
}

static int compare_int64(const void *left, const void *right)
{
    int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;
    return (l > r) - (l < r);
}

static void print_latencies(const struct options *options, const struct session *sessions, size_t total)
{
    int64_t *all = malloc((total + 1) * sizeof(int64_t));
    if (!all) {
        fatal("run", "out of memory");
    }
    size_t count = 0;
    for (int s = 0; s < options->sessions; s++) {
        for (size_t i = 0; i < sessions[s].count; i++) {
            all[count++] = sessions[s].operations[i].longest_us;
        }
    }
    all[count] = 0;
    qsort(all, count, sizeof(int64_t), compare_int64);
    printf("\"round_trip_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}", (double)all[count / 2] / 1000,
           (double)all[count * 99 / 100] / 1000, (double)all[count ? count - 1 : 0] / 1000);
    free(all);
}

static bool print_summary(const struct options *options, const struct session *sessions)
{
    uint64_t counts[OUTCOMES] = {0}, writes = 0, reconnects = 0, wrong = 0;
    const char *first_error = "", *first_wrong = "";
    size_t total = 0;
    for (int s = 0; s < options->sessions; s++) {
        total += sessions[s].count;
        reconnects += sessions[s].reconnects;
        wrong += sessions[s].wrong;
        first_wrong = *first_wrong ? first_wrong : sessions[s].wrong_text;
        for (size_t i = 0; i < sessions[s].count; i++) {
            const struct operation *operation = &sessions[s].operations[i];
            counts[operation->outcome]++;
            writes += operation->outcome == ACKNOWLEDGED && operation->kind != 'r';
            first_error = *first_error ? first_error : operation->sqlstate;
        }
    }
    printf("{\"run\": %d, \"sessions\": %d, \"operations\": %zu, \"acknowledged\": %" PRIu64
           ", \"acknowledged_writes\": %" PRIu64 ", \"in_doubt\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"reconnects\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"first_error\": \"%s\", \"first_wrong\": \"%s\", ",
           options->run, options->sessions, total, counts[ACKNOWLEDGED], writes, counts[IN_DOUBT],
           counts[FAILED], reconnects, wrong, first_error, first_wrong);
    print_latencies(options, sessions, total);
    printf("}\n");
    return counts[FAILED] + counts[IN_DOUBT] + wrong + reconnects == 0;
}

static int run(const struct options *options)
{
    struct session *sessions = calloc((size_t)options->sessions, sizeof(struct session));
    if (!options->out || !sessions) {
        fatal("run", "--out is missing");
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    for (int s = 0; s < options->sessions; s++) {
        sessions[s].options = options;
        sessions[s].number = s;
        if (pthread_create(&sessions[s].thread, NULL, session_run, &sessions[s]) != 0) {
            fatal("run", "no thread");
        }
    }
    if (options->seconds > 0) {
        struct timespec time = {.tv_sec = (time_t)options->seconds,
                                .tv_nsec =
                                    (long)((options->seconds - (double)(time_t)options->seconds) * 1e9)};
        sigtimedwait(&signals, NULL, &time);
    } else {
        sigwaitinfo(&signals, NULL);
    }
    atomic_store(&stopping, true);
    for (int s = 0; s < options->sessions; s++) {
        pthread_join(sessions[s].thread, NULL);
    }
    write_operations(options, sessions);
    bool clean = print_summary(options, sessions);
    for (int s = 0; s < options->sessions; s++) {
        free(sessions[s].operations);
    }
    free(sessions);
    return clean ? 0 : 1;
}

/* --- verify ---------------------------------------------------------------------------------------
 */

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
    uint64_t acknowledged, missing, doubled, unexpected, in_doubt, in_doubt_there, rows;
};

/* The file holds a session's writes in the order of n, and so does the table; both are walked side by side.
 */
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

static void tally_line(struct tally *tally, struct there *there, const char *line)
{
    char outcome[8], kind;
    int session;
    int64_t n;
    if (sscanf(line, "%7s %d %" SCNd64 " %c", outcome, &session, &n, &kind) != 4 || kind == 'r') {
        return;
    }
    int count = there_count(there, session, n);
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
    tally->rows += (uint64_t)count;
}

static int verify(const struct options *options)
{
    FILE *file = options->out ? fopen(options->out, "re") : NULL;
    char line[256], sql[1024];
    int run_id = 0, accounts = 0;
    if (!file || !fgets(line, sizeof(line), file) ||
        sscanf(line, "# run %d accounts %d", &run_id, &accounts) != 2) {
        fatal("verify", "--out names no file of a run");
    }
    PGconn *conn = connect_once(options);
    snprintf(sql, sizeof(sql),
             "select session, n, count(*) from entry where run = %d group by 1, 2 order by 1, 2", run_id);
    struct there there = {.rows = ask(conn, sql)};
    struct tally tally = {0};
    while (fgets(line, sizeof(line), file)) {
        tally_line(&tally, &there, line);
    }
    fclose(file);
    snprintf(sql, sizeof(sql),
             "select count(*), count(*) filter (where tenant <> 's' || session) from entry where run = %d",
             run_id);
    PGresult *counts = ask(conn, sql);
    uint64_t rows = strtoull(PQgetvalue(counts, 0, 0), NULL, 10),
             foreign = strtoull(PQgetvalue(counts, 0, 1), NULL, 10);
    snprintf(sql, sizeof(sql),
             "with moved as materialized (select source, target, amount from entry where source is not null)"
             " select count(*) from account left join (select id, sum(amount) as amount from"
             " (select target as id, amount from moved union all select source, -amount from moved) m group "
             "by id) s"
             " using (id) where balance <> %d + coalesce(amount, 0)",
             OPENING_BALANCE);
    PGresult *balances = ask(conn, sql);
    uint64_t wrong = strtoull(PQgetvalue(balances, 0, 0), NULL, 10);
    bool good = tally.missing + tally.doubled + tally.unexpected + wrong + foreign == 0 && tally.rows == rows;
    printf("{\"ok\": %s, \"acknowledged\": %" PRIu64 ", \"missing\": %" PRIu64 ", \"doubled\": %" PRIu64
           ", \"unexpected\": %" PRIu64 ", \"in_doubt\": %" PRIu64 ", \"in_doubt_there\": %" PRIu64
           ", \"rows\": %" PRIu64 ", \"unknown_rows\": %" PRIu64 ", \"wrong_balances\": %" PRIu64
           ", \"wrong_tenant\": %" PRIu64 "}\n",
           good ? "true" : "false", tally.acknowledged, tally.missing, tally.doubled, tally.unexpected,
           tally.in_doubt, tally.in_doubt_there, rows, rows - tally.rows, wrong, foreign);
    PQclear(there.rows);
    PQclear(counts);
    PQclear(balances);
    PQfinish(conn);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct options options = {.accounts = 1000, .sessions = 10, .run = 1};
    static const struct option known[] = {
        {"out", required_argument, NULL, 'o'},
        {"accounts", required_argument, NULL, 'a'},
        {"run", required_argument, NULL, 'r'},
        {"sessions", required_argument, NULL, 's'},
        {"rate", required_argument, NULL, 'p'},
        {"seconds", required_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'o':
            options.out = optarg;
            break;
        case 'a':
            options.accounts = atoi(optarg);
            break;
        case 'r':
            options.run = atoi(optarg);
            break;
        case 's':
            options.sessions = atoi(optarg);
            break;
        case 'p':
            options.rate = atof(optarg);
            break;
        case 't':
            options.seconds = atof(optarg);
            break;
        default:
            return 2;
        }
    }
    if (argc - optind != 2 || options.sessions < 1 || options.sessions > MAX_SESSIONS ||
        options.accounts < 2) {
        fprintf(stderr, "usage: ledger run|verify CONNINFO [options]\n");
        return 2;
    }
    options.conninfo = argv[optind + 1];
    const char *verb = argv[optind];
    if (strcmp(verb, "run") == 0) {
        return run(&options);
    }
    if (strcmp(verb, "verify") == 0) {
        return verify(&options);
    }
    fatal(verb, "unknown verb");
}
