/* The data plane: workers, sessions (proxy.c); holds of the runner and of the operator on the one gate
 * (gate.c). */
#ifndef SWITCHBACK_TESTS_SIM_PROXY_H
#define SWITCHBACK_TESTS_SIM_PROXY_H

#include "control/flip/hold_ledger.h"
#include "control/flip/ports.h"
#include "tests/sim/clock.h"

enum session_state {
    SESSION_NONE,
    SESSION_LOGIN, /* it waits for a route, or for its link */
    SESSION_IDLE,  /* at the boundary, outside a transaction */
    SESSION_BUSY,  /* an answer is outstanding */
    SESSION_OPEN   /* between two statements of a transaction */
};

struct worker {
    bool stands, refuses, refusing; /* the hold */
    uint64_t hold;
    int64_t deadline_us, since_us;
    uint64_t timer;  /* life of its deadline */
    bool route_open; /* it is set, and open */
    enum side side;
    uint64_t epoch;
    int64_t mailbox_us; /* of the last command in it */
    uint64_t armed;     /* flip whose target links are wanted; 0 */
    enum side target;
};

struct session {
    enum session_state state;
    uint64_t life;
    int link, target;
    uint64_t epoch;     /* of the link */
    bool waits;         /* its client sent something that the gate keeps */
    uint64_t statement; /* that is out */
    int64_t patience_us;
};

enum { COMMANDS = 64 };

struct proxy {
    uint64_t life;
    struct worker workers[WORKERS];
    struct session sessions[CLIENTS];
    /* on their way to the workers */
    struct flip_request commands[COMMANDS];
    unsigned command;
    /* what the controller keeps of them */
    uint64_t tickets[FLIP_ACTION_COUNT];
    unsigned answered[FLIP_ACTION_COUNT];
    struct flip_counts counts;
    struct hold_ledger ledger;
    uint64_t gate_hold, operator_hold; /* ids */
    bool gate_refusing;
    unsigned expired, released;
    bool drained_told;
};

void proxy_start(struct sim *sim);
void proxy_crash(struct sim *sim);
void proxy_side_crashed(struct sim *sim, enum side side);
void proxy_server_closed(struct sim *sim, int link);
void proxy_command(struct sim *sim, const struct flip_request *request); /* to every worker */
struct worker *proxy_worker(struct sim *sim, unsigned client);
bool proxy_is_held(const struct worker *worker);
unsigned proxy_undrained(const struct sim *sim);
void proxy_client_arrives(struct sim *sim, unsigned client);
void proxy_client_sends(struct sim *sim, unsigned client);
void proxy_client_leaves(struct sim *sim, unsigned client);

/* --- gate.c: holds of the runner and of the operator on the one gate, as control/daemon/controller_holds.c
 */

void proxy_request(struct sim *sim, const struct flip_request *request);
void gate_answer(struct sim *sim, enum flip_action_kind kind, const struct flip_counts *counts);
void gate_expired(struct sim *sim, uint64_t hold);
void gate_progress(struct sim *sim);
bool gate_operator_holds(struct sim *sim, int64_t duration_us);
bool gate_operator_releases(struct sim *sim);
void gate_tick(struct sim *sim);

#endif
