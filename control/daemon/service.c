#include "control/daemon/service.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_SOCKET = 3, MESSAGE_SIZE = SERVICE_STATUS_SIZE + 32 };

/* --- what it tells us --- */

static bool read_number(const char *name, int64_t *number)
{
    const char *text = getenv(name);
    char *end = NULL;
    if (text == NULL || text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *number = strtoll(text, &end, 10);
    return errno == 0 && *end == '\0';
}

/* A variable that names a process is meant for that one only. */
static bool is_for_us(const char *name)
{
    int64_t pid = 0;
    return read_number(name, &pid) && pid == getpid();
}

static void open_notify(struct service *service)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t length = path == NULL ? 0 : strlen(path);
    if (length < 2 || length >= sizeof(service->address.sun_path) || (path[0] != '/' && path[0] != '@')) {
        return;
    }
    service->address.sun_family = AF_UNIX;
    memcpy(service->address.sun_path, path, length);
    if (path[0] == '@') {
        service->address.sun_path[0] = '\0'; /* in the abstract namespace: no NUL at the end */
    }
    service->address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    service->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static bool option(int socket, int name, int *value)
{
    socklen_t length = sizeof(*value);
    return getsockopt(socket, SOL_SOCKET, name, value, &length) == 0;
}

/* A stream socket that listens: what clients connect to. */
static bool take_socket(int socket, struct proxy_sockets *sockets, struct error *error)
{
    int type = 0, domain = 0, accepts = 0;
    if (!option(socket, SO_TYPE, &type) || !option(socket, SO_DOMAIN, &domain) ||
        !option(socket, SO_ACCEPTCONN, &accepts) || type != SOCK_STREAM || accepts == 0 ||
        (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX)) {
        error_set(error, ERROR_CONFIG,
                  "descriptor %d, which was passed by $LISTEN_FDS, is not a TCP or Unix stream socket that "
                  "listens",
                  socket);
        return error_remedy(error, "give the socket unit ListenStream= lines only, and Accept=no");
    }
    if (fcntl(socket, F_SETFD, FD_CLOEXEC) != 0 || fcntl(socket, F_SETFL, O_NONBLOCK) != 0) {
        return error_set(error, ERROR_SYSTEM, "descriptor %d: %s", socket, strerror(errno));
    }
    sockets->items[sockets->count++] = (struct proxy_socket){.socket = socket, .is_unix = domain == AF_UNIX};
    return true;
}

static bool take_sockets(struct proxy_sockets *sockets, struct error *error)
{
    int64_t count = 0;
    if (!is_for_us("LISTEN_PID") || !read_number("LISTEN_FDS", &count)) {
        return true;
    }
    if (count > PROXY_SOCKETS_MAX) {
        return error_set(error, ERROR_CONFIG, "$LISTEN_FDS passes %" PRId64 " sockets, expected at most %d",
                         count, PROXY_SOCKETS_MAX);
    }
    for (int i = 0; i < (int)count; i++) {
        if (!take_socket(FIRST_SOCKET + i, sockets, error)) {
            return false;
        }
    }
    return true;
}

bool service_open(struct service *service, struct proxy_sockets *sockets, struct error *error)
{
    static const char *const variables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                            "LISTEN_PID",    "LISTEN_FDS",    "LISTEN_FDNAMES"};
    int64_t watchdog_us = 0;
    *service = (struct service){.socket = -1};
    *sockets = (struct proxy_sockets){.count = 0};
    open_notify(service);
    if (read_number("WATCHDOG_USEC", &watchdog_us) &&
        (getenv("WATCHDOG_PID") == NULL || is_for_us("WATCHDOG_PID"))) {
        service->watchdog_us = watchdog_us;
    }
    bool ok = take_sockets(sockets, error);
    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++) {
        (void)unsetenv(variables[i]);
    }
    return ok;
}

void service_close(struct service *service)
{
    if (service->socket >= 0) {
        (void)close(service->socket);
        service->socket = -1;
    }
}

/* --- what we tell it --- */

/* It is told what it may want to know; that it isn't there is no reason to stop. */
static void tell(const struct service *service, const char *message)
{
    if (service->socket < 0) {
        return;
    }
    if (sendto(service->socket, message, strlen(message), MSG_NOSIGNAL | MSG_DONTWAIT,
               (const struct sockaddr *)&service->address, service->address_length) < 0) {
        LOG_DEBUG("service_not_told", LOG_STR("error", strerror(errno)));
    }
}

void service_ready(const struct service *service)
{
    tell(service, "READY=1");
}

void service_reloading(const struct service *service)
{
    char message[MESSAGE_SIZE];
    (void)snprintf(message, sizeof(message), "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_mono_us());
    tell(service, message);
}

void service_stopping(const struct service *service, int64_t within_us)
{
    char message[MESSAGE_SIZE];
    (void)snprintf(message, sizeof(message), "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=%" PRId64,
                   within_us);
    tell(service, message);
}

void service_alive(const struct service *service)
{
    tell(service, "WATCHDOG=1");
}

void service_status(struct service *service, const char *status)
{
    char message[MESSAGE_SIZE];
    if (service->socket < 0 || strcmp(service->status, status) == 0) {
        return;
    }
    (void)snprintf(service->status, sizeof(service->status), "%s", status);
    (void)snprintf(message, sizeof(message), "STATUS=%s", service->status);
    tell(service, message);
}
