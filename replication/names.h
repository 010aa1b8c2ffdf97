/*
 * The names of what Switchback creates in the clusters, in one place: prepare creates, the flip uses,
 * finalize drops them. All fit PostgreSQL's 63 bytes and need no quoting, but for the trigger's.
 *
 * Publications and subscriptions are named by side: they are unique within a database. Slots are unique
 * within a cluster, so their names carry the database.
 */
#ifndef SWITCHBACK_REPLICATION_NAMES_H
#define SWITCHBACK_REPLICATION_NAMES_H

#include "conf/base/side.h"

#define NAMES_SCHEMA "switchback"
/* '!' sorts before what people use: triggers fire in the order of their names, and the fence must be first.
 */
#define NAMES_FENCE_TRIGGER "!switchback_fence"
/* All our sessions' application_name begins with this; ownership finds a dead controller's by it. */
#define NAMES_APPLICATION "switchback "

enum { NAMES_INSTANCE_SIZE = 9, NAMES_APPLICATION_SIZE = 64 };

/* Tells this process's sessions from an earlier one's: 8 random hexadecimal digits. Asked for first by
 * replication_new, before there are other threads. */
const char *names_instance(void);
/* "switchback work 1f0a33c2": of a session for `purpose`. Returns name. */
char *names_application(const char *purpose, char name[NAMES_APPLICATION_SIZE]);

/* The publication on `side`: "switchback_blue". */
const char *names_publication(enum side side);

/* The subscription that receives from `publisher`, on the other side: "switchback_from_blue". */
const char *names_subscription(enum side publisher);

enum { NAMES_SLOT_SIZE = 64 };

/*
 * The slot on `publisher` that feeds the other side's subscription in `database`:
 * "switchback_shop_1f0a33c2_to_green" (the readable part is cut to 20 bytes, the hash keeps it unique).
 * It is the application_name of the subscription's walsender too. Returns name.
 */
char *names_slot(enum side publisher, const char *database, char name[NAMES_SLOT_SIZE]);

#endif
