#include "proxy/wire/scan.h"

#include "proxy/wire/glance.h"

enum lexer { CODE, STRING, STRING_ESCAPE, IDENTIFIER, LINE_COMMENT, BLOCK_COMMENT, DOLLAR };

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

enum token { WORD, DOT, OPEN, DOLLAR_SIGN, COMMA, OTHER };

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

/* Where a setting stands, on the way to synchronous_commit. */
enum setting {
    SETTING_NONE,
    SETTING_NAME,  /* SET [SESSION], set_config */
    SETTING_LOCAL, /* SET LOCAL */
    SETTING_RESET,
    SETTING_VALUE,      /* of synchronous_commit, comes next */
    SETTING_VALUE_LOCAL /* the same, for the transaction */
};

#define HINT(text, before, flags)                                                                            \
    {                                                                                                        \
        (text), sizeof(text) - 1, (before), (flags)                                                          \
    }

static const struct {
    const char *word;
    size_t length;
    enum before before;
    uint32_t flag;
} hints[] = {
    HINT("set_config", BEFORE_ANY, SCAN_SETTING),    HINT("reset", BEFORE_START, SCAN_SET),
    HINT("temp", BEFORE_CREATE, SCAN_TEMPORARY),     HINT("temporary", BEFORE_CREATE, SCAN_TEMPORARY),
    HINT("pg_temp", BEFORE_ANY, SCAN_TEMPORARY),     HINT("hold", BEFORE_WITH, SCAN_HOLD),
    HINT("deallocate", BEFORE_ANY, SCAN_DEALLOCATE), HINT("listen", BEFORE_ANY, SCAN_LISTEN),
    HINT("unlisten", BEFORE_ANY, SCAN_LISTEN),       HINT("discard", BEFORE_ANY, SCAN_DISCARD),
    HINT("role", BEFORE_ANY, SCAN_AUTHORIZATION),    HINT("authorization", BEFORE_ANY, SCAN_AUTHORIZATION),
};

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

/* --- matchers ----------------------------------------------------------------------------------------------
 */

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
    if (matcher->config && (matcher->state == NAME_DOT || next == OTHER || next == OPEN)) {
        scan->flags |= SCAN_COMPUTED; /* set_config('a.' || ... */
    } else if (matcher->state == NAME && (matcher->dotted || matcher->config) &&
               matcher->length < sizeof matcher->name) {
        matcher->name[matcher->length] = '\0';
        scan->found(scan->context, matcher->name);
    }
    matcher->state = IDLE;
}

static bool word_is(const struct scan *scan, const char *text)
{
    size_t length = strlen(text);
    return scan->word_length == length && memcmp(scan->word, text, length) == 0;
}

/* A word, whatever was before it. */
static void match_word(struct scan *scan, struct scan_matcher *matcher)
{
    if (word_is(scan, "set") ||
        word_is(scan, "reset")) { /* RESET makes a custom setting, too: an empty one */
        matcher->state = AFTER_SET;
    } else if (word_is(scan, "set_config")) {
        matcher->state = AFTER_CONFIG;
    } else {
        matcher->state = IDLE;
    }
}

static bool in_literal(const struct scan *scan)
{
    return scan->lexer == STRING || scan->lexer == STRING_ESCAPE || scan->quoted;
}

static void match_config_argument(struct scan *scan, struct scan_matcher *matcher, enum token token)
{
    if (token == WORD && in_literal(scan)) {
        name_begin(matcher, true);
        name_append(matcher, scan->word, scan->word_length);
    } else if (token == DOLLAR_SIGN) {
        scan->flags |= SCAN_PARAMETER;
        matcher->state = PARAMETER;
    } else if (token != OPEN) {
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
        if (token != WORD) {
            matcher->state = IDLE;
        } else if (!word_is(scan, "session") && !word_is(scan, "local")) {
            name_begin(matcher, false);
            name_append(matcher, scan->word, scan->word_length);
        }
        return;
    case AFTER_CONFIG:
        if (token == OPEN) {
            matcher->state = IN_CONFIG;
            return;
        }
        break;
    case IN_CONFIG:
    case PARAMETER:
        match_config_argument(scan, matcher, token);
        return;
    case NAME:
        if (token == DOT) {
            name_append(matcher, ".", 1);
            matcher->dotted = true;
            matcher->state = NAME_DOT;
            return;
        }
        name_end(scan, matcher, token);
        break;
    case NAME_DOT:
        if (token == WORD) {
            name_append(matcher, scan->word, scan->word_length);
            matcher->state = NAME;
            return;
        }
        name_end(scan, matcher, token);
        break;
    }
    if (token == WORD) {
        match_word(scan, matcher);
    } else {
        matcher->state = IDLE;
    }
}

