/* What the daemon needs of the system's limits. Used by serve.c at start and at each reload. */
#ifndef SWITCHBACK_CONTROL_DAEMON_LIMITS_H
#define SWITCHBACK_CONTROL_DAEMON_LIMITS_H

#include <stdint.h>

/* Raises the limit on open files to fit that many clients in a flip; logs a warning if it can't. */
void limits_raise_descriptors(int64_t max_clients);

#endif
