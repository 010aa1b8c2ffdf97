#include "replication/stream.h"

#include "conf/base/clock.h"
#include "conf/base/network.h"
#include "replication/names.h"
#include "replication/sql.h"
#include "replication/tables.h"
#include "replication/tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_RELEASE_US = 15 * 1000000, SLOT_PAUSE_US = 50000 };

#define THIS_DATABASE "(select oid from pg_database where datname = current_database())"

/* SQL: what the publication or subscription has, as sorted text; NULL if it doesn't exist. */
#define PUBLISHED                                                                                            \
    "select string_agg(r.prrelid::regclass::text, ',' order by r.prrelid::regclass::text collate \"C\")"     \
    " from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = $1"
#define SUBSCRIBED                                                                                           \
    "select coalesce(string_agg(r.srrelid::regclass::text, ',' order by r.srrelid::regclass::text collate"   \
    " \"C\"), ''), s.subenabled from pg_subscription s left join pg_subscription_rel r on r.srsubid = s.oid" \
    " where s.subname = $1 and s.subdbid = (select oid from pg_database where datname = current_database())" \
    " group by s.oid, s.subenabled"

static bool read_slot(struct blocking *publisher, struct stream_facts *facts, struct error *error)
{
    char slot[NAMES_SLOT_SIZE];
    const char *const parameters[] = {names_slot(publisher->side, publisher->database, slot)};
    PGresult *result =
        blocking_query(publisher, error,
                       "select active, wal_status in ('reserved', 'extended', 'unreserved') and"
                       " plugin = 'pgoutput' and database = current_database() from"
                       " pg_replication_slots where slot_name = $1",
                       1, parameters);
    if (result == NULL) {
        return false;
    }
    facts->slot = PQntuples(result) > 0;
    facts->slot_active = facts->slot && row_truth(result, 0, 0);
    facts->usable = facts->slot && row_truth(result, 0, 1);
    PQclear(result);
    return true;
}

bool stream_read(const struct stream *stream, struct stream_facts *facts, struct error *error)
{
    *facts = (struct stream_facts){.slot = false};
    enum side side = stream->publisher->side;
    const char *const publication[] = {names_publication(side)};
    const char *const subscription[] = {names_subscription(side)};
    if (!read_slot(stream->publisher, facts, error)) {
        return false;
    }
    char *published = blocking_value(stream->publisher, error, PUBLISHED, 1, publication);
    PGresult *subscribed =
        published == NULL ? NULL : blocking_query(stream->subscriber, error, SUBSCRIBED, 1, subscription);
    bool ok = subscribed != NULL;
    if (ok) {
        facts->subscribed = PQntuples(subscribed) > 0;
        facts->enabled = facts->subscribed && row_truth(subscribed, 0, 1);
        facts->same_tables = facts->subscribed && strcmp(row_text(subscribed, 0, 0), published) == 0;
    }
    PQclear(subscribed);
    free(published);
    return ok;
}

/* --- tables that are being copied --- */

/* SQL: the names that sync workers give to their slots (14 and newer; before, slots were temporary and 'f'
 * unknown). */
#define UNFINISHED                                                                                           \
    "select coalesce(array_agg(format('pg_%s_sync_%s_%s', s.oid, r.srrelid, c.system_identifier)), "         \
    "'{}')::text"                                                                                            \
    " from pg_subscription s join pg_subscription_rel r on r.srsubid = s.oid, pg_control_system() c where"   \
    " s.subname = $1 and s.subdbid = " THIS_DATABASE " and r.srsubstate = 'f'"
#define WITHOUT_SLOT                                                                                         \
    "select coalesce(array_agg(u), '{}')::text from unnest($1::text[]) u where u not in (select slot_name "  \
    "from"                                                                                                   \
    " pg_replication_slots) and ($2 = '{}' or u = any ($2::text[]))"

bool stream_find_stuck(const struct stream *stream, char **suspects, struct error *error)
{
    const char *const subscription[] = {names_subscription(stream->publisher->side)};
    char *unfinished = blocking_value(stream->subscriber, error, UNFINISHED, 1, subscription);
    if (unfinished == NULL) {
        return false;
    }
    const char *const parameters[] = {unfinished, *suspects};
    char *found = blocking_value(stream->publisher, error, WITHOUT_SLOT, 2, parameters);
    free(unfinished);
    if (found == NULL) {
        return false;
    }
    free(*suspects);
    *suspects = found;
    return true;
}

