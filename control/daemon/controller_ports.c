/* Carries out what the runner asks for, and brings the answers back. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- answers --- */

struct port_call {
    struct controller *controller;
    uint64_t ticket;
};

static struct port_call *call_new(struct controller *controller, uint64_t ticket)
{
    struct port_call *call = malloc(sizeof *call);
    ENSURE(call != NULL);
    *call = (struct port_call){.controller = controller, .ticket = ticket};
    controller_ref(controller);
    return call;
}

static void call_end(struct port_call *call, bool ok, bool uncertain, const struct error *error)
{
    struct controller *controller = call->controller;
    if (!controller->stopping) {
        controller_answer(controller, call->ticket, ok, uncertain, error);
    }
    free(call);
    controller_unref(controller);
}

static void on_replication_done(void *context, const struct replication_result *result)
{
    call_end(context, result->ok, result->uncertain, &result->error);
}

/* What it is now (diverged, or the standby again) is for the facts to tell. */
static void on_contact_done(void *context, const struct replication_result *result)
{
    struct port_call *call = context;
    call->controller->contact_due |= result->ok;
    call->controller->met |= result->ok;
    on_replication_done(call, result);
}

static void on_row_written(void *context, const struct error *error)
{
    call_end(context, error == NULL, false, error);
}

/* An operator's word is the journal's last, whoever has run the pair before: a start must find that, too. */
static void on_decision_written(void *context, const struct error *error)
{
    struct port_call *call = context;
    if (error != NULL) {
        on_row_written(call, error);
        return;
    }
    replication_set_trusted(call->controller->replication);
    controller_identity_remember(call->controller, on_row_written, call);
}

static void write_row(struct controller *controller, const struct flip_request *request)
{
    char line[RECORD_LINE_SIZE];
    const struct record *row = &request->row;
    record_encode(row, line);
    controller_story_row(controller, row);
    controller_flip_row(controller, row);
    (void)journal_append(controller->journal, row->flip, record_kind_name(row->kind),
                         row->phase == FLIP_PHASE_NONE ? "" : flip_phase_name(row->phase), line,
                         row->kind == RECORD_DECIDED ? on_decision_written : on_row_written,
                         call_new(controller, request->ticket));
}

/* --- commands --- */

static void forget_command(struct running_command *running)
{
    struct running_command **link = &running->controller->commands;
    while (*link != running) {
        link = &(*link)->next;
    }
    *link = running->next;
    controller_unref(running->controller);
    free(running);
}

struct command_end {
    struct running_command running; /* first: what is in the list */
    command_done done;
};

static void on_command_ended(void *context, const struct command_result *result)
{
    struct command_end *end = context;
    end->done(&end->running, result);
    forget_command(&end->running);
}

bool controller_run(struct controller *controller, const struct settings_list *argv, int64_t timeout_us,
                    const struct command_environment *environment, struct running_command running,
                    command_done done)
{
    struct command_end *end = malloc(sizeof *end);
    ENSURE(end != NULL);
    *end = (struct command_end){.running = running, .done = done};
    end->running.controller = controller;
    end->running.command =
        command_run(controller->loop, argv, timeout_us, environment, on_command_ended, end);
    if (end->running.command == NULL) {
        free(end);
        return false;
    }
    end->running.next = controller->commands;
    controller->commands = &end->running;
    controller_ref(controller);
    return true;
}

static void last_line(const char *output, char line[256])
{
    size_t end = strlen(output);
    while (end > 0 && (output[end - 1] == '\n' || output[end - 1] == ' ')) {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && output[begin - 1] != '\n') {
        begin--;
    }
    (void)snprintf(line, 256, "%.*s", (int)(end - begin), output + begin);
}

static void audit_command(struct controller *controller, const char *name,
                          const struct command_result *result)
{
    audit_decision(controller->audit, "command",
                   json_pack("{s:s, s:I, s:b, s:o, s:I, s:o}", "name", name, "flip",
                             (json_int_t)controller->flip.spec.id, "ok", result->ok ? 1 : 0, "result",
                             text_json(result->words), "ms",
                             (json_int_t)(result->duration_us / CONTROLLER_MS_US), "output",
                             text_json(result->output)));
}

