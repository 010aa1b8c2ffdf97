/*
 * Fills a struct from a YAML tree by the rows of a table: finds the row of each key, checks type, unit and
 * bounds, stores the value at the row's offset, then fills in defaults. Used for the settings and for each
 * gate.
 */
#ifndef SWITCHBACK_CONF_SETTINGS_WALK_H
#define SWITCHBACK_CONF_SETTINGS_WALK_H

#include "conf/settings/table.h"
#include "conf/settings/tree.h"

struct walk {
    const char *file;   /* as errors name it */
    const char *folder; /* where relative paths start */
    const char *prefix; /* of the names in errors: "" or "gates.errors." */
    int line;           /* where the map begins; 0: it is the whole file */
    const struct setting *rows;
    size_t count;
    const struct tree_node **nodes; /* for each row: where it was given, NULL: not at all */
    void *target;                   /* zeroed before */
    struct error *error;
};

/* Stores what the map gives; rows of SETTING_GATES are only noted in nodes. */
MUST_USE bool walk_fill(struct walk *walk, const struct tree_node *map);

/* The defaults of what was not given; complains about what is required. */
MUST_USE bool walk_defaults(struct walk *walk);

/* Fills *error with "FILE:LINE: NAME: ..."; without a line if it is 0. Returns false. */
bool walk_complain(const struct walk *walk, int line, const char *name, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* The line where a setting was given, 0 if it was not. */
int walk_line(const struct walk *walk, const char *name);

#endif
