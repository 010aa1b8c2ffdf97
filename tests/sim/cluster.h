/* Two clusters: WAL, catalogs, slots, apply workers, backends (cluster.c); the streams between them
 * (stream.c). */
#ifndef SWITCHBACK_TESTS_SIM_CLUSTER_H
#define SWITCHBACK_TESTS_SIM_CLUSTER_H

#include "tests/sim/clock.h"

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
    unsigned daemon;      /* whose session it serves */
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
void link_end(struct sim *sim, int link);
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

#endif
