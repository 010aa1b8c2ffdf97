#include "proxy/wire/prepare_text.h"

/* What is left of a text. Everything here goes forward and stops at its end. */
struct rest {
    const uint8_t *at, *end;
};

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool begins_word(uint8_t c)
{
    return (uint8_t)((c | 0x20) - 'a') < 26 || c == '_' || c >= 0x80;
}

static bool is_in_word(uint8_t c)
{
    return begins_word(c) || (uint8_t)(c - '0') < 10 || c == '$';
}

static uint8_t lower(uint8_t c)
{
    return (uint8_t)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static bool looks_at(const struct rest *rest, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(rest->end - rest->at) >= length && memcmp(rest->at, text, length) == 0;
}

/* False: the comment doesn't end. */
static bool skip_block_comment(struct rest *rest)
{
    size_t depth = 0;
    do {
        if (looks_at(rest, "/*")) {
            depth++;
            rest->at += 2;
        } else if (looks_at(rest, "*/")) {
            depth--;
            rest->at += 2;
        } else if (rest->at == rest->end) {
            return false;
        } else {
            rest->at++;
        }
    } while (depth > 0);
    return true;
}

static bool skip_blanks(struct rest *rest)
{
    while (rest->at < rest->end) {
        if (is_space(*rest->at)) {
            rest->at++;
        } else if (looks_at(rest, "--")) {
            while (rest->at < rest->end && *rest->at != '\n' && *rest->at != '\r') {
                rest->at++;
            }
        } else if (looks_at(rest, "/*")) {
            if (!skip_block_comment(rest)) {
                return false;
            }
        } else {
            break;
        }
    }
    return true;
}

static bool takes_word(struct rest *rest, const char *word)
{
    for (; *word != '\0'; word++, rest->at++) {
        if (rest->at == rest->end || lower(*rest->at) != (uint8_t)*word) {
            return false;
        }
    }
    return rest->at == rest->end || !is_in_word(*rest->at);
}

static bool takes_quoted_name(struct rest *rest, struct slice name)
{
    size_t have = 0;
    for (rest->at++; rest->at < rest->end; rest->at++) {
        if (*rest->at == '"') {
            rest->at++;
            if (rest->at == rest->end || *rest->at != '"') {
                return have == name.length;
            }
        }
        if (have == name.length || name.data[have++] != *rest->at) {
            return false;
        }
    }
    return false;
}

static bool takes_name(struct rest *rest, struct slice name)
{
    if (rest->at == rest->end) {
        return false;
    }
    if (*rest->at == '"') {
        return takes_quoted_name(rest, name);
    }
    size_t have = 0;
    for (; rest->at < rest->end && is_in_word(*rest->at); rest->at++, have++) {
        if (have == name.length || name.data[have] != lower(*rest->at)) {
            return false;
        }
    }
    return have == name.length && !looks_at(rest, "&");
}

/* At the opening quote. */
static bool skip_string(struct rest *rest, bool escapes)
{
    for (rest->at++; rest->at < rest->end; rest->at++) {
        if (*rest->at == '\\') {
            if (!escapes || rest->at + 1 == rest->end) {
                return false;
            }
            rest->at++;
        } else if (*rest->at == '\'') {
            rest->at++;
            if (rest->at == rest->end || *rest->at != '\'') {
                return true;
            }
        }
    }
    return false;
}

static bool skip_quoted_name(struct rest *rest)
{
    const uint8_t *end = memchr(rest->at + 1, '"', (size_t)(rest->end - rest->at - 1));
    rest->at = end == NULL ? rest->end : end + 1; /* a doubled quote begins it anew */
    return end != NULL;
}

/* At a dollar: a quote with its tag, or a parameter, or nothing. */
static bool skip_dollar(struct rest *rest)
{
    const uint8_t *tag = rest->at++;
    if (rest->at < rest->end && begins_word(*rest->at)) {
        while (rest->at < rest->end && is_in_word(*rest->at) && *rest->at != '$') {
            rest->at++;
        }
    }
    if (rest->at == rest->end || *rest->at != '$') {
        return true;
    }
    size_t length = (size_t)(++rest->at - tag);
    const uint8_t *end = memmem(rest->at, (size_t)(rest->end - rest->at), tag, length);
    rest->at = end == NULL ? rest->end : end + length;
    return end != NULL;
}

static bool skip_word(struct rest *rest)
{
    const uint8_t *begin = rest->at;
    while (rest->at < rest->end && is_in_word(*rest->at)) {
        rest->at++;
    }
    bool is_e = rest->at - begin == 1 && lower(*begin) == 'e';
    return !is_e || !looks_at(rest, "'") || skip_string(rest, true);
}

/* Up to a semicolon outside of everything, or the end. */
static bool skip_statement(struct rest *rest)
{
    for (;;) {
        bool ok = skip_blanks(rest);
        if (!ok || rest->at == rest->end || *rest->at == ';') {
            return ok;
        }
        if (*rest->at == '\'') {
            ok = skip_string(rest, false);
        } else if (*rest->at == '"') {
            ok = skip_quoted_name(rest);
        } else if (*rest->at == '$') {
            ok = skip_dollar(rest);
        } else if (begins_word(*rest->at)) {
            ok = skip_word(rest);
        } else {
            rest->at++;
        }
        if (!ok) {
            return false;
        }
    }
}

bool prepare_text_is_alone(struct slice text, struct slice name)
{
    struct rest rest = {.at = text.data, .end = text.data + text.length};
    bool ours = skip_blanks(&rest) && takes_word(&rest, "prepare") && skip_blanks(&rest) &&
                takes_name(&rest, name) && skip_statement(&rest);
    while (ours && rest.at < rest.end) {
        ours = *rest.at == ';' || is_space(*rest.at);
        rest.at += ours ? 1 : 0;
        ours = ours && skip_blanks(&rest);
    }
    return ours;
}
