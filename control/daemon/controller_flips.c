/* The verbs that begin and end flips, and the runner's news about them. */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- begin --- */

/* The journal has room: the flip may begin, if nothing came in between. */
static void on_reserved(void *context, const struct error *failure)
{
    struct controller *controller = context;
    struct flip_spec spec = controller->begins;
    struct flip_options options;
    struct error error;
    memset(&controller->begins, 0, sizeof controller->begins);
    if (controller->stopping) {
        controller_unref(controller);
        return;
    }
    bool may = failure == NULL;
    if (may) {
        may = flip_may_start(&controller->flip, spec.kind, side_other(spec.source), &error);
    } else {
        error = *failure;
    }
    if (!may) {
        controller_waiters_answer(controller, spec.id, true, FLIP_OUTCOME_REFUSED, &error);
    } else {
        flip_options_from_settings(&options, controller->settings);
        struct flip_event event = {.kind = FLIP_EVENT_START, .spec = &spec, .options = &options};
        controller->reserved = true;
        controller->drain = (struct proxy_counts){0};
        error_clear(&controller->alarm);
        if (!controller->gates.acting) { /* those that a flip-back left to report */
            controller_gates_stop(controller);
        }
        controller_feed(controller, &event);
    }
    controller_unref(controller);
}

static bool may_begin(const struct controller *controller, enum flip_kind kind, enum side target,
                      struct error *error)
{
    if (controller->begins.id != 0) {
        return error_set(error, ERROR_FLIP_RUNNING, "flip %" PRIu64 " is about to begin",
                         controller->begins.id);
    }
    if (controller->busy != NULL) {
        error_set(error, ERROR_FLIP_RUNNING, "%s is under way", controller->busy);
        return error_remedy(error, "wait for its end");
    }
    return flip_may_start(&controller->flip, kind, target, error);
}

struct wish {
    int dry_run, no_wait, watch, accept_loss;
    const char *key, *reason;
};

/* A key that was used before: attaches to its flip, or returns what it came to. */
static bool seen_before(struct controller *controller, struct rpc_call *call, const struct wish *wish)
{
    if (wish->key == NULL || wish->key[0] == '\0') {
        return false;
    }
    if (controller->begins.id != 0 && strcmp(controller->begins.key, wish->key) == 0) {
        controller_wait(controller, call, controller->begins.id, wish->watch != 0);
        return true;
    }
    const struct flip_story *story = controller_story_by_key(controller, wish->key);
    if (story == NULL) {
        return false;
    }
    const struct flip *flip = &controller->flip;
    const bool runs = flip_running(flip) && flip->spec.id == story->flip && !flip->settled;
    const bool watched = wish->watch != 0 && story->outcome == FLIP_OUTCOME_DONE &&
                         flip->history.done.flip == story->flip && (flip->watch.on || flip_running(flip));
    if (runs || watched) {
        controller_wait(controller, call, story->flip, wish->watch != 0);
        return true;
    }
    const enum flip_outcome outcome =
        story->outcome == FLIP_OUTCOME_NONE ? FLIP_OUTCOME_INCONCLUSIVE : story->outcome;
    rpc_reply(call, controller_result(story, outcome, NULL));
    return true;
}

static void started(struct rpc_call *call, const struct flip_spec *spec)
{
    rpc_reply(call, json_pack("{s:s, s:I, s:s, s:s, s:s, s:n, s:[], s:n, s:i, s:i}", "result", "started",
                              "flip", (json_int_t)spec->id, "kind", flip_kind_name(spec->kind), "from",
                              side_name(spec->source), "to", side_name(side_other(spec->source)), "reason",
                              "phases", "stall_ms", "moved", 0, "disconnected", 0));
}

/* What went back only from a dead side must not be lost without being asked for. */
static bool loss_accepted(const struct controller *controller, enum flip_kind kind, const struct wish *wish,
                          struct error *error)
{
    if (kind != FLIP_KIND_TAKEOVER || flip_promise_stands(&controller->flip) || wish->accept_loss) {
        return true;
    }
    controller_dead_error(controller, error);
    return false;
}

