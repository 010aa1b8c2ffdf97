#include "proxy/listening.h"

#include "conf/base/log.h"
#include "proxy/worker.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* One socket for all workers: each listens on a duplicate. */
static bool share(struct worker_shared *shared, int socket, bool is_unix, int backlog, struct error *error)
{
    for (unsigned i = 0; i < shared->worker_count; i++) {
        struct worker *worker = &shared->workers[i];
        int copy = fcntl(socket, F_DUPFD_CLOEXEC, 0);
        if (copy < 0) {
            return error_set(error, ERROR_SYSTEM, "no descriptor for a listener");
        }
        if (!listener_open(&worker->listeners[worker->listener_count++], worker, copy, is_unix, backlog,
                           error)) {
            return false;
        }
    }
    return true;
}

static bool listen_tcp(struct worker_shared *shared, const struct settings *settings, struct error *error)
{
    struct listener_address addresses[LISTENER_ADDRESSES_MAX];
    size_t count = listener_resolve(settings->listen_host, (uint16_t)settings->listen_port, addresses, error);
    for (size_t i = 0; i < count;) {
        switch (listener_probe(&addresses[i], error)) {
        case LISTENER_USABLE:
            i++;
            break;
        case LISTENER_ABSENT: /* a name or "*" may stand for a family that the machine lacks */
            memmove(&addresses[i], &addresses[i + 1], (count - i - 1) * sizeof(addresses[0]));
            count--;
            break;
        case LISTENER_REFUSED:
            return false;
        }
    }
    for (unsigned i = 0; i < shared->worker_count; i++) {
        struct worker *worker = &shared->workers[i];
        for (size_t a = 0; a < count; a++) {
            int made = listener_tcp_socket(&addresses[a], error);
            if (made < 0 || !listener_open(&worker->listeners[worker->listener_count++], worker, made, false,
                                           (int)settings->listen_backlog, error)) {
                return false;
            }
        }
    }
    return count > 0;
}

static bool listen_unix(struct worker_shared *shared, const struct settings *settings,
                        unix_socket_path unix_path, struct error *error)
{
    /* without a TCP port the socket's name still needs a number */
    enum { DEFAULT_PORT = 6432 };
    uint16_t port = settings->listen_port != 0 ? (uint16_t)settings->listen_port : DEFAULT_PORT;
    int made = listener_unix_socket(settings->listen_unix_dir, port, unix_path, error);
    if (made < 0) {
        return false;
    }
    bool opened = share(shared, made, true, (int)settings->listen_backlog, error);
    (void)close(made);
    return opened;
}

bool listening_open(struct worker_shared *shared, const struct settings *settings,
                    const struct proxy_sockets *passed, unix_socket_path unix_path, struct error *error)
{
    for (size_t i = 0; passed != NULL && i < passed->count; i++) {
        if (!share(shared, passed->items[i].socket, passed->items[i].is_unix, (int)settings->listen_backlog,
                   error)) {
            return false;
        }
    }
    if (passed != NULL && passed->count > 0) {
        return true;
    }
    return (settings->listen_port == 0 || listen_tcp(shared, settings, error)) &&
           (settings->listen_unix_dir[0] == '\0' || listen_unix(shared, settings, unix_path, error));
}
