#include "proxy/cancel.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <stdlib.h>

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
    login_consume(session->login, consumed);
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
    counter_add(&worker->statistics.refused[PROXY_REFUSED_CLIENTS], 1);
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
    counter_add(&session->worker->statistics.refused[PROXY_REFUSED_UNMANAGED], 1);
    session_end(session, "3D000", message, NULL);
    return false;
}

static void on_startup_message(struct session *session, const struct startup *startup)
{
    if (startup->spoken >= STARTUP_PROTOCOL_3_2) {
        session->cancel_secret_length = SESSION_SECRET_MAX;
    }
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
    if (!count_client(session) || !check_database(session, startup)) {
        return;
    }
    counter_add(&session->worker->statistics.sessions_total, 1);
    login_auth_begin(session);
}

static void refuse_version(struct session *session, uint32_t version)
{
    char message[128];
    (void)snprintf(message, sizeof(message),
                   "unsupported frontend protocol %u.%u: server supports 3.0 to 3.2", version >> 16,
                   version & 0xffffU);
    session_end(session, "0A000", message, NULL);
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
        login_consume(login, consumed);
    }
    return false;
}
