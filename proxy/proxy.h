/*
 * The data plane, as the controller sees it: start, stop, reload, hold, arm, swap, release and snapshots.
 * Its one public header. Clients connect to it; each session lives on one worker thread with its client
 * socket and its server link (see design.md section 4, "Data path"). Nothing here knows about replication or
 * flips: the controller says what to do, and every answer arrives as an event on the main loop.
 *
 * Threads: all functions are called on the thread of the main loop. Commands are posted to the workers'
 * mailboxes and return at once.
 */
#ifndef SWITCHBACK_PROXY_PROXY_H
#define SWITCHBACK_PROXY_PROXY_H

#include "conf/base/error.h"
#include "conf/base/side.h"
#include "conf/settings/settings.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct proxy;

enum {
    PROXY_NAME_SIZE = 64,
    PROXY_PEER_SIZE = 64,
    PROXY_REASON_SIZE = 256,
    PROXY_HOLDS_SIZE = 1032,
    PROXY_VERIFIER_SIZE = 256
};

/* --- roles -------------------------------------------------------------------------------------------------
 */

struct proxy_verifier {
    bool found; /* false: no such role, no password, or expired: the client gets a mock exchange */
    bool can_login;
    bool md5;            /* what a role that isn't found is asked for, where md5 is allowed */
    uint32_t iterations; /* of SCRAM, that it is told; 0: PostgreSQL's default */
    bool unavailable;    /* the active side could not be asked: 57P03 */
    bool refused;        /* with unavailable: it answered, but by an error */
    /* rolpassword: "SCRAM-SHA-256$4096:salt$stored:server" or "md5..."; wiped after use */
    char text[PROXY_VERIFIER_SIZE];
    /* if they were asked for: the role and those it is a member of, each ended by a NUL; borrowed */
    const char *groups;
    size_t groups_length;
};

/* --- what the controller reads
 * ------------------------------------------------------------------------------ */

enum session_state {
    SESSION_LOGIN,       /* startup or authentication */
    SESSION_CONNECTING,  /* its server link is being opened */
    SESSION_IDLE,        /* at the boundary */
    SESSION_ACTIVE,      /* a reply is outstanding */
    SESSION_TRANSACTION, /* idle in transaction (ReadyForQuery T or E) */
    SESSION_HELD,        /* at the boundary under a hold, with or without waiting bytes */
    SESSION_CLOSING,
    SESSION_STATE_COUNT
};

struct proxy_session_info {
    uint64_t id;
    char user[PROXY_NAME_SIZE], database[PROXY_NAME_SIZE], client[PROXY_PEER_SIZE];
    char application[PROXY_NAME_SIZE];
    enum side side;
    uint64_t epoch;
    enum session_state state;
    int32_t backend_pid;          /* of the server link; 0: none */
    int32_t armed_backend_pid;    /* of the target link; 0: none */
    const char *tls, *server_tls; /* version spoken with the client, with its server; NULL: none */
    bool waiting;                 /* the client sent something that a hold keeps */
    bool movable;
    char reasons[PROXY_REASON_SIZE]; /* why it can't move, separated by "; " */
    int64_t age_us, state_age_us;
    int64_t asked_age_us; /* since it was asked what it holds, before a flip or for a list; -1: never */
    uint32_t settings, statements, channels;
    char holds[PROXY_HOLDS_SIZE]; /* a line each, cut: setting, statement, channel, role or user, its name */
};

/*
 * Bucket b of a latency histogram counts latencies below proxy_latency_bucket_us(b), and not below the one
 * before: eight buckets for each power of two (12% wide); the last one is open (INT64_MAX).
 */
enum { PROXY_LATENCY_BUCKETS = 160 };
int64_t proxy_latency_bucket_us(size_t bucket);

/* Classes of SQLSTATE (its first two characters) are counted by an index; 0 is every class we don't know. */
enum { PROXY_ERROR_CLASSES = 64 };
size_t proxy_error_class_index(const char *sqlstate);
const char *proxy_error_class(size_t index); /* "42"; "" for 0 and unused indexes */

