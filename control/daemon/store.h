/*
 * state.dir/switchback.db: one SQLite database (WAL, synchronous=FULL) that holds the journal and the audit
 * log, and the lock that keeps a second daemon off. All writes go through one thread, in the order in which
 * they were submitted; what is queued together is committed together, so that a burst costs one fsync. The
 * loop never waits for the disk, except in store_open().
 *
 * Used by journal.c and audit.c; serve.c opens and closes it.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_STORE_H
#define SWITCHBACK_CONTROL_DAEMON_STORE_H

#include "conf/base/error.h"

#include <stddef.h>
#include <uv.h>

struct sqlite3;
struct store;

/* A unit of work. Embedded in the submitter's own structure; it belongs to the store until done is called. */
struct store_job {
    /* On another thread, inside a transaction (a write), or with a read-only connection (a read). May run
     * twice: when the transaction that it shared with others failed, each is tried again alone. */
    bool (*run)(struct store_job *job, struct sqlite3 *database, struct error *error);
    /* On the loop's thread, once: durable if error is NULL. Frees the job. */
    void (*done)(struct store_job *job, const struct error *error);
    /* the store's own */
    struct store_job *next;
    struct store *store;
    struct error error;
    bool failed;
    bool alone; /* not inside a transaction with others */
    uv_work_t work;
};

/*
 * Creates the directory (0700) and the database (0600) if they are missing, takes the lock, checks the
 * database and its schema version. NULL with *error: locked by another daemon (its pid is named), damaged,
 * written by a newer version, not writable. Blocks.
 */
MUST_USE struct store *store_open(uv_loop_t *loop, const char *directory, struct error *error);

/* Writes what is queued, answers every job, gives the lock back, then calls done and frees the store. */
void store_close(struct store *store, void (*done)(void *context), void *context);

/* Zeroed, with the job first in it; freed with free(). Running out of memory ends the daemon: what the
 * journal can't say must not be acted on. */
void *store_job_new(size_t size);

void store_write(struct store *store, struct store_job *job);
void store_read(struct store *store, struct store_job *job); /* sees what was durable when it runs */

/* A connection of the caller's own that only reads, closed with sqlite3_close(). Blocks: for the daemon's
 * start. */
MUST_USE struct sqlite3 *store_open_reader(struct store *store, struct error *error);

/*
 * Makes room in the files for what a flip writes, so that neither a full disk nor a growing file stands
 * between a flip and its end: the log is moved into the database, and its file has its blocks already. From
 * here until store_idle() nothing but rows is written. done(NULL) once it is so.
 */
void store_reserve(struct store *store, void (*done)(void *context, const struct error *error),
                   void *context);
void store_idle(struct store *store); /* the flip is over: the log may be moved when it has grown */

#endif
