#include "proxy/numbering_internal.h"

#include <stdlib.h>

enum {
    FLIGHTS_LEAST = 16,
    FLIGHTS_KEPT = 64, /* room for so many is kept while none is under way */
    REPLACEMENT_KEPT = 16 * 1024,
    MESSAGE_MAX = INT32_MAX,
    CATALOG_TEXT_MAX = 64 * 1024 /* a longer text is not looked through for catalogs */
};

/* --- life --------------------------------------------------------------------------------------------------
 */

struct numbering *numbering_new(struct type_map *map, enum side home)
{
    struct numbering *self = calloc(1, sizeof *self);
    if (self != NULL) {
        self->map = type_map_ref(map);
        self->home = home;
        strbuf_init(&self->replacement, MESSAGE_MAX);
        strbuf_init(&self->changed, MESSAGE_MAX);
        strbuf_init(&self->query, CATALOG_TEXT_MAX);
    }
    return self;
}

static void forget_entries(struct entry **entries)
{
    struct entry *entry = NULL;
    struct entry *next = NULL;
    HASH_ITER(hh, *entries, entry, next)
    {
        HASH_DEL(*entries, entry);
        shape_unref(entry->shape);
        portal_unref(entry->portal);
        free(entry);
    }
}

void numbering_free(struct numbering *self)
{
    if (self == NULL) {
        return;
    }
    while (self->flight_count > 0) {
        numbering_pop(self);
    }
    free(self->flights);
    numbering_forget_portals(self);
    forget_entries(&self->statements);
    shape_unref(self->unnamed_statement);
    items_clear(&self->rows);
    free(self->from_client.bytes);
    free(self->from_server.bytes);
    strbuf_deinit(&self->replacement);
    strbuf_deinit(&self->changed);
    strbuf_deinit(&self->query);
    type_map_unref(self->map);
    free(self);
}

const struct type_map *numbering_map(const struct numbering *self)
{
    return self->map;
}

void numbering_set_map(struct numbering *self, struct type_map *map)
{
    type_map_unref(self->map);
    self->map = type_map_ref(map);
}

struct translation numbering_to_server(const struct numbering *self)
{
    return (struct translation){.map = self->map, .from = self->home, .to = side_other(self->home)};
}

struct translation numbering_to_client(const struct numbering *self)
{
    return (struct translation){.map = self->map, .from = side_other(self->home), .to = self->home};
}

bool numbering_has_failed(const struct numbering *self)
{
    return self->failed;
}

uint32_t numbering_strange(const struct numbering *self)
{
    return self->strange;
}

/* --- statements and portals --------------------------------------------------------------------------------
 */

bool numbering_mentions_types(struct slice text)
{
    static const char *const catalogs[] = {"pg_type", "pg_enum", "pg_range", "regtype"};
    for (size_t i = 0; i < ARRAY_LENGTH(catalogs) && text.length <= CATALOG_TEXT_MAX; i++) {
        if (memmem(text.data, text.length, catalogs[i], strlen(catalogs[i])) != NULL) {
            return true;
        }
    }
    return false;
}

struct shape *shape_new(struct numbering *self, struct slice text)
{
    struct shape *shape = calloc(1, sizeof *shape);
    if (shape == NULL) {
        self->failed = true;
        return NULL;
    }
    shape->references = 1;
    shape->on_types = text.length > 0 && numbering_mentions_types(text);
    return shape;
}

struct shape *shape_ref(struct shape *shape)
{
    if (shape != NULL) {
        shape->references++;
    }
    return shape;
}

void shape_unref(struct shape *shape)
{
    if (shape != NULL && --shape->references == 0) {
        items_clear(&shape->parameters);
        items_clear(&shape->columns);
        free(shape);
    }
}

struct portal *portal_ref(struct portal *portal)
{
    if (portal != NULL) {
        portal->references++;
    }
    return portal;
}

void portal_unref(struct portal *portal)
{
    if (portal != NULL && --portal->references == 0) {
        shape_unref(portal->shape);
        free(portal);
    }
}

