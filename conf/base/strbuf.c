#include "conf/base/strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 256 };

void strbuf_init(struct strbuf *buffer, size_t limit)
{
    *buffer = (struct strbuf){.limit = limit};
}

void strbuf_deinit(struct strbuf *buffer)
{
    free(buffer->data);
    *buffer = (struct strbuf){.limit = buffer->limit};
}

void strbuf_clear(struct strbuf *buffer)
{
    buffer->length = 0;
    buffer->failed = false;
    if (buffer->data != NULL) {
        buffer->data[0] = '\0';
    }
}

static bool reserve(struct strbuf *buffer, size_t more)
{
    if (buffer->failed || more > buffer->limit - buffer->length) {
        buffer->failed = true;
        return false;
    }
    size_t need = buffer->length + more + 1;
    if (need <= buffer->capacity) {
        return true;
    }
    size_t capacity = buffer->capacity == 0 ? FIRST_CAPACITY : buffer->capacity;
    while (capacity < need) {
        capacity *= 2;
    }
    char *data = realloc(buffer->data, capacity);
    if (data == NULL) {
        buffer->failed = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

void strbuf_append(struct strbuf *buffer, const void *bytes, size_t length)
{
    if (!reserve(buffer, length)) {
        return;
    }
    if (length > 0) {
        memcpy(buffer->data + buffer->length, bytes, length);
    }
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

void strbuf_puts(struct strbuf *buffer, const char *text)
{
    strbuf_append(buffer, text, strlen(text));
}

void strbuf_printf(struct strbuf *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int need = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (need < 0 || !reserve(buffer, (size_t)need)) {
        buffer->failed = true;
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(buffer->data + buffer->length, (size_t)need + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)need;
}

const char *strbuf_text(const struct strbuf *buffer)
{
    return buffer->data == NULL ? "" : buffer->data;
}

char *strbuf_take(struct strbuf *buffer)
{
    char *text = buffer->failed ? NULL : buffer->data;
    if (buffer->failed) {
        free(buffer->data);
    } else if (text == NULL) {
        text = calloc(1, 1);
    }
    *buffer = (struct strbuf){.limit = buffer->limit};
    return text;
}
