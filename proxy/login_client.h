/*
 * A client's login, from the first byte to ReadyForQuery: startup packets, the limits and policies that may
 * refuse it, authentication by the proxy itself, then the login to the active side on its behalf, which waits
 * while the gate is closed. session.c and route_hold.c call it.
 */
#ifndef SWITCHBACK_PROXY_LOGIN_CLIENT_H
#define SWITCHBACK_PROXY_LOGIN_CLIENT_H

#include "proxy/proxy.h"

#include <stddef.h>
#include <stdint.h>

struct letter;
struct session;
struct worker;

MUST_USE bool login_client_begin(struct session *session);
void login_client_free(struct session *session);

void login_client_received(struct session *session, const char *bytes, size_t length);
/* TLS stands: may it? */
void login_client_secured(struct session *session);
bool login_client_wants_bytes(const struct session *session);

/* The connection sent a CancelRequest, and waits for its end. */
bool login_client_is_cancel(const struct session *session);
/* Nothing came from it that says what it wants. */
bool login_client_is_silent(const struct session *session);
/* Authenticated, and waits for the gate, or for a side that can be reached. */
bool login_client_waits(const struct session *session);
/* The same, for a side that can't be reached. */
bool login_client_awaits(const struct session *session);
/* Its link to the server is being opened. */
bool login_client_connects(const struct session *session);

/* It has ended its sending side, and has sent ahead what can be done without it. */
bool login_client_goes_on(const struct session *session);

/* The gate has opened: goes on with the login. */
void login_client_resume(struct session *session);
/* The gate has closed: a login to the server that has begun is given up, and begun again afterwards. */
void login_client_suspend(struct session *session);

/* The worker's tick: who waits for a side that can't be reached tries again. */
void login_client_tick(struct session *session, int64_t now_us);

/* The worker's mailbox brings an answer of the main loop. */
void login_client_verifier(struct worker *worker, uint64_t request, const struct proxy_verifier *verifier);

#endif
