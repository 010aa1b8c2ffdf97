/*
 * A session's state as a sorted list: what interrogate.c read from a server, and what move_replay.c compares
 * to find the differences that must travel. Counted, because the session's own server and its target have the
 * same one after a replay.
 */
#ifndef SWITCHBACK_PROXY_MOVE_SNAPSHOT_H
#define SWITCHBACK_PROXY_MOVE_SNAPSHOT_H

#include "proxy/wire/slice.h"

enum { SNAPSHOT_TEXT_MAX = 32 << 20, SNAPSHOT_ITEMS_MAX = 65536 }; /* bytes and items of one session */

enum snapshot_kind {
    SNAPSHOT_AUTHORIZATION, /* session_authorization and role, with their values */
    SNAPSHOT_SETTING,       /* set in the session; known to the server */
    SNAPSHOT_CUSTOM,        /* a setting asked for by its name, as traffic mentioned it */
    SNAPSHOT_CHANNEL,       /* LISTEN */
    SNAPSHOT_STATEMENT,     /* prepared by the protocol: value is its text, extra its type oids, "{23,25}" */
    SNAPSHOT_SQL_STATEMENT  /* prepared by SQL: value is the text of the PREPARE */
};

struct snapshot_item {
    uint8_t kind;
    uint32_t name, value, extra; /* where they begin in the text */
};

struct snapshot {
    unsigned references;
    char *text;
    size_t length, capacity;
    struct snapshot_item *items; /* by kind and name once sorted */
    size_t count, item_capacity;
};

MUST_USE struct snapshot *snapshot_new(void); /* with one reference; NULL: out of memory */
struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_unref(struct snapshot *snapshot); /* NULL is allowed */

/* False: out of memory or too large. */
MUST_USE bool snapshot_add(struct snapshot *snapshot, enum snapshot_kind kind, struct slice name,
                           struct slice value, struct slice extra);
/* Adds all items of a kind that another one has. */
MUST_USE bool snapshot_copy(struct snapshot *snapshot, const struct snapshot *from, enum snapshot_kind kind);
void snapshot_sort(struct snapshot *snapshot);

const char *snapshot_name(const struct snapshot *snapshot, const struct snapshot_item *item);
const char *snapshot_value(const struct snapshot *snapshot, const struct snapshot_item *item);
const char *snapshot_extra(const struct snapshot *snapshot, const struct snapshot_item *item);
/* The value of an item, NULL if there is none. The snapshot must be sorted and may be NULL. */
const char *snapshot_find(const struct snapshot *snapshot, enum snapshot_kind kind, const char *name);

/* Walks what differs between two sorted snapshots, either of which may be NULL, in the order of kind and
 * name. */
struct snapshot_change {
    enum snapshot_kind kind;
    const char *name;
    const char *old_value;     /* NULL: it is new */
    const char *value, *extra; /* NULL: it is gone */
};
struct snapshot_walk {
    const struct snapshot *old, *new;
    size_t old_index, new_index;
};
MUST_USE bool snapshot_next_change(struct snapshot_walk *walk, struct snapshot_change *change);

#endif
