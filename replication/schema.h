/*
 * The schema `switchback` of a managed database (schema.sql, schema_flip.sql, schema_promise.sql): state row,
 * markers, fence, and the functions that the flip calls. Installed by prepare on both sides, in one
 * transaction, any number of times; it never changes the state row that stands.
 */
#ifndef SWITCHBACK_REPLICATION_SCHEMA_H
#define SWITCHBACK_REPLICATION_SCHEMA_H

#include "conf/base/strbuf.h"
#include "replication/replication.h"

/* A digest of the text, so that no change of it is forgotten; stands in state.version. A difference means:
 * run prepare again. */
int64_t schema_version(void);

struct schema_identity {
    enum side side;
    enum standing standing;
    uint64_t epoch;
    uint64_t owner;
    const char *pair; /* the same text on both sides, made by prepare once */
};

/* BEGIN ... COMMIT: creates or updates the schema; a missing state row is inserted as `identity` says. */
void schema_install(struct strbuf *sql, const struct settings *settings,
                    const struct schema_identity *identity);

/*
 * One statement: fence triggers on exactly the managed tables, created or dropped where needed, all of them
 * enabled or disabled as the state row says. Returns one row: (created, dropped, altered).
 */
void schema_fences(struct strbuf *sql);

/*
 * Views and functions of schema.sql that others than the flip may use, all owned by the manager:
 *   switchback.managed_table(oid, name, leaf)      tables that are fenced; leaf ones are published. `name` is
 *                                                  schema-qualified and quoted. local_tables, extensions'
 * tables, unlogged and temporary ones are not in it. switchback.managed_sequence(oid, name)
 *   switchback.leaves() text[]                     names of all leaf tables, sorted
 *   switchback.table_fault() text                  first difference between managed tables, fence triggers,
 *                                                  publication and subscription of this side; NULL if none
 */

#endif
