/*
 * What is done to and asked of the pair of clusters, over libpq on the main loop: ownership, marker, lag,
 * fence, the database side of a flip, prepare, check. Its one public header. It judges facts of the clusters
 * and decides nothing: control does. What happens inside the clusters stands in schema.sql and
 * schema_flip.sql; how a flip is put together of it, in control/flip.
 *
 * Every operation returns at once and answers exactly once by its callback, on the loop's thread, never from
 * inside the call. Operations work on all managed databases in parallel and succeed only if all of them did.
 */
#ifndef SWITCHBACK_REPLICATION_REPLICATION_H
#define SWITCHBACK_REPLICATION_REPLICATION_H

#include "conf/base/error.h"
#include "conf/base/side.h"
#include "conf/settings/settings.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct replication;

enum { REPLICATION_LSN_SIZE = 24, REPLICATION_NAME_SIZE = 64 };

struct replication_result {
    bool ok;
    bool uncertain; /* the reply was lost: it may have happened. Take ownership and read the facts. */
    struct error error;
};
typedef void (*replication_done)(void *context, const struct replication_result *result);

/* --- life --- */

struct replication_callbacks {
    void *context;
    /* The sampler's figures changed in a way that matters (a side lost or found, fence open, slot lost ...).
     */
    void (*changed)(void *context);
    /* Another controller holds a higher owner number: this one must stop deciding. */
    void (*deposed)(void *context);
    /* Facts have told whose clusters these are (replication_identity): to be remembered. */
    void (*identified)(void *context);
    /* identity.owner is about to be raised on the sides: once that is remembered (or can't be),
     * replication_chosen goes on. NULL: it goes on by itself. */
    void (*choosing)(void *context);
};

/* Keeps its own connections and reconnects by itself with backoff. The settings must outlive it or be
 * replaced. */
MUST_USE struct replication *replication_new(uv_loop_t *loop, const struct settings *settings,
                                             const struct replication_callbacks *callbacks,
                                             struct error *error);
void replication_reload(struct replication *replication, const struct settings *settings);
/* Ends all connections and operations (their callbacks get ERROR_ABORTED), then calls done and frees itself.
 */
void replication_stop(struct replication *replication, void (*done)(void *context), void *context);

/* --- whose clusters these are --- */

struct replication_identity {
    char pair[REPLICATION_NAME_SIZE]; /* made up by the first prepare; "": not known yet */
    char system_identifiers[SIDE_COUNT][REPLICATION_NAME_SIZE]; /* of the clusters that were prepared; "" */
    uint64_t owner;   /* the highest number that we ever took: on a side that is away now it may stand */
    bool owned_since; /* a start met a higher one: others have run the pair, or this is an older copy */
};

/* What an earlier run has learned; before anything is asked. What isn't of this pair is never touched. */
void replication_set_identity(struct replication *replication, const struct replication_identity *identity);
const struct replication_identity *replication_identity(const struct replication *replication);
/* From here on the journal is the last word again; to be remembered. */
void replication_set_trusted(struct replication *replication);
void replication_chosen(struct replication *replication); /* for each `choosing`, in their order */

/* --- facts --- */

enum standing { STANDING_NONE, STANDING_ACTIVE, STANDING_STANDBY, STANDING_DIVERGED };

/* The row of switchback.state in one managed database, and what its fence triggers say. */
struct database_facts {
    char name[REPLICATION_NAME_SIZE];
    bool installed; /* the schema switchback stands there */
    enum standing standing;
    uint64_t epoch;
    uint64_t fenced_for; /* a flip; 0: none */
    uint64_t aborted;    /* the last aborted flip */
    uint64_t opened_for; /* the flip that opened it, while it is active; 0: none */
    uint64_t last_flip;  /* the highest flip that this database has heard of: a new one is above it */
    uint64_t owner;
    char start_lsn[REPLICATION_LSN_SIZE];
    char pair[REPLICATION_NAME_SIZE];
    size_t tables, fences_enabled; /* fenced means both are equal; half means trouble */
};

struct side_facts {
    bool reachable;
    int version_num; /* 150018 */
    char version[REPLICATION_NAME_SIZE];
    char system_identifier[REPLICATION_NAME_SIZE];
    uint64_t timeline;
    /* System identifier or timeline is not the one recorded: restored or failed over. */
    bool identity_changed;
    struct error foreign; /* it answers, but is another pair's, the other side, or a cluster never prepared */
    struct error error;   /* why it can't be reached */
    struct database_facts *databases; /* one for each managed database, in the settings' order */
    size_t database_count;
};

struct pair_facts {
    struct side_facts sides[SIDE_COUNT];
    bool owned_since; /* see replication_identity */
};

