/* From an address to a session that is set up as ours: resolve, connect, settings. */
#include "replication/connection_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "conf/base/network.h"
#include "replication/blocking.h" /* NO_PASSFILE */
#include "replication/tls.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_WITHIN_US = 3000000, MAX_ADDRESSES = 8, ADDRESS_SIZE = 64, NAMES_LIMIT = 4096 };

/* --- the descriptor --- */

static void watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void drop_watch(struct connection *connection)
{
    if (connection->watch != NULL) {
        connection->watch->connection = NULL;
        uv_close((uv_handle_t *)&connection->watch->poll, watch_closed);
        connection->watch = NULL;
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    if (watch->connection != NULL) {
        /* libpq finds out by itself what an error on the descriptor is. */
        connection_events(watch->connection, status < 0 ? UV_READABLE | UV_WRITABLE : events);
    }
}

bool connection_watch(struct connection *connection, int events)
{
    if (connection->watch == NULL) {
        struct watch *watch = calloc(1, sizeof *watch);
        if (watch == NULL) {
            return false;
        }
        if (uv_poll_init(connection->loop, &watch->poll, PQsocket(connection->pg)) != 0) {
            free(watch);
            return false;
        }
        watch->poll.data = watch;
        watch->connection = connection;
        connection->watch = watch;
    }
    return uv_poll_start(&connection->watch->poll, events, on_poll) == 0;
}

void connection_close_socket(struct connection *connection)
{
    drop_watch(connection);
    if (connection->lookup != NULL) {
        connection->lookup->connection = NULL;
        (void)uv_cancel((uv_req_t *)&connection->lookup->request);
        connection->lookup = NULL;
    }
    if (connection->pg != NULL) {
        PQfinish(connection->pg);
        connection->pg = NULL;
    }
    connection->phase = PHASE_DOWN;
}

/* --- failing --- */

static void fail_open_as(struct connection *connection, enum error_code code, const char *why)
{
    struct error error;
    (void)error_set(&error, code, "%s: %.*s", connection->options.label, (int)strcspn(why, "\n"), why);
    connection_fail(connection, &error);
}

static void fail_open(struct connection *connection, const char *why)
{
    fail_open_as(connection, ERROR_UNREACHABLE, why);
}

/* --- setting up --- */

/* What every session of ours needs, whatever the role, database and server have as defaults. */
static const char plain_settings[] =
    "set search_path = pg_catalog, pg_temp; set default_transaction_read_only = off;"
    "set default_transaction_isolation = 'read committed'; set default_transaction_deferrable = off;"
    "set synchronous_commit = local; set lock_timeout = '5s'; set statement_timeout = 0;"
    "set idle_in_transaction_session_timeout = 0; set datestyle = iso; set standard_conforming_strings = on;"
    "set client_min_messages = error; set jit = off; set max_parallel_workers_per_gather = 0;"
    "set plan_cache_mode = force_generic_plan"; /* our functions plan once, not once a call */

/*
 * replica: our writes pass the fence, our DDL the event triggers. 5 ms: an autovacuum that stands before the
 * fence's lock gives way after deadlock_timeout.
 */
static const char manager_settings[] =
    "set session_replication_role = replica; set deadlock_timeout = '5ms'; set lc_messages = 'C'";

static const char gate_settings[] = "set default_transaction_read_only = on; set client_min_messages = error";

static const char *setup_text(const struct connection *connection)
{
    if (connection->options.kind == CONNECTION_GATE) {
        return connection->setup_step == 0 ? gate_settings : NULL;
    }
    switch (connection->setup_step) {
    case 0:
        return plain_settings;
    case 1:
        return connection->version >= 140000 ? "set idle_session_timeout = 0" : "";
    case 2:
        return manager_settings;
    default:
        return NULL;
    }
}

static void send_setup(struct connection *connection)
{
    const char *text = setup_text(connection);
    while (text != NULL && *text == '\0') {
        connection->setup_step++;
        text = setup_text(connection);
    }
    if (text == NULL) {
        connection_established(connection);
        return;
    }
    if (PQsendQuery(connection->pg, text) != 1 || PQflush(connection->pg) != 0 ||
        !connection_watch(connection, UV_READABLE)) {
        fail_open(connection, PQerrorMessage(connection->pg));
    }
}

static void begin_setup(struct connection *connection)
{
    connection->phase = PHASE_SETTING_UP;
    connection->version = PQserverVersion(connection->pg);
    connection->setup_step = 0;
    if (PQsetnonblocking(connection->pg, 1) != 0) {
        fail_open(connection, "can't be made non-blocking");
        return;
    }
    send_setup(connection);
}

static void continue_setup(struct connection *connection)
{
    if (PQconsumeInput(connection->pg) != 1) {
        fail_open(connection, PQerrorMessage(connection->pg));
        return;
    }
    while (PQisBusy(connection->pg) == 0) {
        PGresult *result = PQgetResult(connection->pg);
        if (result == NULL) {
            connection->setup_step++;
            send_setup(connection);
            return;
        }
        bool failed = PQresultStatus(result) != PGRES_COMMAND_OK;
        if (failed && connection->setup_step == 2 && PQstatus(connection->pg) == CONNECTION_OK) {
            /* Not a superuser: questions still work, `check` says what is lacking, writes are refused by
             * claim(). */
            LOG_WARN("manager_lacks_privileges", LOG_STR("connection", connection->options.label),
                     LOG_STR("reason", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)));
            failed = false;
        }
        if (failed) {
            char why[256];
            (void)snprintf(why, sizeof why, "%s", PQresultErrorMessage(result));
            PQclear(result);
            fail_open(connection, why);
            return;
        }
        PQclear(result);
    }
}

