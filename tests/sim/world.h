/*
 * A small world for the flip's runner: two clusters of two databases, a proxy with clients that write all
 * the time, a journal, and a network that can lose what it carries. It carries out requests as ports.h says,
 * strikes where it is told, and checks the invariants of design.md section 2 after each step. Deterministic:
 * the unit tests strike at every action in turn, the simulator by a seed.
 */
#ifndef SWITCHBACK_TESTS_SIM_WORLD_H
#define SWITCHBACK_TESTS_SIM_WORLD_H

#include "control/flip/runner.h"

enum { WORLD_DATABASES = 2, WORLD_ROWS = 512, WORLD_PENDING = 64, WORLD_STORY = 1 << 14 };

enum world_standing { WORLD_STANDBY, WORLD_ACTIVE, WORLD_DIVERGED };

struct world_database {
    uint64_t epoch, fenced_for, aborted;
    enum world_standing standing;
    bool fence;
};

struct world_cluster {
    bool up;
    int64_t up_again_us; /* 0: not before it is told */
    bool came_back;      /* and was not met yet: fenced on contact if it must be */
    struct world_database databases[WORLD_DATABASES];
    uint64_t seen;         /* commits that it holds: all up to this one */
    uint64_t flushed;      /* of them, those that a crash leaves */
    uint64_t marker;       /* the last flip's whose marker it holds */
    uint64_t prepared;     /* flip whose opening transactions stand open */
    bool follows;          /* its subscription to the other side runs */
    bool names;            /* its commits wait for the other side */
    bool unacknowledged;   /* it holds commits that no client was told of, and the other side doesn't have */
    int64_t down_since_us; /* 0: it is up */
};

enum world_strike {
    WORLD_STRIKE_NONE,
    WORLD_STRIKE_FAIL,        /* refused, nothing happened */
    WORLD_STRIKE_LOST,        /* nothing happened, and no answer says so */
    WORLD_STRIKE_LOST_DONE,   /* it happened, the answer is lost */
    WORLD_STRIKE_LOST_HALF,   /* it happened in the first database only, the answer is lost */
    WORLD_STRIKE_LATE,        /* it happens later, unless ownership is taken before; the answer is lost */
    WORLD_STRIKE_STUCK,       /* no answer at all: the runner's own guard must help */
    WORLD_STRIKE_CRASH,       /* the daemon dies before it */
    WORLD_STRIKE_CRASH_DONE,  /* after it, before the answer */
    WORLD_STRIKE_CRASH_LATE,  /* the daemon dies, the statement lives on */
    WORLD_STRIKE_SOURCE_DOWN, /* the active side's cluster crashes, and is back later */
    WORLD_STRIKE_TARGET_DOWN,
    WORLD_STRIKE_COUNT
};

struct world_pending {
    struct flip_request request;
    bool zombie;   /* nobody waits for it any more; it may still happen */
    int64_t at_us; /* not before; 0: now */
};

struct world {
    struct flip runner;
    bool running; /* the daemon lives */
    struct flip_options options;
    int64_t now_us;
    struct world_cluster clusters[SIDE_COUNT];

    /* the journal: what is on disk */
    struct record rows[WORLD_ROWS];
    uint64_t row_count;

    /* the proxy */
    bool serving; /* a route is set and open */
    enum side route;
    bool told_active; /* somebody was told that `active` is it, as of `active_epoch` */
    enum side active;
    uint64_t active_epoch;
    bool held, refuses;
    int64_t hold_until_us, held_since_us;
    uint64_t hold;

    struct world_pending pending[WORLD_PENDING];
    size_t pending_count;

    /* clients */
    uint64_t commits;         /* acknowledged, and not lost with leave */
    uint64_t lost;            /* by a takeover that was told to */
    int64_t waiting_since_us; /* a commit waits for the other side; 0: none */
    bool journal_promises;    /* as the disk says */
    int64_t looked_us;        /* last CONTACT because of a fence */
    int64_t told_us;          /* last SIDE_DEAD or STREAM */
    uint64_t errors;          /* that a client saw though the side it is on was up */
    bool drain_stuck;         /* a session never reaches its boundary by itself */
    bool way_back_dead;
    uint64_t immovable; /* sessions that can't move */

    /* strikes */
    uint64_t actions;              /* requests answered so far */
    uint64_t strike_at, second_at; /* by that count; 0: never */
    enum world_strike strike, second;
    int64_t zombie_us; /* how late a late statement happens */
    int64_t down_us;   /* how long a cluster that crashes is away */
    uint64_t seed;     /* 0: first in, first out */

    /* what came of it */
    enum flip_outcome outcome;
    struct error why;
    unsigned finished, alarms, settled;
    enum error_code alarm; /* of the last one */
    uint64_t last_flip;
    const char *broken; /* the invariant that broke, "" */
    char story[WORLD_STORY];
    size_t story_length;
};

void world_init(struct world *world, const struct flip_options *options);
void world_start_daemon(struct world *world);
void world_kill_daemon(struct world *world);
/* One answer, or the next moment at which something happens. False: nothing can happen any more. */
bool world_step(struct world *world);
/* Steps until the runner is steady and nothing is pending, at most `limit` steps. */
bool world_settle(struct world *world, unsigned limit);

void world_cutover(struct world *world);
void world_flip_back(struct world *world);
void world_take_over(struct world *world, bool accept_loss);
/* An operator brings the diverged side back. */
void world_rejoin(struct world *world);
void world_decide(struct world *world, enum side side);
void world_go_down(struct world *world, enum side side);
/* Steps for so long. */
void world_pass(struct world *world, int64_t duration_us);
void world_tell(struct world *world, enum flip_event_kind kind, const char *why);

/* Both sides agree on who is active, the other one is fenced, clients are served there, nothing is lost. */
bool world_is_sound(struct world *world);

/* The options that the tests run with. */
struct flip_options world_options(void);

#endif
