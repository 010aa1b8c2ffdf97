#include "proxy/interrogate.h"

#include "proxy/wire/decode.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * Rows (k, a, b, c, d), everything qualified: the session's search_path is anybody's. Functions instead of
 * the views that stand on them: a third of the time goes into planning. Portals and cursors that don't
 * outlive a transaction are none at the boundary.
 */
#define T "::pg_catalog.text"
#define SELECT_AUTHORIZATION                                                                                 \
    "select 'auth'" T " as k, pg_catalog.current_setting('session_authorization') as a,"                     \
    " pg_catalog.current_setting('role') as b, null" T " as c, null" T " as d"
/* What functions set for the whole session most often: a change of it shows, and everything is asked. */
#define SELECT_QUICK                                                                                         \
    " union all select 'quick', pg_catalog.md5(pg_catalog.concat_ws('/',"                                    \
    " pg_catalog.current_setting('search_path'), pg_catalog.current_setting('TimeZone'),"                    \
    " pg_catalog.current_setting('DateStyle'), pg_catalog.current_setting('IntervalStyle'),"                 \
    " pg_catalog.current_setting('client_encoding'), pg_catalog.current_setting('row_security'),"            \
    " pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('work_mem'),"                   \
    " pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('application_name'),"     \
    " pg_catalog.current_setting('default_transaction_isolation'),"                                          \
    " pg_catalog.current_setting('default_transaction_read_only'))),"                                        \
    " pg_catalog.pg_my_temp_schema()" T ", null, null"
/* Between its two parts stand the names. With a parameter in their place the plan would not be kept. */
#define SELECT_CUSTOM                                                                                        \
    " union all select 'custom', n, pg_catalog.current_setting(n, true), null, null"                         \
    " from pg_catalog.unnest(pg_catalog.string_to_array('"
#define SELECT_CUSTOM_END "', ' ')) n"
#define SELECT_STATEMENTS                                                                                    \
    " union all select 'prep', p.name, p.statement, p.parameter_types::pg_catalog.oid[]" T ", p.from_sql" T  \
    " from pg_catalog.pg_prepared_statement() p"
#define SELECT_CURSORS                                                                                       \
    " union all select 'cursor', c.name, null, null, null from pg_catalog.pg_cursor() c where c.is_holdable"
#define SELECT_CHANNELS                                                                                      \
    " union all select 'listen', l, null, null, null from pg_catalog.pg_listening_channels() l"
#define SELECT_LOCKS                                                                                         \
    " union all select 'lock', l.classid" T ", l.objid" T ", l.objsubid" T ", null"                          \
    " from pg_catalog.pg_lock_status() l where l.locktype operator(pg_catalog.=) 'advisory'"                 \
    " and l.granted and l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()"
#define SELECT_BEGIN SELECT_AUTHORIZATION SELECT_QUICK SELECT_CUSTOM
#define SELECT_CHEAP SELECT_CUSTOM_END SELECT_STATEMENTS SELECT_CURSORS SELECT_CHANNELS SELECT_LOCKS

/* pg_class has no index that starts with its schema: it is looked at only if there is a temporary one. */
#define HAS_TEMPORARY "pg_catalog.pg_my_temp_schema() operator(pg_catalog.<>) 0::pg_catalog.oid and "
#define SELECT_TEMPORARY                                                                                     \
    " union all select 'temp', r.relname" T ", r.relkind" T ", null, null from pg_catalog.pg_class r"        \
    " where " HAS_TEMPORARY "r.relnamespace operator(pg_catalog.=) pg_catalog.pg_my_temp_schema()"           \
    " and r.relkind operator(pg_catalog.=) any"                                                              \
    " (array['r', 'p', 'v', 'm', 'f', 'c', 'S']::pg_catalog.\"char\"[])"                                     \
    " union all select 'tempfn', f.proname" T ", null, null, null from pg_catalog.pg_proc f"                 \
    " where " HAS_TEMPORARY "f.pronamespace operator(pg_catalog.=) pg_catalog.pg_my_temp_schema()"           \
    " union all select 'temptype', t.typname" T ", null, null, null from pg_catalog.pg_type t"               \
    " where " HAS_TEMPORARY "t.typnamespace operator(pg_catalog.=) pg_catalog.pg_my_temp_schema()"           \
    " and t.typtype operator(pg_catalog.=) any (array['e', 'd', 'r']::pg_catalog.\"char\"[])"
#define SELECT_SETTINGS                                                                                      \
    " union all select 'set', s.name, pg_catalog.current_setting(s.name), null, null"                        \
    " from pg_catalog.pg_show_all_settings() s where s.source operator(pg_catalog.=) 'session'"
#define SELECT_SLOTS                                                                                         \
    " union all select 'slot', r.slot_name" T ", null, null, null from pg_catalog.pg_replication_slots r"    \
    " where r.temporary and r.active_pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()"

