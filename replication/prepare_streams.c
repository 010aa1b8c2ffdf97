/* prepare, steps 7 and 9: the streams. Forward copies and runs; reverse stands by, disabled, until a flip
 * turns it. */
#include "conf/base/log.h"
#include "replication/prepare.h"
#include "replication/stream.h"
#include "replication/tables.h"

#include <string.h>

static struct stream forward_of(const struct prepare *prepare, size_t database)
{
    const struct prepare_database *own = &prepare->databases[database];
    return (struct stream){prepare->brief, own->sides[prepare->active], own->sides[prepare->standby]};
}

static struct stream reverse_of(const struct prepare *prepare, size_t database)
{
    const struct prepare_database *own = &prepare->databases[database];
    return (struct stream){prepare->brief, own->sides[prepare->standby], own->sides[prepare->active]};
}

/* --- forward --- */

/* Empties what an earlier prepare had copied. Foreign keys don't matter: the manager's role is replica. */
static bool empty_tables(struct blocking *standby, struct error *error)
{
    struct settings_list tables;
    if (!prepare_list(standby, error,
                      WITH_MANAGED "select m.name from managed m where m.name in (" COPIED_TABLES ")",
                      &tables)) {
        return false;
    }
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    for (size_t i = 0; i < tables.count; i++) {
        strbuf_printf(&sql, "%s%s", i == 0 ? "truncate only " : ", only ", tables.items[i]);
    }
    bool ok = tables.count == 0 || prepare_run(standby, error, &sql);
    if (!ok && strcmp(standby->sqlstate, "0A000") == 0) {
        /* a table that isn't ours refers to one of these: its rows stay, so TRUNCATE is refused */
        ok = true;
        for (size_t i = 0; ok && i < tables.count; i++) {
            strbuf_clear(&sql);
            sql_format(&sql, "delete from only %s", tables.items[i]);
            ok = prepare_run(standby, error, &sql);
        }
    }
    strbuf_deinit(&sql);
    settings_list_deinit(&tables);
    return ok;
}

/*
 * The subscription, in one transaction with the note of which tables it fills: whoever finds rows in them
 * later knows where they come from. The markers go, because all of them are copied again.
 */
static bool subscribe(const struct stream *stream, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    strbuf_puts(&sql, "begin; delete from switchback.marker; delete from switchback.unflushed;"
                      " update switchback.state set gap = null, fresh = true; " NOTE_COPIED ";");
    bool ok = stream_put_subscription(stream, true, &sql, error);
    if (ok) {
        strbuf_puts(&sql, "commit");
        ok = prepare_run(stream->subscriber, error, &sql);
        if (!ok && error->code == ERROR_SQL && *error->remedy == '\0') {
            error_remedy(
                error,
                "%s must reach %s at sides.%s.replication, and its pg_hba.conf must admit that user to "
                "this database",
                side_name(stream->subscriber->side), side_name(stream->publisher->side),
                side_name(stream->publisher->side));
        }
    }
    if (sql.data != NULL) {
        explicit_bzero(sql.data, sql.length); /* the password */
    }
    strbuf_deinit(&sql);
    return ok;
}

static bool build_forward(struct prepare *prepare, size_t database, struct error *error)
{
    struct prepare_database *own = &prepare->databases[database];
    struct stream stream = forward_of(prepare, database);
    own->rebuild = true;
    /* Before anything is dropped: a refusal leaves what stands. */
    if (!prepare_refuse_foreign_rows(prepare, database, error) ||
        !stream_drop_subscription(stream.subscriber, prepare->active, error) ||
        !stream_drop_slot(stream.publisher, error) || !empty_tables(stream.subscriber, error)) {
        return false;
    }
    prepare_say(prepare, -1, -1, "%s: creating the slot (waits for transactions that write)", own->name);
    return stream_create_slot(&stream, error) && subscribe(&stream, error);
}

