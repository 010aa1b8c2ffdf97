/* The inside of the sampler: sampler.c asks, sampler_judge.c makes figures of the answers. */
#ifndef SWITCHBACK_REPLICATION_SAMPLER_INTERNAL_H
#define SWITCHBACK_REPLICATION_SAMPLER_INTERNAL_H

#include "replication/procedure.h"
#include "replication/sampler.h"

enum {
    SAMPLE_EVERY_MS = 250,
    SAMPLE_EVERY_US = SAMPLE_EVERY_MS * 1000,
    LOOK_AFTER_MS = 20,    /* a marker crosses in 1.5 ms, in 9 at worst */
    CHECK_EVERY_TICKS = 4, /* fences and table sets */
    SILENT_US = 1000000,   /* a side that was silent this long is not reachable */
    MARKERS_KEPT = 1024 /* written and not yet seen: four minutes; beyond that the clusters' clock counts */
};

struct written_marker {
    uint64_t n;
    int64_t at_us; /* monotonic */
};

/* One managed database, of the stream active -> standby. */
struct stream {
    /* on the active side */
    struct written_marker written[MARKERS_KEPT]; /* ring: n modulo its size */
    uint64_t newest_n;
    int64_t newest_us;     /* monotonic */
    double newest_clock_s; /* the active side's own clock */
    uint64_t newest_xid;   /* next to be given out, when the newest marker was written */
    uint64_t newest_running;
    double xids_per_second;
    int64_t first_us;                           /* monotonic */
    uint64_t first_n, first_xid, first_running; /* the first one that we wrote since it is the active side */
    bool slot_found, streaming;
    int64_t behind_bytes;
    bool slot_lost, slot_endangered;
    bool synchronous;      /* commits wait for it, under our names */
    uint64_t sync_waiting; /* backends of the whole cluster that wait just now */
    /* on the standby */
    bool seen; /* a marker of the active side is there */
    uint64_t seen_n;
    int64_t seen_us; /* monotonic: when seen_n was first seen */
    double seen_clock_s;
    uint64_t seen_xid, seen_running;
    int64_t crossed_us; /* monotonic: when a flip proved that what is committed here arrives there; 0 */
    bool enabled;
    int64_t worker;
    int64_t worker_lost_us;       /* since when there is none; 0 */
    int64_t worker_changes_us[3]; /* the last times when it was another one */
    int64_t errors;
    int64_t errors_grew_us;
    bool idle_slot_lost, idle_slot_endangered;
    char gap[192]; /* what its heartbeats' numbers tell of missing rows; "" */
};

/* Attempts to reach a silent side by a connection of its own, see sampler_anew.c. */
struct anew {
    bool trying;
    int64_t begun_us;    /* the last attempt */
    int64_t failed_us;   /* when the last one that ended began, if it failed; 0 */
    int64_t answered_us; /* when one was last answered */
};

/* What the turn of a flip has proved; the streams are counted from it until they are looked at. */
struct proved_turn {
    enum side active;
    uint64_t epoch; /* 0: none that isn't counted yet */
    int64_t at_us;  /* monotonic */
    bool crossed;   /* with the promise: a commit waited for the other side, and was seen there */
};

/* One side, all its databases together. */
struct side_watch {
    bool asking;         /* a round of requests is under way */
    int64_t asked_us;    /* when the last one began */
    bool heard_of;       /* a round has ended, one way or the other */
    bool answered;       /* the last round was answered */
    int64_t answered_us; /* the last time it was */
    int64_t lost_us;     /* when the first round began that it hasn't answered since; 0 */
    struct anew anew;
    bool stale;            /* our ownership isn't known there */
    struct error error;    /* of this round */
    struct error standing; /* of the last whole round: what is wrong though it answers */
    bool checked;
    bool names_wrong;  /* slots of ours are waited for where they shouldn't be, or other ones than should */
    bool other_schema; /* our schema there is another version's */
    size_t tables, fences_up;
    char fault[256];    /* the first table fault */
    char (*leaves)[33]; /* by database: a digest of its table names */
    bool *installed;    /* by database: our schema was seen there */
    bool *ours;         /* by database: and its state row is this pair's and this side's */
};

struct sampler {
    struct replication *replication;
    uv_timer_t tick, look;
    int open_handles;
    uint64_t ticks;
    int64_t rest_until_us;
    bool active_known;
    bool by_flip; /* it became active by a flip: the other side has all that was before */
    enum side active;
    uint64_t epoch;
    int64_t schema_version;
    struct proved_turn turn;
    bool owning;        /* a side that came back is being owned */
    unsigned advancing; /* procedures that move the idle slot along */
    struct side_watch sides[SIDE_COUNT];
    struct stream *streams; /* by database */
    char versions[SIDE_COUNT][REPLICATION_NAME_SIZE];
    struct replication_followed followed; /* once deposed */
    uint64_t followed_epoch;              /* of the side that was last seen open */
    uint64_t followed_beats[SIDE_COUNT];
    struct replication_sample sample;
};

/* A round of `side` has ended: the figures are made anew, `changed` is called if they differ in what matters.
 */
void sampler_judge(struct sampler *sampler);
void sampler_forget_streams(struct sampler *sampler);
/* The turn that made the active side's streams run has proved something: the figures say so. */
void sampler_count_turn(struct sampler *sampler);
/* sampler_anew.c: each tick, of the active side */
void sampler_try_anew(struct sampler *sampler, enum side side);
/* sampler_idle.c */
void sampler_advance_idle_slot(struct sampler *sampler);

/* A round of a deposed controller (sampler_follow.c). */
void sampler_follow(struct sampler *sampler);

#endif
