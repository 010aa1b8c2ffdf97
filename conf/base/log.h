/*
 * The structured log: one line an event, to standard error, as `time level event key=value ...` or as JSON.
 * Values are escaped, so no peer can forge a line. Secrets and query parameters are never passed to it.
 * Thread-safe: a line is written by one write().
 *
 *   LOG_INFO("session_closed", LOG_U64("session", id), LOG_STR("reason", reason));
 */
#ifndef SWITCHBACK_CONF_BASE_LOG_H
#define SWITCHBACK_CONF_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

enum log_kind { LOG_KIND_END, LOG_KIND_STR, LOG_KIND_I64, LOG_KIND_U64, LOG_KIND_MS, LOG_KIND_BOOL };

struct log_field {
    const char *key;
    enum log_kind kind;
    union {
        const char *str; /* NULL is written as null */
        int64_t i64;
        uint64_t u64;
    } value;
};

#define LOG_STR(name, text)   ((struct log_field){.key = (name), .kind = LOG_KIND_STR, .value.str = (text)})
#define LOG_I64(name, number) ((struct log_field){.key = (name), .kind = LOG_KIND_I64, .value.i64 = (number)})
#define LOG_U64(name, number) ((struct log_field){.key = (name), .kind = LOG_KIND_U64, .value.u64 = (number)})
#define LOG_BOOL(name, truth) ((struct log_field){.key = (name), .kind = LOG_KIND_BOOL, .value.i64 = (truth)})
/* microseconds in, milliseconds with three decimals out */
#define LOG_MS(name, us) ((struct log_field){.key = (name), .kind = LOG_KIND_MS, .value.i64 = (us)})

void log_configure(enum log_level least, enum log_format format);
bool log_enabled(enum log_level level);

/* Fields end with one of kind LOG_KIND_END; the macros add it. */
void log_write(enum log_level level, const char *event, const struct log_field *fields);

#define LOG_AT(level, event, ...)                                                                            \
    do {                                                                                                     \
        if (log_enabled(level)) {                                                                            \
            log_write(                                                                                       \
                (level), (event),                                                                            \
                (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.key = NULL, .kind = LOG_KIND_END}});  \
        }                                                                                                    \
    } while (0)

#define LOG_DEBUG(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define LOG_INFO(...)  LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOG_WARN(...)  LOG_AT(LOG_LEVEL_WARN, __VA_ARGS__)
#define LOG_ERROR(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)

#endif
