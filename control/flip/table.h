/*
 * The flip as data: one table of phases for cutover and flip-back. The runner walks it, the dry run prints
 * it, a test draws it into README.md and checks that every phase can be undone or lies past the commit
 * point. The protocol behind each row is flip.md's; design.md section 4 is the operator's view of it.
 */
#ifndef SWITCHBACK_CONTROL_FLIP_TABLE_H
#define SWITCHBACK_CONTROL_FLIP_TABLE_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, text that scripts and the journal see */
#define FLIP_PHASE_MAP(X)                                                                                    \
    X(FLIP_PHASE_NONE, "steady")                                                                             \
    X(FLIP_PHASE_PREFLIGHT, "preflight")                                                                     \
    X(FLIP_PHASE_APPROVE, "approve")                                                                         \
    X(FLIP_PHASE_BACKUP, "backup")                                                                           \
    X(FLIP_PHASE_ARM, "arm")                                                                                 \
    X(FLIP_PHASE_HOLD, "hold")                                                                               \
    X(FLIP_PHASE_DRAIN, "drain")                                                                             \
    X(FLIP_PHASE_FENCE, "fence")                                                                             \
    X(FLIP_PHASE_CATCHUP, "catchup")                                                                         \
    X(FLIP_PHASE_READY, "ready")                                                                             \
    X(FLIP_PHASE_COMMIT, "commit")                                                                           \
    X(FLIP_PHASE_OPEN, "open")                                                                               \
    X(FLIP_PHASE_RELEASE, "release")                                                                         \
    X(FLIP_PHASE_TURN, "turn")                                                                               \
    X(FLIP_PHASE_WATCH, "watch")

enum flip_phase {
#define X(name, text) name,
    FLIP_PHASE_MAP(X)
#undef X
        FLIP_PHASE_COUNT
};

/* Bits: a row may serve several. A takeover is a flip-back whose source is dead (flip.md "The active side is
 * dead"): it asks nothing of the source, and past its commit it only goes forward. */
enum flip_kind { FLIP_KIND_CUTOVER = 1, FLIP_KIND_FLIP_BACK = 2, FLIP_KIND_TAKEOVER = 4 };

/* Who carries an action out. */
enum flip_action_port {
    FLIP_PORT_NOBODY,   /* the runner waits, for events */
    FLIP_PORT_COMMANDS, /* the daemon: the check list, backup, hooks */
    FLIP_PORT_JOURNAL,
    FLIP_PORT_CLUSTERS,
    FLIP_PORT_PROXY,
    FLIP_PORT_NEWS /* told, without an answer */
};

/* What a phase, its undo or the runner in between asks of the world; ports.h says what each carries. The
 * action, its name, who carries it out. */
