/* Moments on one clock, chance from one seed, and what is told of them. */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- chance: splitmix64, which any seed suits --- */

uint64_t sim_random(struct sim *sim)
{
    sim->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = sim->state;
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

int64_t sim_between(struct sim *sim, int64_t low, int64_t high)
{
    ENSURE(low <= high);
    return low + (int64_t)(sim_random(sim) % (uint64_t)(high - low + 1));
}

bool sim_chance(struct sim *sim, unsigned in_a_thousand)
{
    return sim_random(sim) % 1000 < in_a_thousand;
}

int64_t sim_wall_us(const struct sim *sim)
{
    return 1000 * (int64_t)1000 * SIM_SECOND + sim->now_us + sim->wall_offset_us;
}

/* --- moments: a binary heap --- */

static bool is_before(const struct moment *one, const struct moment *other)
{
    return one->at_us != other->at_us ? one->at_us < other->at_us : one->order < other->order;
}

void sim_later(struct sim *sim, int64_t delay_us, happening happen, uint32_t who, uint64_t life,
               int64_t value)
{
    if (sim->moment_count == sim->moment_size) {
        sim->moment_size = sim->moment_size == 0 ? 256 : 2 * sim->moment_size;
        sim->moments = realloc(sim->moments, sim->moment_size * sizeof *sim->moments);
        ENSURE(sim->moments != NULL);
    }
    const struct moment moment = {.at_us = sim->now_us + (delay_us > 0 ? delay_us : 0),
                                  .order = ++sim->order,
                                  .happen = happen,
                                  .who = who,
                                  .daemon = (unsigned)(sim->my - sim->daemons),
                                  .life = life,
                                  .value = value};
    size_t at = sim->moment_count++;
    while (at > 0 && is_before(&moment, &sim->moments[(at - 1) / 2])) {
        sim->moments[at] = sim->moments[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->moments[at] = moment;
}

bool sim_next(struct sim *sim, struct moment *moment)
{
    if (sim->moment_count == 0) {
        return false;
    }
    *moment = sim->moments[0];
    const struct moment last = sim->moments[--sim->moment_count];
    size_t at = 0;
    for (size_t child = 1; child < sim->moment_count; child = 2 * at + 1) {
        if (child + 1 < sim->moment_count && is_before(&sim->moments[child + 1], &sim->moments[child])) {
            child++;
        }
        if (!is_before(&sim->moments[child], &last)) {
            break;
        }
        sim->moments[at] = sim->moments[child];
        at = child;
    }
    sim->moments[at] = last;
    return true;
}

/* --- the story: the last lines are kept, and printed when a seed fails --- */

enum { STORY_LINES = 131072, STORY_LINE = 176 };

static char story[STORY_LINES][STORY_LINE];
static size_t told;

void sim_say(struct sim *sim, const char *who, const char *format, ...)
{
    char *line = story[told++ % STORY_LINES];
    int n = snprintf(line, STORY_LINE, "%4" PRId64 ".%06" PRId64 "  %s%-10s ", sim->now_us / SIM_SECOND,
                     sim->now_us % SIM_SECOND,
                     sim->daemon_count == 1        ? ""
                     : sim->my == &sim->daemons[0] ? "1 "
                                                   : "2 ",
                     who);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line + n, STORY_LINE - (size_t)n, format, arguments);
    va_end(arguments);
}

void sim_forget_story(void)
{
    told = 0;
}

void sim_print_story(size_t lines)
{
    const size_t kept = told < STORY_LINES ? told : STORY_LINES;
    size_t from = told - (kept < lines ? kept : lines);
    for (; from < told; from++) {
        (void)printf("%s\n", story[from % STORY_LINES]);
    }
}
