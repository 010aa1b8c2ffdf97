/*
 * Statements that a session has prepared and its new server refuses: their table is gone, a temporary one
 * most often, which the next transaction will make again. On the old server they stand and fail only when
 * they are used; so on the new one they are prepared when they are used: a Parse goes in front of the message
 * that names one, and its ParseComplete is kept from the client. Either it succeeds, or the client gets the
 * error that it would have got, at the place where it would have come.
 *
 * move_replay.c finds them, relay.c asks here for each message that may name one. Most sessions have none.
 */
#ifndef SWITCHBACK_PROXY_MOVE_LATE_H
#define SWITCHBACK_PROXY_MOVE_LATE_H

#include "proxy/type_map.h"
#include "proxy/wire/frame.h"

struct move;

/* One of them: what a Parse would say. */
struct move_late {
    struct move_late *next;
    uint64_t number;          /* of the Parse that is on its way, see boundary.h, plus one; 0: none is */
    uint64_t replacing;       /* the same, of the client's own Parse of that name */
    bool closing;             /* its client has sent a Close */
    bool synced;              /* a Sync was sent behind that: whether it succeeds shows in its answer */
    const char *text, *types; /* "{23,25}", in the numbers of the server that it was read from */
    uint32_t message_length;
    uint8_t *message; /* a whole Parse, in the client's numbers */
    char name[];
};

/* --- the relay; move_has_late() is all that it costs --- */

bool move_has_late(const struct move *move);
enum move_late_verdict {
    LATE_NONE,  /* the message goes on */
    LATE_PARSE, /* *message goes before it */
    LATE_WAIT   /* the message must wait for the answer to such a one */
};
/* The first piece of a client's message. A name that is cut off in the piece is overlooked: the statement
 * doesn't exist then. */
MUST_USE enum move_late_verdict move_late_wanted(const struct move *move, const struct frame_piece *piece,
                                                 struct slice *message);
/* It was sent, as the Parse with that number (boundary->parses_sent). */
void move_late_sent(struct move *move, struct slice message, uint64_t number);
/* The server's ParseComplete of that Parse is ours, and not for the client. */
MUST_USE bool move_late_parsed(struct move *move, uint64_t parse);

/* Before its server is asked: from the client's numbers to that server's. */
void move_late_numbers(struct move *move, struct translation to_server);

/* --- the other files of the move --- */

/* to_client: from the numbers that types are in. False: out of memory. */
MUST_USE bool late_add(struct move_late **list, const char *name, const char *text, const char *types,
                       struct translation to_client);
struct move_late *late_find(struct move_late *list, struct slice name);
void late_remove(struct move_late **list, const struct move_late *late);
void late_free(struct move_late **list);

#endif
