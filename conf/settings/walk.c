#include "conf/settings/walk.h"

#include "conf/base/ensure.h"
#include "conf/settings/nearest.h"
#include "conf/settings/unit.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 128, SHOWN_LIMIT = 60, WORDS_SIZE = 160 };

bool walk_complain(const struct walk *walk, int line, const char *name, const char *format, ...)
{
    char text[ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    char place[16] = "";
    if (line > 0) {
        (void)snprintf(place, sizeof place, ":%d", line);
    }
    return error_set(walk->error, ERROR_CONFIG, "%s%s: %s%s: %s", walk->file, place, walk->prefix, name,
                     text);
}

int walk_line(const struct walk *walk, const char *name)
{
    for (size_t i = 0; i < walk->count; i++) {
        if (strcmp(walk->rows[i].name, name) == 0) {
            return walk->nodes[i] == NULL ? 0 : walk->nodes[i]->line;
        }
    }
    ensure_failed("a setting of this name", __FILE__, __LINE__);
}

static bool out_of_memory(const struct walk *walk)
{
    return error_set(walk->error, ERROR_MEMORY, "%s: out of memory", walk->file);
}

/* --- what was found, for the end of a complaint */

struct found {
    char text[SHOWN_LIMIT + 16];
};

static struct found describe(const struct tree_node *node)
{
    struct found found;
    if (node->kind == TREE_MAP) {
        (void)snprintf(found.text, sizeof found.text, "keys with values");
    } else if (node->kind == TREE_LIST) {
        (void)snprintf(found.text, sizeof found.text, "a list");
    } else if (tree_is_null(node)) {
        (void)snprintf(found.text, sizeof found.text, "nothing");
    } else {
        bool cut = strlen(node->text) > SHOWN_LIMIT;
        (void)snprintf(found.text, sizeof found.text, "\"%.*s%s\"", SHOWN_LIMIT, node->text,
                       cut ? "..." : "");
    }
    return found;
}

static bool is_value(const struct tree_node *node)
{
    return node->kind == TREE_SCALAR && !tree_is_null(node);
}

/* --- one function for each type of value */

static void *field_of(const struct walk *walk, const struct setting *row)
{
    return (char *)walk->target + row->offset;
}

static bool store_text(const struct walk *walk, size_t offset, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) {
        return out_of_memory(walk);
    }
    memcpy((char *)walk->target + offset, &copy, sizeof copy);
    return true;
}

/* What a terminal or a log would stumble over has no business in a host, a role or a path. */
static bool is_clean(const char *text, bool lines_allowed)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c < 0x20 && !(lines_allowed && (c == '\n' || c == '\t'))) || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool take_string(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    if (!is_value(node)) {
        return walk_complain(walk, node->line, row->name, "expected a text, found %s", describe(node).text);
    }
    if (!is_clean(node->text, row->type == SETTING_TEXT)) {
        return walk_complain(walk, node->line, row->name, "expected a text without control characters");
    }
    char *path = NULL;
    const char *text = node->text;
    if (row->type == SETTING_PATH && text[0] != '\0' && text[0] != '/') {
        if (asprintf(&path, "%s%s%s", walk->folder, strcmp(walk->folder, "/") == 0 ? "" : "/", text) < 0) {
            return out_of_memory(walk);
        }
        text = path;
    }
    int64_t length = (int64_t)strlen(text);
    bool ok = length >= row->least && length <= row->most;
    if (ok) {
        ok = store_text(walk, row->offset, text);
    } else if (length == 0) {
        (void)walk_complain(walk, node->line, row->name, "expected a text, found an empty one");
    } else {
        (void)walk_complain(walk, node->line, row->name, "expected at most %" PRId64 " bytes, found %" PRId64,
                            row->most, length);
    }
    free(path);
    return ok;
}

