/* conf/base: what everything stands on. */
#include "conf/base/clock.h"
#include "conf/base/error.h"
#include "conf/base/side.h"
#include "conf/base/strbuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void strbuf_stops_at_its_limit(void **state)
{
    (void)state;
    struct strbuf buffer;
    strbuf_init(&buffer, 4);
    strbuf_puts(&buffer, "abc");
    assert_string_equal(strbuf_text(&buffer), "abc");
    strbuf_printf(&buffer, "%d", 42);
    assert_true(buffer.failed);
    assert_string_equal(strbuf_text(&buffer), "abc");
    assert_null(strbuf_take(&buffer));
    strbuf_deinit(&buffer);
}

static void error_escapes_control_characters(void **state)
{
    (void)state;
    struct error error;
    assert_false(error_set(&error, ERROR_SQL, "bad \x1b[31m%s", "a\rb"));
    assert_string_equal(error.message, "bad ?[31ma?b");
    assert_string_equal(error_code_text(ERROR_SQL), "sql");
    assert_int_equal(error_code_parse("flip_running"), ERROR_FLIP_RUNNING);
    assert_int_equal(error_code_parse("nonsense"), ERROR_INTERNAL);
}

static void clock_reads_as_people_do(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_SIZE];
    assert_string_equal(clock_format(0, text), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_format_duration(1500, text), "1.5 ms");
    assert_string_equal(clock_format_duration(140000, text), "140 ms");
    assert_string_equal(clock_format_duration(200 * 1000000LL, text), "3 min 20 s");
}

static void sides_have_names(void **state)
{
    (void)state;
    enum side side = SIDE_BLUE;
    assert_true(side_parse("green", &side));
    assert_int_equal(side, SIDE_GREEN);
    assert_int_equal(side_other(side), SIDE_BLUE);
    assert_false(side_parse("red", &side));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strbuf_stops_at_its_limit),
        cmocka_unit_test(error_escapes_control_characters),
        cmocka_unit_test(clock_reads_as_people_do),
        cmocka_unit_test(sides_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
