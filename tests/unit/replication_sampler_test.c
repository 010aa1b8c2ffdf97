/* replication/sampler_judge.c: what the answers of a round mean. */
#include "conf/base/clock.h"
#include "replication/sampler_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Two databases, blue active, everything well; each test spoils something. */
struct scene {
    struct replication replication;
    struct settings settings;
    struct sampler sampler;
    struct stream streams[2];
    char leaves[SIDE_COUNT][2][33];
    int changes;
    int64_t now_us;
};

static char *names[] = {"one", "two"};

static void changed(void *context)
{
    ((struct scene *)context)->changes++;
}

static void write_markers(struct stream *stream, uint64_t from, uint64_t to, int64_t newest_us)
{
    for (uint64_t n = from; n <= to; n++) {
        stream->written[n % MARKERS_KEPT] =
            (struct written_marker){.n = n, .at_us = newest_us - (int64_t)(to - n) * SAMPLE_EVERY_US};
    }
    stream->newest_n = to;
    stream->newest_us = newest_us;
}

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    scene->settings.databases = (struct settings_list){.items = names, .count = 2};
    scene->replication = (struct replication){.settings = &scene->settings,
                                              .database_count = 2,
                                              .callbacks = {.context = scene, .changed = changed}};
    scene->now_us = clock_mono_us();
    struct sampler *sampler = &scene->sampler;
    sampler->replication = &scene->replication;
    sampler->streams = scene->streams;
    sampler->active_known = true;
    sampler->active = SIDE_BLUE;
    sampler_forget_streams(sampler);
    for (int side = 0; side < SIDE_COUNT; side++) {
        sampler->sides[side] = (struct side_watch){.heard_of = true,
                                                   .answered = true,
                                                   .answered_us = scene->now_us,
                                                   .checked = true,
                                                   .tables = 8,
                                                   .fences_up = side == SIDE_GREEN ? 8 : 0,
                                                   .leaves = scene->leaves[side]};
    }
    for (size_t i = 0; i < 2; i++) {
        struct stream *stream = &scene->streams[i];
        write_markers(stream, 1, 100, scene->now_us);
        stream->newest_xid = stream->seen_xid = 5000;
        stream->slot_found = stream->streaming = stream->seen = stream->enabled = true;
        stream->seen_n = 100;
        stream->seen_us = scene->now_us;
        stream->worker = 42;
    }
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static const struct replication_sample *judge(struct scene *scene)
{
    sampler_judge(&scene->sampler);
    return &scene->sampler.sample;
}

static void all_is_well(void **state)
{
    struct scene *scene = *state;
    const struct replication_sample *sample = judge(scene);
    assert_string_equal(sample->problem, "");
    assert_true(sample->streaming);
    assert_false(sample->broken || sample->slot_lost || sample->slot_endangered || sample->tables_differ);
    assert_int_equal(sample->lag_us, 0);
    assert_int_equal(sample->commits_at_risk, 0);
    assert_true(sample->sides[SIDE_GREEN].fenced);
    assert_false(sample->sides[SIDE_BLUE].fenced || sample->sides[SIDE_BLUE].fence_wrong);
    assert_int_equal(scene->changes, 1);
    (void)judge(scene);
    assert_int_equal(scene->changes, 1);
}

static void synchronous_are_all_streams_or_none(void **state)
{
    struct scene *scene = *state;
    scene->streams[0].synchronous = true;
    scene->streams[0].sync_waiting = 3;
    assert_false(judge(scene)->synchronous);
    assert_int_equal(scene->sampler.sample.sync_waiting, 3);
    int changes = scene->changes;
    scene->streams[1].synchronous = true;
    assert_true(judge(scene)->synchronous);
    assert_int_equal(scene->changes, changes + 1);
    scene->sampler.sides[SIDE_BLUE].answered = false;
    assert_false(judge(scene)->synchronous);
}

static void names_on_a_standby_are_a_problem(void **state)
{
    struct scene *scene = *state;
    assert_false(judge(scene)->sides[SIDE_GREEN].names_wrong);
    int changes = scene->changes;
    scene->sampler.sides[SIDE_GREEN].names_wrong = true;
    assert_true(judge(scene)->sides[SIDE_GREEN].names_wrong);
    assert_string_not_equal(scene->sampler.sample.sides[SIDE_GREEN].problem, "");
    assert_int_equal(scene->changes, changes + 1);
}