/* Cumulative counters of one side; a consumer subtracts an earlier copy. */
struct proxy_side_stats {
    uint64_t statements; /* requests answered: Query, Execute up to Sync, FunctionCall */
    uint64_t errors;     /* statements that ended in an ErrorResponse of any class */
    uint64_t errors_by_class[PROXY_ERROR_CLASSES]; /* by proxy_error_class_index() */
    uint64_t client_errors; /* of them, those of classes 22, 23, 42 and 28: the application's own */
    uint64_t latency_sum_us;
    uint64_t latency[PROXY_LATENCY_BUCKETS];
    uint64_t bytes_to_server, bytes_to_client;
};

/* Why a client was turned away before it had a session. */
enum proxy_refusal {
    PROXY_REFUSED_CLIENTS,       /* listen.max_clients */
    PROXY_REFUSED_DATABASE,      /* limits of its database */
    PROXY_REFUSED_ROLE,          /* limits of its role */
    PROXY_REFUSED_UNMANAGED,     /* a database that isn't served */
    PROXY_REFUSED_PLAIN,         /* without TLS where there must be TLS */
    PROXY_REFUSED_FAILED_LOGINS, /* too many wrong passwords came from its address */
    PROXY_REFUSED_HEADER,        /* no PROXY header where there must be one */
    PROXY_REFUSED_SERVER,        /* the active side doesn't answer, and isn't asked again so soon */
    PROXY_REFUSED_RESOURCES,     /* sockets, memory, randomness; or the daemon is stopping */
    PROXY_REFUSAL_COUNT
};
const char *proxy_refusal_name(enum proxy_refusal refusal);

/* What lasted too long. */
enum proxy_timeout {
    PROXY_TIMEOUT_LOGIN,
    PROXY_TIMEOUT_SERVER_CONNECT,
    PROXY_TIMEOUT_CLIENT_IDLE,
    PROXY_TIMEOUT_IDLE_IN_TRANSACTION,
    PROXY_TIMEOUT_QUERY,
    PROXY_TIMEOUT_COUNT
};
const char *proxy_timeout_name(enum proxy_timeout timeout);

/* What became of a transaction whose COMMIT was under way when its session's server went. */
enum proxy_outcome {
    PROXY_OUTCOME_UNKNOWN,   /* its client is told 08007 */
    PROXY_OUTCOME_COMMITTED, /* and it is as safe as one that is acknowledged: its client is told so */
    PROXY_OUTCOME_ABORTED,   /* it was rolled back: 08006 */
    PROXY_OUTCOME_COUNT
};
const char *proxy_outcome_name(enum proxy_outcome outcome);

struct proxy_stats {
    struct proxy_side_stats sides[SIDE_COUNT];
    uint64_t sessions, sessions_held, sessions_in_transaction, sessions_immovable, sessions_waiting;
    uint64_t sessions_total, logins_failed, cancels; /* cumulative */
    uint64_t refused[PROXY_REFUSAL_COUNT], timeouts[PROXY_TIMEOUT_COUNT];
    uint64_t connect_failures[SIDE_COUNT];
    bool side_down[SIDE_COUNT]; /* logins to it are answered 57P03 at once, but for a try now and then */
    int64_t oldest_wait_us;     /* of a client that a hold keeps now; 0: none */
    uint64_t
        doubts[PROXY_OUTCOME_COUNT]; /* what was under way to be committed when a session's server went */
    /* Commits that the other side had not confirmed when they were acknowledged, by the server's own word:
     * their wait was cancelled (a WARNING; a session whose client_min_messages is above it has none). */
    uint64_t unconfirmed_commits;
    /* Sessions that have asked for commits which wait for nobody, and what was committed in them, reading
     * included: SET, set_config, startup parameters, also inside a string or a function's text. Not seen: the
     * defaults of a role or database, a function's own settings, names that are computed. */
    uint64_t sessions_unsync, unsync_commits;
};

/* --- events: answers and news
 * ------------------------------------------------------------------------------- */

