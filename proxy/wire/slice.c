#include "proxy/wire/slice.h"

char *slice_copy(struct slice slice, char *text, size_t size)
{
    size_t length = slice.length < size ? slice.length : size - 1;
    if (length > 0) {
        memcpy(text, slice.data, length);
    }
    text[length] = '\0';
    return text;
}
