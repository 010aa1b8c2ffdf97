/* Reads JSON that may lack anything: a missing key or another type is the value that means nothing. */
#ifndef SWITCHBACK_CONTROL_CLI_FIELD_H
#define SWITCHBACK_CONTROL_CLI_FIELD_H

#include <jansson.h>
#include <stdbool.h>

const char *field_string(const json_t *object, const char *key); /* "" */
double field_number(const json_t *object, const char *key, double otherwise);
json_int_t field_integer(const json_t *object, const char *key); /* 0 */
bool field_true(const json_t *object, const char *key);

#endif
