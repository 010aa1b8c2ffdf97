#include "proxy/mover_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/answer.h"
#include "proxy/in_doubt.h"
#include "proxy/lock_scout.h"
#include "proxy/move_late.h"
#include "proxy/relay.h"
#include "proxy/renumber.h"
#include "proxy/session.h"
#include "proxy/wire/decode.h"
#include "proxy/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

enum {
    /* before the hold a client waits only while its own session is asked: few at a time, so that each is
     * asked quickly */
    ASKING_AT_ONCE = 2,
    /* ARMED doesn't wait longer than this for a session that is in the middle of something */
    BUSY_PATIENCE_US = 500 * 1000,
    PATIENCE_TICK_MS = 50,
    ROUNDS_MAX = 100,               /* of replaying, in one flip */
    QUESTION_MAX = 16 * 1024 * 1024 /* the messages of one asking or replaying */
};

/* Alone changes a session's step, and with it how many are at it. */
void mover_set_step(struct session *session, enum mover_step step)
{
    struct mover_flip *flip = &session->worker->flip;
    enum mover_step old = session->mover->step;
    flip->opening += (unsigned)(step == MOVER_OPENING) - (unsigned)(old == MOVER_OPENING);
    flip->asking += (unsigned)(step == MOVER_ASKING) - (unsigned)(old == MOVER_ASKING);
    flip->replaying += (unsigned)(step == MOVER_REPLAYING) - (unsigned)(old == MOVER_REPLAYING);
    session->mover->step = step;
}

/* --- the worker's part --- */

static void answer_armed(struct worker *worker)
{
    struct answer *answer = answer_new(worker, PROXY_EVENT_ARMED, worker->flip.id, 0, 0);
    answer->counts.sessions = worker->session_count;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        mover_count(session, &answer->counts, answer->reason);
    }
    worker->flip.answered = true;
    (void)uv_timer_stop(&worker->flip.timer);
    answer_post(worker, answer);
}

/* It is busy with something of its own, and has been for long enough. */
static bool is_left_for_later(const struct session *session, int64_t now_us)
{
    return session->mover->step == MOVER_WAITING && !session_at_boundary(session) &&
           now_us - session->worker->flip.begun_us > BUSY_PATIENCE_US;
}

static void check_armed(struct worker *worker)
{
    int64_t now_us = clock_mono_us();
    if (!worker->flip.stands || worker->flip.answered) {
        return;
    }
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        if (session->mover != NULL && session->mover->awaited && !session->mover->settled &&
            now_us < worker->flip.deadline_us && !is_left_for_later(session, now_us)) {
            return;
        }
    }
    answer_armed(worker);
}

static void on_timer(uv_timer_t *timer)
{
    check_armed(CONTAINER_OF(timer, struct worker, flip.timer));
}

/* A place has become free: the next ones. */
void mover_advance_others(struct worker *worker)
{
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        if (session->mover != NULL &&
            (session->mover->step == MOVER_QUEUED || session->mover->step == MOVER_WAITING)) {
            mover_advance(session);
        }
    }
}

/* --- asking and replaying --- */

void mover_fail(struct session *session, const char *reason)
{
    struct mover *mover = session->mover;
    (void)snprintf(mover->failure, sizeof(mover->failure), "%s", reason);
    if (mover->target != NULL) {
        link_close(mover->target, false);
        mover->target = NULL;
    }
    numbering_free(mover->numbering);
    mover->numbering = NULL;
    move_reset_target(session->move);
    LOG_INFO("session_move_failed", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("reason", mover->failure));
    mover_settle(session, MOVER_FAILED);
}

void mover_settle(struct session *session, enum mover_step step)
{
    mover_set_step(session, step);
    session->mover->settled = true;
    session_update(session);
    check_armed(session->worker);
    scout_advance(session->worker);
}

