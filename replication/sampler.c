#include "replication/sampler_internal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/identity.h"
#include "replication/names.h"
#include "replication/own.h"
#include "replication/schema.h"
#include "replication/sql.h"
#include "replication/standby_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUND_WITHIN_US = 2000000,
    SAMPLE_SEQUENCES_TICKS = 4, /* schema_promise.sql's interval of growth: a second */
    ADVANCE_EVERY_TICKS = 60,   /* 15 s: how often a server logs what a slot needs to let go of old WAL */
    SAFE_WAL_BYTES = 64 << 20
};

static bool is_active_side(const struct sampler *sampler, enum side side)
{
    return sampler->active_known && sampler->active == side;
}

/* --- both: there, and prepared --- */

static bool is_greeted(const struct strand *strand)
{
    const struct sampler *sampler = strand->data;
    return sampler->sides[strand->side].installed[strand->database];
}

/* What isn't prepared is asked nothing else: the server's log would fill with our errors. */
static enum verdict judge_greeting(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct sampler *sampler = strand->data;
    struct side_watch *side = &sampler->sides[strand->side];
    const char *version = reply_value(reply, 0, 0);
    if (reply_bool(reply, 0, 2)) { /* lost until it is promoted: then it is met like one that came back */
        (void)error_set(error, ERROR_UNREACHABLE, "%s is in recovery: it takes no writes",
                        side_name(strand->side));
        return VERDICT_FAIL;
    }
    (void)snprintf(sampler->versions[strand->side], REPLICATION_NAME_SIZE, "%s",
                   version == NULL ? "" : version);
    side->installed[strand->database] = reply_bool(reply, 0, 1);
    if (side->installed[strand->database]) {
        return VERDICT_NEXT;
    }
    (void)error_set(&side->error, ERROR_NOT_PREPARED, "%s/%s is not prepared", side_name(strand->side),
                    strand->database_name);
    return VERDICT_END;
}

static bool is_known_to_be_ours(const struct strand *strand)
{
    const struct sampler *sampler = strand->data;
    return sampler->sides[strand->side].ours[strand->database];
}

/* What isn't ours is asked nothing more either: an owner that stands there means nothing to us. */
static enum verdict judge_identity(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct sampler *sampler = strand->data;
    struct side_watch *side = &sampler->sides[strand->side];
    struct error why;
    (void)error;
    side->ours[strand->database] = identity_judge_row(strand->replication, strand->side, reply, 0, &why);
    if (side->ours[strand->database]) {
        return VERDICT_NEXT;
    }
    identity_note(strand->replication, strand->side, &why);
    side->error = why;
    side->installed[strand->database] = false;
    return VERDICT_END;
}

/* Our functions are refused: is the side lost, or only this question? */
static enum verdict note_failure(struct strand *strand, const struct reply *reply)
{
    struct sampler *sampler = strand->data;
    struct side_watch *side = &sampler->sides[strand->side];
    uint64_t owner;
    if (reply_owner(reply, &owner) && owner < strand->replication->owner) {
        side->stale =
            true; /* it came back without our number, which it gets at once: no trouble of its own */
        return VERDICT_NEXT;
    }
    side->error = reply->error;
    if (reply->error.code == ERROR_NOT_PREPARED) {
        side->installed[strand->database] = false;
        return VERDICT_END;
    }
    return reply->error.code == ERROR_UNREACHABLE || reply->uncertain ? VERDICT_FAIL : VERDICT_NEXT;
}

/* --- the active side: heartbeat and the slot that feeds the other --- */

static bool not_active(const struct strand *strand)
{
    const struct sampler *sampler = strand->data;
    return !is_active_side(sampler, strand->side);
}

static void build_beat(struct strand *strand, struct strbuf *sql)
{
    const struct sampler *sampler = strand->data;
    char slot[NAMES_SLOT_SIZE];
    (void)names_slot(strand->side, strand->database_name, slot);
    sql_format(
        sql,
        "select b.written_n, extract(epoch from b.written_at), b.given_xid, b.open_xids, o.there,"
        " o.streaming, o.behind, o.status, o.safe, y.synchronous, y.waiting, y.names from"
        " switchback.stream_out(%L) o, switchback.sync_out(%L) y, switchback.beat(%u, %u, 'heartbeat') b",
        slot, slot, strand->replication->owner, sampler->epoch);
}

static bool is_lost(const char *status)
{
    return status != NULL && strcmp(status, "lost") == 0;
}

