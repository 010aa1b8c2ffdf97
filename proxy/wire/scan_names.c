/* Names of settings: SET [SESSION|LOCAL] a.b, RESET a.b, set_config('a.b', ...). */
#include "proxy/wire/scan_internal.h"

/* Of a matcher. */
enum state {
    IDLE,
    AFTER_SET,    /* SET, SET SESSION, SET LOCAL */
    AFTER_CONFIG, /* set_config */
    IN_CONFIG,    /* set_config( */
    PARAMETER,    /* set_config($ */
    NAME,         /* after a part of the name */
    NAME_DOT      /* after a dot in it */
};

static void name_begin(struct scan_matcher *matcher, bool config)
{
    matcher->state = NAME;
    matcher->config = config;
    matcher->dotted = false;
    matcher->length = 0;
}

static void name_append(struct scan_matcher *matcher, const char *text, size_t length)
{
    if (matcher->length + length >= sizeof matcher->name) {
        matcher->length = sizeof matcher->name; /* too long for a setting: dropped at its end */
        return;
    }
    memcpy(matcher->name + matcher->length, text, length);
    matcher->length = (uint8_t)(matcher->length + length);
}

static void name_end(struct scan *scan, struct scan_matcher *matcher, enum token next)
{
    if (matcher->config && (matcher->state == NAME_DOT || next == TOKEN_OTHER || next == TOKEN_OPEN)) {
        scan->flags |= SCAN_COMPUTED; /* set_config('a.' || ... */
    } else if (matcher->state == NAME && (matcher->dotted || matcher->config) &&
               matcher->length < sizeof matcher->name) {
        matcher->name[matcher->length] = '\0';
        scan->found(scan->context, matcher->name);
    }
    matcher->state = IDLE;
}

/* A word, whatever was before it. */
static void match_word(struct scan *scan, struct scan_matcher *matcher)
{
    if (scan_word_is(scan, "set") ||
        scan_word_is(scan, "reset")) { /* RESET makes a custom setting, too: an empty one */
        matcher->state = AFTER_SET;
    } else if (scan_word_is(scan, "set_config")) {
        matcher->state = AFTER_CONFIG;
    } else {
        matcher->state = IDLE;
    }
}

static bool in_literal(const struct scan *scan)
{
    return scan->lexer == LEX_STRING || scan->lexer == LEX_STRING_ESCAPE || scan->quoted;
}

static void match_config_argument(struct scan *scan, struct scan_matcher *matcher, enum token token)
{
    if (token == TOKEN_WORD && in_literal(scan)) {
        name_begin(matcher, true);
        name_append(matcher, scan->word, scan->word_length);
    } else if (token == TOKEN_DOLLAR_SIGN) {
        scan->flags |= SCAN_PARAMETER;
        matcher->state = PARAMETER;
    } else if (token != TOKEN_OPEN) {
        scan->flags |= matcher->state == IN_CONFIG ? SCAN_COMPUTED : 0;
        matcher->state = IDLE;
    }
}

static void match(struct scan *scan, struct scan_matcher *matcher, enum token token)
{
    switch ((enum state)matcher->state) {
    case IDLE:
        break;
    case AFTER_SET:
        if (token != TOKEN_WORD) {
            matcher->state = IDLE;
        } else if (!scan_word_is(scan, "session") && !scan_word_is(scan, "local")) {
            name_begin(matcher, false);
            name_append(matcher, scan->word, scan->word_length);
        }
        return;
    case AFTER_CONFIG:
        if (token == TOKEN_OPEN) {
            matcher->state = IN_CONFIG;
            return;
        }
        break;
    case IN_CONFIG:
    case PARAMETER:
        match_config_argument(scan, matcher, token);
        return;
    case NAME:
        if (token == TOKEN_DOT) {
            name_append(matcher, ".", 1);
            matcher->dotted = true;
            matcher->state = NAME_DOT;
            return;
        }
        name_end(scan, matcher, token);
        break;
    case NAME_DOT:
        if (token == TOKEN_WORD) {
            name_append(matcher, scan->word, scan->word_length);
            matcher->state = NAME;
            return;
        }
        name_end(scan, matcher, token);
        break;
    }
    if (token == TOKEN_WORD) {
        match_word(scan, matcher);
    } else {
        matcher->state = IDLE;
    }
}

void scan_emit(struct scan *scan, enum token token)
{
    if (scan->matchers[0].state == IDLE && scan->matchers[1].state == IDLE &&
        (token != TOKEN_WORD || (scan->word[0] != 's' && scan->word[0] != 'r'))) {
        return; /* nearly always */
    }
    if (scan->lexer != LEX_LINE_COMMENT && scan->lexer != LEX_BLOCK_COMMENT) {
        match(scan, &scan->matchers[0], token);
    }
    match(scan, &scan->matchers[1], token);
}
