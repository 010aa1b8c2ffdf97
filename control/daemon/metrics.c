#include "control/daemon/metrics.h"

#include "conf/base/version.h"

#include <inttypes.h>

/* The proxy counts in eight buckets for each power of two; one of them is enough for a scrape. */
enum { BUCKETS_PER_POWER = 8 };

static const char *const result_names[] = {
#define X(name, text) text,
    METRICS_RESULT_MAP(X)
#undef X
};

/* --- the format */

static void head(struct strbuf *text, const char *name, const char *type, const char *help)
{
    strbuf_printf(text, "# HELP switchback_%s %s\n# TYPE switchback_%s %s\n", name, help, name, type);
}

static void put_count(struct strbuf *text, const char *name, uint64_t value)
{
    strbuf_printf(text, "switchback_%s %" PRIu64 "\n", name, value);
}

static void put_seconds(struct strbuf *text, const char *name, int64_t us)
{
    strbuf_printf(text, "switchback_%s %.6f\n", name, (double)us / 1e6);
}

static void counter(struct strbuf *text, const char *name, const char *help, uint64_t value)
{
    head(text, name, "counter", help);
    put_count(text, name, value);
}

static void gauge(struct strbuf *text, const char *name, const char *help, uint64_t value)
{
    head(text, name, "gauge", help);
    put_count(text, name, value);
}

/* What isn't known is left out: a scraper sees a gap, not a number that nobody measured. */
static void gauge_seconds(struct strbuf *text, const char *name, const char *help, int64_t us)
{
    if (us >= 0) {
        head(text, name, "gauge", help);
        put_seconds(text, name, us);
    }
}

static void put_label(struct strbuf *text, const char *label)
{
    for (const char *c = label; *c != '\0'; c++) {
        if (*c == '\\' || *c == '"') {
            strbuf_printf(text, "\\%c", *c);
        } else if (*c == '\n') {
            strbuf_puts(text, "\\n");
        } else {
            strbuf_append(text, c, 1);
        }
    }
}

static void put_side(struct strbuf *text, const char *name, enum side side, uint64_t value)
{
    strbuf_printf(text, "switchback_%s{side=\"%s\"} %" PRIu64 "\n", name, side_name(side), value);
}

static void put_labelled(struct strbuf *text, const char *name, const char *label, const char *value,
                         uint64_t count)
{
    strbuf_printf(text, "switchback_%s{%s=\"%s\"} %" PRIu64 "\n", name, label, value, count);
}

/* --- groups */

static void print_daemon(const struct metrics *metrics, struct strbuf *text)
{
    head(text, "build_info", "gauge", "Which build runs.");
    strbuf_puts(text, "switchback_build_info{version=\"");
    put_label(text, version_number());
    strbuf_puts(text, "\",build=\"");
    put_label(text, version_build());
    strbuf_puts(text, "\"} 1\n");
    head(text, "start_time_seconds", "gauge", "When the daemon started, in seconds since the epoch.");
    strbuf_printf(text, "switchback_start_time_seconds %.3f\n", (double)metrics->started_wall_us / 1e6);
}

