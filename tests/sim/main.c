/*
 *   sim [--seeds A-B] [--long] [--jobs N]    runs seeds; says which fail, how, and prints the end of the
 * first one's story sim --seed N [--trace]                   runs one; with its whole story
 */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SEEDS = 800, SEEDS_LONG = 12000, STORY_END = 120, FAILED_MOST = 20, JOBS_MOST = 64 };

struct outcome { /* of one process */
    struct sim_figures figures;
    uint64_t failed;
    uint64_t seeds[FAILED_MOST];
    char what[FAILED_MOST][160];
};

static void run_share(uint64_t first, uint64_t last, uint64_t step, bool stop, struct outcome *outcome)
{
    struct sim *sim = sim_new();
    memset(outcome, 0, sizeof *outcome);
    for (uint64_t seed = first; seed <= last; seed += step) {
        const char *broken = sim_run(sim, seed, false);
        if (broken != NULL && outcome->failed++ < FAILED_MOST) {
            outcome->seeds[outcome->failed - 1] = seed;
            (void)snprintf(outcome->what[outcome->failed - 1], sizeof outcome->what[0], "%s", broken);
        }
        if (broken != NULL && stop) {
            break;
        }
    }
    outcome->figures = sim->figures;
    sim_free(sim);
}

static void add(struct outcome *sum, const struct outcome *part)
{
    const uint64_t *from = (const uint64_t *)&part->figures;
    uint64_t *to = (uint64_t *)&sum->figures;
    for (size_t i = 0; i < sizeof sum->figures / sizeof *to; i++) {
        to[i] += from[i];
    }
    for (uint64_t i = 0; i < part->failed && i < FAILED_MOST; i++) {
        if (sum->failed < FAILED_MOST) {
            sum->seeds[sum->failed] = part->seeds[i];
            memcpy(sum->what[sum->failed], part->what[i], sizeof sum->what[0]);
        }
        sum->failed++;
    }
}

/* Each process takes every n-th seed, and tells what came of it through a pipe. */
static bool run_all(uint64_t first, uint64_t last, unsigned jobs, bool stop, struct outcome *sum)
{
    int pipes[JOBS_MOST][2];
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < jobs; i++) {
        ENSURE(pipe(pipes[i]) == 0);
        const pid_t child = fork();
        ENSURE(child >= 0);
        if (child == 0) {
            struct outcome outcome;
            run_share(first + i, last, jobs, stop, &outcome);
            _exit(write(pipes[i][1], &outcome, sizeof outcome) == (ssize_t)sizeof outcome ? 0 : 1);
        }
        (void)close(pipes[i][1]);
    }
    bool whole = true;
    for (unsigned i = 0; i < jobs; i++) {
        struct outcome outcome;
        size_t got = 0;
        for (ssize_t n = 1; n > 0 && got<sizeof outcome; got += n> 0 ? (size_t)n : 0) {
            n = read(pipes[i][0], (char *)&outcome + got, sizeof outcome - got);
        }
        (void)close(pipes[i][0]);
        whole &= got == sizeof outcome;
        if (got == sizeof outcome) {
            add(sum, &outcome);
        }
    }
    for (unsigned i = 0; i < jobs; i++) {
        int status = 0;
        whole &= wait(&status) > 0 && status == 0;
    }
    return whole;
}

static int tell_one(uint64_t seed, bool trace)
{
    struct sim *sim = sim_new();
    const char *broken = sim_run(sim, seed, true);
    sim_print_story(trace ? SIZE_MAX : STORY_END);
    (void)printf("seed %" PRIu64 ": %s\n", seed, broken != NULL ? broken : "holds");
    const int status = broken != NULL ? 1 : 0;
    sim_free(sim);
    return status;
}

static void report(const struct outcome *sum)
{
    const struct sim_figures *figures = &sum->figures;
    for (uint64_t i = 0; i < sum->failed && i < FAILED_MOST; i++) {
        (void)printf("seed %" PRIu64 ": %s\n", sum->seeds[i], sum->what[i]);
    }
    (void)printf("%" PRIu64 " seeds, %" PRIu64 " flips (%" PRIu64 " done, %" PRIu64
                 " of them by themselves, %" PRIu64 " aborted, %" PRIu64 " refused), %" PRIu64
                 " transactions, %" PRIu64 " acknowledged, %" PRIu64 " crashes, %" PRIu64 " moments\n",
                 figures->seeds, figures->flips, figures->done, figures->automatic, figures->aborted,
                 figures->refused, figures->transactions, figures->acknowledged, figures->crashes,
                 figures->moments);
}

static void usage(void)
{
    (void)fputs("sim [--seeds A-B] [--long] [--jobs N] [--first]\n"
                "sim --seed N [--trace]\n",
                stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    uint64_t first = 1, last = SEEDS, one = 0;
    bool trace = false, stop = false;
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned jobs = processors > 0 && processors < JOBS_MOST ? (unsigned)processors : 1;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--seeds") == 0 && sscanf(value, "%" SCNu64 "-%" SCNu64, &first, &last) == 2) {
            i++;
        } else if (strcmp(argv[i], "--seed") == 0 && sscanf(value, "%" SCNu64, &one) == 1) {
            i++;
        } else if (strcmp(argv[i], "--jobs") == 0 && sscanf(value, "%u", &jobs) == 1 && jobs > 0 &&
                   jobs <= JOBS_MOST) {
            i++;
        } else if (strcmp(argv[i], "--long") == 0) {
            last = SEEDS_LONG;
        } else if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--first") == 0) {
            stop = true;
        } else {
            usage();
        }
    }
    if (one != 0) {
        return tell_one(one, trace);
    }
    struct outcome sum;
    const bool whole = run_all(first, last, jobs, stop, &sum);
    if (sum.failed > 0 && !stop) {
        (void)tell_one(sum.seeds[0], false);
    }
    report(&sum);
    (void)printf("%d passed, %d failed\n", whole && sum.failed == 0, !whole || sum.failed > 0);
    return whole && sum.failed == 0 ? 0 : 1;
}
