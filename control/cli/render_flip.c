/* What a flip would do and what it came to; the check list before it. */
#include "control/cli/columns.h"
#include "control/cli/field.h"
#include "control/cli/readable.h"
#include "control/cli/render.h"

#include <string.h>

static void put_label(struct strbuf *out, const char *label)
{
    strbuf_printf(out, RENDER_LABEL, label);
}

static void put_remedy(struct strbuf *out, const json_t *object)
{
    const char *remedy = field_string(object, "remedy");
    if (remedy[0] != '\0') {
        strbuf_puts(out, RENDER_INDENT);
        readable_put_lines(out, remedy, RENDER_INDENT);
        strbuf_puts(out, "\n");
    }
}

/* --- a flip */

static void put_headline(struct strbuf *out, const json_t *flip)
{
    const char *result = field_string(flip, "result"), *reason = field_string(flip, "reason");
    const char *from = field_string(flip, "from"), *to = field_string(flip, "to");
    static const char *const stays[] = {"refused", "aborted", "flipped_back"};
    const char *on = strcmp(result, "done") == 0 ? to : "";
    for (size_t i = 0; i < ARRAY_LENGTH(stays); i++) {
        on = strcmp(result, stays[i]) == 0 ? from : on;
    }
    if (strcmp(result, "flipped_back") == 0) {
        strbuf_puts(out, "flipped back: ");
    } else {
        readable_put(out, result[0] == '\0' ? "unknown" : result);
        strbuf_puts(out, ": ");
    }
    if (json_is_integer(json_object_get(flip, "flip"))) {
        strbuf_printf(out, "flip %" JSON_INTEGER_FORMAT, field_integer(flip, "flip"));
    } else {
        strbuf_puts(out, "flip");
    }
    if (from[0] != '\0' && to[0] != '\0') {
        strbuf_puts(out, " ");
        readable_put(out, from);
        strbuf_puts(out, " -> ");
        readable_put(out, to);
    }
    if (on[0] != '\0') {
        strbuf_puts(out, ", traffic is on ");
        readable_put(out, on);
    }
    strbuf_puts(out, "\n");
    if (reason[0] != '\0') {
        put_label(out, "reason");
        readable_put_lines(out, reason, RENDER_INDENT);
        strbuf_puts(out, "\n");
    }
    put_remedy(out, flip);
}

static void put_stall(struct strbuf *out, const json_t *flip)
{
    const json_t *stall = json_object_get(flip, "stall_ms");
    if (json_is_object(stall)) {
        put_label(out, "pause");
        readable_put_duration(out, field_number(stall, "p50", 0));
        strbuf_puts(out, " at the median, ");
        readable_put_duration(out, field_number(stall, "p99", 0));
        strbuf_puts(out, " at p99, at most ");
        readable_put_duration(out, field_number(stall, "max", 0));
        strbuf_puts(out, "\n");
    }
    json_int_t moved = field_integer(flip, "moved"), disconnected = field_integer(flip, "disconnected");
    if (moved > 0 || disconnected > 0) {
        put_label(out, "clients");
        strbuf_printf(out, "%" JSON_INTEGER_FORMAT " moved, %" JSON_INTEGER_FORMAT " disconnected\n", moved,
                      disconnected);
    }
}

static void put_phases(struct strbuf *out, const json_t *flip)
{
    enum { A_LINE = 90 };
    const json_t *phases = json_object_get(flip, "phases");
    if (json_array_size(phases) == 0) {
        return;
    }
    put_label(out, "phases");
    size_t start = out->length, index;
    const json_t *phase;
    json_array_foreach(phases, index, phase)
    {
        if (index > 0 && out->length - start > A_LINE) {
            strbuf_puts(out, ",\n" RENDER_INDENT);
            start = out->length;
        } else if (index > 0) {
            strbuf_puts(out, ", ");
        }
        readable_put(out, field_string(phase, "phase"));
        strbuf_puts(out, " ");
        readable_put_duration(out, field_number(phase, "ms", 0));
    }
    strbuf_puts(out, "\n");
}

void render_flip(struct strbuf *out, const json_t *flip)
{
    const char *result = field_string(flip, "result");
    put_headline(out, flip);
    put_stall(out, flip);
    put_phases(out, flip);
    if (strcmp(result, "started") == 0) {
        put_label(out, "next");
        strbuf_puts(out, "switchback watch follows it, switchback abort takes it back\n");
    } else if (strcmp(result, "done") == 0) {
        put_label(out, "next");
        strbuf_puts(out, "switchback status says whether the way back is open\n");
    } else if (strcmp(result, "inconclusive") == 0) {
        put_label(out, "next");
        strbuf_puts(out, "switchback status says what must be decided\n");
    }
}

