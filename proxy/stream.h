/*
 * One connected socket, TCP or Unix, as the sessions and server links see it: bytes in, bytes out, a count of
 * what is unsent. The narrow seam where TLS goes in. Used on its worker's loop only.
 *
 * Reads go into a buffer that the whole worker shares: what received() doesn't take is gone when it returns.
 * Writes are tried at once; only what the socket doesn't take is copied, and counted in `unsent`, which is
 * what backpressure looks at.
 */
#ifndef SWITCHBACK_PROXY_STREAM_H
#define SWITCHBACK_PROXY_STREAM_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct stream;

struct stream_events {
    void (*received)(struct stream *stream, char *bytes, size_t length);
    /* The peer has closed (UV_EOF) or the connection broke (any other libuv error), seen by a read or a
     * write; comes once. The stream still has to be closed. */
    void (*ended)(struct stream *stream, int status);
    void (*sent)(struct stream *stream);   /* unsent has come down to 0 */
    void (*closed)(struct stream *stream); /* the handle is gone; the owner may free what holds it */
};

/*
 * Where a worker reads: the owner of a stream may put what it kept of earlier bytes into the headroom, just
 * before the received ones, and so see one contiguous range.
 */
enum { READ_HEADROOM = 64 * 1024, READ_SIZE = 64 * 1024 };

struct read_buffer {
    char headroom[READ_HEADROOM];
    char bytes[READ_SIZE];
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
    size_t unsent;      /* bytes written but not yet taken by the socket */
    uint32_t read_size; /* at most so many bytes a read; READ_SIZE unless the owner wants less */
    bool open;          /* the handle is initialised and its close has not begun */
    bool connected;
    bool reading;
    bool ended; /* ended() was called, with: */
    int end_status;
};

/* Initialises the handle on the loop, TCP or Unix; no socket is made yet. */
void stream_init(struct stream *stream, uv_loop_t *loop, bool is_unix, struct read_buffer *buffer,
                 const struct stream_events *events);

/* After accept or connect: socket options (no delay, keepalive, user timeout). */
void stream_set_connected(struct stream *stream);

void stream_read_start(struct stream *stream);
void stream_read_stop(struct stream *stream);

/* Sends now or later; false: the connection is broken (ended() follows from the loop) or out of memory. */
bool stream_write(struct stream *stream, const void *bytes, size_t length);

/* Tells the peer that nothing follows; call it when unsent is 0. */
void stream_shutdown(struct stream *stream);

/* Drops what is unsent. closed() follows from the loop; no other callback does. */
void stream_close(struct stream *stream);

#endif
