#include "proxy/relay.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "proxy/in_doubt.h"
#include "proxy/move_late.h"
#include "proxy/mover.h"
#include "proxy/relay_cancel.h"
#include "proxy/renumber.h"
#include "proxy/route_hold.h"
#include "proxy/session.h"
#include "proxy/wire/build.h"
#include "proxy/worker.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TOLD_MAX = 64 * 1024,
    CHANGED_ROWS_SIZE = 32 * 1024 /* rows that were changed are sent together, about so many bytes */
};

/* --- client to server --- */

static void forward(struct session *session, const char *from, const char *to)
{
    size_t length = (size_t)(to - from);
    if (length > 0 && session->link != NULL) {
        struct server_link *link = session->link;
        counter_add(&session->worker->statistics.sides[link->side].bytes_to_server, length);
        link_write(link, from, length);
    }
}

/*
 * A piece of a client that speaks the other side's numbers (numbering.h). True: it doesn't go on, what goes
 * in its place does.
 */
static bool renumber_client(struct session *session, const struct frame_piece *piece, uint8_t *bytes,
                            const char *from, const char *start)
{
    struct slice instead;
    if (numbering_client(session->numbering, piece, bytes, &session->boundary, &instead) == NUMBERING_PASS) {
        return false;
    }
    forward(session, from, start);
    forward(session, (const char *)instead.data, (const char *)instead.data + instead.length);
    if (instead.length > 0) {
        numbering_done(session->numbering);
    }
    return true;
}

/* Keeps a range that begins with a message, as if it had not been read. */
static void keep(struct session *session, const char *from, const char *to)
{
    frame_init(&session->cursor, FRAME_FROM_CLIENT);
    (void)session_keep(session, from, (size_t)(to - from));
}

static void refuse(struct session *session, enum hold_verdict verdict)
{
    if (verdict == HOLD_REFUSE) {
        session_end(session, "57P03", "no side is active now", NULL);
    } else {
        session_end(session, "57P01", "the session's server is no longer the active one", NULL);
    }
}

/* The client says goodbye: the server does the rest, unless it has nothing left to say. */
static void on_terminate(struct session *session)
{
    session->terminated = true;
    if (boundary_may_owe(&session->boundary)) {
        return;
    }
    if (stream_flush(&session->client) && session->client.unsent == 0) {
        session_drop(session);
    } else {
        session_finish(session);
    }
}

/* A server refuses it by its type alone. What belongs to a login is one: it is over. */
static bool has_bad_type(uint8_t type)
{
    uint32_t least = 0;
    uint32_t most = 0;
    return type == 'p' || !frame_bounds(FRAME_FROM_CLIENT, type, &least, &most);
}

/*
 * The client broke the protocol, in the header that begins at `start`. What is wrong with it says the server,
 * behind all that it owes: it gets as much of the header as it reads before it ends the connection. One byte
 * more, and the connection would be reset, which can take the last answers along. In a hold it gets nothing,
 * and owes nothing.
 */
static void on_bad_message(struct session *session, const char *from, const char *start)
{
    uint8_t type = (uint8_t)start[0];
    size_t read = FRAME_HEADER_SIZE;
    if (has_bad_type(type)) {
        read = 1;
        (void)snprintf(session->violation, sizeof(session->violation), "invalid frontend message type %u",
                       type);
    } else {
        (void)snprintf(session->violation, sizeof(session->violation), "invalid message length");
    }
    if (session->discard != RELAY_DISCARD_NOTHING || hold_check(session, type) != HOLD_PASS) {
        forward(session, from, start);
        session_end(session, "08P01", session->violation, NULL);
        return;
    }
    LOG_INFO("client_protocol", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("client", session->peer), LOG_STR("error", session->violation));
    session->terminated = true;
    forward(session, from, start + read);
}

struct range {
    const char *from, *to;
};

/*
 * A message that is about a statement which the server has yet to get: that goes first, behind the range
 * before. LATE_NONE also if the server wouldn't take it now; then neither would it the message.
 */
