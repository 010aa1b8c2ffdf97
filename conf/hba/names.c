#include "conf/hba/names.h"

#include "conf/base/ensure.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMPLAINT_SIZE = 160, PATTERN_LIMIT = 1000, COPIES_LIMIT = 1024 };

/* --- patterns --- */

/* What follows a backslash means the same for both: itself, or a class of characters. */
static bool is_portable_escape(char c)
{
    return isalnum((unsigned char)c) ? strchr("wWsS", c) != NULL : strchr("`'<>", c) == NULL;
}

/* *at stands on "["; it is left on the bracket's end, or on what can't be in it. */
static bool skip_bracket(const char **at)
{
    const char *c = *at + 1;
    c += *c == '^';
    c += *c == ']';
    for (; *c != '\0' && *c != ']' && *c != '\\'; c++) {
        if (*c == '[' && (c[1] == ':' || c[1] == '.' || c[1] == '=')) {
            const char kind = c[1];
            for (c += 2; *c != '\0' && (c[0] != kind || c[1] != ']'); c++) {
            }
            if (*c == '\0') {
                break; /* regcomp() complains */
            }
            c++;
        }
    }
    *at = *c == '\0' ? c - 1 : c;
    return *c != '\\';
}

static bool is_repetition(char c)
{
    return c == '*' || c == '+' || c == '?' || c == '}';
}

static bool is_refused(char complaint[COMPLAINT_SIZE], const char *what)
{
    (void)snprintf(complaint, COMPLAINT_SIZE, "%.30s is not supported in a regular expression here", what);
    return false;
}

/* What PostgreSQL's expressions have and POSIX's don't, or the other way, would silently mean something
 * else: "a+?" may be nothing here, and a backslash within brackets stands for itself. */
static bool is_portable(const char *text, char complaint[COMPLAINT_SIZE])
{
    bool repeated = false;
    if (strncmp(text, "***", 3) == 0) {
        return is_refused(complaint, "***");
    }
    for (const char *at = text; *at != '\0'; at++) {
        const char two[] = {at[0], at[1], '\0'};
        if ((at[0] == '(' && at[1] == '?') || (at[0] == '{' && at[1] == ',') ||
            (repeated && is_repetition(at[0]) && at[0] != '}')) {
            return is_refused(complaint,
                              repeated && is_repetition(at[0]) ? "a repetition of a repetition" : two);
        }
        repeated = is_repetition(at[0]);
        if (at[0] == '[' && !skip_bracket(&at)) {
            return is_refused(complaint, "a backslash in brackets");
        }
        if (at[0] == '\\') {
            at++;
            if (*at == '\0') {
                (void)snprintf(complaint, COMPLAINT_SIZE, "a regular expression ends in a backslash");
                return false;
            }
            if (!is_portable_escape(*at)) {
                return is_refused(complaint, two);
            }
        }
    }
    return true;
}

/* How often {n,m} makes a copy of what stands before it. *at is left at the last byte that was read. */
static unsigned long copies_of(const char **at)
{
    unsigned long least = 0, most = 0;
    char *end = NULL;
    least = strtoul(*at + 1, &end, 10);
    if (*end == ',') {
        most = strtoul(end + 1, &end, 10);
    }
    *at = end - 1;
    most = most > least ? most : least;
    return most < COPIES_LIMIT ? most + 1 : COPIES_LIMIT + 1;
}

/* regcomp() copies what is repeated, and copies of copies multiply: a few bytes could take all memory. */
static bool is_small(const char *text, char complaint[COMPLAINT_SIZE])
{
    unsigned long copies = 1;
    if (strlen(text) > PATTERN_LIMIT) {
        (void)snprintf(complaint, COMPLAINT_SIZE, "a regular expression has at most %d bytes", PATTERN_LIMIT);
        return false;
    }
    for (const char *at = text; *at != '\0' && copies <= COPIES_LIMIT; at++) {
        bool bound = *at == '{' && (isdigit((unsigned char)at[1]) || at[1] == ',');
        if (*at == '\\') {
            at++; /* is_portable(): something follows */
        } else if (bound) {
            copies *= copies_of(&at);
        } else if (*at == '+') {
            copies *= 2;
        }
    }
    if (copies > COPIES_LIMIT) {
        (void)snprintf(complaint, COMPLAINT_SIZE,
                       "the repetitions ({n,m} and +) of a regular expression multiply to more than %d here",
                       COPIES_LIMIT);
        return false;
    }
    return true;
}

bool hba_pattern_compile(const char *text, regex_t *pattern, char complaint[COMPLAINT_SIZE])
{
    if (!is_portable(text, complaint) || !is_small(text, complaint)) {
        return false;
    }
    int failure = regcomp(pattern, text, REG_EXTENDED);
    if (failure != 0) {
        char why[100];
        (void)regerror(failure, pattern, why, sizeof why);
        (void)snprintf(complaint, COMPLAINT_SIZE, "invalid regular expression: %s", why);
        return false;
    }
    return true;
}

/* --- parsing --- */