/* unreserved: its WAL goes with the next checkpoint; safe: bytes until then, NULL without a limit. */
static bool is_endangered(const char *status, const char *safe)
{
    return (status != NULL && strcmp(status, "unreserved") == 0) ||
           (safe != NULL && strtoll(safe, NULL, 10) < SAFE_WAL_BYTES);
}

static void note_rate(struct stream *stream, uint64_t xid, int64_t now_us)
{
    int64_t elapsed_us = now_us - stream->newest_us;
    if (stream->newest_us != 0 && elapsed_us > 0 && xid >= stream->newest_xid) {
        stream->xids_per_second = (double)(xid - stream->newest_xid) * 1e6 / (double)elapsed_us;
    }
}

/* Ours on the active side name all its streams, on a standby none; what isn't ours is none of our business.
 */
static void note_names(const struct strand *strand, struct side_watch *side, struct stream *stream,
                       const char *names)
{
    bool ours = names != NULL && standby_names_are_ours(names);
    bool whole = false;
    if (ours && stream != NULL) {
        struct strbuf wanted;
        strbuf_init(&wanted, SQL_LIMIT);
        standby_names_put(&wanted, strand->side, &strand->replication->settings->databases);
        whole = strcmp(names, strbuf_text(&wanted)) == 0;
        strbuf_deinit(&wanted);
    }
    if (stream != NULL) {
        stream->synchronous = stream->synchronous && whole;
    }
    side->names_wrong = ours && !whole && !strand->replication->names_ahead[strand->side];
}

static enum verdict judge_beat(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct sampler *sampler = strand->data;
    struct stream *stream = &sampler->streams[strand->database];
    (void)error;
    if (!reply->ok) {
        return note_failure(strand, reply);
    }
    int64_t now_us = clock_mono_us();
    uint64_t n = reply_uint(reply, 0, 0), xid = reply_uint(reply, 0, 2);
    const char *clock = reply_value(reply, 0, 1);
    note_rate(stream, xid, now_us);
    stream->written[n % MARKERS_KEPT] = (struct written_marker){.n = n, .at_us = now_us};
    stream->newest_n = n;
    stream->newest_us = now_us;
    stream->newest_clock_s = clock == NULL ? 0 : strtod(clock, NULL);
    stream->newest_xid = xid;
    stream->newest_running = reply_uint(reply, 0, 3);
    if (stream->first_n == 0) {
        stream->first_n = n;
        stream->first_us = now_us;
        stream->first_xid = xid;
        stream->first_running = stream->newest_running;
    }
    stream->slot_found = reply_bool(reply, 0, 4);
    stream->streaming = reply_bool(reply, 0, 5);
    stream->behind_bytes = stream->slot_found ? reply_int(reply, 0, 6) : -1;
    stream->slot_lost = !stream->slot_found || is_lost(reply_value(reply, 0, 7));
    stream->slot_endangered = is_endangered(reply_value(reply, 0, 7), reply_value(reply, 0, 8));
    stream->synchronous = reply_bool(reply, 0, 9);
    stream->sync_waiting = reply_uint(reply, 0, 10);
    note_names(strand, &sampler->sides[strand->side], stream, reply_value(reply, 0, 11));
    return VERDICT_NEXT;
}

/* --- the other side: what has arrived, and who brings it --- */

static bool not_standby(const struct strand *strand)
{
    const struct sampler *sampler = strand->data;
    return !sampler->active_known || sampler->active == strand->side;
}

static void build_look(struct strand *strand, struct strbuf *sql)
{
    char slot[NAMES_SLOT_SIZE];
    const char *active = side_name(side_other(strand->side));
    sql_format(sql,
               "select m.n, extract(epoch from m.at), m.next_xid, m.running, i.enabled, i.worker, i.errors,"
               " o.there, o.status, o.safe, s.owner, s.standing,"
               " current_setting('synchronous_standby_names'),"
               /* an older schema, before it is prepared again, lacks the column */
               " case when s.standing = 'standby' then to_jsonb(s) ->> 'gap' end"
               " from switchback.state s left join switchback.marker m on m.side = %L and"
               " m.purpose = 'heartbeat', switchback.stream_in(%L) i, switchback.stream_out(%L) o",
               active, active, names_slot(strand->side, strand->database_name, slot));
}