static enum move_late_verdict prepare_late(struct session *session, const struct frame_piece *piece,
                                           struct range before, int64_t now_us)
{
    struct slice message;
    struct slice instead;
    struct frame_piece parse;
    struct frame_cursor cursor;
    enum move_late_verdict verdict = move_late_wanted(session->move, piece, &message);
    uint8_t *copy = verdict == LATE_PARSE ? malloc(message.length) : NULL; /* oids change in their place */
    if (copy == NULL) {
        return verdict == LATE_PARSE ? LATE_NONE : verdict;
    }
    memcpy(copy, message.data, message.length);
    struct slice rest = slice_of(copy, message.length);
    frame_init(&cursor, FRAME_FROM_CLIENT);
    bool sent = frame_next(&cursor, &rest, &parse) == WIRE_OK &&
                boundary_client(&session->boundary, &parse, now_us) == BOUNDARY_FORWARD;
    if (sent) {
        if (session->boundary.parse_counted) {
            move_late_sent(session->move, message, session->boundary.parses_sent);
        }
        if (session->numbering != NULL) {
            (void)numbering_client(session->numbering, &parse, copy + FRAME_HEADER_SIZE, &session->boundary,
                                   &instead);
        }
        forward(session, before.from, before.to);
        forward(session, (const char *)copy, (const char *)copy + message.length);
    }
    free(copy);
    return sent ? LATE_PARSE : LATE_NONE;
}

/* The answer to that; its client knows nothing of it. */
static bool is_late(struct session *session, const struct frame_piece *piece,
                    const struct boundary_step *step, char *bytes)
{
    struct slice instead;
    if (step->kind != BOUNDARY_PARSED || !move_has_late(session->move) ||
        !move_late_parsed(session->move, step->parse)) {
        return false;
    }
    if (session->numbering != NULL) {
        (void)numbering_server(session->numbering, piece, (uint8_t *)bytes, &session->boundary, &instead);
    }
    return true;
}

/* A message begins, behind what was read before it. False: it was kept with all that follows, or refused. */
static bool may_pass(struct session *session, uint8_t type, struct range before, const char *end)
{
    /* the cancel of what has timed out, or was in a flip's way, must not meet this one */
    bool overtakes = session->watch.cancelling && session->link->cancels > 0;
    enum hold_verdict verdict = overtakes ? HOLD_KEEP : hold_check(session, type);
    if (verdict == HOLD_PASS) {
        return true;
    }
    forward(session, before.from, before.to);
    if (verdict != HOLD_KEEP) {
        refuse(session, verdict);
        return false;
    }
    if (!overtakes) {
        hold_note_waiting(session);
    }
    keep(session, before.to, end);
    return false;
}

/*
 * Passes on a range of the client's bytes; `from` is where it begins, at or (the beginning of a header, held
 * back last time) before `bytes`, with so much room in front of it.
 */
