/* The link to the target: opened, listened to, lost and opened again. */
#include "proxy/mover_internal.h"

#include "proxy/session.h"
#include "proxy/wire/decode.h"
#include "proxy/worker.h"

#include <stdio.h>

enum {
    OPENING_AT_ONCE = 16, /* the target is not to be flooded with logins */
    LOSSES_MAX = 3        /* a target that ends so often won't have it */
};

static void note_target_parameter(struct session *session, struct slice name, struct slice value)
{
    move_target_parameter(session->move, name, value);
}

static void on_target_ready(struct server_link *link, struct slice greeting)
{
    struct session *session = link->session;
    mover_each_parameter(greeting, session, note_target_parameter);
    mover_set_step(session, MOVER_WAITING);
    mover_advance(session);
    mover_advance_others(session->worker);
}

static void on_target_failed(struct server_link *link, const struct link_failure *failure)
{
    struct session *session = link->session;
    char reason[PROXY_REASON_SIZE];
    (void)snprintf(reason, sizeof(reason), "login to %s: %.200s", side_name(link->side), failure->message);
    session->mover->target = NULL; /* it closes itself */
    mover_fail(session, reason);
    mover_advance_others(session->worker);
}

/* A backend that is terminated, or a target that was restarted, is no reason to leave the session behind. */
void mover_reopen_target(struct session *session, const char *reason)
{
    struct mover *mover = session->mover;
    if (mover->losses == LOSSES_MAX) {
        mover_fail(session, reason);
        return;
    }
    mover->losses++;
    move_lose_target(session->move);
    mover_set_step(session, MOVER_QUEUED);
    session_update(session);
}

static void lose_target(struct session *session, const char *reason, bool again)
{
    struct mover *mover = session->mover;
    link_close(mover->target, false);
    mover->target = NULL;
    mover->losses = again ? mover->losses : LOSSES_MAX;
    if (mover->step != MOVER_ASKING) { /* else when the answer has come */
        mover_reopen_target(session, reason);
    }
}

static void on_target_received(struct server_link *link, char *bytes, size_t length)
{
    struct session *session = link->session;
    struct slice rest = slice_of(bytes, length);
    struct frame_piece piece;
    enum wire_answer answer;
    while ((answer = frame_next(&link->cursor, &rest, &piece)) == WIRE_OK) {
        struct slice name, value;
        if (session->mover->step != MOVER_REPLAYING) {
            if (piece.type == 'S' && piece.first && piece.last &&
                decode_parameter_status(piece.bytes, &name, &value)) {
                move_target_parameter(session->move, name, value);
            }
            continue;
        }
        switch (move_replay_answer(session->move, &piece, session->mover->numbering)) {
        case MOVE_MORE:
            break;
        case MOVE_AGAIN:
            mover_replay(session);
            break;
        case MOVE_DONE:
            mover_settle(session, move_is_movable(session->move, NULL, 0) ? MOVER_READY : MOVER_IMMOVABLE);
            break;
        case MOVE_FAILED: /* this session's state, not the target */
            session_set_immovable(session, true);
            mover_settle(session, MOVER_IMMOVABLE);
            break;
        case MOVE_FATAL:
            mover_fail(session, move_failure(session->move));
            return;
        }
        if (session->mover == NULL || session->mover->target != link) {
            return;
        }
    }
    if (answer == WIRE_BAD) {
        lose_target(session, "the target broke the protocol", false);
    }
}

static void on_target_blocked(struct server_link *link)
{
    (void)link;
}

static void on_target_sent(struct server_link *link)
{
    (void)link;
}

static void on_target_ended(struct server_link *link, int status)
{
    (void)status;
    lose_target(link->session, "the target closed the connection", true);
}

static const struct link_events target_events = {.ready = on_target_ready,
                                                 .failed = on_target_failed,
                                                 .received = on_target_received,
                                                 .blocked = on_target_blocked,
                                                 .sent = on_target_sent,
                                                 .ended = on_target_ended};

void mover_open_target(struct session *session)
{
    struct mover_flip *flip = &session->worker->flip;
    if (flip->opening >= OPENING_AT_ONCE) {
        return;
    }
    session->mover->target = link_open(session, flip->target.side, flip->target.epoch, &target_events);
    if (session->mover->target == NULL) {
        mover_fail(session, "the target link could not be opened");
        return;
    }
    mover_set_step(session, MOVER_OPENING);
}
