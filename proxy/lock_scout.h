/*
 * Asks in the hold, once for all sessions of a worker, which of them hold advisory locks or temporary
 * replication slots, on one session's link. A server goes through the locks of all its sessions whenever one
 * asks for its own: that was most of what asking cost. Used by mover.c, when everything else is known.
 */
#ifndef SWITCHBACK_PROXY_LOCK_SCOUT_H
#define SWITCHBACK_PROXY_LOCK_SCOUT_H

#include "proxy/wire/boundary.h"

struct session;
struct worker;

/* Sends the question if any session lacks the answer and nothing else is under way. */
void scout_advance(struct worker *worker);

/* A piece that the scout's server sent in answer. */
void scout_answered(struct session *session, const struct frame_piece *piece);

/* The session doesn't take part in the move any more. */
void scout_forget(const struct session *session);

#endif
