/* Time. Deadlines and durations use the monotonic clock; only what people read uses the wall clock. */
#ifndef SWITCHBACK_CONF_BASE_CLOCK_H
#define SWITCHBACK_CONF_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_mono_us(void); /* microseconds, CLOCK_MONOTONIC */
int64_t clock_wall_us(void); /* microseconds since the epoch, CLOCK_REALTIME */

enum { CLOCK_TEXT_SIZE = 32 };

/* "2026-11-20T22:58:01.123Z" (RFC 3339, UTC). Returns text. */
char *clock_format(int64_t wall_us, char text[CLOCK_TEXT_SIZE]);

/* "140 ms", "1.2 s", "3 min 20 s": a duration as an operator reads it. Returns text. */
char *clock_format_duration(int64_t duration_us, char text[CLOCK_TEXT_SIZE]);

#endif
