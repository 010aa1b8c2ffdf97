#include "control/flip/record.h"

#include "conf/base/ensure.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[RECORD_KIND_COUNT] = {
#define X(name, text) [name] = (text),
    RECORD_KIND_MAP(X)
#undef X
};

static const char *const outcome_names[FLIP_OUTCOME_COUNT] = {
#define X(name, text) [name] = (text),
    FLIP_OUTCOME_MAP(X)
#undef X
};

const char *record_kind_name(enum record_kind kind)
{
    ENSURE(kind >= 0 && kind < RECORD_KIND_COUNT);
    return kind_names[kind];
}

const char *flip_outcome_name(enum flip_outcome outcome)
{
    ENSURE(outcome >= 0 && outcome < FLIP_OUTCOME_COUNT);
    return outcome_names[outcome];
}

/* --- text --- */

struct line {
    char *start, *at, *end;
};

static void put(struct line *line, char c)
{
    ENSURE(line->at < line->end - 1);
    *line->at++ = c;
    *line->at = '\0';
}

static void put_all(struct line *line, const char *text)
{
    for (; *text != '\0'; text++) {
        put(line, *text);
    }
}

static void put_key(struct line *line, const char *key)
{
    put(line, line->at == line->start ? '{' : ',');
    put(line, '"');
    put_all(line, key);
    put_all(line, "\":");
}

static void put_text(struct line *line, const char *key, const char *text)
{
    put_key(line, key);
    put(line, '"');
    for (const char *c = text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte < ' ' || byte == 0x7f) {
            char escape[8];
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)byte);
            put_all(line, escape);
        } else {
            if (byte == '"' || byte == '\\') {
                put(line, '\\');
            }
            put(line, *c);
        }
    }
    put(line, '"');
}

static void put_number(struct line *line, const char *key, uint64_t value)
{
    char text[24];
    if (value != 0) {
        (void)snprintf(text, sizeof text, "%" PRIu64, value);
        put_key(line, key);
        put_all(line, text);
    }
}

void record_encode(const struct record *row, char line[RECORD_LINE_SIZE])
{
    _Static_assert(RECORD_LINE_SIZE >= 6 * (RECORD_KEY_SIZE + RECORD_TEXT_SIZE) + 512, "line too short");
    line[0] = '\0';
    struct line out = {.start = line, .at = line, .end = line + RECORD_LINE_SIZE};
    put_text(&out, "kind", record_kind_name(row->kind));
    put_number(&out, "flip", row->flip);
    if (row->kind == RECORD_BEGIN) {
        put_text(&out, "flip_kind", flip_kind_name(row->flip_kind));
    }
    if (row->phase != FLIP_PHASE_NONE) {
        put_text(&out, "phase", flip_phase_name(row->phase));
    }
    put_text(&out, "side", side_name(row->side));
    put_number(&out, "epoch", row->epoch);
    put_number(&out, "automatic", row->automatic);
    put_number(&out, "lossless", row->lossless);
    put_number(&out, "committed", row->committed);
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
    put(&out, '}');
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The character after a backslash; 0 if it is none that record_encode writes. */
static char take_escape(const char **at)
{
    const char *c = *at;
    if (*c == '"' || *c == '\\') {
        *at = c + 1;
        return *c;
    }
    if (c[0] != 'u' || c[1] != '0' || c[2] != '0') {
        return 0;
    }
    int high = hex_digit(c[3]);
    int low = high < 0 ? -1 : hex_digit(c[4]);
    if (low < 0) {
        return 0;
    }
    *at = c + 5;
    return (char)(high * 16 + low);
}

static bool take_string(const char **at, char *value, size_t size)
{
    const char *c = *at;
    size_t n = 0;
    if (*c++ != '"') {
        return false;
    }
    while (*c != '"') {
        char byte = *c++;
        if (byte == '\\') {
            byte = take_escape(&c);
        }
        if (byte == '\0' || n == size - 1) {
            return false;
        }
        value[n++] = byte;
    }
    value[n] = '\0';
    *at = c + 1;
    return true;
}

static bool take_digits(const char **at, char *value, size_t size)
{
    size_t n = strspn(*at, "0123456789");
    if (n == 0 || n >= size) {
        return false;
    }
    memcpy(value, *at, n);
    value[n] = '\0';
    *at += n;
    return true;
}

enum taken { TAKEN_PAIR, TAKEN_END, TAKEN_BAD };

/* The next `"key":value` of the object. */
static enum taken take_pair(const char **at, bool first, char key[32], char value[RECORD_TEXT_SIZE])
{
    const char *c = *at;
    if (c[0] == '}' && c[1] == '\0' && !first) {
        return TAKEN_END;
    }
    if (*c++ != (first ? '{' : ',') || !take_string(&c, key, 32) || *c++ != ':') {
        return TAKEN_BAD;
    }
    if (!(*c == '"' ? take_string(&c, value, RECORD_TEXT_SIZE) : take_digits(&c, value, RECORD_TEXT_SIZE))) {
        return TAKEN_BAD;
    }
    *at = c;
    return TAKEN_PAIR;
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

static bool take_named(struct record *row, const char *key, const char *value, bool *known)
{
    unsigned number = 0;
    bool ok = true;
    *known = true;
    if (strcmp(key, "kind") == 0) {
        ok = parse_name(kind_names, RECORD_KIND_COUNT, value, &number);
        row->kind = (enum record_kind)number;
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
        (void)snprintf(row->key, sizeof row->key, "%.*s", RECORD_KEY_SIZE - 1, value);
    } else if (strcmp(key, "text") == 0) {
        memcpy(row->text, value, strlen(value) + 1);
    } else {
        *known = false;
    }
    return ok;
}

static bool take_number(struct record *row, const char *key, const char *value)
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
    } else if (strcmp(key, "lossless") == 0) {
        row->lossless = strcmp(value, "1") == 0;
    } else if (strcmp(key, "committed") == 0) {
        row->committed = strcmp(value, "1") == 0;
    }
    return true; /* others are of a later version */
}

