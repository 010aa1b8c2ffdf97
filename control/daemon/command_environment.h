/* The environment of a command: what it needs to run, what it is told, and none of our secrets. Used by
 * command.c. */
#ifndef SWITCHBACK_CONTROL_DAEMON_COMMAND_ENVIRONMENT_H
#define SWITCHBACK_CONTROL_DAEMON_COMMAND_ENVIRONMENT_H

#include "control/daemon/command.h"

/* Ends with NULL; NULL itself: out of memory. */
MUST_USE char **command_environment_new(const struct command_environment *environment);
void command_environment_free(char **variables);

#endif
