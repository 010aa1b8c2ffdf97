/*
 * The data plane: workers that close their gate and end a hold at its deadline by themselves, whoever died
 * (proxy/route_hold.c), sessions with their server links and target links (proxy/mover.c).
 */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <string.h>

enum {
    MAILBOX_MOST_US = 300,
    ARM_MOST_US = 20 * SIM_MS,
    LONG_STATEMENT_MOST_US = 900 * SIM_MS,
    PATIENCE_US = 6 * SIM_SECOND,  /* tcp_user_timeout */
    KEEPALIVE_US = 30 * SIM_SECOND /* nobody answers, and nothing was sent */
};

struct worker *proxy_worker(struct sim *sim, unsigned client)
{
    return &sim->my->proxy.workers[client % WORKERS];
}

bool proxy_is_held(const struct worker *worker)
{
    return worker->stands || !worker->route_open;
}

static bool is_undrained(const struct session *session)
{
    return session->state == SESSION_BUSY || session->state == SESSION_OPEN;
}

unsigned proxy_undrained(const struct sim *sim)
{
    unsigned undrained = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        undrained += is_undrained(&sim->my->proxy.sessions[i]);
    }
    return undrained;
}

/* --- sessions end --- */

static void end_session(struct sim *sim, unsigned client, const char *sqlstate)
{
    struct session *session = &sim->my->proxy.sessions[client];
    if (session->state == SESSION_NONE) {
        return;
    }
    link_abandon(sim, session->link);
    link_abandon(sim, session->target);
    session->state = SESSION_NONE;
    session->link = session->target = NO_LINK;
    session->waits = false;
    session->life = ++sim->life;
    client_ended(sim, client, sqlstate);
    gate_progress(sim);
}

void proxy_client_leaves(struct sim *sim, unsigned client)
{
    struct session *session = &sim->my->proxy.sessions[client];
    if (session->state == SESSION_IDLE && !session->waits) {
        end_session(sim, client, "");
    }
}

static void lost(struct sim *sim, const struct moment *moment)
{
    struct session *session = &sim->my->proxy.sessions[moment->who];
    if (session->life == moment->life && session->link == (int)moment->value) {
        end_session(sim, moment->who, "");
    }
}

/* The server's last word may be swallowed by a cut; then keepalives find out. */
static void lose_link(struct sim *sim, unsigned client)
{
    const struct session *session = &sim->my->proxy.sessions[client];
    network_send(sim, (enum node)sim->links[session->link].side, sim->my->node, lost, client, session->life,
                 session->link);
    sim_later(sim, KEEPALIVE_US, lost, client, session->life, session->link);
}

static void lose_side(struct sim *sim, enum side side)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct session *session = &sim->my->proxy.sessions[i];
        if (session->link != NO_LINK && sim->links[session->link].side == side) {
            lose_link(sim, i);
        }
    }
}

void proxy_side_crashed(struct sim *sim, enum side side)
{
    for (unsigned i = 0; i < sim->daemon_count; i++) {
        struct daemon *before = sim_as(sim, i);
        lose_side(sim, side);
        sim->my = before;
    }
}

/* Its server ended it, by pg_terminate_backend. */
void proxy_server_closed(struct sim *sim, int number)
{
    const struct link *link = &sim->links[number];
    struct daemon *before = sim_as(sim, link->daemon);
    struct session *session = link->client < CLIENTS ? &sim->my->proxy.sessions[link->client] : NULL;
    if (session != NULL && session->link == number) {
        lose_link(sim, link->client);
    } else if (session != NULL && session->target == number) {
        session->target = NO_LINK; /* its number may be given to another */
    }
    sim->my = before;
}

/* --- statements --- */

