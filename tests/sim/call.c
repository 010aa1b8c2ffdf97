/*
 * Procedures of the controller, as replication/procedure.c runs them: one strand a database, a statement at a
 * time, over a network that loses both statements and replies. A statement that nobody waits for any more
 * goes on in its server: it is an orphan, until ownership ends its backend.
 */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <string.h>

enum { LOCK_RETRY_US = 1 * SIM_MS, BATCH_US = 50, NOTICE_MOST_US = 20 * SIM_MS, HANG_UP_US = 200 };

static void send_step(struct sim *sim, struct call *call, struct strand *strand);
static void advance(struct sim *sim, struct call *call, struct strand *strand);

static uint32_t name_of(const struct sim *sim, const struct call *call, const struct strand *strand)
{
    return (uint32_t)(call - sim->my->calls) * SIDE_COUNT * DATABASES + (uint32_t)strand->side * DATABASES +
           strand->database;
}

/* The strand that a moment is for; NULL: its statement is over. */
static struct strand *strand_of(struct sim *sim, const struct moment *moment, struct call **call)
{
    *call = &sim->my->calls[moment->who / (SIDE_COUNT * DATABASES)];
    struct strand *strand = &(*call)->strands[moment->who / DATABASES % SIDE_COUNT][moment->who % DATABASES];
    const bool current = (*call)->used && (*call)->life == moment->life && strand->in_flight &&
                         strand->number == (uint64_t)moment->value;
    return current ? strand : NULL;
}

struct claim call_claim(const struct sim *sim, const struct call *call, const struct strand *strand)
{
    (void)sim;
    return (struct claim){.side = strand->at,
                          .database = strand->database,
                          .owner = call->owner,
                          .connection = strand->connection,
                          .flip = call->request.flip,
                          .epoch = call->request.epoch - 1};
}

/* --- connections --- */

static void noticed(struct sim *sim, const struct moment *moment)
{
    struct cluster *cluster = &sim->clusters[moment->who];
    for (unsigned d = 0; d < DATABASES; d++) {
        struct ready *ready = &cluster->databases[d].ready;
        if (ready->open && ready->connection == (uint64_t)moment->value) {
            SAY(sim, side_name((enum side)moment->who), "/%u rolls back what a lost client left open", d);
            ready->open = false;
        }
    }
}

/* The server sees its client go; what hears nothing rolls back when it was idle in its transaction too long.
 */
static void let_notice(struct sim *sim, enum side side, uint64_t connection)
{
    const bool heard = network_passes(sim, sim->my->node, (enum node)side);
    const int64_t left_alone_us = sim->options.max_hold_us + 10 * SIM_SECOND;
    sim_later(sim, heard ? sim_between(sim, 100, NOTICE_MOST_US) : left_alone_us, noticed, (uint32_t)side, 0,
              (int64_t)connection);
}

static void lose_connection(struct sim *sim, enum side side)
{
    if (sim->my->connected[side] || sim->my->connecting[side]) {
        let_notice(sim, side, sim->my->connection[side]);
    }
    sim->my->connected[side] = sim->my->connecting[side] = false;
}

static void use_connection(struct sim *sim, struct strand *strand)
{
    const enum side side = strand->at;
    if (!sim->my->connected[side] && !sim->my->connecting[side]) {
        sim->my->connection[side] = ++sim->connections;
        sim->my->connecting[side] = true;
    }
    strand->connects = !sim->my->connected[side];
    strand->connection = sim->my->connection[side];
}

static void end_backends_of(struct daemon *daemon, enum side side, uint64_t but)
{
    for (unsigned i = 0; i < CALLS; i++) {
        struct call *call = &daemon->calls[i];
        for (int s = 0; call->used && s < SIDE_COUNT; s++) {
            for (unsigned d = 0; d < DATABASES; d++) {
                struct strand *strand = &call->strands[s][d];
                if (strand->in_flight && strand->at == side &&
                    (strand->connection != but || (call->phase && strand->executing))) {
                    strand->killed = true;
                }
            }
        }
    }
}

/* Ends the controllers' backends on a side: all but those of `but`'s own connection. */
void call_end_backends(struct sim *sim, enum side side, uint64_t but)
{
    for (unsigned i = 0; i < sim->daemon_count; i++) {
        end_backends_of(&sim->daemons[i], side, but);
    }
    for (unsigned d = 0; d < DATABASES; d++) {
        struct ready *ready = &sim->clusters[side].databases[d].ready;
        ready->open = ready->open && ready->connection == but;
    }
}

/* --- the end of a call --- */

