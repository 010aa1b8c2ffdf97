/* What the answers of a round mean: lag, what is at risk, whether the stream serves as a way back. */
#include "replication/sampler_internal.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"

#include <stdio.h>
#include <string.h>

enum {
    SILENT_UNPREPARED_US =
        5000000, /* without our databases each look is a new connection, tried with pauses */
    WORKER_GONE_US =
        2000000, /* longer than a restart takes with wal_retrieve_retry_interval as prepare sets it */
    FLAPPING_US = 15000000, /* three starts of a worker within: it fails again and again */
    ERRORS_US = 5000000,    /* an error counts this long */
    AHEAD_AT_MOST = 8       /* heartbeats of a round that was asked before and answered later */
};

void sampler_forget_streams(struct sampler *sampler)
{
    for (size_t i = 0; i < sampler->replication->database_count; i++) {
        memset(&sampler->streams[i], 0, sizeof sampler->streams[i]);
        sampler->streams[i].enabled = true; /* until it is seen otherwise */
        sampler->streams[i].slot_found = true;
        sampler->streams[i].errors = -1; /* those of before aren't this stream's */
    }
    for (int side = 0; side < SIDE_COUNT; side++) {
        sampler->sides[side].checked = false;
    }
    struct replication_sample *sample = &sampler->sample;
    sample->lag_us = sample->lag_bytes = sample->marker_age_us = -1;
    sample->streaming = sample->synchronous = false;
    sample->broken = sample->slot_lost = sample->slot_endangered = sample->tables_differ = false;
    (void)snprintf(sample->problem, sizeof sample->problem, "no marker has crossed yet");
}

/* --- one side --- */

static void judge_side(const struct sampler *sampler, enum side which, struct replication_side_sample *sample,
                       int64_t now_us)
{
    const struct side_watch *side = &sampler->sides[which];
    const int64_t patience_us =
        side->answered && side->standing.code == ERROR_NOT_PREPARED ? SILENT_UNPREPARED_US : SILENT_US;
    /* Only who was asked can be silent: while ownership is taken or a flip needs the side nobody asks. */
    bool silent = side->answered_us == 0 || (side->asking && now_us - side->asked_us > patience_us);
    sample->reachable = side->answered && !silent;
    /* A side that hangs is lost since it was asked, not since we gave up on its answer. */
    const int64_t lost_us = side->lost_us != 0 ? side->lost_us : side->asked_us;
    sample->unreachable_us = sample->reachable || lost_us == 0 ? 0 : now_us - lost_us;
    sample->gone = sample->unreachable_us > 0 && side->anew.failed_us >= lost_us;
    (void)snprintf(sample->version, sizeof sample->version, "%s",
                   sampler->versions[which][0] != '\0' ? sampler->versions[which] : sample->version);
    sample->problem[0] = '\0';
    sample->fence_wrong = false;
    sample->names_wrong = sampler->active_known && sampler->sides[which].names_wrong;
    sample->fenced = sample->fenced && side->standing.code != ERROR_NOT_PREPARED;
    if (!sample->reachable) {
        (void)snprintf(sample->problem, sizeof sample->problem, "%.255s",
                       side->standing.code == ERROR_NONE ? "no answer" : side->standing.message);
        return;
    }
    sample->other_schema = side->checked ? side->other_schema : sample->other_schema;
    if (side->checked) {
        bool active = sampler->active_known && sampler->active == which;
        sample->fenced = side->tables > 0 && side->fences_up == side->tables;
        sample->fence_wrong =
            sampler->active_known && (active ? side->fences_up > 0 : side->fences_up != side->tables);
    }
    if (sample->fence_wrong) {
        (void)snprintf(sample->problem, sizeof sample->problem, "%zu of %zu tables are fenced",
                       side->fences_up, side->tables);
    } else if (sample->names_wrong) {
        (void)snprintf(sample->problem, sizeof sample->problem,
                       "its synchronous_standby_names are ours and not what they should be");
    } else if (side->standing.code != ERROR_NONE) {
        (void)snprintf(sample->problem, sizeof sample->problem, "%.255s", side->standing.message);
    }
}

/* --- one stream --- */

