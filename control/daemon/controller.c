#include "control/daemon/controller.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "control/daemon/controller_internal.h"
#include "control/daemon/mock_secret.h"

#include <stdlib.h>
#include <string.h>

enum { SECOND_MS = 1000, PROGRESS_MS = 500 };

/* --- the runner's events --- */

struct queued_event {
    struct flip_event event;
    struct queued_event *next;
};

static void on_wake(uv_timer_t *timer);

static void set_wake(struct controller *controller)
{
    const int64_t wake_us = flip_wake(&controller->flip);
    if (wake_us == INT64_MAX) {
        (void)uv_timer_stop(&controller->wake);
        return;
    }
    const int64_t left_us = wake_us - clock_mono_us();
    uv_update_time(controller->loop);
    ENSURE(uv_timer_start(&controller->wake, on_wake,
                          left_us > 0 ? (uint64_t)(left_us + CONTROLLER_MS_US - 1) / CONTROLLER_MS_US : 0,
                          0) == 0);
}

/* A lost answer, a side that was away: what such an alarm told of is over when the trying has worked. */
static bool may_pass(const struct flip *flip, const struct error *alarm)
{
    if (alarm->code == ERROR_UNDECIDED) {
        return flip->mode == FLIP_MODE_RECOVER || flip->mode == FLIP_MODE_UNDECIDED;
    }
    return alarm->code == ERROR_UNREACHABLE || alarm->code == ERROR_TIMEOUT || alarm->code == ERROR_STALE ||
           alarm->code == ERROR_SQL || alarm->code == ERROR_NOT_IN_SYNC;
}

/* A promise that was given up is trouble until it is back, or until there is none to give; a dead side until
 * it answers or was taken over from. */
static bool is_over(const struct controller *controller)
{
    const struct flip *flip = &controller->flip;
    const bool steady = flip->mode == FLIP_MODE_STEADY;
    if (controller->alarm.code == ERROR_NO_PROMISE) {
        return flip->history.promise || (steady && !flip->watch.on);
    }
    return controller->alarm.code == ERROR_SIDE_DEAD && steady && !flip_side_dead(flip);
}

/* status shows alarms as trouble, and exits by it: not any more when nothing is tried again and none runs. */
static void judge_alarm(struct controller *controller, int64_t began_us)
{
    const struct flip *flip = &controller->flip;
    const bool trying =
        flip->mode != FLIP_MODE_STEADY || flip->retry.tries > 0 || flip->promise.retry.tries > 0;
    if (controller->alarm.code != ERROR_NONE && controller->alarm_us >= began_us) {
        controller->alarm_passes = trying && may_pass(flip, &controller->alarm);
    } else if ((controller->alarm_passes && !trying) || is_over(controller)) {
        controller->alarm_passes = false;
        error_clear(&controller->alarm);
    }
}

static void step(struct controller *controller, struct flip_event *event)
{
    const int64_t began_us = clock_mono_us();
    event->now_us = began_us;
    event->wall_us = clock_wall_us();
    controller_fault_after(&controller->flip, event);
    flip_step(&controller->flip, event);
    judge_alarm(controller, began_us);
}

void controller_feed(struct controller *controller, struct flip_event *event)
{
    if (controller->stopping) {
        return;
    }
    if (controller->stepping) { /* asked for from inside a step: what it points to is static or unused */
        struct queued_event *queued = malloc(sizeof *queued);
        ENSURE(queued != NULL);
        *queued = (struct queued_event){.event = *event};
        if (controller->queue == NULL) {
            controller->queue = queued;
        } else {
            controller->queue_last->next = queued;
        }
        controller->queue_last = queued;
        return;
    }
    controller->stepping = true;
    step(controller, event);
    while (controller->queue != NULL) {
        struct queued_event *queued = controller->queue;
        controller->queue = queued->next;
        step(controller, &queued->event);
        free(queued);
    }
    controller->stepping = false;
    set_wake(controller);
    controller_settle_look(controller);
}

