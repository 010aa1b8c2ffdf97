/*
 * Two clusters and what writes to them, for replication_flips.c: tables, sequences and replication made by
 * plain SQL, writers on threads that stop at their boundary and move to the other side, and comparisons.
 */
#ifndef SWITCHBACK_TESTS_FLIPS_PAIR_H
#define SWITCHBACK_TESTS_FLIPS_PAIR_H

#include "replication/replication.h"

#include <libpq-fe.h>
#include <pthread.h>

enum { MAX_DATABASES = 4, MAX_WRITERS = 64, TAGS_KEPT = 1 << 22 };

struct writer {
    struct pair *pair;
    pthread_t thread;
    size_t database;
    PGconn *connection[SIDE_COUNT];
    unsigned seed;
};

struct pair {
    uv_loop_t *loop;
    struct settings settings;
    char *database_names[MAX_DATABASES];
    size_t database_count;
    PGconn *admin[SIDE_COUNT][MAX_DATABASES];

    struct writer writers[MAX_WRITERS];
    size_t writer_count;
    int32_t pids[MAX_WRITERS * SIDE_COUNT]; /* of the writers' sessions, on both sides */
    size_t pid_count;

    pthread_mutex_t lock;
    pthread_cond_t arrived;     /* a writer is at its boundary: the one that holds them looks */
    pthread_cond_t changed;     /* held or stopping is: the writers look */
    bool held, stopping, lossy; /* lossy: a side crashed, sessions may have to come back */
    size_t at_boundary;
    enum side active;
    uint64_t next_tag, acknowledged, errors;
    uint8_t *tags; /* by tag: 0 unknown, 1 acknowledged, 2 in doubt */
};

void pair_init(struct pair *pair, const char *const address[SIDE_COUNT], size_t databases, size_t writers);
void pair_deinit(struct pair *pair);

/* Databases, tables, schema switchback, publications, slots, subscriptions: blue active, green standby. */
void pair_create(struct pair *pair);

void pair_start(struct pair *pair, enum side active);
void pair_hold(struct pair *pair); /* returns when every writer is between two transactions */
void pair_release(struct pair *pair, enum side active, bool lossy);
void pair_stop(struct pair *pair);

/* Every table row by row, on both sides; the writers are held and everything has arrived. */
bool pair_compare(struct pair *pair, const char *when);
void pair_compare_sequences(struct pair *pair);
/* Each acknowledged tag is there once, and no other but those in doubt. */
bool pair_check_acknowledged(struct pair *pair, enum side active);
uint64_t pair_acknowledged(struct pair *pair);
uint64_t pair_errors(struct pair *pair);

#endif
