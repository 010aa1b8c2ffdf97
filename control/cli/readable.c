#include "control/cli/readable.h"

#include "conf/base/clock.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* --- a peer's text */

/* The code point at text and its length; 0 length for bytes that are no UTF-8. */
static uint32_t decode(const unsigned char *text, size_t *length)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t more = 0; more < ARRAY_LENGTH(forms); more++) {
        if ((text[0] & forms[more].mask) != forms[more].lead) {
            continue;
        }
        uint32_t point = text[0] & (unsigned char)~forms[more].mask;
        for (size_t i = 1; i <= more; i++) {
            if ((text[i] & 0xc0) != 0x80) {
                *length = 0;
                return 0;
            }
            point = point << 6 | (text[i] & 0x3fU);
        }
        *length = point < forms[more].least ? 0 : more + 1;
        return point;
    }
    *length = 0;
    return 0;
}

/* What a terminal acts on instead of showing it: C0, C1, and marks that turn the writing direction. */
static bool is_shown(uint32_t point)
{
    return !(point < 0x20 || (point >= 0x7f && point < 0xa0) || (point >= 0x200b && point <= 0x200f) ||
             (point >= 0x2028 && point <= 0x202e) || (point >= 0x2060 && point <= 0x206f) || point == 0xfeff);
}

static void put(struct strbuf *out, const char *text, const char *indent)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at != '\0') {
        size_t length = 0;
        uint32_t point = decode(at, &length);
        if (indent != NULL && *at == '\n') {
            strbuf_printf(out, "\n%s", indent);
        } else if (length == 0) {
            strbuf_printf(out, "\\x%02x", *at);
        } else if (is_shown(point)) {
            strbuf_append(out, at, length);
        } else {
            strbuf_printf(out, point < 0x100 ? "\\x%02" PRIx32 : "\\u{%" PRIx32 "}", point);
        }
        at += length == 0 ? 1 : length;
    }
}

void readable_put(struct strbuf *out, const char *text)
{
    put(out, text, NULL);
}

void readable_put_lines(struct strbuf *out, const char *text, const char *indent)
{
    put(out, text, indent);
}

/* --- figures */

/* "2 min 0 s" says no more than "2 min". */
static void drop_zero(char *text, const char *zero)
{
    size_t length = strlen(text), tail = strlen(zero);
    if (length > tail && strcmp(text + length - tail, zero) == 0) {
        text[length - tail] = '\0';
    }
}

void readable_put_duration(struct strbuf *out, double ms)
{
    const double shown_ms = 0.05; /* less is 0.0 ms */
    char text[CLOCK_TEXT_SIZE];
    if (ms < shown_ms) {
        strbuf_puts(out, "0 s");
        return;
    }
    (void)clock_format_duration((int64_t)(ms * 1000), text);
    drop_zero(text, " 0 s");
    drop_zero(text, " 0 min");
    strbuf_puts(out, text);
}

void readable_put_bytes(struct strbuf *out, double bytes)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    if (bytes < 1000) {
        strbuf_printf(out, bytes == 1 ? "%.0f byte" : "%.0f bytes", bytes);
        return;
    }
    size_t unit = 0;
    for (bytes /= 1000; bytes >= 1000 && unit + 1 < ARRAY_LENGTH(units); unit++) {
        bytes /= 1000;
    }
    strbuf_printf(out, bytes < 10 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

void readable_put_count(struct strbuf *out, int64_t count, const char *one, const char *many)
{
    strbuf_printf(out, "%" PRId64 " %s", count, count == 1 ? one : many);
}

/* --- times */

int64_t readable_parse_time(const char *text)
{
    struct tm utc = {.tm_mday = 1};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
    if (rest == NULL) {
        return -1;
    }
    int64_t us = 0;
    if (*rest == '.') {
        int64_t scale = 100000;
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, scale /= 10) {
            us += scale * (*rest - '0');
        }
    }
    return strcmp(rest, "Z") == 0 ? (int64_t)timegm(&utc) * 1000000 + us : -1;
}

void readable_put_time(struct strbuf *out, int64_t time_us, int64_t now_us)
{
    time_t seconds = (time_t)(time_us / 1000000), now = (time_t)(now_us / 1000000);
    struct tm then, today;
    char text[32];
    if (time_us < 0 || localtime_r(&seconds, &then) == NULL || localtime_r(&now, &today) == NULL) {
        strbuf_puts(out, "unknown");
        return;
    }
    bool same_day = then.tm_year == today.tm_year && then.tm_yday == today.tm_yday;
    size_t length = strftime(text, sizeof text, same_day ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &then);
    strbuf_append(out, text, length);
}
