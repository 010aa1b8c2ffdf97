/*
 * Counters of one worker, written by it alone and read by anyone: relaxed atomics, so neither side waits.
 * What the relay counts goes by side; proxy_stats() sums over the workers.
 */
#ifndef SWITCHBACK_PROXY_STATISTICS_H
#define SWITCHBACK_PROXY_STATISTICS_H

#include "proxy/proxy.h"

#include <stdatomic.h>

typedef _Atomic uint64_t counter;

struct side_counters {
    counter statements, errors, client_errors, latency_sum_us, bytes_to_server, bytes_to_client;
    counter latency[PROXY_LATENCY_BUCKETS];
    counter errors_by_class[PROXY_ERROR_CLASSES];
};

struct statistics {
    struct side_counters sides[SIDE_COUNT];
    counter sessions_by_state[SESSION_STATE_COUNT];
    counter sessions_immovable, sessions_waiting;
    counter sessions_total, logins_failed, cancels;
    counter unconfirmed_commits, unsync_commits, sessions_unsync;
    counter doubts[PROXY_OUTCOME_COUNT];
    counter refused[PROXY_REFUSAL_COUNT], timeouts[PROXY_TIMEOUT_COUNT];
    counter connect_failures[SIDE_COUNT];
    _Atomic int64_t side_down_us[SIDE_COUNT]; /* when one that counts as down failed last; 0: it is up */
    _Atomic int64_t oldest_wait_since_us;     /* of a client that the gate keeps; 0: none */
};

/* Only the worker that owns the counter: a plain addition that readers see whole. */
static inline void counter_add(counter *number, uint64_t amount)
{
    atomic_store_explicit(number, atomic_load_explicit(number, memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

static inline uint64_t counter_read(const counter *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

/* Statements that one ReadyForQuery ended; sqlstate: of their error, or "". */
void statistics_statements(struct side_counters *side, uint32_t statements, int64_t latency_us);
void statistics_error(struct side_counters *side, const char *sqlstate);

/* Adds one worker's counters to the sum. */
void statistics_sum(const struct statistics *statistics, struct proxy_stats *sum, int64_t now_us);

#endif
