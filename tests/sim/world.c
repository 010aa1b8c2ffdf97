#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { STEP_US = 1000, DOWN_US = 3000000, HANG_US = 6000000, ZOMBIE_US = 20000, WALL_US = 1000000000 };

struct flip_options world_options(void)
{
    return (struct flip_options){
        .check_timeout_us = 10000000,
        .approve_timeout_us = 10000000,
        .backup_timeout_us = 10000000,
        .hook_timeout_us = 10000000,
        .arm_timeout_us = 5000000,
        .drain_timeout_us = 2000000,
        .drain_grace_us = 1000000,
        .catchup_timeout_us = 2000000,
        .max_hold_us = 8000000,
        .watch_duration_us = INT64_C(1800000000),
        .immovable = IMMOVABLE_DISCONNECT,
        .has_backup = true,
        .has_backup_verify = true,
        .has_hook_before = true,
        .has_hook_after = true,
        .has_hook_on_flip_back = true,
    };
}

static void tell_story(struct world *world, const char *what, const char *name)
{
    int n = snprintf(world->story + world->story_length, sizeof world->story - world->story_length,
                     "%7" PRId64 " ms %s %s\n", world->now_us / 1000, what, name);
    if (n > 0 && world->story_length + (size_t)n < sizeof world->story) {
        world->story_length += (size_t)n;
    }
}

static void broke(struct world *world, const char *what)
{
    if (world->broken[0] == '\0') {
        world->broken = what;
        tell_story(world, "BROKEN:", what);
    }
}

/* --- clusters --- */

static bool open_for_writes(const struct world_cluster *cluster, size_t database)
{
    return cluster->up && !cluster->databases[database].fence;
}

static void go_down(struct world *world, enum side side)
{
    struct world_cluster *cluster = &world->clusters[side];
    cluster->up = false;
    cluster->prepared = 0;
    if (cluster->follows) { /* applied without a flush */
        cluster->seen = cluster->flushed;
        cluster->marker = 0;
    }
    cluster->up_again_us = world->now_us + world->down_us;
    tell_story(world, "down:", side_name(side));
}

static void replicate(struct world *world)
{
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct world_cluster *to = &world->clusters[i];
        struct world_cluster *from = &world->clusters[1 - i];
        if (to->up && from->up && to->follows) {
            to->flushed = to->seen;
            to->seen = from->seen;
            to->marker = from->marker > to->marker ? from->marker : to->marker;
        }
    }
}

static bool all_at(const struct world_cluster *cluster, uint64_t epoch)
{
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (cluster->databases[i].epoch != epoch) {
            return false;
        }
    }
    return true;
}

/* --- the proxy and its clients --- */

static void clients_write(struct world *world)
{
    if (!world->serving || world->held) {
        return;
    }
    struct world_cluster *cluster = &world->clusters[world->route];
    if (!cluster->up) {
        return; /* the client sees its server go: no fault of ours */
    }
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (cluster->databases[i].fence) {
            world->errors++;
            broke(world, "a client was sent to a fenced side");
            return;
        }
    }
    if (cluster->seen != world->commits) {
        broke(world, "an acknowledged commit is missing on the side that is served");
    }
    world->commits++;
    cluster->seen = cluster->flushed = world->commits;
}

static void check_invariants(struct world *world)
{
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (open_for_writes(&world->clusters[SIDE_BLUE], i) &&
            open_for_writes(&world->clusters[SIDE_GREEN], i) && world->serving && !world->held) {
            /* A side that just came back is fenced on contact; until then nobody is sent there. */
            if (!world->clusters[side_other(world->route)].came_back) {
                broke(world, "both sides accept writes");
            }
        }
    }
    if (world->held && world->now_us > world->hold_until_us) {
        broke(world, "a hold outlived its deadline");
    }
    if (world->held && world->now_us - world->held_since_us > world->options.max_hold_us + STEP_US) {
        broke(world, "a hold lasted longer than max_hold");
    }
}

/* --- requests: what each does --- */

static bool row_is_there(const struct world *world, uint64_t flip, enum record_kind kind,
                         enum flip_phase phase)
{
    for (uint64_t i = 0; i < world->row_count; i++) {
        const struct record *row = &world->rows[i];
        if (row->flip == flip && row->kind == kind && (kind != RECORD_INTENT || row->phase == phase)) {
            return true;
        }
    }
    return false;
}

