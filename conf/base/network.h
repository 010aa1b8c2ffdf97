/*
 * Networks of IP addresses, as "10.0.0.0/8", "::1" or "fe80::/10" write them: who is trusted with what. A v4
 * address that came in through a v6 socket (::ffff:a.b.c.d) is the v4 address.
 */
#ifndef SWITCHBACK_CONF_BASE_NETWORK_H
#define SWITCHBACK_CONF_BASE_NETWORK_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct network {
    int family; /* AF_INET, AF_INET6 */
    unsigned bits;
    uint8_t address[16]; /* in network order; the first 4 of them for v4 */
};

/* False: not an address, or bits that can't be; bits set beyond the mask are refused, too. */
MUST_USE bool network_parse(const char *text, struct network *network);

/* An address, v4 or v6, and not a name: its family, and its bytes in network order. */
MUST_USE bool network_parse_address(const char *text, int *family, uint8_t bytes[16]);
bool network_is_address(const char *text);

/* The bytes of an address, which stay its own, and its family; a mapped one is v4. NULL: no IP address. */
const uint8_t *network_bytes(const struct sockaddr *address, int *family);

bool network_contains(const struct network *network, const struct sockaddr *address);

#endif
