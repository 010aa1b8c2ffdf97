#include "replication/standby_names.h"

#include "replication/names.h"
#include "replication/replication.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/procedure.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Of the other side only its own emptiness is wanted: nobody waits long for one that doesn't answer. */
enum { OTHER_WITHIN_US = 1000000, SEE_AGAIN_US = 10000 };

void standby_names_put(struct strbuf *text, enum side publisher, const struct settings_list *databases)
{
    strbuf_printf(text, "FIRST %zu (", databases->count);
    for (size_t i = 0; i < databases->count; i++) {
        char slot[NAMES_SLOT_SIZE];
        strbuf_printf(text, "%s%s", i == 0 ? "" : ", ", names_slot(publisher, databases->items[i], slot));
    }
    strbuf_puts(text, ")");
}

static bool is_keyword(const char *word, size_t length)
{
    return (length == 3 && strncasecmp(word, "any", length) == 0) ||
           (length == 5 && strncasecmp(word, "first", length) == 0) || strspn(word, "0123456789") >= length;
}

bool standby_names_are_ours(const char *value)
{
    static const char ours[] = NAMES_SCHEMA "_";
    bool any = false;
    for (const char *at = value; *at != '\0';) {
        size_t between = strspn(at, " \t\n(),\"");
        at += between;
        size_t length = strcspn(at, " \t\n(),\"");
        bool named = length >= sizeof ours && strncmp(at, ours, sizeof ours - 1) == 0;
        if (length > 0 && !named && !is_keyword(at, length)) {
            return false;
        }
        any = any || named;
        at += length;
    }
    return any;
}

/* --- setting them --- */

struct naming;

/* One side of it. */
struct naming_side {
    struct naming *naming;
    struct strbuf wanted;
    uint64_t number;
    int32_t pid; /* of the session that saw that the side is ours to change; a later one didn't */
    bool lost;
};

struct naming {
    struct replication *replication;
    enum side active;
    uint64_t epoch;
    bool promise;
    bool ahead; /* `active` is the standby still */
    size_t running;
    struct naming_side sides[SIDE_COUNT];
    struct replication_result result; /* the active side's */
    replication_done done;
    void *context;
};

/*
 * ALTER SYSTEM runs in no transaction, so it can't hold the state row's lock while it works. Whoever takes
 * ownership ends our sessions in the managed databases and waits until they are gone: what was asked of the
 * session that saw our ownership has happened before that, or never does.
 */
static void build_read(struct strand *strand, struct strbuf *sql)
{
    const struct naming_side *side = strand->data;
    sql_format(sql,
               "select s.owner, s.standing = 'active' and s.epoch = %u and s.fenced_for is null,"
               " current_setting('synchronous_standby_names'), (select f.setting from pg_file_settings f"
               " where f.name = 'synchronous_standby_names' order by f.seqno desc limit 1),"
               " pg_backend_pid(), s.standing = 'active' and s.epoch >= %u, s.standing = 'standby' and"
               " not exists (select from pg_subscription where subsynccommit not in ('local', 'off')),"
               " s.standing = 'active' and s.fenced_for is null"
               " from switchback.state s",
               side->naming->epoch, side->naming->epoch);
}

static enum verdict judge_side(const struct naming *naming, const struct strand *strand,
                               const struct reply *reply, struct error *error)
{
    uint64_t owner = reply_uint(reply, 0, 0);
    if (strand->replication->foreign[strand->side]) {
        return VERDICT_END; /* another pair's: its owner and its names are none of our business */
    }
    engine_note_owner(strand->replication, strand->side, owner);
    if (owner != strand->replication->owner) {
        (void)error_set(error, ERROR_STALE, "%s is owned by another controller", side_name(strand->side));
        return VERDICT_FAIL;
    }
    if (naming->ahead && !reply_bool(reply, 0, 6)) {
        return VERDICT_END; /* what is applied here would wait for names: the turn says what is wrong */
    }
    if (naming->promise && !naming->ahead && strand->side == naming->active && !reply_bool(reply, 0, 1)) {
        (void)error_set(error, ERROR_STALE, "%s is not active at epoch %llu", side_name(strand->side),
                        (unsigned long long)naming->epoch);
        return VERDICT_FAIL;
    }
    if (strand->side != naming->active && reply_bool(reply, 0, 5)) {
        (void)error_set(error, ERROR_STALE, "%s is active itself, at epoch %llu or later",
                        side_name(strand->side), (unsigned long long)naming->epoch);
        return VERDICT_FAIL;
    }
    if (strand->side != naming->active && reply_bool(reply, 0, 7)) {
        /* Left behind, and open still: a commit that waits there must not be acknowledged any more, so its
         * sessions are ended before its names go (contact.c). */
        return VERDICT_END;
    }
    return VERDICT_NEXT;
}

