#include "replication/stranded.h"

#include "conf/base/ensure.h"
#include "replication/names.h"
#include "replication/pgoutput.h"
#include "replication/sql.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_COLUMNS_MAX = 32, SHOWN_MOST = 400 };

/* A table of the slot's messages. */
struct table {
    uint32_t relation;
    bool is_marker;
    char *name, *columns;
    size_t key_count;
    char *key_names[KEY_COLUMNS_MAX];
    size_t key_at[KEY_COLUMNS_MAX]; /* its place in a tuple */
};

struct reading {
    struct blocking *side;
    struct stranded *stranded;
    struct table *tables;
    size_t table_count;
    uint64_t since;
    size_t began; /* of the transaction that is read: its first change */
    struct pgoutput_message message;
};

/* --- text --- */

void stranded_put_array(struct strbuf *text, const char *const *items, const size_t *lengths, size_t count)
{
    strbuf_puts(text, "{");
    for (size_t i = 0; i < count; i++) {
        strbuf_puts(text, i == 0 ? "\"" : ",\"");
        for (size_t k = 0; k < lengths[i]; k++) {
            if (items[i][k] == '"' || items[i][k] == '\\') {
                strbuf_puts(text, "\\");
            }
            strbuf_append(text, &items[i][k], 1);
        }
        strbuf_puts(text, "\"");
    }
    strbuf_puts(text, "}");
}

static char *taken(struct strbuf *text)
{
    char *copy = strbuf_take(text);
    ENSURE(copy != NULL);
    return copy;
}

/* --- tables --- */

static bool place_key(struct table *table, const struct pgoutput_message *relation, const char *name)
{
    for (size_t i = 0; i < relation->column_count; i++) {
        const struct pgoutput_value *column = &relation->columns[i];
        if (column->length == strlen(name) && memcmp(column->text, name, column->length) == 0) {
            table->key_at[table->key_count] = i;
            table->key_names[table->key_count] = strdup(name);
            ENSURE(table->key_names[table->key_count] != NULL);
            table->key_count++;
            return true;
        }
    }
    return false;
}

static void free_keys(struct table *table)
{
    for (size_t i = 0; i < table->key_count; i++) {
        free(table->key_names[i]);
    }
    table->key_count = 0;
}

/* The columns that identify a row: of the replica identity's index, else of the primary key. A table that is
 * gone, or has neither, has none. */
static bool find_key(struct reading *reading, struct table *table, struct error *error)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%" PRIu32, table->relation);
    const char *const parameters[] = {oid};
    PGresult *rows = blocking_query(
        reading->side, error,
        "select format('%I.%I', n.nspname, c.relname), a.attname, c.oid = 'switchback.marker'::regclass from "
        "pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace left join pg_index i on i.indrelid = c.oid and "
        "i.indisvalid and"
        " case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end left join lateral"
        " (select a.attname, k.place from unnest(i.indkey::int2[]) with ordinality k(attnum, place) join "
        "pg_attribute a"
        " on a.attrelid = c.oid and a.attnum = k.attnum where k.place <= i.indnkeyatts) a on true where "
        "c.oid = $1::oid"
        " order by a.place",
        1, parameters);
    if (rows == NULL) {
        return false;
    }
    bool whole = PQntuples(rows) <= KEY_COLUMNS_MAX;
    table->name = strdup(PQntuples(rows) > 0 ? row_text(rows, 0, 0) : "(dropped)");
    ENSURE(table->name != NULL);
    table->is_marker = PQntuples(rows) > 0 && row_truth(rows, 0, 2);
    for (int row = 0; whole && row < PQntuples(rows); row++) {
        whole = PQgetisnull(rows, row, 1) == 0 && place_key(table, &reading->message, row_text(rows, row, 1));
    }
    PQclear(rows);
    if (!whole) {
        free_keys(table);
    } else if (table->key_count > 0) {
        size_t lengths[KEY_COLUMNS_MAX] = {0};
        for (size_t i = 0; i < table->key_count; i++) {
            lengths[i] = strlen(table->key_names[i]);
        }
        struct strbuf text;
        strbuf_init(&text, SQL_LIMIT);
        stranded_put_array(&text, (const char *const *)table->key_names, lengths, table->key_count);
        table->columns = taken(&text);
    }
    return true;
}