void controller_answer(struct controller *controller, uint64_t ticket, bool ok, bool uncertain,
                       const struct error *error)
{
    struct flip_event event = {
        .kind = ok ? FLIP_EVENT_DONE : FLIP_EVENT_FAILED, .ticket = ticket, .uncertain = uncertain};
    if (!ok) {
        event.error = *error;
    }
    controller_feed(controller, &event);
}

static void on_wake(uv_timer_t *timer)
{
    struct flip_event event = {.kind = FLIP_EVENT_TICK};
    controller_feed(timer->data, &event);
}

/* --- news of the clusters --- */

void controller_raise(struct controller *controller, const struct error *alarm, uint64_t flip)
{
    controller->alarm = *alarm;
    controller->alarm_us = clock_mono_us();
    const bool steady = !flip_running(&controller->flip) && !controller->flip.watch.on;
    events_publish(controller->events, LOG_LEVEL_WARN, "alarm", flip,
                   steady ? NULL : flip_phase_text(&controller->flip), "%s", alarm->message);
    audit_decision(controller->audit, "alarm",
                   json_pack("{s:I, s:s, s:o}", "flip", (json_int_t)flip, "code",
                             error_code_text(alarm->code), "message", text_json(alarm->message)));
    controller_notify(controller, flip, flip_phase_text(&controller->flip), "alarm", alarm->message);
}

enum { FIRST_ANSWER_US = 2 * CONTROLLER_SECOND_US };

static void note_side(struct controller *controller, enum side side, bool reachable, const char *problem)
{
    if (!controller->side_seen[side] && !reachable &&
        clock_wall_us() - controller->started_us < FIRST_ANSWER_US) {
        return; /* it wasn't asked for long enough to say so */
    }
    const bool news = !controller->side_seen[side] || controller->side_reachable[side] != reachable;
    const bool was_seen = controller->side_seen[side];
    controller->side_seen[side] = true;
    controller->side_reachable[side] = reachable;
    if (!news) {
        return;
    }
    if (!reachable) {
        events_publish(controller->events, LOG_LEVEL_WARN, "side", 0, NULL, "%s can't be reached: %s",
                       side_name(side), problem);
    } else if (was_seen) {
        events_publish(controller->events, LOG_LEVEL_INFO, "side", 0, NULL, "%s is back", side_name(side));
        proxy_side_back(controller->proxy, side);
        controller->contact_due = true;
    }
}

/* A side whose fence contradicts its standing is looked at again, not more often than this; one that nobody
 * has met yet sooner, a few times. */
enum {
    CONTACT_AGAIN_US = 5 * CONTROLLER_SECOND_US,
    CONTACT_SOON_US = CONTROLLER_SECOND_US / 2,
    CONTACTS_SOON = 4
};

/* Deposed: what the clusters say about who is active is all there is to go by. */
static void follow(struct controller *controller)
{
    struct replication_followed followed;
    replication_followed(controller->replication, &followed);
    if (followed.known) {
        struct flip_event event = {
            .kind = FLIP_EVENT_FOLLOW, .side = followed.side, .epoch = followed.epoch, .open = followed.open};
        controller_feed(controller, &event);
    }
}

static void look_at_sides(struct controller *controller)
{
    struct replication_sample sample;
    bool wrong = false, unmet = false;
    replication_sample(controller->replication, &sample);
    if (controller->flip.mode == FLIP_MODE_DEPOSED) {
        follow(controller);
    }
    if (sample.taken_us == 0) {
        return;
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        note_side(controller, (enum side)i, sample.sides[i].reachable, sample.sides[i].problem);
        wrong |= sample.sides[i].reachable && (sample.sides[i].fence_wrong || sample.sides[i].names_wrong);
        unmet |= sample.sides[i].reachable && controller_is_unmet(controller, (enum side)i);
    }
    const int64_t now_us = clock_mono_us();
    controller->unmet_count = unmet ? controller->unmet_count : 0;
    const bool soon = unmet && controller->unmet_count < CONTACTS_SOON;
    wrong = (wrong || unmet) && controller->flip.mode == FLIP_MODE_STEADY &&
            now_us - controller->contact_us > (soon ? CONTACT_SOON_US : CONTACT_AGAIN_US);
    /* Looking takes ownership, which would end what prepare has under way. */
    if ((wrong || controller->contact_due) && !controller_is_operating(controller)) {
        struct flip_event event = {.kind = FLIP_EVENT_CONTACT};
        controller->contact_us = now_us;
        controller->unmet_count += unmet;
        controller->contact_due = false;
        controller_feed(controller, &event);
    }
}

