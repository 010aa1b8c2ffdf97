#include "proxy/doubt.h"

#include "proxy/wire/decode.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Of pg_proc, the same in every version. */
enum { OID_STATISTICS_BEGAN = 3075, OID_TRANSACTION_ID = 5060 };

/* What a field of SyncRepWaitForLSN()'s warnings says in every language: R, the name of the routine. */
static const char unconfirmed_field[] = "\0RSyncRepWaitForLSN";

/* --- is it a COMMIT --- */

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct slice skip_spaces(struct slice text)
{
    while (text.length > 0 && is_space(text.data[0])) {
        text = slice_of(text.data + 1, text.length - 1);
    }
    return text;
}

static bool take_word(struct slice *text, const char *word)
{
    size_t length = strlen(word);
    if (text->length < length || strncasecmp((const char *)text->data, word, length) != 0 ||
        (text->length > length && text->data[length] != ';' && !is_space(text->data[length]))) {
        return false;
    }
    *text = skip_spaces(slice_of(text->data + length, text->length - length));
    return true;
}

bool doubt_is_commit(struct slice text)
{
    text = skip_spaces(text);
    uint8_t first = text.length == 0 ? 0 : text.data[0] | 0x20;
    if (first != 'c' && first != 'e') {
        return false; /* nearly always */
    }
    if (!take_word(&text, "commit") && !take_word(&text, "end")) {
        return false;
    }
    if (!take_word(&text, "work")) {
        (void)take_word(&text, "transaction");
    }
    while (text.length > 0 && text.data[0] == ';') {
        text = skip_spaces(slice_of(text.data + 1, text.length - 1));
    }
    return text.length == 0;
}

/* Up to its NUL; the rest goes to *rest. */
static struct slice text_of(struct slice body, struct slice *rest)
{
    const uint8_t *end = body.length == 0 ? NULL : memchr(body.data, 0, body.length);
    size_t length = end == NULL ? body.length : (size_t)(end - body.data);
    size_t used = end == NULL ? length : length + 1;
    *rest = slice_of(body.data + used, body.length - used);
    return slice_of(body.data, length);
}

/* --- prepared COMMITs: a name that is mistaken for one costs a question --- */

static uint32_t digest(struct slice name)
{
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < name.length; i++) {
        hash = (hash ^ name.data[i]) * 16777619U;
    }
    return hash == 0 ? 1 : hash;
}

static bool is_prepared_commit(const struct doubt *doubt, struct slice name)
{
    uint32_t hash = digest(name);
    for (unsigned i = 0; i < DOUBT_NAMES; i++) {
        if (doubt->names[i] == hash) {
            return true;
        }
    }
    return false;
}

static void note_prepared(struct doubt *doubt, struct slice name, bool commit)
{
    uint32_t hash = digest(name);
    for (unsigned i = 0; i < DOUBT_NAMES; i++) {
        doubt->names[i] = doubt->names[i] == hash ? 0 : doubt->names[i];
    }
    if (commit) {
        doubt->names[doubt->next_name] = hash;
        doubt->next_name = (uint8_t)((doubt->next_name + 1) % DOUBT_NAMES);
    }
}

/* The statement that a Bind is of, behind the portal's name. */
static struct slice bound_statement(struct slice body)
{
    struct slice rest;
    (void)text_of(body, &rest);
    return text_of(rest, &rest);
}

/* --- asking --- */

void doubt_begin(struct doubt *doubt)
{
    free(doubt->error);
    *doubt = (struct doubt){.error = NULL};
}

void doubt_deinit(struct doubt *doubt)
{
    free(doubt->error);
    doubt->error = NULL;
}

static bool begins_commit(const struct doubt *doubt, const struct frame_piece *piece)
{
    struct slice rest;
    switch (piece->type) {
    case 'Q':
        return doubt_is_commit(text_of(piece->bytes, &rest));
    case 'P':
        (void)text_of(piece->bytes, &rest);
        return doubt_is_commit(text_of(rest, &rest));
    case 'B':
        return is_prepared_commit(doubt, bound_statement(piece->bytes));
    default:
        return false;
    }
}

enum doubt_question doubt_question(const struct doubt *doubt, const struct boundary *boundary,
                                   const struct frame_piece *piece)
{
    if (piece->type != 'Q' && piece->type != 'P' && piece->type != 'B') {
        return DOUBT_QUESTION_NONE;
    }
    if (boundary->status == 'I') {
        return !doubt->known && boundary_aside_may(boundary) ? DOUBT_QUESTION_SERVER : DOUBT_QUESTION_NONE;
    }
    bool asks = boundary->status == 'T' && doubt->may_ask && piece->last && boundary_aside_may(boundary) &&
                begins_commit(doubt, piece);
    return asks ? DOUBT_QUESTION_TRANSACTION : DOUBT_QUESTION_NONE;
}

