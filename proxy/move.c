#include "proxy/move_internal.h"

#include "conf/base/ensure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct move *move_new(bool replication)
{
    struct move *move = calloc(1, sizeof *move);
    if (move == NULL) {
        return NULL;
    }
    move->replication = replication;
    strbuf_init(&move->names, (size_t)MOVE_NAMES_MAX * SCAN_NAME_SIZE);
    strbuf_init(&move->parameters, MOVE_PARAMETERS_MAX);
    strbuf_init(&move->told, MOVE_PARAMETERS_MAX);
    strbuf_init(&move->target_parameters, MOVE_PARAMETERS_MAX);
    strbuf_init(&move->reasons, MOVE_REASONS_MAX);
    strbuf_init(&move->asking_reasons, MOVE_REASONS_MAX);
    strbuf_init(&move->holds, MOVE_HOLDS_MAX);
    strbuf_init(&move->bind, MOVE_BIND_MAX);
    strbuf_init(&move->body, MOVE_BODY_MAX);
    return move;
}

void move_free(struct move *move)
{
    if (move == NULL) {
        return;
    }
    move_reset_target(move);
    move_forget_unnamed(&move->unnamed);
    for (size_t i = 0; i < MOVE_UNNAMED_PENDING; i++) {
        move_forget_unnamed(&move->pending[i]);
    }
    late_free(&move->late);
    snapshot_unref(move->own);
    snapshot_unref(move->asking.snapshot);
    strbuf_deinit(&move->names);
    strbuf_deinit(&move->parameters);
    strbuf_deinit(&move->told);
    strbuf_deinit(&move->target_parameters);
    strbuf_deinit(&move->reasons);
    strbuf_deinit(&move->asking_reasons);
    strbuf_deinit(&move->holds);
    strbuf_deinit(&move->bind);
    strbuf_deinit(&move->body);
    free(move);
}

/* --- ParameterStatus ---------------------------------------------------------------------------------------
 */

/* The value of a name, and where the pair begins and ends; NULL if there is none. */
static const char *find_parameter(const struct strbuf *parameters, struct slice name, size_t *begin,
                                  size_t *end)
{
    for (size_t at = 0; at < parameters->length;) {
        const char *found = parameters->data + at;
        const char *value = found + strlen(found) + 1;
        size_t next = (size_t)(value - parameters->data) + strlen(value) + 1;
        if (slice_equals(name, found)) {
            *begin = at;
            *end = next;
            return value;
        }
        at = next;
    }
    return NULL;
}

bool move_parameter_set(struct strbuf *parameters, struct slice name, struct slice value)
{
    size_t begin = 0;
    size_t end = 0;
    if (find_parameter(parameters, name, &begin, &end) != NULL) {
        memmove(parameters->data + begin, parameters->data + end, parameters->length - end);
        parameters->length -= end - begin;
    }
    strbuf_append(parameters, name.data, name.length);
    strbuf_append(parameters, "", 1);
    strbuf_append(parameters, value.data, value.length);
    strbuf_append(parameters, "", 1);
    return !parameters->failed;
}

const char *move_parameter_get(const struct strbuf *parameters, const char *name)
{
    size_t begin = 0;
    size_t end = 0;
    return find_parameter(parameters, slice_text(name), &begin, &end);
}

void move_parameter(struct move *move, struct slice name, struct slice value)
{
    (void)move_parameter_set(&move->parameters, name, value);
    if (move->told.length > 0) {
        (void)move_parameter_set(&move->told, name, value);
    }
}

void move_target_parameter(struct move *move, struct slice name, struct slice value)
{
    (void)move_parameter_set(&move->target_parameters, name, value);
}

/* --- the move's end ----------------------------------------------------------------------------------------
 */

static bool has_unnamed(const struct move *move)
{
    return move->target_unnamed == move->unnamed.id;
}

/* The target has all that travels. */
static bool is_carried(const struct move *move)
{
    return move->target != NULL && move->target == move->own && move->dirt == 0 && has_unnamed(move) &&
           move_is_movable(move, NULL, 0);
}

bool move_is_ready(const struct move *move)
{
    return is_carried(move) && move->scouted;
}

bool move_lacks_scout(const struct move *move)
{
    return is_carried(move) && !move->scouted;
}

void move_forget_state(struct move *move)
{
    if (move->own != NULL) {
        move->dirt |= MOVE_DIRT_USED | MOVE_DIRT_SETTINGS;
        snapshot_unref(move->own);
        move->own = NULL;
    }
}

static void append_status(struct strbuf *out, const char *name, const char *value)
{
    uint8_t header[FRAME_HEADER_SIZE];
    size_t name_size = strlen(name) + 1;
    size_t value_size = strlen(value) + 1;
    frame_header(header, 'S', (uint32_t)(name_size + value_size));
    strbuf_append(out, header, sizeof header);
    strbuf_append(out, name, name_size);
    strbuf_append(out, value, value_size);
}

/* What the client must still be told is appended, or only found out without `out`. */
static bool differs(const struct strbuf *told, const struct strbuf *parameters, struct strbuf *out)
{
    bool any = false;
    for (size_t at = 0; at < parameters->length;) {
        const char *name = parameters->data + at;
        const char *value = name + strlen(name) + 1;
        const char *known = move_parameter_get(told, name);
        if (known == NULL || strcmp(known, value) != 0) {
            any = true;
            if (out != NULL) {
                append_status(out, name, value);
            }
        }
        at = (size_t)(value - parameters->data) + strlen(value) + 1;
    }
    return any;
}

