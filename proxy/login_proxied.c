#include "conf/base/log.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/wire/proxied.h"
#include "proxy/worker.h"

bool login_is_balanced(const struct session *session)
{
    const struct proxy_config *config = session->worker->config;
    if (session->address.any.sa_family == AF_UNIX) {
        return config->unix_balancers;
    }
    for (size_t i = 0; i < config->balancer_count; i++) {
        if (network_contains(&config->balancers[i], &session->address.any)) {
            return true;
        }
    }
    return false;
}

/* Who is trusted to say so must: guessing would let a client that gets through write its own header. */
static void refuse(struct session *session, struct slice bytes)
{
    bool first = bytes.length >= 6 && memcmp(bytes.data, "PROXY ", 6) == 0;
    LOG_WARN("proxy_header_refused", LOG_U64("session", session->id), LOG_STR("client", session->peer),
             LOG_STR("reason", first ? "it is of version 1" : "its first bytes are not one of version 2"),
             LOG_STR("remedy", "let the balancer send version 2, or mend listen.proxy_protocol"));
    counter_add(&session->worker->statistics.refused[PROXY_REFUSED_HEADER], 1);
    session_drop(session);
}

static void set_address(struct session *session, const struct proxied *proxied)
{
    union client_address *address = &session->address;
    if (proxied->kind == PROXIED_ITSELF) {
        return;
    }
    memset(address, 0, sizeof(*address));
    if (proxied->kind == PROXIED_V4) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons(proxied->port);
        memcpy(&address->v4.sin_addr, proxied->address, sizeof(address->v4.sin_addr));
    } else {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons(proxied->port);
        memcpy(&address->v6.sin6_addr, proxied->address, sizeof(address->v6.sin6_addr));
    }
    char balancer[PROXY_PEER_SIZE];
    memcpy(balancer, session->peer, sizeof(balancer));
    client_address_name(address, session->peer);
    LOG_DEBUG("proxied", LOG_U64("session", session->id), LOG_STR("client", session->peer),
              LOG_STR("balancer", balancer));
}

void login_proxied_take(struct session *session)
{
    struct client_login *login = session->login;
    struct slice bytes = slice_of(login->buffer.data, login->buffer.length);
    struct proxied proxied;
    size_t size = 0;
    if (!login->proxied_known) {
        switch (proxied_parse(bytes, &proxied, &size)) {
        case WIRE_PARTIAL:
            return;
        case WIRE_BAD:
            refuse(session, bytes);
            return;
        case WIRE_OK:
            break;
        }
        login->proxied_known = true;
        login->proxied_left = size;
        set_address(session, &proxied);
    }
    size_t taken = login->proxied_left < bytes.length ? login->proxied_left : bytes.length;
    login_consume(login, taken);
    login->proxied_left -= taken;
    if (login->proxied_left == 0) {
        login->phase = PHASE_STARTUP;
    }
}
