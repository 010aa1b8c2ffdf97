#include "replication/blocking.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/names.h"
#include "replication/tls.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_TIMEOUT_US = 10 * 1000000, POLL_MS = 1000, CLUSTER_PATIENCE_US = 3 * 1000000 };

/* Waits until the socket is ready, the deadline has passed or the task must stop. */
static bool wait_socket(struct blocking *blocking, short events, int64_t deadline_us, struct error *error)
{
    for (;;) {
        if (task_stopping(blocking->task)) {
            return task_aborted(error);
        }
        int64_t left = deadline_us == 0 ? INT64_MAX : deadline_us - clock_mono_us();
        if (left <= 0) {
            return error_set(error, ERROR_UNREACHABLE, "%s, database %s: no answer in time",
                             side_name(blocking->side), blocking->database);
        }
        struct pollfd ready[] = {
            {.fd = PQsocket(blocking->connection), .events = events},
            {.fd = task_wake_fd(blocking->task), .events = POLLIN},
        };
        int timeout = left / 1000 >= POLL_MS ? POLL_MS : (int)(left / 1000) + 1;
        if (poll(ready, ARRAY_LENGTH(ready), timeout) > 0 && ready[0].revents != 0) {
            return true;
        }
    }
}

/* libpq's messages end in a newline and may have several lines: the first one says it. */
static void put_message(char *text, size_t size, const char *message)
{
    const char *const known = message == NULL ? "" : message;
    (void)snprintf(text, size, "%.*s", (int)strcspn(known, "\n"), known);
}

static bool connection_failed(struct blocking *blocking, struct error *error)
{
    char message[512];
    put_message(message, sizeof message, PQerrorMessage(blocking->connection));
    return error_set(error, ERROR_UNREACHABLE, "%s, database %s: %s", side_name(blocking->side),
                     blocking->database, message);
}

/* Our own SQLSTATEs (schema.sql) say what went wrong better than "sql". */
static enum error_code code_of(const char *sqlstate)
{
    static const struct {
        const char *sqlstate;
        enum error_code code;
    } codes[] = {
        {"SB001", ERROR_STALE},     {"SB002", ERROR_NOT_IN_SYNC},  {"SB003", ERROR_NOT_PREPARED},
        {"SB004", ERROR_UNDECIDED}, {"SB005", ERROR_CHECK_FAILED},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        if (strcmp(codes[i].sqlstate, sqlstate) == 0) {
            return codes[i].code;
        }
    }
    return ERROR_SQL;
}

static bool query_failed(struct blocking *blocking, const PGresult *result, struct error *error)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    (void)snprintf(blocking->sqlstate, sizeof blocking->sqlstate, "%s", sqlstate == NULL ? "" : sqlstate);
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    blocking->position = position == NULL ? 0 : strtoll(position, NULL, 10);
    if (sqlstate == NULL || PQstatus(blocking->connection) == CONNECTION_BAD) {
        return connection_failed(blocking, error);
    }
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    error_set(error, code_of(sqlstate), "%s, database %s: %s%s%s (SQLSTATE %s)", side_name(blocking->side),
              blocking->database, primary == NULL ? "error" : primary, detail == NULL ? "" : ": ",
              detail == NULL ? "" : detail, sqlstate);
    if (hint != NULL) {
        error_remedy(error, "%s", hint);
    }
    return false;
}

static void on_notice(void *argument, const PGresult *result)
{
    const struct blocking *blocking = argument;
    LOG_DEBUG("server_notice", LOG_STR("side", side_name(blocking->side)),
              LOG_STR("message", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)));
}

static bool finish_connecting(struct blocking *blocking, struct error *error)
{
    int64_t deadline = clock_mono_us() + CONNECT_TIMEOUT_US;
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    while (status != PGRES_POLLING_OK) {
        if (status == PGRES_POLLING_FAILED) {
            return connection_failed(blocking, error);
        }
        if (!wait_socket(blocking, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline, error)) {
            return false;
        }
        status = PQconnectPoll(blocking->connection);
    }
    return true;
}

enum { KEYWORDS_MAX = 24 };

struct keywords {
    const char *names[KEYWORDS_MAX + 1], *values[KEYWORDS_MAX + 1];
    size_t count;
};