/* Invariant 8. Recovery redoes what an earlier life intended, so the row may be older. */
static void check_intent(struct world *world, const struct flip_request *request)
{
    bool there = true;
    switch (request->kind) {
    case FLIP_ACTION_FENCE:
        there = row_is_there(world, request->flip, RECORD_INTENT, FLIP_PHASE_FENCE);
        break;
    case FLIP_ACTION_READY:
        there = row_is_there(world, request->flip, RECORD_INTENT, FLIP_PHASE_READY) ||
                row_is_there(world, request->flip, RECORD_COMMIT, FLIP_PHASE_NONE);
        break;
    case FLIP_ACTION_OPEN:
        there = row_is_there(world, request->flip, RECORD_COMMIT, FLIP_PHASE_NONE);
        break;
    case FLIP_ACTION_SWAP:
        there = row_is_there(world, request->flip, RECORD_RELEASED, FLIP_PHASE_NONE);
        break;
    case FLIP_ACTION_REOPEN_SOURCE:
        there = row_is_there(world, request->flip, RECORD_BACK, FLIP_PHASE_NONE);
        break;
    default:
        break;
    }
    if (!there) {
        broke(world, "something was done before its intent was on disk");
    }
}

static bool fail(struct error *error, enum error_code code, const char *why)
{
    return error_set(error, code, "%s", why);
}

static bool do_fence(struct world *world, enum side side, const struct flip_request *request, size_t count,
                     struct error *error)
{
    struct world_cluster *source = &world->clusters[side];
    if (!source->up) {
        return fail(error, ERROR_UNREACHABLE, "the source is down");
    }
    for (size_t i = 0; i < count; i++) {
        struct world_database *database = &source->databases[i];
        if (database->epoch != request->epoch - 1 || database->standing != WORLD_ACTIVE ||
            database->aborted == request->flip) {
            return fail(error, ERROR_STALE, "epoch, standing or flip is not ours");
        }
        database->fence = true;
        database->fenced_for = request->flip;
    }
    if (count == WORLD_DATABASES) {
        source->marker = request->flip;
    }
    return true;
}

static bool do_ready(struct world *world, enum side side, const struct flip_request *request,
                     struct error *error)
{
    struct world_cluster *target = &world->clusters[side];
    if (!target->up) {
        return fail(error, ERROR_UNREACHABLE, "the target is down");
    }
    if (target->marker < request->flip) {
        return fail(error, ERROR_NOT_IN_SYNC, "the marker is gone");
    }
    target->prepared = request->flip;
    return true;
}

static bool do_open(struct world *world, enum side side, const struct flip_request *request, size_t count,
                    struct error *error)
{
    struct world_cluster *target = &world->clusters[side];
    if (!target->up || target->prepared != request->flip) {
        return fail(error, ERROR_UNREACHABLE, "the opening transactions are gone");
    }
    for (size_t i = 0; i < count; i++) {
        struct world_database *database = &target->databases[i];
        if (database->epoch == request->epoch) {
            continue; /* open already: never twice */
        }
        *database = (struct world_database){
            .epoch = request->epoch, .standing = WORLD_ACTIVE, .aborted = database->aborted};
    }
    target->follows = false;
    target->flushed = target->seen;
    if (count == WORLD_DATABASES) {
        target->prepared = 0;
    }
    return true;
}

static bool do_undo(struct world *world, enum side side, const struct flip_request *request, size_t count,
                    struct error *error)
{
    struct world_cluster *source = &world->clusters[side];
    struct world_cluster *target = &world->clusters[side_other(side)];
    target->prepared = 0;
    if (!source->up) {
        return fail(error, ERROR_UNREACHABLE, "the source is down");
    }
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (target->databases[i].epoch == request->epoch) {
            broke(world, "a flip was undone whose target is open");
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct world_database *database = &source->databases[i];
        if (database->epoch != request->epoch - 1) {
            return fail(error, ERROR_STALE, "the epoch is not ours");
        }
        database->fence = false;
        database->fenced_for = 0;
        database->aborted = request->flip > database->aborted ? request->flip : database->aborted;
    }
    return true;
}

