/* Short answers, errors, and the progress of what takes long. */
#include "control/cli/field.h"
#include "control/cli/readable.h"
#include "control/cli/render.h"

#include <inttypes.h>
#include <string.h>

static void put_message(struct strbuf *out, const json_t *result)
{
    if (field_string(result, "message")[0] != '\0') {
        strbuf_puts(out, ": ");
        readable_put(out, field_string(result, "message"));
    }
}

void render_prepare(struct strbuf *out, const json_t *result)
{
    strbuf_puts(out, "prepared");
    put_message(out, result);
    if (json_is_number(json_object_get(result, "elapsed_ms"))) {
        strbuf_puts(out, ", after ");
        readable_put_duration(out, field_number(result, "elapsed_ms", 0));
    }
    strbuf_puts(out, "\nnext      switchback check, then switchback cutover --dry-run\n");
}

void render_abort(struct strbuf *out, const json_t *result)
{
    strbuf_printf(out, "flip %" JSON_INTEGER_FORMAT " is being taken back", field_integer(result, "flip"));
    put_message(out, result);
    strbuf_puts(out, "\n");
}

void render_finalize(struct strbuf *out, const json_t *result)
{
    strbuf_puts(out, "the way back is ended");
    put_message(out, result);
    strbuf_puts(out, "\n");
}

void render_hold(struct strbuf *out, const json_t *result, int64_t now_us)
{
    strbuf_puts(out, "held: ");
    readable_put_count(out, field_integer(result, "held"), "session", "sessions");
    strbuf_printf(out, " of %" JSON_INTEGER_FORMAT " at the boundary", field_integer(result, "sessions"));
    int64_t deadline_us = readable_parse_time(field_string(result, "deadline"));
    if (deadline_us >= 0) {
        strbuf_puts(out, ", until ");
        readable_put_time(out, deadline_us, now_us);
    }
    strbuf_puts(out, "\nnext      switchback release\n");
}

void render_release(struct strbuf *out, const json_t *result)
{
    strbuf_puts(out, "released: ");
    readable_put_count(out, field_integer(result, "released"), "client had waited", "clients had waited");
    const json_t *stall = json_object_get(result, "stall_ms");
    if (field_integer(result, "released") > 0 && json_is_object(stall)) {
        strbuf_puts(out, ", ");
        readable_put_duration(out, field_number(stall, "p50", 0));
        strbuf_puts(out, " at the median, at most ");
        readable_put_duration(out, field_number(stall, "max", 0));
    }
    strbuf_puts(out, "\n");
}

static void put_keys(struct strbuf *out, const char *label, const json_t *keys)
{
    size_t index;
    const json_t *key;
    json_array_foreach(keys, index, key)
    {
        strbuf_printf(out, "%s", index == 0 ? label : "          ");
        readable_put(out, json_is_string(key) ? json_string_value(key) : "");
        strbuf_puts(out, "\n");
    }
}

void render_reload(struct strbuf *out, const json_t *result)
{
    const json_t *changed = json_object_get(result, "changed"), *restart = json_object_get(result, "restart");
    bool applied = !json_is_false(json_object_get(result, "applied"));
    if (json_array_size(changed) + json_array_size(restart) == 0) {
        strbuf_puts(out, "nothing has changed\n");
        return;
    }
    strbuf_puts(out, applied ? "the new configuration is in force\n"
                             : "nothing was applied: a restart is needed\n");
    put_keys(out, "changed   ", changed);
    put_keys(out, "restart   ", restart);
}

void render_version(struct strbuf *out, const json_t *daemon)
{
    if (json_is_object(daemon)) {
        strbuf_puts(out, "daemon     ");
        readable_put(out, field_string(daemon, "version"));
        if (field_string(daemon, "build")[0] != '\0') {
            strbuf_puts(out, " (");
            readable_put(out, field_string(daemon, "build"));
            strbuf_puts(out, ")");
        }
        strbuf_puts(out, "\n");
    }
}

void render_error(struct strbuf *out, const struct error *error)
{
    strbuf_puts(out, "switchback: ");
    readable_put_lines(out, error->message, "            ");
    strbuf_puts(out, "\n");
    if (error->remedy[0] != '\0') {
        strbuf_puts(out, "            ");
        readable_put_lines(out, error->remedy, "            ");
        strbuf_puts(out, "\n");
    }
}

/* --- progress */

static void put_flip_progress(struct strbuf *out, const json_t *progress)
{
    double lag = field_number(progress, "lag_seconds", -1),
           remaining_ms = field_number(progress, "remaining_ms", -1);
    readable_put(out, field_string(progress, "phase"));
    if (json_is_integer(json_object_get(progress, "undrained")) && field_integer(progress, "undrained") > 0) {
        strbuf_printf(out, ", %" JSON_INTEGER_FORMAT " not yet at the boundary",
                      field_integer(progress, "undrained"));
    }
    if (lag >= 0) {
        strbuf_puts(out, ", lag ");
        readable_put_duration(out, lag * 1000);
    }
    if (field_integer(progress, "held") > 0) {
        strbuf_printf(out, ", %" JSON_INTEGER_FORMAT " held", field_integer(progress, "held"));
    }
    if (remaining_ms >= 0) {
        strbuf_puts(out, ", ");
        readable_put_duration(out, remaining_ms);
        strbuf_puts(out, " left");
    }
}

static void put_step_progress(struct strbuf *out, const json_t *progress)
{
    double fraction = field_number(progress, "fraction", -1), eta_ms = field_number(progress, "eta_ms", -1);
    readable_put(out, field_string(progress, "step"));
    if (fraction >= 0) {
        strbuf_printf(out, " %.0f%%", fraction * 100);
    }
    if (eta_ms > 0) {
        strbuf_puts(out, ", ");
        readable_put_duration(out, eta_ms);
        strbuf_puts(out, " to go");
    }
}

void render_progress(struct strbuf *out, const char *verb, const json_t *progress, int64_t elapsed_us)
{
    strbuf_printf(out, "%s  ", verb);
    readable_put_duration(out, (double)elapsed_us / 1000);
    if (progress == NULL) {
        return;
    }
    strbuf_puts(out, "  ");
    if (field_string(progress, "phase")[0] != '\0') {
        put_flip_progress(out, progress);
    } else {
        put_step_progress(out, progress);
    }
    if (field_string(progress, "message")[0] != '\0') {
        strbuf_puts(out, ": ");
        readable_put(out, field_string(progress, "message"));
    }
}
