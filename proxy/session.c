#include "proxy/session.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/client_end.h"
#include "proxy/in_doubt.h"
#include "proxy/key_pool.h"
#include "proxy/login_client.h"
#include "proxy/mover.h"
#include "proxy/relay.h"
#include "proxy/stream_tls.h"
#include "proxy/wire/build.h"
#include "proxy/worker.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

enum {
    /* a client slower than this in taking the last bytes, or in closing after them, is cut off */
    FLUSH_TIMEOUT_US = 30 * 1000000,
    LINGER_TIMEOUT_US = 2 * 1000000,
    STARTUP_GRACE_US = 1000000, /* for a startup packet, when the daemon stops */
    /* sockets beyond max_clients that may be in startup: cancel requests, and refusals that say why */
    CONNECTIONS_ABOVE_CLIENTS = 1024,
    HIGH_WATER = 64 * 1024, /* more unsent bytes than this stop reading from where they come */
    HELD_READ_SIZE = 4096,  /* while a client's bytes are kept, in login or behind the gate: not many */
    ERROR_SIZE = 2048
};

const char *proxy_session_state_name(enum session_state state)
{
    static const char *const names[SESSION_STATE_COUNT] = {
        [SESSION_LOGIN] = "login",     [SESSION_CONNECTING] = "connecting",           [SESSION_IDLE] = "idle",
        [SESSION_ACTIVE] = "active",   [SESSION_TRANSACTION] = "idle in transaction", [SESSION_HELD] = "held",
        [SESSION_CLOSING] = "closing",
    };
    return state < SESSION_STATE_COUNT ? names[state] : "?";
}

/* --- the client's stream --- */

static void on_received(struct stream *stream, char *bytes, size_t length)
{
    struct session *session = CONTAINER_OF(stream, struct session, client);
    if (session->finishing || session->terminated) {
        return;
    }
    if (session->login != NULL) {
        login_client_received(session, bytes, length);
    } else {
        relay_from_client(session, bytes, length);
    }
}

static void on_secured(struct stream *stream)
{
    struct session *session = CONTAINER_OF(stream, struct session, client);
    if (session->login != NULL && !session->finishing) {
        login_client_secured(session);
    }
}

static void on_ended(struct stream *stream, int status)
{
    struct session *session = CONTAINER_OF(stream, struct session, client);
    if (status == UV_EPROTO && !session->closing) {
        LOG_INFO("tls_failed", LOG_U64("session", session->id), LOG_STR("client", session->peer),
                 LOG_STR("error", stream_tls_failure(stream)));
        counter_add(&session->worker->statistics.logins_failed, !session->established);
    }
    client_end_seen(session, status);
}

static void on_blocked(struct stream *stream)
{
    session_update_reading(CONTAINER_OF(stream, struct session, client));
}

static void on_broken(struct stream *stream)
{
    client_end_broken(CONTAINER_OF(stream, struct session, client));
}

static void on_sent(struct stream *stream)
{
    struct session *session = CONTAINER_OF(stream, struct session, client);
    if (!session->finishing || session->in_doubt != NULL) {
        session_update_reading(session);
    } else if (stream->ended) {
        session_drop(session);
    } else {
        stream_shutdown(stream);
        session->deadline_us = clock_mono_us() + LINGER_TIMEOUT_US;
    }
}

static void on_closed(struct stream *stream)
{
    struct session *session = CONTAINER_OF(stream, struct session, client);
    struct worker *worker = session->worker;
    ENSURE(session->link == NULL);
    struct statistics *statistics = &worker->statistics;
    counter_add(&statistics->sessions_by_state[session->state], (uint64_t)-1);
    atomic_fetch_sub_explicit(&worker->shared->connections, 1, memory_order_relaxed);
    if (session->counted) {
        atomic_fetch_sub_explicit(&worker->shared->clients, 1, memory_order_relaxed);
    }
    client_limits_leave(&worker->shared->limits, &session->place);
    DL_DELETE(worker->sessions, session);
    worker->session_count--;
    atomic_fetch_sub_explicit(&worker->load, 1, memory_order_relaxed);
    login_client_free(session);
    keys_free(session->keys);
    move_free(session->move);
    numbering_free(session->numbering);
    free(session->startup.parameters);
    free(session->kept);
    async_forget(session);
    doubt_deinit(&session->doubt);
    free(session->in_doubt);
    counter_add(&statistics->sessions_unsync, session->unsync ? (uint64_t)-1 : 0);
    free(session);
    worker_check_end(worker);
}

