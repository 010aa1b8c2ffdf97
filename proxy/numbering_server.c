/* What a moved session's server answers: its oids become the client's, and what they say is kept. */
#include "proxy/numbering_internal.h"

enum { FIRST_USER_TYPE = 16384 };

/* Of what follows a field's name: table, column, type, size, modifier, format. */
enum { FIELD_TYPE = 6, FIELD_REST = 18 };

/* --- what is learned ---------------------------------------------------------------------------------------
 */

void numbering_learn_parameter(struct numbering *self, struct shape *shape, uint16_t index, uint32_t type)
{
    enum value_class class = value_class_of(self->map, side_other(self->home), type);
    if (type == 0) {
        class = VALUE_INTEGER; /* it may be one */
    }
    bool is_number = class == VALUE_OID || class == VALUE_INTEGER;
    if (class != VALUE_PLAIN && (!is_number || shape->on_types)) {
        items_add(
            self, &shape->parameters,
            (struct item){.index = index, .type = type, .class = (uint8_t) class, .oids = shape->on_types});
    }
}

/* The client will know a type by a number that its home gives to none, or to another. */
static void note_strange(struct numbering *self, uint32_t type)
{
    if (type < FIRST_USER_TYPE || self->strange != 0) {
        return;
    }
    const struct proxy_type *known = type_map_find(self->map, side_other(self->home), type);
    if (known == NULL || known->oids[self->home] == 0) {
        self->strange = type;
    }
}

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Changes an oid in its place. Returns what the server said. */
static uint32_t change(struct numbering *self, uint8_t *at)
{
    uint32_t type = read_u32(at);
    uint32_t other = translate(numbering_to_client(self), type);
    note_strange(self, type);
    at[0] = (uint8_t)(other >> 24);
    at[1] = (uint8_t)(other >> 16);
    at[2] = (uint8_t)(other >> 8);
    at[3] = (uint8_t)other;
    return type;
}

/* Each parameter of a ParameterDescription; what is said now counts. */
static void walk_parameters(struct numbering *self, struct slice body, struct shape *shape)
{
    uint16_t count = 0;
    struct slice oids;
    if (shape == NULL || !decode_parameter_description(body, &count, &oids)) {
        return;
    }
    items_clear(&shape->parameters);
    for (uint16_t i = 0; i < count; i++) {
        numbering_learn_parameter(self, shape, i, decode_oid(oids, i));
    }
}

static bool may_change(enum value_class class, uint16_t format)
{
    return class == VALUE_OID || (class == VALUE_BINARY && format == 1);
}

/* pg_largeobject and pg_largeobject_metadata, whose oids applications choose and keep */
static bool is_large_object(uint32_t table)
{
    return table == 2613 || table == 2995;
}

/*
 * Whether oids in a column are types' as far as the map knows them: what a catalog says is unique in its
 * database. What is kept in the user's own tables may be anything; what was computed is a type's in a
 * statement on types.
 */
static bool has_types(const struct decode_field *field, bool on_types)
{
    return field->table_oid == 0 ? on_types
                                 : field->table_oid < FIRST_USER_TYPE && !is_large_object(field->table_oid);
}

/* Each column of a RowDescription; of a statement, whose formats are not told, or of rows that follow. */
static void walk_columns(struct numbering *self, struct slice body, bool rows_follow, bool on_types,
                         struct items *columns)
{
    uint16_t count = 0;
    struct slice fields;
    struct decode_field field;
    items_clear(columns);
    if (!decode_row_description(body, &count, &fields)) {
        return;
    }
    for (uint16_t i = 0; i < count && decode_field_next(&fields, &field); i++) {
        enum value_class class = value_class_of(self->map, side_other(self->home), field.type_oid);
        if (class == VALUE_OID && !has_types(&field, on_types)) {
            continue;
        }
        if (may_change(class, rows_follow ? field.format : 1)) {
            items_add(self, columns,
                      (struct item){.index = i,
                                    .format = field.format,
                                    .type = field.type_oid,
                                    .class = (uint8_t) class,
                                    .oids = on_types || class == VALUE_OID});
        }
    }
}

