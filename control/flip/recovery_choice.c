/* What an operator's choice would do (recovery.h). */
#include "control/flip/recovery.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A side out of reach may be this much further: taken over or taken back without the other one hearing of it.
 */
enum { UNSEEN_EPOCHS = 2 };

static uint64_t higher(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

/* Above everything that the pair has had, so that whatever comes back later finds itself left behind. */
static uint64_t next_epoch(const struct flip_history *history, const struct flip_facts *facts)
{
    const struct flip_story *story = &history->flip;
    uint64_t epoch = history->epoch;
    if (flip_story_running(story)) {
        epoch = higher(epoch, story->epoch + (story->back ? 2 : story->committed));
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        epoch = higher(epoch, facts->sides[i].epoch_max);
    }
    return epoch + 1 + UNSEEN_EPOCHS;
}

static void describe(struct recovery_choice *choice, const struct flip_side_facts *side)
{
    const char *name = side_name(choice->side);
    const char *other = side_name(side_other(choice->side));
    char standing[96] = "";
    if (side->active > 0) {
        (void)snprintf(standing, sizeof standing, "says that it is active at epoch %" PRIu64,
                       side->epoch_max);
    } else {
        (void)snprintf(standing, sizeof standing, "is %s at epoch %" PRIu64,
                       side->diverged > 0 ? "diverged" : "the standby", side->epoch_max);
    }
    (void)snprintf(
        choice->does, sizeof choice->does,
        "%s %s; it would be opened as the active side at epoch %" PRIu64 "; %s %s%s", name, standing,
        choice->epoch, other,
        choice->other_unseen   ? "can't be reached: it would be fenced when it comes back"
        : choice->fences_other ? "would be fenced and marked diverged: switchback rejoin brings it back"
                               : "stays fenced",
        choice->may_lack ? "; it may hold commits that clients saw acknowledged, which would be left "
                           "behind there"
                         : "");
}

void recovery_choices(const struct flip_history *history, const struct flip_facts *facts,
                      struct recovery_choice choices[SIDE_COUNT])
{
    const uint64_t epoch = next_epoch(history, facts);
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct recovery_choice *choice = &choices[i];
        const enum side side = (enum side)i;
        const struct flip_side_facts *it = &facts->sides[i];
        const struct flip_side_facts *other = &facts->sides[side_other(side)];
        memset(choice, 0, sizeof *choice);
        choice->side = side;
        choice->epoch = epoch;
        choice->possible = it->reachable && it->installed > 0 && it->installed == it->databases;
        choice->other_unseen = !other->reachable;
        choice->fences_other = other->reachable && other->fences_on < other->installed;
        /* Nobody writes to a side that is fenced; only one that was the later active one can be ahead. */
        choice->may_lack =
            !other->reachable || other->active > 0 || other->diverged > 0 || other->epoch_max > it->epoch_max;
        if (!it->reachable) {
            error_set(&choice->why_not, ERROR_UNREACHABLE, "%s can't be reached", side_name(side));
            error_remedy(&choice->why_not, "bring it back first");
        } else if (!choice->possible) {
            error_set(&choice->why_not, ERROR_NOT_PREPARED,
                      "%s holds nothing of switchback's in %u of %u databases", side_name(side),
                      it->databases - it->installed, it->databases);
            error_remedy(&choice->why_not, "correct the configuration, or switchback prepare");
        }
        describe(choice, it);
    }
}
