/* Clients of the proxy, and writers that go around it: what they send, what their server does with it. */
#include "tests/sim/sim.h"

#include <inttypes.h>

enum { THINK_MOST_US = 40 * SIM_MS, IDLE_MOST_US = 600 * SIM_MS, LOGIN_AGAIN_US = 60 * SIM_MS };

static struct transaction *transaction_of(struct sim *sim, uint32_t number)
{
    return &sim->transactions[number];
}

static uint32_t begin_transaction(struct sim *sim, unsigned client, unsigned database)
{
    const uint32_t number = sim->transaction_count++;
    *transaction_of(sim, number) = (struct transaction){.client = (uint8_t)client,
                                                        .database = (uint8_t)database,
                                                        .table = (uint8_t)sim_between(sim, 0, TABLES),
                                                        .statements = (uint8_t)sim_between(sim, 0, 3)};
    sim->figures.transactions++;
    return number;
}

/* --- in the server --- */

static void take_value(struct sim *sim, enum side side, struct database *database,
                       struct transaction *transaction)
{
    transaction->value = ++database->sequence;
    const bool settled = sim->settled == side && sim->settled_epoch == database->now.epoch;
    if (settled && transaction->value <= sim->sequence_used[transaction->database]) {
        oracle_broke(sim, "nextval() gives %" PRId64 ", which an acknowledged row has already",
                     transaction->value);
    }
}

static void end_in_server(struct link *link)
{
    link->transaction = 0;
    link->executed = 0;
    link->writes = link->committed = link->cancelled = false;
}

static enum answer commit(struct sim *sim, struct link *link)
{
    struct transaction *transaction = transaction_of(sim, link->transaction);
    const struct database *database = &sim->clusters[link->side].databases[link->database];
    if (link->committed) {
        if (!cluster_confirmed(sim, link->side, link->commit) && !link->cancelled) {
            return ANSWER_LATER;
        }
        transaction->unconfirmed = !cluster_confirmed(sim, link->side, link->commit);
        end_in_server(link);
        return ANSWER_OK;
    }
    if (link->executed != transaction->statements) {
        oracle_broke(sim,
                     "transaction %" PRIu32 " of client %u was split: %u of %u statements are in its session",
                     link->transaction, link->client, link->executed, transaction->statements);
        return ANSWER_FAILED;
    }
    if (transaction->committed || transaction->state == TRANSACTION_FAILED) {
        oracle_broke(sim, "transaction %" PRIu32 " is committed %s", link->transaction,
                     transaction->committed ? "twice" : "after its client was told that it failed");
    }
    if ((database->now.managed & (1U << transaction->table)) == 0) {
        transaction->table = 0; /* that one doesn't exist here */
    }
    const bool published = (database->now.published & (1U << transaction->table)) != 0;
    link->commit = cluster_append(sim, link->side, link->database, WAL_ROWS, link->transaction, published);
    transaction->committed = true;
    transaction->published = published;
    transaction->side = link->side;
    transaction->epoch = database->now.epoch;
    cluster_put(sim, link->side, link->database, link->transaction);
    cluster_flush(sim, link->side);
    link->writes = false;
    link->committed = true;
    return commit(sim, link);
}

static enum answer write_row(struct sim *sim, struct link *link)
{
    struct database *database = &sim->clusters[link->side].databases[link->database];
    struct transaction *transaction = transaction_of(sim, link->transaction);
    if (link->cancelled || (sim->faults.bad_green && link->side == SIDE_GREEN && sim_chance(sim, 300))) {
        end_in_server(link);
        return ANSWER_FAILED;
    }
    if (database->now.fence) {
        end_in_server(link);
        return ANSWER_FENCED;
    }
    if (!link->writes && sim->now_us < database->fence_waits_us) {
        return ANSWER_LATER;
    }
    if (link->executed == 0) {
        take_value(sim, link->side, database, transaction);
    }
    link->writes = true;
    link->executed++;
    return ANSWER_OK;
}

enum answer client_execute(struct sim *sim, struct link *link, unsigned statement)
{
    const bool around = link->client >= CLIENTS;
    const uint32_t number =
        around ? sim->writers[link->client - CLIENTS].transaction : sim->clients[link->client].transaction;
    if (link->transaction == 0) {
        if (statement != 1 || link->abandoned) {
            return ANSWER_FAILED; /* its transaction is gone */
        }
        link->transaction = number;
    }
    const struct database *database = &sim->clusters[link->side].databases[link->database];
    /* Until one that was deposed has seen another's flip, who comes to it reads what the standby has. */
    const bool behind = database->now.fence || database->now.epoch < sim->settled_last;
    const bool late = behind && !oracle_in_charge(sim);
    if (!around && !link->abandoned && !late && database->missing > database->excused) {
        oracle_broke(sim, "%" PRIu32 " acknowledged commits are missing on %s/%u, where a client is served",
                     database->missing, side_name(link->side), link->database);
    }
    const unsigned statements = transaction_of(sim, link->transaction)->statements;
    if (statements == 0) { /* it only reads */
        end_in_server(link);
        return ANSWER_OK;
    }
    return statement <= statements ? write_row(sim, link) : commit(sim, link);
}

