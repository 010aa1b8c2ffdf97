#include "conf/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const texts[] = {
#define X(name, text) [name] = (text),
    ERROR_MAP(X)
#undef X
};

/* Texts of peers end up in messages: what could confuse a terminal or a log becomes '?'. */
static void neutralize(char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c < 0x20 && c != '\n') || c == 0x7f) {
            *text = '?';
        }
    }
}

bool error_set(struct error *error, enum error_code code, const char *format, ...)
{
    char message[ERROR_MESSAGE_SIZE]; /* an argument may be the old message itself */
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    neutralize(message);
    error->code = code;
    memcpy(error->message, message, sizeof message);
    error->remedy[0] = '\0';
    return false;
}

bool error_remedy(struct error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(error->remedy, sizeof error->remedy, format, arguments);
    va_end(arguments);
    neutralize(error->remedy);
    return false;
}

void error_clear(struct error *error)
{
    error->code = ERROR_NONE;
    error->message[0] = '\0';
    error->remedy[0] = '\0';
}

const char *error_code_text(enum error_code code)
{
    if ((size_t)code >= ARRAY_LENGTH(texts)) {
        return texts[ERROR_INTERNAL];
    }
    return texts[code];
}

enum error_code error_code_parse(const char *text)
{
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        if (strcmp(texts[i], text) == 0) {
            return (enum error_code)i;
        }
    }
    return ERROR_INTERNAL;
}
