/*
 * Opens the listeners of all workers before these run, so that what can't be had is an error of the start:
 * the TCP and Unix sockets of the settings, or those that were passed to the daemon in their place.
 */
#ifndef SWITCHBACK_PROXY_LISTENING_H
#define SWITCHBACK_PROXY_LISTENING_H

#include "proxy/listener.h"
#include "proxy/proxy.h"

struct worker_shared;

typedef char unix_socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];

/*
 * unix_path: of the Unix socket that was made, to be removed in the end; else it stays as it is. The passed
 * sockets are duplicated, not closed.
 */
MUST_USE bool listening_open(struct worker_shared *shared, const struct settings *settings,
                             const struct proxy_sockets *passed, unix_socket_path unix_path,
                             struct error *error);

#endif
