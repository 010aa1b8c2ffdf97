/* proxy: wrong passwords are counted by address. Time is the test's own. */
#include "proxy/failed_logins.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { SECOND_US = 1000000 };

static const struct failed_logins_policy three_a_minute = {.max = 3, .window_us = 60 * (int64_t)SECOND_US};

static union client_address address_of(const char *text)
{
    union client_address address = {.any = {.sa_family = AF_UNIX}};
    if (text != NULL && inet_pton(AF_INET, text, &address.v4.sin_addr) == 1) {
        address.v4.sin_family = AF_INET;
    } else if (text != NULL) {
        assert_int_equal(inet_pton(AF_INET6, text, &address.v6.sin6_addr), 1);
        address.v6.sin6_family = AF_INET6;
    }
    return address;
}

static bool may_try(struct failed_logins *failed, const struct failed_logins_policy *policy, const char *from,
                    int64_t now_us)
{
    const union client_address address = address_of(from);
    return failed_logins_may_try(failed, policy, &address, now_us);
}

static bool fails(struct failed_logins *failed, const struct failed_logins_policy *policy, const char *from,
                  int64_t now_us)
{
    const union client_address address = address_of(from);
    return failed_logins_note(failed, policy, &address, now_us);
}

static void too_many_are_refused_until_time_has_passed(void **state)
{
    (void)state;
    struct failed_logins failed;
    failed_logins_init(&failed);
    int64_t now_us = 1000 * (int64_t)SECOND_US;
    assert_true(may_try(&failed, &three_a_minute, "10.0.0.1", now_us));
    assert_false(fails(&failed, &three_a_minute, "10.0.0.1", now_us));
    assert_false(fails(&failed, &three_a_minute, "10.0.0.1", now_us));
    assert_true(may_try(&failed, &three_a_minute, "10.0.0.1", now_us));
    assert_true(fails(&failed, &three_a_minute, "10.0.0.1", now_us + 1)); /* told once */
    assert_false(fails(&failed, &three_a_minute, "10.0.0.1", now_us + 2));
    assert_false(may_try(&failed, &three_a_minute, "10.0.0.1", now_us + 3));
    assert_true(may_try(&failed, &three_a_minute, "10.0.0.2", now_us + 3));
    /* four failures in it: a third of the window forgives one, the second makes room */
    assert_false(may_try(&failed, &three_a_minute, "10.0.0.1", now_us + 21 * (int64_t)SECOND_US));
    assert_true(may_try(&failed, &three_a_minute, "10.0.0.1", now_us + 41 * (int64_t)SECOND_US));
    assert_true(fails(&failed, &three_a_minute, "10.0.0.1", now_us + 41 * (int64_t)SECOND_US));
    assert_false(may_try(&failed, &three_a_minute, "10.0.0.1", now_us + 41 * (int64_t)SECOND_US));
    failed_logins_deinit(&failed);
}

static void whom_they_count_for(void **state)
{
    (void)state;
    struct failed_logins failed;
    struct failed_logins_policy policy = three_a_minute;
    failed_logins_init(&failed);
    for (int i = 0; i < 10; i++) {
        static const char *const from[] = {"127.0.0.1", "::1",      "::ffff:127.0.0.1",
                                           NULL,        "10.0.0.7", "2001:db8::1"};
        for (size_t j = 0; j < ARRAY_LENGTH(from); j++) {
            (void)fails(&failed, &policy, from[j], 1);
        }
    }
    /* this machine's own are not counted unless asked for */
    assert_true(may_try(&failed, &policy, "127.0.0.1", 1));
    assert_true(may_try(&failed, &policy, "::1", 1));
    assert_true(may_try(&failed, &policy, "::ffff:127.0.0.1", 1));
    assert_true(may_try(&failed, &policy, NULL, 1));
    /* the same address in two ways, and neighbours in one network of 64 bits */
    assert_false(may_try(&failed, &policy, "::ffff:10.0.0.7", 1));
    assert_false(may_try(&failed, &policy, "2001:db8::ffff:2", 1));
    assert_true(may_try(&failed, &policy, "2001:db8:0:1::1", 1));
    policy.local = true;
    for (int i = 0; i < 3; i++) {
        (void)fails(&failed, &policy, "127.0.0.1", 1);
        (void)fails(&failed, &policy, NULL, 1);
    }
    assert_false(may_try(&failed, &policy, "127.0.0.1", 1));
    assert_false(may_try(&failed, &policy, NULL, 1));
    assert_true(may_try(&failed, &policy, "::1", 1));
    policy.max = 0;
    assert_true(may_try(&failed, &policy, "10.0.0.7", 1));
    failed_logins_deinit(&failed);
}

static void many_addresses_find_room(void **state)
{
    (void)state;
    struct failed_logins failed;
    failed_logins_init(&failed);
    for (int i = 0; i < 3; i++) {
        (void)fails(&failed, &three_a_minute, "10.9.9.9", 5);
    }
    for (int i = 0; i < 20000; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "11.%d.%d.1", i / 200, i % 200);
        assert_false(fails(&failed, &three_a_minute, text, 5));
    }
    assert_false(may_try(&failed, &three_a_minute, "10.9.9.9", 5)); /* the fuller bucket stays */
    failed_logins_deinit(&failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_many_are_refused_until_time_has_passed),
        cmocka_unit_test(whom_they_count_for),
        cmocka_unit_test(many_addresses_find_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
