/*
 * The preflight list as data: one table of checks, spread over files by theme. A check is SQL that finds
 * offenders, or SQL whose answers on both sides are compared; the walk over the table (check.c) merges what
 * rows of the same id find in all databases and on both sides into one item.
 *
 * Besides what PostgreSQL offers, the SQL may use these settings of its session: switchback.local (text[] of
 * LIKE patterns), .databases, .migrators, .local_tables (text[], as configured), .manager, .side ("active" or
 * "standby"), .prepared ("on" or "off"), .same_major ("on" if texts that the server prints of its catalogs
 * can be compared), .version (of schema.sql), and the names of this side's .publication, .subscription and
 * .slot.
 */
#ifndef SWITCHBACK_REPLICATION_CHECK_H
#define SWITCHBACK_REPLICATION_CHECK_H

#include "replication/names.h"
#include "replication/replication.h"
#include "replication/tables.h"

enum check_scope { CHECK_CLUSTER, CHECK_DATABASE }; /* asked once, or in each managed database */
enum { CHECK_ON_ACTIVE = 1, CHECK_ON_STANDBY = 2, CHECK_ON_BOTH = 3 };

struct check {
    const char *id;
    const char *passes; /* the message while nothing is found; texts stand in the first row of an id */
    const char *finds;  /* the message otherwise; the objects say the rest */
    const char *remedy;
    enum check_scope scope;
    bool compares;
    int on;
    bool prepared;                    /* only where prepare has been */
    int from_version, before_version; /* of the side asked (of both if compared); 0: any */

    /* Finds: rows of (state, object, detail). Compares: rows of (key, value), each key once, and up to two
     * states where the row knows better than the check: of a key that the other side lacks, and of a value
     * that differs (the active side's row says it). */
    const char *sql;
    const char *standby_sql;         /* compares: where the standby is asked differently */
    enum check_state missing, extra; /* compares: the standby lacks it, or has it alone */
    enum check_state differs;
    enum check_state (*judge)(const char *active, const char *standby); /* in place of `differs` */
    bool secret;                                                        /* values aren't shown */
};

struct check_group {
    const struct check *checks;
    size_t count;
};

extern const struct check_group check_resources; /* what a stream needs of a cluster */
extern const struct check_group
    check_lossless;                            /* what would break the promise, or keep it from being given */
extern const struct check_group check_objects; /* what a stream can't carry */
extern const struct check_group check_definition; /* tables, columns, types: do both sides agree */
extern const struct check_group check_parity;     /* settings, roles, extensions: would clients notice */
extern const struct check_group check_streams;    /* what prepare built */

#endif
