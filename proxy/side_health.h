/*
 * Does a side answer logins? A worker's own judgement, from what became of the connections that it opened.
 * After a few failures in a row the side counts as down: logins are refused at once (57P03) instead of piling
 * up behind a server that isn't there, and only now and then one is let through to see whether it has come
 * back. Any answer, a refusal too, ends that.
 */
#ifndef SWITCHBACK_PROXY_SIDE_HEALTH_H
#define SWITCHBACK_PROXY_SIDE_HEALTH_H

#include "conf/base/compiler.h"
#include "conf/base/side.h"

#include <stdbool.h>
#include <stdint.h>

struct worker;

enum { SIDE_PROBLEM_SIZE = 96 };

struct side_health {
    unsigned failures; /* in a row */
    int64_t backoff_us, next_try_us;
    char problem[SIDE_PROBLEM_SIZE]; /* the last one */
};

/* A login wants to connect. False: refuse it, the side is down. */
MUST_USE bool side_health_may_try(struct worker *worker, enum side side);

void side_health_failed(struct worker *worker, enum side side, const char *problem);
void side_health_answered(struct worker *worker, enum side side);
/* Traffic goes there from now on, or the manager is answered again: what was found out before counts no more.
 */
void side_health_forget(struct worker *worker, enum side side);

#endif
