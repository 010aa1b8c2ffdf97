#include "proxy/interrogate.h"

#include "proxy/wire/decode.h"
#include "proxy/wire/prepare_text.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * Rows (k, a, b, c, d), everything qualified: the session's search_path is anybody's. Functions instead of
 * the views that stand on them, and a small question for each matter instead of one union of all: planning
 * that is most of what the answer costs. Portals and cursors that don't outlive a transaction are none at the
 * boundary.
 */
#define T "::pg_catalog.text"

/* The digest is of what functions set for the whole session most often: if it changes, everything is asked.
 */
static const char ask_session[] =
    "select 'auth'" T ", pg_catalog.current_setting('session_authorization'),"
    " pg_catalog.current_setting('role'), pg_catalog.hashtextextended(pg_catalog.concat_ws('/',"
    " pg_catalog.current_setting('search_path'), pg_catalog.current_setting('TimeZone'),"
    " pg_catalog.current_setting('DateStyle'), pg_catalog.current_setting('IntervalStyle'),"
    " pg_catalog.current_setting('client_encoding'), pg_catalog.current_setting('row_security'),"
    " pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('work_mem'),"
    " pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('application_name'),"
    " pg_catalog.current_setting('default_transaction_isolation'),"
    " pg_catalog.current_setting('default_transaction_read_only'),"
    " pg_catalog.current_setting('statement_timeout'),"
    " pg_catalog.current_setting('transaction_timeout', true),"
    " pg_catalog.current_setting('idle_session_timeout', true)), 0)" T ","
    " pg_catalog.pg_my_temp_schema()" T;
/* Between its two parts stand the names. */
static const char ask_names[] = "select 'custom'" T ", n, pg_catalog.current_setting(n, true), null" T
                                ", null" T " from pg_catalog.unnest(pg_catalog.string_to_array('";
static const char ask_names_end[] = "', ' ')) n";
static const char *const cheap[] = {
    "select 'prep'" T ", p.name, p.statement, p.parameter_types::pg_catalog.oid[]" T ", p.from_sql" T
    " from pg_catalog.pg_prepared_statement() p",
    "select 'cursor'" T ", c.name, null" T ", null" T ", null" T
    " from pg_catalog.pg_cursor() c where c.is_holdable",
    "select 'listen'" T ", l, null" T ", null" T ", null" T " from pg_catalog.pg_listening_channels() l",
};
static const char *const full[] = {
    "select 'lock'" T ", l.classid" T ", l.objid" T ", l.objsubid" T ", null" T
    " from pg_catalog.pg_lock_status() l where l.locktype operator(pg_catalog.=) 'advisory'"
    " and l.granted and l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()",
    /* whatever stands in a schema depends on it (pg_namespace is 2615), and that has an index */
    "select 'temp'" T ", i.type, i.identity, null" T ", null" T " from pg_catalog.pg_depend d,"
    " pg_catalog.pg_identify_object(d.classid, d.objid, 0) i"
    " where pg_catalog.pg_my_temp_schema() operator(pg_catalog.<>) 0::pg_catalog.oid"
    " and d.refclassid operator(pg_catalog.=) 2615::pg_catalog.oid"
    " and d.refobjid operator(pg_catalog.=) pg_catalog.pg_my_temp_schema()",
    "select 'set'" T ", s.name, pg_catalog.current_setting(s.name), null" T ", null" T
    " from pg_catalog.pg_show_all_settings() s where s.source operator(pg_catalog.=) 'session'",
    "select 'slot'" T ", r.slot_name" T ", null" T ", null" T ", null" T
    " from pg_catalog.pg_replication_slots r"
    " where r.temporary and r.active_pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()",
};

/*
 * set_config(..., true) ends with our Sync, and the client's own value stands again; its source is looked up
 * before, only where there is something to put aside.
 */
static const char put_timeouts_aside[] =
    "select 'timeout'" T ", t.n, t.v,"
    " case when t.v operator(pg_catalog.<>) '0' then"
    " (select s.source from pg_catalog.pg_show_all_settings() s where s.name operator(pg_catalog.=) t.n) end,"
    " case when t.v operator(pg_catalog.<>) '0' then pg_catalog.set_config(t.n, '0', true) end"
    " from (select n, pg_catalog.current_setting(n, true) as v from pg_catalog.unnest("
    "'{statement_timeout,lock_timeout,transaction_timeout,idle_session_timeout}'::pg_catalog.text[]) n) t";

#define ASIDE INTERROGATE_PREFIX "aside"
#define ASK   INTERROGATE_PREFIX "ask"

enum { COLUMNS = 5 };

static void execute(struct build *build, const char *name)
{
    build_bind(build, slice_text(name), slice_text(name), NULL, 0);
    build_execute(build, slice_text(name), 0);
    build_close(build, 'P', slice_text(name));
    build_close(build, 'S', slice_text(name));
}