static void on_phase_command(void *context, const struct command_result *result)
{
    struct running_command *running = context;
    struct controller *controller = running->controller;
    struct error error;
    char said[256];
    audit_command(controller, running->name, result);
    error_clear(&error);
    if (!result->ok) {
        last_line(result->output, said);
        error_set(&error, ERROR_COMMAND_FAILED, "%s %s%s%s", running->name, result->words,
                  said[0] != '\0' ? ": " : "", said);
        (void)error_remedy(&error, "its whole output stands in the audit log: switchback audit");
    }
    controller_answer(controller, running->ticket, result->ok, false, &error);
}

static struct command_environment environment_of(const struct controller *controller,
                                                 const struct flip_request *request)
{
    const struct flip_spec *spec = &controller->flip.spec;
    return (struct command_environment){.flip = request->flip,
                                        .from = side_name(spec->source),
                                        .to = side_name(side_other(spec->source)),
                                        .phase = flip_phase_name(request->phase)};
}

static void run_command(struct controller *controller, const struct flip_request *request,
                        const struct settings_list *argv, const char *name)
{
    const struct command_environment environment = environment_of(controller, request);
    const struct running_command running = {.ticket = request->ticket, .name = name};
    struct error error;
    if (!controller_run(controller, argv, request->deadline_us - clock_mono_us(), &environment, running,
                        on_phase_command)) {
        error_set(&error, ERROR_MEMORY, "no memory for %s", name);
        controller_answer(controller, request->ticket, false, false, &error);
    }
}

static void on_notified(void *context, const struct command_result *result)
{
    const struct running_command *running = context;
    if (!result->ok) {
        events_publish(running->controller->events, LOG_LEVEL_WARN, "hook", 0, NULL, "hooks.notify %s",
                       result->words);
    }
}

enum { NOTIFICATIONS_MAX = 8 }; /* at a time: a hook that hangs must not gather processes */

void controller_notify(struct controller *controller, uint64_t flip, const char *phase, const char *event,
                       const char *message)
{
    const struct settings *settings = controller->settings;
    unsigned running = 0;
    for (const struct running_command *other = controller->commands; other != NULL; other = other->next) {
        running += other->ticket == 0;
    }
    if (settings->hook_notify.count == 0 || running >= NOTIFICATIONS_MAX || controller->stopping) {
        return;
    }
    const struct flip_spec *spec = &controller->flip.spec;
    const struct command_environment environment = {.flip = flip,
                                                    .from = flip != 0 ? side_name(spec->source) : NULL,
                                                    .to = flip != 0 ? side_name(side_other(spec->source))
                                                                    : NULL,
                                                    .phase = phase,
                                                    .event = event,
                                                    .message = message};
    const struct running_command command = {.name = "hooks.notify"};
    (void)controller_run(controller, &settings->hook_notify, settings->hook_timeout_us, &environment, command,
                         on_notified);
}

static void abandon(struct controller *controller, uint64_t ticket)
{
    for (struct running_command *running = controller->commands; running != NULL; running = running->next) {
        if (running->ticket == ticket) {
            command_kill(running->command);
        }
    }
}

/* --- the clusters --- */

static struct replication_flip flip_of(const struct flip_request *request)
{
    return (struct replication_flip){
        .flip = request->flip, .source = side_other(request->side), .epoch = request->epoch - 1};
}

/* The backends of our own sessions on the source stay; every other one ends behind the fence. */
static void fence_with_sessions(struct controller *controller, void *context,
                                struct proxy_session_info *sessions, size_t count)
{
    struct port_call *call = context;
    const struct flip_request *request = &controller->fence;
    struct replication_flip flip = flip_of(request);
    size_t pids = 0;
    flip.rescue = controller->flip.spec.automatic;
    if (controller->stopping) {
        call_end(call, false, false, NULL);
        return;
    }
    int32_t *backends = malloc((count + 1) * sizeof *backends);
    ENSURE(backends != NULL);
    for (size_t i = 0; i < count; i++) {
        if (sessions[i].backend_pid != 0 && sessions[i].side == flip.source) {
            backends[pids++] = sessions[i].backend_pid;
        }
    }
    replication_fence(controller->replication, &flip, backends, pids, request->deadline_us,
                      on_replication_done, call);
    free(backends);
}

static void fence(struct controller *controller, const struct flip_request *request)
{
    controller->fence = *request;
    controller_ask_sessions(controller, false, fence_with_sessions, call_new(controller, request->ticket));
}

