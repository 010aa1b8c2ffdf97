/*
 * A server link: the proxy's connection to a side on behalf of one session, from name lookup through login
 * to close. It carries the side and the epoch it was opened for. The session uses it as its server, or holds
 * it as the target of a move; both through the same events.
 *
 * A link outlives its session where it must: link_close() returns at once, and the memory goes with the last
 * callback of the loop.
 */
#ifndef SWITCHBACK_PROXY_SERVER_LINK_H
#define SWITCHBACK_PROXY_SERVER_LINK_H

#include "conf/base/side.h"
#include "proxy/server_orphan.h"
#include "proxy/stream.h"
#include "proxy/wire/frame.h"

#include <sys/socket.h>

struct proxy_config;
struct server_link;
struct server_login;
struct session;
struct worker;

/* Why a link could not be had, as the client will be told. */
struct link_failure {
    char sqlstate[6];
    char message[400];
    char hint[400];
    struct slice verbatim; /* the server's own ErrorResponse, whole: passed on as it is; or empty */
    bool authenticated;    /* it had said AuthenticationOk before */
    bool unreachable;      /* nothing listens, answers, or takes logins yet: another time it may */
};

struct link_events {
    /* Logged in. greeting: the ParameterStatus and Notice messages of the login. */
    void (*ready)(struct server_link *link, struct slice greeting);
    /* Before ready; the link closes itself. */
    void (*failed)(struct server_link *link, const struct link_failure *failure);
    /* After ready. */
    void (*received)(struct server_link *link, char *bytes, size_t length);
    void (*blocked)(struct server_link *link); /* what was written is not sent yet */
    void (*sent)(struct server_link *link);    /* now it is */
    void (*ended)(struct server_link *link, int status);
};

/* Where a side is: what its name resolved to. Kept for a moment, so that a storm of logins is not one of
 * lookups, which share their threads with the journal. */
enum { SERVER_ADDRESSES_MAX = 8 };

struct server_addresses {
    unsigned count;
    int64_t resolved_us;
    struct sockaddr_storage list[SERVER_ADDRESSES_MAX];
};

enum link_phase { LINK_RESOLVING, LINK_CONNECTING, LINK_LOGIN, LINK_READY, LINK_CLOSING };

struct server_link {
    struct stream stream;
    struct worker *worker;
    struct proxy_config *config; /* as it was when the link was opened */
    struct session *session;     /* for whom; NULL once let go of */
    const struct link_events *events;
    enum side side;
    enum link_phase phase;
    uint64_t epoch;
    uint32_t pid;        /* of the backend; 0: it sent no cancel key */
    uint8_t *cancel_key; /* 4 bytes, or what a server that speaks 3.2 sends */
    size_t cancel_key_length;
    struct frame_cursor cursor; /* of what the server sends, after login */
    bool half_seen;             /* it became the session's server in the middle of a message: not for him */
    struct server_login *login; /* until ready */
    unsigned handles;           /* open ones and running lookups: freed when there are none */
    unsigned cancels;           /* in flight: closed when they are over */
    bool close_wanted;
    bool input_ended;    /* of link_end_input() */
    uv_timer_t retiring; /* of link_retire() */
    struct server_orphan orphan;
    bool broken; /* a write failed: nothing more is sent, what the server said is still read */
};

/* Opens and logs in; ready() or failed() follows from the loop. NULL: out of memory. */
MUST_USE struct server_link *link_open(struct session *session, enum side side, uint64_t epoch,
                                       const struct link_events *events);

/* No more events. Says goodbye (Terminate) if `polite`: the server is between two messages. */
void link_close(struct server_link *link, bool polite);

/*
 * As link_close(), politely, but a little later and not all at once: backends that end take time from the
 * sessions that were just swapped and wait to be released. Nothing is read from it any more.
 */
void link_retire(struct server_link *link);

/* As link_close(), but what runs is cancelled until the server has ended (server_orphan.h). */
void link_cancel_and_close(struct server_link *link);

/* Sends to the server, now or (bytes in the read buffer) at the end of the turn; a failure shows as ended().
 */
void link_write(struct server_link *link, const void *bytes, size_t length);

/* Nothing more is sent: the server sees the end once it has what was sent, and does what it does then. */
void link_end_input(struct server_link *link);

/* For cancel.c: a cancel request for this link is over. */
void link_cancel_over(struct server_link *link);

#endif
