/*
 * Writing SQL into a strbuf: quoting, and the limits that a transaction of ours runs under. Quoting relies on
 * what every manager session sets: client_encoding UTF8, standard_conforming_strings on.
 */
#ifndef SWITCHBACK_REPLICATION_SQL_H
#define SWITCHBACK_REPLICATION_SQL_H

#include "conf/base/strbuf.h"
#include "conf/settings/settings.h"

#include <stdint.h>

enum { SQL_LIMIT = 16 << 20 }; /* bytes of one request: lists of ten thousands of tables and sequences fit */

void sql_literal(struct strbuf *sql, const char *text);                    /* 'it''s' */
void sql_identifier(struct strbuf *sql, const char *name);                 /* "Orders" */
void sql_text_array(struct strbuf *sql, const struct settings_list *list); /* array['a','b']::text[] */

/*
 * Appends text with its marks replaced, in order: %L a literal, %I an identifier (const char *), %s text as
 * it is, %u a uint64_t, %d an int64_t, %% a percent sign.
 */
void sql_format(struct strbuf *sql, const char *format, ...);

/*
 * "set local lock_timeout = ...; set local statement_timeout = ...;" for what is left until the deadline
 * (monotonic; 0 is none), so that a transaction ends by itself if we can't end it.
 */
void sql_limits(struct strbuf *sql, int64_t deadline_us);

#endif
