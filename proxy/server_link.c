#include "proxy/server_link.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/cancel.h"
#include "proxy/login_server.h"
#include "proxy/relay.h"
#include "proxy/session.h"
#include "proxy/stream_tls.h"
#include "proxy/tls_request.h"
#include "proxy/wire/build.h"
#include "proxy/worker.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

enum { RETIRE_MS = 100, RETIRE_SPREAD_MS = 200 };

/* A login's messages are short; a server that sends more is not one. */
enum {
    LOGIN_MESSAGE_MAX = 64 * 1024,
    GREETING_MAX = 64 * 1024,
    UNREACHABLE_INTERVAL_US = 1000000,
    ADDRESSES_KEPT_US = 5000000
};

static void connect_next(struct server_link *link);

static void login_free(struct server_link *link)
{
    struct server_login *login = link->login;
    if (login != NULL) {
        strbuf_deinit(&login->body);
        strbuf_deinit(&login->greeting);
        explicit_bzero(login, sizeof(*login));
        free(login);
        link->login = NULL;
    }
}

static void maybe_free(struct server_link *link)
{
    if (link->close_wanted && link->handles == 0 && link->cancels == 0) {
        login_free(link);
        free(link->cancel_key);
        config_unref(link->config);
        free(link);
    }
}

static void fail(struct server_link *link)
{
    const struct link_events *events = link->events;
    link->phase = LINK_CLOSING;
    if (events != NULL && !link->close_wanted) {
        events->failed(link, &link->login->failure);
    }
    link_close(link, false);
}

static void fail_unreachable(struct server_link *link, int status)
{
    link_failure_set(&link->login->failure, "57P03", "the database server can't be reached: %s",
                     uv_strerror(status));
    link->login->failure.unreachable = true;
    int64_t *told_us = &link->worker->unreachable_told_us[link->side];
    int64_t now_us = clock_mono_us();
    if (now_us - *told_us > UNREACHABLE_INTERVAL_US) {
        *told_us = now_us;
        LOG_WARN("server_unreachable", LOG_STR("side", side_name(link->side)),
                 LOG_STR("error", uv_strerror(status)));
    }
    side_health_failed(link->worker, link->side, uv_strerror(status));
    fail(link);
}

/* --- TLS --- */

static void fail_tls(struct server_link *link, const char *reason)
{
    link_failure_set(&link->login->failure, "08006", "TLS with the server failed: %s", reason);
    fail(link);
}

/* With `prefer` a server that doesn't want us with TLS may want us without. */
static bool retry_without_tls(struct server_link *link)
{
    struct server_login *login = link->login;
    if (link->config->sides[link->side].tls_mode != TLS_MODE_PREFER || login->without_tls || login->asked ||
        link->close_wanted) {
        return false;
    }
    login->without_tls = true;
    login->asked_tls = false;
    login->negotiated = false;
    login->next--;
    strbuf_clear(&login->body);
    strbuf_clear(&login->greeting);
    frame_init(&link->cursor, FRAME_FROM_SERVER);
    link->phase = LINK_CONNECTING;
    stream_close(&link->stream); /* on_closed() goes on */
    return true;
}

/* By pg_hba.conf (hostnossl), before we were asked who we are. */
static bool is_refused_with_tls(const struct server_link *link)
{
    return stream_is_tls(&link->stream) && strcmp(link->login->failure.sqlstate, "28000") == 0;
}

static void begin_login(struct server_link *link)
{
    if (!login_server_begin(link)) {
        fail(link);
    }
}

static void on_tls_answer(struct server_link *link, const char *bytes, size_t length)
{
    link->login->asked_tls = false;
    switch (tls_request_answered(&link->stream, link->config, link->side, bytes, length)) {
    case TLS_REQUEST_ACCEPTED:
        break;
    case TLS_REQUEST_DECLINED:
        if (link->config->sides[link->side].tls_mode == TLS_MODE_PREFER) {
            begin_login(link);
        } else {
            fail_tls(link, "it does not speak TLS");
        }
        break;
    case TLS_REQUEST_BAD:
        fail_tls(link,
                 length > 1 ? "unencrypted data came with its answer" : "it did not answer the request");
        break;
    }
}

