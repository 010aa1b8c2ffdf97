/*
 * Ownership of the pair. A dead controller's statements outlive it: a fence that waited for a lock would
 * commit after its successor has seen that nothing runs. So whoever begins ends the sessions of those before,
 * waits until they are gone, and raises the owner's number in every state row, which each of our writing
 * transactions checks.
 */
#ifndef SWITCHBACK_REPLICATION_OWN_H
#define SWITCHBACK_REPLICATION_OWN_H

#include "replication/engine.h"

/* A side that wasn't there when ownership was taken gets our number. done's result may be ignored. */
void own_side(struct replication *replication, enum side side, replication_done done, void *context);

/* Writes what the configuration says into state: manager, migrators, local_tables. */
void own_write_settings(struct replication *replication);

#endif
