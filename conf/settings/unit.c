#include "conf/settings/unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    int64_t factor;
};

/* smallest first */
static const struct unit durations[] = {
    {"us", 1}, {"ms", 1000}, {"s", 1000000}, {"m", 60000000}, {"h", 3600000000},
};
static const struct unit sizes[] = {
    {"B", 1},
    {"kB", 1000},
    {"KiB", 1024},
    {"MB", 1000000},
    {"MiB", INT64_C(1) << 20},
    {"GB", 1000000000},
    {"GiB", INT64_C(1) << 30},
};

enum { DIGITS_LIMIT = 18 }; /* fit an int64_t */

/* A decimal number as whole and millionths, whatever the locale; *rest is what follows it. */
struct decimal {
    int64_t whole, millionths;
    const char *rest;
};

static enum unit_result read_decimal(const char *text, struct decimal *decimal)
{
    *decimal = (struct decimal){.whole = 0};
    size_t whole = strspn(text, "0123456789");
    if (whole == 0) {
        return UNIT_NO_NUMBER;
    }
    if (whole > DIGITS_LIMIT) {
        return UNIT_TOO_LARGE;
    }
    for (size_t i = 0; i < whole; i++) {
        decimal->whole = decimal->whole * 10 + (text[i] - '0');
    }
    decimal->rest = text + whole;
    if (*decimal->rest != '.') {
        return UNIT_OK;
    }
    const char *fraction = decimal->rest + 1;
    size_t digits = strspn(fraction, "0123456789");
    if (digits == 0) {
        return UNIT_NO_NUMBER;
    }
    int64_t scale = 100000;
    for (size_t i = 0; i < digits && scale > 0; i++, scale /= 10) {
        decimal->millionths += scale * (fraction[i] - '0');
    }
    decimal->rest = fraction + digits;
    return UNIT_OK;
}

static enum unit_result parse_with(const struct unit *units, size_t count, const char *text, int64_t *value)
{
    struct decimal decimal;
    enum unit_result result = read_decimal(text, &decimal);
    if (result != UNIT_OK) {
        return result;
    }
    if (*decimal.rest == '\0') {
        return UNIT_MISSING;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(units[i].name, decimal.rest) == 0) {
            int64_t scaled;
            if (__builtin_mul_overflow(decimal.whole, units[i].factor, &scaled) ||
                __builtin_add_overflow(scaled, decimal.millionths * units[i].factor / 1000000, value)) {
                return UNIT_TOO_LARGE;
            }
            return UNIT_OK;
        }
    }
    return UNIT_UNKNOWN;
}

enum unit_result unit_parse_duration(const char *text, int64_t *us)
{
    return parse_with(durations, ARRAY_LENGTH(durations), text, us);
}

enum unit_result unit_parse_size(const char *text, int64_t *bytes)
{
    return parse_with(sizes, ARRAY_LENGTH(sizes), text, bytes);
}

static enum unit_result parse_real(const char *text, const char *unit, double *value)
{
    struct decimal decimal;
    enum unit_result result = read_decimal(text, &decimal);
    if (result != UNIT_OK) {
        return result;
    }
    if (strcmp(decimal.rest, unit) != 0) {
        return *decimal.rest == '\0' ? UNIT_MISSING : UNIT_UNKNOWN;
    }
    *value = (double)decimal.whole + (double)decimal.millionths / 1e6;
    return UNIT_OK;
}

enum unit_result unit_parse_percent(const char *text, double *ratio)
{
    double percent = 0;
    enum unit_result result = parse_real(text, "%", &percent);
    *ratio = percent / 100;
    return result;
}

enum unit_result unit_parse_ratio(const char *text, double *ratio)
{
    return parse_real(text, "", ratio);
}

enum unit_result unit_parse_integer(const char *text, int64_t *number)
{
    bool negative = text[0] == '-';
    struct decimal decimal;
    enum unit_result result = read_decimal(text + (negative ? 1 : 0), &decimal);
    if (result != UNIT_OK) {
        return result;
    }
    *number = negative ? -decimal.whole : decimal.whole;
    return *decimal.rest == '\0' && strchr(text, '.') == NULL ? UNIT_OK : UNIT_UNKNOWN;
}

const char *unit_explain(enum unit_result result)
{
    switch (result) {
    case UNIT_OK:
        return "";
    case UNIT_NO_NUMBER:
        return ", not a number";
    case UNIT_MISSING:
        return ", without a unit";
    case UNIT_UNKNOWN:
        return ", with a wrong unit";
    case UNIT_TOO_LARGE:
        return ", too large";
    }
    return "";
}

static char *format_with(const struct unit *units, size_t count, int64_t value, char *text)
{
    size_t best = 0;
    for (size_t i = 0; i < count; i++) {
        if (value != 0 && value % units[i].factor == 0 && units[i].factor > units[best].factor) {
            best = i;
        }
    }
    (void)snprintf(text, UNIT_TEXT_SIZE, "%" PRId64 "%s", value / units[best].factor, units[best].name);
    return text;
}

char *unit_format_duration(int64_t us, char text[UNIT_TEXT_SIZE])
{
    if (us == 0) {
        (void)snprintf(text, UNIT_TEXT_SIZE, "0s");
        return text;
    }
    return format_with(durations, ARRAY_LENGTH(durations), us, text);
}

char *unit_format_size(int64_t bytes, char text[UNIT_TEXT_SIZE])
{
    return format_with(sizes, ARRAY_LENGTH(sizes), bytes, text);
}

/* Six decimals, as many as are read, without trailing zeros. */
char *unit_format_ratio(double ratio, char text[UNIT_TEXT_SIZE])
{
    int64_t millionths = (int64_t)(ratio * 1e6 + 0.5);
    int length =
        snprintf(text, UNIT_TEXT_SIZE, "%" PRId64 ".%06" PRId64, millionths / 1000000, millionths % 1000000);
    while (length > 0 && text[length - 1] == '0') {
        text[--length] = '\0';
    }
    if (length > 0 && text[length - 1] == '.') {
        text[length - 1] = '\0';
    }
    return text;
}

char *unit_format_percent(double ratio, char text[UNIT_TEXT_SIZE])
{
    (void)unit_format_ratio(ratio * 100, text);
    size_t length = strlen(text);
    (void)snprintf(text + length, UNIT_TEXT_SIZE - length, "%%");
    return text;
}