static void lag_is_the_age_of_the_oldest_unseen_marker(void **state)
{
    struct scene *scene = *state;
    struct stream *stream = &scene->streams[1];
    stream->seen_n = 99; /* the newest, just written: under one interval */
    assert_int_equal(judge(scene)->lag_us, 0);
    stream->seen_n = 95; /* 96 is one second old */
    assert_in_range(judge(scene)->lag_us, 1000000, 1500000);
    /* so far behind that its time isn't kept: the active side's clock says */
    write_markers(stream, 5001, 6000, scene->now_us);
    stream->newest_clock_s = 10000;
    stream->seen_clock_s = 9000;
    assert_in_range(judge(scene)->lag_us, 1000000000, 1000500000);
    stream->seen = false;
    assert_int_equal(judge(scene)->lag_us, -1);
    assert_string_not_equal(scene->sampler.sample.problem, "");
}

/* A server without our databases is looked at with pauses, and not lost in between. */
static void an_unprepared_side_is_not_lost(void **state)
{
    struct scene *scene = *state;
    struct side_watch *green = &scene->sampler.sides[SIDE_GREEN];
    green->asking = true;
    green->asked_us = scene->now_us - 2000000;
    assert_false(judge(scene)->sides[SIDE_GREEN].reachable);
    (void)error_set(&green->standing, ERROR_NOT_PREPARED, "database \"one\" does not exist");
    assert_true(judge(scene)->sides[SIDE_GREEN].reachable);
    green->asked_us = scene->now_us - 10000000;
    assert_false(judge(scene)->sides[SIDE_GREEN].reachable);
}

/* What the standby last saw of this side is from before it was the standby. */
static void at_risk_begins_with_the_flip(void **state)
{
    struct scene *scene = *state;
    struct stream *stream = &scene->streams[0];
    scene->sampler.by_flip = true;
    stream->seen_n = 20;
    stream->seen_xid = 100;
    stream->first_n = 90;
    stream->first_xid = 4950;
    stream->first_running = 2;
    stream->xids_per_second = 40;
    /* 50 ids since, 2 in use then, 10 in the interval before, 10 markers in each of 2 databases are ours */
    assert_int_equal(judge(scene)->commits_at_risk, 42);
    assert_true(scene->sampler.sample.risk_known);
    stream->seen = false; /* it went away with the flip, before it was asked */
    stream->seen_n = stream->seen_xid = 0;
    assert_int_equal(judge(scene)->commits_at_risk, 42);
    assert_true(scene->sampler.sample.risk_known);
}

/* Who asks right after a flip is told what it has proved, not what was sampled before it. */
static void a_flip_is_known_before_it_is_looked_at(void **state)
{
    struct scene *scene = *state;
    struct sampler *sampler = &scene->sampler;
    const struct replication_sample *sample = judge(scene);
    scene->replication.sampler = sampler;
    sampler_note_fence(sampler, SIDE_BLUE, true);
    sampler_note_fence(sampler, SIDE_GREEN, false);
    sampler_note_turn(sampler, SIDE_GREEN, 8, true);
    assert_int_equal(sampler->active, SIDE_BLUE);
    replication_set_active(&scene->replication, SIDE_GREEN, 8);
    assert_true(sample->sides[SIDE_BLUE].fenced && !sample->sides[SIDE_GREEN].fenced);
    assert_false(sample->sides[SIDE_BLUE].fence_wrong || sample->sides[SIDE_GREEN].fence_wrong);
    assert_true(sample->streaming && sample->synchronous);
    assert_string_equal(sample->problem, "");
    assert_int_equal(sample->lag_us, 0);
    assert_true(sample->marker_age_us >= 0);
    /* The first heartbeats were written, and the other side is asked a moment later: it shows old ones. */
    for (size_t i = 0; i < 2; i++) {
        struct stream *stream = &scene->streams[i];
        write_markers(stream, 500, 500, clock_mono_us());
        stream->first_n = 500;
        stream->first_us = stream->newest_us;
        stream->slot_found = stream->streaming = true;
    }
    assert_int_equal(judge(scene)->lag_us, 0);
    assert_string_equal(sample->problem, "");
    scene->streams[0].seen = true;
    scene->streams[0].seen_n = 480; /* from when green was active before, hours ago */
    scene->streams[0].newest_clock_s = 9000;
    assert_int_equal(judge(scene)->lag_us, 0);
    scene->streams[0].first_us -= 3 * SAMPLE_EVERY_US;
    assert_true(judge(scene)->lag_us >= 3 * SAMPLE_EVERY_US && sample->lag_us < 60 * SAMPLE_EVERY_US);
    scene->streams[0].seen_n = 500;
    assert_int_equal(judge(scene)->lag_us, 0);
}

