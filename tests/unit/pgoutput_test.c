/* replication/pgoutput.c: messages as PostgreSQL's manual writes them down, and what is none. */
#include "replication/pgoutput.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pgoutput_message message;

#define PARSE(text) pgoutput_parse((const uint8_t *)(text), sizeof(text) - 1, &message)

static void rows(void **state)
{
    (void)state;
    assert_true(PARSE("I\0\0\x40\x01N\0\x02t\0\0\0\x02"
                      "42n"));
    assert_int_equal(message.kind, PGOUTPUT_INSERT);
    assert_int_equal(message.relation, 0x4001);
    assert_int_equal(message.new.count, 2);
    assert_int_equal(message.new.values[0].length, 2);
    assert_memory_equal(message.new.values[0].text, "42", 2);
    assert_int_equal(message.new.values[1].kind, 'n');
    assert_int_equal(message.old.count, 0);

    assert_true(PARSE("U\0\0\0\x07K\0\x01t\0\0\0\x01"
                      "1N\0\x01u"));
    assert_int_equal(message.old.count, 1);
    assert_int_equal(message.new.values[0].kind, 'u');
    assert_true(PARSE("U\0\0\0\x07N\0\x01t\0\0\0\0"));
    assert_int_equal(message.old.count, 0);
    assert_true(PARSE("D\0\0\0\x07O\0\x01t\0\0\0\x01x"));
    assert_int_equal(message.kind, PGOUTPUT_DELETE);
}

static void transactions_and_tables(void **state)
{
    (void)state;
    assert_true(PARSE("C\0\0\0\0\x01\0\0\0\x10\0\0\0\x01\0\0\0\x20\0\0\0\0\0\0\0\0"));
    assert_true(message.end_lsn == (UINT64_C(1) << 32 | 0x20));
    assert_true(PARSE(
        "R\0\0\0\x07public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff"));
    assert_int_equal(message.column_count, 2);
    assert_memory_equal(message.columns[1].text, "v", 2);
    assert_true(PARSE("T\0\0\0\x02\0\0\0\0\x07\0\0\0\x08"));
    assert_int_equal(message.relation_count, 2);
    assert_int_equal(message.relations[1], 8);
    assert_true(PARSE("Yany"));
    assert_int_equal(message.kind, PGOUTPUT_OTHER);
}

static void what_is_cut_off_is_none(void **state)
{
    (void)state;
    static const char whole[] = "U\0\0\0\x07K\0\x01t\0\0\0\x01"
                                "1N\0\x02t\0\0\0\x01"
                                "1n";
    for (size_t length = 0; length < sizeof whole - 1; length++) {
        uint8_t *copy = malloc(length == 0 ? 1 : length); /* so that a sanitizer sees a byte too many */
        memcpy(copy, whole, length);
        assert_false(pgoutput_parse(copy, length, &message));
        free(copy);
    }
    assert_true(pgoutput_parse((const uint8_t *)whole, sizeof whole - 1, &message));
    assert_false(PARSE("I\0\0\0\x07N\0\x01t\xff\xff\xff\xff"));
    assert_false(PARSE("I\0\0\0\x07N\0\x01"
                       "b\0\0\0\0"));
    assert_false(PARSE("I\0\0\0\x07X"));
    assert_false(PARSE("D\0\0\0\x07"));
    assert_false(PARSE("R\0\0\0\x07public"));
    assert_false(PARSE("T\0\0\xff\xff\0\0\0\0\x07"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows),
        cmocka_unit_test(transactions_and_tables),
        cmocka_unit_test(what_is_cut_off_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