static void print_flip(const struct metrics *metrics, struct strbuf *text)
{
    head(text, "active", "gauge", "1 for the side that takes traffic.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        put_side(text, "active", side, metrics->has_active && metrics->active == side);
    }
    gauge(text, "epoch", "Grows with each change of the active side.", metrics->epoch);
    head(text, "phase", "gauge", "1 for the phase: steady, watch, or that of the running flip.");
    strbuf_puts(text, "switchback_phase{phase=\"");
    put_label(text, metrics->phase);
    strbuf_puts(text, "\"} 1\n");
    gauge(text, "held", "1 while clients wait at their boundary.", metrics->held);
    gauge(text, "way_back_open", "1 while a flip-back is possible without loss.", metrics->way_back_open);
    gauge(text, "lossless", "1 while each commit is on the other side before its client hears of it.",
          metrics->promise);
    gauge_seconds(text, "way_back_seconds", "Estimated pause of going back.", metrics->way_back_estimate_us);
    if (metrics->stall_us >= 0) {
        head(text, "stall_seconds", "gauge",
             "How long the last flip kept clients waiting; quantile 1 is the longest.");
        put_seconds(text, "stall_seconds{quantile=\"0.5\"}", metrics->stall_p50_us);
        put_seconds(text, "stall_seconds{quantile=\"0.99\"}", metrics->stall_p99_us);
        put_seconds(text, "stall_seconds{quantile=\"1\"}", metrics->stall_us);
    }
    head(text, "flips_total", "counter", "Flips by their result.");
    for (size_t i = 0; i < METRICS_RESULT_COUNT; i++) {
        strbuf_printf(text, "switchback_flips_total{result=\"%s\"} %" PRIu64 "\n", result_names[i],
                      metrics->flips[i]);
    }
    head(text, "gates", "gauge", "Gates by their state.");
    strbuf_printf(text,
                  "switchback_gates{state=\"pass\"} %" PRIu64 "\nswitchback_gates{state=\"fail\"} %" PRIu64
                  "\nswitchback_gates{state=\"inconclusive\"} %" PRIu64 "\n",
                  metrics->gates_pass, metrics->gates_fail, metrics->gates_inconclusive);
}

static void print_sessions(const struct proxy_stats *stats, struct strbuf *text)
{
    gauge(text, "sessions", "Client connections.", stats->sessions);
    gauge(text, "sessions_held", "Sessions at their boundary under a hold.", stats->sessions_held);
    gauge(text, "sessions_waiting", "Held sessions whose client has sent something.",
          stats->sessions_waiting);
    gauge(text, "sessions_in_transaction", "Sessions in a transaction.", stats->sessions_in_transaction);
    gauge(text, "sessions_immovable", "Sessions that a flip could not move.", stats->sessions_immovable);
    gauge_seconds(text, "oldest_wait_seconds", "For how long the client that waits longest has been held.",
                  stats->oldest_wait_us);
    counter(text, "sessions_opened_total", "Client connections accepted.", stats->sessions_total);
    head(text, "sessions_refused_total", "counter", "Client connections refused, by reason.");
    for (enum proxy_refusal i = 0; i < PROXY_REFUSAL_COUNT; i++) {
        put_labelled(text, "sessions_refused_total", "reason", proxy_refusal_name(i), stats->refused[i]);
    }
    head(text, "timeouts_total", "counter", "What lasted too long, by the setting that ended it.");
    for (enum proxy_timeout i = 0; i < PROXY_TIMEOUT_COUNT; i++) {
        put_labelled(text, "timeouts_total", "timeout", proxy_timeout_name(i), stats->timeouts[i]);
    }
    head(text, "commits_in_doubt_total", "counter", "Commits whose server went, by what became of them.");
    for (enum proxy_outcome i = 0; i < PROXY_OUTCOME_COUNT; i++) {
        put_labelled(text, "commits_in_doubt_total", "outcome", proxy_outcome_name(i), stats->doubts[i]);
    }
    counter(text, "commits_unconfirmed_total",
            "Commits whose wait for the other side was cancelled, which acknowledges them.",
            stats->unconfirmed_commits);
    gauge(text, "sessions_unsynchronous", "Sessions that asked for commits which wait for nobody.",
          stats->sessions_unsync);
    counter(text, "commits_unsynchronous_total", "What was committed in such sessions, reading included.",
            stats->unsync_commits);
    counter(text, "logins_failed_total", "Logins that failed.", stats->logins_failed);
    counter(text, "cancels_total", "Cancel requests.", stats->cancels);
}

static void print_latency(const struct proxy_side_stats *stats, enum side side, struct strbuf *text)
{
    uint64_t count = 0;
    for (size_t bucket = 0; bucket < PROXY_LATENCY_BUCKETS; bucket++) {
        count += stats->latency[bucket];
        bool last = bucket + 1 == PROXY_LATENCY_BUCKETS;
        if (bucket % BUCKETS_PER_POWER == BUCKETS_PER_POWER - 1 && !last) {
            strbuf_printf(text, "switchback_statement_seconds_bucket{side=\"%s\",le=\"%.6g\"} %" PRIu64 "\n",
                          side_name(side), (double)proxy_latency_bucket_us(bucket) / 1e6, count);
        }
    }
    strbuf_printf(text, "switchback_statement_seconds_bucket{side=\"%s\",le=\"+Inf\"} %" PRIu64 "\n",
                  side_name(side), count);
    strbuf_printf(text, "switchback_statement_seconds_sum{side=\"%s\"} %.6f\n", side_name(side),
                  (double)stats->latency_sum_us / 1e6);
    put_side(text, "statement_seconds_count", side, count);
}

