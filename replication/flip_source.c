/* The flip on its source: probe, fence, and the two ways back to it. */
#include "replication/flip.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- probe: a marker crosses --- */

static void build_mark(struct strand *strand, struct strbuf *sql)
{
    sql_format(sql, "select written_n from switchback.beat(%u, null, 'check')", strand->replication->owner);
}

static enum verdict judge_mark(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)error;
    phase_database(strand)->n = reply_uint(reply, 0, 0);
    return VERDICT_NEXT;
}

static void build_look(struct strand *strand, struct strbuf *sql)
{
    sql_format(sql, "select n from switchback.marker where side = %L and purpose = 'check'",
               side_name(strand->side));
}

static enum verdict judge_look(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply_uint(reply, 0, 0) >= phase_database(strand)->n) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_NOT_IN_SYNC, "the marker of %s has not arrived on the other side",
                    strand->database_name);
    return VERDICT_AGAIN;
}

static const struct step probe_steps[] = {
    {.name = "write marker", .lane = LANE_AUX, .build = build_mark, .judge = judge_mark},
    {.name = "see marker",
     .lane = LANE_AUX,
     .on = ON_OTHER_SIDE,
     .build = build_look,
     .judge = judge_look,
     .again_us = 20000},
};

void replication_probe(struct replication *replication, enum side from, int64_t deadline_us,
                       replication_done done, void *context)
{
    /* Beside a phase that may run: it has its own lane. */
    (void)procedure_start(replication, &(struct procedure_plan){
                                           .name = "probe",
                                           .steps = probe_steps,
                                           .step_count = ARRAY_LENGTH(probe_steps),
                                           .sides = SIDE_BIT(from),
                                           .deadline_us = deadline_us,
                                           .done = phase_finish,
                                           .data = phase_new(replication, NULL, deadline_us, done, context),
                                       });
}

/* --- fence --- */

static enum verdict judge_tables(struct strand *strand, const struct reply *reply, struct error *error)
{
    const char *leaves = reply_value(reply, 0, 0);
    const char *fault = reply_value(reply, 0, 1);
    if (fault != NULL) {
        (void)error_set(error, ERROR_NOT_PREPARED, "%s/%s: %s", side_name(side_other(strand->side)),
                        strand->database_name, fault);
        (void)error_remedy(error, "run: switchback prepare, or name the table in local_tables");
        return VERDICT_FAIL;
    }
    struct phase_database *database = phase_database(strand);
    database->text = strdup(leaves == NULL ? "{}" : leaves);
    ENSURE(database->text != NULL);
    return VERDICT_NEXT;
}

/* Locks, comparison, marker and COMMIT, then what proves that nothing moves any more: one round trip. */
static void build_fence(struct strand *strand, struct strbuf *sql)
{
    const struct phase *phase = strand->data;
    const struct replication_flip *flip = &phase->flip;
    uint64_t owner = strand->replication->owner;
    int64_t left_us = phase->deadline_us - clock_mono_us();
    phase_begin_sql(strand, sql);
    sql_format(sql, "raise_fence(%u, %u, %u, %L); commit; ", owner, flip->epoch, flip->flip,
               phase_database(strand)->text);
    sql_format(sql, "select switchback.seal(%u, %u, %L, interval '%d microseconds')", owner, flip->flip,
               phase->sessions, left_us > 0 ? left_us : (int64_t)0);
}

static enum verdict judge_fence(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)strand;
    if (reply->ok) {
        return VERDICT_NEXT;
    }
    *error = reply->error;
    /* A foreign writer took its tables in another order: it is behind the fence now or gone next time. */
    return strcmp(reply->sqlstate, "40P01") == 0 ? VERDICT_AGAIN : VERDICT_FAIL;
}

static const struct step fence_steps[] = {
    {.name = "compare tables",
     .on = ON_OTHER_SIDE,
     .sql = "select switchback.leaves(), switchback.table_fault()",
     .judge = judge_tables},
    {.name = "raise fence", .tolerant = true, .build = build_fence, .judge = judge_fence},
};

static char *session_array(const int32_t *sessions, size_t count)
{
    struct strbuf text;
    strbuf_init(&text, SQL_LIMIT);
    strbuf_puts(&text, "{");
    for (size_t i = 0; i < count; i++) {
        strbuf_printf(&text, "%s%" PRId32, i == 0 ? "" : ",", sessions[i]);
    }
    strbuf_puts(&text, "}");
    char *taken = strbuf_take(&text);
    ENSURE(taken != NULL);
    return taken;
}

void replication_fence(struct replication *replication, const struct replication_flip *flip,
                       const int32_t *sessions, size_t session_count, int64_t deadline_us,
                       replication_done done, void *context)
{
    struct phase *phase = phase_new(replication, flip, deadline_us, done, context);
    phase->sessions = session_array(sessions, session_count);
    memset(replication->flip->target, 0, replication->database_count * sizeof replication->flip->target[0]);
    sampler_rest(replication->sampler, deadline_us);
    phase_run(phase, "fence", flip->source, fence_steps, ARRAY_LENGTH(fence_steps), phase_finish);
}

/* --- the ways back to the source --- */

static bool target_has_no_transaction(const struct strand *strand)
{
    return !connection_in_transaction(
        engine_lane(strand->replication, side_other(strand->side), LANE_WORK, strand->database));
}

static enum verdict judge_rollback(struct strand *strand, const struct reply *reply, struct error *error)
{
    /* Lost while it was rolled back: then the server rolls back. */
    (void)reply;
    (void)error;
    *phase_target(strand) = TARGET_CLOSED;
    return VERDICT_NEXT;
}

static void build_lower(struct strand *strand, struct strbuf *sql)
{
    const struct replication_flip *flip = phase_flip(strand);
    phase_begin_sql(strand, sql);
    sql_format(sql, "lower_fence(%u, %u, %u); commit", strand->replication->owner, flip->epoch, flip->flip);
}

static void build_reopen(struct strand *strand, struct strbuf *sql)
{
    const struct replication_flip *flip = phase_flip(strand);
    phase_begin_sql(strand, sql);
    sql_format(sql, "reopen(%u, %u, %u); commit", strand->replication->owner, flip->epoch, flip->flip);
}

static const struct step undo_steps[] = {
    {.name = "roll the target back",
     .on = ON_OTHER_SIDE,
     .tolerant = true,
     .skip = target_has_no_transaction,
     .sql = "rollback",
     .judge = judge_rollback},
    {.name = "lower fence", .build = build_lower},
};

static const struct step reopen_steps[] = {
    {.name = "roll the target back",
     .on = ON_OTHER_SIDE,
     .tolerant = true,
     .skip = target_has_no_transaction,
     .sql = "rollback",
     .judge = judge_rollback},
    {.name = "reopen the source", .build = build_reopen},
};

static void start_undo(struct phase *phase)
{
    phase_run(phase, "undo", phase->flip.source, undo_steps, ARRAY_LENGTH(undo_steps), phase_finish);
}

static void start_reopen(struct phase *phase)
{
    phase_run(phase, "reopen source", phase->flip.source, reopen_steps, ARRAY_LENGTH(reopen_steps),
              phase_finish);
}

void replication_undo(struct replication *replication, const struct replication_flip *flip,
                      int64_t deadline_us, replication_done done, void *context)
{
    phase_take_over(phase_new(replication, flip, deadline_us, done, context), start_undo);
}

void replication_reopen_source(struct replication *replication, const struct replication_flip *flip,
                               int64_t deadline_us, replication_done done, void *context)
{
    phase_take_over(phase_new(replication, flip, deadline_us, done, context), start_reopen);
}