static bool is_over(const struct call *call, bool for_all)
{
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            const struct strand *strand = &call->strands[s][d];
            if (strand->runs || (for_all && strand->in_flight)) {
                return false;
            }
        }
    }
    return true;
}

static void release(struct sim *sim, struct call *call)
{
    call->dead = true;
    if (sim->my->phase_call == call->life) {
        sim->my->phase_call = 0;
        scripts_phase_over(sim);
    }
    if (is_over(call, true)) {
        call->used = false;
    }
}

void call_collect(struct call *call)
{
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            const struct strand *strand = &call->strands[s][d];
            if (strand->failed && call->error.code == ERROR_NONE) {
                call->error = strand->error;
            }
            call->uncertain |= strand->uncertain;
        }
    }
}

void call_forget(struct call *call)
{
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            call->strands[s][d].failed = call->strands[s][d].uncertain = false;
        }
    }
}

static void end_call(struct sim *sim, struct call *call)
{
    call_collect(call);
    if (call->aborted) {
        (void)error_set(&call->error, ERROR_ABORTED, "%s was aborted", flip_action_name(call->request.kind));
    }
    scripts_finish(sim, call);
    scripts_answer(sim, call);
    release(sim, call);
}

static void check_over(struct sim *sim, struct call *call)
{
    if (call->dead) {
        if (is_over(call, true)) {
            call->used = false;
        }
    } else if (is_over(call, false) && !(call->script.then != NULL && call->script.then(sim, call))) {
        end_call(sim, call);
    }
}

static void end_strand(struct sim *sim, struct call *call, struct strand *strand)
{
    const bool counts = strand->runs || call->dead;
    strand->runs = strand->in_flight = false;
    if (counts) {
        check_over(sim, call);
    }
}

static void fail_strand(struct sim *sim, struct call *call, struct strand *strand, enum error_code code,
                        bool uncertain)
{
    if (!strand->failed) {
        (void)error_set(&strand->error, code, "%s/%u: no answer", side_name(strand->at), strand->database);
    }
    strand->failed = true;
    strand->uncertain |= uncertain;
    end_strand(sim, call, strand);
}

static void on_deadline(struct sim *sim, const struct moment *moment)
{
    struct call *call = &sim->my->calls[moment->who];
    if (!call->used || call->life != moment->life || call->dead || moment->at_us < call->deadline_us) {
        return;
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            struct strand *strand = &call->strands[s][d];
            if (!strand->runs) {
                continue;
            }
            if (strand->in_flight) {
                lose_connection(sim, strand->at);
            }
            if (strand->error.code == ERROR_NONE) {
                (void)error_set(&strand->error, ERROR_TIMEOUT, "%s/%u: not in time", side_name(strand->at),
                                d);
            }
            strand->failed = true;
            strand->uncertain |= strand->in_flight;
            strand->runs = false;
        }
    }
    if (!(call->script.then != NULL && call->script.then(sim, call))) {
        end_call(sim, call);
    }
}

/* --- a statement --- */

static void reply(struct sim *sim, const struct moment *moment);

static void send_reply(struct sim *sim, struct call *call, struct strand *strand)
{
    strand->executing = false;
    if (call->dead) {
        let_notice(sim, strand->at, strand->connection);
        end_strand(sim, call, strand);
        return;
    }
    network_send(sim, (enum node)strand->at, sim->my->node, reply, name_of(sim, call, strand), call->life,
                 (int64_t)strand->number);
}

/* Its backend was ended, or its server died. */
static void reset(struct sim *sim, struct call *call, struct strand *strand)
{
    strand->lost = true;
    send_reply(sim, call, strand);
}

/* Once, if it is asked again and again. */
static void say(struct sim *sim, const struct call *call, struct strand *strand)
{
    const bool failed = strand->verdict == VERDICT_FAILED;
    const bool again = strand->verdict == VERDICT_AGAIN;
    if (call->for_sampler || (again && strand->told == strand->step + 1)) {
        return;
    }
    strand->told = again ? strand->step + 1 : 0;
    SAY(sim, side_name(strand->at), "/%u %s%s%s%s", strand->database, strand->steps[strand->step].name,
        call->dead ? " (an orphan)" : "",
        failed  ? ": "
        : again ? ": not yet"
                : "",
        failed ? strand->error.message : "");
}

