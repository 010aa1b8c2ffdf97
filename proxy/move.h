/*
 * The session move, per session: what a session's state is, and how to make it stand on another server. Pure
 * but for memory: it never touches a socket. The session (session.c) owns one `struct move` from login to
 * close, shows it the traffic, asks it for bytes to send at the boundary, and feeds it the answers:
 *
 *   always      move_client() and move_server() for each piece that the relay passes (after boundary_*())
 *   arm, hold   at the boundary: move_ask() → send to the session's own server after boundary_inject(), while
 *               the client waits; each piece with step.ours → move_ask_answer()
 *               then move_replay() → send to the target link; each piece it answers → move_replay_answer()
 *   swap        move_swapped() → ParameterStatus messages for the client; the target link is the server now
 *   disarm      move_reset_target(), also when the target link was lost
 *
 * Both asking and replaying may end with nothing to send: a session that did nothing since it was asked last
 * is ready at once. The policy for what can't move or failed is the controller's.
 */
#ifndef SWITCHBACK_PROXY_MOVE_H
#define SWITCHBACK_PROXY_MOVE_H

#include "conf/base/error.h"
#include "conf/base/strbuf.h"
#include "proxy/numbering.h"
#include "proxy/wire/boundary.h"

struct move;

/* How oids of types change on the way to the target link. */
struct move_numbers {
    struct translation statements; /* from the session's own server */
    struct translation unnamed;    /* from its client */
    struct numbering *numbering;   /* is told of the statements as the target has them; NULL: nobody is */
};

/* replication: the startup asked for a replication connection, which never moves. NULL: out of memory. */
MUST_USE struct move *move_new(bool replication);
void move_free(struct move *move);

/* ParameterStatus as the client has been told it at login; later ones are seen in the traffic. */
void move_parameter(struct move *move, struct slice name, struct slice value);

/* --- traffic --- */

/* A piece from the client, right after boundary_client() said to forward it. */
void move_client(struct move *move, const struct frame_piece *piece, const struct boundary *boundary);
/* What boundary_server() made of a piece from the session's own server that isn't ours. */
void move_server(struct move *move, const struct boundary_step *step);

/* Something that was forwarded since move_settled() may have ended a transaction: COMMIT, ROLLBACK ... */
bool move_may_end(const struct move *move);
/* It has asked for commits that don't wait for the other side (SET synchronous_commit), as far as is seen. */
bool move_is_unsync(const struct move *move);
/* Nothing is owed any more; in_transaction: a block is open. */
void move_settled(struct move *move, bool in_transaction);

/* Its client knows a type by a number that only the session's present server gives it: it can't move. */
void move_knows_type(struct move *move, uint32_t oid);

/* --- arm and hold, at the boundary --- */

enum move_answer {
    MOVE_MORE,   /* not over yet */
    MOVE_AGAIN,  /* call move_ask() once more */
    MOVE_DONE,   /* over; look at move_is_movable() */
    MOVE_FAILED, /* can't be had: move_is_movable() is false and says why. A target is to be closed */
    MOVE_FATAL   /* that server ended the connection with an ErrorResponse */
};

/*
 * Messages with exactly one Sync that ask the session's own server for its state, appended to *out; nothing
 * if it is known. Only what traffic may have changed since the last time is asked. False: out of memory, or
 * the session can't move anyway (*out is unchanged).
 */
MUST_USE bool move_ask(struct move *move, struct strbuf *out);
/* A piece of the answer (step.ours). */
MUST_USE enum move_answer move_ask_answer(struct move *move, const struct frame_piece *piece);

/*
 * In the hold a session isn't asked whether it holds advisory locks or temporary replication slots: one asks
 * for all of a server. move_lacks_scout() if everything else about it is known and replayed. move_scout()
 * gives the messages for the one that asks, with exactly one Sync; of the answer, *pid is 0 or a backend that
 * holds something. Then move_scouted() for each session that move_lacks_scout() was true for before; holding:
 * NULL, it holds nothing.
 */
enum { MOVE_HOLDING_SIZE = 192 };
bool move_lacks_scout(const struct move *move);
MUST_USE bool move_scout(struct move *move, struct strbuf *out);
MUST_USE enum move_answer move_scout_answer(struct move *move, const struct frame_piece *piece, uint32_t *pid,
                                            char holding[MOVE_HOLDING_SIZE]);
void move_scouted(struct move *move, const char *holding);
/* The scout failed: the session must be asked for everything itself. */
void move_not_scouted(struct move *move);

/* ParameterStatus of the target link's login. */
void move_target_parameter(struct move *move, struct slice name, struct slice value);
/*
 * Messages that bring the target link from what was replayed before to the state that was asked; nothing
 * appended if it has it. False: out of memory, or the session was never asked.
 */
MUST_USE bool move_replay(struct move *move, const struct move_numbers *numbers, struct strbuf *out);
/* A piece that the target link sent, asynchronous messages included; numbering as for move_replay(). */
MUST_USE enum move_answer move_replay_answer(struct move *move, const struct frame_piece *piece,
                                             struct numbering *numbering);

/* True if the session was asked since its last traffic and the target has that state: ready to be swapped. */
bool move_is_ready(const struct move *move);

/* The target is the session's server now. True: the client knows parameters of another value, move_tell(). */
MUST_USE bool move_swapped(struct move *move);
/*
 * Appends a ParameterStatus for each parameter of which the client knows another value. It belongs in front
 * of the next reply: what waits for notifications need not understand it (pgjdbc's getNotifications()
 * breaks). False: out of memory.
 */
MUST_USE bool move_tell(struct move *move, struct strbuf *to_client);
/* Nobody is going to move it now: what it was asked for takes memory. */
void move_forget_state(struct move *move);
/* Forgets the target: disarmed or refused. The client notices nothing. */
void move_reset_target(struct move *move);
/* The target is gone, and another one will be opened: what the session's own server said still holds. */
void move_lose_target(struct move *move);

/* --- what it says --- */

/* What it held when it was asked last, a line each: what it is, a blank, its name; cut at a line's end if it
 * is too long. NULL: it was never asked. */
enum move_held {
    MOVE_HELD_SETTING,
    MOVE_HELD_STATEMENT,
    MOVE_HELD_CHANNEL,
    MOVE_HELD_ROLE, /* SET ROLE */
    MOVE_HELD_USER, /* SET SESSION AUTHORIZATION, or who logged in */
    MOVE_HELD_COUNT
};
const char *move_held_name(enum move_held held);
const char *move_holds(const struct move *move, uint32_t counts[MOVE_HELD_COUNT]);

/* As well as it is known: from the last asking, and from traffic since. reasons: separated by "; ". Costs
 * next to nothing with size 0. */
bool move_is_movable(const struct move *move, char *reasons, size_t size);
/* The value that its client was told last in a ParameterStatus, NULL: none. */
const char *move_reported(const struct move *move, const char *name);
/* Why replaying or asking failed, "" if it didn't. */
const char *move_failure(const struct move *move);
/* Anything passed since the session was asked last. */
bool move_is_dirty(const struct move *move);

#endif
