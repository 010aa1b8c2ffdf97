/* The maps of pg_ident.conf: who the system, or a certificate, says one is, and which roles one may be. */
#ifndef SWITCHBACK_CONF_HBA_IDENT_H
#define SWITCHBACK_CONF_HBA_IDENT_H

#include "conf/hba/names.h"

struct hba_ident {
    char *map;
    char *name;               /* literal, if it has no pattern */
    bool has_pattern, refers; /* refers: the role has the pattern's first group (\1) in it */
    regex_t pattern;
    struct hba_names role; /* one; not if it refers */
    char *template;        /* of the role, if it refers */
    struct hba_ident *next;
};

/* NULL: problems has been told why. */
MUST_USE struct hba_ident *hba_ident_parse(const struct hba_line *line, struct hba_problems *problems);
void hba_ident_free(struct hba_ident *ident);

/* The line is of this map, speaks of this name, and lets it be client->user. */
bool hba_ident_allows(const struct hba_ident *ident, const char *map, const char *name,
                      const struct hba_client *client);

#endif
