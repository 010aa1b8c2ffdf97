/* What the parts of the forwarder share. See forwarder.c for what it is and which commands it takes. */
#ifndef TESTS_DRIVERS_FORWARDER_H
#define TESTS_DRIVERS_FORWARDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
    bool connecting, half_open /* or forgotten */, over;
    struct way ways[ENDS];
};

struct forwarder {
    struct link links[LINKS_MAX];
    size_t link_count;
    struct connection *connections;
};

/* Says why, with errno's text, and exits. */
_Noreturn void fatal(const char *what);
int64_t now_us(void);

/* --- links.c: what the bytes of a connection go through --- */

int listen_on(int port);
void accept_on(struct forwarder *forwarder, struct link *link);
void close_end(struct connection *connection, enum end end, bool reset);
void close_both(struct connection *connection, bool reset);
bool may_take(const struct connection *connection, enum end from);
/* Reads what that end has sent. */
void take(struct connection *connection, enum end from);
/* Passes on what is due of what that end has sent. */
void give(struct connection *connection, enum end from);

/* --- commands.c --- */

/* NAME=LISTEN_PORT:TARGET_PORT. False: it isn't that. */
bool add_link(struct forwarder *forwarder, const char *text);
/* Where callers come; one at a time: each says one line and waits for the answer. */
int listen_at(const char *path);
void obey_caller(struct forwarder *forwarder, int listener);

#endif
