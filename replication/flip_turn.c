/* The old source follows the new active side, and with a promise every commit there waits for it. */
#include "replication/flip.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/names.h"
#include "replication/promise.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <stdlib.h>
#include <string.h>

/* --- turn: everything it needs is read from the target, so that it can be run after a restart --- */

static void build_read_start(struct strand *strand, struct strbuf *sql)
{
    sql_format(sql,
               "select s.start_lsn, s.standing = 'active' and s.epoch = %u and s.opened_for = %u,"
               " (select count(pg_terminate_backend(w.pid)) from pg_stat_subscription w"
               "  join pg_subscription u on u.oid = w.subid join pg_database d on d.oid = u.subdbid"
               "  where w.pid is not null and d.datname = current_database() and u.subname = %L"
               "  and not u.subenabled) from switchback.state s",
               phase_flip(strand)->epoch + 1, phase_flip(strand)->flip, names_subscription(strand->side));
}

static enum verdict judge_start(struct strand *strand, const struct reply *reply, struct error *error)
{
    const char *start = reply_value(reply, 0, 0);
    if (start == NULL || !reply_bool(reply, 0, 1)) {
        (void)error_set(error, ERROR_STALE, "%s/%s was not opened by this flip",
                        side_name(side_other(strand->side)), strand->database_name);
        return VERDICT_FAIL;
    }
    free(phase_database(strand)->text);
    phase_database(strand)->text = strdup(start);
    ENSURE(phase_database(strand)->text != NULL);
    return VERDICT_NEXT;
}

/* While the old stream still runs, the origin must not be moved: its last rows would echo. */
static void build_old_slot(struct strand *strand, struct strbuf *sql)
{
    char slot[NAMES_SLOT_SIZE];
    sql_format(sql, "select active from pg_replication_slots where slot_name = %L",
               names_slot(strand->side, strand->database_name, slot));
}

static enum verdict judge_old_slot(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (!reply_bool(reply, 0, 0)) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_NOT_IN_SYNC, "the old stream of %s has not ended", strand->database_name);
    return VERDICT_AGAIN;
}

static void build_follow(struct strand *strand, struct strbuf *sql)
{
    const struct phase *phase = strand->data;
    const struct replication_flip *flip = &phase->flip;
    phase_begin_sql(strand, sql);
    if (phase->promise) {
        sql_format(sql, "confirm_at_once(%u); select switchback.", strand->replication->owner);
    }
    sql_format(sql, "follow(%u, %u, %u, %L); commit", strand->replication->owner, flip->epoch, flip->flip,
               phase_database(strand)->text);
}

static void build_streaming(struct strand *strand, struct strbuf *sql)
{
    char slot[NAMES_SLOT_SIZE];
    sql_format(
        sql,
        "select count(*) from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid"
        " where s.slot_name = %L and r.state = 'streaming'",
        names_slot(side_other(strand->side), strand->database_name, slot));
}

static enum verdict judge_streaming(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply_int(reply, 0, 0) > 0) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_NOT_IN_SYNC, "the way back of %s is not streaming", strand->database_name);
    return VERDICT_AGAIN;
}

#define READ_START_STEP                                                                                      \
    {                                                                                                        \
        .name = "read start point", .on = ON_OTHER_SIDE, .build = build_read_start, .judge = judge_start     \
    }
#define END_OLD_STREAM_STEP                                                                                  \
    {                                                                                                        \
        .name = "end old stream", .build = build_old_slot, .judge = judge_old_slot                           \
    }
#define FOLLOW_STEP                                                                                          \
    {                                                                                                        \
        .name = "follow", .heals = true, .build = build_follow                                               \
    }
#define SEE_STREAM_STEP                                                                                      \
    {                                                                                                        \
        .name = "see stream", .on = ON_OTHER_SIDE, .build = build_streaming, .judge = judge_streaming,       \
        .least_us = 1000, .again_us = 20000                                                                  \
    }

