#include "proxy/session_list.h"

#include "conf/base/clock.h"
#include "proxy/answer.h"
#include "proxy/mover.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <utlist.h>

enum {
    ASKING_AT_ONCE = 2,        /* each client waits only for its own session */
    PATIENCE_US = 5 * 1000000, /* a server that doesn't answer keeps nobody waiting for the list */
    QUESTION_MAX = 1024 * 1024
};

static void finish(struct worker *worker)
{
    struct session_list *list = &worker->list;
    struct answer *answer = answer_new(worker, PROXY_EVENT_SESSIONS, list->request, worker->session_count,
                                       sizeof(struct proxy_session_info));
    struct proxy_session_info *infos = (struct proxy_session_info *)(void *)answer->data;
    int64_t now_us = clock_mono_us();
    size_t i = 0;
    struct session *session = NULL;
    list->stands = false;
    DL_FOREACH(worker->sessions, session)
    {
        session->list_due = false;
        session_describe(session, now_us, &infos[i++]);
    }
    answer_post(worker, answer);
}

static void ask(struct session *session)
{
    struct worker *worker = session->worker;
    struct strbuf out;
    strbuf_init(&out, QUESTION_MAX);
    if (move_ask(session->move, &out) && !out.failed && out.length > 0) {
        session->list_asked = true;
        worker->list.asking++;
        mover_inject(session, &out);
    } else if (!move_is_dirty(session->move)) { /* nothing was done since it was asked, or ever */
        session->asked_us = clock_mono_us();
        move_forget_state(session->move);
    }
    strbuf_deinit(&out);
}

static bool can_ask(const struct session *session)
{
    return session->established && !session->closing && !session->finishing && !session->terminated &&
           session->link != NULL && session->mover == NULL && !session->startup.replication &&
           session_at_boundary(session);
}

static void advance(struct worker *worker)
{
    struct session_list *list = &worker->list;
    struct session *session = NULL;
    if (!list->stands) {
        return;
    }
    DL_FOREACH(worker->sessions, session)
    {
        if (list->asking >= ASKING_AT_ONCE || worker->flip.stands || worker->hold.stands) {
            break;
        }
        if (session->list_due && can_ask(session)) {
            session->list_due = false;
            ask(session);
        }
    }
    if (list->asking == 0) { /* whoever is busy is told as it is known */
        finish(worker);
    }
}

void session_list_begin(struct worker *worker, uint64_t request, bool wanted)
{
    struct session_list *list = &worker->list;
    struct session *session = NULL;
    if (list->stands) { /* what is being asked goes on, unlisted */
        finish(worker);
    }
    *list = (struct session_list){.stands = true,
                                  .request = request,
                                  .asking = list->asking,
                                  .deadline_us = clock_mono_us() + PATIENCE_US};
    if (!wanted || worker->stopping) {
        finish(worker);
        return;
    }
    DL_FOREACH(worker->sessions, session)
    {
        session->list_due = true;
    }
    worker_want_tick(worker);
    advance(worker);
}

void session_list_answered(struct session *session, enum move_answer answer)
{
    if (answer == MOVE_AGAIN && session->mover == NULL && session_at_boundary(session)) {
        struct strbuf out;
        strbuf_init(&out, QUESTION_MAX);
        bool more = move_ask(session->move, &out) && !out.failed && out.length > 0;
        if (more) {
            mover_inject(session, &out);
        }
        strbuf_deinit(&out);
        if (more) {
            return;
        }
    }
    if (answer == MOVE_DONE) {
        session->asked_us = clock_mono_us();
        session_set_immovable(session, !move_is_movable(session->move, NULL, 0));
    }
    if (session->mover == NULL) {
        move_forget_state(session->move);
    }
    session_note_state(session); /* it was active for our question only */
    session_list_forget(session);
}

void session_list_forget(struct session *session)
{
    struct worker *worker = session->worker;
    session->list_due = false;
    if (session->list_asked) {
        session->list_asked = false;
        worker->list.asking--;
        advance(worker);
    }
}

void session_list_check_deadline(struct worker *worker, int64_t now_us)
{
    if (worker->list.stands && now_us >= worker->list.deadline_us) {
        finish(worker);
    }
}
