/*
 * Is the active side silent, or only our connections to it? A firewall that forgets lets old connections die
 * without a word while new ones work: a side that is well would be taken over from. So while a round goes
 * unanswered a new connection is opened each time and asked for what the round asks for, a commit included
 * (a server whose disk hangs accepts connections, too). Is that answered, the old connections are replaced.
 */
#include "replication/sampler_internal.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "replication/sql.h"

enum {
    DOUBT_AFTER_US = 500000, /* a round takes a few milliseconds */
    TRY_EVERY_US = 500000,
    TRY_AT_LEAST_US = 250000, /* a new backend, on a machine that has other things to do */
    TRY_AT_MOST_US = 2000000
};

/* An answer is an answer, an error too: but for one that says that nothing works here. */
static enum verdict judge_role(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply->ok && reply_bool(reply, 0, 0)) {
        (void)error_set(error, ERROR_UNREACHABLE, "%s is in recovery: it takes no writes",
                        side_name(strand->side));
        return VERDICT_FAIL;
    }
    if (!reply->ok) {
        return VERDICT_FAIL;
    }
    return reply_bool(reply, 0, 1) ? VERDICT_NEXT
                                   : VERDICT_END; /* not prepared: there is nothing to write to */
}

static void build_commit(struct strand *strand, struct strbuf *sql)
{
    sql_format(sql, "select switchback.beat(%u, null, 'check')", strand->replication->owner);
}

static enum verdict judge_commit(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)strand;
    (void)error;
    return reply->ok || (reply->sqlstate[0] != '\0' && !reply->uncertain) ? VERDICT_END : VERDICT_FAIL;
}

static const struct step anew_steps[] = {
    {.name = "connect anew",
     .lane = LANE_ANEW,
     .tolerant = true,
     .sql = "select pg_is_in_recovery(), to_regclass('switchback.state') is not null",
     .judge = judge_role},
    {.name = "commit anew",
     .lane = LANE_ANEW,
     .tolerant = true,
     .build = build_commit,
     .judge = judge_commit},
};

static void ended(struct sampler *sampler, enum side which, const struct replication_result *result)
{
    struct anew *anew = &sampler->sides[which].anew;
    anew->trying = false;
    if (sampler->replication->stopping) {
        return;
    }
    if (result->ok) {
        anew->answered_us = clock_mono_us();
        anew->failed_us = 0;
    } else {
        anew->failed_us = anew->begun_us;
    }
    connection_drop(engine_lane(sampler->replication, which, LANE_ANEW, 0));
    sampler_judge(sampler);
}

static void blue_ended(void *data, const struct replication_result *result)
{
    ended(data, SIDE_BLUE, result);
}

static void green_ended(void *data, const struct replication_result *result)
{
    ended(data, SIDE_GREEN, result);
}

/* Half of what is left until the side counts as dead. */
static int64_t try_within_us(const struct sampler *sampler)
{
    const int64_t half_us = sampler->replication->settings->dead_after_us / 2;
    return half_us < TRY_AT_LEAST_US ? TRY_AT_LEAST_US : half_us > TRY_AT_MOST_US ? TRY_AT_MOST_US : half_us;
}

static int64_t doubt_after_us(const struct sampler *sampler)
{
    const int64_t quarter_us = sampler->replication->settings->dead_after_us / 4;
    return quarter_us < DOUBT_AFTER_US ? quarter_us : DOUBT_AFTER_US;
}

static bool is_doubtful(const struct sampler *sampler, const struct side_watch *side, int64_t now_us)
{
    return side->lost_us != 0 || (side->asking && now_us - side->asked_us >= doubt_after_us(sampler));
}

void sampler_try_anew(struct sampler *sampler, enum side which)
{
    const struct side_watch *side = &sampler->sides[which];
    struct anew *anew = &sampler->sides[which].anew;
    struct replication *replication = sampler->replication;
    const int64_t now_us = clock_mono_us();
    if (anew->trying || replication->owning || !is_doubtful(sampler, side, now_us)) {
        return;
    }
    if (side->asking && anew->answered_us > side->asked_us && now_us - side->asked_us >= SILENT_US) {
        LOG_WARN("old_connections_silent", LOG_STR("side", side_name(which)),
                 LOG_I64("silent_ms", (now_us - side->asked_us) / 1000));
        anew->answered_us = 0;
        engine_renew(replication, which);
        return;
    }
    if (now_us - anew->begun_us < TRY_EVERY_US) {
        return;
    }
    anew->trying = true;
    anew->begun_us = now_us;
    connection_renew(engine_lane(replication, which, LANE_ANEW, 0));
    (void)procedure_start(replication,
                          &(struct procedure_plan){.name = "connect anew",
                                                   .quiet = true,
                                                   .cluster = true,
                                                   .steps = anew_steps,
                                                   .step_count = ARRAY_LENGTH(anew_steps),
                                                   .sides = SIDE_BIT(which),
                                                   .deadline_us = now_us + try_within_us(sampler),
                                                   .done = which == SIDE_BLUE ? blue_ended : green_ended,
                                                   .data = sampler});
}
