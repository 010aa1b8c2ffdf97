#include "proxy/login_client.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "conf/base/strbuf.h"
#include "proxy/answer.h"
#include "proxy/cancel.h"
#include "proxy/key_pool.h"
#include "proxy/mover.h"
#include "proxy/relay.h"
#include "proxy/session.h"
#include "proxy/wire/build.h"
#include "proxy/wire/decode.h"
#include "proxy/wire/scram.h"
#include "proxy/wire/startup.h"
#include "proxy/worker.h"

#include <stdlib.h>

enum {
    /* what a client may send ahead of its login's end: a startup packet, a proof, some pipelined work */
    LOGIN_BUFFER_MAX = 2 * STARTUP_PACKET_MAX,
    SASL_MESSAGE_MAX = 2048,
    FIRST_MESSAGES_MAX = 64 * 1024 /* the server's greeting, once more in the proxy's answer */
};

enum login_phase {
    PHASE_STARTUP,
    PHASE_CANCEL,
    PHASE_VERIFIER,     /* the main loop is being asked */
    PHASE_SASL_INITIAL, /* the client chooses a mechanism and sends its first message */
    PHASE_SASL_RESPONSE,
    PHASE_ROUTE, /* authenticated; the gate is closed */
    PHASE_SERVER /* the link to the server is being opened */
};

struct client_login {
    enum login_phase phase;
    bool ssl_answered, gss_answered;
    struct strbuf buffer; /* received, not used yet */
    struct scram_verifier verifier;
    struct scram_server scram;
};

bool login_client_begin(struct session *session)
{
    struct client_login *login = calloc(1, sizeof(*login));
    if (login == NULL) {
        return false;
    }
    strbuf_init(&login->buffer, LOGIN_BUFFER_MAX);
    session->login = login;
    session->deadline_us = clock_mono_us() + session->worker->config->login_timeout_us;
    worker_want_tick(session->worker);
    return true;
}

void login_client_free(struct session *session)
{
    struct client_login *login = session->login;
    if (login != NULL) {
        strbuf_deinit(&login->buffer);
        scram_server_wipe(&login->scram);
        explicit_bzero(login, sizeof(*login));
        free(login);
        session->login = NULL;
    }
}

bool login_client_is_cancel(const struct session *session)
{
    return session->login != NULL && session->login->phase == PHASE_CANCEL;
}

/* Not refused, nor given up by its client, and only not gone yet. */
static bool is_in(const struct session *session, enum login_phase phase)
{
    return session->login != NULL && !session->closing && !session->finishing &&
           session->login->phase == phase;
}

bool login_client_waits(const struct session *session)
{
    return is_in(session, PHASE_ROUTE);
}

bool login_client_connects(const struct session *session)
{
    return is_in(session, PHASE_SERVER);
}

bool login_client_wants_bytes(const struct session *session)
{
    switch (session->login->phase) {
    case PHASE_STARTUP:
    case PHASE_SASL_INITIAL:
    case PHASE_SASL_RESPONSE:
        return true;
    default:
        /* read until something comes: a client that goes away shall be noticed */
        return session->login->buffer.length == 0;
    }
}

static void consume(struct strbuf *buffer, size_t length)
{
    memmove(buffer->data, buffer->data + length, buffer->length - length);
    buffer->length -= length;
}

static void send_built(struct session *session, const struct build *build)
{
    if (!build_fits(build) || !stream_write(&session->client, build->data, build->length)) {
        session_drop(session);
    }
}

/* --- the server --- */

/* AuthenticationOk, what the server greeted with, the proxy's own cancel key, ReadyForQuery: in one write. */
static bool send_welcome(struct session *session, struct slice greeting)
{
    uint8_t *packet = malloc(greeting.length + 64);
    if (packet == NULL) {
        return false;
    }
    struct build build;
    build_init(&build, packet, greeting.length + 64);
    build_authentication_ok(&build);
    build_bytes(&build, greeting.data, greeting.length);
    build_backend_key(&build, session->ticket,
                      slice_of(session->cancel_secret, sizeof(session->cancel_secret)));
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
    frame_init(&session->cursor, FRAME_FROM_CLIENT);
    session->established = true;
    session->deadline_us = 0;
    session->kept_length = login->buffer.length;
    session->kept = session->kept_length > 0 ? strbuf_take(&login->buffer) : NULL;
    login_client_free(session);
    LOG_DEBUG("session_established", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
              LOG_STR("database", session->startup.database), LOG_STR("client", session->peer),
              LOG_STR("side", side_name(link->side)), LOG_U64("backend", link->pid));
    if (!mover_session_begin(session, greeting) || !send_welcome(session, greeting)) {
        session_drop(session);
        return;
    }
    relay_resume(session);
}

