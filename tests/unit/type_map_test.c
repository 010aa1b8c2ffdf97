/* proxy/type_map, proxy/type_values: a type's number on either side, and numbers inside binary values. */
#include "guard.h"
#include "numbering_scene.h"
#include "proxy/type_values.h"

static void translation_is_one_to_one(void **state)
{
    struct scene *scene = *state;
    struct translation there = {.map = scene->map, .from = SIDE_BLUE, .to = SIDE_GREEN};
    struct translation back = {.map = scene->map, .from = SIDE_GREEN, .to = SIDE_BLUE};
    static bool taken[200];
    memset(taken, 0, sizeof taken);
    for (uint32_t oid = 16384; oid < 16584; oid++) {
        uint32_t other = translate(there, oid);
        assert_int_equal(translate(back, other), oid);
        assert_int_equal(translate(there, translate(back, oid)), oid);
        if (other >= 16384 && other < 16584) {
            assert_false(taken[other - 16384]);
            taken[other - 16384] = true;
        }
    }
    assert_int_equal(translate(there, MOOD_BLUE), MOOD_GREEN);
    assert_int_equal(translate(there, COLOR_BLUE), COLOR_GREEN);
    assert_int_equal(translate(there, SAME), SAME);
    assert_int_equal(translate(there, 25), 25);
    assert_int_equal(translate(back, ONLY_GREEN), ONLY_GREEN);
    /* what is nobody's there must not become somebody's */
    assert_int_equal(translate(there, ONLY_BLUE), ONLY_BLUE);
    assert_true(translate(back, HIDDEN_GREEN) > INT32_MAX);
    assert_true(translate(there, MOODS_GREEN) > INT32_MAX);
    assert_true(translate(there, BOTH) > INT32_MAX);
    assert_int_equal(translate_known(back, HIDDEN_GREEN), HIDDEN_GREEN);
    assert_int_equal(translate((struct translation){.map = NULL, .to = SIDE_GREEN}, MOOD_BLUE), MOOD_BLUE);
}

static void a_new_map_must_keep_the_clients_numbers(void **state)
{
    struct scene *scene = *state;
    struct proxy_type changed[ARRAY_LENGTH(types)];
    memcpy(changed, types, sizeof types);
    changed[0].oids[SIDE_GREEN] = 16999; /* made again on the other side: the client doesn't see it */
    changed[2].oids[SIDE_BLUE] = 0;      /* dropped at home */
    struct type_map *map = type_map_new(changed, ARRAY_LENGTH(types));
    assert_int_equal(type_map_disagreement(scene->map, map, SIDE_BLUE), 0);
    type_map_unref(map);
    changed[1].oids[SIDE_BLUE] = 16998; /* made again at home: its client's number is nobody's now */
    map = type_map_new(changed, ARRAY_LENGTH(types));
    assert_int_equal(type_map_disagreement(scene->map, map, SIDE_BLUE), COLOR_BLUE);
    assert_true(type_map_differs(map));
    type_map_unref(map);
    map = type_map_new(&types[ARRAY_LENGTH(types) - 1], 1);
    assert_false(type_map_differs(map));
    type_map_unref(map);
}

static void broken_values_are_left_alone(void **state)
{
    struct scene *scene = *state;
    struct translation t = {.map = scene->map, .from = SIDE_GREEN, .to = SIDE_BLUE};
    static const uint32_t kinds[] = {MOODS_GREEN, PAIR_GREEN, SPAN_GREEN, SPANS_GREEN, LIST_GREEN, OID,
                                     OIDS,        RECORD,     20,         21,          23};
    struct guard guard;
    uint8_t bytes[128];
    uint64_t seed = 42;
    guard_init(&guard, sizeof bytes);
    for (int i = 0; i < 200000; i++) {
        size_t length = random_next(&seed) % sizeof bytes;
        for (size_t j = 0; j < length; j++) { /* small numbers, and now and then a type of ours */
            bytes[j] = (uint8_t)(random_next(&seed) % 4 == 0 ? random_next(&seed) % 8 : 0);
        }
        if (length > 12) {
            static const uint8_t mood[] = {0, 0, MOOD_GREEN >> 8, MOOD_GREEN & 0xff};
            memcpy(bytes + 4 * (random_next(&seed) % (length / 4)), mood, sizeof mood);
        }
        uint8_t *copy = guard_copy(&guard, bytes, length);
        value_translate_binary(t, kinds[random_next(&seed) % ARRAY_LENGTH(kinds)], copy, length);
    }
    guard_deinit(&guard);
}

/* A nesting that no server makes doesn't use up the stack. */
static void endless_nesting_ends(void **state)
{
    struct scene *scene = *state;
    struct translation t = {.map = scene->map, .from = SIDE_GREEN, .to = SIDE_BLUE};
    size_t length = (size_t)12 * 100000;
    uint8_t *bytes = malloc(length);
    struct build build;
    assert_non_null(bytes);
    build_init(&build, bytes, length);
    for (size_t left = length; left >= 12; left -= 12) {
        build_u32(&build, 1);
        build_u32(&build, RECORD);
        build_u32(&build, (uint32_t)left - 12);
    }
    value_translate_binary(t, RECORD, bytes, build.length);
    free(bytes);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(translation_is_one_to_one),
        TEST(a_new_map_must_keep_the_clients_numbers),
        TEST(broken_values_are_left_alone),
        TEST(endless_nesting_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
