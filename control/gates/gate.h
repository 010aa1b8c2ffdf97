/*
 * Judges gates: pass, fail, or inconclusive, with the figures and the reason in words. Pure: the controller
 * gathers what a gate looks at (the proxy's counters, the replication sample, a query's or command's answer)
 * and hands it in when the gate is due; the judgement comes back. design.md section 5 is the contract.
 */
#ifndef SWITCHBACK_CONTROL_GATES_GATE_H
#define SWITCHBACK_CONTROL_GATES_GATE_H

#include "conf/base/error.h"
#include "conf/base/side.h"
#include "conf/settings/settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GATE_BUCKETS = 160, GATE_VALUE_SIZE = 64, GATE_REASON_SIZE = 320 };

/* The traffic of one side: counters that only grow, or the difference of two such. Bucket b of the histogram
 * counts latencies below bounds_us[b] and not below the bound before. */
struct gate_traffic {
    uint64_t statements, errors;
    uint64_t latency[GATE_BUCKETS];
};

/* later - earlier; earlier NULL is "since the beginning". */
void gate_traffic_since(const struct gate_traffic *later, const struct gate_traffic *earlier,
                        struct gate_traffic *difference);
/* The latency below which `share` (0 .. 1) of the statements stayed, interpolated in its bucket; 0 if there
 * were none. */
int64_t gate_percentile_us(const struct gate_traffic *traffic, const int64_t bounds_us[GATE_BUCKETS],
                           double share);

enum gate_state {
    GATE_WAITING,     /* not judged yet: within its grace, or too few samples so far */
    GATE_PASS,        /* the last judgement */
    GATE_FAIL,        /* the last judgement; gate->failed: often enough in a row */
    GATE_INCONCLUSIVE /* its own error: it says nothing about the side */
};

/* What the last judgement changed. */
enum gate_news {
    GATE_NO_NEWS,
    GATE_HAS_FAILED,    /* `failures` in a row: act */
    GATE_HAS_RECOVERED, /* it had failed, and passes again */
    GATE_CANT_JUDGE     /* its own errors reached their limit: an alarm, nothing more */
};

enum { GATE_ERRORS_LIMIT = 5 }; /* of the gate itself, in a row */

struct gate {
    const struct settings_gate *settings; /* borrowed */
    enum gate_state state;
    bool failed;
    unsigned failures, errors; /* in a row */
    uint64_t judged;
    int64_t next_us;            /* when it is due; INT64_MAX while an answer is awaited */
    struct gate_traffic window; /* counters where the current window began */
    bool window_set;
    char value[GATE_VALUE_SIZE];   /* "12.4 ms", "0.3%", "t" */
    char reason[GATE_REASON_SIZE]; /* in words; "" before the first judgement */
};

/* Starts anew: the first judgement comes after the grace. */
void gate_start(struct gate *gate, const struct settings_gate *settings, int64_t now_us);
bool gate_is_traffic(const struct settings_gate *settings);
bool gate_is_replication(const struct settings_gate *settings);
const char *gate_state_name(enum gate_state state);

/*
 * The judgements; each moves next_us on. `baseline`: the other side's traffic before the hold, NULL if none
 * is known (max_increase is inconclusive then); `side` and `other` are for the words.
 */
struct gate_sides {
    const char *side, *other;
};
enum gate_news gate_judge_traffic(struct gate *gate, int64_t now_us, const struct gate_traffic *counters,
                                  const struct gate_traffic *baseline, const int64_t bounds_us[GATE_BUCKETS],
                                  struct gate_sides sides);

struct gate_replication {
    int64_t lag_us, lag_bytes; /* -1: unknown */
    bool known, broken;
    const char *problem; /* why it is broken, or unknown; "" */
};
enum gate_news gate_judge_replication(struct gate *gate, int64_t now_us,
                                      const struct gate_replication *replication);

/* The answer of a query: its first value (NULL: SQL NULL or no row), or what went wrong with asking. */
enum gate_news gate_judge_value(struct gate *gate, int64_t now_us, const char *value,
                                const struct error *error);
/* The answer of a command: whether it exited with 0, in words; `started` false: it could not run. */
enum gate_news gate_judge_command(struct gate *gate, int64_t now_us, bool ok, bool started,
                                  const char *words);

#endif
