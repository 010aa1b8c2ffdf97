#include "replication/connection_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/tls.h"

#include <stdlib.h>
#include <string.h>

enum {
    /* An overdue statement gets this long to end after it was cancelled, its backend after it was terminated.
     */
    CANCEL_PATIENCE_US = 300000,
    TERMINATE_PATIENCE_US = 500000,
    FIRST_BACKOFF_US = 50000,
    LAST_BACKOFF_US = 1000000
};

/* --- life --- */

static void free_login(struct connection_options *options)
{
    if (options->password != NULL) {
        explicit_bzero((char *)options->password, strlen(options->password));
    }
    free((char *)options->password);
    free((char *)options->tls_server_name);
    tls_deinit(&options->tls);
}

static void handle_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    ENSURE(connection->open_handles > 0);
    connection->open_handles--;
    if (connection->open_handles > 0) {
        return;
    }
    void (*closed)(void *context) = connection->closed;
    void *context = connection->closed_context;
    free((char *)connection->options.label);
    free((char *)connection->options.host);
    free((char *)connection->options.user);
    free_login(&connection->options);
    free((char *)connection->options.database);
    free((char *)connection->options.fallback_database);
    free((char *)connection->options.application_name);
    free(connection->results);
    free(connection);
    if (closed != NULL) {
        closed(context);
    }
}

static void pump(struct connection *connection);
static void on_deadline(uv_timer_t *timer);

static void on_wake(uv_timer_t *timer)
{
    struct connection *connection = timer->data;
    if (connection->freeing) {
        return;
    }
    if (connection->phase == PHASE_DOWN && connection->queue != NULL) {
        connection_open(connection);
    }
    pump(connection);
}

static void wake_at(struct connection *connection, int64_t when_us)
{
    int64_t wait_us = when_us - clock_mono_us();
    uint64_t wait_ms = wait_us > 0 ? (uint64_t)wait_us / 1000 + 1 : 0;
    ENSURE(uv_timer_start(&connection->wake, on_wake, wait_ms, 0) == 0);
}

static const char *copy(const char *text, bool *failed)
{
    if (text == NULL) {
        return NULL;
    }
    char *copied = strdup(text);
    *failed = *failed || copied == NULL;
    return copied;
}

/* Fills the fields that free_login() frees. */
static bool copy_login(struct connection_options *options, const char *password,
                       const struct settings_tls *tls, const char *tls_server_name)
{
    bool failed = !tls_copy(&options->tls, tls);
    options->password = copy(password, &failed);
    options->tls_server_name = copy(tls_server_name, &failed);
    return !failed;
}

bool connection_set_login(struct connection *connection, const char *password, const struct settings_tls *tls,
                          const char *tls_server_name)
{
    struct connection_options made = connection->options;
    if (!copy_login(&made, password, tls, tls_server_name)) {
        free_login(&made);
        return false;
    }
    free_login(&connection->options);
    connection->options = made;
    return true;
}

struct connection *connection_new(uv_loop_t *loop, const struct connection_options *options,
                                  struct error *error)
{
    struct connection *connection = calloc(1, sizeof *connection);
    bool failed = connection == NULL;
    if (!failed) {
        connection->loop = loop;
        connection->options = *options;
        failed =
            !copy_login(&connection->options, options->password, &options->tls, options->tls_server_name);
        connection->options.label = copy(options->label, &failed);
        connection->options.host = copy(options->host, &failed);
        connection->options.user = copy(options->user, &failed);
        connection->options.database = copy(options->database, &failed);
        connection->options.fallback_database = copy(options->fallback_database, &failed);
        connection->options.application_name = copy(options->application_name, &failed);
        connection->backoff_us = FIRST_BACKOFF_US;
        ENSURE(uv_timer_init(loop, &connection->wake) == 0);
        ENSURE(uv_timer_init(loop, &connection->deadline) == 0);
        connection->wake.data = connection;
        connection->deadline.data = connection;
        connection->open_handles = 2;
    }
    if (failed) {
        (void)error_set(error, ERROR_MEMORY, "out of memory");
        if (connection != NULL) {
            connection_free(connection, NULL, NULL);
        }
        return NULL;
    }
    return connection;
}

/* --- requests --- */

static void answer(struct request *request, const struct reply *reply)
{
    reply_handler handler = request->handler;
    void *context = request->context;
    free(request->sql);
    free(request->parameter);
    free(request);
    handler(context, reply);
}

static void clear_results(PGresult **results, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        PQclear(results[i]);
    }
}