static void answered(struct sim *sim, const struct moment *moment)
{
    const struct link *link = &sim->links[moment->who];
    if (!link->used || link->life != moment->life) {
        return;
    }
    struct session *session = &sim->my->proxy.sessions[link->client];
    if (session->link != (int)moment->who || session->state != SESSION_BUSY) {
        return;
    }
    const enum answer answer = (enum answer)moment->value;
    session->state = answer == ANSWER_OK && link->transaction != 0 ? SESSION_OPEN : SESSION_IDLE;
    client_answered(sim, link->client, answer);
    gate_progress(sim);
}

/* The statement has run for its time. */
static void executed(struct sim *sim, const struct moment *moment)
{
    struct link *link = &sim->links[moment->who];
    if (!link->used || link->life != moment->life || !link_alive(sim, (int)moment->who)) {
        return;
    }
    const enum answer answer = client_execute(sim, link, (unsigned)moment->value);
    if (answer == ANSWER_LATER) {
        sim_later(sim, 1 * SIM_MS, executed, moment->who, moment->life, moment->value);
        return;
    }
    network_send(sim, (enum node)link->side, sim->my->node, answered, moment->who, moment->life, answer);
}

static void at_server(struct sim *sim, const struct moment *moment)
{
    const struct link *link = &sim->links[moment->who];
    if (!link->used || link->life != moment->life) {
        return;
    }
    if (!link_alive(sim, (int)moment->who)) {
        network_send(sim, (enum node)link->side, sim->my->node, lost, link->client,
                     sim->my->proxy.sessions[link->client].life, moment->who);
        return;
    }
    const bool takes_long = sim_chance(sim, 15);
    sim_later(sim, takes_long ? sim_between(sim, 0, LONG_STATEMENT_MOST_US) : sim_between(sim, 50, 1500),
              executed, moment->who, moment->life, moment->value);
}

static void out_of_patience(struct sim *sim, const struct moment *moment)
{
    struct session *session = &sim->my->proxy.sessions[moment->who];
    const bool same = session->state == SESSION_BUSY && session->statement == moment->life;
    if (same && session->link != NO_LINK && !sim->links[session->link].committed) {
        end_session(sim, moment->who, "");
    } else if (same) {
        sim_later(sim, PATIENCE_US, out_of_patience, moment->who, moment->life, 0);
    }
}

static void forward(struct sim *sim, unsigned client)
{
    struct session *session = &sim->my->proxy.sessions[client];
    const struct link *link = &sim->links[session->link];
    session->waits = false;
    session->state = SESSION_BUSY;
    session->statement = ++sim->life;
    network_send(sim, sim->my->node, (enum node)link->side, at_server, (uint32_t)session->link, link->life,
                 sim->clients[client].said);
    sim_later(sim, PATIENCE_US, out_of_patience, client, session->statement, 0);
}

/* The client sent its next statement. */
void proxy_client_sends(struct sim *sim, unsigned client)
{
    struct session *session = &sim->my->proxy.sessions[client];
    const struct worker *worker = proxy_worker(sim, client);
    if (session->link == NO_LINK || session->epoch != worker->epoch ||
        sim->links[session->link].side != worker->side) {
        end_session(sim, client, "57P01");
    } else if (session->state == SESSION_OPEN || !proxy_is_held(worker)) {
        forward(sim, client);
    } else if (worker->refusing) {
        end_session(sim, client, "57P03");
    } else {
        session->waits = true;
    }
}

/* --- logins --- */

static void try_login(struct sim *sim, unsigned client);

