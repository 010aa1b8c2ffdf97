#include "conf/base/compiler.h"
#include "conf/settings/table.h"

#define SECOND INT64_C(1000000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

enum { NAME_LIMIT = 63, TEXT_LIMIT = 1023, COMMAND_LIMIT = 256 };

static const char *const when_words[] = {"preflight", "watch", NULL}; /* bits: GATE_WHEN_* */

#define GATE(member)                                                                                         \
    .offset = offsetof(struct gate_draft, member), .size = sizeof(((struct gate_draft *)0)->member)

static const struct setting gate_rows[GATE_FIELD_COUNT] = {
    [GATE_FIELD_NAME] = {.name = "name",
                         .type = SETTING_STRING,
                         .required = true,
                         .least = 1,
                         .most = NAME_LIMIT,
                         GATE(gate.name),
                         .doc = "letters, digits, _ - and ."},
    [GATE_FIELD_METRIC] = {.name = "metric",
                           .type = SETTING_STRING,
                           .most = NAME_LIMIT,
                           GATE(metric),
                           .doc = "what the proxy or the clusters measure; or sql, or command"},
    [GATE_FIELD_SQL] = {.name = "sql",
                        .type = SETTING_TEXT,
                        .most = 65535,
                        GATE(gate.sql),
                        .doc = "a query, run on the active side as the manager, read only"},
    [GATE_FIELD_COMMAND] = {.name = "command",
                            .type = SETTING_LIST,
                            .most = COMMAND_LIMIT,
                            GATE(gate.command),
                            .doc = "a program and its arguments; it passes with 0"},
    [GATE_FIELD_MAX] = {.name = "max",
                        .type = SETTING_STRING,
                        .most = NAME_LIMIT,
                        GATE(max),
                        .doc = "error_rate: ratio or percent; latency: duration; lag: duration or size"},
    [GATE_FIELD_MAX_INCREASE] = {.name = "max_increase",
                                 .type = SETTING_PERCENT,
                                 .least = 0,
                                 .most = 100000,
                                 GATE(gate.max_increase),
                                 .doc = "against the source's last 5 minutes before the hold"},
    [GATE_FIELD_EXPECT] = {.name = "expect",
                           .type = SETTING_STRING,
                           .fallback = "t",
                           .most = TEXT_LIMIT,
                           GATE(gate.expect),
                           .doc = "the first column of the first row, as text"},
    [GATE_FIELD_DATABASE] = {.name = "database",
                             .type = SETTING_STRING,
                             .fallback = "",
                             .most = NAME_LIMIT,
                             GATE(gate.database),
                             .doc = "where sql runs; default: the first managed one"},
    [GATE_FIELD_INTERVAL] = {.name = "interval",
                             .type = SETTING_DURATION,
                             .fallback = "1s",
                             .least = SECOND / 10,
                             .most = HOUR,
                             GATE(gate.interval_us),
                             .doc = "between two judgements"},
    [GATE_FIELD_TIMEOUT] = {.name = "timeout",
                            .type = SETTING_DURATION,
                            .fallback = "2s",
                            .least = SECOND / 100,
                            .most = 10 * MINUTE,
                            GATE(gate.timeout_us),
                            .doc = "of sql and command; past it a judgement is inconclusive"},
    [GATE_FIELD_GRACE] = {.name = "grace",
                          .type = SETTING_DURATION,
                          .fallback = "0s",
                          .least = 0,
                          .most = 24 * HOUR,
                          GATE(gate.grace_us),
                          .doc = "after release, before the first"},
    [GATE_FIELD_FAILURES] = {.name = "failures",
                             .type = SETTING_INTEGER,
                             .fallback = "3",
                             .least = 1,
                             .most = 1000,
                             GATE(gate.failures),
                             .doc = "in a row fail the gate"},
    [GATE_FIELD_MIN_SAMPLES] = {.name = "min_samples",
                                .type = SETTING_INTEGER,
                                .fallback = "50",
                                .least = 1,
                                .most = 1000000000,
                                GATE(gate.min_samples),
                                .doc = "statements in an interval below which it is not judged"},
    [GATE_FIELD_WHEN] = {.name = "when",
                         .type = SETTING_WORDS,
                         .fallback = "watch",
                         .words = when_words,
                         GATE(gate.when),
                         .doc = "preflight, watch or both"},
};

const struct setting *gate_table(size_t *count)
{
    *count = ARRAY_LENGTH(gate_rows);
    return gate_rows;
}
