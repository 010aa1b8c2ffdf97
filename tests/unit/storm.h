/*
 * What the parties of the storm (proxy_storm_test.c) share: what is to be answered to a query stands in its
 * text, so that whoever reads an answer knows every byte of it, and whether its server was told to die of it.
 */
#ifndef SWITCHBACK_TESTS_UNIT_STORM_H
#define SWITCHBACK_TESTS_UNIT_STORM_H

#include "tests/unit/proxy_world.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    STORM_PATIENCE_US = 60 * 1000000, /* whoever waits longer hangs */
    STORM_SERVERS = 4096,             /* connections to the server in a round */
    STORM_ROW = 30000,
    STORM_TEXT = 48 /* of a query, before what fills it up */
};

/* What a server does in the middle of an answer. */
enum storm_deed { DEED_NOTHING, DEED_RESET, DEED_FATAL, DEED_SHUT, DEED_COUNT };

struct storm_query {
    unsigned id, bytes, filler, pause_ms;
    enum storm_deed deed;
    bool extended;
};

struct storm {
    struct world *world;
    char unix_path[160];
    atomic_bool over;     /* clients begin nothing new */
    atomic_bool stopped;  /* the proxy was told to stop: everybody may be ended from now on */
    atomic_bool rough;    /* statements and sessions are ended by the holds of this round */
    atomic_uint accepted; /* the number of a server is its pid, from 1 */
    atomic_uint answered, cut, cancelled, paused, halves, resets, deaths;
    atomic_bool cancel_asked[STORM_SERVERS];
    pthread_t servers[STORM_SERVERS];
};

static inline unsigned storm_pick(unsigned *seed, unsigned below)
{
    return (unsigned)rand_r(seed) % below;
}

static inline char storm_byte(unsigned id, size_t at)
{
    return (char)('a' + (id * 31 + at * 7 + (at >> 9)) % 26);
}

static inline void storm_sleep_us(unsigned us)
{
    (void)usleep(us);
}

/* The other end is told of a reset, not of an end. */
static inline void storm_reset(int fd)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    (void)close(fd);
}

static inline _Noreturn void storm_fail(const char *who, const char *what, unsigned long number)
{
    (void)fprintf(stderr, "%s: %s (%lu)\n", who, what, number);
    abort(); /* with everybody's stacks in the core */
}

/* False: the end, or a reset. Longer than anybody waits: somebody hangs. */
static inline bool storm_wait(int fd, short events, const char *who)
{
    struct pollfd wait = {.fd = fd, .events = events};
    int64_t end_us = clock_mono_us() + STORM_PATIENCE_US;
    while (poll(&wait, 1, 1000) == 0) {
        if (clock_mono_us() > end_us) {
            storm_fail(who, "hangs", 0);
        }
    }
    return true;
}

#endif
