#include "control/flip/table.h"

#include "conf/base/ensure.h"

#include <string.h>

#define BOTH (FLIP_KIND_CUTOVER | FLIP_KIND_FLIP_BACK)
#define ALL  (BOTH | FLIP_KIND_TAKEOVER)

static const struct flip_row rows[FLIP_PHASE_COUNT] = {
    [FLIP_PHASE_PREFLIGHT] = {.phase = FLIP_PHASE_PREFLIGHT,
                              .kinds = BOTH,
                              .actions = {FLIP_ACTION_CHECK},
                              .undo = FLIP_UNDO_NOTHING,
                              .timeout = FLIP_TIMEOUT_CHECK,
                              .next = FLIP_PHASE_APPROVE,
                              .on_failure = FLIP_FAILURE_REFUSE,
                              .comment = "the check list and the gates with when: preflight"},
    [FLIP_PHASE_APPROVE] = {.phase = FLIP_PHASE_APPROVE,
                            .kinds = FLIP_KIND_CUTOVER,
                            .actions = {FLIP_ACTION_APPROVAL},
                            .undo = FLIP_UNDO_NOTHING,
                            .timeout = FLIP_TIMEOUT_APPROVE,
                            .next = FLIP_PHASE_BACKUP,
                            .on_failure = FLIP_FAILURE_REFUSE,
                            .comment = "wait for the approvals that are configured"},
    [FLIP_PHASE_BACKUP] = {.phase = FLIP_PHASE_BACKUP,
                           .kinds = FLIP_KIND_CUTOVER,
                           .actions = {FLIP_ACTION_BACKUP, FLIP_ACTION_BACKUP_VERIFY,
                                       FLIP_ACTION_RESTORE_POINT},
                           .undo = FLIP_UNDO_NOTHING,
                           .timeout = FLIP_TIMEOUT_BACKUP,
                           .next = FLIP_PHASE_ARM,
                           .on_failure = FLIP_FAILURE_REFUSE,
                           .comment = "the backup and its proof, a restore point on the active side"},
    [FLIP_PHASE_ARM] = {.phase = FLIP_PHASE_ARM,
                        .kinds = BOTH,
                        .actions = {FLIP_ACTION_HOOK_BEFORE, FLIP_ACTION_PROBE, FLIP_ACTION_NAMES_AHEAD,
                                    FLIP_ACTION_ARM},
                        .undo = FLIP_UNDO_DISARM,
                        .timeout = FLIP_TIMEOUT_ARM,
                        .next = FLIP_PHASE_HOLD,
                        .on_failure = FLIP_FAILURE_UNDO,
                        .comment = "a marker crosses; target links are opened, warmed and given their state"},
    [FLIP_PHASE_HOLD] = {.phase = FLIP_PHASE_HOLD,
                         .kinds = ALL,
                         .actions = {FLIP_ACTION_HOLD},
                         .undo = FLIP_UNDO_RELEASE,
                         .timeout = FLIP_TIMEOUT_HOLD,
                         .next = FLIP_PHASE_DRAIN,
                         .on_failure = FLIP_FAILURE_UNDO,
                         .comment = "new work waits at each session's boundary; running transactions go on"},
    [FLIP_PHASE_DRAIN] = {.phase = FLIP_PHASE_DRAIN,
                          .kinds = BOTH,
                          .actions = {FLIP_ACTION_DRAIN},
                          .undo = FLIP_UNDO_NOTHING,
                          .timeout = FLIP_TIMEOUT_DRAIN,
                          .next = FLIP_PHASE_FENCE,
                          .on_failure = FLIP_FAILURE_UNDO,
                          .comment = "every session reaches its boundary; last differences are sent"},
    [FLIP_PHASE_FENCE] = {.phase = FLIP_PHASE_FENCE,
                          .kinds = BOTH,
                          .actions = {FLIP_ACTION_EXPIRE, FLIP_ACTION_FENCE},
                          .undo = FLIP_UNDO_UNFENCE,
                          .timeout = FLIP_TIMEOUT_FENCE,
                          .next = FLIP_PHASE_CATCHUP,
                          .on_failure = FLIP_FAILURE_UNDO,
                          .comment = "the source refuses application writes, proved; the marker is written"},
    [FLIP_PHASE_CATCHUP] = {.phase = FLIP_PHASE_CATCHUP,
                            .kinds = ALL,
                            .actions = {FLIP_ACTION_CATCHUP},
                            .alone = {FLIP_ACTION_TERMINATE_UNDRAINED, FLIP_ACTION_CUT_OFF},
                            .undo = FLIP_UNDO_NOTHING,
                            .undo_alone = FLIP_UNDO_REATTACH,
                            .timeout = FLIP_TIMEOUT_CATCHUP,
                            .next = FLIP_PHASE_READY,
                            .on_failure = FLIP_FAILURE_UNDO,
                            .comment = "the target has the marker of every database",
                            .comment_alone = "the target has applied all that it got, and is cut off"},
    [FLIP_PHASE_READY] = {.phase = FLIP_PHASE_READY,
                          .kinds = ALL,
                          .actions = {FLIP_ACTION_READY},
                          .alone = {FLIP_ACTION_READY_ALONE},
                          .undo_alone = FLIP_UNDO_REATTACH,
                          .undo = FLIP_UNDO_UNFENCE,
                          .timeout = FLIP_TIMEOUT_READY,
                          .next = FLIP_PHASE_COMMIT,
                          .on_failure = FLIP_FAILURE_UNDO,
                          .comment = "the target's opening transactions are done but for their COMMIT"},
    [FLIP_PHASE_COMMIT] = {.phase = FLIP_PHASE_COMMIT,
                           .kinds = ALL,
                           .actions = {FLIP_ACTION_JOURNAL_COMMIT},
                           .undo_alone = FLIP_UNDO_REATTACH,
                           .undo = FLIP_UNDO_UNFENCE,
                           .timeout = FLIP_TIMEOUT_MAX_HOLD,
                           .next = FLIP_PHASE_OPEN,
                           .on_failure = FLIP_FAILURE_UNDO,
                           .comment = "the journal says that the target is active, on disk"},
    [FLIP_PHASE_OPEN] = {.phase = FLIP_PHASE_OPEN,
                         .kinds = ALL,
                         .actions = {FLIP_ACTION_OPEN, FLIP_ACTION_JOURNAL_RELEASED},
                         .undo_alone = FLIP_UNDO_FORWARD,
                         .undo = FLIP_UNDO_BACK,
                         .timeout = FLIP_TIMEOUT_MAX_HOLD,
                         .next = FLIP_PHASE_RELEASE,
                         .next_lossless = FLIP_PHASE_TURN,
                         .on_failure = FLIP_FAILURE_RESOLVE,
                         .past_commit = true,
                         .comment = "the target commits its opening transactions"},
    [FLIP_PHASE_RELEASE] = {.phase = FLIP_PHASE_RELEASE,
                            .kinds = ALL,
                            .actions = {FLIP_ACTION_SWAP, FLIP_ACTION_RELEASE, FLIP_ACTION_HOOK_AFTER},
                            .alone = {FLIP_ACTION_FENCE_ON_CONTACT, FLIP_ACTION_SWAP, FLIP_ACTION_RELEASE,
                                      FLIP_ACTION_HOOK_AFTER},
                            .undo_alone = FLIP_UNDO_FORWARD,
                            .undo = FLIP_UNDO_FLIP_BACK,
                            .timeout = FLIP_TIMEOUT_NONE,
                            .next = FLIP_PHASE_TURN,
                            .next_lossless = FLIP_PHASE_WATCH,
                            .on_failure = FLIP_FAILURE_RETRY,
                            .past_commit = true,
                            .comment = "sessions are swapped to the target and go on"},
    [FLIP_PHASE_TURN] = {.phase = FLIP_PHASE_TURN,
                         .kinds = BOTH,
                         .actions = {FLIP_ACTION_TURN, FLIP_ACTION_JOURNAL_PROMISE, FLIP_ACTION_HOOK_AFTER},
                         .undo = FLIP_UNDO_FLIP_BACK,
                         .timeout = FLIP_TIMEOUT_TURN,
                         .next = FLIP_PHASE_WATCH,
                         .next_lossless = FLIP_PHASE_RELEASE,
                         .on_failure = FLIP_FAILURE_RETRY,
                         .past_commit = true,
                         .comment = "the reverse stream runs: the way back is open"},
    [FLIP_PHASE_WATCH] = {.phase = FLIP_PHASE_WATCH,
                          .kinds = FLIP_KIND_CUTOVER,
                          .actions = {FLIP_ACTION_WATCH},
                          .undo = FLIP_UNDO_FLIP_BACK,
                          .timeout = FLIP_TIMEOUT_WATCH,
                          .next = FLIP_PHASE_NONE,
                          .on_failure = FLIP_FAILURE_FLIP_BACK,
                          .past_commit = true,
                          .comment = "gates are judged; a failure flips back by itself"},
};

