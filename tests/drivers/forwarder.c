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
 *   count LINK                    "ok CONNECTIONS": those whose both ends are there
 *
 * WAY: up (to the server), down (to the client) or both. LINK: a name, or * for all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    LINKS_MAX = 8,
    NAME_SIZE = 16,
    PIECE_SIZE = 16384,
    KEPT_MAX = 256 * 1024, /* bytes a way of one connection; then its sender isn't read */
    BACKLOG = 128,
    THROTTLE_STEP_MS = 10,
    MS_US = 1000,
    SECOND_US = 1000000
};

/* The end that bytes of a way come from; they go to the other one. */
enum end { CLIENT, SERVER, ENDS };

struct piece {
    struct piece *next;
    int64_t due_us;
    size_t length, sent;
    char bytes[PIECE_SIZE];
};

struct way {
    struct piece *first, **last;
    size_t kept;
    bool ended; /* its sender has closed: passed on behind what is kept */
    bool passed_on;
    bool blocked; /* its receiver takes no more now */
    int64_t credit_at_us, credit;
};

struct fault {
    bool stalled;
    int64_t delay_us, bytes_per_second, cut_after; /* 0, 0, -1: none */
};

struct link {
    char name[NAME_SIZE];
    int listener, listen_port, target_port;
    struct fault faults[ENDS]; /* of the way that comes from that end */
};

struct connection {
    struct connection *next;
    struct link *link;
    int sockets[ENDS]; /* -1: gone */
    bool connecting, half_open, over;
    struct way ways[ENDS];
};

static struct link links[LINKS_MAX];
static size_t link_count;
static struct connection *connections;

