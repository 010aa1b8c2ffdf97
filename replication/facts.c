/* What both sides say about themselves: read once, at a start or after a lost reply. */
#include "replication/identity.h"
#include "replication/procedure.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FACTS_WITHIN_US = 5000000, LOSSES = 3 };

struct reading {
    struct replication *replication;
    struct pair_facts facts;
    bool *exists[SIDE_COUNT]; /* by database: there is one of that name */
    int losses[SIDE_COUNT];
    replication_facts_done done;
    void *context;
};

static void copy(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from == NULL ? "" : from);
}

static struct side_facts *side_of(const struct strand *strand)
{
    struct reading *reading = strand->data;
    return &reading->facts.sides[strand->side];
}

/*
 * A connection that stood and was lost says little of its side: taking ownership ends what an earlier
 * controller has there, and whatever of ours was just being opened. Only a side that can't be reached anew is
 * out of reach.
 */
static bool is_lost(const struct strand *strand, const struct reply *reply)
{
    struct reading *reading = strand->data;
    if (reply->ok || !reply->uncertain || reply->error.code != ERROR_UNREACHABLE) {
        return false;
    }
    return reading->losses[strand->side]++ < LOSSES * (int)strand->replication->database_count;
}

/* --- the cluster --- */

static void build_cluster(struct strand *strand, struct strbuf *sql)
{
    strbuf_puts(sql,
                "select current_setting('server_version_num'), current_setting('server_version'),"
                " (select system_identifier from pg_control_system()), case when pg_is_in_recovery() then 0"
                " else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint"
                " end, array(select n in (select datname from pg_database) from unnest(");
    sql_text_array(sql, &strand->replication->settings->databases);
    strbuf_puts(sql, ") with ordinality u(n, i) order by i)::text");
}

static enum verdict judge_cluster(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct reading *reading = strand->data;
    struct side_facts *side = side_of(strand);
    (void)error;
    if (is_lost(strand, reply)) {
        return VERDICT_AGAIN;
    }
    if (!reply->ok) {
        side->error = reply->error;
        return VERDICT_END;
    }
    side->version_num = (int)reply_int(reply, 0, 0);
    copy(side->version, sizeof side->version, reply_value(reply, 0, 1));
    copy(side->system_identifier, sizeof side->system_identifier, reply_value(reply, 0, 2));
    side->timeline = reply_uint(reply, 0, 3);
    if (side->timeline == 0) {
        (void)error_set(&side->error, ERROR_UNREACHABLE,
                        "%s is in recovery: a standby server can't be a side", side_name(strand->side));
        return VERDICT_END;
    }
    side->reachable = true;
    /* "{t,f}" */
    const char *exist = reply_value(reply, 0, 4);
    for (size_t i = 0; exist != NULL && i < side->database_count && strlen(exist) > 1 + 2 * i; i++) {
        reading->exists[strand->side][i] = exist[1 + 2 * i] == 't';
    }
    return VERDICT_END;
}

static const struct step cluster_steps[] = {
    {.name = "read cluster",
     .lane = LANE_CONTROL,
     .tolerant = true,
     .build = build_cluster,
     .judge = judge_cluster},
};

/* --- the databases --- */

static bool is_absent(const struct strand *strand)
{
    const struct reading *reading = strand->data;
    return !side_of(strand)->reachable || !reading->exists[strand->side][strand->database];
}

enum { IDENTITY_AT = 13 }; /* column of build_database's answer */

static void build_database(struct strand *strand, struct strbuf *sql)
{
    (void)strand;
    strbuf_puts(
        sql, "select s.standing, s.epoch, coalesce(s.fenced_for, 0), s.aborted, s.owner, s.start_lsn, s.pair,"
             " s.system_identifier, s.timeline, (select count(*) from switchback.managed_table),"
             " (select count(*) from switchback.managed_table m join pg_trigger t on t.tgrelid = m.oid"
             "  where t.tgname = '!switchback_fence'"
             "  and t.tgenabled = any ((select switchback.up_states())::\"char\"[])),"
             " greatest(coalesce(s.fenced_for, 0), s.aborted, s.opened_for,"
             "  (select max(n) from switchback.marker where purpose in ('flip', 'sequences'))),"
             " case when s.standing = 'active' then s.opened_for else 0 end,"
             " " IDENTITY_COLUMNS " from switchback.state s");
}

static enum standing standing_parse(const char *text)
{
    if (text == NULL) {
        return STANDING_NONE;
    }
    if (strcmp(text, "active") == 0) {
        return STANDING_ACTIVE;
    }
    return strcmp(text, "standby") == 0 ? STANDING_STANDBY : STANDING_DIVERGED;
}

