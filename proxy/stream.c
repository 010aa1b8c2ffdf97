#include "proxy/stream.h"

#include "conf/base/ensure.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A peer that vanished is noticed after about two minutes: idle by probes, busy by unacknowledged bytes. */
enum { KEEPALIVE_IDLE_S = 60, KEEPALIVE_INTERVAL_S = 10, KEEPALIVE_PROBES = 6, USER_TIMEOUT_MS = 120000 };

struct pending_write {
    uv_write_t request;
    struct stream *stream;
    size_t length;
    char bytes[];
};

void stream_init(struct stream *stream, uv_loop_t *loop, bool is_unix, struct read_buffer *buffer,
                 const struct stream_events *events)
{
    memset(stream, 0, sizeof(*stream));
    stream->buffer = buffer;
    stream->events = events;
    stream->read_size = READ_SIZE;
    ENSURE((is_unix ? uv_pipe_init(loop, &stream->uv.pipe, 0) : uv_tcp_init(loop, &stream->uv.tcp)) == 0);
    stream->open = true;
}

static void set_option(int socket, int level, int name, int value)
{
    /* options are a help, not a condition: a socket without them works */
    (void)setsockopt(socket, level, name, &value, sizeof(value));
}

void stream_set_connected(struct stream *stream)
{
    stream->connected = true;
    uv_os_fd_t socket = -1;
    if (stream->uv.handle.type != UV_TCP || uv_fileno(&stream->uv.handle, &socket) != 0) {
        return;
    }
    set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
}

static void set_ended(struct stream *stream, int status)
{
    stream_read_stop(stream);
    if (!stream->ended && stream->open) {
        stream->ended = true;
        stream->end_status = status;
        stream->events->ended(stream, status);
    }
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct stream *stream = CONTAINER_OF(handle, struct stream, uv);
    *buffer = uv_buf_init(stream->buffer->bytes, stream->read_size);
}

static void on_read(uv_stream_t *handle, ssize_t length, const uv_buf_t *buffer)
{
    struct stream *stream = CONTAINER_OF(handle, struct stream, uv);
    if (length > 0) {
        stream->events->received(stream, buffer->base, (size_t)length);
    } else if (length < 0) {
        set_ended(stream, (int)length);
    }
}

void stream_read_start(struct stream *stream)
{
    if (stream->open && stream->connected && !stream->reading && !stream->ended) {
        ENSURE(uv_read_start(&stream->uv.stream, on_allocate, on_read) == 0);
        stream->reading = true;
    }
}

void stream_read_stop(struct stream *stream)
{
    if (stream->reading) {
        stream->reading = false;
        (void)uv_read_stop(&stream->uv.stream);
    }
}

static void on_written(uv_write_t *request, int status)
{
    struct pending_write *pending = CONTAINER_OF(request, struct pending_write, request);
    struct stream *stream = pending->stream;
    stream->unsent -= pending->length;
    free(pending);
    if (!stream->open) {
        return;
    }
    if (status < 0) {
        set_ended(stream, status);
    } else if (stream->unsent == 0 && stream->events->sent != NULL) {
        stream->events->sent(stream);
    }
}

static bool queue(struct stream *stream, const char *bytes, size_t length)
{
    struct pending_write *pending = malloc(sizeof(*pending) + length);
    if (pending == NULL) {
        return false;
    }
    pending->stream = stream;
    pending->length = length;
    memcpy(pending->bytes, bytes, length);
    uv_buf_t buffer = uv_buf_init(pending->bytes, (unsigned)length);
    if (uv_write(&pending->request, &stream->uv.stream, &buffer, 1, on_written) != 0) {
        free(pending);
        return false;
    }
    stream->unsent += length;
    return true;
}

bool stream_write(struct stream *stream, const void *bytes, size_t length)
{
    if (!stream->open || !stream->connected) {
        return false;
    }
    size_t taken = 0;
    if (stream->unsent == 0) {
        uv_buf_t buffer = uv_buf_init((char *)bytes, (unsigned)length);
        int result = uv_try_write(&stream->uv.stream, &buffer, 1);
        if (result < 0 && result != UV_EAGAIN) {
            /* The read side tells: what the peer sent before it went is still to be seen. */
            return false;
        }
        taken = result > 0 ? (size_t)result : 0;
    }
    return taken == length || queue(stream, (const char *)bytes + taken, length - taken);
}

void stream_shutdown(struct stream *stream)
{
    uv_os_fd_t socket = -1;
    if (stream->open && uv_fileno(&stream->uv.handle, &socket) == 0) {
        (void)shutdown(socket, SHUT_WR);
    }
}

static void on_close(uv_handle_t *handle)
{
    struct stream *stream = CONTAINER_OF(handle, struct stream, uv);
    stream->events->closed(stream);
}

void stream_close(struct stream *stream)
{
    if (stream->open) {
        stream->open = false;
        stream->reading = false;
        uv_close(&stream->uv.handle, on_close);
    }
}
