#include "replication/procedure.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <stdlib.h>

enum {
    /* A fact that is waited for is asked for without a pause this long: a marker takes 1.5 ms to cross. */
    EAGER_US = 20000,
    HEAL_US = 20000, /* between askings of a side that is given our number */
    DEFAULT_AGAIN_US = 5000
};

struct runner {
    struct strand strand; /* what steps see */
    struct procedure *procedure;
    size_t step;
    int64_t step_began_us;
    uv_timer_t pause;
    struct connection *asking; /* the lane that a request of this strand is on; NULL */
    bool ended;
    struct error waiting_for; /* what the last AGAIN said */
};

struct procedure {
    struct procedure *next;
    struct replication *replication;
    struct procedure_plan plan;
    bool aborted;
    struct error refusal;
    int64_t began_us;
    size_t running, open_handles, count;
    struct runner runners[];
};

static void advance(struct runner *runner);

/* --- the end --- */

static void unlink_procedure(struct procedure *procedure)
{
    struct procedure **link = &procedure->replication->procedures;
    while (*link != procedure) {
        link = &(*link)->next;
    }
    *link = procedure->next;
}

static void collect(const struct procedure *procedure, struct replication_result *result)
{
    result->ok = true;
    for (size_t i = 0; i < procedure->count; i++) {
        const struct strand *strand = &procedure->runners[i].strand;
        if (strand->failed && result->ok) {
            result->ok = false;
            result->error = strand->error;
        }
        result->uncertain = result->uncertain || strand->uncertain;
    }
    if (procedure->refusal.code != ERROR_NONE) {
        result->ok = false;
        result->error = procedure->refusal;
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct procedure *procedure = handle->data;
    procedure->open_handles--;
    if (procedure->open_handles > 0) {
        return;
    }
    struct replication *replication = procedure->replication;
    struct replication_result result = {0};
    collect(procedure, &result);
    unlink_procedure(procedure);
    if (!procedure->plan.quiet || !result.ok) {
        LOG_DEBUG("procedure_ended", LOG_STR("name", procedure->plan.name), LOG_BOOL("ok", result.ok),
                  LOG_BOOL("uncertain", result.uncertain),
                  LOG_MS("elapsed_ms", clock_mono_us() - procedure->began_us),
                  LOG_STR("error", result.ok ? "" : result.error.message));
    }
    procedure->plan.done(procedure->plan.data, &result);
    free(procedure);
    engine_part_closed(replication);
}

static void close_handles(struct procedure *procedure)
{
    for (size_t i = 0; i < procedure->count; i++) {
        uv_close((uv_handle_t *)&procedure->runners[i].pause, on_handle_closed);
    }
}

static void end(struct runner *runner)
{
    if (runner->ended) {
        return;
    }
    runner->ended = true;
    runner->procedure->running--;
    if (runner->procedure->running == 0) {
        close_handles(runner->procedure);
    }
}

static void fail(struct runner *runner, const struct error *error, bool uncertain)
{
    struct strand *strand = &runner->strand;
    strand->failed = true;
    strand->uncertain = uncertain;
    strand->error = *error;
    /* Of a lost side the step tells nothing: any would have met it. */
    if (runner->step < strand->plan->step_count && error->code != ERROR_UNREACHABLE) {
        (void)error_set(&strand->error, error->code, "%s: %s", strand->plan->steps[runner->step].name,
                        error->message);
    }
    if (error->remedy[0] != '\0') {
        (void)error_remedy(&strand->error, "%s", error->remedy);
    }
    end(runner);
}

static void fail_aborted(struct runner *runner, bool uncertain)
{
    struct error error;
    (void)error_set(&error, ERROR_ABORTED, "%s was aborted", runner->strand.plan->name);
    fail(runner, &error, uncertain);
}

/* --- a step --- */

static void on_pause_over(uv_timer_t *timer)
{
    struct runner *runner = CONTAINER_OF(timer, struct runner, pause);
    if (!runner->ended) {
        advance(runner);
    }
}

static void again(struct runner *runner, const struct step *step, int64_t least_us)
{
    int64_t now_us = clock_mono_us();
    int64_t deadline_us = runner->strand.plan->deadline_us;
    if (deadline_us != 0 && now_us >= deadline_us && !step->unlimited) {
        struct error late;
        (void)error_set(&late, ERROR_TIMEOUT, "not in time%s%s",
                        runner->waiting_for.code == ERROR_NONE ? "" : ": ", runner->waiting_for.message);
        fail(runner, &late, false);
        return;
    }
    int64_t longest_us = step->again_us == 0 ? DEFAULT_AGAIN_US : step->again_us;
    int64_t waited_us = now_us - runner->step_began_us;
    int64_t pause_us = waited_us < EAGER_US ? 0 : waited_us / 8;
    if (pause_us > longest_us) {
        pause_us = longest_us;
    }
    if (pause_us < least_us) {
        pause_us = least_us;
    }
    ENSURE(uv_timer_start(&runner->pause, on_pause_over, (uint64_t)pause_us / 1000, 0) == 0);
}

static void next(struct runner *runner)
{
    const struct step *step = &runner->strand.plan->steps[runner->step];
    if (!runner->strand.plan->quiet) {
        LOG_DEBUG("step_ended", LOG_STR("procedure", runner->strand.plan->name), LOG_STR("name", step->name),
                  LOG_STR("side", side_name(step->on == ON_THIS_SIDE ? runner->strand.side
                                                                     : side_other(runner->strand.side))),
                  LOG_MS("elapsed_ms", clock_mono_us() - runner->step_began_us));
    }
    runner->step++;
    runner->step_began_us = 0;
    error_clear(&runner->waiting_for);
    advance(runner);
}

/* The controller took ownership while the side was away. Nothing was done: claim() is a transaction's first.
 */
static bool lacks_our_number(const struct strand *strand, const struct reply *reply)
{
    uint64_t owner;
    return reply_owner(reply, &owner) && owner < strand->replication->owner && !strand->replication->deposed;
}

static void on_reply(void *context, const struct reply *reply)
{
    struct runner *runner = context;
    struct strand *strand = &runner->strand;
    const struct step *step = &strand->plan->steps[runner->step];
    runner->asking = NULL;
    const enum side asked = step->on == ON_THIS_SIDE ? strand->side : side_other(strand->side);
    engine_note_reply(strand->replication, asked, reply);
    if (runner->procedure->aborted) {
        /* An answer that came all the same stands; what was asked next isn't. */
        fail_aborted(runner, reply->uncertain);
        return;
    }
    if (step->heals && lacks_our_number(strand, reply)) {
        sampler_own(strand->replication->sampler, asked);
        runner->waiting_for = reply->error;
        again(runner, step, HEAL_US);
        return;
    }
    if (!reply->ok && !step->tolerant) {
        fail(runner, &reply->error, reply->uncertain);
        return;
    }
    struct error error = {.code = ERROR_NONE};
    enum verdict verdict = step->judge == NULL ? VERDICT_NEXT : step->judge(strand, reply, &error);
    switch (verdict) {
    case VERDICT_NEXT:
        next(runner);
        break;
    case VERDICT_AGAIN:
        runner->waiting_for = error;
        again(runner, step, step->least_us);
        break;
    case VERDICT_END:
        end(runner);
        break;
    case VERDICT_FAIL:
        fail(runner, error.code == ERROR_NONE ? &reply->error : &error, reply->uncertain);
        break;
    }
}

static void rolled_back(void *context, const struct reply *reply)
{
    (void)context;
    (void)reply; /* lost: then the server rolls back, and what follows meets the same loss */
}

static void ask(struct runner *runner, const struct step *step, const char *sql)
{
    struct strand *strand = &runner->strand;
    enum side side = step->on == ON_THIS_SIDE ? strand->side : side_other(strand->side);
    struct connection *lane = engine_lane(strand->replication, side, step->lane, strand->database);
    int64_t deadline_us = step->unlimited ? 0 : strand->plan->deadline_us;
    if (runner->step_began_us == 0) {
        runner->step_began_us = clock_mono_us();
    }
    runner->asking = lane;
    /* A request of several statements that failed after its BEGIN leaves the lane so that it refuses all. */
    if (connection_transaction_failed(lane)) {
        connection_send(lane, "rollback", deadline_us, rolled_back, NULL);
    }
    if (step->single) {
        connection_send_single(lane, sql, deadline_us, on_reply, runner);
    } else {
        connection_send(lane, sql, deadline_us, on_reply, runner);
    }
}

static void advance(struct runner *runner)
{
    struct strand *strand = &runner->strand;
    if (runner->procedure->aborted || runner->procedure->refusal.code != ERROR_NONE) {
        fail_aborted(runner, false);
        return;
    }
    for (; runner->step < strand->plan->step_count; runner->step++) {
        const struct step *step = &strand->plan->steps[runner->step];
        if (step->skip != NULL && step->skip(strand)) {
            continue;
        }
        struct strbuf sql;
        strbuf_init(&sql, SQL_LIMIT);
        if (step->build != NULL) {
            step->build(strand, &sql);
        } else {
            strbuf_puts(&sql, step->sql);
        }
        bool empty = sql.length == 0;
        if (sql.failed) {
            struct error error;
            (void)error_set(&error, ERROR_MEMORY, "the request is too long");
            fail(runner, &error, false);
        } else if (!empty) {
            ask(runner, step, strbuf_text(&sql));
        }
        bool failed = sql.failed;
        strbuf_deinit(&sql);
        if (!empty || failed) {
            return;
        }
    }
    end(runner);
}

/* --- the beginning --- */

static struct procedure *create(struct replication *replication, const struct procedure_plan *plan)
{
    size_t sides = plan->sides == BOTH_SIDES ? 2 : 1;
    size_t each = plan->cluster ? 1 : replication->database_count;
    struct procedure *procedure = calloc(1, sizeof *procedure + sides * each * sizeof(struct runner));
    ENSURE(procedure != NULL);
    procedure->replication = replication;
    procedure->plan = *plan;
    procedure->began_us = clock_mono_us();
    procedure->count = procedure->running = procedure->open_handles = sides * each;
    enum side first = (plan->sides & SIDE_BIT(SIDE_BLUE)) != 0 ? SIDE_BLUE : SIDE_GREEN;
    for (size_t i = 0; i < procedure->count; i++) {
        struct runner *runner = &procedure->runners[i];
        runner->procedure = procedure;
        runner->strand = (struct strand){.replication = replication,
                                         .plan = &procedure->plan,
                                         .side = i < each ? first : side_other(first),
                                         .database = i % each,
                                         .database_name = engine_database(replication, i % each),
                                         .data = plan->data};
        ENSURE(uv_timer_init(replication->loop, &runner->pause) == 0);
        runner->pause.data = procedure;
    }
    procedure->next = replication->procedures;
    replication->procedures = procedure;
    replication->open_parts++;
    return procedure;
}

static void begin(struct procedure *procedure)
{
    /* Strands may end while others haven't begun: the count of those keeps the procedure. */
    procedure->running++;
    for (size_t i = 0; i < procedure->count; i++) {
        advance(&procedure->runners[i]);
    }
    procedure->running--;
    if (procedure->running == 0) {
        close_handles(procedure);
    }
}

struct procedure *procedure_start(struct replication *replication, const struct procedure_plan *plan)
{
    struct procedure *procedure = create(replication, plan);
    procedure->aborted = replication->stopping;
    begin(procedure);
    return procedure;
}

void procedure_refuse(struct replication *replication, const struct procedure_plan *plan,
                      const struct error *error)
{
    struct procedure *procedure = create(replication, plan);
    procedure->refusal = *error;
    begin(procedure);
}

void procedure_abort(struct procedure *procedure)
{
    if (procedure->aborted ||
        procedure->running == 0) { /* it has ended, only its handles are still closing */
        return;
    }
    procedure->aborted = true;
    procedure->running++;
    for (size_t i = 0; i < procedure->count; i++) {
        struct runner *runner = &procedure->runners[i];
        if (!runner->ended && runner->asking != NULL) {
            connection_cancel(runner->asking);
        } else if (!runner->ended) {
            fail_aborted(runner, false);
        }
    }
    procedure->running--;
    if (procedure->running == 0) {
        close_handles(procedure);
    }
}

void procedure_abort_all(struct replication *replication)
{
    for (struct procedure *procedure = replication->procedures; procedure != NULL;
         procedure = procedure->next) {
        procedure_abort(procedure);
    }
}

enum verdict procedure_judge_installed(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)strand;
    if (reply->ok) {
        return reply_bool(reply, 0, 0) ? VERDICT_NEXT : VERDICT_END;
    }
    *error = reply->error;
    return reply->error.code == ERROR_NOT_PREPARED ? VERDICT_END : VERDICT_FAIL; /* no such database */
}
