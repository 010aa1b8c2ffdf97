/* replication/names.h, replication/sql.h: names that fit and differ, quoting that can't be left. */
#include "conf/base/clock.h"
#include "replication/names.h"
#include "replication/sql.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void slot_names_are_unique_and_fit(void **state)
{
    (void)state;
    static const char *const databases[] = {
        "app",
        "App",
        "app-1",
        "app_1",
        "a very long name of a database that goes on and on, up to sixty-3",
        "a very long name of a database that goes on and on, up to sixty-4",
        "\xc3\xa4"};
    char names[ARRAY_LENGTH(databases) * 2][NAMES_SLOT_SIZE];
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(databases); i++) {
        (void)names_slot(SIDE_BLUE, databases[i], names[count++]);
        (void)names_slot(SIDE_GREEN, databases[i], names[count++]);
    }
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(strspn(names[i], "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(names[i]));
        assert_true(strlen(names[i]) < NAMES_SLOT_SIZE);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(names[i], names[j]);
        }
    }
    assert_non_null(strstr(names[0], "switchback_app_"));
    assert_non_null(strstr(names[0], "_to_green"));
}

static void check_literal(const char *text, const char *expected)
{
    struct strbuf sql;
    strbuf_init(&sql, 1024);
    sql_literal(&sql, text);
    assert_string_equal(strbuf_text(&sql), expected);
    strbuf_deinit(&sql);
}

static void quoting(void **state)
{
    (void)state;
    check_literal("", "''");
    check_literal("it's", "'it''s'");
    check_literal("back\\slash", "E'back\\\\slash'");
    check_literal("\\'; drop table t; --", "E'\\\\''; drop table t; --'");
    struct strbuf sql;
    strbuf_init(&sql, 1024);
    sql_identifier(&sql, "we\"ird");
    assert_string_equal(strbuf_text(&sql), "\"we\"\"ird\"");
    strbuf_clear(&sql);
    char *items[] = {"a", "b'c"};
    const struct settings_list list = {.items = items, .count = 2};
    sql_text_array(&sql, &list);
    assert_string_equal(strbuf_text(&sql), "array['a','b''c']::text[]");
    strbuf_deinit(&sql);
}

static void formats(void **state)
{
    (void)state;
    struct strbuf sql;
    strbuf_init(&sql, 1024);
    sql_format(&sql, "%s %L %I %u %d 100%%", "select", "x'y", "T", UINT64_MAX, INT64_MIN);
    assert_string_equal(strbuf_text(&sql),
                        "select 'x''y' \"T\" 18446744073709551615 -9223372036854775808 100%");
    strbuf_deinit(&sql);
}

static void limits_never_mean_none(void **state)
{
    (void)state;
    struct strbuf sql;
    strbuf_init(&sql, 1024);
    sql_limits(&sql, 0);
    assert_string_equal(strbuf_text(&sql), "");
    sql_limits(&sql, clock_mono_us() - 5000000);
    assert_string_equal(strbuf_text(&sql), "set local lock_timeout = 1; set local statement_timeout = 1; ");
    strbuf_deinit(&sql);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slot_names_are_unique_and_fit),
        cmocka_unit_test(quoting),
        cmocka_unit_test(formats),
        cmocka_unit_test(limits_never_mean_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