bool stream_flush_commits(const struct stream *stream, struct error *error)
{
    const char *name = names_subscription(stream->publisher->side);
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    sql_format(&sql,
               "do $do$ begin if exists (select from pg_subscription where subname = %L and subsynccommit <>"
               " 'local' and subdbid = " THIS_DATABASE
               ") then alter subscription %I set (synchronous_commit = local); end if; end $do$",
               name, name);
    bool ok = blocking_run_buffer(stream->subscriber, error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

/* --- publication --- */

/* On the subscriber: {"public.orders": ["id", "name"]}, as the publisher's query below takes it. */
static const char subscriber_columns[] =
    WITH_MANAGED "select coalesce(jsonb_object_agg(m.name, (select coalesce(jsonb_agg(a.attname), '[]') from"
                 " pg_attribute a where a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped and"
                 " a.attgenerated = '')), '{}')::text from managed m";

/*
 * On the publisher: what the publication should list, a row for each table: (entry, trouble). A column that
 * the subscriber lacks is left out by a column list, if that can be.
 */
static const char wanted_entries[] = WITH_MANAGED
    ", columns as (select m.oid, a.attnum, a.attname, $1::jsonb -> m.name ? a.attname::text as there,"
    " m.relreplident = 'f' or exists (select from pg_index i where i.indrelid = m.oid and a.attnum ="
    " any (i.indkey) and (i.indisreplident and m.relreplident = 'i' or i.indisprimary and m.relreplident = "
    "'d'))"
    " as identifies from managed m join pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not"
    " a.attisdropped and a.attgenerated = '' where $1::jsonb ? m.name)"
    " select 'only ' || m.name || coalesce((select case when bool_and(c.there) then '' else ' (' ||"
    " string_agg(quote_ident(c.attname), ', ' order by c.attnum) filter (where c.there) || ')' end from "
    "columns c"
    " where c.oid = m.oid), ''),"
    " (select case when current_setting('server_version_num')::int < 150000 then 'needs a column list (15 or"
    " newer)' when bool_or(c.identifies and not c.there) then 'identifies rows by a column that the other "
    "side"
    " lacks' end from columns c where c.oid = m.oid and (not c.there or c.identifies) having not"
    " bool_and(c.there)), m.name from managed m order by m.name collate \"C\"";

/* What it lists now, in the same form. */
static const char present_entries[] =
    "select 'only ' || c.name || coalesce(' (' || (select string_agg(quote_ident(a.attname), ', ' order by"
    " a.attnum) from pg_attribute a where a.attrelid = c.oid and a.attnum = any (string_to_array(to_jsonb(r) "
    "->>"
    " 'prattrs', ' ')::int2[])) || ')', '') from pg_publication_rel r join pg_publication p on p.oid = "
    "r.prpubid"
    " join lateral (select k.oid, format('%I.%I', n.nspname, k.relname) as name from pg_class k join "
    "pg_namespace"
    " n on n.oid = k.relnamespace where k.oid = r.prrelid) c on true where p.pubname = $1 and r.prrelid <>"
    " 'switchback.marker'::regclass order by c.name collate \"C\"";

static bool put_entries(const struct blocking *publisher, const PGresult *rows, struct strbuf *list,
                        struct error *error)
{
    for (int row = 0; row < PQntuples(rows); row++) {
        if (PQnfields(rows) > 1 && *row_text(rows, row, 1) != '\0') {
            error_set(error, ERROR_CHECK_FAILED, "%s, database %s: %s %s", side_name(publisher->side),
                      publisher->database, row_text(rows, row, 2), row_text(rows, row, 1));
            return error_remedy(error, "make the columns of both sides alike");
        }
        strbuf_printf(list, "%s, ", row_text(rows, row, 0));
    }
    strbuf_puts(list, "only switchback.marker");
    return true;
}

/* Appends the wanted list. */
static bool put_wanted(const struct stream *stream, struct strbuf *list, struct error *error)
{
    char *columns = blocking_value(stream->subscriber, error, subscriber_columns, 0, NULL);
    if (columns == NULL) {
        return false;
    }
    const char *const parameters[] = {columns};
    PGresult *rows = blocking_query(stream->publisher, error, wanted_entries, 1, parameters);
    bool ok = rows != NULL && put_entries(stream->publisher, rows, list, error);
    PQclear(rows);
    free(columns);
    return ok;
}

static bool put_present(const struct stream *stream, bool *exists, struct strbuf *list, struct error *error)
{
    const char *const parameters[] = {names_publication(stream->publisher->side)};
    char *found = blocking_value(stream->publisher, error,
                                 "select count(*) from pg_publication where pubname = $1", 1, parameters);
    PGresult *rows =
        found == NULL ? NULL : blocking_query(stream->publisher, error, present_entries, 1, parameters);
    *exists = rows != NULL && strcmp(found, "0") != 0;
    bool ok = rows != NULL && put_entries(stream->publisher, rows, list, error);
    PQclear(rows);
    free(found);
    return ok;
}

bool stream_publish(const struct stream *stream, struct error *error)
{
    struct strbuf wanted;
    struct strbuf present;
    struct strbuf sql;
    strbuf_init(&wanted, SQL_LIMIT);
    strbuf_init(&present, SQL_LIMIT);
    strbuf_init(&sql, SQL_LIMIT);
    bool exists = false;
    bool ok = put_wanted(stream, &wanted, error) && put_present(stream, &exists, &present, error);
    if (ok && (!exists || strcmp(strbuf_text(&wanted), strbuf_text(&present)) != 0)) {
        sql_format(&sql, exists ? "alter publication %I set table %s" : "create publication %I for table %s",
                   names_publication(stream->publisher->side), strbuf_text(&wanted));
        sql.failed = sql.failed || wanted.failed;
        ok = blocking_run_buffer(stream->publisher, error, &sql);
    }
    strbuf_deinit(&wanted);
    strbuf_deinit(&present);
    strbuf_deinit(&sql);
    return ok;
}

/* --- slot --- */

bool stream_create_slot(const struct stream *stream, struct error *error)
{
    char slot[NAMES_SLOT_SIZE];
    const char *const parameters[] = {names_slot(stream->publisher->side, stream->publisher->database, slot)};
    char *lsn =
        blocking_value(stream->publisher, error,
                       "select lsn from pg_create_logical_replication_slot($1, 'pgoutput')", 1, parameters);
    free(lsn);
    return lsn != NULL;
}

bool stream_drop_slot(struct blocking *publisher, struct error *error)
{
    char slot[NAMES_SLOT_SIZE];
    const char *const parameters[] = {names_slot(publisher->side, publisher->database, slot)};
    int64_t deadline = clock_mono_us() + SLOT_RELEASE_US;
    for (;;) {
        char *dropped =
            blocking_value(publisher, error,
                           "select pg_drop_replication_slot(slot_name) from pg_replication_slots where"
                           " slot_name = $1 and database = current_database()",
                           1, parameters);
        if (dropped != NULL) {
            free(dropped);
            return true;
        }
        /* in use: its subscriber is just leaving */
        if (strcmp(publisher->sqlstate, "55006") != 0 || clock_mono_us() > deadline ||
            !task_sleep(publisher->task, SLOT_PAUSE_US, error)) {
            return false;
        }
    }
}

/* --- subscription --- */

static void put_conninfo_value(struct strbuf *conninfo, const char *name, const char *value)
{
    strbuf_printf(conninfo, "%s='", name);
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\') {
            strbuf_puts(conninfo, "\\");
        }
        strbuf_append(conninfo, value, 1);
    }
    strbuf_puts(conninfo, "' ");
}

