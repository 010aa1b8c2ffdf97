/*
 * What the workers need of the settings: an immutable copy, shared by counting references, so that a reload
 * never pulls a string from under a running login. proxy.c makes it, workers read it.
 */
#ifndef SWITCHBACK_PROXY_CONFIG_H
#define SWITCHBACK_PROXY_CONFIG_H

#include "conf/base/network.h"
#include "conf/settings/settings.h"
#include "proxy/failed_logins.h"

#include <stdatomic.h>

struct ssl_ctx_st;

struct proxy_config {
    atomic_uint references;
    struct {
        char *host; /* a name, an address, or the directory of a Unix socket */
        uint16_t port;
        struct ssl_ctx_st *tls; /* NULL: plain */
        enum tls_mode tls_mode;
        char *tls_name; /* that its certificate must have */
    } sides[SIDE_COUNT];
    struct ssl_ctx_st *listen_tls; /* NULL: plain */
    enum tls_mode listen_tls_mode;
    char **databases;
    size_t database_count;
    uint64_t max_clients;
    struct settings_timeouts timeouts;
    struct settings_limits limits; /* a copy of its own */
    struct settings_tcp tcp_clients, tcp_servers;
    struct network *balancers; /* begin with a PROXY header */
    size_t balancer_count;
    bool unix_balancers; /* so do clients of the Unix socket */
    int64_t max_hold_us;
    enum unmanaged_policy unmanaged;
    struct hba *hba;           /* who has to prove what */
    bool hba_groups;           /* to know that, one must know of which roles a role is a member */
    struct userlist *userlist; /* NULL: the active side is asked */
    struct failed_logins_policy failed_logins;
    enum client_eof_policy client_eof;
};

/* NULL: out of memory, or a file that the settings name can't be used. */
MUST_USE struct proxy_config *config_new(const struct settings *settings, struct error *error);
struct proxy_config *config_ref(struct proxy_config *config);
void config_unref(struct proxy_config *config);

bool config_is_managed(const struct proxy_config *config, const char *database);

#endif