/* What was seen is of before the flip that made this side active, and everything up to that is there. */
static bool counts_from_flip(const struct sampler *sampler, const struct stream *stream)
{
    const bool of_before = stream->first_n == 0 || !stream->seen || stream->seen_n < stream->first_n;
    return of_before &&
           (stream->crossed_us != 0 || (sampler->by_flip && stream->seen && stream->first_n != 0));
}

/* Age of the oldest marker that was written and not seen; 0 while under one interval; -1: unknown. */
static int64_t lag_of(const struct sampler *sampler, const struct stream *stream, int64_t now_us)
{
    if (counts_from_flip(sampler, stream)) {
        const int64_t first_us = stream->first_n == 0 ? now_us : stream->first_us;
        return now_us - first_us < SAMPLE_EVERY_US ? 0 : now_us - first_us;
    }
    if (!stream->seen || stream->newest_n == 0) {
        return -1;
    }
    if (stream->seen_n >= stream->newest_n) {
        return 0;
    }
    const struct written_marker *oldest = &stream->written[(stream->seen_n + 1) % MARKERS_KEPT];
    int64_t age_us;
    if (oldest->n == stream->seen_n + 1) {
        age_us = now_us - oldest->at_us;
    } else {
        /* Written before we came, or too long ago: what the active side's clock says. */
        double apart_s = stream->newest_clock_s - stream->seen_clock_s;
        age_us = now_us - stream->newest_us + (int64_t)(apart_s > 0 ? apart_s * 1e6 : 0);
    }
    return age_us < SAMPLE_EVERY_US ? 0 : age_us;
}

/* Whether there is anything to count from, and up to. */
static bool risk_is_known(const struct sampler *sampler, const struct stream *stream)
{
    return stream->newest_n != 0 && (stream->seen || sampler->by_flip);
}

/*
 * An upper bound. What isn't on the standby was committed after the last marker seen there, so its
 * transaction id was in use when that marker was written, or given out later. Ids are the whole cluster's,
 * and aborted and sub-transactions take some too; our own heartbeats (one id each, in each database) are
 * taken off. With the active side lost, one interval at the last rate and what ran then is added. Without lag
 * there is only what every commit is for a moment: on its way. After a flip the newest marker that the
 * standby has of this side is an old one, but it has all up to the flip, so what counts begins there.
 */
static uint64_t at_risk_of(const struct sampler *sampler, const struct stream *stream, bool active_lost,
                           int64_t lag_us)
{
    const uint64_t an_interval = (uint64_t)(stream->xids_per_second * SAMPLE_EVERY_MS / 1000.0);
    const uint64_t lost = active_lost ? stream->newest_running + 1 + an_interval : 0;
    uint64_t from_n = stream->seen_n, from_xid = stream->seen_xid, running = stream->seen_running;
    if (sampler->by_flip && (!stream->seen || stream->seen_n < stream->first_n)) {
        from_n = stream->first_n;
        from_xid = stream->first_xid;
        running = stream->first_running + an_interval;
    } else if (!stream->seen) {
        return lost;
    }
    if (lag_us == 0 || from_n > stream->newest_n || stream->newest_xid < from_xid) {
        return lost;
    }
    uint64_t given = stream->newest_xid - from_xid + running;
    uint64_t ours = (stream->newest_n - from_n) * sampler->replication->database_count;
    return lost + (given > ours ? given - ours : 0);
}

/* A marker that was written after the worker's last trouble is there: what stood in its way is gone. */
static bool has_healed(const struct stream *stream)
{
    const struct written_marker *seen = &stream->written[stream->seen_n % MARKERS_KEPT];
    return stream->seen && seen->n == stream->seen_n && seen->at_us > stream->errors_grew_us &&
           seen->at_us > stream->worker_changes_us[0];
}

static bool is_broken(const struct stream *stream, int64_t now_us, const char **why)
{
    const size_t last = ARRAY_LENGTH(stream->worker_changes_us) - 1;
    const bool healed = has_healed(stream);
    if (!stream->enabled) {
        *why = "its subscription is disabled";
    } else if (!healed && stream->errors_grew_us != 0 && now_us - stream->errors_grew_us < ERRORS_US) {
        *why = "its apply worker fails: see the standby's server log";
    } else if (stream->worker_lost_us != 0 && now_us - stream->worker_lost_us > WORKER_GONE_US) {
        *why = "it has no apply worker";
    } else if (!healed && stream->worker_changes_us[last] != 0 &&
               now_us - stream->worker_changes_us[last] < FLAPPING_US) {
        *why = "its apply worker is started again and again: see the standby's server log";
    } else {
        return false;
    }
    return true;
}