bool record_decode(const char *line, struct record *row, struct error *error)
{
    char key[32];
    char value[RECORD_TEXT_SIZE];
    enum taken taken = TAKEN_BAD;
    bool has_kind = false;
    const uint64_t seq = row->seq;
    const int64_t time_us = row->time_us;
    const char *at = line;
    *row = (struct record){.seq = seq, .time_us = time_us};
    while ((taken = take_pair(&at, at == line, key, value)) == TAKEN_PAIR) {
        bool known = false;
        has_kind |= strcmp(key, "kind") == 0;
        if (!take_named(row, key, value, &known) || (!known && !take_number(row, key, value))) {
            return error_set(error, ERROR_INTERNAL, "journal row %" PRIu64 ": %s has the value \"%s\"", seq,
                             key, value);
        }
    }
    if (taken == TAKEN_BAD || !has_kind) {
        return error_set(error, ERROR_INTERNAL, "journal row %" PRIu64 " is malformed", seq);
    }
    return true;
}

/* --- meaning --- */

void flip_history_init(struct flip_history *history)
{
    memset(history, 0, sizeof *history);
}

static void settle(struct flip_history *history, const struct record *row)
{
    if (!history->known || history->active != row->side) {
        history->active_since_us = row->time_us;
    }
    history->known = true;
    history->active = row->side;
    history->epoch = row->epoch;
}

static void begin(struct flip_story *flip, const struct record *row)
{
    memset(flip, 0, sizeof *flip);
    flip->flip = row->flip;
    flip->kind = row->flip_kind;
    flip->source = row->side;
    flip->epoch = row->epoch;
    flip->automatic = row->automatic;
    flip->lossless = row->lossless;
    flip->fence_intended = flip->committed = flip->adopted = row->committed;
    flip->of = row->of;
    flip->begun_us = row->time_us;
    memcpy(flip->key, row->key, sizeof flip->key);
}

static void end(struct flip_story *flip, const struct record *row)
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

