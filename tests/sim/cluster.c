/*
 * A cluster: its WAL, what of it is flushed, what a crash takes back, backends and their locks.
 *
 * An LSN is the number of records before it. A record keeps the catalog as it was before it, so a crash walks
 * back from the end to what was flushed. Clients' commits flush, and so do an apply worker's, because prepare
 * makes its subscription say local.
 */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { WALWRITER_US = 200 * SIM_MS, CHECKPOINT_US = 3 * SIM_SECOND };

void cluster_begin(struct sim *sim)
{
    for (int s = 0; s < SIDE_COUNT; s++) {
        struct cluster *cluster = &sim->clusters[s];
        cluster->up = true;
        cluster->sync_local = true;
        cluster->life = ++sim->life;
        cluster->end = cluster->flushed = 1; /* 0 is no LSN */
        for (unsigned d = 0; d < DATABASES; d++) {
            struct database *database = &cluster->databases[d];
            const bool active = s == SIDE_BLUE;
            database->now = (struct catalog){.epoch = 1,
                                             .standing = active ? STANDING_ACTIVE : STANDING_STANDBY,
                                             .start = active ? 1 : 0,
                                             .fence = !active,
                                             .subscribed = !active,
                                             .origin = 1,
                                             .managed = (1U << TABLES) - 1,
                                             .published = (1U << TABLES) - 1};
            database->slot = (struct slot){.confirmed = 1, .saved = 1};
            database->worker = (struct apply_worker){0};
            memset(database->rows, 0, sim->transaction_size);
        }
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (unsigned d = 0; d < DATABASES; d++) {
            stream_launch(sim, (enum side)s, d);
        }
        sim_later(sim, WALWRITER_US, cluster_walwriter, (uint32_t)s, 0, 0);
    }
}

/* --- rows --- */

static void set_row(struct sim *sim, enum side side, unsigned database, uint32_t transaction, bool there)
{
    struct database *place = &sim->clusters[side].databases[database];
    const bool counts = sim->transactions[transaction].state == TRANSACTION_ACKNOWLEDGED;
    ENSURE(place->rows[transaction] != there);
    place->rows[transaction] = there;
    if (counts) {
        place->missing += there ? (uint32_t)-1 : 1;
    }
}

void cluster_put(struct sim *sim, enum side side, unsigned database, uint32_t transaction)
{
    if (sim->clusters[side].databases[database].rows[transaction] != 0) {
        oracle_broke(sim, "the rows of transaction %" PRIu32 " come to %s a second time", transaction,
                     side_name(side));
        return;
    }
    set_row(sim, side, database, transaction, true);
}

/* --- WAL --- */

position cluster_append(struct sim *sim, enum side side, unsigned database, enum record_what what,
                        uint32_t transaction, bool published)
{
    struct cluster *cluster = &sim->clusters[side];
    const struct database *place = &cluster->databases[database];
    if (cluster->end == cluster->wal_size) {
        cluster->wal_size *= 2;
        cluster->wal = realloc(cluster->wal, cluster->wal_size * sizeof *cluster->wal);
        ENSURE(cluster->wal != NULL);
    }
    cluster->wal[cluster->end++] = (struct wal_record){.what = what,
                                                       .database = (uint8_t)database,
                                                       .published = published,
                                                       .transaction = transaction,
                                                       .made_on = side,
                                                       .marker = place->now.markers[side],
                                                       .before = place->now};
    return cluster->end;
}

void cluster_flush(struct sim *sim, enum side side)
{
    struct cluster *cluster = &sim->clusters[side];
    if (cluster->flushed != cluster->end) {
        cluster->flushed = cluster->end;
        stream_wake(sim, side);
        stream_confirm(sim, side);
    }
}

void cluster_walwriter(struct sim *sim, const struct moment *moment)
{
    const enum side side = (enum side)moment->who;
    struct cluster *cluster = &sim->clusters[side];
    if (cluster->up) {
        cluster_flush(sim, side);
        for (unsigned d = 0; d < DATABASES && moment->value % (CHECKPOINT_US / WALWRITER_US) == 0; d++) {
            cluster->databases[d].slot.saved = cluster->databases[d].slot.confirmed;
        }
    }
    sim_later(sim, WALWRITER_US, cluster_walwriter, moment->who, 0, moment->value + 1);
}

/* --- crash --- */

static void take_back(struct sim *sim, enum side side, const struct wal_record *record)
{
    struct database *database = &sim->clusters[side].databases[record->database];
    if (record->what == WAL_ROWS && record->transaction != 0) {
        set_row(sim, side, record->database, record->transaction, false);
    }
    database->now = record->before;
}