static bool do_reopen(struct world *world, enum side side, const struct flip_request *request, size_t count,
                      struct error *error)
{
    struct world_cluster *source = &world->clusters[side];
    if (!source->up) {
        return fail(error, ERROR_UNREACHABLE, "the source is down");
    }
    for (size_t i = 0; i < count; i++) {
        source->databases[i] = (struct world_database){
            .epoch = request->epoch + 1, .standing = WORLD_ACTIVE, .aborted = request->flip};
    }
    source->follows = false;
    return true;
}

static bool do_fence_on_contact(struct world *world, const struct flip_request *request, struct error *error)
{
    struct world_cluster *cluster = &world->clusters[request->side];
    if (!cluster->up) {
        return fail(error, ERROR_UNREACHABLE, "it is down");
    }
    cluster->came_back = false;
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (cluster->databases[i].standing == WORLD_ACTIVE) {
            cluster->databases[i].standing = WORLD_DIVERGED;
        }
        cluster->databases[i].fence = true;
        cluster->databases[i].fenced_for = 0;
    }
    return true;
}

static bool do_turn(struct world *world, enum side side, const struct flip_request *request,
                    struct error *error)
{
    struct world_cluster *source = &world->clusters[side];
    if (!source->up || !world->clusters[side_other(side)].up) {
        return fail(error, ERROR_UNREACHABLE, "a side is down");
    }
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        source->databases[i].epoch = request->epoch;
        source->databases[i].standing = WORLD_STANDBY;
        source->databases[i].fence = true;
        source->databases[i].fenced_for = 0;
    }
    source->follows = true;
    return true;
}

static bool do_probe(struct world *world, const struct flip_request *request, struct error *error)
{
    const struct world_cluster *to = &world->clusters[side_other(request->side)];
    if (!to->up || !world->clusters[request->side].up || !to->follows || world->way_back_dead) {
        return fail(error, ERROR_NOT_IN_SYNC, "no marker crosses");
    }
    return true;
}

/* Carries out a request on the world's clusters; `count`: in that many databases. */
static bool carry_out(struct world *world, const struct flip_request *request, size_t count,
                      struct error *error)
{
    const enum side source = side_other(request->side);
    replicate(world);
    switch (request->kind) {
    case FLIP_ACTION_PROBE:
        return do_probe(world, request, error);
    case FLIP_ACTION_ARM:
        return world->clusters[request->side].up || fail(error, ERROR_UNREACHABLE, "the target is down");
    case FLIP_ACTION_FENCE:
        return do_fence(world, source, request, count, error);
    case FLIP_ACTION_CATCHUP:
        return (world->clusters[request->side].up &&
                world->clusters[request->side].marker >= request->flip) ||
               fail(error, ERROR_TIMEOUT, "the marker does not come");
    case FLIP_ACTION_READY:
        return do_ready(world, request->side, request, error);
    case FLIP_ACTION_OPEN:
        return do_open(world, request->side, request, count, error);
    case FLIP_ACTION_UNDO:
        return do_undo(world, source, request, count, error);
    case FLIP_ACTION_REOPEN_SOURCE:
        return do_reopen(world, source, request, count, error);
    case FLIP_ACTION_FENCE_ON_CONTACT:
        return do_fence_on_contact(world, request, error);
    case FLIP_ACTION_TURN:
        return do_turn(world, source, request, error);
    case FLIP_ACTION_SWAP:
        world->route = request->side;
        return true;
    case FLIP_ACTION_RELEASE:
        world->held = false;
        return true;
    default:
        return true;
    }
}

static void read_facts(const struct world *world, struct flip_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    for (int s = 0; s < SIDE_COUNT; s++) {
        const struct world_cluster *cluster = &world->clusters[s];
        struct flip_side_facts *side = &facts->sides[s];
        side->reachable = cluster->up;
        if (!cluster->up) {
            continue;
        }
        side->databases = side->installed = WORLD_DATABASES;
        side->epoch_min = UINT64_MAX;
        for (size_t i = 0; i < WORLD_DATABASES; i++) {
            const struct world_database *database = &cluster->databases[i];
            side->active += database->standing == WORLD_ACTIVE;
            side->standby += database->standing == WORLD_STANDBY;
            side->diverged += database->standing == WORLD_DIVERGED;
            side->epoch_min = database->epoch < side->epoch_min ? database->epoch : side->epoch_min;
            side->epoch_max = database->epoch > side->epoch_max ? database->epoch : side->epoch_max;
            side->fences_on += database->fence;
            side->fences_off += !database->fence;
            side->fenced_for =
                database->fenced_for > side->fenced_for ? database->fenced_for : side->fenced_for;
            side->fenced_for_count += database->fenced_for != 0;
            side->aborted = database->aborted > side->aborted ? database->aborted : side->aborted;
            side->last_flip = side->fenced_for > side->aborted ? side->fenced_for : side->aborted;
        }
    }
}

