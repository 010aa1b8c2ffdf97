#include "conf/base/log.h"

#include "conf/base/clock.h"
#include "conf/base/strbuf.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { LINE_LIMIT = 8192 };

static _Atomic int least_level = LOG_LEVEL_INFO;
static _Atomic int line_format = LOG_FORMAT_TEXT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_configure(enum log_level least, enum log_format format)
{
    atomic_store_explicit(&least_level, (int)least, memory_order_relaxed);
    atomic_store_explicit(&line_format, (int)format, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&least_level, memory_order_relaxed);
}

/* How many bytes the character of UTF-8 has that begins there; 0: none does. */
static size_t character_length(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t length = c[0] < 0x80   ? 1
                    : c[0] < 0xc2 ? 0
                    : c[0] < 0xe0 ? 2
                    : c[0] < 0xf0 ? 3
                    : c[0] < 0xf5 ? 4
                                  : 0;
    unsigned char least = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char most = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < length; i++) {
        if (c[i] < least || c[i] > most) {
            return 0;
        }
        least = 0x80;
        most = 0xbf;
    }
    return length;
}

/* Inside double quotes, for both formats (JSON's rules). Both are UTF-8, what clients call themselves need
 * not be: a line that nobody can parse would hide who they were. */
static void put_quoted(struct strbuf *line, const char *text)
{
    strbuf_puts(line, "\"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            strbuf_printf(line, "\\%c", *c);
        } else if ((unsigned char)*c < 0x20 || (unsigned char)*c == 0x7f) {
            strbuf_printf(line, "\\u%04x", (unsigned)(unsigned char)*c);
        } else {
            size_t length = character_length(c);
            strbuf_append(line, length > 0 ? c : "?", length > 0 ? length : 1);
            c += length > 0 ? length - 1 : 0;
        }
    }
    strbuf_puts(line, "\"");
}

static bool is_plain(const char *text)
{
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '=' || c == '\\') {
            return false;
        }
    }
    return true;
}

static void put_value(struct strbuf *line, const struct log_field *field, bool json)
{
    switch (field->kind) {
    case LOG_KIND_STR:
        if (field->value.str == NULL) {
            strbuf_puts(line, "null");
        } else if (!json && is_plain(field->value.str)) {
            strbuf_puts(line, field->value.str);
        } else {
            put_quoted(line, field->value.str);
        }
        break;
    case LOG_KIND_I64:
        strbuf_printf(line, "%" PRId64, field->value.i64);
        break;
    case LOG_KIND_U64:
        strbuf_printf(line, "%" PRIu64, field->value.u64);
        break;
    case LOG_KIND_MS:
        strbuf_printf(line, "%.3f", (double)field->value.i64 / 1000.0);
        break;
    case LOG_KIND_BOOL:
        strbuf_puts(line, field->value.i64 != 0 ? "true" : "false");
        break;
    case LOG_KIND_END:
        break;
    }
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    bool json = atomic_load_explicit(&line_format, memory_order_relaxed) == LOG_FORMAT_JSON;
    char time[CLOCK_TEXT_SIZE];
    struct strbuf line;
    strbuf_init(&line, LINE_LIMIT);
    strbuf_printf(&line, json ? "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"" : "%s %s %s",
                  clock_format(clock_wall_us(), time), level_names[level], event);
    for (const struct log_field *field = fields; field->kind != LOG_KIND_END; field++) {
        strbuf_printf(&line, json ? ",\"%s\":" : " %s=", field->key);
        put_value(&line, field, json);
    }
    strbuf_puts(&line, json ? "}\n" : "\n");
    if (!line.failed) {
        /* A log that can't be written has nowhere to say so. */
        ssize_t written = write(STDERR_FILENO, line.data, line.length);
        (void)written;
    }
    strbuf_deinit(&line);
}