static bool take_number(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    bool duration = row->type == SETTING_DURATION;
    int64_t number = 0;
    enum unit_result result = UNIT_OK;
    if (is_value(node)) {
        result =
            duration ? unit_parse_duration(node->text, &number) : unit_parse_integer(node->text, &number);
    }
    if (is_value(node) && result == UNIT_OK && number >= row->least && number <= row->most) {
        memcpy(field_of(walk, row), &number, sizeof number);
        return true;
    }
    if (duration) {
        char least[UNIT_TEXT_SIZE], most[UNIT_TEXT_SIZE];
        return walk_complain(walk, node->line, row->name,
                             "expected a duration from %s to %s (units us ms s m h), found %s%s",
                             unit_format_duration(row->least, least), unit_format_duration(row->most, most),
                             describe(node).text, unit_explain(result));
    }
    return walk_complain(walk, node->line, row->name,
                         "expected a whole number from %" PRId64 " to %" PRId64 ", found %s", row->least,
                         row->most, describe(node).text);
}

static bool take_percent(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    double ratio = 0;
    enum unit_result result = is_value(node) ? unit_parse_percent(node->text, &ratio) : UNIT_OK;
    if (is_value(node) && result == UNIT_OK && ratio * 100 <= (double)row->most) {
        memcpy(field_of(walk, row), &ratio, sizeof ratio);
        return true;
    }
    return walk_complain(walk, node->line, row->name,
                         "expected a percentage such as 20%%, at most %" PRId64 "%%, found %s%s", row->most,
                         describe(node).text, unit_explain(result));
}

static bool take_boolean(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    bool truth = is_value(node) && strcmp(node->text, "true") == 0;
    if (!truth && !(is_value(node) && strcmp(node->text, "false") == 0)) {
        return walk_complain(walk, node->line, row->name, "expected true or false, found %s",
                             describe(node).text);
    }
    memcpy(field_of(walk, row), &truth, sizeof truth);
    return true;
}

static const char *list_words(const struct setting *row, char text[WORDS_SIZE])
{
    size_t length = 0;
    text[0] = '\0';
    for (const char *const *word = row->words; *word != NULL && length < WORDS_SIZE; word++) {
        length +=
            (size_t)snprintf(text + length, WORDS_SIZE - length, "%s%s", length == 0 ? "" : " | ", *word);
    }
    return text;
}

static bool find_word(const struct setting *row, const struct tree_node *node, int64_t *index)
{
    for (int64_t i = 0; is_value(node) && row->words[i] != NULL; i++) {
        if (strcmp(row->words[i], node->text) == 0) {
            *index = i;
            return true;
        }
    }
    return false;
}

static bool complain_word(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    char words[WORDS_SIZE];
    (void)walk_complain(walk, node->line, row->name, "expected %s%s, found %s",
                        row->type == SETTING_WORDS ? "a list of " : "", list_words(row, words),
                        describe(node).text);
    return row->hint == NULL ? false : error_remedy(walk->error, "%s", row->hint);
}

static bool take_word(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    int64_t index = 0;
    if (!find_word(row, node, &index)) {
        return complain_word(walk, row, node);
    }
    if (row->size == sizeof(int64_t)) {
        memcpy(field_of(walk, row), &index, sizeof index);
    } else {
        unsigned word = (unsigned)index;
        ENSURE(row->size == sizeof word);
        memcpy(field_of(walk, row), &word, sizeof word);
    }
    return true;
}

static bool take_words(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    int64_t mask = 0;
    if (node->kind != TREE_LIST || node->first == NULL) {
        return complain_word(walk, row, node);
    }
    for (const struct tree_node *item = node->first; item != NULL; item = item->next) {
        int64_t index = 0;
        if (!find_word(row, item, &index)) {
            return complain_word(walk, row, item);
        }
        mask |= INT64_C(1) << index;
    }
    memcpy(field_of(walk, row), &mask, sizeof mask);
    return true;
}

static bool take_list(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    struct settings_list *list = field_of(walk, row);
    if (node->kind != TREE_LIST) {
        return walk_complain(walk, node->line, row->name, "expected a list such as [ a, b ], found %s",
                             describe(node).text);
    }
    for (const struct tree_node *item = node->first; item != NULL; item = item->next) {
        if (!is_value(item)) {
            return walk_complain(walk, item->line, row->name, "expected a list of texts, found %s in it",
                                 describe(item).text);
        }
        if (list->count == (size_t)row->most) {
            return walk_complain(walk, item->line, row->name, "expected at most %" PRId64 " items",
                                 row->most);
        }
        if (!settings_list_add(list, item->text)) {
            return out_of_memory(walk);
        }
    }
    if (list->count < (size_t)row->least) {
        return walk_complain(walk, node->line, row->name, "expected at least one item, found an empty list");
    }
    return true;
}

