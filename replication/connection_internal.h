/* The inside of a connection, shared by connection.c (requests) and connection_open.c (getting there). */
#ifndef SWITCHBACK_REPLICATION_CONNECTION_INTERNAL_H
#define SWITCHBACK_REPLICATION_CONNECTION_INTERNAL_H

#include "replication/connection.h"

struct request {
    struct request *next;
    char *sql;
    char *parameter; /* $1, if it is single; NULL: there is none */
    bool single;
    int64_t deadline_us;
    reply_handler handler;
    void *context;
};

enum connection_phase { PHASE_DOWN, PHASE_RESOLVING, PHASE_CONNECTING, PHASE_SETTING_UP, PHASE_UP };

/* How far the end of an overdue request has gone. */
enum interruption { NOT_INTERRUPTED, STATEMENT_CANCELLED, BACKEND_TERMINATED };

/* A descriptor's poll handle lives until its close callback, longer than the socket it watched. */
struct watch {
    uv_poll_t poll;
    struct connection *connection; /* NULL: let go */
};

struct lookup {
    uv_getaddrinfo_t request;
    struct connection *connection; /* NULL: let go */
};

struct connection {
    uv_loop_t *loop;
    struct connection_options options; /* strings owned */
    enum connection_phase phase;
    PGconn *pg;
    struct watch *watch;
    struct lookup *lookup;
    uv_timer_t wake;     /* begins what connection_send asked for, outside of it; ends a backoff */
    uv_timer_t deadline; /* of connecting, or the earliest of the requests */

    struct request *queue, *queue_end;
    struct request *running;
    PGresult **results;
    size_t result_count, result_capacity;
    enum interruption interruption;
    int64_t interrupted_us;

    int64_t connect_deadline_us;
    int64_t retry_us; /* no attempt before */
    int64_t backoff_us;
    bool on_fallback; /* connected to fallback_database */
    int setup_step;
    int version;

    bool freeing;
    int open_handles;
    void (*closed)(void *context);
    void *closed_context;
};

/* connection_open.c */
void connection_open(struct connection *connection);
void connection_open_continue(struct connection *connection, int events); /* while connecting */
void connection_close_socket(struct connection *connection);
MUST_USE bool connection_watch(struct connection *connection, int events);

/* connection.c */
void connection_fail(struct connection *connection, const struct error *error); /* lost, or not reached */
void connection_established(struct connection *connection);
void connection_set_deadline(struct connection *connection);
void connection_events(struct connection *connection, int events); /* UV_READABLE, UV_WRITABLE */

/* reply.c */
void reply_judge(struct reply *reply, const char *label, bool interrupted);

#endif
