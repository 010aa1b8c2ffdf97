#include "control/cli/field.h"

const char *field_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

double field_number(const json_t *object, const char *key, double otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

json_int_t field_integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

bool field_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}
