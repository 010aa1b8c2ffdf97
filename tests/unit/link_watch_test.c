/* proxy/link_watch.c: which connections are lost, by what the kernel knows of them. */
#include "proxy/link_watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { SECOND_US = 1000000, LOST_AFTER_US = 30 * SECOND_US, LOOK_US = 3 * SECOND_US };

/* Looks again and again until `last_s`: the seconds after which it is lost, -1 if it isn't. */
static int lost_after_s(struct tcp_info info, int64_t silent_before_s, int last_s, bool answers_at_times)
{
    const int64_t begin_us = (int64_t)1000 * SECOND_US;
    int64_t since_us = 0;
    for (int64_t us = 0; us <= (int64_t)last_s * SECOND_US; us += LOOK_US) {
        const uint32_t silent_ms = (uint32_t)(silent_before_s * 1000 + us / 1000);
        info.tcpi_last_ack_recv = info.tcpi_last_data_recv = answers_at_times ? silent_ms % 20000 : silent_ms;
        if (link_watch_is_lost(&info, &since_us, begin_us + us, LOST_AFTER_US)) {
            return (int)(us / SECOND_US);
        }
    }
    return -1;
}

static void what_is_repeated_in_vain_is_lost(void **state)
{
    (void)state;
    const struct tcp_info data = {.tcpi_unacked = 1, .tcpi_retransmits = 5}, window = {.tcpi_probes = 5};
    assert_int_equal(lost_after_s(data, 0, 100, false), 30);
    assert_int_equal(lost_after_s(window, 0, 100, false), 30);
    /* an hour in which there was nothing to answer doesn't count */
    assert_int_equal(lost_after_s(data, 3600, 100, false), 30);
}

/* A server that is stopped, or waits for a lock and doesn't read: its machine acknowledges all the same. */
static void who_is_only_slow_is_not_lost(void **state)
{
    (void)state;
    const struct tcp_info quiet = {.tcpi_unacked = 0}, once = {.tcpi_unacked = 1, .tcpi_retransmits = 1},
                          closed = {.tcpi_probes = 1}, lossy = {.tcpi_unacked = 7, .tcpi_retransmits = 3};
    assert_int_equal(lost_after_s(quiet, 0, 1000, false), -1);
    assert_int_equal(lost_after_s(once, 0, 1000, false), -1);
    assert_int_equal(lost_after_s(closed, 0, 1000, false), -1);
    assert_int_equal(lost_after_s(lossy, 0, 1000, true), -1);
}

static void what_goes_on_is_forgotten(void **state)
{
    (void)state;
    const struct tcp_info stuck = {.tcpi_unacked = 1,
                                   .tcpi_retransmits = 4,
                                   .tcpi_last_ack_recv = 3600000,
                                   .tcpi_last_data_recv = 3600000};
    const struct tcp_info well = {.tcpi_unacked = 0};
    int64_t since_us = 0;
    assert_false(link_watch_is_lost(&stuck, &since_us, 1000, LOST_AFTER_US));
    assert_int_equal(since_us, 1000);
    assert_false(link_watch_is_lost(&well, &since_us, 2000, LOST_AFTER_US));
    assert_int_equal(since_us, 0);
    assert_false(link_watch_is_lost(&stuck, &since_us, 1000 + LOST_AFTER_US, LOST_AFTER_US));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_repeated_in_vain_is_lost),
        cmocka_unit_test(who_is_only_slow_is_not_lost),
        cmocka_unit_test(what_goes_on_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