static void begin(struct controller *controller, struct rpc_call *call, enum flip_kind kind, enum side target,
                  const struct wish *wish)
{
    struct error error;
    if (controller->stopping) {
        controller_say_stopping(call);
        return;
    }
    if (wish->key != NULL && strlen(wish->key) >= RECORD_KEY_SIZE) {
        error_set(&error, ERROR_USAGE, "a key has at most %d bytes", RECORD_KEY_SIZE - 1);
        rpc_fail(call, &error);
        return;
    }
    if (wish->dry_run) {
        controller_dry_run(controller, call, kind, target);
        return;
    }
    if (seen_before(controller, call, wish)) {
        return;
    }
    if (kind == FLIP_KIND_FLIP_BACK && controller_is_active_dead(controller)) {
        kind = FLIP_KIND_TAKEOVER; /* nothing can be asked of it */
    }
    if (!may_begin(controller, kind, target, &error) || !loss_accepted(controller, kind, wish, &error)) {
        rpc_fail(call, &error);
        return;
    }
    struct flip_spec *spec = &controller->begins;
    flip_next_spec(&controller->flip, kind, spec);
    spec->accept_loss = kind == FLIP_KIND_TAKEOVER && wish->accept_loss;
    (void)snprintf(spec->key, sizeof spec->key, "%s", wish->key != NULL ? wish->key : "");
    (void)snprintf(spec->reason, sizeof spec->reason, "%s", wish->reason != NULL ? wish->reason : "");
    events_publish(controller->events, LOG_LEVEL_INFO, "flip", spec->id, NULL,
                   "%s asks for a %s from %s to %s%s%s", rpc_call_peer(call)->name, flip_kind_name(kind),
                   side_name(spec->source), side_name(target), spec->reason[0] != '\0' ? ": " : "",
                   spec->reason);
    if (wish->no_wait) {
        started(call, spec);
    } else {
        controller_wait(controller, call, spec->id, wish->watch != 0);
    }
    controller_ref(controller);
    journal_reserve(controller->journal, on_reserved, controller);
}

void controller_method_cutover(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    struct wish wish = {0};
    if (rpc_call_unpack(call, "{s?b, s?b, s?b, s?s, s?s}", "dry_run", &wish.dry_run, "no_wait", &wish.no_wait,
                        "watch", &wish.watch, "key", &wish.key, "reason", &wish.reason)) {
        begin(controller, call, FLIP_KIND_CUTOVER, side_other(controller->settings->initial), &wish);
    }
}

void controller_method_flip_back(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    struct wish wish = {0};
    if (rpc_call_unpack(call, "{s?b, s?b, s?s, s?s}", "accept_loss", &wish.accept_loss, "no_wait",
                        &wish.no_wait, "key", &wish.key, "reason", &wish.reason)) {
        begin(controller, call, FLIP_KIND_FLIP_BACK, controller->settings->initial, &wish);
    }
}

void controller_method_abort(void *context, struct rpc_call *call)
{
    struct controller *controller = context;
    struct flip_event event = {.kind = FLIP_EVENT_ABORT};
    const char *reason = NULL;
    struct error error;
    if (!rpc_call_unpack(call, "{s?s}", "reason", &reason)) {
        return;
    }
    if (controller->stopping) {
        controller_say_stopping(call);
        return;
    }
    if (!flip_may_abort(&controller->flip, &error)) {
        rpc_fail(call, &error);
        return;
    }
    const uint64_t flip = controller->flip.spec.id;
    error_set(&event.error, ERROR_ABORTED, "aborted by %s%s%s", rpc_call_peer(call)->name,
              reason != NULL ? ": " : "", reason != NULL ? reason : "");
    events_publish(controller->events, LOG_LEVEL_WARN, "flip", flip, flip_phase_text(&controller->flip), "%s",
                   event.error.message);
    controller_feed(controller, &event);
    rpc_reply(call, json_pack("{s:I, s:s}", "flip", (json_int_t)flip, "result", "aborting"));
}

/* --- news of the runner --- */

void controller_flip_phase(struct controller *controller, const struct flip_request *request)
{
    events_publish(controller->events, LOG_LEVEL_INFO, "phase", request->flip,
                   flip_phase_name(request->phase), "%s",
                   flip_table_comment(controller->flip.spec.kind, flip_table_row(request->phase)));
    controller_waiters_progress(controller);
}

/* What is tried again and again is no result; who waits for one is told so, and the trying goes on. */
enum { TRIES_UNTIL_INCONCLUSIVE = 3 };

void controller_flip_alarm(struct controller *controller, const struct flip_request *request)
{
    const struct flip *flip = &controller->flip;
    controller_raise(controller, &request->error, request->flip);
    if (request->error.code == ERROR_GATE_FAILED && flip->watch.on &&
        flip->options.watch_flip_back == FLIP_BACK_MANUAL) {
        struct error decide = request->error;
        (void)error_remedy(
            &decide, "watch.flip_back is manual, so traffic stays on %s: switchback flip-back goes back",
            side_name(flip->history.active));
        controller_waiters_answer(controller, flip->history.done.flip, true, FLIP_OUTCOME_INCONCLUSIVE,
                                  &decide);
    } else if (request->error.code == ERROR_WAY_BACK_CLOSED && flip->watch.failing) {
        controller_waiters_answer(controller, flip->history.done.flip, true, FLIP_OUTCOME_INCONCLUSIVE,
                                  &request->error);
    } else if (flip_running(flip) && flip->retry.tries >= TRIES_UNTIL_INCONCLUSIVE) {
        controller_waiters_answer(controller, flip->spec.id, true, FLIP_OUTCOME_INCONCLUSIVE,
                                  &request->error);
    }
}

