/* What the files of the mover share: one session's way through its steps. */
#ifndef SWITCHBACK_PROXY_MOVER_INTERNAL_H
#define SWITCHBACK_PROXY_MOVER_INTERNAL_H

#include "proxy/mover.h"

/* Alone changes a session's step, and with it how many are at it. */
void mover_set_step(struct session *session, enum mover_step step);
/* It is ready, immovable or failed: whoever waits for it is told. */
void mover_settle(struct session *session, enum mover_step step);
/* It can't be moved in this flip; the target is closed. */
void mover_fail(struct session *session, const char *reason);
/* A place has become free: the next ones. */
void mover_advance_others(struct worker *worker);
/* Sends what the target lacks, or settles. */
void mover_replay(struct session *session);
/* Each ParameterStatus of a greeting. */
void mover_each_parameter(struct slice greeting, struct session *session,
                          void (*note)(struct session *session, struct slice name, struct slice value));

/* mover_target.c */
void mover_open_target(struct session *session);
/* The target is gone: another one, or a failure. */
void mover_reopen_target(struct session *session, const char *reason);

#endif
