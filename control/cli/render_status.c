/* `switchback status`: what an operator reads at 3 a.m. What is wrong comes first. */
#include "control/cli/field.h"
#include "control/cli/readable.h"
#include "control/cli/render.h"

#include "conf/base/side.h"
#include "control/flip/table.h"

#include <string.h>

enum { VERSION_SIZE = 32 };

static void put_label(struct strbuf *out, const char *label)
{
    strbuf_printf(out, RENDER_LABEL, label);
}

static const json_t *side_of(const json_t *status, const char *name)
{
    return json_object_get(json_object_get(status, "sides"), name);
}

/* "blue" or "green" that is not active; "" while nobody is. */
static const char *standby_of(const json_t *status)
{
    enum side active;
    return side_parse(field_string(status, "active"), &active) ? side_name(side_other(active)) : "";
}

static bool way_back_is_open(const json_t *status)
{
    return field_true(json_object_get(status, "way_back"), "open");
}

static bool is_prepared(const json_t *status)
{
    const json_t *prepared = json_object_get(status, "prepared");
    return prepared == NULL || json_is_true(prepared);
}

bool render_is_past_commit(const char *name)
{
    enum flip_phase phase;
    return flip_phase_parse(name, &phase) && phase != FLIP_PHASE_NONE && flip_table_row(phase)->past_commit;
}

/* --- trouble */

static void put_trouble(struct strbuf *out, const char *message, const char *remedy)
{
    put_label(out, "TROUBLE");
    readable_put_lines(out, message, RENDER_INDENT);
    strbuf_puts(out, "\n");
    if (remedy[0] != '\0') {
        strbuf_puts(out, RENDER_INDENT);
        readable_put_lines(out, remedy, RENDER_INDENT);
        strbuf_puts(out, "\n");
    }
}

/* Facts that speak for themselves, should the daemon not have called them trouble. */
static void derive_trouble(struct strbuf *out, const json_t *status)
{
    char message[512];
    if (field_string(status, "active")[0] == '\0') {
        put_trouble(out, "no side is active: clients are refused (57P03)", "");
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        const char *name = side_name((enum side)i);
        const json_t *side = side_of(status, name);
        if (side == NULL || json_is_true(json_object_get(side, "reachable"))) {
            continue;
        }
        const char *problem = field_string(side, "problem");
        bool active = strcmp(field_string(status, "active"), name) == 0;
        (void)snprintf(message, sizeof message, "%s, the %s side, can't be reached%s%s", name,
                       active ? "active" : "standby", problem[0] == '\0' ? "" : ": ", problem);
        put_trouble(out, message, "");
    }
}

static void put_troubles(struct strbuf *out, const json_t *status)
{
    const json_t *troubles = json_object_get(status, "trouble");
    size_t index;
    const json_t *trouble;
    json_array_foreach(troubles, index, trouble)
    {
        put_trouble(out, field_string(trouble, "message"), field_string(trouble, "remedy"));
    }
    if (json_array_size(troubles) == 0) {
        derive_trouble(out, status);
    }
}

/* --- one function a line */

static void put_flip(struct strbuf *out, const json_t *flip)
{
    if (!json_is_object(flip)) {
        return;
    }
    const char *kind = field_string(flip, "kind");
    put_label(out, "flip");
    strbuf_printf(out, "%" JSON_INTEGER_FORMAT " ", field_integer(flip, "id"));
    readable_put(out, kind[0] == '\0' ? "flip" : kind);
    strbuf_puts(out, " ");
    readable_put(out, field_string(flip, "from"));
    strbuf_puts(out, " -> ");
    readable_put(out, field_string(flip, "to"));
    strbuf_puts(out, ": ");
    readable_put(out, field_string(flip, "phase"));
    strbuf_puts(out, ", ");
    readable_put_duration(out, field_number(flip, "elapsed_ms", 0));
    if (field_string(flip, "message")[0] != '\0') {
        strbuf_puts(out, ", ");
        readable_put(out, field_string(flip, "message"));
    }
    strbuf_puts(out, "\n");
}

static void put_watch(struct strbuf *out, const json_t *watch)
{
    if (!json_is_object(watch)) {
        return;
    }
    bool automatic = strcmp(field_string(watch, "flip_back"), "manual") != 0;
    put_label(out, "watch");
    strbuf_printf(out, "of flip %" JSON_INTEGER_FORMAT ", ", field_integer(watch, "flip"));
    readable_put_duration(out, field_number(watch, "remaining_ms", 0));
    strbuf_printf(out, " left; a failing gate %s\n",
                  automatic ? "flips back by itself" : "only raises an alarm");
}

