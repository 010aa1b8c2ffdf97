#include "replication/task.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct pending_progress {
    struct replication_progress progress;
    struct pending_progress *next;
};

struct task {
    struct task *next;
    struct task_list *list;
    struct task_spec spec;
    void *work;

    uv_async_t async;
    uv_thread_t thread;
    bool threaded;
    int wake_fd;
    _Atomic bool stopping;
    _Atomic bool ended; /* the body has returned and `result` stands */
    struct replication_result result;

    uv_mutex_t mutex; /* guards progress */
    struct pending_progress *progress;
};

static void deliver_progress(struct task *task)
{
    uv_mutex_lock(&task->mutex);
    struct pending_progress *pending = task->progress;
    task->progress = NULL;
    uv_mutex_unlock(&task->mutex);
    while (pending != NULL) {
        struct pending_progress *next = pending->next;
        if (task->spec.progressed != NULL) {
            task->spec.progressed(task->spec.progress_context, &pending->progress);
        }
        free(pending);
        pending = next;
    }
}

static void unlink_task(struct task *task)
{
    struct task **link = &task->list->first;
    while (*link != task) {
        link = &(*link)->next;
    }
    *link = task->next;
}

static void on_closed(uv_handle_t *handle)
{
    struct task *task = handle->data;
    struct task_list *list = task->list;
    unlink_task(task);
    if (task->wake_fd >= 0) {
        (void)close(task->wake_fd);
    }
    uv_mutex_destroy(&task->mutex);
    free(task);
    if (list->first == NULL && list->drained != NULL) {
        list->drained(list->context);
    }
}

static void on_async(uv_async_t *async)
{
    struct task *task = async->data;
    bool ended = atomic_load(&task->ended); /* before the progress is taken: nothing comes after it */
    deliver_progress(task);
    if (!ended || uv_is_closing((uv_handle_t *)async)) {
        return;
    }
    if (task->threaded) {
        uv_thread_join(&task->thread);
    }
    LOG_INFO("task_ended", LOG_STR("task", task->spec.name), LOG_BOOL("ok", task->result.ok),
             LOG_STR("message", task->result.ok ? "" : task->result.error.message));
    task->spec.deliver(task->work, &task->result);
    uv_close((uv_handle_t *)async, on_closed);
}

static void run(void *argument)
{
    struct task *task = argument;
    /* Signals belong to the main thread, as the loop expects. */
    sigset_t all;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL);
    task->result.ok = task->spec.body(task, task->work, &task->result.error);
    atomic_store(&task->ended, true);
    uv_async_send(&task->async);
}

void task_start(struct task_list *list, uv_loop_t *loop, const struct task_spec *spec, void *work)
{
    struct task *task = calloc(1, sizeof *task);
    ENSURE(task != NULL);
    *task = (struct task){.list = list, .spec = *spec, .work = work, .next = list->first};
    list->first = task;
    task->async.data = task;
    /* The loop made its own async handle when it was initialized: a further one needs no new descriptor. */
    ENSURE(uv_async_init(loop, &task->async, on_async) == 0);
    ENSURE(uv_mutex_init(&task->mutex) == 0);
    LOG_INFO("task_started", LOG_STR("task", spec->name));

    task->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int status = task->wake_fd < 0 ? -errno : uv_thread_create(&task->thread, run, task);
    task->threaded = status == 0;
    if (status != 0) {
        error_set(&task->result.error, ERROR_SYSTEM, "can't start a thread for %s: %s", spec->name,
                  uv_strerror(status));
        atomic_store(&task->ended, true);
        uv_async_send(&task->async);
    }
}

void task_list_stop(struct task_list *list, void (*drained)(void *context), void *context)
{
    list->drained = drained;
    list->context = context;
    for (struct task *task = list->first; task != NULL; task = task->next) {
        atomic_store(&task->stopping, true);
        uint64_t one = 1;
        ssize_t written = write(task->wake_fd, &one, sizeof one);
        (void)written; /* the counter can't overflow by this, and a task without descriptor has ended */
    }
    if (list->first == NULL) {
        drained(context);
    }
}

bool task_stopping(const struct task *task)
{
    return atomic_load(&task->stopping);
}

int task_wake_fd(const struct task *task)
{
    return task->wake_fd;
}

bool task_aborted(struct error *error)
{
    return error_set(error, ERROR_ABORTED, "switchback is stopping");
}

bool task_sleep(struct task *task, int64_t duration_us, struct error *error)
{
    int64_t deadline = clock_mono_us() + duration_us;
    for (;;) {
        if (task_stopping(task)) {
            return task_aborted(error);
        }
        int64_t left = deadline - clock_mono_us();
        if (left <= 0) {
            return true;
        }
        struct pollfd wake = {.fd = task->wake_fd, .events = POLLIN};
        (void)poll(&wake, 1, (int)(left / 1000) + 1);
    }
}

void task_progress(struct task *task, const struct replication_progress *progress)
{
    struct pending_progress *pending = calloc(1, sizeof *pending);
    if (pending == NULL) {
        return; /* progress is only told, never needed */
    }
    pending->progress = *progress;
    uv_mutex_lock(&task->mutex);
    struct pending_progress **last = &task->progress;
    while (*last != NULL && (*last)->next != NULL) {
        last = &(*last)->next;
    }
    if (*last != NULL && strcmp((*last)->progress.step, progress->step) == 0) {
        (*last)->progress = *progress;
        free(pending);
    } else if (*last != NULL) {
        (*last)->next = pending;
    } else {
        *last = pending;
    }
    uv_mutex_unlock(&task->mutex);
    uv_async_send(&task->async);
}
