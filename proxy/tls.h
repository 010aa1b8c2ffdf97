/*
 * What the settings say about TLS, as OpenSSL contexts: one for clients, one for each side. proxy/config.c
 * makes them when it is made, so that a reload reads certificates and keys again and a connection keeps those
 * that it began with. Main thread only; the contexts are used from all workers.
 */
#ifndef SWITCHBACK_PROXY_TLS_H
#define SWITCHBACK_PROXY_TLS_H

#include "conf/settings/settings.h"

#include <openssl/ssl.h>

/* The name of PostgreSQL's protocol in ALPN; direct TLS asks for it. */
#define TLS_PROTOCOL "postgresql"

/* For clients. *context is NULL if TLS is off. False: *error names the setting. */
MUST_USE bool tls_listen_context(const struct settings_listen_tls *settings, SSL_CTX **context,
                                 struct error *error);

/* For the links to a side; `name` of the side's settings is for errors: "sides.blue.tls". */
MUST_USE bool tls_server_context(const struct settings_tls *settings, const char *name, SSL_CTX **context,
                                 struct error *error);

/*
 * The server's certificate is for this host: a name or an address, compared as libpq does for verify-full.
 * False: *subject says whom it is for.
 */
enum { TLS_SUBJECT_SIZE = 256 };
MUST_USE bool tls_certificate_is_for(const SSL *ssl, const char *host, char subject[TLS_SUBJECT_SIZE]);

#endif
