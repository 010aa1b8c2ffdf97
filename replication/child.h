/*
 * Runs a program from a task's thread and waits for it: pg_dump and pg_restore. Secrets go through the
 * environment, never argv; what it says on standard error is kept for the message of a failure.
 */
#ifndef SWITCHBACK_REPLICATION_CHILD_H
#define SWITCHBACK_REPLICATION_CHILD_H

#include "conf/base/strbuf.h"
#include "replication/task.h"

struct child_plan {
    char *const *arguments;   /* NULL-terminated; the first is the program's path */
    char *const *environment; /* NULL-terminated "NAME=value": all that it gets */
    int input;                /* its standard input; -1: /dev/null */
    int output;               /* its standard output; -1: into `captured` */
    int extra;                /* its descriptor 3; -1: none */
    struct strbuf *captured;  /* standard output; a failed buffer fails the run */
};

/* True if it exited with 0. The task's stop kills it. */
MUST_USE bool child_run(struct task *task, const struct child_plan *plan, struct error *error);

#endif
