/*
 * A cancel of what a client has sent, and what the gate keeps: no server has it, so the answer is ours. Used
 * by cancel.c, and by the relay, which forgets the rest of what was cancelled.
 */
#ifndef SWITCHBACK_PROXY_RELAY_CANCEL_H
#define SWITCHBACK_PROXY_RELAY_CANCEL_H

#include "proxy/wire/frame.h"

struct session;

/*
 * A cancel request for a session that is kept at its boundary: the statement that waits was never sent, so it
 * is answered as the server would answer one that it cancels (57014), and forgotten. False: none waits, the
 * cancel is the server's.
 */
bool relay_cancel_kept(struct session *session);

/* A piece of the client's, just read. True: it belongs to what was cancelled, and is forgotten. */
MUST_USE bool relay_discards(struct session *session, const struct frame_piece *piece);

#endif
