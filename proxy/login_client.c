#include "proxy/login_client.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "proxy/in_doubt.h"
#include "proxy/login_internal.h"
#include "proxy/mover.h"
#include "proxy/relay.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <stdlib.h>

bool login_client_begin(struct session *session)
{
    struct client_login *login = calloc(1, sizeof(*login));
    if (login == NULL) {
        return false;
    }
    strbuf_init(&login->buffer, LOGIN_BUFFER_MAX);
    session->login = login;
    login->phase = login_is_balanced(session) ? PHASE_PROXIED : PHASE_STARTUP;
    session->deadline_us = clock_mono_us() + session->worker->config->timeouts.login_us;
    worker_want_tick(session->worker);
    return true;
}

void login_client_free(struct session *session)
{
    struct client_login *login = session->login;
    if (login != NULL) {
        strbuf_deinit(&login->buffer);
        hba_unref(login->hba);
        free(login->groups);
        explicit_bzero(login, sizeof(*login));
        free(login);
        session->login = NULL;
    }
}

bool login_client_is_cancel(const struct session *session)
{
    return session->login != NULL && session->login->phase == PHASE_CANCEL;
}

bool login_client_is_silent(const struct session *session)
{
    return session->login != NULL && session->login->phase <= PHASE_STARTUP;
}

bool login_is_over(const struct session *session)
{
    return session->login == NULL || session->closing || session->finishing;
}

bool login_is_in(const struct session *session, enum login_phase phase)
{
    return !login_is_over(session) && session->login->phase == phase;
}

bool login_client_waits(const struct session *session)
{
    return login_is_in(session, PHASE_ROUTE);
}

bool login_client_connects(const struct session *session)
{
    return login_is_in(session, PHASE_SERVER);
}

bool login_client_goes_on(const struct session *session)
{
    bool needs_nothing = login_is_in(session, PHASE_VERIFIER) || login_is_in(session, PHASE_ROUTE) ||
                         login_is_in(session, PHASE_SERVER);
    return needs_nothing && session->login->buffer.length > 0;
}

bool login_client_wants_bytes(const struct session *session)
{
    /* else read until something comes: a client that goes away shall be noticed */
    return session->login->phase <= PHASE_STARTUP || login_auth_waits(session) ||
           session->login->buffer.length == 0;
}

void login_consume(struct client_login *login, size_t length)
{
    struct strbuf *buffer = &login->buffer;
    memmove(buffer->data, buffer->data + length, buffer->length - length);
    buffer->length -= length;
}

void login_send(struct session *session, const struct build *build)
{
    if (!build_fits(build) || !stream_write(&session->client, build->data, build->length)) {
        session_drop(session);
    }
}

/* --- the server --- */

/* AuthenticationOk, what the server greeted with, the proxy's own cancel key, ReadyForQuery: in one write. */
static bool send_welcome(struct session *session, struct slice greeting)
{
    const struct cancel_key *key = &session->cancel_key;
    size_t size = greeting.length + 64 + sizeof(key->secret);
    uint8_t *packet = malloc(size);
    if (packet == NULL) {
        return false;
    }
    struct build build;
    build_init(&build, packet, size);
    build_authentication_ok(&build);
    build_bytes(&build, greeting.data, greeting.length);
    if (key->pid != 0) {
        build_backend_key(&build, key->pid, slice_of(key->secret, key->length));
    }
    build_ready(&build, 'I');
    bool sent = build_fits(&build) && stream_write(&session->client, packet, build.length);
    free(packet);
    return sent;
}

static void on_ready(struct server_link *link, struct slice greeting)
{
    struct session *session = link->session;
    struct client_login *login = session->login;
    link->events = &relay_link_events;
    link->cursor.quiet_rows = true;
    boundary_init(&session->boundary);
    in_doubt_begin(session);
    frame_init(&session->cursor, FRAME_FROM_CLIENT);
    session->established = true;
    session->deadline_us = 0;
    session->kept_length = login->buffer.length;
    session->kept = session->kept_length > 0 ? strbuf_take(&login->buffer) : NULL;
    login_client_free(session);
    LOG_DEBUG("session_established", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
              LOG_STR("database", session->startup.database), LOG_STR("client", session->peer),
              LOG_STR("side", side_name(link->side)), LOG_U64("backend", link->pid));
    bool is_long = session->startup.spoken >= STARTUP_PROTOCOL_3_2;
    bool has_key = link->pid == 0 ||
                   cancel_key_give(session, link->pid, is_long ? CANCEL_SECRET_LONG : CANCEL_SECRET_SHORT);
    if (!has_key || !mover_session_begin(session, greeting) || !send_welcome(session, greeting)) {
        session_drop(session);
        return;
    }
    relay_resume(session);
}

