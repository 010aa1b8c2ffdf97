/* proxy/collect: the answers of several workers become one event, whatever order they come in. */
#include "proxy/collect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORKERS = 3, STALLS_MAX = 8 };

struct seen {
    struct proxy_event events[16];
    size_t count;
};

static void on_event(void *context, const struct proxy_event *event)
{
    struct seen *seen = context;
    assert_true(seen->count < ARRAY_LENGTH(seen->events));
    seen->events[seen->count++] = *event;
}

static void give(struct collect *collect, unsigned worker, enum proxy_event_kind kind, uint64_t hold,
                 uint64_t undrained)
{
    struct answer answer = {
        .worker = worker, .kind = kind, .hold = hold, .counts = {.sessions = 10, .undrained = undrained}};
    collect_answer(collect, &answer);
}

static void give_stalls(struct collect *collect, unsigned worker, uint64_t hold, const int64_t *stalls,
                        size_t count)
{
    struct answer *answer = calloc(1, sizeof(*answer) + STALLS_MAX * sizeof(*stalls));
    assert_non_null(answer);
    answer->worker = worker;
    answer->kind = PROXY_EVENT_RELEASED;
    answer->hold = hold;
    answer->count = count;
    memcpy(answer->data, stalls, count * sizeof(*stalls));
    collect_answer(collect, answer);
    free(answer);
}

static void a_hold_is_held_then_drained_once(void **state)
{
    (void)state;
    struct seen seen = {.count = 0};
    struct collect collect;
    assert_true(collect_init(&collect, WORKERS, on_event, &seen));
    collect_hold(&collect, 7);
    give(&collect, 2, PROXY_EVENT_HELD, 7, 1);
    give(&collect, 2, PROXY_EVENT_PROGRESS, 7, 0); /* quicker than the others */
    give(&collect, 0, PROXY_EVENT_HELD, 7, 2);
    assert_int_equal(seen.count, 0);
    give(&collect, 1, PROXY_EVENT_HELD, 7, 0);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.events[0].kind, PROXY_EVENT_HELD);
    assert_int_equal(seen.events[0].counts.sessions, 30);
    assert_int_equal(seen.events[1].kind, PROXY_EVENT_PROGRESS);
    assert_int_equal(seen.events[1].counts.undrained, 2);
    give(&collect, 0, PROXY_EVENT_PROGRESS, 6, 0); /* of an older hold */
    give(&collect, 0, PROXY_EVENT_PROGRESS, 7, 0);
    give(&collect, 0, PROXY_EVENT_PROGRESS, 7, 0);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.events[2].kind, PROXY_EVENT_DRAINED);
    collect_deinit(&collect);
}

static void stalls_of_all_workers_are_ranked(void **state)
{
    (void)state;
    struct seen seen = {.count = 0};
    struct collect collect;
    assert_true(collect_init(&collect, WORKERS, on_event, &seen));
    static const int64_t first[] = {50, 10}, third[] = {20, 40, 30};
    collect_expect(&collect, PROXY_EVENT_RELEASED, 7);
    give_stalls(&collect, 0, 7, first, ARRAY_LENGTH(first));
    give_stalls(&collect, 1, 7, first, 0);
    assert_int_equal(seen.count, 0);
    give_stalls(&collect, 2, 7, third, ARRAY_LENGTH(third));
    assert_int_equal(seen.count, 1);
    const struct proxy_stall *stall = &seen.events[0].stall;
    assert_int_equal(stall->clients, 5);
    assert_int_equal(stall->p50_us, 30);
    assert_int_equal(stall->p99_us, 50);
    assert_int_equal(stall->max_us, 50);
    collect_deinit(&collect);
}

static void the_same_command_twice_is_answered_twice(void **state)
{
    (void)state;
    struct seen seen = {.count = 0};
    struct collect collect;
    assert_true(collect_init(&collect, WORKERS, on_event, &seen));
    collect_expect(&collect, PROXY_EVENT_SWAPPED, 7);
    collect_expect(&collect, PROXY_EVENT_SWAPPED, 7);
    for (unsigned worker = 0; worker < WORKERS; worker++) {
        give(&collect, worker, PROXY_EVENT_SWAPPED, 7, 0);
        give(&collect, worker, PROXY_EVENT_SWAPPED, 7, 0); /* a worker's second answer is of the second one */
        assert_int_equal(seen.count, worker == WORKERS - 1 ? 2 : 0);
    }
    collect_deinit(&collect);
}

static void the_first_deadline_ends_the_hold_for_all(void **state)
{
    (void)state;
    struct seen seen = {.count = 0};
    struct collect collect;
    assert_true(collect_init(&collect, WORKERS, on_event, &seen));
    collect_hold(&collect, 7);
    for (unsigned worker = 0; worker < WORKERS; worker++) {
        give(&collect, worker, PROXY_EVENT_HELD, 7, 0);
    }
    seen.count = 0;
    const struct answer expired = {.worker = 1, .kind = PROXY_EVENT_EXPIRED, .hold = 7};
    assert_true(collect_expiry_begins(&collect, &expired)); /* the other workers are to be told */
    assert_false(collect_expiry_begins(&collect, &expired));
    for (unsigned worker = 0; worker < WORKERS; worker++) {
        assert_int_equal(seen.count, 0);
        give(&collect, worker, PROXY_EVENT_EXPIRED, 7, 0);
    }
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.events[0].kind, PROXY_EVENT_EXPIRED);
    collect_deinit(&collect);
}

static void an_arming_that_was_given_up_says_nothing_later(void **state)
{
    (void)state;
    struct seen seen = {.count = 0};
    struct collect collect;
    assert_true(collect_init(&collect, WORKERS, on_event, &seen));
    collect_expect(&collect, PROXY_EVENT_ARMED, 7);
    give(&collect, 0, PROXY_EVENT_ARMED, 7, 0);
    collect_forget(&collect, PROXY_EVENT_ARMED);
    give(&collect, 1, PROXY_EVENT_ARMED, 7, 0);
    give(&collect, 2, PROXY_EVENT_ARMED, 7, 0);
    assert_int_equal(seen.count, 0);
    collect_deinit(&collect);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hold_is_held_then_drained_once),
        cmocka_unit_test(stalls_of_all_workers_are_ranked),
        cmocka_unit_test(the_same_command_twice_is_answered_twice),
        cmocka_unit_test(the_first_deadline_ends_the_hold_for_all),
        cmocka_unit_test(an_arming_that_was_given_up_says_nothing_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
