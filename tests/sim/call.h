/* Procedures of the controller (call.c), and what each request means in statements (scripts.c). */
#ifndef SWITCHBACK_TESTS_SIM_CALL_H
#define SWITCHBACK_TESTS_SIM_CALL_H

#include "control/flip/ports.h"
#include "tests/sim/schema.h"

struct call;
struct strand;
struct plan;

typedef enum verdict run_step(struct sim *sim, struct call *call, struct strand *strand, struct error *error);

/* One statement of a procedure. */
struct step {
    const char *name;
    bool other;    /* on the other side than the strand's own */
    bool batched;  /* sent together with the one before: no reply in between */
    bool tolerant; /* that it fails is no failure */
    int64_t again_us;
    bool (*skip)(const struct sim *sim, const struct strand *strand); /* not needed now; NULL: it always is */
    run_step *run;
};

struct script {
    const struct step *steps;
    unsigned count;
    unsigned sides; /* bits: strands run on */
    bool once;      /* for the whole cluster */
    /* All strands have ended: true if another script follows, set up by it. NULL: the call is answered. */
    bool (*then)(struct sim *sim, struct call *call);
};

struct strand {
    enum side side;
    unsigned database;
    unsigned step;
    bool runs, failed, uncertain;
    bool in_flight, executing; /* a statement is under way; it has arrived */
    bool executed;             /* and did something */
    bool killed, lost;         /* its backend was ended; nothing but that comes back */
    bool skips;                /* the rest of the script isn't for it */
    bool connects;
    int64_t sent_us;
    const struct step *steps; /* of the script that it runs, or ran */
    unsigned count;
    enum side at;          /* where the statement is */
    uint64_t connection;   /* it was sent over */
    uint64_t life;         /* of that cluster when it arrived */
    int64_t server_end_us; /* the server gives it up */
    enum verdict verdict;
    struct error error;
    uint64_t number; /* of the statement: an answer to an earlier one is passed over */
    /* what a procedure remembers */
    position start, has, commit;
    uint64_t owner_met; /* another controller's number, with the refusal */
    uint64_t marker, opened_for;
    unsigned tables, told;
    bool open, reached, asked;
};

struct call {
    bool used;
    uint64_t life;
    struct flip_request request;
    bool dead;    /* nobody waits for it any more; its statements may live on */
    bool aborted; /* its answer is waited for, and will be that */
    bool phase;   /* of a flip: one at a time */
    bool uncertain;
    struct error error;
    struct script script;
    const struct plan *plan; /* of scripts.c */
    unsigned stage;
    bool cleans;
    int64_t deadline_us;
    uint64_t owner;
    struct strand strands[SIDE_COUNT][DATABASES];
    struct flip_facts facts;
    bool for_sampler;
    uint64_t highest[SIDE_COUNT]; /* owner that was met */
};

struct call *call_new(struct sim *sim, const struct flip_request *request, int64_t deadline_us);
void call_run(struct sim *sim, struct call *call, const struct script *script);
struct call *call_of(struct sim *sim, uint64_t life);
void call_extend(struct sim *sim, struct call *call, int64_t by_us); /* its deadline, from now */
void call_collect(struct call *call);                                /* what came of its strands so far */
void call_forget(struct call *call);
void call_abort(struct sim *sim, struct call *call); /* its statements live on as orphans */
void call_side_crashed(struct sim *sim, enum side side);
void call_daemon_died(struct sim *sim);
void call_end_backends(struct sim *sim, enum side side, uint64_t but);
struct claim call_claim(const struct sim *sim, const struct call *call, const struct strand *strand);

/* --- scripts.c */

void scripts_begin(struct sim *sim, const struct flip_request *request);
void scripts_finish(struct sim *sim, struct call *call); /* what its end means */
void scripts_answer(struct sim *sim, struct call *call);
void scripts_phase_over(struct sim *sim);
/* A connection is made: nothing of an earlier controller is left there. False: another one owns it. */
bool scripts_own_side(struct sim *sim, struct call *call, struct strand *strand);

#endif
