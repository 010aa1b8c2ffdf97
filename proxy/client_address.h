/*
 * Where a client is: the peer of its socket, or what a trusted load balancer's PROXY header says in its place
 * (login_proxied.c). Rules for addresses, limits, logs and `sessions` go by this one.
 */
#ifndef SWITCHBACK_PROXY_CLIENT_ADDRESS_H
#define SWITCHBACK_PROXY_CLIENT_ADDRESS_H

#include "proxy/proxy.h"

#include <netinet/in.h>

/* any.sa_family: AF_INET, AF_INET6; AF_UNIX for a client on this machine's Unix socket; AF_UNSPEC: unknown */
union client_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Of a connected socket. */
void client_address_of_socket(union client_address *address, int socket, bool is_unix);

/* "10.0.0.7:5000", "[::1]:5000", "[local]"; "" if it is unknown. */
void client_address_name(const union client_address *address, char name[PROXY_PEER_SIZE]);

#endif
