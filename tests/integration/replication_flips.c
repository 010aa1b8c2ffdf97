/*
 * Flips back and forth through replication.h alone, without proxy and controller: two clusters, writers that
 * stop at their boundary while a flip runs, and a comparison of every row and sequence after each. Run by
 * test_replication.py, which starts the clusters; by hand:
 *
 *   replication_flips --blue HOST:PORT --green HOST:PORT [--flips N] [--databases N] [--writers N] [--crash]
 *
 * --crash: in each flip a side is killed at another moment. It prints `crash SIDE` and waits for a line on
 * its standard input, which says that the cluster is up again; then it recovers by what the sides say. Exit
 * 0: nothing was lost, doubled or left different.
 */
#include "tests/integration/flips_pair.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_SECONDS = 60, MAX_SAMPLES = 4096, ABORTED_MAX = 3 };

/* --- waiting for one operation --- */

struct waited {
    bool over;
    int64_t began_us;
    struct replication_result result;
};

static void over(void *context, const struct replication_result *result)
{
    struct waited *waited = context;
    waited->over = true;
    waited->result = *result;
}

static void wait_for(uv_loop_t *loop, struct waited *waited)
{
    while (!waited->over) {
        (void)uv_run(loop, UV_RUN_ONCE);
    }
}

static void run_for(uv_loop_t *loop, int64_t us);

/* --- measured times --- */

struct series {
    const char *name;
    int64_t us[MAX_SAMPLES];
    size_t count;
};

enum { T_PROBE, T_FENCE, T_CATCHUP, T_READY, T_OPEN, T_STALL, T_TURN, T_UNDO, T_OWN, T_COUNT };
static struct series times[T_COUNT] = {{.name = "probe"},
                                       {.name = "fence"},
                                       {.name = "catchup"},
                                       {.name = "ready"},
                                       {.name = "open"},
                                       {.name = "writers held, fence to open"},
                                       {.name = "turn (streaming again)"},
                                       {.name = "undo"},
                                       {.name = "own"}};

