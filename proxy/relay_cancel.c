#include "proxy/relay_cancel.h"

#include "proxy/relay.h"
#include "proxy/route_hold.h"
#include "proxy/session.h"
#include "proxy/wire/build.h"

enum { CANCELLED_SIZE = 256 };

static void send_ready(struct session *session)
{
    uint8_t packet[FRAME_HEADER_SIZE + 1];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_ready(&build, 'I');
    session->discard = RELAY_DISCARD_NOTHING;
    if (!stream_write(&session->client, packet, build.length)) {
        session_drop(session);
    }
}

bool relay_discards(struct session *session, const struct frame_piece *piece)
{
    if (session->discard == RELAY_DISCARD_NOTHING || piece->type == 'X') {
        return false;
    }
    if (piece->last && (session->discard == RELAY_DISCARD_MESSAGE || piece->type == 'S')) {
        send_ready(session);
    }
    return true;
}

bool relay_cancel_kept(struct session *session)
{
    if (session->boundary.ours) {
        session->cancel_waits = true; /* when our question is answered */
        return true;
    }
    if (session->kept == NULL || session->discard != RELAY_DISCARD_NOTHING || !session_at_boundary(session)) {
        return false;
    }
    switch (session->kept[0]) {
    case 'Q':
    case 'F':
        session->discard = RELAY_DISCARD_MESSAGE;
        break;
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
    case 'H':
        session->discard = RELAY_DISCARD_TO_SYNC;
        break;
    default:
        return false;
    }
    uint8_t packet[CANCELLED_SIZE];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_error(&build, "ERROR", "57014", "canceling statement due to user request", NULL);
    if (!build_fits(&build) || !stream_write(&session->client, packet, build.length)) {
        session_drop(session);
        return true;
    }
    hold_note_given_up(session);
    relay_resume(session);
    return true;
}