#define FLIP_ACTION_MAP(X)                                                                                   \
    X(FLIP_ACTION_NONE, "none", FLIP_PORT_NOBODY)                                                            \
    X(FLIP_ACTION_CHECK, "check", FLIP_PORT_COMMANDS)                                                        \
    X(FLIP_ACTION_APPROVAL, "approval", FLIP_PORT_NOBODY)                                                    \
    X(FLIP_ACTION_BACKUP, "backup", FLIP_PORT_COMMANDS)                                                      \
    X(FLIP_ACTION_BACKUP_VERIFY, "backup_verify", FLIP_PORT_COMMANDS)                                        \
    X(FLIP_ACTION_RESTORE_POINT, "restore_point", FLIP_PORT_COMMANDS)                                        \
    X(FLIP_ACTION_HOOK_BEFORE, "hook_before", FLIP_PORT_COMMANDS)                                            \
    X(FLIP_ACTION_HOOK_AFTER, "hook_after", FLIP_PORT_COMMANDS)                                              \
    X(FLIP_ACTION_PROBE, "probe", FLIP_PORT_CLUSTERS)                                                        \
    X(FLIP_ACTION_ARM, "arm", FLIP_PORT_PROXY)                                                               \
    X(FLIP_ACTION_DISARM, "disarm", FLIP_PORT_PROXY)                                                         \
    X(FLIP_ACTION_HOLD, "hold", FLIP_PORT_PROXY)                                                             \
    X(FLIP_ACTION_DRAIN, "drain", FLIP_PORT_NOBODY)                                                          \
    X(FLIP_ACTION_EXPIRE, "expire", FLIP_PORT_PROXY)                                                         \
    X(FLIP_ACTION_CANCEL_UNDRAINED, "cancel_undrained", FLIP_PORT_PROXY)                                     \
    X(FLIP_ACTION_TERMINATE_UNDRAINED, "terminate_undrained", FLIP_PORT_PROXY)                               \
    X(FLIP_ACTION_FENCE, "fence", FLIP_PORT_CLUSTERS)                                                        \
    X(FLIP_ACTION_CATCHUP, "catchup", FLIP_PORT_CLUSTERS)                                                    \
    X(FLIP_ACTION_READY, "ready", FLIP_PORT_CLUSTERS)                                                        \
    X(FLIP_ACTION_UNDO, "undo", FLIP_PORT_CLUSTERS)                                                          \
    X(FLIP_ACTION_JOURNAL_COMMIT, "journal_commit", FLIP_PORT_JOURNAL)                                       \
    X(FLIP_ACTION_OPEN, "open", FLIP_PORT_CLUSTERS)                                                          \
    X(FLIP_ACTION_JOURNAL_RELEASED, "journal_released", FLIP_PORT_JOURNAL)                                   \
    X(FLIP_ACTION_JOURNAL_BACK, "journal_back", FLIP_PORT_JOURNAL)                                           \
    X(FLIP_ACTION_LEARN, "learn", FLIP_PORT_CLUSTERS)                                                        \
    X(FLIP_ACTION_REOPEN_SOURCE, "reopen_source", FLIP_PORT_CLUSTERS)                                        \
    X(FLIP_ACTION_FENCE_ON_CONTACT, "fence_on_contact", FLIP_PORT_CLUSTERS)                                  \
    X(FLIP_ACTION_SWAP, "swap", FLIP_PORT_PROXY)                                                             \
    X(FLIP_ACTION_RELEASE, "release", FLIP_PORT_PROXY)                                                       \
    X(FLIP_ACTION_TURN, "turn", FLIP_PORT_CLUSTERS)                                                          \
    X(FLIP_ACTION_CUT_OFF, "cut_off", FLIP_PORT_CLUSTERS)                                                    \
    X(FLIP_ACTION_REATTACH, "reattach", FLIP_PORT_CLUSTERS)                                                  \
    X(FLIP_ACTION_READY_ALONE, "ready_alone", FLIP_PORT_CLUSTERS)                                            \
    X(FLIP_ACTION_NAMES, "names", FLIP_PORT_CLUSTERS)                                                        \
    X(FLIP_ACTION_NAMES_AHEAD, "names_ahead", FLIP_PORT_CLUSTERS)                                            \
    X(FLIP_ACTION_PROMISE, "promise", FLIP_PORT_CLUSTERS)                                                    \
    X(FLIP_ACTION_JOURNAL_PROMISE, "journal_promise", FLIP_PORT_JOURNAL)                                     \
    X(FLIP_ACTION_ADOPT, "adopt", FLIP_PORT_CLUSTERS)                                                        \
    X(FLIP_ACTION_ROUTE, "route", FLIP_PORT_PROXY)                                                           \
    X(FLIP_ACTION_ACTIVE, "active", FLIP_PORT_NEWS)                                                          \
    X(FLIP_ACTION_WATCH, "watch", FLIP_PORT_NEWS)                                                            \
    X(FLIP_ACTION_JOURNAL, "journal", FLIP_PORT_JOURNAL)                                                     \
    X(FLIP_ACTION_ABANDON, "abandon", FLIP_PORT_NEWS)                                                        \
    X(FLIP_ACTION_PHASE, "phase", FLIP_PORT_NEWS)                                                            \
    X(FLIP_ACTION_ALARM, "alarm", FLIP_PORT_NEWS)                                                            \
    X(FLIP_ACTION_FINISHED, "finished", FLIP_PORT_NEWS)

enum flip_action_kind {
#define X(name, text, port) name,
    FLIP_ACTION_MAP(X)
#undef X
        FLIP_ACTION_COUNT
};

