/*
 * The other end of the control socket: a blocking JSON-RPC client for the verbs. One connection, one call at
 * a time; notifications that arrive before its answer go to a callback.
 */
#ifndef SWITCHBACK_CONTROL_CLI_CLIENT_H
#define SWITCHBACK_CONTROL_CLI_CLIENT_H

#include "conf/base/error.h"

#include <jansson.h>
#include <signal.h>
#include <stdint.h>

struct client;

enum { CLIENT_LINE_LIMIT = 64 * 1024 * 1024 }; /* of an answer; a list of sessions may be long */

/* How to wait. All of it is optional. */
struct client_wait {
    void *context;
    void (*notice)(void *context, const char *method, const json_t *params);
    void (*tick)(void *context); /* about every tick_us */
    int64_t tick_us;
    int64_t timeout_us;                /* 0: for ever */
    const volatile sig_atomic_t *stop; /* set by a signal that interrupts the waiting */
    bool stopped;                      /* out: because of it */
};

/* --socket, else $SWITCHBACK_SOCKET, else the default. */
const char *client_socket_path(const char *given);

/* NULL with ERROR_DAEMON_UNREACHABLE: which socket, why, what to do. */
MUST_USE struct client *client_open(const char *path, struct error *error);
void client_close(struct client *client);

/*
 * Calls a method; params is borrowed, may be NULL. Returns the result (a new reference), or NULL with *error:
 * the daemon's own, ERROR_DAEMON_UNREACHABLE if the connection was lost or nothing came in time, or
 * ERROR_ABORTED with wait->stopped.
 */
MUST_USE json_t *client_call(struct client *client, const char *method, json_t *params,
                             struct client_wait *wait, struct error *error);

/* Only listens, until timeout_us is over (true), it was stopped (true, wait->stopped), or the connection is
 * lost. */
MUST_USE bool client_listen(struct client *client, struct client_wait *wait, struct error *error);

#endif
