/* Moments on one clock, chance, the trace; and the measures of the world. */
#ifndef SWITCHBACK_TESTS_SIM_CLOCK_H
#define SWITCHBACK_TESTS_SIM_CLOCK_H

#include "conf/base/error.h"
#include "conf/base/side.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SIM_MS = 1000,
    SIM_SECOND = 1000000,
    DATABASES = 2,
    TABLES = 3,
    DAEMONS = 2, /* at most */
    WORKERS = 2,
    CLIENTS = 4, /* through the proxy */
    WRITERS = 2, /* directly to one side */
    LINKS = 128,
    CALLS = 64
};

struct sim;
typedef uint32_t position; /* in a cluster's WAL: so many records lie before it */

struct moment {
    int64_t at_us;
    uint64_t order; /* of two at the same time the earlier made comes first */
    void (*happen)(struct sim *sim, const struct moment *moment);
    uint32_t who;
    unsigned daemon; /* in whose name */
    uint64_t life;   /* of whoever it is for: a later one passes it over */
    int64_t value;
};

typedef void (*happening)(struct sim *sim, const struct moment *moment);

void sim_later(struct sim *sim, int64_t delay_us, happening happen, uint32_t who, uint64_t life,
               int64_t value);
bool sim_next(struct sim *sim, struct moment *moment);
int64_t sim_wall_us(const struct sim *sim); /* as the daemons' machine has it */
uint64_t sim_random(struct sim *sim);
int64_t sim_between(struct sim *sim, int64_t low, int64_t high); /* both included */
bool sim_chance(struct sim *sim, unsigned in_a_thousand);

void sim_forget_story(void);
void sim_say(struct sim *sim, const char *who, const char *format, ...) PRINTF_LIKE(3, 4);
#define SAY(sim, ...)                                                                                        \
    do {                                                                                                     \
        if ((sim)->telling) {                                                                                \
            sim_say(sim, __VA_ARGS__);                                                                       \
        }                                                                                                    \
    } while (0)

#endif
