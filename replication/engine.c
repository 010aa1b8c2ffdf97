/* The lanes to both sides, and the life of it all. */
#include "replication/engine.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/flip.h"
#include "replication/names.h"
#include "replication/procedure.h"
#include "replication/sampler.h"
#include "replication/sql.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const purposes[] = {
    [LANE_WORK] = "work",   [LANE_SAMPLE] = "sample", [LANE_AUX] = "aux",         [LANE_GATE] = "gate",
    [LANE_PROBE] = "probe", [LANE_ANEW] = "anew",     [LANE_CONTROL] = "control", [LANE_ROLES] = "roles",
};

/* --- interrupting what runs too long, through the side's control lane --- */

enum { INTERRUPT_WITHIN_US = 2000000 };

static void interrupted(void *context, const struct reply *reply)
{
    (void)context;
    (void)reply; /* the interrupted statement's own answer, or its silence, is what counts */
}

static void interrupt_on_side(struct replication *replication, enum side side, int32_t pid, bool terminate)
{
    char sql[80];
    (void)snprintf(sql, sizeof sql, "select pg_%s_backend(%" PRId32 ")", terminate ? "terminate" : "cancel",
                   pid);
    LOG_DEBUG("backend_interrupted", LOG_STR("side", side_name(side)), LOG_I64("pid", pid),
              LOG_BOOL("terminate", terminate));
    connection_send(engine_lane(replication, side, LANE_CONTROL, 0), sql,
                    clock_mono_us() + INTERRUPT_WITHIN_US, interrupted, NULL);
}

static void interrupt_blue(void *context, int32_t pid, bool terminate)
{
    interrupt_on_side(context, SIDE_BLUE, pid, terminate);
}

static void interrupt_green(void *context, int32_t pid, bool terminate)
{
    interrupt_on_side(context, SIDE_GREEN, pid, terminate);
}

/* --- lanes --- */

static size_t lane_width(const struct replication *replication, enum lane lane)
{
    return lane < LANE_DATABASE_COUNT ? replication->database_count : 1;
}

static struct connection *open_lane(struct replication *replication, enum side side, enum lane lane,
                                    size_t database, struct error *error)
{
    const struct settings *settings = replication->settings;
    bool of_side = lane >= LANE_DATABASE_COUNT;
    const char *name = settings->databases.items[database];
    bool asked = lane == LANE_ROLES && settings->auth.database != NULL && settings->auth.database[0] != '\0';
    const char *of_all = asked ? settings->auth.database : "postgres";
    char label[160], application[NAMES_APPLICATION_SIZE];
    (void)snprintf(label, sizeof label, "%s/%s", side_name(side), of_side ? of_all : name);
    struct connection_options options = {
        .label = label,
        .host = settings->sides[side].host,
        .port = settings->sides[side].port,
        .user = settings->manager.user,
        .password = settings->manager.password,
        .tls = settings->sides[side].tls,
        .tls_server_name = settings->sides[side].tls_server_name,
        .database = of_side ? of_all : name,
        .fallback_database = of_side && !asked ? name : NULL,
        .application_name = names_application(purposes[lane], application),
        .kind = lane == LANE_GATE ? CONNECTION_GATE : CONNECTION_MANAGER,
        .context = replication,
    };
    if (lane != LANE_CONTROL && lane != LANE_ANEW) { /* of those only the socket is closed */
        options.interrupt = side == SIDE_BLUE ? interrupt_blue : interrupt_green;
    }
    return connection_new(replication->loop, &options, error);
}

static bool open_lanes(struct replication *replication, struct error *error)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        for (int lane = 0; lane < LANE_COUNT; lane++) {
            size_t width = lane_width(replication, (enum lane)lane);
            struct connection **row = calloc(width, sizeof(struct connection *));
            if (row == NULL) {
                return error_set(error, ERROR_MEMORY, "out of memory");
            }
            replication->lanes[side][lane] = row;
            for (size_t i = 0; i < width; i++) {
                row[i] = open_lane(replication, (enum side)side, (enum lane)lane, i, error);
                if (row[i] == NULL) {
                    return false;
                }
                replication->open_parts++;
            }
        }
    }
    return true;
}

void engine_set_logins(struct replication *replication)
{
    const struct settings *settings = replication->settings;
    for (int side = 0; side < SIDE_COUNT; side++) {
        const struct settings_side *of = &settings->sides[side];
        for (int lane = 0; lane < LANE_COUNT; lane++) {
            size_t width = lane_width(replication, (enum lane)lane);
            for (size_t i = 0; i < width; i++) {
                if (!connection_set_login(replication->lanes[side][lane][i], settings->manager.password,
                                          &of->tls, of->tls_server_name)) {
                    LOG_ERROR("reload_failed", LOG_STR("error", "out of memory for a connection"));
                }
            }
        }
    }
}

