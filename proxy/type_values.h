/*
 * Values that hold oids of types: what they are on one side, changed to what they are on the other. In
 * binary, an array names the type of its elements and a composite those of its fields; domains, ranges and
 * multiranges may hold such values; and an oid is a value itself, of the types oid and regtype. As text only
 * oids show, as numbers. (PostgreSQL: array_send, record_send, range_send, multirange_send.)
 */
#ifndef SWITCHBACK_PROXY_TYPE_VALUES_H
#define SWITCHBACK_PROXY_TYPE_VALUES_H

#include "conf/base/strbuf.h"
#include "proxy/type_map.h"
#include "proxy/wire/slice.h"

enum value_class {
    VALUE_PLAIN,  /* nothing to be changed, in either format */
    VALUE_OID,    /* oid, oid[], oidvector: in both formats */
    VALUE_BINARY, /* arrays, composites ..., regtype: in binary only */
    VALUE_INTEGER /* smallint, integer, bigint: whoever calls knows whether it is an oid */
};

/* Of a type, by its oid on that side. */
enum value_class value_class_of(const struct type_map *map, enum side side, uint32_t type);

/* Changes a value in its place. The type is by the numbers of translation.from. What isn't a value of that
 * type is left as it is: the server or the client will say so. */
void value_translate_binary(struct translation translation, uint32_t type, uint8_t *value, size_t length);

/*
 * Appends the text with each number in it that is an oid of translation.from changed; false: there is none,
 * nothing is appended.
 */
bool value_translate_text(struct translation translation, struct slice text, struct strbuf *out);

#endif
