/*
 * A network that fails on command: TCP forwarders between the parts of a pair (proxy and clusters), for the
 * integration tests. Each LINK listens on a port of 127.0.0.1 and passes to another one.
 *
 *   forwarder CONTROL_SOCKET NAME=LISTEN_PORT:TARGET_PORT...
 *
 * CONTROL_SOCKET (a path) takes one command a line and answers "ok" or "error" when it is in force:
 *
 *   pass LINK                     no fault any more; what was kept back flows, half-open ends are reset
 *   stall LINK WAY                silence that way: nothing is taken, not even the end of a connection; both
 *                                 ways are a partition, and new connections are not accepted
 *   delay LINK WAY MS             each piece arrives so much later
 *   throttle LINK WAY BYTES       a second
 *   cut LINK WAY BYTES            whose piece holds the next byte but so many is reset in its midst; once
 *   refuse LINK                   new connections are refused
 *   admit LINK                    and not any more; all else stays as it is
 *   reset LINK                    both ends of every connection are reset, what was kept back is lost
 *   half LINK client|server       that end is reset, the other one hears nothing
 *   forget LINK                   no connection of now carries anything any more, new ones do
 *   count LINK                    "ok CONNECTIONS": those whose both ends are there
 *
 * WAY: up (to the server), down (to the client) or both. LINK: a name, or * for all.
 */
#include "forwarder.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

_Noreturn void fatal(const char *what)
{
    fprintf(stderr, "forwarder: %s: %s\n", what, strerror(errno));
    exit(1);
}

int64_t now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND_US + time.tv_nsec / 1000;
}

struct polled {
    struct pollfd *list;
    size_t count, capacity;
};

static size_t want(struct polled *polled, int descriptor, int events)
{
    if (polled->count == polled->capacity) {
        polled->capacity = polled->capacity == 0 ? 64 : polled->capacity * 2;
        polled->list = realloc(polled->list, polled->capacity * sizeof(*polled->list));
        if (polled->list == NULL) {
            fatal("memory");
        }
    }
    polled->list[polled->count] = (struct pollfd){.fd = descriptor, .events = (short)events};
    return polled->count++;
}

/* An end that nothing is wanted of isn't polled: it couldn't even tell that it was closed. */
static int wanted_of(const struct connection *connection, enum end end)
{
    if (connection->sockets[end] < 0 || connection->over || connection->half_open) {
        return 0;
    }
    if (connection->connecting) {
        return end == SERVER ? POLLOUT : 0;
    }
    return (may_take(connection, end) ? POLLIN : 0) |
           (connection->ways[1 - end].blocked && !connection->link->faults[1 - end].stalled ? POLLOUT : 0);
}

static void ready(struct connection *connection, enum end end, int events)
{
    if (connection->over || events == 0) {
        return;
    }
    if (connection->connecting) {
        int error = 0;
        socklen_t size = sizeof(error);
        connection->connecting = false;
        getsockopt(connection->sockets[end], SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) {
            close_both(connection, true);
        }
        return;
    }
    connection->ways[1 - end].blocked = false;
    if (may_take(connection, end) && (events & (POLLIN | POLLHUP | POLLERR)) != 0) {
        take(connection, end);
    }
}

static int until_next_ms(const struct forwarder *forwarder)
{
    int64_t next = INT64_MAX;
    const int64_t now = now_us();
    for (const struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        for (int end = 0; end < ENDS; end++) {
            const struct piece *first = connection->ways[end].first;
            const struct fault *fault = &connection->link->faults[end];
            if (first == NULL || fault->stalled || connection->ways[end].blocked || connection->connecting) {
                continue;
            }
            const int64_t step =
                fault->bytes_per_second > 0 ? now + (int64_t)THROTTLE_STEP_MS * MS_US : first->due_us;
            next = step < next ? step : next;
        }
    }
    return next == INT64_MAX ? -1 : next <= now ? 0 : (int)((next - now) / MS_US) + 1;
}

static void forget_over(struct forwarder *forwarder)
{
    struct connection **at = &forwarder->connections;
    while (*at != NULL) {
        struct connection *connection = *at;
        if (connection->over) {
            *at = connection->next;
            free(connection);
        } else {
            at = &connection->next;
        }
    }
}

static void turn(struct forwarder *forwarder, struct polled *polled, int control)
{
    polled->count = 0;
    want(polled, control, POLLIN);
    for (size_t i = 0; i < forwarder->link_count; i++) {
        const bool accepts =
            !forwarder->links[i].faults[CLIENT].stalled && !forwarder->links[i].faults[SERVER].stalled;
        want(polled, accepts ? forwarder->links[i].listener : -1, POLLIN);
    }
    const size_t first = polled->count;
    for (const struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        for (int end = 0; end < ENDS; end++) {
            const int events = wanted_of(connection, (enum end)end);
            want(polled, events == 0 ? -1 : connection->sockets[end], events);
        }
    }
    if (poll(polled->list, polled->count, until_next_ms(forwarder)) < 0 && errno != EINTR) {
        fatal("poll");
    }
    size_t at = first;
    for (struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        ready(connection, CLIENT, polled->list[at].revents);
        ready(connection, SERVER, polled->list[at + 1].revents);
        give(connection, CLIENT);
        give(connection, SERVER);
        at += ENDS;
    }
    forget_over(forwarder);
    for (size_t i = 0; i < forwarder->link_count; i++) {
        if (polled->list[i + 1].revents != 0) {
            accept_on(forwarder, &forwarder->links[i]);
        }
    }
    if (polled->list[0].revents != 0) {
        obey_caller(forwarder, control);
    }
}

int main(int argc, char **argv)
{
    static struct forwarder forwarder;
    struct polled polled = {0};
    signal(SIGPIPE, SIG_IGN);
    for (int i = 2; i < argc && forwarder.link_count < LINKS_MAX; i++) {
        if (!add_link(&forwarder, argv[i])) {
            fprintf(stderr, "forwarder: %s: not NAME=LISTEN_PORT:TARGET_PORT\n", argv[i]);
            return 2;
        }
    }
    if (forwarder.link_count == 0) {
        fprintf(stderr, "usage: forwarder CONTROL_SOCKET NAME=LISTEN_PORT:TARGET_PORT...\n");
        return 2;
    }
    int control = listen_at(argv[1]);
    for (;;) {
        turn(&forwarder, &polled, control);
    }
}
