/* Connections of the forwarder's links, and the faults that their bytes meet. */
#include "forwarder.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

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

void close_end(struct connection *connection, enum end end, bool reset)
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

void close_both(struct connection *connection, bool reset)
{
    close_end(connection, CLIENT, reset);
    close_end(connection, SERVER, reset);
    connection->over = true;
}

int listen_on(int port)
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

void accept_on(struct forwarder *forwarder, struct link *link)
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
    connection->next = forwarder->connections;
    forwarder->connections = connection;
    if (connect(server, (const struct sockaddr *)&target, sizeof(target)) != 0 && errno != EINPROGRESS) {
        close_both(connection, true);
    }
}

/* --- bytes --- */

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

bool may_take(const struct connection *connection, enum end from)
{
    const struct way *way = &connection->ways[from];
    return !connection->over && !connection->half_open && !connection->connecting && !way->ended &&
           way->kept < KEPT_MAX && !connection->link->faults[from].stalled;
}

void take(struct connection *connection, enum end from)
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
void give(struct connection *connection, enum end from)
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