static void on_changed(void *context)
{
    struct controller *controller = context;
    if (!controller->stopping && controller->replication != NULL) {
        look_at_sides(controller);
    }
}

static void on_deposed(void *context)
{
    struct controller *controller = context;
    struct flip_event event = {.kind = FLIP_EVENT_DEPOSED};
    controller_feed(controller, &event);
    if (!controller->stopping) {
        controller_gates_stop(controller);
        controller_waiters_fail(controller, &controller->flip.why);
    }
}

static void on_second(uv_timer_t *timer)
{
    struct controller *controller = timer->data;
    controller_gates_second(controller);
    look_at_sides(controller);
    controller_settle_look(controller);
    controller_holds_tick(controller);
    if (controller->reserved && !flip_running(&controller->flip)) {
        controller->reserved = false;
        journal_idle(controller->journal);
    }
}

static void on_progress(uv_timer_t *timer)
{
    controller_waiters_progress(timer->data);
}

static void on_pulse(uv_timer_t *timer)
{
    controller_promise_pulse(timer->data);
}

/* --- start --- */

struct replay {
    struct controller *controller;
    struct flip_history history;
    struct error *error;
    bool failed;
};

static bool replay_row(void *context, const struct journal_row *stored)
{
    struct replay *replay = context;
    struct record row = {.seq = stored->seq, .time_us = stored->time_us};
    if (!record_decode(stored->data, &row, replay->error)) {
        (void)error_remedy(replay->error, "state.dir/switchback.db is damaged, or of a newer version");
        replay->failed = true;
        return false;
    }
    flip_history_fold(&replay->history, &row);
    controller_story_row(replay->controller, &row);
    return true;
}

static bool read_journal(struct controller *controller, struct flip_history *history, struct error *error)
{
    struct replay replay = {.controller = controller, .error = error};
    flip_history_init(&replay.history);
    if (!journal_each(controller->journal, replay_row, &replay, error) || replay.failed) {
        return false;
    }
    *history = replay.history;
    return true;
}

static bool start_proxy(struct controller *controller, const struct flip_history *history,
                        const struct proxy_sockets *sockets, struct error *error)
{
    uint8_t mock_secret[MOCK_SECRET_SIZE];
    const struct proxy_callbacks callbacks = {.context = controller,
                                              .mock_secret = mock_secret,
                                              .event = controller_proxy_event,
                                              .verifier = controller_verifier,
                                              .doubt = controller_doubt};
    const struct proxy_route closed = {.side =
                                           history->known ? history->active : controller->settings->initial,
                                       .epoch = history->epoch > 0 ? history->epoch : 1,
                                       .open = false};
    if (!mock_secret_load(controller->settings->state_dir, mock_secret, error)) {
        return false;
    }
    controller->proxy =
        proxy_start(controller->loop, controller->settings, closed, &callbacks, sockets, error);
    explicit_bzero(mock_secret, sizeof mock_secret);
    return controller->proxy != NULL;
}

static bool start_replication(struct controller *controller, struct error *error)
{
    const struct replication_callbacks callbacks = {.context = controller,
                                                    .changed = on_changed,
                                                    .deposed = on_deposed,

                                                    .identified = controller_identified,
                                                    .choosing = controller_choosing};
    controller->replication = replication_new(controller->loop, controller->settings, &callbacks, error);
    return controller->replication != NULL;
}

