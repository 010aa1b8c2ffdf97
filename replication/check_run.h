/* The walk over the checks, for replication_check and for prepare's first step. On a task's thread. */
#ifndef SWITCHBACK_REPLICATION_CHECK_RUN_H
#define SWITCHBACK_REPLICATION_CHECK_RUN_H

#include "replication/brief.h"
#include "replication/check_items.h"
#include "replication/task.h"

/* Those whose ids are listed (NULL-terminated), or all with NULL. Fails only if the task must stop or memory
 * is out: what can't be asked is an item too. The caller deinits *items in any case. */
MUST_USE bool check_run(struct task *task, const struct brief *brief, enum side active,
                        const char *const *ids, struct check_items *items, struct error *error);

#endif