/* Ownership ends what an earlier connection left behind, on the sides that can be reached. */
static void take_ownership(struct world *world)
{
    size_t kept = 0;
    for (size_t i = 0; i < world->pending_count; i++) {
        if (!world->pending[i].zombie) {
            world->pending[kept++] = world->pending[i];
        }
    }
    world->pending_count = kept;
    for (int i = 0; i < SIDE_COUNT; i++) {
        world->clusters[i].prepared = 0;
    }
}

/* --- requests come in --- */

static void put_off(struct world *world, const struct flip_request *request)
{
    if (world->pending_count == WORLD_PENDING) {
        broke(world, "too many requests at once");
        return;
    }
    world->pending[world->pending_count++] = (struct world_pending){.request = *request};
}

/* The proxy's news that every session is at its boundary: carried as a request of its own. */
static void will_drain(struct world *world, uint64_t flip)
{
    const struct flip_request drained = {.kind = FLIP_ACTION_DRAIN, .flip = flip};
    if (!world->drain_stuck) {
        put_off(world, &drained);
    }
}

static void take_request(void *context, const struct flip_request *request)
{
    struct world *world = context;
    tell_story(world, request->ticket != 0 ? "asked" : "told", flip_action_name(request->kind));
    switch (request->kind) {
    case FLIP_ACTION_HOLD:
        world->held = true;
        world->refuses = request->refuse;
        world->hold = request->flip;
        world->hold_until_us = request->deadline_us;
        world->held_since_us = world->now_us;
        put_off(world, request);
        will_drain(world, request->flip);
        return;
    case FLIP_ACTION_EXPIRE:
        world->refuses = request->refuse;
        world->hold_until_us = request->deadline_us;
        break;
    case FLIP_ACTION_TERMINATE_UNDRAINED:
        if (world->drain_stuck) {
            world->drain_stuck = false;
            will_drain(world, request->flip);
        }
        break;
    case FLIP_ACTION_ROUTE:
        world->route = request->side;
        world->serving = request->open;
        world->held = false;
        break;
    case FLIP_ACTION_ACTIVE:
        world->told_active = true;
        world->active = request->side;
        world->active_epoch = request->epoch;
        break;
    case FLIP_ACTION_ALARM:
        world->alarms++;
        world->alarm = request->error.code;
        tell_story(world, "  alarm:", request->error.message);
        break;
    case FLIP_ACTION_FINISHED:
        world->finished++;
        world->outcome = request->outcome;
        world->why = request->error;
        world->last_flip = request->flip;
        tell_story(world, "  finished:", flip_outcome_name(request->outcome));
        break;
    default:
        break;
    }
    if (request->ticket != 0 && request->kind != FLIP_ACTION_ABANDON) {
        put_off(world, request);
    }
}

/* --- answers go out --- */

static void deliver(struct world *world, struct flip_event *event)
{
    event->now_us = world->now_us;
    event->wall_us = WALL_US + world->now_us;
    event->options = &world->options;
    if (world->running) {
        flip_step(&world->runner, event);
        check_invariants(world);
    }
}

void world_tell(struct world *world, enum flip_event_kind kind, const char *why)
{
    struct flip_event event = {.kind = kind};
    error_set(&event.error, ERROR_GATE_FAILED, "%s", why);
    deliver(world, &event);
}

static void crash(struct world *world)
{
    size_t kept = 0;
    tell_story(world, "CRASH", "");
    for (size_t i = 0; i < world->pending_count; i++) {
        if (world->pending[i].zombie) {
            world->pending[kept++] = world->pending[i];
        }
    }
    world->pending_count = kept;
    world->running = world->serving = world->held = world->told_active = false;
}