/* --- what a client knows of its transaction --- */

static void acknowledge(struct sim *sim, uint32_t number)
{
    struct transaction *transaction = transaction_of(sim, number);
    /* Nobody promised what a cancel acknowledged, nor what a side takes that was given up with its commits.
     */
    if (!transaction->committed || transaction->unconfirmed || transaction->epoch < sim->given_up_epoch) {
        transaction->state = TRANSACTION_IN_DOUBT;
        return;
    }
    transaction->state = TRANSACTION_ACKNOWLEDGED;
    sim->figures.acknowledged++;
    if (transaction->value > sim->sequence_used[transaction->database]) {
        sim->sequence_used[transaction->database] = transaction->value;
    }
    for (int s = 0; s < SIDE_COUNT; s++) {
        struct database *database = &sim->clusters[s].databases[transaction->database];
        database->missing += database->rows[number] == 0;
    }
}

static void give_up(struct sim *sim, uint32_t number, unsigned said)
{
    struct transaction *transaction = transaction_of(sim, number);
    transaction->state = said > transaction->statements ? TRANSACTION_IN_DOUBT : TRANSACTION_FAILED;
}

/* --- clients of the proxy --- */

static void next(struct sim *sim, const struct moment *moment);

static void think(struct sim *sim, unsigned client, int64_t most_us)
{
    sim_later(sim, sim_between(sim, 0, most_us), next, client, sim->clients[client].life, 0);
}

/* Connects, or sends the next statement. */
static void next(struct sim *sim, const struct moment *moment)
{
    struct client *client = &sim->clients[moment->who];
    if (moment->life != client->life) {
        return;
    }
    if (!client->connected) {
        if (sim->daemon_count > 1) {
            sim->my = &sim->daemons[sim_between(sim, 0, sim->daemon_count - 1)];
        }
        if (sim->my->running) {
            proxy_client_arrives(sim, moment->who);
        } else {
            think(sim, moment->who, LOGIN_AGAIN_US);
        }
        return;
    }
    if (client->transaction == 0) {
        if (sim->quiet || sim->transaction_count == sim->transaction_size) {
            think(sim, moment->who, 10 * THINK_MOST_US);
            return;
        }
        client->transaction = begin_transaction(sim, moment->who, moment->who % DATABASES);
        client->said = 0;
    }
    client->said++;
    proxy_client_sends(sim, moment->who);
}

void client_connected(struct sim *sim, unsigned number)
{
    sim->clients[number].connected = true;
    sim->clients[number].daemon = (unsigned)(sim->my - sim->daemons);
    think(sim, number, THINK_MOST_US);
}

void client_answered(struct sim *sim, unsigned number, enum answer answer)
{
    struct client *client = &sim->clients[number];
    const struct transaction *transaction = transaction_of(sim, client->transaction);
    struct gate_traffic *traffic = &sim->my->sampler.traffic[proxy_worker(sim, number)->side];
    const bool last = transaction->statements == 0 || client->said > transaction->statements;
    traffic->statements++;
    traffic->errors += answer != ANSWER_OK;
    if (answer == ANSWER_FENCED) {
        oracle_client_error(sim, number, "25006");
    }
    if (answer != ANSWER_OK || last) {
        if (answer != ANSWER_OK) {
            give_up(sim, client->transaction, 0);
            client->errors++;
        } else if (transaction->statements > 0) {
            acknowledge(sim, client->transaction);
            client->commits++;
        }
        client->transaction = 0;
    }
    think(sim, number, !last && sim_chance(sim, 20) ? IDLE_MOST_US : THINK_MOST_US);
}

void client_ended(struct sim *sim, unsigned number, const char *sqlstate)
{
    struct client *client = &sim->clients[number];
    if (client->transaction != 0) {
        SAY(sim, "client", "%u lost transaction %" PRIu32 " %s %s", number, client->transaction,
            client->said > transaction_of(sim, client->transaction)->statements ? "in doubt" : "unfinished",
            sqlstate);
        give_up(sim, client->transaction, client->said);
    }
    oracle_client_error(sim, number, sqlstate);
    client->errors++;
    client->transaction = 0;
    client->connected = false;
    client->life = ++sim->life;
    think(sim, number, LOGIN_AGAIN_US);
}

