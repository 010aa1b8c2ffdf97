/*
 * Which numbers of types a session speaks, from login to close: those of the side it began on. Once it has
 * moved to the other side, a numbering (numbering.h) stands in its traffic, until it comes home. The worker's
 * maps by database, and what becomes of moved sessions when one is replaced, are here, too.
 *
 * mover.c calls it on the way of a move, proxy.c with a new map, relay.c with each piece of a moved session.
 */
#ifndef SWITCHBACK_PROXY_RENUMBER_H
#define SWITCHBACK_PROXY_RENUMBER_H

#include "proxy/move.h"
#include "proxy/numbering.h"

struct server_link;
struct session;
struct worker;

/* The session is established. False: out of memory. */
MUST_USE bool renumber_begin(struct session *session);

/*
 * What a replay to the target link must change. Makes the numbering that the session will have there. False:
 * out of memory.
 */
MUST_USE bool renumber_target(struct session *session, const struct server_link *target,
                              struct move_numbers *numbers);
/* The target link is its server now. False: out of memory. */
MUST_USE bool renumber_swapped(struct session *session);

/* The map of a database was read anew. Takes the reference. */
void renumber_map(struct worker *worker, const char *database, struct type_map *map);

#endif
