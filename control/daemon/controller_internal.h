/* The controller from the inside: what its files share. Included by control/daemon/controller*.c only. */
#ifndef SWITCHBACK_CONTROL_DAEMON_CONTROLLER_INTERNAL_H
#define SWITCHBACK_CONTROL_DAEMON_CONTROLLER_INTERNAL_H

#include "control/daemon/command.h"
#include "control/daemon/controller.h"
#include "control/daemon/controller_faults.h"
#include "control/daemon/text.h"
#include "control/flip/hold_ledger.h"
#include "control/flip/runner.h"
#include "control/gates/gate.h"
#include "proxy/proxy.h"
#include "replication/replication.h"

#include <jansson.h>

enum {
    CONTROLLER_STORIES = 1000,      /* flips that are remembered, for --key and predictions */
    CONTROLLER_BASELINE_SLOTS = 31, /* of ten seconds: the last five minutes */
    CONTROLLER_BASELINE_SECONDS = 10,
    CONTROLLER_PULSE_MS = 100, /* how often the dead side and the promise's stream are looked at */
    CONTROLLER_MS_US = 1000,
    CONTROLLER_SECOND_US = 1000000
};

/* Hold ids of the operator; those of flips are their own ids. */
#define CONTROLLER_OPERATOR_HOLD (UINT64_C(1) << 62)

/* A call that waits for what a flip comes to. */
struct flip_waiter {
    struct rpc_call *call;
    uint64_t flip;
    bool watch; /* for the end of the watch, too */
    struct flip_waiter *next;
};

/* A command that runs: a hook, a backup, a gate's. */
struct running_command {
    struct controller *controller;
    struct command *command;
    uint64_t ticket; /* of the runner's request; 0: a notification, UINT64_MAX: a gate's */
    const char *name;
    void *context;
    size_t gate; /* whose it is */
    uint64_t gates_run;
    struct running_command *next;
};

/* Somebody asked for the list of sessions. */
struct session_request {
    uint64_t id;
    void (*done)(struct controller *controller, void *context, struct proxy_session_info *sessions,
                 size_t count); /* the array is freed after it */
    void *context;
    struct session_request *next;
};

struct role_request;
struct check_run;

struct controller_gates {
    struct gate *gates; /* one for each in the settings */
    size_t count;
    uint64_t run; /* grows when they start anew: late answers of an earlier run are passed over */
    bool judging; /* the timer runs */
    bool acting;  /* the runner is told: the watch of a cutover */
    int64_t until_us;
    enum side side; /* that is judged */
    struct gate_traffic now[SIDE_COUNT];
    struct gate_traffic ring[CONTROLLER_BASELINE_SLOTS][SIDE_COUNT];
    size_t ring_count, ring_next;
    unsigned seconds;
    struct gate_traffic baseline; /* of the side that traffic has left, before the hold */
    struct gate_traffic held;     /* the same of a flip that runs: the baseline once it has moved traffic */
    int64_t bounds_us[GATE_BUCKETS];
};

/* What the runner was told of the active side and of the promise's stream, see controller_promise.c. */
struct controller_promise {
    enum side side;   /* that is active */
    uint64_t answers; /* of it to clients, and when they last grew */
    int64_t answered_us;
    int64_t told_dead_us, told_stream_us; /* 0: there is nothing to tell */
    bool stream_open, rescue;
    int64_t unnamed_us; /* since when the stream runs and no commit waits for it; 0: it does */
};

/* What got around the promise, over the last minute: see controller_risk.c. */
enum { CONTROLLER_RISK_NOTES = 240 };
struct controller_risk {
    uint64_t first; /* when the active side became it */
    struct {
        int64_t at_us;
        uint64_t escaped;
    } notes[CONTROLLER_RISK_NOTES]; /* ring */
    size_t newest, count;
};

/* `recover --use`: the call that waits until the side serves. */
struct controller_decision {
    struct rpc_call *call; /* NULL: none */
    enum side side;
    int64_t until_us;
};

/* Begins what was waited for; not if `refused` says why. */
typedef void (*controller_begin)(void *context, const struct error *refused);

/* prepare, finalize or rejoin, asked for and not begun: see controller_settle.c. */
struct controller_settling {
    controller_begin begin; /* NULL: none */
    void *context;
    const char *verb;
    int64_t until_us;
};

