/*
 * Servers that still run something for a session that is gone. A cancel may come before the statement that it
 * is meant for, and is then ignored; so the connection stays open, what it sends is forgotten, and the cancel
 * is repeated until the server has ended. It is told the end of its input behind the first cancel, so that it
 * ends as soon as nothing runs. server_link.c and the worker call it.
 */
#ifndef SWITCHBACK_PROXY_SERVER_ORPHAN_H
#define SWITCHBACK_PROXY_SERVER_ORPHAN_H

#include <stdint.h>

struct server_link;
struct worker;

/* Of a link; prev and next are the worker's list. */
struct server_orphan {
    struct server_link *prev, *next;
    int64_t begun_us, again_us; /* begun_us 0: it is none */
    unsigned tries;
};

/* The link is ready and nobody's. */
void orphan_adopt(struct server_link *link);
/* A cancel for it is over; its server has ended. */
void orphan_cancelled(struct server_link *link);
void orphan_ended(struct server_link *link);

/* The worker's tick, and its end. */
void orphan_check_all(struct worker *worker, int64_t now_us);
void orphan_abandon_all(struct worker *worker);

#endif
