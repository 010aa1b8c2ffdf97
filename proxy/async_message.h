/*
 * Asynchronous messages of a server (NotificationResponse, NoticeResponse, ParameterStatus) on their way to
 * the client. Two things are done to them, both rarely:
 *
 * - A half one is withheld until the rest has come, if it began at the boundary: a session whose client has
 *   seen the beginning of a message could not be swapped.
 * - In a session that a flip has moved, the pid in a notification is mapped: the client was told the pid of
 *   its first server, and asks "was it me?". The pid of its own server becomes that one, and that one, which
 *   is somebody else's now, becomes its own server's.
 *
 * relay.c calls it.
 */
#ifndef SWITCHBACK_PROXY_ASYNC_MESSAGE_H
#define SWITCHBACK_PROXY_ASYNC_MESSAGE_H

#include "proxy/wire/frame.h"

struct server_link;
struct session;

/* A whole or half message of an asynchronous type, kept; nothing is usually. */
struct async_withheld {
    char *bytes; /* NULL: nothing is withheld */
    size_t length;
};

/*
 * The beginning of a range that the server sent, before its pieces are looked at: how many of its bytes
 * belong to what is withheld, and are not to be passed on; a message that they complete has been sent to the
 * client then. Check session->closing.
 */
MUST_USE size_t async_continue(struct session *session, struct server_link *link, const char *bytes,
                               size_t length);

/* The last piece of a range is the beginning of a message: shall it be withheld? */
bool async_is_withheld(const struct session *session, const struct server_link *link,
                       const struct frame_piece *piece);
/* False: out of memory. */
MUST_USE bool async_withhold(struct session *session, const char *from, size_t length);
/* Its link is gone. */
void async_forget(struct session *session);

/* A NotificationResponse that is whole: maps its pid where it stands; body is the piece's. */
void async_map_pid(const struct session *session, const struct server_link *link, char *body);

#endif
