#include "proxy/wire/boundary.h"

#include "conf/base/ensure.h"
#include "proxy/wire/decode.h"

enum copy { COPY_NONE, COPY_IN, COPY_BOTH };

/* Kept free for a first segment that must be split, and for one that is open. */
enum { RESERVED_SEGMENTS = 2 };

void boundary_init(struct boundary *boundary)
{
    *boundary = (struct boundary){.status = 'I'};
}

static struct boundary_segment *segment_at(struct boundary *b, unsigned index)
{
    return &b->segments[(b->head + index) % BOUNDARY_SEGMENTS];
}

static struct boundary_segment *front(struct boundary *b)
{
    return b->count == 0 ? NULL : segment_at(b, 0);
}

static void pop(struct boundary *b)
{
    b->head = (uint8_t)((b->head + 1) % BOUNDARY_SEGMENTS);
    b->count--;
}

static struct boundary_segment *push(struct boundary *b, int64_t now_us)
{
    ENSURE(b->count < BOUNDARY_SEGMENTS);
    struct boundary_segment *segment = segment_at(b, b->count);
    b->count++;
    *segment = (struct boundary_segment){.start_us = now_us, .repeat = 1};
    return segment;
}

/* The segment that the client is sending. */
static struct boundary_segment *open_segment(struct boundary *b, int64_t now_us)
{
    if (b->count > 0) {
        struct boundary_segment *last = segment_at(b, b->count - 1U);
        if (last->end == BOUNDARY_END_NONE) {
            return last;
        }
    }
    return push(b, now_us);
}

/* Ends the last segment, and counts it as a repetition of the one before if it is one. The first segment is
 * never merged into: it is partly answered. */
static void close_segment(struct boundary *b, enum boundary_end end, int64_t now_us)
{
    struct boundary_segment *last = open_segment(b, now_us);
    last->end = (uint8_t)end;
    last->data = false; /* what there was, came before its end */
    if (b->count < 3) {
        return;
    }
    struct boundary_segment *before = segment_at(b, b->count - 2U);
    if (before->end == last->end && before->pending == last->pending && before->parses == last->parses &&
        before->statements == last->statements && !before->data && before->repeat < UINT32_MAX) {
        before->repeat++;
        b->count--;
    }
}

/* Makes sure that the first segment stands for itself alone. */
static void split_front(struct boundary *b)
{
    struct boundary_segment *first = front(b);
    if (first == NULL || first->repeat == 1) {
        return;
    }
    ENSURE(b->count < BOUNDARY_SEGMENTS);
    first->repeat--;
    struct boundary_segment single = *first;
    single.repeat = 1;
    b->head = (uint8_t)((b->head + BOUNDARY_SEGMENTS - 1) % BOUNDARY_SEGMENTS);
    b->count++;
    *segment_at(b, 0) = single;
}

/* A CopyDone or CopyFail outside of a copy owes nothing. */
static void drop_settled(struct boundary *b)
{
    while (b->count > 0 && front(b)->end == BOUNDARY_END_COPY && front(b)->pending == 0) {
        pop(b);
    }
}

static bool is_full(const struct boundary *b)
{
    if (b->count < BOUNDARY_SEGMENTS - RESERVED_SEGMENTS) {
        return false;
    }
    return b->segments[(b->head + b->count - 1) % BOUNDARY_SEGMENTS].end != BOUNDARY_END_NONE;
}

/*
 * A message that doesn't belong into a copy ends the connection, for the server has read its type. If the
 * connection lives on, the copy had failed before, and so the Syncs just before it were not ignored.
 */
static void restore_syncs(struct boundary *b, int64_t now_us)
{
    uint32_t syncs = b->copy_syncs;
    b->doubtful -= syncs;
    b->copy_syncs = 0;
    if (syncs > 0) {
        close_segment(b, BOUNDARY_END_SYNC, now_us); /* of the Execute; behind a Query it is one of its own */
    }
    if (syncs > 1) {
        close_segment(b, BOUNDARY_END_SYNC, now_us);
        segment_at(b, b->count - 1U)->repeat += syncs - 2;
    }
}

