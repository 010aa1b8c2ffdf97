#include "proxy/route_hold.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/answer.h"
#include "proxy/cancel.h"
#include "proxy/login_client.h"
#include "proxy/relay.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <stdlib.h>
#include <utlist.h>

/* PROGRESS is told at most this often. */
enum { PROGRESS_INTERVAL_MS = 10, CANCEL_AGAIN_US = 200 * 1000 };

bool hold_gate_closed(const struct worker *worker)
{
    return worker->hold.stands || !worker->hold.route.open;
}

bool hold_is_refusing(const struct worker *worker)
{
    return worker->hold.refusing;
}

/*
 * Behind a closed gate a session works on until its boundary, one unit (up to Sync, Query or FunctionCall) at
 * a time: the next one is begun only when the answer to the last one has told that a transaction is open.
 */
static bool may_begin(const struct boundary *boundary, uint8_t type)
{
    if (boundary->copy != 0 || type == 'X') {
        return true;
    }
    if (boundary->count > 0) {
        const struct boundary_segment *last =
            &boundary->segments[(boundary->head + boundary->count - 1U) % BOUNDARY_SEGMENTS];
        return last->end == BOUNDARY_END_NONE;
    }
    return boundary_in_transaction(boundary);
}

enum hold_verdict hold_check(const struct session *session, uint8_t type)
{
    const struct route_hold *hold = &session->worker->hold;
    const struct proxy_route *route = &hold->route;
    if (session->link->epoch != route->epoch || session->link->side != route->side) {
        return HOLD_ELSEWHERE;
    }
    if (!hold->stands && route->open) {
        return HOLD_PASS;
    }
    if (may_begin(&session->boundary, type)) {
        return HOLD_PASS;
    }
    return hold->refusing ? HOLD_REFUSE : HOLD_KEEP;
}

/* --- who waits --- */

void hold_note_waiting(struct session *session)
{
    struct worker *worker = session->worker;
    int64_t now_us = clock_mono_us();
    if (worker->hold.stands) {
        session->deadline_us = 0; /* the hold's own counts */
    } else if (session->deadline_us == 0) {
        session->deadline_us = now_us + worker->config->max_hold_us;
        worker_want_tick(worker);
    }
    if (session->kept_since_us != 0) {
        return;
    }
    session->kept_since_us = now_us;
    counter_add(&worker->statistics.sessions_waiting, 1);
    _Atomic int64_t *oldest = &worker->statistics.oldest_wait_since_us;
    if (atomic_load_explicit(oldest, memory_order_relaxed) == 0) {
        atomic_store_explicit(oldest, session->kept_since_us, memory_order_relaxed);
    }
}

static void note_stall(struct route_hold *hold, int64_t stall_us)
{
    if (hold->stall_count == hold->stall_capacity) {
        size_t capacity = hold->stall_capacity == 0 ? 64 : 2 * hold->stall_capacity;
        int64_t *stalls = realloc(hold->stalls, capacity * sizeof(*stalls));
        if (stalls == NULL) {
            return; /* a figure less in the report */
        }
        hold->stalls = stalls;
        hold->stall_capacity = capacity;
    }
    hold->stalls[hold->stall_count++] = stall_us;
}

void hold_note_forwarded(struct session *session)
{
    if (session->kept_since_us != 0) {
        note_stall(&session->worker->hold, clock_mono_us() - session->kept_since_us);
        hold_note_given_up(session);
    }
}

void hold_note_given_up(struct session *session)
{
    struct statistics *statistics = &session->worker->statistics;
    if (session->kept_since_us == 0) {
        return;
    }
    session->kept_since_us = 0;
    session->deadline_us = session->established ? 0 : session->deadline_us;
    counter_add(&statistics->sessions_waiting, (uint64_t)-1);
    if (counter_read(&statistics->sessions_waiting) == 0) {
        atomic_store_explicit(&statistics->oldest_wait_since_us, 0, memory_order_relaxed);
    }
}

bool hold_may_cancel(const struct session *session)
{
    const struct server_link *link = session->link;
    const struct proxy_route *route = &session->worker->hold.route;
    return link != NULL && link->phase == LINK_READY && link->pid != 0 && link->epoch == route->epoch &&
           link->side == route->side && !session->boundary.ours;
}

/* --- draining --- */

