/* The control socket's file: made with care, replaced only if nobody listens on it. Used by rpc.c. */
#ifndef SWITCHBACK_CONTROL_DAEMON_RPC_SOCKET_H
#define SWITCHBACK_CONTROL_DAEMON_RPC_SOCKET_H

#include "conf/base/error.h"

#include <stdbool.h>

/*
 * A listening descriptor, or -1 with *error. The file is for the owner and its group alone; once roles are
 * configured everybody may connect, since it is then the peer's uid that decides what it may do.
 */
MUST_USE int rpc_socket_listen(const char *path, bool roles_configured, int backlog, struct error *error);
void rpc_socket_mode(const char *path, bool roles_configured);

#endif