static struct table *table_of(struct reading *reading, uint32_t relation)
{
    /* The last one counts: a table's columns may have changed in between. */
    for (size_t i = reading->table_count; i > 0; i--) {
        if (reading->tables[i - 1].relation == relation) {
            return &reading->tables[i - 1];
        }
    }
    return NULL;
}

static bool add_table(struct reading *reading, struct error *error)
{
    reading->tables = reallocarray(reading->tables, reading->table_count + 1, sizeof *reading->tables);
    ENSURE(reading->tables != NULL);
    struct table *table = &reading->tables[reading->table_count++];
    *table = (struct table){.relation = reading->message.relation};
    return find_key(reading, table, error);
}

/* --- changes --- */

static struct stranded_change *add_change(struct reading *reading, const struct table *table,
                                          const char *operation)
{
    struct stranded *stranded = reading->stranded;
    if (stranded->count == stranded->capacity) {
        stranded->capacity = stranded->capacity == 0 ? 64 : stranded->capacity * 2;
        stranded->changes = reallocarray(stranded->changes, stranded->capacity, sizeof *stranded->changes);
        ENSURE(stranded->changes != NULL);
    }
    struct stranded_change *change = &stranded->changes[stranded->count++];
    *change = (struct stranded_change){.operation = operation,
                                       .table = strdup(table == NULL ? "(unknown)" : table->name)};
    ENSURE(change->table != NULL);
    return change;
}

/* The row that a tuple names, if its key came with it. */
static void add_row(struct reading *reading, const struct table *table, const struct pgoutput_tuple *tuple,
                    const char *operation)
{
    struct stranded_change *change = add_change(reading, table, operation);
    const char *items[KEY_COLUMNS_MAX] = {NULL};
    size_t lengths[KEY_COLUMNS_MAX] = {0};
    bool whole = table->key_count > 0;
    for (size_t i = 0; whole && i < table->key_count; i++) {
        size_t at = table->key_at[i];
        whole = at < tuple->count && tuple->values[at].kind == 't';
        items[i] = whole ? tuple->values[at].text : "";
        lengths[i] = whole ? tuple->values[at].length : 0;
    }
    struct strbuf shown, key;
    strbuf_init(&shown, SQL_LIMIT);
    strbuf_init(&key, SQL_LIMIT);
    for (size_t i = 0; whole && i < table->key_count; i++) {
        int length = lengths[i] > SHOWN_MOST ? SHOWN_MOST : (int)lengths[i];
        strbuf_printf(&shown, "%s%s=%.*s", i == 0 ? "" : ", ", table->key_names[i], length, items[i]);
    }
    if (whole) {
        stranded_put_array(&key, items, lengths, table->key_count);
        change->key = taken(&key);
        change->columns = strdup(table->columns);
        ENSURE(change->columns != NULL);
    }
    strbuf_puts(&shown, "");
    change->shown = taken(&shown);
    strbuf_deinit(&key);
}

static void add_truncated(struct reading *reading)
{
    for (size_t i = 0; i < reading->message.relation_count; i++) {
        const struct table *table = table_of(reading, reading->message.relations[i]);
        struct stranded_change *change = add_change(reading, table, "truncate");
        change->shown = strdup("");
        ENSURE(change->shown != NULL);
    }
}

static void add_change_of(struct reading *reading)
{
    const struct pgoutput_message *message = &reading->message;
    const struct table *table = table_of(reading, message->relation);
    if (table == NULL || table->is_marker) {
        return;
    }
    const char *operation = message->kind == PGOUTPUT_INSERT   ? "insert"
                            : message->kind == PGOUTPUT_UPDATE ? "update"
                                                               : "delete";
    if (message->old.count > 0) {
        add_row(reading, table, &message->old, operation);
    }
    if (message->new.count > 0) {
        add_row(reading, table, &message->new, operation);
    }
}

static void free_change(struct stranded_change *change)
{
    free(change->table);
    free(change->columns);
    free(change->key);
    free(change->shown);
}

static void drop_changes(struct stranded *stranded, size_t from)
{
    for (size_t i = from; i < stranded->count; i++) {
        free_change(&stranded->changes[i]);
    }
    stranded->count = from;
}

void stranded_deinit(struct stranded *stranded)
{
    drop_changes(stranded, 0);
    free(stranded->changes);
    *stranded = (struct stranded){.changes = NULL};
}