/* --- a dry run */

static void put_blockers(struct strbuf *out, const json_t *blockers)
{
    size_t index;
    const json_t *blocker;
    json_array_foreach(blockers, index, blocker)
    {
        put_label(out, "blocker");
        readable_put_lines(
            out, json_is_string(blocker) ? json_string_value(blocker) : field_string(blocker, "message"),
            RENDER_INDENT);
        strbuf_puts(out, "\n");
        put_remedy(out, blocker);
    }
}

void render_dry_run(struct strbuf *out, const json_t *plan)
{
    struct columns columns;
    columns_init(&columns, 4);
    columns_add(&columns, (const char *const[]){"PHASE", "LIMIT", "WHAT HAPPENS", "ON FAILURE"});
    size_t index;
    const json_t *phase;
    json_array_foreach(json_object_get(plan, "phases"), index, phase)
    {
        double limit_ms = field_number(phase, "timeout_ms", -1);
        struct strbuf limit;
        strbuf_init(&limit, 64);
        if (limit_ms >= 0) {
            readable_put_duration(&limit, limit_ms);
        }
        columns_add(&columns,
                    (const char *const[]){field_string(phase, "phase"), strbuf_text(&limit),
                                          field_string(phase, "does"), field_string(phase, "on_failure")});
        strbuf_deinit(&limit);
    }
    columns_print(&columns, out, "");
    strbuf_puts(out, "\n");
    put_label(out, "would");
    strbuf_puts(out, "flip ");
    readable_put(out, field_string(plan, "from"));
    strbuf_puts(out, " -> ");
    readable_put(out, field_string(plan, "to"));
    if (json_is_number(json_object_get(plan, "predicted_stall_ms"))) {
        strbuf_puts(out, ", with a pause of about ");
        readable_put_duration(out, field_number(plan, "predicted_stall_ms", 0));
    }
    strbuf_puts(out, "; nothing was done\n");
    const json_t *blockers = json_object_get(plan, "blockers");
    put_blockers(out, blockers);
    put_label(out, "next");
    strbuf_puts(out, json_array_size(blockers) == 0 ? "switchback cutover\n"
                                                    : "remove what blocks it, then try again\n");
}

/* --- the check list */

static void put_objects(struct strbuf *out, const json_t *objects)
{
    enum { SHOWN = 20 };
    size_t index;
    const json_t *object;
    json_array_foreach(objects, index, object)
    {
        if (index == SHOWN) {
            strbuf_printf(out, RENDER_INDENT "  and %zu more: --json lists all\n",
                          json_array_size(objects) - SHOWN);
            return;
        }
        strbuf_puts(out, RENDER_INDENT "  ");
        readable_put(out, json_is_string(object) ? json_string_value(object) : "");
        strbuf_puts(out, "\n");
    }
}

static void put_check(struct strbuf *out, const json_t *check, const char *state)
{
    strbuf_printf(out, "%-6s", state);
    readable_put(out, field_string(check, "id"));
    strbuf_puts(out, ": ");
    readable_put_lines(out, field_string(check, "message"), RENDER_INDENT);
    strbuf_puts(out, "\n");
    if (strcmp(state, "pass") != 0) {
        put_objects(out, json_object_get(check, "objects"));
        put_remedy(out, check);
    }
}

/* What fails comes last: there the reader is. What passes is only counted, unless all is asked for. */
void render_check(struct strbuf *out, const json_t *report, bool all)
{
    static const char *const states[] = {"pass", "warn", "fail"};
    json_int_t counts[ARRAY_LENGTH(states)] = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(states); i++) {
        size_t index;
        const json_t *check;
        json_array_foreach(json_object_get(report, "checks"), index, check)
        {
            if (strcmp(field_string(check, "state"), states[i]) == 0) {
                counts[i]++;
                if (i > 0 || all) {
                    put_check(out, check, states[i]);
                }
            }
        }
    }
    strbuf_printf(out,
                  "%" JSON_INTEGER_FORMAT " pass%s, %" JSON_INTEGER_FORMAT " warn, %" JSON_INTEGER_FORMAT
                  " fail\n",
                  counts[0], all || counts[0] == 0 ? "" : " (--all lists them)", counts[1], counts[2]);
}
