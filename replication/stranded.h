/*
 * What a diverged side committed and the active side never got: read from the slot that fed the other, which
 * nobody reads any more. On a task's thread.
 */
#ifndef SWITCHBACK_REPLICATION_STRANDED_H
#define SWITCHBACK_REPLICATION_STRANDED_H

#include "replication/blocking.h"

/* More changes than these in one database are not listed one by one: prepare anew. */
enum { STRANDED_MOST = 100000 };

struct stranded_change {
    char *table;   /* quoted as SQL wants it */
    char *columns; /* of its key, {a,b}; NULL: it has none, or the table was truncated */
    char *key;     /* {1,x}: as text[] */
    char *shown;   /* "a=1, b=x" */
    const char *operation;
    char xid[16], lsn[REPLICATION_LSN_SIZE]; /* of its transaction, the end */
};

struct stranded {
    struct stranded_change *changes;
    size_t count, capacity, transactions;
    bool incomplete; /* there are more */
};

/* `has`: what the active side has of this one, "0/0" if it can't say. */
MUST_USE bool stranded_read(struct blocking *side, const char *has, struct stranded *stranded,
                            struct error *error);
void stranded_deinit(struct stranded *stranded);

/* {"a","b\"c"}: as text[] reads it. */
void stranded_put_array(struct strbuf *text, const char *const *items, const size_t *lengths, size_t count);

#endif