static void pass_to_server(struct session *session, const char *from, char *bytes, size_t length, size_t room)
{
    const char *end = bytes + length;
    struct slice rest = slice_of(bytes, length);
    struct frame_piece piece;
    enum wire_answer answer;
    int64_t now_us = clock_mono_us();
    const bool asks = session->worker->config->timeouts.in_doubt_us > 0;
    while ((answer = frame_next(&session->cursor, &rest, &piece)) == WIRE_OK) {
        const char *next = (const char *)rest.data;
        const char *start = next - piece.bytes.length - (piece.first ? FRAME_HEADER_SIZE : 0);
        if (relay_discards(session, &piece)) {
            if (session->closing) {
                return; /* its client is gone: there is no server any more */
            }
            from = next;
            continue;
        }
        if (piece.type == 'p') {
            on_bad_message(session, from, start);
            return;
        }
        if (piece.first && !may_pass(session, piece.type, (struct range){from, start}, end)) {
            return;
        }
        if (piece.first && asks) {
            const char *begin = from;
            from = in_doubt_ask(session, &piece, from, bytes + (start - bytes), room);
            room = from == begin ? room : 0;
            doubt_client(&session->doubt, &session->boundary, &piece);
        }
        if (piece.first && move_has_late(session->move)) {
            enum move_late_verdict late = prepare_late(session, &piece, (struct range){from, start}, now_us);
            if (late == LATE_WAIT) {
                forward(session, from, start);
                keep(session, start, end);
                return;
            }
            from = late == LATE_PARSE ? start : from;
        }
        switch (boundary_client(&session->boundary, &piece, now_us)) {
        case BOUNDARY_FORWARD:
            break;
        case BOUNDARY_WAIT:
            forward(session, from, start);
            keep(session, start, end);
            return;
        }
        move_client(session->move, &piece, &session->boundary);
        if (session->numbering != NULL &&
            renumber_client(session, &piece, (uint8_t *)bytes + (next - bytes) - piece.bytes.length, from,
                            start)) {
            from = next;
        }
        if (piece.type == 'X' && piece.last) {
            forward(session, from, next);
            on_terminate(session);
            return;
        }
    }
    if (answer == WIRE_BAD) {
        on_bad_message(session, from, (const char *)rest.data - FRAME_HEADER_SIZE);
        return;
    }
    /* the beginning of a header waits for the rest: it stays in the cursor */
    forward(session, from, end - session->cursor.header_have);
}

void relay_from_client(struct session *session, char *bytes, size_t length)
{
    size_t held_back = session->cursor.header_have;
    if (session->kept != NULL) {
        (void)session_keep(session, bytes, length);
        return;
    }
    const char *from = memcpy(bytes - held_back, session->cursor.header, held_back);
    pass_to_server(session, from, bytes, length, READ_HEADROOM - held_back);
    session_update(session);
}

void relay_resume(struct session *session)
{
    if (session->kept != NULL && !session->closing && !session->finishing) {
        char *bytes = session->kept;
        size_t length = session->kept_length;
        session->kept = NULL;
        session->kept_length = 0;
        pass_to_server(session, bytes, bytes, length, 0);
        if (session->kept == NULL) {
            hold_note_forwarded(session);
        }
        free(bytes);
    }
    session_update(session);
}

/* --- server to client --- */

static void pass_changed(struct session *session, struct server_link *link)
{
    struct strbuf *changed = session->numbering == NULL ? NULL : numbering_changed(session->numbering);
    if (changed == NULL || changed->length == 0) {
        return;
    }
    counter_add(&session->worker->statistics.sides[link->side].bytes_to_client, changed->length);
    stream_pass(&session->client, changed->data, changed->length);
    if (changed->capacity > CHANGED_ROWS_SIZE) {
        strbuf_deinit(changed);
    } else {
        strbuf_clear(changed);
    }
}

static void pass_on(struct session *session, struct server_link *link, const char *from, const char *to)
{
    size_t length = (size_t)(to - from);
    if (length > 0 && !session->closing) {
        pass_changed(session, link);
        counter_add(&session->worker->statistics.sides[link->side].bytes_to_client, length);
        stream_pass(&session->client, from, length);
    }
}

/* Not those that come without being asked for. */
static bool begins_reply(const struct frame_piece *piece)
{
    return piece->first && piece->type != 'A' && piece->type != 'E' && piece->type != 'N' &&
           piece->type != 'S';
}

/* After a swap, in front of the first reply: the parameters of which the client knows other values. */
static void tell(struct session *session)
{
    struct strbuf out;
    strbuf_init(&out, TOLD_MAX);
    session->untold = false;
    if (!move_tell(session->move, &out)) {
        session_drop(session);
    } else if (out.length > 0 && !session->closing) {
        stream_pass(&session->client, out.data, out.length);
    }
    strbuf_deinit(&out);
}