void mover_replay(struct session *session)
{
    struct mover *mover = session->mover;
    struct strbuf out;
    struct move_numbers numbers;
    strbuf_init(&out, QUESTION_MAX);
    if (mover->target == NULL) {
        mover_reopen_target(session, "the target closed the connection");
    } else if (!renumber_target(session, mover->target, &numbers)) {
        mover_fail(session, "out of memory");
    } else if (!move_replay(session->move, &numbers, &out) || out.failed) {
        mover_fail(session, move_failure(session->move));
    } else if (out.length == 0 && (move_is_ready(session->move) || move_lacks_scout(session->move))) {
        mover_settle(session, MOVER_READY);
    } else if (out.length == 0 || mover->rounds++ == ROUNDS_MAX) {
        mover_fail(session, "its state does not come to rest");
    } else {
        mover_set_step(session, MOVER_REPLAYING);
        link_write(mover->target, out.data, out.length);
    }
    strbuf_deinit(&out);
}

/* Its state is known as well as it can be. */
static void on_known(struct session *session)
{
    bool movable = !session->mover->hopeless && move_is_movable(session->move, NULL, 0);
    session_set_immovable(session, !movable);
    session->asked_us = clock_mono_us();
    if (movable) {
        mover_replay(session);
    } else {
        mover_settle(session, MOVER_IMMOVABLE);
    }
}

static void ask(struct session *session)
{
    struct mover *mover = session->mover;
    struct strbuf out;
    strbuf_init(&out, QUESTION_MAX);
    mover->hopeless = !move_ask(session->move, &out) || out.failed;
    if (mover->hopeless || out.length == 0) {
        strbuf_deinit(&out);
        on_known(session);
        return;
    }
    mover_set_step(session, MOVER_ASKING);
    mover_inject(session, &out);
    strbuf_deinit(&out);
}

void mover_inject(struct session *session, const struct strbuf *question)
{
    session->link->cursor.quiet_rows = false;
    boundary_inject(&session->boundary, clock_mono_us());
    link_write(session->link, question->data, question->length);
    session_update(session);
}

void mover_resettle(struct session *session)
{
    bool movable = move_is_movable(session->move, NULL, 0);
    session_set_immovable(session, !movable);
    mover_settle(session, movable ? MOVER_READY : MOVER_IMMOVABLE);
}

void mover_asked(struct session *session, const struct frame_piece *piece, const struct boundary_step *step)
{
    if (step->kind == BOUNDARY_READY) {
        session->link->cursor.quiet_rows = true;
    }
    if (session->worker->flip.scout == session) {
        scout_answered(session, piece);
        return;
    }
    if (move_has_late(session->move)) {
        static const struct translation none = {.map = NULL};
        move_late_numbers(session->move,
                          session->numbering != NULL ? numbering_to_server(session->numbering) : none);
    }
    enum move_answer answer = move_ask_answer(session->move, piece);
    if (answer == MOVE_MORE) {
        return;
    }
    struct worker *worker = session->worker;
    bool wanted = session->mover != NULL && session->mover->step == MOVER_ASKING;
    if (wanted) {
        mover_set_step(session, MOVER_WAITING);
    }
    if (answer == MOVE_FATAL) {
        session_end(session, "57P01", "the server ended the connection", NULL);
    } else if (session->list_asked) {
        session_list_answered(session, answer);
        mover_advance(session);
    } else if (wanted && answer == MOVE_AGAIN) {
        ask(session);
    } else if (wanted) {
        session->mover->hopeless = answer == MOVE_FAILED;
        on_known(session);
    }
    if (!worker->hold.stands) { /* in a hold nobody waits for its turn to be asked */
        mover_advance_others(worker);
    }
}

void mover_advance(struct session *session)
{
    struct mover *mover = session->mover;
    struct worker *worker = session->worker;
    if (session->closing || session->finishing || session->link == NULL || mover == NULL) {
        return;
    }
    bool held = worker->hold.stands;
    switch (mover->step) {
    case MOVER_QUEUED:
        mover_open_target(session);
        break;
    case MOVER_WAITING:
        if ((held || worker->flip.asking < ASKING_AT_ONCE) && session_at_boundary(session)) {
            ask(session);
        }
        break;
    case MOVER_READY:
    case MOVER_IMMOVABLE:
        /* what the traffic since may have changed is asked when no more can come */
        if (held && !mover_is_settled(session) && session_at_boundary(session)) {
            if (move_lacks_scout(session->move)) {
                scout_advance(worker);
            } else {
                ask(session);
            }
        }
        break;
    default:
        break;
    }
}

