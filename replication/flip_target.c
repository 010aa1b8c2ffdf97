/* The flip on its target: catch up, be ready, open. */
#include "replication/flip.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/names.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <string.h>

/* Should our host die while the target is ready, its locks go this long after the longest hold. */
enum { LEFT_ALONE_MARGIN_US = 10000000 };

/* --- catchup --- */

static void build_look(struct strand *strand, struct strbuf *sql)
{
    sql_format(sql, "select n from switchback.marker where side = %L and purpose = 'sequences'",
               side_name(side_other(strand->side)));
}

static enum verdict judge_look(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply_uint(reply, 0, 0) >= phase_flip(strand)->flip) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_NOT_IN_SYNC, "%s/%s has not applied all that was committed on %s",
                    side_name(strand->side), strand->database_name, side_name(side_other(strand->side)));
    return VERDICT_AGAIN;
}

static const struct step catchup_steps[] = {
    {.name = "see closing marker", .build = build_look, .judge = judge_look, .again_us = 5000},
};

void replication_catchup(struct replication *replication, const struct replication_flip *flip,
                         int64_t deadline_us, replication_done done, void *context)
{
    struct phase *phase = phase_new(replication, flip, deadline_us, done, context);
    sampler_rest(replication->sampler, deadline_us);
    phase_run(phase, "catchup", SIDE_BIT(side_other(flip->source)), catchup_steps,
              ARRAY_LENGTH(catchup_steps), phase_finish);
}

/* --- ready --- */

static bool is_open(const struct strand *strand)
{
    return *phase_target(strand) == TARGET_OPEN;
}

static void build_ready(struct strand *strand, struct strbuf *sql)
{
    const struct phase *phase = strand->data;
    const struct replication_flip *flip = &phase->flip;
    char slot[NAMES_SLOT_SIZE];
    phase_begin_sql(strand, sql);
    if (phase->alone) {
        sql_format(sql, "make_ready_alone(%u, %u, %u)", strand->replication->owner, flip->epoch, flip->flip);
    } else {
        sql_format(sql, "make_ready(%u, %u, %u, %L)", strand->replication->owner, flip->epoch, flip->flip,
                   names_slot(strand->side, strand->database_name, slot));
    }
    sql_format(sql, "; set local idle_in_transaction_session_timeout = %d",
               (strand->replication->settings->max_hold_us + LEFT_ALONE_MARGIN_US) / 1000);
}

static enum verdict judge_ready(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)error;
    const char *start = reply_value(reply, 0, 0);
    /* NULL: this flip has opened the database already, before a restart of ours or a lost reply. */
    *phase_target(strand) = start == NULL ? TARGET_OPEN : TARGET_READY;
    LOG_DEBUG("target_ready", LOG_STR("database", strand->database_name), LOG_STR("start_lsn", start));
    return VERDICT_NEXT;
}

static bool is_not_open(const struct strand *strand)
{
    return *phase_target(strand) != TARGET_OPEN;
}

static const struct step ready_steps[] = {
    {.name = "make ready", .skip = is_open, .build = build_ready, .judge = judge_ready},
    {.name = "leave what is open", .skip = is_not_open, .sql = "rollback"},
};

static bool has_no_transaction(const struct strand *strand)
{
    return !connection_in_transaction(
        engine_lane(strand->replication, strand->side, LANE_WORK, strand->database));
}

static enum verdict judge_rollback(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)reply;
    (void)error;
    if (*phase_target(strand) == TARGET_READY) {
        *phase_target(strand) = TARGET_CLOSED;
    }
    return VERDICT_NEXT;
}

static const struct step rollback_steps[] = {
    {.name = "roll back",
     .tolerant = true,
     .skip = has_no_transaction,
     .sql = "rollback",
     .judge = judge_rollback},
};

static void finish_failed_ready(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    (void)result;
    struct replication_result kept = phase->result;
    phase_finish(phase, &kept);
}

static void finish_ready(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    if (result->ok || result->error.code == ERROR_ABORTED || result->error.code == ERROR_FLIP_RUNNING) {
        phase_finish(phase, result);
        return;
    }
    /* One database isn't ready: none stays so. Nothing was committed, so nothing is uncertain. */
    phase->result = *result;
    phase->result.uncertain = false;
    phase_run(phase, "roll target back", SIDE_BIT(side_other(phase->flip.source)), rollback_steps,
              ARRAY_LENGTH(rollback_steps), finish_failed_ready);
}

static void make_ready(struct replication *replication, const struct replication_flip *flip, bool alone,
                       int64_t deadline_us, replication_done done, void *context)
{
    struct phase *phase = phase_new(replication, flip, deadline_us, done, context);
    phase->alone = alone;
    memset(replication->flip->target, 0, replication->database_count * sizeof replication->flip->target[0]);
    sampler_rest(replication->sampler, deadline_us);
    phase_run(phase, "ready", SIDE_BIT(side_other(flip->source)), ready_steps, ARRAY_LENGTH(ready_steps),
              finish_ready);
}

void replication_ready(struct replication *replication, const struct replication_flip *flip,
                       int64_t deadline_us, replication_done done, void *context)
{
    make_ready(replication, flip, false, deadline_us, done, context);
}

void replication_ready_alone(struct replication *replication, const struct replication_flip *flip,
                             int64_t deadline_us, replication_done done, void *context)
{
    make_ready(replication, flip, true, deadline_us, done, context);
}

/* --- open --- */

static enum verdict judge_commit(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply->ok && reply->count > 0 && strcmp(PQcmdStatus(reply->results[0]), "COMMIT") == 0) {
        *phase_target(strand) = TARGET_OPEN;
        phase_database(strand)->committed = true;
        return VERDICT_NEXT;
    }
    *phase_target(strand) = TARGET_CLOSED;
    (void)error_set(error, reply->uncertain ? ERROR_UNREACHABLE : ERROR_STALE,
                    "%s/%s: the opening transaction is gone: %s", side_name(strand->side),
                    strand->database_name, reply->error.message);
    return VERDICT_FAIL;
}

/*
 * A plain COMMIT would succeed on a connection made anew, without the transaction: AND CHAIN is an error
 * there.
 */
static const struct step open_steps[] = {
    {.name = "commit",
     .tolerant = true,
     .skip = is_open,
     .sql = "commit and chain; rollback",
     .judge = judge_commit},
};

static void finish_open(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    struct replication_result told = *result;
    /* Open here and not there is for recovery to sort out as much as a lost reply is. */
    for (size_t i = 0; !told.ok && i < phase->replication->database_count; i++) {
        told.uncertain = told.uncertain || phase->databases[i].committed;
    }
    if (told.ok) {
        sampler_note_fence(phase->replication->sampler, side_other(phase->flip.source), false);
    }
    phase_finish(phase, &told);
}

void replication_open(struct replication *replication, const struct replication_flip *flip,
                      int64_t deadline_us, replication_done done, void *context)
{
    struct phase *phase = phase_new(replication, flip, deadline_us, done, context);
    phase_run(phase, "open", SIDE_BIT(side_other(flip->source)), open_steps, ARRAY_LENGTH(open_steps),
              finish_open);
}