static bool take_counts(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    struct settings_counts *counts = field_of(walk, row);
    if (node->kind != TREE_MAP) {
        return walk_complain(walk, node->line, row->name, "expected names with numbers, { a: 10 }, found %s",
                             describe(node).text);
    }
    for (const struct tree_node *item = node->first; item != NULL; item = item->next) {
        int64_t number = 0;
        if (!is_value(item) || unit_parse_integer(item->text, &number) != UNIT_OK || number < row->least ||
            number > row->most) {
            return walk_complain(walk, item->line, row->name,
                                 "%.*s: expected a whole number from %" PRId64 " to %" PRId64 ", found %s",
                                 SHOWN_LIMIT, item->key, row->least, row->most, describe(item).text);
        }
        if (!settings_counts_add(counts, item->key, number)) {
            return out_of_memory(walk);
        }
    }
    return true;
}

/* "host:port", "[::1]:port", or "" for off: then the port is 0. */
static bool take_address(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    int64_t port = 0;
    char host[256] = "";
    bool ok = is_value(node) && strlen(node->text) < sizeof host && is_clean(node->text, false);
    if (ok && node->text[0] != '\0') {
        const char *colon = strrchr(node->text, ':');
        ok = colon != NULL && colon != node->text && unit_parse_integer(colon + 1, &port) == UNIT_OK &&
             port >= 1 && port <= 65535;
        if (ok) {
            const char *start = node->text;
            size_t length = (size_t)(colon - start);
            bool bracketed = start[0] == '[' && start[length - 1] == ']' && length > 2;
            ok = bracketed || memchr(start, ':', length) == NULL;
            (void)snprintf(host, sizeof host, "%.*s", (int)(bracketed ? length - 2 : length),
                           bracketed ? start + 1 : start);
        }
    }
    if (!ok) {
        return walk_complain(walk, node->line, row->name,
                             "expected HOST:PORT, [IPv6]:PORT or \"\" (off), found %s", describe(node).text);
    }
    memcpy((char *)walk->target + row->port_offset, &port, sizeof port);
    return store_text(walk, row->offset, host);
}

static bool refuse_secret(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    (void)walk_complain(walk, node->line, row->name, "expected no secret in this file");
    return error_remedy(walk->error,
                        "write it to a file that only Switchback's user can read and name that with "
                        "%s%s_file, or name an environment variable with %s%s_env",
                        walk->prefix, row->name, walk->prefix, row->name);
}

static bool take(const struct walk *walk, const struct setting *row, const struct tree_node *node)
{
    switch (row->type) {
    case SETTING_STRING:
    case SETTING_TEXT:
    case SETTING_PATH:
        return take_string(walk, row, node);
    case SETTING_SECRET:
        return refuse_secret(walk, row, node);
    case SETTING_INTEGER:
    case SETTING_DURATION:
        return take_number(walk, row, node);
    case SETTING_PERCENT:
        return take_percent(walk, row, node);
    case SETTING_BOOLEAN:
        return take_boolean(walk, row, node);
    case SETTING_WORD:
        return take_word(walk, row, node);
    case SETTING_WORDS:
        return take_words(walk, row, node);
    case SETTING_ADDRESS:
        return take_address(walk, row, node);
    case SETTING_LIST:
        return take_list(walk, row, node);
    case SETTING_COUNTS:
        return take_counts(walk, row, node);
    case SETTING_GATES:
        return true;
    }
    return false;
}

/* --- finding the row of a key */