static void logged_in(struct sim *sim, const struct moment *moment)
{
    struct session *session = &sim->my->proxy.sessions[moment->who];
    const struct worker *worker = proxy_worker(sim, moment->who);
    if (session->life != moment->life || session->state != SESSION_LOGIN || session->link != NO_LINK) {
        return;
    }
    session->patience_us = 0;
    const enum side side = (enum side)(moment->value % SIDE_COUNT);
    if (proxy_is_held(worker) || worker->side != side ||
        (uint64_t)moment->value / SIDE_COUNT != worker->epoch) {
        try_login(sim, moment->who);
        return;
    }
    if (!sim->clusters[side].up) {
        end_session(sim, moment->who, "08006");
        return;
    }
    session->link = link_open(sim, side, moment->who % DATABASES, moment->who);
    session->epoch = worker->epoch;
    session->state = SESSION_IDLE;
    client_connected(sim, moment->who);
    if (worker->armed != 0 && sim->clusters[worker->target].up &&
        network_both_ways(sim, sim->my->node, (enum node)worker->target)) {
        session->target = link_open(sim, worker->target, moment->who % DATABASES, moment->who);
    }
}

static void login_at_server(struct sim *sim, const struct moment *moment)
{
    const enum side side = (enum side)(moment->value % SIDE_COUNT);
    network_send(sim, (enum node)side, sim->my->node, logged_in, moment->who, moment->life, moment->value);
}

static void login_waited(struct sim *sim, const struct moment *moment)
{
    const struct session *session = &sim->my->proxy.sessions[moment->who];
    if (session->life == moment->life && session->state == SESSION_LOGIN) {
        end_session(sim, moment->who, "57P03");
    }
}

/* Connects, unless the gate is closed: then when it opens. */
static void try_login(struct sim *sim, unsigned client)
{
    struct session *session = &sim->my->proxy.sessions[client];
    const struct worker *worker = proxy_worker(sim, client);
    if (worker->refusing) {
        end_session(sim, client, "57P03");
    } else if (!proxy_is_held(worker) && session->patience_us == 0) {
        session->patience_us = sim->now_us + PATIENCE_US;
        network_send(sim, sim->my->node, (enum node)worker->side, login_at_server, client, session->life,
                     (int64_t)(worker->epoch * SIDE_COUNT) + (int64_t)worker->side);
    }
}

void proxy_client_arrives(struct sim *sim, unsigned client)
{
    struct session *session = &sim->my->proxy.sessions[client];
    *session =
        (struct session){.state = SESSION_LOGIN, .link = NO_LINK, .target = NO_LINK, .life = ++sim->life};
    sim_later(sim, sim->options.max_hold_us + PATIENCE_US, login_waited, client, session->life, 0);
    try_login(sim, client);
}

/* --- what the workers are told --- */

static void open_gate(struct sim *sim, unsigned number)
{
    struct worker *worker = &sim->my->proxy.workers[number];
    worker->stands = worker->refusing = false;
    worker->timer = ++sim->life;
    for (unsigned i = number; i < CLIENTS && worker->route_open; i += WORKERS) {
        struct session *session = &sim->my->proxy.sessions[i];
        if (session->state == SESSION_LOGIN) {
            try_login(sim, i);
        } else if (session->waits) {
            session->waits = false;
            proxy_client_sends(sim, i);
        }
    }
}

static void refuse_all(struct sim *sim, unsigned number)
{
    sim->my->proxy.workers[number].refusing = true;
    for (unsigned i = number; i < CLIENTS; i += WORKERS) {
        const struct session *session = &sim->my->proxy.sessions[i];
        if (session->state == SESSION_LOGIN || session->waits || is_undrained(session)) {
            end_session(sim, i, "57P03");
        }
    }
}

static void expired(struct sim *sim, const struct moment *moment)
{
    if (moment->life == sim->my->proxy.life) {
        gate_expired(sim, (uint64_t)moment->value);
    }
}

/* The deadline is the worker's own: a controller that is stuck or dead can't hold clients. */
static void deadline(struct sim *sim, const struct moment *moment)
{
    struct worker *worker = &sim->my->proxy.workers[moment->who];
    if (worker->timer != moment->life || !worker->stands || worker->refusing) {
        return;
    }
    SAY(sim, "worker", "%u ends hold %" PRIu64 " at its deadline: clients %s", moment->who, worker->hold,
        worker->refuses ? "are refused" : "go on");
    const uint64_t hold = worker->hold;
    if (worker->refuses) {
        refuse_all(sim, moment->who);
    } else {
        open_gate(sim, moment->who);
    }
    sim_later(sim, sim_between(sim, 0, MAILBOX_MOST_US), expired, moment->who, sim->my->proxy.life,
              (int64_t)hold);
}

