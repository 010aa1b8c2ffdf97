#include "control/flip/journal.h"

#include "conf/base/ensure.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[JOURNAL_KIND_COUNT] = {
#define X(name, text) [name] = (text),
    JOURNAL_KIND_MAP(X)
#undef X
};

static const char *const outcome_names[FLIP_OUTCOME_COUNT] = {
#define X(name, text) [name] = (text),
    FLIP_OUTCOME_MAP(X)
#undef X
};

const char *journal_kind_name(enum journal_kind kind)
{
    ENSURE(kind >= 0 && kind < JOURNAL_KIND_COUNT);
    return kind_names[kind];
}

const char *flip_outcome_name(enum flip_outcome outcome)
{
    ENSURE(outcome >= 0 && outcome < FLIP_OUTCOME_COUNT);
    return outcome_names[outcome];
}

/* --- text ---------------------------------------------------------------------------------------------- */

struct line {
    char *start, *at, *end;
};

static void put_text(struct line *line, const char *key, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    /* A value takes at most three bytes a character; lines are sized for the worst case (see the assert). */
    line->at +=
        snprintf(line->at, (size_t)(line->end - line->at), "%s%s=", line->at == line->start ? "" : " ", key);
    for (const char *c = text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        ENSURE(line->end - line->at > 4);
        if (byte <= ' ' || byte == '%' || byte == 0x7f) {
            *line->at++ = '%';
            *line->at++ = hex[byte >> 4];
            *line->at++ = hex[byte & 15];
        } else {
            *line->at++ = *c;
        }
    }
    *line->at = '\0';
}

static void put_number(struct line *line, const char *key, uint64_t value)
{
    char text[24];
    if (value != 0) {
        (void)snprintf(text, sizeof text, "%" PRIu64, value);
        put_text(line, key, text);
    }
}

void journal_encode(const struct journal_row *row, char line[JOURNAL_LINE_SIZE])
{
    _Static_assert(JOURNAL_LINE_SIZE >= 3 * (JOURNAL_KEY_SIZE + JOURNAL_TEXT_SIZE) + 512, "line too short");
    struct line out = {.start = line, .at = line, .end = line + JOURNAL_LINE_SIZE};
    put_text(&out, "kind", journal_kind_name(row->kind));
    put_number(&out, "flip", row->flip);
    if (row->kind == JOURNAL_BEGIN) {
        put_text(&out, "flip_kind", flip_kind_name(row->flip_kind));
    }
    if (row->phase != FLIP_PHASE_NONE) {
        put_text(&out, "phase", flip_phase_name(row->phase));
    }
    put_text(&out, "side", side_name(row->side));
    put_number(&out, "epoch", row->epoch);
    put_number(&out, "automatic", row->automatic ? 1 : 0);
    put_number(&out, "of", row->of);
    if (row->outcome != FLIP_OUTCOME_NONE) {
        put_text(&out, "outcome", flip_outcome_name(row->outcome));
    }
    if (row->code != ERROR_NONE) {
        put_text(&out, "code", error_code_text(row->code));
    }
    put_number(&out, "elapsed_us", (uint64_t)row->elapsed_us);
    put_number(&out, "stall_p50_us", (uint64_t)row->stall_p50_us);
    put_number(&out, "stall_p99_us", (uint64_t)row->stall_p99_us);
    put_number(&out, "stall_max_us", (uint64_t)row->stall_max_us);
    put_number(&out, "moved", row->moved);
    put_number(&out, "disconnected", row->disconnected);
    if (row->key[0] != '\0') {
        put_text(&out, "key", row->key);
    }
    if (row->text[0] != '\0') {
        put_text(&out, "text", row->text);
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes the next `key=value` of the line; false at its end or on malformed text, which *bad tells apart. */
static bool take_pair(const char **at, char key[32], char value[JOURNAL_TEXT_SIZE], bool *bad)
{
    const char *c = *at;
    size_t n = 0;
    while (*c == ' ') {
        c++;
    }
    if (*c == '\0') {
        return false;
    }
    for (*bad = true; *c != '='; c++) {
        if (*c == '\0' || *c == ' ' || n == 31) {
            return false;
        }
        key[n++] = *c;
    }
    key[n] = '\0';
    n = 0;
    for (c++; *c != '\0' && *c != ' '; c++) {
        char byte = *c;
        if (byte == '%') {
            int high = hex_digit(c[1]);
            int low = high < 0 ? -1 : hex_digit(c[2]);
            if (low < 0) {
                return false;
            }
            byte = (char)(high * 16 + low);
            c += 2;
        }
        if (n == JOURNAL_TEXT_SIZE - 1) {
            return false;
        }
        value[n++] = byte;
    }
    value[n] = '\0';
    *at = c;
    *bad = false;
    return true;
}

static bool parse_name(const char *const *names, size_t count, const char *text, unsigned *value)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], text) == 0) {
            *value = (unsigned)i;
            return true;
        }
    }
    return false;
}

