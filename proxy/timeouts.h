/*
 * What may not last for ever in a session: its login, the wait for a side, idling, a statement, the last
 * bytes. The worker's tick calls it. Deadlines that are known beforehand stand in session->deadline_us; what
 * the `timeouts` of the configuration bound is found by a sweep over the sessions now and then, so that the
 * data path writes no clock for it, and nothing is paid while none of them is set.
 */
#ifndef SWITCHBACK_PROXY_TIMEOUTS_H
#define SWITCHBACK_PROXY_TIMEOUTS_H

#include "proxy/config.h"

struct session;

enum quiet { QUIET_NOT, QUIET_IDLE, QUIET_IN_TRANSACTION };

/* What the sweep remembers of a session. */
struct session_watch {
    enum quiet quiet; /* what the client leaves waiting, since when */
    int64_t quiet_since_us;
    int64_t request_us;    /* the request that the server works on, by when it was sent */
    uint32_t executed;     /* and how many Executes of it were answered */
    int64_t since_us;      /* so it has worked on this one since */
    int64_t unanswered_us; /* since when its machine acknowledges nothing (link_watch.h); 0 */
    int64_t cancelled_us;  /* when it was first cancelled; 0: it wasn't */
    uint8_t cancels;       /* so often */
    bool cancelling;       /* a cancel of ours is on its way: the next statement must not meet it */
    bool noticed;          /* its client was told that a hold keeps it */
};

/* Some of them are on: the tick must run. */
bool timeouts_are_set(const struct proxy_config *config);
/* How often the sessions are to be looked at for them. */
int64_t timeouts_interval_us(const struct proxy_config *config);

/* session_update(): the client has just become quiet, or ended that. */
void timeouts_note(struct session *session);

/* The tick: ends what is overdue. sweep: the timeouts of the configuration, too. */
void timeouts_check(struct session *session, int64_t now_us, bool sweep);

#endif
