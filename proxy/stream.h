/*
 * One connected socket, TCP or Unix, as the sessions and server links see it: bytes in, bytes out, a count of
 * what is unsent. The narrow seam where TLS goes in. Used on its worker's loop only.
 *
 * All streams of a worker read into one buffer. What is passed on from there is sent at the end of the loop's
 * turn (stream_pass): the bytes stay in the buffer until then, nothing is copied, what one turn brought for
 * one socket goes with one system call, and a peer that waits for several of them is woken up once. Only what
 * a socket doesn't take is copied, and counted in `unsent`, which is what backpressure looks at.
 */
#ifndef SWITCHBACK_PROXY_STREAM_H
#define SWITCHBACK_PROXY_STREAM_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct epoll_event;
struct settings_tcp;
struct stream;
struct ssl_st;

struct stream_events {
    void (*received)(struct stream *stream, char *bytes, size_t length);
    /* The peer has closed (UV_EOF) or the connection broke (any other libuv error), seen by a read or a
     * write; comes once. The stream still has to be closed. */
    void (*ended)(struct stream *stream, int status);
    void (*blocked)(struct stream *stream); /* not all of what was passed could be sent */
    void (*broken)(struct stream *stream);  /* nothing can be sent any more; after ended(), too */
    void (*sent)(struct stream *stream);    /* unsent has come down to 0 */
    void (*closed)(struct stream *stream);  /* the handle is gone; the owner may free what holds it */
    void (*secured)(struct stream *stream); /* TLS stands (stream_tls.h); may be NULL */
};

enum {
    READ_SIZE = 64 * 1024, /* at most, at once */
    READ_LEAST = 16 * 1024,
    /* before received bytes, for what the owner kept of a header, or has to say before: it then sees, or
     * sends, one contiguous range */
    READ_HEADROOM = 48
};

/* Where a worker's streams read, and which of them have something to be sent from there. */
struct read_buffer {
    int poll; /* the epoll instance that its streams stand in (stream_poll.h), and room for its events */
    struct epoll_event *events;
    int event_count; /* of this turn */
    size_t used;
    struct stream *passing;
    struct stream *again; /* utlist: those to be read without waiting for an event */
    size_t again_count;
    char bytes[READ_SIZE + READ_LEAST];
    /* TLS (stream_tls.c): what a socket brought, how much of it is still to be opened and whose it is; what
     * is sealed and not yet sent. Both are empty between two streams. */
    struct stream *opening;
    const char *sealed_at;
    size_t sealed_left;
    size_t out_length;
    char sealed[READ_SIZE];
    char out[READ_SIZE + READ_LEAST];
};

struct stream {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    const struct stream_events *events;
    struct read_buffer *buffer;
    struct ssl_st *ssl; /* NULL: plain */
    char *tls_failure;  /* why TLS ended; NULL: it didn't */
    struct stream *next_passing;
    struct stream *prev_again, *next_again;
    const char *passed; /* in the buffer: to be sent at the end of the turn */
    size_t passed_length;
    size_t unsent;      /* bytes written but not yet taken by the socket, without what is passed */
    uint32_t read_size; /* at most so many bytes a read; READ_SIZE unless the owner wants less */
    int descriptor;
    bool open; /* the handle is initialised and its close has not begun */
    bool connected;
    bool reading;
    bool is_passing, is_again; /* in the buffer's lists */
    bool watched;              /* in its epoll instance */
    bool readable, hung_up;    /* there may be something to be read; the end at least */
    bool ended;                /* ended() was called */
    bool tls_secured, tls_broken,
        tls_said_goodbye; /* the handshake is over; nothing can be sent; nor shall be */
};

/* Initialises the handle on the loop, TCP or Unix; no socket is made yet. */
void stream_init(struct stream *stream, uv_loop_t *loop, bool is_unix, struct read_buffer *buffer,
                 const struct stream_events *events);

static inline bool stream_is_tls(const struct stream *stream)
{
    return stream->ssl != NULL;
}

/* After accept or connect: sets the options of a TCP socket. */
void stream_set_connected(struct stream *stream, const struct settings_tcp *options);

void stream_read_start(struct stream *stream);
void stream_read_stop(struct stream *stream);

/* Sends now or later; false: the connection is broken (ended() follows from the loop) or out of memory. */
bool stream_write(struct stream *stream, const void *bytes, size_t length);

/*
 * Sends bytes that lie in the read buffer at the end of the turn, others now. What can't be sent shows as
 * broken().
 */
void stream_pass(struct stream *stream, const char *bytes, size_t length);

/* Sends what was passed now. False as stream_write(). */
bool stream_flush(struct stream *stream);

/* The end of a turn of the worker's loop: sends all that was passed, and empties the buffer. */
void stream_flush_all(struct read_buffer *buffer);

/* Tells the peer that nothing follows; call it when unsent is 0. */
void stream_shutdown(struct stream *stream);

/* Drops what is unsent, after a last try. closed() follows from the loop; no other callback does. */
void stream_close(struct stream *stream);

#endif