static enum verdict judge_read(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct naming_side *side = strand->data;
    const char *effective = reply_value(reply, 0, 2), *filed = reply_value(reply, 0, 3);
    const char *wanted = strbuf_text(&side->wanted);
    if (effective == NULL) {
        return VERDICT_END; /* no state row: nothing of ours is here */
    }
    enum verdict verdict = judge_side(side->naming, strand, reply, error);
    if (verdict != VERDICT_NEXT) {
        return verdict;
    }
    filed = filed == NULL ? "" : filed;
    if (*wanted == '\0' && !standby_names_are_ours(effective) && !standby_names_are_ours(filed)) {
        return VERDICT_END;
    }
    const char *foreign = *effective != '\0' && !standby_names_are_ours(effective) ? effective
                          : *filed != '\0' && !standby_names_are_ours(filed)       ? filed
                                                                                   : NULL;
    if (*wanted != '\0' && foreign != NULL) {
        (void)error_set(error, ERROR_CHECK_FAILED, "%s: synchronous_standby_names has another use: %s",
                        side_name(strand->side), foreign);
        (void)error_remedy(error, "free it, or set flip.lossless to false");
        return VERDICT_FAIL;
    }
    side->pid = (int32_t)reply_int(reply, 0, 4);
    return strcmp(wanted, effective) == 0 && strcmp(wanted, filed) == 0 ? VERDICT_END : VERDICT_NEXT;
}

static void build_set(struct strand *strand, struct strbuf *sql)
{
    struct naming_side *side = strand->data;
    /* A later call has read, or will read, what stands before this one would change it. */
    side->lost = side->number != strand->replication->names_asked[strand->side] ||
                 connection_pid(engine_lane(strand->replication, strand->side, LANE_AUX, 0)) != side->pid;
    if (side->lost) {
        strbuf_puts(sql, "select");
    } else if (side->wanted.length == 0) {
        strbuf_puts(sql, "alter system reset synchronous_standby_names");
    } else {
        sql_format(sql, "alter system set synchronous_standby_names = %L", strbuf_text(&side->wanted));
    }
}

static enum verdict judge_set(struct strand *strand, const struct reply *reply, struct error *error)
{
    const struct naming_side *side = strand->data;
    (void)reply;
    if (side->lost) {
        (void)error_set(error, ERROR_ABORTED, "%s: asked anew, or the connection was lost meanwhile",
                        side_name(strand->side));
        return VERDICT_FAIL;
    }
    LOG_INFO("standby_names_set", LOG_STR("side", side_name(strand->side)),
             LOG_STR("names", strbuf_text(&side->wanted)));
    return VERDICT_NEXT;
}

/* The postmaster tells this session when it tells all others, and after it has read the file itself. */
static enum verdict judge_seen(struct strand *strand, const struct reply *reply, struct error *error)
{
    const struct naming_side *side = strand->data;
    const char *value = reply_value(reply, 0, 0), *wanted = strbuf_text(&side->wanted);
    value = value == NULL ? "" : value;
    /* What stands in another file shows when ours is taken away: it isn't ours. */
    if (*wanted == '\0' ? !standby_names_are_ours(value) : strcmp(value, wanted) == 0) {
        return VERDICT_NEXT;
    }
    (void)error_set(error, ERROR_TIMEOUT, "%s: synchronous_standby_names is still \"%s\"",
                    side_name(strand->side), value);
    (void)error_remedy(error, "take it out of the server's command line and configuration files");
    return VERDICT_AGAIN;
}

