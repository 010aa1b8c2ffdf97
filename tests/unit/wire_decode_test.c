/* proxy/wire/decode and build: what one writes the other reads, and nothing reads past the end. */
#include "proxy/wire/build.h"
#include "proxy/wire/decode.h"
#include "proxy/wire/frame.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t built[2048];

static struct build building(void)
{
    struct build build;
    build_init(&build, built, sizeof built);
    return build;
}

/* The body of the one message that was built. */
static struct slice body_of(const struct build *build)
{
    assert_true(build_fits(build));
    uint32_t least = 0;
    uint32_t most = 0;
    assert_true(frame_bounds(FRAME_FROM_CLIENT, built[0], &least, &most) ||
                frame_bounds(FRAME_FROM_SERVER, built[0], &least, &most));
    return slice_of(built + FRAME_HEADER_SIZE, build->length - FRAME_HEADER_SIZE);
}

static void from_the_server(void **state)
{
    (void)state;
    char status = 0;
    struct slice one;
    struct slice two;
    uint32_t number = 0;
    struct decode_error error;

    struct build build = building();
    build_ready(&build, 'T');
    assert_true(decode_ready(body_of(&build), &status));
    assert_int_equal(status, 'T');
    assert_false(decode_ready(slice_of("X", 1), &status));

    build = building();
    build_error(&build, "FATAL", "57P01", "terminating", "come back");
    decode_error(body_of(&build), &error);
    assert_true(decode_error_is_fatal(&error));
    assert_true(slice_equals(error.sqlstate, "57P01"));
    assert_true(slice_equals(error.message, "terminating"));
    assert_true(slice_equals(error.hint, "come back"));
    decode_error(slice_of("SFEHLER\0VERROR\0M", 16), &error); /* cut, and without a code */
    assert_true(slice_equals(error.severity, "ERROR"));
    assert_int_equal(error.sqlstate.length, 0);
    assert_false(decode_error_is_fatal(&error));

    build = building();
    build_parameter_status(&build, slice_text("TimeZone"), slice_text("UTC"));
    assert_true(decode_parameter_status(body_of(&build), &one, &two));
    assert_true(slice_equals(one, "TimeZone") && slice_equals(two, "UTC"));

    build = building();
    build_backend_key(&build, 77, slice_text("abcd"));
    assert_true(decode_backend_key(body_of(&build), &number, &one));
    assert_int_equal(number, 77);
    assert_true(slice_equals(one, "abcd"));

    uint32_t unknown = 0;
    static const char options[] = "_pq_.one\0x\0user\0y";
    build = building();
    build_negotiate(&build, 3 << 16 | 2, slice_of(options, sizeof options));
    assert_true(decode_negotiate(body_of(&build), &number, &unknown));
    assert_int_equal(number, 3 << 16 | 2);
    assert_int_equal(unknown, 1);

    build = building();
    build_authentication_sasl(&build, "SCRAM-SHA-256", NULL);
    assert_true(decode_authentication(body_of(&build), &number, &one));
    assert_int_equal(number, AUTHENTICATION_SASL);
    assert_true(decode_sasl_offers(one, "SCRAM-SHA-256"));
    assert_false(decode_sasl_offers(one, "SCRAM-SHA-256-PLUS"));
    build = building();
    build_authentication_ok(&build);
    assert_true(decode_authentication(body_of(&build), &number, &one));
    assert_int_equal(number, AUTHENTICATION_OK);
}

static void rows_and_descriptions(void **state)
{
    (void)state;
    uint16_t count = 0;
    struct slice rest;
    struct slice value;
    bool is_null = false;
    struct decode_field field;

    struct build build = building();
    build_begin(&build, 'T');
    build_u16(&build, 1);
    build_string(&build, "name");
    build_u32(&build, 16400);
    build_u16(&build, 2);
    build_u32(&build, 25);
    build_u16(&build, 0xffff);
    build_u32(&build, UINT32_MAX);
    build_u16(&build, 1);
    build_end(&build);
    assert_true(decode_row_description(body_of(&build), &count, &rest));
    assert_int_equal(count, 1);
    assert_true(decode_field_next(&rest, &field));
    assert_true(slice_equals(field.name, "name"));
    assert_int_equal(field.table_oid, 16400);
    assert_int_equal(field.type_oid, 25);
    assert_int_equal(field.format, 1);
    assert_false(decode_field_next(&rest, &field));

    build = building();
    build_begin(&build, 'D');
    build_u16(&build, 2);
    build_u32(&build, UINT32_MAX);
    build_u32(&build, 2);
    build_bytes(&build, "hi", 2);
    build_end(&build);
    assert_true(decode_data_row(body_of(&build), &count, &rest));
    assert_true(decode_column_next(&rest, &value, &is_null));
    assert_true(is_null);
    assert_true(decode_column_next(&rest, &value, &is_null));
    assert_true(!is_null && slice_equals(value, "hi"));
    assert_false(decode_column_next(&rest, &value, &is_null));

    assert_true(decode_parameter_description(slice_of("\0\2\0\0\0\x17\0\0\1\0", 10), &count, &rest));
    assert_int_equal(decode_oid(rest, 0), 23);
    assert_int_equal(decode_oid(rest, 1), 256);
    assert_int_equal(decode_oid(rest, 2), 0);
    assert_false(decode_parameter_description(slice_of("\0\3\0\0\0\x17\0\0\1\0", 10), &count, &rest));

    uint8_t format = 9;
    assert_true(decode_copy(slice_of("\0\0\1\0\0", 5), &format, &count));
    assert_int_equal(format, 0);
    assert_int_equal(count, 1);
    assert_false(decode_copy(slice_of("\0\0\2\0\0", 5), &format, &count));
}