/* Fails every request that hasn't been sent. Handlers may queue new ones: those stay. */
static void fail_queue(struct connection *connection, const struct error *error)
{
    struct request *request = connection->queue;
    connection->queue = connection->queue_end = NULL;
    while (request != NULL) {
        struct request *next = request->next;
        struct reply reply = {.ok = false, .error = *error};
        answer(request, &reply);
        request = next;
    }
}

static void fail_running(struct connection *connection, const struct error *error)
{
    struct request *request = connection->running;
    if (request == NULL) {
        return;
    }
    connection->running = NULL;
    clear_results(connection->results, connection->result_count);
    connection->result_count = 0;
    struct reply reply = {.ok = false, .uncertain = true, .error = *error};
    if (connection->interruption != NOT_INTERRUPTED && error->code == ERROR_UNREACHABLE) {
        reply.error.code = ERROR_TIMEOUT;
    }
    connection->interruption = NOT_INTERRUPTED;
    answer(request, &reply);
}

void connection_fail(struct connection *connection, const struct error *error)
{
    struct error reason = *error; /* may stand in what is closed now */
    bool was_up = connection->phase == PHASE_UP;
    connection_close_socket(connection);
    if (was_up) {
        connection->backoff_us = FIRST_BACKOFF_US;
        connection->retry_us = 0;
    } else {
        connection->retry_us = clock_mono_us() + connection->backoff_us;
        connection->backoff_us *= 2;
        if (connection->backoff_us > LAST_BACKOFF_US) {
            connection->backoff_us = LAST_BACKOFF_US;
        }
    }
    fail_running(connection, &reason);
    fail_queue(connection, &reason);
    connection_set_deadline(connection);
}

