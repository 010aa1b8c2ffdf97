#include "proxy/key_pool.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/session.h"

#include <string.h>
#include <sys/mman.h>
#include <uv.h>

enum { POOL_BLOCK_SIZE = 64 * 1024 };

union slot {
    union slot *next; /* while free */
    struct session_keys keys;
};

static uv_once_t once = UV_ONCE_INIT;
static uv_mutex_t lock;
static union slot *free_slots; /* under the lock */

static void init(void)
{
    ENSURE(uv_mutex_init(&lock) == 0);
}

/* Blocks are never given back: their number is bounded by the most sessions there ever were. */
static void add_block(void)
{
    union slot *block =
        mmap(NULL, POOL_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) {
        return;
    }
    (void)madvise(block, POOL_BLOCK_SIZE, MADV_DONTDUMP);
    if (mlock(block, POOL_BLOCK_SIZE) != 0) {
        LOG_WARN("keys_not_locked", LOG_STR("hint", "raise the limit of locked memory (LimitMEMLOCK)"));
    }
    for (size_t i = 0; i < POOL_BLOCK_SIZE / sizeof(union slot); i++) {
        block[i].next = free_slots;
        free_slots = &block[i];
    }
}

struct session_keys *keys_new(void)
{
    uv_once(&once, init);
    uv_mutex_lock(&lock);
    if (free_slots == NULL) {
        add_block();
    }
    union slot *slot = free_slots;
    if (slot != NULL) {
        free_slots = slot->next;
    }
    uv_mutex_unlock(&lock);
    if (slot != NULL) {
        memset(slot, 0, sizeof(*slot));
    }
    return (struct session_keys *)slot;
}

void keys_free(struct session_keys *keys)
{
    if (keys == NULL) {
        return;
    }
    union slot *slot = (union slot *)keys;
    explicit_bzero(slot, sizeof(*slot));
    uv_mutex_lock(&lock);
    slot->next = free_slots;
    free_slots = slot;
    uv_mutex_unlock(&lock);
}
