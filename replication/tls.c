#include "replication/tls.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>

/* libpq takes it for a file that isn't there, and looks nowhere else. */
static const char nowhere[] = "/dev/null/none";

static const char *path(const char *given)
{
    return given == NULL || *given == '\0' ? nowhere : given;
}

void tls_parameters(const struct settings_tls *tls, struct tls_parameter parameters[TLS_PARAMETERS])
{
    static const char *const modes[] = {[TLS_MODE_DISABLE] = "disable",
                                        [TLS_MODE_PREFER] = "prefer",
                                        [TLS_MODE_REQUIRE] = "require",
                                        [TLS_MODE_VERIFY_CA] = "verify-ca",
                                        [TLS_MODE_VERIFY_FULL] = "verify-full"};
    parameters[0] = (struct tls_parameter){"sslmode", "PGSSLMODE", modes[tls->mode]};
    parameters[1] = (struct tls_parameter){"sslrootcert", "PGSSLROOTCERT", path(tls->ca)};
    parameters[2] = (struct tls_parameter){"sslcrl", "PGSSLCRL", path(tls->crl)};
    parameters[3] = (struct tls_parameter){"sslcert", "PGSSLCERT", path(tls->cert)};
    parameters[4] = (struct tls_parameter){"sslkey", "PGSSLKEY", path(tls->key)};
}

const char *tls_host(const char *host, const char *server_name)
{
    bool named = server_name != NULL && *server_name != '\0' && host[0] != '/';
    return named && strcmp(server_name, host) != 0 ? server_name : NULL;
}

void tls_look_up(const char *host, char address[TLS_ADDRESS_SIZE])
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    address[0] = '\0';
    if (getaddrinfo(host, NULL, &hints, &found) == 0) {
        (void)getnameinfo(found->ai_addr, found->ai_addrlen, address, TLS_ADDRESS_SIZE, NULL, 0,
                          NI_NUMERICHOST);
        freeaddrinfo(found);
    }
}

static char *copy(const char *text, bool *failed)
{
    char *copied = strdup(text == NULL ? "" : text);
    *failed = *failed || copied == NULL;
    return copied;
}

bool tls_copy(struct settings_tls *to, const struct settings_tls *from)
{
    bool failed = false;
    *to = (struct settings_tls){.mode = from->mode,
                                .ca = copy(from->ca, &failed),
                                .crl = copy(from->crl, &failed),
                                .cert = copy(from->cert, &failed),
                                .key = copy(from->key, &failed)};
    return !failed;
}

void tls_deinit(struct settings_tls *tls)
{
    free(tls->ca);
    free(tls->crl);
    free(tls->cert);
    free(tls->key);
    *tls = (struct settings_tls){.mode = TLS_MODE_DISABLE};
}