void cluster_crash(struct sim *sim, enum side side)
{
    struct cluster *cluster = &sim->clusters[side];
    if (!cluster->up) {
        return;
    }
    SAY(sim, side_name(side), "CRASHES, and loses %" PRIu32 " records of its WAL",
        cluster->end - cluster->flushed);
    sim->figures.crashes++;
    cluster->up = false;
    oracle_away(sim, side);
    cluster->life = ++sim->life;
    while (cluster->end > cluster->flushed) {
        take_back(sim, side, &cluster->wal[--cluster->end]);
    }
    for (unsigned d = 0; d < DATABASES; d++) {
        struct database *database = &cluster->databases[d];
        database->ready.open = false;
        database->slot.confirmed = database->slot.saved;
        stream_end(sim, side, d);
        stream_end(sim, side_other(side), d);
    }
    call_side_crashed(sim, side);
    proxy_side_crashed(sim, side);
}

void cluster_start(struct sim *sim, enum side side)
{
    struct cluster *cluster = &sim->clusters[side];
    if (cluster->up) {
        return;
    }
    SAY(sim, side_name(side), "is up again");
    cluster->up = true;
    cluster->life = ++sim->life;
    for (unsigned d = 0; d < DATABASES; d++) {
        stream_launch(sim, SIDE_BLUE, d);
        stream_launch(sim, SIDE_GREEN, d);
    }
}

/* --- backends --- */

enum { EOF_MOST_US = 20 * SIM_MS, KEEPALIVE_US = 30 * SIM_SECOND };

bool cluster_open_for_writes(const struct sim *sim, enum side side, unsigned database)
{
    return sim->clusters[side].up && !sim->clusters[side].databases[database].now.fence;
}

/* Takes effect on commits to come; those that wait look again. */
void cluster_set_names(struct sim *sim, enum side side, bool named)
{
    struct cluster *cluster = &sim->clusters[side];
    if (cluster->named != named) {
        SAY(sim, side_name(side), "synchronous_standby_names are %s", named ? "set" : "emptied");
    }
    cluster->named = cluster->named_all = named;
}

/* Its names say who must have confirmed it: FIRST n all of them, a bare list any. */
bool cluster_confirmed(const struct sim *sim, enum side side, position commit)
{
    const struct cluster *cluster = &sim->clusters[side];
    bool all = true, any = false;
    for (unsigned d = 0; d < DATABASES; d++) {
        const bool there = cluster->databases[d].slot.confirmed >= commit;
        all &= there;
        any |= there;
    }
    return !cluster->named || (cluster->named_all ? all : any);
}

bool link_alive(const struct sim *sim, int link)
{
    return link != NO_LINK && sim->links[link].used && sim->clusters[sim->links[link].side].up &&
           sim->clusters[sim->links[link].side].life == sim->links[link].server;
}

int link_open(struct sim *sim, enum side side, unsigned database, uint32_t client)
{
    int link = 0;
    while (sim->links[link].used) {
        link++;
        ENSURE(link < LINKS);
    }
    sim->links[link] = (struct link){.used = true,
                                     .side = side,
                                     .database = database,
                                     .server = sim->clusters[side].life,
                                     .life = ++sim->life,
                                     .client = client,
                                     .daemon = (unsigned)(sim->my - sim->daemons)};
    return link;
}

void link_close(struct sim *sim, int link)
{
    sim->links[link].used = false;
}

/* By pg_terminate_backend. Its number is its session's until that has noticed. */
void link_end(struct sim *sim, int number)
{
    struct link *link = &sim->links[number];
    if (link->client >= CLIENTS || link->abandoned) {
        link_close(sim, number);
        return;
    }
    proxy_server_closed(sim, number);
    link->server = 0;
    link->transaction = 0;
    link->writes = link->committed = false;
}

static void noticed(struct sim *sim, const struct moment *moment)
{
    struct link *link = &sim->links[moment->who];
    if (link->used && link->life == moment->life) {
        link_close(sim, (int)moment->who);
    }
}

void link_abandon(struct sim *sim, int number)
{
    if (number == NO_LINK || !sim->links[number].used) {
        return;
    }
    struct link *link = &sim->links[number];
    const bool heard = link->around || network_passes(sim, sim->my->node, (enum node)link->side);
    link->abandoned = true;
    sim_later(sim, heard ? sim_between(sim, 0, EOF_MOST_US) : KEEPALIVE_US, noticed, (uint32_t)number,
              link->life, 0);
}

bool cluster_has_writers(const struct sim *sim, enum side side, unsigned database)
{
    for (int i = 0; i < LINKS; i++) {
        const struct link *link = &sim->links[i];
        if (link->used && link->writes && link->side == side && link->database == database &&
            link_alive(sim, i)) {
            return true;
        }
    }
    return false;
}
