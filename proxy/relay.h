/*
 * The data path of an established session: bytes from the client to its server and back. Only the five-byte
 * headers are looked at, and what the boundary needs of short messages; a range that was read goes on with
 * one write. What may not go on yet (the gate, too much owed) is kept from the beginning of a message, so the
 * server never has half of one for which it would have to wait.
 */
#ifndef SWITCHBACK_PROXY_RELAY_H
#define SWITCHBACK_PROXY_RELAY_H

#include "proxy/server_link.h"

#include <stddef.h>

/* What of the client's bytes is forgotten instead of forwarded, after such a cancel. */
enum relay_discard {
    RELAY_DISCARD_NOTHING,
    RELAY_DISCARD_MESSAGE, /* a Query or FunctionCall */
    RELAY_DISCARD_TO_SYNC  /* the rest of an extended query */
};

struct session;

/* The events of a link that is a session's server. */
extern const struct link_events relay_link_events;

/* bytes lie in a read buffer, with its headroom before them. */
void relay_from_client(struct session *session, char *bytes, size_t length);

/* What is kept may perhaps go on now. */
void relay_resume(struct session *session);

#endif
