/* Sessions, events, the audit log. */
#include "control/cli/columns.h"
#include "control/cli/field.h"
#include "control/cli/readable.h"
#include "control/cli/render.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_LIMIT = 64 * 1024 };

/* --- sessions */

static void put_reasons(struct strbuf *out, const json_t *session)
{
    size_t index;
    const json_t *reason;
    json_array_foreach(json_object_get(session, "reasons"), index, reason)
    {
        strbuf_printf(out, "%s%s", index == 0 ? "" : "; ",
                      json_is_string(reason) ? json_string_value(reason) : "");
    }
}

static void put_count(struct strbuf *out, const json_t *counts, const char *key, const char *one)
{
    json_int_t count = field_integer(counts, key);
    if (count > 0) {
        strbuf_puts(out, out->length > 0 ? ", " : "");
        readable_put_count(out, count, one, key);
    }
}

static void put_held(struct strbuf *out, const char *what, const char *name)
{
    if (name[0] != '\0') {
        strbuf_printf(out, "%s%s ", out->length > 0 ? ", " : "", what);
        readable_put(out, name);
    }
}

static void put_holds(struct strbuf *out, const json_t *session)
{
    const json_t *holds = json_object_get(session, "holds");
    const json_t *counts = json_object_get(holds, "counts");
    if (!json_is_object(holds)) {
        strbuf_puts(out, "?");
        return;
    }
    put_count(out, counts, "settings", "setting");
    put_count(out, counts, "statements", "statement");
    put_count(out, counts, "channels", "channel");
    put_held(out, "role", field_string(holds, "role"));
    put_held(out, "session user", field_string(holds, "session_user"));
    if (out->length == 0) {
        strbuf_puts(out, "nothing");
    }
}

static void add_session(struct columns *columns, const json_t *session)
{
    char id[32];
    struct strbuf age, holds, reasons;
    strbuf_init(&age, 64);
    strbuf_init(&holds, LINE_LIMIT);
    strbuf_init(&reasons, LINE_LIMIT);
    (void)snprintf(id, sizeof id, "%" JSON_INTEGER_FORMAT, field_integer(session, "id"));
    readable_put_duration(&age, field_number(session, "state_age_ms", 0));
    bool movable = !json_is_false(json_object_get(session, "movable"));
    put_reasons(&reasons, session);
    put_holds(&holds, session);
    columns_add(columns,
                (const char *const[]){id, field_string(session, "user"), field_string(session, "database"),
                                      field_string(session, "client"), field_string(session, "side"),
                                      field_string(session, "state"), strbuf_text(&age), strbuf_text(&holds),
                                      movable ? "yes" : "no", strbuf_text(&reasons)});
    strbuf_deinit(&age);
    strbuf_deinit(&holds);
    strbuf_deinit(&reasons);
}

void render_sessions(struct strbuf *out, const json_t *result, bool immovable_only)
{
    const json_t *sessions = json_object_get(result, "sessions");
    if (json_array_size(sessions) == 0) {
        strbuf_puts(out, immovable_only ? "every session can move\n" : "no sessions\n");
        return;
    }
    struct columns columns;
    columns_init(&columns, 10);
    columns_add(&columns, (const char *const[]){"ID", "USER", "DATABASE", "CLIENT", "SIDE", "STATE", "FOR",
                                                "HOLDS", "MOVES", "WHY NOT"});
    size_t index;
    const json_t *session;
    json_array_foreach(sessions, index, session)
    {
        add_session(&columns, session);
    }
    columns_print(&columns, out, "");
    readable_put_count(out, (json_int_t)json_array_size(sessions), "session\n", "sessions\n");
}

/* --- events */

void render_event(struct strbuf *out, const json_t *event, int64_t now_us)
{
    const char *level = field_string(event, "level");
    readable_put_time(out, readable_parse_time(field_string(event, "time")), now_us);
    strbuf_puts(out, "  ");
    readable_put(out, field_string(event, "type"));
    if (strcmp(level, "warn") == 0 || strcmp(level, "error") == 0) {
        strbuf_puts(out, strcmp(level, "warn") == 0 ? " WARNING" : " ERROR");
    }
    if (json_is_integer(json_object_get(event, "flip"))) {
        strbuf_printf(out, "  flip %" JSON_INTEGER_FORMAT, field_integer(event, "flip"));
    }
    if (field_string(event, "phase")[0] != '\0') {
        strbuf_puts(out, " ");
        readable_put(out, field_string(event, "phase"));
    }
    strbuf_puts(out, ": ");
    readable_put(out, field_string(event, "message"));
    strbuf_puts(out, "\n");
}

/* --- audit */

static void add_row(struct columns *columns, const json_t *row, int64_t now_us)
{
    char seq[32], who[160];
    struct strbuf when;
    strbuf_init(&when, 64);
    readable_put_time(&when, readable_parse_time(field_string(row, "time")), now_us);
    (void)snprintf(seq, sizeof seq, "%" JSON_INTEGER_FORMAT, field_integer(row, "seq"));
    json_int_t uid = field_integer(row, "uid");
    (void)snprintf(who, sizeof who, "%.120s", field_string(row, "actor"));
    if (uid >= 0 && json_is_integer(json_object_get(row, "uid"))) {
        (void)snprintf(who, sizeof who, "%.120s (%" JSON_INTEGER_FORMAT ")", field_string(row, "actor"), uid);
    }
    const json_t *detail = json_object_get(row, "detail");
    char *text = json_object_size(detail) == 0 ? NULL : json_dumps(detail, JSON_COMPACT);
    columns_add(columns, (const char *const[]){seq, strbuf_text(&when), who, field_string(row, "action"),
                                               text == NULL ? "" : text});
    free(text);
    strbuf_deinit(&when);
}

void render_audit(struct strbuf *out, const json_t *result, int64_t now_us)
{
    const json_t *rows = json_object_get(result, "rows");
    struct columns columns;
    columns_init(&columns, 5);
    columns_add(&columns, (const char *const[]){"SEQ", "WHEN", "WHO", "WHAT", "DETAIL"});
    size_t index;
    const json_t *row;
    json_array_foreach(rows, index, row)
    {
        add_row(&columns, row, now_us);
    }
    columns_print(&columns, out, "");
}

void render_audit_verdict(struct strbuf *out, const json_t *verdict)
{
    const char *hash = field_string(verdict, "last_hash");
    if (field_true(verdict, "intact")) {
        strbuf_puts(out, "intact: ");
        readable_put_count(out, field_integer(verdict, "rows"), "row", "rows");
        strbuf_puts(out, ", each chained to the one before\n");
    } else {
        strbuf_printf(out, "BROKEN at row %" JSON_INTEGER_FORMAT ": ", field_integer(verdict, "broken_seq"));
        readable_put(out, field_string(verdict, "reason"));
        strbuf_puts(out, "\n");
    }
    if (hash[0] != '\0') {
        strbuf_puts(out, field_true(verdict, "intact") ? "last hash " : "last good hash ");
        readable_put(out, hash);
        strbuf_puts(out, "\n");
    }
}