/* Facts are valid during the callback only. Not ok only if no side could be reached. */
typedef void (*replication_facts_done)(void *context, const struct replication_result *result,
                                       const struct pair_facts *facts);

/* Ends our manager's other backends of this pair, waits until they are gone, raises `owner` on reachable
 * sides. */
void replication_own(struct replication *replication, replication_done done, void *context);
bool replication_is_owning(const struct replication *replication); /* it is under way */
void replication_read_facts(struct replication *replication, replication_facts_done done, void *context);

/* --- the standing sample: refreshed every 250 ms, read without waiting --- */

struct replication_side_sample {
    bool reachable;
    bool other_schema;        /* it was prepared by another version of this program */
    bool fenced, fence_wrong; /* fence_wrong: triggers contradict the standing */
    bool names_wrong; /* synchronous_standby_names name slots of ours and not all of them, or on a standby */
    char version[REPLICATION_NAME_SIZE];
    int64_t unreachable_us; /* for how long; 0 */
    /* So is a connection that was opened since; not only those from before are silent. Of the active side. */
    bool gone;
    char problem[256]; /* "" or what is wrong */
};

/* Where the clusters say that traffic goes. A deposed controller asks them and does nothing else. */
struct replication_followed {
    bool known; /* at least one side has answered */
    bool open;  /* `side` is active at `epoch` in every database, and not fenced */
    enum side side;
    uint64_t epoch;
};

struct replication_sample {
    int64_t taken_us; /* monotonic; 0: never yet */
    struct replication_side_sample sides[SIDE_COUNT];
    /* of the stream active → standby; `active` as last told by replication_set_active */
    bool streaming;    /* in every database */
    bool broken;       /* a worker fails again and again, or its subscription is disabled */
    int64_t lag_us;    /* age of the oldest marker not yet seen, 0 while under one interval; -1: unknown */
    int64_t lag_bytes; /* publisher's current LSN minus what the subscriber confirmed as replayed; -1 */
    int64_t marker_age_us; /* since the newest marker was seen; -1: never */
    /* What a loss of the active side would take now: an upper bound of the transactions committed there and
     * not seen on the other (transaction ids given out since the last marker seen). */
    uint64_t commits_at_risk;
    bool risk_known;                 /* false: either side wasn't asked yet since we began to look */
    bool synchronous;                /* commits on the active side wait for every stream, under our names */
    uint64_t sync_waiting;           /* backends there that wait just now */
    bool slot_lost, slot_endangered; /* wal_status lost / unreserved or safe_wal_size below a margin */
    bool tables_differ;              /* table sets of publication, subscription and fences differ */
    char problem[256]; /* the first reason why the stream does not serve as a way back; "" if it does */
};

void replication_sample(const struct replication *replication, struct replication_sample *sample);
void replication_followed(const struct replication *replication, struct replication_followed *followed);

/* From now on `active` is written with heartbeats and the other side must be fenced. Starts the standing
 * checks. */
void replication_set_active(struct replication *replication, enum side active, uint64_t epoch);

/*
 * --- the database side of a flip, in the order of its phases ---
 *
 * One flip at a time, one phase at a time; `struct replication` keeps the open transactions between the
 * calls. All else that a phase needs it reads from the clusters, so that a flip can be ended after a restart.
 */

struct replication_flip {
    uint64_t flip;
    enum side source; /* the target is the other one */
    uint64_t epoch;   /* before: the target opens at epoch + 1 */
    bool rescue;      /* the fence doesn't wait for foreign writers: it ends them before it has its locks */
};

/* A marker written on `from` has been seen on the other side in every database before the deadline. */
void replication_probe(struct replication *replication, enum side from, int64_t deadline_us,
                       replication_done done, void *context);
/* A marker crosses within milliseconds: nothing but its own work stands before the closing one. Nothing
 * depends on it. */
void replication_keep_up(struct replication *replication, enum side active, int64_t deadline_us,
                         replication_done done, void *context);
/* The slots of the way back are moved along on the standby, up to now: a stream that begins soon has little
 * to read. Nothing depends on it. */
void replication_advance_idle_slots(struct replication *replication, enum side active, int64_t deadline_us,
                                    replication_done done, void *context);
/*
 * The source refuses application writes, proved: locks, table sets compared under them, foreign sessions
 * ended, no transaction left, sequences read; the closing marker is written. `sessions`: backend pids of the
 * proxy's own links on the source, which stay; copied. If it fails, the source may be fenced all the same:
 * undo.
 */
void replication_fence(struct replication *replication, const struct replication_flip *flip,
                       const int32_t *sessions, size_t session_count, int64_t deadline_us,
                       replication_done done, void *context);
