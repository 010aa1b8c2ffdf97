#include "proxy/move_snapshot.h"

#include <stdlib.h>

enum { FIRST_TEXT = 1024, FIRST_ITEMS = 16 };

struct snapshot *snapshot_new(void)
{
    struct snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (snapshot != NULL) {
        snapshot->references = 1;
    }
    return snapshot;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot)
{
    if (snapshot != NULL) {
        snapshot->references++;
    }
    return snapshot;
}

void snapshot_unref(struct snapshot *snapshot)
{
    if (snapshot == NULL || --snapshot->references > 0) {
        return;
    }
    free(snapshot->text);
    free(snapshot->items);
    free(snapshot);
}

static bool reserve(struct snapshot *snapshot, size_t bytes)
{
    size_t needed = snapshot->length + bytes;
    if (needed > SNAPSHOT_TEXT_MAX || snapshot->count >= SNAPSHOT_ITEMS_MAX) {
        return false;
    }
    if (needed > snapshot->capacity) {
        size_t capacity = snapshot->capacity == 0 ? FIRST_TEXT : snapshot->capacity;
        while (capacity < needed) {
            capacity *= 2;
        }
        char *text = realloc(snapshot->text, capacity);
        if (text == NULL) {
            return false;
        }
        snapshot->text = text;
        snapshot->capacity = capacity;
    }
    if (snapshot->count == snapshot->item_capacity) {
        size_t capacity = snapshot->item_capacity == 0 ? FIRST_ITEMS : snapshot->item_capacity * 2;
        struct snapshot_item *items = realloc(snapshot->items, capacity * sizeof *items);
        if (items == NULL) {
            return false;
        }
        snapshot->items = items;
        snapshot->item_capacity = capacity;
    }
    return true;
}

static uint32_t append(struct snapshot *snapshot, struct slice text)
{
    size_t begin = snapshot->length;
    if (text.length > 0) {
        memcpy(snapshot->text + begin, text.data, text.length);
    }
    snapshot->text[begin + text.length] = '\0';
    snapshot->length = begin + text.length + 1;
    return (uint32_t)begin;
}

bool snapshot_add(struct snapshot *snapshot, enum snapshot_kind kind, struct slice name, struct slice value,
                  struct slice extra)
{
    if (!reserve(snapshot, name.length + value.length + extra.length + 3)) {
        return false;
    }
    struct snapshot_item *item = &snapshot->items[snapshot->count++];
    item->kind = (uint8_t)kind;
    item->name = append(snapshot, name);
    item->value = append(snapshot, value);
    item->extra = append(snapshot, extra);
    return true;
}

bool snapshot_copy(struct snapshot *snapshot, const struct snapshot *from, enum snapshot_kind kind)
{
    for (size_t i = 0; from != NULL && i < from->count; i++) {
        const struct snapshot_item *item = &from->items[i];
        if (item->kind == kind &&
            !snapshot_add(snapshot, kind, slice_text(snapshot_name(from, item)),
                          slice_text(snapshot_value(from, item)), slice_text(snapshot_extra(from, item)))) {
            return false;
        }
    }
    return true;
}

const char *snapshot_name(const struct snapshot *snapshot, const struct snapshot_item *item)
{
    return snapshot->text + item->name;
}

const char *snapshot_value(const struct snapshot *snapshot, const struct snapshot_item *item)
{
    return snapshot->text + item->value;
}

const char *snapshot_extra(const struct snapshot *snapshot, const struct snapshot_item *item)
{
    return snapshot->text + item->extra;
}

static int compare(const char *text, const struct snapshot_item *a, const char *other_text,
                   const struct snapshot_item *b)
{
    if (a->kind != b->kind) {
        return a->kind < b->kind ? -1 : 1;
    }
    return strcmp(text + a->name, other_text + b->name);
}

static int compare_items(const void *a, const void *b, void *context)
{
    const struct snapshot *snapshot = context;
    return compare(snapshot->text, a, snapshot->text, b);
}

void snapshot_sort(struct snapshot *snapshot)
{
    if (snapshot->count > 1) {
        qsort_r(snapshot->items, snapshot->count, sizeof *snapshot->items, compare_items, snapshot);
    }
}

const char *snapshot_find(const struct snapshot *snapshot, enum snapshot_kind kind, const char *name)
{
    for (size_t i = 0; snapshot != NULL && i < snapshot->count; i++) {
        const struct snapshot_item *item = &snapshot->items[i];
        if (item->kind == kind && strcmp(snapshot_name(snapshot, item), name) == 0) {
            return snapshot_value(snapshot, item);
        }
    }
    return NULL;
}

/* Where in the order the next items of both stand: below, at or above each other. */
static int order(const struct snapshot_walk *walk, const struct snapshot_item *old,
                 const struct snapshot_item *new)
{
    if (old == NULL) {
        return 1;
    }
    return new == NULL ? -1 : compare(walk->old->text, old, walk->new->text, new);
}

static const struct snapshot_item *item_at(const struct snapshot *snapshot, size_t index)
{
    return snapshot != NULL && index < snapshot->count ? &snapshot->items[index] : NULL;
}

bool snapshot_next_change(struct snapshot_walk *walk, struct snapshot_change *change)
{
    for (;;) {
        const struct snapshot_item *old = item_at(walk->old, walk->old_index);
        const struct snapshot_item *new = item_at(walk->new, walk->new_index);
        if (old == NULL && new == NULL) {
            return false;
        }
        int which = order(walk, old, new);
        *change = (struct snapshot_change){.kind = SNAPSHOT_SETTING};
        if (which <= 0) {
            change->kind = (enum snapshot_kind)old->kind;
            change->name = snapshot_name(walk->old, old);
            change->old_value = snapshot_value(walk->old, old);
            walk->old_index++;
        }
        if (which >= 0) {
            change->kind = (enum snapshot_kind) new->kind;
            change->name = snapshot_name(walk->new, new);
            change->value = snapshot_value(walk->new, new);
            change->extra = snapshot_extra(walk->new, new);
            walk->new_index++;
        }
        if (which != 0 || strcmp(change->old_value, change->value) != 0 ||
            strcmp(snapshot_extra(walk->old, old), change->extra) != 0) {
            return true;
        }
    }
}
