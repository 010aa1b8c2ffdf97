/*
 * What the runner needs of the world, as data: it emits requests and is told events. The daemon carries them
 * out over proxy.h, replication.h, the journal and commands (control/daemon/controller*.c); tests and the
 * simulator carry them out in a small world of their own. Nothing here touches anything.
 *
 * A request with a ticket is answered by exactly one event with that ticket; a later answer than the runner
 * waited for is passed over. A request without a ticket (0) is news, or is done at once.
 */
#ifndef SWITCHBACK_CONTROL_FLIP_PORTS_H
#define SWITCHBACK_CONTROL_FLIP_PORTS_H

#include "conf/base/error.h"
#include "conf/base/side.h"
#include "conf/settings/settings.h"
#include "control/flip/record.h"
#include "control/flip/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- what a flip is given */

/* The settings that a flip reads, copied when it begins: a reload doesn't reach into a running one. */
struct flip_options {
    int64_t check_timeout_us, approve_timeout_us, backup_timeout_us, hook_timeout_us, arm_timeout_us;
    int64_t drain_timeout_us, drain_grace_us, catchup_timeout_us, max_hold_us;
    int64_t watch_duration_us;
    int64_t lossless_max_wait_us, dead_after_us;
    bool lossless; /* the promise: what the target acknowledges in the watch is on the source, too */
    enum drain_policy drain_on_timeout;
    enum immovable_policy immovable;
    enum flip_back_policy watch_flip_back;
    unsigned approvals; /* how many are needed */
    bool has_backup, has_backup_verify, has_hook_before, has_hook_after, has_hook_on_flip_back;
};

void flip_options_from_settings(struct flip_options *options, const struct settings *settings);

struct flip_spec {
    uint64_t id;
    enum flip_kind kind;
    enum side source;
    uint64_t epoch;   /* before: the target opens at epoch + 1 */
    bool automatic;   /* a gate asked for it, or a dead side */
    bool accept_loss; /* takeover: an operator did, where no promise stands */
    uint64_t of;      /* the cutover that it takes back; 0 */
    char key[RECORD_KEY_SIZE];
    char reason[RECORD_TEXT_SIZE]; /* why it was asked for; "" */
};

/* --- facts of the clusters, summed over the managed databases of a side */

struct flip_side_facts {
    bool reachable;
    bool identity_changed;              /* restored or failed over since prepare */
    unsigned databases, installed;      /* managed; of them with our schema */
    unsigned active, standby, diverged; /* standings of the installed */
    uint64_t epoch_min, epoch_max;
    uint64_t fenced_for;            /* highest flip that a database is fenced for; 0: none */
    uint64_t aborted;               /* highest aborted flip */
    uint64_t opened_for;            /* highest flip that opened a database which is active; 0: not known */
    uint64_t last_flip;             /* highest flip that any of them has heard of */
    unsigned fenced_for_count;      /* databases that are fenced for it */
    unsigned fences_on, fences_off; /* databases with all fence triggers enabled; with none */
    char foreign[RECORD_TEXT_SIZE]; /* why what answers is none of the pair's clusters; "" if it is one */
};

struct flip_facts {
    struct flip_side_facts sides[SIDE_COUNT];
    bool owned_since;    /* others have run the pair since the journal's last word: only the clusters know */
    uint64_t epoch_seen; /* the runner's: the highest that a side has ever told this daemon */
};

/* --- requests */

struct flip_request {
    enum flip_action_kind kind;
    uint64_t ticket;     /* 0: no answer is expected. ABANDON: of a request whose answer nobody wants */
    uint64_t flip;       /* that it serves; 0: none */
    enum side side;      /* PROBE: from. ROUTE, ACTIVE, SWAP, ARM: to. FENCE_ON_CONTACT: whom */
    uint64_t epoch;      /* ROUTE, ACTIVE, SWAP, ARM, FENCE_ON_CONTACT */
    bool promise;        /* TURN, NAMES */
    bool open;           /* ROUTE: false: clients are told to wait, then 57P03. WATCH: judge gates, or stop */
    bool refuse;         /* HOLD, EXPIRE: at the deadline clients get 57P03; else they go on where they are */
    int64_t deadline_us; /* monotonic, by which the world must have answered; HOLD, EXPIRE: of the hold */
    struct record row;   /* JOURNAL*: what to write */
    enum flip_phase phase;          /* PHASE: which begins; hooks: SWITCHBACK_PHASE */
    enum flip_outcome outcome;      /* FINISHED */
    struct error error;             /* FINISHED, ALARM: why; code NONE if it went well */
    const struct flip_story *story; /* FINISHED: the whole story, valid during the call */
};

