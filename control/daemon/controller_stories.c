/* What flips came to: remembered from the journal's rows, for results, --key, and predictions. */
#include "control/daemon/controller_internal.h"

#include <stdlib.h>
#include <string.h>

struct flip_story *controller_story(const struct controller *controller, uint64_t flip)
{
    for (size_t i = 0; i < controller->story_count; i++) {
        if (controller->stories[i].flip == flip) {
            return &controller->stories[i];
        }
    }
    return NULL;
}

/* The newest one under this key. A refusal isn't remembered: the same key may try again. */
const struct flip_story *controller_story_by_key(const struct controller *controller, const char *key)
{
    const struct flip_story *found = NULL;
    for (size_t i = 0; i < controller->story_count; i++) {
        const struct flip_story *story = &controller->stories[i];
        if (strcmp(story->key, key) == 0 && story->outcome != FLIP_OUTCOME_REFUSED &&
            (found == NULL || story->flip > found->flip)) {
            found = story;
        }
    }
    return found;
}

void controller_story_row(struct controller *controller, const struct record *row)
{
    if (row->kind == RECORD_BEGIN) {
        struct flip_story *slot = &controller->stories[controller->story_next];
        controller->story_next = (controller->story_next + 1) % CONTROLLER_STORIES;
        controller->story_count += controller->story_count < CONTROLLER_STORIES;
        flip_story_fold(slot, row);
        return;
    }
    struct flip_story *story = row->flip != 0 ? controller_story(controller, row->flip) : NULL;
    if (story != NULL) {
        flip_story_fold(story, row);
    }
    story = row->kind == RECORD_END && row->of != 0 ? controller_story(controller, row->of) : NULL;
    if (story != NULL) {
        flip_story_fold(story, row); /* the cutover that this flip-back took back */
    }
}

json_t *controller_stall(const struct flip_story *story)
{
    if (story->stall_max_us == 0) {
        return json_null();
    }
    return json_pack("{s:f, s:f, s:f}", "p50", (double)story->stall_p50_us / CONTROLLER_MS_US, "p99",
                     (double)story->stall_p99_us / CONTROLLER_MS_US, "max",
                     (double)story->stall_max_us / CONTROLLER_MS_US);
}

static json_t *phases_json(const struct flip_story *story)
{
    json_t *list = json_array();
    for (enum flip_phase phase = flip_table_first(story->kind); phase != FLIP_PHASE_NONE;
         phase = flip_table_next(story->kind, story->lossless, phase)) {
        if (story->phase_us[phase] > 0) {
            json_array_append_new(list, json_pack("{s:s, s:f}", "phase", flip_phase_name(phase), "ms",
                                                  (double)story->phase_us[phase] / CONTROLLER_MS_US));
        }
    }
    return list;
}

json_t *controller_result(const struct flip_story *story, enum flip_outcome outcome,
                          const struct error *error)
{
    const char *reason = error != NULL && error->code != ERROR_NONE ? error->message : story->text;
    json_t *result = json_pack("{s:s, s:I, s:s, s:s, s:s, s:o, s:o, s:o, s:I, s:I}", "result",
                               flip_outcome_name(outcome), "flip", (json_int_t)story->flip, "kind",
                               flip_kind_name(story->kind), "from", side_name(story->source), "to",
                               side_name(side_other(story->source)), "reason", text_json_or_null(reason),
                               "phases", phases_json(story), "stall_ms", controller_stall(story), "moved",
                               (json_int_t)story->moved, "disconnected", (json_int_t)story->disconnected);
    const enum error_code code = error != NULL && error->code != ERROR_NONE ? error->code : story->code;
    if (outcome != FLIP_OUTCOME_DONE && code != ERROR_NONE) {
        json_object_set_new(result, "code", json_string(error_code_text(code)));
    }
    if (error != NULL && error->remedy[0] != '\0') {
        json_object_set_new(result, "remedy", text_json(error->remedy));
    }
    return result;
}

/* --- predictions --- */

enum { USUAL_FLIPS = 9 };

static int compare(const void *left, const void *right)
{
    const int64_t one = *(const int64_t *)left;
    const int64_t other = *(const int64_t *)right;
    return (one > other) - (one < other);
}

/* Phases that do something with each session take longer with more of them. Measured on few sessions, most is
 * what it costs anyway: that of about so many. */
enum { SESSIONS_FREE = 20 };

static int64_t scaled(const struct flip_story *story, enum flip_phase phase, uint64_t sessions)
{
    const int64_t us = story->phase_us[phase];
    if (phase != FLIP_PHASE_HOLD && phase != FLIP_PHASE_DRAIN && phase != FLIP_PHASE_RELEASE) {
        return us;
    }
    const double then = (double)(story->moved + story->disconnected + SESSIONS_FREE);
    return (int64_t)((double)us * (double)(sessions + SESSIONS_FREE) / then);
}

int64_t controller_usual_us(const struct controller *controller, enum flip_phase phase, uint64_t sessions)
{
    int64_t measured[USUAL_FLIPS];
    size_t count = 0;
    for (size_t back = 1; back <= controller->story_count && count < USUAL_FLIPS; back++) {
        const struct flip_story *story =
            &controller->stories[(controller->story_next + CONTROLLER_STORIES - back) % CONTROLLER_STORIES];
        const bool alike = phase != FLIP_PHASE_TURN || story->lossless == controller->settings->lossless;
        if (story->released && alike && story->phase_us[phase] > 0) {
            measured[count++] = scaled(story, phase, sessions);
        }
    }
    if (count == 0) {
        return -1;
    }
    qsort(measured, count, sizeof measured[0], compare);
    return measured[count / 2];
}
