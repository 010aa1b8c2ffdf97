/*
 * Wrong passwords, counted by the address that they come from, so that nobody can try them all. Each failure
 * fills the address's bucket by one, time empties it; while it is full, logins from there are refused before
 * anything is checked. IPv6 addresses count by their network of 64 bits, those of this machine only if the
 * policy says so. The table has a fixed size: under pressure the emptiest bucket gives way.
 *
 * Shared by all workers, under a lock that only logins take.
 */
#ifndef SWITCHBACK_PROXY_FAILED_LOGINS_H
#define SWITCHBACK_PROXY_FAILED_LOGINS_H

#include "proxy/client_address.h"

struct failed_login; /* one bucket */

struct failed_logins {
    uv_mutex_t lock;
    uint64_t seed;                /* of the table's hash */
    struct failed_login *buckets; /* NULL until the first failure */
};

struct failed_logins_policy {
    int64_t max; /* 0: no limit */
    int64_t window_us;
    bool local;
};

void failed_logins_init(struct failed_logins *failed);
void failed_logins_deinit(struct failed_logins *failed);

/* Whether somebody there may try. Asked when a login begins, and again before its proof is checked. */
bool failed_logins_may_try(struct failed_logins *failed, const struct failed_logins_policy *policy,
                           const union client_address *address, int64_t now_us);

/* One more failure. True: with it the address has reached the limit. */
bool failed_logins_note(struct failed_logins *failed, const struct failed_logins_policy *policy,
                        const union client_address *address, int64_t now_us);

#endif
