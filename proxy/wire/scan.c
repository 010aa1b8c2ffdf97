#include "proxy/wire/scan_internal.h"

static bool is_word_character(uint8_t c)
{
    return (uint8_t)((c | 0x20) - 'a') < 26 || (uint8_t)(c - '0') < 10 || c == '_' || c >= 0x80;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static char lower(uint8_t c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

void scan_begin(struct scan *scan, void (*found)(void *context, const char *name), void *context)
{
    *scan = (struct scan){.found = found, .context = context};
}

static void flush_word(struct scan *scan)
{
    if (scan->word_length == 0) {
        return;
    }
    if (scan->lexer != LEX_LINE_COMMENT && scan->lexer != LEX_BLOCK_COMMENT) {
        scan_hint(scan);
    }
    scan_emit(scan, TOKEN_WORD);
    scan->word_length = 0;
}

static void emit_byte(struct scan *scan, uint8_t c)
{
    if (c == '.') {
        scan_emit(scan, TOKEN_DOT);
    } else if (c == '(') {
        scan_emit(scan, TOKEN_OPEN);
    } else if (c == ',') {
        scan_emit(scan, TOKEN_COMMA);
    } else if (c == '$') {
        scan_emit(scan, TOKEN_DOLLAR_SIGN);
        scan_hint_parameter(scan);
    } else if (!is_space(c) && c != 0) {
        scan_emit(scan, TOKEN_OTHER);
        scan->before = c == ';' ? BEFORE_START : scan->before;
    }
}

/* A '-' or '/' was kept back until it was clear that no comment begins with it. */
static void flush_previous(struct scan *scan)
{
    if (scan->previous == '-' || scan->previous == '/') {
        scan_emit(scan, TOKEN_OTHER);
    }
    scan->previous = 0;
}

static void begin_comment(struct scan *scan, enum lexer comment)
{
    scan->outer = scan->lexer;
    scan->lexer = (uint8_t)comment;
    scan->previous = 0;
    scan->depth = 1;
}

static void lex_code(struct scan *scan, uint8_t c)
{
    if (c == '\'') {
        /* a doubled quote goes on with the string that it seemed to end */
        bool again = scan->previous == '\'';
        bool prefix = scan_word_is(scan, "e");
        scan->escapes = again ? scan->escapes : prefix;
        if (prefix) {
            scan->word_length = 0;
        }
        flush_word(scan);
        flush_previous(scan);
        scan->lexer = LEX_STRING;
        return;
    }
    flush_word(scan);
    if (c == '-' && scan->previous == '-') {
        begin_comment(scan, LEX_LINE_COMMENT);
        return;
    }
    if (c == '*' && scan->previous == '/') {
        begin_comment(scan, LEX_BLOCK_COMMENT);
        return;
    }
    flush_previous(scan);
    if (c == '"') {
        scan->lexer = LEX_IDENTIFIER;
    } else if (c == '-' || c == '/') {
        scan->previous = c;
    } else {
        emit_byte(scan, c);
        if (c == '$' && !scan->quoted) {
            scan->lexer = LEX_DOLLAR;
            scan->tag[0] = '$';
            scan->tag_length = 1;
        }
    }
}

static void lex_string(struct scan *scan, uint8_t c)
{
    flush_word(scan);
    if (c == '\'') {
        scan->lexer = LEX_CODE;
        scan->previous = c;
    } else if (c == '\\' && scan->escapes) {
        scan->lexer = LEX_STRING_ESCAPE;
    } else {
        emit_byte(scan, c);
    }
}

static void lex_block_comment(struct scan *scan, uint8_t c)
{
    flush_word(scan);
    if (c == '/' && scan->previous == '*') {
        scan->previous = 0;
        scan->depth--;
        scan->lexer = scan->depth == 0 ? scan->outer : scan->lexer;
    } else if (c == '*' && scan->previous == '/') {
        scan->previous = 0;
        if (scan->depth < UINT16_MAX) {
            scan->depth++;
        }
    } else {
        scan->previous = c;
        emit_byte(scan, c);
    }
}

/* After a '$' in code: a tag and another '$' begin a dollar quote. False: it was something else. */
static bool lex_dollar(struct scan *scan, uint8_t c)
{
    bool digit = c >= '0' && c <= '9';
    if ((c != '$' && !is_word_character(c)) || (digit && scan->tag_length == 1) ||
        scan->tag_length == sizeof scan->tag) {
        scan->lexer = LEX_CODE;
        scan->tag_length = 0;
        return false;
    }
    scan->tag[scan->tag_length++] = (char)c;
    if (c == '$') {
        scan->lexer = LEX_CODE;
        scan->quoted = true;
        scan->tag_match = 0;
    }
    return true;
}

/* True if this byte ends the dollar quote. */
static bool ends_dollar_quote(struct scan *scan, uint8_t c)
{
    if (c != (uint8_t)scan->tag[scan->tag_match]) {
        scan->tag_match = c == '$' ? 1 : 0;
        return false;
    }
    scan->tag_match++;
    if (scan->tag_match < scan->tag_length) {
        return false;
    }
    flush_word(scan);
    scan->quoted = false;
    scan->tag_length = 0;
    scan->lexer = LEX_CODE;
    scan->previous = 0;
    return true;
}

static void lex_word_character(struct scan *scan, uint8_t c)
{
    if (scan->word_length < sizeof scan->word) {
        scan->word[scan->word_length++] = lower(c);
    }
}

static void lex(struct scan *scan, uint8_t c)
{
    if (scan->quoted && ends_dollar_quote(scan, c)) {
        return;
    }
    if (scan->lexer == LEX_DOLLAR && lex_dollar(scan, c)) {
        return;
    }
    if (scan->lexer == LEX_STRING_ESCAPE) {
        scan->lexer = LEX_STRING;
        return;
    }
    if (is_word_character(c)) {
        if (scan->lexer != LEX_BLOCK_COMMENT) {
            flush_previous(scan);
        }
        scan->previous = 0;
        lex_word_character(scan, c);
        return;
    }
    switch ((enum lexer)scan->lexer) {
    case LEX_STRING:
        lex_string(scan, c);
        return;
    case LEX_IDENTIFIER:
        flush_word(scan);
        if (c == '"') {
            scan->lexer = LEX_CODE;
        } else {
            emit_byte(scan, c);
        }
        return;
    case LEX_LINE_COMMENT:
        flush_word(scan);
        if (c == '\n') {
            scan->lexer = scan->outer;
        } else {
            emit_byte(scan, c);
        }
        return;
    case LEX_BLOCK_COMMENT:
        lex_block_comment(scan, c);
        return;
    default:
        lex_code(scan, c);
        return;
    }
}

void scan_text(struct scan *scan, struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        lex(scan, text.data[i]);
        if (scan->word_length > 0 && scan->tag_match == 0) { /* the rest of a word, without detours */
            while (i + 1 < text.length && is_word_character(text.data[i + 1])) {
                lex_word_character(scan, text.data[++i]);
            }
        }
    }
}

uint32_t scan_end(struct scan *scan)
{
    flush_word(scan);
    flush_previous(scan);
    scan_emit(scan, TOKEN_COMMA); /* ends a name that is still open */
    scan->flags |= scan->prepares && scan->statements > 1 ? SCAN_PREPARE : 0;
    return scan->flags;
}

bool scan_is_custom_name(struct slice value, char name[SCAN_NAME_SIZE])
{
    bool dotted = false;
    uint8_t previous = '.';
    if (value.length < 3 || value.length >= SCAN_NAME_SIZE) {
        return false;
    }
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = value.data[i];
        bool digit = (c >= '0' && c <= '9') || c == '$';
        if (c == '.'          ? previous == '.'
            : previous == '.' ? digit || !is_word_character(c)
                              : !is_word_character(c) && c != '$') {
            return false;
        }
        dotted = dotted || c == '.';
        name[i] = lower(c);
        previous = c;
    }
    name[value.length] = '\0';
    return dotted && previous != '.';
}
