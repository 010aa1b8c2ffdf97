#include "proxy/client_end.h"

#include "proxy/login_client.h"
#include "proxy/session.h"
#include "proxy/worker.h"

/* Something that the client has sent is not done, or not answered. */
static bool is_busy(const struct session *session)
{
    return session->kept != NULL || (boundary_may_owe(&session->boundary) && !session->boundary.ours);
}

static bool lets_finish(const struct session *session)
{
    return session->terminated || session->worker->config->client_eof == CLIENT_EOF_FINISH;
}

void client_end_seen(struct session *session, int status)
{
    bool may_read = status == UV_EOF && stream_flush(&session->client) && session->client.unsent > 0;
    session->client_ended = true;
    if (session->in_doubt != NULL && status == UV_EOF) {
        return; /* it may still read what it is to be told */
    }
    if (session->established && !session->finishing && is_busy(session)) {
        if (!lets_finish(session)) {
            session_drop(session);
        } else if (status != UV_EOF && session->client.unsent > 0) {
            client_end_broken(session); /* nobody takes what waits for it */
        } else {
            client_end_advance(session);
        }
    } else if (!session->established && status == UV_EOF && login_client_goes_on(session)) {
        session_update_reading(session);
    } else if (may_read) {
        session_finish(session);
    } else {
        session_drop(session);
    }
}

void client_end_broken(struct session *session)
{
    session->client_gone = true;
    session_drop(session);
}

void client_end_advance(struct session *session)
{
    struct server_link *link = session->link;
    if (!session->client_ended || !session->established || session->closing || session->finishing) {
        return;
    }
    if (!is_busy(session)) {
        session_finish(session);
    } else if (session->kept == NULL && !session->terminated && link != NULL) {
        link_end_input(link);
    }
}

bool client_end_spares_server(const struct session *session)
{
    return session->client_gone && lets_finish(session);
}
