/*
 * What a start decides: from the journal's history and the facts of both clusters, forward, back, steady, or
 * that only time or an operator can tell. Pure; flip.md "Recovery" is its source. Called by the runner when
 * the daemon starts and when a side that was away comes back.
 */
#ifndef SWITCHBACK_CONTROL_FLIP_RECOVERY_H
#define SWITCHBACK_CONTROL_FLIP_RECOVERY_H

#include "control/flip/ports.h"
#include "control/flip/record.h"

enum recovery_verdict {
    RECOVERY_UNPREPARED, /* nothing is installed: the initial side takes traffic, nothing can flip */
    RECOVERY_STEADY,     /* `active` at `epoch` takes traffic */
    RECOVERY_FORWARD,    /* finish the flip: open the target, or find that it is open */
    RECOVERY_UNDO,       /* the flip did not commit: open the source again */
    RECOVERY_BACK,       /* it committed, was not released, and the source is to open at `epoch` + 2 */
    RECOVERY_WAIT,     /* a side that can't be reached knows the answer; nobody is served until it is there */
    RECOVERY_UNDECIDED /* only an operator can tell; nobody is served */
};

struct recovery {
    enum recovery_verdict verdict;
    enum side active; /* STEADY, UNPREPARED. Of a flip: see spec */
    uint64_t epoch;
    bool foreign;          /* UNDECIDED: what answers where the traffic would go is none of the pair's */
    bool from_clusters;    /* the clusters knew better than the journal, which is to be told */
    struct flip_spec spec; /* FORWARD, UNDO, BACK: of the flip */
    struct error why;      /* WAIT, UNDECIDED: the reason, and what an operator can do */
};

void recovery_decide(const struct flip_history *history, const struct flip_facts *facts, enum side initial,
                     struct recovery *recovery);

/*
 * What an operator can decide where a verdict is WAIT or UNDECIDED (`switchback recover`), side by side: what
 * choosing it would do, for the verb to say before it is done.
 */
struct recovery_choice {
    enum side side;
    bool possible;               /* it can be reached and holds our schema */
    uint64_t epoch;              /* that it would be active at: higher than any that the pair has had */
    bool fences_other;           /* the other one is open now: it would be fenced, and diverged */
    bool other_unseen;           /* it can't be reached: fenced on contact; what it holds isn't known */
    bool may_lack;               /* the other side may hold commits that clients saw acknowledged */
    struct error why_not;        /* it isn't possible */
    char does[RECORD_TEXT_SIZE]; /* in words */
};

void recovery_choices(const struct flip_history *history, const struct flip_facts *facts,
                      struct recovery_choice choices[SIDE_COUNT]);

/* The verdict as status and audit call it. */
const char *recovery_verdict_name(enum recovery_verdict verdict);

#endif
