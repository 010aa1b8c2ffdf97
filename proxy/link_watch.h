/*
 * Ends sessions whose server's machine takes nothing any more: a firewall that forgot the connection, a
 * network that swallows what is sent. TCP alone gives up after a quarter of an hour, and TCP_USER_TIMEOUT
 * also ends a server that lives and only doesn't read for a while (a COPY that waits for a lock). The
 * difference is whether anything is acknowledged, which the kernel knows. And ends those whose server doesn't
 * answer what it was asked for a flip: nobody waits for our sake longer than flip.max_hold.
 */
#ifndef SWITCHBACK_PROXY_LINK_WATCH_H
#define SWITCHBACK_PROXY_LINK_WATCH_H

#include "conf/base/compiler.h"

#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>

struct worker;

/* On the worker, or before it runs: looks at its links from now on, as its configuration says. */
void link_watch_set(struct worker *worker);

/*
 * What was sent is repeated again and again, and nothing at all came back for so long. since_us: since when
 * the looks find it so; the caller keeps it for the connection, 0 at first.
 */
MUST_USE bool link_watch_is_lost(const struct tcp_info *info, int64_t *since_us, int64_t now_us,
                                 int64_t lost_after_us);

#endif
