/*
 * The simulator: the runner, the recovery, the journal's logic, the hold ledger and the gates, nothing of
 * them left out, in a world that is made of one seed. Everything that happens is a moment on one clock; the
 * world's faults are moments too. What the world does follows PostgreSQL as far as a flip can feel it, and
 * the procedures of replication/ and schema_flip.sql step by step; an oracle looks at it after every moment.
 *
 *   main.c      seeds, processes, the report
 *   run.c       one seed: the safety phase, then the liveness phase
 *   clock.c     moments, chance, the trace
 *   network.c   who reaches whom: cuts, one-way loss, delay, messages that come late
 *   cluster.c   WAL, flush, crash, backends with transactions, locks
 *   stream.c    walsender and apply worker of each database
 *   schema.c    what the functions of the schema `switchback` do in one database
 *   call.c      procedures of the controller: statements, lost replies, orphans, ownership
 *   ports.c     what the runner asks for; scripts.c: each as its statements
 *   journal.c   the disk
 *   proxy.c     workers, sessions; gate.c: holds; client.c: who uses them, and who goes around
 *   sampler.c   heartbeats, lag, gates, contact
 *   operator.c  who starts, aborts, holds, prepares
 *   faults.c    what goes wrong, and when; faults_aimed.c: at which moment
 *   oracle.c    what must hold
 */
#ifndef SWITCHBACK_TESTS_SIM_SIM_H
#define SWITCHBACK_TESTS_SIM_SIM_H

#include "control/flip/hold_ledger.h"
#include "control/flip/runner.h"
#include "control/gates/gate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SIM_MS = 1000,
    SIM_SECOND = 1000000,
    DATABASES = 2,
    TABLES = 3,
    WORKERS = 2,
    CLIENTS = 4, /* through the proxy */
    WRITERS = 2, /* directly to one side */
    LINKS = 128,
    CALLS = 64
};

struct sim;
typedef uint32_t position; /* in a cluster's WAL: so many records lie before it */

/* --- clock.c */

struct moment {
    int64_t at_us;
    uint64_t order; /* of two at the same time the earlier made comes first */
    void (*happen)(struct sim *sim, const struct moment *moment);
    uint32_t who;
    uint64_t life; /* of whoever it is for: a later one passes it over */
    int64_t value;
};

typedef void (*happening)(struct sim *sim, const struct moment *moment);

void sim_later(struct sim *sim, int64_t delay_us, happening happen, uint32_t who, uint64_t life,
               int64_t value);
bool sim_next(struct sim *sim, struct moment *moment);
uint64_t sim_random(struct sim *sim);
int64_t sim_between(struct sim *sim, int64_t low, int64_t high); /* both included */
bool sim_chance(struct sim *sim, unsigned in_a_thousand);

void sim_forget_story(void);
void sim_say(struct sim *sim, const char *who, const char *format, ...) PRINTF_LIKE(3, 4);
#define SAY(sim, ...)                                                                                        \
    do {                                                                                                     \
        if ((sim)->telling) {                                                                                \
            sim_say(sim, __VA_ARGS__);                                                                       \
        }                                                                                                    \
    } while (0)

/* --- network.c */

enum node { NODE_BLUE = SIDE_BLUE, NODE_GREEN = SIDE_GREEN, NODE_PROXY, NODE_COUNT };

struct parked {
    struct moment moment;
    enum node from, to;
};

enum { PARKED = 256 };

struct network {
    bool cut[NODE_COUNT][NODE_COUNT]; /* from, to */
    int64_t slow_us[NODE_COUNT];      /* added to what comes from or goes to it */
    struct parked parked[PARKED];     /* what a cut keeps: it arrives late, after all */
    unsigned parked_count;
};

bool network_passes(const struct sim *sim, enum node from, enum node to);
bool network_both_ways(const struct sim *sim, enum node one, enum node other);
/* Arrives after a delay; over a cut: after it heals, or never. */
void network_send(struct sim *sim, enum node from, enum node to, happening happen, uint32_t who,
                  uint64_t life, int64_t value);
void network_set_cut(struct sim *sim, enum node from, enum node to, bool cut);
const char *network_node(enum node node);