void engine_renew(struct replication *replication, enum side side)
{
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        const bool waited_for = lane == LANE_SAMPLE || lane == LANE_CONTROL || lane == LANE_ROLES;
        for (size_t i = 0; i < lane_width(replication, (enum lane)lane); i++) {
            struct connection *connection = replication->lanes[side][lane][i];
            if (waited_for || connection_is_idle(connection)) {
                connection_renew(connection);
            }
        }
    }
}

struct connection *engine_lane(struct replication *replication, enum side side, enum lane lane,
                               size_t database)
{
    return replication->lanes[side][lane][lane < LANE_DATABASE_COUNT ? database : 0];
}

const struct settings *engine_settings(const struct replication *replication)
{
    return replication->settings;
}

size_t engine_database_count(const struct replication *replication)
{
    return replication->database_count;
}

const char *engine_database(const struct replication *replication, size_t database)
{
    return replication->settings->databases.items[database];
}

uv_loop_t *engine_loop(const struct replication *replication)
{
    return replication->loop;
}

uint64_t engine_owner(const struct replication *replication)
{
    return replication->owner;
}

struct task_list *engine_tasks(struct replication *replication)
{
    return &replication->tasks;
}

/* --- owners --- */

void engine_note_reply(struct replication *replication, enum side side, const struct reply *reply)
{
    uint64_t owner;
    if (reply_owner(reply, &owner)) {
        engine_note_owner(replication, side, owner);
    }
}

bool engine_is_deposed_by(const struct replication *replication, enum side side, uint64_t owner)
{
    return replication->owner != 0 && owner > replication->owner &&
           (replication->settled || replication->owned[side]);
}

void engine_note_owner(struct replication *replication, enum side side, uint64_t owner)
{
    if (replication->deposed || !engine_is_deposed_by(replication, side, owner)) {
        return;
    }
    replication->deposed = true;
    sampler_wake(replication->sampler);
    LOG_ERROR("deposed", LOG_U64("owner", owner), LOG_U64("ours", replication->owner));
    if (replication->callbacks.deposed != NULL) {
        replication->callbacks.deposed(replication->callbacks.context);
    }
}

/* --- life --- */

static void free_engine(struct replication *replication)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        for (int lane = 0; lane < LANE_COUNT; lane++) {
            free(replication->lanes[side][lane]);
        }
    }
    void (*stopped)(void *context) = replication->stopped;
    void *context = replication->stopped_context;
    sampler_free(replication->sampler);
    free(replication->flip);
    free(replication);
    if (stopped != NULL) {
        stopped(context);
    }
}

void engine_part_closed(struct replication *replication)
{
    ENSURE(replication->open_parts > 0);
    replication->open_parts--;
    if (replication->open_parts == 0 && replication->stopping) {
        free_engine(replication);
    }
}

static void on_part_closed(void *context)
{
    engine_part_closed(context);
}

static void close_lanes(struct replication *replication)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        for (int lane = 0; lane < LANE_COUNT; lane++) {
            struct connection **row = replication->lanes[side][lane];
            for (size_t i = 0; row != NULL && i < lane_width(replication, (enum lane)lane); i++) {
                if (row[i] != NULL) {
                    connection_free(row[i], on_part_closed, replication);
                }
            }
        }
    }
}

void replication_stop(struct replication *replication, void (*done)(void *context), void *context)
{
    ENSURE(!replication->stopping);
    replication->stopping = true;
    replication->stopped = done;
    replication->stopped_context = context;
    replication->open_parts++; /* this call's own, so that nothing is freed under it */
    if (replication->sampler != NULL) {
        sampler_stop(replication->sampler);
    }
    procedure_abort_all(replication);
    replication->open_parts++;
    task_list_stop(&replication->tasks, on_part_closed, replication);
    close_lanes(replication);
    engine_part_closed(replication);
}

struct replication *replication_new(uv_loop_t *loop, const struct settings *settings,
                                    const struct replication_callbacks *callbacks, struct error *error)
{
    struct replication *replication = calloc(1, sizeof *replication);
    if (replication == NULL) {
        (void)error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    replication->loop = loop;
    replication->settings = settings;
    replication->callbacks = *callbacks;
    replication->database_count = settings->databases.count;
    if (settings->databases.count == 0) {
        (void)error_set(error, ERROR_CONFIG, "no database is managed");
        free(replication);
        return NULL;
    }
    if (!open_lanes(replication, error)) {
        replication_stop(replication, NULL, NULL);
        return NULL;
    }
    replication->flip = flip_memory_new(replication->database_count);
    if (replication->flip != NULL && (replication->sampler = sampler_new(replication)) != NULL) {
        replication->open_parts++;
        return replication;
    }
    (void)error_set(error, ERROR_MEMORY, "out of memory");
    replication_stop(replication, NULL, NULL);
    return NULL;
}
