/* How a worker waits for its sockets: nothing that came is forgotten, and nobody starves. */
#include "proxy/stream.h"
#include "proxy/stream_poll.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { ENDS = 3, LARGE = 3 * READ_SIZE, TURNS_MS = 1, PATIENCE_TURNS = 60000 };

struct scene;

struct end {
    struct stream stream;
    struct scene *scene;
    int peer;
    size_t received, reads;
    int status; /* why it ended; 0: it didn't */
    bool closed;
};

/* Sockets whose other ends the test holds, and a timer that does its steps and asks whether it is over. */
struct scene {
    uv_loop_t loop;
    uv_timer_t timer;
    struct read_buffer *buffer;
    struct end ends[ENDS];
    void (*step)(struct scene *scene);
    void (*received)(struct end *end);
    int turns;
    bool over;
};

static struct end *end_of(struct stream *stream)
{
    return CONTAINER_OF(stream, struct end, stream);
}

static void on_received(struct stream *stream, char *bytes, size_t length)
{
    struct end *end = end_of(stream);
    (void)bytes;
    end->received += length;
    end->reads++;
    if (end->scene->received != NULL) {
        end->scene->received(end);
    }
}

static void on_ended(struct stream *stream, int status)
{
    end_of(stream)->status = status;
}

static void on_closed(struct stream *stream)
{
    end_of(stream)->closed = true;
    memset(stream, 0xdd, sizeof(*stream)); /* as memory that is freed: whoever still looks at it falls */
}

static void on_nothing(struct stream *stream)
{
    (void)stream;
}

static const struct stream_events events = {.received = on_received,
                                            .ended = on_ended,
                                            .closed = on_closed,
                                            .blocked = on_nothing,
                                            .broken = on_nothing,
                                            .sent = on_nothing};

