#include "conf/base/log.h"
#include "proxy/cancel.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/stream_tls.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

#include <stdlib.h>

/* Protocols 1 and 2 know errors without fields only. */
static void refuse_version(struct session *session, uint32_t version)
{
    char message[128], old[160];
    (void)snprintf(message, sizeof(message),
                   "unsupported frontend protocol %u.%u: server supports 3.0 to 3.2", version >> 16,
                   version & 0xffffU);
    if (version >> 16 == 0 || version >> 16 > 3) {
        session_end(session, "0A000", message, NULL);
        return;
    }
    int length = snprintf(old, sizeof(old), "EFATAL:  %s\n", message);
    if (!stream_write(&session->client, old, (size_t)length + 1)) {
        session_drop(session);
        return;
    }
    session_finish(session);
}

/* Answers a request for encryption by one byte. False: it isn't allowed, the session ends. */
static bool answer(struct session *session, bool *answered, const struct startup *startup, size_t consumed,
                   const char *byte)
{
    bool early = session->login->buffer.length > consumed;
    if (*answered) {
        refuse_version(session, startup->version); /* as PostgreSQL: it isn't expected any more */
        return false;
    }
    *answered = true;
    login_consume(session->login, consumed);
    if (!(early && byte[0] == 'S') && !stream_write(&session->client, byte, 1)) {
        session_drop(session);
        return false;
    }
    if (early) {
        /* sent before our answer: whoever stands between could have put it there */
        session_end(session, "08P01",
                    startup->kind == STARTUP_SSL_REQUEST
                        ? "received unencrypted data after SSL request"
                        : "received unencrypted data after GSSAPI encryption request",
                    NULL);
    }
    return !early;
}

static bool offers_tls(const struct session *session)
{
    return session->worker->config->listen_tls != NULL && session->client.uv.handle.type == UV_TCP &&
           !stream_is_tls(&session->client);
}

static bool begin_tls(struct session *session)
{
    if (stream_tls_accept(&session->client, session->worker->config->listen_tls)) {
        return true;
    }
    LOG_ERROR("tls_failed", LOG_STR("error", "out of memory"));
    session_drop(session);
    return false;
}

static void on_ssl_request(struct session *session, const struct startup *startup, size_t consumed)
{
    bool offered = offers_tls(session);
    if (answer(session, &session->login->ssl_answered, startup, consumed, offered ? "S" : "N") && offered) {
        session->login->gss_answered = true; /* not within TLS */
        (void)begin_tls(session);
    }
}

/* The first byte of a connection began a handshake: what came goes to TLS. */
static void on_direct_tls(struct session *session)
{
    struct client_login *login = session->login;
    if (!offers_tls(session) || login->ssl_answered || login->gss_answered) {
        session_drop(session); /* as PostgreSQL: the client would not understand an answer */
        return;
    }
    login->direct_tls = true;
    size_t length = login->buffer.length;
    char *bytes = strbuf_take(&login->buffer);
    if (bytes != NULL && begin_tls(session)) {
        stream_tls_feed(&session->client, bytes, length);
    }
    free(bytes);
}

void login_client_secured(struct session *session)
{
    if (session->login->direct_tls && !stream_tls_has_protocol(&session->client)) {
        LOG_INFO("tls_failed", LOG_STR("client", session->peer),
                 LOG_STR("error", "direct TLS without the protocol " TLS_PROTOCOL " (ALPN)"));
        counter_add(&session->worker->statistics.logins_failed, 1);
        session_drop(session);
    }
}