static void audit_end(struct controller *controller, const struct flip_request *request)
{
    const struct flip_story *story = request->story;
    audit_decision(controller->audit, "flip",
                   json_pack("{s:I, s:s, s:s, s:s, s:s, s:b, s:o, s:I, s:I, s:I}", "flip",
                             (json_int_t)story->flip, "kind", flip_kind_name(story->kind), "from",
                             side_name(story->source), "to", side_name(side_other(story->source)), "result",
                             flip_outcome_name(request->outcome), "automatic", story->automatic ? 1 : 0,
                             "reason", text_json(story->text), "stall_max_us",
                             (json_int_t)story->stall_max_us, "moved", (json_int_t)story->moved,
                             "disconnected", (json_int_t)story->disconnected));
}

void controller_flip_finished(struct controller *controller, const struct flip_request *request)
{
    const struct flip_story *story = request->story;
    const bool done = request->outcome == FLIP_OUTCOME_DONE;
    if (done) {
        controller_gates_moved(controller);
    }
    const bool waited = done && story->stall_max_us > 0;
    char stall[CLOCK_TEXT_SIZE], message[EVENT_MESSAGE_SIZE];
    clock_format_duration(story->stall_max_us, stall);
    (void)snprintf(message, sizeof message, "%s from %s to %s: %s%s%s%s%.*s", flip_kind_name(story->kind),
                   side_name(story->source), side_name(side_other(story->source)),
                   flip_outcome_name(request->outcome), waited ? ", longest wait " : "", waited ? stall : "",
                   story->text[0] != '\0' ? ": " : "", RECORD_TEXT_SIZE - 160, story->text);
    events_publish(controller->events, done ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "flip", request->flip, NULL,
                   "%s", message);
    audit_end(controller, request);
    controller_notify(controller, request->flip, flip_outcome_name(request->outcome), "flip", message);
    controller_waiters_answer(controller, request->flip, !done || story->kind != FLIP_KIND_CUTOVER,
                              request->outcome, &request->error);
    if (done && story->kind != FLIP_KIND_CUTOVER) {
        const struct error why = {.code = ERROR_GATE_FAILED};
        struct error told = why;
        (void)snprintf(told.message, sizeof told.message, "%s",
                       story->text[0] != '\0' ? story->text : "an operator flipped back");
        controller_waiters_answer(controller, story->of, true, FLIP_OUTCOME_FLIPPED_BACK, &told);
        controller_gates_start(controller, side_other(story->source), false);
    }
}

void controller_flip_watch(struct controller *controller, bool on)
{
    if (on) {
        controller_gates_start(controller, controller->flip.history.active, true);
        events_publish(controller->events, LOG_LEVEL_INFO, "watch", controller->flip.history.done.flip,
                       "watch", "%s is watched", side_name(controller->flip.history.active));
    } else {
        controller_gates_stop(controller);
    }
}

static void promise_row(struct controller *controller, const struct record *row)
{
    const bool on = row->kind == RECORD_PROMISE_ON;
    const char *active = side_name(row->side), *other = side_name(side_other(row->side));
    if (on) {
        events_publish(controller->events, LOG_LEVEL_INFO, "promise", row->flip, NULL,
                       "each commit on %s is confirmed by %s from here on", active, other);
    } else {
        events_publish(controller->events, LOG_LEVEL_INFO, "promise", row->flip, NULL,
                       "commits on %s are no longer confirmed by %s: %s", active, other, row->text);
    }
    audit_decision(controller->audit, "promise",
                   json_pack("{s:I, s:b, s:s, s:o}", "flip", (json_int_t)row->flip, "on", on ? 1 : 0, "side",
                             active, "reason", text_json_or_null(row->text)));
}

void controller_flip_row(struct controller *controller, const struct record *row)
{
    if (row->kind == RECORD_PROMISE_ON || row->kind == RECORD_PROMISE_OFF) {
        promise_row(controller, row);
        return;
    }
    if (row->kind == RECORD_BEGIN && row->automatic) { /* else somebody has asked for it, and that is told */
        events_publish(controller->events, LOG_LEVEL_WARN, "flip", row->flip, NULL,
                       "a %s from %s to %s begins by itself: %s", flip_kind_name(row->flip_kind),
                       side_name(row->side), side_name(side_other(row->side)), row->text);
        return;
    }
    if (row->kind != RECORD_WATCH_END && row->kind != RECORD_FINALIZED) {
        return;
    }
    struct error none;
    error_clear(&none);
    events_publish(controller->events, LOG_LEVEL_INFO, "watch", row->flip, NULL, "%s", row->text);
    audit_decision(controller->audit, "watch",
                   json_pack("{s:I, s:o}", "flip", (json_int_t)row->flip, "end", text_json(row->text)));
    controller_waiters_answer(controller, row->flip, true, FLIP_OUTCOME_DONE, &none);
}

void controller_flips_stop(struct controller *controller)
{
    struct error stopping;
    controller_stopping_error(&stopping);
    controller_waiters_fail(controller, &stopping);
    controller_recover_pulse(controller);
    controller_settle_look(controller);
    struct rpc_call **const calls[] = {&controller->hold_call, &controller->release_call};
    for (size_t i = 0; i < ARRAY_LENGTH(calls); i++) {
        if (*calls[i] != NULL) {
            rpc_fail(*calls[i], &stopping);
            *calls[i] = NULL;
        }
    }
}
