#include "proxy/cancel_key.h"

#include "proxy/session.h"
#include "proxy/worker.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

struct digest {
    uint8_t mask; /* over the worker's number */
    uint64_t id;
};

/* Of the pid and all but the last byte of the secret. */
static bool make_digest(const struct worker_shared *shared, uint32_t pid, const uint8_t *secret,
                        size_t length, struct digest *digest)
{
    uint8_t text[sizeof(pid) + CANCEL_SECRET_LONG], code[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    memcpy(text, &pid, sizeof(pid));
    memcpy(text + sizeof(pid), secret, length - 1);
    if (HMAC(EVP_sha256(), shared->cancel_master, sizeof(shared->cancel_master), text,
             sizeof(pid) + length - 1, code, &size) == NULL) {
        return false;
    }
    digest->mask = code[0];
    memcpy(&digest->id, code + 1, sizeof(digest->id));
    return true;
}

bool cancel_key_give(struct session *session, uint32_t pid, uint8_t length)
{
    struct worker *worker = session->worker;
    struct cancel_key *key = &session->cancel_key;
    struct session *other = NULL;
    do {
        struct digest digest;
        if (RAND_bytes(key->secret, length) != 1 ||
            !make_digest(worker->shared, pid, key->secret, length, &digest)) {
            return false;
        }
        key->id = digest.id;
        key->secret[length - 1] = (uint8_t)(worker->index ^ digest.mask);
        HASH_FIND(cancel_key.by_id, worker->cancel_keys, &key->id, sizeof(key->id), other);
    } while (other != NULL);
    key->pid = pid;
    key->length = length;
    HASH_ADD(cancel_key.by_id, worker->cancel_keys, cancel_key.id, sizeof(key->id), session);
    return true;
}

void cancel_key_take(struct session *session)
{
    struct worker *worker = session->worker;
    if (session->cancel_key.pid != 0) {
        HASH_DELETE(cancel_key.by_id, worker->cancel_keys, session);
        session->cancel_key.pid = 0;
    }
}

bool cancel_claim_make(const struct worker_shared *shared, uint32_t pid, struct slice secret,
                       struct cancel_claim *claim)
{
    struct digest digest;
    if (pid == 0 || (secret.length != CANCEL_SECRET_SHORT && secret.length != CANCEL_SECRET_LONG) ||
        !make_digest(shared, pid, secret.data, secret.length, &digest)) {
        return false;
    }
    *claim = (struct cancel_claim){.worker = secret.data[secret.length - 1] ^ digest.mask,
                                   .id = digest.id,
                                   .pid = pid,
                                   .length = (uint8_t)secret.length};
    memcpy(claim->secret, secret.data, secret.length);
    return claim->worker < shared->worker_count;
}

struct session *cancel_claim_find(struct worker *worker, const struct cancel_claim *claim)
{
    struct session *session = NULL;
    HASH_FIND(cancel_key.by_id, worker->cancel_keys, &claim->id, sizeof(claim->id), session);
    if (session == NULL || session->cancel_key.pid != claim->pid ||
        session->cancel_key.length != claim->length ||
        CRYPTO_memcmp(session->cancel_key.secret, claim->secret, claim->length) != 0) {
        return NULL;
    }
    return session;
}