static void make_zombie(struct world *world, const struct flip_request *request)
{
    put_off(world, request);
    world->pending[world->pending_count - 1].zombie = true;
    world->pending[world->pending_count - 1].at_us = world->now_us + ZOMBIE_US;
}

static bool is_row(const struct flip_request *request)
{
    return request->row.kind != 0 || request->kind == FLIP_ACTION_JOURNAL;
}

static bool is_clusters(const struct flip_request *request)
{
    switch (request->kind) {
    case FLIP_ACTION_FENCE:
    case FLIP_ACTION_CATCHUP:
    case FLIP_ACTION_READY:
    case FLIP_ACTION_OPEN:
    case FLIP_ACTION_UNDO:
    case FLIP_ACTION_REOPEN_SOURCE:
    case FLIP_ACTION_FENCE_ON_CONTACT:
    case FLIP_ACTION_TURN:
    case FLIP_ACTION_PROBE:
    case FLIP_ACTION_LEARN:
        return true;
    default:
        return false;
    }
}

static void write_row(struct world *world, const struct flip_request *request)
{
    if (world->row_count == WORLD_ROWS) {
        broke(world, "too many rows");
        return;
    }
    world->rows[world->row_count++] = request->row;
}

static void answer_ok(struct world *world, const struct flip_request *request)
{
    struct flip_event event = {.kind = FLIP_EVENT_DONE, .ticket = request->ticket};
    struct flip_facts facts;
    if (request->kind == FLIP_ACTION_DRAIN) {
        event.kind = FLIP_EVENT_DRAINED;
    } else if (request->kind == FLIP_ACTION_LEARN) {
        take_ownership(world);
        read_facts(world, &facts);
        event.kind = FLIP_EVENT_FACTS;
        event.facts = &facts;
        if (!facts.sides[0].reachable && !facts.sides[1].reachable) {
            event.kind = FLIP_EVENT_FAILED;
            error_set(&event.error, ERROR_UNREACHABLE, "no side can be reached");
        }
    } else if (is_row(request)) {
        write_row(world, request);
    } else {
        check_intent(world, request);
        if (!carry_out(world, request, WORLD_DATABASES, &event.error)) {
            event.kind = FLIP_EVENT_FAILED;
        }
    }
    event.counts.stall_max_us = request->kind == FLIP_ACTION_RELEASE ? 1 : 0;
    deliver(world, &event);
}

static void answer_failed(struct world *world, const struct flip_request *request, bool uncertain)
{
    struct flip_event event = {.kind = FLIP_EVENT_FAILED, .ticket = request->ticket, .uncertain = uncertain};
    error_set(&event.error, ERROR_SQL, "%s was struck", flip_action_name(request->kind));
    deliver(world, &event);
}

static void strike_row(struct world *world, enum world_strike strike, struct flip_request *request)
{
    switch (strike) {
    case WORLD_STRIKE_LOST_DONE:
    case WORLD_STRIKE_LOST_HALF:
        write_row(world, request);
        answer_failed(world, request, true);
        break;
    case WORLD_STRIKE_LATE:
    case WORLD_STRIKE_STUCK: /* the disk hangs; rows keep their order */
        for (size_t i = 0; i < world->pending_count; i++) {
            if (is_row(&world->pending[i].request)) {
                world->pending[i].at_us = world->now_us + HANG_US;
            }
        }
        put_off(world, request);
        world->pending[world->pending_count - 1].at_us = world->now_us + HANG_US - 1;
        break;
    case WORLD_STRIKE_CRASH_DONE:
        write_row(world, request);
        crash(world);
        break;
    default:
        answer_failed(world, request, false);
        break;
    }
}

static void strike_clusters(struct world *world, enum world_strike strike, const struct flip_request *request)
{
    struct error ignored;
    const bool clusters = is_clusters(request) && request->kind != FLIP_ACTION_LEARN;
    switch (strike) {
    case WORLD_STRIKE_LOST_DONE:
        (void)carry_out(world, request, WORLD_DATABASES, &ignored);
        answer_failed(world, request, true);
        break;
    case WORLD_STRIKE_LOST_HALF:
        (void)carry_out(world, request, 1, &ignored);
        answer_failed(world, request, true);
        break;
    case WORLD_STRIKE_LATE:
        if (clusters) {
            make_zombie(world, request);
        }
        answer_failed(world, request, true);
        break;
    case WORLD_STRIKE_STUCK:
        break;
    case WORLD_STRIKE_CRASH_DONE:
        (void)carry_out(world, request, WORLD_DATABASES, &ignored);
        crash(world);
        break;
    case WORLD_STRIKE_CRASH_LATE:
        if (clusters) {
            make_zombie(world, request);
        }
        crash(world);
        break;
    default:
        answer_failed(world, request, strike == WORLD_STRIKE_LOST);
        break;
    }
}