static void ask(struct build *build, const char *name, const char *sql)
{
    build_parse(build, slice_text(name), slice_text(sql), NULL, 0);
    execute(build, name);
}

static void ask_by_name(struct build *build, struct slice names)
{
    build_begin(build, 'P');
    build_string(build, ASK);
    build_bytes(build, ask_names, sizeof ask_names - 1);
    build_bytes(build, names.data, names.length);
    build_string(build, ask_names_end);
    build_u16(build, 0);
    build_end(build);
    execute(build, ASK);
}

unsigned interrogate_build(struct build *build, const struct interrogate_question *question)
{
    unsigned count = 1;
    build_close(build, 'S', slice_text(ASIDE)); /* an error has perhaps left them behind */
    build_close(build, 'S', slice_text(ASK));
    if (question->aside) {
        ask(build, ASIDE, put_timeouts_aside);
        count++;
    }
    ask(build, ASK, ask_session);
    if (question->names.length > 0) {
        ask_by_name(build, question->names);
        count++;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(cheap); i++, count++) {
        ask(build, ASK, cheap[i]);
    }
    for (size_t i = 0; question->level == INTERROGATE_FULL && i < ARRAY_LENGTH(full); i++, count++) {
        ask(build, ASK, full[i]);
    }
    if (question->unnamed) {
        build_describe(build, 'S', slice_of("", 0));
    }
    build_sync(build);
    return count;
}

/* One lock of each: it is for people, and one is enough to be in the way. */
static const char who_holds[] =
    "select 'lock'" T ", l.pid" T ", l.classid" T ", l.objid" T ", l.objsubid" T
    " from (select distinct on (a.pid) a.pid, a.classid, a.objid, a.objsubid from "
    "pg_catalog.pg_lock_status() a"
    " where a.locktype operator(pg_catalog.=) 'advisory' and a.granted and a.pid is not null) l"
    " union all select 'slot', r.active_pid" T ", r.slot_name" T ", null, null"
    " from pg_catalog.pg_replication_slots r where r.temporary and r.active_pid is not null";

void interrogate_build_scout(struct build *build)
{
    build_close(build, 'S', slice_text(ASIDE));
    build_close(build, 'S', slice_text(ASK));
    ask(build, ASIDE, put_timeouts_aside);
    ask(build, ASK, who_holds);
    build_sync(build);
}

void interrogate_build_cleanup(struct build *build)
{
    build_close(build, 'S', slice_text(ASIDE));
    build_close(build, 'S', slice_text(ASK));
    build_sync(build);
}