static void set_timer(struct sim *sim, unsigned number)
{
    struct worker *worker = &sim->my->proxy.workers[number];
    worker->timer = ++sim->life;
    sim_later(sim, worker->deadline_us - sim->now_us, deadline, number, worker->timer, 0);
}

static void arm(struct sim *sim, unsigned number, const struct flip_request *request,
                struct flip_counts *counts)
{
    struct worker *worker = &sim->my->proxy.workers[number];
    const bool reachable =
        sim->clusters[request->side].up && network_both_ways(sim, sim->my->node, (enum node)request->side);
    worker->armed = request->flip;
    worker->target = request->side;
    for (unsigned i = number; i < CLIENTS; i += WORKERS) {
        struct session *session = &sim->my->proxy.sessions[i];
        if (session->link == NO_LINK) {
            continue;
        }
        link_abandon(sim, session->target);
        session->target = reachable ? link_open(sim, request->side, i % DATABASES, i) : NO_LINK;
        counts->failed += !reachable;
    }
}

static void swap(struct sim *sim, unsigned number, const struct flip_request *request,
                 struct flip_counts *counts)
{
    struct worker *worker = &sim->my->proxy.workers[number];
    worker->side = request->side;
    worker->epoch = request->epoch;
    worker->route_open = true;
    for (unsigned i = number; i < CLIENTS; i += WORKERS) {
        struct session *session = &sim->my->proxy.sessions[i];
        if (session->link == NO_LINK) {
            continue;
        }
        if (sim->links[session->link].side == request->side) {
            session->epoch = request->epoch;
        } else if (is_undrained(session) || !link_alive(sim, session->target)) {
            counts->disconnected++;
            end_session(sim, i, "57P01");
        } else {
            link_abandon(sim, session->link);
            session->link = session->target;
            session->target = NO_LINK;
            session->epoch = request->epoch;
            counts->moved++;
        }
    }
}

static void set_route(struct sim *sim, unsigned number, const struct flip_request *request)
{
    struct worker *worker = &sim->my->proxy.workers[number];
    worker->side = request->side;
    worker->epoch = request->epoch;
    worker->route_open = request->open;
    for (unsigned i = number; i < CLIENTS; i += WORKERS) {
        struct session *session = &sim->my->proxy.sessions[i];
        if (session->link != NO_LINK && sim->links[session->link].side == request->side) {
            session->epoch = request->epoch;
        } else if (session->link != NO_LINK) {
            end_session(sim, i, "57P01");
        }
    }
    if (!worker->stands && request->open) {
        open_gate(sim, number);
    }
}

static void hold(struct sim *sim, unsigned number, const struct flip_request *request)
{
    struct worker *worker = &sim->my->proxy.workers[number];
    worker->since_us = sim->now_us;
    worker->stands = true;
    worker->refusing = false;
    worker->hold = request->flip;
    worker->deadline_us = request->deadline_us;
    worker->refuses = request->refuse;
    set_timer(sim, number);
}

static void set_expire(struct sim *sim, unsigned number, const struct flip_request *request)
{
    struct worker *worker = &sim->my->proxy.workers[number];
    if (worker->stands && !worker->refusing && worker->hold == request->flip) {
        worker->deadline_us = request->deadline_us;
        worker->refuses = request->refuse;
        set_timer(sim, number);
    }
}

static void disturb_undrained(struct sim *sim, unsigned number, bool terminate)
{
    for (unsigned i = number; i < CLIENTS; i += WORKERS) {
        struct session *session = &sim->my->proxy.sessions[i];
        if (is_undrained(session) && terminate) {
            end_session(sim, i, "57P01");
        } else if (session->state == SESSION_BUSY) {
            sim->links[session->link].cancelled = true;
        }
    }
}

