/*
 * Which tables are managed: ordinary, permanent tables (leaf partitions, not their roots) that belong to no
 * extension and match no pattern of local_tables. prepare publishes and fences them, check judges them; each
 * session that asks must have been given `switchback.local` by tables_put_setting.
 */
#ifndef SWITCHBACK_REPLICATION_TABLES_H
#define SWITCHBACK_REPLICATION_TABLES_H

#include "conf/base/strbuf.h"
#include "conf/settings/settings.h"

/* Appends a statement that sets switchback.local from patterns like "public.flyway_*". */
void tables_put_setting(struct strbuf *sql, const struct settings_list *local_tables);

/* SQL: of a pg_namespace n, whether applications' objects live there. */
#define USER_NAMESPACE "n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'switchback')"

/* SQL: the object is no member of an extension. */
#define NOT_OF_EXTENSION(catalog, oid)                                                                       \
    "not exists (select from pg_depend x where x.classid = 'pg_catalog." catalog "'::regclass"               \
    " and x.objid = " oid " and x.deptype = 'e')"

#define NOT_LOCAL                                                                                            \
    "not format('%s.%s', n.nspname, c.relname) like any (current_setting('switchback.local')::text[])"

/* SQL: a query with the columns oid, schema, name (as SQL writes it) and those of pg_class. */
#define MANAGED_TABLES                                                                                       \
    "select c.*, n.nspname as schema, format('%I.%I', n.nspname, c.relname) as name"                         \
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace"                                         \
    " where c.relkind = 'r' and c.relpersistence = 'p' and " USER_NAMESPACE                                  \
    " and " NOT_OF_EXTENSION("pg_class", "c.oid") " and " NOT_LOCAL

#define WITH_MANAGED "with managed as (" MANAGED_TABLES ") "

#endif
