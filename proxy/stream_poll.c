#include "proxy/stream_poll.h"

#include "conf/base/log.h"
#include "proxy/stream_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

/* A worker's clients and servers, as good as all of them: who cancels relies on that a turn looks at every
 * socket. */
enum { EVENTS_AT_ONCE = 4096 };

/* Of one stream, before others have their turn. */
enum { READS_AT_ONCE = 8 };

int stream_poll_init(struct read_buffer *buffer, uv_loop_t *loop)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    buffer->events = calloc(EVENTS_AT_ONCE, sizeof(*buffer->events));
    buffer->poll = epoll_create1(EPOLL_CLOEXEC);
    if (buffer->events == NULL || buffer->poll < 0 ||
        epoll_ctl(buffer->poll, EPOLL_CTL_ADD, uv_backend_fd(loop), &event) != 0) {
        int failure = uv_translate_sys_error(errno);
        stream_poll_deinit(buffer);
        return failure;
    }
    return 0;
}

void stream_poll_deinit(struct read_buffer *buffer)
{
    free(buffer->events);
    if (buffer->poll >= 0) {
        (void)close(buffer->poll);
    }
}

/* --- what is there to be read --- */

static void want_again(struct stream *stream)
{
    if (!stream->is_again) {
        stream->is_again = true;
        DL_APPEND2(stream->buffer->again, stream, prev_again, next_again);
        stream->buffer->again_count++;
    }
}

static void forget_again(struct stream *stream)
{
    if (stream->is_again) {
        stream->is_again = false;
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): it is in the list, by its own word */
        DL_DELETE2(stream->buffer->again, stream, prev_again, next_again);
        stream->buffer->again_count--;
    }
}

void stream_poll_start(struct stream *stream)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = stream};
    if (!stream->watched) {
        stream->watched = epoll_ctl(stream->buffer->poll, EPOLL_CTL_ADD, stream->descriptor, &event) == 0;
        if (!stream->watched) { /* the kernel has a limit to what is waited for: its end is read instead */
            LOG_ERROR("wait_failed", LOG_STR("error", strerror(errno)));
            (void)shutdown(stream->descriptor, SHUT_RDWR);
            stream->readable = true;
        }
    }
    if (stream->readable) {
        want_again(stream);
    }
}

void stream_poll_close(struct stream *stream)
{
    struct read_buffer *buffer = stream->buffer;
    forget_again(stream);
    if (!stream->watched) {
        return;
    }
    stream->watched = false;
    /* a process that was just forked may have the socket, too: closing it here would leave it there */
    (void)epoll_ctl(buffer->poll, EPOLL_CTL_DEL, stream->descriptor, NULL);
    for (int i = 0; i < buffer->event_count; i++) {
        if (buffer->events[i].data.ptr == stream) {
            buffer->events[i].data.ptr = NULL;
        }
    }
}

/* False: there is nothing more for now, or nobody wants it. */
static bool read_once(struct stream *stream)
{
    size_t room = 0;
    char *bytes = stream_room(stream, &room);
    ssize_t length = recv(stream->descriptor, bytes, room, MSG_DONTWAIT);
    if (length > 0) {
        /* less than it had room for: that was all, and more will be a new event. The end isn't, once seen */
        stream->readable = (size_t)length == room || stream->hung_up;
        stream_received(stream, bytes, (size_t)length);
    } else if (length == 0) {
        stream_set_ended(stream, UV_EOF);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        stream->readable = false;
    } else if (errno != EINTR) {
        stream_set_ended(stream, uv_translate_sys_error(errno));
    }
    return stream->open && stream->reading && stream->readable;
}

static void read_ready(struct stream *stream)
{
    bool more = stream->open && stream->reading;
    for (int i = 0; more && i < READS_AT_ONCE; i++) {
        more = read_once(stream);
    }
    if (more) {
        want_again(stream);
    }
}

static void on_event(struct stream *stream, uint32_t events)
{
    stream->readable = true;
    stream->hung_up = stream->hung_up || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    read_ready(stream);
}

static void read_again(struct read_buffer *buffer)
{
    for (size_t i = buffer->again_count; i > 0 && buffer->again != NULL; i--) {
        struct stream *stream = buffer->again;
        forget_again(stream);
        read_ready(stream);
    }
}

/* --- the loop --- */

/* libuv's part comes first: what the controller says holds for what was sent after it. */
static bool loop_is_due(const struct read_buffer *buffer, const uv_loop_t *loop)
{
    for (int i = 0; i < buffer->event_count; i++) {
        if (buffer->events[i].data.ptr == NULL) {
            return true;
        }
    }
    return uv_backend_timeout(loop) == 0; /* a timer, or something to begin or to close */
}

void stream_poll_run(struct read_buffer *buffer, uv_loop_t *loop)
{
    bool alive = true;
    while (alive) {
        int wait_ms = buffer->again != NULL ? 0 : uv_backend_timeout(loop);
        buffer->event_count = epoll_wait(buffer->poll, buffer->events, EVENTS_AT_ONCE, wait_ms);
        uv_update_time(loop);
        if (loop_is_due(buffer, loop)) {
            alive = uv_run(loop, UV_RUN_NOWAIT) != 0;
        }
        read_again(buffer);
        for (int i = 0; i < buffer->event_count; i++) {
            if (buffer->events[i].data.ptr != NULL) {
                on_event(buffer->events[i].data.ptr, buffer->events[i].events);
            }
        }
        buffer->event_count = 0;
        stream_flush_all(buffer);
    }
}