/* The closing marker is on the target. */
void replication_catchup(struct replication *replication, const struct replication_flip *flip,
                         int64_t deadline_us, replication_done done, void *context);
/* The target's opening transactions are done but for their COMMIT, and stay open. If one fails, all are
 * rolled back; ERROR_NOT_IN_SYNC: back to catchup, the target crashed and lost what it had applied. */
void replication_ready(struct replication *replication, const struct replication_flip *flip,
                       int64_t deadline_us, replication_done done, void *context);
/* COMMIT each. Uncertain if a reply is lost, or some are open and others not: then replication_own and
 * replication_read_facts tell, and ready and open may be called again. */
void replication_open(struct replication *replication, const struct replication_flip *flip,
                      int64_t deadline_us, replication_done done, void *context);
/*
 * The old source follows the new active side from where that was opened, and its stream runs. Idempotent.
 * With `promise`, before clients are released: the target's names are set, a commit is seen waiting in every
 * database, the streams are enabled, the commits return confirmed by all. If that fails, names are emptied
 * again. Without it both sides' names are emptied first.
 */
void replication_turn(struct replication *replication, const struct replication_flip *flip, bool promise,
                      int64_t deadline_us, replication_done done, void *context);

/* Undo before commit: ends the phase that runs (it answers ERROR_ABORTED), rolls the target's transactions
 * back, then unfences the source with `aborted = flip`. The sample then takes the source for the active side,
 * as after replication_set_active; so with the next. */
void replication_undo(struct replication *replication, const struct replication_flip *flip,
                      int64_t deadline_us, replication_done done, void *context);
/* After commit, before released: the source opens again at epoch + 2; fails if it can't be reached. */
void replication_reopen_source(struct replication *replication, const struct replication_flip *flip,
                               int64_t deadline_us, replication_done done, void *context);
/* Fences a side that the pair has left behind at `epoch` (it came back after it lost a flip). Diverged if it
 * holds changes of its own; else it is the standby again and its stream goes on. ERROR_UNDECIDED if it is no
 * lower than the pair. */
void replication_fence_on_contact(struct replication *replication, enum side side, uint64_t epoch,
                                  replication_done done, void *context);

/*
 * --- the promise: what is acknowledged on the active side has been confirmed by the other ---
 *
 * synchronous_standby_names of the active side names every database's stream, FIRST n (...); on the other it
 * is empty. Both by ALTER SYSTEM, and only what names slots of ours is ever touched: with `promise`, another
 * use on the active side is an error that says which. Without it, both are emptied.
 */

/*
 * Sets both sides' names from (active, promise) and sees them in force. Idempotent. The other side is emptied
 * if it answers within a second; that it doesn't is no failure. With `promise`, ERROR_STALE unless `active`
 * is active at `epoch`, unfenced.
 */
void replication_names(struct replication *replication, enum side active, uint64_t epoch, bool promise,
                       int64_t deadline_us, replication_done done, void *context);
/* The names of a standby that is about to be opened, at `epoch` now: its sessions have read them when clients
 * come. What applies its stream must not wait for them: nothing is set where a subscription is synchronous.
 */
void replication_names_ahead(struct replication *replication, enum side standby, uint64_t epoch,
                             int64_t deadline_us, replication_done done, void *context);
/* In the watch, when the stream is healthy again: names set, a commit seen waiting and confirmed in every
 * database, every stream synchronous. What fails leaves names as they are: replication_names empties them. */
void replication_promise(struct replication *replication, enum side active, int64_t deadline_us,
                         replication_done done, void *context);

/*
 * --- the active side is dead: the source of these flips, of which nothing is asked ---
 */

/* The target's apply workers have applied what they received; its subscriptions are disabled, the workers
 * ended. */
void replication_cut_off(struct replication *replication, const struct replication_flip *flip,
                         int64_t deadline_us, replication_done done, void *context);
/* The undo before commit: ends the phase that runs, rolls the target's opening transactions back, writes
 * `aborted = flip` there and lets it follow the source again. */
void replication_reattach(struct replication *replication, const struct replication_flip *flip,
                          int64_t deadline_us, replication_done done, void *context);
/* replication_ready without a closing marker: sequences are set beyond what the source can have given out.
 * replication_open follows. */
void replication_ready_alone(struct replication *replication, const struct replication_flip *flip,
                             int64_t deadline_us, replication_done done, void *context);
/* An operator decided: `side` is the active one at `epoch`, unfenced, and hears no more of the other; what
 * its state rows say of a flip is settled. Ends the phase that runs. Idempotent. */
void replication_adopt(struct replication *replication, enum side side, uint64_t epoch, int64_t deadline_us,
                       replication_done done, void *context);

/* --- prepare, finalize, check --- */

