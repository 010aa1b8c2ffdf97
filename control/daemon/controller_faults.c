#include "control/daemon/controller_faults.h"

#ifdef SWITCHBACK_TEST_FAULTS

#include "conf/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { KILLED = 137, LINE_SIZE = 80 };

static bool struck(const char *name, const char *when)
{
    const char *wanted = getenv("SWITCHBACK_TEST_CRASH");
    const size_t length = strlen(name);
    return wanted != NULL && strncmp(wanted, name, length) == 0 && wanted[length] == ':' &&
           strcmp(wanted + length + 1, when) == 0;
}

/* Says where the daemon stands, and goes on once it is answered: what the test does meanwhile has happened.
 */
static void tell(const char *path, const char *name, const char *when)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char line[LINE_SIZE];
    const int length = snprintf(line, sizeof line, "%s:%s\n", name, when);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || strlen(path) >= sizeof address.sun_path) {
        return;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(listener, (const struct sockaddr *)&address, sizeof address) == 0 &&
        send(listener, line, (size_t)length, MSG_NOSIGNAL) == length) {
        (void)recv(listener, line, 1, 0);
    }
    (void)close(listener);
}

static void at(const char *name, const char *when)
{
    const char *listener = getenv("SWITCHBACK_TEST_STRIKE");
    if (struck(name, when)) {
        LOG_WARN("test_crash", LOG_STR("at", name), LOG_STR("when", when));
        _exit(KILLED);
    }
    if (listener != NULL) {
        tell(listener, name, when);
    }
}

static bool is_phase(const char *name)
{
    enum flip_phase ignored;
    return flip_phase_parse(name, &ignored);
}

void controller_fault_before(const struct flip_request *request)
{
    /* What had drained before it was waited for gives no event of its own: the next phase tells. */
    if (request->kind == FLIP_ACTION_PHASE && request->phase == FLIP_PHASE_FENCE) {
        at("drain", "after");
    }
    const char *name = request->kind == FLIP_ACTION_PHASE ? flip_phase_name(request->phase)
                                                          : flip_action_name(request->kind);
    if (request->kind == FLIP_ACTION_PHASE || !is_phase(name)) {
        at(name, "before");
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
    if (!is_phase(action)) {
        at(action, "after");
    }
    if (flip->await.action != FLIP_ACTION_JOURNAL && flip_at_last_step(flip)) {
        at(flip_phase_name(flip->phase), "after");
    }
}

#endif