static void problem(struct replication_sample *sample, const char *database, const char *why)
{
    if (sample->problem[0] == '\0') {
        (void)snprintf(sample->problem, sizeof sample->problem, "the stream of %s: %s", database, why);
    }
}

static void add_stream(const struct sampler *sampler, size_t index, struct replication_sample *sample,
                       int64_t now_us)
{
    const struct stream *stream = &sampler->streams[index];
    const char *database = engine_database(sampler->replication, index);
    const struct replication_side_sample *standby = &sample->sides[side_other(sampler->active)];
    bool active_lost = !sample->sides[sampler->active].reachable;
    const char *why = "";
    if (active_lost) { /* its worker fails then, too: no reason to look for more there */
        problem(sample, database, "the active side can't be reached");
    }
    if (standby->reachable && is_broken(stream, now_us, &why)) {
        sample->broken = true;
        problem(sample, database, why);
    }
    if (stream->gap[0] != '\0') { /* standing_check() says so, too, a second later */
        sample->tables_differ = true;
        problem(sample, database, stream->gap);
    }
    if (stream->slot_lost || stream->idle_slot_lost) {
        sample->slot_lost = true;
        problem(sample, database, "a slot is lost: run switchback prepare");
    }
    sample->slot_endangered =
        sample->slot_endangered || stream->slot_endangered || stream->idle_slot_endangered;
    sample->synchronous = sample->synchronous && stream->synchronous && !active_lost;
    sample->sync_waiting =
        stream->sync_waiting > sample->sync_waiting ? stream->sync_waiting : sample->sync_waiting;
    if (!stream->streaming || active_lost || !standby->reachable) {
        sample->streaming = false;
        problem(sample, database, "it is not streaming");
    }
    if (stream->seen && stream->newest_n != 0 && stream->seen_n > stream->newest_n + AHEAD_AT_MOST) {
        sample->broken = true;
        problem(sample, database, "the standby knows of later times than the active side: that was restored");
    }
    int64_t lag_us = lag_of(sampler, stream, now_us);
    sample->lag_us = lag_us < 0 || sample->lag_us < 0 ? -1
                     : lag_us > sample->lag_us        ? lag_us
                                                      : sample->lag_us;
    sample->lag_bytes = stream->behind_bytes < 0 || sample->lag_bytes < 0 ? -1
                        : stream->behind_bytes > sample->lag_bytes        ? stream->behind_bytes
                                                                          : sample->lag_bytes;
    const int64_t crossed_us = stream->seen ? stream->seen_us : stream->crossed_us;
    int64_t age_us = crossed_us != 0 ? now_us - crossed_us : -1;
    sample->marker_age_us = age_us < 0 || sample->marker_age_us < 0 ? -1
                            : age_us > sample->marker_age_us        ? age_us
                                                                    : sample->marker_age_us;
    uint64_t risk = at_risk_of(sampler, stream, active_lost, lag_us);
    sample->commits_at_risk = risk > sample->commits_at_risk ? risk : sample->commits_at_risk;
    sample->risk_known = sample->risk_known && (stream->crossed_us != 0 || risk_is_known(sampler, stream));
    if (crossed_us == 0) {
        problem(sample, database, "no marker has crossed yet");
    }
}

static void judge_tables(const struct sampler *sampler, struct replication_sample *sample)
{
    const struct side_watch *sides = sampler->sides;
    for (int side = 0; side < SIDE_COUNT; side++) {
        if (sides[side].checked && sides[side].fault[0] != '\0') {
            sample->tables_differ = true;
            (void)snprintf(sample->problem, sizeof sample->problem, "%s", sides[side].fault);
        }
    }
    for (size_t i = 0; i < sampler->replication->database_count; i++) {
        if (sides[SIDE_BLUE].checked && sides[SIDE_GREEN].checked &&
            strcmp(sides[SIDE_BLUE].leaves[i], sides[SIDE_GREEN].leaves[i]) != 0) {
            sample->tables_differ = true;
            problem(sample, engine_database(sampler->replication, i), "the sides don't have the same tables");
        }
    }
}

