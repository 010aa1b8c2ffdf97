/* Asking the session's own server: what is sent, and what its answer means. */
#include "proxy/move_internal.h"

#include "proxy/wire/decode.h"

#include <stdio.h>
#include <stdlib.h>

static enum interrogate_level level_of(const struct move *move)
{
    bool full = move->always_settings || move->temporary || move->reasons.length > 0 ||
                (move->dirt & MOVE_DIRT_SETTINGS) != 0;
    return move->own == NULL || full ? INTERROGATE_FULL : INTERROGATE_CHEAP;
}

static void asking_ends(struct move *move)
{
    snapshot_unref(move->asking.snapshot);
    move->asking = (struct interrogation){.snapshot = NULL};
    strbuf_clear(&move->body);
}

/* When it was asked last. If it has others since, the digest is another one, too. */
static bool had_timeouts(const struct move *move)
{
    bool had = false;
    for (size_t i = 0; i < ASIDE_COUNT; i++) {
        had = had || move->aside[i][0] != '\0';
    }
    return had;
}

/* A session that ran nothing has the state that any new one has. */
static bool nothing_to_ask(struct move *move)
{
    if (move->own == NULL && move->dirt == 0) {
        move->own = snapshot_new();
        move->scouted = true;
        if (move->own == NULL) {
            return false;
        }
        move_note_holds(move);
    }
    return true;
}

static void build_asking(struct move *move, struct build *build)
{
    struct interrogate_question question = {
        .level = move->asking.level,
        .aside = move->asking.aside_first,
        .unnamed = move->unnamed.body != NULL || move->unnamed_lost,
        .names = {(const uint8_t *)strbuf_text(&move->names), move->names.length}};
    question.names.length -= question.names.length > 0 ? 1 : 0; /* the blank at the end */
    if (move->cleaning) {
        interrogate_build_cleanup(build);
    } else {
        move->asking.questions = interrogate_build(build, &question);
    }
}

/* The messages that fill() makes of a session's state, or of none. */
static bool append_messages(struct move *move, void (*fill)(struct move *move, struct build *build),
                            struct strbuf *out)
{
    struct build build;
    build_init(&build, NULL, 0);
    fill(move, &build);
    uint8_t *bytes = malloc(build.length);
    if (bytes == NULL) {
        return false;
    }
    build_init(&build, bytes, build.length);
    fill(move, &build);
    strbuf_append(out, bytes, build.length);
    free(bytes);
    return !out->failed;
}

bool move_ask(struct move *move, struct strbuf *out)
{
    if (move->replication || !nothing_to_ask(move)) {
        return false;
    }
    if (move->cleaning) {
        return append_messages(move, build_asking, out);
    }
    if (move->dirt == 0) {
        return true;
    }
    struct interrogation *asking = &move->asking;
    asking_ends(move);
    strbuf_clear(&move->asking_reasons);
    asking->level = level_of(move);
    asking->aside_first = asking->level == INTERROGATE_FULL || had_timeouts(move);
    asking->reasons = &move->asking_reasons;
    asking->snapshot = snapshot_new();
    if (asking->snapshot == NULL) {
        return false;
    }
    if (!append_messages(move, build_asking, out)) {
        return false;
    }
    move->asked_dirt = move->dirt;
    move->asked_hints = move->hints;
    move->dirt = 0;
    move->hints = 0;
    move->completes = 0;
    move->broken = false;
    move->failure[0] = '\0';
    return true;
}

static enum move_answer ask_failed(struct move *move)
{
    asking_ends(move);
    move->dirt |= move->asked_dirt;
    move->hints |= move->asked_hints;
    move->attempts++;
    if (move->attempts < (move->cancelled ? MOVE_CANCELLED_ATTEMPTS : MOVE_ATTEMPTS)) {
        return MOVE_AGAIN;
    }
    move->attempts = 0;
    move->cleaning = true;
    return MOVE_AGAIN;
}