static void start_timers(struct controller *controller)
{
    uv_timer_t *const timers[] = {&controller->wake,     &controller->second, &controller->gate_timer,
                                  &controller->progress, &controller->pulse,  &controller->doubt_timer};
    for (size_t i = 0; i < ARRAY_LENGTH(timers); i++) {
        ENSURE(uv_timer_init(controller->loop, timers[i]) == 0);
        timers[i]->data = controller;
        controller->parts++;
    }
    ENSURE(uv_timer_start(&controller->second, on_second, SECOND_MS, SECOND_MS) == 0);
    ENSURE(uv_timer_start(&controller->progress, on_progress, PROGRESS_MS, PROGRESS_MS) == 0);
    ENSURE(uv_timer_start(&controller->pulse, on_pulse, CONTROLLER_PULSE_MS, CONTROLLER_PULSE_MS) == 0);
}

static void free_controller(struct controller *controller)
{
    controller_gates_deinit(controller);
    controller_doubts_deinit(controller);
    while (controller->queue != NULL) {
        struct queued_event *queued = controller->queue;
        controller->queue = queued->next;
        free(queued);
    }
    free(controller->stories);
    free(controller);
}

void controller_ref(struct controller *controller)
{
    controller->references++;
}

void controller_unref(struct controller *controller)
{
    if (--controller->references > 0) {
        return;
    }
    void (*stopped)(void *) = controller->stopped;
    void *context = controller->stopped_context;
    free_controller(controller);
    if (stopped != NULL) {
        stopped(context);
    }
}

static void recover(struct controller *controller, const struct flip_history *history)
{
    struct flip_options options;
    flip_options_from_settings(&options, controller->settings);
    flip_init(&controller->flip, (struct flip_port){.context = controller, .request = controller_port},
              &options);
    struct flip_event event = {
        .kind = FLIP_EVENT_RECOVER, .history = history, .side = controller->settings->initial};
    controller_feed(controller, &event);
}

struct controller *controller_start(const struct controller_config *config, struct error *error)
{
    struct flip_history history;
    struct replication_identity identity;
    struct controller *controller = calloc(1, sizeof *controller);
    if (controller == NULL) {
        (void)error_set(error, ERROR_MEMORY, "out of memory for the controller");
        return NULL;
    }
    controller->loop = config->loop;
    controller->settings = config->settings;
    controller->journal = config->journal;
    controller->audit = config->audit;
    controller->events = config->events;
    controller->started_us = config->started_us;
    controller->references = 1;
    controller->stories = calloc(CONTROLLER_STORIES, sizeof *controller->stories);
    if (controller->stories == NULL) {
        (void)error_set(error, ERROR_MEMORY, "out of memory for the controller");
        free_controller(controller);
        return NULL;
    }
    /* Replication does nothing until it is asked, the proxy's port may be taken: so in this order. */
    if (!controller_gates_init(controller, error) || !read_journal(controller, &history, error) ||
        !controller_identity_recall(controller, &identity, error) ||
        !start_proxy(controller, &history, config->sockets, error)) {
        free_controller(controller);
        return NULL;
    }
    const bool started = start_replication(controller, error);
    ENSURE(started); /* only memory can be lacking, and the proxy runs already */
    replication_set_identity(controller->replication, &identity);
    controller->parts = 2;
    start_timers(controller);
    recover(controller, &history);
    return controller;
}

void controller_reload(struct controller *controller, const struct settings *settings)
{
    controller->settings = settings;
    proxy_reload(controller->proxy, settings);
    replication_reload(controller->replication, settings);
    if (!flip_running(&controller->flip)) { /* a flip keeps the options that it began with, a watch doesn't */
        flip_options_from_settings(&controller->flip.options, settings);
    }
    controller_gates_reload(controller);
}

/* --- stop --- */

void controller_stopping_error(struct error *error)
{
    error_set(error, ERROR_ABORTED, "the daemon is stopping");
    (void)error_remedy(error, "a flip that was under way goes on at the next start; switchback status tells");
}

void controller_say_stopping(struct rpc_call *call)
{
    struct error error;
    controller_stopping_error(&error);
    rpc_fail(call, &error);
}