static void put_hold(struct strbuf *out, const json_t *hold)
{
    if (!json_is_object(hold)) {
        return;
    }
    put_label(out, "hold");
    strbuf_puts(out, "by ");
    readable_put(out, field_string(hold, "owner"));
    strbuf_puts(out, ": ");
    readable_put(out, field_string(hold, "reason"));
    strbuf_puts(out, ", ");
    readable_put_duration(out, field_number(hold, "remaining_ms", 0));
    strbuf_puts(out, " left: switchback release\n");
}

static void put_standby(struct strbuf *out, const json_t *status)
{
    const char *name = standby_of(status);
    const json_t *side = side_of(status, name);
    if (side == NULL) {
        return;
    }
    strbuf_printf(out, "      standby %s", name);
    if (!field_true(side, "reachable")) {
        strbuf_puts(out, ", unreachable");
        return;
    }
    char version[VERSION_SIZE]; /* "15.18 (Debian 15.18-0+deb12u1)": the number will do */
    const char *full = field_string(side, "version");
    (void)snprintf(version, sizeof version, "%.*s", (int)strcspn(full, " "), full);
    if (version[0] != '\0') {
        strbuf_puts(out, " ");
        readable_put(out, version);
    }
    if (strcmp(field_string(side, "standing"), "diverged") == 0) {
        strbuf_puts(out, ", diverged");
    }
    strbuf_puts(out, field_true(side, "fenced") ? ", fenced" : ", not fenced");
}

static void put_active(struct strbuf *out, const json_t *status, int64_t now_us)
{
    put_label(out, "active");
    const char *active = field_string(status, "active");
    if (active[0] == '\0') {
        strbuf_puts(out, "none\n");
        return;
    }
    readable_put(out, active);
    int64_t since_us = readable_parse_time(field_string(status, "since"));
    if (since_us >= 0) {
        strbuf_puts(out, ", since ");
        readable_put_time(out, since_us, now_us);
    }
    if (field_integer(status, "epoch") > 0) { /* before prepare there is none */
        strbuf_printf(out, " (epoch %" JSON_INTEGER_FORMAT ")", field_integer(status, "epoch"));
    }
    put_standby(out, status);
    strbuf_puts(out, "\n");
}

static bool is_in_sync(const json_t *status)
{
    const json_t *lag = json_object_get(status, "lag");
    return is_prepared(status) && json_object_get(lag, "streaming") != json_false() &&
           field_number(lag, "seconds", -1) == 0;
}

static bool is_reachable(const json_t *status, const char *side)
{
    return !json_is_false(json_object_get(side_of(status, side), "reachable"));
}

static bool is_streaming(const json_t *status)
{
    return !json_is_false(json_object_get(json_object_get(status, "lag"), "streaming"));
}

static void put_sync(struct strbuf *out, const json_t *status)
{
    const json_t *lag = json_object_get(status, "lag");
    double seconds = field_number(lag, "seconds", -1), bytes = field_number(lag, "bytes", -1);
    double marker_ms = field_number(lag, "marker_age_ms", -1);
    put_label(out, "in sync");
    if (!is_prepared(status)) {
        strbuf_puts(out, "no, the standby is not prepared\n");
        return;
    }
    strbuf_puts(out, is_in_sync(status) ? "yes" : "no");
    if (!is_streaming(status)) {
        strbuf_puts(out, ", not streaming");
    }
    if (seconds < 0) {
        strbuf_puts(out, ", lag unknown");
    } else {
        strbuf_puts(out, ", lag ");
        readable_put_duration(out, seconds * 1000);
    }
    if (bytes >= 0) {
        strbuf_puts(out, ", ");
        readable_put_bytes(out, bytes);
    }
    if (marker_ms >= 0) {
        strbuf_puts(out, ", marker seen ");
        readable_put_duration(out, marker_ms);
        strbuf_puts(out, " ago");
    }
    strbuf_puts(out, "\n");
}

/* What becomes of acknowledged commits if the active side dies. */
static void put_promise(struct strbuf *out, const json_t *status, const json_t *promise)
{
    if (field_true(promise, "on")) {
        strbuf_puts(out, RENDER_INDENT "lossless: each commit is on ");
        readable_put(out, standby_of(status));
        strbuf_puts(out, " before its client hears of it\n");
        if (is_reachable(status, field_string(status, "active")) && !is_streaming(status)) {
            strbuf_printf(out,
                          RENDER_INDENT "%" JSON_INTEGER_FORMAT " wait for that now, for "
                                        "flip.lossless_max_wait at most\n",
                          field_integer(promise, "waiting"));
        }
    } else if (field_string(promise, "reason")[0] != '\0') {
        strbuf_puts(out, RENDER_INDENT "not lossless: ");
        readable_put(out, field_string(promise, "reason"));
        strbuf_puts(out, "\n");
    }
}