static void from_the_client(void **state)
{
    (void)state;
    uint32_t types[2] = {23, 0};
    struct slice parameters[2] = {slice_text("a"), {.data = NULL}};
    struct decode_parse parse;
    struct decode_bind bind;
    struct slice value;
    struct slice name;
    bool is_null = false;
    char kind = 0;
    uint32_t rows = 0;

    struct build build = building();
    build_parse(&build, slice_text("s1"), slice_text("select $1"), types, 2);
    assert_true(decode_parse(body_of(&build), &parse));
    assert_true(slice_equals(parse.name, "s1") && slice_equals(parse.text, "select $1"));
    assert_int_equal(parse.type_count, 2);
    assert_int_equal(decode_oid(parse.types, 0), 23);

    build = building();
    build_bind(&build, slice_text("p"), slice_text("s1"), parameters, 2);
    assert_true(decode_bind(body_of(&build), &bind));
    assert_true(slice_equals(bind.portal, "p") && slice_equals(bind.statement, "s1"));
    assert_int_equal(bind.parameter_count, 2);
    assert_true(decode_bind_is_text(&bind, 1));
    assert_true(decode_column_next(&bind.parameters, &value, &is_null));
    assert_true(slice_equals(value, "a"));
    assert_true(decode_column_next(&bind.parameters, &value, &is_null) && is_null);

    build = building();
    build_describe(&build, 'S', slice_text("s1"));
    assert_true(decode_target(body_of(&build), &kind, &name));
    assert_true(kind == 'S' && slice_equals(name, "s1"));
    assert_false(decode_target(slice_of("Xs\0", 3), &kind, &name));

    build = building();
    build_execute(&build, slice_text("p"), 7);
    assert_true(decode_execute(body_of(&build), &name, &rows));
    assert_int_equal(rows, 7);

    build = building();
    build_query(&build, "select 1");
    assert_true(decode_text(body_of(&build), &value));
    assert_true(slice_equals(value, "select 1"));
    assert_false(decode_text(slice_of("a\0b", 3), &value));
    assert_false(decode_text(slice_of("ab", 2), &value));

    build = building();
    build_sasl_initial(&build, "SCRAM-SHA-256", slice_text("n,,n=,r=x"));
    assert_true(decode_sasl_initial(body_of(&build), &name, &value));
    assert_true(slice_equals(name, "SCRAM-SHA-256") && slice_equals(value, "n,,n=,r=x"));
}

static void building_counts_past_the_end(void **state)
{
    (void)state;
    uint8_t small[8];
    struct build build;
    build_init(&build, NULL, 0);
    build_query(&build, "select 1");
    size_t needed = build.length;
    assert_int_equal(needed, 5 + 9);
    memset(small, 0x55, sizeof small);
    build_init(&build, small, sizeof small - 1);
    build_query(&build, "select 1");
    assert_false(build_fits(&build));
    assert_int_equal(build.length, needed);
    assert_int_equal(small[7], 0x55);
}

static void decode_everything(struct slice body)
{
    struct decode_error error;
    struct decode_parse parse;
    struct decode_bind bind;
    struct decode_field field;
    struct slice one;
    struct slice two;
    uint32_t number = 0;
    uint16_t count = 0;
    uint8_t format = 0;
    char kind = 0;
    bool is_null = false;
    decode_error(body, &error);
    (void)decode_error_is_fatal(&error);
    (void)!decode_text(body, &one);
    (void)!decode_parameter_status(body, &one, &two);
    (void)!decode_backend_key(body, &number, &one);
    (void)!decode_negotiate(body, &number, &number);
    if (decode_authentication(body, &number, &one)) {
        (void)!decode_sasl_offers(one, "x");
    }
    (void)!decode_notification(body, &number, &one, &two);
    (void)!decode_copy(body, &format, &count);
    if (decode_row_description(body, &count, &one)) {
        while (decode_field_next(&one, &field)) {
        }
    }
    if (decode_data_row(body, &count, &one)) {
        while (decode_column_next(&one, &two, &is_null)) {
        }
    }
    (void)!decode_parameter_description(body, &count, &one);
    (void)!decode_parse(body, &parse);
    if (decode_bind(body, &bind)) {
        (void)decode_bind_is_text(&bind, bind.parameter_count);
    }
    (void)!decode_execute(body, &one, &number);
    (void)!decode_target(body, &kind, &one);
    (void)!decode_sasl_initial(body, &one, &two);
    (void)!decode_ready(body, &kind);
}

static void random_bytes_are_survived(void **state)
{
    (void)state;
    uint64_t seed = 99;
    struct guard guard;
    guard_init(&guard, 64);
    for (int round = 0; round < 50000; round++) {
        uint8_t bytes[48];
        size_t length = random_next(&seed) % (sizeof bytes + 1);
        for (size_t i = 0; i < length; i++) {
            bytes[i] = (uint8_t)(random_next(&seed) % 2 == 0 ? 0 : random_next(&seed));
        }
        decode_everything(slice_of(guard_copy(&guard, bytes, length), length));
    }
    guard_deinit(&guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_the_server),           cmocka_unit_test(rows_and_descriptions),
        cmocka_unit_test(from_the_client),           cmocka_unit_test(building_counts_past_the_end),
        cmocka_unit_test(random_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
