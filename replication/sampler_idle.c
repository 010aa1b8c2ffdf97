/* The idle slot is moved along: what the standby publishes is sent to nobody until it is opened again. */
#include "replication/sampler_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/names.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>

enum { ADVANCE_WITHIN_US = 60000000 };

static void build_idle_position(struct strand *strand, struct strbuf *sql)
{
    /* A standby's fences are up: what stands in its WAL by now came from the other side, and none of it goes
     * back. */
    bool can_log = connection_version(
                       engine_lane(strand->replication, strand->side, LANE_AUX, strand->database)) >= 160000;
    char slot[NAMES_SLOT_SIZE];
    sql_format(
        sql,
        "select pg_current_wal_flush_lsn(), s.epoch%s from switchback.state s, switchback.standing_check() c,"
        " pg_replication_slots k where s.standing = 'standby' and c.fences_up = c.tables and c.tables > 0"
        " and k.slot_name = %L and not k.active and k.wal_status in ('reserved', 'extended')"
        " and k.confirmed_flush_lsn < pg_current_wal_flush_lsn()",
        can_log ? ", pg_log_standby_snapshot()" : "", names_slot(strand->side, strand->database_name, slot));
}

struct idle_position {
    char lsn[REPLICATION_LSN_SIZE];
    uint64_t epoch;
};

struct advance {
    struct sampler *sampler;
    struct idle_position *positions; /* by database */
};

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

static const struct step advance_steps[] = {
    {.name = "read idle position",
     .lane = LANE_AUX,
     .build = build_idle_position,
     .judge = judge_idle_position},
    {.name = "advance idle slot", .lane = LANE_AUX, .build = build_advance},
};

static void advanced(void *data, const struct replication_result *result)
{
    struct advance *advance = data;
    advance->sampler->advancing = false;
    if (!result->ok) {
        LOG_DEBUG("idle_slot_not_advanced", LOG_STR("reason", result->error.message));
    }
    free(advance->positions);
    free(advance);
}

void sampler_advance_idle_slot(struct sampler *sampler)
{
    enum side standby = side_other(sampler->active);
    if (!sampler->active_known || sampler->advancing || !sampler->sides[standby].answered) {
        return;
    }
    struct advance *advance = calloc(1, sizeof *advance);
    ENSURE(advance != NULL);
    advance->sampler = sampler;
    advance->positions = calloc(sampler->replication->database_count, sizeof *advance->positions);
    ENSURE(advance->positions != NULL);
    sampler->advancing = true;
    (void)procedure_start(sampler->replication,
                          &(struct procedure_plan){.name = "advance idle slot",
                                                   .steps = advance_steps,
                                                   .step_count = ARRAY_LENGTH(advance_steps),
                                                   .sides = SIDE_BIT(standby),
                                                   .deadline_us = clock_mono_us() + ADVANCE_WITHIN_US,
                                                   .done = advanced,
                                                   .data = advance});
}