void client_start(struct sim *sim)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        sim->clients[i] = (struct client){.life = ++sim->life};
        think(sim, i, LOGIN_AGAIN_US);
    }
}

/* --- around the proxy --- */

static void write_around(struct sim *sim, const struct moment *moment);

/* Its backend may have been ended, and its number given to another. */
static bool has_link(const struct sim *sim, const struct writer *writer)
{
    return link_alive(sim, writer->link) && sim->links[writer->link].life == writer->life;
}

static void writer_gives_up(struct sim *sim, struct writer *writer)
{
    if (writer->transaction != 0) {
        give_up(sim, writer->transaction, writer->said);
    }
    writer->transaction = 0;
    if (has_link(sim, writer)) {
        link_close(sim, writer->link);
    }
    writer->link = NO_LINK;
}

/* Only what was written on the side that the journal had settled on is anybody's promise. */
static void writer_acknowledged(struct sim *sim, struct writer *writer)
{
    const struct transaction *transaction = transaction_of(sim, writer->transaction);
    if (sim->settled == writer->side && sim->settled_epoch == transaction->epoch) {
        acknowledge(sim, writer->transaction);
    } else {
        transaction_of(sim, writer->transaction)->state = TRANSACTION_IN_DOUBT;
        sim->strayed = true;
        SAY(sim, "writer", "transaction %" PRIu32 " around the proxy, on %s, which isn't settled",
            writer->transaction, side_name(writer->side));
    }
    writer->transaction = 0;
}

static int64_t writer_step(struct sim *sim, struct writer *writer, unsigned number)
{
    if (!sim->clusters[writer->side].up || (sim->quiet && writer->transaction == 0)) {
        writer_gives_up(sim, writer);
        return 50 * SIM_MS;
    }
    if (!has_link(sim, writer)) {
        writer_gives_up(sim, writer);
        writer->link = link_open(sim, writer->side, number % DATABASES, CLIENTS + number);
        sim->links[writer->link].around = true;
        writer->life = sim->links[writer->link].life;
    }
    if (writer->transaction == 0) {
        if (sim->transaction_count == sim->transaction_size) {
            return SIM_SECOND;
        }
        writer->transaction = begin_transaction(sim, CLIENTS + number, number % DATABASES);
        transaction_of(sim, writer->transaction)->statements = 1;
        writer->said = 0;
    }
    writer->said++;
    const enum answer answer = client_execute(sim, &sim->links[writer->link], writer->said);
    if (answer == ANSWER_LATER) {
        writer->said--;
        return 1 * SIM_MS;
    }
    if (answer != ANSWER_OK) {
        transaction_of(sim, writer->transaction)->state = TRANSACTION_FAILED;
        writer->transaction = 0;
        return sim_between(sim, 0, 10 * SIM_MS);
    }
    if (writer->said == 2) {
        writer_acknowledged(sim, writer);
        return sim_between(sim, 0, 80 * SIM_MS);
    }
    return sim_chance(sim, 30) ? sim_between(sim, 0, 500 * SIM_MS) : sim_between(sim, 0, 5 * SIM_MS);
}

static void write_around(struct sim *sim, const struct moment *moment)
{
    struct writer *writer = &sim->writers[moment->who];
    const int64_t pause_us = writer_step(sim, writer, moment->who);
    sim_later(sim, pause_us, write_around, moment->who, 0, 0);
}

void writers_start(struct sim *sim)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        sim->writers[i] = (struct writer){.side = (enum side)(i % SIDE_COUNT), .link = NO_LINK};
        if (sim->faults.on[FAULT_BYPASS]) {
            sim_later(sim, 0, write_around, i, 0, 0);
        }
    }
}

/* Foreign backends are ended: writers around the proxy, what clients that are gone left behind, another
 * daemon's sessions. */
void writers_end(struct sim *sim, enum side side, unsigned database)
{
    for (int i = 0; i < LINKS; i++) {
        struct link *link = &sim->links[i];
        const bool ours = !link->around && !link->abandoned && &sim->daemons[link->daemon] == sim->my;
        if (link->used && !ours && link->side == side && link->database == database) {
            link_end(sim, i);
        }
    }
}

void sessions_end(struct sim *sim, enum side side, unsigned database)
{
    for (int i = 0; i < LINKS; i++) {
        struct link *link = &sim->links[i];
        if (link->used && link->side == side && link->database == database) {
            link_end(sim, i);
        }
    }
}