static void on_failed(struct server_link *link, const struct link_failure *failure)
{
    struct session *session = link->session;
    (void)session_unlink(session); /* it closes itself */
    if (failure->unreachable && login_awaits_side(session)) {
        return;
    }
    counter_add(&session->worker->statistics.logins_failed, 1);
    LOG_INFO("server_login_failed", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("database", session->startup.database), LOG_STR("side", side_name(link->side)),
             LOG_STR("sqlstate", failure->sqlstate), LOG_STR("error", failure->message));
    if (failure->verbatim.length > 0) {
        if (failure->authenticated) {
            uint8_t packet[16];
            struct build build;
            build_init(&build, packet, sizeof(packet));
            build_authentication_ok(&build);
            (void)stream_write(&session->client, packet, build.length);
        }
        (void)stream_write(&session->client, failure->verbatim.data, failure->verbatim.length);
        session_finish(session);
    } else {
        session_end(session, failure->sqlstate, failure->message,
                    failure->hint[0] != '\0' ? failure->hint : NULL);
    }
}

static const struct link_events login_link_events = {.ready = on_ready, .failed = on_failed};

static void refuse_full(struct session *session, enum proxy_refusal refusal, const char *what,
                        const char *name)
{
    char message[160];
    (void)snprintf(message, sizeof(message), "too many connections for %s \"%.64s\"", what, name);
    counter_add(&session->worker->statistics.refused[refusal], 1);
    session_end(session, "53300", message, NULL);
}

/* Counts who has proved who it is against the limits. False: refused. */
static bool admit(struct session *session)
{
    struct worker *worker = session->worker;
    const struct session_startup *startup = &session->startup;
    if (session->place.database != NULL) {
        return true;
    }
    switch (client_limits_enter(&worker->shared->limits, &worker->config->limits, startup->database,
                                startup->user, &session->place)) {
    case CLIENT_ADMITTED:
        return true;
    case CLIENT_DATABASE_FULL:
        refuse_full(session, PROXY_REFUSED_DATABASE, "database", startup->database);
        return false;
    case CLIENT_ROLE_FULL:
        refuse_full(session, PROXY_REFUSED_ROLE, "role", startup->user);
        return false;
    case CLIENT_NO_MEMORY:
        break;
    }
    session_end(session, "53200", "out of memory", NULL);
    return false;
}

bool login_may_reach_side(struct session *session)
{
    struct worker *worker = session->worker;
    enum side side = worker->hold.route.side;
    if (session->login->reaches_side || side_health_may_try(worker, side)) {
        session->login->reaches_side = true;
        return true;
    }
    if (login_awaits_side(session)) {
        return false;
    }
    char message[SIDE_PROBLEM_SIZE + 64];
    (void)snprintf(message, sizeof(message), "the active side does not answer: %s",
                   worker->health[side].problem);
    counter_add(&worker->statistics.refused[PROXY_REFUSED_SERVER], 1);
    session_end(session, "57P03", message,
                "It failed for others before, and is tried again within a second.");
    return false;
}

void login_wait_for_route(struct session *session)
{
    if (session->login->phase != PHASE_ROUTE) {
        session->login->phase = PHASE_ROUTE;
        session->deadline_us = 0;
    }
    hold_note_waiting(session);
    session_update(session);
}

void login_client_resume(struct session *session)
{
    struct worker *worker = session->worker;
    if (session->closing || session->finishing || (!session->login->asks_again && !admit(session))) {
        return; /* refused, or given up by its client, and not gone yet */
    }
    session->login->try_again_us = 0;
    if (hold_is_refusing(worker)) {
        session_end(session, "57P03", "no side is active now", NULL);
        return;
    }
    if (hold_gate_closed(worker)) {
        login_wait_for_route(session);
        return;
    }
    if (session->login->asks_again) {
        hold_note_forwarded(session);
        login_auth_ask_again(session);
        return;
    }
    enum side side = worker->hold.route.side;
    if (!login_may_reach_side(session)) {
        return;
    }
    session->login->phase = PHASE_SERVER;
    session->deadline_us = login_connects_until_us(session);
    hold_note_forwarded(session);
    struct server_link *link = link_open(session, side, worker->hold.route.epoch, &login_link_events);
    if (link == NULL) {
        session_end(session, "57P03", "the connection to the server could not be opened", NULL);
        return;
    }
    session_link(session, link);
    session_update(session);
}

void login_client_suspend(struct session *session)
{
    if (login_client_connects(session)) {
        link_close(session_unlink(session), false);
        login_client_resume(session);
    } else if (login_client_awaits(session)) {
        login_client_resume(session); /* now for the gate, whose deadline counts */
    }
}

void login_client_received(struct session *session, const char *bytes, size_t length)
{
    struct client_login *login = session->login;
    if (login->phase == PHASE_CANCEL) {
        return;
    }
    strbuf_append(&login->buffer, bytes, length);
    if (login->buffer.failed) {
        session_end(session, "08P01", "invalid startup packet: too long", NULL);
        return;
    }
    if (login_is_in(session, PHASE_PROXIED)) {
        login_proxied_take(session);
    }
    while (login_is_in(session, PHASE_STARTUP) && login->buffer.length > 0 && login_startup_take(session)) {
    }
    login_auth_take(session);
    session_update_reading(session);
}
