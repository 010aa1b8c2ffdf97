#include "control/gates/gate.h"

#include "conf/base/clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void gate_start(struct gate *gate, const struct settings_gate *settings, int64_t now_us)
{
    memset(gate, 0, sizeof *gate);
    gate->settings = settings;
    gate->next_us = now_us + settings->grace_us;
    if (settings->grace_us == 0) {
        gate->next_us += settings->interval_us; /* something must have happened first */
    }
}

bool gate_is_traffic(const struct settings_gate *settings)
{
    return settings->kind == GATE_ERROR_RATE || settings->kind == GATE_LATENCY_P50 ||
           settings->kind == GATE_LATENCY_P95 || settings->kind == GATE_LATENCY_P99;
}

bool gate_is_replication(const struct settings_gate *settings)
{
    return settings->kind == GATE_REPLICATION_LAG || settings->kind == GATE_REPLICATION_BROKEN;
}

const char *gate_state_name(enum gate_state state)
{
    switch (state) {
    case GATE_WAITING:
        return "waiting";
    case GATE_PASS:
        return "pass";
    case GATE_FAIL:
        return "fail";
    case GATE_INCONCLUSIVE:
        return "inconclusive";
    }
    return "waiting";
}

/* --- what a judgement does --- */

static void say(struct gate *gate, const char *format, ...) PRINTF_LIKE(2, 3);

static void say(struct gate *gate, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(gate->reason, sizeof gate->reason, format, arguments);
    va_end(arguments);
}

static enum gate_news judge(struct gate *gate, int64_t now_us, bool pass)
{
    gate->judged++;
    gate->errors = 0;
    gate->next_us = now_us + gate->settings->interval_us;
    if (pass) {
        const bool recovered = gate->failed;
        gate->state = GATE_PASS;
        gate->failed = false;
        gate->failures = 0;
        return recovered ? GATE_HAS_RECOVERED : GATE_NO_NEWS;
    }
    gate->state = GATE_FAIL;
    gate->failures++;
    if (!gate->failed && gate->failures >= (uint64_t)gate->settings->failures) {
        gate->failed = true;
        return GATE_HAS_FAILED;
    }
    return GATE_NO_NEWS;
}

/* The gate itself went wrong: that is no failure of the side, and no success either. */
static enum gate_news own_error(struct gate *gate, int64_t now_us)
{
    gate->judged++;
    gate->state = GATE_INCONCLUSIVE;
    gate->next_us = now_us + gate->settings->interval_us;
    return ++gate->errors == GATE_ERRORS_LIMIT ? GATE_CANT_JUDGE : GATE_NO_NEWS;
}

/* Goes on collecting: neither passed nor failed, nor wrong. */
static enum gate_news collect(struct gate *gate, int64_t now_us)
{
    gate->next_us = now_us + gate->settings->interval_us;
    if (gate->judged == 0) {
        gate->state = GATE_WAITING;
    }
    return GATE_NO_NEWS;
}

/* --- traffic --- */

static double share_of(enum gate_kind kind)
{
    return kind == GATE_LATENCY_P50 ? 0.5 : kind == GATE_LATENCY_P95 ? 0.95 : 0.99;
}

static const char *name_of(enum gate_kind kind)
{
    return kind == GATE_LATENCY_P50 ? "p50" : kind == GATE_LATENCY_P95 ? "p95" : "p99";
}

static enum gate_news judge_errors(struct gate *gate, int64_t now_us, const struct gate_traffic *traffic,
                                   const struct gate_traffic *baseline, struct gate_sides sides)
{
    const struct settings_gate *settings = gate->settings;
    const double rate = (double)traffic->errors / (double)traffic->statements;
    (void)snprintf(gate->value, sizeof gate->value, "%.2f%%", rate * 100);
    if (settings->has_max && rate > settings->max_ratio) {
        say(gate, "%" PRIu64 " of %" PRIu64 " statements on %s failed (%.2f%%), more than %.2f%%",
            traffic->errors, traffic->statements, sides.side, rate * 100, settings->max_ratio * 100);
        return judge(gate, now_us, false);
    }
    if (settings->has_max_increase) {
        const double before = (double)baseline->errors / (double)baseline->statements;
        if (rate > before * (1 + settings->max_increase)) {
            say(gate,
                "%.2f%% of %" PRIu64 " statements on %s failed, on %s %.2f%% before: more than %.0f%% worse",
                rate * 100, traffic->statements, sides.side, sides.other, before * 100,
                settings->max_increase * 100);
            return judge(gate, now_us, false);
        }
    }
    say(gate, "%" PRIu64 " of %" PRIu64 " statements failed (%.2f%%)", traffic->errors, traffic->statements,
        rate * 100);
    return judge(gate, now_us, true);
}

