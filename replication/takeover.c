/* The active side is dead: the standby is cut off from it, or follows it again; an operator's word about who
 * is active. */
#include "replication/flip.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/names.h"
#include "replication/sql.h"

#include <stdlib.h>
#include <string.h>

enum {
    /* What was sent before the other side died is applied by a worker that heard nothing for this long. One
     * that still hears is not waited for: of a side that lives on, what it hears from here on was confirmed
     * to nobody. */
    SILENT_US = 50000,
    LISTEN_US = 1000000,
    LOOK_AGAIN_US = 10000
};

/* --- cut off --- */

static void build_listen(struct strand *strand, struct strbuf *sql)
{
    sql_format(
        sql,
        "select count(w.pid), coalesce(bool_and(a.backend_xid is null and a.wait_event is not distinct from"
        " 'LogicalApplyMain'), true), max(w.received_lsn) from pg_subscription u join pg_stat_subscription w"
        " on w.subid = u.oid left join pg_stat_activity a on a.pid = w.pid where u.subname = %L and "
        "u.subdbid ="
        " (select oid from pg_database where datname = current_database()) and w.pid is not null",
        names_subscription(side_other(strand->side)));
}

static enum verdict judge_listen(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct phase_database *database = phase_database(strand);
    const struct phase *phase = strand->data;
    const char *received = reply_value(reply, 0, 2);
    uint64_t now_us = (uint64_t)clock_mono_us();
    (void)error;
    if (reply_int(reply, 0, 0) == 0 || now_us > (uint64_t)(phase->began_us + LISTEN_US)) {
        return VERDICT_NEXT;
    }
    received = received == NULL ? "" : received;
    bool same = reply_bool(reply, 0, 1) && database->text != NULL && strcmp(database->text, received) == 0;
    if (!same) {
        free(database->text);
        database->text = strdup(received);
        ENSURE(database->text != NULL);
        database->n = now_us;
    }
    return same && now_us - database->n > SILENT_US ? VERDICT_NEXT : VERDICT_AGAIN;
}

static void build_cut_off(struct strand *strand, struct strbuf *sql)
{
    const struct replication_flip *flip = phase_flip(strand);
    phase_begin_sql(strand, sql);
    sql_format(sql, "cut_off(%u, %u, %u); commit", strand->replication->owner, flip->epoch, flip->flip);
}

static void build_end_worker(struct strand *strand, struct strbuf *sql)
{
    sql_format(
        sql,
        "select count(pg_terminate_backend(w.pid)) from pg_stat_subscription w join pg_subscription u on "
        "u.oid ="
        " w.subid where w.pid is not null and u.subname = %L and not u.subenabled and u.subdbid = (select oid"
        " from pg_database where datname = current_database())",
        names_subscription(side_other(strand->side)));
}

static enum verdict judge_end_worker(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply_int(reply, 0, 0) == 0) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_TIMEOUT, "the apply worker of %s/%s has not ended", side_name(strand->side),
                    strand->database_name);
    return VERDICT_AGAIN;
}

static const struct step cut_off_steps[] = {
    {.name = "apply what came", .build = build_listen, .judge = judge_listen, .again_us = LOOK_AGAIN_US},
    {.name = "cut off", .heals = true, .build = build_cut_off},
    {.name = "end the stream", .build = build_end_worker, .judge = judge_end_worker},
};

void replication_cut_off(struct replication *replication, const struct replication_flip *flip,
                         int64_t deadline_us, replication_done done, void *context)
{
    struct phase *phase = phase_new(replication, flip, deadline_us, done, context);
    phase_run(phase, "cut off", SIDE_BIT(side_other(flip->source)), cut_off_steps,
              ARRAY_LENGTH(cut_off_steps), phase_finish);
}

/* --- the undo --- */

static void build_reattach(struct strand *strand, struct strbuf *sql)
{
    const struct replication_flip *flip = phase_flip(strand);
    /* What was made ready and is still open is rolled back by this. */
    phase_begin_sql(strand, sql);
    sql_format(sql, "reattach(%u, %u, %u); commit", strand->replication->owner, flip->epoch, flip->flip);
    if (*phase_target(strand) == TARGET_READY) {
        *phase_target(strand) = TARGET_CLOSED;
    }
}

static const struct step reattach_steps[] = {
    {.name = "follow again", .heals = true, .build = build_reattach}};

static void start_reattach(struct phase *phase)
{
    phase->wakes_sampler = true;
    phase_run(phase, "reattach", SIDE_BIT(side_other(phase->flip.source)), reattach_steps,
              ARRAY_LENGTH(reattach_steps), phase_finish);
}

void replication_reattach(struct replication *replication, const struct replication_flip *flip,
                          int64_t deadline_us, replication_done done, void *context)
{
    phase_take_over(phase_new(replication, flip, deadline_us, done, context), start_reattach);
}

/* --- an operator's word --- */

static void build_adopt(struct strand *strand, struct strbuf *sql)
{
    phase_begin_sql(strand, sql);
    sql_format(sql, "adopt(%u, %u); commit", strand->replication->owner, phase_flip(strand)->epoch);
}

static const struct step adopt_steps[] = {
    {.name = "adopt", .heals = true, .build = build_adopt},
    {.name = "end the stream", .build = build_end_worker, .judge = judge_end_worker},
};

static void start_adopt(struct phase *phase)
{
    phase->wakes_sampler = true;
    phase_run(phase, "adopt", SIDE_BIT(phase->flip.source), adopt_steps, ARRAY_LENGTH(adopt_steps),
              phase_finish);
}

void replication_adopt(struct replication *replication, enum side side, uint64_t epoch, int64_t deadline_us,
                       replication_done done, void *context)
{
    const struct replication_flip flip = {.source = side, .epoch = epoch};
    phase_take_over(phase_new(replication, &flip, deadline_us, done, context), start_adopt);
}