static bool parse_number(const char *text, uint64_t *value)
{
    char *end = NULL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static bool take_named(struct journal_row *row, const char *key, const char *value, bool *known)
{
    unsigned number = 0;
    bool ok = true;
    *known = true;
    if (strcmp(key, "kind") == 0) {
        ok = parse_name(kind_names, JOURNAL_KIND_COUNT, value, &number);
        row->kind = (enum journal_kind)number;
    } else if (strcmp(key, "flip_kind") == 0) {
        ok = flip_kind_parse(value, &row->flip_kind);
    } else if (strcmp(key, "phase") == 0) {
        ok = flip_phase_parse(value, &row->phase);
    } else if (strcmp(key, "side") == 0) {
        ok = side_parse(value, &row->side);
    } else if (strcmp(key, "outcome") == 0) {
        ok = parse_name(outcome_names, FLIP_OUTCOME_COUNT, value, &number);
        row->outcome = (enum flip_outcome)number;
    } else if (strcmp(key, "code") == 0) {
        row->code = error_code_parse(value);
    } else if (strcmp(key, "key") == 0) {
        ok = strlen(value) < sizeof row->key;
        (void)snprintf(row->key, sizeof row->key, "%.*s", JOURNAL_KEY_SIZE - 1, value);
    } else if (strcmp(key, "text") == 0) {
        memcpy(row->text, value, strlen(value) + 1);
    } else {
        *known = false;
    }
    return ok;
}

static bool take_number(struct journal_row *row, const char *key, const char *value)
{
    const struct {
        const char *key;
        uint64_t *number;
        int64_t *duration;
    } known[] = {
        {"flip", &row->flip, NULL},
        {"epoch", &row->epoch, NULL},
        {"of", &row->of, NULL},
        {"moved", &row->moved, NULL},
        {"disconnected", &row->disconnected, NULL},
        {"elapsed_us", NULL, &row->elapsed_us},
        {"stall_p50_us", NULL, &row->stall_p50_us},
        {"stall_p99_us", NULL, &row->stall_p99_us},
        {"stall_max_us", NULL, &row->stall_max_us},
    };
    uint64_t number = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        if (strcmp(known[i].key, key) == 0) {
            if (!parse_number(value, &number)) {
                return false;
            }
            if (known[i].number != NULL) {
                *known[i].number = number;
            } else {
                *known[i].duration = (int64_t)number;
            }
        }
    }
    if (strcmp(key, "automatic") == 0) {
        row->automatic = strcmp(value, "1") == 0;
    }
    return true; /* others are of a later version */
}

bool journal_decode(const char *line, struct journal_row *row, struct error *error)
{
    char key[32];
    char value[JOURNAL_TEXT_SIZE];
    bool bad = false, has_kind = false;
    uint64_t seq = row->seq;
    int64_t time_us = row->time_us;
    memset(row, 0, sizeof *row);
    row->seq = seq;
    row->time_us = time_us;
    for (const char *at = line; take_pair(&at, key, value, &bad);) {
        bool known = false;
        has_kind |= strcmp(key, "kind") == 0;
        if (!take_named(row, key, value, &known) || (!known && !take_number(row, key, value))) {
            return error_set(error, ERROR_INTERNAL, "journal row %" PRIu64 ": %s has the value \"%s\"", seq,
                             key, value);
        }
    }
    if (bad || !has_kind) {
        return error_set(error, ERROR_INTERNAL, "journal row %" PRIu64 " is malformed", seq);
    }
    return true;
}

