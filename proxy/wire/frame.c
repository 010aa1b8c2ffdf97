#include "proxy/wire/frame.h"

/* PostgreSQL's PQ_SMALL_MESSAGE_LIMIT and PQ_LARGE_MESSAGE_LIMIT, which count the length field; a token of
 * authentication. */
enum { SMALL = 10000 - 4, TOKEN = 65535, MEDIUM = 1 << 20, LARGE = 0x3ffffffe - 4, TYPES = 128 };

struct bounds {
    bool known;
    uint32_t least, most;
};

#define BODY(least_bytes, most_bytes)                                                                        \
    {                                                                                                        \
        true, (least_bytes), (most_bytes)                                                                    \
    }

/* Of a client, those that a server has, too: it answers a body that is too short with an error of its own. */
static const struct bounds table[2][TYPES] =
    {
        [FRAME_FROM_CLIENT] =
            {
                ['B'] = BODY(0, LARGE), /* Bind */
                ['C'] = BODY(0, SMALL), /* Close */
                ['D'] = BODY(0, SMALL), /* Describe */
                ['E'] = BODY(0, SMALL), /* Execute */
                ['F'] = BODY(0, LARGE), /* FunctionCall */
                ['H'] = BODY(0, SMALL), /* Flush */
                ['P'] = BODY(0, LARGE), /* Parse */
                ['Q'] = BODY(0, LARGE), /* Query */
                ['S'] = BODY(0, SMALL), /* Sync */
                ['X'] = BODY(0, SMALL), /* Terminate */
                ['c'] = BODY(0, SMALL), /* CopyDone */
                ['d'] = BODY(0, LARGE), /* CopyData */
                ['f'] = BODY(0, SMALL), /* CopyFail */
                ['p'] = BODY(0, TOKEN), /* PasswordMessage, SASLInitialResponse, SASLResponse */
            },
        [FRAME_FROM_SERVER] =
            {
                ['1'] = BODY(0, 0),             /* ParseComplete */
                ['2'] = BODY(0, 0),             /* BindComplete */
                ['3'] = BODY(0, 0),             /* CloseComplete */
                ['A'] = BODY(6, TOKEN),         /* NotificationResponse */
                ['C'] = BODY(1, SMALL),         /* CommandComplete */
                ['D'] = BODY(2, LARGE),         /* DataRow */
                ['E'] = BODY(1, LARGE),         /* ErrorResponse */
                ['G'] = BODY(3, 3 + 2 * 65535), /* CopyInResponse */
                ['H'] = BODY(3, 3 + 2 * 65535), /* CopyOutResponse */
                ['I'] = BODY(0, 0),             /* EmptyQueryResponse */
                ['K'] = BODY(8, 4 + 256),       /* BackendKeyData */
                ['N'] = BODY(1, LARGE),         /* NoticeResponse */
                ['R'] = BODY(4, TOKEN),         /* Authentication... */
                ['S'] = BODY(2, MEDIUM),        /* ParameterStatus */
                ['T'] = BODY(2, LARGE),         /* RowDescription */
                ['V'] = BODY(4, LARGE),         /* FunctionCallResponse */
                ['W'] = BODY(3, 3 + 2 * 65535), /* CopyBothResponse */
                ['Z'] = BODY(1, 1),             /* ReadyForQuery */
                ['c'] = BODY(0, 0),             /* CopyDone */
                ['d'] = BODY(0, LARGE),         /* CopyData */
                ['n'] = BODY(0, 0),             /* NoData */
                ['s'] = BODY(0, 0),             /* PortalSuspended */
                ['t'] = BODY(2, 2 + 4 * 65535), /* ParameterDescription */
                ['v'] = BODY(8, SMALL),         /* NegotiateProtocolVersion */
            },
};

void frame_init(struct frame_cursor *cursor, enum frame_from from)
{
    *cursor = (struct frame_cursor){.from = (uint8_t)from};
}

bool frame_bounds(enum frame_from from, uint8_t type, uint32_t *least, uint32_t *most)
{
    if (type >= ARRAY_LENGTH(table[from]) || !table[from][type].known) {
        return false;
    }
    *least = table[from][type].least;
    *most = table[from][type].most;
    return true;
}