static void note(struct session *session, const struct server_link *link, const struct boundary_step *step)
{
    struct side_counters *counters = &session->worker->statistics.sides[link->side];
    if (step->kind == BOUNDARY_ERROR) {
        memcpy(session->sqlstate, step->sqlstate, sizeof(session->sqlstate));
        session->fatal = session->fatal || step->fatal;
    } else if (step->kind == BOUNDARY_READY && step->statements > 0) {
        statistics_statements(counters, step->statements, step->latency_us);
        if (step->failed) {
            statistics_error(counters, session->sqlstate);
        }
    }
}

/* What was changed goes on, and what was learned is told. False: the session has ended. */
static bool end_of_changed(struct session *session, struct server_link *link)
{
    struct numbering *numbering = session->numbering;
    pass_changed(session, link);
    if (numbering_strange(numbering) != 0) {
        move_knows_type(session->move, numbering_strange(numbering));
    }
    if (numbering_has_failed(numbering)) {
        session_end(session, "53200", "out of memory", NULL);
        return false;
    }
    return !session->closing;
}

/* A range of what the server sent, as it is walked. */
struct incoming {
    struct session *session;
    struct server_link *link;
    const char *from;  /* before it all has gone on */
    const char *begin; /* of the message at hand */
    int64_t now_us;
};

/* As renumber_client(). What goes in a piece's place waits for more of its kind. */
static bool renumber_server(struct incoming *in, const struct frame_piece *piece, uint8_t *bytes)
{
    struct slice instead;
    struct session *session = in->session;
    struct numbering *numbering = session->numbering;
    bool taken = numbering_server(numbering, piece, bytes, &session->boundary, &instead) == NUMBERING_TAKE;
    if (!session->boundary.ours) { /* what came unasked stands between our rows */
        in->link->cursor.quiet_rows = !numbering_wants_rows(numbering);
    }
    if (!taken) {
        return false;
    }
    if (piece->first) {
        pass_on(session, in->link, in->from, in->begin);
    }
    struct strbuf *changed = numbering_changed(numbering);
    strbuf_append(changed, instead.data, instead.length);
    if (changed->length > CHANGED_ROWS_SIZE) {
        pass_changed(session, in->link);
    }
    if (instead.length > 0) {
        numbering_done(numbering);
    }
    return true;
}

/* A piece that isn't passed on. */
static void drop(struct incoming *in, const struct frame_piece *piece, const char *next)
{
    if (piece->first) {
        pass_on(in->session, in->link, in->from, in->begin);
    }
    in->from = next;
}

/* What we asked stays ours, notices included. */
static void take_ours(struct incoming *in, const struct frame_piece *piece, const struct boundary_step *step,
                      const char *next)
{
    drop(in, piece, next);
    if (in->session->link == in->link) { /* its client is there */
        mover_asked(in->session, piece, step);
    }
}

/* `next` is where it ends. False: the session has another server, or none. */
static bool take_piece(struct incoming *in, const struct frame_piece *piece, char *next)
{
    struct session *session = in->session;
    struct server_link *link = in->link;
    struct boundary_step step;
    struct slice instead;
    char *bytes = next - piece->bytes.length;
    if (piece->first) {
        in->begin = bytes - FRAME_HEADER_SIZE;
    }
    if (link->half_seen) {
        link->half_seen = !piece->last;
        in->from = next;
        return true;
    }
    boundary_server(&session->boundary, piece, in->now_us, &step);
    if (step.ours) {
        take_ours(in, piece, &step, next);
        return session->link == link;
    }
    if (step.aside) {
        drop(in, piece, next);
        in_doubt_answered(session, piece, &step);
        return true;
    }
    if (is_late(session, piece, &step, bytes)) {
        pass_on(session, link, in->from, in->begin);
        in->from = next;
        return true;
    }
    if (session->untold && begins_reply(piece)) {
        pass_on(session, link, in->from, in->begin);
        in->from = in->begin;
        tell(session);
        if (session->link != link) {
            return false;
        }
    }
    if (in_doubt_server(session, piece, &step, &instead)) {
        drop(in, piece, next);
        if (instead.length > 0 && !session->closing) {
            pass_changed(session, link);
            stream_pass(&session->client, (const char *)instead.data, instead.length);
        }
        step.kind = session->panicked ? BOUNDARY_NOTHING : step.kind;
    }
    if (step.kind != BOUNDARY_NOTHING) {
        note(session, link, &step);
    } else if (piece->type == 'A' && piece->first && piece->last) {
        async_map_pid(session, link, bytes);
    }
    move_server(session->move, &step);
    if (session->numbering != NULL && renumber_server(in, piece, (uint8_t *)bytes)) {
        in->from = next;
    }
    if (step.kind == BOUNDARY_READY && session->link == link) {
        session_set_immovable(session, !move_is_movable(session->move, NULL, 0));
    }
    return session->link == link;
}

