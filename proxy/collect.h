/*
 * Gathers what the workers answer into one event for the controller: the last worker's answer completes it.
 * Main loop only; it does no I/O.
 */
#ifndef SWITCHBACK_PROXY_COLLECT_H
#define SWITCHBACK_PROXY_COLLECT_H

#include "proxy/answer.h"

/* What one command waits for: an answer of every worker. */
struct collection {
    struct collection *prev, *next;
    enum proxy_event_kind kind;
    uint64_t hold; /* or flip, or request */
    unsigned missing;
    struct proxy_counts counts;
    char reason[PROXY_REASON_SIZE]; /* the first one */
    void *items;                    /* stalls or sessions of the workers that have answered */
    size_t count;
    bool answered[]; /* by worker */
};

struct collect {
    unsigned workers;
    struct collection *collections; /* utlist, in the order of the commands */
    /* the hold that stands, and each worker's last count */
    uint64_t hold;
    bool stands, held, drained, expiring;
    struct proxy_counts *progress;
    char reason[PROXY_REASON_SIZE]; /* why a move failed: the first that any worker told */
    void (*emit)(void *context, const struct proxy_event *event);
    void *context;
};

MUST_USE bool collect_init(struct collect *collect, unsigned workers,
                           void (*emit)(void *context, const struct proxy_event *event), void *context);
void collect_deinit(struct collect *collect);

/* A command was given that every worker answers with this kind. */
void collect_expect(struct collect *collect, enum proxy_event_kind kind, uint64_t hold);
/* Nobody waits for answers of this kind any more: an arming that was given up. */
void collect_forget(struct collect *collect, enum proxy_event_kind kind);
/* A hold begins: HELD, then PROGRESS and DRAINED; or EXPIRED. */
void collect_hold(struct collect *collect, uint64_t hold);

/* Takes one answer, and emits the events that it completes. */
void collect_answer(struct collect *collect, const struct answer *answer);

/*
 * True once for each hold: a worker's deadline has passed. The other workers are to be told, as one of them
 * may have been given a later one.
 */
MUST_USE bool collect_expiry_begins(struct collect *collect, const struct answer *answer);

#endif
