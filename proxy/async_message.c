#include "proxy/async_message.h"

#include "proxy/session.h"

#include <arpa/inet.h>
#include <stdlib.h>

/* A longer one is passed on as it comes. PostgreSQL's notifications are shorter than 8,000 bytes. */
enum { WITHHELD_MAX = 64 * 1024 };

static bool is_moved(const struct session *session, const struct server_link *link)
{
    return session->cancel_key.pid != 0 && link->pid != session->cancel_key.pid;
}

void async_map_pid(const struct session *session, const struct server_link *link, char *body)
{
    uint32_t pid = 0;
    memcpy(&pid, body, sizeof(pid));
    pid = ntohl(pid);
    if (!is_moved(session, link) || (pid != link->pid && pid != session->cancel_key.pid)) {
        return;
    }
    pid = htonl(pid == link->pid ? session->cancel_key.pid : link->pid);
    memcpy(body, &pid, sizeof(pid));
}

static bool append(struct async_withheld *withheld, const char *bytes, size_t length)
{
    char *grown = realloc(withheld->bytes, withheld->length + length);
    if (grown == NULL) {
        return false;
    }
    memcpy(grown + withheld->length, bytes, length);
    withheld->bytes = grown;
    withheld->length += length;
    return true;
}

size_t async_continue(struct session *session, struct server_link *link, const char *bytes, size_t length)
{
    struct async_withheld *withheld = &session->withheld;
    size_t rest = length < link->cursor.left ? length : link->cursor.left;
    if (withheld->bytes == NULL) {
        return 0;
    }
    bool ok = append(withheld, bytes, rest);
    if (ok && rest == link->cursor.left) {
        if (link->cursor.type == 'A') {
            async_map_pid(session, link, withheld->bytes + FRAME_HEADER_SIZE);
        }
        ok = stream_write(&session->client, withheld->bytes, withheld->length);
        async_forget(session);
    }
    if (!ok) {
        session_drop(session);
    }
    return rest;
}

bool async_is_withheld(const struct session *session, const struct server_link *link,
                       const struct frame_piece *piece)
{
    bool is_async = piece->type == 'A' || piece->type == 'N' || piece->type == 'S';
    if (!piece->first || piece->last || !is_async || piece->length > WITHHELD_MAX) {
        return false;
    }
    return boundary_at(&session->boundary) || (piece->type == 'A' && is_moved(session, link));
}

bool async_withhold(struct session *session, const char *from, size_t length)
{
    return append(&session->withheld, from, length);
}

void async_forget(struct session *session)
{
    free(session->withheld.bytes);
    session->withheld = (struct async_withheld){.bytes = NULL};
}
