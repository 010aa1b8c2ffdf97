/* From stranded.c's list to a standby again: the rows' copying (rejoin_copy.c) inside the task (rejoin.c). */
#ifndef SWITCHBACK_REPLICATION_REJOIN_H
#define SWITCHBACK_REPLICATION_REJOIN_H

#include "replication/blocking.h"

/* One managed database of a diverged side. */
struct rejoin {
    struct task *task;
    struct brief *brief;
    enum side active;
    uint64_t owner;
    const char *step;                   /* for progress */
    struct blocking *cluster;           /* of the active side: holds the lock against prepare and finalize */
    struct blocking *sides[SIDE_COUNT]; /* of the database that is worked on */
    struct blocking *marks; /* the active side's once more: its heart beats beside a transaction */
    uint64_t epoch;         /* of the active side */
    char start_lsn[REPLICATION_LSN_SIZE], has[REPLICATION_LSN_SIZE];
    replication_done done;
    void *context;
};

/* All that is committed on the active side by now is on the other. */
MUST_USE bool rejoin_catch_up(struct rejoin *rejoin, int64_t within_us, struct error *error);

/* The rows that `rejoining` names become what the active side has, a batch at a time, until none is left. */
MUST_USE bool rejoin_copy(struct rejoin *rejoin, struct error *error);

void rejoin_say(struct rejoin *rejoin, double fraction, const char *format, ...) PRINTF_LIKE(3, 4);

#endif
