/*
 * The journal's logic: what its rows say, how they are written as text, and what a list of them means. Pure;
 * control/daemon/journal.h stores the text, fsynced, in the order in which it was given.
 *
 * A row's text is one flat JSON object of strings and numbers (record_encode), so the store knows nothing of
 * its shape. At start the daemon reads all rows in order through record_decode and flip_history_fold; the
 * history that results is what recovery.h decides from.
 */
#ifndef SWITCHBACK_CONTROL_FLIP_RECORD_H
#define SWITCHBACK_CONTROL_FLIP_RECORD_H

#include "conf/base/error.h"
#include "conf/base/side.h"
#include "control/flip/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_KIND_MAP(X)                                                                                   \
    X(RECORD_STEADY, "steady") /* `side` is active at `epoch`: prepared, or learned from the clusters */     \
    X(RECORD_BEGIN, "begin")   /* a flip from `side`, which is at `epoch`; intent of its first phase */      \
    X(RECORD_INTENT, "intent") /* `phase` is about to be acted on */                                         \
    X(RECORD_RESULT, "result") /* `phase` ended after `elapsed_us`, with `code` */                           \
    X(RECORD_COMMIT, "commit") /* `side` is to be active at `epoch`; intent of open */                       \
    X(RECORD_BACK, "back")     /* it could not be opened: `side`, the source, at `epoch` instead */          \
    X(RECORD_RELEASED,                                                                                       \
      "released")        /* `side` is open at `epoch`; from here only forward; intent of release */          \
    X(RECORD_END, "end") /* traffic settled on `side` at `epoch`, with `outcome` */                          \
    X(RECORD_WATCH_END, "watch_end") /* the watch is over: `text` says why */                                \
    X(RECORD_FINALIZED, "finalized") /* the way back was ended */                                            \
    X(RECORD_PROMISE_ON,                                                                                     \
      "promise_on") /* each commit that `side` acknowledges from here on is on the other side as well */     \
    X(RECORD_PROMISE_OFF, "promise_off") /* no longer; `text` says why. On disk before names are emptied */  \
    X(RECORD_DECIDED,                                                                                        \
      "decided") /* an operator's word: `side` is active at `epoch`; intent of adopting it */                \
    X(RECORD_ATTACHED, "attached")     /* the standby that a takeover had cut off follows again */           \
    X(RECORD_UNPREPARED, "unprepared") /* the daemon serves a pair that nobody has prepared yet */

enum record_kind {
#define X(name, text) name,
    RECORD_KIND_MAP(X)
#undef X
        RECORD_KIND_COUNT
};

#define FLIP_OUTCOME_MAP(X)                                                                                  \
    X(FLIP_OUTCOME_NONE, "running")                                                                          \
    X(FLIP_OUTCOME_DONE, "done")                                                                             \
    X(FLIP_OUTCOME_REFUSED, "refused")           /* nothing was touched */                                   \
    X(FLIP_OUTCOME_ABORTED, "aborted")           /* undone: traffic is where it was */                       \
    X(FLIP_OUTCOME_FLIPPED_BACK, "flipped_back") /* it happened, then traffic was flipped back */            \
    X(FLIP_OUTCOME_INCONCLUSIVE, "inconclusive") /* an operator must decide */

enum flip_outcome {
#define X(name, text) name,
    FLIP_OUTCOME_MAP(X)
#undef X
        FLIP_OUTCOME_COUNT
};

enum { RECORD_KEY_SIZE = 128, RECORD_TEXT_SIZE = 512, RECORD_LINE_SIZE = 5120 };

struct record {
    uint64_t seq;    /* the store's, growing; 0 until it is stored */
    int64_t time_us; /* wall clock, set by the daemon when it hands the row to the store */
    enum record_kind kind;
    uint64_t flip; /* 0: none */
    enum flip_kind flip_kind;
    enum flip_phase phase;
    enum side side;
    uint64_t epoch;
    bool automatic; /* BEGIN: a gate asked for it, or a dead side */
    bool lossless;  /* BEGIN: its turn comes before its release */
    bool committed; /* BEGIN: of another journal; the clusters show that it was */
    uint64_t of;    /* BEGIN: the cutover that it takes back; 0 */
    enum flip_outcome outcome;
    enum error_code code; /* RESULT, END: ERROR_NONE if it went well */
    int64_t elapsed_us;
    int64_t stall_p50_us, stall_p99_us, stall_max_us;
    uint64_t moved, disconnected;
    char key[RECORD_KEY_SIZE];   /* BEGIN: idempotency key of the caller */
    char text[RECORD_TEXT_SIZE]; /* the reason, in words */
};

const char *record_kind_name(enum record_kind kind);
const char *flip_outcome_name(enum flip_outcome outcome);

/* One line of JSON; seq and time_us are the store's own columns and not in it. */
void record_encode(const struct record *row, char line[RECORD_LINE_SIZE]);
/* False with *error: not a row of ours (unknown kind, bad number). Unknown keys are passed over. */
MUST_USE bool record_decode(const char *line, struct record *row, struct error *error);

/* What is known of one flip. */
struct flip_story {
    uint64_t flip; /* 0: none */
    enum flip_kind kind;
    enum side source;
    uint64_t epoch; /* before */
    bool automatic;
    bool lossless;
    uint64_t of;
    char key[RECORD_KEY_SIZE];
    int64_t begun_us, ended_us; /* wall clock; 0 */
    enum flip_phase phase;      /* of the last intent */
    bool fence_intended;        /* fence, or cut-off: from here on the clusters may carry its traces */
    bool committed, back, released, turned;
    bool adopted;              /* from the clusters, committed: nobody knows here whether it was released */
    enum flip_outcome outcome; /* NONE while it is under way */
    enum error_code code;
    char text[RECORD_TEXT_SIZE];
    int64_t phase_us[FLIP_PHASE_COUNT]; /* measured; 0 */
    int64_t stall_p50_us, stall_p99_us, stall_max_us;
    uint64_t moved, disconnected;
};

/* What the rows say together. */
struct flip_history {
    uint64_t rows;
    bool known;      /* a side is known to be active */
    bool unprepared; /* nothing is installed, as far as was seen: the journal is young, not lost */
    enum side active;
    uint64_t epoch;
    int64_t active_since_us;            /* wall clock */
    uint64_t last_flip;                 /* highest id seen */
    struct flip_story flip;             /* the last one begun; outcome NONE: it was under way */
    struct flip_story done;             /* the last one that moved traffic */
    bool watching;                      /* `done` is a cutover whose watch was not over */
    bool finalized;                     /* the way back of `done` was ended */
    bool promise;                       /* what `active` has acknowledged since is on the other side, too */
    int64_t promise_us;                 /* wall clock: since when it is on or off; 0: never was on */
    char promise_why[RECORD_TEXT_SIZE]; /* off: why */
    bool decided;                       /* an operator chose `active`; it isn't adopted yet */
    bool lossless;     /* a flip was begun that sets names: what holds of them is to be seen to */
    uint64_t detached; /* a takeover that was undone, whose target may still be cut off; 0 */
};

/* Rows must come in order. */
void flip_history_init(struct flip_history *history);
void flip_history_fold(struct flip_history *history, const struct record *row);

/* The same for one flip: BEGIN starts it anew, rows of other flips are passed over (but an automatic
 * flip-back that ends well marks the cutover that it took back). */
void flip_story_fold(struct flip_story *flip, const struct record *row);

/* Under way: it was begun and has not ended. */
bool flip_story_running(const struct flip_story *flip);

#endif
