/*
 * What the event stream shows of the time before the daemon started: the flips that the journal knows. Used
 * by serve.c at start.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_EVENTS_HISTORY_H
#define SWITCHBACK_CONTROL_DAEMON_EVENTS_HISTORY_H

#include "control/daemon/events.h"
#include "control/daemon/journal.h"

/* Nothing is logged or delivered. A row that can't be read is passed over: recovery complains of it. */
MUST_USE bool events_restore(struct events *events, struct journal *journal, struct error *error);

#endif