static void note_worker(struct stream *stream, bool enabled, int64_t worker, int64_t errors, int64_t now_us)
{
    if (worker != stream->worker && worker != 0 && stream->worker != 0) {
        memmove(stream->worker_changes_us + 1, stream->worker_changes_us,
                sizeof stream->worker_changes_us - sizeof stream->worker_changes_us[0]);
        stream->worker_changes_us[0] = now_us;
    }
    if (worker != 0) {
        stream->worker = worker;
        stream->worker_lost_us = 0;
    } else if (stream->worker_lost_us == 0) {
        stream->worker_lost_us = now_us;
    }
    if (errors > stream->errors && stream->errors >= 0) {
        stream->errors_grew_us = now_us;
    }
    stream->errors = errors;
    stream->enabled = enabled;
}

static enum verdict judge_look(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct sampler *sampler = strand->data;
    struct side_watch *side = &sampler->sides[strand->side];
    struct stream *stream = &sampler->streams[strand->database];
    (void)error;
    if (!reply->ok) {
        return note_failure(strand, reply);
    }
    int64_t now_us = clock_mono_us();
    if (reply_value(reply, 0, 0) != NULL) {
        uint64_t n = reply_uint(reply, 0, 0);
        const char *clock = reply_value(reply, 0, 1);
        if (!stream->seen || n > stream->seen_n) {
            stream->seen_us = now_us;
        }
        stream->seen = true;
        stream->seen_n = n;
        stream->seen_clock_s = clock == NULL ? 0 : strtod(clock, NULL);
        stream->seen_xid = reply_uint(reply, 0, 2);
        stream->seen_running = reply_uint(reply, 0, 3);
    }
    note_worker(stream, reply_bool(reply, 0, 4), reply_int(reply, 0, 5), reply_int(reply, 0, 6), now_us);
    stream->idle_slot_lost = !reply_bool(reply, 0, 7) || is_lost(reply_value(reply, 0, 8));
    stream->idle_slot_endangered = is_endangered(reply_value(reply, 0, 8), reply_value(reply, 0, 9));
    uint64_t owner = reply_uint(reply, 0, 10);
    const char *standing = reply_value(reply, 0, 11);
    engine_note_owner(strand->replication, strand->side, owner);
    note_names(strand, side, NULL, reply_value(reply, 0, 12));
    const char *gap = reply_value(reply, 0, 13);
    (void)snprintf(stream->gap, sizeof stream->gap, "%s", gap == NULL ? "" : gap);
    side->stale = side->stale || owner < strand->replication->owner;
    if (standing != NULL && strcmp(standing, "standby") != 0) {
        (void)error_set(&side->error, ERROR_STALE, "%s/%s says that it is %s", side_name(strand->side),
                        strand->database_name, standing);
    }
    return VERDICT_NEXT;
}

/* --- both: fences, tables --- */

static bool no_check_now(const struct strand *strand)
{
    const struct sampler *sampler = strand->data;
    return sampler->ticks % CHECK_EVERY_TICKS != 1;
}

static enum verdict judge_check(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct sampler *sampler = strand->data;
    struct side_watch *side = &sampler->sides[strand->side];
    (void)error;
    if (!reply->ok) {
        return note_failure(strand, reply);
    }
    if (strand->database == 0) {
        side->tables = side->fences_up = 0;
        side->other_schema = false;
        side->fault[0] = '\0';
    }
    side->checked = true;
    side->tables += (size_t)reply_uint(reply, 0, 0);
    side->fences_up += (size_t)reply_uint(reply, 0, 1);
    side->other_schema |= reply_int(reply, 0, 4) != sampler->schema_version;
    const char *fault = reply_value(reply, 0, 2);
    if (fault != NULL && side->fault[0] == '\0') {
        (void)snprintf(side->fault, sizeof side->fault, "%s/%s: %s", side_name(strand->side),
                       strand->database_name, fault);
    }
    const char *leaves = reply_value(reply, 0, 3);
    (void)snprintf(side->leaves[strand->database], sizeof side->leaves[0], "%s",
                   leaves == NULL ? "" : leaves);
    return VERDICT_NEXT;
}

/* --- the active side: what its sequences have given out, should it die --- */

static bool no_sequences_now(const struct strand *strand)
{
    const struct sampler *sampler = strand->data;
    return not_active(strand) || sampler->ticks % SAMPLE_SEQUENCES_TICKS != 2;
}

/* A sequence that somebody alters isn't waited for: the sample of a second ago stands, with its margin. */
static enum verdict judge_sequences(struct strand *strand, const struct reply *reply, struct error *error)
{
    if (reply->ok || (reply->error.code != ERROR_UNREACHABLE && !reply->uncertain)) {
        return VERDICT_NEXT;
    }
    (void)error;
    return note_failure(strand, reply);
}

