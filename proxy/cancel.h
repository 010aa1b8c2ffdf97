/*
 * Cancel requests: of clients, with the proxy's own keys, and of the proxy itself. A client's request comes
 * on a connection of its own to any worker; the worker's number in the key leads to the session's worker,
 * which sends the server's key to where the session's link leads now. The client's connection is closed when
 * that has been delivered, so that PQcancel returns when the server knows.
 */
#ifndef SWITCHBACK_PROXY_CANCEL_H
#define SWITCHBACK_PROXY_CANCEL_H

#include "proxy/wire/slice.h"

#include <stdint.h>

struct server_link;
struct session;
struct worker;

/* The connection of a client that sent a CancelRequest; it is closed when the request is over. */
struct cancel_origin {
    unsigned worker;
    uint32_t ticket;
};

/* A CancelRequest came on this connection. */
void cancel_request(struct session *connection, uint32_t pid, struct slice key);

/*
 * Cancels what runs on a link; the link isn't closed before it is over (the backend's pid stays its own).
 * origin may be NULL.
 */
void cancel_link(struct server_link *link, const struct cancel_origin *origin);

/* The worker's tick, and its end. */
void cancel_check_deadlines(struct worker *worker, int64_t now_us);
void cancel_abandon_all(struct worker *worker);

#endif
