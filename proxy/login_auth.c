#include "conf/base/log.h"
#include "proxy/answer.h"
#include "proxy/key_pool.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/wire/decode.h"
#include "proxy/wire/frame.h"
#include "proxy/worker.h"

#include <stdlib.h>

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

void login_auth_begin(struct session *session)
{
    if (session->worker->config->auth_method == AUTH_TRUST) {
        login_client_resume(session);
    } else {
        ask_verifier(session);
    }
}

void login_client_verifier(struct worker *worker, uint64_t request, const struct proxy_verifier *verifier)
{
    uint32_t ticket = (uint32_t)request;
    struct session *session = NULL;
    HASH_FIND(by_ticket, worker->tickets, &ticket, sizeof(ticket), session);
    if (session == NULL || !login_is_in(session, PHASE_VERIFIER)) {
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
    login_send(session, &build);
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
    login_send(session, &build);
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
    login_send(session, &build);
    if (!session->closing) {
        login_client_resume(session);
    }
}

void login_auth_take(struct session *session)
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
        login_consume(login, used);
    }
}
