/*
 * The list of a worker's sessions, for `sessions`. If it is wanted exactly, each session at its boundary is
 * asked for its state first, a few at a time, while its client waits: what it holds, and whether it can move.
 * No flip may be near: then sessions are asked anyway, and what is known is told.
 */
#ifndef SWITCHBACK_PROXY_SESSION_LIST_H
#define SWITCHBACK_PROXY_SESSION_LIST_H

#include "proxy/move.h"

struct session;
struct worker;

struct session_list {
    bool stands;
    uint64_t request;
    unsigned asking;
    int64_t deadline_us;
};

/* Posts the answer to a request, now or when the sessions have been asked. */
void session_list_begin(struct worker *worker, uint64_t request, bool ask);

/* How the question to a session that isn't being moved has ended. */
void session_list_answered(struct session *session, enum move_answer answer);
void session_list_forget(struct session *session);
void session_list_check_deadline(struct worker *worker, int64_t now_us);

#endif
