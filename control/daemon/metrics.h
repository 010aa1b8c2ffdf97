/*
 * What /metrics says: one immutable snapshot, filled by the controller on the main loop, printed as
 * Prometheus text (exposition format 0.0.4) on the http server's thread. Pure.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_METRICS_H
#define SWITCHBACK_CONTROL_DAEMON_METRICS_H

#include "conf/base/side.h"
#include "conf/base/strbuf.h"
#include "proxy/proxy.h"
#include "replication/replication.h"

#include <stdint.h>

enum { METRICS_PHASE_SIZE = 32, METRICS_REASON_SIZE = 256 };

/* How flips ended, the label `result`. */
#define METRICS_RESULT_MAP(X)                                                                                \
    X(METRICS_RESULT_DONE, "done")                                                                           \
    X(METRICS_RESULT_REFUSED, "refused")                                                                     \
    X(METRICS_RESULT_ABORTED, "aborted")                                                                     \
    X(METRICS_RESULT_FLIPPED_BACK, "flipped_back")                                                           \
    X(METRICS_RESULT_INCONCLUSIVE, "inconclusive")

enum metrics_result {
#define X(name, text) name,
    METRICS_RESULT_MAP(X)
#undef X
        METRICS_RESULT_COUNT
};

struct metrics {
    bool has_active; /* false: nobody serves (undecided, or not started yet) */
    enum side active;
    uint64_t epoch;
    char phase[METRICS_PHASE_SIZE]; /* "steady", "watch", or of the running flip */
    bool held;                      /* the gate is closed, by whomever */
    bool way_back_open;
    bool promise;                 /* what is acknowledged is on the other side, too */
    int64_t way_back_estimate_us; /* negative: unknown */
    int64_t stall_us;             /* of the last flip, the client that waited longest; negative: none yet */
    int64_t stall_p50_us, stall_p99_us;
    uint64_t flips[METRICS_RESULT_COUNT];
    uint64_t gates_pass, gates_fail, gates_inconclusive;
    /* readiness: the active side is reachable */
    bool ready;
    char unready_reason[METRICS_REASON_SIZE];

    struct proxy_stats proxy;
    struct replication_sample replication;
    int64_t started_wall_us; /* of the daemon */
};

void metrics_print(const struct metrics *metrics, struct strbuf *text);

#endif
