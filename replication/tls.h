/*
 * How libpq is told to reach a cluster with TLS, from the settings of a side: for the manager's connections,
 * for pg_dump, and for the subscriptions that the other side runs.
 */
#ifndef SWITCHBACK_REPLICATION_TLS_H
#define SWITCHBACK_REPLICATION_TLS_H

#include "conf/base/strbuf.h"
#include "conf/settings/settings.h"

/* A parameter of libpq, and the environment variable that says the same. */
struct tls_parameter {
    const char *keyword, *variable, *value;
};

/* Each is set: what isn't given must not come from the home folder of whoever runs us. Borrows from tls. */
enum { TLS_PARAMETERS = 5 };
void tls_parameters(const struct settings_tls *tls, struct tls_parameter parameters[TLS_PARAMETERS]);

/*
 * The name that the server's certificate must have, for the parameter `host`; hostaddr has the address beside
 * it. NULL: the host itself, which libpq looks up.
 */
const char *tls_host(const char *host, const char *server_name);

/* An address of the host, for hostaddr. Blocks in a lookup: on a task's thread only. "": it has none. */
enum { TLS_ADDRESS_SIZE = 64 };
void tls_look_up(const char *host, char address[TLS_ADDRESS_SIZE]);

/* A deep copy; NULL paths become "". False: out of memory; *to can be freed in either case. */
MUST_USE bool tls_copy(struct settings_tls *to, const struct settings_tls *from);
void tls_deinit(struct settings_tls *tls);

#endif
