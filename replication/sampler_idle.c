/* The idle slot is moved along: what the standby publishes is sent to nobody until it is opened again. */
#include "replication/sampler_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/names.h"
#include "replication/promise.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>

enum { ADVANCE_WITHIN_US = 60000000 };

struct idle_position {
    char lsn[REPLICATION_LSN_SIZE];
    uint64_t epoch;
};

struct advance {
    struct sampler *sampler;
    struct idle_position *positions; /* by database */
    replication_done done;           /* somebody waits for it, and a stream begins soon; NULL */
    void *context;
};

static bool can_log_snapshots(const struct strand *strand)
{
    return connection_version(engine_lane(strand->replication, strand->side, LANE_AUX, strand->database)) >=
           160000;
}

static bool needs_no_snapshot(const struct strand *strand)
{
    const struct advance *advance = strand->data;
    return advance->done == NULL || !can_log_snapshots(strand);
}

/* The turn of a lossless flip begins with its connection. */
static bool needs_no_probe(const struct strand *strand)
{
    const struct advance *advance = strand->data;
    return advance->done == NULL || !strand->replication->settings->lossless;
}

/* It writes nothing on a standby. */
static void build_warm_up(struct strand *strand, struct strbuf *sql)
{
    promise_put_probe(sql, strand->replication->owner);
}

static void build_idle_position(struct strand *strand, struct strbuf *sql)
{
    /* A standby's fences are up: what stands in its WAL by now came from the other side, and none of it goes
     * back. */
    char slot[NAMES_SLOT_SIZE];
    sql_format(
        sql,
        "select pg_current_wal_flush_lsn(), s.epoch%s from switchback.state s, switchback.standing_check() c,"
        " pg_replication_slots k where s.standing = 'standby' and c.fences_up = c.tables and c.tables > 0"
        " and k.slot_name = %L and not k.active and k.wal_status in ('reserved', 'extended')"
        " and k.confirmed_flush_lsn < pg_current_wal_flush_lsn()",
        can_log_snapshots(strand) ? ", pg_log_standby_snapshot()" : "",
        names_slot(strand->side, strand->database_name, slot));
}

static enum verdict judge_idle_position(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct advance *advance = strand->data;
    const char *position = reply_value(reply, 0, 0);
    (void)error;
    if (position == NULL) {
        return VERDICT_END;
    }
    struct idle_position *idle = &advance->positions[strand->database];
    (void)snprintf(idle->lsn, sizeof idle->lsn, "%s", position);
    idle->epoch = reply_uint(reply, 0, 1);
    return VERDICT_NEXT;
}

static void build_advance(struct strand *strand, struct strbuf *sql)
{
    const struct advance *advance = strand->data;
    char slot[NAMES_SLOT_SIZE];
    if (clock_mono_us() < advance->sampler->rest_until_us) {
        return; /* a flip has begun: it needs the slot */
    }
    /*
     * The position was read after its snapshot: only a standby of the same epoch now was fenced at that
     * moment. The server logs each decoding that begins: not every 15 s because of us.
     */
    const struct idle_position *idle = &advance->positions[strand->database];
    sql_format(sql,
               "set local log_min_messages = fatal; select case when s.standing = 'standby' and s.epoch = %u"
               " then (pg_replication_slot_advance(%L, %L)).end_lsn end from switchback.state s",
               idle->epoch, names_slot(strand->side, strand->database_name, slot), idle->lsn);
}

/*
 * A stream starts to read at a snapshot of the running transactions. One is logged every 15 s, and with each
 * advance for the next one; before a flip there is none: it is logged, and flushed, before the position is
 * read.
 */
static const struct step advance_steps[] = {
    {.name = "warm up", .lane = LANE_PROBE, .tolerant = true, .skip = needs_no_probe, .build = build_warm_up},
    {.name = "log a snapshot",
     .lane = LANE_AUX,
     .tolerant = true,
     .skip = needs_no_snapshot,
     .sql = "begin; select pg_log_standby_snapshot(); select pg_logical_emit_message(true, 'switchback', "
            "'idle'); commit"},
    {.name = "read idle position",
     .lane = LANE_AUX,
     .build = build_idle_position,
     .judge = judge_idle_position},
    {.name = "advance idle slot", .lane = LANE_AUX, .build = build_advance},
};

static void advanced(void *data, const struct replication_result *result)
{
    struct advance *advance = data;
    advance->sampler->advancing--;
    if (!result->ok) {
        LOG_DEBUG("idle_slot_not_advanced", LOG_STR("reason", result->error.message));
    }
    if (advance->done != NULL) {
        advance->done(advance->context, result);
    }
    free(advance->positions);
    free(advance);
}

static void start(struct sampler *sampler, enum side standby, int64_t deadline_us, replication_done done,
                  void *context)
{
    struct advance *advance = calloc(1, sizeof *advance);
    ENSURE(advance != NULL);
    *advance = (struct advance){.sampler = sampler, .done = done, .context = context};
    advance->positions = calloc(sampler->replication->database_count, sizeof *advance->positions);
    ENSURE(advance->positions != NULL);
    const struct procedure_plan plan = {.name = "advance idle slot",
                                        .steps = advance_steps,
                                        .step_count = ARRAY_LENGTH(advance_steps),
                                        .sides = SIDE_BIT(standby),
                                        .deadline_us = deadline_us,
                                        .done = advanced,
                                        .data = advance};
    sampler->advancing++;
    (void)procedure_start(sampler->replication, &plan);
}

void sampler_advance_idle_slot(struct sampler *sampler)
{
    const enum side standby = side_other(sampler->active);
    if (sampler->active_known && sampler->advancing == 0 && sampler->sides[standby].answered) {
        start(sampler, standby, clock_mono_us() + ADVANCE_WITHIN_US, NULL, NULL);
    }
}

void replication_advance_idle_slots(struct replication *replication, enum side active, int64_t deadline_us,
                                    replication_done done, void *context)
{
    start(replication->sampler, side_other(active), deadline_us, done, context);
}