static void forget_told(struct move *move)
{
    strbuf_deinit(&move->told);
    strbuf_init(&move->told, MOVE_PARAMETERS_MAX);
}

bool move_swapped(struct move *move)
{
    ENSURE(move->target != NULL);
    struct strbuf old = move->parameters;
    move->parameters = move->target_parameters;
    strbuf_init(&move->target_parameters, MOVE_PARAMETERS_MAX);
    if (move->told.length == 0) {
        move->told = old;
    } else {
        strbuf_deinit(&old); /* it was never told of those */
    }
    bool untold = differs(&move->told, &move->parameters, NULL);
    if (!untold) {
        forget_told(move);
    }
    move->unnamed.number = 0; /* its new server counts anew */
    move->kill = false;
    late_free(&move->late);
    move->late = move->target_late;
    move->target_late = NULL;
    move_reset_target(move);
    return untold;
}

bool move_tell(struct move *move, struct strbuf *to_client)
{
    (void)differs(&move->told, &move->parameters, to_client);
    forget_told(move);
    return !to_client->failed;
}

void move_lose_target(struct move *move)
{
    move_replay_forget(move);
    snapshot_unref(move->target);
    move->target = NULL;
    move->target_unnamed = 0;
    late_free(&move->target_late);
    free(move->refused);
    move->refused = NULL;
    move->late_count = 0;
    move->target_unclean = false;
    strbuf_deinit(&move->target_parameters);
    strbuf_init(&move->target_parameters, MOVE_PARAMETERS_MAX);
    strbuf_deinit(&move->body);
    strbuf_init(&move->body, MOVE_BODY_MAX);
    move->attempts = 0;
    move->cleaning = false;
    move->failure[0] = '\0';
}

void move_reset_target(struct move *move)
{
    move_lose_target(move);
    move_forget_state(move);
}

/* --- what it says ------------------------------------------------------------------------------------------
 */

void move_fail(struct move *move, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(move->failure, sizeof move->failure, format, arguments);
    va_end(arguments);
    for (char *c = move->failure; *c != '\0'; c++) {
        *c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
    }
}

const char *move_reported(const struct move *move, const char *name)
{
    return move_parameter_get(&move->parameters, name);
}

const char *move_failure(const struct move *move)
{
    return move->failure;
}

void move_knows_type(struct move *move, uint32_t oid)
{
    move->known_type = oid;
}

bool move_is_dirty(const struct move *move)
{
    return move->dirt != 0;
}

static const struct {
    uint32_t flag;
    const char *reason;
} suspicions[] = {
    {SCAN_TEMPORARY, "may have temporary objects"},
    {SCAN_ADVISORY, "may hold advisory locks"},
    {SCAN_PREPARE, "may have statements prepared by SQL among others"},
    {SCAN_HOLD, "may have cursors WITH HOLD"},
};

static bool is_movable(const struct move *move)
{
    const uint32_t suspicious = SCAN_TEMPORARY | SCAN_ADVISORY | SCAN_PREPARE | SCAN_HOLD;
    return !move->replication && move->reasons.length == 0 && move->known_type == 0 &&
           move->used_function == 0 && !move->computed_name && move->name_count <= MOVE_NAMES_MAX &&
           !move->unnamed_lost && move->failure[0] == '\0' && (move->hints & suspicious) == 0;
}

bool move_is_movable(const struct move *move, char *text, size_t size)
{
    struct strbuf reasons;
    if (size > 0) {
        text[0] = '\0';
    }
    if (size == 0 || is_movable(move)) {
        return is_movable(move);
    }
    strbuf_init(&reasons, MOVE_REASONS_MAX);
    if (move->replication) {
        interrogate_reason(&reasons, "replication connection");
    }
    if (move->reasons.length > 0) {
        strbuf_append(&reasons, move->reasons.data, move->reasons.length);
    }
    if (move->known_type != 0) {
        interrogate_reason(&reasons, "knows type %u, which the other side lacks or numbers otherwise",
                           move->known_type);
    }
    if (move->used_function != 0) {
        interrogate_reason(&reasons, "called function %u by its oid", move->used_function);
    }
    if (move->computed_name) {
        interrogate_reason(&reasons, "set_config() of a name that is computed");
    }
    if (move->name_count > MOVE_NAMES_MAX) {
        interrogate_reason(&reasons, "more than %d custom settings", MOVE_NAMES_MAX);
    }
    if (move->unnamed_lost) {
        interrogate_reason(&reasons, "its unnamed statement is too long to be kept");
    }
    if (move->failure[0] != '\0') {
        interrogate_reason(&reasons, "%s", move->failure);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(suspicions); i++) {
        if ((move->hints & suspicions[i].flag) != 0) {
            interrogate_reason(&reasons, "%s", suspicions[i].reason);
        }
    }
    (void)snprintf(text, size, "%s", strbuf_text(&reasons));
    strbuf_deinit(&reasons);
    return false;
}

bool move_body(struct move *move, const struct frame_piece *piece, struct slice *body)
{
    if (piece->first && piece->last) {
        *body = piece->bytes;
        return true;
    }
    if (piece->first) {
        strbuf_clear(&move->body);
    }
    strbuf_append(&move->body, piece->bytes.data, piece->bytes.length);
    if (move->body.failed) {
        move->broken = true;
        return false;
    }
    *body = slice_of(move->body.data, move->body.length);
    return piece->last;
}