/* Without the promise the stream is only known to run; another flip's turn says nothing of this one. */
static void a_turn_counts_for_its_own_flip(void **state)
{
    struct scene *scene = *state;
    struct sampler *sampler = &scene->sampler;
    const struct replication_sample *sample = judge(scene);
    scene->replication.sampler = sampler;
    sampler_note_turn(sampler, SIDE_GREEN, 7, true);
    replication_set_active(&scene->replication, SIDE_GREEN, 8);
    assert_false(sample->streaming);
    sampler_note_turn(sampler, SIDE_GREEN, 8, false);
    assert_true(sample->streaming);
    assert_false(sample->synchronous);
    assert_int_equal(sample->lag_us, -1);
    assert_string_not_equal(sample->problem, "");
}

/* A number that counts from nowhere is worse than none. */
static void at_risk_may_be_unknown(void **state)
{
    struct scene *scene = *state;
    scene->streams[0].seen = false;
    assert_false(judge(scene)->risk_known); /* the standby was never there since the start */
    scene->streams[0].seen = true;
    assert_true(judge(scene)->risk_known);
    scene->streams[0].newest_n = 0; /* nor the active side */
    assert_false(judge(scene)->risk_known);
}

static void at_risk_is_an_upper_bound(void **state)
{
    struct scene *scene = *state;
    struct stream *stream = &scene->streams[0];
    stream->seen_n = 98;
    stream->seen_xid = 4900;
    stream->seen_running = 3; /* they may have committed since */
    /* 100 ids given out since, 3 in use then, 2 markers in each of 2 databases are ours */
    assert_int_equal(judge(scene)->commits_at_risk, 99);
    stream->seen_n = 99; /* the newest is on its way: no lag */
    assert_int_equal(judge(scene)->commits_at_risk, 0);
    stream->seen_n = 100;
    assert_int_equal(judge(scene)->commits_at_risk, 0);
    /* the active side is gone: what it may have done after its last answer is added */
    scene->sampler.sides[SIDE_BLUE].answered = false;
    stream->xids_per_second = 400;
    stream->newest_running = 5;
    assert_int_equal(judge(scene)->commits_at_risk, 106);
    assert_false(scene->sampler.sample.streaming);
}

static void broken_workers(void **state)
{
    struct scene *scene = *state;
    struct stream *stream = &scene->streams[1];
    stream->worker_changes_us[0] = stream->worker_changes_us[1] = scene->now_us; /* twice: a restart */
    assert_false(judge(scene)->broken);
    stream->worker_changes_us[2] = scene->now_us - 3000000;
    assert_true(judge(scene)->broken);
    assert_non_null(strstr(scene->sampler.sample.problem, "two"));
    write_markers(stream, 101, 101, scene->now_us + 1); /* by a publisher that was away, say */
    assert_true(judge(scene)->broken);
    stream->seen_n = 101;
    assert_false(judge(scene)->broken);
    stream->errors_grew_us = scene->now_us + 2;
    assert_true(judge(scene)->broken);
    stream->errors_grew_us = 0;
    memset(stream->worker_changes_us, 0, sizeof stream->worker_changes_us);
    stream->worker_lost_us = scene->now_us - 500000;
    assert_false(judge(scene)->broken);
    stream->worker_lost_us = scene->now_us - 3000000;
    assert_true(judge(scene)->broken);
    stream->worker_lost_us = 0;
    stream->errors_grew_us = scene->now_us + 3; /* after the last marker that is there */
    assert_true(judge(scene)->broken);
    stream->errors_grew_us = 0;
    stream->enabled = false;
    assert_true(judge(scene)->broken);
    /* a standby that isn't there doesn't break its stream: it is lost */
    scene->sampler.sides[SIDE_GREEN].answered = false;
    assert_false(judge(scene)->broken);
    assert_false(scene->sampler.sample.streaming);
}

static void fences_and_tables(void **state)
{
    struct scene *scene = *state;
    scene->sampler.sides[SIDE_BLUE].fences_up = 1;
    assert_true(judge(scene)->sides[SIDE_BLUE].fence_wrong);
    scene->sampler.sides[SIDE_BLUE].fences_up = 0;
    scene->sampler.sides[SIDE_GREEN].fences_up = 7;
    assert_true(judge(scene)->sides[SIDE_GREEN].fence_wrong);
    assert_false(scene->sampler.sample.sides[SIDE_GREEN].fenced);
    scene->sampler.sides[SIDE_GREEN].fences_up = 8;
    (void)strcpy(scene->leaves[SIDE_GREEN][1], "another digest");
    assert_true(judge(scene)->tables_differ);
    (void)strcpy(scene->leaves[SIDE_GREEN][1], "");
    (void)strcpy(scene->sampler.sides[SIDE_BLUE].fault, "blue/one: table public.t has no fence trigger");
    assert_string_equal(judge(scene)->problem, "blue/one: table public.t has no fence trigger");
}