/* Paths are of the subscriber's machine. */
static void put_tls(struct strbuf *conninfo, const struct settings_tls *tls)
{
    struct tls_parameter parameters[TLS_PARAMETERS];
    tls_parameters(tls, parameters);
    for (size_t i = 0; i < (tls->mode == TLS_MODE_DISABLE ? 1 : TLS_PARAMETERS); i++) {
        put_conninfo_value(conninfo, parameters[i].keyword, parameters[i].value);
    }
}

void stream_put_conninfo(const struct stream *stream, struct strbuf *conninfo)
{
    enum side side = stream->publisher->side;
    const struct settings_endpoint *way = &stream->brief->sides[side].replication;
    char port[16];
    char slot[NAMES_SLOT_SIZE];
    (void)snprintf(port, sizeof port, "%d", (int)way->port);
    const struct brief_side *to = &stream->brief->sides[side];
    const char *name = network_is_address(way->host) ? tls_host(way->host, to->tls_server_name) : NULL;
    put_conninfo_value(conninfo, "host", name == NULL ? way->host : name);
    if (name != NULL) {
        put_conninfo_value(conninfo, "hostaddr", way->host);
    }
    put_conninfo_value(conninfo, "port", port);
    put_conninfo_value(conninfo, "user", way->user);
    if (*way->password != '\0') {
        put_conninfo_value(conninfo, "password", way->password);
    }
    put_conninfo_value(conninfo, "dbname", stream->publisher->database);
    put_tls(conninfo, &to->replication_tls);
    /* unique in the cluster, as a subscription's own name isn't */
    put_conninfo_value(conninfo, "application_name", names_slot(side, stream->publisher->database, slot));
    strbuf_puts(conninfo,
                "connect_timeout='10' keepalives_idle='5' keepalives_interval='2' keepalives_count='3'");
}