static int64_t interruption_deadline(const struct connection *connection)
{
    switch (connection->interruption) {
    case NOT_INTERRUPTED:
        return connection->running->deadline_us;
    case STATEMENT_CANCELLED:
        return connection->interrupted_us + CANCEL_PATIENCE_US;
    case BACKEND_TERMINATED:
        return connection->interrupted_us + TERMINATE_PATIENCE_US;
    }
    return 0;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

void connection_set_deadline(struct connection *connection)
{
    if (connection->freeing) {
        return;
    }
    int64_t next = 0;
    if (connection->phase == PHASE_RESOLVING || connection->phase == PHASE_CONNECTING ||
        connection->phase == PHASE_SETTING_UP) {
        next = connection->connect_deadline_us;
    }
    if (connection->running != NULL) {
        next = earlier(next, interruption_deadline(connection));
    }
    for (const struct request *request = connection->queue; request != NULL; request = request->next) {
        next = earlier(next, request->deadline_us);
    }
    if (next == 0) {
        (void)uv_timer_stop(&connection->deadline);
        return;
    }
    int64_t wait_us = next - clock_mono_us();
    uint64_t wait_ms = wait_us > 0 ? (uint64_t)wait_us / 1000 + 1 : 0;
    ENSURE(uv_timer_start(&connection->deadline, on_deadline, wait_ms, 0) == 0);
}

static void interrupt_running(struct connection *connection)
{
    struct error late;
    connection->interrupted_us = clock_mono_us();
    if (connection->options.interrupt == NULL || connection->interruption == BACKEND_TERMINATED) {
        (void)error_set(&late, ERROR_TIMEOUT, "%s: no answer in time; connection closed",
                        connection->options.label);
        connection_fail(connection, &late);
        return;
    }
    bool terminate = connection->interruption == STATEMENT_CANCELLED;
    connection->interruption = terminate ? BACKEND_TERMINATED : STATEMENT_CANCELLED;
    connection->options.interrupt(connection->options.context, connection_pid(connection), terminate);
}

static void expire_queued(struct connection *connection, int64_t now_us)
{
    struct request **link = &connection->queue;
    struct request *expired = NULL, **expired_end = &expired;
    connection->queue_end = NULL;
    while (*link != NULL) {
        struct request *request = *link;
        if (request->deadline_us != 0 && request->deadline_us <= now_us) {
            *link = request->next;
            request->next = NULL;
            *expired_end = request;
            expired_end = &request->next;
        } else {
            connection->queue_end = request;
            link = &request->next;
        }
    }
    while (expired != NULL) {
        struct request *next = expired->next;
        struct reply reply = {.ok = false};
        (void)error_set(&reply.error, connection->phase == PHASE_UP ? ERROR_TIMEOUT : ERROR_UNREACHABLE,
                        "%s: %s", connection->options.label,
                        connection->phase == PHASE_UP ? "no time left to begin a statement"
                                                      : "can't be reached in time");
        answer(expired, &reply);
        expired = next;
    }
}

static void on_deadline(uv_timer_t *timer)
{
    struct connection *connection = timer->data;
    if (connection->freeing) {
        return;
    }
    int64_t now_us = clock_mono_us();
    if (connection->phase != PHASE_DOWN && connection->phase != PHASE_UP &&
        connection->connect_deadline_us <= now_us) {
        struct error late;
        (void)error_set(&late, ERROR_UNREACHABLE, "%s: no connection within 3 s", connection->options.label);
        connection_fail(connection, &late);
    } else if (connection->running != NULL && interruption_deadline(connection) != 0 &&
               interruption_deadline(connection) <= now_us) {
        interrupt_running(connection);
    }
    if (!connection->freeing) {
        expire_queued(connection, now_us);
    }
    connection_set_deadline(connection);
}

/* --- sending and receiving --- */

static void lost(struct connection *connection)
{
    struct error error;
    const char *text = connection->pg == NULL ? "" : PQerrorMessage(connection->pg);
    (void)error_set(&error, ERROR_UNREACHABLE, "%s: connection lost: %.*s", connection->options.label,
                    (int)strcspn(text, "\n"), text);
    connection_fail(connection, &error);
}

static void flush(struct connection *connection)
{
    int unsent = PQflush(connection->pg);
    if (unsent < 0 || !connection_watch(connection, unsent > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE)) {
        lost(connection);
    }
}

static void pump(struct connection *connection)
{
    if (connection->phase != PHASE_UP || connection->running != NULL || connection->queue == NULL) {
        return;
    }
    struct request *request = connection->queue;
    connection->queue = request->next;
    if (connection->queue == NULL) {
        connection->queue_end = NULL;
    }
    connection->running = request;
    connection->interruption = NOT_INTERRUPTED;
    const char *const parameters[] = {request->parameter};
    int sent = request->single ? PQsendQueryParams(connection->pg, request->sql, request->parameter != NULL,
                                                   NULL, parameters, NULL, NULL, 0)
                               : PQsendQuery(connection->pg, request->sql);
    if (sent != 1) {
        lost(connection);
        return;
    }
    connection_set_deadline(connection);
    flush(connection);
}

static bool keep_result(struct connection *connection, PGresult *result)
{
    if (connection->result_count == connection->result_capacity) {
        size_t capacity = connection->result_capacity == 0 ? 8 : connection->result_capacity * 2;
        PGresult **grown = reallocarray(connection->results, capacity, sizeof(PGresult *));
        if (grown == NULL) {
            PQclear(result);
            return false;
        }
        connection->results = grown;
        connection->result_capacity = capacity;
    }
    connection->results[connection->result_count++] = result;
    return true;
}

static void finish(struct connection *connection)
{
    struct request *request = connection->running;
    PGresult **results = connection->results;
    struct reply reply = {.results = results, .count = connection->result_count};
    reply_judge(&reply, connection->options.label, connection->interruption != NOT_INTERRUPTED);
    /* The handler may send again or free: the results are its own now. */
    connection->running = NULL;
    connection->results = NULL;
    connection->result_count = connection->result_capacity = 0;
    connection->interruption = NOT_INTERRUPTED;
    if (PQstatus(connection->pg) == CONNECTION_BAD) {
        /* What it said before it ended stands in the reply; who queued behind it hears that it is gone. */
        struct error gone = reply.error;
        connection_close_socket(connection);
        connection->retry_us = 0;
        fail_queue(connection, &gone);
    }
    answer(request, &reply);
    clear_results(results, reply.count);
    free(results);
    if (!connection->freeing) {
        pump(connection);
        connection_set_deadline(connection);
    }
}

static void on_ready_events(struct connection *connection, int events)
{
    if ((events & UV_WRITABLE) != 0) {
        flush(connection);
    }
    if (connection->pg == NULL || (events & UV_READABLE) == 0) {
        return;
    }
    if (PQconsumeInput(connection->pg) != 1 && connection->running == NULL) {
        lost(connection);
        return;
    }
    while (connection->pg != NULL && connection->running != NULL && PQisBusy(connection->pg) == 0) {
        PGresult *result = PQgetResult(connection->pg);
        if (result == NULL) {
            finish(connection);
            continue;
        }
        ExecStatusType status = PQresultStatus(result);
        bool copying = status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
        if (copying) {
            PQclear(result); /* nothing of ours copies: a gate's query that does is refused this way */
        }
        if (copying || !keep_result(connection, result)) {
            lost(connection);
        }
    }
    if (connection->pg != NULL && connection->running == NULL) {
        PGnotify *notify;
        while ((notify = PQnotifies(connection->pg)) != NULL) {
            PQfreemem(notify);
        }
    }
}

void connection_established(struct connection *connection)
{
    connection->phase = PHASE_UP;
    connection->backoff_us = FIRST_BACKOFF_US;
    connection->retry_us = 0;
    connection_set_deadline(connection);
    pump(connection);
}

static struct request *request_new(const char *sql, int64_t deadline_us, reply_handler handler, void *context)
{
    struct request *request = calloc(1, sizeof *request);
    ENSURE(request != NULL); /* the handler must be called, and there is nothing to call it with */
    *request = (struct request){
        .sql = strdup(sql), .deadline_us = deadline_us, .handler = handler, .context = context};
    ENSURE(request->sql != NULL);
    return request;
}

static void enqueue(struct connection *connection, struct request *request)
{
    ENSURE(!connection->freeing);
    if (connection->queue_end == NULL) {
        connection->queue = request;
    } else {
        connection->queue_end->next = request;
    }
    connection->queue_end = request;
    int64_t begin_us = connection->phase == PHASE_DOWN ? connection->retry_us : 0;
    if (connection->phase == PHASE_DOWN || connection->phase == PHASE_UP) {
        wake_at(connection, begin_us);
    }
    connection_set_deadline(connection);
}

void connection_send(struct connection *connection, const char *sql, int64_t deadline_us,
                     reply_handler handler, void *context)
{
    enqueue(connection, request_new(sql, deadline_us, handler, context));
}

void connection_send_single(struct connection *connection, const char *sql, int64_t deadline_us,
                            reply_handler handler, void *context)
{
    struct request *request = request_new(sql, deadline_us, handler, context);
    request->single = true;
    enqueue(connection, request);
}

void connection_send_parameter(struct connection *connection, const char *sql, const char *parameter,
                               int64_t deadline_us, reply_handler handler, void *context)
{
    struct request *request = request_new(sql, deadline_us, handler, context);
    request->single = true;
    request->parameter = strdup(parameter);
    ENSURE(request->parameter != NULL);
    enqueue(connection, request);
}

void connection_events(struct connection *connection, int events)
{
    if (connection->phase == PHASE_UP) {
        on_ready_events(connection, events);
    } else {
        connection_open_continue(connection, events);
    }
}

void connection_cancel(struct connection *connection)
{
    struct error aborted;
    (void)error_set(&aborted, ERROR_ABORTED, "%s: aborted", connection->options.label);
    if (connection->running != NULL && connection->interruption == NOT_INTERRUPTED) {
        interrupt_running(connection);
    }
    fail_queue(connection, &aborted);
    connection_set_deadline(connection);
}

static void drop(struct connection *connection, const struct error *why)
{
    connection_close_socket(connection);
    fail_running(connection, why);
    fail_queue(connection, why);
}

void connection_drop(struct connection *connection)
{
    struct error aborted;
    (void)error_set(&aborted, ERROR_ABORTED, "%s: connection closed", connection->options.label);
    drop(connection, &aborted);
}

void connection_renew(struct connection *connection)
{
    struct error silent;
    (void)error_set(&silent, ERROR_UNREACHABLE, "%s: the connection has fallen silent",
                    connection->options.label);
    connection->backoff_us = FIRST_BACKOFF_US;
    connection->retry_us = 0;
    drop(connection, &silent);
}

void connection_free(struct connection *connection, void (*closed)(void *context), void *context)
{
    ENSURE(!connection->freeing);
    connection->freeing = true;
    connection->closed = closed;
    connection->closed_context = context;
    connection_drop(connection);
    uv_close((uv_handle_t *)&connection->wake, handle_closed);
    uv_close((uv_handle_t *)&connection->deadline, handle_closed);
}

/* --- questions --- */

bool connection_is_up(const struct connection *connection)
{
    return connection->phase == PHASE_UP;
}

bool connection_is_idle(const struct connection *connection)
{
    return connection->phase == PHASE_UP && connection->running == NULL && connection->queue == NULL &&
           !connection_in_transaction(connection);
}

bool connection_in_transaction(const struct connection *connection)
{
    return connection->phase == PHASE_UP && PQtransactionStatus(connection->pg) != PQTRANS_IDLE &&
           (connection->running == NULL || PQtransactionStatus(connection->pg) != PQTRANS_ACTIVE);
}

bool connection_transaction_failed(const struct connection *connection)
{
    return connection->phase == PHASE_UP && connection->running == NULL && connection->queue == NULL &&
           PQtransactionStatus(connection->pg) == PQTRANS_INERROR;
}

int32_t connection_pid(const struct connection *connection)
{
    return connection->pg == NULL ? 0 : PQbackendPID(connection->pg);
}

int connection_version(const struct connection *connection)
{
    return connection->version;
}
