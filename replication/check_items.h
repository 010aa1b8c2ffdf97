/*
 * What a run of the checks has found so far, item by item: check.c asks the clusters, this judges the
 * answers. Pure: a unit test feeds it results.
 */
#ifndef SWITCHBACK_REPLICATION_CHECK_ITEMS_H
#define SWITCHBACK_REPLICATION_CHECK_ITEMS_H

#include "replication/check.h"

#include <libpq-fe.h>

struct check_items {
    struct check_item *items; /* in the order in which their ids were first seen */
    size_t count;
    bool failed; /* out of memory: the list isn't whole */
};

/* Of what a finding is said: stands before the object's name. Empty parts are left out. */
struct check_place {
    const char *database; /* "" where only one is managed */
    const char *side;     /* "" for comparisons */
};

void check_items_deinit(struct check_items *items);

/* The item of that check, made if needed: passed, until something is found. NULL: out of memory. */
struct check_item *check_items_want(struct check_items *items, const struct check *check);

/* At the end, with the first row of each id: gives its item message and remedy. */
void check_items_describe(struct check_items *items, const struct check *check);

/* One finding. */
void check_items_add(struct check_items *items, const struct check *check, enum check_state state,
                     const char *object);

/* Rows of (state, object, detail). */
void check_items_found(struct check_items *items, const struct check *check, const struct check_place *place,
                       const PGresult *rows);

/* Rows of (key, value, state) of both sides; `names` are theirs, the active one first. */
void check_items_compare(struct check_items *items, const struct check *check,
                         const struct check_place *place, const char *const names[2], const PGresult *active,
                         const PGresult *standby);

#endif
