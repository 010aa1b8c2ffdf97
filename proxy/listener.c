#include "proxy/listener.h"

#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Others on the loop have their turn between. */
enum { ACCEPTS_AT_ONCE = 16 };

size_t listener_resolve(const char *host, uint16_t port,
                        struct listener_address addresses[LISTENER_ADDRESSES_MAX], struct error *error)
{
    char service[8];
    (void)snprintf(service, sizeof(service), "%u", (unsigned)port);
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    bool any = host[0] == '\0' || strcmp(host, "*") == 0;
    int failure = getaddrinfo(any ? NULL : host, service, &hints, &found);
    if (failure != 0) {
        error_set(error, ERROR_SYSTEM, "listen.host \"%s\" can't be resolved: %s", host,
                  gai_strerror(failure));
        return 0;
    }
    size_t count = 0;
    for (struct addrinfo *info = found; info != NULL && count < LISTENER_ADDRESSES_MAX;
         info = info->ai_next) {
        memcpy(&addresses[count].address, info->ai_addr, info->ai_addrlen);
        addresses[count].length = info->ai_addrlen;
        count++;
    }
    freeaddrinfo(found);
    if (count == 0) {
        error_set(error, ERROR_SYSTEM, "listen.host \"%s\" has no address", host);
    }
    return count;
}

static int bound_socket(const struct listener_address *address, bool reuse_port, struct error *error)
{
    int family = address->address.ss_family;
    int made = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (made < 0 || setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        (reuse_port && setsockopt(made, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) ||
        (family == AF_INET6 && setsockopt(made, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
        bind(made, (const struct sockaddr *)&address->address, address->length) != 0) {
        int cause = errno;
        char host[NI_MAXHOST] = "?", service[NI_MAXSERV] = "?";
        (void)getnameinfo((const struct sockaddr *)&address->address, address->length, host, sizeof(host),
                          service, sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV);
        if (made >= 0) {
            (void)close(made);
        }
        error_set(error, ERROR_SYSTEM, "can't listen on %s port %s: %s", host, service, strerror(cause));
        if (cause == EADDRINUSE) {
            error_remedy(error, "another program, or another daemon, has the port: stop it, or change "
                                "listen.port");
        }
        errno = cause;
        return -1;
    }
    return made;
}

enum listener_probe listener_probe(const struct listener_address *address, struct error *error)
{
    int made = bound_socket(address, false, error);
    if (made < 0) {
        return errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT ? LISTENER_ABSENT : LISTENER_REFUSED;
    }
    (void)close(made);
    return LISTENER_USABLE;
}

int listener_tcp_socket(const struct listener_address *address, struct error *error)
{
    return bound_socket(address, true, error);
}

/* A socket file that nobody answers on is left over from a dead process. */
static bool is_answered(const struct sockaddr_un *address)
{
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answered = probe >= 0 && (connect(probe, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                                   errno == EAGAIN);
    if (probe >= 0) {
        (void)close(probe);
    }
    return answered;
}

int listener_unix_socket(const char *directory, uint16_t port,
                         char path[sizeof(((struct sockaddr_un *)0)->sun_path)], struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length =
        snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.%u", directory, (unsigned)port);
    if (length < 0 || (size_t)length >= sizeof(address.sun_path)) {
        error_set(error, ERROR_CONFIG, "listen.unix_dir \"%s\" is too long for a Unix socket", directory);
        return -1;
    }
    if (is_answered(&address)) {
        error_set(error, ERROR_SYSTEM, "another program listens on %s", address.sun_path);
        error_remedy(error, "stop it, or change listen.unix_dir or listen.port");
        return -1;
    }
    (void)unlink(address.sun_path);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* as PostgreSQL does: everybody may connect, authentication decides */
    if (made < 0 || bind(made, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(address.sun_path, 0777) != 0) {
        error_set(error, ERROR_SYSTEM, "can't listen on %s: %s", address.sun_path, strerror(errno));
        if (made >= 0) {
            (void)close(made);
        }
        return -1;
    }
    memcpy(path, address.sun_path, sizeof(address.sun_path));
    return made;
}

struct connection_letter {
    struct letter letter;
    int socket;
    bool is_unix;
};

static void deliver_connection(struct letter *letter, void *receiver)
{
    struct connection_letter *connection = CONTAINER_OF(letter, struct connection_letter, letter);
    session_begin(receiver, connection->socket, connection->is_unix);
    free(connection);
}

/* The worker with the least to do, unless it makes no difference. */
static struct worker *choose_worker(struct worker *worker)
{
    struct worker *least = worker;
    unsigned least_load = atomic_load_explicit(&worker->load, memory_order_relaxed);
    for (unsigned i = 0; i < worker->shared->worker_count; i++) {
        struct worker *other = &worker->shared->workers[i];
        unsigned load = atomic_load_explicit(&other->load, memory_order_relaxed);
        if (load < least_load && (least != worker || load + 1 < least_load)) {
            least = other;
            least_load = load;
        }
    }
    return least;
}

static void place(struct worker *worker, int socket, bool is_unix)
{
    struct worker *chosen = choose_worker(worker);
    struct connection_letter *connection = chosen == worker ? NULL : calloc(1, sizeof(*connection));
    if (connection == NULL) {
        atomic_fetch_add_explicit(&worker->load, 1, memory_order_relaxed);
        session_begin(worker, socket, is_unix);
        return;
    }
    atomic_fetch_add_explicit(&chosen->load, 1, memory_order_relaxed);
    connection->letter.deliver = deliver_connection;
    connection->socket = socket;
    connection->is_unix = is_unix;
    if (!mailbox_post(&chosen->mailbox,
                      &connection->letter)) { /* it has stopped before us: then it is ours */
        atomic_fetch_sub_explicit(&chosen->load, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&worker->load, 1, memory_order_relaxed);
        session_begin(worker, socket, is_unix);
    }
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = CONTAINER_OF(poll, struct listener, poll);
    (void)status;
    (void)events;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int made = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (made >= 0) {
            place(listener->worker, made, listener->is_unix);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            LOG_ERROR("accept_failed", LOG_STR("error", strerror(errno)));
            listener->paused = true;
            (void)uv_poll_stop(&listener->poll);
            worker_want_tick(listener->worker);
            return;
        }
    }
}

bool listener_open(struct listener *listener, struct worker *worker, int socket, bool is_unix, int backlog,
                   struct error *error)
{
    *listener = (struct listener){.worker = worker, .socket = socket, .is_unix = is_unix};
    int failure = listen(socket, backlog) == 0 ? uv_poll_init(&worker->loop, &listener->poll, socket)
                                               : uv_translate_sys_error(errno);
    if (failure != 0) {
        (void)close(socket);
        return error_set(error, ERROR_SYSTEM, "can't listen: %s", uv_strerror(failure));
    }
    listener->open = true;
    listener->paused = true;
    listener_resume(listener);
    return true;
}

void listener_resume(struct listener *listener)
{
    if (listener->open && listener->paused) {
        listener->paused = false;
        ENSURE(uv_poll_start(&listener->poll, UV_READABLE, on_connection) == 0);
    }
}

void listener_close(struct listener *listener)
{
    if (listener->open) {
        listener->open = false;
        uv_close((uv_handle_t *)&listener->poll, NULL);
        (void)close(listener->socket);
    }
}
