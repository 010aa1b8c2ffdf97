/*
 * The daemon: `switchback serve`. Puts the parts together, runs the main loop until it is told to stop, and
 * takes everything apart again. Called by the command line only.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_SERVE_H
#define SWITCHBACK_CONTROL_DAEMON_SERVE_H

#include "conf/settings/settings.h"

/* Runs in the foreground until SIGTERM or SIGINT. Returns the exit status: 0 after an orderly stop, 1 if it
 * could not start, 2 if the configuration is wrong; errors go to standard error in words. */
int serve_run(const char *config_path);

/* What of a configuration shows only when it is used: files that it names. */
MUST_USE bool serve_check(const struct settings *settings, struct error *error);

#endif
