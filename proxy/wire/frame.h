/*
 * Message framing of protocol 3 after startup: one byte of type, four of length (which counts itself), a
 * body. The relay walks each range of bytes that it read with frame_next(); the cursor remembers between
 * reads how much of a header or of a body is still to come, so a message may be split at any byte.
 *
 *   struct slice rest = slice_of(bytes, count);
 *   struct frame_piece piece;
 *   while ((answer = frame_next(&cursor, &rest, &piece)) == WIRE_OK) {
 *       ... piece.first: a message begins; piece.last: it is complete ...
 *   }
 *
 * After WIRE_PARTIAL the range is used up: cursor.header_have of its last bytes are the beginning of a
 * header, copied into cursor.header, so that a relay may hold them back until it knows the message's type.
 */
#ifndef SWITCHBACK_PROXY_WIRE_FRAME_H
#define SWITCHBACK_PROXY_WIRE_FRAME_H

#include "proxy/wire/slice.h"

enum { FRAME_HEADER_SIZE = 5 };

enum frame_from { FRAME_FROM_CLIENT, FRAME_FROM_SERVER };

struct frame_cursor {
    uint8_t from; /* enum frame_from */
    uint8_t type; /* of the current message */
    uint8_t header_have;
    bool quiet_rows; /* set by the relay: a server's DataRow and CopyData aren't reported */
    uint8_t header[FRAME_HEADER_SIZE];
    uint32_t length; /* of the current body */
    uint32_t left;   /* of the current body, still to come */
    bool quiet;      /* the current message isn't reported */
};

/* A message, or the part of it that stands in the range. */
struct frame_piece {
    uint8_t type;
    bool first, last;
    uint32_t length;     /* of the whole body */
    uint32_t offset;     /* of bytes in the body */
    struct slice bytes;  /* the part of the body at hand, possibly empty */
    const uint8_t *head; /* first pieces: the five bytes of the header, in the range or in the cursor */
};

void frame_init(struct frame_cursor *cursor, enum frame_from from);

/*
 * Takes the next piece off *rest. WIRE_PARTIAL: nothing left to report. WIRE_BAD: an unknown type or a length
 * out of its bounds; *rest then begins right after the header.
 */
MUST_USE enum wire_answer frame_next(struct frame_cursor *cursor, struct slice *rest,
                                     struct frame_piece *piece);

/* Between two messages, with not even a byte of the next header read. */
static inline bool frame_idle(const struct frame_cursor *cursor)
{
    return cursor->left == 0 && cursor->header_have == 0;
}

/* Bounds of a body's length by type; false: there is no such message from that direction. */
MUST_USE bool frame_bounds(enum frame_from from, uint8_t type, uint32_t *least, uint32_t *most);

/* The header of a message with that body length. */
void frame_header(uint8_t header[FRAME_HEADER_SIZE], uint8_t type, uint32_t length);

/*
 * Collects the body of a short message that may come in pieces. frame_capture() returns true at the last
 * piece with *body, which lies in the range if the message was whole, else in the capture; a body longer than
 * the capture is cut when it came in pieces.
 */
enum { FRAME_CAPTURE_SIZE = 256 };

struct frame_capture {
    uint32_t length;
    uint8_t bytes[FRAME_CAPTURE_SIZE];
};

MUST_USE bool frame_capture(struct frame_capture *capture, const struct frame_piece *piece,
                            struct slice *body);

#endif
