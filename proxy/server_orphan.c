#include "proxy/server_orphan.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "proxy/cancel.h"
#include "proxy/server_link.h"
#include "proxy/worker.h"

#include <utlist.h>

/* A server that doesn't end in this time, cancelled so often, is left to itself. */
enum { PATIENCE_US = 60 * 1000000, FIRST_AGAIN_US = 200 * 1000, AGAIN_MOST_US = 5 * 1000000 };

static void wait_again(struct server_link *link, int64_t now_us)
{
    int64_t interval_us = (int64_t)FIRST_AGAIN_US << (link->orphan.tries < 8 ? link->orphan.tries : 8);
    link->orphan.tries++;
    link->orphan.again_us = now_us + (interval_us < AGAIN_MOST_US ? interval_us : AGAIN_MOST_US);
}

void orphan_adopt(struct server_link *link)
{
    struct worker *worker = link->worker;
    int64_t now_us = clock_mono_us();
    link->events = NULL;
    link->session = NULL;
    link->orphan.begun_us = now_us;
    DL_APPEND2(worker->orphans, link, orphan.prev, orphan.next);
    wait_again(link, now_us);
    cancel_link(link, NULL);
    stream_read_start(&link->stream);
    worker_want_tick(worker);
}

static void let_go(struct server_link *link)
{
    struct worker *worker = link->worker;
    DL_DELETE2(worker->orphans, link, orphan.prev, orphan.next);
    link->orphan.begun_us = 0;
    link_close(link, false);
    worker_check_end(worker);
}

void orphan_cancelled(struct server_link *link)
{
    link_end_input(link);
}

void orphan_ended(struct server_link *link)
{
    let_go(link);
}

void orphan_check_all(struct worker *worker, int64_t now_us)
{
    struct server_link *link = NULL, *next = NULL;
    DL_FOREACH_SAFE2(worker->orphans, link, next, orphan.next)
    {
        if (now_us - link->orphan.begun_us > PATIENCE_US) {
            LOG_WARN("server_left_running", LOG_STR("side", side_name(link->side)),
                     LOG_U64("backend", link->pid));
            let_go(link);
        } else if (link->cancels == 0 && now_us >= link->orphan.again_us) {
            wait_again(link, now_us);
            cancel_link(link, NULL);
        }
    }
}

void orphan_abandon_all(struct worker *worker)
{
    struct server_link *link = NULL, *next = NULL;
    DL_FOREACH_SAFE2(worker->orphans, link, next, orphan.next)
    {
        let_go(link);
    }
}