static void missing_rows_close_the_way_back_at_once(void **state)
{
    struct scene *scene = *state;
    assert_false(judge(scene)->tables_differ);
    (void)snprintf(scene->streams[1].gap, sizeof scene->streams[1].gap, "rows are missing");
    assert_true(judge(scene)->tables_differ);
    assert_non_null(strstr(scene->sampler.sample.problem, "rows are missing"));
}

static void slots(void **state)
{
    struct scene *scene = *state;
    scene->streams[0].slot_endangered = true;
    assert_true(judge(scene)->slot_endangered);
    assert_string_equal(scene->sampler.sample.problem, "");
    scene->streams[1].idle_slot_lost = true; /* the standby's own: without it no flip back */
    assert_true(judge(scene)->slot_lost);
    assert_string_not_equal(scene->sampler.sample.problem, "");
}

static void a_silent_side_is_lost(void **state)
{
    struct scene *scene = *state;
    scene->sampler.sides[SIDE_GREEN].asking = true;
    scene->sampler.sides[SIDE_GREEN].asked_us = scene->now_us - 1500000;
    assert_false(judge(scene)->sides[SIDE_GREEN].reachable);
    scene->sampler.sides[SIDE_GREEN].lost_us = scene->now_us - 4000000;
    assert_in_range(judge(scene)->sides[SIDE_GREEN].unreachable_us, 4000000, 5000000);
    /* one that hangs has not been heard of since it was asked, though its round has not ended */
    scene->sampler.sides[SIDE_GREEN].lost_us = 0;
    scene->sampler.sides[SIDE_GREEN].answered_us = scene->now_us - 3200000;
    scene->sampler.sides[SIDE_GREEN].asked_us = scene->now_us - 3000000;
    assert_false(judge(scene)->sides[SIDE_GREEN].reachable);
    assert_in_range(judge(scene)->sides[SIDE_GREEN].unreachable_us, 3000000, 4000000);
    assert_string_not_equal(scene->sampler.sample.sides[SIDE_GREEN].problem, "");
}

/* Old connections may die without a word while the side is well. */
static void gone_is_whom_no_new_connection_reaches_either(void **state)
{
    struct scene *scene = *state;
    struct side_watch *blue = &scene->sampler.sides[SIDE_BLUE];
    assert_false(judge(scene)->sides[SIDE_BLUE].gone);
    blue->answered = false;
    blue->lost_us = scene->now_us - 4000000;
    blue->anew.failed_us = blue->lost_us - 1; /* of an earlier silence */
    assert_false(judge(scene)->sides[SIDE_BLUE].reachable);
    assert_false(scene->sampler.sample.sides[SIDE_BLUE].gone);
    blue->anew.failed_us = blue->lost_us + 500000;
    assert_true(judge(scene)->sides[SIDE_BLUE].gone);
    blue->anew.failed_us = 0; /* the next attempt was answered */
    assert_false(judge(scene)->sides[SIDE_BLUE].gone);
    blue->anew.failed_us = scene->now_us;
    blue->answered = true;
    blue->lost_us = 0;
    assert_false(judge(scene)->sides[SIDE_BLUE].gone);
}

/* While the other side's silence is waited for by whoever takes ownership, this one isn't asked. */
static void who_is_not_asked_is_not_silent(void **state)
{
    struct scene *scene = *state;
    scene->sampler.sides[SIDE_GREEN].answered_us = scene->now_us - 8000000;
    scene->sampler.sides[SIDE_GREEN].asked_us = scene->now_us - 8000000;
    assert_true(judge(scene)->sides[SIDE_GREEN].reachable);
    assert_int_equal(scene->sampler.sample.sides[SIDE_GREEN].unreachable_us, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(all_is_well),
        TEST(synchronous_are_all_streams_or_none),
        TEST(names_on_a_standby_are_a_problem),
        TEST(lag_is_the_age_of_the_oldest_unseen_marker),
        TEST(broken_workers),
        TEST(at_risk_is_an_upper_bound),
        TEST(at_risk_begins_with_the_flip),
        TEST(a_flip_is_known_before_it_is_looked_at),
        TEST(a_turn_counts_for_its_own_flip),
        TEST(at_risk_may_be_unknown),
        TEST(an_unprepared_side_is_not_lost),
        TEST(fences_and_tables),
        TEST(missing_rows_close_the_way_back_at_once),
        TEST(slots),
        TEST(a_silent_side_is_lost),
        TEST(gone_is_whom_no_new_connection_reaches_either),
        TEST(who_is_not_asked_is_not_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
