#include "control/daemon/store.h"

#include "conf/base/ensure.h"
#include "control/daemon/store_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A flip writes about 40 rows, each one to three pages of 4 KiB in the log. */
#define RESERVE_BYTES           ((sqlite3_int64)1024 * 1024)
#define RESERVE_SQL             "begin; insert into reserve values (zeroblob(1114112)); commit; delete from reserve"
#define IDLE_CHECK_NS           (10 * (uint64_t)1000000000)
#define IDLE_CHECKPOINT_PAGES   64
#define CHECKPOINT_WAIT_MS      100
#define FORCED_CHECKPOINT_PAGES 16384 /* 64 MiB: even in the middle of a flip that never ends */

struct queue {
    struct store_job *head, *tail;
};

struct store {
    uv_loop_t *loop;
    uv_async_t wake; /* the loop, when jobs are done */
    uv_thread_t thread;
    bool thread_runs;
    uv_mutex_t mutex;
    uv_cond_t work; /* the thread, when there is something to do */
    struct queue pending, finished;
    bool stopping, reserved;
    bool thread_ended; /* told by the thread's last wake */

    sqlite3 *database;
    int log_pages; /* of the -wal file in use, as its last commit said */
    int lock;
    char path[STORE_PATH_SIZE];

    size_t unanswered; /* jobs whose done was not called yet */
    bool closing;
    void (*closed)(void *context);
    void *closed_context;
};

static void queue_put(struct queue *queue, struct store_job *job)
{
    job->next = NULL;
    if (queue->tail == NULL) {
        queue->head = job;
    } else {
        queue->tail->next = job;
    }
    queue->tail = job;
}

static struct store_job *queue_take_all(struct queue *queue)
{
    struct store_job *head = queue->head;
    *queue = (struct queue){0};
    return head;
}

/* --- the writing thread --- */

static int count_log_pages(void *context, sqlite3 *database, const char *name, int pages)
{
    (void)database;
    (void)name;
    ((struct store *)context)->log_pages = pages;
    return SQLITE_OK;
}

/* Moves the log into the database. Rows wait behind it, so it gives up soon on a reader. */
static void checkpoint(struct store *store, int mode)
{
    sqlite3_busy_timeout(store->database, CHECKPOINT_WAIT_MS);
    if (sqlite3_wal_checkpoint_v2(store->database, NULL, mode, NULL, NULL) == SQLITE_OK) {
        store->log_pages = 0;
    }
    sqlite3_busy_timeout(store->database, STORE_BUSY_TIMEOUT_MS);
}

static void fail_job(struct store_job *job, const struct error *error)
{
    job->failed = true;
    job->error = *error;
}

static bool run_in_transaction(struct store *store, struct store_job *first, const struct store_job *end,
                               struct error *error)
{
    if (!store_execute(store->database, "begin immediate", error)) {
        return false;
    }
    bool ok = true;
    for (struct store_job *job = first; ok && job != end; job = job->next) {
        ok = job->run(job, store->database, error);
    }
    ok = ok && store_execute(store->database, "commit", error);
    if (!ok && sqlite3_get_autocommit(store->database) == 0) {
        struct error ignored;
        (void)!store_execute(store->database, "rollback", &ignored);
    }
    return ok;
}

/* Jobs up to end in one transaction; if that fails, each in its own, so that one bad row fails by itself. */
static void run_together(struct store *store, struct store_job *first, struct store_job *end)
{
    struct error error;
    error_clear(&error);
    if (run_in_transaction(store, first, end, &error)) {
        return;
    }
    if (first->next == end) {
        fail_job(first, &error);
        return;
    }
    for (struct store_job *job = first; job != end; job = job->next) {
        if (!run_in_transaction(store, job, job->next, &error)) {
            fail_job(job, &error);
        }
    }
}

static void run_batch(struct store *store, struct store_job *batch)
{
    for (struct store_job *job = batch; job != NULL;) {
        if (job->alone) {
            struct error error;
            error_clear(&error);
            if (!job->run(job, store->database, &error)) {
                fail_job(job, &error);
            }
            job = job->next;
            continue;
        }
        struct store_job *end = job;
        while (end != NULL && !end->alone) {
            end = end->next;
        }
        run_together(store, job, end);
        job = end;
    }
}