void frame_header(uint8_t header[FRAME_HEADER_SIZE], uint8_t type, uint32_t length)
{
    uint32_t whole = length + 4;
    header[0] = type;
    header[1] = (uint8_t)(whole >> 24);
    header[2] = (uint8_t)(whole >> 16);
    header[3] = (uint8_t)(whole >> 8);
    header[4] = (uint8_t)whole;
}

static void take(struct slice *rest, size_t count)
{
    rest->data += count;
    rest->length -= count;
}

/* The five bytes of a header that came in pieces, once they are there. */
static const uint8_t *gather_header(struct frame_cursor *cursor, struct slice *rest)
{
    const uint8_t *head = rest->data;
    size_t missing = (size_t)FRAME_HEADER_SIZE - cursor->header_have;
    size_t count = rest->length < missing ? rest->length : missing;
    if (count > 0) {
        memcpy(cursor->header + cursor->header_have, head, count);
        take(rest, count);
        cursor->header_have = (uint8_t)(cursor->header_have + count);
    }
    if (cursor->header_have < FRAME_HEADER_SIZE) {
        return NULL;
    }
    cursor->header_have = 0;
    return cursor->header;
}

/* What is shorter than its own length field, wraps, and is too long for any. */
static bool begin_message(struct frame_cursor *cursor, const uint8_t *head)
{
    uint32_t whole = (uint32_t)head[1] << 24 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 8 | head[4];
    uint32_t length = whole - 4;
    cursor->type = head[0];
    if (head[0] >= TYPES) {
        return false;
    }
    const struct bounds *bounds = &table[cursor->from][head[0]];
    if (!bounds->known || length < bounds->least || length > bounds->most) {
        return false;
    }
    cursor->length = length;
    cursor->left = length;
    cursor->quiet =
        cursor->quiet_rows && cursor->from == FRAME_FROM_SERVER && (head[0] == 'D' || head[0] == 'd');
    return true;
}

enum wire_answer frame_next(struct frame_cursor *cursor, struct slice *rest, struct frame_piece *piece)
{
    const uint8_t *data = rest->data;
    size_t length = rest->length;
    while (length > 0) {
        const uint8_t *head = NULL;
        if (cursor->left == 0) {
            if (cursor->header_have == 0 && length >= FRAME_HEADER_SIZE) {
                head = data;
                data += FRAME_HEADER_SIZE;
                length -= FRAME_HEADER_SIZE;
            } else {
                *rest = slice_of(data, length);
                head = gather_header(cursor, rest);
                data = rest->data;
                length = rest->length;
            }
            if (head == NULL) {
                return WIRE_PARTIAL;
            }
            if (!begin_message(cursor, head)) {
                *rest = slice_of(data, length);
                return WIRE_BAD;
            }
        }
        uint32_t left = cursor->left;
        size_t count = length < left ? length : left;
        data += count;
        length -= count;
        cursor->left = left - (uint32_t)count;
        if (!cursor->quiet) {
            *rest = slice_of(data, length);
            *piece = (struct frame_piece){.type = cursor->type,
                                          .first = head != NULL,
                                          .last = left == count,
                                          .length = cursor->length,
                                          .offset = cursor->length - left,
                                          .bytes = slice_of(data - count, count),
                                          .head = head};
            return WIRE_OK;
        }
    }
    *rest = slice_of(data, length);
    return WIRE_PARTIAL;
}

bool frame_capture(struct frame_capture *capture, const struct frame_piece *piece, struct slice *body)
{
    if (piece->first && piece->last) {
        *body = piece->bytes;
        return true;
    }
    if (piece->first) {
        capture->length = 0;
    }
    size_t room = sizeof capture->bytes - capture->length;
    size_t count = piece->bytes.length < room ? piece->bytes.length : room;
    if (count > 0) {
        memcpy(capture->bytes + capture->length, piece->bytes.data, count);
        capture->length += (uint32_t)count;
    }
    *body = slice_of(capture->bytes, capture->length);
    return piece->last;
}
