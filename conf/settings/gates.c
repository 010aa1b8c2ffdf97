#include "conf/settings/gates.h"

#include "conf/settings/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GATES_LIMIT = 64, PREFIX_SIZE = 80 };

#define BIT(field)   (1U << GATE_FIELD_##field)
#define EVERY_GATE   (BIT(NAME) | BIT(INTERVAL) | BIT(GRACE) | BIT(FAILURES) | BIT(WHEN))
#define TRAFFIC_GATE (EVERY_GATE | BIT(METRIC) | BIT(MAX) | BIT(MAX_INCREASE) | BIT(MIN_SAMPLES))

/* What a number of `max` is. */
enum limit { LIMIT_NONE, LIMIT_RATIO, LIMIT_DURATION, LIMIT_DURATION_OR_SIZE };

static const struct form {
    const char *metric; /* NULL: told by its field */
    unsigned fields;
    enum limit limit;
} forms[] = {
    [GATE_ERROR_RATE] = {"error_rate", TRAFFIC_GATE, LIMIT_RATIO},
    [GATE_LATENCY_P50] = {"latency_p50", TRAFFIC_GATE, LIMIT_DURATION},
    [GATE_LATENCY_P95] = {"latency_p95", TRAFFIC_GATE, LIMIT_DURATION},
    [GATE_LATENCY_P99] = {"latency_p99", TRAFFIC_GATE, LIMIT_DURATION},
    [GATE_REPLICATION_LAG] = {"replication_lag", EVERY_GATE | BIT(METRIC) | BIT(MAX), LIMIT_DURATION_OR_SIZE},
    [GATE_REPLICATION_BROKEN] = {"replication_broken", EVERY_GATE | BIT(METRIC), LIMIT_NONE},
    [GATE_SQL] = {NULL, EVERY_GATE | BIT(SQL) | BIT(EXPECT) | BIT(DATABASE) | BIT(TIMEOUT), LIMIT_NONE},
    [GATE_COMMAND] = {NULL, EVERY_GATE | BIT(COMMAND) | BIT(TIMEOUT), LIMIT_NONE},
};

const char *gates_metric(enum gate_kind kind)
{
    return forms[kind].metric;
}

bool gates_has_field(enum gate_kind kind, enum gate_field field)
{
    return (forms[kind].fields & (1U << field)) != 0;
}

char *gates_format_max(const struct settings_gate *gate, char text[UNIT_TEXT_SIZE])
{
    text[0] = '\0';
    if (!gate->has_max) {
        return text;
    }
    if (forms[gate->kind].limit == LIMIT_RATIO) {
        return unit_format_ratio(gate->max_ratio, text);
    }
    return gate->max_is_bytes ? unit_format_size(gate->max_bytes, text)
                              : unit_format_duration(gate->max_us, text);
}

static int line_of(const struct walk *walk, enum gate_field field, int otherwise)
{
    return walk->nodes[field] == NULL ? otherwise : walk->nodes[field]->line;
}

static bool find_metric(const struct walk *walk, struct gate_draft *draft)
{
    const char *names[ARRAY_LENGTH(forms)];
    size_t count = 0;
    for (size_t kind = 0; kind < ARRAY_LENGTH(forms); kind++) {
        if (forms[kind].metric == NULL) {
            continue;
        }
        if (strcmp(forms[kind].metric, draft->metric) == 0) {
            draft->gate.kind = (enum gate_kind)kind;
            return true;
        }
        names[count++] = forms[kind].metric;
    }
    (void)walk_complain(walk, line_of(walk, GATE_FIELD_METRIC, 0), "metric",
                        "expected error_rate | latency_p50 | latency_p95 | latency_p99 | replication_lag | "
                        "replication_broken, found \"%.60s\"",
                        draft->metric);
    const char *nearest = nearest_word(draft->metric, names, count);
    if (nearest != NULL) {
        (void)error_remedy(walk->error, "did you mean %s?", nearest);
    }
    return false;
}