const char *interrogate_aside_sql(void)
{
    return put_timeouts_aside;
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

/* --- rows --------------------------------------------------------------------------------------------------
 */

struct row {
    struct slice columns[COLUMNS];
    bool nulls[COLUMNS];
    char name[192]; /* of column a, for people */
};

static bool read_row(struct slice body, struct row *row)
{
    uint16_t count = 0;
    struct slice rest;
    if (!decode_data_row(body, &count, &rest) || count != COLUMNS) {
        return false;
    }
    for (size_t i = 0; i < COLUMNS; i++) {
        if (!decode_column_next(&rest, &row->columns[i], &row->nulls[i])) {
            return false;
        }
    }
    (void)slice_copy(row->columns[1], row->name, sizeof row->name);
    return true;
}

static void add(struct interrogation *self, enum snapshot_kind kind, struct slice name, struct slice value,
                struct slice extra)
{
    if (!snapshot_add(self->snapshot, kind, name, value, extra)) {
        self->failed = true;
    }
}

static void row_session(struct interrogation *self, const struct row *row)
{
    struct slice none = slice_of("", 0);
    add(self, SNAPSHOT_AUTHORIZATION, slice_text("session_authorization"), row->columns[1], none);
    add(self, SNAPSHOT_AUTHORIZATION, slice_text("role"), row->columns[2], none);
    (void)slice_copy(row->columns[3], self->quick, sizeof self->quick);
    self->temporary = !row->nulls[4] && !slice_equals(row->columns[4], "0");
}

static const char *const aside_names[ASIDE_COUNT] = {[ASIDE_STATEMENT] = "statement_timeout",
                                                     [ASIDE_LOCK] = "lock_timeout",
                                                     [ASIDE_TRANSACTION] = "transaction_timeout",
                                                     [ASIDE_IDLE_SESSION] = "idle_session_timeout"};

static void row_timeout(struct interrogation *self, const struct row *row)
{
    for (size_t i = 0; i < ASIDE_COUNT; i++) {
        if (slice_equals(row->columns[1], aside_names[i]) && !row->nulls[2] &&
            !slice_equals(row->columns[2], "0")) {
            (void)slice_copy(row->columns[2], self->aside[i], sizeof self->aside[i]);
            self->set_here[i] = slice_equals(row->columns[3], "session");
        }
    }
}

/* FNV-1a, with an end to each text. */
static uint64_t digest(uint64_t sum, struct slice text)
{
    for (size_t i = 0; i <= text.length; i++) {
        sum = (sum ^ (i < text.length ? text.data[i] : 0)) * UINT64_C(1099511628211);
    }
    return sum;
}

/* A name without a dot is one of the server's own settings: that it changed is enough to ask for all of them.
 */
static void row_custom(struct interrogation *self, const struct row *row)
{
    struct slice name = row->columns[1];
    if (name.length > 0 && memchr(name.data, '.', name.length) == NULL) {
        self->named = digest(digest(self->named, name), row->columns[2]);
    } else if (!row->nulls[2]) { /* else nobody has set it: the name was only mentioned */
        add(self, SNAPSHOT_CUSTOM, row->columns[1], row->columns[2], slice_of("", 0));
    }
}

static void row_setting(struct interrogation *self, const struct row *row)
{
    struct slice value = row->columns[2];
    for (size_t i = 0; i < ASIDE_COUNT; i++) {
        if (self->aside[i][0] != '\0' && slice_equals(row->columns[1], aside_names[i])) {
            if (!self->set_here[i]) {
                return; /* only we did, until our Sync */
            }
            value = slice_text(self->aside[i]);
        }
    }
    add(self, SNAPSHOT_SETTING, row->columns[1], value, slice_of("", 0));
}

static void row_statement(struct interrogation *self, const struct row *row)
{
    if (slice_equals(row->columns[1], ASK) || slice_equals(row->columns[1], ASIDE)) {
        return;
    }
    if (slice_equals(row->columns[4], "true")) {
        if (!prepare_text_is_alone(row->columns[2], row->columns[1])) {
            interrogate_reason(self->reasons, "statement %s was prepared by SQL among other statements",
                               row->name);
        }
        add(self, SNAPSHOT_SQL_STATEMENT, row->columns[1], row->columns[2], slice_of("", 0));
        return;
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

static unsigned long number(struct slice text)
{
    char digits[16];
    return strtoul(slice_copy(text, digits, sizeof digits), NULL, 10);
}

/* pg_locks shows a bigint key as its halves with objsubid 1, two integer keys with objsubid 2. */
static void name_lock(const struct slice key[3], char *name, size_t size)
{
    unsigned long high = number(key[0]);
    unsigned long low = number(key[1]);
    if (slice_equals(key[2], "2")) {
        (void)snprintf(name, size, "advisory lock (%d, %d)", (int32_t)high, (int32_t)low);
    } else {
        (void)snprintf(name, size, "advisory lock %lld", (long long)(high << 32 | low));
    }
}

static void row_lock(struct interrogation *self, const struct row *row)
{
    char name[MOVE_HOLDING_SIZE];
    name_lock(&row->columns[1], name, sizeof name);
    interrogate_reason(self->reasons, "%s", name);
}

bool interrogate_scout_row(struct slice body, uint32_t *pid, char holding[MOVE_HOLDING_SIZE])
{
    struct row row;
    if (!read_row(body, &row)) {
        return false;
    }
    *pid = (uint32_t)number(row.columns[1]);
    if (slice_equals(row.columns[0], "lock")) {
        name_lock(&row.columns[2], holding, MOVE_HOLDING_SIZE);
    } else {
        char slot[64];
        (void)snprintf(holding, MOVE_HOLDING_SIZE, "temporary replication slot %s",
                       slice_copy(row.columns[2], slot, sizeof slot));
    }
    return true;
}

static void row_temporary(struct interrogation *self, const struct row *row)
{
    static const char schema[] = "pg_temp.";
    char name[192];
    (void)slice_copy(row->columns[2], name, sizeof name);
    bool qualified = strncmp(name, schema, sizeof schema - 1) == 0;
    interrogate_reason(self->reasons, "temporary %s %s", row->name,
                       qualified ? name + sizeof schema - 1 : name);
}

static void row_slot(struct interrogation *self, const struct row *row)
{
    interrogate_reason(self->reasons, "temporary replication slot %s", row->name);
}

static const struct {
    const char *kind;
    void (*take)(struct interrogation *interrogation, const struct row *row);
} takers[] = {
    {"auth", row_session},   {"timeout", row_timeout}, {"custom", row_custom},  {"set", row_setting},
    {"prep", row_statement}, {"cursor", row_cursor},   {"listen", row_channel}, {"lock", row_lock},
    {"temp", row_temporary}, {"slot", row_slot},
};

void interrogate_row(struct interrogation *self, struct slice body)
{
    struct row row;
    if (!read_row(body, &row)) {
        self->failed = true;
        return;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(takers); i++) {
        if (slice_equals(row.columns[0], takers[i].kind)) {
            takers[i].take(self, &row);
            return;
        }
    }
    self->failed = true;
}