/* Tables that came since: noted, emptied if we had filled them before, then copied. */
static bool extend_forward(struct prepare *prepare, size_t database, struct error *error)
{
    const struct prepare_database *own = &prepare->databases[database];
    struct blocking *standby = own->sides[prepare->standby];
    const char *name = names_subscription(prepare->active);
    struct settings_list left;
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    strbuf_puts(&sql, WITH_MANAGED "select m.name from managed m where m.name in (" COPIED_TABLES ")");
    sql_format(
        &sql,
        " and not exists (select from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid"
        " where s.subname = %L and r.srrelid = m.oid)",
        name);
    bool ok = prepare_refuse_foreign_rows(prepare, database, error) &&
              prepare_list(standby, error, strbuf_text(&sql), &left);
    if (ok) {
        for (size_t i = 0; ok && i < left.count; i++) {
            strbuf_clear(&sql);
            sql_format(&sql, "delete from only %s", left.items[i]);
            ok = prepare_run(standby, error, &sql);
        }
        settings_list_deinit(&left);
    }
    strbuf_clear(&sql);
    strbuf_puts(&sql, NOTE_COPIED);
    ok = ok && prepare_run(standby, error, &sql);
    strbuf_clear(&sql);
    sql_format(&sql, "alter subscription %I refresh publication with (copy_data = true)", name);
    ok = ok && prepare_run(standby, error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

static bool renew_conninfo(const struct stream *stream, struct error *error)
{
    struct strbuf conninfo;
    struct strbuf sql;
    strbuf_init(&conninfo, SQL_LIMIT);
    strbuf_init(&sql, SQL_LIMIT);
    stream_put_conninfo(stream, &conninfo);
    sql_format(
        &sql,
        "do $do$ begin if exists (select from pg_subscription where subname = %L and subdbid = (select oid"
        " from pg_database where datname = current_database()) and subconninfo <> %L) then"
        " alter subscription %I connection %L; end if; end $do$",
        names_subscription(stream->publisher->side), strbuf_text(&conninfo),
        names_subscription(stream->publisher->side), strbuf_text(&conninfo));
    bool ok = prepare_run(stream->subscriber, error, &sql);
    explicit_bzero(conninfo.data, conninfo.length);
    explicit_bzero(sql.data, sql.length);
    strbuf_deinit(&conninfo);
    strbuf_deinit(&sql);
    return ok;
}

/*
 * A forward subscription that is disabled is either one that a flip hasn't turned yet, whose start point must
 * be set first, or somebody's decision: enabling it here could replay rows, so it isn't ours to do.
 */
static bool refuse_disabled(const struct prepare *prepare, const char *database, struct error *error)
{
    error_set(error, ERROR_UNDECIDED, "%s, database %s: the subscription %s is disabled",
              side_name(prepare->standby), database, names_subscription(prepare->active));
    return error_remedy(error,
                        "after a flip the daemon enables it by itself; if it was disabled by hand: ALTER "
                        "SUBSCRIPTION %s ENABLE",
                        names_subscription(prepare->active));
}

static void tell_rebuild(struct prepare *prepare, size_t database, const char *reason)
{
    const char *name = prepare->databases[database].name;
    LOG_WARN("forward_stream_rebuilt", LOG_STR("database", name), LOG_STR("reason", reason));
    prepare_say(prepare, -1, -1, "%s: %s: its tables are copied again", name, reason);
}

bool prepare_suspect(struct prepare *prepare, size_t database, char **suspects, struct error *error)
{
    struct stream stream = forward_of(prepare, database);
    return stream_find_stuck(&stream, suspects, error);
}

bool prepare_unstick(struct prepare *prepare, size_t database, struct error *error)
{
    tell_rebuild(prepare, database, "a crash left a table that can't get in sync");
    return build_forward(prepare, database, error);
}

/* Why its tables must be copied again; NULL if they needn't. */
static const char *reason_to_rebuild(const struct prepare_database *own, const struct stream_facts *facts,
                                     bool crashed)
{
    if (own->rebuild) {
        return "rows are missing";
    }
    if (!facts->usable) {
        return facts->slot ? "the slot was lost" : "the slot is missing";
    }
    return crashed ? "its standby may have crashed while the stream did not flush what it applied" : NULL;
}

static bool forward_database(struct prepare *prepare, size_t database, struct error *error)
{
    struct prepare_database *own = &prepare->databases[database];
    struct stream stream = forward_of(prepare, database);
    struct stream_facts facts;
    bool relaxed = false;
    bool crashed = false;
    if (!stream_publish(&stream, error) || !stream_read(&stream, &facts, error) ||
        !prepare_read_relaxed(stream.subscriber, prepare->active, &relaxed, &crashed, error)) {
        return false;
    }
    const char *reason = reason_to_rebuild(own, &facts, crashed);
    if (!facts.subscribed || reason != NULL) {
        if (facts.subscribed) {
            tell_rebuild(prepare, database, reason);
        }
        return build_forward(prepare, database, error);
    }
    if (!renew_conninfo(&stream, error)) {
        return false;
    }
    if (relaxed) { /* by a prepare that didn't come to its end; it is enabled by this */
        facts.enabled = true;
        if (!prepare_tighten(prepare, database, error)) {
            return false;
        }
    }
    if (!facts.enabled) {
        return refuse_disabled(prepare, own->name, error);
    }
    return facts.same_tables || extend_forward(prepare, database, error);
}

bool prepare_forward(struct prepare *prepare, struct error *error)
{
    for (size_t i = 0; i < prepare->database_count; i++) {
        if (!forward_database(prepare, i, error)) {
            return false;
        }
        prepare_say(prepare, (double)(i + 1) / (double)prepare->database_count, -1, "%s: subscribed",
                    prepare->databases[i].name);
    }
    return true;
}

/* --- reverse --- */

static bool build_reverse(const struct stream *stream, struct error *error)
{
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    bool ok = stream_drop_subscription(stream->subscriber, stream->publisher->side, error) &&
              stream_drop_slot(stream->publisher, error) && stream_create_slot(stream, error) &&
              stream_put_subscription(stream, false, &sql, error);
    ok = ok && prepare_run(stream->subscriber, error, &sql);
    if (sql.data != NULL) {
        explicit_bzero(sql.data, sql.length);
    }
    strbuf_deinit(&sql);
    return ok;
}

static bool reverse_database(struct prepare *prepare, size_t database, struct error *error)
{
    struct stream stream = reverse_of(prepare, database);
    struct stream_facts facts;
    if (!stream_publish(&stream, error) || !stream_read(&stream, &facts, error)) {
        return false;
    }
    if (facts.enabled) {
        error_set(error, ERROR_UNDECIDED, "%s, database %s: the subscription %s runs, though %s is active",
                  side_name(prepare->active), prepare->databases[database].name,
                  names_subscription(prepare->standby), side_name(prepare->active));
        return error_remedy(error, "rows would go round: ALTER SUBSCRIPTION %s DISABLE on %s",
                            names_subscription(prepare->standby), side_name(prepare->active));
    }
    /* A disabled subscription can't be refreshed; its start point is set by the flip, so a new one serves. */
    if (facts.subscribed && facts.usable && facts.same_tables) {
        return renew_conninfo(&stream, error) && stream_flush_commits(&stream, error);
    }
    return build_reverse(&stream, error);
}

bool prepare_reverse(struct prepare *prepare, struct error *error)
{
    for (size_t i = 0; i < prepare->database_count; i++) {
        if (!reverse_database(prepare, i, error)) {
            return false;
        }
        prepare_say(prepare, (double)(i + 1) / (double)prepare->database_count, -1,
                    "%s: the way back stands by", prepare->databases[i].name);
    }
    return true;
}