/* True if the client may log in like that. */
static bool check_encryption(struct session *session)
{
    if (session->worker->config->listen_tls_mode != TLS_MODE_REQUIRE || stream_is_tls(&session->client) ||
        session->client.uv.handle.type != UV_TCP) {
        return true;
    }
    counter_add(&session->worker->statistics.refused[PROXY_REFUSED_PLAIN], 1);
    session_end(session, "28000", "connections without TLS are not accepted here",
                "Connect with sslmode=require.");
    return false;
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
    kept->physical = kept->replication;
    struct slice rest = startup->parameters;
    struct slice name, value;
    while (startup_next(&rest, &name, &value)) {
        if (name.length >= 5 && memcmp(name.data, "_pq_.", 5) == 0) {
            continue;
        }
        bool user = slice_equals(name, "user"), database = slice_equals(name, "database");
        if (user || database) { /* as the server will: what rules let in is who comes in */
            value.length = value.length < PROXY_NAME_SIZE ? value.length : PROXY_NAME_SIZE - 1;
        }
        char *copy = kept->parameters + kept->length;
        memcpy(copy, name.data, name.length + 1);
        memcpy(copy + name.length + 1, value.data, value.length);
        copy[name.length + 1 + value.length] = '\0';
        kept->length += name.length + value.length + 2;
        /* of what is said twice the last counts, but for `database`: so the server has it, and what it has
         * must be what the rules and policies here have judged */
        if (user) {
            kept->user = copy + name.length + 1;
        } else if (database) {
            kept->database = value.length > 0 ? copy + name.length + 1 : NULL;
        } else if (slice_equals(name, "replication") && slice_equals(value, "database")) {
            kept->physical = false;
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
    if (worker->stopping) {
        session_end(session, "57P03", "the proxy is shutting down", NULL);
        return false;
    }
    uint64_t before = atomic_fetch_add_explicit(&worker->shared->clients, 1, memory_order_relaxed);
    session->counted = true;
    if (before < worker->config->max_clients) {
        return true;
    }
    counter_add(&worker->statistics.refused[PROXY_REFUSED_CLIENTS], 1);
    session_end(session, "53300", "sorry, too many clients already", NULL);
    return false;
}

static bool check_database(struct session *session)
{
    const struct proxy_config *config = session->worker->config;
    const char *database = session->startup.database;
    if (session->startup.physical || config->unmanaged == UNMANAGED_PASS ||
        config_is_managed(config, database)) {
        return true;
    }
    char message[160];
    (void)snprintf(message, sizeof(message), "database \"%.64s\" is not one that this proxy serves",
                   database);
    counter_add(&session->worker->statistics.refused[PROXY_REFUSED_UNMANAGED], 1);
    session_end(session, "3D000", message, NULL);
    return false;
}

static void on_startup_message(struct session *session, const struct startup *startup)
{
    session->startup.spoken = startup->spoken;
    if (startup->negotiate) {
        uint8_t packet[STARTUP_PACKET_MAX + 64];
        struct build build;
        build_init(&build, packet, sizeof(packet));
        build_negotiate(&build, startup->spoken, startup->parameters);
        login_send(session, &build);
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
    if (!check_encryption(session) || !count_client(session) || !check_database(session)) {
        return;
    }
    counter_add(&session->worker->statistics.sessions_total, 1);
    login_auth_begin(session);
}

/* PostgreSQL says nothing either to who doesn't speak its protocol. */
static void refuse_packet(struct session *session, enum startup_kind kind)
{
    if (kind == STARTUP_MESSAGE) {
        session_end(session, "08P01", "invalid startup packet layout: expected terminator as last byte",
                    NULL);
        return;
    }
    LOG_INFO("startup_invalid", LOG_U64("session", session->id), LOG_STR("client", session->peer));
    session_drop(session);
}

bool login_startup_take(struct session *session)
{
    struct client_login *login = session->login;
    struct startup startup;
    size_t consumed = 0;
    struct slice bytes = slice_of(login->buffer.data, login->buffer.length);
    switch (startup_parse(bytes, &startup, &consumed)) {
    case WIRE_PARTIAL:
        return false;
    case WIRE_BAD:
        refuse_packet(session, startup.kind);
        return false;
    case WIRE_OK:
        break;
    }
    switch (startup.kind) {
    case STARTUP_SSL_REQUEST:
        on_ssl_request(session, &startup, consumed);
        return true;
    case STARTUP_GSSENC_REQUEST:
        (void)answer(session, &login->gss_answered, &startup, consumed, "N");
        return true;
    case STARTUP_CANCEL_REQUEST:
        login->phase = PHASE_CANCEL;
        cancel_request(session, startup.pid, startup.key);
        return false;
    case STARTUP_DIRECT_TLS:
        on_direct_tls(session);
        return false;
    case STARTUP_UNSUPPORTED:
        refuse_version(session, startup.version);
        return false;
    case STARTUP_NOTHING:
    case STARTUP_MESSAGE:
        break;
    }
    on_startup_message(session, &startup);
    if (session->login != NULL) {
        login_consume(login, consumed);
    }
    return false;
}