static enum gate_news judge_latency(struct gate *gate, int64_t now_us, const struct gate_traffic *traffic,
                                    const struct gate_traffic *baseline,
                                    const int64_t bounds_us[GATE_BUCKETS], struct gate_sides sides)
{
    const struct settings_gate *settings = gate->settings;
    const double share = share_of(settings->kind);
    const int64_t latency_us = gate_percentile_us(traffic, bounds_us, share);
    char now_text[CLOCK_TEXT_SIZE], limit_text[CLOCK_TEXT_SIZE];
    const char *name = name_of(settings->kind);
    clock_format_duration(latency_us, now_text);
    (void)snprintf(gate->value, sizeof gate->value, "%s", now_text);
    if (settings->has_max && latency_us > settings->max_us) {
        say(gate, "%s of %" PRIu64 " statements on %s is %s, more than %s", name, traffic->statements,
            sides.side, now_text, clock_format_duration(settings->max_us, limit_text));
        return judge(gate, now_us, false);
    }
    if (settings->has_max_increase) {
        const int64_t before_us = gate_percentile_us(baseline, bounds_us, share);
        if ((double)latency_us > (double)before_us * (1 + settings->max_increase)) {
            say(gate, "%s of %" PRIu64 " statements on %s is %s, on %s it was %s: more than %.0f%% slower",
                name, traffic->statements, sides.side, now_text, sides.other,
                clock_format_duration(before_us, limit_text), settings->max_increase * 100);
            return judge(gate, now_us, false);
        }
    }
    say(gate, "%s of %" PRIu64 " statements is %s", name, traffic->statements, now_text);
    return judge(gate, now_us, true);
}

enum gate_news gate_judge_traffic(struct gate *gate, int64_t now_us, const struct gate_traffic *counters,
                                  const struct gate_traffic *baseline, const int64_t bounds_us[GATE_BUCKETS],
                                  struct gate_sides sides)
{
    const struct settings_gate *settings = gate->settings;
    const uint64_t enough = settings->min_samples > 0 ? (uint64_t)settings->min_samples : 1;
    struct gate_traffic traffic;
    if (!gate->window_set) {
        gate->window = *counters;
        gate->window_set = true;
        return collect(gate, now_us);
    }
    gate_traffic_since(counters, &gate->window, &traffic);
    if (traffic.statements < enough) {
        if (gate->judged == 0) {
            say(gate, "%" PRIu64 " of %" PRIu64 " statements seen so far", traffic.statements, enough);
        }
        return collect(gate, now_us);
    }
    gate->window = *counters;
    if (settings->has_max_increase && (baseline == NULL || baseline->statements < enough)) {
        say(gate, "%s had too little traffic before the hold to compare with", sides.other);
        return own_error(gate, now_us);
    }
    return settings->kind == GATE_ERROR_RATE
               ? judge_errors(gate, now_us, &traffic, baseline, sides)
               : judge_latency(gate, now_us, &traffic, baseline, bounds_us, sides);
}

/* --- replication --- */

static enum gate_news judge_lag_bytes(struct gate *gate, int64_t now_us, int64_t lag_bytes)
{
    (void)snprintf(gate->value, sizeof gate->value, "%" PRId64 " bytes", lag_bytes);
    const bool pass = lag_bytes <= gate->settings->max_bytes;
    say(gate, "the way back lags by %" PRId64 " bytes%s", lag_bytes, pass ? "" : ", more than allowed");
    return judge(gate, now_us, pass);
}

static enum gate_news judge_lag_time(struct gate *gate, int64_t now_us, int64_t lag_us)
{
    char lag_text[CLOCK_TEXT_SIZE], max_text[CLOCK_TEXT_SIZE];
    const bool pass = lag_us <= gate->settings->max_us;
    (void)snprintf(gate->value, sizeof gate->value, "%s", clock_format_duration(lag_us, lag_text));
    say(gate, "the way back lags by %s%s%s", lag_text, pass ? "" : ", more than ",
        pass ? "" : clock_format_duration(gate->settings->max_us, max_text));
    return judge(gate, now_us, pass);
}

enum gate_news gate_judge_replication(struct gate *gate, int64_t now_us,
                                      const struct gate_replication *replication)
{
    const struct settings_gate *settings = gate->settings;
    const int64_t lag = settings->max_is_bytes ? replication->lag_bytes : replication->lag_us;
    if (!replication->known || (settings->kind == GATE_REPLICATION_LAG && lag < 0)) {
        (void)snprintf(gate->value, sizeof gate->value, "unknown");
        say(gate, "replication can't be looked at%s%s", replication->problem[0] != '\0' ? ": " : "",
            replication->problem);
        return own_error(gate, now_us);
    }
    if (settings->kind == GATE_REPLICATION_LAG) {
        return settings->max_is_bytes ? judge_lag_bytes(gate, now_us, lag)
                                      : judge_lag_time(gate, now_us, lag);
    }
    (void)snprintf(gate->value, sizeof gate->value, "%s", replication->broken ? "broken" : "streaming");
    say(gate, "%s", replication->broken ? replication->problem : "the stream runs");
    return judge(gate, now_us, !replication->broken);
}

/* --- query, command --- */

enum gate_news gate_judge_value(struct gate *gate, int64_t now_us, const char *value,
                                const struct error *error)
{
    if (error != NULL) {
        say(gate, "the query could not be asked: %s", error->message);
        return own_error(gate, now_us);
    }
    const char *expected = gate->settings->expect;
    const bool pass = value != NULL && strcmp(value, expected) == 0;
    (void)snprintf(gate->value, sizeof gate->value, "%s", value != NULL ? value : "null");
    if (pass) {
        say(gate, "the query says %s", gate->value);
    } else {
        say(gate, "the query says %s instead of %s", gate->value, expected);
    }
    return judge(gate, now_us, pass);
}

enum gate_news gate_judge_command(struct gate *gate, int64_t now_us, bool ok, bool started, const char *words)
{
    say(gate, "the command %s", words);
    if (!started) {
        return own_error(gate, now_us);
    }
    (void)snprintf(gate->value, sizeof gate->value, "%s", ok ? "ok" : "failed");
    return judge(gate, now_us, ok);
}
