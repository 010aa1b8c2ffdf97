/*
 * libFuzzer: bytes of both directions through frame, boundary and the move's view of the traffic. The input
 * is a row of chunks: a byte that says whose (bit 7), its length (the rest), the bytes.
 */
#include "conf/base/ensure.h"
#include "proxy/move.h"
#include "proxy/wire/boundary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct session {
    struct frame_cursor cursors[2];
    struct boundary boundary;
    struct move *move;
    struct move_types types;
    int64_t now_us;
};

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
            move_client(session->move, &piece, &session->boundary, &session->types);
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
            (void)move_ask_answer(session->move, &piece, &session->types);
        } else {
            move_server(session->move, &piece, &step, &session->types);
        }
        (void)move_replay_answer(session->move, &piece);
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
            (void)!move_replay(session->move, &out);
        }
    }
    strbuf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t oids[] = {16384, 16385, 70000};
    struct session session = {.types = {.oids = oids, .count = 3}};
    frame_init(&session.cursors[0], FRAME_FROM_CLIENT);
    frame_init(&session.cursors[1], FRAME_FROM_SERVER);
    boundary_init(&session.boundary);
    session.move = move_new(false);
    ENSURE(session.move != NULL);
    while (size > 0) {
        size_t length = data[0] & 0x7f;
        bool from_server = data[0] >> 7 != 0;
        length = length < size - 1 ? length : size - 1;
        struct slice range = slice_of(data + 1, length);
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
    return 0;
}
