/*
 * The controller: carries out what the runner (control/flip) decides, over the proxy, replication, the
 * journal, commands and gates, and answers the control socket's verbs. It owns the proxy and replication: it
 * starts, reloads and stops them. Everything on the main loop's thread. Used by serve.c only.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_CONTROLLER_H
#define SWITCHBACK_CONTROL_DAEMON_CONTROLLER_H

#include "conf/base/error.h"
#include "conf/settings/settings.h"
#include "control/daemon/audit.h"
#include "control/daemon/events.h"
#include "control/daemon/journal.h"
#include "control/daemon/metrics.h"
#include "control/daemon/rpc.h"

#include <stdint.h>
#include <uv.h>

struct controller;

struct controller_config {
    uv_loop_t *loop;
    const struct settings *settings; /* outlives the controller, as every later one does */
    struct journal *journal;
    struct audit *audit;
    struct events *events;
    int64_t started_us;                  /* wall clock, of the daemon */
    const struct proxy_sockets *sockets; /* that clients connect to, instead of the settings' */
};

/*
 * Reads the journal, starts the proxy with no side open, starts replication, and begins to recover. NULL with
 * *error: the journal can't be read, a port is in use ...: nothing of it runs then.
 */
MUST_USE struct controller *controller_start(const struct controller_config *config, struct error *error);

/* Its methods (status, check, prepare, cutover ...) on the control socket. */
void controller_register(struct controller *controller, struct rpc *rpc);

/* From now on the settings are these; a running flip keeps the options that it began with. */
void controller_reload(struct controller *controller, const struct settings *settings);

/* Asks the workers whether they live; answers: they did, to the last time that they were asked. */
void controller_ping(struct controller *controller);
bool controller_answers(const struct controller *controller);

/* The figures of this moment, for /metrics and /readyz; started_wall_us too. */
void controller_metrics(struct controller *controller, struct metrics *metrics);

/*
 * Stops in order: open calls get an answer, a running flip stays where the journal says (the next start goes
 * on), commands are ended, clients get 57P01 at their boundary, replication's connections are closed. Then it
 * calls done, from the loop, and frees itself. Until then its methods answer that the daemon is stopping.
 */
void controller_stop(struct controller *controller, void (*done)(void *context), void *context);

/* It is stopping: doesn't wait for running work any longer. */
void controller_hurry(struct controller *controller);

#endif