static void build_call(struct build *build, uint32_t function)
{
    build_begin(build, 'F');
    build_u32(build, function);
    build_u16(build, 0); /* formats of arguments, and arguments */
    build_u16(build, 0);
    build_u16(build, 1); /* the result in binary */
    build_end(build);
}

unsigned doubt_ask(struct doubt *doubt, enum doubt_question question, bool told, struct build *build)
{
    doubt->question = (uint8_t)question;
    doubt->values = 0;
    doubt->refused = false;
    doubt->transaction = 0;
    build_call(build, OID_TRANSACTION_ID);
    if (question == DOUBT_QUESTION_SERVER) {
        doubt->known = true;
        if (told) {
            build_call(build, OID_STATISTICS_BEGAN);
            return 2;
        }
    }
    return 1;
}

static void keep_error(struct doubt *doubt, const struct frame_piece *piece)
{
    size_t head = piece->first ? FRAME_HEADER_SIZE : 0;
    if (piece->first) {
        doubt->error_length = 0;
    }
    doubt->error_open = !piece->last;
    if (doubt->error_length + head + piece->bytes.length > DOUBT_ERROR_MAX) {
        return;
    }
    uint8_t *grown = realloc(doubt->error, doubt->error_length + head + piece->bytes.length);
    if (grown == NULL) {
        return;
    }
    doubt->error = grown;
    if (head > 0) {
        memcpy(grown, piece->head, head);
    }
    if (piece->bytes.length > 0) {
        memcpy(grown + doubt->error_length + head, piece->bytes.data, piece->bytes.length);
    }
    doubt->error_length += head + piece->bytes.length;
}

static void forget_error(struct doubt *doubt)
{
    free(doubt->error);
    doubt->error = NULL;
    doubt->error_length = 0;
    doubt->error_open = doubt->error_told = false;
}

/* FunctionCallResponse with eight bytes; anything else is an SQL NULL. */
static void take_value(struct doubt *doubt, struct slice body)
{
    uint64_t value = 0;
    if (body.length == 12) {
        for (unsigned i = 4; i < 12; i++) {
            value = value << 8 | body.data[i];
        }
    }
    if (doubt->question == DOUBT_QUESTION_TRANSACTION) {
        doubt->transaction = value;
    } else if (doubt->values == 1) {
        doubt->incarnation = (int64_t)value;
    }
    doubt->values++;
}

void doubt_answered(struct doubt *doubt, const struct frame_piece *piece, const struct boundary_step *step)
{
    if (piece->type == 'E') {
        doubt->refused = true;
        keep_error(doubt, piece);
    } else if (piece->type == 'V' && piece->last) {
        take_value(doubt, step->body);
    } else if (piece->type == 'Z' && piece->last && doubt->question == DOUBT_QUESTION_SERVER) {
        doubt->may_ask = !doubt->refused;
        forget_error(doubt);
    }
}

/* --- what passes --- */

/* The next message of a COMMIT is answered by this one. 0: it isn't one. */
static uint8_t commit_reply(const struct doubt *doubt, const struct frame_piece *piece)
{
    uint8_t last = doubt->reply_count == 0 ? 0 : doubt->replies[doubt->reply_count - 1];
    switch (piece->type) {
    case 'P':
        return last == 0 ? '1' : 0;
    case 'B':
        return last == 0 || last == '1' ? '2' : 0;
    case 'D':
        return last == '2' && piece->last && piece->bytes.length > 0 && piece->bytes.data[0] == 'P' ? 'n' : 0;
    case 'E':
        return last == '2' || last == 'n' ? 'C' : 0;
    case 'S':
        return last == 'C' ? 'Z' : 0;
    default:
        return 0;
    }
}

static void commit_goes_on(struct doubt *doubt, const struct frame_piece *piece)
{
    if (piece->type == 'H' || piece->type == 'X') {
        return;
    }
    uint8_t reply = commit_reply(doubt, piece);
    if (doubt->whole) {
        doubt->more = true;
    } else if (reply == 0) {
        doubt->committing = false;
    } else {
        doubt->replies[doubt->reply_count++] = reply;
        doubt->whole = reply == 'Z';
    }
}