static void on_secured(struct stream *stream)
{
    struct server_link *link = CONTAINER_OF(stream, struct server_link, stream);
    char subject[TLS_REQUEST_SUBJECT_SIZE], reason[2 * TLS_REQUEST_SUBJECT_SIZE];
    if (link->phase != LINK_LOGIN) {
        return;
    }
    if (tls_request_verify(stream, link->config, link->side, subject)) {
        begin_login(link);
        return;
    }
    (void)snprintf(reason, sizeof(reason), "its certificate is for \"%s\", not for \"%.200s\"", subject,
                   link->config->sides[link->side].tls_name);
    fail_tls(link, reason);
}

/* --- the stream's events --- */

static void on_received(struct stream *stream, char *bytes, size_t length)
{
    struct server_link *link = CONTAINER_OF(stream, struct server_link, stream);
    if (link->phase == LINK_READY) {
        if (link->events != NULL) {
            link->events->received(link, bytes, length);
        }
        return;
    }
    if (link->phase != LINK_LOGIN) {
        return;
    }
    side_health_answered(link->worker, link->side);
    if (link->login->asked_tls) {
        on_tls_answer(link, bytes, length);
        return;
    }
    switch (login_server_received(link, &bytes, &length)) {
    case LOGIN_MORE:
        break;
    case LOGIN_FAILED:
        if (!is_refused_with_tls(link) || !retry_without_tls(link)) {
            fail(link);
        }
        break;
    case LOGIN_READY: {
        struct strbuf greeting = link->login->greeting;
        strbuf_init(&link->login->greeting, 0);
        login_free(link);
        link->phase = LINK_READY;
        frame_init(&link->cursor, FRAME_FROM_SERVER);
        link->events->ready(link, slice_of(strbuf_text(&greeting), greeting.length));
        strbuf_deinit(&greeting);
        if (length > 0 && link->phase == LINK_READY && link->events != NULL) {
            link->events->received(link, bytes, length);
        }
        break;
    }
    }
}

static void on_ended(struct stream *stream, int status)
{
    struct server_link *link = CONTAINER_OF(stream, struct server_link, stream);
    if (link->phase == LINK_READY) {
        if (link->events != NULL) {
            link->events->ended(link, status);
        } else if (link->orphan.begun_us != 0) {
            orphan_ended(link);
        }
    } else if (link->phase == LINK_LOGIN && status == UV_EPROTO) {
        if (!retry_without_tls(link)) {
            fail_tls(link, stream_tls_failure(stream));
        }
    } else if (link->phase == LINK_LOGIN) {
        link_failure_set(&link->login->failure, "08006", "the server closed the connection during login");
        link->login->failure.unreachable = true;
        side_health_failed(link->worker, link->side, "it closed the connection during login");
        fail(link);
    }
}

static void on_blocked(struct stream *stream)
{
    struct server_link *link = CONTAINER_OF(stream, struct server_link, stream);
    if (link->phase == LINK_READY && link->events != NULL) {
        link->events->blocked(link);
    }
}

static void on_broken(struct stream *stream)
{
    struct server_link *link = CONTAINER_OF(stream, struct server_link, stream);
    link->broken = true;
    /* what the server said before it went is still to be read, and then ended() */
    stream_read_start(&link->stream);
}

static void on_sent(struct stream *stream)
{
    struct server_link *link = CONTAINER_OF(stream, struct server_link, stream);
    if (link->input_ended) {
        stream_shutdown(&link->stream);
    }
    if (link->phase == LINK_READY && link->events != NULL) {
        link->events->sent(link);
    }
}

static void on_closed(struct stream *stream)
{
    struct server_link *link = CONTAINER_OF(stream, struct server_link, stream);
    link->handles--;
    if (!link->close_wanted) {
        connect_next(link); /* an address that didn't answer: the next one */
        return;
    }
    maybe_free(link);
}

static const struct stream_events stream_events = {.received = on_received,
                                                   .secured = on_secured,
                                                   .ended = on_ended,
                                                   .blocked = on_blocked,
                                                   .broken = on_broken,
                                                   .sent = on_sent,
                                                   .closed = on_closed};

