#include "proxy/login_server.h"

#include "conf/base/log.h"
#include "proxy/config.h"
#include "proxy/session.h"
#include "proxy/tls_identity.h"
#include "proxy/wire/build.h"
#include "proxy/wire/decode.h"
#include "proxy/wire/md5.h"
#include "proxy/wire/startup.h"
#include "proxy/worker.h"

#include <netdb.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>

void link_failure_set(struct link_failure *failure, const char *sqlstate, const char *format, ...)
{
    *failure = (struct link_failure){.verbatim = {.data = NULL}};
    (void)snprintf(failure->sqlstate, sizeof(failure->sqlstate), "%s", sqlstate);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(failure->message, sizeof(failure->message), format, arguments);
    va_end(arguments);
}

static bool send_to_server(struct server_link *link, const struct build *build)
{
    if (build_fits(build) && stream_write(&link->stream, build->data, build->length)) {
        return true;
    }
    link_failure_set(&link->login->failure, "08006", "the connection to the server broke during login");
    return false;
}

bool login_server_begin(struct server_link *link)
{
    const struct session_startup *startup = &link->session->startup;
    uint8_t packet[STARTUP_PACKET_MAX];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    /* Whatever the client speaks: all that 3.2 changes is the length of keys, and ours are our own. Servers
     * before 18 answer that they speak 3.0. */
    link->login->version = STARTUP_PROTOCOL_3_2;
    build_startup_begin(&build, link->login->version);
    struct slice rest = slice_of(startup->parameters, startup->length);
    struct slice name, value;
    while (startup_next(&rest, &name, &value)) {
        build_startup_parameter(&build, name, value);
    }
    build_startup_end(&build);
    return send_to_server(link, &build);
}

/* The line that would let the proxy in without a secret, from where it comes. */
static void set_hba_hint(struct server_link *link)
{
    struct sockaddr_storage address;
    int length = (int)sizeof(address);
    char host[NI_MAXHOST] = "?";
    const struct session_startup *startup = &link->session->startup;
    struct link_failure *failure = &link->login->failure;
    if (link->stream.uv.handle.type != UV_TCP) {
        (void)snprintf(failure->hint, sizeof(failure->hint),
                       "Add to pg_hba.conf of side %s: local \"%.64s\" \"%.64s\" trust",
                       side_name(link->side), startup->database, startup->user);
        return;
    }
    if (uv_tcp_getsockname(&link->stream.uv.tcp, (struct sockaddr *)&address, &length) == 0) {
        (void)getnameinfo((struct sockaddr *)&address, (socklen_t)length, host, sizeof(host), NULL, 0,
                          NI_NUMERICHOST);
    }
    bool tls = stream_is_tls(&link->stream);
    bool shows = tls && SSL_CTX_get0_certificate(link->config->sides[link->side].tls) != NULL;
    (void)snprintf(failure->hint, sizeof(failure->hint),
                   "Add to pg_hba.conf of side %s: %s \"%.64s\" \"%.64s\" %.64s/%d %s", side_name(link->side),
                   tls ? "hostssl" : "host", startup->database, startup->user, host,
                   address.ss_family == AF_INET6 ? 128 : 32,
                   shows ? "cert map=proxy, and to its pg_ident.conf the proxy's certificate" : "trust");
}

static bool fail_without_secret(struct server_link *link)
{
    link_failure_set(&link->login->failure, "28000",
                     "the server asks for a password that the proxy does not have for user \"%.64s\"",
                     link->session->startup.user);
    set_hba_hint(link);
    return false;
}

static bool fail_protocol(struct server_link *link, const char *what)
{
    link_failure_set(&link->login->failure, "08P01", "the server broke the protocol during login: %s", what);
    return false;
}

