#include "control/daemon/controller_faults.h"

#ifdef SWITCHBACK_TEST_FAULTS

#include "conf/base/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KILLED = 137 };

static bool struck(const char *name, const char *when)
{
    const char *wanted = getenv("SWITCHBACK_TEST_CRASH");
    const size_t length = strlen(name);
    return wanted != NULL && strncmp(wanted, name, length) == 0 && wanted[length] == ':' &&
           strcmp(wanted + length + 1, when) == 0;
}

static void die(const char *name, const char *when)
{
    LOG_WARN("test_crash", LOG_STR("at", name), LOG_STR("when", when));
    _exit(KILLED);
}

static bool is_phase(const char *name)
{
    enum flip_phase ignored;
    return flip_phase_parse(name, &ignored);
}

void controller_fault_before(const struct flip_request *request)
{
    /* What had drained before it was waited for gives no event of its own: the next phase tells. */
    if (request->kind == FLIP_ACTION_PHASE && request->phase == FLIP_PHASE_FENCE &&
        struck("drain", "after")) {
        die("drain", "after");
    }
    const char *name = request->kind == FLIP_ACTION_PHASE ? flip_phase_name(request->phase)
                                                          : flip_action_name(request->kind);
    if ((request->kind == FLIP_ACTION_PHASE || !is_phase(name)) && struck(name, "before")) {
        die(name, "before");
    }
}

void controller_fault_after(const struct flip *flip, const struct flip_event *event)
{
    const bool drained = event->kind == FLIP_EVENT_DRAINED && flip->await.action == FLIP_ACTION_DRAIN;
    if (!drained && ((event->kind != FLIP_EVENT_DONE && event->kind != FLIP_EVENT_FACTS) ||
                     event->ticket != flip->await.ticket || flip->await.action == FLIP_ACTION_NONE)) {
        return;
    }
    const char *action = flip_action_name(flip->await.action);
    if (!is_phase(action) && struck(action, "after")) {
        die(action, "after");
    }
    if (flip->await.action != FLIP_ACTION_JOURNAL && flip_at_last_step(flip) &&
        struck(flip_phase_name(flip->phase), "after")) {
        die(flip_phase_name(flip->phase), "after");
    }
}

#endif
