#include "proxy/cancel.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/login_client.h"
#include "proxy/relay_cancel.h"
#include "proxy/route_hold.h"
#include "proxy/server_link.h"
#include "proxy/session.h"
#include "proxy/stream_tls.h"
#include "proxy/tls_request.h"
#include "proxy/wire/build.h"
#include "proxy/wire/startup.h"
#include "proxy/worker.h"

#include <stdlib.h>
#include <utlist.h>

/*
 * A cancel must not overtake its statement, which lies in the client's socket when the cancel arrives: the
 * first turn of the loop may have looked at the sockets before that, the second one may look at the mailbox
 * first.
 */
enum { TURNS_TO_WAIT = 2 };

/* A server that doesn't take a cancel in this time won't; and how many travel at once from one worker. */
enum { CANCEL_TIMEOUT_US = 5 * 1000000, CANCELS_AT_ONCE = 64, CANCEL_PACKET_SIZE = 12 + CANCEL_KEY_MAX };

struct cancel {
    struct stream stream;
    struct worker *worker;
    struct server_link *link;
    struct cancel *prev, *next;
    uv_connect_t connect;
    bool has_origin, begun;
    bool asked_tls; /* the answer is to come */
    struct cancel_origin origin;
    int64_t deadline_us;
};

struct cancel_letter {
    struct letter letter;
    struct cancel_origin origin;
    struct cancel_claim claim;
    unsigned turns; /* of the session's loop that it has waited */
};

static void begin_waiting(struct worker *worker);

/* --- the client's connection --- */

static void deliver_over(struct letter *letter, void *receiver)
{
    struct worker *worker = receiver;
    struct cancel_letter *over = CONTAINER_OF(letter, struct cancel_letter, letter);
    struct session *connection = NULL;
    HASH_FIND(by_ticket, worker->tickets, &over->origin.ticket, sizeof(over->origin.ticket), connection);
    if (connection != NULL && login_client_is_cancel(connection)) {
        session_drop(connection);
    }
    free(over);
}

static void tell_origin(struct worker_shared *shared, const struct cancel_origin *origin)
{
    struct cancel_letter *over = calloc(1, sizeof(*over));
    if (over == NULL) {
        return; /* its own deadline closes the connection */
    }
    over->letter.deliver = deliver_over;
    over->origin = *origin;
    mailbox_post(&shared->workers[origin->worker].mailbox, &over->letter);
}

static bool cancel_session(struct session *session, const struct cancel_origin *origin)
{
    if (session->finishing || relay_cancel_kept(session) || !hold_may_cancel(session)) {
        return false;
    }
    cancel_link(session->link, origin);
    return true;
}

static void deliver_request(struct letter *letter, void *receiver)
{
    struct worker *worker = receiver;
    struct cancel_letter *request = CONTAINER_OF(letter, struct cancel_letter, letter);
    if (request->turns++ < TURNS_TO_WAIT) {
        (void)mailbox_post(&worker->mailbox, &request->letter);
        return;
    }
    struct session *session = cancel_claim_find(worker, &request->claim);
    if (session != NULL) {
        counter_add(&worker->statistics.cancels, 1);
    }
    if (session == NULL || !cancel_session(session, &request->origin)) {
        tell_origin(worker->shared, &request->origin);
    }
    free(request);
}

void cancel_request(struct session *connection, uint32_t pid, struct slice key)
{
    struct worker_shared *shared = connection->worker->shared;
    struct cancel_letter *request = calloc(1, sizeof(*request));
    if (request == NULL || !cancel_claim_make(shared, pid, key, &request->claim)) {
        free(request);
        session_drop(connection);
        return;
    }
    request->letter.deliver = deliver_request;
    request->origin =
        (struct cancel_origin){.worker = connection->worker->index, .ticket = connection->ticket};
    mailbox_post(&shared->workers[request->claim.worker].mailbox, &request->letter);
}

/* --- the connection to the server --- */

static void finish(struct cancel *cancel)
{
    struct worker *worker = cancel->worker;
    DL_DELETE(worker->cancels, cancel);
    worker->cancels_begun -= cancel->begun;
    if (cancel->has_origin) {
        tell_origin(worker->shared, &cancel->origin);
    }
    link_cancel_over(cancel->link);
    free(cancel);
    begin_waiting(worker);
    worker_check_end(worker);
}

static void over(struct cancel *cancel)
{
    if (cancel->begun) {
        stream_close(&cancel->stream);
    } else {
        finish(cancel);
    }
}

static void send_key(struct cancel *cancel)
{
    uint8_t packet[CANCEL_PACKET_SIZE];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_cancel(&build, cancel->link->pid,
                 slice_of(cancel->link->cancel_key, cancel->link->cancel_key_length));
    if (!build_fits(&build) || !stream_write(&cancel->stream, packet, build.length)) {
        over(cancel);
    }
}

static void fail(struct cancel *cancel, const char *reason)
{
    LOG_WARN("cancel_failed", LOG_STR("side", side_name(cancel->link->side)), LOG_STR("error", reason));
    over(cancel);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): it is one of the stream's events */
