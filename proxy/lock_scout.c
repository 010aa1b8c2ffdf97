#include "proxy/lock_scout.h"

#include "conf/base/log.h"
#include "proxy/mover.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <utlist.h>

enum { QUESTION_MAX = 16 * 1024 };

static bool lacks_answer(const struct session *session)
{
    return session->mover != NULL && session->mover->step == MOVER_READY && session_at_boundary(session) &&
           move_lacks_scout(session->move);
}

void scout_advance(struct worker *worker)
{
    struct mover_flip *flip = &worker->flip;
    struct session *session = NULL;
    struct session *scout = NULL;
    struct strbuf out;
    if (!flip->stands || !worker->hold.stands || flip->scout != NULL || flip->asking > 0 ||
        flip->replaying > 0) {
        return;
    }
    DL_FOREACH(worker->sessions, session)
    {
        if (lacks_answer(session)) {
            session->mover->scouted = true;
            scout = session;
        }
    }
    if (scout == NULL) {
        return;
    }
    strbuf_init(&out, QUESTION_MAX);
    flip->scout = scout;
    if (move_scout(scout->move, &out)) {
        mover_inject(scout, &out);
    } else {
        session_end(scout, "53200", "out of memory", NULL);
    }
    strbuf_deinit(&out);
}

static void found(struct worker *worker, uint32_t pid, const char *holding)
{
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        if (session->mover != NULL && session->mover->scouted && session->link != NULL &&
            session->link->pid == pid) {
            move_scouted(session->move, holding);
        }
    }
}

/* It is known of all that were asked about, or of none: then each asks for itself. */
static void finish(const struct session *scout, bool known)
{
    struct worker *worker = scout->worker;
    struct session *session = NULL;
    if (!known) {
        LOG_WARN("lock_scout_failed", LOG_U64("worker", worker->index));
    }
    DL_FOREACH(worker->sessions, session)
    {
        if (session->mover == NULL || !session->mover->scouted) {
            continue;
        }
        session->mover->scouted = false;
        if (session->mover->step != MOVER_READY) {
            continue; /* its target is gone: it will lack the answer again */
        }
        if (known) {
            move_scouted(session->move, NULL);
        } else {
            move_not_scouted(session->move);
        }
        mover_resettle(session);
        if (worker->flip.scout != scout) {
            return; /* the session has ended of it, and was the scout: another one asks for the rest */
        }
    }
    worker->flip.scout = NULL;
    scout_advance(worker);
}

void scout_answered(struct session *session, const struct frame_piece *piece)
{
    char holding[MOVE_HOLDING_SIZE];
    uint32_t pid = 0;
    switch (move_scout_answer(session->move, piece, &pid, holding)) {
    case MOVE_MORE:
        if (pid != 0) {
            found(session->worker, pid, holding);
        }
        break;
    case MOVE_DONE:
        finish(session, true);
        break;
    case MOVE_AGAIN:
    case MOVE_FAILED:
        finish(session, false);
        break;
    case MOVE_FATAL:
        session_end(session, "57P01", "the server ended the connection", NULL);
        break;
    }
}

void scout_forget(const struct session *session)
{
    struct worker *worker = session->worker;
    struct session *other = NULL;
    if (worker->flip.scout != session) {
        return;
    }
    worker->flip.scout = NULL;
    DL_FOREACH(worker->sessions, other)
    {
        if (other->mover != NULL) {
            other->mover->scouted = false;
        }
    }
}
