/*
 * A session: one client connection with everything that hangs on it, from accept to close on one worker.
 * This file owns its life: accept, what it is doing (state), its server link, its end. Who does the rest:
 * login_client.c (startup, authentication), relay.c (bytes both ways), route_hold.c (gate), mover.c (arm and
 * swap), cancel.c.
 *
 * Rules: session_update() alone writes the state. session_link() and session_unlink() alone set the server
 * link. The memory is freed in the last close callback, so that a function may end the session it works on
 * and still look at session->closing.
 */
#ifndef SWITCHBACK_PROXY_SESSION_H
#define SWITCHBACK_PROXY_SESSION_H

#include "proxy/async_message.h"
#include "proxy/cancel_key.h"
#include "proxy/client_address.h"
#include "proxy/client_limits.h"
#include "proxy/doubt.h"
#include "proxy/proxy.h"
#include "proxy/server_link.h"
#include "proxy/stream.h"
#include "proxy/timeouts.h"
#include "proxy/wire/boundary.h"

#include <uthash.h>

struct worker;
struct client_login;
struct in_doubt;
struct move;
struct database_types;
struct mover;
struct numbering;

/* A ticket is what identifies a session to other threads. */
enum { SESSION_TICKET_BITS = 23 };

static inline unsigned session_ticket_worker(uint32_t ticket)
{
    return ticket >> SESSION_TICKET_BITS;
}

/* What the client said at startup, kept for every login to a server on its behalf. */
struct session_startup {
    char *parameters; /* name, value pairs; without those that begin with _pq_. */
    size_t length;
    const char *user, *database; /* in parameters */
    uint32_t spoken;             /* version of the protocol, startup.h */
    bool replication;
    bool physical; /* a replication connection without a database */
};

/* What a login revealed that opens the servers' door, too: the keys of a SCRAM exchange, or what an md5 one
 * was checked against. In locked memory, wiped (key_pool.h). */
struct session_keys {
    bool has_scram, has_md5;
    uint8_t client_key[32], server_key[32];
    char md5[32];
};

struct session {
    struct stream client;
    struct worker *worker;
    struct session *prev, *next;
    uint64_t id;
    struct server_link *link; /* where statements go; NULL: none yet, or no more */

    enum session_state state;
    int64_t created_us, state_since_us;
    union client_address address; /* of the client, PROXY headers included */
    char peer[PROXY_PEER_SIZE];   /* the same as text */
    struct session_startup startup;
    struct client_login *login; /* until the session is established */
    struct session_keys *keys;  /* NULL: the login revealed none */

    /* relay */
    struct boundary boundary;
    struct frame_cursor cursor; /* of what the client sends */
    struct async_withheld withheld;
    char *kept; /* read from the client, not forwarded: the gate, a full boundary, login */
    size_t kept_length;
    int64_t kept_since_us; /* when the gate began to keep something; 0: it keeps nothing */
    char sqlstate[6];      /* of the last error in the segment being answered, for statistics */

    uint32_t ticket; /* with the worker's number */
    UT_hash_handle by_ticket;
    struct cancel_key cancel_key;

    struct doubt doubt;               /* what is at stake if its server goes now */
    struct in_doubt *in_doubt;        /* its server went, and what became of its COMMIT is being found out */
    bool unsync_known, starts_unsync; /* it logged in with commits that wait for nobody */
    bool unsync;                      /* counted as such */
    bool panicked;                    /* the server has said a PANIC that its client wasn't told */

    struct move *move;                  /* what its traffic told about its state */
    struct mover *mover;                /* while armed */
    enum side home;                     /* where it began: whose numbers of types it speaks */
    const struct database_types *types; /* of its database, on both sides */
    struct numbering *numbering;        /* NULL: it speaks the numbers of its server's side */

    int64_t asked_us;    /* when its state was asked last; 0: never */
    int64_t deadline_us; /* of login, of waiting for the route, of the last flush; 0: none */
    struct session_watch watch;
    struct client_place place; /* counted against the limits of its database and role */
    char violation[40];        /* how the client broke the protocol; the server is to say so */
    bool counted;              /* against max_clients */
    uint8_t discard;           /* enum relay_discard */
    bool fatal;                /* the server has said that it ends the connection */
    bool established;          /* logged in: the client has seen ReadyForQuery */
    bool terminated;           /* the client sent Terminate, or its violation */
    bool client_ended;         /* nothing more comes from it (client_end.h) */
    bool client_gone;          /* nothing can be sent to it, either */
    bool immovable;            /* counted as such, as far as was asked */
    bool untold;               /* since a swap: the next reply brings the parameters that differ */
    bool cancel_waits;         /* a cancel came while its server was asked */
    bool undrained;            /* counted in the worker's hold */
    bool list_due;             /* to be asked for the list of sessions */
    bool list_asked;           /* being asked for it */
    bool finishing;            /* what is unsent is flushed, then the client is closed */
    bool closing;              /* the client's handle is being closed */
};

/* What names this very session in a question whose answer comes later: a ticket is used again. */
static inline uint64_t session_request(const struct session *session)
{
    return session->id << 32 | session->ticket;
}

/* A client has connected; takes the socket. It counts in the worker's load already. */
void session_begin(struct worker *worker, int socket, bool is_unix);

/* Finds out anew what the session is doing, and tells gauges and hold. Call it when anything has changed. */
void session_update(struct session *session);
/* Only the first of it: for a list that is made before session_update() is called. */
void session_note_state(struct session *session);

/* The link is the session's server from now on; unlink lets go of it without closing it. */
void session_link(struct session *session, struct server_link *link);
struct server_link *session_unlink(struct session *session);

/* True if nothing is owed and nothing half sent: work can stop, or go on elsewhere, right here. */
bool session_at_boundary(const struct session *session);
/* A reply is owed, or a message is half sent. */
bool session_owes(const struct session *session);
/* The client has seen the beginning of a message of its server, and not its end. */
bool session_shows_half(const struct session *session, const struct server_link *link);

/* Starts or stops reading either side, as backpressure, gate and phase say. */
void session_update_reading(struct session *session);

/*
 * Ends, in three ways: end() tells the client why (FATAL) if the protocol allows it now; finish() flushes
 * what was sent; drop() closes at once. Each lets go of the server: running work is cancelled first.
 */
void session_end(struct session *session, const char *sqlstate, const char *message, const char *hint);
void session_finish(struct session *session);
void session_drop(struct session *session);
/* As finish(), but the client is yet to be told what became of its COMMIT (in_doubt.h), until the deadline.
 */
void session_wait(struct session *session, int64_t deadline_us);
/* As end(), because the daemon stops: with what PostgreSQL says when it does. */
void session_stop(struct session *session);

/* Keeps bytes that were read from the client, for later. False: out of memory, the session was ended. */
bool session_keep(struct session *session, const char *bytes, size_t length);

/* What was found out about moving it. */
void session_set_immovable(struct session *session, bool immovable);

/* The session as operators see it. */
void session_describe(const struct session *session, int64_t now_us, struct proxy_session_info *info);

#endif