static void emit(struct scan *scan, enum token token)
{
    if (scan->matchers[0].state == IDLE && scan->matchers[1].state == IDLE &&
        (token != WORD || (scan->word[0] != 's' && scan->word[0] != 'r'))) {
        return; /* nearly always */
    }
    if (scan->lexer != LINE_COMMENT && scan->lexer != BLOCK_COMMENT) {
        match(scan, &scan->matchers[0], token);
    }
    match(scan, &scan->matchers[1], token);
}

static enum before before_next(const struct scan *scan)
{
    static const struct {
        const char *word;
        enum before before;
        bool first; /* of a statement only */
    } words[] = {
        {"with", BEFORE_WITH, false},    {"create", BEFORE_CREATE, false},  {"replace", BEFORE_CREATE, false},
        {"local", BEFORE_CREATE, false}, {"global", BEFORE_CREATE, false},  {"into", BEFORE_CREATE, false},
        {"set", BEFORE_SET, true},       {"prepare", BEFORE_PREPARE, true},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (scan->word[0] == words[i].word[0] && word_is(scan, words[i].word) &&
            (!words[i].first || scan->before == BEFORE_START)) {
            return words[i].before;
        }
    }
    return BEFORE_OTHER;
}

/* A word that begins a statement. */
static bool is_end(const struct scan *scan)
{
    switch (scan->word[0]) {
    case 'a':
        return word_is(scan, "abort");
    case 'c':
        return word_is(scan, "commit");
    case 'e':
        return word_is(scan, "end");
    case 'r':
        return word_is(scan, "rollback");
    default:
        return false;
    }
}

/* set, reset, set_config: nearly no other word needs a closer look. */
static bool may_set(const struct scan *scan)
{
    return (scan->word[0] == 's' && (scan->word_length == 3 || scan->word_length == 10)) ||
           (scan->word[0] == 'r' && scan->word_length == 5);
}

static void say_sync(struct scan *scan, uint32_t flag)
{
    scan->flags &= ~(uint32_t)(SCAN_SYNC | SCAN_UNSYNC | SCAN_UNSYNC_LOCAL);
    scan->flags |= flag;
    scan->setting = SETTING_NONE;
}

/* What synchronous_commit is set to waits for the standby: else, or if it can't be told, it doesn't. */
static bool is_sync(const struct scan *scan)
{
    return word_is(scan, "on") || word_is(scan, "remote_apply") || word_is(scan, "default") ||
           word_is(scan, "true") || word_is(scan, "yes") || word_is(scan, "1");
}

static void follow_sync(struct scan *scan)
{
    switch ((enum setting)scan->setting) {
    case SETTING_VALUE:
    case SETTING_VALUE_LOCAL:
        if (!word_is(scan, "to")) {
            say_sync(scan, is_sync(scan)                    ? SCAN_SYNC
                           : scan->setting == SETTING_VALUE ? SCAN_UNSYNC
                                                            : SCAN_UNSYNC_LOCAL);
        }
        return;
    case SETTING_NAME:
    case SETTING_LOCAL:
        if (word_is(scan, "synchronous_commit")) {
            scan->setting = scan->setting == SETTING_NAME ? SETTING_VALUE : SETTING_VALUE_LOCAL;
            return;
        }
        if (word_is(scan, "local")) {
            scan->setting = SETTING_LOCAL;
            return;
        }
        if (word_is(scan, "session")) {
            return;
        }
        break;
    case SETTING_RESET:
        if (word_is(scan, "all") || word_is(scan, "synchronous_commit")) {
            say_sync(scan, SCAN_SYNC);
            return;
        }
        break;
    case SETTING_NONE:
        break;
    }
    scan->setting = word_is(scan, "set") || word_is(scan, "set_config") ? SETTING_NAME
                    : word_is(scan, "reset")                            ? SETTING_RESET
                                                                        : SETTING_NONE;
}