static void run_thread(void *argument)
{
    struct store *store = argument;
    uv_mutex_lock(&store->mutex);
    for (;;) {
        struct store_job *batch = queue_take_all(&store->pending);
        if (batch == NULL && store->stopping) {
            break;
        }
        bool may_move = !store->reserved;
        if (batch == NULL) {
            bool idle = uv_cond_timedwait(&store->work, &store->mutex, IDLE_CHECK_NS) != 0;
            if (idle && may_move && store->log_pages > IDLE_CHECKPOINT_PAGES && store->pending.head == NULL) {
                uv_mutex_unlock(&store->mutex);
                checkpoint(store, SQLITE_CHECKPOINT_RESTART);
                uv_mutex_lock(&store->mutex);
            }
            continue;
        }
        uv_mutex_unlock(&store->mutex);
        run_batch(store, batch);
        uv_mutex_lock(&store->mutex);
        while (batch != NULL) {
            struct store_job *next = batch->next;
            queue_put(&store->finished, batch);
            batch = next;
        }
        uv_async_send(&store->wake);
        if (store->log_pages > FORCED_CHECKPOINT_PAGES) {
            uv_mutex_unlock(&store->mutex);
            checkpoint(store, SQLITE_CHECKPOINT_PASSIVE);
            uv_mutex_lock(&store->mutex);
        }
    }
    store->thread_ended = true;
    uv_async_send(&store->wake);
    uv_mutex_unlock(&store->mutex);
}

/* --- on the loop --- */

static void free_store(uv_handle_t *handle)
{
    struct store *store = handle->data;
    void (*closed)(void *) = store->closed;
    void *context = store->closed_context;
    uv_mutex_destroy(&store->mutex);
    uv_cond_destroy(&store->work);
    free(store);
    if (closed != NULL) {
        closed(context);
    }
}

static void close_if_done(struct store *store)
{
    if (!store->closing || store->unanswered > 0) {
        return;
    }
    uv_mutex_lock(&store->mutex);
    bool ended = store->thread_ended || !store->thread_runs;
    store->stopping = true;
    uv_cond_signal(&store->work);
    uv_mutex_unlock(&store->mutex);
    if (!ended) {
        return; /* the thread's last wake comes back here */
    }
    if (store->thread_runs) {
        ENSURE(uv_thread_join(&store->thread) == 0);
    }
    ENSURE(sqlite3_close(store->database) == SQLITE_OK);
    close(store->lock);
    store->closing = false;
    uv_close((uv_handle_t *)&store->wake, free_store);
}

static void answer(struct store *store, struct store_job *job)
{
    store->unanswered--;
    job->done(job, job->failed ? &job->error : NULL);
}

static void on_wake(uv_async_t *wake)
{
    struct store *store = wake->data;
    uv_mutex_lock(&store->mutex);
    struct store_job *job = queue_take_all(&store->finished);
    uv_mutex_unlock(&store->mutex);
    while (job != NULL) {
        struct store_job *next = job->next;
        answer(store, job);
        job = next;
    }
    close_if_done(store);
}

struct store *store_open(uv_loop_t *loop, const char *directory, struct error *error)
{
    struct store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    store->loop = loop;
    if (!store_directory(directory, store->path, error)) {
        free(store);
        return NULL;
    }
    store->lock = store_lock(directory, error);
    if (store->lock < 0) {
        free(store);
        return NULL;
    }
    store->database = store_connect(directory, store->path, error);
    if (store->database == NULL) {
        close(store->lock);
        free(store);
        return NULL;
    }
    sqlite3_wal_hook(store->database, count_log_pages, store);
    ENSURE(uv_mutex_init(&store->mutex) == 0 && uv_cond_init(&store->work) == 0);
    ENSURE(uv_async_init(loop, &store->wake, on_wake) == 0);
    store->wake.data = store;
    return store;
}

void store_close(struct store *store, void (*done)(void *context), void *context)
{
    store->closing = true;
    store->closed = done;
    store->closed_context = context;
    uv_async_send(&store->wake);
}

