/*
 * Long operations: prepare, check and finalize are straight programs that ask, wait and judge, some of them
 * for hours. Each runs on a thread of its own with blocking connections (blocking.h) and reads from top to
 * bottom; the loop stays free. Progress and the result reach the callbacks on the loop's thread.
 */
#ifndef SWITCHBACK_REPLICATION_TASK_H
#define SWITCHBACK_REPLICATION_TASK_H

#include "replication/replication.h"

struct task;

/* The tasks of one struct replication; zeroed is empty. Touched on the loop's thread only. */
struct task_list {
    struct task *first;
    void (*drained)(void *context); /* set by task_list_stop */
    void *context;
};

struct task_spec {
    const char *name; /* for the log */
    /* On the task's thread. False with *error filled, or true. */
    bool (*body)(struct task *task, void *work, struct error *error);
    /* On the loop's thread, once, after the body has ended; frees `work`. */
    void (*deliver)(void *work, const struct replication_result *result);
    replication_progressed progressed; /* on the loop's thread; may be NULL */
    void *progress_context;
};

/* Never answers from inside the call. `work` belongs to the task until deliver. */
void task_start(struct task_list *list, uv_loop_t *loop, const struct task_spec *spec, void *work);

/* Asks all tasks to end (they fail with ERROR_ABORTED) and calls drained when none is left: from inside the
 * call if there is none. */
void task_list_stop(struct task_list *list, void (*drained)(void *context), void *context);

/* --- on the task's thread --- */

bool task_stopping(const struct task *task);
/* A descriptor that becomes readable when the task must stop. */
int task_wake_fd(const struct task *task);
/* Sleeps at most that long. False with ERROR_ABORTED when the task must stop. */
MUST_USE bool task_sleep(struct task *task, int64_t duration_us, struct error *error);
/* Fails with ERROR_ABORTED. Returns false. */
bool task_aborted(struct error *error);
/* Of one step only the newest progress is kept until the loop has seen it; each step's last one arrives. */
void task_progress(struct task *task, const struct replication_progress *progress);

#endif