/* --- getting connected --- */

static void on_connected(uv_connect_t *request, int status)
{
    struct server_link *link = request->data;
    if (link->close_wanted) {
        return;
    }
    if (status != 0) {
        link->login->connect_error = status;
        stream_close(&link->stream);
        return;
    }
    stream_set_connected(&link->stream, &link->worker->config->tcp_servers);
    link->phase = LINK_LOGIN;
    stream_read_start(&link->stream);
    if (link->config->sides[link->side].tls == NULL || link->login->without_tls) {
        begin_login(link);
        return;
    }
    link->login->asked_tls = true;
    if (!tls_request_send(&link->stream)) {
        link_failure_set(&link->login->failure, "08006", "the connection to the server broke during login");
        fail(link);
    }
}

/* Opens the handle and begins to connect; a connect that fails at once goes on in on_closed(). */
static void connect_to(struct server_link *link, const struct sockaddr *address)
{
    bool is_unix = address->sa_family == AF_UNIX;
    stream_init(&link->stream, &link->worker->loop, is_unix, link->worker->buffer, &stream_events);
    link->handles++;
    link->phase = LINK_CONNECTING;
    link->login->connect.data = link;
    if (is_unix) {
        uv_pipe_connect(&link->login->connect, &link->stream.uv.pipe,
                        ((const struct sockaddr_un *)(const void *)address)->sun_path, on_connected);
        return;
    }
    int failure = uv_tcp_connect(&link->login->connect, &link->stream.uv.tcp, address, on_connected);
    if (failure != 0) {
        link->login->connect_error = failure;
        stream_close(&link->stream);
    }
}

static void connect_next(struct server_link *link)
{
    struct server_login *login = link->login;
    if (login->next == login->addresses.count) {
        link->worker->addresses[link->side].count = 0; /* they may have changed */
        fail_unreachable(link, login->connect_error);
        return;
    }
    connect_to(link, (const struct sockaddr *)&login->addresses.list[login->next++]);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct server_link *link = request->data;
    struct server_addresses *addresses = &link->login->addresses;
    link->handles--;
    for (struct addrinfo *info = found; info != NULL && addresses->count < SERVER_ADDRESSES_MAX;
         info = info->ai_next) {
        memcpy(&addresses->list[addresses->count++], info->ai_addr, info->ai_addrlen);
    }
    uv_freeaddrinfo(found);
    if (link->close_wanted) {
        maybe_free(link);
    } else if (status != 0) {
        fail_unreachable(link, status);
    } else {
        addresses->resolved_us = clock_mono_us();
        link->worker->addresses[link->side] = *addresses;
        connect_next(link);
    }
}

/* The one address of a side that is not given by name. False: it is. */
static bool is_literal(const char *host, unsigned port, struct sockaddr_storage *address, int *failure)
{
    if (host[0] == '/') {
        struct sockaddr_un *local = (struct sockaddr_un *)(void *)address;
        local->sun_family = AF_UNIX;
        int length = snprintf(local->sun_path, sizeof(local->sun_path), "%s/.s.PGSQL.%u", host, port);
        *failure = length < 0 || (size_t)length >= sizeof(local->sun_path) ? UV_ENAMETOOLONG : 0;
        return true;
    }
    return uv_ip4_addr(host, (int)port, (struct sockaddr_in *)(void *)address) == 0 ||
           uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)(void *)address) == 0;
}

static int begin(struct server_link *link)
{
    const struct proxy_config *config = link->config;
    const struct server_addresses *known = &link->worker->addresses[link->side];
    struct server_login *login = link->login;
    const char *host = config->sides[link->side].host;
    unsigned port = config->sides[link->side].port;
    int failure = 0;
    login->connect_error = UV_EADDRNOTAVAIL;
    if (is_literal(host, port, &login->addresses.list[0], &failure)) {
        login->addresses.count = 1;
    } else if (known->count > 0 && clock_mono_us() - known->resolved_us < ADDRESSES_KEPT_US) {
        login->addresses = *known;
    } else {
        char service[8];
        (void)snprintf(service, sizeof(service), "%u", port);
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
        login->lookup.data = link;
        failure = uv_getaddrinfo(&link->worker->loop, &login->lookup, on_resolved, host, service, &hints);
        link->handles += failure == 0;
        return failure;
    }
    if (failure == 0) {
        connect_next(link);
    }
    return failure;
}

