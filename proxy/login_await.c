/*
 * The active side can't be reached, and the other one takes over from it if that lasts: within the seconds
 * until then a login isn't told 57P03, it waits. Whatever comes first ends that: the takeover's hold, which
 * keeps it like every other one, the side's return, or timeouts.server_connect.
 */
#include "conf/base/clock.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/worker.h"

enum { TRY_AGAIN_US = 200000 };

int64_t login_connects_until_us(const struct session *session)
{
    const int64_t began_until_us = session->login->awaits_until_us;
    return began_until_us != 0 ? began_until_us
                               : clock_mono_us() + session->worker->config->timeouts.server_connect_us;
}

bool login_client_awaits(const struct session *session)
{
    return login_client_waits(session) && session->login->try_again_us != 0;
}

bool login_awaits_side(struct session *session)
{
    struct worker *worker = session->worker;
    struct client_login *login = session->login;
    const int64_t now_us = clock_mono_us();
    if (!worker->rescue || worker->stopping) {
        return false;
    }
    login->awaits_until_us = login_connects_until_us(session);
    if (login->awaits_until_us <= now_us) {
        return false;
    }
    login->phase = PHASE_ROUTE;
    login->reaches_side = false;
    login->try_again_us = now_us + TRY_AGAIN_US;
    session->deadline_us = login->awaits_until_us;
    worker_want_tick(worker);
    session_update(session);
    return true;
}

void login_client_tick(struct session *session, int64_t now_us)
{
    if (login_client_awaits(session) && now_us >= session->login->try_again_us) {
        login_client_resume(session);
    }
}
