/*
 * What became of the COMMITs whose server went (proxy.h, proxy_doubt): asked of that side as soon as it
 * answers again. `committed` is an acknowledgement, so it must be as good as the server's own would have
 * been:
 *
 * - The id is that transaction's, and not of a later one: either the server has not crashed since (its
 *   statistics are as old as they were), or its last checkpoint is the one that ended its recovery, and the
 * id was given out before that. A side that was seen to go once more in between is asked no longer.
 * - It is the same cluster on the same timeline, and nobody has taken over from it.
 * - Where commits wait for the other side, that has confirmed it: after a crash, all up to the recovery's
 * end.
 *
 * That it was rolled back is certain sooner: what had no commit on disk has none now, whoever has the id; and
 * an id that the server gave out before it crashed, and did not know of after its recovery.
 */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/strbuf.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    ASK_MS = 100,
    ANSWER_WITHIN_US = 2 * CONTROLLER_SECOND_US,
    QUESTIONS_AT_ONCE = 500,
    QUESTION_SIZE = 256 * 1024
};

struct doubt_question {
    struct proxy_doubt doubt;
    int64_t deadline_us;
    uint64_t round;  /* of the query that asks for it; 0: none does */
    bool seen_again; /* its side has answered, but not yet for good */
    bool settled;
    struct doubt_question *next;
};

struct asking {
    struct controller *controller;
    enum side side;
    uint64_t round;
};

/* --- the question --- */

static const char question_head[] =
    "with c as materialized (select redo_lsn = checkpoint_lsn as recovered, checkpoint_time as at,"
    " checkpoint_lsn as lsn,"
    " (split_part(next_xid, ':', 1)::bigint << 32) + split_part(next_xid, ':', 2)::bigint as next"
    " from pg_control_checkpoint()), s as materialized (select pg_current_xact_id()::text::bigint as next,"
    " pg_stat_get_bgwriter_stat_reset_time() as reset, pg_postmaster_start_time() as started,"
    " ((extract(epoch from pg_stat_get_bgwriter_stat_reset_time()) - 946684800) * 1000000)::bigint as began,"
    " exists (select from switchback.state t where t.standing <> 'diverged' and t.system_identifier ="
    " (select system_identifier::text from pg_control_system()) and t.timeline = ('x' || substr("
    "pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint) as same,"
    " current_setting('synchronous_standby_names') = '' or (select count(*) from pg_stat_replication r, c"
    " where r.sync_state in ('sync', 'quorum') and r.flush_lsn >= c.lsn) >= ";
/* Behind how many standbys must have confirmed. */
static const char question_body[] =
    " as confirmed) select string_agg(case when not s.same then 'u'"
    " when p.status = 'aborted' or (q.began <> 0 and q.began <> s.began and c.recovered"
    " and c.at >= date_trunc('second', s.reset) and q.xid >= c.next) then 'a'"
    " when p.status = 'in progress' then 'w'"
    " when p.status is distinct from 'committed' or not (coalesce(q.began = s.began and q.began <> 0,"
    " false) or (c.recovered and s.reset > s.started and q.xid < c.next)) then 'u'"
    " when not s.confirmed then 'w' else 'c' end, '' order by q.n)"
    " from c cross join s cross join (values ";
static const char question_tail[] =
    ") q(n, xid, began) cross join lateral (select case when q.xid < s.next then"
    " pg_xact_status(q.xid::text::xid8) else 'aborted' end as status) p";

/* A letter for each, in order: committed, rolled back, wait, unknown. An id that was not given out yet was
 * lost in a crash. */
static void build_question(const struct controller *controller, enum side side, uint64_t round,
                           struct strbuf *sql)
{
    size_t count = 0;
    strbuf_puts(sql, question_head);
    strbuf_printf(sql, "%zu", controller->settings->databases.count);
    strbuf_puts(sql, question_body);
    for (struct doubt_question *question = controller->doubts; question != NULL; question = question->next) {
        if (question->doubt.side == side && !question->settled && count < QUESTIONS_AT_ONCE) {
            question->round = round;
            strbuf_printf(sql, "%s(%zu, %" PRIu64 "::bigint, %" PRId64 "::bigint)", count == 0 ? "" : ", ",
                          count, question->doubt.transaction, question->doubt.incarnation);
            count++;
        }
    }
    strbuf_puts(sql, question_tail);
}

/* --- answers --- */

/* One event tells of all that a round has settled: there may be thousands. */
struct tally {
    unsigned counts[PROXY_OUTCOME_COUNT];
};

static void tell(struct controller *controller, const struct tally *tally)
{
    const unsigned *counts = tally->counts;
    if (counts[PROXY_OUTCOME_COMMITTED] + counts[PROXY_OUTCOME_ABORTED] + counts[PROXY_OUTCOME_UNKNOWN] > 0) {
        events_publish(
            controller->events, LOG_LEVEL_INFO, "commits_in_doubt", 0, flip_phase_text(&controller->flip),
            "commits whose server went: %u committed, %u rolled back, %u unknown",
            counts[PROXY_OUTCOME_COMMITTED], counts[PROXY_OUTCOME_ABORTED], counts[PROXY_OUTCOME_UNKNOWN]);
    }
}

