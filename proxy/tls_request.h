/*
 * Asking a server for TLS on a stream that has just been connected (SSLRequest), as the settings of its side
 * say: for the logins of links, and for cancel requests, which travel as their link does.
 */
#ifndef SWITCHBACK_PROXY_TLS_REQUEST_H
#define SWITCHBACK_PROXY_TLS_REQUEST_H

#include "proxy/config.h"
#include "proxy/stream.h"

/* False: the connection is broken. */
MUST_USE bool tls_request_send(struct stream *stream);

enum tls_request_answer {
    TLS_REQUEST_ACCEPTED, /* the handshake has begun: secured() or ended() follows, the latter perhaps already
                           */
    TLS_REQUEST_DECLINED,
    TLS_REQUEST_BAD /* no answer to that, or more than one: somebody put bytes in between */
};

/* The first bytes that came. */
MUST_USE enum tls_request_answer tls_request_answered(struct stream *stream,
                                                      const struct proxy_config *config, enum side side,
                                                      const char *bytes, size_t length);

/* At secured(): the certificate is for the host, where the mode asks for that. False: *subject says for whom.
 */
enum { TLS_REQUEST_SUBJECT_SIZE = 256 };
MUST_USE bool tls_request_verify(const struct stream *stream, const struct proxy_config *config,
                                 enum side side, char subject[TLS_REQUEST_SUBJECT_SIZE]);

#endif
