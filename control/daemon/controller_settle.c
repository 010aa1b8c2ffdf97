/*
 * prepare, finalize and rejoin write under the number of ownership that they began with. So they begin when
 * none is being taken, else their first write would be refused as another controller's. Where it is taken
 * anew under one, its writes are refused all the same: it ends, and is begun again, as if it had been asked
 * for again; each looks at what is there before it acts.
 */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"

enum { SETTLE_WITHIN_US = 30 * CONTROLLER_SECOND_US, BEGINNINGS = 3 };

static bool is_turning(const struct flip *flip)
{
    return flip->mode == FLIP_MODE_FORWARD && flip->phase == FLIP_PHASE_TURN;
}

bool controller_may_operate(const struct controller *controller, const char *verb, struct error *error)
{
    const struct flip *flip = &controller->flip;
    if (controller->begins.id != 0 || (flip_running(flip) && !is_turning(flip))) {
        (void)error_set(error, ERROR_FLIP_RUNNING, "a flip is under way");
        return error_remedy(error, "wait for its end, then: switchback %s", verb);
    }
    if (flip->mode != FLIP_MODE_STEADY && !is_turning(flip)) {
        (void)error_set(error, flip->mode == FLIP_MODE_DEPOSED ? ERROR_STALE : ERROR_UNDECIDED,
                        "it isn't decided yet which side is active: %s", flip->why.message);
        return error_remedy(error, "%s", flip->why.remedy);
    }
    return true;
}

static bool is_taking(const struct controller *controller)
{
    const struct flip *flip = &controller->flip;
    return replication_is_owning(controller->replication) || flip->await.action == FLIP_ACTION_LEARN ||
           (flip->mode == FLIP_MODE_STEADY && flip->contact);
}

/* The start looks at the sides; not one that knows why it must look again later, which can take for ever. */
static bool is_recovering(const struct flip *flip)
{
    return flip->mode == FLIP_MODE_RECOVER && flip->await.action != FLIP_ACTION_NONE;
}

/* What is being set right at rest may end with a reason to take ownership again. */
bool controller_is_settled(const struct controller *controller)
{
    const struct flip *flip = &controller->flip;
    return flip->mode != FLIP_MODE_RECOVER && !is_taking(controller) &&
           (flip->mode != FLIP_MODE_STEADY || flip->await.action == FLIP_ACTION_NONE);
}

/* At the bound. */
static bool may_go_on(const struct controller *controller, const char *verb, struct error *error)
{
    if (!controller_may_operate(controller, verb, error)) {
        return false;
    }
    if (is_taking(controller)) {
        (void)error_set(error, ERROR_TIMEOUT, "ownership of the pair is still being taken after 30 s");
        return error_remedy(error, "switchback status tells which side doesn't answer; then: switchback %s",
                            verb);
    }
    return true;
}

void controller_settle_look(struct controller *controller)
{
    const struct controller_settling settling = controller->settling;
    struct error refused;
    if (settling.begin == NULL || controller->stepping) {
        return;
    }
    bool ok = !controller->stopping;
    if (!ok) {
        controller_stopping_error(&refused);
    } else if (!is_recovering(&controller->flip)) {
        ok = controller_may_operate(controller, settling.verb, &refused);
    }
    if (ok && !controller_is_settled(controller)) {
        if (clock_mono_us() < settling.until_us) {
            return;
        }
        ok = may_go_on(controller, settling.verb, &refused);
    }
    controller->settling = (struct controller_settling){0};
    settling.begin(settling.context, ok ? NULL : &refused);
}

void controller_settle(struct controller *controller, const char *verb, controller_begin begin, void *context)
{
    ENSURE(controller->settling.begin == NULL);
    controller->busy = verb;
    controller->settling = (struct controller_settling){
        .verb = verb, .begin = begin, .context = context, .until_us = clock_mono_us() + SETTLE_WITHIN_US};
    controller_settle_look(controller);
}

bool controller_is_operating(const struct controller *controller)
{
    return controller->busy != NULL && controller->settling.begin == NULL;
}

void controller_operation_begins(const struct controller *controller, struct controller_operation *operation)
{
    operation->owner = replication_identity(controller->replication)->owner;
    operation->beginnings++;
}

bool controller_operation_again(struct controller *controller, const struct controller_operation *operation,
                                const char *verb, const struct replication_result *result,
                                struct error *error)
{
    if (result->ok) {
        return false;
    }
    *error = result->error;
    if (error->code != ERROR_STALE || controller->stopping || controller->flip.mode == FLIP_MODE_DEPOSED ||
        replication_identity(controller->replication)->owner == operation->owner) {
        return false;
    }
    if (operation->beginnings < BEGINNINGS) {
        LOG_WARN("ownership_taken_meanwhile", LOG_STR("verb", verb), LOG_STR("reason", error->message));
        return true;
    }
    (void)error_set(
        error, ERROR_STALE,
        "this daemon took ownership of the pair anew while %s ran, %u times: a side comes and goes", verb,
        operation->beginnings);
    (void)error_remedy(
        error, "nothing is lost: when switchback status shows both sides, switchback %s goes on", verb);
    return false;
}