static void commit_begins(struct doubt *doubt, const struct boundary *boundary,
                          const struct frame_piece *piece)
{
    doubt->committing = boundary->status == 'T' && piece->last && begins_commit(doubt, piece);
    doubt->whole = doubt->more = doubt->committed = false;
    doubt->reply_at = doubt->reply_count = 0;
    if (doubt->committing && piece->type == 'Q') {
        memcpy(doubt->replies, "CZ", 2);
        doubt->reply_count = 2;
        doubt->whole = true;
    } else if (doubt->committing) {
        doubt->replies[doubt->reply_count++] = piece->type == 'P' ? '1' : '2';
    }
}

void doubt_client(struct doubt *doubt, const struct boundary *boundary, const struct frame_piece *piece)
{
    struct slice name, text;
    if (!piece->first) {
        return;
    }
    if (boundary->count == 0) {
        if (boundary->status == 'T') {
            commit_begins(doubt, boundary, piece);
        } else {
            doubt->committing = false;
        }
    } else if (doubt->committing) {
        commit_goes_on(doubt, piece);
    }
    if (piece->type == 'P') {
        name = text_of(piece->bytes, &text);
        if (name.length > 0) {
            note_prepared(doubt, name, piece->last && doubt_is_commit(text_of(text, &text)));
        }
    }
}

void doubt_server(struct doubt *doubt, const struct boundary *boundary, const struct frame_piece *piece,
                  const struct boundary_step *step)
{
    if (step->kind == BOUNDARY_READY && boundary->count == 0) {
        doubt->committing = false;
        doubt->unconfirmed = false;
        doubt->transaction = 0;
        forget_error(doubt);
    } else if (step->kind == BOUNDARY_ERROR) {
        doubt->committing = doubt->committing && doubt->committed;
    } else if (doubt->committing && piece->last && doubt->reply_at < doubt->reply_count &&
               piece->type == doubt->replies[doubt->reply_at]) {
        doubt->reply_at++;
        doubt->committed = doubt->committed || piece->type == 'C';
    }
}

bool doubt_replaces(struct doubt *doubt, const struct frame_piece *piece, struct slice *instead)
{
    bool rest_of_fatal = piece->type == 'E' && !piece->first && doubt->error_open;
    bool begins = piece->type == 'C' && piece->first && doubt->error_length > 0 && !doubt->error_told &&
                  doubt->question == DOUBT_QUESTION_TRANSACTION;
    *instead = slice_of("", 0);
    if (rest_of_fatal) {
        keep_error(doubt, piece);
    } else if (!begins) {
        bool replaced = doubt->in_its_place;
        doubt->in_its_place = replaced && !piece->last;
        return replaced;
    }
    *instead = slice_of(doubt->error, doubt->error_length);
    doubt->error_told = true;
    doubt->in_its_place = begins && !piece->last;
    return true;
}

bool doubt_notice(struct doubt *doubt, const struct frame_piece *piece)
{
    const size_t length = sizeof unconfirmed_field; /* with its final NUL */
    if (piece->first) {
        doubt->notice_match = 0;
    }
    for (size_t i = 0; i < piece->bytes.length && doubt->notice_match < length; i++) {
        uint8_t c = piece->bytes.data[i];
        if (c == (uint8_t)unconfirmed_field[doubt->notice_match]) {
            doubt->notice_match++;
        } else {
            doubt->notice_match = c == 0 ? 1 : 0;
        }
    }
    bool unconfirmed = piece->last && doubt->notice_match == length;
    doubt->unconfirmed = doubt->unconfirmed || unconfirmed;
    return unconfirmed;
}

/* --- the end --- */

enum doubt_stake doubt_stake(const struct doubt *doubt, const struct boundary *boundary, bool may_end)
{
    bool open = boundary->status != 'I';
    if (!boundary_owes(boundary) || boundary->ours) {
        return open ? DOUBT_ROLLED_BACK : DOUBT_NOTHING;
    }
    if (doubt->committing && doubt->committed) {
        return doubt->more ? DOUBT_UNKNOWN : DOUBT_NOTHING;
    }
    if (open && !may_end) {
        return DOUBT_ROLLED_BACK;
    }
    bool knows = doubt->committing && !doubt->unconfirmed && doubt->transaction != 0;
    return knows ? DOUBT_COMMIT : DOUBT_UNKNOWN;
}

void doubt_build_replies(const struct doubt *doubt, struct build *build)
{
    for (unsigned i = doubt->reply_at; i < doubt->reply_count; i++) {
        if (doubt->replies[i] == 'Z') {
            build_ready(build, 'I');
            continue;
        }
        build_begin(build, (char)doubt->replies[i]);
        if (doubt->replies[i] == 'C') {
            build_string(build, "COMMIT");
        }
        build_end(build);
    }
}