static bool find_kind(const struct walk *walk, struct gate_draft *draft, int line)
{
    int told = (walk->nodes[GATE_FIELD_METRIC] != NULL) + (walk->nodes[GATE_FIELD_SQL] != NULL) +
               (walk->nodes[GATE_FIELD_COMMAND] != NULL);
    if (told != 1) {
        return walk_complain(walk, line, "metric", "expected one of metric, sql and command, found %s",
                             told == 0 ? "none" : "more");
    }
    if (walk->nodes[GATE_FIELD_METRIC] != NULL) {
        return find_metric(walk, draft);
    }
    draft->gate.kind = walk->nodes[GATE_FIELD_SQL] != NULL ? GATE_SQL : GATE_COMMAND;
    return true;
}

static bool check_fields(const struct walk *walk, const struct gate_draft *draft)
{
    const struct form *form = &forms[draft->gate.kind];
    for (size_t field = 0; field < walk->count; field++) {
        if (walk->nodes[field] == NULL || (form->fields & (1U << field)) != 0) {
            continue;
        }
        (void)walk_complain(walk, walk->nodes[field]->line, walk->rows[field].name,
                            "does not fit a gate of %s%s", form->metric == NULL ? "" : "metric ",
                            form->metric != NULL           ? form->metric
                            : draft->gate.kind == GATE_SQL ? "sql"
                                                           : "command");
        return error_remedy(walk->error, "leave it out");
    }
    return true;
}

static bool complain_max(const struct walk *walk, const struct gate_draft *draft, const char *expected,
                         enum unit_result result)
{
    return walk_complain(walk, line_of(walk, GATE_FIELD_MAX, 0), "max", "expected %s, found \"%.60s\"%s",
                         expected, draft->max, unit_explain(result));
}

static bool read_max(const struct walk *walk, struct gate_draft *draft)
{
    struct settings_gate *gate = &draft->gate;
    enum limit limit = forms[gate->kind].limit;
    enum unit_result result;
    if (limit == LIMIT_RATIO) {
        bool percent = strchr(draft->max, '%') != NULL;
        result = percent ? unit_parse_percent(draft->max, &gate->max_ratio)
                         : unit_parse_ratio(draft->max, &gate->max_ratio);
        if (result != UNIT_OK || gate->max_ratio > 1) {
            return complain_max(walk, draft, "a ratio from 0 to 1 or a percentage such as 1%", result);
        }
        return true;
    }
    result = unit_parse_duration(draft->max, &gate->max_us);
    if (result == UNIT_UNKNOWN && limit == LIMIT_DURATION_OR_SIZE) {
        result = unit_parse_size(draft->max, &gate->max_bytes);
        gate->max_is_bytes = result == UNIT_OK;
    }
    if (result != UNIT_OK) {
        return complain_max(walk, draft,
                            limit == LIMIT_DURATION
                                ? "a duration such as 50ms (units us ms s m h)"
                                : "a duration (us ms s m h) or a size (B kB KiB MB MiB GB GiB)",
                            result);
    }
    return true;
}

static bool check_name(const struct walk *walk, const struct gate_draft *draft)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    if (draft->gate.name[strspn(draft->gate.name, allowed)] == '\0') {
        return true;
    }
    return walk_complain(walk, line_of(walk, GATE_FIELD_NAME, 0), "name",
                         "expected letters, digits, _ - and . only, found \"%s\"", draft->gate.name);
}

/* From fields to a gate: which kind it is, whether its fields fit, what its limits are. */
static bool settle(const struct walk *walk, struct gate_draft *draft, int line)
{
    struct settings_gate *gate = &draft->gate;
    if (!check_name(walk, draft) || !find_kind(walk, draft, line) || !check_fields(walk, draft)) {
        return false;
    }
    gate->has_max = walk->nodes[GATE_FIELD_MAX] != NULL;
    gate->has_max_increase = walk->nodes[GATE_FIELD_MAX_INCREASE] != NULL;
    if (gate->has_max && !read_max(walk, draft)) {
        return false;
    }
    if (forms[gate->kind].limit != LIMIT_NONE && !gate->has_max && !gate->has_max_increase) {
        return walk_complain(walk, line, "max", "expected a limit: max%s",
                             gates_has_field(gate->kind, GATE_FIELD_MAX_INCREASE) ? " or max_increase" : "");
    }
    if (gate->has_max_increase && (gate->when & GATE_WHEN_PREFLIGHT) != 0) {
        return walk_complain(walk, line_of(walk, GATE_FIELD_WHEN, line), "when",
                             "expected [ watch ]: max_increase compares with the other side before the flip");
    }
    if (gate->kind == GATE_COMMAND && (gate->command.count == 0 || gate->command.items[0][0] == '\0')) {
        return walk_complain(walk, line, "command", "expected a program and its arguments");
    }
    if (gate->kind == GATE_SQL && gate->sql[0] == '\0') {
        return walk_complain(walk, line, "sql", "expected a query, found an empty text");
    }
    return true;
}

