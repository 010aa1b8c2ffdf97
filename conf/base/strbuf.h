/*
 * A growing string with a limit. Appending past the limit or out of memory marks the buffer failed and
 * changes nothing; the caller checks once, at the end. Always NUL-terminated; may hold NULs.
 */
#ifndef SWITCHBACK_CONF_BASE_STRBUF_H
#define SWITCHBACK_CONF_BASE_STRBUF_H

#include "conf/base/compiler.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct strbuf {
    char *data; /* NULL while nothing was appended: read it with strbuf_text() */
    size_t length;
    size_t capacity;
    size_t limit; /* bytes, without the NUL */
    bool failed;
};

void strbuf_init(struct strbuf *buffer, size_t limit);
void strbuf_deinit(struct strbuf *buffer);
void strbuf_clear(struct strbuf *buffer);

void strbuf_append(struct strbuf *buffer, const void *bytes, size_t length);
void strbuf_puts(struct strbuf *buffer, const char *text);
void strbuf_printf(struct strbuf *buffer, const char *format, ...) PRINTF_LIKE(2, 3);

/* The text so far, "" if none; valid until the next append. */
const char *strbuf_text(const struct strbuf *buffer);

/* Hands the text to the caller, who frees it, and empties the buffer. NULL if the buffer failed. */
MUST_USE char *strbuf_take(struct strbuf *buffer);

#endif