enum proxy_event_kind {
    PROXY_EVENT_ARMED,      /* every session has a target link with its state, or can't move; or timed out */
    PROXY_EVENT_HELD,       /* every worker has closed the gate */
    PROXY_EVENT_PROGRESS,   /* sessions at the boundary changed, while held: counts.undrained left */
    PROXY_EVENT_DRAINED,    /* every session is at its boundary, and what moves is ready to be swapped */
    PROXY_EVENT_EXPIRE_SET, /* every worker knows what its deadline now means */
    PROXY_EVENT_SWAPPED,    /* every session that moves is on the new side, the rest is closed */
    PROXY_EVENT_RELEASED,   /* every worker has opened the gate; stall filled */
    PROXY_EVENT_EXPIRED,    /* a worker's own deadline released (or refused) its clients: the hold is over */
    PROXY_EVENT_DISARMED,
    PROXY_EVENT_SESSIONS, /* answer to proxy_sessions */
    PROXY_EVENT_ALIVE,    /* every worker's loop turns: the answer to proxy_ping */
    PROXY_EVENT_STOPPED,
    PROXY_EVENT_KIND_COUNT
};

struct proxy_counts {
    uint64_t sessions;
    uint64_t undrained;                /* not yet at the boundary, or (armed) not yet ready to be swapped */
    uint64_t armed, immovable, failed; /* failed: the target refused the link or the state */
    uint64_t moved, disconnected;
};

struct proxy_stall {
    uint64_t clients; /* that waited */
    int64_t p50_us, p99_us, max_us;
};

struct proxy_event {
    enum proxy_event_kind kind;
    uint64_t hold; /* the hold or flip that it answers */
    struct proxy_counts counts;
    struct proxy_stall stall;
    char reason[PROXY_REASON_SIZE]; /* ARMED, DRAINED: the first failure */
    /* SESSIONS: owned by the receiver, freed with free() */
    uint64_t request;
    struct proxy_session_info *sessions;
    size_t session_count;
};

/*
 * A session's server has gone while this transaction was being committed. Its client waits for what became of
 * it, for at most timeouts.in_doubt.
 */
struct proxy_doubt {
    uint64_t request; /* for proxy_doubt_answer() */
    enum side side;   /* whose server it was, at that epoch */
    uint64_t epoch;
    uint64_t transaction; /* for pg_xact_status() */
    /* When the server's statistics began (pg_stat_get_bgwriter_stat_reset_time(), in microseconds since
     * 2000), if the server is of version 15 or later: unchanged, it has not crashed since; else 0. */
    int64_t incarnation;
};

struct proxy_callbacks {
    void *context;
    void (*event)(void *context, const struct proxy_event *event);
    /* 32 bytes that stay the same over restarts, so that the salts told to unknown users do; NULL: fresh ones
     */
    const uint8_t *mock_secret;
    /* A client wants to log in: answer with proxy_verifier_answer(), now or later. groups: those, too. */
    void (*verifier)(void *context, uint64_t request, enum side side, const char *role, bool groups);
    /* Answer with proxy_doubt_answer(), now or later, or not at all. NULL: it is never known. */
    void (*doubt)(void *context, const struct proxy_doubt *doubt);
};

/* --- life
 * ---------------------------------------------------------------------------------------------------- */

/* Where traffic goes. Nothing is forwarded on a link of another epoch. */
struct proxy_route {
    enum side side;
    uint64_t epoch;
    bool open; /* false: logins and statements wait for at most max_hold, then 57P03 */
};

/* Sockets that already listen, from whoever started the daemon (systemd's socket activation). */
enum { PROXY_SOCKETS_MAX = 8 };

struct proxy_socket {
    int socket;
    bool is_unix;
};

struct proxy_sockets {
    struct proxy_socket items[PROXY_SOCKETS_MAX];
    size_t count;
};

/*
 * Resolves, binds and starts the workers. passed: they listen on these, if there are any, instead of what the
 * settings say; NULL: none; they stay the caller's. The settings must outlive the proxy or be replaced by
 * proxy_reload. NULL with *error: a port in use, no descriptor...
 */
MUST_USE struct proxy *proxy_start(uv_loop_t *loop, const struct settings *settings, struct proxy_route route,
                                   const struct proxy_callbacks *callbacks,
                                   const struct proxy_sockets *passed, struct error *error);

/* Stops accepting, ends each session with 57P01 at its boundary, all of them after grace; then
 * PROXY_EVENT_STOPPED. May be called again, with less grace. */
void proxy_stop(struct proxy *proxy, int64_t grace_us);
void proxy_free(struct proxy *proxy); /* after PROXY_EVENT_STOPPED */

