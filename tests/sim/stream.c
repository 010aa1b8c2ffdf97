/*
 * Logical replication of one database: the walsender reads the publisher's flushed WAL from where the
 * subscriber's origin says (never from before the slot), the apply worker commits transaction after
 * transaction on the subscriber, its feedback moves the slot. It has no origin filter: what was applied on
 * the publisher is sent like what was written there (flip.md; `origin = none` needs 16 on both sides).
 *
 * A worker confirms what it knows to be flushed of its own commits. One that starts again knows of none, so
 * it confirms all that its predecessor applied, flushed or not (PostgreSQL 15 and 17 do).
 */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <inttypes.h>

enum {
    LAUNCH_LEAST_US = 10 * SIM_MS,
    LAUNCH_MOST_US = 110 * SIM_MS,
    LINGER_MOST_US = 300 * SIM_MS, /* of a worker whose subscription was disabled */
    IDLE_US = 100 * SIM_MS
};

static uint32_t stream_of(enum side subscriber, unsigned database)
{
    return (uint32_t)subscriber * DATABASES + database;
}

static struct apply_worker *worker_of(struct sim *sim, enum side subscriber, unsigned database)
{
    return &sim->clusters[subscriber].databases[database].worker;
}

bool stream_runs(const struct sim *sim, enum side subscriber, unsigned database)
{
    const struct apply_worker *worker = &sim->clusters[subscriber].databases[database].worker;
    return worker->runs && !worker->ends &&
           network_both_ways(sim, (enum node)subscriber, (enum node)side_other(subscriber));
}

/* --- one transaction after the other --- */

/* The next record of this database that is published; false: nothing more is flushed. */
static bool find_next(const struct cluster *publisher, struct apply_worker *worker, unsigned database)
{
    for (; worker->at < publisher->flushed; worker->at++) {
        const struct wal_record *record = &publisher->wal[worker->at];
        if (record->database == database && record->published) {
            return true;
        }
    }
    return false;
}

static void apply(struct sim *sim, enum side side, unsigned number, const struct wal_record *record)
{
    struct database *database = &sim->clusters[side].databases[number];
    const enum side from = record->made_on;
    if (from == side) {
        oracle_broke(sim, "a change made on %s comes back to it: transaction %" PRIu32, side_name(side),
                     record->transaction);
        return;
    }
    cluster_append(sim, side, number, WAL_ROWS, record->transaction, true);
    struct wal_record *own = &sim->clusters[side].wal[sim->clusters[side].end - 1];
    own->made_on = from;
    own->marker = record->marker;
    if (record->transaction != 0) {
        cluster_put(sim, side, number, record->transaction);
    }
    database->now.markers[from] = record->marker;
    database->now.origin = database->worker.at + 1;
    database->worker.local = sim->clusters[side].end;
}

static void step(struct sim *sim, const struct moment *moment)
{
    const enum side side = (enum side)(moment->who / DATABASES);
    const unsigned number = moment->who % DATABASES;
    struct apply_worker *worker = worker_of(sim, side, number);
    const struct cluster *publisher = &sim->clusters[side_other(side)];
    if (!worker->runs || worker->life != moment->life) {
        return;
    }
    worker->asleep = false;
    if (!network_both_ways(sim, (enum node)side, (enum node)side_other(side)) ||
        !find_next(publisher, worker, number)) {
        worker->asleep = true;
        stream_confirm(sim, side);
        return;
    }
    const struct wal_record record = publisher->wal[worker->at];
    apply(sim, side, number, &record);
    worker->at++;
    if (sim->clusters[side].sync_local) {
        cluster_flush(sim, side);
    }
    const int64_t lag_us = sim->faults.lag_us[side] + sim->faults.lame_us[side][number];
    sim_later(sim, sim_between(sim, 100, 900) + (lag_us > 0 ? sim_between(sim, 0, lag_us) : 0), step,
              moment->who, worker->life, 0);
}

static void wake(struct sim *sim, enum side subscriber, unsigned database)
{
    struct apply_worker *worker = worker_of(sim, subscriber, database);
    if (worker->runs && worker->asleep) {
        worker->asleep = false;
        const int64_t lag_us = sim->faults.lag_us[subscriber] + sim->faults.lame_us[subscriber][database];
        sim_later(sim, sim_between(sim, 300, 1200) + lag_us, step, stream_of(subscriber, database),
                  worker->life, 0);
    }
}

void stream_wake(struct sim *sim, enum side publisher)
{
    for (unsigned d = 0; d < DATABASES; d++) {
        wake(sim, side_other(publisher), d);
    }
}