/* --- connecting --- */

static void ignore_notice(void *context, const PGresult *result)
{
    (void)context;
    (void)result;
}

/* libpq gives no SQLSTATE for a refused connection; 3D000's text is the server's in its language. */
static bool lacks_database(const struct connection *connection)
{
    char quoted[160];
    (void)snprintf(quoted, sizeof quoted, "\"%s\"", connection->options.database);
    const char *text = PQerrorMessage(connection->pg);
    const char *fatal = strstr(text, "FATAL");
    return fatal != NULL && strstr(fatal, quoted) != NULL && strstr(fatal, "database") != NULL;
}

static void on_refused(struct connection *connection)
{
    bool lacking = lacks_database(connection);
    if (lacking && connection->options.fallback_database != NULL && !connection->on_fallback) {
        connection->on_fallback = true;
        connection_close_socket(connection);
        connection_open(connection);
        return;
    }
    /* The server answered: it is there, `prepare` is what it lacks. */
    fail_open_as(connection, lacking ? ERROR_NOT_PREPARED : ERROR_UNREACHABLE,
                 PQerrorMessage(connection->pg));
}

void connection_open_continue(struct connection *connection, int events)
{
    (void)events;
    if (connection->phase == PHASE_SETTING_UP) {
        continue_setup(connection);
        return;
    }
    if (connection->phase != PHASE_CONNECTING) {
        return;
    }
    /* The socket may be another one with the next address: it must not be closed while it is watched. */
    drop_watch(connection);
    PostgresPollingStatusType status = PQconnectPoll(connection->pg);
    switch (status) {
    case PGRES_POLLING_OK:
        begin_setup(connection);
        break;
    case PGRES_POLLING_READING:
    case PGRES_POLLING_WRITING:
        if (!connection_watch(connection, status == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE)) {
            fail_open(connection, "can't watch the socket");
        }
        break;
    default:
        on_refused(connection);
        break;
    }
}

enum { PARAMETERS_MAX = 24 };

struct parameters {
    const char *names[PARAMETERS_MAX + 1], *values[PARAMETERS_MAX + 1];
    size_t count;
};

static void add(struct parameters *parameters, const char *name, const char *value)
{
    ENSURE(parameters->count < PARAMETERS_MAX);
    parameters->names[parameters->count] = name;
    parameters->values[parameters->count] = value;
    parameters->count++;
}

static void add_tls(struct parameters *parameters, const struct settings_tls *tls)
{
    struct tls_parameter parts[TLS_PARAMETERS];
    tls_parameters(tls, parts);
    for (size_t i = 0; i < TLS_PARAMETERS; i++) {
        add(parameters, parts[i].keyword, parts[i].value);
    }
}