static struct entry *find(struct entry *entries, struct slice name)
{
    struct entry *entry = NULL;
    HASH_FIND(hh, entries, name.data, (unsigned)name.length, entry);
    return entry;
}

/* The entry of a name, made if there is none; NULL: out of memory. */
static struct entry *make(struct numbering *self, struct entry **entries, struct slice name)
{
    struct entry *entry = find(*entries, name);
    if (entry != NULL) {
        return entry;
    }
    entry = calloc(1, sizeof *entry + name.length + 1);
    if (entry == NULL) {
        self->failed = true;
        return NULL;
    }
    memcpy(entry->name, name.data, name.length);
    HASH_ADD_KEYPTR(hh, *entries, entry->name, (unsigned)name.length, entry);
    return entry;
}

static void forget(struct entry **entries, struct slice name)
{
    struct entry *entry = find(*entries, name);
    if (entry != NULL) {
        HASH_DEL(*entries, entry);
        shape_unref(entry->shape);
        portal_unref(entry->portal);
        free(entry);
    }
}

void numbering_set_statement(struct numbering *self, struct slice name, struct shape *shape)
{
    if (name.length == 0) {
        shape_unref(self->unnamed_statement);
        self->unnamed_statement = shape_ref(shape);
    } else if (shape == NULL) {
        forget(&self->statements, name);
    } else {
        struct entry *entry = make(self, &self->statements, name);
        if (entry != NULL) {
            shape_unref(entry->shape);
            entry->shape = shape_ref(shape);
        }
    }
}

void numbering_set_portal(struct numbering *self, struct slice name, struct portal *portal)
{
    if (name.length == 0) {
        portal_unref(self->unnamed_portal);
        self->unnamed_portal = portal_ref(portal);
    } else if (portal == NULL) {
        forget(&self->portals, name);
    } else {
        struct entry *entry = make(self, &self->portals, name);
        if (entry != NULL) {
            portal_unref(entry->portal);
            entry->portal = portal_ref(portal);
        }
    }
}

void numbering_forget_portals(struct numbering *self)
{
    forget_entries(&self->portals);
    portal_unref(self->unnamed_portal);
    self->unnamed_portal = NULL;
}

static bool is_named(const struct flight *flight, struct slice name)
{
    return slice_equals(name, flight->name == NULL ? "" : flight->name);
}

struct shape *numbering_statement(struct numbering *self, struct slice name)
{
    if (name.length == 0) {
        return self->unnamed_statement;
    }
    struct entry *entry = find(self->statements, name);
    return entry == NULL ? NULL : entry->shape;
}

struct shape *numbering_expected_statement(struct numbering *self, struct slice name)
{
    for (size_t i = self->flight_count; i > 0; i--) {
        const struct flight *flight = &self->flights[self->flight_head + i - 1];
        if (flight->type == 'P' && is_named(flight, name)) {
            return flight->shape;
        }
    }
    return numbering_statement(self, name);
}

struct portal *numbering_portal(struct numbering *self, struct slice name)
{
    if (name.length == 0) {
        return self->unnamed_portal;
    }
    struct entry *entry = find(self->portals, name);
    return entry == NULL ? NULL : entry->portal;
}

/* --- what is under way -------------------------------------------------------------------------------------
 */

static bool make_room(struct numbering *self)
{
    if (self->flight_head + self->flight_count < self->flight_capacity) {
        return true;
    }
    if (self->flight_head > self->flight_capacity / 2) {
        memmove(self->flights, self->flights + self->flight_head, self->flight_count * sizeof *self->flights);
        self->flight_head = 0;
        return true;
    }
    size_t capacity = self->flight_capacity == 0 ? FLIGHTS_LEAST : 2 * self->flight_capacity;
    struct flight *flights = realloc(self->flights, capacity * sizeof *flights);
    if (flights == NULL) {
        self->failed = true;
        return false;
    }
    self->flights = flights;
    self->flight_capacity = capacity;
    return true;
}

