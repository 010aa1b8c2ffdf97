/*
 * Runs a flip: walks the table, one event at a time. Pure: time comes in events, what it wants done goes out
 * through the port (ports.h), nothing is allocated. The daemon's controller drives it on two real clusters,
 * tests and the simulator in small worlds.
 *
 * One runner lives as long as the daemon: it knows which side is active, runs the flip that there may be,
 * and watches after it. Its fields are for reading only.
 */
#ifndef SWITCHBACK_CONTROL_FLIP_RUNNER_H
#define SWITCHBACK_CONTROL_FLIP_RUNNER_H

#include "conf/base/error.h"
#include "control/flip/ports.h"
#include "control/flip/record.h"

#include <stdbool.h>
#include <stdint.h>

enum flip_mode {
    FLIP_MODE_STEADY,    /* nothing runs; perhaps a watch */
    FLIP_MODE_FORWARD,   /* the table's rows, one after the other */
    FLIP_MODE_UNDO,      /* their undos, backwards */
    FLIP_MODE_RESOLVE,   /* open in doubt: ownership, facts */
    FLIP_MODE_BACK,      /* past commit, before released: the source opens again */
    FLIP_MODE_RECOVER,   /* the daemon's start: facts are read until they say enough */
    FLIP_MODE_UNDECIDED, /* an operator must decide; nobody is served */
    FLIP_MODE_DEPOSED    /* another controller owns the pair: decides nothing, holds nothing, follows */
};

/* What the world still owes an answer to. */
struct flip_await {
    enum flip_action_kind action; /* NONE: nothing */
    uint64_t ticket;
    int64_t guard_us; /* then the answer counts as lost; INT64_MAX: it is waited for */
};

/* Something to try again. */
struct flip_retry {
    unsigned tries;
    int64_t at_us; /* 0: nothing is due */
};

struct flip_watch {
    bool on;
    bool failing; /* a gate failed: the way back is to be taken */
    int64_t until_us;
    struct error why;
    struct flip_await probe;
    struct flip_retry retry;
};

/* What the runner last saw to of both sides' synchronous_standby_names. */
enum flip_names { FLIP_NAMES_UNKNOWN, FLIP_NAMES_OFF, FLIP_NAMES_ON };

/* The promise of a lossless watch: what the active side acknowledges is on the other side, too. What the
 * journal says of it is in `history`. */
struct flip_promise {
    enum flip_names names;
    uint64_t row;             /* of the journal, that says what holds now; 0: of an earlier life */
    bool row_lost;            /* it could not be written: again */
    bool broken;              /* it can't be kept: off, as soon as the journal says so */
    bool healthy;             /* the reverse stream, when it was last heard of */
    int64_t heard_us, ill_us; /* last STREAM; since when it isn't healthy, 0: it is */
    struct error why;         /* it is broken, or ill */
    struct flip_retry retry;  /* of names and rows */
    struct flip_retry regain;
};

/* The active side as somebody who looks for it says. */
struct flip_dead {
    int64_t since_us, seen_us; /* 0: never */
    bool told;
    struct error why;
    struct flip_retry retry; /* of a takeover that came to nothing */
};

/* Deposed: where the clusters say that traffic goes. */
struct flip_follow {
    bool known, open;
    enum side side;
    uint64_t epoch;
    bool refuses; /* the workers refuse everybody, since the flip under way stood behind its fence */
};

enum flip_drain { FLIP_DRAIN_WAIT, FLIP_DRAIN_CANCELLED, FLIP_DRAIN_TERMINATED };

/* The clients' hold, as the runner asked for it. */
struct flip_hold {
    bool stands;  /* asked for, and neither released nor over */
    bool refuses; /* the deadline means 57P03 */
    bool over;    /* the workers ended it */
    bool left;    /* its flip made way for a takeover, which takes the hold over */
    int64_t until_us;
    bool drained;
    struct flip_counts counts;
    enum flip_drain drain;
    int64_t drain_until_us; /* next step of the drain's policy; 0 */
};

