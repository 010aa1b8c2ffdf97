#include "proxy/type_values.h"

#include <stdio.h>
#include <string.h>

/* pg_type.dat; those that may hold oids of types that aren't built in */
enum builtin {
    INT8 = 20,
    INT2 = 21,
    INT4 = 23,
    OID = 26,
    OIDVECTOR = 30,
    OID_ARRAY = 1028,
    REGTYPE = 2206,
    REGTYPE_ARRAY = 2211,
    RECORD = 2249,
    ANYARRAY = 2277,
    RECORD_ARRAY = 2287,
    FIRST_USER_TYPE = 16384
};

enum { NESTING_MAX = 64, ARRAY_DIMENSIONS_MAX = 6, RANGE_EMPTY = 0x01, RANGE_INFINITE = 0x18 };
enum { RANGE_LOWER_INFINITE = 0x08, RANGE_UPPER_INFINITE = 0x10, RANGE_NULLS = 0x60 };

/* A value that is walked. */
struct walk {
    uint8_t *at;
    size_t left;
};

/* --- what a type is ----------------------------------------------------------------------------------------
 */

static enum value_class class_of_builtin(uint32_t type)
{
    switch (type) {
    case OID:
    case OID_ARRAY:
    case OIDVECTOR:
        return VALUE_OID;
    case INT2:
    case INT4:
    case INT8:
        return VALUE_INTEGER;
    case REGTYPE:
    case REGTYPE_ARRAY:
    case RECORD:
    case RECORD_ARRAY:
    case ANYARRAY:
        return VALUE_BINARY;
    default:
        return VALUE_PLAIN;
    }
}

static enum value_class class_of(const struct type_map *map, enum side side, uint32_t type, unsigned depth)
{
    if (type < FIRST_USER_TYPE) {
        return class_of_builtin(type);
    }
    const struct proxy_type *known = type_map_find(map, side, type);
    if (known == NULL || depth == NESTING_MAX) {
        return VALUE_PLAIN;
    }
    switch (known->kind) {
    case PROXY_TYPE_PLAIN:
        return VALUE_PLAIN;
    case PROXY_TYPE_DOMAIN:
        return class_of(map, side, known->related[side], depth + 1);
    case PROXY_TYPE_RANGE:
    case PROXY_TYPE_MULTIRANGE:
        return class_of(map, side, known->related[side], depth + 1) == VALUE_PLAIN ? VALUE_PLAIN
                                                                                   : VALUE_BINARY;
    case PROXY_TYPE_ARRAY:
    case PROXY_TYPE_COMPOSITE:
        break;
    }
    return VALUE_BINARY;
}

enum value_class value_class_of(const struct type_map *map, enum side side, uint32_t type)
{
    return class_of(map, side, type, 0);
}

/* --- binary ------------------------------------------------------------------------------------------------
 */

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void write_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static uint8_t *take(struct walk *walk, size_t length)
{
    uint8_t *taken = walk->at;
    if (walk->left < length) {
        walk->left = 0;
        return NULL;
    }
    walk->at += length;
    walk->left -= length;
    return taken;
}

static bool take_u32(struct walk *walk, uint32_t *value)
{
    const uint8_t *at = take(walk, 4);
    *value = at == NULL ? 0 : read_u32(at);
    return at != NULL;
}

static void binary(struct translation t, uint32_t type, struct walk value, unsigned depth);

/* Length and value, of that type. False: no more. */
static bool counted_value(struct translation t, uint32_t type, struct walk *walk, unsigned depth)
{
    uint32_t length = 0;
    if (!take_u32(walk, &length)) {
        return false;
    }
    if (length == UINT32_MAX) {
        return true; /* NULL */
    }
    uint8_t *at = take(walk, length);
    if (at == NULL) {
        return false;
    }
    binary(t, type, (struct walk){at, length}, depth + 1);
    return true;
}

static void array(struct translation t, struct walk value, unsigned depth)
{
    uint32_t dimensions = 0;
    uint32_t flags = 0;
    if (!take_u32(&value, &dimensions) || !take_u32(&value, &flags)) {
        return;
    }
    uint8_t *element = take(&value, 4);
    if (element == NULL || dimensions > ARRAY_DIMENSIONS_MAX ||
        take(&value, 8 * (size_t)dimensions) == NULL) {
        return;
    }
    uint32_t type = read_u32(element);
    write_u32(element, translate(t, type));
    if (value_class_of(t.map, t.from, type) != VALUE_PLAIN && type != INT2 && type != INT4 && type != INT8) {
        while (counted_value(t, type, &value, depth)) {
        }
    }
}

