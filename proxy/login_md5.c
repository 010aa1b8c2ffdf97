/* A client's login by md5, for roles whose password is stored like that. */
#include "proxy/key_pool.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/wire/md5.h"

#include <openssl/rand.h>

/* A role that nobody knows is asked all the same, and no answer is right. */
static bool make_mock(struct client_login *login)
{
    uint8_t random[MD5_DIGITS];
    if (RAND_bytes(random, sizeof(random)) != 1) {
        return false;
    }
    for (size_t i = 0; i < sizeof(random); i++) {
        login->md5_digits[i] = (char)('a' + random[i] % 6);
    }
    login->md5_is_mock = true;
    return true;
}

void login_md5_begin(struct session *session)
{
    struct client_login *login = session->login;
    uint8_t salt[MD5_SALT_SIZE];
    bool known = login->role.found && md5_verifier_parse(login->role.text, login->md5_digits);
    if ((!known && !make_mock(login)) || !md5_salt(salt) ||
        !md5_answer(login->md5_digits, salt, login->md5_answer)) {
        session_end(session, "58000", "no randomness for a login, or no MD5", NULL);
        return;
    }
    login->phase = PHASE_MD5;
    uint8_t packet[32];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_authentication_md5(&build, slice_of(salt, sizeof(salt)));
    login_send(session, &build);
    session_update_reading(session);
}

void login_md5_take(struct session *session, struct slice body)
{
    struct client_login *login = session->login;
    bool right = md5_is_answer(body, login->md5_answer);
    if (body.length == 0 || memchr(body.data, 0, body.length) != body.data + body.length - 1) {
        session_end(session, "08P01", "invalid password packet", NULL);
        return;
    }
    if (login_auth_is_blocked(session)) {
        return;
    }
    if (!right || login->md5_is_mock) {
        login_auth_refuse(session);
        return;
    }
    session->keys = keys_new();
    if (session->keys == NULL) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    memcpy(session->keys->md5, login->md5_digits, sizeof(session->keys->md5));
    session->keys->has_md5 = true;
    login_auth_succeed(session);
}