static void close_end(struct end *end)
{
    if (end->peer >= 0) {
        (void)close(end->peer);
        end->peer = -1;
        stream_close(&end->stream);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct scene *scene = timer->data;
    scene->turns++;
    scene->step(scene);
    if (scene->over || scene->turns == PATIENCE_TURNS) {
        for (int i = 0; i < ENDS; i++) {
            close_end(&scene->ends[i]);
        }
        uv_close((uv_handle_t *)timer, NULL);
    }
}

static void play(struct scene *scene)
{
    const struct settings_tcp *no_options = NULL; /* they are for TCP */
    assert_int_equal(uv_loop_init(&scene->loop), 0);
    scene->buffer = calloc(1, sizeof(*scene->buffer));
    assert_non_null(scene->buffer);
    assert_int_equal(stream_poll_init(scene->buffer, &scene->loop), 0);
    for (int i = 0; i < ENDS; i++) {
        struct end *end = &scene->ends[i];
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        end->scene = scene;
        end->peer = pair[1];
        stream_init(&end->stream, &scene->loop, true, scene->buffer, &events);
        assert_int_equal(uv_pipe_open(&end->stream.uv.pipe, pair[0]), 0);
        stream_set_connected(&end->stream, no_options);
        stream_read_start(&end->stream);
    }
    assert_int_equal(uv_timer_init(&scene->loop, &scene->timer), 0);
    scene->timer.data = scene;
    assert_int_equal(uv_timer_start(&scene->timer, on_timer, TURNS_MS, TURNS_MS), 0);
    stream_poll_run(scene->buffer, &scene->loop);
    assert_true(scene->over);
    for (int i = 0; i < ENDS; i++) {
        assert_true(scene->ends[i].closed);
    }
    stream_poll_deinit(scene->buffer);
    assert_int_equal(uv_loop_close(&scene->loop), 0);
    free(scene->buffer);
}

static void put(struct end *end, size_t length)
{
    static const char bytes[READ_SIZE];
    assert_int_equal(send(end->peer, bytes, length, MSG_DONTWAIT), (ssize_t)length);
}

/* --- what came while nobody read --- */

static void stop_put_start(struct scene *scene)
{
    struct end *end = &scene->ends[0];
    switch (scene->turns) {
    case 1:
        stream_read_stop(&end->stream);
        put(end, 100);
        break;
    case 5: /* the event was long ago */
        assert_int_equal(end->received, 0);
        stream_read_start(&end->stream);
        stream_read_stop(&end->stream);
        break;
    case 9:
        assert_int_equal(end->received, 0);
        stream_read_start(&end->stream);
        break;
    default:
        scene->over = end->received == 100;
        break;
    }
}

static void what_came_while_stopped_is_read(void **state)
{
    (void)state;
    struct scene scene = {.step = stop_put_start};
    play(&scene);
    assert_int_equal(scene.ends[0].reads, 1);
}

/* --- the end, with the last bytes --- */

static void put_and_shut(struct scene *scene)
{
    struct end *end = &scene->ends[0];
    if (scene->turns == 1) {
        stream_read_stop(&end->stream);
        put(end, 7);
        assert_int_equal(shutdown(end->peer, SHUT_WR), 0);
    } else if (scene->turns == 5) {
        stream_read_start(&end->stream);
    } else if (scene->turns > 5) {
        scene->over = end->status == UV_EOF;
    }
}

static void the_end_is_seen_behind_the_last_bytes(void **state)
{
    (void)state;
    struct scene scene = {.step = put_and_shut};
    play(&scene);
    assert_int_equal(scene.ends[0].received, 7);
}

/* --- more than one read takes --- */

static void feed_all(struct scene *scene)
{
    static const char bytes[READ_SIZE];
    struct end *end = &scene->ends[0];
    size_t *sent = &scene->ends[1].received; /* not used by itself */
    while (*sent < LARGE) {
        ssize_t count = send(end->peer, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (count <= 0) {
            break;
        }
        *sent += (size_t)count;
    }
    scene->over = end->received >= LARGE && end->received == *sent;
}

static void small_reads(struct end *end)
{
    end->stream.read_size = 4096; /* as behind a closed gate */
}

static void what_one_read_leaves_the_next_one_takes(void **state)
{
    (void)state;
    struct scene scene = {.step = feed_all, .received = small_reads};
    play(&scene);
    assert_true(scene.ends[0].reads >= LARGE / READ_SIZE);
}

/* --- a stream that is closed by another one's bytes, in the same turn --- */

static void wake_two(struct scene *scene)
{
    if (scene->turns == 1) {
        put(&scene->ends[0], 1);
        put(&scene->ends[1], 1);
    }
    scene->over = scene->ends[0].closed || scene->ends[1].closed;
}

static void close_the_other(struct end *end)
{
    close_end(end == &end->scene->ends[0] ? &end->scene->ends[1] : &end->scene->ends[0]);
}

static void a_closed_stream_has_no_events(void **state)
{
    (void)state;
    struct scene scene = {.step = wake_two, .received = close_the_other};
    play(&scene);
    assert_int_equal(scene.ends[0].reads + scene.ends[1].reads, 1);
}

/* --- everybody has a turn --- */

/* It is never done: each read brings the next. */
static void endless(struct end *end)
{
    if (end == &end->scene->ends[0]) {
        put(end, 1);
    }
}

static void start_and_watch(struct scene *scene)
{
    if (scene->turns == 1) {
        put(&scene->ends[0], 1);
    } else if (scene->turns == 20) {
        put(&scene->ends[2], 1);
    } else if (scene->turns > 20) {
        scene->over = scene->ends[2].received == 1;
    }
}

static void a_busy_stream_starves_neither_timers_nor_others(void **state)
{
    (void)state;
    struct scene scene = {.step = start_and_watch, .received = endless};
    play(&scene);
    assert_true(scene.ends[0].reads > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_while_stopped_is_read),
        cmocka_unit_test(the_end_is_seen_behind_the_last_bytes),
        cmocka_unit_test(what_one_read_leaves_the_next_one_takes),
        cmocka_unit_test(a_closed_stream_has_no_events),
        cmocka_unit_test(a_busy_stream_starves_neither_timers_nor_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
