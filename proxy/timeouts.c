#include "proxy/timeouts.h"

#include "conf/base/log.h"
#include "proxy/cancel.h"
#include "proxy/in_doubt.h"
#include "proxy/login_client.h"
#include "proxy/route_hold.h"
#include "proxy/session.h"
#include "proxy/side_health.h"
#include "proxy/wire/build.h"
#include "proxy/worker.h"

enum {
    /* a timeout is kept to a tenth of itself, within these */
    INTERVAL_PART = 10,
    INTERVAL_LEAST_US = 100000,
    INTERVAL_MOST_US = 1000000,
    /* a cancel may come at a moment when the server doesn't listen: it is repeated, for a while, and then a
     * server that doesn't end the statement is not waited for */
    CANCEL_REPEAT_US = 2 * 1000000,
    CANCEL_GRACE_US = 10 * 1000000,
    NOTICE_SIZE = 256
};

/* --- which are on --- */

static int64_t shorter(int64_t shortest_us, int64_t timeout_us)
{
    return timeout_us > 0 && timeout_us < shortest_us ? timeout_us : shortest_us;
}

static int64_t shortest(const struct settings_timeouts *timeouts)
{
    int64_t shortest_us = shorter(INT64_MAX, timeouts->client_idle_us);
    shortest_us = shorter(shortest_us, timeouts->idle_in_transaction_us);
    shortest_us = shorter(shortest_us, timeouts->query_us);
    return shorter(shortest_us, timeouts->hold_notice_us);
}

bool timeouts_are_set(const struct proxy_config *config)
{
    return shortest(&config->timeouts) != INT64_MAX;
}

int64_t timeouts_interval_us(const struct proxy_config *config)
{
    int64_t interval_us = shortest(&config->timeouts) / INTERVAL_PART;
    interval_us = interval_us < INTERVAL_LEAST_US ? INTERVAL_LEAST_US : interval_us;
    return interval_us > INTERVAL_MOST_US ? INTERVAL_MOST_US : interval_us;
}

static void count(const struct session *session, enum proxy_timeout timeout)
{
    counter_add(&session->worker->statistics.timeouts[timeout], 1);
}

/* --- deadlines of the session itself --- */

static void end_login(struct session *session)
{
    if (login_client_waits(session)) {
        session_end(
            session, "57P03",
            login_client_awaits(session) ? "the active side does not answer" : "no side is active now", NULL);
        return;
    }
    if (session->worker->stopping && login_client_is_silent(session)) {
        session_drop(session); /* it had a last moment to say what it wants */
        return;
    }
    counter_add(&session->worker->statistics.logins_failed, 1);
    if (login_client_connects(session)) {
        count(session, PROXY_TIMEOUT_SERVER_CONNECT);
        side_health_failed(session->worker, session->link->side, "it did not answer in time");
        session_end(session, "57P03", "the database server did not answer in time", NULL);
        return;
    }
    count(session, PROXY_TIMEOUT_LOGIN);
    if (login_client_is_silent(session)) {
        session_drop(session); /* as PostgreSQL does: who has said nothing is told nothing */
    } else {
        session_end(session, "57014", "canceling authentication due to timeout", NULL);
    }
}

static void check_deadline(struct session *session, int64_t now_us)
{
    if (session->deadline_us == 0 || now_us < session->deadline_us) {
        return;
    }
    session->deadline_us = 0;
    if (session->in_doubt != NULL) {
        in_doubt_settle(session, PROXY_OUTCOME_UNKNOWN);
    } else if (session->finishing || login_client_is_cancel(session)) {
        session_drop(session);
    } else if (session->login != NULL) {
        end_login(session);
    } else {
        session_end(session, "57P03", "no side is active now", NULL);
    }
}

/* --- idling --- */

void timeouts_note(struct session *session)
{
    struct session_watch *watch = &session->watch;
    enum quiet quiet = QUIET_NOT;
    if (session->boundary.ours) {
        return; /* our own question, of which the client knows nothing */
    }
    if (session->state == SESSION_IDLE || session->state == SESSION_HELD) {
        quiet = QUIET_IDLE;
    } else if (session->state == SESSION_TRANSACTION) {
        quiet = QUIET_IN_TRANSACTION;
    }
    if (quiet != watch->quiet) {
        watch->quiet = quiet;
        watch->quiet_since_us = session->state_since_us; /* its state has just changed */
    }
}

