/* What a moved session's client sends: its oids become the server's, and what it awaits is noted. */
#include "proxy/numbering_internal.h"

#include <stdlib.h>

static void write_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static char *copy_name(struct numbering *self, struct slice name)
{
    if (name.length == 0) {
        return NULL;
    }
    char *copy = malloc(name.length + 1);
    if (copy == NULL) {
        self->failed = true;
        return NULL;
    }
    return slice_copy(name, copy, name.length + 1);
}

static void push(struct numbering *self, struct flight *flight)
{
    if (self->skipping) { /* an error has come while the message did */
        numbering_release(flight);
    } else {
        numbering_push(self, flight);
    }
}

/* --- Parse -------------------------------------------------------------------------------------------------
 */

static void take_parse(struct numbering *self, const struct whole *whole)
{
    struct decode_parse parse;
    if (!decode_parse(slice_of(whole->body, whole->length), &parse)) {
        struct flight flight = {.type = 'P'};
        push(self, &flight); /* the server will refuse it */
        return;
    }
    struct shape *shape = shape_new(self, parse.text);
    uint8_t *types = whole->body + (parse.types.data - whole->body);
    for (uint16_t i = 0; shape != NULL && i < parse.type_count; i++) {
        uint32_t type = translate(numbering_to_server(self), decode_oid(parse.types, i));
        numbering_learn_parameter(self, shape, i, type);
        write_u32(types + (size_t)4 * i, type);
    }
    struct flight flight = {.type = 'P', .shape = shape, .name = copy_name(self, parse.name)};
    push(self, &flight);
}

/* --- Bind --------------------------------------------------------------------------------------------------
 */

static uint16_t read_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint16_t format_at(struct slice formats, uint16_t count, uint16_t index)
{
    size_t at = count == 1 ? 0 : (size_t)index * 2;
    if (at + 2 > formats.length) {
        return 0;
    }
    return read_u16(formats.data + at);
}

/* Behind the values: in which formats the portal's rows will come. */
static struct portal *portal_of(struct numbering *self, const struct decode_bind *bind)
{
    struct slice rest = bind->parameters;
    for (uint16_t i = 0; i < bind->parameter_count; i++) {
        struct slice value;
        bool is_null = false;
        if (!decode_column_next(&rest, &value, &is_null)) {
            break;
        }
    }
    uint16_t count = 0;
    if (rest.length >= 2 && rest.length >= 2 + (size_t)2 * read_u16(rest.data)) {
        count = read_u16(rest.data);
    }
    struct portal *portal = calloc(1, sizeof *portal + count * sizeof portal->formats[0]);
    if (portal == NULL) {
        self->failed = true;
        return NULL;
    }
    portal->references = 1;
    portal->format_count = count;
    for (uint16_t i = 0; i < count; i++) {
        portal->formats[i] = read_u16(rest.data + 2 + (size_t)2 * i);
    }
    return portal;
}

/* The parameters that may have to be changed, in the formats of this Bind. */
static struct items parameters_of(struct numbering *self, const struct decode_bind *bind,
                                  const struct shape *shape)
{
    struct items items = {.list = NULL};
    for (uint16_t i = 0; shape->on_types && shape->parameters.count == 0 && i < bind->parameter_count; i++) {
        /* nothing is said of them */
        items_add(self, &items, (struct item){.index = i, .class = VALUE_INTEGER, .oids = true});
    }
    for (uint16_t i = 0; i < shape->parameters.count; i++) {
        items_add(self, &items, shape->parameters.list[i]);
    }
    for (uint16_t i = 0; i < items.count; i++) {
        struct item *item = &items.list[i];
        item->format = format_at(bind->formats, bind->format_count, item->index);
    }
    return items;
}