static void add(struct keywords *keywords, const char *name, const char *value)
{
    ENSURE(keywords->count < KEYWORDS_MAX);
    keywords->names[keywords->count] = name;
    keywords->values[keywords->count] = value;
    keywords->count++;
}

/* Where the side is and what its certificate must say; the address is filled in where it has to stand beside.
 */
static void add_way(struct keywords *keywords, const struct brief_side *side, char address[TLS_ADDRESS_SIZE])
{
    const char *name = tls_host(side->host, side->tls_server_name);
    struct tls_parameter parameters[TLS_PARAMETERS];
    add(keywords, "host", name == NULL ? side->host : name);
    if (name != NULL) {
        tls_look_up(side->host, address);
        add(keywords, "hostaddr", address);
    }
    tls_parameters(&side->tls, parameters);
    for (size_t i = 0; i < TLS_PARAMETERS; i++) {
        add(keywords, parameters[i].keyword, parameters[i].value);
    }
}

static bool connect_side(struct blocking *blocking, const struct brief *brief, struct error *error)
{
    const char *password = brief->manager.password;
    char port[16], application[NAMES_APPLICATION_SIZE], address[TLS_ADDRESS_SIZE];
    struct keywords keywords = {.count = 0};
    (void)snprintf(port, sizeof port, "%d", (int)brief->sides[blocking->side].port);
    add_way(&keywords, &brief->sides[blocking->side], address);
    add(&keywords, "port", port);
    add(&keywords, "user", brief->manager.user);
    add(&keywords, "password", *password == '\0' ? NULL : password);
    add(&keywords, "dbname", blocking->database);
    add(&keywords, "application_name", names_application("task", application));
    add(&keywords, "client_encoding", "UTF8");
    add(&keywords, "keepalives_idle", "5");
    add(&keywords, "keepalives_interval", "2");
    add(&keywords, "keepalives_count", "3");
    add(&keywords, "tcp_user_timeout", "15000");
    add(&keywords, "passfile", NO_PASSFILE);
    blocking->connection = PQconnectStartParams(keywords.names, keywords.values, 0);
    if (blocking->connection == NULL) {
        return error_set(error, ERROR_MEMORY, "out of memory");
    }
    if (PQstatus(blocking->connection) == CONNECTION_BAD) {
        return connection_failed(blocking, error);
    }
    PQsetNoticeReceiver(blocking->connection, on_notice, blocking);
    return finish_connecting(blocking, error);
}

