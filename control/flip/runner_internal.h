/* What the files of the runner share. Included by control/flip/runner*.c only. */
#ifndef SWITCHBACK_CONTROL_FLIP_RUNNER_INTERNAL_H
#define SWITCHBACK_CONTROL_FLIP_RUNNER_INTERNAL_H

#include "control/flip/recovery.h"
#include "control/flip/runner.h"

enum {
    FLIP_MS_US = 1000,
    FLIP_SECOND_US = 1000000,
    /* Phases in which clients wait have no setting of their own: max_hold leaves two seconds for them. */
    FLIP_HOLD_ANSWER_US = 1 * FLIP_SECOND_US, /* the workers' mailboxes */
    FLIP_FENCE_US = 2 * FLIP_SECOND_US,
    FLIP_READY_US = 2 * FLIP_SECOND_US,
    FLIP_OPEN_US = 2 * FLIP_SECOND_US,
    FLIP_UNDO_US = 3 * FLIP_SECOND_US,
    FLIP_CONTACT_US = 10 * FLIP_SECOND_US,
    FLIP_LEARN_US = 5 * FLIP_SECOND_US, /* connect, end our old backends, read */
    FLIP_ROW_US = 5 * FLIP_SECOND_US,   /* a row that takes longer is worth an alarm */
    FLIP_SWAP_US = 5 * FLIP_SECOND_US,
    FLIP_TURN_US = 30 * FLIP_SECOND_US, /* a first start of the apply worker */
    FLIP_NAMES_US = 3 * FLIP_SECOND_US,
    FLIP_RELEASE_BUDGET_US = 1 * FLIP_SECOND_US, /* what a lossless turn leaves of the hold */
    FLIP_ADOPT_US = 5 * FLIP_SECOND_US,
    FLIP_STREAM_US = 1 * FLIP_SECOND_US, /* how often news of the stream come */
    FLIP_FRESH_US = 5 * FLIP_SECOND_US,  /* how long news that come about once a second count */
    FLIP_GUARD_US = 500 * FLIP_MS_US,    /* over the deadline that the world was given */
    FLIP_RETRY_FIRST_US = 100 * FLIP_MS_US,
    FLIP_RETRY_LAST_US = 30 * FLIP_SECOND_US,
    /* An automatic flip-back may not wait for what slows it down (flip.md "Flip-back"). */
    FLIP_RESCUE_DRAIN_US = 150 * FLIP_MS_US,
    FLIP_RESCUE_GRACE_US = 150 * FLIP_MS_US,
    FLIP_IMMOVABLE_AGAIN_US = 1 * FLIP_SECOND_US, /* how often `immovable: wait` looks again */
    FLIP_OPEN_TRIES = 3,
    FLIP_LEARN_TRIES = 4, /* before the journal alone must do though something answers */
    FLIP_STUCK_TRIES = 4  /* after so many an operator may decide */
};
#define FLIP_IMMOVABLE_WAIT_US ((int64_t)600 * FLIP_SECOND_US)

/* Journal rows have tickets of their own: this bit and the row's number. */
#define FLIP_ROW_TICKET (UINT64_C(1) << 63)

/* --- runner.c */
enum side flip_target(const struct flip *flip);
/* A request of the flip that runs, with its side and epoch after the flip; the caller changes what differs.
 */
struct flip_request flip_request(const struct flip *flip, enum flip_action_kind kind);
void flip_tell(struct flip *flip, const struct flip_request *request);
/* Emits with a ticket and awaits the answer until `deadline_us` and a guard. */
void flip_ask(struct flip *flip, struct flip_request *request, int64_t deadline_us);
void flip_ask_simple(struct flip *flip, enum flip_action_kind kind, int64_t deadline_us);
void flip_alarm(struct flip *flip, const struct error *error);
/* The request that is awaited isn't any more. */
void flip_drop_await(struct flip *flip);
/* Hands a row to the journal; returns its number. */
uint64_t flip_write(struct flip *flip, struct record *row, enum flip_action_kind kind);
struct record flip_row_of(const struct flip *flip, enum record_kind kind);
/* Again after a growing pause. */
void flip_retry_later(struct flip *flip, struct flip_retry *retry);
void flip_finish(struct flip *flip, enum flip_outcome outcome);
void flip_learn(struct flip *flip);
void flip_begin(struct flip *flip, const struct flip_spec *spec);

/* --- runner_deposed.c */
void flip_deposed(struct flip *flip);
void flip_follow(struct flip *flip, const struct flip_event *event);

