/*
 * What of a dump doesn't reach the standby. Pure text work between pg_dump, pg_restore and the server, for
 * dump.c.
 */
#ifndef SWITCHBACK_REPLICATION_DUMP_FILTER_H
#define SWITCHBACK_REPLICATION_DUMP_FILTER_H

#include "conf/base/strbuf.h"

/* Drops from pg_restore's list what is ours: the schema itself was never dumped, what hangs on tables was. */
void dump_filter_list(const char *list, struct strbuf *kept);

/*
 * Drops psql's own \restrict KEY and \unrestrict KEY (they frame the text), and from the preamble a setting
 * that servers before 17 don't know. A function's body may hold such a line: the key is random, and the
 * preamble ends at the first object.
 */
void dump_filter_sql(const char *text, int standby_major, struct strbuf *sql);

#endif