static bool md5(struct server_link *link, struct slice salt)
{
    const struct session_keys *keys = link->session->keys;
    char answer[MD5_ANSWER_SIZE];
    if (keys == NULL || !keys->has_md5) {
        return fail_without_secret(link);
    }
    if (salt.length != MD5_SALT_SIZE || link->login->password_sent) {
        return fail_protocol(link, "md5 salt");
    }
    if (!md5_answer(keys->md5, salt.data, answer)) {
        link_failure_set(&link->login->failure, "58000", "no MD5 here, which the server asks for");
        return false;
    }
    link->login->password_sent = true;
    uint8_t packet[64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_password(&build, answer);
    return send_to_server(link, &build);
}

static bool sasl_begin(struct server_link *link, struct slice offers)
{
    struct server_login *login = link->login;
    const struct session_keys *keys = link->session->keys;
    char nonce[SCRAM_NONCE_SIZE], message[SCRAM_MESSAGE_SIZE];
    struct scram_binding binding;
    binding.length = tls_end_point(&link->stream, binding.hash);
    bool plus = binding.length > 0 && decode_sasl_offers(offers, SCRAM_MECHANISM_PLUS);
    if (keys == NULL || !keys->has_scram || !(plus || decode_sasl_offers(offers, SCRAM_MECHANISM))) {
        return fail_without_secret(link);
    }
    if (login->scram_begun) {
        return fail_protocol(link, "SASL twice");
    }
    if (!scram_nonce(nonce)) {
        link_failure_set(&login->failure, "58000", "no randomness for a login");
        return false;
    }
    login->scram_begun = true;
    scram_client_first(&login->scram, &binding, plus, nonce, message);
    uint8_t packet[SCRAM_MESSAGE_SIZE + 64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_sasl_initial(&build, plus ? SCRAM_MECHANISM_PLUS : SCRAM_MECHANISM, slice_text(message));
    return send_to_server(link, &build);
}

static bool sasl_continue(struct server_link *link, struct slice data)
{
    char message[SCRAM_MESSAGE_SIZE];
    if (!link->login->scram_begun ||
        scram_client_final(&link->login->scram, data, link->session->keys->client_key, message) != SCRAM_OK) {
        return fail_protocol(link, "SCRAM server-first-message");
    }
    uint8_t packet[SCRAM_MESSAGE_SIZE + 64];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_sasl_response(&build, slice_text(message));
    return send_to_server(link, &build);
}

static bool sasl_final(struct server_link *link, struct slice data)
{
    if (!link->login->scram_begun ||
        scram_client_verify(&link->login->scram, data, link->session->keys->server_key) != SCRAM_OK) {
        return fail_protocol(link, "SCRAM server-final-message");
    }
    link->login->scram_verified = true;
    return true;
}

static bool on_authentication(struct server_link *link, struct slice body)
{
    uint32_t kind = 0;
    struct slice data;
    if (link->login->authenticated || !decode_authentication(body, &kind, &data)) {
        return fail_protocol(link, "Authentication message");
    }
    link->login->asked = true;
    switch (kind) {
    case AUTHENTICATION_OK:
        /* who skips the last step of SCRAM has not shown that it knows the verifier */
        if (link->login->scram_begun && !link->login->scram_verified) {
            return fail_protocol(link, "authentication ended before SCRAM did");
        }
        link->login->authenticated = true;
        return true;
    case AUTHENTICATION_MD5:
        return md5(link, data);
    case AUTHENTICATION_SASL:
        return sasl_begin(link, data);
    case AUTHENTICATION_SASL_CONTINUE:
        return sasl_continue(link, data);
    case AUTHENTICATION_SASL_FINAL:
        return sasl_final(link, data);
    default:
        return fail_without_secret(link);
    }
}

/* The client proved its password to the proxy, and the server knows another one. */
static bool fail_differing(struct server_link *link)
{
    struct link_failure *failure = &link->login->failure;
    link_failure_set(failure, "28P01", "password authentication failed for user \"%.64s\" at side %s",
                     link->session->startup.user, side_name(link->side));
    (void)snprintf(
        failure->hint, sizeof(failure->hint),
        "The proxy knows the password by another verifier than the one that is stored there: switchback "
        "check compares the sides.");
    return false;
}

static bool on_error(struct server_link *link, const struct frame_piece *piece)
{
    struct server_login *login = link->login;
    struct slice body = slice_of(strbuf_text(&login->body), login->body.length);
    struct decode_error error;
    decode_error(body, &error);
    if (!login->authenticated && (login->scram_begun || login->password_sent) &&
        slice_equals(error.sqlstate, "28P01")) {
        return fail_differing(link);
    }
    char message[200];
    link_failure_set(&login->failure, "08006", "%s", slice_copy(error.message, message, sizeof(message)));
    if (error.sqlstate.length == 5) {
        slice_copy(error.sqlstate, login->failure.sqlstate, sizeof(login->failure.sqlstate));
    }
    /* it starts, stops, or ends its sessions because one of them crashed */
    login->failure.unreachable = slice_equals(error.sqlstate, "57P01") ||
                                 slice_equals(error.sqlstate, "57P02") ||
                                 slice_equals(error.sqlstate, "57P03");
    /* as a message of its own, to be passed on */
    strbuf_clear(&login->greeting);
    uint8_t header[FRAME_HEADER_SIZE];
    frame_header(header, piece->type, piece->length);
    strbuf_append(&login->greeting, header, sizeof(header));
    strbuf_append(&login->greeting, body.data, body.length);
    if (!login->greeting.failed) {
        login->failure.verbatim = slice_of(strbuf_text(&login->greeting), login->greeting.length);
        login->failure.authenticated = login->authenticated;
    }
    return false;
}

static bool add_to_greeting(struct server_link *link, const struct frame_piece *piece, struct slice body)
{
    uint8_t header[FRAME_HEADER_SIZE];
    frame_header(header, piece->type, piece->length);
    strbuf_append(&link->login->greeting, header, sizeof(header));
    strbuf_append(&link->login->greeting, body.data, body.length);
    return !link->login->greeting.failed || fail_protocol(link, "its greeting is too long");
}

static bool on_backend_key(struct server_link *link, struct slice body)
{
    struct slice key;
    bool is_long = link->login->version >= STARTUP_PROTOCOL_3_2;
    if (link->cancel_key != NULL || !decode_backend_key(body, &link->pid, &key) ||
        (!is_long && key.length != CANCEL_KEY_MIN)) {
        return fail_protocol(link, "BackendKeyData");
    }
    link->cancel_key = malloc(key.length);
    if (link->cancel_key == NULL) {
        link_failure_set(&link->login->failure, "53200", "out of memory");
        return false;
    }
    memcpy(link->cancel_key, key.data, key.length);
    link->cancel_key_length = key.length;
    return true;
}

/* We sent no options, so it can't name one that it doesn't know. */
static bool on_negotiate(struct server_link *link, struct slice body)
{
    struct server_login *login = link->login;
    uint32_t version = 0;
    uint32_t unknown = 0;
    if (login->negotiated || login->authenticated || !decode_negotiate(body, &version, &unknown) ||
        unknown > 0 || version < STARTUP_PROTOCOL_3_0 || version > login->version) {
        return fail_protocol(link, "NegotiateProtocolVersion");
    }
    login->negotiated = true;
    login->version = version;
    return true;
}

/* A whole message. False: failed. */
static bool on_message(struct server_link *link, const struct frame_piece *piece, bool *ready)
{
    struct slice body = slice_of(strbuf_text(&link->login->body), link->login->body.length);
    char status = 0;
    switch (piece->type) {
    case 'R':
        return on_authentication(link, body);
    case 'E':
        return on_error(link, piece);
    case 'N':
        return add_to_greeting(link, piece, body);
    case 'v':
        return on_negotiate(link, body);
    default:
        break;
    }
    if (!link->login->authenticated) {
        return fail_protocol(link, "a message before authentication");
    }
    switch (piece->type) {
    case 'S':
        return add_to_greeting(link, piece, body);
    case 'K':
        return on_backend_key(link, body);
    case 'Z':
        *ready = decode_ready(body, &status) && status == 'I';
        return *ready || fail_protocol(link, "ReadyForQuery");
    default:
        return fail_protocol(link, "an unexpected message");
    }
}

enum login_answer login_server_received(struct server_link *link, char **bytes, size_t *length)
{
    struct server_login *login = link->login;
    struct slice rest = slice_of(*bytes, *length);
    struct frame_piece piece;
    enum wire_answer answer;
    while ((answer = frame_next(&link->cursor, &rest, &piece)) == WIRE_OK) {
        if (piece.first) {
            strbuf_clear(&login->body);
        }
        strbuf_append(&login->body, piece.bytes.data, piece.bytes.length);
        if (login->body.failed) {
            (void)fail_protocol(link, "a message is too long");
            return LOGIN_FAILED;
        }
        bool ready = false;
        if (piece.last && !on_message(link, &piece, &ready)) {
            return LOGIN_FAILED;
        }
        if (ready) {
            *bytes += (const char *)rest.data - *bytes;
            *length = rest.length;
            return LOGIN_READY;
        }
    }
    if (answer == WIRE_BAD) {
        (void)fail_protocol(link, "framing");
        return LOGIN_FAILED;
    }
    return LOGIN_MORE;
}