/* One of them, begun perhaps more than once. */
struct controller_operation {
    uint64_t owner; /* when it began last */
    unsigned beginnings;
};

/* The last arming that the runner asked for. */
struct controller_arming {
    uint64_t flip; /* 0: none, or undone */
    uint64_t ticket;
    enum side target;
    int64_t deadline_us;
};

struct controller {
    uv_loop_t *loop;
    const struct settings *settings;
    struct journal *journal;
    struct audit *audit;
    struct events *events;
    int64_t started_us;

    struct proxy *proxy;
    uint64_t pings, pings_answered;
    struct replication *replication;

    /* the runner and what it waits for */
    struct flip flip;
    bool stepping;
    struct queued_event *queue, *queue_last;
    uv_timer_t wake, second, gate_timer, progress, pulse;
    uint64_t proxy_tickets[PROXY_EVENT_KIND_COUNT]; /* by the event that answers */
    bool types_known; /* of both sides, in every database: they have been read once */
    struct controller_arming arming;
    struct flip_request fence; /* until the sessions' backends are known */
    struct running_command *commands;
    struct session_request *session_requests;
    uint64_t session_request_id;
    int64_t contact_us;   /* when facts were last asked for because a side contradicts its standing */
    unsigned unmet_count; /* how often, one after the other, because a side that answers has not been met */
    bool contact_due;     /* a side came back: look at the facts as soon as nothing speaks against it */
    bool side_seen[SIDE_COUNT], side_reachable[SIDE_COUNT];
    bool met;      /* the side that was left behind was fenced on contact: what it is now is to be told */
    bool reserved; /* journal space for a flip */

    /* holds */
    struct hold_ledger holds;
    uint64_t operator_hold;            /* id of the last one */
    char operator_name[RPC_NAME_SIZE]; /* who asked for it */
    uint64_t gate_hold;                /* id that the proxy holds for; 0: its gate is open */
    bool gate_refusing;                /* it expired behind a fence: closed until there is a route */
    struct rpc_call *hold_call, *release_call;

    struct controller_promise promise;
    struct controller_risk risk;
    struct controller_decision decision;
    struct role_request *roles;
    struct controller_gates gates;

    /* COMMITs whose server went */
    struct doubt_question *doubts;
    uint64_t doubts_asked[SIDE_COUNT], doubts_rounds; /* the query under way; 0: none */
    uv_timer_t doubt_timer;

    /* flips, for those who ask */
    struct flip_story *stories; /* ring of CONTROLLER_STORIES */
    size_t story_count, story_next;
    struct flip_waiter *waiters;
    unsigned progress_round;
    struct flip_spec begins; /* a flip whose journal space is being reserved; id 0: none */
    const char *busy;        /* "prepare", "finalize": what else is under way; NULL */
    struct controller_settling settling;
    struct error alarm; /* the last one; code NONE: all is well since */
    int64_t alarm_us;
    bool alarm_passes; /* it is about what is tried again: over when that has worked */
    struct proxy_counts drain;

    /* the end */
    unsigned references; /* callbacks that still lead here */
    unsigned parts;      /* proxy, replication and timers that still run */
    bool stopping;
    void (*stopped)(void *context);
    void *stopped_context;
};

/* --- controller.c */
/* Hands the runner an event, now or as soon as it is done with the one under way. */
void controller_feed(struct controller *controller, struct flip_event *event);
void controller_answer(struct controller *controller, uint64_t ticket, bool ok, bool uncertain,
                       const struct error *error);
void controller_ref(struct controller *controller);
void controller_unref(struct controller *controller);
/* Calls of others that the daemon's stop ends. */
void controller_stopping_error(struct error *error);
void controller_say_stopping(struct rpc_call *call);
void controller_raise(struct controller *controller, const struct error *alarm, uint64_t flip);

void controller_proxy_stopped(struct controller *controller);

/* --- controller_ports.c: what the runner asks for */
void controller_port(void *context, const struct flip_request *request);
/* Runs a command; its end comes to `done` unless memory ran out (false). */
bool controller_run(struct controller *controller, const struct settings_list *argv, int64_t timeout_us,
                    const struct command_environment *environment, struct running_command running,
                    command_done done);
void controller_notify(struct controller *controller, uint64_t flip, const char *phase, const char *event,
                       const char *message);