struct blocking *blocking_open(struct task *task, const struct brief *brief, enum side side,
                               const char *database, struct error *error)
{
    static const char defaults[] =
        "set search_path = pg_catalog; set statement_timeout = 0; set lock_timeout = 0;"
        "set idle_in_transaction_session_timeout = 0; set default_transaction_read_only = off;"
        "set standard_conforming_strings = on; set row_security = off; set bytea_output = hex;"
        "set datestyle = 'ISO, YMD'; set intervalstyle = postgres; set extra_float_digits = 1;"
        "set synchronous_commit = local; set default_transaction_isolation = 'read committed'";
    struct blocking *blocking = calloc(1, sizeof *blocking);
    if (blocking == NULL) {
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    blocking->task = task;
    blocking->side = side;
    (void)snprintf(blocking->database, sizeof blocking->database, "%s", database);
    if (!connect_side(blocking, brief, error) || !blocking_run(blocking, error, defaults)) {
        blocking_close(blocking);
        return NULL;
    }
    blocking->version = PQserverVersion(blocking->connection);
    return blocking;
}

struct blocking *blocking_open_cluster(struct task *task, const struct brief *brief, enum side side,
                                       struct error *error)
{
    int64_t patience =
        clock_mono_us() + CLUSTER_PATIENCE_US; /* a host that doesn't answer won't the next time */
    struct blocking *blocking = blocking_open(task, brief, side, "postgres", error);
    struct error other;
    for (size_t i = 0; blocking == NULL && i < brief->databases.count && clock_mono_us() < patience; i++) {
        blocking = blocking_open(task, brief, side, brief->databases.items[i], &other);
    }
    return blocking;
}

void blocking_close(struct blocking *blocking)
{
    if (blocking != NULL) {
        PQfinish(blocking->connection);
        free(blocking);
    }
}

static bool flush(struct blocking *blocking, struct error *error)
{
    for (;;) {
        int left = PQflush(blocking->connection);
        if (left == 0) {
            return true;
        }
        if (left < 0) {
            return connection_failed(blocking, error);
        }
        if (!wait_socket(blocking, POLLIN | POLLOUT, 0, error)) {
            return false;
        }
        if (PQconsumeInput(blocking->connection) == 0) {
            return connection_failed(blocking, error);
        }
    }
}

/* The last result; an earlier one that failed wins. */
static PGresult *collect(struct blocking *blocking, struct error *error)
{
    PGresult *kept = NULL;
    for (;;) {
        while (PQisBusy(blocking->connection) == 1) {
            if (!wait_socket(blocking, POLLIN, 0, error)) {
                PQclear(kept);
                return NULL;
            }
            if (PQconsumeInput(blocking->connection) == 0) {
                PQclear(kept);
                (void)connection_failed(blocking, error);
                return NULL;
            }
        }
        PGresult *result = PQgetResult(blocking->connection);
        if (result == NULL) {
            break;
        }
        if (kept != NULL && PQresultStatus(kept) == PGRES_FATAL_ERROR) {
            PQclear(result);
            continue;
        }
        PQclear(kept);
        kept = result;
    }
    ExecStatusType status = kept == NULL ? PGRES_FATAL_ERROR : PQresultStatus(kept);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY) {
        (void)query_failed(blocking, kept, error);
        PQclear(kept);
        return NULL;
    }
    return kept;
}

PGresult *blocking_query(struct blocking *blocking, struct error *error, const char *sql, size_t count,
                         const char *const *parameters)
{
    blocking->sqlstate[0] = '\0';
    if (PQsendQueryParams(blocking->connection, sql, (int)count, NULL, parameters, NULL, NULL, 0) == 0) {
        (void)connection_failed(blocking, error);
        return NULL;
    }
    return flush(blocking, error) ? collect(blocking, error) : NULL;
}

bool blocking_run(struct blocking *blocking, struct error *error, const char *sql)
{
    blocking->sqlstate[0] = '\0';
    if (PQsendQuery(blocking->connection, sql) == 0) {
        return connection_failed(blocking, error);
    }
    PGresult *result = flush(blocking, error) ? collect(blocking, error) : NULL;
    PQclear(result);
    return result != NULL;
}

bool blocking_run_buffer(struct blocking *blocking, struct error *error, const struct strbuf *sql)
{
    if (sql->failed) {
        return error_set(error, ERROR_MEMORY, "%s, database %s: a statement grew too long",
                         side_name(blocking->side), blocking->database);
    }
    return blocking_run(blocking, error, strbuf_text(sql));
}

char *blocking_value(struct blocking *blocking, struct error *error, const char *sql, size_t count,
                     const char *const *parameters)
{
    PGresult *result = blocking_query(blocking, error, sql, count, parameters);
    if (result == NULL) {
        return NULL;
    }
    char *value = strdup(PQntuples(result) > 0 ? row_text(result, 0, 0) : "");
    PQclear(result);
    if (value == NULL) {
        error_set(error, ERROR_MEMORY, "out of memory");
    }
    return value;
}

bool blocking_lock_out(struct blocking *blocking, struct error *error)
{
    char *locked = blocking_value(
        blocking, error, "select pg_try_advisory_lock(hashtextextended('switchback prepare', 0))", 0, NULL);
    if (locked == NULL) {
        return false;
    }
    bool ours = *locked == 't';
    free(locked);
    return ours || error_set(error, ERROR_HELD, "another prepare or finalize is running");
}

const char *row_text(const PGresult *result, int row, int column)
{
    return PQgetvalue(result, row, column); /* "" for NULL */
}

int64_t row_number(const PGresult *result, int row, int column)
{
    return strtoll(row_text(result, row, column), NULL, 10);
}

bool row_truth(const PGresult *result, int row, int column)
{
    return row_text(result, row, column)[0] == 't';
}
