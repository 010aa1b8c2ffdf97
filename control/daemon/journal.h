/*
 * The journal: what the controller is about to do and what came of it, on disk before it is acted on. One row
 * an intent or a result; what a row means is control/flip's business, here it is text. Rows are durable in
 * the order in which they were appended, and never changed or removed.
 *
 * Used by the controller, on the loop's thread.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_JOURNAL_H
#define SWITCHBACK_CONTROL_DAEMON_JOURNAL_H

#include "conf/base/error.h"
#include "control/daemon/store.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct journal;

enum { JOURNAL_WORD_SIZE = 32 };

struct journal_row {
    uint64_t seq;                  /* grows with each row; given by the journal */
    int64_t time_us;               /* wall clock, when it was appended */
    uint64_t flip;                 /* 0: none */
    char kind[JOURNAL_WORD_SIZE];  /* "intent", "result", "commit", "released" ... */
    char phase[JOURNAL_WORD_SIZE]; /* "" if it has none */
    const char *data;              /* a JSON object, or "" */
};

/* Reads what the journal knows. The store must outlive it. Blocks: for the daemon's start. */
MUST_USE struct journal *journal_new(struct store *store, struct error *error);
void journal_free(struct journal *journal); /* rows still being written keep their callbacks until the store
                                               is closed */

/*
 * Every row, oldest first; row->data is valid during the call. Blocks: for the daemon's start. Visiting ends
 * when visit returns false, which is not an error.
 */
MUST_USE bool journal_each(struct journal *journal,
                           bool (*visit)(void *context, const struct journal_row *row), void *context,
                           struct error *error);

/* done(NULL) once the row is durable; error: it isn't, or (a failing disk) nobody knows. Returns its seq. */
typedef void (*journal_done)(void *context, const struct error *error);
uint64_t journal_append(struct journal *journal, uint64_t flip, const char *kind, const char *phase,
                        const char *data, journal_done done, void *context);

/* A text by name beside the rows, the last one counts: whose clusters these are. done may be NULL. Recalling
 * blocks, for the daemon's start; "" if nothing is remembered. */
void journal_remember(struct journal *journal, const char *name, const char *value, journal_done done,
                      void *context);
MUST_USE bool journal_recall(struct journal *journal, const char *name, char *value, size_t size,
                             struct error *error);

/* Room for a flip's rows is made before it begins (store_reserve), and given back after. */
void journal_reserve(struct journal *journal, journal_done done, void *context);
void journal_idle(struct journal *journal);

/* The rows of the last `flips` flips, oldest first, as a JSON array of {seq, time, flip, kind, phase, data};
 * rows is valid during the callback. Off the loop. */
typedef void (*journal_report_done)(void *context, json_t *rows, const struct error *error);
void journal_report(struct journal *journal, size_t flips, journal_report_done done, void *context);

#endif
