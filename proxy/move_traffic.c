/* What a session's traffic says about its state. It runs for every message: it looks at few, copies fewer. */
#include "proxy/move_internal.h"

#include "proxy/wire/decode.h"
#include "proxy/wire/glance.h"

#include <stdlib.h>

enum { FIRST_USER_OID = 16384 }; /* PostgreSQL's FirstNormalObjectId */

enum parse_field { PARSE_NAME, PARSE_TEXT, PARSE_TYPES };

/* --- names of settings -------------------------------------------------------------------------------------
 */

void move_learn_name(struct move *move, const char *name)
{
    size_t length = strlen(name);
    const char *at = move->name_count == 0 ? NULL : strbuf_text(&move->names);
    while (at != NULL && (at = strstr(at, name)) != NULL) {
        if (at[length] == ' ' && (at == move->names.data || at[-1] == ' ')) {
            return;
        }
        at += length;
    }
    if (move->name_count >= MOVE_NAMES_MAX) {
        move->name_count = MOVE_NAMES_MAX + 1;
        return;
    }
    strbuf_append(&move->names, name, length);
    strbuf_append(&move->names, " ", 1);
    move->name_count++;
}

static void found_name(void *context, const char *name)
{
    move_learn_name(context, name);
}

static void text_begins(struct move *move)
{
    scan_begin(&move->scan, found_name, move);
}

static uint32_t text_ends(struct move *move)
{
    uint32_t flags = scan_end(&move->scan);
    if (flags != 0) {
        move->hints |= flags;
        move->watch_binds = move->watch_binds || (flags & SCAN_PARAMETER) != 0;
        move->computed_name = move->computed_name || (flags & SCAN_COMPUTED) != 0;
        move->always_settings = move->always_settings || (flags & (SCAN_PARAMETER | SCAN_COMPUTED)) != 0;
        if ((flags & (SCAN_SYNC | SCAN_UNSYNC | SCAN_UNSYNC_LOCAL)) != 0) {
            move->unsync = (flags & SCAN_UNSYNC) != 0 || (move->unsync && (flags & SCAN_SYNC) == 0);
            move->unsync_here = (flags & SCAN_UNSYNC_LOCAL) != 0;
        }
    }
    return flags;
}

/* --- the unnamed statement ---------------------------------------------------------------------------------
 */

void move_forget_unnamed(struct move_unnamed *unnamed)
{
    free(unnamed->body);
    *unnamed = (struct move_unnamed){.body = NULL};
}

static void drop_pending(struct move *move, size_t index)
{
    move_forget_unnamed(&move->pending[index]);
    if (index + 1U == move->pending_count) {
        move->collecting = false;
    }
    memmove(&move->pending[index], &move->pending[index + 1],
            (move->pending_count - index - 1) * sizeof move->pending[0]);
    move->pending_count--;
    move->pending[move->pending_count] = (struct move_unnamed){.body = NULL};
}

static void unnamed_begins(struct move *move, const struct frame_piece *piece,
                           const struct boundary *boundary)
{
    move->collecting = false;
    if (!boundary->parse_counted) {
        return; /* the server skips it */
    }
    if (move->pending_count == MOVE_UNNAMED_PENDING) {
        drop_pending(move, 0);
        move->unnamed_lost = true;
    }
    uint8_t *body = piece->length <= MOVE_UNNAMED_MAX ? malloc(piece->length) : NULL;
    if (body == NULL) {
        move->unnamed_lost = true;
        return;
    }
    move->pending[move->pending_count++] =
        (struct move_unnamed){.id = ++move->last_id, .number = boundary->parses_sent, .body = body};
    move->collecting = true;
}

static void unnamed_goes_on(struct move *move, const struct frame_piece *piece)
{
    if (!move->collecting) {
        return;
    }
    struct move_unnamed *unnamed = &move->pending[move->pending_count - 1];
    if (piece->bytes.length > 0) {
        memcpy(unnamed->body + unnamed->length, piece->bytes.data, piece->bytes.length);
        unnamed->length += (uint32_t)piece->bytes.length;
    }
    move->collecting = !piece->last;
}

/* The Parse that was sent as the one with this number is answered. */
static void unnamed_answered(struct move *move, uint64_t number)
{
    while (move->pending_count > 0 && move->pending[0].number < number) {
        drop_pending(move, 0);
    }
    if (move->pending_count > 0 && move->pending[0].number == number) {
        move_forget_unnamed(&move->unnamed);
        move->unnamed = move->pending[0];
        move->pending[0].body = NULL;
        drop_pending(move, 0);
        move->unnamed_lost = false;
    }
}