/* In a RowDescription the type stands six bytes behind the field's name, eight bytes before the next one. */
static void change_columns(struct numbering *self, const struct whole *whole)
{
    size_t at = 2;
    while (at < whole->length) {
        const uint8_t *end = memchr(whole->body + at, 0, whole->length - at);
        if (end == NULL || (size_t)(end - whole->body) + 1 + FIELD_REST > whole->length) {
            return;
        }
        at = (size_t)(end - whole->body) + 1;
        change(self, whole->body + at + FIELD_TYPE);
        at += FIELD_REST;
    }
}

static struct slice name_of(const char *name)
{
    return name == NULL ? slice_of("", 0) : slice_text(name);
}

/* What a Describe that is being answered is about; NULL: unknown. */
static struct shape *described_shape(struct numbering *self, const struct flight *flight)
{
    if (flight->kind == 'S') {
        return numbering_statement(self, name_of(flight->name));
    }
    const struct portal *portal = numbering_portal(self, name_of(flight->name));
    return portal == NULL ? NULL : portal->shape;
}

static void take_description(struct numbering *self, const struct whole *whole)
{
    struct flight *flight = numbering_flight(self);
    struct slice body = slice_of(whole->body, whole->length);
    bool described = flight != NULL && flight->type == 'D';
    struct shape *shape = described ? described_shape(self, flight) : NULL;
    if (whole->type == 't') {
        walk_parameters(self, body, shape);
        for (size_t at = 2; at + 4 <= whole->length; at += 4) {
            change(self, whole->body + at);
        }
        return;
    }
    if (!described) { /* rows of a Query follow */
        walk_columns(self, body, true, flight != NULL && flight->on_types, &self->rows);
        self->rows_resolved = true;
    } else if (shape != NULL) {
        walk_columns(self, body, false, shape->on_types, &shape->columns);
    }
    change_columns(self, whole);
    if (described) {
        numbering_pop(self);
    }
}

void numbering_described(struct numbering *self, const char *name, uint8_t type, struct slice body)
{
    struct shape *shape = numbering_statement(self, slice_text(name));
    if (shape == NULL) {
        return;
    }
    if (type == 't') {
        walk_parameters(self, body, shape);
    } else if (type == 'T') {
        walk_columns(self, body, false, shape->on_types, &shape->columns);
    }
}

/* --- rows --------------------------------------------------------------------------------------------------
 */

/* The columns of the portal that is being executed, in the formats that were asked for. */
static void resolve_rows(struct numbering *self)
{
    const struct flight *flight = numbering_flight(self);
    self->rows_resolved = true;
    const struct portal *portal =
        flight == NULL || flight->type != 'E' ? NULL : numbering_portal(self, name_of(flight->name));
    if (portal == NULL || portal->shape == NULL) {
        return;
    }
    const struct items *columns = &portal->shape->columns;
    for (uint16_t i = 0; i < columns->count; i++) {
        struct item item = columns->list[i];
        uint16_t at = portal->format_count == 1 ? 0 : item.index;
        item.format = at < portal->format_count ? portal->formats[at] : 0;
        if (may_change((enum value_class)item.class, item.format)) {
            items_add(self, &self->rows, item);
        }
    }
}

bool numbering_wants_rows(struct numbering *self)
{
    const struct flight *flight = numbering_flight(self);
    if (!self->rows_resolved && flight != NULL && flight->type == 'E') {
        resolve_rows(self);
    }
    return self->rows.count > 0;
}

/* --- replies -----------------------------------------------------------------------------------------------
 */

/* A Bind has succeeded: now it is known of what. */
static void bound(struct numbering *self, const struct flight *flight)
{
    struct shape *shape = numbering_statement(self, name_of(flight->statement));
    if (flight->portal != NULL) {
        flight->portal->shape = shape != NULL ? shape_ref(shape) : shape_new(self, slice_of("", 0));
    }
    numbering_set_portal(self, name_of(flight->name), flight->portal);
}

