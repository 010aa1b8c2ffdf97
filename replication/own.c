#include "replication/own.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/flip.h"
#include "replication/identity.h"
#include "replication/names.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A side that doesn't answer isn't waited for long: it is owned when it comes back. */
enum { REACH_WITHIN_US = 3000000, OWN_WITHIN_US = 5000000 };

struct owning {
    struct owning *next; /* waits for its number to be remembered */
    struct replication *replication;
    unsigned sides;
    bool raise; /* a new number; else ours is brought to a side that lacks it */
    int64_t deadline_us;
    uint64_t highest[SIDE_COUNT];
    bool reached[SIDE_COUNT];
    bool missed[SIDE_COUNT]; /* one of its databases could not be asked */
    bool foreign[SIDE_COUNT];
    char pairs[SIDE_COUNT][REPLICATION_NAME_SIZE];
    struct error wrong; /* why a side is foreign */
    struct error unreachable;
    bool *installed[SIDE_COUNT]; /* by database */
    replication_done done;
    void *context;
};

static void owning_free(struct owning *owning)
{
    free(owning->installed[SIDE_BLUE]);
    free(owning->installed[SIDE_GREEN]);
    free(owning);
}

static void finish(struct owning *owning, const struct replication_result *result)
{
    sampler_wake(owning->replication->sampler);
    if (owning->raise) {
        owning->replication->owning = false;
    }
    owning->done(owning->context, result);
    owning_free(owning);
}

static void run(struct owning *owning, const char *name, const struct step *steps, size_t count, bool cluster,
                void (*done)(void *data, const struct replication_result *result))
{
    (void)procedure_start(owning->replication, &(struct procedure_plan){.name = name,
                                                                        .steps = steps,
                                                                        .step_count = count,
                                                                        .sides = owning->sides,
                                                                        .cluster = cluster,
                                                                        .deadline_us = owning->deadline_us,
                                                                        .done = done,
                                                                        .data = owning});
}

/* --- the third part: our number in every state row --- */

static bool is_not_installed(const struct strand *strand)
{
    const struct owning *owning = strand->data;
    return !owning->installed[strand->side][strand->database];
}

static void put_settings(const struct settings *settings, struct strbuf *sql)
{
    strbuf_puts(sql, "manager = session_user, migrators = ");
    sql_text_array(sql, &settings->migrators);
    strbuf_puts(sql, ", local_tables = ");
    sql_text_array(sql, &settings->local_tables);
}

/* Equal is ours: a side that came back may have been given it while ownership was taken anew. */
static void build_raise(struct strand *strand, struct strbuf *sql)
{
    sql_format(sql, "update switchback.state set owner = %u, ", strand->replication->owner);
    put_settings(strand->replication->settings, sql);
    sql_format(sql, " where owner <= %u returning owner", strand->replication->owner);
}

static enum verdict judge_raise(struct strand *strand, const struct reply *reply, struct error *error)
{
    const struct owning *owning = strand->data;
    strand->replication->owned[strand->side] |= reply_row_count(reply) > 0;
    if (reply_row_count(reply) > 0 || !owning->raise) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_STALE, "%s/%s: another controller took ownership just now",
                    side_name(strand->side), strand->database_name);
    return VERDICT_FAIL;
}

/* When ownership is taken, no work is under way; a side that came back gets our number beside whatever is. */
static const struct step raise_steps[] = {
    {.name = "take ownership", .skip = is_not_installed, .build = build_raise, .judge = judge_raise},
};
static const struct step give_steps[] = {
    {.name = "take ownership",
     .lane = LANE_SAMPLE,
     .skip = is_not_installed,
     .build = build_raise,
     .judge = judge_raise},
};

static void raised(void *data, const struct replication_result *result)
{
    struct owning *owning = data;
    LOG_INFO("ownership_taken", LOG_U64("owner", owning->replication->owner), LOG_BOOL("ok", result->ok),
             LOG_BOOL("blue", owning->reached[SIDE_BLUE]), LOG_BOOL("green", owning->reached[SIDE_GREEN]));
    finish(owning, result);
}