static const char begin[] = SELECT_BEGIN;
static const char cheap[] = SELECT_CHEAP;
static const char full[] = SELECT_CHEAP SELECT_TEMPORARY SELECT_SETTINGS SELECT_SLOTS;

/* set_config(..., true) ends with our Sync, and the client's own value stands again. */
static const char put_timeout_aside[] =
    "select 'timeout'" T ", pg_catalog.current_setting('statement_timeout'),"
    " pg_catalog.set_config('statement_timeout', '0', true), null" T ", null" T;

/* Asked once, and kept prepared for the next time. */
#define ASK   INTERROGATE_PREFIX "ask"
#define AGAIN INTERROGATE_PREFIX "again"

enum { COLUMNS = 5 };

static void prepare(struct build *build, const char *name, struct slice names, const char *rest)
{
    build_close(build, 'S', slice_text(name)); /* an error or an earlier time has left it behind */
    build_begin(build, 'P');
    build_string(build, name);
    build_bytes(build, begin, sizeof begin - 1);
    build_bytes(build, names.data, names.length);
    build_string(build, rest);
    build_u16(build, 0);
    build_end(build);
}

static void execute(struct build *build, const char *name)
{
    build_bind(build, slice_text(name), slice_text(name), NULL, 0);
    build_execute(build, slice_text(name), 0);
    build_close(build, 'P', slice_text(name));
}

static void put_aside(struct build *build)
{
    build_close(build, 'S', slice_text(ASK));
    build_parse(build, slice_text(ASK), slice_text(put_timeout_aside), NULL, 0);
    execute(build, ASK);
}

void interrogate_build(struct build *build, const struct interrogate_question *question)
{
    if (question->patient) {
        put_aside(build);
    }
    if (question->level == INTERROGATE_FULL) {
        prepare(build, ASK, question->names, full);
        execute(build, ASK);
        build_close(build, 'S', slice_text(ASK));
    }
    if (!question->kept) {
        prepare(build, AGAIN, question->names, cheap);
    }
    if (question->level == INTERROGATE_CHEAP) {
        execute(build, AGAIN);
    } else if (!question->kept) { /* planned now, before anyone waits */
        build_bind(build, slice_text(AGAIN), slice_text(AGAIN), NULL, 0);
        build_close(build, 'P', slice_text(AGAIN));
    }
    build_sync(build);
}

void interrogate_build_cleanup(struct build *build)
{
    build_close(build, 'S', slice_text(ASK));
    build_close(build, 'S', slice_text(AGAIN));
    build_sync(build);
}

void interrogate_reason(struct strbuf *reasons, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c != '\0'; c++) {
        *c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
    }
    if (strstr(strbuf_text(reasons), text) == NULL) {
        strbuf_printf(reasons, "%s%s", reasons->length > 0 ? "; " : "", text);
        reasons->failed = false; /* full: the first ones are what counts */
    }
}