static void tell(struct worker *worker, enum proxy_event_kind kind)
{
    struct answer *answer = answer_new(worker, kind, worker->hold.id, 0, 0);
    answer->counts.sessions = worker->session_count;
    answer->counts.undrained = worker->hold.undrained;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        mover_count(session, &answer->counts, answer->reason);
    }
    answer_post(worker, answer);
}

static void on_timer(uv_timer_t *timer);

static void set_timer(struct worker *worker)
{
    int64_t left_us = worker->hold.deadline_us - clock_mono_us();
    uint64_t left_ms = left_us > 0 ? (uint64_t)left_us / 1000 + 1 : 0;
    if (worker->hold.progress_due && left_ms > PROGRESS_INTERVAL_MS) {
        left_ms = PROGRESS_INTERVAL_MS;
    }
    uv_update_time(&worker->loop);
    ENSURE(uv_timer_start(&worker->hold.timer, on_timer, left_ms, 0) == 0);
}

static bool is_drained(const struct session *session)
{
    if (session->closing || session->finishing) {
        return true;
    }
    if (session->established && session->startup.replication && session->boundary.copy != 0) {
        return true; /* a replication stream doesn't write, and has no boundary before its end */
    }
    return session_at_boundary(session) && mover_is_settled(session);
}

void hold_note_session(struct session *session)
{
    struct route_hold *hold = &session->worker->hold;
    bool undrained = !is_drained(session);
    if (undrained == session->undrained) {
        return;
    }
    session->undrained = undrained;
    hold->undrained += undrained ? 1 : (uint64_t)-1;
    if (hold->refusing) {
        return;
    }
    if (hold->undrained == 0) {
        hold->progress_due = false;
        tell(session->worker, PROXY_EVENT_PROGRESS);
    } else if (!hold->progress_due) {
        hold->progress_due = true;
        set_timer(session->worker);
    }
}

void hold_begin(struct worker *worker, uint64_t id, int64_t deadline_us, enum proxy_expire expire)
{
    struct route_hold *hold = &worker->hold;
    hold->stands = true;
    hold->cancelled_us = 0;
    hold->refusing = false;
    hold->id = id;
    hold->deadline_us = deadline_us;
    hold->expire = expire;
    hold->stall_count = 0;
    hold->ended = 0;
    hold->undrained = 0;
    hold->progress_due = false;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        session->undrained = false;
        login_client_suspend(session);
        session->undrained = !is_drained(session);
        hold->undrained += session->undrained;
    }
    DL_FOREACH(worker->sessions, session)
    {
        session_update(session);
    }
    set_timer(worker);
    tell(worker, PROXY_EVENT_HELD);
}

/* --- the end of a hold --- */

static void open_gate(struct worker *worker, enum proxy_event_kind kind)
{
    struct route_hold *hold = &worker->hold;
    hold->stands = false;
    hold->cancelled_us = 0;
    hold->refusing = false;
    hold->progress_due = false;
    (void)uv_timer_stop(&hold->timer);
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        session->undrained = false;
        if (login_client_waits(session)) {
            login_client_resume(session);
        } else if (session->established) {
            relay_resume(session);
        }
    }
    struct answer *answer = answer_new(worker, kind, hold->id, hold->stall_count, sizeof(int64_t));
    answer->counts.sessions = worker->session_count;
    if (hold->stall_count > 0) {
        memcpy(answer->data, hold->stalls, hold->stall_count * sizeof(int64_t));
    }
    hold->stall_count = 0;
    answer_post(worker, answer);
}

/* The deadline has passed, and where traffic may go is not known: nobody waits any longer. */
static void refuse_all(struct worker *worker)
{
    struct route_hold *hold = &worker->hold;
    hold->refusing = true;
    (void)uv_timer_stop(&hold->timer);
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        bool waits = login_client_waits(session) || session->kept != NULL || !is_drained(session);
        if (waits && !session->closing && !session->finishing) {
            session_end(session, "57P03", "no side is active now", NULL);
        }
    }
    tell(worker, PROXY_EVENT_EXPIRED);
}

static void end_by_deadline(struct worker *worker)
{
    struct route_hold *hold = &worker->hold;
    bool release = hold->expire == PROXY_EXPIRE_RELEASE;
    LOG_WARN("hold_expired", LOG_U64("hold", hold->id), LOG_U64("worker", worker->index),
             LOG_STR("then", release ? "release" : "refuse"));
    if (release) {
        open_gate(worker, PROXY_EVENT_EXPIRED);
    } else {
        refuse_all(worker);
    }
}

