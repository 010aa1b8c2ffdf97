/*
 * The objects of one stream in one database: the publication and slot on its publisher, the subscription on
 * its subscriber. prepare makes them in both directions, finalize drops them. On a task's thread.
 */
#ifndef SWITCHBACK_REPLICATION_STREAM_H
#define SWITCHBACK_REPLICATION_STREAM_H

#include "replication/blocking.h"

struct stream {
    const struct brief *brief;
    struct blocking *publisher, *subscriber;
};

struct stream_facts {
    bool subscribed;   /* the subscription exists */
    bool enabled;      /* and runs */
    bool slot, usable; /* the slot exists; it holds all WAL that it needs */
    bool slot_active;
    bool same_tables; /* the subscription has what the publication lists */
};

MUST_USE bool stream_read(const struct stream *stream, struct stream_facts *facts, struct error *error);

/*
 * Tables that may never get in sync: their copy is finished ('f'), but the slot of their own that they need
 * to catch up is gone. A sync worker drops its slot a moment before it commits that its table is done; a
 * standby that crashes in between leaves such a table, and its worker fails for ever. So one that is found
 * again and again is lost, one that is found once may be just about done. *suspects is a text[] that the
 * caller owns and frees: in, those found before
 * ("{}": none); out, those of them (or, if there were none, all) that are found now.
 */
MUST_USE bool stream_find_stuck(const struct stream *stream, char **suspects, struct error *error);

/*
 * What the subscriber applies is on its disk before anybody hears of it: synchronous_commit = local, always.
 * With PostgreSQL's default for subscriptions, off, an apply worker that starts again confirms to its slot
 * what its predecessor had applied and not flushed, for its own list of commits is empty; a subscriber that
 * crashes then is never sent those rows again (proved on 15 and 17, both ways). A crash would forget tables
 * that were done, too. Never on: that waits for names that are left behind.
 */
MUST_USE bool stream_flush_commits(const struct stream *stream, struct error *error);

/* The publication lists exactly the managed tables and switchback.marker; columns only where the subscriber
 * lacks some. */
MUST_USE bool stream_publish(const struct stream *stream, struct error *error);

/* Makes the slot; waits for transactions that write. */
MUST_USE bool stream_create_slot(const struct stream *stream, struct error *error);

/* Appends CREATE SUBSCRIPTION: forward with initial copy and enabled, reverse without and disabled. */
MUST_USE bool stream_put_subscription(const struct stream *stream, bool forward, struct strbuf *sql,
                                      struct error *error);
/* Appends the connection string by which the subscriber reaches the publisher. */
void stream_put_conninfo(const struct stream *stream, struct strbuf *conninfo);

/* These drop what is there; nothing there is fine. A slot in use is waited for a little. */
MUST_USE bool stream_drop_subscription(struct blocking *subscriber, enum side publisher, struct error *error);
MUST_USE bool stream_drop_slot(struct blocking *publisher, struct error *error);
MUST_USE bool stream_drop_publication(struct blocking *publisher, struct error *error);

#endif
