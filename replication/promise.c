#include "replication/promise.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/names.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <stdlib.h>
#include <string.h>

/* A probe that is cancelled returns as if it were confirmed: its procedure ends first. */
enum { LOOK_MS = 20, OUTLIVES_US = 1000000 };

struct probe {
    bool running, returned;
    bool forgotten; /* freed by the answer */
    uint64_t n;     /* of the marker that it wrote; 0: none */
    struct error error;
};

/* --- the probe commit --- */

static void on_returned(void *context, const struct reply *reply)
{
    struct probe *probe = context;
    if (probe->forgotten) {
        free(probe);
        return;
    }
    probe->running = false;
    probe->returned = true;
    probe->n = reply->ok ? reply_uint(reply, 0, 0) : 0;
    if (!reply->ok) {
        probe->error = reply->error;
    } else if (probe->n == 0) {
        (void)error_set(&probe->error, ERROR_STALE, "the side is not ours, or not active");
    } else {
        error_clear(&probe->error);
    }
}

void promise_forget(struct probe *probe)
{
    if (probe != NULL && probe->running) {
        probe->forgotten = true;
    } else {
        free(probe);
    }
}

void promise_cancel_probes(struct replication *replication, enum side side)
{
    for (size_t i = 0; i < replication->database_count; i++) {
        connection_cancel(engine_lane(replication, side, LANE_PROBE, i));
    }
}

void promise_put_probe(struct strbuf *sql, uint64_t owner)
{
    sql_format(sql,
               "begin; set local synchronous_commit = on; insert into switchback.marker as m (side, purpose,"
               " n, at) select s.side, 'promise', 1, clock_timestamp() from switchback.state s where s.owner"
               " = %u and s.standing = 'active' and s.fenced_for is null on conflict (side, purpose) do"
               " update set n = m.n + 1, at = excluded.at returning n; commit",
               owner);
}

/* It locks no state row, as other writing requests of ours do: it may wait long, and they would wait behind
 * it. */
static void start_probe(struct strand *strand, struct probe *probe)
{
    enum side side = side_other(strand->side);
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    promise_put_probe(&sql, strand->replication->owner);
    probe->running = true;
    probe->returned = false;
    connection_send(engine_lane(strand->replication, side, LANE_PROBE, strand->database), strbuf_text(&sql),
                    strand->plan->deadline_us + OUTLIVES_US, on_returned, probe);
    strbuf_deinit(&sql);
}

void promise_build_probe(struct strand *strand, struct strbuf *sql)
{
    struct probe **probe = &phase_database(strand)->probe;
    if (*probe == NULL) {
        *probe = calloc(1, sizeof **probe);
        ENSURE(*probe != NULL);
    }
    if (!(*probe)->running) {
        start_probe(strand, *probe);
    }
    const struct connection *lane =
        engine_lane(strand->replication, side_other(strand->side), LANE_PROBE, strand->database);
    sql_format(sql, "select switchback.sees_waiting(%d, interval '%d milliseconds')",
               (int64_t)connection_pid(lane), (int64_t)LOOK_MS);
}

enum verdict promise_judge_probe(struct strand *strand, const struct reply *reply, struct error *error)
{
    const struct probe *probe = phase_database(strand)->probe;
    if (reply_bool(reply, 0, 0)) {
        return VERDICT_NEXT;
    }
    if (probe->returned && probe->error.code != ERROR_NONE) {
        *error = probe->error;
        return VERDICT_FAIL;
    }
    /* It came back before we looked, or names that are set aren't in force yet. */
    (void)error_set(error, ERROR_NO_PROMISE, "commits on %s/%s don't wait for %s",
                    side_name(side_other(strand->side)), strand->database_name, side_name(strand->side));
    return VERDICT_AGAIN;
}

enum verdict promise_judge_return(struct strand *strand, const struct reply *reply, struct error *error)
{
    const struct probe *probe = phase_database(strand)->probe;
    (void)reply;
    if (!probe->returned) {
        (void)error_set(error, ERROR_NO_PROMISE, "%s has not confirmed a commit of %s/%s",
                        side_name(strand->side), side_name(side_other(strand->side)), strand->database_name);
        return VERDICT_AGAIN;
    }
    if (probe->error.code != ERROR_NONE) {
        *error = probe->error;
        return VERDICT_FAIL;
    }
    return VERDICT_NEXT;
}

void promise_build_synchronous(struct strand *strand, struct strbuf *sql)
{
    char slot[NAMES_SLOT_SIZE];
    sql_format(sql, "select synchronous from switchback.sync_out(%L)",
               names_slot(side_other(strand->side), strand->database_name, slot));
}

enum verdict promise_judge_synchronous(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply_bool(reply, 0, 0)) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_NO_PROMISE, "the stream of %s from %s is not synchronous",
                    strand->database_name, side_name(side_other(strand->side)));
    return VERDICT_AGAIN;
}

void promise_build_arrival(struct strand *strand, struct strbuf *sql)
{
    sql_format(
        sql,
        "select m.n, s.standing from switchback.state s left join switchback.marker m on m.side = %L and"
        " m.purpose = 'promise'",
        side_name(side_other(strand->side)));
}

enum verdict promise_judge_arrival(struct strand *strand, const struct reply *reply, struct error *error)
{
    const char *standing = reply_value(reply, 0, 1);
    const bool standby = standing != NULL && strcmp(standing, "standby") == 0;
    if (standby && reply_uint(reply, 0, 0) >= phase_database(strand)->probe->n) {
        return VERDICT_NEXT;
    }
    if (!standby) {
        (void)error_set(error, ERROR_NO_PROMISE, "%s/%s is %s: it can't take over", side_name(strand->side),
                        strand->database_name, standing == NULL ? "not prepared" : standing);
        return VERDICT_FAIL;
    }
    (void)error_set(error, ERROR_NO_PROMISE, "a commit of %s/%s returned before %s had it",
                    side_name(side_other(strand->side)), strand->database_name, side_name(strand->side));
    return VERDICT_FAIL;
}

void promise_build_confirm(struct strand *strand, struct strbuf *sql)
{
    phase_begin_sql(strand, sql);
    sql_format(sql, "confirm_at_once(%u); commit", strand->replication->owner);
}

/* --- the promise regained, in the watch --- */

static const struct step promise_steps[] = {
    PROMISE_CONFIRM_STEP,     PROMISE_PROBE_STEP,   PROMISE_RETURN_STEP,
    PROMISE_SYNCHRONOUS_STEP, PROMISE_ARRIVAL_STEP,
};

static void named(void *context, const struct replication_result *result)
{
    struct phase *phase = context;
    if (!result->ok) {
        phase_finish(phase, result);
        return;
    }
    /* Beside a phase that may begin: nothing of it is left open. */
    (void)procedure_start(phase->replication, &(struct procedure_plan){
                                                  .name = "promise",
                                                  .steps = promise_steps,
                                                  .step_count = ARRAY_LENGTH(promise_steps),
                                                  .sides = SIDE_BIT(side_other(phase->flip.source)),
                                                  .deadline_us = phase->deadline_us,
                                                  .done = phase_finish,
                                                  .data = phase,
                                              });
}

void replication_promise(struct replication *replication, enum side active, int64_t deadline_us,
                         replication_done done, void *context)
{
    uint64_t epoch = sampler_epoch(replication->sampler);
    const struct replication_flip flip = {.source = active, .epoch = epoch};
    struct phase *phase = phase_new(replication, &flip, deadline_us, done, context);
    replication_names(replication, active, epoch, true, deadline_us, named, phase);
}
