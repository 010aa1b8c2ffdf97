/* What the files of the numbering share. Nobody else looks into a struct numbering. */
#ifndef SWITCHBACK_PROXY_NUMBERING_INTERNAL_H
#define SWITCHBACK_PROXY_NUMBERING_INTERNAL_H

#include "proxy/numbering.h"
#include "proxy/type_values.h"
#include "proxy/wire/decode.h"

#include <uthash.h>

/* A parameter or column whose values may have to be changed. */
struct item {
    uint16_t index;
    uint16_t format; /* of a column: 0 text, 1 binary */
    uint32_t type;   /* by the server's numbers; 0: of a parameter, not told */
    uint8_t class;   /* enum value_class */
    bool oids;       /* oids in it are types' */
};

struct items {
    struct item *list; /* by index */
    uint16_t count;
};

/* What is known of a prepared statement. */
struct shape {
    unsigned references;
    bool on_types; /* its text mentions catalogs of types, or regtype */
    struct items parameters, columns;
};

/* A portal: its statement, and the formats that its Bind asked for. */
struct portal {
    unsigned references;
    struct shape *shape;
    uint16_t format_count;
    uint16_t formats[]; /* none: text; one: of all columns; else of each */
};

/*
 * A message of the client's whose answer is to come. What its names mean is found when it is answered: a
 * message before it may fail.
 */
struct flight {
    uint8_t type;
    char kind;             /* Describe, Close: 'S' or 'P' */
    bool on_types;         /* Query: as a shape's */
    char *name;            /* of what it makes, describes, runs or closes; NULL: unnamed */
    char *statement;       /* Bind: of it; NULL: unnamed */
    struct shape *shape;   /* Parse */
    struct portal *portal; /* Bind */
};

/* A named statement or portal. */
struct entry {
    struct shape *shape;
    struct portal *portal;
    UT_hash_handle hh;
    char name[];
};

/* A message that comes in pieces, whole once the last one is there: with its header. */
struct gathered {
    uint8_t *bytes;
    size_t have, capacity;
    bool complete;
};

struct whole {
    uint8_t type;
    uint8_t *body;
    uint32_t length;
};

struct numbering {
    struct type_map *map;
    enum side home;
    bool failed;
    bool skipping; /* the server ignores all up to a Sync that was not sent yet */
    uint32_t strange;
    struct entry *statements, *portals; /* uthash */
    struct shape *unnamed_statement;
    struct portal *unnamed_portal;
    struct flight *flights; /* from head on */
    size_t flight_head, flight_count, flight_capacity;
    struct items rows;   /* of what is being answered, with formats */
    struct strbuf query; /* the text of one that comes in pieces */
    bool rows_resolved;
    bool takes_client, takes_server; /* the message that passes is gathered */
    struct gathered from_client, from_server;
    struct strbuf replacement, changed;
};

/* numbering.c */
struct translation numbering_to_client(const struct numbering *self);
struct shape *shape_new(struct numbering *self, struct slice text);
bool numbering_mentions_types(struct slice text);
struct shape *shape_ref(struct shape *shape);
void shape_unref(struct shape *shape); /* NULL is allowed */
struct portal *portal_ref(struct portal *portal);
void portal_unref(struct portal *portal); /* NULL is allowed */
/* What a Bind that the client sends now means, as far as can be told: a Parse on its way counts. */
struct shape *numbering_expected_statement(struct numbering *self, struct slice name);
/* As the server has them. NULL: unknown. */
struct shape *numbering_statement(struct numbering *self, struct slice name);
struct portal *numbering_portal(struct numbering *self, struct slice name);
void numbering_set_statement(struct numbering *self, struct slice name, struct shape *shape);
void numbering_set_portal(struct numbering *self, struct slice name, struct portal *portal);
void numbering_forget_portals(struct numbering *self);
/* Both take the references in *flight. */
void numbering_release(struct flight *flight);
void numbering_push(struct numbering *self, struct flight *flight);
struct flight *numbering_flight(struct numbering *self); /* the first one; NULL: none */
void numbering_pop(struct numbering *self);
/* Adds an item if values of the type may have to be changed. */
void items_add(struct numbering *self, struct items *items, struct item item);
void items_clear(struct items *items);
/* True: the message is whole, in its place or gathered. */
bool gather(struct numbering *self, struct gathered *gathered, const struct frame_piece *piece,
            uint8_t *bytes, struct whole *whole);
/*
 * The values of a DataRow or Bind, changed; they begin at `at` in its body, with their count. Text that
 * becomes shorter or longer makes it a new message: self->replacement, else empty.
 */
void numbering_values(struct numbering *self, struct translation translation, const struct whole *whole,
                      size_t at, const struct items *items);

/* numbering_server.c */
/* A parameter of a statement, by the server's number of its type. */
void numbering_learn_parameter(struct numbering *self, struct shape *shape, uint16_t index, uint32_t type);

#endif
