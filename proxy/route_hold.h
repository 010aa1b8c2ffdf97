/*
 * The route and the gate of one worker: where traffic goes, and whether new work may go on now. The gate is
 * closed while a hold stands or while the route is not open. Work stops at each session's boundary; what the
 * client sent meanwhile is kept in the session. The worker enforces the hold's deadline itself, so that a
 * stuck controller can't hold clients.
 *
 * relay.c and login_client.c ask it, session.c tells it of changes, proxy.c commands it.
 */
#ifndef SWITCHBACK_PROXY_ROUTE_HOLD_H
#define SWITCHBACK_PROXY_ROUTE_HOLD_H

#include "proxy/proxy.h"

struct session;
struct worker;

struct route_hold {
    struct proxy_route route;
    bool stands;
    bool refusing; /* it ended by 57P03: no new work until the controller says where */
    uint64_t id;
    int64_t deadline_us;
    enum proxy_expire expire;
    uint64_t ended;                        /* sessions that were in its way and got 57P01 */
    uint64_t undrained;                    /* sessions not at their boundary, or not ready to be swapped */
    bool progress_due;                     /* undrained has changed since it was told */
    int64_t cancelled_us, cancel_again_us; /* of hold_cancel_undrained(); 0: nothing was cancelled */
    uv_timer_t timer;
    int64_t *stalls; /* what clients felt, microseconds */
    size_t stall_count, stall_capacity;
};

/* --- asked on the data path --- */

bool hold_gate_closed(const struct worker *worker);
bool hold_is_refusing(const struct worker *worker);

enum hold_verdict {
    HOLD_PASS,
    HOLD_KEEP,     /* wait: keep this message and what follows */
    HOLD_REFUSE,   /* 57P03: a hold has ended badly */
    HOLD_ELSEWHERE /* 57P01: its link leads to a side or epoch that is over */
};

/* May a message that the client begins now go on? */
MUST_USE enum hold_verdict hold_check(const struct session *session, uint8_t type);

/* The gate keeps something of the session, from now on; it goes on now, or not at all. */
void hold_note_waiting(struct session *session);
void hold_note_forwarded(struct session *session);
void hold_note_session(struct session *session); /* anything changed while a hold stands */

/* It doesn't wait any longer, and never got through: a stall that nobody counts. */
void hold_note_given_up(struct session *session);

/* A cancel may be sent to the session's server. */
bool hold_may_cancel(const struct session *session);

/* --- commands, on the worker --- */

void hold_set_route(struct worker *worker, struct proxy_route route);
void hold_begin(struct worker *worker, uint64_t id, int64_t deadline_us, enum proxy_expire expire);
void hold_set_expire(struct worker *worker, uint64_t id, int64_t deadline_us, enum proxy_expire expire);
void hold_expire_now(struct worker *worker, uint64_t id); /* another worker's deadline has passed */
void hold_release(struct worker *worker, uint64_t id);
void hold_cancel_undrained(struct worker *worker, uint64_t id);
/* The worker's tick: a cancel that came before its statement was ignored, so what still runs is cancelled
 * again. */
void hold_cancel_again(struct worker *worker, int64_t now_us);
void hold_terminate_undrained(struct worker *worker, uint64_t id);

#endif
