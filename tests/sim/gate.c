/*
 * The clients' gate: the runner's holds and the operator's, joined by the ledger, on the proxy's one gate;
 * and the proxy's events on their way to the runner. What control/daemon/controller_holds.c does, nothing
 * else.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>

static const uint64_t operator_holds = UINT64_C(1) << 62;

static void command(struct sim *sim, enum flip_action_kind kind, uint64_t hold, int64_t deadline_us,
                    bool refuse)
{
    const struct flip_request request = {
        .kind = kind, .flip = hold, .deadline_us = deadline_us, .refuse = refuse};
    proxy_command(sim, &request);
}

static void take_for_flip(struct sim *sim, const struct flip_request *request)
{
    hold_take(&sim->my->proxy.ledger, HOLD_FLIP, sim->now_us, request->deadline_us, request->refuse,
              "a flip");
}

static void begin_hold(struct sim *sim, const struct flip_request *request)
{
    struct proxy *proxy = &sim->my->proxy;
    take_for_flip(sim, request);
    proxy->gate_hold = request->flip;
    proxy->gate_refusing = false;
    proxy->drained_told = false;
    proxy->expired = 0;
    proxy->tickets[FLIP_ACTION_HOLD] = request->ticket;
    proxy->answered[FLIP_ACTION_HOLD] = 0;
    command(sim, FLIP_ACTION_HOLD, request->flip, request->deadline_us, request->refuse);
}

/* The gate of an operator who holds on. */
static bool hold_for_operator(struct sim *sim)
{
    struct proxy *proxy = &sim->my->proxy;
    const struct hold_gate gate = hold_gate(&proxy->ledger);
    if (!gate.closed) {
        return false;
    }
    proxy->gate_hold = operator_holds + ++proxy->operator_hold;
    proxy->expired = 0;
    proxy->answered[FLIP_ACTION_HOLD] = 0;
    command(sim, FLIP_ACTION_HOLD, proxy->gate_hold, gate.deadline_us, gate.refuse);
    return true;
}

static void release(struct sim *sim, const struct flip_request *request)
{
    struct proxy *proxy = &sim->my->proxy;
    const uint64_t held = proxy->gate_hold;
    (void)hold_drop(&proxy->ledger, HOLD_FLIP);
    if (hold_for_operator(sim)) {
        proxy->tickets[FLIP_ACTION_HOLD] = request->ticket;
        return;
    }
    proxy->gate_hold = 0;
    proxy->tickets[FLIP_ACTION_RELEASE] = request->ticket;
    proxy->answered[FLIP_ACTION_RELEASE] = 0;
    command(sim, FLIP_ACTION_RELEASE, held != 0 ? held : request->flip, 0, false);
}

static void route(struct sim *sim, const struct flip_request *request)
{
    struct proxy *proxy = &sim->my->proxy;
    SAY(sim, "runner", "clients go to %s", side_name(request->side));
    proxy_command(sim, request);
    if (proxy->gate_refusing) { /* it was closed by its deadline, and only waited for this */
        proxy->gate_refusing = false;
        command(sim, FLIP_ACTION_RELEASE, proxy->gate_hold, 0, false);
        proxy->gate_hold = 0;
    }
    (void)hold_drop(&proxy->ledger, HOLD_FLIP);
}

void proxy_request(struct sim *sim, const struct flip_request *request)
{
    struct proxy *proxy = &sim->my->proxy;
    switch (request->kind) {
    case FLIP_ACTION_HOLD:
        begin_hold(sim, request);
        break;
    case FLIP_ACTION_EXPIRE:
        take_for_flip(sim, request);
        if (request->ticket != 0) {
            proxy->tickets[FLIP_ACTION_EXPIRE] = request->ticket;
            proxy->answered[FLIP_ACTION_EXPIRE] = 0;
        }
        command(sim, FLIP_ACTION_EXPIRE, proxy->gate_hold, request->deadline_us, request->refuse);
        break;
    case FLIP_ACTION_RELEASE:
        release(sim, request);
        break;
    case FLIP_ACTION_ROUTE:
        route(sim, request);
        break;
    case FLIP_ACTION_SWAP:
        oracle_before(sim, false, request->flip, FLIP_ACTION_SWAP);
        /* fall through */
    case FLIP_ACTION_ARM:
        proxy->counts = (struct flip_counts){.sessions = CLIENTS};
        /* fall through */
    default:
        proxy->tickets[request->kind] = request->ticket;
        proxy->answered[request->kind] = 0;
        proxy_command(sim, request);
    }
}