static void note(int which, int64_t us)
{
    struct series *series = &times[which];
    if (series->count < MAX_SAMPLES) {
        series->us[series->count++] = us;
    }
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double quantile_ms(const struct series *series, size_t percent)
{
    size_t index = series->count * percent / 100;
    return (double)series->us[index < series->count ? index : series->count - 1] / 1000.0;
}

static void print_times(void)
{
    for (int i = 0; i < T_COUNT; i++) {
        struct series *series = &times[i];
        if (series->count == 0) {
            continue;
        }
        qsort(series->us, series->count, sizeof series->us[0], by_size);
        printf("  %-28s median %7.2f ms   p90 %7.2f   max %7.2f   n %zu\n", series->name,
               quantile_ms(series, 50), quantile_ms(series, 90), quantile_ms(series, 100), series->count);
    }
}

/* --- the world --- */

struct world {
    struct pair pair;
    struct replication *replication;
    enum side active;
    uint64_t epoch, flip;
    bool deposed;
    int failures;
    int aborted; /* flips that gave up by themselves, though nobody crashed */
};

static int64_t soon(void)
{
    return clock_mono_us() + (int64_t)STEP_SECONDS * 1000000;
}

static void on_idle_over(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void run_for(uv_loop_t *loop, int64_t us)
{
    bool elapsed = false;
    uv_timer_t timer;
    timer.data = &elapsed;
    (void)uv_timer_init(loop, &timer);
    (void)uv_timer_start(&timer, on_idle_over, (uint64_t)us / 1000, 0);
    while (!elapsed) {
        (void)uv_run(loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(loop, UV_RUN_NOWAIT);
}

static bool report(struct world *world, const char *step, const struct waited *waited)
{
    if (!waited->result.ok) {
        printf("flip %" PRIu64 ": %s failed%s: %s (%s)\n", world->flip, step,
               waited->result.uncertain ? ", uncertain" : "", waited->result.error.message,
               error_code_text(waited->result.error.code));
    }
    return waited->result.ok;
}

static struct waited *fresh(struct waited *waited)
{
    *waited = (struct waited){.began_us = clock_mono_us()};
    return waited;
}

/* Until the operation that was begun with fresh(waited) is over; measured if it went well. */
static bool await(struct world *world, int which, struct waited *waited)
{
    wait_for(world->pair.loop, waited);
    if (waited->result.ok) {
        note(which, clock_mono_us() - waited->began_us);
    }
    return report(world, times[which].name, waited);
}

static void own(struct world *world)
{
    struct waited waited;
    replication_own(world->replication, over, fresh(&waited));
    (void)await(world, T_OWN, &waited);
}

/* --- comparison --- */

static void compare(struct world *world, const char *when)
{
    struct waited waited;
    replication_probe(world->replication, world->active, soon(), over, fresh(&waited));
    if (!await(world, T_PROBE, &waited) || !pair_compare(&world->pair, when)) {
        world->failures++;
    }
}

/* --- recovery by facts, as the controller does it --- */

struct facts_wait {
    struct waited waited;
    bool reachable[SIDE_COUNT];
    size_t opened, databases; /* of the target, at the epoch asked about */
    enum side target;
    uint64_t epoch, source_fenced_for;
};

static void facts_read(void *context, const struct replication_result *result, const struct pair_facts *facts)
{
    struct facts_wait *wait = context;
    const struct side_facts *target = &facts->sides[wait->target];
    const struct side_facts *source = &facts->sides[side_other(wait->target)];
    wait->reachable[SIDE_BLUE] = facts->sides[SIDE_BLUE].reachable;
    wait->reachable[SIDE_GREEN] = facts->sides[SIDE_GREEN].reachable;
    wait->databases = target->database_count;
    for (size_t i = 0; i < target->database_count; i++) {
        wait->opened += target->databases[i].epoch == wait->epoch + 1 ? 1 : 0;
        wait->source_fenced_for = source->databases[i].fenced_for;
    }
    over(&wait->waited, result);
}

static struct facts_wait read_facts(struct world *world, enum side target)
{
    struct facts_wait wait;
    do {
        run_for(world->pair.loop, 100000);
        wait = (struct facts_wait){.target = target, .epoch = world->epoch};
        replication_read_facts(world->replication, facts_read, &wait);
        wait_for(world->pair.loop, &wait.waited);
    } while (!wait.reachable[SIDE_BLUE] || !wait.reachable[SIDE_GREEN]);
    return wait;
}

/* The commit was decided: the target is made ready and opened until it is. */
static bool open_by_facts(struct world *world, const struct replication_flip *flip)
{
    enum side target = side_other(flip->source);
    for (int attempt = 0; attempt < 20; attempt++) {
        own(world);
        struct facts_wait facts = read_facts(world, target);
        printf("flip %" PRIu64 ": %zu of %zu databases are open at epoch %" PRIu64 "\n", world->flip,
               facts.opened, facts.databases, world->epoch + 1);
        if (facts.opened == facts.databases) {
            return true;
        }
        own(world);
        struct waited waited;
        replication_ready(world->replication, flip, soon(), over, fresh(&waited));
        if (!await(world, T_READY, &waited)) {
            continue; /* after a crash the stream brings the marker again */
        }
        replication_open(world->replication, flip, soon(), over, fresh(&waited));
        if (await(world, T_OPEN, &waited)) {
            return true;
        }
    }
    return false;
}

/* --- one flip --- */

static bool undo(struct world *world, const struct replication_flip *flip)
{
    bool undone = false;
    for (int attempt = 0; attempt < 20 && !undone; attempt++) {
        if (attempt > 0) {
            own(world);
        }
        struct waited waited;
        replication_undo(world->replication, flip, soon(), over, fresh(&waited));
        undone = await(world, T_UNDO, &waited);
    }
    replication_set_active(world->replication, world->active, world->epoch);
    return undone;
}

enum crash {
    CRASH_NONE,
    CRASH_TARGET_READY,
    CRASH_TARGET_OPEN,
    CRASH_SOURCE_READY,
    CRASH_SOURCE_FENCED,
    CRASH_TARGET_FENCED,
    CRASH_SOURCE_TURNING,
    CRASH_KINDS
};

/* Who started us kills that cluster, starts it again and says so. */
static void crash(enum side side)
{
    char line[16];
    printf("crash %s\n", side_name(side));
    if (fgets(line, sizeof line, stdin) == NULL) {
        exit(1);
    }
}

static bool until_ready(struct world *world, const struct replication_flip *flip, enum crash kind)
{
    struct replication *replication = world->replication;
    struct waited waited;
    replication_fence(replication, flip, world->pair.pids, world->pair.pid_count, soon(), over,
                      fresh(&waited));
    if (!await(world, T_FENCE, &waited)) {
        return false;
    }
    if (kind == CRASH_SOURCE_FENCED || kind == CRASH_TARGET_FENCED) {
        crash(kind == CRASH_SOURCE_FENCED ? flip->source : side_other(flip->source));
    }
    replication_catchup(replication, flip, soon(), over, fresh(&waited));
    if (!await(world, T_CATCHUP, &waited)) {
        return false;
    }
    replication_ready(replication, flip, soon(), over, fresh(&waited));
    return await(world, T_READY, &waited);
}

static void turn(struct world *world, const struct replication_flip *flip)
{
    for (int attempt = 0; attempt < 20; attempt++) {
        struct waited waited;
        replication_turn(world->replication, flip, false, soon(), over, fresh(&waited));
        if (await(world, T_TURN, &waited)) {
            return;
        }
        own(world);
        replication_set_active(world->replication, world->active, world->epoch);
    }
    world->failures++;
}

static void flip_once(struct world *world, enum crash kind)
{
    struct replication_flip flip = {.flip = ++world->flip, .source = world->active, .epoch = world->epoch};
    enum side target = side_other(flip.source);
    struct waited waited;
    replication_probe(world->replication, flip.source, soon(), over, fresh(&waited));
    if (!await(world, T_PROBE, &waited)) {
        world->failures++;
        return;
    }
    pair_hold(&world->pair);
    int64_t held_us = clock_mono_us();
    if (!until_ready(world, &flip, kind)) {
        bool undone = undo(world, &flip);
        /* a machine that stalls for seconds makes a flip give up, as it should, but not flip after flip */
        world->aborted += kind == CRASH_NONE ? 1 : 0;
        world->failures += undone && world->aborted <= ABORTED_MAX ? 0 : 1;
        pair_release(&world->pair, world->active, kind != CRASH_NONE);
        return;
    }
    if (world->flip % 7 == 3 && kind == CRASH_NONE) {
        /* a flip that is given up with the target ready leaves everything as it was */
        (void)undo(world, &flip);
        pair_release(&world->pair, world->active, false);
        return;
    }
    if (kind == CRASH_TARGET_READY || kind == CRASH_SOURCE_READY) {
        crash(kind == CRASH_TARGET_READY ? target : flip.source);
    }
    replication_open(world->replication, &flip, soon(), over, fresh(&waited));
    bool opened = await(world, T_OPEN, &waited);
    if (kind == CRASH_TARGET_OPEN || kind == CRASH_SOURCE_TURNING) {
        crash(kind == CRASH_TARGET_OPEN ? target : flip.source);
        opened = false; /* as if the reply had been lost */
    }
    if (!opened && !open_by_facts(world, &flip)) {
        world->failures++;
        return;
    }
    note(T_STALL, clock_mono_us() - held_us);
    if (kind == CRASH_NONE || kind == CRASH_TARGET_READY) {
        pair_compare_sequences(&world->pair); /* those of a crashed server jump ahead by up to 32 */
    }
    world->active = target;
    world->epoch++;
    pair_release(&world->pair, target, kind != CRASH_NONE);
    replication_set_active(world->replication, target, world->epoch);
    turn(world, &flip);
}

/* --- the run --- */

static void deposed(void *context)
{
    ((struct world *)context)->deposed = true;
}

static void prepare(struct world *world)
{
    pair_create(&world->pair);
    const struct replication_callbacks callbacks = {.context = world, .deposed = deposed};
    struct error error;
    world->replication = replication_new(world->pair.loop, &world->pair.settings, &callbacks, &error);
    if (world->replication == NULL) {
        printf("replication_new: %s\n", error.message);
        exit(1);
    }
    own(world);
    replication_set_active(world->replication, world->active, world->epoch);
}

static void check_sample(struct world *world)
{
    struct replication_sample sample;
    /* two rounds and a check after whatever the flip left behind */
    for (int i = 0; i < 20; i++) {
        run_for(world->pair.loop, 300000);
        replication_sample(world->replication, &sample);
        if (sample.problem[0] == '\0' && sample.lag_us == 0 && sample.streaming &&
            sample.sides[side_other(world->active)].fenced) {
            break;
        }
    }
    bool bad = sample.problem[0] != '\0' || sample.lag_us != 0 || !sample.streaming ||
               sample.sides[world->active].fence_wrong ||
               sample.sides[side_other(world->active)].fence_wrong ||
               !sample.sides[side_other(world->active)].fenced;
    if (bad) {
        printf("sample: problem \"%s\", blue \"%s\", green \"%s\", lag %" PRId64 " us, streaming %d\n",
               sample.problem, sample.sides[SIDE_BLUE].problem, sample.sides[SIDE_GREEN].problem,
               sample.lag_us, sample.streaming);
        world->failures++;
    }
}

static void stopped(void *context)
{
    *(bool *)context = true;
}

struct arguments {
    const char *address[SIDE_COUNT];
    long flips, databases, writers, pause_ms;
    bool crashing;
};

static MUST_USE bool parse(int argc, char **argv, struct arguments *arguments)
{
    static const struct option options[] = {{"blue", required_argument, NULL, 'b'},
                                            {"green", required_argument, NULL, 'g'},
                                            {"flips", required_argument, NULL, 'f'},
                                            {"databases", required_argument, NULL, 'd'},
                                            {"writers", required_argument, NULL, 'w'},
                                            {"pause-ms", required_argument, NULL, 'm'},
                                            {"crash", no_argument, NULL, 'x'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'b':
        case 'g':
            arguments->address[c == 'b' ? SIDE_BLUE : SIDE_GREEN] = optarg;
            break;
        case 'f':
            arguments->flips = strtol(optarg, NULL, 10);
            break;
        case 'd':
            arguments->databases = strtol(optarg, NULL, 10);
            break;
        case 'w':
            arguments->writers = strtol(optarg, NULL, 10);
            break;
        case 'm':
            arguments->pause_ms = strtol(optarg, NULL, 10);
            break;
        case 'x':
            arguments->crashing = true;
            break;
        case 'v':
            log_configure(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
            break;
        default:
            return false;
        }
    }
    return arguments->address[SIDE_BLUE] != NULL && arguments->address[SIDE_GREEN] != NULL;
}

static void flip_many(struct world *world, const struct arguments *arguments)
{
    for (long i = 0; i < arguments->flips; i++) {
        run_for(world->pair.loop, arguments->pause_ms * 1000);
        flip_once(world, arguments->crashing ? (enum crash)(1 + i % (CRASH_KINDS - 1)) : CRASH_NONE);
        if (i % 2 == 1 || i == arguments->flips - 1 || arguments->crashing) {
            run_for(world->pair.loop, arguments->pause_ms * 1000);
            pair_hold(&world->pair);
            compare(world, "after a flip");
            pair_release(&world->pair, world->active, false);
        }
        if (i % 10 == 9 || i == arguments->flips - 1) {
            check_sample(world);
        }
    }
}

int main(int argc, char **argv)
{
    static struct world world = {.active = SIDE_BLUE, .epoch = 1};
    struct arguments arguments = {.flips = 20, .databases = 1, .writers = 4, .pause_ms = 400};
    if (!parse(argc, argv, &arguments)) {
        (void)fprintf(stderr, "usage: --blue HOST:PORT --green HOST:PORT, the rest as its source says\n");
        return 2;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    struct pair *pair = &world.pair;
    pair_init(pair, arguments.address, (size_t)arguments.databases, (size_t)arguments.writers);
    prepare(&world);
    pair_start(pair, world.active);
    flip_many(&world, &arguments);
    pair_stop(pair);
    compare(&world, "at the end");
    if (!pair_check_acknowledged(pair, world.active)) {
        world.failures++;
    }
    bool gone = false;
    replication_stop(world.replication, stopped, &gone);
    while (!gone) {
        (void)uv_run(pair->loop, UV_RUN_ONCE);
    }
    printf("%ld flips, %zu databases, %zu writers: %" PRIu64 " acknowledged, %" PRIu64
           " errors of writers, %d failures%s\n",
           arguments.flips, pair->database_count, pair->writer_count, pair_acknowledged(pair),
           pair_errors(pair), world.failures, world.deposed ? ", deposed" : "");
    print_times();
    /* A crash costs the writers their connections; without one they see nothing. */
    bool bothered = !arguments.crashing && pair_errors(pair) > 0;
    pair_deinit(pair);
    return world.failures == 0 && !world.deposed && !bothered ? 0 : 1;
}