static void do_strike(struct world *world, enum world_strike strike, struct flip_request *request)
{
    const enum side source = flip_running(&world->runner) ? world->runner.spec.source : world->route;
    tell_story(world, "STRIKE", flip_action_name(request->kind));
    switch (strike) {
    case WORLD_STRIKE_CRASH:
        crash(world);
        break;
    case WORLD_STRIKE_SOURCE_DOWN:
        go_down(world, source);
        answer_ok(world, request);
        break;
    case WORLD_STRIKE_TARGET_DOWN:
        go_down(world, side_other(source));
        answer_ok(world, request);
        break;
    default:
        if (request->kind == FLIP_ACTION_DRAIN) {
            answer_ok(world, request);
        } else if (is_row(request)) {
            strike_row(world, strike, request);
        } else {
            strike_clusters(world, strike, request);
        }
    }
}

/* --- time --- */

static void expire_hold(struct world *world)
{
    struct flip_event event = {.kind = FLIP_EVENT_EXPIRED};
    if (!world->held || world->now_us < world->hold_until_us) {
        return;
    }
    world->held = false;
    if (world->refuses) {
        world->serving = false; /* 57P03, until a route says otherwise */
    }
    tell_story(world, "hold expired:", world->refuses ? "refused" : "released");
    deliver(world, &event);
}

static void come_back(struct world *world)
{
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct world_cluster *cluster = &world->clusters[i];
        if (!cluster->up && cluster->up_again_us != 0 && world->now_us >= cluster->up_again_us) {
            cluster->up = cluster->came_back = true;
            cluster->up_again_us = 0;
            tell_story(world, "up again:", side_name((enum side)i));
            struct flip_event event = {.kind = FLIP_EVENT_CONTACT};
            deliver(world, &event);
        }
    }
}

static struct flip_request take_pending(struct world *world, size_t index)
{
    const struct flip_request request = world->pending[index].request;
    memmove(&world->pending[index], &world->pending[index + 1],
            (world->pending_count - index - 1) * sizeof world->pending[0]);
    world->pending_count--;
    return request;
}

/* Rows keep their order; everything else may overtake when a seed says so. */
static bool pick(struct world *world, size_t *index)
{
    size_t ready[WORLD_PENDING];
    size_t count = 0;
    bool row_seen = false;
    for (size_t i = 0; i < world->pending_count; i++) {
        const bool row = is_row(&world->pending[i].request);
        if (world->pending[i].at_us <= world->now_us && !(row && row_seen)) {
            ready[count++] = i;
        }
        row_seen |= row;
    }
    if (count == 0) {
        return false;
    }
    if (world->seed != 0) {
        world->seed = world->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        *index = ready[(world->seed >> 33) % count];
    } else {
        *index = ready[0];
    }
    return true;
}

static int64_t next_moment(const struct world *world)
{
    int64_t at_us = world->running ? flip_wake(&world->runner) : world->now_us + STEP_US;
    if (world->held && world->hold_until_us < at_us) {
        at_us = world->hold_until_us;
    }
    for (size_t i = 0; i < world->pending_count; i++) {
        at_us = world->pending[i].at_us < at_us ? world->pending[i].at_us : at_us;
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        const int64_t up_us = world->clusters[i].up_again_us;
        at_us = up_us != 0 && up_us < at_us ? up_us : at_us;
    }
    return at_us;
}