/* --- cluster.c */

enum standing { STANDING_STANDBY, STANDING_ACTIVE, STANDING_DIVERGED };

struct marker { /* one side's rows of switchback.marker in one database */
    uint64_t beat, check, closing, promise;
    int64_t closing_sequence, beat_sequence;
};

/* What is transactional in a database, beside the clients' rows. */
struct catalog {
    uint64_t owner, epoch, fenced_for, aborted, opened_for;
    enum standing standing;
    position start; /* L */
    bool fence;
    bool subscribed;             /* the stream that comes in is enabled */
    position origin;             /* how far it was applied */
    unsigned managed, published; /* tables, as bits */
    struct marker markers[SIDE_COUNT];
};

/* A transaction left open by make_ready: COMMIT opens the database. */
struct ready {
    bool open;
    uint64_t flip;
    uint64_t connection; /* whose it is */
    struct catalog opened;
    int64_t sequence;
};

struct slot { /* of the stream that goes out */
    position confirmed, saved;
};

struct apply_worker {
    bool runs;
    bool ends;      /* disabled: it lingers for a moment */
    uint64_t life;  /* of the moments that drive it */
    position at;    /* next record to be taken */
    position local; /* where its last transaction stands in this side's own WAL */
    position reported;
    bool asleep;
};

struct database {
    struct catalog now;
    int64_t sequence; /* not transactional */
    struct ready ready;
    struct slot slot;
    struct apply_worker worker;
    int64_t fence_waits_us; /* a fence waits for its locks: later writers wait behind it until then */
    bool prepared;          /* somebody's PREPARE TRANSACTION stands */
    uint8_t *rows;          /* by transaction: it is here */
    uint32_t missing;       /* acknowledged ones that aren't */
    uint32_t excused;       /* of them, those whose loss was accepted */
};

enum record_what { WAL_ROWS, WAL_CATALOG };

struct wal_record {
    enum record_what what;
    uint8_t database;
    bool published;       /* it goes out on the stream */
    uint32_t transaction; /* ROWS; 0: a marker only */
    enum side made_on;
    struct marker marker; /* of made_on, published with it */
    struct catalog before;
};

struct cluster {
    bool up;
    uint64_t life;
    int64_t excused_until_us; /* it was away: it may be open beside the other one until it is met */
    bool sync_local;          /* its subscription commits with synchronous_commit = local */
    bool named, named_all;    /* synchronous_standby_names: set; FIRST n */
    struct database databases[DATABASES];
    struct wal_record *wal;
    position end, flushed;
    uint32_t wal_size;
};

/* A backend and its client's connection to it: a session's, a target link, one around the proxy. */
struct link {
    bool used;
    bool abandoned; /* its client is gone; the server hasn't noticed */
    bool around;    /* the proxy */
    enum side side;
    unsigned database;
    uint64_t server; /* life of the cluster */
    uint64_t life;
    uint32_t client;
    uint32_t transaction; /* under way; 0 */
    unsigned executed;    /* statements of it */
    bool writes;          /* it holds locks that a fence waits for */
    bool committed;       /* it waits for the other side to confirm */
    position commit;
    bool cancelled;
};

enum { NO_LINK = -1 };

position cluster_append(struct sim *sim, enum side side, unsigned database, enum record_what what,
                        uint32_t transaction, bool published);
void cluster_flush(struct sim *sim, enum side side);
void cluster_crash(struct sim *sim, enum side side);
void cluster_start(struct sim *sim, enum side side);
bool cluster_open_for_writes(const struct sim *sim, enum side side, unsigned database);
/* The rows of a transaction come into a database. */
void cluster_put(struct sim *sim, enum side side, unsigned database, uint32_t transaction);
bool cluster_has_writers(const struct sim *sim, enum side side, unsigned database);
bool cluster_confirmed(const struct sim *sim, enum side side, position commit);
void cluster_set_names(struct sim *sim, enum side side, bool named);
int link_open(struct sim *sim, enum side side, unsigned database, uint32_t client);
void link_abandon(struct sim *sim, int link); /* its server notices soon, or not for long */
void link_close(struct sim *sim, int link);   /* its transaction is rolled back */
bool link_alive(const struct sim *sim, int link);
void cluster_begin(struct sim *sim);
void cluster_walwriter(struct sim *sim, const struct moment *moment);

