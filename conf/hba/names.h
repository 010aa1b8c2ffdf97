/*
 * The names that a rule speaks of, databases or roles: literal, keywords, +group, or a regular expression
 * after a slash (PostgreSQL 16 has them; they are POSIX extended ones here, and what PostgreSQL's have beyond
 * those is refused).
 */
#ifndef SWITCHBACK_CONF_HBA_NAMES_H
#define SWITCHBACK_CONF_HBA_NAMES_H

#include "conf/hba/hba.h"
#include "conf/hba/lines.h"

#include <regex.h>

enum hba_name_kind {
    HBA_NAME_LITERAL,
    HBA_NAME_PATTERN,
    HBA_NAME_ALL,
    HBA_NAME_SAMEUSER,
    HBA_NAME_SAMEROLE,
    HBA_NAME_REPLICATION,
    HBA_NAME_GROUP
};

struct hba_name {
    enum hba_name_kind kind;
    char *text; /* of a literal, a group (without the +) or a pattern (without the slash) */
    regex_t pattern;
};

struct hba_names {
    struct hba_name *list;
    size_t count;
};

void hba_names_parse_databases(struct hba_names *names, const struct hba_line *line,
                               const struct hba_field *field, struct hba_problems *problems);
void hba_names_parse_users(struct hba_names *names, const struct hba_line *line,
                           const struct hba_field *field, struct hba_problems *problems);
void hba_names_free(struct hba_names *names);

bool hba_names_have_database(const struct hba_names *names, const struct hba_client *client);
bool hba_names_have_user(const struct hba_names *names, const struct hba_client *client);
/* They can only be judged by one who knows of which roles a role is a member. */
bool hba_names_need_groups(const struct hba_names *names);

/* False: *complaint is filled. */
MUST_USE bool hba_pattern_compile(const char *text, regex_t *pattern, char complaint[160]);

#endif
