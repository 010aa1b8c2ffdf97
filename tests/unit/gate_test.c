/* How gates judge: windows of counters, failures in a row, grace, too few samples, their own errors. */
#include "control/gates/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const int64_t SECOND = 1000000;

static const struct gate_sides sides = {"green", "blue"};
static int64_t bounds[GATE_BUCKETS];

static void set_bounds(void)
{
    for (int i = 0; i < GATE_BUCKETS; i++) {
        bounds[i] = 1000 * (i + 1); /* a millisecond each */
    }
}

static struct settings_gate settings(enum gate_kind kind)
{
    static char name[] = "gate", expect[] = "t";
    return (struct settings_gate){.name = name,
                                  .kind = kind,
                                  .expect = expect,
                                  .interval_us = SECOND,
                                  .failures = 3,
                                  .min_samples = 50};
}

static void add(struct gate_traffic *counters, uint64_t statements, uint64_t errors, size_t bucket)
{
    counters->statements += statements;
    counters->errors += errors;
    counters->latency[bucket] += statements;
}

static void test_percentiles(void **state)
{
    (void)state;
    struct gate_traffic traffic = {0};
    assert_int_equal(gate_percentile_us(&traffic, bounds, 0.5), 0);
    add(&traffic, 99, 0, 4); /* 4 .. 5 ms */
    add(&traffic, 1, 0, 99); /* 99 .. 100 ms */
    const int64_t p50 = gate_percentile_us(&traffic, bounds, 0.5);
    assert_true(p50 > 4000 && p50 <= 5000);
    assert_true(gate_percentile_us(&traffic, bounds, 0.99) <= 5000);
    assert_true(gate_percentile_us(&traffic, bounds, 0.999) > 99000);
}

static void test_errors_fail_after_failures_in_a_row(void **state)
{
    (void)state;
    struct settings_gate errors = settings(GATE_ERROR_RATE);
    struct gate_traffic counters = {.statements = 5000, .errors = 4000}; /* what was before doesn't count */
    struct gate gate;
    errors.has_max = true;
    errors.max_ratio = 0.01;
    gate_start(&gate, &errors, 0);
    assert_int_equal(gate.next_us, SECOND);
    assert_int_equal(gate_judge_traffic(&gate, 1 * SECOND, &counters, NULL, bounds, sides), GATE_NO_NEWS);
    add(&counters, 100, 2, 0);
    assert_int_equal(gate_judge_traffic(&gate, 2 * SECOND, &counters, NULL, bounds, sides), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_FAIL);
    add(&counters, 100, 2, 0);
    assert_int_equal(gate_judge_traffic(&gate, 3 * SECOND, &counters, NULL, bounds, sides), GATE_NO_NEWS);
    add(&counters, 100, 1, 0); /* a pass in between: counted anew */
    assert_int_equal(gate_judge_traffic(&gate, 4 * SECOND, &counters, NULL, bounds, sides), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_PASS);
    for (int i = 0; i < 3; i++) {
        assert_false(gate.failed);
        add(&counters, 100, 5, 0);
        assert_int_equal(gate_judge_traffic(&gate, (5 + i) * SECOND, &counters, NULL, bounds, sides),
                         i == 2 ? GATE_HAS_FAILED : GATE_NO_NEWS);
    }
    assert_true(gate.failed && strstr(gate.reason, "5.00%") != NULL);
    add(&counters, 100, 0, 0);
    assert_int_equal(gate_judge_traffic(&gate, 9 * SECOND, &counters, NULL, bounds, sides),
                     GATE_HAS_RECOVERED);
}

static void test_too_few_samples_keep_collecting(void **state)
{
    (void)state;
    struct settings_gate latency = settings(GATE_LATENCY_P99);
    struct gate_traffic counters = {0};
    struct gate gate;
    latency.has_max = true;
    latency.max_us = 20000;
    latency.failures = 1;
    gate_start(&gate, &latency, 0);
    (void)gate_judge_traffic(&gate, 1 * SECOND, &counters, NULL, bounds, sides);
    for (int i = 2; i <= 5; i++) {
        add(&counters, 10, 0, 30); /* 31 ms */
        assert_int_equal(gate_judge_traffic(&gate, i * SECOND, &counters, NULL, bounds, sides), GATE_NO_NEWS);
        assert_int_equal(gate.state, GATE_WAITING);
    }
    add(&counters, 10, 0, 30);
    assert_int_equal(gate_judge_traffic(&gate, 6 * SECOND, &counters, NULL, bounds, sides), GATE_HAS_FAILED);
}

