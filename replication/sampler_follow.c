/*
 * A deposed controller decides nothing and writes nothing, but its clients are still there: it looks, and
 * only reads, which side the clusters themselves say takes the writes.
 */
#include "replication/sampler_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/identity.h"

#include <stdlib.h>

enum { FOLLOW_WITHIN_US = 1000000 };

struct following {
    struct sampler *sampler;
    struct {
        size_t answered, active, fenced;
        uint64_t epoch, fenced_epoch, beat;
    } sides[SIDE_COUNT];
};

static enum verdict judge_standing(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct following *following = strand->data;
    const uint64_t epoch = reply_uint(reply, 0, 1);
    struct error why;
    (void)error;
    if (!reply->ok || !identity_judge_row(strand->replication, strand->side, reply, 4, &why)) {
        return VERDICT_END;
    }
    following->sides[strand->side].answered++;
    if (reply_bool(reply, 0, 0)) {
        following->sides[strand->side].active++;
        if (following->sides[strand->side].epoch < epoch) {
            following->sides[strand->side].epoch = epoch;
        }
    }
    following->sides[strand->side].beat = reply_uint(reply, 0, 3);
    if (reply_bool(reply, 0, 2)) {
        following->sides[strand->side].fenced++;
        following->sides[strand->side].fenced_epoch = epoch;
    }
    return VERDICT_NEXT;
}

/*
 * The flip that has opened the other side may still be taken back: nobody goes there before its source has
 * turned. While that can't be asked, whoever owns the pair must have beaten there, which it does on the side
 * whose clients it has released and on no other.
 */
static bool may_be_taken_back(const struct following *following, const struct replication_followed *seen)
{
    const struct sampler *sampler = following->sampler;
    const enum side source = side_other(seen->side);
    const uint64_t before = sampler->followed_beats[seen->side];
    if (following->sides[source].answered == sampler->replication->database_count) {
        return following->sides[source].fenced > 0 &&
               following->sides[source].fenced_epoch + 1 == seen->epoch;
    }
    const uint64_t known = sampler->followed_epoch != 0 ? sampler->followed_epoch : sampler->epoch;
    return seen->epoch != known && (before == 0 || following->sides[seen->side].beat <= before);
}

static const struct step follow_steps[] = {
    {.name = "look who is active",
     .lane = LANE_SAMPLE,
     .tolerant = true,
     .sql = "select standing = 'active' and fenced_for is null, epoch,"
            " standing = 'active' and fenced_for is not null,"
            " coalesce((select m.n from switchback.marker m where m.side = state.side and"
            " m.purpose = 'heartbeat'), 0), " IDENTITY_COLUMNS " from switchback.state",
     .judge = judge_standing},
};

static void followed(void *data, const struct replication_result *result)
{
    struct following *following = data;
    struct sampler *sampler = following->sampler;
    const size_t count = sampler->replication->database_count;
    struct replication_followed seen = {.known = false};
    (void)result; /* its steps are tolerant: a side that doesn't answer says nothing */
    for (int i = 0; i < SIDE_COUNT; i++) {
        sampler->sides[i].asking = sampler->sides[i].checked = false;
        sampler->sides[i].heard_of = true;
        sampler->sides[i].answered = following->sides[i].answered == count;
        if (sampler->sides[i].answered) {
            sampler->sides[i].answered_us = clock_mono_us();
            sampler->sides[i].lost_us = 0;
            error_clear(&sampler->sides[i].standing);
            seen.known = true;
        } else if (sampler->sides[i].lost_us == 0) {
            sampler->sides[i].lost_us = clock_mono_us();
            (void)error_set(&sampler->sides[i].standing, ERROR_UNREACHABLE, "no answer");
        }
        if (following->sides[i].active == count && (!seen.open || following->sides[i].epoch > seen.epoch)) {
            seen.open = true;
            seen.side = (enum side)i;
            seen.epoch = following->sides[i].epoch;
        }
    }
    if (seen.open && may_be_taken_back(following, &seen)) {
        seen.open = false;
    }
    if (seen.open) {
        sampler->followed_epoch = seen.epoch;
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        sampler->followed_beats[i] = following->sides[i].beat;
    }
    const struct replication_followed old = sampler->followed;
    const bool news = seen.known && (!old.known || old.open != seen.open || old.side != seen.side ||
                                     old.epoch != seen.epoch);
    if (seen.known) {
        sampler->followed = seen;
    }
    sampler_judge(sampler);
    if (news && sampler->replication->callbacks.changed != NULL) {
        sampler->replication->callbacks.changed(sampler->replication->callbacks.context);
    }
    free(following);
}

void sampler_follow(struct sampler *sampler)
{
    if (sampler->sides[SIDE_BLUE].asking || sampler->sides[SIDE_GREEN].asking) {
        return;
    }
    struct following *following = calloc(1, sizeof *following);
    ENSURE(following != NULL);
    following->sampler = sampler;
    sampler->active_known = false; /* markers are another's now */
    sampler->sides[SIDE_BLUE].asking = sampler->sides[SIDE_GREEN].asking = true;
    (void)procedure_start(sampler->replication,
                          &(struct procedure_plan){.name = "follow",
                                                   .quiet = true,
                                                   .steps = follow_steps,
                                                   .step_count = ARRAY_LENGTH(follow_steps),
                                                   .sides = BOTH_SIDES,
                                                   .deadline_us = clock_mono_us() + FOLLOW_WITHIN_US,
                                                   .done = followed,
                                                   .data = following});
}
