/*
 * A worker: one thread, one libuv loop, and the sessions that were accepted on it. Everything a session
 * touches belongs to its worker, so nothing on the data path takes a lock; other threads reach it by letters
 * in its mailbox only.
 */
#ifndef SWITCHBACK_PROXY_WORKER_H
#define SWITCHBACK_PROXY_WORKER_H

#include "proxy/client_limits.h"
#include "proxy/config.h"
#include "proxy/listener.h"
#include "proxy/mailbox.h"
#include "proxy/mover.h"
#include "proxy/route_hold.h"
#include "proxy/session.h"
#include "proxy/session_list.h"
#include "proxy/side_health.h"
#include "proxy/statistics.h"
#include "proxy/stream.h"
#include "proxy/type_map.h"

#include <stdatomic.h>

/* The number of a worker stands in one byte of the cancel keys that it gives out. */
enum { WORKERS_MAX = 256, WORKER_LISTENERS_MAX = LISTENER_ADDRESSES_MAX + 1 };

/* What all workers see. proxy.c makes it before they run and frees it after they ended. */
struct worker_shared {
    struct mailbox main; /* answers to the controller */
    struct worker *workers;
    unsigned worker_count;
    atomic_uint_fast64_t clients;     /* sessions past their startup packet, against max_clients */
    atomic_uint_fast64_t connections; /* accepted sockets */
    struct client_limits limits;      /* of databases and roles */
    struct failed_logins failed_logins;
    uint8_t mock_secret[32]; /* of the SCRAM exchanges of unknown users */
    uint8_t cancel_master[CANCEL_MASTER_SIZE];
};

struct worker {
    uv_loop_t loop;
    uv_thread_t thread;
    unsigned index;
    atomic_uint load; /* sessions here or on their way here; the listeners of all workers look at it */
    struct worker_shared *shared;
    struct mailbox mailbox;
    struct read_buffer *buffer;
    struct listener listeners[WORKER_LISTENERS_MAX];
    size_t listener_count;
    struct proxy_config *config;
    struct session *sessions;    /* utlist, doubly linked */
    struct session *tickets;     /* uthash by session->ticket */
    struct session *cancel_keys; /* uthash by session->cancel_key.id */
    size_t session_count;
    struct cancel *cancels; /* utlist: cancel requests in flight, and how many of them have begun */
    unsigned cancels_begun;
    struct server_link *orphans; /* utlist: server_orphan.h */
    uint64_t sessions_made;
    int64_t unreachable_told_us[SIDE_COUNT]; /* one line a second says it */
    struct server_addresses addresses[SIDE_COUNT];
    struct side_health health[SIDE_COUNT];
    bool rescue; /* an active side that dies is taken over from: proxy_set_rescue() */
    struct route_hold hold;
    struct mover_flip flip;
    struct session_list list;
    struct database_types *types;
    struct statistics statistics;
    uv_timer_t link_watch;
    uv_timer_t tick; /* looks at deadlines of logins, waits and closes while there are any */
    bool tick_runs;
    int64_t sweep_us; /* when the tick looks at the sessions' timeouts again */
    bool stopping;
    bool ending;
    int64_t stop_deadline_us;
};

/* On the main thread, before the worker's own thread runs. */
MUST_USE bool worker_init(struct worker *worker, struct worker_shared *shared, unsigned index,
                          struct proxy_config *config, struct proxy_route route, struct error *error);
MUST_USE bool worker_run(struct worker *worker, struct error *error);

/* On the worker: no new clients; sessions end at their boundary, all at the deadline. */
void worker_stop(struct worker *worker, int64_t deadline_us);
/* On the worker: a session is gone, or stopping has begun: goes on with the end if nothing is left. */
void worker_check_end(struct worker *worker);
/* On the worker: something with a deadline began. */
void worker_want_tick(struct worker *worker);

/* On the main thread, after the answer WORKER_ENDED, or when worker_run was never called. */
void worker_join(struct worker *worker);
void worker_deinit(struct worker *worker);

#endif
