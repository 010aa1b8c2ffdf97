#include "proxy/type_map.h"

#include "conf/base/compiler.h"

#include <stdlib.h>
#include <string.h>

/* Where the type of an oid stands. */
struct place {
    uint32_t oid;
    uint32_t index;
};

struct type_map {
    unsigned references;
    bool differs;
    size_t count;
    struct proxy_type *types;
    struct place *places[SIDE_COUNT]; /* of those that the side has, ascending */
    size_t counts[SIDE_COUNT];
};

/* Servers count oids up from 16384, and all of them are used up first before one of these is given out. */
enum { NOBODYS = INT32_MIN };

static uint32_t nobodys(uint32_t oid)
{
    return oid ^ (uint32_t)NOBODYS;
}

/* --- the map -----------------------------------------------------------------------------------------------
 */

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left;
    const struct place *b = right;
    return (a->oid > b->oid) - (a->oid < b->oid);
}

static void fill_places(struct type_map *map)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        for (size_t i = 0; i < map->count; i++) {
            uint32_t oid = map->types[i].oids[side];
            if (oid != 0) {
                map->places[side][map->counts[side]++] = (struct place){.oid = oid, .index = (uint32_t)i};
            }
        }
        qsort(map->places[side], map->counts[side], sizeof *map->places[side], compare_places);
    }
}

struct type_map *type_map_new(const struct proxy_type *types, size_t count)
{
    struct type_map *map = calloc(1, sizeof *map);
    if (map == NULL) {
        return NULL;
    }
    map->references = 1;
    map->types = calloc(count + 1, sizeof *map->types);
    for (int side = 0; side < SIDE_COUNT; side++) {
        map->places[side] = calloc(count + 1, sizeof *map->places[side]);
    }
    if (map->types == NULL || map->places[SIDE_BLUE] == NULL || map->places[SIDE_GREEN] == NULL) {
        type_map_unref(map);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        map->types[i] = types[i];
        map->differs = map->differs || types[i].oids[SIDE_BLUE] != types[i].oids[SIDE_GREEN];
    }
    map->count = count;
    fill_places(map);
    return map;
}

struct type_map *type_map_ref(struct type_map *map)
{
    if (map != NULL) {
        map->references++;
    }
    return map;
}

void type_map_unref(struct type_map *map)
{
    if (map == NULL || --map->references > 0) {
        return;
    }
    for (int side = 0; side < SIDE_COUNT; side++) {
        free(map->places[side]);
    }
    free(map->types);
    free(map);
}

bool type_map_differs(const struct type_map *map)
{
    return map != NULL && map->differs;
}

const struct proxy_type *type_map_find(const struct type_map *map, enum side side, uint32_t oid)
{
    size_t low = 0;
    size_t high = map == NULL ? 0 : map->counts[side];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct place *place = &map->places[side][middle];
        if (place->oid == oid) {
            return &map->types[place->index];
        }
        if (place->oid < oid) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

/* --- translation -------------------------------------------------------------------------------------------
 */

/* Without what nobody gives out, which is all that can go back by itself. */
static uint32_t translate_given(struct translation t, uint32_t oid)
{
    const struct proxy_type *here = type_map_find(t.map, t.from, oid);
    const struct proxy_type *there = type_map_find(t.map, t.to, oid);
    if (here != NULL && here->oids[t.to] != 0) {
        return here->oids[t.to];
    }
    bool is_anothers = there != NULL && (here != NULL || there->oids[t.from] != 0);
    return is_anothers ? nobodys(oid) : oid;
}

uint32_t translate(struct translation t, uint32_t oid)
{
    if (t.map == NULL || t.from == t.to) {
        return oid;
    }
    struct translation back = {.map = t.map, .from = t.to, .to = t.from};
    uint32_t given = nobodys(oid);
    if (oid > given && translate_given(back, given) == oid) {
        return given;
    }
    return translate_given(t, oid);
}

uint32_t translate_known(struct translation t, uint32_t oid)
{
    const struct proxy_type *type = t.from == t.to ? NULL : type_map_find(t.map, t.from, oid);
    return type != NULL && type->oids[t.to] != 0 ? type->oids[t.to] : oid;
}

uint32_t type_map_disagreement(const struct type_map *old, const struct type_map *new, enum side home)
{
    enum side away = side_other(home);
    for (size_t i = 0; old != NULL && i < old->count; i++) {
        const struct proxy_type *was = &old->types[i];
        const struct proxy_type *is = type_map_find(new, away, was->oids[away]);
        if (was->oids[home] != 0 && is != NULL && is->oids[home] != 0 && is->oids[home] != was->oids[home]) {
            return was->oids[home];
        }
    }
    return 0;
}

/* --- by database -------------------------------------------------------------------------------------------
 */

struct database_types *types_of(struct database_types **all, const char *database)
{
    for (struct database_types *entry = *all; entry != NULL; entry = entry->next) {
        if (strcmp(entry->database, database) == 0) {
            return entry;
        }
    }
    struct database_types *entry = calloc(1, sizeof *entry);
    char *name = strdup(database);
    if (entry == NULL || name == NULL) {
        free(entry);
        free(name);
        return NULL;
    }
    entry->database = name;
    entry->next = *all;
    *all = entry;
    return entry;
}

void types_free(struct database_types *all)
{
    while (all != NULL) {
        struct database_types *next = all->next;
        type_map_unref(all->map);
        free(all->database);
        free(all);
        all = next;
    }
}