bool mover_is_settled(const struct session *session)
{
    const struct mover *mover = session->mover;
    if (mover == NULL || mover->step == MOVER_FAILED || mover->hopeless) {
        return true;
    }
    if (mover->step == MOVER_READY) {
        return move_is_ready(session->move);
    }
    return mover->step == MOVER_IMMOVABLE && (mover->target == NULL || !move_is_dirty(session->move));
}

void mover_count(const struct session *session, struct proxy_counts *counts, char reason[PROXY_REASON_SIZE])
{
    const struct mover *mover = session->mover;
    if (mover == NULL) {
        return;
    }
    counts->armed += mover->step == MOVER_READY;
    counts->immovable += mover->step == MOVER_IMMOVABLE;
    counts->failed += mover->step == MOVER_FAILED;
    if (mover->step == MOVER_FAILED && reason[0] == '\0') {
        memcpy(reason, mover->failure, sizeof(mover->failure));
    }
}

/* --- arm, swap, disarm --- */

static void disarm_sessions(struct worker *worker)
{
    struct session *session = NULL;
    worker->flip.stands = false;
    (void)uv_timer_stop(&worker->flip.timer);
    DL_FOREACH(worker->sessions, session)
    {
        mover_session_end(session);
    }
}

static void arm_session(struct session *session, bool awaited)
{
    if (!session->established || session->closing || session->finishing || session->mover != NULL) {
        return;
    }
    session->mover = calloc(1, sizeof(*session->mover));
    if (session->mover == NULL) {
        LOG_ERROR("session_move_failed", LOG_U64("session", session->id), LOG_STR("reason", "out of memory"));
        return;
    }
    session->mover->awaited = awaited;
    if (session->startup.replication) {
        mover_settle(session, MOVER_IMMOVABLE); /* not worth a link */
    } else {
        mover_advance(session);
    }
}

void mover_arm(struct worker *worker, uint64_t flip, struct proxy_route target, int64_t timeout_us)
{
    int64_t now_us = clock_mono_us();
    disarm_sessions(worker);
    struct mover_flip *part = &worker->flip;
    part->stands = true;
    part->id = flip;
    part->target = target;
    part->answered = true; /* not before all have begun */
    part->begun_us = now_us;
    part->deadline_us = now_us + timeout_us;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        arm_session(session, true);
    }
    part->answered = false;
    check_armed(worker);
    if (!part->answered) {
        ENSURE(uv_timer_start(&part->timer, on_timer, PATIENCE_TICK_MS, PATIENCE_TICK_MS) == 0);
    }
}

/* The target link becomes the session's server. */
static void swap_session(struct session *session, const struct proxy_route *route)
{
    struct server_link *target = session->mover->target;
    session->mover->target = NULL;
    link_retire(session_unlink(session));
    target->events = &relay_link_events;
    target->epoch = route->epoch;
    target->cursor.quiet_rows = true;
    target->half_seen = target->cursor.left > 0; /* its rest is for nobody, as its beginning was */
    async_forget(session);
    session_link(session, target);
    session->watch.cancelling = false; /* that was of the old one */
    boundary_init(&session->boundary);
    in_doubt_begin(session);
    session->untold = move_swapped(session->move);
    bool renumbered = renumber_swapped(session);
    mover_session_end(session);
    if (!renumbered) {
        session_end(session, "53200", "out of memory", NULL);
    }
}

static bool can_swap(const struct session *session, const struct proxy_route *route)
{
    const struct mover *mover = session->mover;
    return mover != NULL && mover->step == MOVER_READY && mover->target != NULL &&
           mover->target->side == route->side && mover->target->phase == LINK_READY &&
           move_is_ready(session->move) && session_at_boundary(session);
}