static void on_received(struct server_link *link, char *bytes, size_t length)
{
    struct session *session = link->session;
    const char *end = bytes + length;
    size_t held_back = link->cursor.header_have;
    struct incoming in = {.session = session, .link = link, .now_us = clock_mono_us()};
    struct slice rest = slice_of(bytes, length);
    struct frame_piece piece = {.last = true};
    enum wire_answer answer;
    in.begin = memcpy(bytes - held_back, link->cursor.header, held_back);
    in.from = in.begin + async_continue(session, link, bytes, length);
    if (session->link != link) {
        return; /* out of memory */
    }
    if (session->numbering != NULL && !session->boundary.ours) {
        link->cursor.quiet_rows = !numbering_wants_rows(session->numbering);
    }
    while ((answer = frame_next(&link->cursor, &rest, &piece)) == WIRE_OK) {
        if (!take_piece(&in, &piece, bytes + ((const char *)rest.data - bytes))) {
            return;
        }
    }
    if (answer == WIRE_BAD) {
        LOG_WARN("server_protocol", LOG_U64("session", session->id), LOG_STR("side", side_name(link->side)));
        pass_on(session, link, in.from, (const char *)rest.data - FRAME_HEADER_SIZE);
        pass_changed(session, link);
        session_end(session, "08P01", "the server broke the protocol", NULL);
        return;
    }
    end -= link->cursor.header_have;
    if (async_is_withheld(session, link, &piece)) {
        pass_on(session, link, in.from, in.begin);
        if (!async_withhold(session, in.begin, (size_t)(end - in.begin))) {
            session_drop(session);
        }
    } else {
        pass_on(session, link, in.from, end);
    }
    if (session->numbering != NULL && !end_of_changed(session, link)) {
        return;
    }
    if (session->cancel_waits && !session->boundary.ours) {
        session->cancel_waits = false;
        (void)relay_cancel_kept(session);
    }
    if (session->kept != NULL) {
        relay_resume(session);
    } else if (!session->closing) {
        session_update(session);
    }
}

static void on_blocked(struct server_link *link)
{
    session_update_reading(link->session);
}

static void on_sent(struct server_link *link)
{
    session_update_reading(link->session);
}

static void on_ended(struct server_link *link, int status)
{
    struct session *session = link->session;
    (void)status;
    int64_t since_us = boundary_since_us(&session->boundary);
    /* after its client's end a server ends, too, but not before it has answered a COMMIT */
    bool expected = session->terminated || (link->input_ended && !session->doubt.committing);
    if (since_us != 0 && !expected) {
        /* a statement that ended with its server, and not well */
        struct side_counters *counters = &session->worker->statistics.sides[link->side];
        statistics_statements(counters, 1, clock_mono_us() - since_us);
        statistics_error(counters, session->fatal ? session->sqlstate : "08006");
    }
    if (session->violation[0] != '\0' && !session->fatal) {
        session_end(session, "08P01", session->violation, NULL); /* of a length servers only log */
    } else if (session->fatal || expected) {
        session_finish(session); /* the server has said why, or was told to end */
    } else {
        in_doubt_server_gone(session);
    }
}

const struct link_events relay_link_events = {
    .received = on_received, .blocked = on_blocked, .sent = on_sent, .ended = on_ended};