/* --- the second part: which number is the highest --- */

static bool is_not_reached(const struct strand *strand)
{
    const struct owning *owning = strand->data;
    return !owning->reached[strand->side];
}

static enum verdict judge_owner(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct owning *owning = strand->data;
    (void)error;
    if (reply_row_count(reply) > 0) {
        uint64_t owner = reply_uint(reply, 0, 0);
        owning->installed[strand->side][strand->database] = true;
        uint64_t *highest = &owning->highest[strand->side];
        *highest = owner > *highest ? owner : *highest;
    }
    return VERDICT_END;
}

#define READ_STEPS(its_lane)                                                                                 \
    {                                                                                                        \
        {.name = "look for the schema",                                                                      \
         .lane = (its_lane),                                                                                 \
         .tolerant = true,                                                                                   \
         .skip = is_not_reached,                                                                             \
         .sql = PROCEDURE_INSTALLED_SQL,                                                                     \
         .judge = procedure_judge_installed},                                                                \
        {                                                                                                    \
            .name = "read owner", .lane = (its_lane), .skip = is_not_reached,                                \
            .sql = "select owner from switchback.state", .judge = judge_owner                                \
        }                                                                                                    \
    }
static const struct step read_steps[] = READ_STEPS(LANE_WORK), read_beside_steps[] = READ_STEPS(LANE_SAMPLE);
#undef READ_STEPS

/*
 * Two controllers that start at once read the same highest number. With the next one each could win a side,
 * and both would pass as its owner: so the step is random, and the higher number wins everywhere. And it is
 * above the time: a side that can't be reached now may have a number from an earlier life of this daemon,
 * which would depose us when it comes back.
 */
static uint64_t next_owner(uint64_t highest)
{
    uint16_t step; /* 65 ms at most: the next life is later than that */
    ENSURE(getrandom(&step, sizeof step, 0) == (ssize_t)sizeof step);
    uint64_t now_us = (uint64_t)clock_wall_us();
    return (highest > now_us ? highest : now_us) + 1 + step;
}

/* A number that was raised and forgotten is another controller's to the next life, if that begins without the
 * side on which it stands. */
static void remember(struct owning *owning)
{
    struct replication *replication = owning->replication;
    struct owning **last = &replication->choosing;
    if (replication->callbacks.choosing == NULL) {
        run(owning, "take ownership", raise_steps, ARRAY_LENGTH(raise_steps), false, raised);
        return;
    }
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = owning;
    replication->open_parts++; /* until it goes on */
    replication->callbacks.choosing(replication->callbacks.context);
}

void replication_chosen(struct replication *replication)
{
    struct owning *owning = replication->choosing;
    ENSURE(owning != NULL);
    replication->choosing = owning->next;
    owning->deadline_us = clock_mono_us() + OWN_WITHIN_US;
    run(owning, "take ownership", raise_steps, ARRAY_LENGTH(raise_steps), false, raised);
    engine_part_closed(replication);
}

/*
 * A start takes over from whoever is there (owner 0: nothing is ours yet), and it isn't over before it knows
 * which side is active: where it has not been before, a higher number is one that it has come after. But only
 * while every side that it has taken can still say that nobody came after it.
 */
static bool may_take(const struct owning *owning, uint64_t highest)
{
    const struct replication *replication = owning->replication;
    bool all_ours = true;
    for (int side = 0; side < SIDE_COUNT; side++) {
        all_ours &= !replication->owned[side] || owning->reached[side];
    }
    return highest <= replication->owner || replication->owner == 0 || (owning->raise && all_ours);
}

static bool is_deposed(const struct owning *owning)
{
    bool deposed = owning->replication->deposed;
    for (int side = 0; side < SIDE_COUNT; side++) {
        deposed |= engine_is_deposed_by(owning->replication, (enum side)side, owning->highest[side]);
    }
    return deposed;
}