void flip_story_fold(struct flip_story *flip, const struct record *row)
{
    if (row->kind == RECORD_BEGIN) {
        begin(flip, row);
        return;
    }
    if (flip->flip == 0) {
        return;
    }
    if (row->flip != flip->flip) {
        if (row->kind == RECORD_END && row->of == flip->flip && row->outcome == FLIP_OUTCOME_DONE &&
            flip->outcome == FLIP_OUTCOME_DONE) {
            flip->outcome = FLIP_OUTCOME_FLIPPED_BACK;
            memcpy(flip->text, row->text, sizeof flip->text);
        }
        return;
    }
    switch (row->kind) {
    case RECORD_INTENT:
        flip->phase = row->phase;
        flip->fence_intended |= row->phase == FLIP_PHASE_FENCE ||
                                (flip->kind == FLIP_KIND_TAKEOVER && row->phase == FLIP_PHASE_CATCHUP);
        break;
    case RECORD_RESULT:
        flip->phase_us[row->phase] = row->elapsed_us;
        flip->turned |= row->phase == FLIP_PHASE_TURN && row->code == ERROR_NONE;
        break;
    case RECORD_COMMIT:
        flip->phase = FLIP_PHASE_OPEN;
        flip->committed = true;
        break;
    case RECORD_BACK:
        flip->back = true;
        break;
    case RECORD_RELEASED:
        flip->phase = FLIP_PHASE_RELEASE;
        flip->released = true;
        flip->ended_us = row->time_us;
        break;
    case RECORD_END:
        end(flip, row);
        break;
    default:
        break;
    }
}

bool flip_story_running(const struct flip_story *flip)
{
    return flip->flip != 0 && flip->outcome == FLIP_OUTCOME_NONE;
}

static void promise(struct flip_history *history, bool on, const struct record *row)
{
    if (history->promise != on) {
        history->promise_us = row->time_us;
    }
    history->promise = on;
    memcpy(history->promise_why, row->text, sizeof history->promise_why);
}

/* The rows of a flip. */
static void fold_flip(struct flip_history *history, const struct record *row)
{
    switch (row->kind) {
    case RECORD_BEGIN:
        history->lossless |= row->lossless;
        break;
    case RECORD_INTENT:
        if (history->flip.kind == FLIP_KIND_TAKEOVER && row->phase == FLIP_PHASE_CATCHUP) {
            history->detached = row->flip;
        }
        break;
    case RECORD_RELEASED: /* from here only forward: the row at the end adds nothing but figures */
        settle(history, row);
        history->done = history->flip;
        history->watching = history->flip.kind == FLIP_KIND_CUTOVER;
        history->finalized = false;
        history->detached = 0;
        history->promise = false; /* it was the other side's */
        break;
    case RECORD_END:
        settle(history, row);
        if (row->outcome == FLIP_OUTCOME_DONE) {
            history->done = history->flip;
        }
        break;
    default:
        break;
    }
}

/* What holds between flips. */
static void fold_steady(struct flip_history *history, const struct record *row)
{
    switch (row->kind) {
    case RECORD_STEADY:
    case RECORD_DECIDED:
        settle(history, row);
        history->decided = row->kind == RECORD_DECIDED;
        history->unprepared = false;
        history->watching = history->promise = false;
        history->detached = 0;
        history->finalized &= row->kind == RECORD_DECIDED;
        break;
    case RECORD_WATCH_END:
        history->watching = false;
        break;
    case RECORD_FINALIZED:
        history->watching = false;
        history->detached = 0;
        history->finalized = true;
        break;
    case RECORD_PROMISE_ON:
    case RECORD_PROMISE_OFF:
        promise(history, row->kind == RECORD_PROMISE_ON, row);
        break;
    case RECORD_ATTACHED:
        history->detached = 0;
        break;
    case RECORD_UNPREPARED:
        history->unprepared = true;
        break;
    default:
        break;
    }
}

void flip_history_fold(struct flip_history *history, const struct record *row)
{
    history->rows++;
    if (row->flip > history->last_flip) {
        history->last_flip = row->flip;
    }
    if (row->kind == RECORD_BEGIN || row->flip == history->flip.flip) {
        flip_story_fold(&history->flip, row);
    }
    if (row->kind != RECORD_BEGIN) {
        flip_story_fold(&history->done, row);
    }
    fold_flip(history, row);
    fold_steady(history, row);
}
