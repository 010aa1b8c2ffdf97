#include "conf/hba/ident.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <string.h>

static const char reference[] = "\\1";

static char *copy_text(const char *text)
{
    char *copy = strdup(text);
    ENSURE(copy != NULL);
    return copy;
}

void hba_ident_free(struct hba_ident *ident)
{
    if (ident != NULL) {
        if (ident->has_pattern) {
            regfree(&ident->pattern);
        }
        hba_names_free(&ident->role);
        free(ident->template);
        free(ident->name);
        free(ident->map);
        free(ident);
    }
}

static bool has_shape(const struct hba_line *line, struct hba_problems *problems)
{
    if (line->count != 3) {
        hba_problem(problems, line->file, line->line, "a line is MAP SYSTEM-NAME ROLE: three fields, not %zu",
                    line->count);
        return false;
    }
    for (size_t i = 0; i < line->count; i++) {
        if (line->fields[i].count != 1) {
            hba_problem(problems, line->file, line->line, "field %zu: one value was expected, found %zu",
                        i + 1, line->fields[i].count);
            return false;
        }
    }
    return true;
}

static bool parse_name(struct hba_ident *ident, const struct hba_line *line, const char *text,
                       struct hba_problems *problems)
{
    char complaint[160];
    if (text[0] != '/') {
        ident->name = copy_text(text);
        return true;
    }
    if (!hba_pattern_compile(text + 1, &ident->pattern, complaint)) {
        hba_problem(problems, line->file, line->line, "\"%.100s\": %s", text, complaint);
        return false;
    }
    ident->has_pattern = true;
    return true;
}

static bool parse_role(struct hba_ident *ident, const struct hba_line *line, const struct hba_field *field,
                       struct hba_problems *problems)
{
    const char *text = field->words[0].text;
    ident->refers = ident->has_pattern && text[0] != '/' && strstr(text, reference) != NULL;
    if (ident->refers) {
        ident->template = copy_text(text);
        if (ident->pattern.re_nsub == 0) {
            hba_problem(problems, line->file, line->line,
                        "\"%.60s\" refers to a group in parentheses, and the pattern has none", text);
            return false;
        }
        return true;
    }
    hba_names_parse_users(&ident->role, line, field, problems);
    return ident->role.count == 1;
}

struct hba_ident *hba_ident_parse(const struct hba_line *line, struct hba_problems *problems)
{
    if (!has_shape(line, problems)) {
        return NULL;
    }
    struct hba_ident *ident = calloc(1, sizeof *ident);
    ENSURE(ident != NULL);
    ident->map = copy_text(line->fields[0].words[0].text);
    if (!parse_name(ident, line, line->fields[1].words[0].text, problems) ||
        !parse_role(ident, line, &line->fields[2], problems)) {
        hba_ident_free(ident);
        return NULL;
    }
    return ident;
}

/* Whether the template, with its first \1 replaced by the group, is the role. */
static bool is_filled(const char *template, const char *group, size_t length, const char *role)
{
    const char *at = strstr(template, reference);
    size_t before = (size_t)(at - template);
    const char *after = at + sizeof reference - 1;
    return strlen(role) == before + length + strlen(after) && memcmp(role, template, before) == 0 &&
           memcmp(role + before, group, length) == 0 && strcmp(role + before + length, after) == 0;
}

bool hba_ident_allows(const struct hba_ident *ident, const char *map, const char *name,
                      const struct hba_client *client)
{
    regmatch_t matches[2];
    if (strcmp(ident->map, map) != 0) {
        return false;
    }
    if (!ident->has_pattern) {
        return strcmp(ident->name, name) == 0 && hba_names_have_user(&ident->role, client);
    }
    if (regexec(&ident->pattern, name, ARRAY_LENGTH(matches), matches, 0) != 0) {
        return false;
    }
    if (!ident->refers) {
        return hba_names_have_user(&ident->role, client);
    }
    return matches[1].rm_so >= 0 && is_filled(ident->template, name + matches[1].rm_so,
                                              (size_t)(matches[1].rm_eo - matches[1].rm_so), client->user);
}