/* --- controller_arming.c */
void controller_arm(struct controller *controller, const struct flip_request *request);
/* The proxy's part is done: `armed` goes to the runner when the clusters' is. */
void controller_armed(struct controller *controller, const struct flip_event *armed);

/* --- controller_facts.c */
void controller_learn(struct controller *controller, uint64_t ticket);
void controller_sum_facts(const struct pair_facts *pair, struct flip_facts *facts);

/* --- controller_holds.c: the proxy's gate, its events, the verbs hold and release */
void controller_hold(struct controller *controller, const struct flip_request *request);
void controller_expire(struct controller *controller, const struct flip_request *request);
void controller_release(struct controller *controller, const struct flip_request *request);
void controller_route(struct controller *controller, const struct flip_request *request);
void controller_proxy_event(void *context, const struct proxy_event *event);
void controller_holds_tick(struct controller *controller);
void controller_method_hold(void *context, struct rpc_call *call);
void controller_method_release(void *context, struct rpc_call *call);

/* --- controller_sessions.c: the list of sessions, verifiers, types */
/* exactly: each is asked what it holds first, while its client waits */
void controller_ask_sessions(struct controller *controller, bool exactly,
                             void (*done)(struct controller *controller, void *context,
                                          struct proxy_session_info *sessions, size_t count),
                             void *context);
void controller_sessions_event(struct controller *controller, const struct proxy_event *event);
void controller_verifier(void *context, uint64_t request, enum side side, const char *role, bool groups);
/* Reads the types of both sides anew, and tells the proxy; done comes in any case. */
void controller_read_types(struct controller *controller,
                           void (*done)(struct controller *controller, void *context), void *context);
void controller_refresh_types(struct controller *controller);
void controller_method_sessions(void *context, struct rpc_call *call);
/* The proxy stops: nobody will answer these any more. */
void controller_sessions_stop(struct controller *controller);

/* --- controller_doubt.c: what became of COMMITs whose server went */
void controller_doubt(void *context, const struct proxy_doubt *doubt);
void controller_doubts_deinit(struct controller *controller);

/* --- controller_gates.c */
MUST_USE bool controller_gates_init(struct controller *controller, struct error *error);
void controller_gates_deinit(struct controller *controller);
void controller_gates_second(struct controller *controller); /* once a second: sample the traffic */
void controller_gates_hold(struct controller *controller, enum side source); /* freeze its traffic */
void controller_gates_moved(struct controller *controller); /* what was frozen is the baseline now */
/* acting: failures go to the runner; else they are only reported, for as long as a watch lasts. */
void controller_gates_start(struct controller *controller, enum side side, bool acting);
void controller_gates_stop(struct controller *controller);
/* No gate is judged any more, or by other rules: what they raised is no trouble of now. */
void controller_forget_gates(struct controller *controller);
void controller_gates_reload(struct controller *controller);
/* The gates with when: preflight, judged once: each is either told at once or is to be asked. */
void controller_gates_preflight(struct controller *controller, void *context,
                                void (*told)(void *context, const struct gate *gate),
                                void (*ask)(void *context, size_t gate));
json_t *controller_gates_json(const struct controller *controller);

/* --- controller_check.c: the check list, with sessions and gates */
struct check_outcome {
    json_t *checks; /* array, borrowed */
    bool ok;
    struct error first; /* what fails, in words; code NONE if nothing does */
};
typedef void (*check_done)(struct controller *controller, void *context, const struct check_outcome *outcome);
void controller_check(struct controller *controller, check_done done, void *context);
/* What a flip-back can't do without. */
MUST_USE bool controller_can_go_back(const struct controller *controller, struct error *why);
/* Whether the way back is open now, a marker just seen included. */
/* It answers, as far as anybody knows, but not since it was last asked who it is: it is met within a second.
 */
bool controller_is_unmet(const struct controller *controller, enum side side);
MUST_USE bool controller_way_back(const struct controller *controller, struct error *why);
void controller_method_check(void *context, struct rpc_call *call);

/* --- controller_promise.c: the dead side, the lossless watch */
void controller_promise_pulse(struct controller *controller);
/* Clients and the manager alike have had no answer from the active side for flip.dead_after. */
MUST_USE bool controller_is_active_dead(const struct controller *controller);
/* The same for the operator: what a takeover would lose, and what to do. */
void controller_dead_error(const struct controller *controller, struct error *error);