static void on_received(struct stream *stream, char *bytes, size_t length)
{
    struct cancel *cancel = CONTAINER_OF(stream, struct cancel, stream);
    if (!cancel->asked_tls) {
        return; /* a server answers a cancel by closing only */
    }
    cancel->asked_tls = false;
    /* its link has TLS: a key that travels without would be there for all to see */
    if (tls_request_answered(stream, cancel->link->config, cancel->link->side, bytes, length) !=
        TLS_REQUEST_ACCEPTED) {
        fail(cancel, "the server declines TLS");
    }
}

static void on_secured(struct stream *stream)
{
    struct cancel *cancel = CONTAINER_OF(stream, struct cancel, stream);
    char subject[TLS_REQUEST_SUBJECT_SIZE];
    if (tls_request_verify(stream, cancel->link->config, cancel->link->side, subject)) {
        send_key(cancel);
    } else {
        fail(cancel, "the server's certificate is for another host");
    }
}

static void on_ended(struct stream *stream, int status)
{
    struct cancel *cancel = CONTAINER_OF(stream, struct cancel, stream);
    if (status == UV_EPROTO) {
        fail(cancel, stream_tls_failure(stream));
    } else {
        over(cancel);
    }
}

static void on_closed(struct stream *stream)
{
    finish(CONTAINER_OF(stream, struct cancel, stream));
}

/* blocked, broken: nothing is ever passed to it */
static const struct stream_events stream_events = {
    .received = on_received, .secured = on_secured, .ended = on_ended, .closed = on_closed};

static void on_connected(uv_connect_t *request, int status)
{
    struct cancel *cancel = request->data;
    if (!cancel->stream.open) {
        return;
    }
    if (status != 0) {
        LOG_WARN("cancel_failed", LOG_STR("error", uv_strerror(status)));
        over(cancel);
        return;
    }
    stream_set_connected(&cancel->stream, &cancel->link->worker->config->tcp_servers);
    stream_read_start(&cancel->stream);
    if (!stream_is_tls(&cancel->link->stream)) {
        send_key(cancel);
        return;
    }
    cancel->asked_tls = true;
    if (!tls_request_send(&cancel->stream)) {
        over(cancel);
    }
}

/* To the very address that the link leads to. Returns 0 or a libuv error. */
static int connect_like(struct cancel *cancel)
{
    const struct stream *server = &cancel->link->stream;
    bool is_unix = server->uv.handle.type != UV_TCP;
    int failure = 0;
    stream_init(&cancel->stream, &cancel->worker->loop, is_unix, cancel->worker->buffer, &stream_events);
    cancel->connect.data = cancel;
    if (is_unix) {
        char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1] = "";
        size_t size = sizeof(path) - 1;
        failure = uv_pipe_getpeername(&server->uv.pipe, path, &size);
        if (failure == 0) {
            uv_pipe_connect(&cancel->connect, &cancel->stream.uv.pipe, path, on_connected);
        }
        return failure;
    }
    struct sockaddr_storage address;
    int length = (int)sizeof(address);
    failure = uv_tcp_getpeername(&server->uv.tcp, (struct sockaddr *)&address, &length);
    return failure != 0 ? failure
                        : uv_tcp_connect(&cancel->connect, &cancel->stream.uv.tcp,
                                         (const struct sockaddr *)&address, on_connected);
}

static void begin(struct cancel *cancel)
{
    cancel->begun = true;
    cancel->worker->cancels_begun++;
    cancel->deadline_us = clock_mono_us() + CANCEL_TIMEOUT_US;
    int failure = connect_like(cancel);
    if (failure != 0) {
        LOG_WARN("cancel_failed", LOG_STR("error", uv_strerror(failure)));
        over(cancel);
    }
}

static void begin_waiting(struct worker *worker)
{
    struct cancel *cancel = NULL;
    DL_FOREACH(worker->cancels, cancel)
    {
        if (worker->cancels_begun >= CANCELS_AT_ONCE) {
            return;
        }
        if (!cancel->begun) {
            begin(cancel);
        }
    }
}

void cancel_link(struct server_link *link, const struct cancel_origin *origin)
{
    struct worker *worker = link->worker;
    struct cancel *cancel = calloc(1, sizeof(*cancel));
    if (cancel == NULL) {
        if (origin != NULL) {
            tell_origin(worker->shared, origin);
        }
        return;
    }
    cancel->worker = worker;
    cancel->link = link;
    link->cancels++;
    if (origin != NULL) {
        cancel->has_origin = true;
        cancel->origin = *origin;
    }
    DL_APPEND(worker->cancels, cancel);
    worker_want_tick(worker);
    begin_waiting(worker);
}

void cancel_check_deadlines(struct worker *worker, int64_t now_us)
{
    struct cancel *cancel = NULL;
    DL_FOREACH(worker->cancels, cancel)
    {
        if (cancel->begun && now_us > cancel->deadline_us) {
            stream_close(&cancel->stream);
        }
    }
}

void cancel_abandon_all(struct worker *worker)
{
    struct cancel *cancel = NULL, *next = NULL;
    DL_FOREACH_SAFE(worker->cancels, cancel, next)
    {
        over(cancel);
    }
}