static const char *const phase_names[FLIP_PHASE_COUNT] = {
#define X(name, text) [name] = (text),
    FLIP_PHASE_MAP(X)
#undef X
};

static const struct {
    const char *name;
    enum flip_action_port port;
} actions[FLIP_ACTION_COUNT] = {
#define X(name, text, port) [name] = {(text), (port)},
    FLIP_ACTION_MAP(X)
#undef X
};

const struct flip_row *flip_table_row(enum flip_phase phase)
{
    ENSURE(phase > FLIP_PHASE_NONE && phase < FLIP_PHASE_COUNT);
    return &rows[phase];
}

enum flip_phase flip_table_first(enum flip_kind kind)
{
    enum flip_phase phase = FLIP_PHASE_PREFLIGHT;
    return (rows[phase].kinds & kind) != 0 ? phase : flip_table_next(kind, false, phase);
}

enum flip_phase flip_table_next(enum flip_kind kind, bool lossless, enum flip_phase phase)
{
    do {
        const struct flip_row *row = flip_table_row(phase);
        const bool turn_first =
            lossless && kind == FLIP_KIND_CUTOVER && row->next_lossless != FLIP_PHASE_NONE;
        phase = turn_first ? row->next_lossless : row->next;
    } while (phase != FLIP_PHASE_NONE && (rows[phase].kinds & kind) == 0);
    return phase;
}

