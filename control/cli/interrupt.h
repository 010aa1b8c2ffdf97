/*
 * Ctrl-C while a verb waits: SIGINT is blocked but for the moments of waiting (client.c lets it through), and
 * only sets a flag, so that a waiting verb can detach in words. A second one ends the program.
 */
#ifndef SWITCHBACK_CONTROL_CLI_INTERRUPT_H
#define SWITCHBACK_CONTROL_CLI_INTERRUPT_H

#include <signal.h>

/* From now on; returns the flag. */
const volatile sig_atomic_t *interrupt_catch(void);

#endif