/* The server reads this message as part of its COPY FROM STDIN. False: it is counted like any other. */
static bool client_in_copy(struct boundary *b, uint8_t type, int64_t now_us)
{
    switch (type) {
    case 'd':
        b->copy_syncs = 0; /* it may fail on this very row, having read them */
        return true;
    case 'H':
    case 'X':
        return true;
    case 'S':
        b->doubtful++;
        b->copy_syncs++;
        return true;
    case 'c':
    case 'f':
        b->copy = COPY_NONE;
        return true;
    default:
        b->copy = COPY_NONE;
        restore_syncs(b, now_us);
        return false;
    }
}

/* Sent before the server asked for data, or long after it refused them. */
static void client_copy_end(struct boundary *b, int64_t now_us)
{
    struct boundary_segment *last = segment_at(b, b->count - 1U);
    if (b->copy == COPY_BOTH) {
        return;
    }
    if (last->end == BOUNDARY_END_COPY && last->pending == 0) {
        last->repeat++;
    } else if (b->count < BOUNDARY_SEGMENTS - 1) {
        close_segment(b, BOUNDARY_END_COPY, now_us);
    }
}

static void client_counted(struct boundary *b, const struct frame_piece *piece, int64_t now_us)
{
    struct boundary_segment *segment = NULL;
    switch (piece->type) {
    case 'P':
        segment = open_segment(b, now_us);
        segment->parses++;
        segment->pending++;
        b->parses_sent++;
        b->parse_counted = true;
        return;
    case 'E':
        segment = open_segment(b, now_us);
        segment->statements++;
        segment->pending++;
        return;
    case 'B':
    case 'C':
    case 'D':
        open_segment(b, now_us)->pending++;
        return;
    case 'Q':
        open_segment(b, now_us)->statements++;
        close_segment(b, BOUNDARY_END_QUERY, now_us);
        return;
    case 'F':
        open_segment(b, now_us)->statements++;
        close_segment(b, BOUNDARY_END_FUNCTION, now_us);
        return;
    case 'S':
        close_segment(b, BOUNDARY_END_SYNC, now_us);
        return;
    case 'c':
    case 'f':
        client_copy_end(b, now_us);
        return;
    case 'd':
        segment_at(b, b->count - 1U)->data = true;
        return;
    case 'H': /* owes nothing, unless it has a body: that is an error like any extended message's */
        if (piece->length > 0) {
            open_segment(b, now_us)->pending++;
        }
        return;
    default: /* Terminate owes nothing */
        return;
    }
}

static bool is_copy_message(uint8_t type)
{
    return type == 'd' || type == 'c' || type == 'f';
}

enum boundary_verdict boundary_client(struct boundary *b, const struct frame_piece *piece, int64_t now_us)
{
    if (!piece->first) {
        return (enum boundary_verdict)b->verdict;
    }
    b->parse_counted = false;
    b->verdict = BOUNDARY_FORWARD;
    if (b->ours) {
        return BOUNDARY_WAIT;
    }
    if (b->copy == COPY_IN && client_in_copy(b, piece->type, now_us)) {
        return BOUNDARY_FORWARD;
    }
    if (is_copy_message(piece->type) && b->count == 0) {
        /* it comes after its COPY has failed: any server ignores it */
    } else if (b->skipping && b->count == 1 && front(b)->end == BOUNDARY_END_NONE) {
        if (piece->type == 'S') {
            close_segment(b, BOUNDARY_END_SYNC, now_us);
        }
    } else if (is_full(b) && !is_copy_message(piece->type) && piece->type != 'X') {
        return BOUNDARY_WAIT;
    } else {
        client_counted(b, piece, now_us);
    }
    return (enum boundary_verdict)b->verdict;
}

