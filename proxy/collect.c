#include "proxy/collect.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <utlist.h>

bool collect_init(struct collect *collect, unsigned workers,
                  void (*emit)(void *context, const struct proxy_event *event), void *context)
{
    *collect = (struct collect){.workers = workers, .emit = emit, .context = context};
    collect->progress = calloc(workers, sizeof(*collect->progress));
    return collect->progress != NULL;
}

static void forget(struct collect *collect, struct collection *collection)
{
    DL_DELETE(collect->collections, collection);
    free(collection->items);
    free(collection);
}

void collect_deinit(struct collect *collect)
{
    while (collect->collections != NULL) {
        forget(collect, collect->collections);
    }
    free(collect->progress);
}

void collect_expect(struct collect *collect, enum proxy_event_kind kind, uint64_t hold)
{
    struct collection *collection = calloc(1, sizeof(*collection) + collect->workers * sizeof(bool));
    ENSURE(collection != NULL);
    collection->kind = kind;
    collection->hold = hold;
    collection->missing = collect->workers;
    DL_APPEND(collect->collections, collection);
}

void collect_forget(struct collect *collect, enum proxy_event_kind kind)
{
    struct collection *collection = NULL, *next = NULL;
    DL_FOREACH_SAFE(collect->collections, collection, next)
    {
        if (collection->kind == kind) {
            forget(collect, collection);
        }
    }
}

void collect_hold(struct collect *collect, uint64_t hold)
{
    collect_forget(collect, PROXY_EVENT_EXPIRED);
    collect->hold = hold;
    collect->stands = true;
    collect->held = false;
    collect->drained = false;
    collect->expiring = false;
    collect->reason[0] = '\0';
    memset(collect->progress, 0, collect->workers * sizeof(*collect->progress));
    collect_expect(collect, PROXY_EVENT_HELD, hold);
    collect_expect(collect, PROXY_EVENT_EXPIRED, hold);
}

static void add_counts(struct proxy_counts *sum, const struct proxy_counts *counts)
{
    sum->sessions += counts->sessions;
    sum->undrained += counts->undrained;
    sum->armed += counts->armed;
    sum->immovable += counts->immovable;
    sum->failed += counts->failed;
    sum->moved += counts->moved;
    sum->disconnected += counts->disconnected;
}

static size_t item_size(enum proxy_event_kind kind)
{
    return kind == PROXY_EVENT_SESSIONS ? sizeof(struct proxy_session_info) : sizeof(int64_t);
}

static void add_items(struct collection *collection, const struct answer *answer)
{
    size_t size = item_size(answer->kind);
    if (answer->count == 0) {
        return;
    }
    char *items = realloc(collection->items, (collection->count + answer->count) * size);
    ENSURE(items != NULL);
    memcpy(items + collection->count * size, answer->data, answer->count * size);
    collection->items = items;
    collection->count += answer->count;
}

static int compare_stalls(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* The value that the given share of the clients did not exceed. */
static int64_t quantile(const int64_t *sorted, size_t count, size_t percent)
{
    size_t rank = (count * percent + 99) / 100;
    return sorted[rank > 0 ? rank - 1 : 0];
}

static void find_stall(struct collection *collection, struct proxy_stall *stall)
{
    size_t count = collection->count;
    int64_t *stalls = collection->items;
    if (count == 0) {
        return;
    }
    qsort(stalls, count, sizeof(*stalls), compare_stalls);
    *stall = (struct proxy_stall){.clients = count,
                                  .p50_us = quantile(stalls, count, 50),
                                  .p99_us = quantile(stalls, count, 99),
                                  .max_us = stalls[count - 1]};
}

static void complete(struct collect *collect, struct collection *collection)
{
    struct proxy_event event = {
        .kind = collection->kind, .hold = collection->hold, .counts = collection->counts};
    memcpy(event.reason, collection->reason, sizeof(event.reason));
    if (collection->kind == PROXY_EVENT_SESSIONS) {
        event.request = collection->hold;
        event.sessions = collection->items;
        event.session_count = collection->count;
        collection->items = NULL;
    } else {
        find_stall(collection, &event.stall);
    }
    if (collection->kind == PROXY_EVENT_RELEASED || collection->kind == PROXY_EVENT_EXPIRED) {
        collect->stands = false;
    } else if (collection->kind == PROXY_EVENT_HELD) {
        collect->held = true;
    }
    forget(collect, collection);
    collect->emit(collect->context, &event);
}

static struct collection *find(struct collect *collect, const struct answer *answer)
{
    struct collection *collection = NULL;
    DL_FOREACH(collect->collections, collection)
    {
        if (collection->kind == answer->kind && collection->hold == answer->hold &&
            !collection->answered[answer->worker]) {
            return collection;
        }
    }
    return NULL;
}

/* Each worker's newest count, summed; DRAINED once when nothing is left. */
static void note_progress(struct collect *collect, const struct answer *answer)
{
    struct proxy_event event = {.kind = PROXY_EVENT_PROGRESS, .hold = answer->hold};
    if (!collect->stands || answer->hold != collect->hold) {
        return;
    }
    collect->progress[answer->worker] = answer->counts;
    if (collect->reason[0] == '\0') {
        memcpy(collect->reason, answer->reason, sizeof(collect->reason));
    }
    if (!collect->held || collect->drained) {
        return;
    }
    for (unsigned i = 0; i < collect->workers; i++) {
        add_counts(&event.counts, &collect->progress[i]);
    }
    if (event.counts.undrained == 0) {
        collect->drained = true;
        event.kind = PROXY_EVENT_DRAINED;
    }
    if (event.counts.failed > 0) {
        memcpy(event.reason, collect->reason, sizeof(event.reason));
    }
    collect->emit(collect->context, &event);
}

void collect_answer(struct collect *collect, const struct answer *answer)
{
    struct collection *collection = find(collect, answer);
    if (collection != NULL) {
        collection->answered[answer->worker] = true;
        collection->missing--;
        add_counts(&collection->counts, &answer->counts);
        if (collection->reason[0] == '\0') {
            memcpy(collection->reason, answer->reason, sizeof(collection->reason));
        }
        add_items(collection, answer);
        if (collection->missing == 0) {
            complete(collect, collection);
        }
    }
    if (answer->kind == PROXY_EVENT_HELD || answer->kind == PROXY_EVENT_PROGRESS) {
        note_progress(collect, answer);
    }
}

bool collect_expiry_begins(struct collect *collect, const struct answer *answer)
{
    if (answer->kind != PROXY_EVENT_EXPIRED || collect->expiring || answer->hold != collect->hold) {
        return false;
    }
    collect->expiring = true;
    return true;
}
