#include "control/daemon/events_history.h"

#include "conf/base/side.h"
#include "control/flip/record.h"

#include <inttypes.h>
#include <stdio.h>

enum { DESCRIPTION_SIZE = RECORD_TEXT_SIZE + 128 };

/* The row in words; false: nothing that an operator wants to see again. */
static bool describe(const struct record *row, char text[DESCRIPTION_SIZE])
{
    size_t size = DESCRIPTION_SIZE;
    const char *side = side_name(row->side);
    const char *why = row->text[0] == '\0' ? "" : ": ";
    switch (row->kind) {
    case RECORD_BEGIN:
        (void)snprintf(text, size, "%s%s from %s began%s%s", row->automatic ? "automatic " : "",
                       flip_kind_name(row->flip_kind), side, why, row->text);
        return true;
    case RECORD_COMMIT:
        (void)snprintf(text, size, "%s is to be active at epoch %" PRIu64, side, row->epoch);
        return true;
    case RECORD_BACK:
        (void)snprintf(text, size, "it could not be opened, back to %s at epoch %" PRIu64 "%s%s", side,
                       row->epoch, why, row->text);
        return true;
    case RECORD_RELEASED:
        (void)snprintf(text, size, "%s is open at epoch %" PRIu64, side, row->epoch);
        return true;
    case RECORD_END:
        (void)snprintf(text, size, "%s, %s is active%s%s", flip_outcome_name(row->outcome), side, why,
                       row->text);
        return true;
    case RECORD_WATCH_END:
        (void)snprintf(text, size, "the watch is over%s%s", why, row->text);
        return true;
    case RECORD_FINALIZED:
        (void)snprintf(text, size, "the way back was ended%s%s", why, row->text);
        return true;
    case RECORD_PROMISE_ON:
        (void)snprintf(text, size, "each commit on %s is confirmed by %s from here on", side,
                       side_name(side_other(row->side)));
        return true;
    case RECORD_PROMISE_OFF:
        (void)snprintf(text, size, "commits on %s are no longer confirmed by %s%s%s", side,
                       side_name(side_other(row->side)), why, row->text);
        return true;
    case RECORD_DECIDED:
        (void)snprintf(text, size, "an operator decided for %s, at epoch %" PRIu64 "%s%s", side, row->epoch,
                       why, row->text);
        return true;
    case RECORD_RESULT:
        (void)snprintf(text, size, "%s failed%s%s", flip_phase_name(row->phase), why, row->text);
        return row->code != ERROR_NONE;
    case RECORD_ATTACHED:
        (void)snprintf(text, size, "%s follows again", side_name(side_other(row->side)));
        return true;
    case RECORD_STEADY:
    case RECORD_UNPREPARED:
    case RECORD_INTENT:
    case RECORD_KIND_COUNT:
        break;
    }
    return false;
}

static bool restore_row(void *context, const struct journal_row *stored)
{
    struct record row;
    struct error ignored;
    struct event event = {
        .time_us = stored->time_us, .level = LOG_LEVEL_INFO, .flip = stored->flip, .type = "flip"};
    char text[DESCRIPTION_SIZE];
    if (record_decode(stored->data, &row, &ignored) && describe(&row, text)) {
        (void)snprintf(event.message, sizeof(event.message), "%.*s", EVENT_MESSAGE_SIZE - 1, text);
        if (row.code != ERROR_NONE) {
            event.level = LOG_LEVEL_WARN;
        }
        (void)snprintf(event.phase, sizeof(event.phase), "%s",
                       row.phase == FLIP_PHASE_NONE ? "" : flip_phase_name(row.phase));
        events_put_back(context, &event);
    }
    return true;
}

bool events_restore(struct events *events, struct journal *journal, struct error *error)
{
    return journal_each(journal, restore_row, events, error);
}