enum copy_ahead_end {
    AHEAD_OPEN,   /* nothing else was sent: the copy goes on */
    AHEAD_ENDED,  /* CopyDone or CopyFail */
    AHEAD_FOREIGN /* a message that a copy would die of: this one must fail before */
};

/* What the client has sent behind the command of a COPY already. */
struct copy_ahead {
    enum copy_ahead_end end;
    uint32_t
        doubtful; /* Syncs that the server ignores if the copy reads so far, and answers if it fails before */
    uint32_t last; /* of them, those behind the last data */
};

/*
 * Before a foreign message the copy has failed, at some of the data: the Syncs behind the last of it are
 * answered for certain. `own`: the first segment is the command's own, with an Execute.
 */
static struct copy_ahead look_ahead(struct boundary *b, bool own)
{
    uint32_t syncs = 0;
    uint32_t before_data = 0;
    for (unsigned i = own ? 0 : 1; i < b->count; i++) {
        const struct boundary_segment *segment = segment_at(b, i);
        if (segment->pending > (own && i == 0 ? 1U : 0U) || segment->end == BOUNDARY_END_QUERY ||
            segment->end == BOUNDARY_END_FUNCTION) {
            return (struct copy_ahead){.end = AHEAD_FOREIGN, .doubtful = before_data};
        }
        if (segment->end == BOUNDARY_END_COPY) {
            return (struct copy_ahead){.end = AHEAD_ENDED, .doubtful = syncs};
        }
        syncs += segment->end == BOUNDARY_END_SYNC ? segment->repeat : 0;
        before_data = segment->data ? syncs : before_data;
    }
    return (struct copy_ahead){.end = AHEAD_OPEN, .doubtful = syncs, .last = syncs - before_data};
}

/* The first segment, an Execute's, goes on in the next one: what ended it doesn't count, or not for certain.
 */
static void merge_next(struct boundary *b, int64_t now_us)
{
    struct boundary_segment merged = *front(b);
    pop(b);
    if (b->count == 0) {
        (void)push(b, now_us);
    }
    split_front(b);
    struct boundary_segment *next = front(b);
    next->start_us = merged.start_us;
    next->pending += merged.pending;
    next->parses += merged.parses;
    next->statements += merged.statements;
}

/* The COPY of an Execute. */
static void copy_in_extended(struct boundary *b, const struct copy_ahead *ahead, int64_t now_us)
{
    uint32_t left = ahead->doubtful + (ahead->end == AHEAD_ENDED ? 1 : 0);
    for (; left > 0; left--) {
        merge_next(b, now_us);
    }
}

/* The COPY of a Query: what follows it are segments of their own. */
static void copy_in_simple(struct boundary *b, const struct copy_ahead *ahead)
{
    struct boundary_segment query = *front(b);
    uint32_t left = ahead->doubtful + (ahead->end == AHEAD_ENDED ? 1 : 0);
    pop(b);
    for (; left > 0; left--) {
        split_front(b);
        pop(b);
    }
    b->head = (uint8_t)((b->head + BOUNDARY_SEGMENTS - 1) % BOUNDARY_SEGMENTS);
    b->count++;
    *segment_at(b, 0) = query;
}

static void server_copy_in(struct boundary *b, int64_t now_us)
{
    b->copy_syncs = 0;
    if (b->count == 0) {
        return;
    }
    split_front(b);
    bool is_extended = front(b)->pending > 0;
    if (!is_extended && front(b)->end != BOUNDARY_END_QUERY) {
        return;
    }
    struct copy_ahead ahead = look_ahead(b, is_extended);
    if (is_extended) {
        copy_in_extended(b, &ahead, now_us);
    } else {
        copy_in_simple(b, &ahead);
    }
    b->copy = ahead.end == AHEAD_OPEN ? COPY_IN : COPY_NONE;
    b->copy_syncs = ahead.last;
    b->doubtful += ahead.doubtful;
}

