/*
 * The oids of a database's user-defined types on both sides, as the controller has found them, and their
 * translation. Oids are a matter of each cluster: after a dump and restore an enum has another one, and its
 * old one may be another type's. A session speaks the numbers of the side it began on, its home; on the other
 * side they are translated (numbering.h), and what it has prepared is replayed by the other side's
 * (move_replay.c).
 *
 * A map is immutable and counted. Each worker has its own ones, by database; sessions point to their
 * database's entry, which lives as long as the worker.
 */
#ifndef SWITCHBACK_PROXY_TYPE_MAP_H
#define SWITCHBACK_PROXY_TYPE_MAP_H

#include "proxy/proxy.h"

struct type_map;

MUST_USE struct type_map *type_map_new(const struct proxy_type *types,
                                       size_t count); /* NULL: out of memory */
struct type_map *type_map_ref(struct type_map *map);  /* NULL is allowed */
void type_map_unref(struct type_map *map);            /* NULL is allowed */

/* False: every type has the same oid on both sides, nothing is to be translated. NULL is allowed. */
bool type_map_differs(const struct type_map *map);

/* The type that has this oid on that side; NULL: none. */
const struct proxy_type *type_map_find(const struct type_map *map, enum side side, uint32_t oid);

/* From the numbers of one side to those of another, maybe the same. */
struct translation {
    const struct type_map *map; /* NULL: all are the same */
    enum side from, to;
    bool oids; /* for type_values.h: values of the type oid are types, too */
};

/*
 * One to one, and back by the translation the other way. The number of a type that `to` lacks, or that the
 * map doesn't know, stays, unless it is another type's on `to`: then it becomes one that no server gives out.
 */
uint32_t translate(struct translation translation, uint32_t oid);
/* As translate(), but only types that both sides have; else the oid is left alone. For numbers that may be
 * another object's as well. */
uint32_t translate_known(struct translation translation, uint32_t oid);

/*
 * Whether a client that speaks the numbers of `home` by the old map, on the other side, can go on by the new
 * one: a number that isn't the same type's any more, 0 if there is none.
 */
uint32_t type_map_disagreement(const struct type_map *old, const struct type_map *new, enum side home);

struct database_types {
    struct database_types *next;
    char *database;
    struct type_map *map; /* NULL: not known yet */
};

/* The entry of a database, made if there is none. NULL: out of memory. */
MUST_USE struct database_types *types_of(struct database_types **all, const char *database);
void types_free(struct database_types *all);

#endif
