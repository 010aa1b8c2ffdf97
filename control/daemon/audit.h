/*
 * The audit log: who asked for what, what was decided and why. Each row holds the SHA-256 of itself and of
 * the row before, so that a row changed, removed or put in afterwards is found. (Who can write the file can
 * also write the whole chain anew: keep the last hash elsewhere to notice that.)
 *
 *   hash = SHA-256(previous hash, seq, time, uid, actor, action, detail), see audit.c for the exact bytes
 *
 * Used by the control socket's methods and by the controller for its own decisions, on the loop's thread.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_AUDIT_H
#define SWITCHBACK_CONTROL_DAEMON_AUDIT_H

#include "conf/base/error.h"
#include "control/daemon/store.h"

#include <jansson.h>
#include <stdint.h>

struct audit;

enum { AUDIT_NOBODY = -1 }; /* the uid of the daemon's own decisions; the actor is "switchback" */

MUST_USE struct audit *audit_new(struct store *store, struct error *error);
void audit_free(struct audit *audit);

/* detail: a JSON object that the call takes over, or NULL. A row that can't be written is logged as an error.
 */
void audit_append(struct audit *audit, int64_t uid, const char *actor, const char *action, json_t *detail);

/* The daemon's own decision: audit_append(AUDIT_NOBODY, "switchback", ...). */
void audit_decision(struct audit *audit, const char *action, json_t *detail);

/* The newest `limit` rows with a seq above `after`, oldest first: an array of {seq, time, uid, actor, action,
 * detail, hash}; valid during the callback. Off the loop. */
typedef void (*audit_list_done)(void *context, json_t *rows, const struct error *error);
void audit_list(struct audit *audit, uint64_t after, size_t limit, audit_list_done done, void *context);

struct audit_verdict {
    bool intact;
    uint64_t rows;
    uint64_t broken_seq; /* the first row that doesn't fit; 0 if intact */
    char reason[160];    /* "row 17 was changed", "row 12 is missing" ... */
    char last_hash[65];  /* of the last good row, in hex */
};
typedef void (*audit_verify_done)(void *context, const struct audit_verdict *verdict,
                                  const struct error *error);
void audit_verify(struct audit *audit, audit_verify_done done, void *context);

#endif
