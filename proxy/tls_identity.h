/*
 * Who stands at the other end of a TLS connection, and what binds a login to it: the names in the peer's
 * certificate (`auth: cert`, clientname=), and the hash of the server's certificate (tls-server-end-point,
 * RFC 5929, for SCRAM-SHA-256-PLUS, in both directions). login_auth.c and login_server.c ask.
 */
#ifndef SWITCHBACK_PROXY_TLS_IDENTITY_H
#define SWITCHBACK_PROXY_TLS_IDENTITY_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stream;

enum { TLS_END_POINT_MAX = 64 }; /* bytes of the longest hash */

enum tls_name_kind { TLS_NAME_DNS, TLS_NAME_EMAIL, TLS_NAME_URI };

struct tls_name {
    enum tls_name_kind kind;
    char *text;
};

/* Of a certificate that was verified. Texts are UTF-8 without NUL inside. */
struct tls_identity {
    char *common_name; /* "": none */
    char *subject;     /* the distinguished name as RFC 2253 writes it, which is how PostgreSQL matches it */
    struct tls_name *alternatives;
    size_t alternative_count;
};

enum tls_identity_answer {
    TLS_IDENTITY_OK,
    TLS_IDENTITY_NONE, /* no TLS, or the peer showed no certificate, or nothing verified it */
    TLS_IDENTITY_BAD   /* a name with a NUL inside: somebody is playing tricks; or out of memory */
};

/* Free it with tls_identity_deinit() when OK. */
MUST_USE enum tls_identity_answer tls_identity_of(const struct stream *stream, struct tls_identity *identity);
void tls_identity_deinit(struct tls_identity *identity);

/*
 * The hash of the server's certificate: ours on a client's stream, the server's on a link's. Returns its
 * length; 0: no TLS, or the certificate's signature has no hash (Ed25519): channel binding isn't possible.
 */
size_t tls_end_point(const struct stream *stream, uint8_t hash[TLS_END_POINT_MAX]);

#endif
