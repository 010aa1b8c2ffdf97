/*
 * One connection to a cluster as the manager: libpq, never blocking, on the loop. It connects when there is
 * something to say, sends statements in the order they came, and connects again after it was lost. Engine
 * owns them (engine.h: lanes); procedures and the operations speak through them.
 *
 * A name is resolved by uv_getaddrinfo and passed as hostaddr, because libpq's own lookup blocks. A statement
 * that outlives its deadline is cancelled, then its backend terminated, by the side's second connection
 * (PQcancel blocks), and at last the connection is dropped.
 */
#ifndef SWITCHBACK_REPLICATION_CONNECTION_H
#define SWITCHBACK_REPLICATION_CONNECTION_H

#include "conf/settings/settings.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct connection;

/* What came back for one request. Valid during the handler. */
struct reply {
    bool ok;
    bool uncertain;           /* it was sent and no answer came: it may have happened */
    struct error error;       /* names the side and database */
    char sqlstate[6];         /* "" if the server didn't answer */
    PGresult *const *results; /* one for each statement of the request that was answered, in order */
    size_t count;
};

/* The last result that has columns; NULL if there is none. */
const PGresult *reply_rows(const struct reply *reply);
/* A field of it; NULL for SQL NULL, no such row or column. */
const char *reply_value(const struct reply *reply, int row, int column);
int64_t reply_int(const struct reply *reply, int row, int column); /* 0 for NULL */
uint64_t reply_uint(const struct reply *reply, int row, int column);
bool reply_bool(const struct reply *reply, int row, int column);
int reply_row_count(const struct reply *reply);

/* The owner that a refusal as stale names (SB001, schema.sql); false: it isn't one. */
MUST_USE bool reply_owner(const struct reply *reply, uint64_t *owner);

typedef void (*reply_handler)(void *context, const struct reply *reply);

enum connection_kind {
    CONNECTION_MANAGER, /* session_replication_role replica, search_path pg_catalog, deadlock_timeout 5 ms ...
                         */
    CONNECTION_GATE     /* an operator's query: the role's own settings, read only */
};

struct connection_options {
    const char *label; /* "green/shop", for errors and the log */
    const char *host;  /* an address, a name or a socket directory */
    int64_t port;
    const char *user, *password;
    struct settings_tls tls;
    const char *tls_server_name;
    const char *database;
    const char *fallback_database; /* tried when `database` doesn't exist; NULL: none */
    const char *application_name;
    enum connection_kind kind;
    /* Ends backend `pid` of the same cluster, softly (its statement) or hard; NULL: only the socket is
     * closed. */
    void (*interrupt)(void *context, int32_t pid, bool terminate);
    void *context;
};

/* Connects at the first request. Copies the options. */
MUST_USE struct connection *connection_new(uv_loop_t *loop, const struct connection_options *options,
                                           struct error *error);
/* What changes with a reload; for connections made from now on. */
MUST_USE bool connection_set_login(struct connection *connection, const char *password,
                                   const struct settings_tls *tls, const char *tls_server_name);
/* Fails what is queued with ERROR_ABORTED, closes, calls closed (may be NULL) when no handle is left. */
void connection_free(struct connection *connection, void (*closed)(void *context), void *context);

/*
 * Queues a request of one or more statements (simple protocol: without BEGIN they are one transaction). The
 * handler is called exactly once, later. deadline_us is monotonic, 0 for none.
 */
void connection_send(struct connection *connection, const char *sql, int64_t deadline_us,
                     reply_handler handler, void *context);
/* The same for exactly one statement, by the extended protocol: for what the operator wrote. */
void connection_send_single(struct connection *connection, const char *sql, int64_t deadline_us,
                            reply_handler handler, void *context);

/* The same with $1, a text. */
void connection_send_parameter(struct connection *connection, const char *sql, const char *parameter,
                               int64_t deadline_us, reply_handler handler, void *context);

/* Interrupts the running statement as an expired deadline would; what is queued fails. */
void connection_cancel(struct connection *connection);
/* Closes the socket at once: a running statement fails as uncertain. The next request connects again. */
void connection_drop(struct connection *connection);
/* The same because the other end has fallen silent: ERROR_UNREACHABLE, and the next request connects at
 * once. */
void connection_renew(struct connection *connection);

bool connection_is_up(const struct connection *connection);
bool connection_is_idle(
    const struct connection *connection); /* up, nothing queued or running, no transaction */
bool connection_in_transaction(const struct connection *connection);
/* Its transaction failed: until a rollback the server refuses everything. */
bool connection_transaction_failed(const struct connection *connection);
int32_t connection_pid(const struct connection *connection); /* 0 while down */
int connection_version(const struct connection *connection); /* 150018; 0 while never up */

#endif
