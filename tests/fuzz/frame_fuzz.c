/*
 * libFuzzer: bytes of both directions through frame, boundary, the move's view of the traffic, and the
 * numbering of a session that has moved. The input is a row of chunks: a byte that says whose (bit 7), its
 * length (the rest), the bytes. What a numbering has passed on is whole messages: frame is shown it again.
 */
#include "conf/base/ensure.h"
#include "proxy/move.h"
#include "proxy/wire/boundary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct session {
    struct frame_cursor cursors[2];
    struct boundary boundary;
    struct move *move;
    struct numbering *numbering;
    struct frame_cursor passed;
    struct move_numbers numbers;
    uint8_t chunk[128];
    int64_t now_us;
};

/* As the relay does it; the chunk is ours to change. What goes on instead must be a message. */
static void number(struct session *session, const struct frame_piece *piece, bool from_server)
{
    struct slice instead;
    struct frame_piece passed;
    uint8_t *bytes = session->chunk + (piece->bytes.data - session->chunk);
    if (piece->bytes.length == 0) {
        bytes = session->chunk;
    }
    enum numbering_verdict verdict =
        from_server ? numbering_server(session->numbering, piece, bytes, &session->boundary, &instead)
                    : numbering_client(session->numbering, piece, bytes, &session->boundary, &instead);
    if (verdict == NUMBERING_TAKE && instead.length > 0) {
        frame_init(&session->passed, from_server ? FRAME_FROM_SERVER : FRAME_FROM_CLIENT);
        ENSURE(frame_next(&session->passed, &instead, &passed) == WIRE_OK && passed.last);
        ENSURE(passed.type == piece->type && instead.length == 0);
        numbering_done(session->numbering);
    }
    (void)numbering_wants_rows(session->numbering);
    ENSURE(!numbering_has_failed(session->numbering));
}

static bool client(struct session *session, struct slice range)
{
    struct frame_piece piece;
    enum wire_answer answer = WIRE_OK;
    while ((answer = frame_next(&session->cursors[0], &range, &piece)) == WIRE_OK) {
        ENSURE(piece.offset + piece.bytes.length <= piece.length);
        enum boundary_verdict verdict = boundary_client(&session->boundary, &piece, session->now_us);
        if (verdict == BOUNDARY_WAIT) {
            return false;
        }
        if (verdict == BOUNDARY_FORWARD) {
            move_client(session->move, &piece, &session->boundary);
            number(session, &piece, false);
        }
    }
    return answer == WIRE_PARTIAL;
}

static bool server(struct session *session, struct slice range)
{
    struct frame_piece piece;
    struct boundary_step step;
    enum wire_answer answer = WIRE_OK;
    while ((answer = frame_next(&session->cursors[1], &range, &piece)) == WIRE_OK) {
        boundary_server(&session->boundary, &piece, session->now_us, &step);
        if (step.ours) {
            (void)move_ask_answer(session->move, &piece);
        } else {
            move_server(session->move, &step);
            number(session, &piece, true);
        }
        (void)move_replay_answer(session->move, &piece, session->numbering);
    }
    return answer == WIRE_PARTIAL;
}

static void ask(struct session *session)
{
    struct strbuf out;
    strbuf_init(&out, (size_t)64 << 20);
    if (boundary_at(&session->boundary) && frame_idle(&session->cursors[0]) &&
        frame_idle(&session->cursors[1])) {
        if (move_ask(session->move, &out) && out.length > 0) {
            boundary_inject(&session->boundary, session->now_us);
        } else {
            (void)!move_replay(session->move, &session->numbers, &out);
        }
    }
    strbuf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct proxy_type types[] = {
        {.oids = {16384, 16385}},
        {.oids = {16385, 16384}},
        {.oids = {0x31313131, 0x30303030}, .kind = PROXY_TYPE_ARRAY, .related = {16384, 16385}},
        {.oids = {0x30303030, 0x31313131}, .kind = PROXY_TYPE_COMPOSITE},
        {.oids = {70000, 70001}, .kind = PROXY_TYPE_RANGE, .related = {0x31313131, 0x30303030}},
    };
    struct session session = {.now_us = 0};
    struct type_map *map = type_map_new(types, ARRAY_LENGTH(types));
    ENSURE(map != NULL);
    session.numbering = numbering_new(map, SIDE_BLUE);
    ENSURE(session.numbering != NULL);
    session.numbers.statements = (struct translation){.map = map, .from = SIDE_BLUE, .to = SIDE_GREEN};
    session.numbers.unnamed = session.numbers.statements;
    session.numbers.numbering = session.numbering;
    frame_init(&session.cursors[0], FRAME_FROM_CLIENT);
    frame_init(&session.cursors[1], FRAME_FROM_SERVER);
    boundary_init(&session.boundary);
    session.move = move_new(false);
    ENSURE(session.move != NULL);
    while (size > 0) {
        size_t length = data[0] & 0x7f;
        bool from_server = data[0] >> 7 != 0;
        length = length < size - 1 ? length : size - 1;
        if (length > 0) {
            memcpy(session.chunk, data + 1, length);
        }
        struct slice range = slice_of(session.chunk, length);
        session.now_us += 1000;
        if (!(from_server ? server(&session, range) : client(&session, range))) {
            break;
        }
        ask(&session);
        data += 1 + length;
        size -= 1 + length;
        ENSURE(session.boundary.count <= BOUNDARY_SEGMENTS);
        ENSURE(session.boundary.parses_answered <= session.boundary.parses_sent);
    }
    char reasons[64];
    (void)move_is_movable(session.move, reasons, sizeof reasons);
    move_free(session.move);
    numbering_free(session.numbering);
    type_map_unref(map);
    return 0;
}