static const struct step round_steps[] = {
    {.name = "greet",
     .lane = LANE_SAMPLE,
     .skip = is_greeted,
     .sql = "select current_setting('server_version'), to_regclass('switchback.state') is not null,"
            " pg_is_in_recovery()",
     .judge = judge_greeting},
    {.name = "identify",
     .lane = LANE_SAMPLE,
     .skip = is_known_to_be_ours,
     .sql = "select " IDENTITY_COLUMNS " from switchback.state",
     .judge = judge_identity},
    {.name = "heartbeat",
     .lane = LANE_SAMPLE,
     .tolerant = true,
     .skip = not_active,
     .build = build_beat,
     .judge = judge_beat},
    {.name = "sample sequences",
     .lane = LANE_SAMPLE,
     .tolerant = true,
     .skip = no_sequences_now,
     .sql = "begin; set local lock_timeout = '20ms'; select switchback.sample_sequences(); commit",
     .judge = judge_sequences},
    {.name = "look",
     .lane = LANE_SAMPLE,
     .tolerant = true,
     .skip = not_standby,
     .build = build_look,
     .judge = judge_look},
    {.name = "check",
     .lane = LANE_SAMPLE,
     .tolerant = true,
     .skip = no_check_now,
     .sql = "select tables, fences_up, fault, leaves, version from switchback.standing_check(), "
            "switchback.state",
     .judge = judge_check},
};

/* --- rounds --- */

static void owned(void *context, const struct replication_result *result)
{
    struct sampler *sampler = context;
    sampler->owning = false;
    if (!result->ok) {
        LOG_WARN("ownership_not_taken", LOG_STR("reason", result->error.message));
    }
}

void sampler_own(struct sampler *sampler, enum side side)
{
    const struct replication *replication = sampler->replication;
    if (!sampler->owning && !replication->owning && !replication->deposed) {
        sampler->owning = true;
        own_side(sampler->replication, side, owned, sampler);
    }
}

static void round_ended(struct sampler *sampler, enum side which, const struct replication_result *result)
{
    struct side_watch *side = &sampler->sides[which];
    side->asking = false;
    side->heard_of = true;
    /* A server without our databases is a server. */
    side->answered = result->ok || result->error.code == ERROR_NOT_PREPARED;
    if (side->answered) {
        side->answered_us = clock_mono_us();
        side->lost_us = 0;
        side->standing = result->ok ? side->error : result->error;
    } else if (result->error.code == ERROR_ABORTED && sampler->replication->stopping) {
        return;
    } else {
        side->standing = result->error;
        side->lost_us = side->lost_us != 0 ? side->lost_us : side->asked_us;
        side->checked = false;
        memset(side->installed, 0, sampler->replication->database_count * sizeof *side->installed);
        memset(side->ours, 0, sampler->replication->database_count * sizeof *side->ours);
    }
    if (side->stale && result->ok) {
        sampler_own(sampler, which);
    }
    sampler_judge(sampler);
}

static void blue_ended(void *data, const struct replication_result *result)
{
    round_ended(data, SIDE_BLUE, result);
}

static void green_ended(void *data, const struct replication_result *result)
{
    round_ended(data, SIDE_GREEN, result);
}

static void start_round(struct sampler *sampler, enum side which)
{
    struct side_watch *side = &sampler->sides[which];
    if (side->asking || sampler->replication->deposed) {
        return;
    }
    side->asking = true;
    side->asked_us = clock_mono_us();
    side->stale = false;
    error_clear(&side->error);
    (void)procedure_start(sampler->replication,
                          &(struct procedure_plan){.name = "sample",
                                                   .quiet = true,
                                                   .steps = round_steps,
                                                   .step_count = ARRAY_LENGTH(round_steps),
                                                   .sides = SIDE_BIT(which),
                                                   .deadline_us = clock_mono_us() + ROUND_WITHIN_US,
                                                   .done = which == SIDE_BLUE ? blue_ended : green_ended,
                                                   .data = sampler});
}

/* --- time --- */

static bool is_resting(const struct sampler *sampler)
{
    return clock_mono_us() < sampler->rest_until_us || sampler->replication->stopping;
}

