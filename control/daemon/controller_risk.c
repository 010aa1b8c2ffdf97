/*
 * How many commits a loss of the active side would take. Without the promise: what replication says, an upper
 * bound. Under it only what has got around it, as the proxy saw: commits of sessions that asked not to wait,
 * and waits that were cancelled, which the server acknowledges all the same. Those are at risk until a marker
 * that was written after them has crossed.
 */
#include "control/daemon/controller_internal.h"

#include "conf/base/clock.h"

enum {
    NOTE_EVERY_US = CONTROLLER_SECOND_US / 4,
    NOTE_SLACK_US = CONTROLLER_SECOND_US /* between a commit, its count, and a marker */
};

static uint64_t escaped(const struct proxy_stats *stats)
{
    return stats->unconfirmed_commits + stats->unsync_commits;
}

void controller_risk_note(struct controller *controller, const struct proxy_stats *stats)
{
    struct controller_risk *risk = &controller->risk;
    const int64_t now_us = clock_mono_us();
    if (risk->count > 0 && now_us - risk->notes[risk->newest].at_us < NOTE_EVERY_US) {
        return;
    }
    risk->newest = risk->count == 0 ? 0 : (risk->newest + 1) % CONTROLLER_RISK_NOTES;
    risk->notes[risk->newest].at_us = now_us;
    risk->notes[risk->newest].escaped = escaped(stats);
    risk->count += risk->count < CONTROLLER_RISK_NOTES;
}

/* Another side is active, and has all that was acknowledged before. */
void controller_risk_begin(struct controller *controller)
{
    struct proxy_stats stats;
    proxy_stats(controller->proxy, &stats);
    controller->risk.first = escaped(&stats);
    controller->risk.count = 0;
}

static uint64_t escaped_and_uncrossed(const struct controller *controller,
                                      const struct replication_sample *sample)
{
    const struct controller_risk *risk = &controller->risk;
    struct proxy_stats stats;
    uint64_t crossed = risk->first;
    proxy_stats(controller->proxy, &stats);
    if (sample->marker_age_us >= 0 && sample->lag_us >= 0) {
        const int64_t at_us = clock_mono_us() - sample->marker_age_us - sample->lag_us - NOTE_SLACK_US;
        for (size_t i = 0; i < risk->count; i++) { /* the newest note that is old enough */
            const size_t note = (risk->newest + CONTROLLER_RISK_NOTES - i) % CONTROLLER_RISK_NOTES;
            if (risk->notes[note].at_us <= at_us) {
                crossed = risk->notes[note].escaped;
                break;
            }
        }
    }
    return escaped(&stats) - crossed;
}

bool controller_commits_at_risk(const struct controller *controller, uint64_t *commits)
{
    const struct flip *flip = &controller->flip;
    struct replication_sample sample;
    struct error ignored;
    replication_sample(controller->replication, &sample);
    if (!flip->prepared || flip->history.finalized) {
        return false;
    }
    if (flip_promise_stands(flip)) {
        *commits = escaped_and_uncrossed(controller, &sample);
        return true;
    }
    *commits = sample.commits_at_risk;
    return sample.risk_known || controller_way_back(controller, &ignored);
}