static void fatal(const char *what)
{
    fprintf(stderr, "forwarder: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND_US + time.tv_nsec / 1000;
}

/* --- connections --- */

static void drop_pieces(struct way *way)
{
    while (way->first != NULL) {
        struct piece *piece = way->first;
        way->first = piece->next;
        free(piece);
    }
    way->last = &way->first;
    way->kept = 0;
}

static void close_end(struct connection *connection, enum end end, bool reset)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    if (connection->sockets[end] < 0) {
        return;
    }
    if (reset) {
        setsockopt(connection->sockets[end], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    close(connection->sockets[end]);
    connection->sockets[end] = -1;
    drop_pieces(&connection->ways[CLIENT]);
    drop_pieces(&connection->ways[SERVER]);
}

static void close_both(struct connection *connection, bool reset)
{
    close_end(connection, CLIENT, reset);
    close_end(connection, SERVER, reset);
    connection->over = true;
}

static int listen_on(int port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(listener, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, BACKLOG) != 0) {
        fatal("listen");
    }
    return listener;
}

static void accept_on(struct link *link)
{
    const struct sockaddr_in target = {.sin_family = AF_INET,
                                       .sin_port = htons((uint16_t)link->target_port),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, client = accept4(link->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) {
        return;
    }
    struct connection *connection = calloc(1, sizeof(*connection));
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection == NULL || server < 0) {
        fatal("accept");
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    connection->link = link;
    connection->sockets[CLIENT] = client;
    connection->sockets[SERVER] = server;
    connection->ways[CLIENT].last = &connection->ways[CLIENT].first;
    connection->ways[SERVER].last = &connection->ways[SERVER].first;
    connection->connecting = true;
    connection->next = connections;
    connections = connection;
    if (connect(server, (const struct sockaddr *)&target, sizeof(target)) != 0 && errno != EINPROGRESS) {
        close_both(connection, true);
    }
}

/* --- bytes --- */

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static bool may_take(const struct connection *connection, enum end from)
{
    const struct way *way = &connection->ways[from];
    return !connection->over && !connection->half_open && !connection->connecting && !way->ended &&
           way->kept < KEPT_MAX && !connection->link->faults[from].stalled;
}

static void take(struct connection *connection, enum end from)
{
    struct way *way = &connection->ways[from];
    struct piece *piece = malloc(sizeof(*piece));
    if (piece == NULL) {
        fatal("memory");
    }
    ssize_t length = read(connection->sockets[from], piece->bytes, sizeof(piece->bytes));
    if (length > 0) {
        piece->next = NULL;
        piece->sent = 0;
        piece->length = (size_t)length;
        piece->due_us = now_us() + connection->link->faults[from].delay_us;
        *way->last = piece;
        way->last = &piece->next;
        way->kept += piece->length;
        return;
    }
    free(piece);
    if (length == 0) {
        way->ended = true;
    } else if (!would_block()) {
        close_both(connection, true);
    }
}

/* How many of `length` bytes may pass now. */
static size_t allowed(struct connection *connection, enum end from, size_t length)
{
    const struct fault *fault = &connection->link->faults[from];
    struct way *way = &connection->ways[from];
    if (fault->bytes_per_second > 0) {
        const int64_t now = now_us(), most = fault->bytes_per_second / (SECOND_US / MS_US / THROTTLE_STEP_MS);
        way->credit += (now - way->credit_at_us) * fault->bytes_per_second / SECOND_US;
        way->credit = way->credit > most + 1 ? most + 1 : way->credit;
        way->credit_at_us = now;
        length = (int64_t)length > way->credit ? (size_t)way->credit : length;
    }
    if (fault->cut_after >= 0 && (int64_t)length > fault->cut_after) {
        length = (size_t)fault->cut_after;
    }
    return length;
}

static void passed(struct connection *connection, enum end from, size_t length)
{
    struct fault *fault = &connection->link->faults[from];
    struct way *way = &connection->ways[from];
    struct piece *piece = way->first;
    piece->sent += length;
    way->kept -= length;
    way->credit -= fault->bytes_per_second > 0 ? (int64_t)length : 0;
    if (piece->sent == piece->length) {
        way->first = piece->next;
        way->last = way->first == NULL ? &way->first : way->last;
        free(piece);
    }
    fault->cut_after -= fault->cut_after >= 0 ? (int64_t)length : 0;
}

/* Passes on what is due. */
static void give(struct connection *connection, enum end from)
{
    struct fault *fault = &connection->link->faults[from];
    struct way *way = &connection->ways[from];
    const int to = connection->sockets[1 - from];
    while (!connection->over && !connection->half_open && !connection->connecting && !fault->stalled &&
           !way->blocked && way->first != NULL && way->first->due_us <= now_us()) {
        const struct piece *piece = way->first;
        const size_t length = allowed(connection, from, piece->length - piece->sent);
        if (length == 0) {
            if (fault->cut_after == 0) {
                fault->cut_after = -1;
                close_both(connection, true);
            }
            return;
        }
        const ssize_t sent = send(to, piece->bytes + piece->sent, length, MSG_NOSIGNAL);
        if (sent > 0) {
            passed(connection, from, (size_t)sent);
        } else if (would_block()) {
            way->blocked = true;
        } else {
            close_both(connection, true);
        }
    }
    if (!connection->over && !connection->half_open && !fault->stalled && way->ended && !way->passed_on &&
        way->first == NULL) {
        way->passed_on = true;
        shutdown(to, SHUT_WR);
        if (connection->ways[1 - from].passed_on) {
            close_both(connection, false);
        }
    }
}

/* --- commands --- */

static struct link *find_link(const char *name)
{
    for (size_t i = 0; i < link_count; i++) {
        if (strcmp(links[i].name, name) == 0) {
            return &links[i];
        }
    }
    return NULL;
}

static void admit(struct link *link)
{
    if (link->listener < 0) {
        link->listener = listen_on(link->listen_port);
    }
}

static void clear_faults(struct link *link)
{
    for (int end = 0; end < ENDS; end++) {
        link->faults[end] = (struct fault){.cut_after = -1};
    }
    admit(link);
    for (struct connection *connection = connections; connection != NULL; connection = connection->next) {
        if (connection->link == link && connection->half_open) {
            close_both(connection, true);
        }
    }
}

static void reset_all(struct link *link)
{
    for (struct connection *connection = connections; connection != NULL; connection = connection->next) {
        if (connection->link == link) {
            close_both(connection, true);
        }
    }
}

static void halve(struct link *link, enum end gone)
{
    for (struct connection *connection = connections; connection != NULL; connection = connection->next) {
        if (connection->link == link && !connection->over && !connection->half_open) {
            close_end(connection, gone, true);
            connection->half_open = true;
        }
    }
}

/* False: it isn't a fault that has a way. */
static bool set_fault(struct fault *fault, const char *what, int64_t value)
{
    if (strcmp(what, "stall") == 0) {
        fault->stalled = true;
    } else if (strcmp(what, "delay") == 0) {
        fault->delay_us = value * MS_US;
    } else if (strcmp(what, "throttle") == 0) {
        fault->bytes_per_second = value;
    } else if (strcmp(what, "cut") == 0) {
        fault->cut_after = value;
    } else {
        return false;
    }
    return true;
}

/* False: not understood. */
static bool command(struct link *link, const char *what, const char *which, int64_t value)
{
    const bool both = strcmp(which, "both") == 0;
    bool done = false;
    if (both || strcmp(which, "up") == 0) {
        done = set_fault(&link->faults[CLIENT], what, value);
    }
    if (both || strcmp(which, "down") == 0) {
        done = set_fault(&link->faults[SERVER], what, value);
    }
    if (done) {
        return true;
    }
    if (strcmp(what, "pass") == 0) {
        clear_faults(link);
    } else if (strcmp(what, "refuse") == 0) {
        if (link->listener >= 0) {
            close(link->listener);
        }
        link->listener = -1;
    } else if (strcmp(what, "admit") == 0) {
        admit(link);
    } else if (strcmp(what, "reset") == 0) {
        reset_all(link);
    } else if (strcmp(what, "half") == 0) {
        halve(link, strcmp(which, "server") == 0 ? SERVER : CLIENT);
    } else {
        return false;
    }
    return true;
}

static int count_connections(const struct link *link)
{
    int count = 0;
    for (const struct connection *connection = connections; connection != NULL;
         connection = connection->next) {
        count += connection->link == link && !connection->over && !connection->half_open;
    }
    return count;
}

static void obey(char *line, FILE *answer)
{
    char what[NAME_SIZE] = "", name[NAME_SIZE] = "", which[NAME_SIZE] = "";
    char number[NAME_SIZE] = "";
    bool done = false;
    (void)sscanf(line, "%15s %15s %15s %15s", what, name, which, number);
    const int64_t value = strtoll(number, NULL, 10);
    const struct link *counted = find_link(name);
    if (strcmp(what, "count") == 0 && counted != NULL) {
        fprintf(answer, "ok %d\n", count_connections(counted));
        return;
    }
    for (size_t i = 0; i < link_count; i++) {
        if (strcmp(name, "*") == 0 || strcmp(name, links[i].name) == 0) {
            done = command(&links[i], what, which, value);
        }
    }
    fputs(done ? "ok\n" : "error\n", answer);
}

/* One caller at a time: it connects, says one line and waits for the answer. */
static void obey_caller(int listener)
{
    char line[128];
    int caller = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    FILE *stream = caller < 0 ? NULL : fdopen(caller, "r+");
    if (stream == NULL) {
        return;
    }
    if (fgets(line, sizeof(line), stream) != NULL) {
        fseek(stream, 0, SEEK_CUR);
        obey(line, stream);
    }
    fclose(stream);
}

/* --- the loop --- */

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

static int until_next_ms(void)
{
    int64_t next = INT64_MAX;
    const int64_t now = now_us();
    for (const struct connection *connection = connections; connection != NULL;
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

static void forget_over(void)
{
    struct connection **at = &connections;
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

static void turn(struct polled *polled, int control)
{
    polled->count = 0;
    want(polled, control, POLLIN);
    for (size_t i = 0; i < link_count; i++) {
        const bool accepts = !links[i].faults[CLIENT].stalled && !links[i].faults[SERVER].stalled;
        want(polled, accepts ? links[i].listener : -1, POLLIN);
    }
    const size_t first = polled->count;
    for (const struct connection *connection = connections; connection != NULL;
         connection = connection->next) {
        for (int end = 0; end < ENDS; end++) {
            const int events = wanted_of(connection, (enum end)end);
            want(polled, events == 0 ? -1 : connection->sockets[end], events);
        }
    }
    if (poll(polled->list, polled->count, until_next_ms()) < 0 && errno != EINTR) {
        fatal("poll");
    }
    size_t at = first;
    for (struct connection *connection = connections; connection != NULL; connection = connection->next) {
        ready(connection, CLIENT, polled->list[at].revents);
        ready(connection, SERVER, polled->list[at + 1].revents);
        give(connection, CLIENT);
        give(connection, SERVER);
        at += ENDS;
    }
    forget_over();
    for (size_t i = 0; i < link_count; i++) {
        if (polled->list[i + 1].revents != 0) {
            accept_on(&links[i]);
        }
    }
    if (polled->list[0].revents != 0) {
        obey_caller(control);
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        fatal(path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, BACKLOG) != 0) {
        fatal(path);
    }
    return listener;
}

static bool add_link(const char *text)
{
    struct link *link = &links[link_count];
    const char *equals = strchr(text, '='), *colon = strchr(text, ':');
    if (equals == NULL || colon == NULL || equals - text >= NAME_SIZE) {
        return false;
    }
    memcpy(link->name, text, (size_t)(equals - text));
    link->listen_port = (int)strtol(equals + 1, NULL, 10);
    link->target_port = (int)strtol(colon + 1, NULL, 10);
    link->listener = -1;
    clear_faults(link);
    link_count++;
    return true;
}

int main(int argc, char **argv)
{
    struct polled polled = {0};
    signal(SIGPIPE, SIG_IGN);
    for (int i = 2; i < argc && link_count < LINKS_MAX; i++) {
        if (!add_link(argv[i])) {
            fprintf(stderr, "forwarder: %s: not NAME=LISTEN_PORT:TARGET_PORT\n", argv[i]);
            return 2;
        }
    }
    if (link_count == 0) {
        fprintf(stderr, "usage: forwarder CONTROL_SOCKET NAME=LISTEN_PORT:TARGET_PORT...\n");
        return 2;
    }
    int control = listen_at(argv[1]);
    for (;;) {
        turn(&polled, control);
    }
}
