#include "proxy/stream.h"

#include "conf/base/ensure.h"
#include "proxy/stream_internal.h"
#include "proxy/tcp_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

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

void stream_set_connected(struct stream *stream, const struct settings_tcp *options)
{
    int socket = -1;
    ENSURE(uv_fileno(&stream->uv.handle, &socket) == 0);
    stream->connected = true;
    stream->descriptor = socket;
    if (stream->uv.handle.type == UV_TCP) {
        tcp_options_apply(socket, options);
    }
}

void stream_set_ended(struct stream *stream, int status)
{
    stream_read_stop(stream);
    if (!stream->ended && stream->open) {
        stream->ended = true;
        stream->events->ended(stream, status);
    }
}

char *stream_room(const struct stream *stream, size_t *room)
{
    struct read_buffer *shared = stream->buffer;
    if (stream_is_tls(stream)) {
        *room = stream->read_size;
        return shared->sealed;
    }
    size_t at = shared->used + READ_HEADROOM;
    size_t left = sizeof(shared->bytes) - at;
    *room = left < stream->read_size ? left : stream->read_size;
    return shared->bytes + at;
}

void stream_deliver(struct stream *stream, char *bytes, size_t length)
{
    struct read_buffer *shared = stream->buffer;
    /* taken until the end of the turn: what is passed on stays where it is */
    shared->used += READ_HEADROOM + length;
    stream->events->received(stream, bytes, length);
    if (shared->passing == NULL) {
        shared->used = 0;
    } else if (sizeof(shared->bytes) - shared->used < READ_HEADROOM + READ_LEAST) {
        stream_flush_all(shared);
    }
}

void stream_received(struct stream *stream, char *bytes, size_t length)
{
    if (stream_is_tls(stream)) {
        stream_tls_received(stream, bytes, length);
    } else {
        stream_deliver(stream, bytes, length);
    }
}

void stream_read_start(struct stream *stream)
{
    if (stream->open && stream->connected && !stream->reading && !stream->ended) {
        stream->reading = true;
        stream_poll_start(stream);
    }
}

void stream_read_stop(struct stream *stream)
{
    stream->reading = false; /* what comes meanwhile is remembered */
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
    if (status < 0 && stream->ended && stream->events->broken != NULL) {
        stream->events->broken(stream); /* it had only stopped sending, until now */
    } else if (status < 0) {
        stream_set_ended(stream, status);
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

bool stream_send(struct stream *stream, const char *bytes, size_t length)
{
    size_t taken = 0;
    if (!stream->open || !stream->connected) {
        return false;
    }
    while (stream->unsent == 0 && taken < length) {
        ssize_t count = send(stream->descriptor, bytes + taken, length - taken, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count >= 0) {
            taken += (size_t)count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            break;
        } else if (errno != EINTR) {
            /* the read side tells: what the peer sent before it went is still to be seen */
            return false;
        }
    }
    return taken == length || queue(stream, bytes + taken, length - taken);
}

static bool seal_or_send(struct stream *stream, const char *bytes, size_t length)
{
    return stream_is_tls(stream) ? stream_tls_send(stream, bytes, length)
                                 : stream_send(stream, bytes, length);
}

bool stream_flush(struct stream *stream)
{
    size_t length = stream->passed_length;
    stream->passed_length = 0;
    return length == 0 || seal_or_send(stream, stream->passed, length);
}

bool stream_write(struct stream *stream, const void *bytes, size_t length)
{
    return stream_flush(stream) && seal_or_send(stream, bytes, length);
}

static bool lies_in(const struct read_buffer *buffer, const char *bytes)
{
    return bytes >= buffer->bytes && bytes < buffer->bytes + sizeof(buffer->bytes);
}

void stream_pass(struct stream *stream, const char *bytes, size_t length)
{
    struct read_buffer *buffer = stream->buffer;
    if (!stream->open) {
        return;
    }
    if (!lies_in(buffer, bytes)) {
        if (!stream_write(stream, bytes, length)) {
            stream->events->broken(stream);
        }
        return;
    }
    if (stream->passed_length > 0 && stream->passed + stream->passed_length == bytes) {
        stream->passed_length += length;
        return;
    }
    if (!stream_flush(stream)) {
        stream->events->broken(stream);
        return;
    }
    stream->passed = bytes;
    stream->passed_length = length;
    if (!stream->is_passing) {
        stream->is_passing = true;
        stream->next_passing = buffer->passing;
        buffer->passing = stream;
    }
}

void stream_flush_all(struct read_buffer *buffer)
{
    while (buffer->passing != NULL) {
        struct stream *stream = buffer->passing;
        buffer->passing = stream->next_passing;
        stream->is_passing = false;
        if (!stream_flush(stream)) {
            stream->events->broken(stream);
        } else if (stream->unsent > 0 && stream->open) {
            stream->events->blocked(stream);
        }
    }
    buffer->used = 0;
}

void stream_shutdown(struct stream *stream)
{
    if (!stream->open || !stream->connected) {
        return;
    }
    stream_tls_goodbye(stream);
    if (stream->unsent == 0) { /* else sent() comes once more, and its owner with it */
        (void)shutdown(stream->descriptor, SHUT_WR);
    }
}

static void on_close(uv_handle_t *handle)
{
    struct stream *stream = CONTAINER_OF(handle, struct stream, uv);
    stream_tls_free(stream);
    stream->events->closed(stream);
}

void stream_close(struct stream *stream)
{
    if (stream->open) {
        (void)stream_flush(stream);
        stream_tls_goodbye(stream);
        stream->open = false;
        stream->reading = false;
        stream_poll_close(stream);
        uv_close(&stream->uv.handle, on_close);
    }
}