static void end_immovable(struct session *session)
{
    char reasons[PROXY_REASON_SIZE] = "";
    char message[PROXY_REASON_SIZE + 64];
    if (session->mover != NULL && session->mover->step == MOVER_FAILED) {
        memcpy(reasons, session->mover->failure, sizeof(reasons));
    } else {
        (void)move_is_movable(session->move, reasons, sizeof(reasons));
    }
    (void)snprintf(message, sizeof(message), "the session can't move to the new active side%s%s",
                   reasons[0] != '\0' ? ": " : "", reasons);
    session_end(session, "57P01", message, NULL);
}

void mover_swap(struct worker *worker, uint64_t flip, struct proxy_route route)
{
    struct answer *answer = answer_new(worker, PROXY_EVENT_SWAPPED, flip, 0, 0);
    if (worker->flip.id !=
        flip) { /* nothing was armed for this one (a takeover): what an earlier one left ends */
        disarm_sessions(worker);
    }
    worker->hold.route = route;
    side_health_forget(worker, route.side);
    answer->counts.disconnected = worker->hold.ended;
    worker->hold.ended = 0;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        if (!session->established || session->closing || session->finishing) {
            continue;
        }
        if (session->link->side == route.side) {
            session->link->epoch = route.epoch; /* traffic stays, or comes back before it moved */
        } else if (can_swap(session, &route)) {
            swap_session(session, &route);
            answer->counts.moved++;
        } else {
            end_immovable(session);
            answer->counts.disconnected++;
        }
    }
    answer->counts.sessions = worker->session_count;
    LOG_DEBUG("sessions_swapped", LOG_U64("flip", flip), LOG_U64("worker", worker->index),
              LOG_STR("side", side_name(route.side)), LOG_U64("moved", answer->counts.moved),
              LOG_U64("disconnected", answer->counts.disconnected));
    answer_post(worker, answer);
}

void mover_disarm(struct worker *worker, uint64_t flip)
{
    disarm_sessions(worker);
    answer_post(worker, answer_new(worker, PROXY_EVENT_DISARMED, flip, 0, 0));
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        session_update(session); /* whoever a hold waited for has nothing left to do */
    }
}

/* --- life of a session --- */

void mover_each_parameter(struct slice greeting, struct session *session,
                          void (*note)(struct session *session, struct slice name, struct slice value))
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, FRAME_FROM_SERVER);
    while (frame_next(&cursor, &greeting, &piece) == WIRE_OK) {
        struct slice name, value;
        if (piece.type == 'S' && piece.first && piece.last &&
            decode_parameter_status(piece.bytes, &name, &value)) {
            note(session, name, value);
        }
    }
}

static void note_parameter(struct session *session, struct slice name, struct slice value)
{
    move_parameter(session->move, name, value);
}

bool mover_session_begin(struct session *session, struct slice greeting)
{
    session->move = move_new(session->startup.replication);
    if (session->move == NULL) {
        return false;
    }
    if (!renumber_begin(session)) {
        return false;
    }
    mover_each_parameter(greeting, session, note_parameter);
    const struct mover_flip *flip = &session->worker->flip;
    if (flip->stands && session->link->side != flip->target.side) { /* else it began where the others moved */
        arm_session(session, false);
    }
    return true;
}

void mover_session_end(struct session *session)
{
    struct mover *mover = session->mover;
    struct mover_flip *flip = &session->worker->flip;
    if (mover == NULL) {
        return;
    }
    enum mover_step step = mover->step;
    bool was_scout = flip->scout == session;
    mover_set_step(session, MOVER_FAILED);
    scout_forget(session);
    if (mover->target != NULL) {
        link_close(mover->target, mover->target->phase == LINK_READY && step != MOVER_REPLAYING);
        move_reset_target(session->move);
    }
    numbering_free(mover->numbering);
    free(mover);
    session->mover = NULL;
    if (flip->stands) {
        if (step == MOVER_ASKING || step == MOVER_OPENING) { /* it makes room */
            mover_advance_others(session->worker);
        }
        if (step == MOVER_ASKING || step == MOVER_REPLAYING || was_scout) {
            scout_advance(session->worker);
        }
        check_armed(session->worker);
    }
}