/* The server ignores what stands before the next Sync: none of it will be answered. */
static void skip_to_sync(struct boundary *b, int64_t now_us)
{
    split_front(b);
    struct boundary_segment skipped = *front(b);
    b->parses_answered += skipped.parses;
    skipped.pending = 0;
    skipped.parses = 0;
    if (skipped.statements > b->executed) {
        skipped.statements = b->executed + 1; /* the others were never run */
    }
    while (skipped.end != BOUNDARY_END_SYNC && skipped.end != BOUNDARY_END_NONE) {
        pop(b);
        if (b->count == 0) {
            (void)push(b, now_us);
        }
        split_front(b);
        struct boundary_segment *next = front(b);
        b->parses_answered += next->parses;
        skipped.end = next->end;
    }
    *front(b) = skipped;
    b->skipping = true;
}

static void server_error(struct boundary *b, int64_t now_us, struct boundary_step *step)
{
    struct decode_error error;
    decode_error(step->body, &error);
    (void)slice_copy(error.sqlstate, step->sqlstate, sizeof step->sqlstate);
    step->kind = BOUNDARY_ERROR;
    step->fatal = decode_error_is_fatal(&error);
    step->panic = slice_equals(error.severity, "PANIC");
    step->parse = b->parses_answered;
    b->copy = COPY_NONE;
    if (b->count > 0 && !b->ours) {
        b->failed = true;
        if (front(b)->pending > 0 || front(b)->end == BOUNDARY_END_NONE) {
            skip_to_sync(b, now_us);
        }
    }
    step->parse_end = b->parses_answered;
}

/* No Query or Execute is answered by a ReadyForQuery alone. */
static bool is_early(const struct boundary *b, const struct boundary_segment *first)
{
    return b->doubtful > 0 && !b->answering && (first->pending > 0 || first->end != BOUNDARY_END_SYNC);
}

static void server_ready(struct boundary *b, int64_t now_us, struct boundary_step *step)
{
    step->kind = BOUNDARY_READY;
    b->status = step->body.length > 0 ? (char)step->body.data[0] : b->status;
    b->copy = COPY_NONE;
    struct boundary_segment *first = front(b);
    while (first != NULL && first->end == BOUNDARY_END_COPY && (first->pending == 0 || !is_early(b, first))) {
        b->parses_answered += first->parses;
        pop(b);
        first = front(b);
    }
    if (first == NULL || first->end == BOUNDARY_END_NONE || is_early(b, first)) {
        /* the answer to a Sync that we thought ignored */
        b->doubtful -= b->doubtful > 0 ? 1 : 0;
        if (first != NULL && b->skipping && first->end == BOUNDARY_END_NONE) {
            pop(b);
        }
    } else {
        int64_t begin_us = first->start_us > b->ready_us ? first->start_us : b->ready_us;
        step->statements = first->statements;
        step->latency_us = now_us - begin_us;
        b->parses_answered += first->parses;
        first->repeat--;
        if (first->repeat == 0) {
            pop(b);
        }
    }
    step->failed = b->failed;
    b->failed = false;
    b->answering = false;
    b->skipping = false;
    b->executed = 0;
    b->ready_us = now_us;
    drop_settled(b);
}

/* One extended message was answered. */
static void server_answered(struct boundary *b, uint8_t type, struct boundary_step *step)
{
    struct boundary_segment *first = NULL;
    if (b->count > 0 && front(b)->pending > 0) {
        split_front(b);
        first = front(b);
        first->pending--;
        b->executed += type == 'C' || type == 'I' || type == 's' ? 1 : 0;
    }
    if (type == '1' && first != NULL && first->parses > 0) {
        first->parses--;
        step->kind = BOUNDARY_PARSED;
        step->parse = b->parses_answered;
        b->parses_answered++;
    }
    if (!b->failed) {
        b->doubtful = 0; /* a later message is answered, or the copy was a success */
    }
    drop_settled(b);
}

