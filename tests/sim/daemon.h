/*
 * A daemon: its runner in ports, the journal's disk, the sampler, its procedures and its proxy. There may be
 * a second one for the same pair.
 */
#ifndef SWITCHBACK_TESTS_SIM_DAEMON_H
#define SWITCHBACK_TESTS_SIM_DAEMON_H

#include "control/flip/ports.h"
#include "control/flip/record.h"
#include "control/flip/runner.h"
#include "control/gates/gate.h"
#include "tests/sim/call.h"
#include "tests/sim/clock.h"
#include "tests/sim/network.h"
#include "tests/sim/proxy.h"

/* --- ports.c */

/* An event on its way to the runner. */
struct answer_slot {
    bool used, again;
    uint64_t life;
    struct flip_event event;
    struct flip_facts facts;
};

enum { ANSWERS = 64 };

void ports_request(void *context, const struct flip_request *request);
void ports_feed(struct sim *sim, struct flip_event *event);
/* What happened reaches the runner soon. */
void ports_post(struct sim *sim, const struct flip_event *event);
/* Answers a ticket, now or, if the controller is slow, later. */
void ports_answer(struct sim *sim, uint64_t ticket, bool ok, bool uncertain, const struct error *error,
                  const struct flip_counts *counts);
void ports_facts(struct sim *sim, uint64_t ticket, const struct flip_facts *facts);
void ports_wake(struct sim *sim);
void ports_deposed(struct sim *sim); /* a server said that another controller owns it */
void daemon_start(struct sim *sim);
void daemon_crash(struct sim *sim);
bool daemon_owns(const struct sim *sim, enum side side, unsigned database);
bool daemon_is_deposed_by(const struct sim *sim, enum side side, uint64_t owner);

/* --- journal.c */

struct journal_write {
    struct record row;
    uint64_t ticket;
};

enum { QUEUE = 128 };

struct journal {
    struct record *rows; /* on disk */
    uint64_t *owners;    /* beside each row: the number that state.dir had then */
    uint32_t count, size, owners_size;
    struct record *lost; /* were on disk once */
    uint32_t lost_count, lost_size;
    struct journal_write queue[QUEUE];
    unsigned queued;
    bool writing;
    uint64_t life;
    bool full;       /* every write fails */
    int64_t slow_us; /* added to each write */
};

void journal_write(struct sim *sim, const struct record *row, uint64_t ticket);
void journal_crash(struct sim *sim);
void journal_restore(struct sim *sim, uint32_t rows); /* the copy that had so many */
void journal_begin(struct sim *sim, const struct record *first);
bool journal_says(const struct sim *sim, bool orphan, uint64_t flip, enum record_kind kind,
                  enum flip_phase phase);

/* --- sampler.c */

struct sampler {
    bool told;
    enum side active;
    uint64_t epoch;
    int64_t rest_until_us;
    bool reachable[SIDE_COUNT], lost[SIDE_COUNT];
    int64_t answered_us[SIDE_COUNT];
    int64_t seen_us, contact_us;
    uint64_t life, followed_beat[SIDE_COUNT];
    bool contact_due;
    bool watch;
    int64_t dead_us, told_dead_us, told_stream_us;
    bool told_open;
    struct gate gates[2];
    struct gate_traffic traffic[SIDE_COUNT];
};

void sampler_start(struct sim *sim);
void sampler_set_active(struct sim *sim, enum side active, uint64_t epoch);
void sampler_watch(struct sim *sim, bool on);
bool sampler_way_back_open(const struct sim *sim, struct error *error);
void sampler_rest(struct sim *sim, int64_t until_us);

/* --- all of it */

struct daemon {
    enum node node; /* its machine */
    bool running;
    int64_t stalled_until_us;
    uint64_t life;
    struct flip runner;
    uint64_t owner, owner_kept; /* in state.dir: the highest that was ever taken */
    uint64_t owner_met;         /* the statement under way was refused: another controller has this number */
    bool owned_since;           /* in state.dir */
    bool owned[SIDE_COUNT];     /* since it began */
    bool settled;               /* it has said which side is active: the start is over */
    bool deposed;
    uint64_t connection[SIDE_COUNT], connection_life[SIDE_COUNT];
    bool connected[SIDE_COUNT], connecting[SIDE_COUNT];
    bool target_open[DATABASES]; /* as READY found it, or OPEN made it */
    uint64_t wake;               /* number of the tick that counts */
    int64_t wake_us;
    bool feeding; /* the runner is at work */
    struct answer_slot answers[ANSWERS];
    struct call calls[CALLS];
    uint64_t phase_call;      /* life of the call that serves the flip; 0 */
    struct flip_request undo; /* it waits for the phase to end */
    bool undo_waits;
    struct journal journal;
    struct proxy proxy;
    struct sampler sampler;
};

#endif