struct flip {
    struct flip_port port;
    struct flip_options options;
    int64_t now_us, wall_us; /* of the event under way */
    uint64_t ticket;         /* last one given out */

    enum flip_mode mode;
    struct flip_history history; /* all rows so far, those still on their way to the disk included */
    uint64_t durable;            /* how many of them are on disk */
    uint64_t last_flip;          /* highest id that anybody knows */
    enum side initial;           /* of the settings */
    bool prepared;
    struct flip_facts facts; /* as last read */
    bool contact;            /* a side came back: look again when nothing runs */
    bool routed;             /* clients may go to a side: else releasing a hold lets nobody in */
    struct flip_watch watch;
    struct flip_promise promise;
    struct flip_dead dead;
    struct flip_follow follow;
    struct flip_await await;
    struct flip_retry retry;
    struct error why; /* of an undo, a way back, a retry or a doubt */

    /* the flip that runs */
    struct flip_spec spec;
    enum flip_phase phase;
    unsigned step;
    int64_t phase_began_us, began_us;
    unsigned approvals;
    bool lossless; /* turn comes before release, with the promise */
    int64_t turn_until_us;
    bool abort_asked;
    bool settled;               /* traffic is released on the target; only turn goes on */
    enum flip_phase undo_phase; /* whose undo comes next */
    bool armed, fenced, in_doubt;
    bool cut_off, commit_asked, given_up; /* of a takeover; given_up: the journal says that it was undone */
    bool commit_unsaid; /* the clusters show that it committed; the journal is to be told before it goes on */
    bool source_seen;   /* of a takeover's undo: it answers, and no flip's fence is left on it */
    bool names_seen;    /* by this recovery */
    unsigned learn_tries;
    bool deciding; /* `decided` is to be adopted */
    enum side decided;
    bool back_durable, contacted, reopened; /* steps of the way back */
    unsigned open_tries;
    enum flip_outcome ends_as;
    struct flip_hold hold;
    struct flip_counts moved;           /* of the swap and the release */
    uint64_t intents[FLIP_PHASE_COUNT]; /* number of the row that says so; 0: none yet */
};

void flip_init(struct flip *flip, struct flip_port port, const struct flip_options *options);
void flip_step(struct flip *flip, const struct flip_event *event);

/* When the runner wants its next TICK; INT64_MAX: not before something happens. */
int64_t flip_wake(const struct flip *flip);

/* Whether a flip of this kind to that side may begin now; false with *error in words. */
MUST_USE bool flip_may_start(const struct flip *flip, enum flip_kind kind, enum side target,
                             struct error *error);
MUST_USE bool flip_may_abort(const struct flip *flip, struct error *error);

/* Fills id, source, epoch of a spec that begins now. */
void flip_next_spec(const struct flip *flip, enum flip_kind kind, struct flip_spec *spec);

/* `flip-back` of a side that doesn't answer, or whose commits don't arrive: a takeover. False with *error in
 * words: what is at risk, unless the promise stands or `accept_loss`. */
MUST_USE bool flip_may_take_over(const struct flip *flip, enum side target, bool accept_loss,
                                 struct error *error);
/* recover: an operator's choice, where nothing else can tell. */
MUST_USE bool flip_may_decide(const struct flip *flip, enum side side, struct error *error);

/* The active side does not answer, and has not for `dead_after`. */
bool flip_side_dead(const struct flip *flip);
/* What the active side has acknowledged is on the other side. */
bool flip_promise_stands(const struct flip *flip);
/* If it dies now, the other side takes over by itself. */
bool flip_takes_over(const struct flip *flip);

/* The phase under way ends with the action under way. */
bool flip_at_last_step(const struct flip *flip);
/* A flip runs, from its start until its traffic is settled and turned. */
bool flip_running(const struct flip *flip);
/* "steady", "watch", or the phase of the running flip. */
const char *flip_phase_text(const struct flip *flip);

/* How long the target has to open once the journal says so; less than this left of the hold: no commit. */
enum { FLIP_OPEN_BUDGET_US = 1000000 };

#endif
