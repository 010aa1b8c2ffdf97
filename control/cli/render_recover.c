/* What only an operator can decide, and a side that has to be brought back: recover and rejoin. */
#include "control/cli/columns.h"
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

/* --- rejoin */

static void put_stranded(struct strbuf *out, const json_t *result)
{
    const json_t *rows = json_object_get(result, "stranded");
    const json_int_t total = field_integer(result, "rows");
    struct columns columns;
    size_t index;
    const json_t *row;
    if (json_array_size(rows) == 0) {
        return;
    }
    columns_init(&columns, 5);
    columns_add(&columns, (const char *const[]){"XID", "DATABASE", "TABLE", "OPERATION", "KEY"});
    json_array_foreach(rows, index, row)
    {
        columns_add(&columns,
                    (const char *const[]){field_string(row, "xid"), field_string(row, "database"),
                                          field_string(row, "table"), field_string(row, "operation"),
                                          field_string(row, "key")});
    }
    columns_print(&columns, out, "");
    if (total > (json_int_t)json_array_size(rows)) {
        strbuf_printf(out, "and %" JSON_INTEGER_FORMAT " more\n", total - (json_int_t)json_array_size(rows));
    }
    strbuf_puts(out, "\n");
}

void render_rejoin(struct strbuf *out, const json_t *result)
{
    const json_int_t transactions = field_integer(result, "transactions"),
                     rows = field_integer(result, "rows");
    const bool dry_run = field_true(result, "dry_run");
    const char *side = field_string(result, "side"), *active = field_string(result, "active");
    put_stranded(out, result);
    readable_put(out, side);
    if (transactions == 0 && rows > 0) {
        strbuf_puts(out, " has begun to rejoin: ");
        readable_put_count(out, rows, "row is", "rows are");
        strbuf_puts(out, " still to come");
    } else if (transactions == 0) {
        strbuf_puts(out, " holds nothing that ");
        readable_put(out, active);
        strbuf_puts(out, " never got");
    } else {
        strbuf_puts(out, dry_run ? " holds " : " held ");
        readable_put_count(out, transactions, "transaction", "transactions");
        strbuf_puts(out, " (");
        readable_put_count(out, rows, "row", "rows");
        strbuf_puts(out, ") that ");
        readable_put(out, active);
        strbuf_puts(out, " never got");
    }
    strbuf_puts(out, "\n");
    put_label(out, dry_run ? "would" : "done");
    if (rows > 0) {
        strbuf_puts(out, dry_run ? "copy " : "copied ");
        readable_put(out, active);
        strbuf_puts(out, "'s rows for these keys to ");
        readable_put(out, side);
        strbuf_puts(out, dry_run ? ", then let it follow " : "; it follows ");
    } else {
        strbuf_puts(out, dry_run ? "let it follow " : "it follows ");
    }
    readable_put(out, active);
    strbuf_puts(out, dry_run ? "\n" : " again\n");
    put_label(out, "next");
    strbuf_puts(out, dry_run ? "keep what you need of the list (--json has it all), then switchback rejoin\n"
                             : "switchback status says whether the way back is open\n");
}
