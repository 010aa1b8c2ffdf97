/* Arming: what is made ready on the target before anyone waits. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <stdlib.h>

/* An idle slot that is far behind may stay there, and a stream that lags may lag: the hold takes longer then.
 */
enum { ADVANCE_WITHIN_US = 2000000, KEEP_UP_WITHIN_US = 1000000 };

/* A step of it that waits for an answer. */
struct arming {
    struct controller *controller;
    struct controller_arming plan;
    struct proxy_route route;
    struct flip_event armed;
};

static bool is_current(const struct arming *arming)
{
    const struct controller *controller = arming->controller;
    return controller->arming.flip == arming->plan.flip && controller->arming.ticket == arming->plan.ticket &&
           !controller->stopping;
}

/* The target's links, once the types of both sides are known as they are now. */
static void open_links(struct controller *controller, void *context)
{
    struct arming *arming = context;
    struct error error;
    if (!is_current(arming)) {
        free(arming);
        return;
    }
    if (!controller->types_known) {
        /* without them a client's numbers could mean other types on the other side */
        (void)error_set(&error, ERROR_UNREACHABLE, "the types of both sides could not be read");
        controller_answer(controller, arming->plan.ticket, false, false, &error);
    } else {
        proxy_arm(controller->proxy, arming->plan.flip, arming->route,
                  arming->plan.deadline_us - clock_mono_us());
    }
    free(arming);
}

void controller_arm(struct controller *controller, const struct flip_request *request)
{
    struct arming *arming = calloc(1, sizeof *arming);
    ENSURE(arming != NULL);
    controller->arming = (struct controller_arming){.flip = request->flip,
                                                    .ticket = request->ticket,
                                                    .target = request->side,
                                                    .deadline_us = request->deadline_us};
    *arming = (struct arming){.controller = controller,
                              .plan = controller->arming,
                              .route = {.side = request->side, .epoch = request->epoch, .open = true}};
    controller->proxy_tickets[PROXY_EVENT_ARMED] = request->ticket;
    controller_read_types(controller, open_links, arming);
}

static int64_t soon(const struct arming *arming, int64_t within_us)
{
    const int64_t at_us = clock_mono_us() + within_us;
    return at_us < arming->plan.deadline_us ? at_us : arming->plan.deadline_us;
}

static void on_kept_up(void *context, const struct replication_result *result)
{
    struct arming *arming = context;
    struct controller *controller = arming->controller;
    (void)result;
    if (is_current(arming)) {
        controller_feed(controller, &arming->armed);
    }
    free(arming);
    controller_unref(controller);
}

/* Opening so many links has kept the machines busy, and the stream waited for them, too. */
static void on_advanced(void *context, const struct replication_result *result)
{
    struct arming *arming = context;
    if (!is_current(arming)) {
        on_kept_up(arming, result);
        return;
    }
    replication_keep_up(arming->controller->replication, side_other(arming->plan.target),
                        soon(arming, KEEP_UP_WITHIN_US), on_kept_up, arming);
}

/* Last, so that little is between it and the turn, whose stream reads all since. */
void controller_armed(struct controller *controller, const struct flip_event *armed)
{
    struct arming *arming = calloc(1, sizeof *arming);
    ENSURE(arming != NULL);
    *arming = (struct arming){.controller = controller, .plan = controller->arming, .armed = *armed};
    controller_ref(controller);
    replication_advance_idle_slots(controller->replication, side_other(arming->plan.target),
                                   soon(arming, ADVANCE_WITHIN_US), on_advanced, arming);
}