static void kill_commands(struct controller *controller)
{
    for (struct running_command *running = controller->commands; running != NULL; running = running->next) {
        command_kill(running->command);
    }
}

/* What still leads here, a command's end or a row on its way to the disk, is waited for: it may use what the
 * daemon frees after. */
static void part_stopped(struct controller *controller)
{
    if (--controller->parts == 0) {
        kill_commands(controller);
        controller_unref(controller);
    }
}

static void on_timer_closed(uv_handle_t *handle)
{
    part_stopped(handle->data);
}

static void on_replication_stopped(void *context)
{
    struct controller *controller = context;
    controller->replication = NULL;
    part_stopped(controller);
}

/* Its clients ended at their boundary; from here on nobody needs the clusters. */
void controller_proxy_stopped(struct controller *controller)
{
    proxy_free(controller->proxy);
    controller->proxy = NULL;
    replication_stop(controller->replication, on_replication_stopped, controller);
    part_stopped(controller);
}

void controller_stop(struct controller *controller, void (*done)(void *context), void *context)
{
    controller->stopped = done;
    controller->stopped_context = context;
    controller->stopping = true;
    controller_flips_stop(controller);
    controller_sessions_stop(controller);
    kill_commands(controller);
    uv_close((uv_handle_t *)&controller->wake, on_timer_closed);
    uv_close((uv_handle_t *)&controller->second, on_timer_closed);
    uv_close((uv_handle_t *)&controller->gate_timer, on_timer_closed);
    uv_close((uv_handle_t *)&controller->doubt_timer, on_timer_closed);
    uv_close((uv_handle_t *)&controller->progress, on_timer_closed);
    uv_close((uv_handle_t *)&controller->pulse, on_timer_closed);
    proxy_stop(controller->proxy, controller->settings->timeouts.shutdown_us);
}

bool controller_answers(const struct controller *controller)
{
    return controller->stopping || controller->pings == controller->pings_answered;
}

void controller_ping(struct controller *controller)
{
    if (controller->proxy != NULL && !controller->stopping && controller_answers(controller)) {
        proxy_ping(controller->proxy, ++controller->pings);
    }
}

void controller_hurry(struct controller *controller)
{
    if (controller->proxy != NULL) {
        proxy_stop(controller->proxy, 0);
    }
}

/* --- methods --- */

void controller_register(struct controller *controller, struct rpc *rpc)
{
    static const struct rpc_method methods[] = {
        {"status", ROLE_VIEWER, controller_method_status, "",
         "both sides, the flip, the way back, gates, sessions"},
        {"check", ROLE_VIEWER, controller_method_check, "", "the preflight list"},
        {"sessions", ROLE_VIEWER, controller_method_sessions, "immovable?: bool, ask?: bool",
         "sessions and what can't move"},
        {"prepare", ROLE_OPERATOR, controller_method_prepare, "", "build replication to the standby"},
        {"cutover", ROLE_OPERATOR, controller_method_cutover,
         "dry_run?: bool, no_wait?: bool, watch?: bool, key?: string, reason?: string", "move traffic"},
        {"flip_back", ROLE_OPERATOR, controller_method_flip_back,
         "accept_loss?: bool, no_wait?: bool, key?: string, reason?: string", "move traffic back"},
        {"recover", ROLE_OPERATOR, controller_method_recover, "use?: string, reason?: string",
         "what is seen of both sides, and an operator's choice"},
        {"rejoin", ROLE_OPERATOR, controller_method_rejoin, "dry_run?: bool, reason?: string",
         "bring a diverged side back"},
        {"abort", ROLE_OPERATOR, controller_method_abort, "reason?: string",
         "undo a flip that has not committed"},
        {"finalize", ROLE_OPERATOR, controller_method_finalize, "reason?: string", "end the way back"},
        {"hold", ROLE_OPERATOR, controller_method_hold, "for: string, reason: string", "stop new work"},
        {"release", ROLE_OPERATOR, controller_method_release, "", "resume it"},
    };
    rpc_register(rpc, methods, ARRAY_LENGTH(methods), controller);
}