static void on_failed(struct server_link *link, const struct link_failure *failure)
{
    struct session *session = link->session;
    (void)session_unlink(session); /* it closes itself */
    counter_add(&session->worker->statistics.logins_failed, 1);
    LOG_INFO("server_login_failed", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("database", session->startup.database), LOG_STR("side", side_name(link->side)),
             LOG_STR("sqlstate", failure->sqlstate), LOG_STR("error", failure->message));
    if (failure->verbatim.length > 0) {
        (void)stream_write(&session->client, failure->verbatim.data, failure->verbatim.length);
        session_finish(session);
    } else {
        session_end(session, failure->sqlstate, failure->message,
                    failure->hint[0] != '\0' ? failure->hint : NULL);
    }
}

static const struct link_events login_link_events = {.ready = on_ready, .failed = on_failed};

void login_client_resume(struct session *session)
{
    struct worker *worker = session->worker;
    if (session->closing || session->finishing) {
        return; /* refused, or given up by its client, and not gone yet */
    }
    if (hold_is_refusing(worker)) {
        session_end(session, "57P03", "no side is active now", NULL);
        return;
    }
    if (hold_gate_closed(worker)) {
        if (session->login->phase != PHASE_ROUTE) {
            session->login->phase = PHASE_ROUTE;
            session->deadline_us = 0;
        }
        hold_note_waiting(session);
        session_update(session);
        return;
    }
    session->login->phase = PHASE_SERVER;
    session->deadline_us = clock_mono_us() + worker->config->login_timeout_us;
    hold_note_forwarded(session);
    struct server_link *link =
        link_open(session, worker->hold.route.side, worker->hold.route.epoch, &login_link_events);
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
    }
}

/* --- authentication --- */

static void refuse_password(struct session *session)
{
    char message[128];
    (void)snprintf(message, sizeof(message), "password authentication failed for user \"%s\"",
                   session->startup.user);
    counter_add(&session->worker->statistics.logins_failed, 1);
    LOG_INFO("login_refused", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("client", session->peer));
    session_end(session, "28P01", message, NULL);
}

static void ask_verifier(struct session *session)
{
    struct worker *worker = session->worker;
    size_t size = strlen(session->startup.user) + 1;
    struct verifier_request *request = calloc(1, sizeof(*request) + size);
    if (request == NULL) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    session->login->phase = PHASE_VERIFIER;
    request->letter.deliver = proxy_deliver_verifier_request;
    request->request = session->ticket;
    request->side = worker->hold.route.side;
    memcpy(request->role, session->startup.user, size);
    mailbox_post(&worker->shared->main, &request->letter);
}