static void on_look(uv_timer_t *timer)
{
    struct sampler *sampler = timer->data;
    if (!is_resting(sampler) && sampler->active_known) {
        start_round(sampler, side_other(sampler->active));
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct sampler *sampler = timer->data;
    if (is_resting(sampler)) {
        return;
    }
    sampler->ticks++;
    if (sampler->replication->deposed) {
        sampler_follow(sampler);
        return;
    }
    if (!sampler->active_known) {
        start_round(sampler, SIDE_BLUE);
        start_round(sampler, SIDE_GREEN);
        return;
    }
    start_round(sampler, sampler->active);
    sampler_try_anew(sampler, sampler->active);
    ENSURE(uv_timer_start(&sampler->look, on_look, LOOK_AFTER_MS, 0) == 0);
    if (sampler->ticks % ADVANCE_EVERY_TICKS == 0) {
        sampler_advance_idle_slot(sampler);
    }
}

/* --- life and questions --- */

struct sampler *sampler_new(struct replication *replication)
{
    struct sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL) {
        return NULL;
    }
    sampler->replication = replication;
    sampler->schema_version = schema_version();
    sampler->streams = calloc(replication->database_count, sizeof *sampler->streams);
    bool allocated = sampler->streams != NULL;
    for (int side = 0; side < SIDE_COUNT; side++) {
        struct side_watch *watch = &sampler->sides[side];
        watch->leaves = calloc(replication->database_count, sizeof *watch->leaves);
        watch->installed = calloc(replication->database_count, sizeof *watch->installed);
        watch->ours = calloc(replication->database_count, sizeof *watch->ours);
        watch->lost_us = clock_mono_us();
        allocated = allocated && watch->leaves != NULL && watch->installed != NULL && watch->ours != NULL;
    }
    if (!allocated) {
        sampler_free(sampler);
        return NULL;
    }
    sampler->sample = (struct replication_sample){
        .lag_us = -1, .lag_bytes = -1, .marker_age_us = -1, .problem = "nothing is known yet"};
    ENSURE(uv_timer_init(replication->loop, &sampler->tick) == 0);
    ENSURE(uv_timer_init(replication->loop, &sampler->look) == 0);
    sampler->tick.data = sampler->look.data = sampler;
    sampler->open_handles = 2;
    ENSURE(uv_timer_start(&sampler->tick, on_tick, 0, SAMPLE_EVERY_MS) == 0);
    return sampler;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct sampler *sampler = handle->data;
    sampler->open_handles--;
    if (sampler->open_handles == 0) {
        engine_part_closed(sampler->replication);
    }
}

void sampler_stop(struct sampler *sampler)
{
    uv_close((uv_handle_t *)&sampler->tick, on_timer_closed);
    uv_close((uv_handle_t *)&sampler->look, on_timer_closed);
}

void sampler_free(struct sampler *sampler)
{
    for (int side = 0; sampler != NULL && side < SIDE_COUNT; side++) {
        free(sampler->sides[side].leaves);
        free(sampler->sides[side].installed);
        free(sampler->sides[side].ours);
    }
    if (sampler != NULL) {
        free(sampler->streams);
        free(sampler);
    }
}

void sampler_rest(struct sampler *sampler, int64_t until_us)
{
    sampler->rest_until_us = until_us;
}

void sampler_wake(struct sampler *sampler)
{
    sampler->rest_until_us = 0;
}

uint64_t sampler_epoch(const struct sampler *sampler)
{
    return sampler->epoch;
}

void replication_set_active(struct replication *replication, enum side active, uint64_t epoch)
{
    struct sampler *sampler = replication->sampler;
    bool turned = !sampler->active_known || sampler->active != active;
    sampler->by_flip = turned ? sampler->active_known : sampler->by_flip;
    replication->settled = true;
    sampler->active_known = true;
    sampler->active = active;
    sampler->epoch = epoch;
    sampler->ticks = 0; /* the next tick checks fences and tables */
    if (turned) {
        sampler_forget_streams(sampler);
        sampler_count_turn(sampler);
    }
    sampler_wake(sampler);
}

void replication_sample(const struct replication *replication, struct replication_sample *sample)
{
    *sample = replication->sampler->sample;
}

void replication_followed(const struct replication *replication, struct replication_followed *followed)
{
    *followed = replication->sampler->followed;
}

void replication_reload(struct replication *replication, const struct settings *settings)
{
    replication->settings = settings;
    engine_set_logins(replication);
    if (replication->owner != 0 && !replication->deposed) {
        own_write_settings(replication);
    }
}
