/* A client's login by SCRAM-SHA-256, with channel binding (-PLUS) on a TLS connection. */
#include "conf/base/log.h"
#include "proxy/key_pool.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/tls_identity.h"
#include "proxy/wire/decode.h"
#include "proxy/worker.h"

_Static_assert((int)TLS_END_POINT_MAX == (int)SCRAM_HASH_MAX, "a hash of any certificate fits");

void login_sasl_begin(struct session *session)
{
    struct client_login *login = session->login;
    const struct proxy_verifier *role = &login->role;
    if (!role->found || !scram_verifier_parse(role->text, &login->verifier)) {
        if (role->found) {
            LOG_WARN("verifier_unusable", LOG_STR("user", session->startup.user),
                     LOG_STR("hint", "the role's password is not stored as scram-sha-256"));
        }
        scram_verifier_mock(session->worker->shared->mock_secret, session->startup.user, role->iterations,
                            &login->verifier);
    }
    login->binding.length = tls_end_point(&session->client, login->binding.hash);
    bool plus = login->binding.length > 0;
    login->phase = PHASE_SASL_INITIAL;
    uint8_t packet[64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl(&build, plus ? SCRAM_MECHANISM_PLUS : SCRAM_MECHANISM,
                              plus ? SCRAM_MECHANISM : NULL);
    login_send(session, &build);
    session_update_reading(session);
}

static void refuse_exchange(struct session *session, enum scram_result result)
{
    if (result == SCRAM_REFUSED) {
        login_auth_refuse(session);
        return;
    }
    counter_add(&session->worker->statistics.logins_failed, 1);
    switch (result) {
    case SCRAM_DOWNGRADED:
        session_end(session, "28000", "SCRAM channel binding negotiation error",
                    "Somebody between has hidden that channel binding is supported here.");
        break;
    case SCRAM_UNBOUND:
        session_end(session, "28000", "SCRAM channel binding check failed", NULL);
        break;
    default:
        session_end(session, "08P01", "malformed SCRAM message", NULL);
        break;
    }
}

static void take_initial(struct session *session, struct slice body)
{
    struct client_login *login = session->login;
    struct slice mechanism, response;
    char nonce[SCRAM_NONCE_SIZE], reply[SCRAM_MESSAGE_SIZE];
    bool whole = decode_sasl_initial(body, &mechanism, &response);
    bool plus = whole && login->binding.length > 0 && slice_equals(mechanism, SCRAM_MECHANISM_PLUS);
    if (!whole || (!plus && !slice_equals(mechanism, SCRAM_MECHANISM))) {
        session_end(session, "08P01", "client selected an invalid SASL authentication mechanism", NULL);
        return;
    }
    if (!scram_nonce(nonce)) {
        session_end(session, "58000", "no randomness for a login", NULL);
        return;
    }
    enum scram_result result =
        scram_server_first(&login->scram, &login->verifier, &login->binding, plus, nonce, response, reply);
    if (result != SCRAM_OK) {
        refuse_exchange(session, result);
        return;
    }
    login->phase = PHASE_SASL_RESPONSE;
    uint8_t packet[SCRAM_MESSAGE_SIZE + 64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl_continue(&build, slice_text(reply));
    login_send(session, &build);
}

static void take_response(struct session *session, struct slice body)
{
    struct client_login *login = session->login;
    char reply[SCRAM_MESSAGE_SIZE];
    if (login_auth_is_blocked(session)) { /* others from there have failed meanwhile */
        return;
    }
    session->keys = keys_new();
    if (session->keys == NULL) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    enum scram_result result = scram_server_final(&login->scram, body, reply, session->keys->client_key);
    if (result != SCRAM_OK) {
        refuse_exchange(session, result);
        return;
    }
    memcpy(session->keys->server_key, login->verifier.server_key, SCRAM_KEY_SIZE);
    session->keys->has_scram = true;
    scram_server_wipe(&login->scram);
    uint8_t packet[SCRAM_MESSAGE_SIZE + 64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl_final(&build, slice_text(reply));
    login_send(session, &build);
    if (!session->closing) {
        login_auth_succeed(session);
    }
}

void login_sasl_take(struct session *session, struct slice body)
{
    if (session->login->phase == PHASE_SASL_INITIAL) {
        take_initial(session, body);
    } else {
        take_response(session, body);
    }
}
