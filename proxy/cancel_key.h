/*
 * The key that a client gets to cancel with: the pid of the server process that its login reached, and a
 * secret of the proxy's own. Both stay as they are when a flip moves the session, so the pid is the server's
 * until then and only a name afterwards; relay_notify.c keeps the client's idea of its own pid consistent.
 *
 * Several sessions may have one pid (two sides, a pid that came again). What finds a session is a keyed hash
 * of pid and secret, so that a search tells an attacker nothing by its time. The last byte of the secret
 * leads to the session's worker, masked by the same hash: to others it is as random as the rest.
 * (PostgreSQL documentation, "Canceling Requests in Progress".)
 */
#ifndef SWITCHBACK_PROXY_CANCEL_KEY_H
#define SWITCHBACK_PROXY_CANCEL_KEY_H

#include "proxy/wire/slice.h"

#include <uthash.h>

struct session;
struct worker;
struct worker_shared;

/* As PostgreSQL's own: as much as protocol 3.0 has room for, or as 3.2 wants. */
enum { CANCEL_SECRET_SHORT = 4, CANCEL_SECRET_LONG = 32, CANCEL_MASTER_SIZE = 32 };

struct cancel_key {
    uint32_t pid; /* that the client knows; 0: it was given no key */
    uint8_t length;
    uint8_t secret[CANCEL_SECRET_LONG];
    uint64_t id;
    UT_hash_handle by_id;
};

/* What a client's request says, and where it leads. */
struct cancel_claim {
    unsigned worker;
    uint64_t id;
    uint32_t pid;
    uint8_t length;
    uint8_t secret[CANCEL_SECRET_LONG];
};

/* Gives the session its key; length: CANCEL_SECRET_... False: no randomness. */
MUST_USE bool cancel_key_give(struct session *session, uint32_t pid, uint8_t length);
void cancel_key_take(struct session *session);

/* False: nobody can have that key. Any worker may ask. */
MUST_USE bool cancel_claim_make(const struct worker_shared *shared, uint32_t pid, struct slice secret,
                                struct cancel_claim *claim);
/* On the claim's worker; NULL: nobody has that key. */
struct session *cancel_claim_find(struct worker *worker, const struct cancel_claim *claim);

#endif