static void execute(struct sim *sim, const struct moment *moment)
{
    struct call *call;
    struct strand *strand = strand_of(sim, moment, &call);
    if (strand == NULL) {
        return;
    }
    const struct cluster *cluster = &sim->clusters[strand->at];
    if (strand->killed || cluster->life != strand->life) {
        reset(sim, call, strand);
        return;
    }
    const struct step *step = &strand->steps[strand->step];
    error_clear(&strand->error);
    sim->my->owner_met = 0;
    strand->verdict = step->run(sim, call, strand, &strand->error);
    strand->owner_met = sim->my->owner_met;
    if (strand->verdict == VERDICT_BLOCKED) {
        if (sim->now_us < strand->server_end_us) {
            sim_later(sim, LOCK_RETRY_US, execute, moment->who, moment->life, moment->value);
            return;
        }
        strand->verdict = VERDICT_FAILED;
        (void)error_set(&strand->error, ERROR_TIMEOUT, "%s/%u: a lock wasn't to be had",
                        side_name(strand->at), strand->database);
    }
    say(sim, call, strand);
    strand->executed = true;
    const unsigned next = strand->step + 1;
    if (strand->verdict == VERDICT_OK && next < strand->count && strand->steps[next].batched) {
        strand->step = next;
        sim_later(sim, BATCH_US, execute, moment->who, moment->life, moment->value);
        return;
    }
    send_reply(sim, call, strand);
}

static void arrive(struct sim *sim, const struct moment *moment)
{
    struct call *call;
    struct strand *strand = strand_of(sim, moment, &call);
    if (strand == NULL) {
        return;
    }
    struct cluster *cluster = &sim->clusters[strand->at];
    if (!cluster->up || (!strand->connects && sim->my->connection_life[strand->at] != cluster->life) ||
        strand->killed) {
        reset(sim, call, strand);
        return;
    }
    const int64_t still_us = faults_stand_still(sim, strand->at, strand->connection);
    if (still_us > 0) {
        sim_later(sim, still_us, arrive, moment->who, moment->life, moment->value);
        return;
    }
    if (strand->connects) {
        sim->my->connection_life[strand->at] = cluster->life;
        sim->my->owner_met = 0;
        if (!scripts_own_side(sim, call, strand)) {
            strand->owner_met = sim->my->owner_met;
            reset(sim, call, strand);
            return;
        }
    }
    strand->executing = true;
    strand->life = cluster->life;
    strand->server_end_us = sim->now_us + call->deadline_us - strand->sent_us;
    execute(sim, moment);
}

static void send_again(struct sim *sim, const struct moment *moment)
{
    struct call *call = &sim->my->calls[moment->who / (SIDE_COUNT * DATABASES)];
    struct strand *strand = &call->strands[moment->who / DATABASES % SIDE_COUNT][moment->who % DATABASES];
    if (call->used && !call->dead && call->life == moment->life && strand->runs && !strand->in_flight &&
        strand->number == (uint64_t)moment->value) {
        send_step(sim, call, strand);
    }
}

static void reply(struct sim *sim, const struct moment *moment)
{
    struct call *call;
    struct strand *strand = strand_of(sim, moment, &call);
    if (strand == NULL) {
        return;
    }
    strand->in_flight = false;
    if (!strand->runs) { /* it came too late */
        end_strand(sim, call, strand);
        return;
    }
    if (strand->lost) {
        lose_connection(sim, strand->at);
    }
    const struct step *step = &strand->steps[strand->step];
    const bool failed = strand->lost || strand->verdict == VERDICT_FAILED;
    if (!call->dead && daemon_is_deposed_by(sim, strand->at, strand->owner_met)) {
        ports_deposed(sim); /* whatever was asked for meanwhile */
    }
    if (failed && step->tolerant && !call->dead && !call->aborted) {
        strand->step++;
        advance(sim, call, strand);
        return;
    }
    if (strand->lost) {
        fail_strand(sim, call, strand, ERROR_UNREACHABLE, !strand->connects || strand->executed);
        return;
    }
    if (sim->my->connecting[strand->at] && sim->my->connection[strand->at] == strand->connection) {
        sim->my->connected[strand->at] = true;
        sim->my->connecting[strand->at] = false;
    }
    if (call->dead || call->aborted) {
        fail_strand(sim, call, strand, ERROR_ABORTED, false);
    } else if (strand->verdict == VERDICT_AGAIN) {
        sim_later(sim, step->again_us, send_again, moment->who, call->life, (int64_t)strand->number);
    } else if (strand->verdict == VERDICT_FAILED) {
        strand->failed = true;
        end_strand(sim, call, strand);
    } else {
        strand->step++;
        advance(sim, call, strand);
    }
}

static void send_step(struct sim *sim, struct call *call, struct strand *strand)
{
    const struct step *step = &strand->steps[strand->step];
    strand->at = step->other ? side_other(strand->side) : strand->side;
    strand->number = ++sim->life;
    strand->in_flight = true;
    strand->executing = strand->killed = strand->lost = strand->executed = false;
    strand->owner_met = 0;
    strand->sent_us = sim->now_us;
    use_connection(sim, strand);
    network_send(sim, sim->my->node, (enum node)strand->at, arrive, name_of(sim, call, strand), call->life,
                 (int64_t)strand->number);
}