static void owners_read(void *data, const struct replication_result *result)
{
    struct owning *owning = data;
    struct replication *replication = owning->replication;
    const uint64_t *of = owning->highest;
    const uint64_t highest = of[SIDE_BLUE] > of[SIDE_GREEN] ? of[SIDE_BLUE] : of[SIDE_GREEN];
    if (!result->ok) {
        finish(owning, result);
        return;
    }
    if (is_deposed(owning) || !may_take(owning, highest)) {
        for (int side = 0; side < SIDE_COUNT; side++) {
            engine_note_owner(replication, (enum side)side, of[side]);
        }
        struct replication_result refused = {.ok = false};
        (void)error_set(&refused.error, ERROR_STALE, "another controller owns the pair");
        finish(owning, &refused);
    } else if (owning->raise) {
        const uint64_t ours = replication->identity.owner; /* on a side that can't be asked it may stand */
        replication->identity.owned_since |= highest > ours;
        replication->owner = next_owner(highest > ours ? highest : ours);
        replication->identity.owner = replication->owner;
        remember(owning);
    } else {
        run(owning, "take ownership", give_steps, 1, false, raised);
    }
}

/* --- the first part: no other backend of ours is left --- */

static void put_our_pids(struct replication *replication, enum side side, struct strbuf *sql)
{
    strbuf_puts(sql, "'{0");
    for (int lane = 0; lane < LANE_DATABASE_COUNT; lane++) {
        for (size_t i = 0; i < replication->database_count; i++) {
            const struct connection *connection = engine_lane(replication, side, (enum lane)lane, i);
            if (connection_is_up(connection)) {
                strbuf_printf(sql, ",%d", connection_pid(connection));
            }
        }
    }
    strbuf_puts(sql, "}'::int[]");
}

/*
 * All but ours. When ownership is taken, of ours only the idle lanes stay (their pids) and the tasks; when a
 * side came back, whatever this process has there: a flip or a prepare may be under way. What a lane has lost
 * it has no more: a server that wasn't told goes on holding that transaction's locks, our own row's first.
 */
static void build_end_others(struct strand *strand, struct strbuf *sql)
{
    const struct owning *owning = strand->data;
    char task[NAMES_APPLICATION_SIZE];
    sql_format(sql,
               "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = session_user"
               " and backend_type = 'client backend' and starts_with(application_name, %L)"
               " and pid <> pg_backend_pid() and datname = any (",
               NAMES_APPLICATION);
    sql_text_array(sql, &strand->replication->settings->databases);
    if (owning->raise) {
        sql_format(sql, ") and application_name <> %L and pid <> all (", names_application("task", task));
        put_our_pids(strand->replication, strand->side, sql);
        strbuf_puts(sql, ")");
    } else {
        sql_format(sql,
                   ") and (right(application_name, 8) <> %L or (application_name <> %L"
                   " and starts_with(state, 'idle in transaction') and pid <> all (",
                   names_instance(), names_application("task", task));
        put_our_pids(strand->replication, strand->side, sql);
        strbuf_puts(sql, ")))");
    }
}

static enum verdict judge_end_others(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct owning *owning = strand->data;
    if (!reply->ok) {
        *error = reply->error;
        owning->unreachable = reply->error;
        bool silent = reply->error.code == ERROR_UNREACHABLE || reply->uncertain;
        return silent ? VERDICT_END : VERDICT_FAIL;
    }
    if (reply_int(reply, 0, 0) > 0) {
        (void)error_set(error, ERROR_TIMEOUT, "%s: backends of an earlier controller don't end",
                        side_name(strand->side));
        return VERDICT_AGAIN;
    }
    owning->reached[strand->side] = true;
    return VERDICT_NEXT;
}