static enum move_answer ask_done(struct move *move)
{
    struct interrogation *asking = &move->asking;
    if (move->cleaning) {
        move->cleaning = false;
        return MOVE_FAILED;
    }
    if (asking->snapshot == NULL) {
        return MOVE_FAILED; /* disarmed meanwhile */
    }
    if (move->broken || asking->failed) {
        if (move->failure[0] == '\0') {
            move_fail(move, "its state is larger than can be moved");
        }
        return ask_failed(move);
    }
    move->temporary = asking->temporary;
    bool changed =
        asking->level == INTERROGATE_CHEAP &&
        (asking->temporary || strcmp(asking->quick, move->quick) != 0 || asking->named != move->named ||
         memcmp(asking->aside, move->aside, sizeof move->aside) != 0);
    bool copied = asking->level != INTERROGATE_CHEAP || changed ||
                  snapshot_copy(asking->snapshot, move->own, SNAPSHOT_SETTING);
    if (!copied || !move_late_list(move, asking->snapshot)) {
        move_fail(move, "out of memory");
        return ask_failed(move);
    }
    if (changed) { /* ask for all */
        asking_ends(move);
        move->dirt |= MOVE_DIRT_USED | MOVE_DIRT_SETTINGS;
        return MOVE_AGAIN;
    }
    move->scouted = asking->level == INTERROGATE_FULL;
    snapshot_sort(asking->snapshot);
    snapshot_unref(move->own);
    move->own = asking->snapshot;
    asking->snapshot = NULL;
    move_note_holds(move);
    memcpy(move->quick, asking->quick, sizeof move->quick);
    move->named = asking->named;
    memcpy(move->aside, asking->aside, sizeof move->aside);
    strbuf_clear(&move->reasons);
    strbuf_append(&move->reasons, strbuf_text(&move->asking_reasons), move->asking_reasons.length);
    asking_ends(move);
    move->attempts = 0;
    move->failure[0] = '\0';
    return MOVE_DONE;
}

static enum move_answer ask_refused(struct move *move, struct slice body)
{
    struct decode_error error;
    decode_error(body, &error);
    bool fatal = decode_error_is_fatal(&error);
    if (!fatal && move->asking.snapshot == NULL && !move->cleaning) {
        return MOVE_MORE; /* to a question that nobody waits for any more */
    }
    if (!fatal && move->completes == move->asking.questions) { /* all is said but for the unnamed statement */
        if (slice_equals(error.sqlstate, "26000")) {
            move_forget_unnamed(&move->unnamed);
            move->unnamed_lost = false;
        }
        return MOVE_MORE;
    }
    move->broken = true;
    move->cancelled = slice_equals(error.sqlstate, "57014");
    move_fail(move, "its state can't be read: %.*s", (int)error.message.length,
              (const char *)error.message.data);
    if (!fatal) {
        return MOVE_MORE;
    }
    asking_ends(move);
    move->dirt |= move->asked_dirt;
    move->hints |= move->asked_hints;
    return MOVE_FATAL;
}

enum move_answer move_ask_answer(struct move *move, const struct frame_piece *piece)
{
    struct slice body;
    if (piece->type == 'C' && piece->last && !move->cleaning) {
        move->completes++;
    }
    if ((piece->type != 'D' && piece->type != 'E' && piece->type != 'Z') || !move_body(move, piece, &body)) {
        return MOVE_MORE;
    }
    switch (piece->type) {
    case 'D':
        if (move->asking.snapshot != NULL) {
            interrogate_row(&move->asking, body);
        }
        return MOVE_MORE;
    case 'Z':
        return ask_done(move);
    default:
        return ask_refused(move, body);
    }
}

/* --- one question for all sessions of a server -------------------------------------------------------------
 */

static void build_scout(struct move *move, struct build *build)
{
    (void)move;
    interrogate_build_scout(build);
}

bool move_scout(struct move *move, struct strbuf *out)
{
    move->completes = 0;
    move->broken = false;
    return append_messages(move, build_scout, out);
}

enum move_answer move_scout_answer(struct move *move, const struct frame_piece *piece, uint32_t *pid,
                                   char holding[MOVE_HOLDING_SIZE])
{
    struct slice body;
    struct decode_error error;
    *pid = 0;
    if (piece->type == 'C' && piece->last) {
        move->completes++;
    }
    if ((piece->type != 'D' && piece->type != 'E' && piece->type != 'Z') || !move_body(move, piece, &body)) {
        return MOVE_MORE;
    }
    switch (piece->type) {
    case 'D':
        if (move->completes > 0 && !interrogate_scout_row(body, pid, holding)) {
            move->broken = true;
        }
        return MOVE_MORE;
    case 'E':
        decode_error(body, &error);
        move->broken = true;
        return decode_error_is_fatal(&error) ? MOVE_FATAL : MOVE_MORE;
    default:
        strbuf_clear(&move->body);
        return move->broken ? MOVE_FAILED : MOVE_DONE;
    }
}

void move_scouted(struct move *move, const char *holding)
{
    move->scouted = true;
    if (holding != NULL) {
        interrogate_reason(&move->reasons, "%s", holding);
    }
}

void move_not_scouted(struct move *move)
{
    move->dirt |= MOVE_DIRT_USED | MOVE_DIRT_SETTINGS;
}