static const struct stream_events client_events = {.received = on_received,
                                                   .secured = on_secured,
                                                   .ended = on_ended,
                                                   .blocked = on_blocked,
                                                   .broken = on_broken,
                                                   .sent = on_sent,
                                                   .closed = on_closed};

/* --- the beginning --- */

/* A ticket no other session of the worker has. */
static bool make_ticket(struct session *session)
{
    struct worker *worker = session->worker;
    struct session *other = NULL;
    uint32_t ticket = 0;
    do {
        uint32_t number = 0;
        if (RAND_bytes((uint8_t *)&number, sizeof(number)) != 1) {
            return false;
        }
        ticket = (worker->index << SESSION_TICKET_BITS) | (number & ((1U << SESSION_TICKET_BITS) - 1));
        HASH_FIND(by_ticket, worker->tickets, &ticket, sizeof(ticket), other);
    } while (other != NULL || ticket == 0);
    session->ticket = ticket;
    HASH_ADD(by_ticket, worker->tickets, ticket, sizeof(session->ticket), session);
    return true;
}

static bool open_client(struct session *session, int socket, bool is_unix)
{
    struct worker *worker = session->worker;
    stream_init(&session->client, &worker->loop, is_unix, worker->buffer, &client_events);
    int failure = is_unix ? uv_pipe_open(&session->client.uv.pipe, socket)
                          : uv_tcp_open(&session->client.uv.tcp, socket);
    if (failure != 0) {
        (void)close(socket);
        return false;
    }
    stream_set_connected(&session->client, &worker->config->tcp_clients);
    client_address_of_socket(&session->address, session->client.descriptor, is_unix);
    client_address_name(&session->address, session->peer);
    return true;
}

void session_begin(struct worker *worker, int socket, bool is_unix)
{
    struct session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        LOG_ERROR("session_failed", LOG_STR("error", "out of memory"));
        atomic_fetch_sub_explicit(&worker->load, 1, memory_order_relaxed);
        (void)close(socket);
        return;
    }
    session->worker = worker;
    session->id = worker->sessions_made++ * worker->shared->worker_count + worker->index + 1;
    session->created_us = clock_mono_us();
    session->state_since_us = session->created_us;
    DL_APPEND(worker->sessions, session);
    worker->session_count++;
    counter_add(&worker->statistics.sessions_by_state[SESSION_LOGIN], 1);
    uint64_t before = atomic_fetch_add_explicit(&worker->shared->connections, 1, memory_order_relaxed);
    bool ok = open_client(session, socket, is_unix) &&
              before < worker->config->max_clients + CONNECTIONS_ABOVE_CLIENTS && make_ticket(session) &&
              login_client_begin(session);
    if (!ok) {
        counter_add(&worker->statistics.refused[PROXY_REFUSED_RESOURCES], 1);
        session_drop(session);
        return;
    }
    if (worker->stopping) { /* accepted by one that had not stopped yet: it hears why it has to go */
        session_stop(session);
    }
    session_update_reading(session);
}

/* --- what it is doing --- */

static enum session_state find_state(const struct session *session)
{
    if (session->closing || session->finishing) {
        return SESSION_CLOSING;
    }
    if (!session->established) {
        return login_client_connects(session) || login_client_waits(session) ? SESSION_CONNECTING
                                                                             : SESSION_LOGIN;
    }
    if (boundary_owes(&session->boundary)) {
        return SESSION_ACTIVE;
    }
    if (boundary_in_transaction(&session->boundary)) {
        return SESSION_TRANSACTION;
    }
    return hold_gate_closed(session->worker) ? SESSION_HELD : SESSION_IDLE;
}

void session_note_state(struct session *session)
{
    enum session_state state = find_state(session);
    if (state != session->state) {
        struct statistics *statistics = &session->worker->statistics;
        counter_add(&statistics->sessions_by_state[session->state], (uint64_t)-1);
        counter_add(&statistics->sessions_by_state[state], 1);
        session->state = state;
        session->state_since_us = clock_mono_us();
    }
}

