/*
 * Where clients come in. Each worker listens on its own TCP sockets (SO_REUSEPORT) and on a duplicate of the
 * one Unix socket. Neither spreads the connections evenly: who accepts one hands it on if another worker has
 * less to do. proxy.c makes the sockets before the workers run, so that a port in use is an error of the
 * start.
 */
#ifndef SWITCHBACK_PROXY_LISTENER_H
#define SWITCHBACK_PROXY_LISTENER_H

#include "conf/base/error.h"

#include <netinet/in.h>
#include <stdint.h>
#include <sys/un.h>
#include <uv.h>

struct worker;

enum { LISTENER_ADDRESSES_MAX = 8 };

struct listener_address {
    struct sockaddr_storage address;
    socklen_t length;
};

/* The addresses of a host ("*" is every one). Blocks; only at start. Returns how many, 0: *error. */
MUST_USE size_t listener_resolve(const char *host, uint16_t port,
                                 struct listener_address addresses[LISTENER_ADDRESSES_MAX],
                                 struct error *error);

enum listener_probe {
    LISTENER_USABLE,
    LISTENER_ABSENT, /* not an address of this machine */
    LISTENER_REFUSED
};

/*
 * Binds without SO_REUSEPORT and lets go: refused if anyone else has the port, another daemon with
 * SO_REUSEPORT included. *error is filled unless the address is usable.
 */
MUST_USE enum listener_probe listener_probe(const struct listener_address *address, struct error *error);

/* A bound socket of one worker; -1: *error. */
MUST_USE int listener_tcp_socket(const struct listener_address *address, struct error *error);

/* The bound Unix socket DIR/.s.PGSQL.PORT, whose path is stored; a dead one is replaced. -1: *error. */
MUST_USE int listener_unix_socket(const char *directory, uint16_t port,
                                  char path[sizeof(((struct sockaddr_un *)0)->sun_path)],
                                  struct error *error);

struct listener {
    uv_poll_t poll;
    struct worker *worker;
    int socket;
    bool is_unix;
    bool open;
    bool paused; /* no descriptor was left for a connection: the worker's tick tries again */
};

/* Listens on the worker's loop; takes the socket, also when it fails. */
MUST_USE bool listener_open(struct listener *listener, struct worker *worker, int socket, bool is_unix,
                            int backlog, struct error *error);

void listener_resume(struct listener *listener);
void listener_close(struct listener *listener);

#endif
