#include "proxy/side_health.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "proxy/worker.h"

#include <stdio.h>

enum {
    FAILURES_MOST = 3,
    BACKOFF_FIRST_US = 100000,
    BACKOFF_MOST_US = 1000000 /* a side that has come back is found within this, if a client comes */
};

static bool is_down(const struct side_health *health)
{
    return health->failures >= FAILURES_MOST;
}

bool side_health_may_try(struct worker *worker, enum side side)
{
    struct side_health *health = &worker->health[side];
    if (!is_down(health)) {
        return true;
    }
    int64_t now_us = clock_mono_us();
    if (now_us < health->next_try_us) {
        return false;
    }
    int64_t backoff_us = 2 * health->backoff_us;
    health->backoff_us = backoff_us > BACKOFF_MOST_US ? BACKOFF_MOST_US : backoff_us;
    health->next_try_us = now_us + health->backoff_us;
    return true;
}

void side_health_failed(struct worker *worker, enum side side, const char *problem)
{
    struct side_health *health = &worker->health[side];
    counter_add(&worker->statistics.connect_failures[side], 1);
    (void)snprintf(health->problem, sizeof(health->problem), "%s", problem);
    bool was_down = is_down(health);
    health->failures += !was_down;
    if (!is_down(health)) {
        return;
    }
    atomic_store_explicit(&worker->statistics.side_down_us[side], clock_mono_us(), memory_order_relaxed);
    if (!was_down) {
        health->backoff_us = BACKOFF_FIRST_US;
        health->next_try_us = clock_mono_us() + BACKOFF_FIRST_US;
        LOG_WARN("side_down", LOG_STR("side", side_name(side)), LOG_U64("worker", worker->index),
                 LOG_STR("error", problem));
    }
}

void side_health_forget(struct worker *worker, enum side side)
{
    atomic_store_explicit(&worker->statistics.side_down_us[side], 0, memory_order_relaxed);
    worker->health[side] = (struct side_health){.failures = 0};
}

void side_health_answered(struct worker *worker, enum side side)
{
    struct side_health *health = &worker->health[side];
    if (health->failures == 0) {
        return;
    }
    if (is_down(health)) {
        LOG_INFO("side_up", LOG_STR("side", side_name(side)), LOG_U64("worker", worker->index));
    }
    side_health_forget(worker, side);
}
