/* Ownership of the pair (flip.md): nothing that an earlier controller sent may happen after us. */
#ifndef SWITCHBACK_REPLICATION_OWN_H
#define SWITCHBACK_REPLICATION_OWN_H

#include "replication/engine.h"

/* A side that wasn't there when ownership was taken gets our number. done's result may be ignored. */
void own_side(struct replication *replication, enum side side, replication_done done, void *context);

/* Writes what the configuration says into state: manager, migrators, local_tables. */
void own_write_settings(struct replication *replication);

#endif