/* --- controller_risk.c */
void controller_risk_note(struct controller *controller, const struct proxy_stats *stats);
void controller_risk_begin(struct controller *controller);
/* False: nothing is known of it. */
bool controller_commits_at_risk(const struct controller *controller, uint64_t *commits);

/* --- controller_recover.c, controller_rejoin.c: what only an operator can decide */
void controller_recover_pulse(struct controller *controller);
void controller_method_recover(void *context, struct rpc_call *call);
void controller_method_rejoin(void *context, struct rpc_call *call);

/* --- controller_stories.c: what flips came to */
struct flip_story *controller_story(const struct controller *controller, uint64_t flip);
const struct flip_story *controller_story_by_key(const struct controller *controller, const char *key);
void controller_story_row(struct controller *controller, const struct record *row);
json_t *controller_result(const struct flip_story *story, enum flip_outcome outcome,
                          const struct error *error);
json_t *controller_stall(const struct flip_story *story);
/* Median of the last flips that were done, as it would be with so many sessions, in microseconds; -1 without
 * one. */
int64_t controller_usual_us(const struct controller *controller, enum flip_phase phase, uint64_t sessions);

/* --- controller_flips.c: the verbs that begin and end flips */
void controller_flip_phase(struct controller *controller, const struct flip_request *request);
void controller_flip_alarm(struct controller *controller, const struct flip_request *request);
void controller_flip_finished(struct controller *controller, const struct flip_request *request);
void controller_flip_watch(struct controller *controller, bool on);
void controller_flip_row(struct controller *controller, const struct record *row);
void controller_flips_stop(struct controller *controller);
void controller_method_cutover(void *context, struct rpc_call *call);
void controller_method_flip_back(void *context, struct rpc_call *call);
void controller_method_abort(void *context, struct rpc_call *call);

/* --- controller_waiters.c: calls that wait for a flip */
void controller_wait(struct controller *controller, struct rpc_call *call, uint64_t flip, bool watch);
void controller_waiters_progress(struct controller *controller);
/* Whatever they wait for, it won't come. */
void controller_waiters_fail(struct controller *controller, const struct error *error);
void controller_waiters_answer(struct controller *controller, uint64_t flip, bool watchers,
                               enum flip_outcome outcome, const struct error *error);

/* --- controller_settle.c: prepare, finalize and rejoin begin under a number that stays */
/* `busy` from here on: begins now, or as soon as no ownership is being taken. */
void controller_settle(struct controller *controller, const char *verb, controller_begin begin,
                       void *context);
void controller_settle_look(struct controller *controller);
/* No ownership is being taken, nor about to be. */
bool controller_is_settled(const struct controller *controller);
/* One has begun: ownership is not taken for what can wait. */
bool controller_is_operating(const struct controller *controller);
/* As far as the runner is concerned. */
MUST_USE bool controller_may_operate(const struct controller *controller, const char *verb,
                                     struct error *error);
void controller_operation_begins(const struct controller *controller, struct controller_operation *operation);
/* True: only because this daemon took ownership meanwhile has it failed; it is to be begun again. Else
 * *error says why it failed. */
MUST_USE bool controller_operation_again(struct controller *controller,
                                         const struct controller_operation *operation, const char *verb,
                                         const struct replication_result *result, struct error *error);

/* --- controller_prepare.c */
void controller_method_prepare(void *context, struct rpc_call *call);
void controller_method_finalize(void *context, struct rpc_call *call);

/* --- controller_plan.c */
void controller_dry_run(struct controller *controller, struct rpc_call *call, enum flip_kind kind,
                        enum side target);
/* Negative: none could begin now, the sides are apart. */
int64_t controller_predict_stall_us(const struct controller *controller, enum flip_kind kind);

/* --- controller_identity.c */
MUST_USE bool controller_identity_recall(const struct controller *controller,
                                         struct replication_identity *identity, struct error *error);
/* Writes it down; done as journal_remember has it, may be NULL. */
void controller_identity_remember(struct controller *controller, journal_done done, void *context);
void controller_identified(void *context); /* replication's callbacks */
void controller_choosing(void *context);

/* --- controller_status.c */
void controller_method_status(void *context, struct rpc_call *call);

#endif