struct sqlite3 *store_open_reader(struct store *store, struct error *error)
{
    return store_connect_read_only(store->path, error);
}

void *store_job_new(size_t size)
{
    struct store_job *job = calloc(1, size);
    ENSURE(job != NULL);
    return job;
}

static void submit(struct store *store, struct store_job *job, bool alone)
{
    ENSURE(!store->closing || store->unanswered > 0);
    job->store = store;
    job->failed = false;
    job->alone = alone;
    store->unanswered++;
    if (!store->thread_runs) {
        ENSURE(uv_thread_create(&store->thread, run_thread, store) == 0);
        store->thread_runs = true;
    }
    uv_mutex_lock(&store->mutex);
    queue_put(&store->pending, job);
    uv_cond_signal(&store->work);
    uv_mutex_unlock(&store->mutex);
}

void store_write(struct store *store, struct store_job *job)
{
    submit(store, job, false);
}

static void read_on_pool(uv_work_t *work)
{
    struct store_job *job = work->data;
    sqlite3 *database = store_connect_read_only(job->store->path, &job->error);
    job->failed = database == NULL || !job->run(job, database, &job->error);
    sqlite3_close(database);
}

static void read_done(uv_work_t *work, int status)
{
    (void)status;
    struct store_job *job = work->data;
    struct store *store = job->store;
    answer(store, job);
    close_if_done(store);
}

void store_read(struct store *store, struct store_job *job)
{
    job->store = store;
    job->failed = false;
    error_clear(&job->error);
    job->work.data = job;
    store->unanswered++;
    ENSURE(uv_queue_work(store->loop, &job->work, read_on_pool, read_done) == 0);
}

/* --- room for a flip --- */

struct reservation {
    struct store_job job;
    void (*done)(void *context, const struct error *error);
    void *context;
};

static bool has_room(struct store *store, bool *enough, struct error *error)
{
    char log_path[STORE_PATH_SIZE + 8];
    (void)snprintf(log_path, sizeof(log_path), "%s-wal", store->path);
    struct stat status;
    sqlite3_int64 free_pages, page_size;
    if (!store_read_number(store->database, "pragma freelist_count", &free_pages, error) ||
        !store_read_number(store->database, "pragma page_size", &page_size, error)) {
        return false;
    }
    *enough = stat(log_path, &status) == 0 && status.st_size >= RESERVE_BYTES &&
              free_pages * page_size >= RESERVE_BYTES;
    return true;
}

/*
 * A row that fills both files and is deleted again leaves a log whose blocks are there to be written over,
 * and free pages inside the database. The log isn't moved again before store_idle().
 */
static bool reserve_room(struct store_job *job, struct sqlite3 *database, struct error *error)
{
    struct store *store = job->store;
    bool enough;
    checkpoint(store, SQLITE_CHECKPOINT_RESTART);
    if (!has_room(store, &enough, error)) {
        return false;
    }
    if (!enough) {
        if (!store_execute(database, RESERVE_SQL, error)) {
            struct error ignored;
            if (sqlite3_get_autocommit(database) == 0) {
                (void)!store_execute(database, "rollback", &ignored);
            }
            return false;
        }
        checkpoint(store, SQLITE_CHECKPOINT_RESTART);
    }
    return true;
}

static void reserve_done(struct store_job *job, const struct error *error)
{
    struct reservation *reservation = CONTAINER_OF(job, struct reservation, job);
    if (error != NULL) {
        store_idle(job->store);
    }
    reservation->done(reservation->context, error);
    free(reservation);
}

void store_reserve(struct store *store, void (*done)(void *context, const struct error *error), void *context)
{
    struct reservation *reservation = store_job_new(sizeof(*reservation));
    reservation->job.run = reserve_room;
    reservation->job.done = reserve_done;
    reservation->done = done;
    reservation->context = context;
    uv_mutex_lock(&store->mutex);
    store->reserved = true;
    uv_mutex_unlock(&store->mutex);
    submit(store, &reservation->job, true);
}

void store_idle(struct store *store)
{
    uv_mutex_lock(&store->mutex);
    store->reserved = false;
    uv_cond_signal(&store->work);
    uv_mutex_unlock(&store->mutex);
}
