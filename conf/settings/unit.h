/*
 * Values with units, as people write them in the configuration and on the command line: durations (us ms s m
 * h), sizes (B kB KiB MB MiB GB GiB), percentages, plain numbers. Strict: the whole text must be the value.
 */
#ifndef SWITCHBACK_CONF_SETTINGS_UNIT_H
#define SWITCHBACK_CONF_SETTINGS_UNIT_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum unit_result { UNIT_OK, UNIT_NO_NUMBER, UNIT_MISSING, UNIT_UNKNOWN, UNIT_TOO_LARGE };

enum { UNIT_TEXT_SIZE = 32 };

/* "1.5s" → microseconds */
MUST_USE enum unit_result unit_parse_duration(const char *text, int64_t *us);
/* "10MB" → bytes */
MUST_USE enum unit_result unit_parse_size(const char *text, int64_t *bytes);
/* "20%" → 0.2 */
MUST_USE enum unit_result unit_parse_percent(const char *text, double *ratio);
/* "0.01", digits only: no sign, no exponent */
MUST_USE enum unit_result unit_parse_ratio(const char *text, double *ratio);
MUST_USE enum unit_result unit_parse_integer(const char *text, int64_t *number);

/* What is wrong with a text, to follow `found "5"`: ", without a unit". "" for UNIT_OK. */
const char *unit_explain(enum unit_result result);

/* In the largest unit that loses nothing, as unit_parse_* reads it. Return text. */
char *unit_format_duration(int64_t us, char text[UNIT_TEXT_SIZE]);
char *unit_format_size(int64_t bytes, char text[UNIT_TEXT_SIZE]);
char *unit_format_percent(double ratio, char text[UNIT_TEXT_SIZE]);
char *unit_format_ratio(double ratio, char text[UNIT_TEXT_SIZE]);

#endif