void session_update(struct session *session)
{
    session_note_state(session);
    timeouts_note(session);
    if (session->worker->hold.stands) {
        hold_note_session(session);
    }
    if (session->worker->stopping && session->state != SESSION_CLOSING && session_at_boundary(session)) {
        session_stop(session);
        return;
    }
    mover_advance(session);
    session_update_reading(session);
    client_end_advance(session);
}

/* The server has the beginning of a message, and not its end. */
static bool is_mid_message(const struct session *session)
{
    return session->cursor.left > 0 && session->discard == RELAY_DISCARD_NOTHING;
}

bool session_shows_half(const struct session *session, const struct server_link *link)
{
    return link->cursor.left > 0 && session->withheld.bytes == NULL;
}

bool session_owes(const struct session *session)
{
    return boundary_owes(&session->boundary) || is_mid_message(session);
}

bool session_at_boundary(const struct session *session)
{
    if (!session->established) {
        return !login_client_connects(session);
    }
    return session->link == NULL || (boundary_at(&session->boundary) && !is_mid_message(session) &&
                                     !session_shows_half(session, session->link));
}

void session_update_reading(struct session *session)
{
    struct server_link *link = session->link;
    bool client = false, server = false;
    if (session->closing) {
        return;
    }
    if (session->finishing || session->terminated) {
        client = true; /* read and forgotten, to see the end */
    } else if (session->login != NULL) {
        client = login_client_wants_bytes(session);
    } else {
        client = session->kept == NULL && (link == NULL || link->stream.unsent <= HIGH_WATER);
    }
    bool kept = session->login != NULL || hold_gate_closed(session->worker);
    session->client.read_size = kept ? HELD_READ_SIZE : READ_SIZE;
    if (client) {
        stream_read_start(&session->client);
    } else {
        stream_read_stop(&session->client);
    }
    if (link == NULL || link->phase != LINK_READY) {
        return;
    }
    server = session->client.unsent <= HIGH_WATER;
    if (server) {
        stream_read_start(&link->stream);
    } else {
        stream_read_stop(&link->stream);
    }
}

void session_set_immovable(struct session *session, bool immovable)
{
    if (immovable != session->immovable) {
        session->immovable = immovable;
        counter_add(&session->worker->statistics.sessions_immovable, immovable ? 1 : (uint64_t)-1);
    }
}

bool session_keep(struct session *session, const char *bytes, size_t length)
{
    char *kept = realloc(session->kept, session->kept_length + length);
    if (kept == NULL) {
        session_end(session, "53200", "out of memory", NULL);
        return false;
    }
    memcpy(kept + session->kept_length, bytes, length);
    session->kept = kept;
    session->kept_length += length;
    return true;
}

/* --- the server --- */

void session_link(struct session *session, struct server_link *link)
{
    ENSURE(session->link == NULL && link->session == session);
    session->link = link;
}

struct server_link *session_unlink(struct session *session)
{
    struct server_link *link = session->link;
    session->link = NULL;
    return link;
}

static void let_go_of_server(struct session *session)
{
    struct server_link *link = session_unlink(session);
    mover_session_end(session);
    session_list_forget(session);
    session_set_immovable(session, false);
    if (link == NULL) {
        return;
    }
    if (session->established && boundary_owes(&session->boundary) && !client_end_spares_server(session)) {
        link_cancel_and_close(link);
    } else {
        link_close(link, session->established && !session->terminated && !is_mid_message(session));
    }
}

/* --- the end --- */

void session_end(struct session *session, const char *sqlstate, const char *message, const char *hint)
{
    if (session->closing || session->finishing || in_doubt_ends(session, sqlstate, message)) {
        return;
    }
    bool between =
        !session->established || session->link == NULL || !session_shows_half(session, session->link);
    LOG_INFO("session_ended", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("client", session->peer), LOG_STR("sqlstate", sqlstate), LOG_STR("reason", message));
    if (between) {
        uint8_t packet[ERROR_SIZE];
        struct build build;
        build_init(&build, packet, sizeof(packet));
        build_error(&build, "FATAL", sqlstate, message, hint);
        if (build_fits(&build)) {
            (void)stream_write(&session->client, packet, build.length);
        }
    }
    session_finish(session);
}

