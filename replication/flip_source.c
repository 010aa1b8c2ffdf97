/* The flip on its source: probe, fence, and the two ways back to it. */
#include "replication/flip.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/promise.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEAL_MARGIN_US = 50000,
    PROBES_AT_ONCE = 8,
    RESCUE_PATIENCE_US = 200000 /* of an automatic flip-back with foreign writers */
};

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
    const uint64_t seen = reply_uint(reply, 0, 0), written = phase_database(strand)->n;
    if (seen > written + PROBES_AT_ONCE) {
        (void)error_set(error, ERROR_NOT_IN_SYNC,
                        "the other side of %s has markers that %s never wrote: it was restored",
                        strand->database_name, side_name(strand->side));
        (void)error_remedy(error, "switchback status says what to do about it");
        return VERDICT_FAIL;
    }
    if (seen >= written) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_NOT_IN_SYNC, "the marker of %s has not arrived on the other side",
                    strand->database_name);
    return VERDICT_AGAIN;
}

static bool work_lane_is_taken(const struct strand *strand)
{
    struct replication *replication = strand->replication;
    return replication->flip->phase != NULL ||
           connection_in_transaction(engine_lane(replication, SIDE_BLUE, LANE_WORK, strand->database)) ||
           connection_in_transaction(engine_lane(replication, SIDE_GREEN, LANE_WORK, strand->database));
}

/* Sessions that ran a thing once run it three times as fast: the flip that may follow holds clients
 * meanwhile. */
