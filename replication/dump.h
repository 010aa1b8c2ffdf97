/*
 * The schema of a database as SQL, by pg_dump and pg_restore of a version that can read it. Ours (schema
 * switchback, fence triggers, event triggers), publications and subscriptions are left out.
 */
#ifndef SWITCHBACK_REPLICATION_DUMP_H
#define SWITCHBACK_REPLICATION_DUMP_H

#include "conf/base/strbuf.h"
#include "replication/brief.h"
#include "replication/task.h"

enum { DUMP_LIMIT = 512 << 20 }; /* bytes of SQL */

struct dump_tools {
    char directory[512]; /* where pg_dump and pg_restore stand */
    int major;
};

/* The lowest version that is at least `major`. Fails with what was found, and what to install. */
MUST_USE bool dump_find_tools(struct task *task, const struct brief *brief, int major,
                              struct dump_tools *tools, struct error *error);

/* Writes the schema of `database` on `side` for a server of `standby_major` into *sql. */
MUST_USE bool dump_schema(struct task *task, const struct brief *brief, const struct dump_tools *tools,
                          enum side side, const char *database, int standby_major, struct strbuf *sql,
                          struct error *error);

#endif
