/* The inside of a stream, shared by stream.c (the socket), stream_poll.c (when it is read) and stream_tls.c
 * (TLS over it). */
#ifndef SWITCHBACK_PROXY_STREAM_INTERNAL_H
#define SWITCHBACK_PROXY_STREAM_INTERNAL_H

#include "proxy/stream.h"

/* stream.c */

/* Sends as it is, now or queued behind what is queued. False: the connection is broken. */
MUST_USE bool stream_send(struct stream *stream, const char *bytes, size_t length);
/* Hands over bytes that lie in the read buffer where the next read would have put them. */
void stream_deliver(struct stream *stream, char *bytes, size_t length);
/* The peer has closed, or what it sends can't be understood. */
void stream_set_ended(struct stream *stream, int status);

/* Where the next read goes, and how much. */
char *stream_room(const struct stream *stream, size_t *room);
/* What was read there. */
void stream_received(struct stream *stream, char *bytes, size_t length);

/* stream_poll.c */

/* It is read from now on, beginning with what came before. */
void stream_poll_start(struct stream *stream);
/* Before its socket is closed. */
void stream_poll_close(struct stream *stream);

/* stream_tls.c */

/* Opens what the socket brought; the handshake first. */
void stream_tls_received(struct stream *stream, const char *bytes, size_t length);
/* Seals and sends. False: the connection is broken, or not secured. */
MUST_USE bool stream_tls_send(struct stream *stream, const char *bytes, size_t length);
/* Tells the peer that nothing follows, once. */
void stream_tls_goodbye(struct stream *stream);
void stream_tls_free(struct stream *stream);

#endif