void login_client_verifier(struct worker *worker, uint64_t request, const struct proxy_verifier *verifier)
{
    uint32_t ticket = (uint32_t)request;
    struct session *session = NULL;
    HASH_FIND(by_ticket, worker->tickets, &ticket, sizeof(ticket), session);
    if (session == NULL || !is_in(session, PHASE_VERIFIER)) {
        return;
    }
    if (verifier->unavailable) {
        counter_add(&worker->statistics.logins_failed, 1);
        session_end(session, "57P03", "the active side can't be asked for the role now", NULL);
        return;
    }
    struct scram_verifier *wanted = &session->login->verifier;
    if (!verifier->found || !scram_verifier_parse(verifier->text, wanted)) {
        if (verifier->found) {
            LOG_WARN("verifier_unusable", LOG_STR("user", session->startup.user),
                     LOG_STR("hint", "the role's password is not stored as scram-sha-256"));
        }
        scram_verifier_mock(worker->shared->mock_secret, session->startup.user, wanted);
    }
    session->login->phase = PHASE_SASL_INITIAL;
    uint8_t packet[64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl(&build, SCRAM_MECHANISM);
    send_built(session, &build);
    session_update_reading(session);
}

static void sasl_initial(struct session *session, struct slice body)
{
    struct client_login *login = session->login;
    struct slice mechanism, response;
    char nonce[SCRAM_NONCE_SIZE], reply[SCRAM_MESSAGE_SIZE];
    if (!decode_sasl_initial(body, &mechanism, &response) || !slice_equals(mechanism, SCRAM_MECHANISM)) {
        session_end(session, "28000", "client selected an invalid SASL authentication mechanism", NULL);
        return;
    }
    if (!scram_nonce(nonce)) {
        session_end(session, "58000", "no randomness for a login", NULL);
        return;
    }
    if (scram_server_first(&login->scram, &login->verifier, nonce, response, reply) != SCRAM_OK) {
        session_end(session, "08P01", "malformed SCRAM message", NULL);
        return;
    }
    login->phase = PHASE_SASL_RESPONSE;
    uint8_t packet[SCRAM_MESSAGE_SIZE + 64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl_continue(&build, slice_text(reply));
    send_built(session, &build);
}

static void sasl_response(struct session *session, struct slice body)
{
    char reply[SCRAM_MESSAGE_SIZE];
    session->keys = keys_new();
    if (session->keys == NULL) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    switch (scram_server_final(&session->login->scram, body, reply, session->keys->client_key)) {
    case SCRAM_OK:
        break;
    case SCRAM_REFUSED:
        refuse_password(session);
        return;
    case SCRAM_BAD:
        session_end(session, "08P01", "malformed SCRAM message", NULL);
        return;
    }
    memcpy(session->keys->server_key, session->login->verifier.server_key, SCRAM_KEY_SIZE);
    scram_server_wipe(&session->login->scram);
    uint8_t packet[SCRAM_MESSAGE_SIZE + 64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl_final(&build, slice_text(reply));
    send_built(session, &build);
    if (!session->closing) {
        login_client_resume(session);
    }
}

/* --- startup --- */

static void answer_no(struct session *session, bool *answered, size_t consumed)
{
    struct strbuf *buffer = &session->login->buffer;
    if (*answered) {
        session_end(session, "08P01", "encryption was asked for twice", NULL);
        return;
    }
    if (buffer->length > consumed) {
        /* sent before our answer: whoever stands between could have put it there */
        session_end(session, "08P01", "received unencrypted data after an encryption request", NULL);
        return;
    }
    *answered = true;
    consume(buffer, consumed);
    if (!stream_write(&session->client, "N", 1)) {
        session_drop(session);
    }
}

/* Keeps what every login to a server needs, without protocol options, which aren't passed on. */
static bool keep_startup(struct session *session, const struct startup *startup)
{
    struct session_startup *kept = &session->startup;
    kept->parameters = malloc(startup->parameters.length + startup->user.length + 2);
    if (kept->parameters == NULL) {
        return false;
    }
    kept->replication = startup_is_replication(startup);
    struct slice rest = startup->parameters;
    struct slice name, value;
    while (startup_next(&rest, &name, &value)) {
        if (name.length >= 5 && memcmp(name.data, "_pq_.", 5) == 0) {
            continue;
        }
        char *copy = kept->parameters + kept->length;
        memcpy(copy, name.data, name.length + 1);
        memcpy(copy + name.length + 1, value.data, value.length + 1);
        kept->length += name.length + value.length + 2;
        if (slice_equals(name, "user")) {
            kept->user = copy + name.length + 1;
        } else if (slice_equals(name, "database") && value.length > 0) {
            kept->database = copy + name.length + 1;
        }
    }
    if (kept->database == NULL) {
        kept->database = kept->user;
    }
    return kept->user != NULL;
}

static bool count_client(struct session *session)
{
    struct worker *worker = session->worker;
    uint64_t before = atomic_fetch_add_explicit(&worker->shared->clients, 1, memory_order_relaxed);
    session->counted = true;
    if (before < worker->config->max_clients) {
        return true;
    }
    counter_add(&worker->statistics.refused, 1);
    session_end(session, "53300", "sorry, too many clients already", NULL);
    return false;
}

static bool check_database(struct session *session, const struct startup *startup)
{
    const struct proxy_config *config = session->worker->config;
    const char *database = session->startup.database;
    bool physical = session->startup.replication && !slice_equals(startup->replication, "database");
    if (physical || config->unmanaged == UNMANAGED_PASS || config_is_managed(config, database)) {
        return true;
    }
    char message[160];
    (void)snprintf(message, sizeof(message), "database \"%.64s\" is not one that this proxy serves",
                   database);
    counter_add(&session->worker->statistics.refused, 1);
    session_end(session, "3D000", message, NULL);
    return false;
}

static void on_startup_message(struct session *session, const struct startup *startup)
{
    if (startup->negotiate) {
        uint8_t packet[STARTUP_PACKET_MAX + 64];
        struct build build;
        build_init(&build, packet, sizeof(packet));
        build_negotiate(&build, startup->parameters);
        send_built(session, &build);
        if (session->closing) {
            return;
        }
    }
    if (startup->user.length == 0) {
        session_end(session, "28000", "no PostgreSQL user name specified in startup packet", NULL);
        return;
    }
    if (!keep_startup(session, startup)) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    if (!count_client(session) || !check_database(session, startup)) {
        return;
    }
    counter_add(&session->worker->statistics.sessions_total, 1);
    if (session->worker->config->auth_method == AUTH_TRUST) {
        login_client_resume(session);
    } else {
        ask_verifier(session);
    }
}

static void refuse_version(struct session *session, uint32_t version)
{
    char message[128];
    (void)snprintf(message, sizeof(message),
                   "unsupported frontend protocol %u.%u: server supports 3.0 to 3.0", version >> 16,
                   version & 0xffffU);
    session_end(session, "0A000", message, NULL);
}

/* Takes one packet off the buffer. True: there may be another one. */
static bool take_startup(struct session *session)
{
    struct client_login *login = session->login;
    struct startup startup;
    size_t consumed = 0;
    struct slice bytes = slice_of(login->buffer.data, login->buffer.length);
    switch (startup_parse(bytes, &startup, &consumed)) {
    case WIRE_PARTIAL:
        return false;
    case WIRE_BAD:
        session_end(session, "08P01", "invalid startup packet", NULL);
        return false;
    case WIRE_OK:
        break;
    }
    switch (startup.kind) {
    case STARTUP_SSL_REQUEST:
        answer_no(session, &login->ssl_answered, consumed);
        return true;
    case STARTUP_GSSENC_REQUEST:
        answer_no(session, &login->gss_answered, consumed);
        return true;
    case STARTUP_CANCEL_REQUEST:
        login->phase = PHASE_CANCEL;
        cancel_request(session, startup.pid, startup.key);
        return false;
    case STARTUP_DIRECT_TLS:
        session_drop(session);
        return false;
    case STARTUP_UNSUPPORTED:
        refuse_version(session, startup.version);
        return false;
    case STARTUP_MESSAGE:
        break;
    }
    on_startup_message(session, &startup);
    if (session->login != NULL) {
        consume(&login->buffer, consumed);
    }
    return false;
}

/* Takes one SASL message off the buffer, if it is whole. */
static void take_sasl(struct session *session)
{
    struct client_login *login = session->login;
    struct slice rest = slice_of(login->buffer.data, login->buffer.length);
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, FRAME_FROM_CLIENT);
    enum wire_answer answer = frame_next(&cursor, &rest, &piece);
    if (answer == WIRE_BAD || (answer == WIRE_OK && (piece.type != 'p' || piece.length > SASL_MESSAGE_MAX))) {
        session_end(session, "08P01", "expected SASL response", NULL);
        return;
    }
    if (answer == WIRE_PARTIAL || !piece.last) {
        return;
    }
    size_t used = FRAME_HEADER_SIZE + piece.length;
    if (login->phase == PHASE_SASL_INITIAL) {
        sasl_initial(session, piece.bytes);
    } else {
        sasl_response(session, piece.bytes);
    }
    if (session->login != NULL) {
        consume(&login->buffer, used);
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
    while (!session->closing && !session->finishing && session->login != NULL &&
           login->phase == PHASE_STARTUP && login->buffer.length > 0 && take_startup(session)) {
    }
    if (!session->closing && !session->finishing && session->login != NULL &&
        (login->phase == PHASE_SASL_INITIAL || login->phase == PHASE_SASL_RESPONSE)) {
        take_sasl(session);
    }
    session_update_reading(session);
}