static void server_ours(struct boundary *b, const struct frame_piece *piece, int64_t now_us,
                        struct boundary_step *step)
{
    if (piece->type == 'A' || piece->type == 'S') {
        return;
    }
    if (piece->type == 'Z' && !b->ours_seen) {
        return; /* not ours yet: the answer to a doubtful Sync */
    }
    step->ours = true;
    b->ours_seen = b->ours_seen || piece->type != 'N';
    if (!piece->last) {
        return;
    }
    if (piece->type == 'E') {
        server_error(b, now_us, step);
    } else if (piece->type == 'Z') {
        step->kind = BOUNDARY_READY;
        b->status = step->body.length > 0 ? (char)step->body.data[0] : b->status;
        b->ready_us = now_us;
        b->doubtful = 0;
        b->ours = false;
    }
}

void boundary_server(struct boundary *b, const struct frame_piece *piece, int64_t now_us,
                     struct boundary_step *step)
{
    *step = (struct boundary_step){.kind = BOUNDARY_NOTHING};
    if (piece->type == 'D' || piece->type == 'd') {
        step->ours = b->ours;
        return;
    }
    bool complete = frame_capture(&b->capture, piece, &step->body);
    if (b->ours) {
        server_ours(b, piece, now_us, step);
        if (complete && piece->type == 'S') {
            step->kind = BOUNDARY_STATUS;
            step->unasked = true;
        }
        return;
    }
    if (b->aside > 0 && boundary_aside_server(b, piece, complete, step)) {
        return;
    }
    if (!complete) {
        return;
    }
    b->answering = b->answering ||
                   (piece->type != 'Z' && piece->type != 'N' && piece->type != 'S' && piece->type != 'A');
    switch (piece->type) {
    case 'C':
        b->copy = COPY_NONE;
        step->kind = BOUNDARY_COMPLETE;
        server_answered(b, piece->type, step);
        return;
    case '1':
    case '2':
    case '3':
    case 'I':
    case 'T':
    case 'n':
    case 's':
        server_answered(b, piece->type, step);
        return;
    case 'E':
        server_error(b, now_us, step);
        return;
    case 'G':
        server_copy_in(b, now_us);
        return;
    case 'W':
        b->copy = COPY_BOTH;
        return;
    case 'S':
        step->kind = BOUNDARY_STATUS;
        step->unasked = boundary_at(b);
        return;
    case 'Z':
        server_ready(b, now_us, step);
        return;
    default:
        return;
    }
}

void boundary_inject(struct boundary *b, int64_t now_us)
{
    ENSURE(b->count == 0 && !b->ours);
    b->ours = true;
    b->ours_us = now_us;
    b->ours_seen = false;
}

bool boundary_owes(const struct boundary *b)
{
    return b->count > 0 || b->ours || b->aside > 0;
}

bool boundary_may_owe(const struct boundary *b)
{
    return boundary_owes(b) || b->doubtful > 0;
}

bool boundary_at(const struct boundary *b)
{
    return !boundary_owes(b) && b->copy == COPY_NONE && b->status == 'I';
}

bool boundary_in_transaction(const struct boundary *b)
{
    return b->status != 'I';
}

bool boundary_in_copy_in(const struct boundary *b)
{
    return b->copy == COPY_IN;
}

bool boundary_is_working(const struct boundary *b)
{
    if (b->count == 0) {
        return false;
    }
    const struct boundary_segment *first = &b->segments[b->head];
    return first->pending > 0 || first->end != BOUNDARY_END_NONE || b->copy != 0;
}

int64_t boundary_since_us(const struct boundary *b)
{
    if (b->count == 0) {
        return 0;
    }
    int64_t start_us = b->segments[b->head].start_us;
    return start_us > b->ready_us ? start_us : b->ready_us;
}

int64_t boundary_ours_since_us(const struct boundary *b)
{
    return b->ours ? b->ours_us : 0;
}
