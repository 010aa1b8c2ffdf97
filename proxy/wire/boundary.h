/*
 * The boundary: does this session owe anything? A queue of owed replies, fed by the relay with every message
 * of both directions, in the order in which the proxy forwards them. It follows what a server does with them
 * (tcop/postgres.c: exec loop, ignore_till_sync; commands/copyfromparse.c): one ReadyForQuery for each Query,
 * Sync and FunctionCall; after an error in an extended message everything up to Sync is skipped, a Query too;
 * in copy-in Flush and Sync are ignored, CopyDone and CopyFail end it, anything else ends the connection.
 *
 * Messages are counted, not listed: a segment is what one ReadyForQuery ends, and equal segments in a row are
 * one entry. When too many are owed, boundary_client() says WAIT; an unfinished segment never counts for
 * that, so nothing is held back that waits for a Sync.
 */
#ifndef SWITCHBACK_PROXY_WIRE_BOUNDARY_H
#define SWITCHBACK_PROXY_WIRE_BOUNDARY_H

#include "proxy/wire/frame.h"

enum { BOUNDARY_SEGMENTS = 16 };

enum boundary_end {
    BOUNDARY_END_NONE, /* not sent yet: the segment is open */
    BOUNDARY_END_SYNC,
    BOUNDARY_END_QUERY,
    BOUNDARY_END_FUNCTION,
    BOUNDARY_END_COPY /* CopyDone or CopyFail: owes nothing by itself */
};

struct boundary_segment {
    int64_t start_us;    /* when its first message was forwarded */
    uint32_t pending;    /* extended messages not answered yet */
    uint32_t parses;     /* of them, Parse */
    uint32_t statements; /* Query, Execute, FunctionCall in it, for statistics */
    uint32_t repeat;     /* this many equal segments in a row */
    uint8_t end;         /* enum boundary_end */
    bool data;           /* data of a copy was sent behind it, before the server asked for any */
};

struct boundary {
    struct boundary_segment segments[BOUNDARY_SEGMENTS]; /* a ring; the first one is being answered */
    uint8_t head, count;
    char status;        /* of the last ReadyForQuery: I, T, E */
    uint8_t copy;       /* of the first segment */
    bool skipping;      /* the server ignores everything up to the first segment's Sync */
    bool failed;        /* the segment being answered had an ErrorResponse */
    bool answering;     /* something of the first segment's answer has come */
    bool parse_counted; /* the Parse that passed last has a number: parses_sent - 1 */
    uint8_t verdict;    /* on the client's message at hand */
    uint32_t executed;  /* Executes answered in the first segment */
    bool ours;          /* what is being answered was injected by boundary_inject() */
    int64_t ours_us;    /* since then */
    bool ours_seen;     /* the first reply to it was seen */
    uint8_t aside;      /* FunctionCalls of boundary_aside() that are not answered yet */
    uint32_t doubtful;  /* Syncs that the server may have answered or ignored, as its COPY failed meanwhile */
    uint32_t copy_syncs;      /* of them, those behind the last data of the COPY under way */
    uint64_t parses_sent;     /* Parse messages that the server must answer; the number of the next one */
    uint64_t parses_answered; /* all below this number are answered or came to nothing */
    int64_t ready_us;         /* of the last ReadyForQuery */
    struct frame_capture capture;
};

/* What a client message is to do. */
enum boundary_verdict {
    BOUNDARY_FORWARD,
    BOUNDARY_WAIT /* too much is owed, or we are asking: keep it, and show it again after the next reply */
};

/* What a server message meant. */
enum boundary_kind {
    BOUNDARY_NOTHING,  /* pass it on */
    BOUNDARY_PARSED,   /* ParseComplete of the Parse with number `parse` */
    BOUNDARY_COMPLETE, /* CommandComplete: body is the tag (cut to FRAME_CAPTURE_SIZE) */
    BOUNDARY_ERROR,  /* ErrorResponse: sqlstate, fatal; Parse numbers from `parse` to `parse_end` - 1 came to
                        nothing */
    BOUNDARY_STATUS, /* ParameterStatus: body, unasked; passed on even while ours */
    BOUNDARY_READY   /* ReadyForQuery: statements, latency_us */
};

struct boundary_step {
    enum boundary_kind kind;
    bool ours;         /* a reply to what we injected: not passed to the client. NoticeResponses, too */
    bool aside;        /* a reply to a FunctionCall of boundary_aside(): not passed on, either */
    bool unasked;      /* BOUNDARY_STATUS: nothing of the client's is being answered: a reload */
    struct slice body; /* lies in the piece or in the capture */
    uint64_t parse, parse_end;
    char sqlstate[6]; /* "" if the server sent none */
    bool fatal;
    bool panic;          /* the fatal error is a PANIC, which may come in the middle of a commit */
    uint32_t statements; /* BOUNDARY_READY: how many statements were answered */
    bool failed;         /* BOUNDARY_READY: one of them failed */
    int64_t latency_us;  /* BOUNDARY_READY: from the later of its sending and the ReadyForQuery before */
};

/* Right after login, when the server has sent its first ReadyForQuery. */
void boundary_init(struct boundary *boundary);

/* A piece that the client sent, just before it is forwarded. The verdict holds for the whole message. */
MUST_USE enum boundary_verdict boundary_client(struct boundary *boundary, const struct frame_piece *piece,
                                               int64_t now_us);

/* A piece that the server sent, just before it is passed on. kind says something at last pieces only; `ours`
 * is right for every piece. */
void boundary_server(struct boundary *boundary, const struct frame_piece *piece, int64_t now_us,
                     struct boundary_step *step);

/* Our own extended messages with exactly one Sync are sent next: their replies are marked `ours`. Only at the
 * boundary. */
void boundary_inject(struct boundary *boundary, int64_t now_us);

/*
 * So many FunctionCalls of ours go in front of what the client sends next, in a transaction or not: nobody
 * waits for them. Only if boundary_aside_may().
 */
void boundary_aside(struct boundary *boundary, unsigned calls);
bool boundary_aside_may(const struct boundary *boundary);
/* For boundary_server(): true if the piece answers one. Notifications and parameters are the client's. */
MUST_USE bool boundary_aside_server(struct boundary *boundary, const struct frame_piece *piece, bool complete,
                                    struct boundary_step *step);

/*
 * Nothing is owed, nothing was sent since the last Sync, no transaction is open. Whoever acts on it also
 * needs both frame cursors idle. One ReadyForQuery may still come, for a Sync behind a COPY that failed: it
 * is passed on as any other message, and told from the answer to what we inject.
 */
bool boundary_at(const struct boundary *boundary);
bool boundary_owes(const struct boundary *boundary); /* a reply, or an unfinished segment */
/* The server has something to do, or the client its part of a COPY; not: a pipeline without Sync that waits
 * for more. */
bool boundary_is_working(const struct boundary *boundary);
bool boundary_may_owe(const struct boundary *boundary); /* the same, and a Sync that may have been ignored */
bool boundary_in_transaction(const struct boundary *boundary);
bool boundary_in_copy_in(const struct boundary *boundary);
/* When what is being answered began, microseconds; 0: nothing is. */
int64_t boundary_since_us(const struct boundary *boundary);
/* When what is being answered was injected; 0: it wasn't. */
int64_t boundary_ours_since_us(const struct boundary *boundary);

#endif