struct replication_progress {
    char step[REPLICATION_NAME_SIZE]; /* "schema", "initial copy" ... */
    char message[256];
    double fraction; /* of the step, 0 .. 1; negative: unknown */
    int64_t eta_us;  /* negative: unknown */
};
typedef void (*replication_progressed)(void *context, const struct replication_progress *progress);

/* Builds everything for active → other; runs again at any point and continues. */
void replication_prepare(struct replication *replication, enum side active, replication_progressed progress,
                         replication_done done, void *context);
/* Drops the reverse stream (of the standby), or with `everything` all that is ours on both sides but data. */
void replication_finalize(struct replication *replication, enum side active, bool everything,
                          replication_done done, void *context);

enum check_state { CHECK_PASS, CHECK_WARN, CHECK_FAIL };
struct check_item {
    const char *id; /* "sequences", stable */
    enum check_state state;
    char *message, *remedy;
    struct settings_list objects; /* what it is about, "public.orders" ... */
};
typedef void (*replication_checked)(void *context, const struct replication_result *result,
                                    const struct check_item *items, size_t count);
void replication_check(struct replication *replication, enum side active, replication_checked done,
                       void *context);

/*
 * --- a diverged side: it holds commits that the active one never got, and that no client was told of ---
 */

/* One change of a stranded transaction; texts, valid during the callback. */
struct replication_stranded {
    const char *database;
    const char *xid, *lsn; /* of its transaction, and its end; "" once rejoin has begun */
    const char *table;     /* quoted */
    const char *operation; /* insert, update, delete, truncate; copy: still to come from the active side */
    const char *key;       /* "id=42"; "": it has none */
};

struct replication_stranded_list {
    const struct replication_stranded *rows; /* the first of them */
    size_t count;
    uint64_t total, transactions; /* changes; 0 transactions once rejoin has begun */
    bool incomplete;              /* there are even more: nobody counted */
};

typedef void (*replication_stranded_done)(void *context, const struct replication_result *result,
                                          const struct replication_stranded_list *list);

/* Read from the slot of `side` that fed the other; nothing is changed. Databases that aren't diverged hold
 * none. */
void replication_stranded(struct replication *replication, enum side side, replication_stranded_done done,
                          void *context);

/*
 * Makes the diverged side the standby: the rows that stranded transactions touched become what `active` has,
 * its stream runs. Goes on where an earlier run ended; the side stays diverged until all is done.
 * ERROR_NOT_PREPARED, with a remedy, where rows can't tell it: a lost slot, a table without a key, a stranded
 * TRUNCATE, other tables.
 */
void replication_rejoin(struct replication *replication, enum side active, replication_progressed progressed,
                        replication_done done, void *context);

/* --- questions of others --- */

struct replication_role {
    bool found, can_login;
    bool md5;            /* what a role without a verifier would be asked for: password_encryption says md5 */
    uint32_t iterations; /* scram_iterations, 16 and later; 0: there is none */
    char verifier[256];  /* "" if none; expired counts as none */
    /* if they were asked for: the role and those it is a member of, at any remove, each ended by a NUL */
    const char *groups;
    size_t groups_length;
};
typedef void (*replication_role_done)(void *context, const struct replication_result *result,
                                      const struct replication_role *role);
/* By auth.query where there is one, else from pg_authid. */
void replication_read_role(struct replication *replication, enum side side, const char *role, bool groups,
                           replication_role_done done, void *context);

/* A gate's query, read only, as the manager: the first column of the first row; value NULL if SQL NULL or no
 * row. */
typedef void (*replication_value_done)(void *context, const struct replication_result *result,
                                       const char *value);
void replication_query(struct replication *replication, enum side side, const char *database, const char *sql,
                       int64_t timeout_us, replication_value_done done, void *context);

enum replication_type_kind {
    REPLICATION_TYPE_PLAIN, /* holds no other type */
    REPLICATION_TYPE_ARRAY,
    REPLICATION_TYPE_COMPOSITE,
    REPLICATION_TYPE_DOMAIN,
    REPLICATION_TYPE_RANGE,
    REPLICATION_TYPE_MULTIRANGE
};

/* A user-defined type, the rows of tables included, by its name on both sides; an array's is its element's.
 */
struct replication_type {
    char *name;
    uint32_t oids[SIDE_COUNT]; /* 0: that side lacks it */
    enum replication_type_kind kind;
    uint32_t related[SIDE_COUNT]; /* an array's element, a domain's base, a range's subtype, a multirange's
                                     range */
};
typedef void (*replication_types_done)(void *context, const struct replication_result *result,
                                       const char *database, const struct replication_type *types,
                                       size_t count);
void replication_read_types(struct replication *replication, const char *database,
                            replication_types_done done, void *context);

#endif