bool move_types_has(const struct move_types *types, uint32_t oid)
{
    for (size_t low = 0, high = types->count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (types->oids[middle] == oid) {
            return true;
        }
        if (types->oids[middle] < oid) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

/* --- rows --------------------------------------------------------------------------------------------------
 */

struct row {
    struct slice columns[COLUMNS];
    bool nulls[COLUMNS];
    char name[192]; /* of column a, for people */
};

static bool starts_with(struct slice text, const char *prefix)
{
    size_t length = strlen(prefix);
    return text.length >= length && memcmp(text.data, prefix, length) == 0;
}

static void add(struct interrogation *self, enum snapshot_kind kind, struct slice name, struct slice value,
                struct slice extra)
{
    if (!snapshot_add(self->snapshot, kind, name, value, extra)) {
        self->failed = true;
    }
}

static void row_authorization(struct interrogation *self, const struct row *row)
{
    struct slice none = slice_of("", 0);
    add(self, SNAPSHOT_AUTHORIZATION, slice_text("session_authorization"), row->columns[1], none);
    add(self, SNAPSHOT_AUTHORIZATION, slice_text("role"), row->columns[2], none);
}

static void row_quick(struct interrogation *self, const struct row *row)
{
    (void)slice_copy(row->columns[1], self->quick, sizeof self->quick);
    self->temporary = !row->nulls[2] && !slice_equals(row->columns[2], "0");
}

static void row_timeout(struct interrogation *self, const struct row *row)
{
    (void)slice_copy(row->columns[1], self->timeout, sizeof self->timeout);
}

static void row_custom(struct interrogation *self, const struct row *row)
{
    if (!row->nulls[2]) { /* else nobody has set it: the name was only mentioned */
        add(self, SNAPSHOT_CUSTOM, row->columns[1], row->columns[2], slice_of("", 0));
    }
}

static void row_setting(struct interrogation *self, const struct row *row)
{
    bool aside = self->patient && slice_equals(row->columns[1], "statement_timeout");
    add(self, SNAPSHOT_SETTING, row->columns[1], aside ? slice_text(self->timeout) : row->columns[2],
        slice_of("", 0));
}

/* "{23,25}": whether one of the oids is in the list. */
static bool names_differing_type(const struct move_types *types, struct slice oids)
{
    uint32_t oid = 0;
    for (size_t i = 0; i < oids.length && types->count > 0; i++) {
        if (oids.data[i] >= '0' && oids.data[i] <= '9') {
            oid = oid * 10 + (uint32_t)(oids.data[i] - '0');
        } else if (oid != 0 && move_types_has(types, oid)) {
            return true;
        } else {
            oid = 0;
        }
    }
    return false;
}

static void row_statement(struct interrogation *self, const struct row *row)
{
    if (starts_with(row->columns[1], INTERROGATE_PREFIX)) {
        return;
    }
    if (slice_equals(row->columns[4], "true")) {
        interrogate_reason(self->reasons, "statement %s was prepared by SQL", row->name);
        return;
    }
    if (names_differing_type(self->types, row->columns[3])) {
        interrogate_reason(self->reasons, "statement %s has a type whose oid differs between the sides",
                           row->name);
    }
    add(self, SNAPSHOT_STATEMENT, row->columns[1], row->columns[2], row->columns[3]);
}

static void row_cursor(struct interrogation *self, const struct row *row)
{
    interrogate_reason(self->reasons, "cursor %s is declared WITH HOLD", row->name);
}

static void row_channel(struct interrogation *self, const struct row *row)
{
    add(self, SNAPSHOT_CHANNEL, row->columns[1], slice_of("", 0), slice_of("", 0));
}

/* pg_locks shows a bigint key as its halves with objsubid 1, two integer keys with objsubid 2. */
static void row_lock(struct interrogation *self, const struct row *row)
{
    char high[16];
    char low[16];
    unsigned long a = strtoul(slice_copy(row->columns[1], high, sizeof high), NULL, 10);
    unsigned long b = strtoul(slice_copy(row->columns[2], low, sizeof low), NULL, 10);
    if (slice_equals(row->columns[3], "2")) {
        interrogate_reason(self->reasons, "advisory lock (%d, %d)", (int32_t)a, (int32_t)b);
    } else {
        interrogate_reason(self->reasons, "advisory lock %lld", (long long)(a << 32 | b));
    }
}

static void row_temporary(struct interrogation *self, const struct row *row)
{
    const char *what = "table";
    if (slice_equals(row->columns[2], "v")) {
        what = "view";
    } else if (slice_equals(row->columns[2], "S")) {
        what = "sequence";
    } else if (slice_equals(row->columns[2], "c")) {
        what = "type";
    }
    interrogate_reason(self->reasons, "temporary %s %s", what, row->name);
}

static void row_temporary_function(struct interrogation *self, const struct row *row)
{
    interrogate_reason(self->reasons, "temporary function %s", row->name);
}

static void row_temporary_type(struct interrogation *self, const struct row *row)
{
    interrogate_reason(self->reasons, "temporary type %s", row->name);
}

static void row_slot(struct interrogation *self, const struct row *row)
{
    interrogate_reason(self->reasons, "temporary replication slot %s", row->name);
}

static const struct {
    const char *kind;
    void (*take)(struct interrogation *interrogation, const struct row *row);
} takers[] = {
    {"auth", row_authorization},
    {"quick", row_quick},
    {"timeout", row_timeout},
    {"custom", row_custom},
    {"set", row_setting},
    {"prep", row_statement},
    {"cursor", row_cursor},
    {"listen", row_channel},
    {"lock", row_lock},
    {"temp", row_temporary},
    {"tempfn", row_temporary_function},
    {"temptype", row_temporary_type},
    {"slot", row_slot},
};

void interrogate_row(struct interrogation *self, struct slice body)
{
    struct row row;
    uint16_t count = 0;
    struct slice rest;
    if (!decode_data_row(body, &count, &rest) || count != COLUMNS) {
        self->failed = true;
        return;
    }
    for (size_t i = 0; i < COLUMNS; i++) {
        if (!decode_column_next(&rest, &row.columns[i], &row.nulls[i])) {
            self->failed = true;
            return;
        }
    }
    (void)slice_copy(row.columns[1], row.name, sizeof row.name);
    for (size_t i = 0; i < ARRAY_LENGTH(takers); i++) {
        if (slice_equals(row.columns[0], takers[i].kind)) {
            takers[i].take(self, &row);
            return;
        }
    }
    self->failed = true;
}
