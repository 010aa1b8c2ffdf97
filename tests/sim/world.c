#include "tests/sim/world.h"
#include "tests/sim/world_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void world_tell_story(struct world *world, const char *what, const char *name)
{
    int n = snprintf(world->story + world->story_length, sizeof world->story - world->story_length,
                     "%7" PRId64 " ms %s %s\n", world->now_us / 1000, what, name);
    if (n > 0 && world->story_length + (size_t)n < sizeof world->story) {
        world->story_length += (size_t)n;
    }
}

void world_broke(struct world *world, const char *what)
{
    if (world->broken[0] == '\0') {
        world->broken = what;
        world_tell_story(world, "BROKEN:", what);
    }
}

/* --- requests come in --- */

static void put_off(struct world *world, const struct flip_request *request)
{
    if (world->pending_count == WORLD_PENDING) {
        world_broke(world, "too many requests at once");
        return;
    }
    world->pending[world->pending_count++] = (struct world_pending){.request = *request};
}

/* Names that are asked for later count: an earlier request of the same controller changes nothing any more
 * (replication/standby_names.c). */
static void forget_names_ahead(struct world *world)
{
    size_t kept = 0;
    for (size_t i = 0; i < world->pending_count; i++) {
        const struct world_pending *pending = &world->pending[i];
        if (pending->zombie || pending->request.kind != FLIP_ACTION_NAMES_AHEAD) {
            world->pending[kept++] = *pending;
        }
    }
    world->pending_count = kept;
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
    world_tell_story(world, request->ticket != 0 ? "asked" : "told", flip_action_name(request->kind));
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
    case FLIP_ACTION_NAMES:
    case FLIP_ACTION_TURN:
        forget_names_ahead(world);
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
        world_tell_story(world, "  alarm:", request->error.message);
        break;
    case FLIP_ACTION_FINISHED:
        world->finished++;
        world->outcome = request->outcome;
        world->why = request->error;
        world->last_flip = request->flip;
        world_tell_story(world, "  finished:", flip_outcome_name(request->outcome));
        break;
    default:
        break;
    }
    if (request->ticket != 0 && request->kind != FLIP_ACTION_ABANDON) {
        put_off(world, request);
    }
}

/* --- answers go out --- */

void world_deliver(struct world *world, struct flip_event *event)
{
    event->now_us = world->now_us;
    event->wall_us = WORLD_WALL_US + world->now_us;
    if (event->kind == FLIP_EVENT_START || event->kind == FLIP_EVENT_RECOVER) {
        event->options = &world->options;
    }
    if (world->running) {
        flip_step(&world->runner, event);
        world_check(world);
    }
}

void world_tell(struct world *world, enum flip_event_kind kind, const char *why)
{
    struct flip_event event = {.kind = kind};
    error_set(&event.error, ERROR_GATE_FAILED, "%s", why);
    world_deliver(world, &event);
}

void world_kill_daemon(struct world *world)
{
    size_t kept = 0;
    world_tell_story(world, "CRASH", "");
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
    world->pending[world->pending_count - 1].at_us = world->now_us + world->zombie_us;
}

static bool is_row(const struct flip_request *request)
{
    return request->row.kind != 0 || request->kind == FLIP_ACTION_JOURNAL;
}

static void write_row(struct world *world, const struct flip_request *request)
{
    if (world->row_count == WORLD_ROWS) {
        world_broke(world, "too many rows");
        return;
    }
    const struct record *row = &request->row;
    world->rows[world->row_count++] = *row;
    if (row->kind == RECORD_PROMISE_ON) {
        world->journal_promises = true;
    } else if (row->kind == RECORD_PROMISE_OFF || row->kind == RECORD_RELEASED ||
               row->kind == RECORD_STEADY || row->kind == RECORD_DECIDED) {
        world->journal_promises = false;
    }
}

static void answer_ok(struct world *world, const struct flip_request *request)
{
    struct flip_event event = {.kind = FLIP_EVENT_DONE, .ticket = request->ticket};
    struct flip_facts facts;
    if (request->kind == FLIP_ACTION_DRAIN) {
        event.kind = FLIP_EVENT_DRAINED;
    } else if (request->kind == FLIP_ACTION_LEARN) {
        world_take_ownership(world);
        world_read_facts(world, &facts);
        event.kind = FLIP_EVENT_FACTS;
        event.facts = &facts;
        if (!facts.sides[0].reachable && !facts.sides[1].reachable) {
            event.kind = FLIP_EVENT_FAILED;
            error_set(&event.error, ERROR_UNREACHABLE, "no side can be reached");
        }
    } else if (is_row(request)) {
        write_row(world, request);
    } else {
        world_check_intent(world, request);
        if (!world_carry_out(world, request, WORLD_DATABASES, &event.error)) {
            event.kind = FLIP_EVENT_FAILED;
        }
    }
    event.counts.immovable = world->immovable;
    event.counts.stall_max_us = request->kind == FLIP_ACTION_RELEASE ? 1 : 0;
    world_deliver(world, &event);
}

