/* Figures out of cumulative counters. */
#include "control/gates/gate.h"

void gate_traffic_since(const struct gate_traffic *later, const struct gate_traffic *earlier,
                        struct gate_traffic *difference)
{
    *difference = *later;
    if (earlier == NULL) {
        return;
    }
    difference->statements -= earlier->statements;
    difference->errors -= earlier->errors;
    for (size_t i = 0; i < GATE_BUCKETS; i++) {
        difference->latency[i] -= earlier->latency[i];
    }
}

int64_t gate_percentile_us(const struct gate_traffic *traffic, const int64_t bounds_us[GATE_BUCKETS],
                           double share)
{
    uint64_t total = 0;
    for (size_t i = 0; i < GATE_BUCKETS; i++) {
        total += traffic->latency[i];
    }
    if (total == 0) {
        return 0;
    }
    const double wanted = share * (double)total;
    uint64_t below = 0;
    for (size_t i = 0; i < GATE_BUCKETS; i++) {
        const uint64_t here = traffic->latency[i];
        if (here > 0 && (double)(below + here) >= wanted) {
            const double from_us = i == 0 ? 0 : (double)bounds_us[i - 1];
            if (bounds_us[i] == INT64_MAX) {
                return (int64_t)from_us; /* the open bucket: at least this */
            }
            const double part = (wanted - (double)below) / (double)here;
            return (int64_t)(from_us + ((double)bounds_us[i] - from_us) * (part > 0 ? part : 0));
        }
        below += here;
    }
    return bounds_us[GATE_BUCKETS - 2];
}