void numbering_release(struct flight *flight)
{
    free(flight->name);
    free(flight->statement);
    shape_unref(flight->shape);
    portal_unref(flight->portal);
}

void numbering_push(struct numbering *self, struct flight *flight)
{
    if (make_room(self)) {
        self->flights[self->flight_head + self->flight_count++] = *flight;
    } else {
        numbering_release(flight);
    }
}

struct flight *numbering_flight(struct numbering *self)
{
    return self->flight_count == 0 ? NULL : &self->flights[self->flight_head];
}

void numbering_pop(struct numbering *self)
{
    numbering_release(&self->flights[self->flight_head]);
    self->flight_head++;
    self->flight_count--;
    items_clear(&self->rows);
    self->rows_resolved = false;
    if (self->flight_count == 0) {
        self->flight_head = 0;
        if (self->flight_capacity > FLIGHTS_KEPT) {
            free(self->flights);
            self->flights = NULL;
            self->flight_capacity = 0;
        }
    }
}

/* --- items -------------------------------------------------------------------------------------------------
 */

void items_add(struct numbering *self, struct items *items, struct item item)
{
    /* grown by powers of two */
    if ((items->count & (items->count - 1)) == 0) {
        size_t capacity = items->count == 0 ? 1 : 2 * (size_t)items->count;
        struct item *list = realloc(items->list, capacity * sizeof *list);
        if (list == NULL) {
            self->failed = true;
            return;
        }
        items->list = list;
    }
    items->list[items->count++] = item;
}

void items_clear(struct items *items)
{
    free(items->list);
    *items = (struct items){.list = NULL};
}

/* --- whole messages ----------------------------------------------------------------------------------------
 */

/* Room grows with what has come, and never beyond the message: a length alone takes no memory. */
static bool make_place(struct gathered *gathered, size_t more, size_t whole)
{
    size_t need = gathered->have + more;
    if (need <= gathered->capacity) {
        return true;
    }
    size_t capacity = 2 * need < whole ? 2 * need : whole;
    uint8_t *bytes = realloc(gathered->bytes, capacity);
    if (bytes == NULL) {
        return false;
    }
    gathered->bytes = bytes;
    gathered->capacity = capacity;
    return true;
}

static bool gather_bytes(struct gathered *gathered, const void *bytes, size_t length, size_t whole)
{
    if (!make_place(gathered, length, whole)) {
        free(gathered->bytes);
        *gathered = (struct gathered){.bytes = NULL};
        return false;
    }
    if (length > 0) {
        memcpy(gathered->bytes + gathered->have, bytes, length);
        gathered->have += length;
    }
    return true;
}

bool gather(struct numbering *self, struct gathered *gathered, const struct frame_piece *piece,
            uint8_t *bytes, struct whole *whole)
{
    size_t size = FRAME_HEADER_SIZE + (size_t)piece->length;
    *whole = (struct whole){.type = piece->type, .body = bytes, .length = piece->length};
    if (piece->first && piece->last) {
        return true;
    }
    bool ok = true;
    if (piece->first) {
        uint8_t header[FRAME_HEADER_SIZE];
        frame_header(header, piece->type, piece->length);
        gathered->have = 0;
        gathered->complete = false;
        ok = gather_bytes(gathered, header, sizeof header, size);
    } else {
        ok = gathered->bytes != NULL; /* else memory ran out on its way */
    }
    if (!ok || !gather_bytes(gathered, bytes, piece->bytes.length, size)) {
        self->failed = true;
        return false;
    }
    whole->body = gathered->bytes + FRAME_HEADER_SIZE;
    gathered->complete = piece->last;
    return piece->last;
}

static void forget_gathered(struct gathered *gathered)
{
    if (gathered->complete) {
        free(gathered->bytes);
        *gathered = (struct gathered){.bytes = NULL};
    }
}

