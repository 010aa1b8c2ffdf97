#include "replication/check_items.h"

#include "conf/base/strbuf.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_OBJECTS = 200, OBJECT_LIMIT = 1000 };

static void free_item(struct check_item *item)
{
    free(item->message);
    free(item->remedy);
    for (size_t i = 0; i < item->objects.count; i++) {
        free(item->objects.items[i]);
    }
    free(item->objects.items);
}

void check_items_deinit(struct check_items *items)
{
    for (size_t i = 0; i < items->count; i++) {
        free_item(&items->items[i]);
    }
    free(items->items);
    *items = (struct check_items){0};
}

static struct check_item *find(const struct check_items *items, const char *id)
{
    for (size_t i = 0; i < items->count; i++) {
        if (strcmp(items->items[i].id, id) == 0) {
            return &items->items[i];
        }
    }
    return NULL;
}

/* Replaces *text; keeps it if memory is out. */
static void set_text(struct check_items *items, char **text, const char *from)
{
    char *copy = strdup(from);
    if (copy == NULL) {
        items->failed = true;
        return;
    }
    free(*text);
    *text = copy;
}

struct check_item *check_items_want(struct check_items *items, const struct check *check)
{
    struct check_item *item = find(items, check->id);
    if (item != NULL) {
        return item;
    }
    struct check_item *grown = realloc(items->items, (items->count + 1) * sizeof *grown);
    if (grown == NULL) {
        items->failed = true;
        return NULL;
    }
    items->items = grown;
    item = &grown[items->count++];
    *item = (struct check_item){.id = check->id, .state = CHECK_PASS};
    set_text(items, &item->message, "");
    set_text(items, &item->remedy, "");
    return item;
}

void check_items_describe(struct check_items *items, const struct check *check)
{
    struct check_item *item = find(items, check->id);
    if (item != NULL && *item->message == '\0') {
        set_text(items, &item->message, item->state == CHECK_PASS ? check->passes : check->finds);
        set_text(items, &item->remedy, item->state == CHECK_PASS ? "" : check->remedy);
    }
}

static void add_object(struct check_items *items, struct check_item *item, const char *object)
{
    struct settings_list *objects = &item->objects;
    if (objects->count > MAX_OBJECTS) {
        return;
    }
    char **grown = realloc(objects->items, (objects->count + 1) * sizeof *grown);
    if (grown == NULL) {
        items->failed = true;
        return;
    }
    objects->items = grown;
    grown[objects->count] = strdup(objects->count == MAX_OBJECTS ? "and more" : object);
    if (grown[objects->count] == NULL) {
        items->failed = true;
        return;
    }
    objects->count++;
}

void check_items_add(struct check_items *items, const struct check *check, enum check_state state,
                     const char *object)
{
    struct check_item *item = check_items_want(items, check);
    if (item == NULL || state == CHECK_PASS) {
        return;
    }
    if (state > item->state) {
        item->state = state;
    }
    add_object(items, item, object);
}

static void put_place(struct strbuf *text, const struct check_place *place)
{
    if (*place->database != '\0') {
        strbuf_printf(text, "%s: ", place->database);
    }
    if (*place->side != '\0') {
        strbuf_printf(text, "%s: ", place->side);
    }
}

static void add_text(struct check_items *items, const struct check *check, enum check_state state,
                     struct strbuf *text)
{
    check_items_add(items, check, state, text->failed ? "(too long to show)" : strbuf_text(text));
    strbuf_deinit(text);
}

static enum check_state parse_state(const char *text, enum check_state otherwise)
{
    if (strcmp(text, "fail") == 0) {
        return CHECK_FAIL;
    }
    if (strcmp(text, "warn") == 0) {
        return CHECK_WARN;
    }
    return strcmp(text, "pass") == 0 ? CHECK_PASS : otherwise;
}

void check_items_found(struct check_items *items, const struct check *check, const struct check_place *place,
                       const PGresult *rows)
{
    for (int row = 0; row < PQntuples(rows); row++) {
        struct strbuf text;
        strbuf_init(&text, OBJECT_LIMIT);
        put_place(&text, place);
        strbuf_puts(&text, PQgetvalue(rows, row, 1));
        const char *detail = PQgetvalue(rows, row, 2);
        if (*detail != '\0') {
            strbuf_printf(&text, ": %s", detail);
        }
        add_text(items, check, parse_state(PQgetvalue(rows, row, 0), CHECK_FAIL), &text);
    }
}

struct keyed {
    const char *key, *value, *lonely, *differs;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *one = a;
    const struct keyed *other = b;
    return strcmp(one->key, other->key);
}

/* The rows sorted by key, ended by a NULL key. NULL: out of memory. */
static struct keyed *sort_rows(const PGresult *rows)
{
    size_t count = (size_t)PQntuples(rows);
    struct keyed *sorted = calloc(count + 1, sizeof *sorted);
    if (sorted == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        sorted[i].key = PQgetvalue(rows, (int)i, 0);
        sorted[i].value = PQgetvalue(rows, (int)i, 1);
        sorted[i].lonely = PQnfields(rows) > 2 ? PQgetvalue(rows, (int)i, 2) : "";
        sorted[i].differs = PQnfields(rows) > 3 ? PQgetvalue(rows, (int)i, 3) : "";
    }
    qsort(sorted, count, sizeof *sorted, by_key);
    return sorted;
}

static void add_lonely(struct check_items *items, const struct check *check, const struct check_place *place,
                       const struct keyed *row, const char *lacks, enum check_state otherwise)
{
    struct strbuf text;
    strbuf_init(&text, OBJECT_LIMIT);
    put_place(&text, place);
    strbuf_printf(&text, "%s: missing on %s", row->key, lacks);
    add_text(items, check, parse_state(row->lonely, otherwise), &text);
}

static void add_difference(struct check_items *items, const struct check *check,
                           const struct check_place *place, const char *const names[2],
                           const struct keyed *active, const struct keyed *standby)
{
    if (strcmp(active->value, standby->value) == 0) {
        return;
    }
    struct strbuf text;
    strbuf_init(&text, OBJECT_LIMIT);
    put_place(&text, place);
    if (check->secret) {
        strbuf_printf(&text, "%s: differs", active->key);
    } else {
        strbuf_printf(&text, "%s: %s on %s, %s on %s", active->key,
                      *active->value == '\0' ? "nothing" : active->value, names[0],
                      *standby->value == '\0' ? "nothing" : standby->value, names[1]);
    }
    enum check_state state =
        check->judge == NULL ? check->differs : check->judge(active->value, standby->value);
    add_text(items, check, parse_state(active->differs, state), &text);
}

void check_items_compare(struct check_items *items, const struct check *check,
                         const struct check_place *place, const char *const names[2], const PGresult *active,
                         const PGresult *standby)
{
    struct keyed *actives = sort_rows(active);
    struct keyed *standbys = sort_rows(standby);
    if (actives == NULL || standbys == NULL) {
        items->failed = true;
    } else {
        const struct keyed *a = actives;
        const struct keyed *s = standbys;
        while (a->key != NULL || s->key != NULL) {
            int order = a->key == NULL ? 1 : s->key == NULL ? -1 : strcmp(a->key, s->key);
            if (order < 0) {
                add_lonely(items, check, place, a++, names[1], check->missing);
            } else if (order > 0) {
                add_lonely(items, check, place, s++, names[0], check->extra);
            } else {
                add_difference(items, check, place, names, a++, s++);
            }
        }
    }
    free(actives);
    free(standbys);
}