static void hint(struct scan *scan)
{
    static const char advisory[] = "advisory_lock";
    if (scan->before == BEFORE_START) {
        scan->statements = (uint8_t)(scan->statements + (scan->statements < UINT8_MAX));
        scan->flags |= is_end(scan) ? SCAN_ENDS : 0;
    }
    if (scan->setting == SETTING_NONE && scan->before != BEFORE_SET && scan->before != BEFORE_PREPARE &&
        !glance_may_hint(scan->word[0], scan->word_length)) {
        scan->before = (uint8_t)before_next(scan);
        return; /* nearly always */
    }
    if (scan->setting != SETTING_NONE || may_set(scan)) {
        follow_sync(scan);
    }
    if (scan->before == BEFORE_SET && !word_is(scan, "local") && !word_is(scan, "transaction") &&
        !word_is(scan, "constraints")) {
        scan->flags |= SCAN_SET;
    }
    if (scan->before == BEFORE_PREPARE) {
        bool ends = word_is(scan, "transaction");
        scan->prepares = scan->prepares || !ends;
        scan->flags |= ends ? SCAN_ENDS : 0;
    }
    if (scan->word[0] == 'p' && scan->word_length >= sizeof advisory &&
        memmem(scan->word, scan->word_length, advisory, sizeof advisory - 1) != NULL) {
        scan->flags |= SCAN_ADVISORY; /* neither pg_advisory_xact_lock nor pg_advisory_unlock */
    }
    for (size_t i = 0; i < ARRAY_LENGTH(hints); i++) {
        if (scan->word_length == hints[i].length && memcmp(scan->word, hints[i].word, hints[i].length) == 0 &&
            (hints[i].before == BEFORE_ANY || hints[i].before == scan->before)) {
            scan->flags |= hints[i].flag;
        }
    }
    scan->before = (uint8_t)before_next(scan);
}

static void flush_word(struct scan *scan)
{
    if (scan->word_length == 0) {
        return;
    }
    if (scan->lexer != LINE_COMMENT && scan->lexer != BLOCK_COMMENT) {
        hint(scan);
    }
    emit(scan, WORD);
    scan->word_length = 0;
}

/* --- lexer -------------------------------------------------------------------------------------------------
 */

static void emit_byte(struct scan *scan, uint8_t c)
{
    if (c == '.') {
        emit(scan, DOT);
    } else if (c == '(') {
        emit(scan, OPEN);
    } else if (c == ',') {
        emit(scan, COMMA);
    } else if (c == '$') {
        emit(scan, DOLLAR_SIGN);
        if (scan->setting == SETTING_VALUE || scan->setting == SETTING_VALUE_LOCAL) {
            say_sync(scan, scan->setting == SETTING_VALUE ? SCAN_UNSYNC : SCAN_UNSYNC_LOCAL);
        }
    } else if (!is_space(c) && c != 0) {
        emit(scan, OTHER);
        scan->before = c == ';' ? BEFORE_START : scan->before;
    }
}

/* A '-' or '/' was kept back until it was clear that no comment begins with it. */
static void flush_previous(struct scan *scan)
{
    if (scan->previous == '-' || scan->previous == '/') {
        emit(scan, OTHER);
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
        bool prefix = word_is(scan, "e");
        scan->escapes = again ? scan->escapes : prefix;
        if (prefix) {
            scan->word_length = 0;
        }
        flush_word(scan);
        flush_previous(scan);
        scan->lexer = STRING;
        return;
    }
    flush_word(scan);
    if (c == '-' && scan->previous == '-') {
        begin_comment(scan, LINE_COMMENT);
        return;
    }
    if (c == '*' && scan->previous == '/') {
        begin_comment(scan, BLOCK_COMMENT);
        return;
    }
    flush_previous(scan);
    if (c == '"') {
        scan->lexer = IDENTIFIER;
    } else if (c == '-' || c == '/') {
        scan->previous = c;
    } else {
        emit_byte(scan, c);
        if (c == '$' && !scan->quoted) {
            scan->lexer = DOLLAR;
            scan->tag[0] = '$';
            scan->tag_length = 1;
        }
    }
}

static void lex_string(struct scan *scan, uint8_t c)
{
    flush_word(scan);
    if (c == '\'') {
        scan->lexer = CODE;
        scan->previous = c;
    } else if (c == '\\' && scan->escapes) {
        scan->lexer = STRING_ESCAPE;
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
        scan->lexer = CODE;
        scan->tag_length = 0;
        return false;
    }
    scan->tag[scan->tag_length++] = (char)c;
    if (c == '$') {
        scan->lexer = CODE;
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
    scan->lexer = CODE;
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
    if (scan->lexer == DOLLAR && lex_dollar(scan, c)) {
        return;
    }
    if (scan->lexer == STRING_ESCAPE) {
        scan->lexer = STRING;
        return;
    }
    if (is_word_character(c)) {
        if (scan->lexer != BLOCK_COMMENT) {
            flush_previous(scan);
        }
        scan->previous = 0;
        lex_word_character(scan, c);
        return;
    }
    switch ((enum lexer)scan->lexer) {
    case STRING:
        lex_string(scan, c);
        return;
    case IDENTIFIER:
        flush_word(scan);
        if (c == '"') {
            scan->lexer = CODE;
        } else {
            emit_byte(scan, c);
        }
        return;
    case LINE_COMMENT:
        flush_word(scan);
        if (c == '\n') {
            scan->lexer = scan->outer;
        } else {
            emit_byte(scan, c);
        }
        return;
    case BLOCK_COMMENT:
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
    emit(scan, COMMA); /* ends a name that is still open */
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
