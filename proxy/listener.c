#include "proxy/listener.h"

#include "conf/base/log.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

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

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *listener = CONTAINER_OF(stream, struct listener, uv);
    if (status != 0) {
        LOG_WARN("accept_failed", LOG_STR("error", uv_strerror(status)));
        return;
    }
    session_accept(listener->worker, stream, listener->is_unix);
}

bool listener_open(struct listener *listener, struct worker *worker, int socket, bool is_unix, int backlog,
                   struct error *error)
{
    *listener = (struct listener){.worker = worker, .is_unix = is_unix};
    int failure = is_unix ? uv_pipe_init(&worker->loop, &listener->uv.pipe, 0)
                          : uv_tcp_init(&worker->loop, &listener->uv.tcp);
    if (failure == 0) {
        listener->open = true;
        failure = is_unix ? uv_pipe_open(&listener->uv.pipe, socket) : uv_tcp_open(&listener->uv.tcp, socket);
    }
    if (failure != 0) {
        (void)close(socket);
        return error_set(error, ERROR_SYSTEM, "can't open a listener: %s", uv_strerror(failure));
    }
    failure = uv_listen(&listener->uv.stream, backlog, on_connection);
    if (failure != 0) {
        return error_set(error, ERROR_SYSTEM, "can't listen: %s", uv_strerror(failure));
    }
    return true;
}

void listener_close(struct listener *listener, uv_close_cb closed)
{
    if (listener->open) {
        listener->open = false;
        uv_close(&listener->uv.handle, closed);
    }
}