static void set_text(struct hba_name *name, enum hba_name_kind kind, const char *text)
{
    name->kind = kind;
    name->text = strdup(text);
    ENSURE(name->text != NULL);
}

/* What databases and users have in common: patterns and literals. */
static bool parse_plain(struct hba_name *name, const struct hba_line *line, const struct hba_word *word,
                        struct hba_problems *problems)
{
    char complaint[COMPLAINT_SIZE];
    if (word->text[0] != '/') {
        set_text(name, HBA_NAME_LITERAL, word->text);
        return true;
    }
    if (!hba_pattern_compile(word->text + 1, &name->pattern, complaint)) {
        hba_problem(problems, line->file, line->line, "\"%.100s\": %s", word->text, complaint);
        return false;
    }
    set_text(name, HBA_NAME_PATTERN, word->text + 1);
    return true;
}

static bool parse_database(struct hba_name *name, const struct hba_line *line, const struct hba_word *word,
                           struct hba_problems *problems)
{
    static const struct {
        const char *keyword;
        enum hba_name_kind kind;
    } keywords[] = {
        {"all", HBA_NAME_ALL},
        {"sameuser", HBA_NAME_SAMEUSER},
        {"samerole", HBA_NAME_SAMEROLE},
        {"samegroup", HBA_NAME_SAMEROLE},
        {"replication", HBA_NAME_REPLICATION},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(keywords); i++) {
        if (hba_word_is(word, keywords[i].keyword)) {
            name->kind = keywords[i].kind;
            return true;
        }
    }
    return parse_plain(name, line, word, problems);
}

static bool parse_user(struct hba_name *name, const struct hba_line *line, const struct hba_word *word,
                       struct hba_problems *problems)
{
    if (hba_word_is(word, "all")) {
        name->kind = HBA_NAME_ALL;
        return true;
    }
    if (!word->quoted && word->text[0] == '+') {
        set_text(name, HBA_NAME_GROUP, word->text + 1);
        return true;
    }
    return parse_plain(name, line, word, problems);
}

static void parse_names(struct hba_names *names, const struct hba_line *line, const struct hba_field *field,
                        struct hba_problems *problems,
                        bool (*parse)(struct hba_name *, const struct hba_line *, const struct hba_word *,
                                      struct hba_problems *))
{
    names->list = calloc(field->count + 1, sizeof *names->list);
    ENSURE(names->list != NULL);
    for (size_t i = 0; i < field->count; i++) {
        names->count += parse(&names->list[names->count], line, &field->words[i], problems) ? 1 : 0;
    }
}

void hba_names_parse_databases(struct hba_names *names, const struct hba_line *line,
                               const struct hba_field *field, struct hba_problems *problems)
{
    parse_names(names, line, field, problems, parse_database);
}

void hba_names_parse_users(struct hba_names *names, const struct hba_line *line,
                           const struct hba_field *field, struct hba_problems *problems)
{
    parse_names(names, line, field, problems, parse_user);
}

void hba_names_free(struct hba_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->list[i].kind == HBA_NAME_PATTERN) {
            regfree(&names->list[i].pattern);
        }
        free(names->list[i].text);
    }
    free(names->list);
    *names = (struct hba_names){.list = NULL};
}

/* --- matching --- */

static bool is_member(const struct hba_client *client, const char *role)
{
    return client->is_member != NULL && client->is_member(client->context, role);
}

static bool is_plain_match(const struct hba_name *name, const char *text)
{
    return (name->kind == HBA_NAME_LITERAL && strcmp(name->text, text) == 0) ||
           (name->kind == HBA_NAME_PATTERN && regexec(&name->pattern, text, 0, NULL, 0) == 0);
}

static bool is_database(const struct hba_name *name, const struct hba_client *client)
{
    if (client->physical) { /* names no database: only this word means it */
        return name->kind == HBA_NAME_REPLICATION;
    }
    switch (name->kind) {
    case HBA_NAME_ALL:
        return true;
    case HBA_NAME_SAMEUSER:
        return strcmp(client->database, client->user) == 0;
    case HBA_NAME_SAMEROLE:
        return is_member(client, client->database);
    default:
        return is_plain_match(name, client->database);
    }
}

bool hba_names_have_database(const struct hba_names *names, const struct hba_client *client)
{
    for (size_t i = 0; i < names->count; i++) {
        if (is_database(&names->list[i], client)) {
            return true;
        }
    }
    return false;
}

bool hba_names_have_user(const struct hba_names *names, const struct hba_client *client)
{
    for (size_t i = 0; i < names->count; i++) {
        const struct hba_name *name = &names->list[i];
        if (name->kind == HBA_NAME_ALL || is_plain_match(name, client->user) ||
            (name->kind == HBA_NAME_GROUP && is_member(client, name->text))) {
            return true;
        }
    }
    return false;
}

bool hba_names_need_groups(const struct hba_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->list[i].kind == HBA_NAME_GROUP || names->list[i].kind == HBA_NAME_SAMEROLE) {
            return true;
        }
    }
    return false;
}