static void take_bind(struct numbering *self, const struct whole *whole)
{
    struct decode_bind bind;
    struct slice body = slice_of(whole->body, whole->length);
    if (!decode_bind(body, &bind)) {
        struct flight flight = {.type = 'B'};
        push(self, &flight);
        return;
    }
    struct shape *shape = numbering_expected_statement(self, bind.statement);
    struct flight flight = {.type = 'B',
                            .name = copy_name(self, bind.portal),
                            .statement = copy_name(self, bind.statement),
                            .portal = portal_of(self, &bind)};
    if (shape != NULL && bind.parameter_count > 0 && (shape->on_types || shape->parameters.count > 0)) {
        struct items items = parameters_of(self, &bind, shape);
        size_t values = (size_t)(bind.parameters.data - whole->body) - 2;
        if (items.count > 0) {
            numbering_values(self, numbering_to_server(self), whole, values, &items);
        }
        items_clear(&items);
    }
    push(self, &flight);
}

/* --- the others --------------------------------------------------------------------------------------------
 */

/* Describe and Close */
static void take_target(struct numbering *self, const struct whole *whole)
{
    struct flight flight = {.type = whole->type};
    struct slice name;
    if (decode_target(slice_of(whole->body, whole->length), &flight.kind, &name)) {
        flight.name = copy_name(self, name);
    }
    push(self, &flight);
}

static void take_execute(struct numbering *self, const struct whole *whole)
{
    struct flight flight = {.type = 'E'};
    struct slice name;
    uint32_t rows = 0;
    if (decode_execute(slice_of(whole->body, whole->length), &name, &rows)) {
        flight.name = copy_name(self, name);
    }
    push(self, &flight);
}

static void take(struct numbering *self, const struct whole *whole)
{
    switch (whole->type) {
    case 'P':
        take_parse(self, whole);
        break;
    case 'B':
        take_bind(self, whole);
        break;
    case 'E':
        take_execute(self, whole);
        break;
    default:
        take_target(self, whole);
        break;
    }
}

/* Query, FunctionCall, Sync: what ends with a ReadyForQuery. In COPY FROM STDIN a server doesn't answer a
 * Sync. */
static void note_ready(struct numbering *self, const struct frame_piece *piece, bool on_types,
                       const struct boundary *boundary)
{
    if (self->skipping && piece->type != 'S') {
        return;
    }
    if (piece->type == 'S' && boundary_in_copy_in(boundary)) {
        return;
    }
    struct flight flight = {.type = piece->type, .on_types = on_types};
    self->skipping = false;
    numbering_push(self, &flight);
}

/* Whether the text of a Query is about types, at its last piece. One that is too long isn't looked through.
 */
static bool is_on_types(struct numbering *self, const struct frame_piece *piece)
{
    if (piece->first && piece->last) {
        return numbering_mentions_types(piece->bytes);
    }
    if (piece->first) {
        strbuf_clear(&self->query);
    }
    strbuf_append(&self->query, piece->bytes.data, piece->bytes.length);
    if (!piece->last) {
        return false;
    }
    bool found =
        !self->query.failed && numbering_mentions_types(slice_of(self->query.data, self->query.length));
    strbuf_deinit(&self->query);
    return found;
}

static bool is_taken(const struct numbering *self, uint8_t type)
{
    return !self->skipping && (type == 'P' || type == 'B' || type == 'D' || type == 'E' || type == 'C');
}

enum numbering_verdict numbering_client(struct numbering *self, const struct frame_piece *piece,
                                        uint8_t *bytes, const struct boundary *boundary,
                                        struct slice *instead)
{
    struct whole whole;
    *instead = slice_of("", 0);
    if (piece->first) {
        self->takes_client = is_taken(self, piece->type);
    }
    if (piece->type == 'Q' || piece->type == 'F' || piece->type == 'S') {
        bool on_types = piece->type == 'Q' && is_on_types(self, piece);
        if (piece->last) {
            note_ready(self, piece, on_types, boundary);
        }
    }
    if (!self->takes_client) {
        return NUMBERING_PASS;
    }
    bool in_place = piece->first && piece->last;
    if (gather(self, &self->from_client, piece, bytes, &whole)) {
        strbuf_clear(&self->replacement);
        take(self, &whole);
        if (self->replacement.length > 0) {
            *instead = slice_of(self->replacement.data, self->replacement.length);
            return NUMBERING_TAKE;
        }
        if (!in_place) {
            *instead = slice_of(self->from_client.bytes, FRAME_HEADER_SIZE + (size_t)whole.length);
        }
    }
    return in_place ? NUMBERING_PASS : NUMBERING_TAKE;
}