/* Reads one gate; what the draft owns beyond the gate itself is freed. */
static bool read_gate(const struct walk *outer, const struct tree_node *node, size_t index,
                      struct settings_gate *gate)
{
    char prefix[PREFIX_SIZE];
    const struct tree_node *name = tree_child(node, "name");
    if (name != NULL && name->kind == TREE_SCALAR && name->text[0] != '\0') {
        (void)snprintf(prefix, sizeof prefix, "gates.%.63s.", name->text);
    } else {
        (void)snprintf(prefix, sizeof prefix, "gates[%zu].", index + 1);
    }
    struct gate_draft draft = {.max = NULL};
    const struct tree_node *nodes[GATE_FIELD_COUNT] = {NULL};
    struct walk walk = *outer;
    walk.prefix = prefix;
    walk.line = node->line;
    walk.rows = gate_table(&walk.count);
    walk.nodes = nodes;
    walk.target = &draft;
    bool ok = walk_fill(&walk, node) && walk_defaults(&walk) && settle(&walk, &draft, node->line);
    free(draft.metric);
    free(draft.max);
    *gate = draft.gate; /* of a gate that failed too: settings_free frees what it has */
    return ok;
}

static bool has_gate(const struct settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->gate_count; i++) {
        if (settings->gates[i].name != NULL && strcmp(settings->gates[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool append_gate(const struct walk *outer, const struct tree_node *node, struct settings *settings)
{
    struct settings_gate gate;
    bool ok = read_gate(outer, node, settings->gate_count, &gate);
    if (ok && has_gate(settings, gate.name)) {
        ok = walk_complain(outer, node->line, "gates", "two gates are named \"%s\"", gate.name);
    }
    settings->gates[settings->gate_count++] = gate;
    return ok;
}

/* What stands unless the user defines a gate of this name; read like the user's own. */
static bool append_default(const struct walk *outer, struct settings *settings)
{
    static const char text[] =
        "{ name: lag, metric: replication_lag, max: 0s, failures: 5, interval: 1s, grace: 5s }";
    if (has_gate(settings, "lag")) {
        return true;
    }
    struct tree_node *node = tree_parse("default gate", text, sizeof text - 1, outer->error);
    if (node == NULL) {
        return false;
    }
    bool ok = append_gate(outer, node, settings);
    tree_free(node);
    return ok;
}

bool gates_load(const struct walk *outer, const struct tree_node *list, struct settings *settings)
{
    settings->gates = calloc(GATES_LIMIT + 1, sizeof *settings->gates);
    if (settings->gates == NULL) {
        return error_set(outer->error, ERROR_MEMORY, "%s: out of memory", outer->file);
    }
    if (list != NULL && list->kind != TREE_LIST && !tree_is_null(list)) {
        return walk_complain(outer, list->line, "gates", "expected a list of gates");
    }
    for (const struct tree_node *node = list == NULL ? NULL : list->first; node != NULL; node = node->next) {
        if (node->kind != TREE_MAP) {
            return walk_complain(outer, node->line, "gates",
                                 "expected { name: ..., metric: ... } for each gate");
        }
        if (settings->gate_count == GATES_LIMIT) {
            return walk_complain(outer, node->line, "gates", "expected at most %d gates", GATES_LIMIT);
        }
        if (!append_gate(outer, node, settings)) {
            return false;
        }
    }
    return append_default(outer, settings);
}