/* host: as many names as there are addresses, or NULL. */
static void connect_to(struct connection *connection, const char *host, const char *addresses)
{
    const struct connection_options *options = &connection->options;
    struct parameters parameters = {.count = 0};
    char port[16];
    (void)snprintf(port, sizeof port, "%d", (int)options->port);
    add(&parameters, "host", host);
    add(&parameters, "hostaddr", addresses);
    add(&parameters, "port", port);
    add(&parameters, "user", options->user);
    add(&parameters, "password", options->password);
    add(&parameters, "dbname", connection->on_fallback ? options->fallback_database : options->database);
    add_tls(&parameters, &options->tls);
    add(&parameters, "gssencmode", "disable");
    add(&parameters, "application_name", options->application_name);
    add(&parameters, "options", "");
    add(&parameters, "client_encoding", "UTF8");
    add(&parameters, "keepalives_idle", "5");
    add(&parameters, "keepalives_interval", "2");
    add(&parameters, "keepalives_count", "3");
    add(&parameters, "tcp_user_timeout", "10000");
    add(&parameters, "passfile", NO_PASSFILE);
    connection->phase = PHASE_CONNECTING;
    connection->pg = PQconnectStartParams(parameters.names, parameters.values, 0);
    if (connection->pg == NULL) {
        fail_open(connection, "out of memory");
        return;
    }
    (void)PQsetNoticeReceiver(connection->pg, ignore_notice, NULL);
    if (PQstatus(connection->pg) == CONNECTION_BAD) {
        fail_open(connection, PQerrorMessage(connection->pg));
        return;
    }
    if (!connection_watch(connection, UV_WRITABLE)) {
        fail_open(connection, "can't watch the socket");
    }
}

/* --- resolving --- */

static int join_addresses(const struct addrinfo *list, char *text, size_t size)
{
    size_t length = 0;
    int count = 0;
    text[0] = '\0';
    for (; list != NULL && count < MAX_ADDRESSES; list = list->ai_next) {
        char address[ADDRESS_SIZE];
        if (getnameinfo(list->ai_addr, list->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST) !=
            0) {
            continue;
        }
        int written = snprintf(text + length, size - length, "%s%s", count == 0 ? "" : ",", address);
        if (written < 0 || (size_t)written >= size - length) {
            text[length] = '\0';
            return count;
        }
        length += (size_t)written;
        count++;
    }
    return count;
}

/* The name beside each of the addresses, as libpq wants it: for the certificate, and for SNI. */
static void connect_to_addresses(struct connection *connection, const char *addresses, int count)
{
    const struct connection_options *options = &connection->options;
    const char *name = tls_host(options->host, options->tls_server_name);
    struct strbuf names;
    strbuf_init(&names, NAMES_LIMIT);
    for (int i = 0; i < count; i++) {
        strbuf_printf(&names, "%s%s", i == 0 ? "" : ",", name == NULL ? options->host : name);
    }
    connect_to(connection, names.failed ? NULL : strbuf_text(&names), addresses);
    strbuf_deinit(&names);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct lookup *lookup = request->data;
    struct connection *connection = lookup->connection;
    free(lookup);
    if (connection != NULL) {
        connection->lookup = NULL;
        char addresses[MAX_ADDRESSES * ADDRESS_SIZE];
        int count = status == 0 ? join_addresses(list, addresses, sizeof addresses) : 0;
        if (count > 0) {
            connect_to_addresses(connection, addresses, count);
        } else {
            char why[256];
            (void)snprintf(why, sizeof why, "can't resolve \"%s\": %s", connection->options.host,
                           status == 0 ? "no address" : uv_strerror(status));
            fail_open(connection, why);
        }
    }
    uv_freeaddrinfo(list);
}

static void resolve(struct connection *connection)
{
    struct lookup *lookup = calloc(1, sizeof *lookup);
    if (lookup == NULL) {
        fail_open(connection, "out of memory");
        return;
    }
    lookup->connection = connection;
    lookup->request.data = lookup;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int status = uv_getaddrinfo(connection->loop, &lookup->request, on_resolved, connection->options.host,
                                NULL, &hints);
    if (status != 0) {
        free(lookup);
        fail_open(connection, uv_strerror(status));
        return;
    }
    connection->lookup = lookup;
    connection->phase = PHASE_RESOLVING;
}

void connection_open(struct connection *connection)
{
    ENSURE(connection->phase == PHASE_DOWN);
    connection->connect_deadline_us = clock_mono_us() + CONNECT_WITHIN_US;
    if (connection->options.host[0] == '/') {
        connect_to(connection, connection->options.host, NULL);
    } else if (network_is_address(connection->options.host)) {
        connect_to_addresses(connection, connection->options.host, 1);
    } else {
        resolve(connection);
    }
    connection_set_deadline(connection);
}