static void composite(struct translation t, struct walk value, unsigned depth)
{
    uint32_t fields = 0;
    if (!take_u32(&value, &fields)) {
        return;
    }
    for (uint8_t *field = take(&value, 4); field != NULL; field = take(&value, 4)) {
        uint32_t type = read_u32(field);
        write_u32(field, translate(t, type));
        if (!counted_value(t, type, &value, depth)) {
            return;
        }
    }
}

static void range(struct translation t, uint32_t subtype, struct walk value, unsigned depth)
{
    const uint8_t *flags = take(&value, 1);
    while (flags != NULL && counted_value(t, subtype, &value, depth)) {
    }
}

static void multirange(struct translation t, uint32_t type, struct walk value, unsigned depth)
{
    uint32_t count = 0;
    if (take_u32(&value, &count)) {
        while (counted_value(t, type, &value, depth)) {
        }
    }
}

static void binary_of_builtin(struct translation t, uint32_t type, struct walk value, unsigned depth)
{
    switch (type) {
    case OID:
    case REGTYPE:
        if (value.left == 4 && (t.oids || type == REGTYPE)) {
            write_u32(value.at, translate_known(t, read_u32(value.at)));
        }
        break;
    case OID_ARRAY:
    case OIDVECTOR:
    case REGTYPE_ARRAY:
    case RECORD_ARRAY:
    case ANYARRAY:
        array(t, value, depth);
        break;
    case RECORD:
        composite(t, value, depth);
        break;
    default:
        break;
    }
}

static void binary(struct translation t, uint32_t type, struct walk value, unsigned depth)
{
    if (depth == NESTING_MAX) {
        return;
    }
    if (type < FIRST_USER_TYPE) {
        binary_of_builtin(t, type, value, depth);
        return;
    }
    const struct proxy_type *known = type_map_find(t.map, t.from, type);
    switch (known == NULL ? PROXY_TYPE_PLAIN : known->kind) {
    case PROXY_TYPE_PLAIN:
        break;
    case PROXY_TYPE_ARRAY:
        array(t, value, depth);
        break;
    case PROXY_TYPE_COMPOSITE:
        composite(t, value, depth);
        break;
    case PROXY_TYPE_DOMAIN:
        binary(t, known->related[t.from], value, depth + 1);
        break;
    case PROXY_TYPE_RANGE:
        range(t, known->related[t.from], value, depth);
        break;
    case PROXY_TYPE_MULTIRANGE:
        multirange(t, known->related[t.from], value, depth);
        break;
    }
}

/* An oid that came as an integer; one that the integer can't hold is left alone. */
static void integer(struct translation t, uint8_t *value, size_t length)
{
    if (length == 4) {
        uint32_t oid = translate_known(t, read_u32(value));
        write_u32(value, oid <= INT32_MAX ? oid : read_u32(value));
    } else if (length == 8 && read_u32(value) == 0) {
        write_u32(value + 4, translate_known(t, read_u32(value + 4)));
    } else if (length == 2) {
        uint32_t oid = translate_known(t, (uint32_t)value[0] << 8 | value[1]);
        if (oid <= INT16_MAX) {
            value[0] = (uint8_t)(oid >> 8);
            value[1] = (uint8_t)oid;
        }
    }
}

void value_translate_binary(struct translation translation, uint32_t type, uint8_t *value, size_t length)
{
    if (type == INT2 || type == INT4 || type == INT8) {
        integer(translation, value, length);
    } else {
        binary(translation, type, (struct walk){value, length}, 0);
    }
}

/* --- text --------------------------------------------------------------------------------------------------
 */

/* The number at the beginning of the text, and how long it is; 0: none that may be an oid. */
static size_t number_at(struct slice text, uint32_t *oid)
{
    size_t length = 0;
    uint64_t number = 0;
    while (length < text.length && text.data[length] >= '0' && text.data[length] <= '9') {
        number = number <= UINT32_MAX ? number * 10 + (uint64_t)(text.data[length] - '0') : number;
        length++;
    }
    *oid = number <= UINT32_MAX ? (uint32_t)number : 0;
    return length;
}

bool value_translate_text(struct translation translation, struct slice text, struct strbuf *out)
{
    size_t begin = out->length;
    size_t copied = 0;
    bool changed = false;
    for (size_t i = 0; i < text.length;) {
        uint32_t oid = 0;
        size_t length = number_at(slice_of(text.data + i, text.length - i), &oid);
        uint32_t other = length == 0 ? oid : translate_known(translation, oid);
        if (other != oid) {
            strbuf_append(out, text.data + copied, i - copied);
            strbuf_printf(out, "%u", other);
            copied = i + length;
            changed = true;
        }
        i += length > 0 ? length : 1;
    }
    if (!changed) {
        out->length = begin;
        return false;
    }
    strbuf_append(out, text.data + copied, text.length - copied);
    return true;
}
