/*
 * synchronous_standby_names: what it must say on a side so that a commit there waits until every managed
 * database's stream has it on the other side, and which values are ours to change.
 */
#ifndef SWITCHBACK_REPLICATION_STANDBY_NAMES_H
#define SWITCHBACK_REPLICATION_STANDBY_NAMES_H

#include "conf/base/side.h"
#include "conf/base/strbuf.h"
#include "conf/settings/settings.h"
#include "replication/replication.h"

/* "FIRST 2 (switchback_..., switchback_...)": all of them. A bare list would mean any first one. */
void standby_names_put(struct strbuf *text, enum side publisher, const struct settings_list *databases);

/* It names slots of ours and nothing else. Empty is nobody's. */
bool standby_names_are_ours(const char *value);

/* Takes ours away from `side`, which isn't the active one at `epoch`. */
void standby_names_empty(struct replication *replication, enum side side, uint64_t epoch, int64_t deadline_us,
                         replication_done done, void *context);

#endif
