/*
 * The header that a load balancer puts before a connection's first byte to say whose it is: version 2 of the
 * PROXY protocol (haproxy.org, "The PROXY protocol", section 2.2). The text of version 1 isn't taken.
 */
#ifndef SWITCHBACK_PROXY_WIRE_PROXIED_H
#define SWITCHBACK_PROXY_WIRE_PROXIED_H

#include "proxy/wire/slice.h"

enum proxied_kind {
    PROXIED_ITSELF, /* the balancer's own connection (a health check), or one of an address we have no use for
                     */
    PROXIED_V4,
    PROXIED_V6
};

struct proxied {
    enum proxied_kind kind;
    uint8_t address[16]; /* of the client, in network order; the first 4 of them for v4 */
    uint16_t port;
};

/*
 * Parses the header at the beginning of bytes. WIRE_OK: *size is its whole length, and may be more than bytes
 * has: what follows the addresses (TLVs) is to be skipped by the caller, up to 64 KiB. WIRE_BAD: not a header
 * of version 2, or not of a stream.
 */
MUST_USE enum wire_answer proxied_parse(struct slice bytes, struct proxied *proxied, size_t *size);

#endif
