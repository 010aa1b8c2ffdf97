/*
 * Carries sessions to the other side: opens each one's target link, has its state asked and replayed (move.h
 * knows how), and swaps the links under a hold. Everything about one session is here, and the worker's part
 * of a flip: how many are not done, and the answers ARMED, SWAPPED and DISARMED.
 *
 * lock_scout.c asks once for all sessions of the worker what each would take longest to be asked for.
 * session.c calls mover_advance() on every change, relay.c hands over what the session's own server answers
 * to our questions, route_hold.c asks whether a session is ready to be swapped.
 */
#ifndef SWITCHBACK_PROXY_MOVER_H
#define SWITCHBACK_PROXY_MOVER_H

#include "proxy/move.h"
#include "proxy/proxy.h"
#include "proxy/server_link.h"

struct session;
struct worker;

enum mover_step {
    MOVER_QUEUED,  /* too many links are being opened */
    MOVER_OPENING, /* the target link */
    MOVER_WAITING, /* for the boundary, and its turn to be asked */
    MOVER_ASKING,  /* its own server; the client waits */
    MOVER_REPLAYING,
    MOVER_READY,
    MOVER_IMMOVABLE,
    MOVER_FAILED /* the target refused the link or the state */
};

struct mover {
    enum mover_step step;
    struct server_link *target;  /* NULL: none yet, or lost */
    bool hopeless;               /* asking it failed: it is not asked again */
    bool settled;                /* has been ready, immovable or failed once */
    bool awaited;                /* ARMED waits for it */
    bool scouted;                /* the scout's question is about it as well */
    unsigned rounds;             /* of replaying */
    unsigned losses;             /* targets that were lost, and opened again */
    struct numbering *numbering; /* that it will have there; NULL: none (yet) */
    char failure[PROXY_REASON_SIZE];
};

/* A worker's part of a flip, from arm to disarm. */
struct mover_flip {
    bool stands;
    uint64_t id;
    struct proxy_route target;
    bool answered; /* ARMED was told */
    unsigned opening, asking, replaying;
    struct session *scout; /* whose server is asked for all, see lock_scout.h */
    int64_t begun_us, deadline_us;
    uv_timer_t timer;
};

/* --- commands, on the worker --- */

void mover_arm(struct worker *worker, uint64_t flip, struct proxy_route target, int64_t timeout_us);
void mover_swap(struct worker *worker, uint64_t flip, struct proxy_route route);
void mover_disarm(struct worker *worker, uint64_t flip);

/* --- one session --- */

/* It is established; greeting: the server's. False: out of memory. */
MUST_USE bool mover_session_begin(struct session *session, struct slice greeting);
void mover_session_end(struct session *session);

/* Does what can be done now. */
void mover_advance(struct session *session);

/* A piece that its own server sent in answer to our questions. */
void mover_asked(struct session *session, const struct frame_piece *piece, const struct boundary_step *step);

/* Sends a question of ours to its own server, at the boundary: what it answers comes by mover_asked(). */
void mover_inject(struct session *session, const struct strbuf *question);
/* It is ready, or can't move, as far as its state is known now. */
void mover_resettle(struct session *session);

/* Nothing is left to be done before it can be swapped, or it can't be. */
bool mover_is_settled(const struct session *session);

/* Adds the session to the counts of ARMED, PROGRESS and DRAINED; reason: the first failure. */
void mover_count(const struct session *session, struct proxy_counts *counts, char reason[PROXY_REASON_SIZE]);

#endif