const enum flip_action_kind *flip_table_actions(enum flip_kind kind, const struct flip_row *row)
{
    return kind == FLIP_KIND_TAKEOVER && row->alone[0] != FLIP_ACTION_NONE ? row->alone : row->actions;
}

enum flip_undo flip_table_undo(enum flip_kind kind, const struct flip_row *row)
{
    return kind == FLIP_KIND_TAKEOVER && row->undo_alone != FLIP_UNDO_MISSING ? row->undo_alone : row->undo;
}

const char *flip_table_comment(enum flip_kind kind, const struct flip_row *row)
{
    return kind == FLIP_KIND_TAKEOVER && row->comment_alone != NULL ? row->comment_alone : row->comment;
}

const char *flip_phase_name(enum flip_phase phase)
{
    ENSURE(phase >= 0 && phase < FLIP_PHASE_COUNT);
    return phase_names[phase];
}

bool flip_phase_parse(const char *text, enum flip_phase *phase)
{
    for (size_t i = 0; i < FLIP_PHASE_COUNT; i++) {
        if (strcmp(text, phase_names[i]) == 0) {
            *phase = (enum flip_phase)i;
            return true;
        }
    }
    return false;
}

const char *flip_kind_name(enum flip_kind kind)
{
    switch (kind) {
    case FLIP_KIND_CUTOVER:
        return "cutover";
    case FLIP_KIND_TAKEOVER:
        return "takeover";
    case FLIP_KIND_FLIP_BACK:
        break;
    }
    return "flip-back";
}

bool flip_kind_parse(const char *text, enum flip_kind *kind)
{
    for (unsigned i = FLIP_KIND_CUTOVER; i <= FLIP_KIND_TAKEOVER; i *= 2) {
        if (strcmp(text, flip_kind_name((enum flip_kind)i)) == 0) {
            *kind = (enum flip_kind)i;
            return true;
        }
    }
    return false;
}

const char *flip_action_name(enum flip_action_kind action)
{
    ENSURE(action >= 0 && action < FLIP_ACTION_COUNT);
    return actions[action].name;
}

enum flip_action_port flip_action_port(enum flip_action_kind action)
{
    ENSURE(action >= 0 && action < FLIP_ACTION_COUNT);
    return actions[action].port;
}

const char *flip_undo_name(enum flip_undo undo)
{
    switch (undo) {
    case FLIP_UNDO_MISSING:
        return "missing";
    case FLIP_UNDO_NOTHING:
        return "nothing to undo";
    case FLIP_UNDO_DISARM:
        return "close the target links";
    case FLIP_UNDO_RELEASE:
        return "release the clients";
    case FLIP_UNDO_UNFENCE:
        return "open the source again";
    case FLIP_UNDO_BACK:
        return "the source opens again, two epochs on";
    case FLIP_UNDO_FLIP_BACK:
        return "flip back";
    case FLIP_UNDO_REATTACH:
        return "the standby follows again";
    case FLIP_UNDO_FORWARD:
        return "none: only forward";
    }
    return "missing";
}

const char *flip_failure_name(enum flip_failure failure)
{
    switch (failure) {
    case FLIP_FAILURE_REFUSE:
        return "refuse";
    case FLIP_FAILURE_UNDO:
        return "undo";
    case FLIP_FAILURE_RESOLVE:
        return "resolve, or back";
    case FLIP_FAILURE_RETRY:
        return "retry, alarm";
    case FLIP_FAILURE_FLIP_BACK:
        return "flip back";
    }
    return "refuse";
}
