/*
 * What a start may not believe: clusters that are none of the pair's, and a journal that is older than what
 * the clusters say (a restored copy of state.dir, or another daemon has run the pair since).
 */
#include "control/flip/recovery_distrust.h"

#include <string.h>

static bool is_foreign(const struct flip_facts *facts, enum side side)
{
    return facts->sides[side].foreign[0] != '\0';
}

/* Its place in the pair isn't needed to know who takes the traffic: the journal says that the other one does.
 */
static bool can_do_without(const struct flip_history *history, enum side side)
{
    return history->known && history->epoch > 0 && !flip_story_running(&history->flip) &&
           side == side_other(history->active);
}

bool recovery_is_foreign(const struct flip_history *history, struct flip_facts *facts,
                         struct recovery *recovery)
{
    for (int i = 0; i < SIDE_COUNT; i++) {
        const enum side side = (enum side)i;
        if (!is_foreign(facts, side)) {
            continue;
        }
        if (!can_do_without(history, side) || is_foreign(facts, side_other(side))) {
            recovery->verdict = RECOVERY_UNDECIDED;
            recovery->foreign = true;
            error_set(&recovery->why, ERROR_UNDECIDED, "%s", facts->sides[side].foreign);
            error_remedy(&recovery->why, "nobody is served by a cluster that isn't the pair's: correct the "
                                         "addresses in `sides`, or state.dir, and start again");
            return true;
        }
        facts->sides[side] = (struct flip_side_facts){.databases = facts->sides[side].databases};
    }
    return false;
}

bool recovery_journal_is_older(const struct flip_history *history, const struct flip_facts *facts)
{
    const struct flip_story *story = &history->flip;
    const uint64_t explained = !story->committed ? story->epoch : story->epoch + 2;
    for (int i = 0; i < SIDE_COUNT; i++) {
        const struct flip_side_facts *side = &facts->sides[i];
        if (side->reachable && side->installed > 0 &&
            (side->last_flip > history->last_flip || side->epoch_max > explained ||
             (side->last_flip == story->flip && !story->fence_intended))) { /* it has touched nothing yet */
            return true;
        }
    }
    return false;
}