/* --- all of it --- */

static bool differs(const struct replication_sample *old, const struct replication_sample *new)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        const struct replication_side_sample *a = &old->sides[side], *b = &new->sides[side];
        if (a->reachable != b->reachable || a->fenced != b->fenced || a->fence_wrong != b->fence_wrong ||
            a->names_wrong != b->names_wrong || (a->problem[0] == '\0') != (b->problem[0] == '\0')) {
            return true;
        }
    }
    return old->synchronous != new->synchronous || old->streaming != new->streaming ||
           old->broken != new->broken || old->slot_lost != new->slot_lost ||
           old->slot_endangered != new->slot_endangered || old->tables_differ != new->tables_differ ||
           (old->lag_us > 0) != (new->lag_us > 0) || (old->problem[0] == '\0') != (new->problem[0] == '\0');
}

static void make_figures(struct sampler *sampler)
{
    struct replication_sample *sample = &sampler->sample;
    const int64_t now_us = clock_mono_us();
    sample->taken_us = now_us;
    for (int side = 0; side < SIDE_COUNT; side++) {
        judge_side(sampler, (enum side)side, &sample->sides[side], now_us);
    }
    if (sampler->active_known) {
        sample->streaming = true;
        sample->broken = sample->slot_lost = sample->slot_endangered = sample->tables_differ = false;
        sample->lag_us = sample->lag_bytes = sample->marker_age_us = 0;
        sample->commits_at_risk = sample->sync_waiting = 0;
        sample->synchronous = sample->risk_known = true;
        sample->problem[0] = '\0';
        for (size_t i = 0; i < sampler->replication->database_count; i++) {
            add_stream(sampler, i, sample, now_us);
        }
        judge_tables(sampler, sample);
    }
}

/* Nothing to tell: who made the side active, or turned the stream, knows it. */
void sampler_count_turn(struct sampler *sampler)
{
    const struct proved_turn *turn = &sampler->turn;
    if (turn->epoch == 0 || !sampler->active_known || turn->active != sampler->active ||
        turn->epoch != sampler->epoch) {
        return;
    }
    for (size_t i = 0; i < sampler->replication->database_count; i++) {
        struct stream *stream = &sampler->streams[i];
        stream->streaming = true;
        stream->synchronous = turn->crossed;
        stream->crossed_us = turn->crossed ? turn->at_us : 0;
    }
    sampler->turn.epoch = 0; /* counted: from here on rounds tell */
    make_figures(sampler);
}

void sampler_note_fence(struct sampler *sampler, enum side side, bool fenced)
{
    sampler->sides[side].checked = false;
    sampler->sample.sides[side].fenced = fenced;
    sampler->sample.sides[side].fence_wrong = false;
}

void sampler_note_turn(struct sampler *sampler, enum side active, uint64_t epoch, bool crossed)
{
    sampler->turn =
        (struct proved_turn){.active = active, .epoch = epoch, .at_us = clock_mono_us(), .crossed = crossed};
    sampler_count_turn(sampler);
}

void sampler_judge(struct sampler *sampler)
{
    if (!sampler->sides[SIDE_BLUE].heard_of || !sampler->sides[SIDE_GREEN].heard_of) {
        return; /* at the start the slower side isn't lost, only not asked yet */
    }
    const struct replication_sample old = sampler->sample;
    const struct replication_sample *sample = &sampler->sample;
    make_figures(sampler);
    if (differs(&old, sample)) {
        LOG_DEBUG("sample_changed", LOG_BOOL("streaming", sample->streaming),
                  LOG_BOOL("broken", sample->broken), LOG_STR("problem", sample->problem),
                  LOG_STR("blue", sample->sides[SIDE_BLUE].problem),
                  LOG_STR("green", sample->sides[SIDE_GREEN].problem));
        if (sampler->replication->callbacks.changed != NULL) {
            sampler->replication->callbacks.changed(sampler->replication->callbacks.context);
        }
    }
}