/* Tries what of the settings a start or a reload could fail at: certificates and keys. */
MUST_USE bool proxy_check(const struct settings *settings, struct error *error);
void proxy_reload(struct proxy *proxy, const struct settings *settings);
/* Changes the route while no hold stands and no session is linked elsewhere (start of the daemon, after
 * recovery). */
void proxy_set_route(struct proxy *proxy, struct proxy_route route);
/* Should the active side die, a hold and another route follow by themselves: logins that can't reach it wait
 * for that, or for its return, for at most timeouts.server_connect; else they get 57P03 at once. */
void proxy_set_rescue(struct proxy *proxy, bool rescue);
/* The manager has reached it again: logins that the workers refused, as it was down, go there at once. */
void proxy_side_back(struct proxy *proxy, enum side side);
void proxy_doubt_answer(struct proxy *proxy, uint64_t request, enum proxy_outcome outcome);
void proxy_verifier_answer(struct proxy *proxy, uint64_t request, const struct proxy_verifier *verifier);

enum proxy_type_kind {
    PROXY_TYPE_PLAIN, /* holds no other type */
    PROXY_TYPE_ARRAY,
    PROXY_TYPE_COMPOSITE,
    PROXY_TYPE_DOMAIN,
    PROXY_TYPE_RANGE,
    PROXY_TYPE_MULTIRANGE
};

/* A user-defined type of a managed database, by name the same on both sides. */
struct proxy_type {
    uint32_t oids[SIDE_COUNT]; /* 0: that side lacks it */
    enum proxy_type_kind kind;
    uint32_t related[SIDE_COUNT]; /* an array's element, a domain's base, a range's subtype, a multirange's
                                     range */
};

/*
 * All user-defined types of one database: their oids are translated for the sessions that have moved. The
 * list replaces the one before; copied. If every oid is the same on both sides it costs nothing on the data
 * path.
 */
void proxy_set_types(struct proxy *proxy, const char *database, const struct proxy_type *types, size_t count);

/* --- a move
 * -------------------------------------------------------------------------------------------------- */

/* Opens, warms and fills the target link of each session, new ones too until disarmed. → ARMED */
void proxy_arm(struct proxy *proxy, uint64_t flip, struct proxy_route target, int64_t timeout_us);

enum proxy_expire { PROXY_EXPIRE_RELEASE, PROXY_EXPIRE_REFUSE };

/*
 * Closes the gate: new work waits at each session's boundary. The workers themselves end it at the deadline
 * (monotonic, us), by what expire says: RELEASE lets clients go on where they are, REFUSE answers 57P03. →
 * HELD, then PROGRESS..., and DRAINED once nothing is left. One hold at a time; the controller's ledger of
 * holds decides.
 */
void proxy_hold(struct proxy *proxy, uint64_t hold, int64_t deadline_us, enum proxy_expire expire);
void proxy_expire(struct proxy *proxy, uint64_t hold, int64_t deadline_us,
                  enum proxy_expire expire); /* → EXPIRE_SET */

void proxy_cancel_undrained(struct proxy *proxy, uint64_t hold);    /* cancels what runs: 57014 */
void proxy_terminate_undrained(struct proxy *proxy, uint64_t hold); /* ends what is left: 57P01 */

/* Under the hold: sessions move to their target links, immovable ones end with 57P01. → SWAPPED */
void proxy_swap(struct proxy *proxy, uint64_t flip, struct proxy_route route);
/* Opens the gate. → RELEASED, with what the clients felt */
void proxy_release(struct proxy *proxy, uint64_t hold);
/* Closes the target links that were not swapped. → DISARMED */
void proxy_disarm(struct proxy *proxy, uint64_t flip);

void proxy_ping(struct proxy *proxy, uint64_t ping); /* → ALIVE, with ping as its hold */

/* --- snapshots
 * ------------------------------------------------------------------------------------------------ */

void proxy_stats(const struct proxy *proxy,
                 struct proxy_stats *stats); /* sums the workers' counters, no waiting */
/* ask: each session is asked what it holds first, where it can be, which its client waits for. → SESSIONS */
void proxy_sessions(struct proxy *proxy, uint64_t request, bool ask);
const char *proxy_session_state_name(enum session_state state);

#endif
