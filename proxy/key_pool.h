/*
 * Where the keys of clients' logins lie: pages that are locked into memory, left out of core dumps, and wiped
 * when a session ends. One pool for the process, since sessions come and go on every worker; a login takes
 * its lock twice, the data path never.
 */
#ifndef SWITCHBACK_PROXY_KEY_POOL_H
#define SWITCHBACK_PROXY_KEY_POOL_H

#include "conf/base/compiler.h"

struct session_keys;

/* NULL: out of memory. */
MUST_USE struct session_keys *keys_new(void);
/* Wipes them; NULL is allowed. */
void keys_free(struct session_keys *keys);

#endif
