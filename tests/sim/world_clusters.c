/* The two clusters, and what each request does to them. */
#include "tests/sim/world_internal.h"

#include <string.h>

bool world_open_for_writes(const struct world_cluster *cluster, size_t database)
{
    return cluster->up && !cluster->databases[database].fence;
}

void world_go_down(struct world *world, enum side side)
{
    struct world_cluster *cluster = &world->clusters[side];
    if (!cluster->up) {
        return;
    }
    cluster->up = false;
    cluster->down_since_us = world->now_us;
    cluster->prepared = 0;
    if (cluster->follows) { /* applied without a flush */
        cluster->seen = cluster->flushed;
        cluster->marker = 0;
    }
    cluster->up_again_us = world->now_us + world->down_us;
    world_tell_story(world, "down:", side_name(side));
}

void world_replicate(struct world *world)
{
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct world_cluster *to = &world->clusters[i];
        struct world_cluster *from = &world->clusters[1 - i];
        if (to->up && from->up && to->follows) {
            to->flushed = to->seen;
            to->seen = from->seen;
            from->unacknowledged = false;
            to->marker = from->marker > to->marker ? from->marker : to->marker;
        }
    }
}

bool world_all_at(const struct world_cluster *cluster, uint64_t epoch)
{
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (cluster->databases[i].epoch != epoch) {
            return false;
        }
    }
    return true;
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
void world_check_intent(struct world *world, const struct flip_request *request)
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
    case FLIP_ACTION_CUT_OFF:
        there = row_is_there(world, request->flip, RECORD_INTENT, FLIP_PHASE_CATCHUP);
        break;
    case FLIP_ACTION_READY_ALONE:
        there = row_is_there(world, request->flip, RECORD_INTENT, FLIP_PHASE_READY) ||
                row_is_there(world, request->flip, RECORD_COMMIT, FLIP_PHASE_NONE);
        break;
    case FLIP_ACTION_NAMES:
        there = request->promise || !world->journal_promises;
        break;
    case FLIP_ACTION_ADOPT:
        there = row_is_there(world, 0, RECORD_DECIDED, FLIP_PHASE_NONE);
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
        world_broke(world, "something was done before its intent was on disk");
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
    if (target->seen < world->commits) { /* nobody is there yet: what is missing is gone */
        if (!world->runner.spec.accept_loss) {
            world_broke(world, "a side was opened that lacks acknowledged commits");
        }
        world->lost += world->commits - target->seen;
        world->commits = target->seen;
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
            world_broke(world, "a flip was undone whose target is open");
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
        } else if (cluster->databases[i].standing == WORLD_STANDBY) {
            cluster->databases[i].epoch = request->epoch;
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
    if (source->unacknowledged) {
        world_broke(world, "a side follows that holds what the other doesn't");
    }
    source->follows = true;
    source->names = false;
    world->clusters[side_other(side)].names |= request->promise;
    return true;
}

/* --- the lossless way back, the dead side --- */

static bool do_names(struct world *world, const struct flip_request *request, struct error *error)
{
    struct world_cluster *active = &world->clusters[request->side];
    struct world_cluster *other = &world->clusters[side_other(request->side)];
    if (other->up) {
        other->names = false;
    }
    if (!active->up) {
        return fail(error, ERROR_UNREACHABLE, "the active side is down");
    }
    active->names = request->promise;
    return true;
}

static bool do_names_ahead(struct world *world, const struct flip_request *request, struct error *error)
{
    struct world_cluster *target = &world->clusters[request->side];
    target->names = target->names || target->up;
    return target->up || fail(error, ERROR_UNREACHABLE, "the target is down");
}

static bool do_promise(struct world *world, const struct flip_request *request, struct error *error)
{
    struct world_cluster *active = &world->clusters[request->side];
    struct world_cluster *other = &world->clusters[side_other(request->side)];
    if (!active->up) {
        return fail(error, ERROR_UNREACHABLE, "the active side is down");
    }
    active->names = true;
    if (!other->up || !other->follows) {
        return fail(error, ERROR_TIMEOUT, "the probe does not return");
    }
    other->seen = other->flushed = active->seen;
    return true;
}

static bool do_cut_off(struct world *world, const struct flip_request *request, size_t count,
                       struct error *error)
{
    struct world_cluster *target = &world->clusters[request->side];
    if (!target->up) {
        return fail(error, ERROR_UNREACHABLE, "the standby is down");
    }
    for (size_t i = 0; i < count; i++) {
        if (target->databases[i].aborted == request->flip) {
            return fail(error, ERROR_STALE, "the takeover was undone");
        }
    }
    target->follows = false;
    target->flushed = target->seen;
    return true;
}

static bool do_reattach(struct world *world, const struct flip_request *request, size_t count,
                        struct error *error)
{
    struct world_cluster *target = &world->clusters[request->side];
    if (!target->up) {
        return fail(error, ERROR_UNREACHABLE, "the standby is down");
    }
    target->prepared = 0;
    for (size_t i = 0; i < count; i++) {
        if (target->databases[i].epoch == request->epoch) {
            world_broke(world, "a takeover was undone whose target is open");
        }
        target->databases[i].aborted = request->flip;
    }
    target->follows = count == WORLD_DATABASES;
    return true;
}

static bool do_ready_alone(struct world *world, const struct flip_request *request, struct error *error)
{
    struct world_cluster *target = &world->clusters[request->side];
    if (!target->up) {
        return fail(error, ERROR_UNREACHABLE, "the standby is down");
    }
    for (size_t i = 0; i < WORLD_DATABASES; i++) {
        if (target->databases[i].aborted == request->flip || target->databases[i].epoch > request->epoch) {
            return fail(error, ERROR_STALE, "epoch or flip is not ours");
        }
    }
    if (target->follows) {
        world_broke(world, "a side is to open alone whose stream runs");
    }
    target->prepared = request->flip;
    return true;
}

static bool do_adopt(struct world *world, const struct flip_request *request, size_t count,
                     struct error *error)
{
    struct world_cluster *cluster = &world->clusters[request->side];
    if (!cluster->up) {
        return fail(error, ERROR_UNREACHABLE, "it is down");
    }
    for (size_t i = 0; i < count; i++) {
        cluster->databases[i] = (struct world_database){
            .epoch = request->epoch, .standing = WORLD_ACTIVE, .aborted = cluster->databases[i].aborted};
    }
    cluster->follows = false;
    cluster->prepared = 0;
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
bool world_carry_out(struct world *world, const struct flip_request *request, size_t count,
                     struct error *error)
{
    const enum side source = side_other(request->side);
    world_replicate(world);
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
    case FLIP_ACTION_NAMES:
        return do_names(world, request, error);
    case FLIP_ACTION_NAMES_AHEAD:
        return do_names_ahead(world, request, error);
    case FLIP_ACTION_PROMISE:
        return do_promise(world, request, error);
    case FLIP_ACTION_CUT_OFF:
        return do_cut_off(world, request, count, error);
    case FLIP_ACTION_REATTACH:
        return do_reattach(world, request, count, error);
    case FLIP_ACTION_READY_ALONE:
        return do_ready_alone(world, request, error);
    case FLIP_ACTION_ADOPT:
        return do_adopt(world, request, count, error);
    case FLIP_ACTION_SWAP:
        world->route = request->side;
        world->serving = true; /* once the gate opens */
        return true;
    case FLIP_ACTION_RELEASE:
        world->held = false;
        return true;
    default:
        return true;
    }
}

void world_read_facts(const struct world *world, struct flip_facts *facts)
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
void world_take_ownership(struct world *world)
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
