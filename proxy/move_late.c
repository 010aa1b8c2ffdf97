#include "proxy/move_late.h"

#include "proxy/move_internal.h"
#include "proxy/wire/build.h"
#include "proxy/wire/decode.h"

#include <inttypes.h>
#include <stdlib.h>

enum { LATE_OID_SIZE = 11 }; /* digits and a comma */

/* --- the list --- */

static void build_message(struct build *build, const char *name, const char *text, const char *types,
                          struct translation to_client)
{
    uint32_t oids[MOVE_LATE_TYPES_MAX];
    uint16_t count = 0;
    for (const char *c = types + strcspn(types, "0123456789"); *c != '\0' && count < MOVE_LATE_TYPES_MAX;
         c += strcspn(c, "0123456789")) {
        char *end = NULL;
        oids[count++] = translate(to_client, (uint32_t)strtoul(c, &end, 10));
        c = end;
    }
    build_parse(build, slice_text(name), slice_text(text), oids, count);
}

bool late_add(struct move_late **list, const char *name, const char *text, const char *types,
              struct translation to_client)
{
    size_t name_size = strlen(name) + 1;
    size_t text_size = strlen(text) + 1;
    size_t types_size = strlen(types) + 1;
    struct build build;
    build_init(&build, NULL, 0);
    build_message(&build, name, text, types, to_client);
    struct move_late *late = calloc(1, sizeof *late + name_size + text_size + types_size + build.length);
    if (late == NULL) {
        return false;
    }
    char *at = memcpy(late->name, name, name_size);
    late->text = memcpy(at += name_size, text, text_size);
    late->types = memcpy(at += text_size, types, types_size);
    late->message = (uint8_t *)at + types_size;
    late->message_length = (uint32_t)build.length;
    build_init(&build, late->message, build.length);
    build_message(&build, name, text, types, to_client);
    late->next = *list;
    *list = late;
    return true;
}

struct move_late *late_find(struct move_late *list, struct slice name)
{
    while (list != NULL && !slice_equals(name, list->name)) {
        list = list->next;
    }
    return list;
}

void late_remove(struct move_late **list, const struct move_late *late)
{
    for (; *list != NULL; list = &(*list)->next) {
        if (*list == late) {
            struct move_late *gone = *list;
            *list = gone->next;
            free(gone);
            return;
        }
    }
}

void late_free(struct move_late **list)
{
    while (*list != NULL) {
        late_remove(list, *list);
    }
}

/* --- the relay --- */

bool move_has_late(const struct move *move)
{
    return move->late != NULL;
}

/* A text that ends in the range; takes it off. */
static bool take_text(struct slice *rest, struct slice *text)
{
    const uint8_t *end = rest->length > 0 ? memchr(rest->data, 0, rest->length) : NULL;
    if (end == NULL) {
        return false;
    }
    *text = slice_of(rest->data, (size_t)(end - rest->data));
    *rest = slice_of(end + 1, rest->length - text->length - 1);
    return true;
}

/* The statement that a message is about. */
static bool names_statement(const struct frame_piece *piece, struct slice *name)
{
    struct slice rest = piece->bytes;
    struct slice portal;
    switch (piece->type) {
    case 'B':
        return take_text(&rest, &portal) && take_text(&rest, name);
    case 'C':
    case 'D':
        if (rest.length == 0 || rest.data[0] != 'S') {
            return false;
        }
        rest = slice_of(rest.data + 1, rest.length - 1);
        return take_text(&rest, name);
    case 'P':
        return take_text(&rest, name);
    default:
        return false;
    }
}

enum move_late_verdict move_late_wanted(const struct move *move, const struct frame_piece *piece,
                                        struct slice *message)
{
    struct slice name;
    const struct move_late *late = names_statement(piece, &name) ? late_find(move->late, name) : NULL;
    if (late == NULL || late->closing || late->replacing != 0) {
        return LATE_NONE;
    }
    if (late->number != 0) {
        return late->synced ? LATE_WAIT : LATE_NONE;
    }
    if (piece->type != 'B' && piece->type != 'D') {
        return LATE_NONE;
    }
    *message = slice_of(late->message, late->message_length);
    return LATE_PARSE;
}

void move_late_sent(struct move *move, struct slice message, uint64_t number)
{
    for (struct move_late *late = move->late; late != NULL; late = late->next) {
        if (late->message == message.data) {
            late->number = number;
            late->synced = false;
        }
    }
}