struct server_link *link_open(struct session *session, enum side side, uint64_t epoch,
                              const struct link_events *events)
{
    struct server_link *link = calloc(1, sizeof(*link));
    struct server_login *login = calloc(1, sizeof(*login));
    if (link == NULL || login == NULL) {
        free(link);
        free(login);
        return NULL;
    }
    *link = (struct server_link){.worker = session->worker,
                                 .config = config_ref(session->worker->config),
                                 .session = session,
                                 .events = events,
                                 .side = side,
                                 .epoch = epoch,
                                 .phase = LINK_RESOLVING,
                                 .login = login};
    strbuf_init(&login->body, LOGIN_MESSAGE_MAX);
    strbuf_init(&login->greeting, GREETING_MAX);
    frame_init(&link->cursor, FRAME_FROM_SERVER);
    int failure = begin(link);
    if (failure != 0) {
        LOG_ERROR("server_connect_failed", LOG_STR("side", side_name(side)),
                  LOG_STR("error", uv_strerror(failure)));
        link->close_wanted = true;
        maybe_free(link);
        return NULL;
    }
    return link;
}

/* --- the end --- */

void link_close(struct server_link *link, bool polite)
{
    link->events = NULL;
    link->session = NULL;
    if (link->close_wanted) {
        return;
    }
    if (polite && link->phase == LINK_READY && !link->broken && link->stream.unsent == 0) {
        uint8_t message[FRAME_HEADER_SIZE];
        struct build build;
        build_init(&build, message, sizeof(message));
        build_terminate(&build);
        (void)stream_write(&link->stream, message, build.length);
    }
    link->close_wanted = true;
    link->phase = LINK_CLOSING;
    if (link->cancels > 0) {
        /* the backend's pid must stay its own until the cancel has been delivered */
        stream_read_stop(&link->stream);
    } else {
        stream_close(&link->stream);
    }
    maybe_free(link);
}

static void on_retired(uv_handle_t *handle)
{
    struct server_link *link = CONTAINER_OF(handle, struct server_link, retiring);
    link->handles--;
    link_close(link, true);
}

static void on_retire_time(uv_timer_t *timer)
{
    uv_close((uv_handle_t *)timer, on_retired);
}

void link_retire(struct server_link *link)
{
    link->events = NULL;
    link->session = NULL;
    stream_read_stop(&link->stream);
    ENSURE(uv_timer_init(&link->worker->loop, &link->retiring) == 0);
    link->handles++;
    uint64_t delay_ms = RETIRE_MS + link->pid % RETIRE_SPREAD_MS;
    ENSURE(uv_timer_start(&link->retiring, on_retire_time, delay_ms, 0) == 0);
}

void link_cancel_and_close(struct server_link *link)
{
    if (link->phase == LINK_READY && link->pid != 0 && !link->stream.ended) {
        orphan_adopt(link);
    } else {
        link_close(link, false);
    }
}

void link_cancel_over(struct server_link *link)
{
    ENSURE(link->cancels > 0);
    link->cancels--;
    if (link->orphan.begun_us != 0 && link->cancels == 0) {
        orphan_cancelled(link);
    } else if (link->close_wanted && link->cancels == 0) {
        stream_close(&link->stream);
        maybe_free(link);
    } else if (link->cancels == 0 && link->session != NULL && link->session->watch.cancelling) {
        link->session->watch.cancelling = false;
        relay_resume(link->session);
    }
}

void link_end_input(struct server_link *link)
{
    if (!link->input_ended && link->phase == LINK_READY) {
        link->input_ended = true;
        if (stream_flush(&link->stream) && link->stream.unsent == 0) {
            stream_shutdown(&link->stream);
        }
    }
}

void link_write(struct server_link *link, const void *bytes, size_t length)
{
    if (!link->broken) {
        stream_pass(&link->stream, bytes, length);
    }
}
