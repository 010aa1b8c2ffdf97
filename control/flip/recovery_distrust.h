/* What recovery.c asks before it believes the journal and the facts. Included by recovery.c only. */
#ifndef SWITCHBACK_CONTROL_FLIP_RECOVERY_DISTRUST_H
#define SWITCHBACK_CONTROL_FLIP_RECOVERY_DISTRUST_H

#include "control/flip/recovery.h"

/* True: a cluster that is none of the pair's stands where the traffic would go, so nobody is served. Else
 * such a one is taken out of the facts: it is as good as away. */
MUST_USE bool recovery_is_foreign(const struct flip_history *history, struct flip_facts *facts,
                                  struct recovery *recovery);

/* A flip runs, as the journal says, but the clusters know of later ones: it is over. */
MUST_USE bool recovery_journal_is_older(const struct flip_history *history, const struct flip_facts *facts);

#endif