/* The runner emits through this, in order; the world must not call back into the runner from inside it. */
struct flip_port {
    void *context;
    void (*request)(void *context, const struct flip_request *request);
};

/* --- events */

/*
 * The lossless way back and the dead side; each is asked with a ticket.
 *  TURN with `promise`: names emptied on the source, set on `side`; a probe commit is seen waiting; the
 * reverse is enabled; the probe returns. Without: names emptied on the source, the reverse enabled. An error
 * of the first leaves everything as far as it came: NAMES or TURN again puts it right. NAMES: `side` is
 * active at `epoch`: with `promise` its synchronous_standby_names name every reverse subscription, and what
 * isn't ours in them is an error; without, what is ours in them is removed and what isn't is left alone. The
 * other side's are emptied of ours; that it can't be reached is no failure. PROMISE: `side` is active and its
 * stream is healthy: names are set, a probe commit has returned under them in every database, every reverse
 * subscription was seen `sync`. CUT_OFF: `side` takes over: its apply workers have applied all that they
 * received; subscriptions disabled, workers ended. Needs nothing of the dead source. REATTACH: the undo:
 * `side`'s opening transactions rolled back, `aborted = flip` in its state rows (this is what recovery tells
 * an undone takeover by), then its subscriptions enabled. READY_ALONE: opening transactions without a closing
 * marker; `side`'s epoch may be lower than epoch - 1 (a turn that never was); `aborted = flip` there:
 * ERROR_STALE. ADOPT: an operator's decision: `side` is active at `epoch`, unfenced; whatever flip its state
 * rows name is settled. Idempotent.
 */
enum flip_event_kind {
    FLIP_EVENT_RECOVER,     /* the daemon starts; `history` is the journal's, `side` settings' initial */
    FLIP_EVENT_START,       /* `spec`: begin a flip (after flip_may_start) */
    FLIP_EVENT_DONE,        /* answers to a ticket */
    FLIP_EVENT_FAILED,      /*   `error`; `uncertain`: it may have happened all the same */
    FLIP_EVENT_FACTS,       /*   to LEARN: `facts` */
    FLIP_EVENT_PROGRESS,    /* the drain: `counts` */
    FLIP_EVENT_DRAINED,     /* every session is at its boundary, `counts` */
    FLIP_EVENT_EXPIRED,     /* the workers ended the hold at its deadline */
    FLIP_EVENT_APPROVED,    /* one more approval */
    FLIP_EVENT_ABORT,       /* an operator asked; `error.message` says who (after flip_may_abort) */
    FLIP_EVENT_GATE_FAILED, /* a gate failed, or the lag: `error` says which and why */
    FLIP_EVENT_GATES_PASS,  /* none fails any more */
    FLIP_EVENT_END_WATCH,   /* finalize: no way back is wanted */
    FLIP_EVENT_PREPARED,    /* prepare ended well: `side` is active at `epoch` */
    FLIP_EVENT_CONTACT,     /* a side came back, or contradicts its standing: look at the facts again */
    FLIP_EVENT_SIDE_DEAD,   /* about once a second while the active side has not answered for `dead_after`:
                               `side`, `error`, whose message names it and says so */
    FLIP_EVENT_STREAM,  /* about once a second while a promise matters *and the active side answers*: `open`
                           = every reverse stream is healthy; else `error` says why not */
    FLIP_EVENT_DECIDE,  /* recover: `side` is to be the active one (after flip_may_decide) */
    FLIP_EVENT_FOLLOW,  /* once deposed, again and again: the clusters say that `side` is active at `epoch`;
                           `open`: and takes writes */
    FLIP_EVENT_DEPOSED, /* another controller owns the pair */
    FLIP_EVENT_TICK     /* flip_wake() is reached */
};

struct flip_counts {
    uint64_t sessions, undrained, immovable, failed, moved, disconnected;
    int64_t stall_p50_us, stall_p99_us, stall_max_us;
    char reason[RECORD_TEXT_SIZE / 2]; /* the first failure or immovable session */
};

struct flip_event {
    enum flip_event_kind kind;
    int64_t now_us;  /* monotonic */
    int64_t wall_us; /* for what people read, and how long a watch has run before a restart */
    uint64_t ticket;
    bool uncertain;
    struct error error;
    struct flip_counts counts; /* ARM, SWAP, RELEASE, PROGRESS, DRAINED */
    enum side side;
    uint64_t epoch;
    bool open;
    const struct flip_spec *spec;
    const struct flip_facts *facts;
    const struct flip_history *history;
    const struct flip_options *options; /* RECOVER, START */
};

#endif
