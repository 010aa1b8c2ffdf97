/* Where a deposed controller sends its clients: never back to a side that was left behind, and out of a hold
 * that has ended badly. */
#include "control/flip/runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct heard {
    struct flip_request route;
    unsigned routes, releases;
};

static void hear(void *context, const struct flip_request *request)
{
    struct heard *heard = context;
    if (request->kind == FLIP_ACTION_ROUTE) {
        heard->route = *request;
        heard->routes++;
    }
    heard->releases += request->kind == FLIP_ACTION_RELEASE;
}

/* Green is active at epoch 5, as far as it knows. */
static void begin(struct flip *flip, struct heard *heard)
{
    const struct flip_options options = {.max_hold_us = 1000000};
    const struct record row = {.kind = RECORD_STEADY, .side = SIDE_GREEN, .epoch = 5};
    struct flip_history history;
    *heard = (struct heard){0};
    flip_init(flip, (struct flip_port){.context = heard, .request = hear}, &options);
    flip_history_init(&history);
    flip_history_fold(&history, &row);
    const struct flip_event start = {
        .kind = FLIP_EVENT_RECOVER, .now_us = 1, .history = &history, .options = &options};
    flip_step(flip, &start);
}

static void depose(struct flip *flip)
{
    const struct flip_event deposed = {.kind = FLIP_EVENT_DEPOSED, .now_us = 2};
    flip_step(flip, &deposed);
    assert_int_equal(flip->mode, FLIP_MODE_DEPOSED);
}

static void follow(struct flip *flip, enum side side, uint64_t epoch)
{
    const struct flip_event event = {
        .kind = FLIP_EVENT_FOLLOW, .now_us = 3, .side = side, .epoch = epoch, .open = true};
    flip_step(flip, &event);
}

/* Blue was taken over from, comes back alone, and says that it is open. */
static void test_a_side_left_behind(void **state)
{
    (void)state;
    struct heard heard;
    struct flip flip;
    begin(&flip, &heard);
    depose(&flip);
    follow(&flip, SIDE_BLUE, 4);
    assert_true(heard.routes == 1 && !heard.route.open);
    follow(&flip, SIDE_BLUE, 6);
    assert_true(heard.routes == 2 && heard.route.open && heard.route.side == SIDE_BLUE);
    follow(&flip, SIDE_GREEN, 5);
    assert_true(heard.routes == 3 && !heard.route.open);
}

/* The workers had ended its hold at its deadline, and refuse everybody until they are told otherwise. */
static void test_a_hold_that_had_ended(void **state)
{
    (void)state;
    struct heard heard;
    struct flip flip;
    begin(&flip, &heard);
    flip.hold = (struct flip_hold){.over = true, .refuses = true};
    depose(&flip);
    assert_int_equal(heard.releases, 0);
    follow(&flip, SIDE_GREEN, 5);
    assert_true(heard.releases == 1 && heard.route.open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_side_left_behind),
        cmocka_unit_test(test_a_hold_that_had_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