static void test_slower_than_the_other_side_was(void **state)
{
    (void)state;
    struct settings_gate latency = settings(GATE_LATENCY_P99);
    struct gate_traffic counters = {0}, baseline = {0};
    struct gate gate;
    latency.has_max_increase = true;
    latency.max_increase = 0.2;
    latency.failures = 1;
    gate_start(&gate, &latency, 0);
    (void)gate_judge_traffic(&gate, 1 * SECOND, &counters, &baseline, bounds, sides);
    add(&counters, 100, 0, 9);
    /* Nothing to compare with: its own problem. */
    assert_int_equal(gate_judge_traffic(&gate, 2 * SECOND, &counters, NULL, bounds, sides), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_INCONCLUSIVE);
    add(&baseline, 1000, 0, 9); /* 10 ms */
    add(&counters, 100, 0, 10); /* 11 ms */
    assert_int_equal(gate_judge_traffic(&gate, 3 * SECOND, &counters, &baseline, bounds, sides),
                     GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_PASS);
    add(&counters, 100, 0, 12); /* 13 ms */
    assert_int_equal(gate_judge_traffic(&gate, 4 * SECOND, &counters, &baseline, bounds, sides),
                     GATE_HAS_FAILED);
    assert_non_null(strstr(gate.reason, "more than 20% slower"));
}

static void test_grace(void **state)
{
    (void)state;
    struct settings_gate lag = settings(GATE_REPLICATION_LAG);
    struct gate gate;
    lag.grace_us = 5 * SECOND;
    gate_start(&gate, &lag, 7 * SECOND);
    assert_int_equal(gate.next_us, 12 * SECOND);
}

static void test_lag(void **state)
{
    (void)state;
    struct settings_gate lag = settings(GATE_REPLICATION_LAG);
    struct gate gate;
    lag.failures = 2;
    lag.has_max = true;
    gate_start(&gate, &lag, 0);
    struct gate_replication replication = {.known = true, .problem = ""};
    assert_int_equal(gate_judge_replication(&gate, 1, &replication), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_PASS);
    replication.lag_us = 300000;
    assert_int_equal(gate_judge_replication(&gate, 2, &replication), GATE_NO_NEWS);
    assert_int_equal(gate_judge_replication(&gate, 3, &replication), GATE_HAS_FAILED);
    replication.lag_us = -1; /* unknown is neither: but it must not hide for ever */
    for (int i = 1; i <= GATE_ERRORS_LIMIT; i++) {
        assert_int_equal(gate_judge_replication(&gate, 3 + i, &replication),
                         i == GATE_ERRORS_LIMIT ? GATE_CANT_JUDGE : GATE_NO_NEWS);
        assert_int_equal(gate.state, GATE_INCONCLUSIVE);
    }
    lag.max_is_bytes = true;
    lag.max_bytes = 1000;
    gate_start(&gate, &lag, 0);
    replication.lag_bytes = 1000;
    assert_int_equal(gate_judge_replication(&gate, 1, &replication), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_PASS);
    replication.lag_bytes = 1001;
    (void)gate_judge_replication(&gate, 2, &replication);
    assert_int_equal(gate.state, GATE_FAIL);
}

static void test_broken(void **state)
{
    (void)state;
    struct settings_gate broken = settings(GATE_REPLICATION_BROKEN);
    struct gate gate;
    broken.failures = 1;
    gate_start(&gate, &broken, 0);
    const struct gate_replication replication = {
        .known = true, .broken = true, .problem = "the worker fails"};
    assert_int_equal(gate_judge_replication(&gate, 1, &replication), GATE_HAS_FAILED);
    assert_string_equal(gate.reason, "the worker fails");
}

static void test_query_and_command(void **state)
{
    (void)state;
    struct settings_gate query = settings(GATE_SQL), command = settings(GATE_COMMAND);
    struct gate gate;
    struct error error;
    query.failures = command.failures = 1;
    gate_start(&gate, &query, 0);
    assert_int_equal(gate_judge_value(&gate, 1, "t", NULL), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_PASS);
    error_set(&error, ERROR_TIMEOUT, "no answer within 2 s");
    assert_int_equal(gate_judge_value(&gate, 2, NULL, &error), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_INCONCLUSIVE);
    assert_int_equal(gate_judge_value(&gate, 3, NULL, NULL), GATE_HAS_FAILED);
    assert_string_equal(gate.reason, "the query says null instead of t");
    gate_start(&gate, &command, 0);
    assert_int_equal(gate_judge_command(&gate, 1, false, false, "could not be started"), GATE_NO_NEWS);
    assert_int_equal(gate.state, GATE_INCONCLUSIVE);
    assert_int_equal(gate_judge_command(&gate, 2, false, true, "exited with 1"), GATE_HAS_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_errors_fail_after_failures_in_a_row),
        cmocka_unit_test(test_too_few_samples_keep_collecting),
        cmocka_unit_test(test_slower_than_the_other_side_was),
        cmocka_unit_test(test_grace),
        cmocka_unit_test(test_lag),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_query_and_command),
    };
    set_bounds();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