static void answer_failed(struct world *world, const struct flip_request *request, bool uncertain)
{
    struct flip_event event = {.kind = FLIP_EVENT_FAILED, .ticket = request->ticket, .uncertain = uncertain};
    error_set(&event.error, ERROR_SQL, "%s was struck", flip_action_name(request->kind));
    world_deliver(world, &event);
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
                world->pending[i].at_us = world->now_us + WORLD_HANG_US;
            }
        }
        put_off(world, request);
        world->pending[world->pending_count - 1].at_us = world->now_us + WORLD_HANG_US - 1;
        break;
    case WORLD_STRIKE_CRASH_DONE:
        write_row(world, request);
        world_kill_daemon(world);
        break;
    default:
        answer_failed(world, request, false);
        break;
    }
}

static void strike_clusters(struct world *world, enum world_strike strike, const struct flip_request *request)
{
    struct error ignored;
    const bool clusters =
        flip_action_port(request->kind) == FLIP_PORT_CLUSTERS && request->kind != FLIP_ACTION_LEARN;
    switch (strike) {
    case WORLD_STRIKE_LOST_DONE:
        (void)world_carry_out(world, request, WORLD_DATABASES, &ignored);
        answer_failed(world, request, true);
        break;
    case WORLD_STRIKE_LOST_HALF:
        (void)world_carry_out(world, request, 1, &ignored);
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
        (void)world_carry_out(world, request, WORLD_DATABASES, &ignored);
        world_kill_daemon(world);
        break;
    case WORLD_STRIKE_CRASH_LATE:
        if (clusters) {
            make_zombie(world, request);
        }
        world_kill_daemon(world);
        break;
    default:
        answer_failed(world, request, strike == WORLD_STRIKE_LOST);
        break;
    }
}

static void do_strike(struct world *world, enum world_strike strike, struct flip_request *request)
{
    const enum side source = flip_running(&world->runner) ? world->runner.spec.source : world->route;
    world_tell_story(world, "STRIKE", flip_action_name(request->kind));
    switch (strike) {
    case WORLD_STRIKE_CRASH:
        world_kill_daemon(world);
        break;
    case WORLD_STRIKE_SOURCE_DOWN:
        world_go_down(world, source);
        answer_ok(world, request);
        break;
    case WORLD_STRIKE_TARGET_DOWN:
        world_go_down(world, side_other(source));
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
    world_tell_story(world, "hold expired:", world->refuses ? "refused" : "released");
    world_deliver(world, &event);
}

static void come_back(struct world *world)
{
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct world_cluster *cluster = &world->clusters[i];
        if (!cluster->up && cluster->up_again_us != 0 && world->now_us >= cluster->up_again_us) {
            cluster->up = cluster->came_back = true;
            cluster->up_again_us = cluster->down_since_us = 0;
            world_tell_story(world, "up again:", side_name((enum side)i));
            struct flip_event event = {.kind = FLIP_EVENT_CONTACT};
            world_deliver(world, &event);
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
    int64_t at_us = world->running ? flip_wake(&world->runner) : world->now_us + WORLD_STEP_US;
    if (world->held && world->hold_until_us < at_us) {
        at_us = world->hold_until_us;
    }
    const int64_t sample_us = world_sample_us(world);
    at_us = sample_us < at_us ? sample_us : at_us;
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
    world->now_us += WORLD_STEP_US;
    come_back(world);
    expire_hold(world);
    if (!world->running) {
        world_start_daemon(world);
    }
    world_sample(world);
    world_replicate(world);
    world_clients_write(world);
    world_check(world);
    if (pick(world, &index)) {
        const bool zombie = world->pending[index].zombie;
        struct flip_request request = take_pending(world, index);
        if (zombie) {
            world_tell_story(world, "late:", flip_action_name(request.kind));
            (void)world_carry_out(world, &request, WORLD_DATABASES, &ignored);
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
        world_deliver(world, &tick);
    }
    return true;
}

/* Names are what the journal says, and the promise is back where it can be. */
static bool promise_at_rest(const struct world *world)
{
    const struct flip *runner = &world->runner;
    const struct world_cluster *other = &world->clusters[side_other(runner->history.active)];
    const bool kept =
        runner->options.lossless && runner->history.watching && other->follows && !world->way_back_dead;
    bool standby = true;
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        standby &= other->databases[i].standing == WORLD_STANDBY;
    }
    if (standby && !other->follows) {
        return false; /* cut off, and nobody has seen to it */
    }
    return runner->promise.names != FLIP_NAMES_UNKNOWN && runner->promise.retry.at_us == 0 &&
           runner->retry.at_us == 0 && !runner->contact && flip_promise_stands(runner) == kept;
}

static bool at_rest(const struct world *world)
{
    return world->running && promise_at_rest(world) && !world_fence_is_wrong(world) &&
           world->runner.mode == FLIP_MODE_STEADY && world->runner.await.action == FLIP_ACTION_NONE &&
           world->pending_count == 0 && !world->held &&
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

void world_start_daemon(struct world *world)
{
    struct flip_history history;
    flip_history_init(&history);
    for (uint64_t i = 0; i < world->row_count; i++) {
        flip_history_fold(&history, &world->rows[i]);
    }
    world_tell_story(world, "daemon starts", "");
    flip_init(&world->runner, (struct flip_port){.context = world, .request = take_request}, &world->options);
    world->running = true;
    struct flip_event event = {.kind = FLIP_EVENT_RECOVER, .history = &history, .side = SIDE_BLUE};
    world_deliver(world, &event);
}