/* Those up to this number came to nothing. */
static void unnamed_failed(struct move *move, uint64_t last)
{
    while (move->pending_count > 0 && move->pending[0].number <= last) {
        drop_pending(move, 0);
    }
}

/* A simple Query and a Close end the unnamed statement, unless they were skipped after an error. */
static void unnamed_dies(struct move *move, const struct boundary *boundary)
{
    move->kill = true;
    move->kill_to = boundary->parses_sent;
}

static void unnamed_killed(struct move *move, bool failed)
{
    if (move->kill && !failed) {
        if (move->unnamed.body != NULL && move->unnamed.number <= move->kill_to) {
            move_forget_unnamed(&move->unnamed);
        }
        move->unnamed_lost = false;
    }
    move->kill = false;
}

/* --- from the client ---------------------------------------------------------------------------------------
 */

static void client_query(struct move *move, const struct frame_piece *piece, const struct boundary *boundary)
{
    if (piece->first) {
        unnamed_dies(move, boundary);
        if (piece->last && glance_is_dull(piece->bytes)) {
            return;
        }
        text_begins(move);
    }
    scan_text(&move->scan, piece->bytes);
    if (piece->last && (text_ends(move) & SCAN_ENDS) != 0) {
        move->may_end = true;
    }
}

/* The statement's text is among what a Parse says. */
static void scan_parse(struct move *move, struct slice rest)
{
    while (rest.length > 0 && move->parse_field != PARSE_TYPES) {
        const uint8_t *end = memchr(rest.data, 0, rest.length);
        size_t length = end == NULL ? rest.length : (size_t)(end - rest.data);
        if (move->parse_field == PARSE_TEXT) {
            scan_text(&move->scan, slice_of(rest.data, length));
        }
        move->parse_field = (uint8_t)(move->parse_field + (end == NULL ? 0 : 1));
        length += end == NULL ? 0 : 1;
        rest = slice_of(rest.data + length, rest.length - length);
    }
}

/* Its name is looked at with it: that may look like a word, but hides none. */
static bool is_dull_parse(struct slice body)
{
    const uint8_t *name_end = body.length == 0 ? NULL : memchr(body.data, 0, body.length);
    size_t name = name_end == NULL ? body.length : (size_t)(name_end - body.data) + 1;
    const uint8_t *end = name == body.length ? NULL : memchr(body.data + name, 0, body.length - name);
    return end != NULL && glance_is_dull(slice_of(body.data, (size_t)(end - body.data) + 1));
}

static void client_parse(struct move *move, const struct frame_piece *piece, const struct boundary *boundary)
{
    const bool dull = piece->first && piece->last && is_dull_parse(piece->bytes);
    if (piece->first) {
        move->parse_field = PARSE_NAME;
        move->parse_unnamed = false;
    }
    if (piece->first && !dull) {
        text_begins(move);
    }
    if (piece->offset == 0 && piece->bytes.length > 0 && piece->bytes.data[0] == 0) {
        move->parse_unnamed = true;
        unnamed_begins(move, piece, boundary);
    }
    if (!dull) {
        scan_parse(move, piece->bytes);
    }
    if (move->parse_unnamed) {
        unnamed_goes_on(move, piece);
    }
    if (piece->last) {
        uint32_t flags = dull ? 0 : text_ends(move);
        bool sets = (flags & SCAN_SET) != 0;
        bool ends = (flags & SCAN_ENDS) != 0;
        if (move->parse_unnamed) {
            move->unnamed_sets = sets;
            move->unnamed_ends = ends;
        } else {
            move->named_sets = move->named_sets || sets;
            move->named_ends = move->named_ends || ends;
        }
    }
}

/* Values that look like names of settings, among what is bound to statements after a set_config($n). */
static void client_bind(struct move *move, const struct frame_piece *piece)
{
    struct slice body = piece->bytes;
    if (!piece->first || !piece->last) {
        if (piece->first) {
            strbuf_clear(&move->bind);
        }
        strbuf_append(&move->bind, piece->bytes.data, piece->bytes.length);
        if (!piece->last) {
            return;
        }
        if (move->bind.failed) {
            move->computed_name = true; /* too long to be looked at */
            return;
        }
        body = slice_of(strbuf_text(&move->bind), move->bind.length);
    }
    struct decode_bind bind;
    if (!decode_bind(body, &bind)) {
        return;
    }
    for (uint16_t i = 0; i < bind.parameter_count; i++) {
        struct slice value;
        bool is_null = false;
        char name[SCAN_NAME_SIZE];
        if (!decode_column_next(&bind.parameters, &value, &is_null)) {
            return;
        }
        if (!is_null && scan_is_custom_name(value, name)) {
            move_learn_name(move, name);
        }
    }
}