void hold_expire_now(struct worker *worker, uint64_t id)
{
    struct route_hold *hold = &worker->hold;
    if (hold->stands && !hold->refusing && hold->id == id) {
        end_by_deadline(worker);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct worker *worker = CONTAINER_OF(timer, struct worker, hold.timer);
    struct route_hold *hold = &worker->hold;
    if (clock_mono_us() >= hold->deadline_us) {
        end_by_deadline(worker);
        return;
    }
    if (hold->progress_due) {
        hold->progress_due = false;
        tell(worker, PROXY_EVENT_PROGRESS);
    }
    set_timer(worker);
}

void hold_release(struct worker *worker, uint64_t id)
{
    struct route_hold *hold = &worker->hold;
    if (hold->stands && hold->id == id) {
        open_gate(worker, PROXY_EVENT_RELEASED);
    } else { /* its deadline was first, or another hold stands in its place */
        answer_post(worker, answer_new(worker, PROXY_EVENT_RELEASED, id, 0, 0));
    }
}

void hold_set_expire(struct worker *worker, uint64_t id, int64_t deadline_us, enum proxy_expire expire)
{
    struct route_hold *hold = &worker->hold;
    struct answer *answer = answer_new(worker, PROXY_EVENT_EXPIRE_SET, id, 0, 0);
    if (hold->stands && !hold->refusing && hold->id == id) {
        hold->deadline_us = deadline_us;
        hold->expire = expire;
        set_timer(worker);
    } else {
        (void)snprintf(answer->reason, sizeof(answer->reason), "the hold is over");
    }
    answer_post(worker, answer);
}

/* --- commands on what is not drained --- */

/* What runs since before that time. The cancel must not meet what its client sends next, in its transaction
 * or after the hold: that waits until the server has it (relay.c). */
static void cancel_undrained(struct worker *worker, int64_t since_us)
{
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        if (session->undrained && session->established && boundary_owes(&session->boundary) &&
            boundary_since_us(&session->boundary) <= since_us && hold_may_cancel(session) &&
            session->link->cancels == 0) {
            session->watch.cancelling = true;
            cancel_link(session->link, NULL);
        }
    }
}

void hold_cancel_undrained(struct worker *worker, uint64_t id)
{
    struct route_hold *hold = &worker->hold;
    if (!hold->stands || hold->id != id) {
        return;
    }
    hold->cancelled_us = clock_mono_us();
    hold->cancel_again_us = hold->cancelled_us + CANCEL_AGAIN_US;
    cancel_undrained(worker, hold->cancelled_us);
    worker_want_tick(worker);
}

void hold_cancel_again(struct worker *worker, int64_t now_us)
{
    struct route_hold *hold = &worker->hold;
    if (hold->cancelled_us != 0 && hold->stands && now_us >= hold->cancel_again_us) {
        hold->cancel_again_us = now_us + CANCEL_AGAIN_US;
        cancel_undrained(worker, hold->cancelled_us);
    }
}

void hold_terminate_undrained(struct worker *worker, uint64_t id)
{
    struct session *session = NULL;
    if (!worker->hold.stands || worker->hold.id != id) {
        return;
    }
    DL_FOREACH(worker->sessions, session)
    {
        if (session->undrained) {
            worker->hold.ended++;
            session_end(session, "57P01", "the session is in the way of a flip", NULL);
        }
    }
}

/* --- the route --- */

void hold_set_route(struct worker *worker, struct proxy_route route)
{
    struct route_hold *hold = &worker->hold;
    if (hold->route.side != route.side) {
        side_health_forget(worker, route.side);
    }
    hold->route = route;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        struct server_link *link = session->link;
        if (link != NULL && link->side == route.side) {
            /* since it was opened no other side was active: a swap would have closed it */
            link->epoch = route.epoch;
        } else if (link != NULL) {
            if (login_client_connects(session)) {
                login_client_suspend(session);
            } else {
                session_end(session, "57P01", "the session's server is no longer the active one", NULL);
            }
        }
    }
    if (hold_gate_closed(worker)) {
        return;
    }
    DL_FOREACH(worker->sessions, session)
    {
        if (login_client_waits(session)) {
            login_client_resume(session);
        } else if (session->established) {
            relay_resume(session);
        }
    }
}