void session_stop(struct session *session)
{
    if (session->in_doubt != NULL) {
        in_doubt_settle(session, PROXY_OUTCOME_UNKNOWN);
    } else if (session->established) {
        session_end(session, "57P01", "terminating connection due to administrator command", NULL);
    } else if (login_client_is_silent(session)) {
        /* its first words may be on their way: they get an answer */
        int64_t last_us = clock_mono_us() + STARTUP_GRACE_US;
        session->deadline_us = session->deadline_us < last_us ? session->deadline_us : last_us;
    } else if (!login_client_is_cancel(session)) {
        session_end(session, "57P03", "the proxy is shutting down", NULL);
    }
}

void session_finish(struct session *session)
{
    if (session->closing || session->finishing) {
        return;
    }
    session->finishing = true;
    hold_note_given_up(session);
    let_go_of_server(session);
    if (!stream_flush(&session->client)) {
        session_drop(session);
        return;
    }
    if (session->client.unsent == 0 && session->client.ended) {
        session_drop(session); /* its end has been seen: nothing is left to wait for */
        return;
    }
    if (session->client.unsent == 0) {
        stream_shutdown(&session->client);
    }
    session->deadline_us =
        clock_mono_us() + (session->client.unsent == 0 ? LINGER_TIMEOUT_US : FLUSH_TIMEOUT_US);
    worker_want_tick(session->worker);
    session_update(session);
}

void session_wait(struct session *session, int64_t deadline_us)
{
    session->finishing = true;
    hold_note_given_up(session);
    let_go_of_server(session);
    session->deadline_us = deadline_us;
    worker_want_tick(session->worker);
    session_update(session);
}

void session_drop(struct session *session)
{
    if (session->closing) {
        return;
    }
    session->closing = true;
    hold_note_given_up(session);
    let_go_of_server(session);
    struct worker *worker = session->worker;
    cancel_key_take(session);
    if (session->ticket != 0) {
        HASH_DELETE(by_ticket, worker->tickets, session);
        session->ticket = 0;
    }
    session_update(session);
    stream_close(&session->client);
}

static void describe_move(const struct session *session, int64_t now_us, struct proxy_session_info *info)
{
    const char *application = move_reported(session->move, "application_name");
    (void)snprintf(info->application, sizeof(info->application), "%s",
                   application != NULL ? application : "");
    info->movable = move_is_movable(session->move, info->reasons, sizeof(info->reasons));
    uint32_t counts[MOVE_HELD_COUNT];
    const char *holds = move_holds(session->move, counts);
    if (holds != NULL && session->asked_us != 0) {
        info->asked_age_us = now_us - session->asked_us;
        info->settings = counts[MOVE_HELD_SETTING];
        info->statements = counts[MOVE_HELD_STATEMENT];
        info->channels = counts[MOVE_HELD_CHANNEL];
        (void)snprintf(info->holds, sizeof(info->holds), "%s", holds);
    }
}

void session_describe(const struct session *session, int64_t now_us, struct proxy_session_info *info)
{
    const struct server_link *link = session->link;
    *info = (struct proxy_session_info){.id = session->id,
                                        .state = session->state,
                                        .side = session->worker->hold.route.side,
                                        .epoch = session->worker->hold.route.epoch,
                                        .waiting = session->kept_since_us != 0,
                                        .movable = true,
                                        .tls = stream_tls_version(&session->client),
                                        .asked_age_us = -1,
                                        .age_us = now_us - session->created_us,
                                        .state_age_us = now_us - session->state_since_us};
    if (link != NULL) {
        info->side = link->side;
        info->server_tls = stream_tls_version(&link->stream);
        info->epoch = link->epoch;
        info->backend_pid = (int32_t)link->pid;
    }
    if (session->startup.user != NULL) {
        (void)snprintf(info->user, sizeof(info->user), "%s", session->startup.user);
        (void)snprintf(info->database, sizeof(info->database), "%s", session->startup.database);
    }
    memcpy(info->client, session->peer, sizeof(info->client));
    if (session->move != NULL) {
        describe_move(session, now_us, info);
    }
    if (session->mover != NULL) {
        const struct server_link *target = session->mover->target;
        info->armed_backend_pid = target != NULL ? (int32_t)target->pid : 0;
        if (session->mover->step == MOVER_FAILED) {
            info->movable = false;
            memcpy(info->reasons, session->mover->failure, sizeof(info->reasons));
        }
    }
}