static void disarm(struct sim *sim, unsigned number)
{
    sim->my->proxy.workers[number].armed = 0;
    for (unsigned i = number; i < CLIENTS; i += WORKERS) {
        link_abandon(sim, sim->my->proxy.sessions[i].target);
        sim->my->proxy.sessions[i].target = NO_LINK;
    }
}

static void told(struct sim *sim, const struct moment *moment)
{
    if (moment->life == sim->my->proxy.life) {
        struct flip_counts *counts = &sim->my->proxy.counts;
        gate_answer(sim, (enum flip_action_kind)moment->value, counts);
    }
}

static void obey(struct sim *sim, const struct moment *moment)
{
    if (moment->life != sim->my->proxy.life) {
        return;
    }
    const struct flip_request *request = &sim->my->proxy.commands[moment->value % COMMANDS];
    const unsigned number = moment->who;
    struct worker *worker = &sim->my->proxy.workers[number];
    switch (request->kind) {
    case FLIP_ACTION_ARM:
        arm(sim, number, request, &sim->my->proxy.counts);
        break;
    case FLIP_ACTION_DISARM:
        disarm(sim, number);
        break;
    case FLIP_ACTION_HOLD:
        hold(sim, number, request);
        break;
    case FLIP_ACTION_EXPIRE:
        set_expire(sim, number, request);
        break;
    case FLIP_ACTION_CANCEL_UNDRAINED:
    case FLIP_ACTION_TERMINATE_UNDRAINED:
        disturb_undrained(sim, number, request->kind == FLIP_ACTION_TERMINATE_UNDRAINED);
        break;
    case FLIP_ACTION_SWAP:
        swap(sim, number, request, &sim->my->proxy.counts);
        break;
    case FLIP_ACTION_RELEASE:
        if (worker->stands && worker->hold == request->flip) {
            open_gate(sim, number);
        }
        break;
    case FLIP_ACTION_ROUTE:
        set_route(sim, number, request);
        break;
    default:
        ENSURE(false);
    }
    sim_later(sim, sim_between(sim, 0, MAILBOX_MOST_US), told, number, sim->my->proxy.life, request->kind);
}

/* Each worker has its mailbox: commands keep their order. */
void proxy_command(struct sim *sim, const struct flip_request *request)
{
    const unsigned slot = sim->my->proxy.command++;
    sim->my->proxy.commands[slot % COMMANDS] = *request;
    for (unsigned i = 0; i < WORKERS; i++) {
        const int64_t least_us = request->kind == FLIP_ACTION_ARM ? ARM_MOST_US : 0;
        int64_t at_us = sim->now_us + least_us + sim_between(sim, 0, MAILBOX_MOST_US);
        struct worker *worker = &sim->my->proxy.workers[i];
        at_us = at_us > worker->mailbox_us ? at_us : worker->mailbox_us + 1;
        worker->mailbox_us = at_us;
        sim_later(sim, at_us - sim->now_us, obey, i, sim->my->proxy.life, slot);
    }
}

/* --- life --- */

void proxy_start(struct sim *sim)
{
    memset(&sim->my->proxy, 0, sizeof sim->my->proxy);
    sim->my->proxy.life = ++sim->life;
    for (unsigned i = 0; i < CLIENTS; i++) {
        sim->my->proxy.sessions[i].link = sim->my->proxy.sessions[i].target = NO_LINK;
    }
}

/* Its clients see their connections close. */
void proxy_crash(struct sim *sim)
{
    sim->my->proxy.life = ++sim->life;
    for (unsigned i = 0; i < CLIENTS; i++) {
        end_session(sim, i, "");
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        sim->my->proxy.workers[i] = (struct worker){.timer = ++sim->life};
    }
}
