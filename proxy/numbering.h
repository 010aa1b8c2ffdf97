/*
 * The numbers of types that a moved session speaks. On the side where it began, its home, its client has
 * learned oids of types, and may have cached them for good; on the other side they are another type's or
 * nobody's. While a session is there, this stands between it and its server and changes in passing what names
 * a type:
 *
 * - the oids of types in Parse, ParameterDescription and RowDescription, four bytes in their place;
 * - values in binary that name types: arrays, composites, ranges and domains of those (type_values.h);
 * - values of the types oid, oid[] and oidvector in columns of catalogs, and in what a statement computes
 *   whose text mentions pg_type, pg_enum, pg_range or regtype: so a type that is looked up after the move has
 *   the number that RowDescriptions tell;
 * - parameters of such a statement: oids, and any integer or untyped number that is a type's oid: so a driver
 *   finds a type by its number.
 *
 * An oid of a table, a function or a role is the server's own, and may be the same number as a type's: that
 * is why parameters of other statements, and columns of users' tables, are left alone. Nothing is changed in
 * the text of a statement, in arguments of a FunctionCall, in COPY data, nor where an oid was made something
 * else (oid::int4); and in rows of a statement only if its client had it described. A type that the map
 * doesn't know or that only the new side has is told by its number there, or, where that is another type's to
 * the client, by one that nobody has; a session that saw one can't move any more (numbering_strange).
 *
 * Pure but for memory, as move.h. Replies are attributed to what the client sent by a queue of its own, which
 * boundary.h, that only counts, doesn't have: it exists for moved sessions alone.
 */
#ifndef SWITCHBACK_PROXY_NUMBERING_H
#define SWITCHBACK_PROXY_NUMBERING_H

#include "proxy/type_map.h"
#include "proxy/wire/boundary.h"

struct numbering;

/* For a session that began on `home`, on the other side. Takes a reference. NULL: out of memory. */
MUST_USE struct numbering *numbering_new(struct type_map *map, enum side home);
void numbering_free(struct numbering *numbering); /* NULL is allowed */

const struct type_map *numbering_map(const struct numbering *numbering);
void numbering_set_map(struct numbering *numbering, struct type_map *map);

/* From what the client says to what its server understands. */
struct translation numbering_to_server(const struct numbering *numbering);

/*
 * Before its client's first message on that side: a statement that was prepared there on its behalf, and the
 * ParameterDescription or RowDescription (type, body) that the server gave of it.
 */
void numbering_prepared(struct numbering *numbering, const char *name, const char *text);
void numbering_described(struct numbering *numbering, const char *name, uint8_t type, struct slice body);

enum numbering_verdict {
    NUMBERING_PASS, /* the piece goes on; it may have been changed in its place */
    NUMBERING_TAKE  /* it doesn't: *instead goes on in its place, which may be nothing yet */
};

/*
 * A piece that goes on, after everyone else has looked at it; bytes: piece->bytes, to be changed. *instead is
 * valid until numbering_done(), to be called when it was sent.
 */
enum numbering_verdict numbering_client(struct numbering *numbering, const struct frame_piece *piece,
                                        uint8_t *bytes, const struct boundary *boundary,
                                        struct slice *instead);
enum numbering_verdict numbering_server(struct numbering *numbering, const struct frame_piece *piece,
                                        uint8_t *bytes, const struct boundary *boundary,
                                        struct slice *instead);

void numbering_done(struct numbering *numbering);

/* For the relay: what is to go to the client in its pieces' place, until it is sent. */
struct strbuf *numbering_changed(struct numbering *numbering);

/* Rows that come next must be shown. */
bool numbering_wants_rows(struct numbering *numbering);

/* Out of memory: the session can't go on. */
bool numbering_has_failed(const struct numbering *numbering);

/* A type that the client knows by a number that its home doesn't give it; 0: none. */
uint32_t numbering_strange(const struct numbering *numbering);

#endif
