/*
 * The inside of the scan: scan.c cuts the text into tokens, scan_names.c finds the names of settings in them,
 * scan_hints.c words that hint at session state.
 */
#ifndef SWITCHBACK_PROXY_WIRE_SCAN_INTERNAL_H
#define SWITCHBACK_PROXY_WIRE_SCAN_INTERNAL_H

#include "proxy/wire/scan.h"

#include <string.h>

enum lexer {
    LEX_CODE,
    LEX_STRING,
    LEX_STRING_ESCAPE,
    LEX_IDENTIFIER,
    LEX_LINE_COMMENT,
    LEX_BLOCK_COMMENT,
    LEX_DOLLAR
};

enum token { TOKEN_WORD, TOKEN_DOT, TOKEN_OPEN, TOKEN_DOLLAR_SIGN, TOKEN_COMMA, TOKEN_OTHER };

/* The word before, as far as it gives a word its meaning. */
enum before {
    BEFORE_START,
    BEFORE_WITH,
    BEFORE_CREATE,
    BEFORE_SET,
    BEFORE_PREPARE,
    BEFORE_OTHER,
    BEFORE_ANY
};

static inline bool scan_word_is(const struct scan *scan, const char *text)
{
    size_t length = strlen(text);
    return scan->word_length == length && memcmp(scan->word, text, length) == 0;
}

/* The next token; a word's text is scan->word. */
void scan_emit(struct scan *scan, enum token token);
/* The word is over, and stands in no comment. */
void scan_hint(struct scan *scan);
/* What is given next isn't known from the text. */
void scan_hint_parameter(struct scan *scan);

#endif
