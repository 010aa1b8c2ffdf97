/*
 * TLS on a stream, over OpenSSL, without a thread and without waiting: what the socket brought is opened into
 * the worker's read buffer, what is sent is sealed into another one and goes with one system call. The owner
 * of the stream says when it begins; then sees and sends plain bytes as before, once secured() was called.
 * Until then nothing can be sent. A handshake that fails shows as ended(UV_EPROTO).
 */
#ifndef SWITCHBACK_PROXY_STREAM_TLS_H
#define SWITCHBACK_PROXY_STREAM_TLS_H

#include "proxy/stream.h"

#include <openssl/ssl.h>

/* As the server. False: out of memory. */
MUST_USE bool stream_tls_accept(struct stream *stream, SSL_CTX *context);

/*
 * What the owner had read of the handshake before it knew that it was one (direct TLS); callbacks follow from
 * here.
 */
void stream_tls_feed(struct stream *stream, const char *bytes, size_t length);

/* As the client, sending the first flight; a host that is a name is sent with it (SNI). */
MUST_USE bool stream_tls_connect(struct stream *stream, SSL_CTX *context, const char *host);

/* Why it ended with UV_EPROTO: the handshake's error, or the certificate's. "": it didn't. */
const char *stream_tls_failure(const struct stream *stream);

/* "TLSv1.3"; it lasts as long as the program. NULL: no TLS stands. */
const char *stream_tls_version(const struct stream *stream);

/* The peer chose the protocol `postgresql` by ALPN. */
bool stream_tls_has_protocol(const struct stream *stream);

#endif