static void on_restore_point(void *context, const struct replication_result *result, const char *value)
{
    struct port_call *call = context;
    if (result->ok && !call->controller->stopping) {
        events_publish(call->controller->events, LOG_LEVEL_INFO, "backup", call->controller->flip.spec.id,
                       "backup", "restore point switchback_flip_%" PRIu64 " at %s",
                       call->controller->flip.spec.id, value != NULL ? value : "?");
    }
    call_end(call, result->ok, false, &result->error);
}

static void restore_point(struct controller *controller, const struct flip_request *request)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql, "select pg_create_restore_point('switchback_flip_%" PRIu64 "')::text",
                   request->flip);
    replication_query(controller->replication, side_other(request->side),
                      controller->settings->databases.items[0], sql, request->deadline_us - clock_mono_us(),
                      on_restore_point, call_new(controller, request->ticket));
}

static void on_cluster(struct controller *controller, const struct flip_request *request)
{
    struct replication *replication = controller->replication;
    const struct replication_flip flip = flip_of(request);
    const int64_t deadline_us = request->deadline_us;
    if (request->kind == FLIP_ACTION_LEARN) {
        controller_learn(controller, request->ticket);
        return;
    }
    if (request->kind == FLIP_ACTION_FENCE) {
        fence(controller, request);
        return;
    }
    struct port_call *call = call_new(controller, request->ticket);
    switch (request->kind) {
    case FLIP_ACTION_PROBE:
        replication_probe(replication, request->side, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_CATCHUP:
        replication_catchup(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_READY:
        replication_ready(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_OPEN:
        replication_open(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_UNDO:
        replication_undo(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_REOPEN_SOURCE:
        replication_reopen_source(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_FENCE_ON_CONTACT:
        replication_fence_on_contact(replication, request->side, request->epoch, on_contact_done, call);
        break;
    case FLIP_ACTION_TURN:
        replication_turn(replication, &flip, request->promise, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_CUT_OFF:
        replication_cut_off(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_REATTACH:
        replication_reattach(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_READY_ALONE:
        replication_ready_alone(replication, &flip, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_ADOPT:
        replication_adopt(replication, request->side, request->epoch, deadline_us, on_replication_done, call);
        break;
    case FLIP_ACTION_NAMES:
        replication_names(replication, request->side, request->epoch, request->promise, deadline_us,
                          on_replication_done, call);
        break;
    case FLIP_ACTION_NAMES_AHEAD:
        replication_names_ahead(replication, request->side, request->epoch - 1, deadline_us,
                                on_replication_done, call);
        break;
    case FLIP_ACTION_PROMISE:
        replication_promise(replication, request->side, deadline_us, on_replication_done, call);
        break;
    default:
        ENSURE(false); /* not a request to the clusters */
    }
}

/* --- preflight --- */

static void on_checked(struct controller *controller, void *context, const struct check_outcome *outcome)
{
    (void)controller;
    call_end(context, outcome->ok, false, &outcome->first);
}

static void check(struct controller *controller, const struct flip_request *request)
{
    struct error error;
    if (controller->flip.spec.kind == FLIP_KIND_CUTOVER) {
        controller_check(controller, on_checked, call_new(controller, request->ticket));
        return;
    }
    const bool open = controller_can_go_back(controller, &error);
    controller_answer(controller, request->ticket, open, false, &error);
}

/* --- all of it --- */

/* Of a dead side often nobody is left. */
static void say_busy(struct controller *controller, uint64_t flip, const char *then)
{
    const uint64_t busy = controller->drain.undrained;
    if (busy > 0) {
        events_publish(controller->events, LOG_LEVEL_WARN, "drain", flip, "drain",
                       "%" PRIu64 " %s still busy: %s", busy, busy == 1 ? "session is" : "sessions are",
                       then);
    }
}

static void to_the_proxy(struct controller *controller, const struct flip_request *request)
{
    const struct proxy_route route = {.side = request->side, .epoch = request->epoch, .open = true};
    switch (request->kind) {
    case FLIP_ACTION_ARM:
        controller_arm(controller, request);
        break;
    case FLIP_ACTION_SWAP:
        controller->proxy_tickets[PROXY_EVENT_SWAPPED] = request->ticket;
        proxy_swap(controller->proxy, request->flip, route);
        break;
    case FLIP_ACTION_DISARM:
        controller->arming.flip = 0;
        controller->proxy_tickets[PROXY_EVENT_DISARMED] = request->ticket;
        proxy_disarm(controller->proxy, request->flip);
        break;
    case FLIP_ACTION_HOLD:
        controller_gates_hold(controller, side_other(request->side));
        controller_hold(controller, request);
        break;
    case FLIP_ACTION_EXPIRE:
        controller_expire(controller, request);
        break;
    case FLIP_ACTION_RELEASE:
        controller_release(controller, request);
        break;
    case FLIP_ACTION_ROUTE:
        controller_route(controller, request);
        break;
    case FLIP_ACTION_CANCEL_UNDRAINED:
        say_busy(controller, request->flip, "what they run is cancelled");
        proxy_cancel_undrained(controller->proxy, request->flip);
        break;
    case FLIP_ACTION_TERMINATE_UNDRAINED:
        say_busy(controller, request->flip, "they are ended");
        proxy_terminate_undrained(controller->proxy, request->flip);
        break;
    default:
        ENSURE(false); /* not a request to the proxy */
    }
}

static void news(struct controller *controller, const struct flip_request *request)
{
    switch (request->kind) {
    case FLIP_ACTION_ACTIVE:
        replication_set_active(controller->replication, request->side, request->epoch);
        replication_set_trusted(controller->replication); /* the journal says so, or is about to */
        controller_risk_begin(controller);
        if (controller->arming.flip != request->flip) { /* a flip that armed has just read them */
            controller_refresh_types(controller);
        }
        events_publish(controller->events, LOG_LEVEL_INFO, "active", request->flip, NULL,
                       "%s is active, epoch %" PRIu64, side_name(request->side), request->epoch);
        break;
    case FLIP_ACTION_WATCH:
        controller_flip_watch(controller, request->open);
        break;
    case FLIP_ACTION_ABANDON:
        abandon(controller, request->ticket);
        break;
    case FLIP_ACTION_PHASE:
        controller_flip_phase(controller, request);
        break;
    case FLIP_ACTION_ALARM:
        controller_flip_alarm(controller, request);
        break;
    case FLIP_ACTION_FINISHED:
        controller_flip_finished(controller, request);
        break;
    default:
        ENSURE(false); /* not news */
    }
}

static void by_command(struct controller *controller, const struct flip_request *request)
{
    const struct settings *settings = controller->settings;
    switch (request->kind) {
    case FLIP_ACTION_CHECK:
        check(controller, request);
        break;
    case FLIP_ACTION_BACKUP:
        run_command(controller, request, &settings->backup_command, "backup.command");
        break;
    case FLIP_ACTION_BACKUP_VERIFY:
        run_command(controller, request, &settings->backup_verify_command, "backup.verify_command");
        break;
    case FLIP_ACTION_RESTORE_POINT:
        restore_point(controller, request);
        break;
    case FLIP_ACTION_HOOK_BEFORE:
        run_command(controller, request, &settings->hook_before_cutover, "hooks.before_cutover");
        break;
    case FLIP_ACTION_HOOK_AFTER:
        if (controller->flip.spec.kind == FLIP_KIND_CUTOVER) {
            run_command(controller, request, &settings->hook_after_cutover, "hooks.after_cutover");
        } else {
            run_command(controller, request, &settings->hook_on_flip_back, "hooks.on_flip_back");
        }
        break;
    default:
        ENSURE(false); /* not what a command or a question does */
    }
}

void controller_port(void *context, const struct flip_request *request)
{
    struct controller *controller = context;
    controller_fault_before(request);
    switch (flip_action_port(request->kind)) {
    case FLIP_PORT_COMMANDS:
        by_command(controller, request);
        break;
    case FLIP_PORT_JOURNAL:
        write_row(controller, request);
        break;
    case FLIP_PORT_CLUSTERS:
        on_cluster(controller, request);
        break;
    case FLIP_PORT_PROXY:
        to_the_proxy(controller, request);
        break;
    case FLIP_PORT_NEWS:
        news(controller, request);
        break;
    case FLIP_PORT_NOBODY:
        ENSURE(false); /* the runner waits for events, it asks nobody */
    }
}
