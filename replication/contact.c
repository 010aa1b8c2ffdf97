/*
 * A side that the pair has left behind comes back: it is fenced, its sessions are ended, its names emptied.
 * Is there nothing on it that the active side lacks, it follows; else it is diverged, and rejoin.c brings it
 * back.
 */
#include "replication/flip.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "replication/names.h"
#include "replication/sql.h"
#include "replication/standby_names.h"

#include <stdio.h>
#include <string.h>

enum { CONTACT_WITHIN_US = 10000000, MOST_CHANGES = 10000 };

/* What the active side knows of it: the flip that it was opened for, how much of this side it has, where it
 * begins. */
static enum verdict judge_active(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct phase_database *database = phase_database(strand);
    (void)error;
    database->asked = reply->ok;
    database->n = reply->ok ? reply_uint(reply, 0, 0) : 0;
    for (int i = 0; i < 2; i++) {
        const char *lsn = reply->ok ? reply_value(reply, 0, 1 + i) : NULL;
        (void)snprintf(database->lsn[i], sizeof database->lsn[i], "%s", lsn == NULL ? "0/0" : lsn);
    }
    return VERDICT_NEXT;
}

static void build_fence_behind(struct strand *strand, struct strbuf *sql)
{
    phase_begin_sql(strand, sql);
    sql_format(sql, "fence_left_behind(%u, %u, %u); commit; select switchback.end_foreign('{}')",
               strand->replication->owner, phase_flip(strand)->epoch, phase_database(strand)->n);
}

static enum verdict judge_fence_behind(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)error;
    /* begin and limits first: the first rows say what to do next */
    for (size_t i = 0; i < reply->count; i++) {
        if (PQresultStatus(reply->results[i]) == PGRES_TUPLES_OK) {
            const char *next = PQgetvalue(reply->results[i], 0, 0);
            LOG_INFO("fenced_on_contact", LOG_STR("side", side_name(strand->side)),
                     LOG_STR("database", strand->database_name), LOG_STR("next", next));
            return strcmp(next, "compare") == 0 ? VERDICT_NEXT : VERDICT_END;
        }
    }
    return VERDICT_END;
}

/* Nobody is to hear from it any more; while somebody does, the slot can't be looked into. */
static void build_end_stream(struct strand *strand, struct strbuf *sql)
{
    char slot[NAMES_SLOT_SIZE];
    sql_format(sql,
               "select count(pg_terminate_backend(active_pid)) from pg_replication_slots where slot_name = "
               "%L and active",
               names_slot(strand->side, strand->database_name, slot));
}

static enum verdict judge_end_stream(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply_int(reply, 0, 0) == 0) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_TIMEOUT, "the stream from %s/%s does not end", side_name(strand->side),
                    strand->database_name);
    return VERDICT_AGAIN;
}

static void build_holds_more(struct strand *strand, struct strbuf *sql)
{
    char slot[NAMES_SLOT_SIZE];
    sql_format(sql, "select switchback.holds_more(%L, %L, %d)",
               names_slot(strand->side, strand->database_name, slot), phase_database(strand)->lsn[0],
               (int64_t)MOST_CHANGES);
}

static enum verdict judge_holds_more(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)error;
    /* What can't be read (a lost slot) can't be ruled out: it stays diverged. And where the active side could
     * not be asked, it isn't known from where to follow it: what was made here would come back. */
    bool asked = phase_database(strand)->asked;
    bool more = !asked || !reply->ok || reply_bool(reply, 0, 0);
    if (more) {
        LOG_WARN("side_diverged", LOG_STR("side", side_name(strand->side)),
                 LOG_STR("database", strand->database_name),
                 LOG_STR("reason", !asked      ? "the active side could not be asked what it has"
                                   : reply->ok ? "it holds changes that were never sent"
                                               : reply->error.message));
    }
    return more ? VERDICT_END : VERDICT_NEXT;
}

static void build_rejoin(struct strand *strand, struct strbuf *sql)
{
    phase_begin_sql(strand, sql);
    sql_format(sql, "rejoin_unchanged(%u, %u, %L); commit", strand->replication->owner,
               phase_flip(strand)->epoch, phase_database(strand)->lsn[1]);
}

static const struct step contact_steps[] = {
    {.name = "ask the active side",
     .on = ON_OTHER_SIDE,
     .tolerant = true,
     .sql = "select opened_for, has, start_lsn from switchback.of_the_other()",
     .judge = judge_active},
    {.name = "fence", .heals = true, .build = build_fence_behind, .judge = judge_fence_behind},
    {.name = "end its stream", .build = build_end_stream, .judge = judge_end_stream},
    {.name = "compare", .tolerant = true, .build = build_holds_more, .judge = judge_holds_more},
    {.name = "rejoin", .heals = true, .build = build_rejoin},
};

/* Only now: a commit there that still waited for us would have been acknowledged by the emptying. */
static void finish_contact(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    if (!result->ok) {
        phase_finish(phase, result);
        return;
    }
    phase_leave(phase, true);
    standby_names_empty(phase->replication, phase->flip.source, phase->flip.epoch, phase->deadline_us,
                        phase_finish, phase);
}

void replication_fence_on_contact(struct replication *replication, enum side side, uint64_t epoch,
                                  replication_done done, void *context)
{
    const struct replication_flip flip = {.source = side, .epoch = epoch};
    struct phase *phase = phase_new(replication, &flip, clock_mono_us() + CONTACT_WITHIN_US, done, context);
    phase_run(phase, "fence on contact", SIDE_BIT(side), contact_steps, ARRAY_LENGTH(contact_steps),
              finish_contact);
}