static void settle(struct controller *controller, struct doubt_question *question, enum proxy_outcome outcome,
                   struct tally *tally)
{
    if (question->settled) {
        return;
    }
    question->settled = true;
    tally->counts[outcome]++;
    if (controller->proxy != NULL) {
        proxy_doubt_answer(controller->proxy, question->doubt.request, outcome);
    }
}

/* Traffic is elsewhere, or going there without this side's word: what it says of itself is not the truth. */
static bool is_void(const struct controller *controller, enum side side)
{
    const struct flip *flip = &controller->flip;
    bool taken_over = flip_running(flip) && flip->spec.kind == FLIP_KIND_TAKEOVER;
    return taken_over || flip->mode == FLIP_MODE_DEPOSED || flip->history.active != side;
}

static void judge(struct controller *controller, struct doubt_question *question, char letter,
                  struct tally *tally)
{
    if (is_void(controller, question->doubt.side) || letter == 'u') {
        settle(controller, question, PROXY_OUTCOME_UNKNOWN, tally);
    } else if (letter == 'c' || letter == 'a') {
        settle(controller, question, letter == 'c' ? PROXY_OUTCOME_COMMITTED : PROXY_OUTCOME_ABORTED, tally);
    } else {
        question->seen_again = true;
    }
}

static void on_answer(void *context, const struct replication_result *result, const char *value)
{
    struct asking *asking = context;
    struct controller *controller = asking->controller;
    struct tally tally = {.counts = {0}};
    const char *letter = value == NULL ? "" : value;
    bool hopeless = result->ok ? value == NULL : result->error.code == ERROR_SQL;
    controller->doubts_asked[asking->side] = 0;
    for (struct doubt_question *question = controller->doubts; question != NULL; question = question->next) {
        if (question->round != asking->round) {
            continue;
        }
        question->round = 0;
        if (*letter != '\0') {
            judge(controller, question, *letter++, &tally);
        } else if (hopeless || question->seen_again) {
            settle(controller, question, PROXY_OUTCOME_UNKNOWN, &tally);
        }
    }
    tell(controller, &tally);
    free(asking);
    controller_unref(controller);
}

/* --- rounds --- */

static void ask(struct controller *controller, enum side side)
{
    struct strbuf sql;
    struct asking *asking = malloc(sizeof *asking);
    ENSURE(asking != NULL);
    *asking = (struct asking){.controller = controller, .side = side, .round = ++controller->doubts_rounds};
    strbuf_init(&sql, QUESTION_SIZE);
    build_question(controller, side, asking->round, &sql);
    ENSURE(!sql.failed);
    controller->doubts_asked[side] = asking->round;
    controller_ref(controller);
    replication_query(controller->replication, side, "", strbuf_text(&sql), ANSWER_WITHIN_US, on_answer,
                      asking);
    strbuf_deinit(&sql);
}

static void forget_settled(struct controller *controller, int64_t now_us)
{
    struct tally tally = {.counts = {0}};
    struct doubt_question **at = &controller->doubts;
    while (*at != NULL) {
        struct doubt_question *question = *at;
        if (now_us >= question->deadline_us || is_void(controller, question->doubt.side)) {
            settle(controller, question, PROXY_OUTCOME_UNKNOWN, &tally);
        }
        if (question->settled && question->round == 0) { /* else its letter is still to come */
            *at = question->next;
            free(question);
        } else {
            at = &question->next;
        }
    }
    tell(controller, &tally);
}

static void go_on(struct controller *controller)
{
    bool due[SIDE_COUNT] = {false};
    forget_settled(controller, clock_mono_us());
    for (struct doubt_question *question = controller->doubts; question != NULL; question = question->next) {
        due[question->doubt.side] = true;
    }
    for (int side = 0; side < SIDE_COUNT; side++) {
        if (due[side] && controller->doubts_asked[side] == 0) {
            ask(controller, (enum side)side);
        }
    }
    if (controller->doubts == NULL) {
        (void)uv_timer_stop(&controller->doubt_timer);
    }
}

static void on_time(uv_timer_t *timer)
{
    go_on(timer->data);
}

void controller_doubt(void *context, const struct proxy_doubt *doubt)
{
    struct controller *controller = context;
    struct doubt_question *question = malloc(sizeof *question);
    if (controller->stopping || question == NULL) {
        free(question);
        return; /* the proxy tells its clients itself */
    }
    *question = (struct doubt_question){
        .doubt = *doubt,
        .deadline_us = clock_mono_us() + controller->settings->timeouts.in_doubt_us + CONTROLLER_SECOND_US,
        .next = controller->doubts};
    bool first = controller->doubts == NULL;
    controller->doubts = question;
    if (first) {
        /* not at once: a crash brings many of them, and the server's last words may still be on their way */
        ENSURE(uv_timer_start(&controller->doubt_timer, on_time, ASK_MS, ASK_MS) == 0);
    }
}

void controller_doubts_deinit(struct controller *controller)
{
    while (controller->doubts != NULL) {
        struct doubt_question *question = controller->doubts;
        controller->doubts = question->next;
        free(question);
    }
}