void numbering_done(struct numbering *self)
{
    forget_gathered(&self->from_client);
    forget_gathered(&self->from_server);
    if (self->replacement.capacity > REPLACEMENT_KEPT) {
        strbuf_deinit(&self->replacement);
        strbuf_init(&self->replacement, MESSAGE_MAX);
    }
}

struct strbuf *numbering_changed(struct numbering *self)
{
    return &self->changed;
}

/* --- values ------------------------------------------------------------------------------------------------
 */

static uint32_t length_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void append_length(struct strbuf *out, size_t at, uint32_t length)
{
    uint8_t bytes[4] = {(uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8),
                        (uint8_t)length};
    if (at == out->length) {
        strbuf_append(out, bytes, sizeof bytes);
    } else if (!out->failed) {
        memcpy(out->data + at, bytes, sizeof bytes);
    }
}

static bool shows_as_text(const struct items *items)
{
    for (uint16_t i = 0; i < items->count; i++) {
        if (items->list[i].format == 0 && items->list[i].class != VALUE_BINARY) {
            return true;
        }
    }
    return false;
}

/* One value, with its length before it, to the new message. True: it is another one now. */
static bool append_value(struct translation t, const struct item *item, struct slice counted,
                         struct strbuf *out)
{
    size_t begin = out->length;
    bool is_text = item != NULL && item->format == 0 && item->class != VALUE_BINARY;
    strbuf_append(out, counted.data, 4);
    if (!is_text || !value_translate_text(t, slice_of(counted.data + 4, counted.length - 4), out)) {
        strbuf_append(out, counted.data + 4, counted.length - 4);
        return false;
    }
    append_length(out, begin, (uint32_t)(out->length - begin - 4));
    return true;
}

/* Begins the replacement with what stands before the values. */
static void begin_replacement(struct strbuf *out, const struct whole *whole, size_t at)
{
    uint8_t header[FRAME_HEADER_SIZE];
    strbuf_clear(out);
    frame_header(header, whole->type, whole->length);
    strbuf_append(out, header, sizeof header);
    strbuf_append(out, whole->body, at);
}

/* Items have the server's numbers. */
static uint32_t type_from(const struct numbering *self, struct translation translation, uint32_t type)
{
    return translation.from == self->home ? translate(numbering_to_client(self), type) : type;
}

void numbering_values(struct numbering *self, struct translation translation, const struct whole *whole,
                      size_t at, const struct items *items)
{
    struct strbuf *out = &self->replacement;
    bool as_text = shows_as_text(items);
    bool changed = false;
    const struct item *item = items->list;
    const struct item *end = items->list + items->count;
    strbuf_clear(out);
    if (at + 2 > whole->length) {
        return;
    }
    uint16_t count = (uint16_t)(whole->body[at] << 8 | whole->body[at + 1]);
    at += 2;
    if (as_text) {
        begin_replacement(out, whole, at);
    }
    for (uint16_t i = 0; i < count && at + 4 <= whole->length; i++) {
        uint32_t length = length_at(whole->body + at);
        length = length == UINT32_MAX ? 0 : length;
        if (length > whole->length - at - 4) {
            break; /* whoever gets it will say so */
        }
        while (item < end && item->index < i) {
            item++;
        }
        const struct item *mine = item < end && item->index == i ? item : NULL;
        if (mine != NULL && mine->format == 1) {
            translation.oids = mine->oids;
            value_translate_binary(translation, type_from(self, translation, mine->type),
                                   whole->body + at + 4, length);
        }
        if (as_text) {
            changed = append_value(translation, mine, slice_of(whole->body + at, length + 4), out) || changed;
        }
        at += length + 4;
    }
    if (!changed) {
        strbuf_clear(out);
        return;
    }
    strbuf_append(out, whole->body + at, whole->length - at);
    append_length(out, 1, (uint32_t)(out->length - 1));
    self->failed = self->failed || out->failed;
}

void numbering_prepared(struct numbering *self, const char *name, const char *text)
{
    struct shape *shape = shape_new(self, slice_text(text));
    numbering_set_statement(self, slice_text(name), shape);
    shape_unref(shape);
}