/* A table whose row security is forced on its owner would stop a worker that writes as the owner. */
static bool must_run_as_manager(struct blocking *subscriber, bool *must, struct error *error)
{
    char *found =
        blocking_value(subscriber, error,
                       WITH_MANAGED "select exists (select from managed m where m.relrowsecurity and"
                                    " m.relforcerowsecurity)",
                       0, NULL);
    *must = found != NULL && *found == 't';
    bool ok = found != NULL;
    free(found);
    return ok;
}

bool stream_put_subscription(const struct stream *stream, bool forward, struct strbuf *sql,
                             struct error *error)
{
    enum side side = stream->publisher->side;
    int subscriber = stream->subscriber->version;
    int lower = subscriber < stream->publisher->version ? subscriber : stream->publisher->version;
    char slot[NAMES_SLOT_SIZE];
    bool as_manager = false;
    if (subscriber >= 160000 && !must_run_as_manager(stream->subscriber, &as_manager, error)) {
        return false;
    }
    struct strbuf conninfo;
    strbuf_init(&conninfo, SQL_LIMIT);
    stream_put_conninfo(stream, &conninfo);
    sql_format(
        sql,
        "create subscription %I connection %L publication %I with (create_slot = false, slot_name = %L,"
        " synchronous_commit = local, enabled = %s, copy_data = %s",
        names_subscription(side), strbuf_text(&conninfo), names_publication(side),
        names_slot(side, stream->publisher->database, slot), forward ? "true" : "false",
        forward ? "true" : "false");
    if (lower >= 140000) {
        sql_format(sql, ", streaming = %s", lower >= 160000 ? "parallel" : "on");
    }
    if (as_manager) {
        strbuf_puts(sql, ", run_as_owner = true");
    }
    strbuf_puts(sql, ");");
    sql->failed = sql->failed || conninfo.failed;
    explicit_bzero(conninfo.data, conninfo.length);
    strbuf_deinit(&conninfo);
    return true;
}

/* Without its slot, so that it needs no connection to the publisher; stream_drop_slot comes after. */
bool stream_drop_subscription(struct blocking *subscriber, enum side publisher, struct error *error)
{
    const char *const parameters[] = {names_subscription(publisher)};
    char *found =
        blocking_value(subscriber, error,
                       "select count(*) from pg_subscription where subname = $1 and subdbid = (select oid"
                       " from pg_database where datname = current_database())",
                       1, parameters);
    if (found == NULL) {
        return false;
    }
    bool exists = strcmp(found, "0") != 0;
    free(found);
    if (!exists) {
        return true;
    }
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    sql_format(&sql,
               "begin; alter subscription %I disable; alter subscription %I set (slot_name = none);"
               "drop subscription %I; commit",
               parameters[0], parameters[0], parameters[0]);
    bool ok = blocking_run_buffer(subscriber, error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

bool stream_drop_publication(struct blocking *publisher, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    sql_format(&sql, "drop publication if exists %I", names_publication(publisher->side));
    bool ok = blocking_run_buffer(publisher, error, &sql);
    strbuf_deinit(&sql);
    return ok;
}