/* Suggests a key of the same section, else a setting elsewhere whose last part is the word. */
static void suggest(const struct walk *walk, const char *section, const char *key)
{
    char parts[128][NAME_SIZE / 2];
    const char *candidates[ARRAY_LENGTH(parts)];
    size_t count = 0, length = strlen(section);
    for (size_t i = 0; i < walk->count && count < ARRAY_LENGTH(parts); i++) {
        const char *name = walk->rows[i].name;
        if (strncmp(name, section, length) == 0 && walk->rows[i].type != SETTING_SECRET) {
            const char *part = name + length;
            (void)snprintf(parts[count], sizeof parts[count], "%.*s", (int)strcspn(part, "."), part);
            candidates[count] = parts[count];
            count++;
        }
    }
    const char *nearest = nearest_word(key, candidates, count);
    if (nearest != NULL) {
        (void)error_remedy(walk->error, "did you mean %s%s%s?", walk->prefix, section, nearest);
        return;
    }
    for (size_t i = 0; i < walk->count; i++) {
        const char *last = strrchr(walk->rows[i].name, '.');
        if (last != NULL && strcmp(last + 1, key) == 0) {
            (void)error_remedy(walk->error, "did you mean %s%s?", walk->prefix, walk->rows[i].name);
            return;
        }
    }
}

static bool complain_unknown(const struct walk *walk, const char *section, const struct tree_node *node)
{
    char name[NAME_SIZE];
    (void)snprintf(name, sizeof name, "%s%s", section, node->key);
    (void)walk_complain(walk, node->line, name, "unknown key");
    if (strchr(node->key, '.') != NULL) {
        return error_remedy(walk->error, "sections are nested (a: { b: ... }), not written with dots");
    }
    suggest(walk, section, node->key);
    return false;
}

static size_t find_row(const struct walk *walk, const char *name)
{
    size_t i = 0;
    while (i < walk->count && strcmp(walk->rows[i].name, name) != 0) {
        i++;
    }
    return i;
}

static bool is_section(const struct walk *walk, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < walk->count; i++) {
        if (strncmp(walk->rows[i].name, name, length) == 0 && walk->rows[i].name[length] == '.') {
            return true;
        }
    }
    return false;
}

/* The recursion is bounded by the depth of the names in the table. */
static bool fill_section(struct walk *walk, const char *section, const struct tree_node *map)
{
    for (const struct tree_node *node = map->first; node != NULL; node = node->next) {
        char name[NAME_SIZE], inner[NAME_SIZE + 1];
        (void)snprintf(name, sizeof name, "%s%s", section, node->key);
        (void)snprintf(inner, sizeof inner, "%s.", name);
        size_t row = strchr(node->key, '.') == NULL ? find_row(walk, name) : walk->count;
        if (row < walk->count) {
            walk->nodes[row] = node;
            if (!take(walk, &walk->rows[row], node)) {
                return false;
            }
        } else if (strchr(node->key, '.') != NULL || !is_section(walk, name)) {
            return complain_unknown(walk, section, node);
        } else if (node->kind == TREE_MAP) {
            if (!fill_section(walk, inner, node)) {
                return false;
            }
        } else if (!tree_is_null(node)) { /* nothing: all keys of a section are commented out */
            return walk_complain(walk, node->line, name, "expected keys with values, found %s",
                                 describe(node).text);
        }
    }
    return true;
}

bool walk_fill(struct walk *walk, const struct tree_node *map)
{
    return fill_section(walk, "", map);
}

static bool is_text(enum setting_type type)
{
    return type == SETTING_STRING || type == SETTING_TEXT || type == SETTING_PATH || type == SETTING_SECRET;
}

/* A fallback is written as in the file, and so it is read the same way; texts are never NULL. */
static bool take_fallback(const struct walk *walk, const struct setting *row)
{
    if (row->fallback == NULL) {
        return is_text(row->type) ? store_text(walk, row->offset, "") : true;
    }
    char *text = strdup(row->fallback);
    if (text == NULL) {
        return out_of_memory(walk);
    }
    struct tree_node word = {.kind = TREE_SCALAR, .text = text, .quoted = true};
    struct tree_node list = {.kind = TREE_LIST, .first = &word, .last = &word};
    bool ok = take(walk, row, row->type == SETTING_WORDS ? &list : &word);
    free(text);
    return ok;
}

bool walk_defaults(struct walk *walk)
{
    for (size_t i = 0; i < walk->count; i++) {
        const struct setting *row = &walk->rows[i];
        if (walk->nodes[i] != NULL) {
            continue;
        }
        if (row->required) {
            return walk_complain(walk, walk->line, row->name, "is missing: %s", row->doc);
        }
        if (!take_fallback(walk, row)) {
            return false;
        }
    }
    return true;
}
