/*
 * A client that stops sending: it has closed, or only said that nothing follows and still reads; a server
 * can't tell these apart before it writes, and nor can we. What it has sent by then is done as PostgreSQL
 * does it: the end is passed on to the server, which finishes and answers (listen.client_eof: finish). The
 * other policy is to cancel what runs. session.c calls it.
 */
#ifndef SWITCHBACK_PROXY_CLIENT_END_H
#define SWITCHBACK_PROXY_CLIENT_END_H

#include <stdbool.h>

struct session;

/* Nothing more will come from the client; status as of stream_events.ended(). */
void client_end_seen(struct session *session, int status);
/* Nothing more can be sent to it. */
void client_end_broken(struct session *session);
/* Something has changed: passes the end on once all before it is, or ends the session if nothing is owed. */
void client_end_advance(struct session *session);
/* What the server still does for a client that is gone is not to be cancelled. */
bool client_end_spares_server(const struct session *session);

#endif