static const struct step probe_steps[] = {
    {.name = "warm up", .tolerant = true, .skip = work_lane_is_taken, .sql = "select switchback.warm_up()"},
    {.name = "warm up",
     .on = ON_OTHER_SIDE,
     .tolerant = true,
     .skip = work_lane_is_taken,
     .sql = "select switchback.warm_up()"},
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

/* --- the last word before a hold: the other side keeps up --- */

enum { KEEPS_UP_US = 10000 };

static const struct step crossing_steps[] = {
    {.name = "write marker", .lane = LANE_AUX, .build = build_mark, .judge = judge_mark},
    {.name = "see marker", .lane = LANE_AUX, .on = ON_OTHER_SIDE, .build = build_look, .judge = judge_look},
};

static void crossed(void *data, const struct replication_result *result);

static void start_crossing(struct phase *phase)
{
    (void)procedure_start(phase->replication, &(struct procedure_plan){
                                                  .name = "keep up",
                                                  .steps = crossing_steps,
                                                  .step_count = ARRAY_LENGTH(crossing_steps),
                                                  .sides = SIDE_BIT(phase->flip.source),
                                                  .deadline_us = phase->deadline_us,
                                                  .done = crossed,
                                                  .data = phase,
                                              });
}

static void crossed(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    const int64_t now_us = clock_mono_us();
    if (result->ok && now_us - phase->began_us > KEEPS_UP_US && now_us < phase->deadline_us) {
        phase->began_us = now_us;
        start_crossing(phase);
        return;
    }
    phase_finish(phase, result);
}

void replication_keep_up(struct replication *replication, enum side active, int64_t deadline_us,
                         replication_done done, void *context)
{
    const struct replication_flip flip = {.source = active};
    start_crossing(phase_new(replication, &flip, deadline_us, done, context));
}

/* --- fence --- */

/* The target's strands look at its tables while the source's raise the fence: they are compared at the end.
 */

static bool is_source(const struct strand *strand)
{
    return strand->side == phase_flip(strand)->source;
}

static bool is_target(const struct strand *strand)
{
    return !is_source(strand);
}

static void keep_leaves(const struct strand *strand, const char *leaves)
{
    char **kept = &phase_database(strand)->leaves[strand->side];
    free(*kept);
    *kept = strdup(leaves == NULL ? "{}" : leaves);
    ENSURE(*kept != NULL);
}

static enum verdict judge_tables(struct strand *strand, const struct reply *reply, struct error *error)
{
    const char *fault = reply_value(reply, 0, 1);
    if (fault != NULL) {
        (void)error_set(error, ERROR_NOT_PREPARED, "%s/%s: %s", side_name(strand->side),
                        strand->database_name, fault);
        (void)error_remedy(error, "run: switchback prepare, or name the table in local_tables");
        return VERDICT_FAIL;
    }
    keep_leaves(strand, reply_value(reply, 0, 0));
    return VERDICT_NEXT;
}

/* Locks, comparison, marker and COMMIT, then what proves that nothing moves any more: one round trip. */
static void build_fence(struct strand *strand, struct strbuf *sql)
{
    const struct phase *phase = strand->data;
    const struct replication_flip *flip = &phase->flip;
    uint64_t owner = strand->replication->owner;
    /* Ends a little before the statement is cancelled, because it can say who is in the way. */
    int64_t patience_us = phase->deadline_us - clock_mono_us() - SEAL_MARGIN_US;
    if (phase_database(strand)->blocked) {
        sql_format(sql, "do $$ begin perform switchback.clear_the_way(%L); end $$; ", phase->sessions);
    }
    phase_begin_hasty_sql(strand, sql, flip->rescue ? RESCUE_PATIENCE_US : 0);
    /* Not flushed by itself: the closing marker's commit flushes both, and without it the fence doesn't
     * count. */
    sql_format(sql, "raise_fence(%u, %u, %u); set local synchronous_commit = off; commit; ", owner,
               flip->epoch, flip->flip);
    sql_format(sql, "select switchback.seal(%u, %u, %L, interval '%d microseconds')", owner, flip->flip,
               phase->sessions, patience_us > 0 ? patience_us : (int64_t)0);
}

static enum verdict judge_fence(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (!reply->ok) {
        *error = reply->error;
        /* Foreign sessions are ended behind the fence anyway. One that idles in its transaction, or a vacuum
         * against wraparound, would keep an automatic flip-back at a side that is failing. */
        bool in_the_way = phase_flip(strand)->rescue && strcmp(reply->sqlstate, "55P03") == 0;
        phase_database(strand)->blocked = phase_database(strand)->blocked || in_the_way;
        /* A foreign writer took its tables in another order: it is behind the fence now or gone next time. */
        return in_the_way || strcmp(reply->sqlstate, "40P01") == 0 ? VERDICT_AGAIN : VERDICT_FAIL;
    }
    /* begin and limits first: the first rows are raise_fence's */
    for (size_t i = 0; i < reply->count; i++) {
        if (PQresultStatus(reply->results[i]) == PGRES_TUPLES_OK) {
            keep_leaves(strand, PQgetvalue(reply->results[i], 0, 0));
            break;
        }
    }
    return VERDICT_NEXT;
}

static const struct step fence_steps[] = {
    {.name = "compare tables",
     .skip = is_source,
     .sql = "select switchback.leaves(), switchback.table_fault()",
     .judge = judge_tables},
    {.name = "raise fence", .tolerant = true, .skip = is_target, .build = build_fence, .judge = judge_fence},
};

/* What the source had under its locks is what the target has: else a table would be left behind. */
static void finish_fence(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    struct replication_result told = *result;
    for (size_t i = 0; told.ok && i < phase->replication->database_count; i++) {
        char *const *leaves = phase->databases[i].leaves;
        if (strcmp(leaves[SIDE_BLUE], leaves[SIDE_GREEN]) != 0) {
            told.ok = false;
            (void)error_set(&told.error, ERROR_NOT_PREPARED, "%s has not the same tables on both sides",
                            engine_database(phase->replication, i));
            (void)error_remedy(&told.error, "run: switchback prepare, or name the table in local_tables");
        }
    }
    if (told.ok) {
        sampler_note_fence(phase->replication->sampler, phase->flip.source, true);
    }
    phase_finish(phase, &told);
}

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
    promise_cancel_probes(replication, flip->source);
    phase_run(phase, "fence", BOTH_SIDES, fence_steps, ARRAY_LENGTH(fence_steps), finish_fence);
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

#define ROLL_TARGET_BACK_STEP                                                                                \
    {                                                                                                        \
        .name = "roll the target back", .on = ON_OTHER_SIDE, .tolerant = true,                               \
        .skip = target_has_no_transaction, .sql = "rollback", .judge = judge_rollback                        \
    }

static const struct step undo_steps[] = {
    ROLL_TARGET_BACK_STEP,
    {.name = "lower fence", .heals = true, .build = build_lower},
};

static const struct step reopen_steps[] = {
    ROLL_TARGET_BACK_STEP,
    {.name = "reopen the source", .heals = true, .build = build_reopen},
};

/* The source is the active side again, also for a sampler that knew nothing yet: after a restart. */
static void finish_undo(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    if (result->ok) {
        sampler_note_fence(phase->replication->sampler, phase->flip.source, false);
        replication_set_active(phase->replication, phase->flip.source, phase->flip.epoch);
    }
    phase_finish(phase, result);
}

static void finish_reopen(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    if (result->ok) {
        sampler_note_fence(phase->replication->sampler, phase->flip.source, false);
        replication_set_active(phase->replication, phase->flip.source, phase->flip.epoch + 2);
    }
    phase_finish(phase, result);
}

static void start_undo(struct phase *phase)
{
    phase->wakes_sampler = true;
    phase_run(phase, "undo", SIDE_BIT(phase->flip.source), undo_steps, ARRAY_LENGTH(undo_steps), finish_undo);
}

static void start_reopen(struct phase *phase)
{
    phase->wakes_sampler = true;
    phase_run(phase, "reopen source", SIDE_BIT(phase->flip.source), reopen_steps, ARRAY_LENGTH(reopen_steps),
              finish_reopen);
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
