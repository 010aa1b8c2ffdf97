/*
 * What went wrong, in words for an operator. Fallible functions return false (or NULL) and fill a `struct
 * error` that the caller owns: a code that scripts may match (it stands in `{error: {code, message, remedy}}`
 * of the control socket), a message that names the thing, and a remedy that says what to do about it.
 */
#ifndef SWITCHBACK_CONF_BASE_ERROR_H
#define SWITCHBACK_CONF_BASE_ERROR_H

#include "conf/base/compiler.h"

#include <stdbool.h>

/* name, text that scripts see */
#define ERROR_MAP(X)                                                                                         \
    X(ERROR_NONE, "none")                                                                                    \
    X(ERROR_INTERNAL, "internal") /* our side: should not happen, still answered */                          \
    X(ERROR_SYSTEM, "system")     /* an operating system call failed */                                      \
    X(ERROR_MEMORY, "out_of_memory")                                                                         \
    X(ERROR_USAGE, "usage") /* a verb's or method's arguments */                                             \
    X(ERROR_CONFIG, "configuration")                                                                         \
    X(ERROR_PERMISSION, "permission_denied") /* the peer's role does not allow the method */                 \
    X(ERROR_UNREACHABLE, "unreachable")      /* a side can't be reached, or its connection was lost */       \
    X(ERROR_TIMEOUT, "timeout")                                                                              \
    X(ERROR_SQL, "sql")     /* a cluster refused a statement */                                              \
    X(ERROR_STALE, "stale") /* owner, epoch or flip in a state row is not ours */                            \
    X(ERROR_NOT_PREPARED, "not_prepared")                                                                    \
    X(ERROR_NOT_IN_SYNC, "not_in_sync")                                                                      \
    X(ERROR_CHECK_FAILED, "check_failed")                                                                    \
    X(ERROR_GATE_FAILED, "gate_failed")                                                                      \
    X(ERROR_COMMAND_FAILED, "command_failed") /* a hook's or backup's command */                             \
    X(ERROR_FLIP_RUNNING, "flip_running")                                                                    \
    X(ERROR_NO_FLIP, "no_flip")                                                                              \
    X(ERROR_ALREADY_ACTIVE, "already_active")                                                                \
    X(ERROR_IN_WATCH, "in_watch")                                                                            \
    X(ERROR_TOO_LATE, "too_late") /* past the commit point */                                                \
    X(ERROR_DRAIN_TIMEOUT, "drain_timeout")                                                                  \
    X(ERROR_IMMOVABLE, "immovable_sessions")                                                                 \
    X(ERROR_WAY_BACK_CLOSED, "way_back_closed")                                                              \
    X(ERROR_NO_PROMISE, "no_promise")           /* the synchronous way back could not be had, or was lost */ \
    X(ERROR_SIDE_DEAD, "side_dead")             /* the active side does not answer */                        \
    X(ERROR_COMMITS_AT_RISK, "commits_at_risk") /* going back would lose them: --accept-loss */              \
    X(ERROR_WRONG_CLUSTER, "wrong_cluster")     /* what answers at a side's address is none of this pair */  \
    X(ERROR_DIVERGED, "diverged")               /* a side holds what the other never got: rejoin */          \
    X(ERROR_NOT_DIVERGED, "not_diverged")       /* there is nothing to rejoin */                             \
    X(ERROR_UNDECIDED, "undecided")             /* an operator must decide */                                \
    X(ERROR_ABORTED, "aborted")                                                                              \
    X(ERROR_HELD, "held")         /* a hold of another owner stands */                                       \
    X(ERROR_PROTOCOL, "protocol") /* a peer broke its protocol */                                            \
    X(ERROR_DAEMON_UNREACHABLE, "daemon_unreachable")

enum error_code {
#define X(name, text) name,
    ERROR_MAP(X)
#undef X
};

enum { ERROR_MESSAGE_SIZE = 768, ERROR_REMEDY_SIZE = 384 };

struct error {
    enum error_code code;
    char message[ERROR_MESSAGE_SIZE];
    char remedy[ERROR_REMEDY_SIZE]; /* empty: nothing better than the message */
};

/* Fills *error; control characters of the arguments are escaped. Returns false, so that callers can `return
 * error_set(...)`. */
bool error_set(struct error *error, enum error_code code, const char *format, ...) PRINTF_LIKE(3, 4);

/* Adds what to do about it. Returns false too. */
bool error_remedy(struct error *error, const char *format, ...) PRINTF_LIKE(2, 3);

void error_clear(struct error *error);

/* The code as scripts see it, and back; an unknown text is ERROR_INTERNAL. */
const char *error_code_text(enum error_code code);
enum error_code error_code_parse(const char *text);

#endif
