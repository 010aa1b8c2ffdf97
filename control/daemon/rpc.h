/*
 * The control socket: JSON-RPC 2.0 over a Unix socket, one JSON document a line, at most 64 KiB each way in.
 * The peer is who the kernel says (SO_PEERCRED), its roles come from the configuration. A method is a row
 * {name, role, handler, doc}; a handler answers when it can, later or at once, and may send progress before.
 *
 *   → {"jsonrpc":"2.0","id":1,"method":"cutover","params":{"watch":true}}
 *   ← {"jsonrpc":"2.0","method":"progress","params":{...,"id":1}}         any number, before the response
 *   ← {"jsonrpc":"2.0","id":1,"result":{...}}
 *   ← {"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"...",
 *                                      "data":{"code":"flip_running","message":"...","remedy":"..."}}}
 *
 * `data` is there in every error, with the codes of conf/base/error.h; -32000 is an error of the method
 * itself, -32700 .. -32600 are JSON-RPC's own. Batches are refused: a line is a request. Requests of one
 * connection may be answered out of order; a closed connection doesn't end what it asked for.
 *
 * Streams (`subscribe`, `watch`) answer at once; then their notifications follow until the peer closes. A
 * stream whose peer doesn't read is ended with a notification {"method":"dropped","params":{"reason":...}}.
 *
 * Everything here is called on the loop's thread.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_RPC_H
#define SWITCHBACK_CONTROL_DAEMON_RPC_H

#include "conf/base/error.h"
#include "conf/settings/settings.h"
#include "control/daemon/roles.h"

#include <jansson.h>
#include <stdint.h>
#include <uv.h>

struct rpc;
struct rpc_call;   /* one request, until it is answered */
struct rpc_stream; /* what a call becomes that goes on sending */

enum { RPC_NAME_SIZE = 64, RPC_LINE_LIMIT = 64 * 1024, RPC_CONNECTIONS = 64 };

struct rpc_peer {
    uid_t uid;
    pid_t pid;
    char name[RPC_NAME_SIZE]; /* of the uid; the number if it has none */
    unsigned roles;           /* bits of roles.h */
};

/* --- methods -----------------------------------------------------------------------------------------------
 */

typedef void (*rpc_handler)(void *context, struct rpc_call *call);

struct rpc_method {
    const char *name;
    unsigned role; /* one bit of roles.h: what the caller must have */
    rpc_handler handler;
    const char *params; /* "key?: string, watch?: bool", for `methods` */
    const char *doc;    /* one line */
};

/* The table must outlive the server; may be called several times. A name that exists already is our bug. */
void rpc_register(struct rpc *rpc, const struct rpc_method *methods, size_t count, void *context);

/*
 * A handler ends each call exactly once: rpc_reply, rpc_fail or rpc_reply_stream, which free it. That also
 * holds when the peer is gone: the answer then goes nowhere.
 */
const struct rpc_peer *rpc_call_peer(const struct rpc_call *call);
const json_t *rpc_call_params(const struct rpc_call *call); /* an object, never NULL */

/*
 * Unpacks the parameters by jansson's format ("{s?s, s?b}"), strictly: a key that isn't in the format is an
 * error. Strings are borrowed from the call. False: the call was answered with -32602 and is gone.
 */
MUST_USE bool rpc_call_unpack(struct rpc_call *call, const char *format, ...);

void rpc_progress(struct rpc_call *call, json_t *params); /* an object, taken over */
void rpc_reply(struct rpc_call *call, json_t *result);    /* taken over; NULL: out of memory, an error */
void rpc_fail(struct rpc_call *call, const struct error *error);

/* gone is called once if the peer closes before the answer; the call stays valid and must still be ended. */
void rpc_call_on_gone(struct rpc_call *call, void (*gone)(void *context), void *context);

/* Answers, and keeps sending. ended is called once: the peer is gone, too slow, or the server stops; the
 * stream is invalid then. NULL: the peer is gone already (the call is freed, ended isn't called). */
struct rpc_stream *rpc_reply_stream(struct rpc_call *call, json_t *result, void (*ended)(void *context),
                                    void *context);
/* May end the stream, from inside: ended is called before it returns, false. params is taken over. */
bool rpc_stream_send(struct rpc_stream *stream, const char *method, json_t *params);
void rpc_stream_end(struct rpc_stream *stream); /* by the sender; ended isn't called */

/* --- the server --------------------------------------------------------------------------------------------
 */

struct rpc_config {
    const char *socket_path;
    struct roles *roles; /* taken over when rpc_start succeeds */
    /* Every call of a method that needs more than the role viewer, and every one that was denied; optional.
     */
    void (*called)(void *context, const struct rpc_peer *peer, const char *method, const json_t *params,
                   bool allowed);
    void *context;
    /* Who is at the other end of fd; NULL: ask the kernel. Tests put other people there. */
    bool (*identify)(void *context, int fd, uid_t *uid, gid_t *groups, size_t *group_count);
};
enum { RPC_GROUPS = 256 }; /* room in groups[], *group_count on the way in */

MUST_USE struct rpc *rpc_start(uv_loop_t *loop, const struct rpc_config *config, struct error *error);
void rpc_set_roles(struct rpc *rpc, struct roles *roles); /* taken over; holds for requests from now on */

/* Stops listening, ends streams and connections once their answers are flushed (at most a second), removes
 * the socket, then calls done and frees itself. Calls that are still open must be ended before. */
void rpc_stop(struct rpc *rpc, void (*done)(void *context), void *context);

#endif
