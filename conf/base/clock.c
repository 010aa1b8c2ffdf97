#include "conf/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec now;
    (void)clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

char *clock_format(int64_t wall_us, char text[CLOCK_TEXT_SIZE])
{
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm utc;
    char date[24];
    if (gmtime_r(&seconds, &utc) == NULL || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc) == 0) {
        (void)snprintf(text, CLOCK_TEXT_SIZE, "invalid");
        return text;
    }
    (void)snprintf(text, CLOCK_TEXT_SIZE, "%s.%03dZ", date, (int)(wall_us / 1000 % 1000));
    return text;
}

char *clock_format_duration(int64_t us, char text[CLOCK_TEXT_SIZE])
{
    const int64_t second = 1000000;
    if (us < 10000) {
        (void)snprintf(text, CLOCK_TEXT_SIZE, "%.1f ms", (double)us / 1000.0);
    } else if (us < second) {
        (void)snprintf(text, CLOCK_TEXT_SIZE, "%" PRId64 " ms", us / 1000);
    } else if (us < 60 * second) {
        (void)snprintf(text, CLOCK_TEXT_SIZE, "%.1f s", (double)us / (double)second);
    } else if (us < 3600 * second) {
        (void)snprintf(text, CLOCK_TEXT_SIZE, "%" PRId64 " min %" PRId64 " s", us / (60 * second),
                       us / second % 60);
    } else {
        (void)snprintf(text, CLOCK_TEXT_SIZE, "%" PRId64 " h %" PRId64 " min", us / (3600 * second),
                       us / (60 * second) % 60);
    }
    return text;
}