/* --- runner_forward.c */
void flip_enter(struct flip *flip, enum flip_phase phase);
void flip_step_start(struct flip *flip);
void flip_forward_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
void flip_forward_tick(struct flip *flip);
void flip_forward_durable(struct flip *flip);
void flip_drained(struct flip *flip);
void flip_again(struct flip *flip, const struct flip_event *event);
void flip_step_done(struct flip *flip);
void flip_write_result(struct flip *flip, enum error_code code); /* of the phase */
void flip_settle_open(struct flip *flip); /* every database of the target is open: say so, release */

/* --- runner_steps.c */
/* Bounded so that what is left of the hold still suffices to open the target. */
int64_t flip_before_open(const struct flip *flip, int64_t duration_us);
bool flip_wants(const struct flip *flip, enum flip_phase phase, enum flip_action_kind action);
void flip_perform(struct flip *flip, enum flip_action_kind action);

/* --- runner_promise.c */
void flip_start_turn(struct flip *flip);
void flip_start_promise_row(struct flip *flip);
void flip_start_names_ahead(struct flip *flip);
void flip_turn_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
void flip_stream(struct flip *flip, const struct flip_event *event);
void flip_promise_row_answer(struct flip *flip, uint64_t number, const struct flip_event *event);
/* Journal, names and promise are brought together, one request at a time; while nothing runs. */
void flip_promise_next(struct flip *flip);
void flip_promise_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
void flip_promise_tick(struct flip *flip);
int64_t flip_promise_wake(const struct flip *flip);
/* Recovery: asks that the names of both sides are what the journal says; false: that isn't needed. */
bool flip_ask_names(struct flip *flip, enum side active, uint64_t epoch, bool promise);
bool flip_names_matter(const struct flip *flip);

/* --- runner_takeover.c */
void flip_side_dead_event(struct flip *flip, const struct flip_event *event);
bool flip_start_reattach(struct flip *flip); /* undo; false: there is nothing to do */
bool flip_look_at_source(struct flip *flip); /* before clients are let go there; false: they may be */
bool flip_reattach_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
bool flip_attach_standby(struct flip *flip); /* steady; true: an answer is awaited */
void flip_attached(struct flip *flip);
/* What runs ends where a takeover may begin: a flip whose traffic is released, or one that can't be undone.
 */
void flip_make_way(struct flip *flip);
bool flip_is_stuck(const struct flip *flip);

/* --- runner_decide.c */
void flip_decide(struct flip *flip, const struct flip_event *event);
void flip_adopt(struct flip *flip);
void flip_adopt_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);

/* --- runner_undo.c */
/* It may have done something in a cluster, answered or not. */
bool flip_touches_cluster(enum flip_action_kind action);
void flip_undo(struct flip *flip, const struct error *why, enum flip_outcome outcome);
void flip_undo_next(struct flip *flip);
void flip_undo_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
void flip_resolve(struct flip *flip, const struct error *why);
void flip_resolve_facts(struct flip *flip);
void flip_resolve_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
void flip_back(struct flip *flip);
void flip_back_next(struct flip *flip);
void flip_back_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);

/* --- runner_start.c */
void flip_recover(struct flip *flip, const struct flip_event *event);
bool flip_resume_turn(struct flip *flip); /* false: the way back of the last flip is open */
void flip_recover_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
/* Nobody is served until a side or an operator says more. */
void flip_doubt(struct flip *flip, const struct recovery *recovery);

/* --- runner_steady.c */
void flip_steady_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event);
void flip_steady(struct flip *flip); /* nothing runs any more: watch, contact */
/* One after the other: the other side's fence, the active side's, a standby that is still cut off. True: an
 * answer is awaited. */
bool flip_set_right(struct flip *flip, enum flip_action_kind answered, enum side active, uint64_t epoch);
void flip_note_unfenced(struct flip *flip); /* the active side was */
/* Nobody is sent to a side that this daemon has not met since its start: it may stand behind the fence of a
 * flip that could not be undone there, or be another cluster. Clients wait meanwhile, each for its time. */
bool flip_may_let_in(const struct flip *flip, enum side active);

/* --- runner_watch.c */
void flip_watch_begin(struct flip *flip);
void flip_watch_event(struct flip *flip, const struct flip_event *event);
void flip_watch_answer(struct flip *flip, const struct flip_event *event);
void flip_watch_tick(struct flip *flip);
void flip_watch_pause(struct flip *flip);

#endif
