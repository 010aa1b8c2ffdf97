/* What only an operator can decide. */
#include "control/cli/field.h"
#include "control/cli/readable.h"
#include "control/cli/render.h"

#include "conf/base/side.h"

#include <string.h>

static void put_label(struct strbuf *out, const char *label)
{
    strbuf_printf(out, RENDER_LABEL, label);
}

static void put_text(struct strbuf *out, const char *label, const char *text)
{
    if (text[0] == '\0') {
        return;
    }
    put_label(out, label);
    readable_put_lines(out, text, RENDER_INDENT);
    strbuf_puts(out, "\n");
}

/* --- recover */

static void put_side(struct strbuf *out, const char *name, const json_t *side)
{
    if (!json_is_object(side)) {
        return;
    }
    put_label(out, name);
    if (!field_true(side, "reachable")) {
        strbuf_puts(out, "can't be reached");
        if (field_string(side, "problem")[0] != '\0') {
            strbuf_puts(out, ": ");
            readable_put(out, field_string(side, "problem"));
        }
        strbuf_puts(out, "\n");
        return;
    }
    readable_put(out, field_string(side, "standing"));
    if (field_integer(side, "epoch") > 0) {
        strbuf_printf(out, " at epoch %" JSON_INTEGER_FORMAT, field_integer(side, "epoch"));
    }
    strbuf_puts(out, field_true(side, "fenced") ? ", fenced" : ", not fenced");
    if (field_integer(side, "fenced_for") > 0) {
        strbuf_printf(out, " for flip %" JSON_INTEGER_FORMAT, field_integer(side, "fenced_for"));
    }
    if (field_true(side, "identity_changed")) {
        strbuf_puts(out, ", restored or failed over since it was prepared");
    }
    strbuf_puts(out, "\n");
}

static void put_choices(struct strbuf *out, const json_t *choices)
{
    size_t index;
    const json_t *choice;
    json_array_foreach(choices, index, choice)
    {
        const bool possible = field_true(choice, "possible");
        put_label(out, "choice");
        strbuf_puts(out, "switchback recover --use ");
        readable_put(out, field_string(choice, "use"));
        strbuf_puts(out, possible ? "\n" RENDER_INDENT : ": not possible, ");
        readable_put_lines(out, field_string(choice, possible ? "does" : "reason"), RENDER_INDENT);
        strbuf_puts(out, "\n");
        if (!possible && field_string(choice, "remedy")[0] != '\0') {
            strbuf_puts(out, RENDER_INDENT);
            readable_put_lines(out, field_string(choice, "remedy"), RENDER_INDENT);
            strbuf_puts(out, "\n");
        }
    }
}

void render_recover(struct strbuf *out, const json_t *result)
{
    const json_t *sides = json_object_get(result, "sides");
    const bool needed = field_true(result, "needed"), decided = field_true(result, "decided");
    const char *active = field_string(result, "active");
    if (decided) {
        put_text(out, "decided", field_string(result, "would"));
    } else if (needed) {
        put_text(out, "decide", field_string(result, "reason"));
        put_text(out, "", field_string(result, "remedy"));
    } else if (active[0] != '\0') {
        strbuf_puts(out, "nothing is to be decided: ");
        readable_put(out, active);
        strbuf_printf(out, " is active at epoch %" JSON_INTEGER_FORMAT "\n", field_integer(result, "epoch"));
    } else {
        strbuf_puts(out, "nothing is to be decided yet\n");
        put_text(out, "because", field_string(result, "reason"));
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        put_side(out, side_name((enum side)i), json_object_get(sides, side_name((enum side)i)));
    }
    if (!decided) {
        put_text(out, "by itself", field_string(result, "would"));
        put_choices(out, json_object_get(result, "choices"));
    }
    put_label(out, "next");
    strbuf_puts(out, decided || !needed ? "switchback status\n"
                                        : "decide by one of the choices; nothing was done\n");
}