bool world_step(struct world *world)
{
    size_t index;
    struct error ignored;
    world->now_us += STEP_US;
    come_back(world);
    expire_hold(world);
    if (!world->running) {
        world_start_daemon(world);
    }
    replicate(world);
    clients_write(world);
    check_invariants(world);
    if (pick(world, &index)) {
        const bool zombie = world->pending[index].zombie;
        struct flip_request request = take_pending(world, index);
        if (zombie) {
            tell_story(world, "late:", flip_action_name(request.kind));
            (void)carry_out(world, &request, WORLD_DATABASES, &ignored);
        } else if (++world->actions == world->strike_at) {
            do_strike(world, world->strike, &request);
        } else if (world->actions == world->second_at) {
            do_strike(world, world->second, &request);
        } else {
            answer_ok(world, &request);
        }
    } else {
        const int64_t at_us = next_moment(world);
        if (at_us == INT64_MAX) {
            return false;
        }
        if (at_us > world->now_us) {
            world->now_us = at_us;
            expire_hold(world);
        }
    }
    if (world->running && flip_wake(&world->runner) <= world->now_us) {
        struct flip_event tick = {.kind = FLIP_EVENT_TICK};
        deliver(world, &tick);
    }
    return true;
}

static bool at_rest(const struct world *world)
{
    return world->running && world->runner.mode == FLIP_MODE_STEADY &&
           world->runner.await.action == FLIP_ACTION_NONE && world->pending_count == 0 && !world->held &&
           world->runner.watch.probe.action == FLIP_ACTION_NONE && world->clusters[0].up &&
           world->clusters[1].up;
}

bool world_settle(struct world *world, unsigned limit)
{
    for (unsigned i = 0; i < limit; i++) {
        if (at_rest(world)) {
            return true;
        }
        if (!world_step(world)) {
            return at_rest(world);
        }
    }
    return false;
}

/* --- life --- */

void world_init(struct world *world, const struct flip_options *options)
{
    memset(world, 0, offsetof(struct world, rows));
    memset(&world->row_count, 0, sizeof *world - offsetof(struct world, row_count));
    world->options = *options;
    world->broken = "";
    world->down_us = DOWN_US;
    for (int s = 0; s < SIDE_COUNT; s++) {
        struct world_cluster *cluster = &world->clusters[s];
        cluster->up = true;
        cluster->follows = s == SIDE_GREEN;
        for (size_t i = 0; i < WORLD_DATABASES; i++) {
            cluster->databases[i] =
                (struct world_database){.epoch = 1,
                                        .standing = s == SIDE_BLUE ? WORLD_ACTIVE : WORLD_STANDBY,
                                        .fence = s == SIDE_GREEN};
        }
    }
    world->rows[world->row_count++] = (struct record){.kind = RECORD_STEADY, .side = SIDE_BLUE, .epoch = 1};
}

void world_start_daemon(struct world *world)
{
    struct flip_history history;
    flip_history_init(&history);
    for (uint64_t i = 0; i < world->row_count; i++) {
        flip_history_fold(&history, &world->rows[i]);
    }
    tell_story(world, "daemon starts", "");
    flip_init(&world->runner, (struct flip_port){.context = world, .request = take_request}, &world->options);
    world->running = true;
    struct flip_event event = {.kind = FLIP_EVENT_RECOVER, .history = &history, .side = SIDE_BLUE};
    deliver(world, &event);
}

static void begin(struct world *world, enum flip_kind kind)
{
    struct flip_spec spec;
    struct flip_event event = {.kind = FLIP_EVENT_START, .spec = &spec};
    flip_next_spec(&world->runner, kind, &spec);
    deliver(world, &event);
}

void world_cutover(struct world *world)
{
    begin(world, FLIP_KIND_CUTOVER);
}

void world_flip_back(struct world *world)
{
    begin(world, FLIP_KIND_FLIP_BACK);
}

bool world_is_sound(struct world *world)
{
    const enum side active = world->runner.history.active;
    const struct world_cluster *standby = &world->clusters[side_other(active)];
    for (unsigned i = 0; i < 10; i++) {
        replicate(world);
        clients_write(world);
        check_invariants(world);
    }
    if (!world->serving || world->route != active) {
        broke(world, "clients are not served by the active side");
    }
    if (!world->told_active || world->active != active ||
        world->active_epoch != world->runner.history.epoch) {
        broke(world, "the sampler does not know the active side");
    }
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (world->clusters[active].databases[i].fence) {
            broke(world, "the active side is fenced");
        }
        if (!standby->databases[i].fence) {
            broke(world, "the standby is open");
        }
    }
    if (!all_at(&world->clusters[active], world->runner.history.epoch)) {
        broke(world, "journal and cluster name different epochs");
    }
    return world->broken[0] == '\0';
}
