#include "proxy/link_watch.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <stdio.h>
#include <sys/socket.h>
#include <utlist.h>

enum {
    LOOKS = 10, /* within tcp.servers.lost_after */
    LOOK_LEAST_MS = 100,
    LOOK_MOST_MS = 1000, /* by so much may a client wait longer than flip.max_hold behind our own question */
    /* Repetitions without an answer: of data, or of the question whether a window that was closed is open. A
     * peer that lives answers the first one. */
    REPEATED_LEAST = 2,
    MS_US = 1000
};

static bool repeats(const struct tcp_info *info)
{
    return (info->tcpi_unacked > 0 && info->tcpi_retransmits >= REPEATED_LEAST) ||
           info->tcpi_probes >= REPEATED_LEAST;
}

/* An answer between two looks begins it anew, and what is sent after an hour of silence has its time, too. */
bool link_watch_is_lost(const struct tcp_info *info, int64_t *since_us, int64_t now_us, int64_t lost_after_us)
{
    if (!repeats(info)) {
        *since_us = 0;
        return false;
    }
    *since_us = *since_us == 0 ? now_us : *since_us;
    return now_us - *since_us >= lost_after_us &&
           (int64_t)info->tcpi_last_ack_recv * MS_US >= lost_after_us &&
           (int64_t)info->tcpi_last_data_recv * MS_US >= lost_after_us;
}

/* False: it is no TCP connection, or can't be asked. */
static bool ask_kernel(const struct server_link *link, struct tcp_info *info)
{
    socklen_t size = sizeof(*info);
    return link->stream.uv.handle.type == UV_TCP &&
           getsockopt(link->stream.descriptor, IPPROTO_TCP, TCP_INFO, info, &size) == 0;
}

static bool waits_for_server(const struct session *session)
{
    return session->established && !session->closing && !session->finishing && session->link != NULL &&
           session->link->phase == LINK_READY && !session->link->broken &&
           (session_owes(session) || session->link->stream.unsent > 0);
}

static void lose(struct session *session, int64_t now_us, const char *what, int64_t silence_us)
{
    struct side_counters *counters = &session->worker->statistics.sides[session->link->side];
    const int64_t since_us = session->boundary.ours ? 0 : boundary_since_us(&session->boundary);
    char silence[CLOCK_TEXT_SIZE], message[128];
    clock_format_duration(silence_us, silence);
    LOG_WARN("server_link_lost", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("side", side_name(session->link->side)), LOG_U64("backend", session->link->pid));
    if (since_us != 0) {
        statistics_statements(counters, 1, now_us - since_us);
        statistics_error(counters, "08006");
    }
    (void)snprintf(message, sizeof(message), "the connection to the server is lost: %s for %s", what,
                   silence);
    session_end(session, "08006", message, NULL);
}

/* What a session holds was asked for a flip that has long been over, and its client waits behind that. */
static bool is_kept_by_us(const struct session *session, int64_t now_us)
{
    return session->boundary.ours && !session->worker->hold.stands &&
           now_us - boundary_ours_since_us(&session->boundary) >= session->worker->config->max_hold_us;
}

static void look_at(struct session *session, int64_t now_us)
{
    const struct proxy_config *config = session->worker->config;
    const int64_t lost_after_us = config->tcp_servers.lost_after_us;
    int64_t *since_us = &session->watch.unanswered_us;
    struct tcp_info info = {0};
    if (waits_for_server(session) && is_kept_by_us(session, now_us)) {
        lose(session, now_us, "no question was answered", config->max_hold_us);
    } else if (lost_after_us == 0 || !waits_for_server(session) || !ask_kernel(session->link, &info)) {
        *since_us = 0;
    } else if (link_watch_is_lost(&info, since_us, now_us, lost_after_us)) {
        lose(session, now_us, "nothing was acknowledged", lost_after_us);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct worker *worker = CONTAINER_OF(timer, struct worker, link_watch);
    const int64_t now_us = clock_mono_us();
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        look_at(session, now_us);
    }
}

void link_watch_set(struct worker *worker)
{
    uint64_t every_ms = (uint64_t)(worker->config->tcp_servers.lost_after_us / LOOKS / MS_US);
    every_ms = every_ms == 0 ? LOOK_MOST_MS : every_ms;
    every_ms = every_ms < LOOK_LEAST_MS ? LOOK_LEAST_MS : every_ms > LOOK_MOST_MS ? LOOK_MOST_MS : every_ms;
    ENSURE(uv_timer_start(&worker->link_watch, on_timer, every_ms, every_ms) == 0);
}