/* --- what comes back --- */

static void answer(struct sim *sim, enum flip_action_kind kind, const struct flip_counts *counts)
{
    const uint64_t ticket = sim->my->proxy.tickets[kind];
    struct error none;
    error_clear(&none);
    sim->my->proxy.tickets[kind] = 0;
    ports_answer(sim, ticket, true, false, &none, counts);
}

void gate_answer(struct sim *sim, enum flip_action_kind kind, const struct flip_counts *counts)
{
    if (++sim->my->proxy.answered[kind] == WORKERS) {
        answer(sim, kind, counts);
        gate_progress(sim);
    }
}

/* Every session is at its boundary, and the runner has been told so once. */
void gate_progress(struct sim *sim)
{
    struct proxy *proxy = &sim->my->proxy;
    if (!sim->my->running || !sim->my->runner.hold.stands || proxy->gate_hold != sim->my->runner.spec.id ||
        proxy->drained_told || proxy->gate_hold >= operator_holds) {
        return;
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        if (!proxy->workers[i].stands || proxy->workers[i].hold != proxy->gate_hold) {
            return;
        }
    }
    const unsigned undrained = proxy_undrained(sim);
    if (undrained == 0) {
        const struct flip_event drained = {.kind = FLIP_EVENT_DRAINED, .counts = {.sessions = CLIENTS}};
        proxy->drained_told = true;
        ports_post(sim, &drained);
    }
}

void gate_expired(struct sim *sim, uint64_t hold)
{
    struct proxy *proxy = &sim->my->proxy;
    if (hold != proxy->gate_hold || ++proxy->expired < WORKERS) {
        return;
    }
    const bool by_flip = proxy->ledger.holds[HOLD_FLIP].stands;
    const bool refused = hold_gate(&proxy->ledger).refuse;
    (void)hold_drop(&proxy->ledger, by_flip ? HOLD_FLIP : HOLD_OPERATOR);
    proxy->gate_refusing = refused;
    if (!refused) {
        proxy->gate_hold = 0;
        (void)hold_for_operator(sim);
    }
    if (by_flip) {
        const struct flip_event told = {.kind = FLIP_EVENT_EXPIRED};
        ports_post(sim, &told);
    }
}

/* --- the operator's own --- */

bool gate_operator_holds(struct sim *sim, int64_t duration_us)
{
    struct proxy *proxy = &sim->my->proxy;
    const enum flip_mode mode = sim->my->runner.mode;
    if (!sim->my->running || mode == FLIP_MODE_RECOVER || mode == FLIP_MODE_UNDECIDED ||
        mode == FLIP_MODE_DEPOSED || proxy->ledger.holds[HOLD_FLIP].stands || proxy->gate_refusing) {
        return false;
    }
    SAY(sim, "operator", "holds the clients for %" PRId64 " ms", duration_us / SIM_MS);
    hold_take(&proxy->ledger, HOLD_OPERATOR, sim->now_us, sim->now_us + duration_us, false, "by hand");
    return hold_for_operator(sim);
}

bool gate_operator_releases(struct sim *sim)
{
    struct proxy *proxy = &sim->my->proxy;
    if (!sim->my->running || proxy->gate_refusing || !hold_drop(&proxy->ledger, HOLD_OPERATOR)) {
        return false;
    }
    SAY(sim, "operator", "releases the clients");
    if (!proxy->ledger.holds[HOLD_FLIP].stands) {
        command(sim, FLIP_ACTION_RELEASE, proxy->gate_hold, 0, false);
        proxy->gate_hold = 0;
    }
    return true;
}

/* A deadline that the proxy doesn't know of, because a flip held the gate in front of it. */
void gate_tick(struct sim *sim)
{
    struct hold_ledger *ledger = &sim->my->proxy.ledger;
    if (ledger->holds[HOLD_FLIP].stands && ledger->holds[HOLD_OPERATOR].stands &&
        ledger->holds[HOLD_OPERATOR].deadline_us <= sim->now_us) {
        (void)hold_drop(ledger, HOLD_OPERATOR);
    }
}