/* --- feedback --- */

static void confirmed(struct sim *sim, const struct moment *moment)
{
    const enum side publisher = side_other((enum side)(moment->who / DATABASES));
    struct slot *slot = &sim->clusters[publisher].databases[moment->who % DATABASES].slot;
    if (moment->life == sim->clusters[publisher].life && (position)moment->value > slot->confirmed) {
        slot->confirmed = (position)moment->value;
    }
}

/* What the subscriber has applied and flushed is reported to the publisher. */
void stream_confirm(struct sim *sim, enum side subscriber)
{
    const enum side publisher = side_other(subscriber);
    for (unsigned d = 0; d < DATABASES; d++) {
        struct apply_worker *worker = worker_of(sim, subscriber, d);
        if (worker->runs && worker->local <= sim->clusters[subscriber].flushed &&
            worker->at > worker->reported) {
            worker->reported = worker->at;
            network_send(sim, (enum node)subscriber, (enum node)publisher, confirmed,
                         stream_of(subscriber, d), sim->clusters[publisher].life, worker->at);
        }
    }
}

/* A feedback that a cut swallowed is sent again, and a worker looks whether its publisher is back. */
void stream_heartbeat(struct sim *sim, const struct moment *moment)
{
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            struct apply_worker *worker = worker_of(sim, (enum side)s, d);
            worker->reported = 0;
            wake(sim, (enum side)s, d);
        }
        stream_confirm(sim, (enum side)s);
    }
    sim_later(sim, IDLE_US, stream_heartbeat, 0, 0, moment->value);
}

/* --- life --- */

static void start(struct sim *sim, const struct moment *moment)
{
    const enum side side = (enum side)(moment->who / DATABASES);
    const unsigned number = moment->who % DATABASES;
    struct database *database = &sim->clusters[side].databases[number];
    struct apply_worker *worker = &database->worker;
    const struct cluster *publisher = &sim->clusters[side_other(side)];
    if (worker->life != moment->life || worker->runs || !database->now.subscribed) {
        return;
    }
    if (!publisher->up || !sim->clusters[side].up ||
        !network_both_ways(sim, (enum node)side, (enum node)side_other(side))) {
        sim_later(sim, LAUNCH_MOST_US, start, moment->who, worker->life, 0); /* it is tried again */
        return;
    }
    const position slot = publisher->databases[number].slot.confirmed;
    worker->runs = true;
    worker->ends = false;
    worker->at = database->now.origin > slot ? database->now.origin : slot;
    worker->local = 0; /* whatever its predecessor left unflushed */
    worker->reported = 0;
    worker->asleep = false;
    SAY(sim, side_name(side), "/%u stream starts at %" PRIu32, number, worker->at);
    step(sim, &(struct moment){.who = moment->who, .life = worker->life});
}

void stream_launch(struct sim *sim, enum side side, unsigned database)
{
    struct apply_worker *worker = worker_of(sim, side, database);
    if (worker->runs || !sim->clusters[side].up || !sim->clusters[side].databases[database].now.subscribed) {
        return;
    }
    worker->life = ++sim->life;
    sim_later(sim, sim_between(sim, LAUNCH_LEAST_US, LAUNCH_MOST_US), start, stream_of(side, database),
              worker->life, 0);
}

void stream_end(struct sim *sim, enum side side, unsigned database)
{
    struct apply_worker *worker = worker_of(sim, side, database);
    worker->runs = worker->ends = false;
    worker->life = ++sim->life;
    stream_launch(sim, side, database); /* if it is wanted: it ended by an accident */
}

static void lingered(struct sim *sim, const struct moment *moment)
{
    const enum side side = (enum side)(moment->who / DATABASES);
    struct apply_worker *worker = worker_of(sim, side, moment->who % DATABASES);
    if (worker->life == moment->life && worker->ends) {
        stream_end(sim, side, moment->who % DATABASES);
    }
}

void stream_disable(struct sim *sim, enum side side, unsigned database)
{
    struct apply_worker *worker = worker_of(sim, side, database);
    if (worker->runs) {
        worker->ends = true;
        sim_later(sim, sim_between(sim, 0, LINGER_MOST_US), lingered, stream_of(side, database), worker->life,
                  0);
    } else {
        worker->life = ++sim->life;
    }
}

bool stream_is_idle(const struct sim *sim, enum side subscriber, unsigned database)
{
    struct apply_worker worker = sim->clusters[subscriber].databases[database].worker;
    return stream_runs(sim, subscriber, database) &&
           !find_next(&sim->clusters[side_other(subscriber)], &worker, database);
}
