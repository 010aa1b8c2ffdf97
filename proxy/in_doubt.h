/*
 * A session whose server goes while something of it may be under way to be committed. What is at stake says
 * doubt.h; here is what its client is told: that it was rolled back (08006), that nobody knows (08007), or,
 * of a COMMIT whose transaction's id is known, what the controller finds out (proxy.h, proxy_doubt). Until
 * then the session has no server, and its client waits, for at most timeouts.in_doubt.
 */
#ifndef SWITCHBACK_PROXY_IN_DOUBT_H
#define SWITCHBACK_PROXY_IN_DOUBT_H

#include "proxy/proxy.h"
#include "proxy/wire/boundary.h"

struct server_link;
struct session;
struct worker;

/* The session has its first server, or another one. */
void in_doubt_begin(struct session *session);

/*
 * A message that begins at `start`, behind what was read from `from` on. What is to be asked in front of it
 * is put there: into the headroom before `from` if that is where it begins and there is so much room, else it
 * is sent. Returns where what is yet to be forwarded begins.
 */
const char *in_doubt_ask(struct session *session, const struct frame_piece *piece, const char *from,
                         char *start, size_t room);

/* What came in front of a statement's answer: the answer to what we asked. */
void in_doubt_answered(struct session *session, const struct frame_piece *piece,
                       const struct boundary_step *step);
/* A piece of the client's own, after boundary_server(). True: not it is passed on, but *instead, or nothing.
 */
MUST_USE bool in_doubt_server(struct session *session, const struct frame_piece *piece,
                              const struct boundary_step *step, struct slice *instead);

/* The server has ended the connection, and has not said why. */
void in_doubt_server_gone(struct session *session);
/* The proxy is going to end the session, for such a reason. True: it does so here. */
MUST_USE bool in_doubt_ends(struct session *session, const char *sqlstate, const char *reason);

/* What became of it is known, or won't be. */
void in_doubt_settle(struct session *session, enum proxy_outcome outcome);
void in_doubt_outcome(struct worker *worker, uint64_t request, enum proxy_outcome outcome);

#endif
