/* Input that ends flush against an unreadable page: a parser that reads one byte too far crashes the test. */
#ifndef SWITCHBACK_TESTS_UNIT_GUARD_H
#define SWITCHBACK_TESTS_UNIT_GUARD_H

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard {
    uint8_t *pages;
    size_t size; /* of the readable part */
};

static inline void guard_init(struct guard *guard, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    guard->size = (size + page - 1) / page * page;
    guard->pages = mmap(NULL, guard->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(guard->pages != MAP_FAILED);
    int failed = mprotect(guard->pages + guard->size, page, PROT_NONE);
    assert(failed == 0);
    (void)failed;
}

static inline void guard_deinit(struct guard *guard)
{
    munmap(guard->pages, guard->size + (size_t)sysconf(_SC_PAGESIZE));
}

/* A copy of the bytes that ends where the unreadable page begins. */
static inline uint8_t *guard_copy(struct guard *guard, const void *bytes, size_t length)
{
    assert(length <= guard->size);
    uint8_t *copy = guard->pages + guard->size - length;
    if (length > 0) {
        memmove(copy, bytes, length);
    }
    return copy;
}

/* Small, fast, seeded: a failing run can be repeated. (xorshift64*) */
static inline uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

#endif
