/*
 * One connection of the manager, used from a task's thread (task.h): each call waits for its answer, and ends
 * early with ERROR_ABORTED when the task must stop. Results are libpq's; the caller clears them.
 */
#ifndef SWITCHBACK_REPLICATION_BLOCKING_H
#define SWITCHBACK_REPLICATION_BLOCKING_H

#include "conf/base/strbuf.h"
#include "replication/brief.h"
#include "replication/task.h"

#include <libpq-fe.h>

enum { SQLSTATE_SIZE = 6 };

/* Passwords come from the settings only. libpq would complain of a file that isn't plain, but not of none. */
#define NO_PASSFILE "/dev/null/none"

struct blocking {
    struct task *task;
    PGconn *connection;
    enum side side;
    char database[REPLICATION_NAME_SIZE];
    int version;                  /* 150018 */
    char sqlstate[SQLSTATE_SIZE]; /* of the last error; "" if it had none */
    int64_t position;             /* of the last error in the statement's text, in characters from 1; or 0 */
};

/* Logged in, search_path empty, no timeouts. NULL with ERROR_UNREACHABLE, or ERROR_SQL if the server refused.
 */
MUST_USE struct blocking *blocking_open(struct task *task, const struct brief *brief, enum side side,
                                        const char *database, struct error *error);
/* To the database postgres, or to a managed one if that is missing: for what concerns the whole cluster. */
MUST_USE struct blocking *blocking_open_cluster(struct task *task, const struct brief *brief, enum side side,
                                                struct error *error);
void blocking_close(struct blocking *blocking); /* NULL is fine */

/* prepare and finalize don't run beside each other, or twice; the lock ends with the connection. ERROR_HELD.
 */
MUST_USE bool blocking_lock_out(struct blocking *blocking, struct error *error);

/* One statement with `count` text parameters. NULL with *error filled. */
MUST_USE PGresult *blocking_query(struct blocking *blocking, struct error *error, const char *sql,
                                  size_t count, const char *const *parameters);
/* Any number of statements in one message (so: one transaction, unless they say otherwise); results are
 * dropped. */
MUST_USE bool blocking_run(struct blocking *blocking, struct error *error, const char *sql);
/* The same from a buffer that may have failed to grow. */
MUST_USE bool blocking_run_buffer(struct blocking *blocking, struct error *error, const struct strbuf *sql);
/* The first column of the first row, "" if NULL or no row; owned by the caller. NULL with *error filled. */
MUST_USE char *blocking_value(struct blocking *blocking, struct error *error, const char *sql, size_t count,
                              const char *const *parameters);

/* A field as text; NULL is "". */
const char *row_text(const PGresult *result, int row, int column);
int64_t row_number(const PGresult *result, int row, int column); /* 0 if NULL or no number */
bool row_truth(const PGresult *result, int row, int column);

#endif