static void put_way_back(struct strbuf *out, const json_t *status)
{
    const json_t *way = json_object_get(status, "way_back");
    double estimate_ms = field_number(way, "estimate_ms", -1);
    const char *reason = field_string(way, "reason");
    put_label(out, "way back");
    strbuf_puts(out, field_true(way, "open") ? "open" : "closed");
    if (field_true(way, "open") && estimate_ms >= 0) {
        strbuf_puts(out, ", about ");
        readable_put_duration(out, estimate_ms);
    }
    if (!field_true(way, "open") && reason[0] != '\0') {
        strbuf_puts(out, ": ");
        readable_put(out, reason);
    }
    if (json_is_integer(json_object_get(way, "commits_at_risk"))) {
        strbuf_puts(out, ", ");
        readable_put_count(out, field_integer(way, "commits_at_risk"), "commit at risk", "commits at risk");
    }
    strbuf_puts(out, "\n");
    put_promise(out, status, json_object_get(way, "promise"));
}

static void put_clients(struct strbuf *out, const json_t *status)
{
    const json_t *sessions = json_object_get(status, "sessions");
    json_int_t immovable = field_integer(sessions, "immovable"), held = field_integer(sessions, "held");
    json_int_t total = field_integer(sessions, "total"), max = field_integer(sessions, "max");
    enum { NEARLY_FULL = 5 }; /* a fifth of the places is left */
    put_label(out, "clients");
    strbuf_printf(out, "%" JSON_INTEGER_FORMAT " connected", total);
    if (max > 0 && total >= max - max / NEARLY_FULL) {
        strbuf_printf(out, " of at most %" JSON_INTEGER_FORMAT, max);
    }
    strbuf_printf(out, ", %" JSON_INTEGER_FORMAT " in a transaction",
                  field_integer(sessions, "in_transaction"));
    if (held > 0) {
        strbuf_printf(out, ", %" JSON_INTEGER_FORMAT " held", held);
    }
    if (immovable > 0) {
        strbuf_printf(out, ", %" JSON_INTEGER_FORMAT " can't move: switchback sessions --immovable",
                      immovable);
    }
    strbuf_puts(out, "\n");
}

static void put_gates(struct strbuf *out, const json_t *status)
{
    static const char *const states[] = {"pass", "fail", "inconclusive", "waiting"};
    const char *phase = field_string(status, "phase");
    const json_t *gates = json_object_get(status, "gates");
    const char *separator = "";
    size_t index;
    const json_t *gate;
    put_label(out, "gates");
    for (size_t i = 0; i < ARRAY_LENGTH(states); i++) {
        json_int_t count = 0;
        json_array_foreach(gates, index, gate)
        {
            count += strcmp(field_string(gate, "state"), states[i]) == 0;
        }
        if (count > 0) {
            const bool idle = strcmp(states[i], "waiting") == 0 && strcmp(phase, "steady") == 0;
            strbuf_printf(out, "%s%" JSON_INTEGER_FORMAT " %s", separator, count,
                          idle ? "waiting for a watch" : states[i]);
            separator = ", ";
        }
    }
    strbuf_puts(out, json_array_size(gates) == 0 ? "none\n" : "\n");
    json_array_foreach(gates, index, gate)
    {
        const char *state = field_string(gate, "state");
        if (strcmp(state, "fail") != 0 && strcmp(state, "inconclusive") != 0) {
            continue;
        }
        strbuf_puts(out, RENDER_INDENT);
        readable_put(out, field_string(gate, "name"));
        strbuf_printf(out, " %s", strcmp(state, "fail") == 0 ? "fails" : "is inconclusive");
        if (field_string(gate, "reason")[0] != '\0') {
            strbuf_puts(out, ": ");
            readable_put(out, field_string(gate, "reason"));
        }
        strbuf_puts(out, "\n");
    }
}

static void put_last_flip(struct strbuf *out, const json_t *last, int64_t now_us)
{
    if (!json_is_object(last)) {
        return;
    }
    put_label(out, "last flip");
    strbuf_printf(out, "%" JSON_INTEGER_FORMAT " ", field_integer(last, "id"));
    readable_put(out, field_string(last, "from"));
    strbuf_puts(out, " -> ");
    readable_put(out, field_string(last, "to"));
    strbuf_puts(out, strcmp(field_string(last, "kind"), "takeover") == 0 ? ", a takeover: " : ": ");
    readable_put(out, field_string(last, "result"));
    int64_t ended_us = readable_parse_time(field_string(last, "ended"));
    if (ended_us >= 0) {
        strbuf_puts(out, " at ");
        readable_put_time(out, ended_us, now_us);
    }
    const json_t *stall = json_object_get(last, "stall_ms");
    if (json_is_object(stall)) {
        strbuf_puts(out, ", clients waited ");
        readable_put_duration(out, field_number(stall, "p50", 0));
        strbuf_puts(out, ", at most ");
        readable_put_duration(out, field_number(stall, "max", 0));
    }
    strbuf_puts(out, "\n");
}

