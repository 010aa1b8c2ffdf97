/*
 * User-defined types whose oids differ between the sides, by database, as the controller has found them: a
 * worker's copy. Sessions point to their database's entry, which lives as long as the worker; an empty one
 * costs nothing on the data path.
 */
#ifndef SWITCHBACK_PROXY_DIFFERING_TYPES_H
#define SWITCHBACK_PROXY_DIFFERING_TYPES_H

#include "proxy/move.h"

struct differing_types {
    struct differing_types *next;
    char *database;
    uint32_t *oids;
    struct move_types types;
};

/* The types of a database, an entry being made if there is none. NULL: out of memory. */
MUST_USE const struct move_types *types_of(struct differing_types **all, const char *database);

/* Replaces the types of a database; takes the malloc'ed oids, ascending. False: out of memory. */
MUST_USE bool types_set(struct differing_types **all, const char *database, uint32_t *oids, size_t count);

void types_free(struct differing_types *all);

#endif
