#include "replication/flip.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/promise.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <stdlib.h>

struct flip_memory *flip_memory_new(size_t databases)
{
    return calloc(1, sizeof(struct flip_memory) + databases * sizeof(enum target_state));
}

struct phase *phase_new(struct replication *replication, const struct replication_flip *flip,
                        int64_t deadline_us, replication_done done, void *context)
{
    struct phase *phase = calloc(1, sizeof *phase);
    ENSURE(phase != NULL);
    *phase = (struct phase){.replication = replication,
                            .deadline_us = deadline_us,
                            .began_us = clock_mono_us(),
                            .done = done,
                            .context = context,
                            .databases = calloc(replication->database_count, sizeof *phase->databases)};
    ENSURE(phase->databases != NULL);
    if (flip != NULL) {
        phase->flip = *flip;
    }
    return phase;
}

static void phase_free(struct phase *phase)
{
    for (size_t i = 0; i < phase->replication->database_count; i++) {
        free(phase->databases[i].text);
        free(phase->databases[i].leaves[SIDE_BLUE]);
        free(phase->databases[i].leaves[SIDE_GREEN]);
        promise_forget(phase->databases[i].probe);
    }
    free(phase->databases);
    free(phase->sessions);
    free(phase);
}

void phase_run(struct phase *phase, const char *name, unsigned sides, const struct step *steps,
               size_t step_count, void (*finish)(void *phase, const struct replication_result *result))
{
    struct flip_memory *memory = phase->replication->flip;
    const struct procedure_plan plan = {.name = name,
                                        .steps = steps,
                                        .step_count = step_count,
                                        .sides = sides,
                                        .deadline_us = phase->deadline_us,
                                        .done = finish,
                                        .data = phase};
    if (memory->phase != NULL && memory->phase != phase) {
        struct error busy;
        (void)error_set(&busy, ERROR_FLIP_RUNNING, "%s: another phase of a flip is running", name);
        procedure_refuse(phase->replication, &plan, &busy);
        return;
    }
    memory->phase = phase;
    memory->running = procedure_start(phase->replication, &plan);
}

void phase_take_over(struct phase *phase, void (*start)(struct phase *phase))
{
    struct flip_memory *memory = phase->replication->flip;
    if (memory->phase == NULL || memory->waiting != NULL) {
        start(phase); /* a second one is refused by phase_run */
        return;
    }
    memory->waiting = phase;
    memory->waiting_start = start;
    procedure_abort(memory->running);
}

/* Returns the phase that waited for its end; NULL. */
static struct phase *leave(struct phase *phase, bool wakes_sampler)
{
    struct flip_memory *memory = phase->replication->flip;
    if (memory->phase != phase) {
        return NULL;
    }
    if (wakes_sampler) {
        sampler_wake(phase->replication->sampler);
    }
    struct phase *waiting = memory->waiting;
    memory->phase = NULL;
    memory->running = NULL;
    memory->waiting = NULL;
    return waiting;
}

void phase_leave(struct phase *phase, bool wakes_sampler)
{
    struct phase *waiting = leave(phase, wakes_sampler);
    if (waiting != NULL) {
        phase->replication->flip->waiting_start(waiting);
    }
}

void phase_finish(void *data, const struct replication_result *result)
{
    struct phase *phase = data;
    struct flip_memory *memory = phase->replication->flip;
    struct phase *waiting = leave(phase, phase->wakes_sampler || !result->ok);
    phase->done(phase->context, result);
    phase_free(phase);
    if (waiting != NULL) {
        memory->waiting_start(waiting);
    }
}

struct phase_database *phase_database(const struct strand *strand)
{
    const struct phase *phase = strand->data;
    return &phase->databases[strand->database];
}

enum target_state *phase_target(const struct strand *strand)
{
    return &strand->replication->flip->target[strand->database];
}

const struct replication_flip *phase_flip(const struct strand *strand)
{
    const struct phase *phase = strand->data;
    return &phase->flip;
}

static void begin_sql(const struct strand *strand, struct strbuf *sql, int64_t lock_us)
{
    /* What an earlier phase left open when it failed goes first. */
    bool left_open = connection_in_transaction(
        engine_lane(strand->replication, strand->side, LANE_WORK, strand->database));
    strbuf_puts(sql, left_open ? "rollback; begin; " : "begin; ");
    sql_limits(sql, strand->plan->deadline_us);
    if (lock_us > 0) {
        sql_format(sql, "set local lock_timeout = %d; ", lock_us / 1000);
    }
    strbuf_puts(sql, "select switchback.");
}

void phase_begin_sql(const struct strand *strand, struct strbuf *sql)
{
    begin_sql(strand, sql, 0);
}

void phase_begin_hasty_sql(const struct strand *strand, struct strbuf *sql, int64_t lock_us)
{
    begin_sql(strand, sql, lock_us);
}