/* Traffic is where a cutover brought it: there is no other one to be had. */
static bool is_cut_over(const json_t *status)
{
    const json_t *last = json_object_get(status, "last_flip");
    return strcmp(field_string(last, "kind"), "cutover") == 0 &&
           strcmp(field_string(last, "result"), "done") == 0 &&
           strcmp(field_string(last, "to"), field_string(status, "active")) == 0;
}

static bool has_trouble(const json_t *status, enum error_code code)
{
    size_t index;
    const json_t *trouble;
    json_array_foreach(json_object_get(status, "trouble"), index, trouble)
    {
        if (strcmp(field_string(trouble, "code"), error_code_text(code)) == 0) {
            return true;
        }
    }
    return false;
}

/* The active side can't be reached. */
static void put_next_without_active(struct strbuf *out, const json_t *status)
{
    const char *active = field_string(status, "active"), *other = standby_of(status);
    const json_t *promise = json_object_get(json_object_get(status, "way_back"), "promise");
    const bool by_itself = strcmp(field_string(json_object_get(status, "watch"), "flip_back"), "auto") == 0;
    const bool promised = field_true(promise, "on");
    if (!is_reachable(status, other)) {
        strbuf_printf(out, "bring %s back%s%s", active, promised ? ", or " : "",
                      promised ? other : ": nothing else can be done before");
    } else if (has_trouble(status, ERROR_COMMITS_AT_RISK) || has_trouble(status, ERROR_SIDE_DEAD)) {
        strbuf_puts(out, "decide: nothing goes back by itself");
    } else if (promised && by_itself) {
        strbuf_printf(out, "wait: %s takes over by itself once %s counts as dead, and loses nothing", other,
                      active);
    } else if (promised) {
        strbuf_printf(
            out, "bring %s back, or switchback flip-back once it counts as dead: that loses nothing", active);
    } else {
        strbuf_printf(out, "bring %s back: nothing else can be done before", active);
    }
}

static void put_next(struct strbuf *out, const json_t *status)
{
    const char *phase = field_string(status, "phase");
    const json_t *standby = side_of(status, standby_of(status));
    put_label(out, "next");
    if (field_string(status, "active")[0] == '\0') {
        strbuf_puts(out, has_trouble(status, ERROR_UNDECIDED)
                             ? "switchback recover says what is seen and what can be decided"
                             : "switchback events says what happened");
    } else if (json_is_object(json_object_get(status, "flip"))) {
        strbuf_puts(out, render_is_past_commit(phase) ? "switchback watch"
                                                      : "switchback watch; switchback abort takes it back");
    } else if (!is_reachable(status, field_string(status, "active"))) {
        put_next_without_active(out, status);
    } else if (has_trouble(status, ERROR_COMMITS_AT_RISK) || has_trouble(status, ERROR_SIDE_DEAD)) {
        strbuf_puts(out, "decide: nothing goes back by itself");
    } else if (json_is_object(json_object_get(status, "hold"))) {
        strbuf_puts(out, "switchback release");
    } else if (standby != NULL && !field_true(standby, "reachable")) {
        strbuf_printf(out, "bring %s back; it is fenced on contact", standby_of(status));
    } else if (strcmp(field_string(standby, "standing"), "diverged") == 0) {
        strbuf_printf(
            out, "switchback rejoin --dry-run lists what only %s holds, switchback rejoin brings it back",
            standby_of(status));
    } else if (strcmp(phase, "watch") == 0) {
        strbuf_puts(out, way_back_is_open(status) ? "switchback watch; switchback flip-back goes back now"
                                                  : "switchback check says what closed the way back");
    } else if (!is_prepared(status)) {
        strbuf_puts(out, "switchback check, then switchback prepare");
    } else if (!way_back_is_open(status)) {
        strbuf_puts(out, "switchback check says what is missing");
    } else if (is_cut_over(status)) {
        strbuf_puts(out, "switchback finalize ends the way back, switchback flip-back takes it");
    } else {
        strbuf_puts(out, "switchback check, then switchback cutover --dry-run");
    }
    strbuf_puts(out, "\n");
}

void render_status(struct strbuf *out, const json_t *status, int64_t now_us)
{
    put_troubles(out, status);
    put_flip(out, json_object_get(status, "flip"));
    put_active(out, status, now_us);
    put_sync(out, status);
    put_way_back(out, status);
    put_watch(out, json_object_get(status, "watch"));
    put_hold(out, json_object_get(status, "hold"));
    put_clients(out, status);
    put_gates(out, status);
    put_last_flip(out, json_object_get(status, "last_flip"), now_us);
    put_next(out, status);
}
