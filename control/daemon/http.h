/*
 * The read-only http server: /healthz, /readyz and /metrics. It runs on its own thread and sees nothing but
 * the last snapshot that the main loop gave it, so no scrape can disturb a flip. Used by serve.c.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_HTTP_H
#define SWITCHBACK_CONTROL_DAEMON_HTTP_H

#include "conf/base/error.h"
#include "control/daemon/metrics.h"

#include <stdint.h>

struct http;

/* Binds host:port (port 0: any, see http_port) and starts the thread. Until the first snapshot /readyz is
 * 503. */
MUST_USE struct http *http_start(const char *host, uint16_t port, struct error *error);
uint16_t http_port(const struct http *http);

void http_publish(struct http *http, const struct metrics *metrics); /* copied */
void http_stop(struct http *http); /* waits for the thread, frees; NULL is fine */

#endif