static void end_transaction(struct reading *reading, const char *lsn, const char *xid)
{
    struct stranded *stranded = reading->stranded;
    if (reading->message.end_lsn <= reading->since) {
        drop_changes(stranded, reading->began); /* the active side has it */
    }
    for (size_t i = reading->began; i < stranded->count; i++) {
        (void)snprintf(stranded->changes[i].lsn, sizeof stranded->changes[i].lsn, "%s", lsn);
        (void)snprintf(stranded->changes[i].xid, sizeof stranded->changes[i].xid, "%s", xid);
    }
    stranded->transactions += stranded->count > reading->began ? 1 : 0;
    reading->began = stranded->count;
}

static bool take_message(struct reading *reading, const PGresult *rows, int row, struct error *error)
{
    size_t length = 0;
    unsigned char *bytes = PQunescapeBytea((const unsigned char *)row_text(rows, row, 2), &length);
    ENSURE(bytes != NULL);
    bool ok = pgoutput_parse(bytes, length, &reading->message) ||
              error_set(error, ERROR_PROTOCOL, "%s/%s: its slot says what pgoutput doesn't",
                        side_name(reading->side->side), reading->side->database);
    if (ok) {
        switch (reading->message.kind) {
        case PGOUTPUT_RELATION:
            ok = add_table(reading, error);
            break;
        case PGOUTPUT_INSERT:
        case PGOUTPUT_UPDATE:
        case PGOUTPUT_DELETE:
            add_change_of(reading);
            break;
        case PGOUTPUT_TRUNCATE:
            add_truncated(reading);
            break;
        case PGOUTPUT_COMMIT:
            end_transaction(reading, row_text(rows, row, 0), row_text(rows, row, 1));
            break;
        case PGOUTPUT_BEGIN:
        case PGOUTPUT_OTHER:
            break;
        }
    }
    PQfreemem(bytes);
    return ok;
}

/* --- the slot --- */

/* A crash sets the slot back to its last checkpoint: most of what it holds then is long on the active side,
 * and isn't fetched. What describes a table may stand in any transaction. */
static PGresult *peek(struct reading *reading, struct error *error)
{
    struct blocking *side = reading->side;
    char slot[NAMES_SLOT_SIZE], most[16], since[24];
    (void)snprintf(most, sizeof most, "%d", STRANDED_MOST);
    (void)snprintf(since, sizeof since, "%" PRIu64, reading->since);
    const char *const parameters[] = {names_slot(side->side, side->database, slot), most,
                                      names_publication(side->side), since};
    return blocking_query(side, error,
                          "with c as materialized (select lsn, xid, data, chr(get_byte(data, 0)) as kind, n"
                          " from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1',"
                          " 'publication_names', $3) with ordinality as p (lsn, xid, data, n))"
                          " select lsn, xid, data from c where kind = 'R' or xid in (select xid from c where"
                          " kind = 'C' and lsn - '0/0'::pg_lsn > $4::numeric) order by n limit $2::int",
                          4, parameters);
}

static bool read_since(struct reading *reading, const char *has, struct error *error)
{
    const char *const parameters[] = {has};
    char *since =
        blocking_value(reading->side, error,
                       "select (greatest(start_lsn, $1::pg_lsn) - '0/0'::pg_lsn)::text from switchback.state",
                       1, parameters);
    if (since == NULL) {
        return false;
    }
    reading->since = strtoull(since, NULL, 10);
    free(since);
    return true;
}

bool stranded_read(struct blocking *side, const char *has, struct stranded *stranded, struct error *error)
{
    *stranded = (struct stranded){.changes = NULL};
    struct reading *reading = calloc(1, sizeof *reading); /* a message is too large for a thread's stack */
    ENSURE(reading != NULL);
    reading->side = side;
    reading->stranded = stranded;
    PGresult *rows = read_since(reading, has, error) ? peek(reading, error) : NULL;
    bool ok = rows != NULL;
    for (int row = 0; ok && row < PQntuples(rows); row++) {
        ok = take_message(reading, rows, row, error);
    }
    stranded->incomplete = rows != NULL && PQntuples(rows) >= STRANDED_MOST;
    PQclear(rows);
    for (size_t i = 0; i < reading->table_count; i++) {
        free_keys(&reading->tables[i]);
        free(reading->tables[i].name);
        free(reading->tables[i].columns);
    }
    free(reading->tables);
    free(reading);
    if (!ok) {
        stranded_deinit(stranded);
    }
    return ok;
}