static void others_ended(void *data, const struct replication_result *result)
{
    struct owning *owning = data;
    if (!result->ok) {
        finish(owning, result);
        return;
    }
    if (!owning->reached[SIDE_BLUE] && !owning->reached[SIDE_GREEN]) {
        struct replication_result none = {.ok = false, .error = owning->unreachable};
        finish(owning, &none);
        return;
    }
    owning->deadline_us = clock_mono_us() + OWN_WITHIN_US;
    run(owning, "read owners", owning->raise ? read_steps : read_beside_steps, ARRAY_LENGTH(read_steps),
        false, owners_read);
}

static bool is_passed_over(const struct strand *strand)
{
    const struct owning *owning = strand->data;
    return owning->missed[strand->side] || owning->foreign[strand->side];
}

static const struct step end_steps[] = {
    {.name = "end earlier sessions",
     .lane = LANE_CONTROL,
     .tolerant = true,
     .skip = is_passed_over,
     .build = build_end_others,
     .judge = judge_end_others},
};

/* --- before it, when the pair is taken: whose clusters are these? --- */

static enum verdict judge_schema(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct owning *owning = strand->data;
    if (reply->ok && reply_bool(reply, 0, 1)) { /* on its way to be promoted, perhaps */
        owning->missed[strand->side] = true;
        (void)error_set(&owning->unreachable, ERROR_UNREACHABLE, "%s is in recovery: it takes no writes",
                        side_name(strand->side));
        return VERDICT_END;
    }
    if (reply->ok) {
        owning->installed[strand->side][strand->database] = reply_bool(reply, 0, 0);
        return VERDICT_NEXT;
    }
    *error = reply->error;
    if (reply->error.code == ERROR_NOT_PREPARED) { /* no such database: nothing of ours is in it */
        return VERDICT_END;
    }
    owning->unreachable = reply->error;
    owning->missed[strand->side] = true;
    return reply->error.code == ERROR_UNREACHABLE || reply->uncertain ? VERDICT_END : VERDICT_FAIL;
}

static bool is_without_schema(const struct strand *strand)
{
    const struct owning *owning = strand->data;
    return !owning->installed[strand->side][strand->database];
}

static enum verdict judge_identity(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct owning *owning = strand->data;
    char *pair = owning->pairs[strand->side];
    (void)error;
    if (!identity_judge_row(strand->replication, strand->side, reply, 0, &owning->wrong)) {
        owning->foreign[strand->side] = true;
        return VERDICT_END;
    }
    (void)snprintf(pair, REPLICATION_NAME_SIZE, "%s",
                   reply_row_count(reply) > 0 ? reply_value(reply, 0, 0) : "");
    return VERDICT_NEXT;
}

/* In each database: a side is known to be ours before anything is ended there. */
static const struct step take_steps[] = {
    {.name = "look for the schema",
     .tolerant = true,
     .sql = PROCEDURE_INSTALLED_SQL ", pg_is_in_recovery()",
     .judge = judge_schema},
    {.name = "identify",
     .skip = is_without_schema,
     .sql = "select " IDENTITY_COLUMNS " from switchback.state",
     .judge = judge_identity},
};

static void taken(void *data, const struct replication_result *result)
{
    struct owning *owning = data;
    bool *foreign = owning->foreign;
    if (!result->ok) {
        finish(owning, result);
        return;
    }
    if (!foreign[SIDE_BLUE] && !foreign[SIDE_GREEN] &&
        !identity_settle(owning->replication, owning->pairs[SIDE_BLUE], owning->pairs[SIDE_GREEN],
                         &owning->wrong)) {
        foreign[SIDE_BLUE] = foreign[SIDE_GREEN] = true;
    }
    for (int side = 0; side < SIDE_COUNT; side++) {
        if (foreign[side]) {
            owning->unreachable = owning->wrong;
            identity_note(owning->replication, (enum side)side, &owning->wrong);
        }
        memset(owning->installed[side], 0,
               owning->replication->database_count * sizeof(bool)); /* read again */
    }
    run(owning, "end earlier sessions", end_steps, ARRAY_LENGTH(end_steps), true, others_ended);
}

