/*
 * What the workers tell the main loop: one letter a worker and command. proxy.c gathers the answers of all
 * workers into one event for the controller.
 */
#ifndef SWITCHBACK_PROXY_ANSWER_H
#define SWITCHBACK_PROXY_ANSWER_H

#include "proxy/mailbox.h"
#include "proxy/proxy.h"

struct worker;

struct answer {
    struct letter letter;
    unsigned worker;
    enum proxy_event_kind kind;
    uint64_t hold; /* hold, flip, or request */
    struct proxy_counts counts;
    char reason[PROXY_REASON_SIZE];
    size_t count; /* of what follows: stalls (RELEASED, EXPIRED) or sessions (SESSIONS) */
    _Alignas(8) char data[];
};

/* A new answer with room for `count` items of that size; out of memory ends the process (a lost answer would
 * leave a flip hanging). */
MUST_USE struct answer *answer_new(const struct worker *worker, enum proxy_event_kind kind, uint64_t hold,
                                   size_t count, size_t size);
void answer_post(const struct worker *worker, struct answer *answer);

struct verifier_request {
    struct letter letter;
    uint64_t request;
    enum side side;
    bool groups; /* of which roles it is a member, too */
    char role[];
};

struct doubt_request {
    struct letter letter;
    struct proxy_doubt doubt;
};

/* What the main loop does with them; proxy.c. */
void proxy_deliver_answer(struct letter *letter, void *receiver);
void proxy_deliver_verifier_request(struct letter *letter, void *receiver);
void proxy_deliver_doubt(struct letter *letter, void *receiver);

#endif