static const struct step turn_steps[] = {READ_START_STEP, END_OLD_STREAM_STEP, FOLLOW_STEP, SEE_STREAM_STEP};

static void finish_turn(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    if (result->ok) {
        sampler_note_turn(phase->replication->sampler, side_other(phase->flip.source), phase->flip.epoch + 1,
                          phase->promise);
    }
    phase_finish(phase, result);
}

static void names_ready(void *context, const struct replication_result *result)
{
    struct phase *phase = context;
    (void)result; /* what could not be emptied is emptied on contact */
    phase_run(phase, "turn", SIDE_BIT(phase->flip.source), turn_steps, ARRAY_LENGTH(turn_steps), finish_turn);
}

/*
 * --- with a promise, and clients that wait for it ---
 *
 * The stream's start takes as long as setting names does, so both are begun at once. What the promise rests
 * on comes after both: a commit is seen waiting, which proves that every later one waits, too; and what it
 * wrote is on the other side.
 */

static const struct step follow_steps[] = {READ_START_STEP, END_OLD_STREAM_STEP, FOLLOW_STEP};

static const struct step proof_steps[] = {PROMISE_PROBE_STEP, PROMISE_RETURN_STEP, PROMISE_SYNCHRONOUS_STEP,
                                          PROMISE_ARRIVAL_STEP};

enum { UNNAME_WITHIN_US = 1000000 };

static void unnamed(void *context, const struct replication_result *result)
{
    struct phase *phase = context;
    struct replication_result kept = phase->result;
    if (!result->ok) {
        LOG_WARN("standby_names_not_emptied", LOG_STR("side", side_name(side_other(phase->flip.source))),
                 LOG_STR("reason", result->error.message));
    }
    phase_finish(phase, &kept);
}

/* Names that nobody confirms would let every commit wait. */
static void finish_lossless(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    if (result->ok || result->error.code == ERROR_ABORTED || result->error.code == ERROR_FLIP_RUNNING) {
        finish_turn(phase, result);
        return;
    }
    enum side target = side_other(phase->flip.source);
    phase->result = *result;
    phase_leave(phase, true);
    promise_cancel_probes(phase->replication, target);
    replication_names(phase->replication, target, phase->flip.epoch + 1, false,
                      clock_mono_us() + UNNAME_WITHIN_US, unnamed, phase);
}

/* One of the two has ended; the other's failure may be known already. */
static void join(struct phase *phase, const struct replication_result *result)
{
    phase->result.uncertain |= result->uncertain;
    if (!result->ok && phase->result.ok) {
        phase->result.ok = false;
        phase->result.error = result->error;
    }
    phase->under_way--;
    if (phase->under_way > 0) {
        return;
    }
    if (phase->result.ok) {
        phase_run(phase, "lossless turn", SIDE_BIT(phase->flip.source), proof_steps,
                  ARRAY_LENGTH(proof_steps), finish_lossless);
        return;
    }
    const struct replication_result kept = phase->result;
    if (phase->named) {
        finish_lossless(phase, &kept);
    } else {
        phase_finish(phase, &kept);
    }
}

static void named(void *context, const struct replication_result *result)
{
    struct phase *phase = context;
    phase->named = result->ok;
    join(phase, result);
}

static void followed(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    phase_leave(phase, false);
    join(phase, result);
}

void replication_turn(struct replication *replication, const struct replication_flip *flip, bool promise,
                      int64_t deadline_us, replication_done done, void *context)
{
    const enum side target = side_other(flip->source);
    struct phase *phase = phase_new(replication, flip, deadline_us, done, context);
    phase->promise = promise;
    if (!promise) {
        replication_names(replication, target, flip->epoch + 1, false, deadline_us, names_ready, phase);
        return;
    }
    phase->under_way = 2;
    phase->result = (struct replication_result){.ok = true};
    phase_run(phase, "follow", SIDE_BIT(flip->source), follow_steps, ARRAY_LENGTH(follow_steps), followed);
    replication_names(replication, target, flip->epoch + 1, true, deadline_us, named, phase);
}
