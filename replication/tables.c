#include "replication/tables.h"

#include "replication/sql.h"

#include <string.h>

/* "*" becomes "%"; what LIKE would take for its own is escaped. A name alone is one of any schema, as
 * switchback.is_local takes it. */
static void put_pattern(struct strbuf *text, const char *pattern)
{
    strbuf_puts(text, strchr(pattern, '.') == NULL ? "%." : "");
    for (const char *c = pattern; *c != '\0'; c++) {
        if (*c == '%' || *c == '_' || *c == '\\') {
            strbuf_puts(text, "\\");
        }
        strbuf_append(text, *c == '*' ? "%" : c, 1);
    }
}

void tables_put_setting(struct strbuf *sql, const struct settings_list *local_tables)
{
    strbuf_puts(sql, "select set_config('switchback.local', array[");
    for (size_t i = 0; i < local_tables->count; i++) {
        struct strbuf pattern;
        strbuf_init(&pattern, SQL_LIMIT);
        put_pattern(&pattern, local_tables->items[i]);
        strbuf_puts(sql, i == 0 ? "" : ",");
        sql_literal(sql, strbuf_text(&pattern));
        strbuf_deinit(&pattern);
    }
    strbuf_puts(sql, "]::text[]::text, false);");
}
