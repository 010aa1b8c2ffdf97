/*
 * How a worker waits: its streams stand edge-triggered in an epoll instance of their own, and libuv's loop,
 * with everything else (timers, mailbox, listeners, connecting, writes that wait), is one descriptor among
 * them.
 *
 * A socket is put there once, when it is first read, and taken out when it is closed. What its owner doesn't
 * want to read now is remembered and costs nothing: backpressure and a hold need no system call, and the
 * kernel doesn't look again at sockets that were read, as it does for each turn of a level-triggered loop.
 */
#ifndef SWITCHBACK_PROXY_STREAM_POLL_H
#define SWITCHBACK_PROXY_STREAM_POLL_H

#include "conf/base/compiler.h"
#include "proxy/stream.h"

/* Returns 0 or a libuv error. The buffer is zeroed otherwise. */
MUST_USE int stream_poll_init(struct read_buffer *buffer, uv_loop_t *loop);
void stream_poll_deinit(struct read_buffer *buffer);

/* Takes the place of uv_run(loop, UV_RUN_DEFAULT); what was passed in a turn is sent at its end. */
void stream_poll_run(struct read_buffer *buffer, uv_loop_t *loop);

#endif
