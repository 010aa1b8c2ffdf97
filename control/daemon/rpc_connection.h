/*
 * One peer of the control socket: who it is, its bytes cut into lines, what is written to it, its end.
 * Knows nothing of JSON-RPC: rpc.c gets the lines and hands out documents. Used by rpc.c only.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_RPC_CONNECTION_H
#define SWITCHBACK_CONTROL_DAEMON_RPC_CONNECTION_H

#include "control/daemon/rpc.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct rpc_connection {
    struct rpc *rpc;
    struct rpc_peer peer;
    gid_t groups[RPC_GROUPS];
    size_t group_count;
    struct rpc_connection *previous, *next; /* rpc.c's list */

    /* what rpc.c hangs on it */
    struct rpc_call *calls;
    struct rpc_stream *streams;
    size_t call_count;

    bool admitted;    /* reads: its identity is known */
    bool is_stranger; /* had no role when it came */

    uv_pipe_t pipe;
    uv_timer_t timer;               /* closes it: the peer doesn't read, or a farewell must end */
    char found_name[RPC_NAME_SIZE]; /* written by the lookup, on another thread */
    uv_work_t lookup;               /* the name of its uid */
    int open_handles;               /* freed when the last of them (the lookup too) is gone */
    bool closing;
    bool ended;    /* the peer has sent all that it will send */
    bool farewell; /* closes as soon as everything is written */

    char *input;
    size_t length, capacity;
    bool skipping; /* the rest of a line that is too long */
};

struct rpc_connection_owner {
    bool (*identify)(void *context, int fd, uid_t *uid, gid_t *groups, size_t *group_count);
    void *identify_context;
};

/*
 * Takes the next connection from the listener; uid and groups are known then, or it is closing already. NULL:
 * out of memory. Whatever happens, rpc_connection_lost() and rpc_connection_freed() come at its end.
 */
struct rpc_connection *connection_accept(struct rpc *rpc, uv_stream_t *listener,
                                         const struct rpc_connection_owner *owner);

/* Looks up the name of the uid, then reads and calls rpc_connection_line(). */
void connection_begin(struct rpc_connection *connection);

void rpc_connection_send(struct rpc_connection *connection,
                         json_t *document);                        /* taken over; NULL is logged */
size_t connection_unsent(const struct rpc_connection *connection); /* bytes */
void connection_close(struct rpc_connection *connection);
void connection_limit(struct rpc_connection *connection, uint64_t within_ms);  /* unless it says something */
void connection_finish(struct rpc_connection *connection, uint64_t within_ms); /* close once all is written */

/* rpc.c's part. line isn't NUL-terminated; NULL: it was longer than RPC_LINE_LIMIT. */
void rpc_connection_line(struct rpc_connection *connection, const char *line, size_t length);
void rpc_connection_admitted(struct rpc_connection *connection);
void rpc_connection_lost(struct rpc_connection *connection);
void rpc_connection_freed(struct rpc *rpc, struct rpc_connection *connection);

#endif
