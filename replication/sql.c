#include "replication/sql.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <inttypes.h>
#include <string.h>

void sql_literal(struct strbuf *sql, const char *text)
{
    /* E'' makes backslashes mean the same whatever standard_conforming_strings says. */
    strbuf_puts(sql, strchr(text, '\\') != NULL ? "E'" : "'");
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\') {
            strbuf_append(sql, text, 1);
        }
        strbuf_append(sql, text, 1);
    }
    strbuf_puts(sql, "'");
}

void sql_identifier(struct strbuf *sql, const char *name)
{
    strbuf_puts(sql, "\"");
    for (; *name != '\0'; name++) {
        if (*name == '"') {
            strbuf_append(sql, name, 1);
        }
        strbuf_append(sql, name, 1);
    }
    strbuf_puts(sql, "\"");
}

void sql_text_array(struct strbuf *sql, const struct settings_list *list)
{
    strbuf_puts(sql, "array[");
    for (size_t i = 0; i < list->count; i++) {
        strbuf_puts(sql, i == 0 ? "" : ",");
        sql_literal(sql, list->items[i]);
    }
    strbuf_puts(sql, "]::text[]");
}

void sql_format(struct strbuf *sql, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (const char *c = format; *c != '\0'; c++) {
        if (*c != '%') {
            size_t plain = strcspn(c, "%");
            strbuf_append(sql, c, plain);
            c += plain - 1;
            continue;
        }
        c++;
        switch (*c) {
        case 'L':
            sql_literal(sql, va_arg(arguments, const char *));
            break;
        case 'I':
            sql_identifier(sql, va_arg(arguments, const char *));
            break;
        case 's':
            strbuf_puts(sql, va_arg(arguments, const char *));
            break;
        case 'u':
            strbuf_printf(sql, "%" PRIu64, va_arg(arguments, uint64_t));
            break;
        case 'd':
            strbuf_printf(sql, "%" PRId64, va_arg(arguments, int64_t));
            break;
        default:
            ENSURE(*c == '%');
            strbuf_puts(sql, "%");
            break;
        }
    }
    va_end(arguments);
}

void sql_limits(struct strbuf *sql, int64_t deadline_us)
{
    if (deadline_us == 0) {
        return;
    }
    int64_t left_ms = (deadline_us - clock_mono_us()) / 1000;
    if (left_ms < 1) {
        left_ms = 1; /* 0 would mean no limit */
    }
    /* The lock's limit a little below, so that a wait for a lock is reported as one. */
    int64_t lock_ms = left_ms > 20 ? left_ms - 10 : left_ms;
    strbuf_printf(sql, "set local lock_timeout = %" PRId64 "; set local statement_timeout = %" PRId64 "; ",
                  lock_ms, left_ms);
}
