#include "proxy/worker.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/answer.h"
#include "proxy/cancel.h"
#include "proxy/link_watch.h"
#include "proxy/stream_poll.h"

#include <stdlib.h>
#include <utlist.h>

/* How exactly deadlines of logins, waits and closes are kept. */
enum { TICK_MS = 100 };

/* For the last words to those who were in the midst of something. */
enum { LAST_WORDS_US = 250000 };

struct answer *answer_new(const struct worker *worker, enum proxy_event_kind kind, uint64_t hold,
                          size_t count, size_t size)
{
    struct answer *answer = calloc(1, sizeof(*answer) + count * size);
    ENSURE(answer != NULL);
    answer->letter.deliver = proxy_deliver_answer;
    answer->worker = worker->index;
    answer->kind = kind;
    answer->hold = hold;
    answer->count = count;
    return answer;
}

void answer_post(const struct worker *worker, struct answer *answer)
{
    mailbox_post(&worker->shared->main, &answer->letter);
}

bool worker_init(struct worker *worker, struct worker_shared *shared, unsigned index,
                 struct proxy_config *config, struct proxy_route route, struct error *error)
{
    *worker = (struct worker){.index = index, .shared = shared, .hold = {.route = route}};
    worker->buffer = calloc(1, sizeof(*worker->buffer));
    if (worker->buffer == NULL) {
        return error_set(error, ERROR_MEMORY, "out of memory for a worker");
    }
    int failure = uv_loop_init(&worker->loop);
    if (failure != 0) {
        free(worker->buffer);
        return error_set(error, ERROR_SYSTEM, "can't make an event loop: %s", uv_strerror(failure));
    }
    worker->loop.data = worker;
    failure = stream_poll_init(worker->buffer, &worker->loop);
    if (failure != 0) {
        (void)uv_loop_close(&worker->loop);
        free(worker->buffer);
        return error_set(error, ERROR_SYSTEM, "can't wait for sockets: %s", uv_strerror(failure));
    }
    failure = mailbox_init(&worker->mailbox, &worker->loop, worker);
    if (failure != 0) {
        stream_poll_deinit(worker->buffer);
        (void)uv_loop_close(&worker->loop);
        free(worker->buffer);
        return error_set(error, ERROR_SYSTEM, "can't make a mailbox: %s", uv_strerror(failure));
    }
    ENSURE(uv_timer_init(&worker->loop, &worker->tick) == 0);
    ENSURE(uv_timer_init(&worker->loop, &worker->hold.timer) == 0);
    ENSURE(uv_timer_init(&worker->loop, &worker->flip.timer) == 0);
    ENSURE(uv_timer_init(&worker->loop, &worker->link_watch) == 0);
    worker->config = config_ref(config);
    link_watch_set(worker);
    return true;
}

static void on_thread(void *argument)
{
    struct worker *worker = argument;
    stream_poll_run(worker->buffer, &worker->loop);
    answer_post(worker, answer_new(worker, PROXY_EVENT_STOPPED, 0, 0, 0));
}

bool worker_run(struct worker *worker, struct error *error)
{
    int failure = uv_thread_create(&worker->thread, on_thread, worker);
    return failure == 0 ||
           error_set(error, ERROR_SYSTEM, "can't start a worker thread: %s", uv_strerror(failure));
}

/* --- deadlines --- */

/* The time for running work is over: everybody is told, and a moment later nobody is waited for. */
static void stop_now(struct worker *worker, int64_t now_us)
{
    bool at_once = now_us >= worker->stop_deadline_us + LAST_WORDS_US;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        if (at_once) {
            session_drop(session);
        } else {
            session_stop(session);
        }
    }
    if (at_once) {
        cancel_abandon_all(worker);
        orphan_abandon_all(worker);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct worker *worker = CONTAINER_OF(timer, struct worker, tick);
    for (size_t i = 0; i < worker->listener_count; i++) {
        listener_resume(&worker->listeners[i]);
    }
    int64_t now_us = clock_mono_us();
    bool watching = timeouts_are_set(worker->config);
    bool sweep = watching && now_us >= worker->sweep_us;
    bool needed = worker->cancels != NULL || worker->orphans != NULL || worker->hold.cancelled_us != 0 ||
                  worker->stopping || worker->list.stands || (watching && worker->sessions != NULL);
    struct session *session = NULL;
    if (sweep) {
        worker->sweep_us = now_us + timeouts_interval_us(worker->config);
    }
    DL_FOREACH(worker->sessions, session)
    {
        timeouts_check(session, now_us, sweep);
        needed = needed || session->deadline_us != 0;
    }
    cancel_check_deadlines(worker, now_us);
    orphan_check_all(worker, now_us);
    hold_cancel_again(worker, now_us);
    session_list_check_deadline(worker, now_us);
    if (worker->stopping && now_us >= worker->stop_deadline_us) {
        stop_now(worker, now_us);
    }
    if (!needed) {
        worker->tick_runs = false;
        (void)uv_timer_stop(&worker->tick);
    }
    worker_check_end(worker);
}

void worker_want_tick(struct worker *worker)
{
    if (!worker->tick_runs && !worker->ending) {
        worker->tick_runs = true;
        ENSURE(uv_timer_start(&worker->tick, on_tick, TICK_MS, TICK_MS) == 0);
    }
}

/* --- the end --- */

static void on_mailbox_closed(void *receiver)
{
    (void)receiver;
}

void worker_stop(struct worker *worker, int64_t deadline_us)
{
    if (worker->stopping) {
        worker->stop_deadline_us =
            deadline_us < worker->stop_deadline_us ? deadline_us : worker->stop_deadline_us;
        return;
    }
    worker->stopping = true;
    worker->stop_deadline_us = deadline_us;
    for (size_t i = 0; i < worker->listener_count; i++) {
        listener_close(&worker->listeners[i]);
    }
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        session_update(session);
    }
    worker_want_tick(worker);
    worker_check_end(worker);
}

static void close_handles(struct worker *worker)
{
    worker->ending = true;
    uv_close((uv_handle_t *)&worker->tick, NULL);
    uv_close((uv_handle_t *)&worker->link_watch, NULL);
    uv_close((uv_handle_t *)&worker->hold.timer, NULL);
    uv_close((uv_handle_t *)&worker->flip.timer, NULL);
}

void worker_check_end(struct worker *worker)
{
    if (!worker->stopping || worker->ending || worker->sessions != NULL || worker->cancels != NULL ||
        worker->orphans != NULL) {
        return;
    }
    /* A letter may be a client that another worker has accepted; the next tick looks again. */
    if (mailbox_close_empty(&worker->mailbox, on_mailbox_closed)) {
        close_handles(worker);
    }
}

void worker_join(struct worker *worker)
{
    ENSURE(uv_thread_join(&worker->thread) == 0);
}

void worker_deinit(struct worker *worker)
{
    if (!worker->ending) { /* never ran */
        for (size_t i = 0; i < worker->listener_count; i++) {
            listener_close(&worker->listeners[i]);
        }
        mailbox_close(&worker->mailbox, on_mailbox_closed);
        close_handles(worker);
        (void)uv_run(&worker->loop, UV_RUN_DEFAULT);
    }
    mailbox_deinit(&worker->mailbox);
    stream_poll_deinit(worker->buffer);
    ENSURE(uv_loop_close(&worker->loop) == 0);
    HASH_CLEAR(by_ticket, worker->tickets);
    HASH_CLEAR(cancel_key.by_id, worker->cancel_keys);
    config_unref(worker->config);
    types_free(worker->types);
    free(worker->hold.stalls);
    free(worker->buffer);
}