bool move_late_parsed(struct move *move, uint64_t parse)
{
    for (struct move_late *late = move->late; late != NULL; late = late->next) {
        if (late->number == parse + 1) {
            late_remove(&move->late, late);
            return true;
        }
    }
    return false;
}

void move_late_numbers(struct move *move, struct translation to_server)
{
    move->late_to_server = to_server;
}

/* --- traffic --- */

void move_late_client(struct move *move, const struct frame_piece *piece, uint64_t parses_sent)
{
    struct slice name;
    if (piece->type == 'S' || piece->type == 'Q') {
        for (struct move_late *late = move->late; late != NULL; late = late->next) {
            late->synced = true;
        }
    }
    if (piece->first && (piece->type == 'C' || piece->type == 'P') && names_statement(piece, &name)) {
        struct move_late *late = late_find(move->late, name);
        if (late != NULL && late->number == 0) { /* else the server has it, or skips this as well */
            late->closing = late->closing || piece->type == 'C';
            late->replacing = piece->type == 'P' ? parses_sent : late->replacing;
        }
    }
}

void move_late_replaced(struct move *move, uint64_t number)
{
    struct move_late *next = NULL;
    for (struct move_late *late = move->late; late != NULL; late = next) {
        next = late->next;
        if (late->replacing == number) {
            late_remove(&move->late, late);
        }
    }
}

/* What failed may have been skipped; then it stays: its use tells the rest. */
void move_late_ready(struct move *move, bool failed)
{
    struct move_late *next = NULL;
    for (struct move_late *late = move->late; late != NULL; late = next) {
        next = late->next;
        if (late->closing && !failed) {
            late_remove(&move->late, late);
        } else {
            late->closing = false;
        }
    }
}

void move_late_forget_all(struct move *move)
{
    struct move_late *next = NULL;
    for (struct move_late *late = move->late; late != NULL; late = next) {
        next = late->next;
        if (late->number == 0) { /* what is on its way is still to be answered */
            late_remove(&move->late, late);
        }
    }
}

void move_late_failed(struct move *move, uint64_t last)
{
    for (struct move_late *late = move->late; late != NULL; late = late->next) {
        late->number = late->number <= last ? 0 : late->number;
        late->replacing = late->replacing <= last ? 0 : late->replacing;
    }
}

/* --- the move --- */

/* The types of one, as its server would give them. */
static void print_types(const struct move_late *late, struct translation to_server, struct strbuf *types)
{
    struct decode_parse parse;
    struct slice body = slice_of(late->message + FRAME_HEADER_SIZE, late->message_length - FRAME_HEADER_SIZE);
    strbuf_puts(types, "{");
    if (decode_parse(body, &parse)) {
        for (uint16_t i = 0; i < parse.type_count; i++) {
            strbuf_printf(types, "%s%" PRIu32, i > 0 ? "," : "",
                          translate(to_server, decode_oid(parse.types, i)));
        }
    }
    strbuf_puts(types, "}");
}

bool move_late_list(const struct move *move, struct snapshot *snapshot)
{
    for (const struct move_late *late = move->late; late != NULL; late = late->next) {
        struct strbuf types;
        strbuf_init(&types, (size_t)MOVE_LATE_TYPES_MAX * LATE_OID_SIZE);
        print_types(late, move->late_to_server, &types);
        bool added = !types.failed && snapshot_add(snapshot, SNAPSHOT_STATEMENT, slice_text(late->name),
                                                   slice_text(late->text), slice_text(strbuf_text(&types)));
        strbuf_deinit(&types);
        if (!added) {
            return false;
        }
    }
    return true;
}

static bool is_in(const struct snapshot *snapshot, const struct move_late *late)
{
    for (size_t i = 0; i < snapshot->count; i++) {
        const struct snapshot_item *item = &snapshot->items[i];
        if (item->kind == SNAPSHOT_STATEMENT && strcmp(snapshot_name(snapshot, item), late->name) == 0) {
            return strcmp(snapshot_value(snapshot, item), late->text) == 0 &&
                   strcmp(snapshot_extra(snapshot, item), late->types) == 0;
        }
    }
    return false;
}

void move_late_refresh(struct move *move)
{
    struct move_late *next = NULL;
    for (struct move_late *late = move->target_late; late != NULL; late = next) {
        next = late->next;
        if (!is_in(move->own, late)) {
            late_remove(&move->target_late, late);
        }
    }
}