static const struct step naming_steps[] = {
    {.name = "look for the schema",
     .lane = LANE_AUX,
     .tolerant = true,
     .sql = PROCEDURE_INSTALLED_SQL,
     .judge = procedure_judge_installed},
    {.name = "read names", .lane = LANE_AUX, .build = build_read, .judge = judge_read},
    {.name = "set names", .lane = LANE_AUX, .build = build_set, .judge = judge_set},
    {.name = "reload", .lane = LANE_AUX, .sql = "select pg_reload_conf()"},
    {.name = "see names",
     .lane = LANE_AUX,
     .sql = "select current_setting('synchronous_standby_names')",
     .judge = judge_seen,
     .again_us = SEE_AGAIN_US},
};

static void ended(struct naming *naming)
{
    naming->running--;
    if (naming->running > 0) {
        return;
    }
    naming->done(naming->context, &naming->result);
    strbuf_deinit(&naming->sides[SIDE_BLUE].wanted);
    strbuf_deinit(&naming->sides[SIDE_GREEN].wanted);
    free(naming);
}

static void active_ended(void *data, const struct replication_result *result)
{
    struct naming_side *side = data;
    side->naming->result = *result;
    ended(side->naming);
}

static void other_ended(void *data, const struct replication_result *result)
{
    struct naming_side *side = data;
    struct naming *naming = side->naming;
    if (!result->ok) {
        LOG_WARN("standby_names_not_emptied", LOG_STR("side", side_name(side_other(naming->active))),
                 LOG_STR("reason", result->error.message));
    }
    ended(naming);
}

static void only_ended(void *data, const struct replication_result *result)
{
    struct naming_side *side = data;
    side->naming->result = *result;
    ended(side->naming);
}

static void start(struct naming *naming, enum side side, int64_t deadline_us,
                  void (*done)(void *data, const struct replication_result *result))
{
    naming->sides[side].naming = naming;
    naming->replication->names_ahead[side] = naming->ahead;
    naming->sides[side].number = ++naming->replication->names_asked[side];
    (void)procedure_start(naming->replication, &(struct procedure_plan){
                                                   .name = "standby names",
                                                   .steps = naming_steps,
                                                   .step_count = ARRAY_LENGTH(naming_steps),
                                                   .sides = SIDE_BIT(side),
                                                   .cluster = true,
                                                   .deadline_us = deadline_us,
                                                   .done = done,
                                                   .data = &naming->sides[side],
                                               });
}

static struct naming *naming_new(struct replication *replication, enum side active, uint64_t epoch,
                                 bool promise, replication_done done, void *context)
{
    struct naming *naming = calloc(1, sizeof *naming);
    ENSURE(naming != NULL);
    *naming = (struct naming){.replication = replication,
                              .active = active,
                              .epoch = epoch,
                              .promise = promise,
                              .done = done,
                              .context = context};
    strbuf_init(&naming->sides[SIDE_BLUE].wanted, SQL_LIMIT);
    strbuf_init(&naming->sides[SIDE_GREEN].wanted, SQL_LIMIT);
    return naming;
}

void replication_names(struct replication *replication, enum side active, uint64_t epoch, bool promise,
                       int64_t deadline_us, replication_done done, void *context)
{
    struct naming *naming = naming_new(replication, active, epoch, promise, done, context);
    if (promise) {
        standby_names_put(&naming->sides[active].wanted, active, &replication->settings->databases);
    }
    int64_t soon_us = clock_mono_us() + OTHER_WITHIN_US;
    naming->running = 2;
    start(naming, active, deadline_us, active_ended);
    start(naming, side_other(active), deadline_us == 0 || soon_us < deadline_us ? soon_us : deadline_us,
          other_ended);
}

void replication_names_ahead(struct replication *replication, enum side standby, uint64_t epoch,
                             int64_t deadline_us, replication_done done, void *context)
{
    struct naming *naming = naming_new(replication, standby, epoch, true, done, context);
    standby_names_put(&naming->sides[standby].wanted, standby, &replication->settings->databases);
    naming->ahead = true;
    naming->running = 1;
    start(naming, standby, deadline_us, only_ended);
}

void standby_names_empty(struct replication *replication, enum side side, uint64_t epoch, int64_t deadline_us,
                         replication_done done, void *context)
{
    struct naming *naming = naming_new(replication, side_other(side), epoch, false, done, context);
    naming->running = 1;
    start(naming, side, deadline_us, only_ended);
}
