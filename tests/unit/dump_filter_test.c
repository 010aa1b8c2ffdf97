/* replication/dump_filter: what of a dump doesn't reach the standby. */
#include "replication/dump_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_filtered(const char *text, int major, const char *expected)
{
    struct strbuf sql;
    strbuf_init(&sql, 4096);
    dump_filter_sql(text, major, &sql);
    assert_string_equal(strbuf_text(&sql), expected);
    strbuf_deinit(&sql);
}

static void frame_of_psql_goes(void **state)
{
    (void)state;
    assert_filtered("-- dump\n\\restrict aBc\nSET x = 1;\nCREATE TABLE t ();\n\\unrestrict aBc\n", 17,
                    "-- dump\nSET x = 1;\nCREATE TABLE t ();\n");
}

static void bodies_of_functions_stay(void **state)
{
    (void)state;
    static const char body[] = "CREATE FUNCTION f() AS $$\n\\restrict aBc\n\\unrestrict other\nSET "
                               "transaction_timeout = 0;\n$$;\n";
    assert_filtered(body, 15, body);
}

static void setting_of_newer_servers_goes(void **state)
{
    (void)state;
    static const char text[] = "SET transaction_timeout = 0;\nSET lock_timeout = 0;\n";
    assert_filtered(text, 16, "SET lock_timeout = 0;\n");
    assert_filtered(text, 17, text);
}

static void what_is_ours_leaves_the_list(void **state)
{
    (void)state;
    struct strbuf kept;
    strbuf_init(&kept, 4096);
    dump_filter_list("1; 2620 1 TRIGGER public plain !switchback_fence postgres\n"
                     "2; 2620 2 TRIGGER public plain zz postgres\n"
                     "3; 3466 3 EVENT TRIGGER - switchback_refuse_ddl switchback\n"
                     "4; 3466 4 EVENT TRIGGER - audit postgres\n"
                     "5; 0 0 COMMENT - EVENT TRIGGER switchback_refuse_ddl switchback",
                     &kept);
    assert_string_equal(strbuf_text(&kept), "2; 2620 2 TRIGGER public plain zz postgres\n"
                                            "4; 3466 4 EVENT TRIGGER - audit postgres\n");
    strbuf_deinit(&kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_of_psql_goes),
        cmocka_unit_test(bodies_of_functions_stay),
        cmocka_unit_test(setting_of_newer_servers_goes),
        cmocka_unit_test(what_is_ours_leaves_the_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