/* --- meaning ---------------------------------------------------------------------------------------------
 */

void journal_view_init(struct journal_view *view)
{
    memset(view, 0, sizeof *view);
}

static void settle(struct journal_view *view, const struct journal_row *row)
{
    if (!view->known || view->active != row->side) {
        view->active_since_us = row->time_us;
    }
    view->known = true;
    view->active = row->side;
    view->epoch = row->epoch;
}

static void begin(struct journal_flip *flip, const struct journal_row *row)
{
    memset(flip, 0, sizeof *flip);
    flip->flip = row->flip;
    flip->kind = row->flip_kind;
    flip->source = row->side;
    flip->epoch = row->epoch;
    flip->automatic = row->automatic;
    flip->of = row->of;
    flip->begun_us = row->time_us;
    memcpy(flip->key, row->key, sizeof flip->key);
}

static void end(struct journal_flip *flip, const struct journal_row *row)
{
    flip->outcome = row->outcome;
    flip->code = row->code;
    flip->ended_us = row->time_us;
    flip->stall_p50_us = row->stall_p50_us;
    flip->stall_p99_us = row->stall_p99_us;
    flip->stall_max_us = row->stall_max_us;
    flip->moved = row->moved;
    flip->disconnected = row->disconnected;
    memcpy(flip->text, row->text, sizeof flip->text);
}

void journal_flip_fold(struct journal_flip *flip, const struct journal_row *row)
{
    if (row->kind == JOURNAL_BEGIN) {
        begin(flip, row);
        return;
    }
    if (flip->flip == 0) {
        return;
    }
    if (row->flip != flip->flip) {
        if (row->kind == JOURNAL_END && row->of == flip->flip && row->outcome == FLIP_OUTCOME_DONE &&
            flip->outcome == FLIP_OUTCOME_DONE) {
            flip->outcome = FLIP_OUTCOME_FLIPPED_BACK;
            memcpy(flip->text, row->text, sizeof flip->text);
        }
        return;
    }
    switch (row->kind) {
    case JOURNAL_INTENT:
        flip->phase = row->phase;
        flip->fence_intended |= row->phase == FLIP_PHASE_FENCE;
        break;
    case JOURNAL_RESULT:
        flip->phase_us[row->phase] = row->elapsed_us;
        flip->turned |= row->phase == FLIP_PHASE_TURN && row->code == ERROR_NONE;
        break;
    case JOURNAL_COMMIT:
        flip->phase = FLIP_PHASE_OPEN;
        flip->committed = true;
        break;
    case JOURNAL_BACK:
        flip->back = true;
        break;
    case JOURNAL_RELEASED:
        flip->phase = FLIP_PHASE_RELEASE;
        flip->released = true;
        break;
    case JOURNAL_END:
        end(flip, row);
        break;
    default:
        break;
    }
}

bool journal_flip_running(const struct journal_flip *flip)
{
    return flip->flip != 0 && flip->outcome == FLIP_OUTCOME_NONE;
}

void journal_fold(struct journal_view *view, const struct journal_row *row)
{
    view->rows++;
    if (row->flip > view->last_flip) {
        view->last_flip = row->flip;
    }
    if (row->kind == JOURNAL_BEGIN || row->flip == view->flip.flip) {
        journal_flip_fold(&view->flip, row);
    }
    if (row->kind != JOURNAL_BEGIN) {
        journal_flip_fold(&view->done, row);
    }
    switch (row->kind) {
    case JOURNAL_STEADY:
        settle(view, row);
        break;
    case JOURNAL_END:
        settle(view, row);
        if (row->outcome == FLIP_OUTCOME_DONE) {
            view->done = view->flip;
            view->watching = view->flip.kind == FLIP_KIND_CUTOVER;
            view->finalized = false;
        }
        break;
    case JOURNAL_WATCH_END:
        view->watching = false;
        break;
    case JOURNAL_FINALIZED:
        view->watching = false;
        view->finalized = true;
        break;
    default:
        break;
    }
}