/* The first message under way is answered by this. */
static void answered(struct numbering *self, uint8_t type)
{
    struct flight *flight = numbering_flight(self);
    if (flight == NULL) {
        return;
    }
    if (type == '1' && flight->type == 'P') {
        numbering_set_statement(self, name_of(flight->name), flight->shape);
    } else if (type == '2' && flight->type == 'B') {
        bound(self, flight);
    } else if (type == '3' && flight->type == 'C') {
        if (flight->kind == 'S') {
            numbering_set_statement(self, name_of(flight->name), NULL);
        } else {
            numbering_set_portal(self, name_of(flight->name), NULL);
        }
    } else if (!(type == 'n' && flight->type == 'D') &&
               !((type == 'C' || type == 'I' || type == 's') && flight->type == 'E')) {
        if (type == 'C') { /* of a Query, which may have more statements */
            items_clear(&self->rows);
        }
        return;
    }
    numbering_pop(self);
}

/* The server ignores everything up to the next Sync, unless it was a Query or FunctionCall that failed. */
static void failed(struct numbering *self)
{
    struct flight *flight = numbering_flight(self);
    items_clear(&self->rows);
    if (flight == NULL || flight->type == 'Q' || flight->type == 'F' || flight->type == 'S') {
        return;
    }
    while ((flight = numbering_flight(self)) != NULL && flight->type != 'S') {
        numbering_pop(self);
    }
    self->skipping = flight == NULL;
}

static void ready(struct numbering *self, const struct frame_piece *piece, const struct boundary *boundary)
{
    struct flight *flight = NULL;
    bool ended = false;
    while (!ended && (flight = numbering_flight(self)) != NULL) {
        ended = flight->type == 'S' || flight->type == 'Q' || flight->type == 'F';
        numbering_pop(self);
    }
    if (!boundary_owes(boundary)) { /* whatever was counted in vain */
        while (self->flight_count > 0) {
            numbering_pop(self);
        }
        self->skipping = false;
    }
    if (piece->bytes.length > 0 && piece->bytes.data[0] == 'I') {
        numbering_forget_portals(self);
    }
}

static bool is_taken(const struct numbering *self, const struct frame_piece *piece)
{
    return piece->type == 'T' || piece->type == 't' || (piece->type == 'D' && self->rows.count > 0);
}

static void take(struct numbering *self, const struct whole *whole)
{
    strbuf_clear(&self->replacement);
    if (whole->type == 'D') {
        numbering_values(self, numbering_to_client(self), whole, 0, &self->rows);
    } else {
        take_description(self, whole);
    }
}

enum numbering_verdict numbering_server(struct numbering *self, const struct frame_piece *piece,
                                        uint8_t *bytes, const struct boundary *boundary,
                                        struct slice *instead)
{
    struct whole whole;
    *instead = slice_of("", 0);
    if (piece->first) {
        (void)numbering_wants_rows(self);
        self->takes_server = is_taken(self, piece);
    }
    if (!self->takes_server) {
        if (piece->last && piece->type == 'E') {
            failed(self);
        } else if (piece->last && piece->type == 'Z') {
            ready(self, piece, boundary);
        } else if (piece->last) {
            answered(self, piece->type);
        }
        return NUMBERING_PASS;
    }
    bool in_place = piece->first && piece->last;
    if (gather(self, &self->from_server, piece, bytes, &whole)) {
        take(self, &whole);
        if (self->replacement.length > 0) {
            *instead = slice_of(self->replacement.data, self->replacement.length);
            return NUMBERING_TAKE;
        }
        if (!in_place) {
            *instead = slice_of(self->from_server.bytes, FRAME_HEADER_SIZE + (size_t)whole.length);
        }
    }
    return in_place ? NUMBERING_PASS : NUMBERING_TAKE;
}