static void parse_database(struct side_facts *side, struct database_facts *database,
                           const struct reply *reply)
{
    database->installed = true;
    database->standing = standing_parse(reply_value(reply, 0, 0));
    database->epoch = reply_uint(reply, 0, 1);
    database->fenced_for = reply_uint(reply, 0, 2);
    database->aborted = reply_uint(reply, 0, 3);
    database->owner = reply_uint(reply, 0, 4);
    copy(database->start_lsn, sizeof database->start_lsn, reply_value(reply, 0, 5));
    copy(database->pair, sizeof database->pair, reply_value(reply, 0, 6));
    const char *identifier = reply_value(reply, 0, 7);
    if ((identifier != NULL && strcmp(identifier, side->system_identifier) != 0) ||
        reply_uint(reply, 0, 8) != side->timeline) {
        side->identity_changed = true;
    }
    database->tables = (size_t)reply_uint(reply, 0, 9);
    database->fences_enabled = (size_t)reply_uint(reply, 0, 10);
    database->last_flip = reply_uint(reply, 0, 11);
    database->opened_for = reply_uint(reply, 0, 12);
}

static enum verdict judge_database(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct side_facts *side = side_of(strand);
    if (is_lost(strand, reply)) {
        return VERDICT_AGAIN;
    }
    if (reply->ok && reply_row_count(reply) > 0) {
        if (!identity_judge_row(strand->replication, strand->side, reply, IDENTITY_AT, error)) {
            side->foreign = *error;
            error_clear(error);
        }
        parse_database(side, &side->databases[strand->database], reply);
    } else if (!reply->ok) {
        /* A side of which one database is out of reach is out of reach. */
        side->reachable = false;
        side->error = reply->error;
    }
    return VERDICT_END;
}

static enum verdict judge_schema(struct strand *strand, const struct reply *reply, struct error *error)
{
    enum verdict verdict = procedure_judge_installed(strand, reply, error);
    return verdict == VERDICT_FAIL ? judge_database(strand, reply, error) : verdict;
}

static const struct step database_steps[] = {
    {.name = "look for the schema",
     .lane = LANE_AUX,
     .tolerant = true,
     .skip = is_absent,
     .sql = PROCEDURE_INSTALLED_SQL,
     .judge = judge_schema},
    {.name = "read state",
     .lane = LANE_AUX,
     .tolerant = true,
     .skip = is_absent,
     .build = build_database,
     .judge = judge_database},
};

/* --- the run --- */

static void databases_read(void *data, const struct replication_result *result)
{
    struct reading *reading = data;
    struct replication_result told = *result;
    const struct side_facts *sides = reading->facts.sides;
    identity_learn(reading->replication, &reading->facts);
    reading->facts.owned_since = reading->replication->identity.owned_since;
    if (told.ok && !sides[SIDE_BLUE].reachable && !sides[SIDE_GREEN].reachable) {
        told.ok = false;
        told.error = sides[SIDE_BLUE].error;
    }
    reading->done(reading->context, &told, &reading->facts);
    for (int side = 0; side < SIDE_COUNT; side++) {
        free(reading->facts.sides[side].databases);
        free(reading->exists[side]);
    }
    free(reading);
}

static void clusters_read(void *data, const struct replication_result *result)
{
    struct reading *reading = data;
    (void)result; /* its steps are tolerant: an abort shows again in the next part */
    (void)procedure_start(reading->replication,
                          &(struct procedure_plan){.name = "read facts",
                                                   .steps = database_steps,
                                                   .step_count = ARRAY_LENGTH(database_steps),
                                                   .sides = BOTH_SIDES,
                                                   .deadline_us = clock_mono_us() + FACTS_WITHIN_US,
                                                   .done = databases_read,
                                                   .data = reading});
}

void replication_read_facts(struct replication *replication, replication_facts_done done, void *context)
{
    struct reading *reading = calloc(1, sizeof *reading);
    ENSURE(reading != NULL);
    *reading = (struct reading){.replication = replication, .done = done, .context = context};
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct side_facts *side = &reading->facts.sides[i];
        side->database_count = replication->database_count;
        side->databases = calloc(side->database_count, sizeof *side->databases);
        reading->exists[i] = calloc(side->database_count, sizeof(bool));
        ENSURE(side->databases != NULL && reading->exists[i] != NULL);
        for (size_t d = 0; d < side->database_count; d++) {
            copy(side->databases[d].name, sizeof side->databases[d].name, engine_database(replication, d));
        }
    }
    (void)procedure_start(replication,
                          &(struct procedure_plan){.name = "read clusters",
                                                   .steps = cluster_steps,
                                                   .step_count = ARRAY_LENGTH(cluster_steps),
                                                   .sides = BOTH_SIDES,
                                                   .cluster = true,
                                                   .deadline_us = clock_mono_us() + FACTS_WITHIN_US,
                                                   .done = clusters_read,
                                                   .data = reading});
}
