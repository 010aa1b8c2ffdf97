#include "proxy/failed_logins.h"

#include "conf/base/ensure.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 1024, WIDTH = 4, KEY_SIZE = 9, MAPPED_AT = 12, V6_NETWORK_BYTES = 8 };

struct failed_login {
    uint8_t key[KEY_SIZE]; /* family, network */
    double level;          /* failures that time has not forgiven yet; 0: the bucket is free */
    int64_t since_us;      /* when it had that level */
};

void failed_logins_init(struct failed_logins *failed)
{
    failed->buckets = NULL;
    failed->seed = 0;
    (void)RAND_bytes((unsigned char *)&failed->seed, sizeof(failed->seed)); /* without it no proxy starts */
    ENSURE(uv_mutex_init(&failed->lock) == 0);
}

void failed_logins_deinit(struct failed_logins *failed)
{
    uv_mutex_destroy(&failed->lock);
    free(failed->buckets);
}

static bool is_loopback_v4(const uint8_t *bytes)
{
    return bytes[0] == 127;
}

/* False: failures of this address don't count. */
static bool make_key(const struct failed_logins_policy *policy, const union client_address *address,
                     uint8_t key[KEY_SIZE])
{
    const uint8_t *v4 = NULL;
    bool local = address->any.sa_family == AF_UNIX;
    memset(key, 0, KEY_SIZE);
    key[0] = (uint8_t)address->any.sa_family;
    if (policy->max == 0) {
        return false;
    }
    if (address->any.sa_family == AF_INET) {
        v4 = (const uint8_t *)&address->v4.sin_addr;
    } else if (address->any.sa_family == AF_INET6) {
        const struct in6_addr *v6 = &address->v6.sin6_addr;
        v4 = IN6_IS_ADDR_V4MAPPED(v6) ? v6->s6_addr + MAPPED_AT : NULL;
        local = IN6_IS_ADDR_LOOPBACK(v6);
        memcpy(key + 1, v6->s6_addr, V6_NETWORK_BYTES);
    }
    if (v4 != NULL) {
        memset(key, 0, KEY_SIZE);
        key[0] = AF_INET;
        memcpy(key + 1, v4, sizeof(struct in_addr));
        local = is_loopback_v4(v4);
    }
    return policy->local || !local;
}

/* FNV-1a, with a seed that nobody knows: so nobody can choose addresses that share a row. */
static size_t row_of(const struct failed_logins *failed, const uint8_t key[KEY_SIZE])
{
    uint64_t hash = failed->seed ^ UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < KEY_SIZE; i++) {
        hash = (hash ^ key[i]) * UINT64_C(0x100000001b3);
    }
    return (size_t)((hash >> 32) % ROWS);
}

static void forgive(struct failed_login *bucket, const struct failed_logins_policy *policy, int64_t now_us)
{
    double passed = (double)(now_us - bucket->since_us) / (double)policy->window_us;
    bucket->level -= passed * (double)policy->max;
    bucket->level = bucket->level > 0 ? bucket->level : 0;
    bucket->since_us = now_us;
}

/* The bucket of the key, up to date; NULL: it has none. *emptiest: the one that may be taken for it. */
static struct failed_login *find(const struct failed_logins *failed,
                                 const struct failed_logins_policy *policy, const uint8_t key[KEY_SIZE],
                                 int64_t now_us, struct failed_login **emptiest)
{
    struct failed_login *row = &failed->buckets[row_of(failed, key) * WIDTH], *found = NULL;
    *emptiest = row;
    for (int i = 0; i < WIDTH; i++) {
        forgive(&row[i], policy, now_us);
        if (row[i].level > 0 && memcmp(row[i].key, key, KEY_SIZE) == 0) {
            found = &row[i];
        }
        if (row[i].level < (*emptiest)->level) {
            *emptiest = &row[i];
        }
    }
    return found;
}

/* The bucket holds its last drop: a fraction of a failure has been forgiven already when the next one comes.
 */
static bool is_full(const struct failed_login *bucket, const struct failed_logins_policy *policy)
{
    return bucket->level > (double)policy->max - 1;
}

bool failed_logins_may_try(struct failed_logins *failed, const struct failed_logins_policy *policy,
                           const union client_address *address, int64_t now_us)
{
    uint8_t key[KEY_SIZE];
    bool may = true;
    if (!make_key(policy, address, key)) {
        return true;
    }
    uv_mutex_lock(&failed->lock);
    if (failed->buckets != NULL) {
        struct failed_login *emptiest = NULL;
        const struct failed_login *bucket = find(failed, policy, key, now_us, &emptiest);
        may = bucket == NULL || !is_full(bucket, policy);
    }
    uv_mutex_unlock(&failed->lock);
    return may;
}

bool failed_logins_note(struct failed_logins *failed, const struct failed_logins_policy *policy,
                        const union client_address *address, int64_t now_us)
{
    uint8_t key[KEY_SIZE];
    if (!make_key(policy, address, key)) {
        return false;
    }
    uv_mutex_lock(&failed->lock);
    if (failed->buckets == NULL) {
        failed->buckets = calloc((size_t)ROWS * WIDTH, sizeof(*failed->buckets));
        ENSURE(failed->buckets != NULL);
    }
    struct failed_login *emptiest = NULL;
    struct failed_login *bucket = find(failed, policy, key, now_us, &emptiest);
    if (bucket == NULL) {
        bucket = emptiest;
        memcpy(bucket->key, key, KEY_SIZE);
        bucket->level = 0;
    }
    bool was_full = is_full(bucket, policy);
    bucket->level += 1;
    bool reached = !was_full && is_full(bucket, policy);
    uv_mutex_unlock(&failed->lock);
    return reached;
}