static void check_quiet(struct session *session, int64_t now_us)
{
    const struct settings_timeouts *timeouts = &session->worker->config->timeouts;
    const struct session_watch *watch = &session->watch;
    int64_t quiet_us = now_us - watch->quiet_since_us;
    if (session->kept != NULL || session->boundary.ours || session->startup.replication) {
        return;
    }
    if (watch->quiet == QUIET_IDLE && timeouts->client_idle_us > 0 && quiet_us >= timeouts->client_idle_us) {
        count(session, PROXY_TIMEOUT_CLIENT_IDLE);
        session_end(session, "57P05", "terminating connection due to idle-session timeout", NULL);
    } else if (watch->quiet == QUIET_IN_TRANSACTION && timeouts->idle_in_transaction_us > 0 &&
               quiet_us >= timeouts->idle_in_transaction_us) {
        count(session, PROXY_TIMEOUT_IDLE_IN_TRANSACTION);
        session_end(session, "25P03", "terminating connection due to idle-in-transaction timeout", NULL);
    }
}

/* --- a statement --- */

/* Follows what the server works on: a request, or in a pipeline without Sync each of its Executes. */
static void follow_request(struct session *session, int64_t now_us)
{
    struct session_watch *watch = &session->watch;
    const struct boundary *boundary = &session->boundary;
    int64_t request_us = boundary_since_us(boundary);
    if (request_us != watch->request_us) {
        watch->since_us = request_us;
    } else if (boundary->executed != watch->executed || !boundary_is_working(boundary)) {
        watch->since_us = now_us;
    } else {
        return;
    }
    watch->request_us = request_us;
    watch->executed = boundary->executed;
    watch->cancelled_us = 0;
    watch->cancels = 0;
}

/* True if what a cancelled statement still waits for is the server, not its own client. */
static bool waits_for_server(const struct session *session)
{
    return !boundary_in_copy_in(&session->boundary) && session->client.unsent == 0;
}

static void cancel_overdue(struct session *session, int64_t now_us)
{
    struct session_watch *watch = &session->watch;
    if (watch->cancels == 0) {
        watch->cancelled_us = now_us;
        count(session, PROXY_TIMEOUT_QUERY);
        LOG_INFO("query_timeout", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
                 LOG_STR("client", session->peer), LOG_I64("running_ms", (now_us - watch->since_us) / 1000));
    }
    watch->cancels++;
    watch->cancelling = true;
    cancel_link(session->link, NULL);
}

static void check_query(struct session *session, int64_t now_us)
{
    int64_t timeout_us = session->worker->config->timeouts.query_us;
    const struct session_watch *watch = &session->watch;
    if (timeout_us == 0 || session->boundary.ours || session->startup.replication) {
        return;
    }
    follow_request(session, now_us);
    if (!boundary_is_working(&session->boundary) || now_us - watch->since_us < timeout_us) {
        return;
    }
    int64_t waited_us = watch->cancels == 0 ? 0 : now_us - watch->cancelled_us;
    if (waited_us >= CANCEL_GRACE_US && waits_for_server(session)) {
        session_end(session, "08006", "the server did not end a statement that timed out and was cancelled",
                    NULL);
    } else if (waited_us >= watch->cancels * (int64_t)CANCEL_REPEAT_US && waited_us < CANCEL_GRACE_US &&
               session->link->cancels == 0 && hold_may_cancel(session)) {
        cancel_overdue(session, now_us);
    }
}

/* --- a hold --- */

static void check_notice(struct session *session, int64_t now_us)
{
    int64_t timeout_us = session->worker->config->timeouts.hold_notice_us;
    if (session->kept_since_us == 0) {
        session->watch.noticed = false;
    }
    if (timeout_us == 0 || session->kept_since_us == 0 || session->watch.noticed ||
        now_us - session->kept_since_us < timeout_us || !session_at_boundary(session)) {
        return;
    }
    session->watch.noticed = true;
    uint8_t packet[NOTICE_SIZE];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_notice(&build, "NOTICE", "00000", "the statement waits: new work is held back for a moment");
    if (!build_fits(&build) || !stream_write(&session->client, packet, build.length)) {
        session_drop(session);
    }
}

/* --- all of them --- */

static bool is_over(const struct session *session)
{
    return !session->established || session->closing || session->finishing || session->link == NULL;
}

void timeouts_check(struct session *session, int64_t now_us, bool sweep)
{
    login_client_tick(session, now_us);
    check_deadline(session, now_us);
    if (!sweep || is_over(session)) {
        return;
    }
    check_quiet(session, now_us);
    if (!is_over(session)) {
        check_query(session, now_us);
    }
    if (!is_over(session)) {
        check_notice(session, now_us);
    }
}
