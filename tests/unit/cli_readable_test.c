/* control/cli: texts, figures, times and columns. */
#include "conf/base/compiler.h"
#include "control/cli/columns.h"
#include "control/cli/readable.h"
#include "render_scene.h"

static char *escaped(const char *text)
{
    struct strbuf out;
    strbuf_init(&out, 1000);
    readable_put(&out, text);
    return strbuf_take(&out);
}

static void expect_escaped(const char *text, const char *expected)
{
    char *found = escaped(text);
    assert_string_equal(found, expected);
    free(found);
}

static void texts_of_peers_cannot_act_on_a_terminal(void **state)
{
    (void)state;
    expect_escaped("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x98", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x98");
    expect_escaped("\x1b[2J\x07", "\\x1b[2J\\x07");
    expect_escaped("a\nb\tc\rd\x7f", "a\\x0ab\\x09c\\x0dd\\x7f");
    expect_escaped("\xc2\x9b"
                   "31m",
                   "\\x9b31m"); /* C1: CSI in one character */
    expect_escaped("\xe2\x80\xae"
                   "evil",
                   "\\u{202e}evil");                                       /* right to left from here */
    expect_escaped("\xff\xc3", "\\xff\\xc3");                              /* no UTF-8 */
    expect_escaped("\xc0\x80 \xe0\x80\x80", "\\xc0\\x80 \\xe0\\x80\\x80"); /* overlong */
}

static void figures_read_as_people_say_them(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 1000);
    readable_put_duration(&out, 0);
    strbuf_puts(&out, ", ");
    readable_put_duration(&out, 1.5);
    strbuf_puts(&out, ", ");
    readable_put_duration(&out, 200000);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 0);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 1);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 1536);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 64e6);
    strbuf_puts(&out, ", ");
    readable_put_count(&out, 1, "row", "rows");
    assert_string_equal(strbuf_text(&out), "0 s, 1.5 ms, 3 min 20 s, 0 bytes, 1 byte, 1.5 kB, 64 MB, 1 row");
    strbuf_deinit(&out);
}

static void times_of_other_days_have_a_date(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 1000);
    assert_int_equal(readable_parse_time("2026-11-20T12:00:00Z"), NOW);
    assert_int_equal(readable_parse_time("2026-11-20T12:00:00.25Z"), NOW + 250000);
    assert_int_equal(readable_parse_time("yesterday"), -1);
    assert_int_equal(readable_parse_time(""), -1);
    readable_put_time(&out, NOW - 3600000000, NOW);
    strbuf_puts(&out, ", ");
    readable_put_time(&out, NOW - 86400000000, NOW);
    strbuf_puts(&out, ", ");
    readable_put_time(&out, -1, NOW);
    assert_string_equal(strbuf_text(&out), "11:00:00, 2026-11-19 12:00:00, unknown");
    strbuf_deinit(&out);
}

static void columns_are_as_wide_as_they_must(void **state)
{
    (void)state;
    struct strbuf out;
    struct columns columns;
    strbuf_init(&out, 1000);
    columns_init(&columns, 3);
    columns_add(&columns, (const char *const[]){"A", "B", "C"});
    columns_add(&columns, (const char *const[]){"caf\xc3\xa9", "", "x\n"});
    columns_add(&columns, (const char *const[]){"1", "22", ""});
    columns_print(&columns, &out, "  ");
    assert_string_equal(strbuf_text(&out), "  A     B   C\n"
                                           "  caf\xc3\xa9      x\\x0a\n"
                                           "  1     22\n");
    strbuf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_peers_cannot_act_on_a_terminal),
        cmocka_unit_test(figures_read_as_people_say_them),
        cmocka_unit_test(times_of_other_days_have_a_date),
        cmocka_unit_test(columns_are_as_wide_as_they_must),
    };
    return cmocka_run_group_tests(tests, in_utc, NULL);
}
