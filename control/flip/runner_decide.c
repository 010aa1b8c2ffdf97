/* `recover --use SIDE`: an operator's choice, where neither journal nor clusters can tell. */
#include "control/flip/runner_internal.h"

#include <inttypes.h>
#include <stdio.h>

void flip_decide(struct flip *flip, const struct flip_event *event)
{
    struct error ignored;
    if (!flip_may_decide(flip, event->side, &ignored)) {
        return;
    }
    flip->deciding = true;
    flip->decided = event->side;
    if (flip_running(flip)) {
        flip_drop_await(flip);
        if (flip->armed) {
            const struct flip_request disarm = flip_request(flip, FLIP_ACTION_DISARM);
            flip_tell(flip, &disarm);
        }
        flip->mode = FLIP_MODE_UNDECIDED;
    }
    if (flip->await.action == FLIP_ACTION_NONE) { /* else facts are being read: they are waited for */
        flip_adopt(flip);
    }
}

static void write_decided(struct flip *flip)
{
    const enum side side = flip->decided;
    struct recovery_choice choices[SIDE_COUNT];
    recovery_choices(&flip->history, &flip->facts, choices);
    struct record row = {.kind = RECORD_DECIDED, .side = side, .epoch = choices[side].epoch};
    (void)snprintf(row.text, sizeof row.text, "%.*s", RECORD_TEXT_SIZE - 1, flip->why.message);
    const uint64_t number = flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    flip->deciding = false;
    flip->await = (struct flip_await){.action = FLIP_ACTION_JOURNAL,
                                      .ticket = FLIP_ROW_TICKET | number,
                                      .guard_us = flip->now_us + FLIP_ROW_US};
}

/* The journal's word first; then the side is made what it says. After a restart it is there already. */
void flip_adopt(struct flip *flip)
{
    flip->retry = (struct flip_retry){0};
    if (flip->deciding) {
        write_decided(flip);
        return;
    }
    struct flip_request request = {
        .kind = FLIP_ACTION_ADOPT, .side = flip->history.active, .epoch = flip->history.epoch};
    flip_ask(flip, &request, flip->now_us + FLIP_ADOPT_US);
}

/* Whatever ran is over; the rest is what a start does with a side that is known to be active. */
static void adopted(struct flip *flip)
{
    const struct flip_story *story = &flip->history.flip;
    struct record row = {.side = flip->history.active, .epoch = flip->history.epoch};
    if (flip_story_running(story)) {
        row.kind = RECORD_END;
        row.flip = story->flip;
        row.outcome = FLIP_OUTCOME_INCONCLUSIVE;
        row.code = ERROR_UNDECIDED;
        (void)snprintf(row.text, sizeof row.text, "an operator decided for %s", side_name(row.side));
        (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
        if (flip->spec.id == row.flip) { /* somebody may wait for it */
            struct flip_request told = flip_request(flip, FLIP_ACTION_FINISHED);
            told.outcome = row.outcome;
            error_set(&told.error, row.code, "%s", row.text);
            told.story = story;
            flip_tell(flip, &told);
        }
    }
    row = (struct record){.kind = RECORD_STEADY, .side = flip->history.active, .epoch = flip->history.epoch};
    (void)snprintf(row.text, sizeof row.text, "an operator decided for %s", side_name(row.side));
    (void)flip_write(flip, &row, FLIP_ACTION_JOURNAL);
    flip->mode = FLIP_MODE_RECOVER;
    flip->names_seen = false;
    flip_learn(flip);
}

void flip_adopt_answer(struct flip *flip, enum flip_action_kind action, const struct flip_event *event)
{
    if (event->kind != FLIP_EVENT_FAILED) {
        if (action == FLIP_ACTION_ADOPT) {
            adopted(flip);
        } else {
            flip_adopt(flip);
        }
        return;
    }
    const char *side = side_name(flip->history.active);
    if (action != FLIP_ACTION_ADOPT) { /* the word isn't on disk: it is written again before it is acted on */
        flip->deciding = true;
        flip->decided = flip->history.active;
    }
    flip->mode = FLIP_MODE_UNDECIDED;
    error_set(&flip->why, ERROR_UNDECIDED, "an operator decided for %s, which can't be opened: %s", side,
              event->error.message);
    error_remedy(&flip->why,
                 "bring %s back: it is tried again; or decide for the other side: switchback recover", side);
    flip_alarm(flip, &flip->why);
    flip_retry_later(flip, &flip->retry);
}
