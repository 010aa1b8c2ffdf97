/* replication/check_items: how answers of the clusters become items. */
#include "replication/check_items.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static PGresult *rows(int columns, size_t count, const char *const *fields)
{
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc description[4] = {
        {.name = (char[]){"a"}}, {.name = (char[]){"b"}}, {.name = (char[]){"c"}}, {.name = (char[]){"d"}}};
    assert_non_null(result);
    assert_true(PQsetResultAttrs(result, columns, description));
    for (size_t i = 0; i < count; i++) {
        char text[64];
        assert_true(strlen(fields[i]) < sizeof text);
        memcpy(text, fields[i], strlen(fields[i]) + 1);
        assert_true(PQsetvalue(result, (int)i / columns, (int)i % columns, text, (int)strlen(text)));
    }
    return result;
}

static const struct check_place nowhere = {.database = "", .side = ""};
static const char *const names[2] = {"blue", "green"};

static const struct check comparison = {.id = "columns",
                                        .passes = "they fit",
                                        .finds = "they differ",
                                        .remedy = "make them alike",
                                        .compares = true,
                                        .missing = CHECK_FAIL,
                                        .extra = CHECK_WARN,
                                        .differs = CHECK_WARN};

static void rows_become_objects_of_the_worst_state(void **state)
{
    (void)state;
    static const struct check check = {.id = "slots", .passes = "free", .finds = "too few", .remedy = "more"};
    static const char *const fields[] = {"warn", "wal", "1 free", "fail", "slot", ""};
    struct check_items items = {0};
    const struct check_place place = {.database = "app", .side = "green"};
    PGresult *found = rows(3, ARRAY_LENGTH(fields), fields);
    assert_non_null(check_items_want(&items, &check));
    check_items_found(&items, &check, &place, found);
    check_items_describe(&items, &check);
    assert_int_equal(items.count, 1);
    assert_int_equal(items.items[0].state, CHECK_FAIL);
    assert_string_equal(items.items[0].message, "too few");
    assert_string_equal(items.items[0].remedy, "more");
    assert_int_equal(items.items[0].objects.count, 2);
    assert_string_equal(items.items[0].objects.items[0], "app: green: wal: 1 free");
    assert_string_equal(items.items[0].objects.items[1], "app: green: slot");
    PQclear(found);
    check_items_deinit(&items);
}

static void nothing_found_passes(void **state)
{
    (void)state;
    struct check_items items = {0};
    static const char *const fields[] = {"t.a", "int"};
    PGresult *side = rows(2, ARRAY_LENGTH(fields), fields);
    assert_non_null(check_items_want(&items, &comparison));
    check_items_compare(&items, &comparison, &nowhere, names, side, side);
    check_items_describe(&items, &comparison);
    assert_int_equal(items.items[0].state, CHECK_PASS);
    assert_string_equal(items.items[0].message, "they fit");
    assert_string_equal(items.items[0].remedy, "");
    assert_int_equal(items.items[0].objects.count, 0);
    PQclear(side);
    check_items_deinit(&items);
}

static void comparison_finds_both_ways_in_any_order(void **state)
{
    (void)state;
    static const char *const here[] = {"t.z", "int", "t.a", "int", "t.m", "int"};
    static const char *const there[] = {"t.y", "int", "t.m", "text", "t.z", "int"};
    struct check_items items = {0};
    PGresult *active = rows(2, ARRAY_LENGTH(here), here);
    PGresult *standby = rows(2, ARRAY_LENGTH(there), there);
    check_items_compare(&items, &comparison, &nowhere, names, active, standby);
    const struct check_item *item = &items.items[0];
    assert_int_equal(item->state, CHECK_FAIL);
    assert_int_equal(item->objects.count, 3);
    assert_string_equal(item->objects.items[0], "t.a: missing on green");
    assert_string_equal(item->objects.items[1], "t.m: int on blue, text on green");
    assert_string_equal(item->objects.items[2], "t.y: missing on blue");
    PQclear(active);
    PQclear(standby);
    check_items_deinit(&items);
}

static void a_row_may_know_its_state_better(void **state)
{
    (void)state;
    static const char *const here[] = {"t.m", "1", "", "pass"};
    static const char *const there[] = {"t.m", "2", "", "", "t.y", "int", "fail", ""};
    struct check_items items = {0};
    PGresult *active = rows(4, ARRAY_LENGTH(here), here);
    PGresult *standby = rows(4, ARRAY_LENGTH(there), there);
    check_items_compare(&items, &comparison, &nowhere, names, active, standby);
    assert_int_equal(items.items[0].state, CHECK_FAIL);
    assert_int_equal(items.items[0].objects.count, 1);
    assert_string_equal(items.items[0].objects.items[0], "t.y: missing on blue");
    PQclear(active);
    PQclear(standby);
    check_items_deinit(&items);
}

static void secrets_are_not_shown(void **state)
{
    (void)state;
    static const struct check check = {.id = "verifiers", .differs = CHECK_FAIL, .secret = true};
    static const char *const here[] = {"app", "one"};
    static const char *const there[] = {"app", "other"};
    struct check_items items = {0};
    PGresult *active = rows(2, ARRAY_LENGTH(here), here);
    PGresult *standby = rows(2, ARRAY_LENGTH(there), there);
    check_items_compare(&items, &check, &nowhere, names, active, standby);
    assert_string_equal(items.items[0].objects.items[0], "app: differs");
    PQclear(active);
    PQclear(standby);
    check_items_deinit(&items);
}

static void objects_are_bounded(void **state)
{
    (void)state;
    struct check_items items = {0};
    for (int i = 0; i < 1000; i++) {
        check_items_add(&items, &comparison, CHECK_WARN, "another");
    }
    assert_int_equal(items.items[0].objects.count, 201);
    assert_string_equal(items.items[0].objects.items[200], "and more");
    check_items_deinit(&items);
}

/* Each id's first row in the tables carries its texts, and each row can be asked. */
static void the_tables_are_whole(void **state)
{
    (void)state;
    static const struct check_group *const groups[] = {&check_resources, &check_objects, &check_definition,
                                                       &check_parity, &check_streams};
    for (size_t g = 0; g < ARRAY_LENGTH(groups); g++) {
        const char *last = "";
        for (size_t i = 0; i < groups[g]->count; i++) {
            const struct check *check = &groups[g]->checks[i];
            assert_non_null(check->sql);
            assert_int_not_equal(check->on, 0);
            assert_true(!check->compares || check->on == CHECK_ON_BOTH);
            if (strcmp(check->id, last) != 0) {
                assert_non_null(check->passes);
                assert_non_null(check->finds);
                assert_non_null(check->remedy);
            }
            last = check->id;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_become_objects_of_the_worst_state),
        cmocka_unit_test(nothing_found_passes),
        cmocka_unit_test(comparison_finds_both_ways_in_any_order),
        cmocka_unit_test(a_row_may_know_its_state_better),
        cmocka_unit_test(secrets_are_not_shown),
        cmocka_unit_test(objects_are_bounded),
        cmocka_unit_test(the_tables_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