static void client_close(struct move *move, const struct frame_piece *piece, const struct boundary *boundary)
{
    struct slice body;
    char kind = 0;
    struct slice name;
    if (frame_capture(&move->capture, piece, &body) && decode_target(body, &kind, &name) && kind == 'S' &&
        name.length == 0) {
        unnamed_dies(move, boundary);
    }
}

static void client_function(struct move *move, const struct frame_piece *piece)
{
    struct slice body;
    if (frame_capture(&move->capture, piece, &body) && body.length >= 4) {
        uint32_t oid = decode_oid(body, 0);
        move->used_function = oid >= FIRST_USER_OID ? oid : move->used_function;
    }
}

void move_client(struct move *move, const struct frame_piece *piece, const struct boundary *boundary)
{
    if (move->late != NULL) {
        move_late_client(move, piece, boundary->parse_counted ? boundary->parses_sent : 0);
    }
    switch (piece->type) {
    case 'Q':
        client_query(move, piece, boundary);
        break;
    case 'P':
        client_parse(move, piece, boundary);
        break;
    case 'B':
        if (move->unnamed_ends && piece->first && piece->bytes.length > 0 && piece->bytes.data[0] != 0) {
            move->named_ends = true; /* its portal may run when there is another unnamed statement */
        }
        if (move->watch_binds) {
            client_bind(move, piece);
        }
        break;
    case 'C':
        client_close(move, piece, boundary);
        break;
    case 'F':
        client_function(move, piece);
        break;
    case 'E':
        move->may_end = move->may_end || move->named_ends || move->unnamed_ends;
        break;
    default: /* Describe, Sync, Flush, copy data and Terminate change nothing */
        return;
    }
    move->dirt |= MOVE_DIRT_USED;
}

bool move_may_end(const struct move *move)
{
    return move->may_end;
}

bool move_is_unsync(const struct move *move)
{
    return move->unsync || move->unsync_here;
}

void move_settled(struct move *move, bool in_transaction)
{
    move->may_end = false;
    move->unsync_here = move->unsync_here && in_transaction;
}

/* --- from the server ---------------------------------------------------------------------------------------
 */

static bool tag_is(struct slice tag, const char *word)
{
    size_t length = strlen(word);
    return tag.length >= length && memcmp(tag.data, word, length) == 0 &&
           (tag.length == length || tag.data[length] == ' ' || tag.data[length] == 0);
}

static void server_complete(struct move *move, struct slice tag)
{
    if (tag_is(tag, "SET") || tag_is(tag, "RESET")) {
        bool lasts = move->named_sets || move->unnamed_sets || (move->hints & SCAN_SET) != 0;
        move->dirt |= lasts ? MOVE_DIRT_SETTINGS : 0; /* else it was SET LOCAL or the like */
    } else if (tag_is(tag, "DO") || tag_is(tag, "CALL")) {
        move->dirt |= MOVE_DIRT_SETTINGS;
    } else if (tag_is(tag, "DISCARD ALL")) {
        move->dirt |= MOVE_DIRT_SETTINGS;
        move->hints = 0;
        move->unsync = false;
        strbuf_clear(&move->reasons);
        move_forget_unnamed(&move->unnamed);
        move->unnamed_lost = false;
        move_late_forget_all(move);
    } else if (tag_is(tag, "DEALLOCATE ALL")) {
        move_late_forget_all(move);
    }
}

/* Unasked, it is a reload of that server's configuration: nothing that the session has to take along. */
static void server_status(struct move *move, const struct boundary_step *step)
{
    struct slice name;
    struct slice value;
    if (decode_parameter_status(step->body, &name, &value)) {
        move_parameter(move, name, value);
        move->dirt |= step->unasked ? 0 : MOVE_DIRT_SETTINGS;
    }
}

void move_server(struct move *move, const struct boundary_step *step)
{
    switch (step->kind) {
    case BOUNDARY_PARSED:
        unnamed_answered(move, step->parse + 1);
        move_late_replaced(move, step->parse + 1);
        break;
    case BOUNDARY_ERROR:
        unnamed_failed(move, step->parse_end);
        move_late_failed(move, step->parse_end);
        break;
    case BOUNDARY_COMPLETE:
        server_complete(move, step->body);
        break;
    case BOUNDARY_STATUS:
        server_status(move, step);
        break;
    case BOUNDARY_READY:
        unnamed_killed(move, step->failed);
        move_late_ready(move, step->failed);
        break;
    default:
        break;
    }
}