static void advance(struct sim *sim, struct call *call, struct strand *strand)
{
    while (strand->step < strand->count && strand->steps[strand->step].skip != NULL &&
           strand->steps[strand->step].skip(sim, strand)) {
        strand->step++;
    }
    if (strand->step == strand->count || strand->skips) {
        end_strand(sim, call, strand);
    } else {
        send_step(sim, call, strand);
    }
}

/* --- calls --- */

struct call *call_new(struct sim *sim, const struct flip_request *request, int64_t deadline_us)
{
    struct call *call = sim->my->calls;
    while (call->used) {
        call++;
        ENSURE(call < &sim->my->calls[CALLS]);
    }
    memset(call, 0, sizeof *call);
    call->used = true;
    call->life = ++sim->life;
    call->request = *request;
    call->owner = sim->my->owner;
    call->deadline_us = deadline_us > sim->now_us ? deadline_us : sim->now_us;
    sim_later(sim, call->deadline_us - sim->now_us, on_deadline, (uint32_t)(call - sim->my->calls),
              call->life, 0);
    return call;
}

void call_run(struct sim *sim, struct call *call, const struct script *script)
{
    call->script = *script;
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            struct strand *strand = &call->strands[s][d];
            const bool runs = (script->sides & (1U << s)) != 0 && (!script->once || d == 0);
            strand->side = (enum side)s;
            strand->database = d;
            strand->failed = strand->uncertain = false;
            error_clear(&strand->error);
            strand->runs = runs;
            if (runs) {
                strand->steps = script->steps;
                strand->count = script->count;
                strand->step = 0;
                strand->skips = false;
            }
        }
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            if (call->strands[s][d].runs) {
                advance(sim, call, &call->strands[s][d]);
            }
        }
    }
}

void call_extend(struct sim *sim, struct call *call, int64_t by_us)
{
    call->deadline_us = sim->now_us + by_us;
    sim_later(sim, by_us, on_deadline, (uint32_t)(call - sim->my->calls), call->life, 0);
}

struct call *call_of(struct sim *sim, uint64_t life)
{
    struct call *call = sim->my->calls;
    while (!call->used || call->life != life) {
        call++;
        ENSURE(call < &sim->my->calls[CALLS]);
    }
    return call;
}

void call_abort(struct sim *sim, struct call *call)
{
    call->aborted = true;
    for (int s = 0; s < SIDE_COUNT && !call->dead; s++) {
        for (unsigned d = 0; d < DATABASES && !call->dead; d++) {
            struct strand *strand = &call->strands[s][d];
            if (strand->runs && !strand->in_flight) {
                fail_strand(sim, call, strand, ERROR_ABORTED, false);
            }
        }
    }
}

/* An idle connection sees its server go, and is made anew by the next statement. */
static void hung_up(struct sim *sim, const struct moment *moment)
{
    const enum side side = (enum side)moment->who;
    if (sim->my->connected[side] && sim->my->connection[side] == (uint64_t)moment->value) {
        sim->my->connected[side] = false;
    }
}

static void lose_side(struct sim *sim, enum side side)
{
    if (sim->my->connected[side] && network_passes(sim, (enum node)side, sim->my->node)) {
        sim_later(sim, HANG_UP_US, hung_up, (uint32_t)side, 0, (int64_t)sim->my->connection[side]);
    }
    for (unsigned i = 0; i < CALLS; i++) {
        struct call *call = &sim->my->calls[i];
        for (int s = 0; s < SIDE_COUNT; s++) {
            for (unsigned d = 0; call->used && d < DATABASES; d++) {
                struct strand *strand = &call->strands[s][d];
                if (strand->in_flight && strand->executing && strand->at == side) {
                    reset(sim, call, strand);
                }
            }
        }
    }
}

void call_side_crashed(struct sim *sim, enum side side)
{
    for (unsigned i = 0; i < sim->daemon_count; i++) {
        struct daemon *before = sim_as(sim, i);
        lose_side(sim, side);
        sim->my = before;
    }
}

/* kill -9: what was sent is on its way all the same. */
void call_daemon_died(struct sim *sim)
{
    for (unsigned i = 0; i < CALLS; i++) {
        struct call *call = &sim->my->calls[i];
        if (call->used) {
            call->dead = true;
            check_over(sim, call);
        }
    }
    sim->my->phase_call = 0;
    sim->my->undo_waits = false;
    lose_connection(sim, SIDE_BLUE);
    lose_connection(sim, SIDE_GREEN);
}
