/*
 * What the whole codec stands on: a borrowed range of bytes, and the three answers that a parser of bytes
 * which arrive piece by piece can give. Nothing in proxy/wire allocates, keeps a pointer into its input after
 * it returned, or does I/O.
 */
#ifndef SWITCHBACK_PROXY_WIRE_SLICE_H
#define SWITCHBACK_PROXY_WIRE_SLICE_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t length;
};

enum wire_answer {
    WIRE_OK,
    WIRE_PARTIAL, /* right so far: more bytes decide */
    WIRE_BAD      /* the peer broke the protocol */
};

static inline struct slice slice_of(const void *data, size_t length)
{
    return (struct slice){.data = data, .length = length};
}

static inline struct slice slice_text(const char *text)
{
    return slice_of(text, strlen(text));
}

static inline bool slice_equals(struct slice slice, const char *text)
{
    size_t length = strlen(text);
    return slice.length == length && (length == 0 || memcmp(slice.data, text, length) == 0);
}

/* Copies as text, cut to size - 1 bytes and NUL-terminated. Returns text. */
char *slice_copy(struct slice slice, char *text, size_t size);

#endif
