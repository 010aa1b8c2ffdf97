/*
 * Requests under way and streams: what hangs on a connection and ends with an answer. Implements that half of
 * rpc.h. Used by rpc.c only.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_RPC_CALL_H
#define SWITCHBACK_CONTROL_DAEMON_RPC_CALL_H

#include "control/daemon/rpc.h"
#include "control/daemon/rpc_connection.h"

#include <jansson.h>

/* JSON-RPC 2.0, section 5.1 */
enum {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_METHOD_NOT_FOUND = -32601,
    RPC_INVALID_PARAMS = -32602,
    RPC_METHOD_FAILED = -32000
};

/* The call hangs on the connection from now on; id NULL: a notification. Both are borrowed. NULL: out of
 * memory. */
struct rpc_call *call_new(struct rpc_connection *connection, json_t *id, json_t *params);

/* Answers without a call: id is borrowed, NULL stands for null. */
void call_error(struct rpc_connection *connection, json_t *id, int code, const struct error *error);
void call_refuse(struct rpc_connection *connection, json_t *id, int code, const char *message,
                 const char *remedy);

/* A connection whose peer has nothing more to ask closes after its last answer; so does one without a role.
 */
void call_close_if_over(struct rpc_connection *connection);

#endif