/* --- stream.c */

void stream_launch(struct sim *sim, enum side side, unsigned database); /* if it should run, and doesn't */
void stream_end(struct sim *sim, enum side side, unsigned database);
void stream_disable(struct sim *sim, enum side side, unsigned database); /* it lingers */
void stream_wake(struct sim *sim, enum side publisher);
void stream_confirm(struct sim *sim, enum side subscriber);
void stream_heartbeat(struct sim *sim, const struct moment *moment);
bool stream_is_idle(const struct sim *sim, enum side subscriber, unsigned database);
bool stream_runs(const struct sim *sim, enum side subscriber, unsigned database);

/* --- schema.c: each in one database, at once. */

enum verdict {
    VERDICT_OK,
    VERDICT_BLOCKED, /* it waits for a lock, in the server */
    VERDICT_AGAIN,   /* not yet true: it is asked again */
    VERDICT_FAILED
};

/* Who asks, and for what. */
struct claim {
    enum side side;
    unsigned database;
    uint64_t owner, connection;
    uint64_t flip, epoch; /* before the flip */
};

bool schema_owned(struct sim *sim, const struct claim *claim);
enum verdict schema_claim(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_beat(struct sim *sim, const struct claim *claim, bool check, struct error *error);
enum verdict schema_raise_fence(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_seal(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_lower_fence(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_reopen(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_make_ready(struct sim *sim, const struct claim *claim, bool *open, struct error *error);
enum verdict schema_commit_ready(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_follow(struct sim *sim, const struct claim *claim, position start, struct error *error);
enum verdict schema_fence_left_behind(struct sim *sim, const struct claim *claim, uint64_t opened_for,
                                      bool *compare, struct error *error);
bool schema_holds_more(const struct sim *sim, const struct claim *claim, position has);
enum verdict schema_rejoin_unchanged(struct sim *sim, const struct claim *claim, position start,
                                     struct error *error);
/* schema_alone.c */
position schema_promise_marker(struct sim *sim, enum side side, unsigned database, uint64_t *n);
enum verdict schema_cut_off(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_reattach(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_make_ready_alone(struct sim *sim, const struct claim *claim, bool *open,
                                     struct error *error);
enum verdict schema_adopt(struct sim *sim, const struct claim *claim, struct error *error);
void schema_end_ready(struct sim *sim, enum side side, unsigned database);

/* --- call.c */

struct call;
struct strand;
struct plan;

typedef enum verdict run_step(struct sim *sim, struct call *call, struct strand *strand, struct error *error);

/* One statement of a procedure. */
struct step {
    const char *name;
    bool other;    /* on the other side than the strand's own */
    bool batched;  /* sent together with the one before: no reply in between */
    bool tolerant; /* that it fails is no failure */
    int64_t again_us;
    bool (*skip)(const struct sim *sim, const struct strand *strand); /* not needed now; NULL: it always is */
    run_step *run;
};

struct script {
    const struct step *steps;
    unsigned count;
    unsigned sides; /* bits: strands run on */
    bool once;      /* for the whole cluster */
    /* All strands have ended: true if another script follows, set up by it. NULL: the call is answered. */
    bool (*then)(struct sim *sim, struct call *call);
};

struct strand {
    enum side side;
    unsigned database;
    unsigned step;
    bool runs, failed, uncertain;
    bool in_flight, executing; /* a statement is under way; it has arrived */
    bool executed;             /* and did something */
    bool killed, lost;         /* its backend was ended; nothing but that comes back */
    bool skips;                /* the rest of the script isn't for it */
    bool connects;
    int64_t sent_us;
    const struct step *steps; /* of the script that it runs, or ran */
    unsigned count;
    enum side at;          /* where the statement is */
    uint64_t connection;   /* it was sent over */
    uint64_t life;         /* of that cluster when it arrived */
    int64_t server_end_us; /* the server gives it up */
    enum verdict verdict;
    struct error error;
    uint64_t number; /* of the statement: an answer to an earlier one is passed over */
    /* what a procedure remembers */
    position start, has, commit;
    uint64_t marker, opened_for;
    unsigned tables, told;
    bool open, reached, asked;
};

struct call {
    bool used;
    uint64_t life;
    struct flip_request request;
    bool dead;    /* nobody waits for it any more; its statements may live on */
    bool aborted; /* its answer is waited for, and will be that */
    bool phase;   /* of a flip: one at a time */
    bool uncertain;
    struct error error;
    struct script script;
    const struct plan *plan; /* of scripts.c */
    unsigned stage;
    bool cleans;
    int64_t deadline_us;
    uint64_t owner;
    struct strand strands[SIDE_COUNT][DATABASES];
    struct flip_facts facts;
    bool for_sampler;
    uint64_t highest; /* owner that was met */
};

struct call *call_new(struct sim *sim, const struct flip_request *request, int64_t deadline_us);
void call_run(struct sim *sim, struct call *call, const struct script *script);
struct call *call_of(struct sim *sim, uint64_t life);
void call_extend(struct sim *sim, struct call *call, int64_t by_us); /* its deadline, from now */
void call_collect(struct call *call);                                /* what came of its strands so far */
void call_forget(struct call *call);
void call_abort(struct sim *sim, struct call *call); /* its statements live on as orphans */
void call_side_crashed(struct sim *sim, enum side side);
void call_daemon_died(struct sim *sim);
void call_end_backends(struct sim *sim, enum side side, uint64_t but);
struct claim call_claim(const struct sim *sim, const struct call *call, const struct strand *strand);

/* --- scripts.c */

void scripts_begin(struct sim *sim, const struct flip_request *request);
void scripts_finish(struct sim *sim, struct call *call); /* what its end means */
void scripts_answer(struct sim *sim, struct call *call);
void scripts_phase_over(struct sim *sim);
/* A connection is made: nothing of an earlier controller is left there. False: another one owns it. */
bool scripts_own_side(struct sim *sim, struct call *call, struct strand *strand);

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
void daemon_start(struct sim *sim);
void daemon_crash(struct sim *sim);

/* --- journal.c */

struct journal_write {
    struct record row;
    uint64_t ticket;
};

enum { QUEUE = 128 };

struct journal {
    struct record *rows; /* on disk */
    uint32_t count, size;
    struct journal_write queue[QUEUE];
    unsigned queued;
    bool writing;
    uint64_t life;
    bool full;       /* every write fails */
    int64_t slow_us; /* added to each write */
};

void journal_write(struct sim *sim, const struct record *row, uint64_t ticket);
void journal_crash(struct sim *sim);
void journal_begin(struct sim *sim, const struct record *first);
bool journal_says(const struct sim *sim, uint64_t flip, enum record_kind kind, enum flip_phase phase);

/* --- proxy.c */

enum session_state {
    SESSION_NONE,
    SESSION_LOGIN, /* it waits for a route, or for its link */
    SESSION_IDLE,  /* at the boundary, outside a transaction */
    SESSION_BUSY,  /* an answer is outstanding */
    SESSION_OPEN   /* between two statements of a transaction */
};

struct worker {
    bool stands, refuses, refusing; /* the hold */
    uint64_t hold;
    int64_t deadline_us, since_us;
    uint64_t timer;  /* life of its deadline */
    bool route_open; /* it is set, and open */
    enum side side;
    uint64_t epoch;
    int64_t mailbox_us; /* of the last command in it */
    uint64_t armed;     /* flip whose target links are wanted; 0 */
    enum side target;
};

struct session {
    enum session_state state;
    uint64_t life;
    int link, target;
    uint64_t epoch;     /* of the link */
    bool waits;         /* its client sent something that the gate keeps */
    uint64_t statement; /* that is out */
    int64_t patience_us;
};

enum { COMMANDS = 64 };

struct proxy {
    uint64_t life;
    struct worker workers[WORKERS];
    struct session sessions[CLIENTS];
    /* on their way to the workers */
    struct flip_request commands[COMMANDS];
    unsigned command;
    /* what the controller keeps of them */
    uint64_t tickets[FLIP_ACTION_COUNT];
    unsigned answered[FLIP_ACTION_COUNT];
    struct flip_counts counts;
    struct hold_ledger ledger;
    uint64_t gate_hold, operator_hold; /* ids */
    bool gate_refusing;
    unsigned expired, released;
    bool drained_told;
};

void proxy_start(struct sim *sim);
void proxy_crash(struct sim *sim);
void proxy_side_crashed(struct sim *sim, enum side side);
void proxy_server_closed(struct sim *sim, int link);
void proxy_command(struct sim *sim, const struct flip_request *request); /* to every worker */
struct worker *proxy_worker(struct sim *sim, unsigned client);
bool proxy_is_held(const struct worker *worker);
unsigned proxy_undrained(const struct sim *sim);
void proxy_client_arrives(struct sim *sim, unsigned client);
void proxy_client_sends(struct sim *sim, unsigned client);
void proxy_client_leaves(struct sim *sim, unsigned client);

/* --- gate.c: holds of the runner and of the operator on the one gate, as control/daemon/controller_holds.c
 */

void proxy_request(struct sim *sim, const struct flip_request *request);
void gate_answer(struct sim *sim, enum flip_action_kind kind, const struct flip_counts *counts);
void gate_expired(struct sim *sim, uint64_t hold);
void gate_progress(struct sim *sim);
bool gate_operator_holds(struct sim *sim, int64_t duration_us);
bool gate_operator_releases(struct sim *sim);
void gate_tick(struct sim *sim);

/* --- client.c */

enum transaction_state {
    TRANSACTION_RUNS,
    TRANSACTION_ACKNOWLEDGED,
    TRANSACTION_IN_DOUBT,
    TRANSACTION_FAILED /* the client was told so, or never asked for its commit */
};

struct transaction {
    uint8_t client; /* CLIENTS and above: a writer */
    uint8_t database, table, statements;
    enum transaction_state state;
    enum side side;   /* it was executed on */
    bool committed;   /* on that side */
    bool published;   /* its table was, when it was committed */
    bool unconfirmed; /* acknowledged by a cancel, not by the other side */
    uint64_t epoch;
    int64_t value; /* of the sequence */
};

struct client {
    uint64_t life;
    bool connected;
    uint32_t transaction; /* under way; 0 */
    unsigned said;        /* statements sent, the commit included */
    uint64_t commits, errors;
};

/* Someone who writes on one side, around the proxy. */
struct writer {
    enum side side;
    int link;
    uint32_t transaction;
    unsigned said;
    uint64_t life;
};

/* What the server answers to a statement. */
enum answer {
    ANSWER_OK,
    ANSWER_FENCED,
    ANSWER_FAILED,
    ANSWER_LATER /* it waits for a lock, or for the other side */
};

void client_start(struct sim *sim);
enum answer client_execute(struct sim *sim, struct link *link, unsigned statement);
void client_connected(struct sim *sim, unsigned client);
void client_answered(struct sim *sim, unsigned client, enum answer answer);
/* The session ended: sqlstate "" is a lost connection. */
void client_ended(struct sim *sim, unsigned client, const char *sqlstate);
void writers_start(struct sim *sim);
void writers_end(struct sim *sim, enum side side, unsigned database);  /* by pg_terminate_backend */
void sessions_end(struct sim *sim, enum side side, unsigned database); /* the proxy's as well */

/* --- sampler.c */

struct sampler {
    bool told;
    enum side active;
    uint64_t epoch;
    int64_t rest_until_us;
    bool reachable[SIDE_COUNT], lost[SIDE_COUNT];
    int64_t answered_us[SIDE_COUNT];
    int64_t seen_us, contact_us;
    uint64_t life;
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

/* --- operator.c */

void operator_start(struct sim *sim);
bool operator_prepare(struct sim *sim);

/* --- faults.c */

enum fault {
    FAULT_PROXY_CRASH,
    FAULT_CLUSTER_CRASH,
    FAULT_CUT,     /* between two, both ways */
    FAULT_ONE_WAY, /* one way only */
    FAULT_SLOW_NETWORK,
    FAULT_DISK_FULL,
    FAULT_DISK_SLOW,
    FAULT_STALL, /* the controller's loop stands still; the workers go on */
    FAULT_WALL_CLOCK,
    FAULT_LAG,       /* apply is slow */
    FAULT_DOUBLE,    /* an answer comes twice */
    FAULT_MUTE,      /* no answer at all */
    FAULT_BYPASS,    /* writers around the proxy */
    FAULT_TABLE,     /* somebody adds a table */
    FAULT_PREPARED,  /* somebody's prepared transaction stands */
    FAULT_BAD_GREEN, /* statements fail on green: the gate sees it */
    FAULT_OPERATOR,  /* holds, aborts, finalizes at bad moments */
    FAULT_COUNT
};

struct faults {
    bool on[FAULT_COUNT];
    bool any;
    bool over;        /* the liveness phase */
    unsigned aims;    /* so many of a thousand requests have something aimed at them */
    int64_t pause_us; /* at most, between two that strike at any time */
    int64_t lag_us[SIDE_COUNT];
    bool bad_green;
    bool restarts, orphans;                /* this seed has those of faults_aimed.c */
    uint64_t still_connection[SIDE_COUNT]; /* its backend stands still until then */
    int64_t still_until_us[SIDE_COUNT];
};

const char *fault_name(enum fault fault);
void faults_choose(struct sim *sim);
void faults_start(struct sim *sim);
/* A request goes out: a fault may be aimed at it. */
void faults_aim(struct sim *sim, const struct flip_request *request);
void faults_heal(struct sim *sim);
void faults_unseen_row(struct sim *sim);
bool faults_double(struct sim *sim);
bool faults_mute(struct sim *sim);
/* faults_aimed.c */
void faults_choose_aimed(struct sim *sim);
void faults_aim_between(struct sim *sim, const struct flip_request *request);
int64_t faults_stand_still(const struct sim *sim, enum side side, uint64_t connection);

/* --- oracle.c */

void oracle_broke(struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);
void oracle_look(struct sim *sim);
void oracle_before(struct sim *sim, uint64_t flip, enum flip_action_kind action); /* invariant 8 */
void oracle_client_error(struct sim *sim, unsigned client, const char *sqlstate);
void oracle_away(struct sim *sim, enum side side);
void oracle_opened(struct sim *sim, enum side side, unsigned database);
void oracle_met(struct sim *sim, enum side side);
const char *oracle_unrest(struct sim *sim);
void oracle_final(struct sim *sim);

/* --- all of it */

struct sim_figures {
    uint64_t seeds, flips, done, aborted, refused, automatic, alarms, transactions, acknowledged, crashes,
        moments;
};

struct sim {
    uint64_t seed, state;
    int64_t now_us, wall_offset_us;
    uint64_t order, life;
    struct moment *moments; /* a heap */
    size_t moment_count, moment_size;
    bool telling;
    char broken[256]; /* the first invariant that broke; "" */

    struct network network;
    struct cluster clusters[SIDE_COUNT];

    bool running; /* the daemon lives */
    int64_t stalled_until_us;
    uint64_t daemon;
    struct flip runner;
    struct flip_options options;
    uint64_t owner, owner_kept; /* in state.dir: the highest that was ever taken */
    uint64_t connections;
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
    struct client clients[CLIENTS];
    struct writer writers[WRITERS];
    struct link links[LINKS];
    struct transaction *transactions;
    uint32_t transaction_count, transaction_size;
    int64_t sequence_used[DATABASES];

    struct faults faults;
    unsigned haste;         /* of the operator, in a thousand */
    uint64_t loss_accepted; /* by an operator, in this flip */
    bool strayed;           /* someone wrote, around the proxy, where nobody may count on it */
    enum side settled;      /* as the journal on disk has it */
    uint64_t settled_epoch;
    uint64_t commits_before[CLIENTS]; /* the liveness phase */
    bool quiet;                       /* nobody begins anything any more */
    struct sim_figures figures;
};

/* One seed, from beginning to end: NULL, or what broke (valid until the next run). */
const char *sim_run(struct sim *sim, uint64_t seed, bool telling);
struct sim *sim_new(void);
void sim_free(struct sim *sim);

/* What was told is kept: its last lines are printed when a seed fails. */
void sim_print_story(size_t lines);

#endif
