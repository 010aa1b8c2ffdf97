/*
 * Text for people: durations, sizes and times, and the one way in which a peer's text reaches a
 * terminal. What the daemon sends holds names that clients and clusters chose; control characters in them
 * (escape sequences, line breaks, changes of the writing direction) are shown, not passed on.
 */
#ifndef SWITCHBACK_CONTROL_CLI_READABLE_H
#define SWITCHBACK_CONTROL_CLI_READABLE_H

#include "conf/base/strbuf.h"

#include <stdint.h>

/* Appends a peer's text (UTF-8), what isn't printable as \xNN or \u{NNNN}. */
void readable_put(struct strbuf *out, const char *text);

/* The same with line breaks kept: each following line starts with the indent. */
void readable_put_lines(struct strbuf *out, const char *text, const char *indent);

/* "0 s", "1.5 ms", "140 ms", "3 min 20 s" */
void readable_put_duration(struct strbuf *out, double ms);
/* "0 bytes", "12 bytes", "1.5 kB", "3.2 GB" */
void readable_put_bytes(struct strbuf *out, double bytes);
/* "1 session", "2 sessions" */
void readable_put_count(struct strbuf *out, int64_t count, const char *one, const char *many);

/* A time of the daemon ("2026-11-20T22:58:01.123Z") as microseconds since the epoch; -1 if it is none. */
int64_t readable_parse_time(const char *text);
/* In local time: "02:14:07" on the day of now_us, else "2026-11-20 02:14:07". */
void readable_put_time(struct strbuf *out, int64_t time_us, int64_t now_us);

#endif