/* What takes a phase back. 0 is "nobody thought about it": the test refuses it. */
enum flip_undo {
    FLIP_UNDO_MISSING,
    FLIP_UNDO_NOTHING,   /* the phase changed nothing that lasts, or the undo of an earlier one covers it */
    FLIP_UNDO_DISARM,    /* close the target links */
    FLIP_UNDO_RELEASE,   /* let the clients go on where they were */
    FLIP_UNDO_UNFENCE,   /* roll the target's transactions back, open the source again */
    FLIP_UNDO_BACK,      /* past commit, before released: the source opens at epoch + 2 */
    FLIP_UNDO_FLIP_BACK, /* past released: only a flip-back returns */
    FLIP_UNDO_REATTACH,  /* takeover: roll the target's transactions back, let it follow again */
    FLIP_UNDO_FORWARD,   /* takeover, past commit: nothing; every acknowledged commit is on the target */
};

/* Which bound a phase has. */
enum flip_timeout {
    FLIP_TIMEOUT_NONE, /* bounded by its actions (retried for ever, or judged) */
    FLIP_TIMEOUT_CHECK,
    FLIP_TIMEOUT_APPROVE,
    FLIP_TIMEOUT_BACKUP,
    FLIP_TIMEOUT_ARM,
    FLIP_TIMEOUT_HOLD,
    FLIP_TIMEOUT_DRAIN,
    FLIP_TIMEOUT_FENCE,
    FLIP_TIMEOUT_CATCHUP,
    FLIP_TIMEOUT_READY,
    FLIP_TIMEOUT_MAX_HOLD, /* what is left of the hold */
    FLIP_TIMEOUT_TURN,
    FLIP_TIMEOUT_WATCH,
};

enum flip_failure {
    FLIP_FAILURE_REFUSE,    /* nothing was touched: say why */
    FLIP_FAILURE_UNDO,      /* the undos of this phase and all before it, in reverse */
    FLIP_FAILURE_RESOLVE,   /* take ownership, look at the facts; forward, or back within the hold */
    FLIP_FAILURE_RETRY,     /* only forward: again, with an alarm */
    FLIP_FAILURE_FLIP_BACK, /* a failed gate flips back by itself */
};

enum { FLIP_ROW_ACTIONS = 4 };

struct flip_row {
    enum flip_phase phase;
    unsigned kinds;                                  /* enum flip_kind, or-ed: which flips have this phase */
    enum flip_action_kind actions[FLIP_ROW_ACTIONS]; /* one after the other; ends at NONE */
    enum flip_action_kind alone[FLIP_ROW_ACTIONS];   /* what a takeover does instead; empty: the same */
    enum flip_undo undo;
    enum flip_undo undo_alone; /* of a takeover; MISSING: the same */
    enum flip_timeout timeout;
    enum flip_phase next;          /* NONE after the last; a row that the kind lacks is passed over */
    enum flip_phase next_lossless; /* of a lossless cutover, where it differs; NONE: it doesn't */
    enum flip_failure on_failure;
    bool past_commit;
    const char *comment;       /* one line for the operator */
    const char *comment_alone; /* NULL: the same in a takeover */
};

/* The row of a phase; PHASE_NONE has none. */
const struct flip_row *flip_table_row(enum flip_phase phase);

/* The first phase of a kind, and the one after `phase`; PHASE_NONE after the last. */
enum flip_phase flip_table_first(enum flip_kind kind);
enum flip_phase flip_table_next(enum flip_kind kind, bool lossless, enum flip_phase phase);

/* What a kind does in a row, and how it takes that back. */
const enum flip_action_kind *flip_table_actions(enum flip_kind kind, const struct flip_row *row);
enum flip_undo flip_table_undo(enum flip_kind kind, const struct flip_row *row);
const char *flip_table_comment(enum flip_kind kind, const struct flip_row *row);

const char *flip_phase_name(enum flip_phase phase);
MUST_USE bool flip_phase_parse(const char *text, enum flip_phase *phase);
const char *flip_kind_name(enum flip_kind kind); /* "cutover", "flip-back", "takeover" */
MUST_USE bool flip_kind_parse(const char *text, enum flip_kind *kind);
const char *flip_action_name(enum flip_action_kind action);
enum flip_action_port flip_action_port(enum flip_action_kind action);
const char *flip_undo_name(enum flip_undo undo);
const char *flip_failure_name(enum flip_failure failure);

#endif