/* --- the beginning --- */

/* What is under way on a work lane must not end after us: its backend is ended with the others'. */
static void drop_work(struct replication *replication, enum side side)
{
    for (size_t i = 0; i < replication->database_count; i++) {
        struct connection *lane = engine_lane(replication, side, LANE_WORK, i);
        if (connection_is_up(lane) && !connection_is_idle(lane)) {
            connection_drop(lane);
        }
    }
}

static struct owning *owning_new(struct replication *replication, unsigned sides, bool raise,
                                 replication_done done, void *context)
{
    struct owning *owning = calloc(1, sizeof *owning);
    ENSURE(owning != NULL);
    *owning = (struct owning){.replication = replication,
                              .sides = sides,
                              .raise = raise,
                              .deadline_us = clock_mono_us() + REACH_WITHIN_US,
                              .done = done,
                              .context = context};
    for (int side = 0; side < SIDE_COUNT; side++) {
        owning->installed[side] = calloc(replication->database_count, sizeof(bool));
        ENSURE(owning->installed[side] != NULL);
    }
    return owning;
}

static void begin(struct owning *owning)
{
    sampler_rest(owning->replication->sampler, owning->deadline_us + OWN_WITHIN_US);
    if (owning->raise) {
        run(owning, "take the pair", take_steps, ARRAY_LENGTH(take_steps), false, taken);
    } else {
        run(owning, "end earlier sessions", end_steps, ARRAY_LENGTH(end_steps), true, others_ended);
    }
}

void replication_own(struct replication *replication, replication_done done, void *context)
{
    struct owning *owning = owning_new(replication, BOTH_SIDES, true, done, context);
    if (replication->deposed) {
        struct error error;
        (void)error_set(&error, ERROR_STALE, "another controller owns the pair");
        (void)error_remedy(&error, "stop one of the two daemons");
        procedure_refuse(
            replication,
            &(struct procedure_plan){
                .name = "own", .sides = BOTH_SIDES, .cluster = true, .done = raised, .data = owning},
            &error);
        return;
    }
    if (replication->flip->running != NULL) {
        procedure_abort(replication->flip->running);
    }
    drop_work(replication, SIDE_BLUE);
    drop_work(replication, SIDE_GREEN);
    replication->owning = true;
    begin(owning);
}

bool replication_is_owning(const struct replication *replication)
{
    return replication->owning;
}

void own_side(struct replication *replication, enum side side, replication_done done, void *context)
{
    begin(owning_new(replication, SIDE_BIT(side), false, done, context));
}

/* --- the configuration in state --- */

static void build_settings(struct strand *strand, struct strbuf *sql)
{
    strbuf_puts(sql, "update switchback.state set ");
    put_settings(strand->replication->settings, sql);
    sql_format(sql, " where owner = %u", strand->replication->owner);
}

static enum verdict judge_settings(struct strand *strand, const struct reply *reply, struct error *error)
{
    (void)error;
    if (!reply->ok) {
        LOG_WARN("settings_not_written", LOG_STR("side", side_name(strand->side)),
                 LOG_STR("reason", reply->error.message));
    }
    return VERDICT_END;
}

static void settings_written(void *data, const struct replication_result *result)
{
    (void)data;
    (void)result;
}

void own_write_settings(struct replication *replication)
{
    static const struct step steps[] = {{.name = "write settings",
                                         .lane = LANE_AUX,
                                         .tolerant = true,
                                         .build = build_settings,
                                         .judge = judge_settings}};
    (void)procedure_start(replication,
                          &(struct procedure_plan){.name = "write settings",
                                                   .steps = steps,
                                                   .step_count = 1,
                                                   .sides = BOTH_SIDES,
                                                   .deadline_us = clock_mono_us() + OWN_WITHIN_US,
                                                   .done = settings_written});
}