static void print_errors(const struct proxy_side_stats *stats, enum side side, struct strbuf *text)
{
    for (size_t i = 0; i < PROXY_ERROR_CLASSES; i++) {
        const char *class = i == 0 ? "other" : proxy_error_class(i);
        if (class[0] != '\0' && stats->errors_by_class[i] > 0) {
            strbuf_printf(text, "switchback_errors_total{side=\"%s\",class=\"%s\"} %" PRIu64 "\n",
                          side_name(side), class, stats->errors_by_class[i]);
        }
    }
}

static void print_traffic(const struct proxy_stats *stats, struct strbuf *text)
{
    head(text, "statements_total", "counter", "Requests that a side has answered.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        put_side(text, "statements_total", side, stats->sides[side].statements);
    }
    head(text, "errors_total", "counter", "Statements that ended in an error, by the class of its SQLSTATE.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        print_errors(&stats->sides[side], side, text);
    }
    head(text, "server_connect_failures_total", "counter", "Logins that did not reach their server.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        put_side(text, "server_connect_failures_total", side, stats->connect_failures[side]);
    }
    head(text, "server_down", "gauge", "1 while logins are refused at once, as the side does not answer.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        put_side(text, "server_down", side, stats->side_down[side]);
    }
    head(text, "statement_seconds", "histogram", "From a request to its last answer, as the proxy saw it.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        print_latency(&stats->sides[side], side, text);
    }
    head(text, "bytes_total", "counter", "Bytes of clients and servers that were passed on.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        strbuf_printf(text,
                      "switchback_bytes_total{side=\"%s\",direction=\"to_server\"} %" PRIu64
                      "\nswitchback_bytes_total{side=\"%s\",direction=\"to_client\"} %" PRIu64 "\n",
                      side_name(side), stats->sides[side].bytes_to_server, side_name(side),
                      stats->sides[side].bytes_to_client);
    }
}

static void print_replication(const struct replication_sample *sample, struct strbuf *text)
{
    head(text, "side_reachable", "gauge", "1 while the manager reaches the side.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        put_side(text, "side_reachable", side, sample->sides[side].reachable);
    }
    head(text, "side_fenced", "gauge", "1 while the side refuses application writes.");
    for (enum side side = SIDE_BLUE; side < SIDE_COUNT; side++) {
        put_side(text, "side_fenced", side, sample->sides[side].fenced);
    }
    if (sample->taken_us == 0) {
        return;
    }
    gauge(text, "replication_streaming", "1 while every database of the standby streams.", sample->streaming);
    gauge(text, "replication_broken", "1 while an apply worker fails again and again.", sample->broken);
    gauge_seconds(text, "lag_seconds", "Age of the oldest marker that the standby has not seen.",
                  sample->lag_us);
    if (sample->lag_bytes >= 0) {
        gauge(text, "lag_bytes", "What the standby has still to replay.", (uint64_t)sample->lag_bytes);
    }
    gauge_seconds(text, "marker_age_seconds", "Since the standby saw the newest marker.",
                  sample->marker_age_us);
    gauge(text, "commits_at_risk", "Estimated commits that the standby has not seen.",
          sample->commits_at_risk);
    gauge(text, "slot_endangered", "1 while the way back's slot is close to being lost.",
          sample->slot_endangered || sample->slot_lost);
}

void metrics_print(const struct metrics *metrics, struct strbuf *text)
{
    print_daemon(metrics, text);
    print_flip(metrics, text);
    print_sessions(&metrics->proxy, text);
    print_traffic(&metrics->proxy, text);
    print_replication(&metrics->replication, text);
}
