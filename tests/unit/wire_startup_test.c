/* proxy/wire/startup: the packets without a type. */
#include "proxy/wire/build.h"
#include "proxy/wire/startup.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static size_t startup_packet(uint8_t bytes[512], uint32_t version, const char *const *pairs)
{
    struct build build;
    build_init(&build, bytes, 512);
    build_startup_begin(&build, version);
    for (; *pairs != NULL; pairs += 2) {
        build_startup_parameter(&build, slice_text(pairs[0]), slice_text(pairs[1]));
    }
    build_startup_end(&build);
    assert_true(build_fits(&build));
    return build.length;
}

static size_t request(uint8_t bytes[512], uint32_t code, const char *rest, size_t length)
{
    struct build build;
    build_init(&build, bytes, 512);
    build_u32(&build, (uint32_t)(8 + length));
    build_u32(&build, code);
    build_bytes(&build, rest, length);
    return build.length;
}

static void message_at_every_length(void **state)
{
    (void)state;
    static const char *const pairs[] = {
        "user", "anna", "options", "-c a.b=c\\ d", "database", "app", "application_name", "psql", NULL};
    uint8_t bytes[512];
    size_t length = startup_packet(bytes, STARTUP_PROTOCOL_3_0, pairs);
    struct guard guard;
    guard_init(&guard, sizeof bytes);
    for (size_t have = 0; have <= length; have++) {
        struct startup startup;
        size_t consumed = 0;
        struct slice input = slice_of(guard_copy(&guard, bytes, have), have);
        enum wire_answer answer = startup_parse(input, &startup, &consumed);
        if (have < length) {
            assert_int_equal(answer, WIRE_PARTIAL);
            continue;
        }
        assert_int_equal(answer, WIRE_OK);
        assert_int_equal(consumed, length);
        assert_int_equal(startup.kind, STARTUP_MESSAGE);
        assert_true(slice_equals(startup.user, "anna"));
        assert_true(slice_equals(startup.database, "app"));
        assert_true(slice_equals(startup.options, "-c a.b=c\\ d"));
        assert_false(startup.negotiate);
        assert_false(startup_is_replication(&startup));
        struct slice rest = startup.parameters;
        struct slice name;
        struct slice value;
        int count = 0;
        while (startup_next(&rest, &name, &value)) {
            assert_true(slice_equals(name, pairs[2 * count]));
            assert_true(slice_equals(value, pairs[2 * count + 1]));
            count++;
        }
        assert_int_equal(count, 4);
    }
    guard_deinit(&guard);
}

static void newer_minor_versions_are_negotiated(void **state)
{
    (void)state;
    static const char *const pairs[] = {"user", "anna", "_pq_.one", "1", "_pq_.two", "", NULL};
    uint8_t bytes[512];
    struct startup startup;
    size_t consumed = 0;
    size_t length = startup_packet(bytes, 3 << 16 | 9999, pairs);
    assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_OK);
    assert_true(startup.negotiate);
    assert_int_equal(startup.spoken, STARTUP_PROTOCOL_3_2);
    assert_int_equal(startup.unknown_keys, 2);
    assert_true(slice_equals(startup.database, "anna"));

    uint8_t reply[128];
    static const uint8_t expected[] = "v\0\0\0\x1e\0\3\0\2\0\0\0\2_pq_.one\0_pq_.two";
    struct build build;
    build_init(&build, reply, sizeof reply);
    build_negotiate(&build, startup.spoken, startup.parameters);
    assert_int_equal(build.length, sizeof expected);
    assert_memory_equal(reply, expected, sizeof expected);

    static const struct {
        uint32_t asked, spoken;
        bool negotiate;
    } versions[] = {{3 << 16, 3 << 16, false},
                    {3 << 16 | 1, 3 << 16 | 1, false}, /* never was one; PostgreSQL 18 lets it pass, too */
                    {3 << 16 | 2, 3 << 16 | 2, false},
                    {3 << 16 | 3, 3 << 16 | 2, true}};
    for (size_t i = 0; i < ARRAY_LENGTH(versions); i++) {
        length = startup_packet(bytes, versions[i].asked, (const char *const[]){"user", "anna", NULL});
        assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_OK);
        assert_int_equal(startup.spoken, versions[i].spoken);
        assert_int_equal(startup.negotiate, versions[i].negotiate);
    }
}

static void requests(void **state)
{
    (void)state;
    uint8_t bytes[512];
    struct startup startup;
    size_t consumed = 0;
    size_t length = request(bytes, 80877103, "", 0);
    assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_OK);
    assert_int_equal(startup.kind, STARTUP_SSL_REQUEST);
    length = request(bytes, 80877104, "", 0);
    assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_OK);
    assert_int_equal(startup.kind, STARTUP_GSSENC_REQUEST);
    length = request(bytes, 80877102, "\0\0\1\2abcd", 8);
    assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_OK);
    assert_int_equal(startup.kind, STARTUP_CANCEL_REQUEST);
    assert_int_equal(startup.pid, 258);
    assert_true(slice_equals(startup.key, "abcd"));
    length = request(bytes, 80877102, "\0\0\1\2abc", 7);
    assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_BAD);
    length = request(bytes, 2 << 16, "", 0);
    assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_OK);
    assert_int_equal(startup.kind, STARTUP_UNSUPPORTED);
    assert_int_equal(startup_parse(slice_of("\x16\3\1", 3), &startup, &consumed), WIRE_OK);
    assert_int_equal(startup.kind, STARTUP_DIRECT_TLS);
    assert_int_equal(consumed, 0);
}

static void bad_packets(void **state)
{
    (void)state;
    struct startup startup;
    size_t consumed = 0;
    assert_int_equal(startup_parse(slice_of("GET ", 4), &startup, &consumed), WIRE_BAD);
    assert_int_equal(startup_parse(slice_of("G", 1), &startup, &consumed), WIRE_BAD);
    assert_int_equal(startup_parse(slice_of("\0\0\0\7", 4), &startup, &consumed), WIRE_BAD);
    /* refused by its length alone, before there is anything to allocate for */
    assert_int_equal(startup_parse(slice_of("\0\0\x27\x15", 4), &startup, &consumed), WIRE_BAD);
    assert_int_equal(startup.kind, STARTUP_NOTHING);
    assert_int_equal(startup_parse(slice_of("\0\0\x27\x14", 4), &startup, &consumed), WIRE_PARTIAL);
    /* no final NUL; a name without a value; an empty name */
    assert_int_equal(startup_parse(slice_of("\0\0\0\x0e\0\3\0\0user\0a", 14), &startup, &consumed), WIRE_BAD);
    assert_int_equal(startup_parse(slice_of("\0\0\0\x0e\0\3\0\0user\0\0", 14), &startup, &consumed),
                     WIRE_BAD);
    assert_int_equal(startup_parse(slice_of("\0\0\0\x0b\0\3\0\0\0\0\0", 11), &startup, &consumed), WIRE_BAD);
    assert_int_equal(startup_parse(slice_of("\0\0\0\x08\0\3\0\0", 8), &startup, &consumed), WIRE_BAD);
    assert_int_equal(startup.kind, STARTUP_MESSAGE);
}

static void replication_is_recognized(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool replication;
    } cases[] = {{"true", true},   {"T", true},        {"on", true}, {"o", false},
                 {"yes", true},    {"1", true},        {"0", false}, {"off", false},
                 {"false", false}, {"database", true}, {"", false}};
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const char *pairs[] = {"user", "anna", "replication", cases[i].value, NULL};
        uint8_t bytes[512];
        struct startup startup;
        size_t consumed = 0;
        size_t length = startup_packet(bytes, STARTUP_PROTOCOL_3_0, pairs);
        assert_int_equal(startup_parse(slice_of(bytes, length), &startup, &consumed), WIRE_OK);
        assert_int_equal(startup_is_replication(&startup), cases[i].replication);
    }
}

static void random_bytes_are_survived(void **state)
{
    (void)state;
    uint64_t seed = 7;
    struct guard guard;
    guard_init(&guard, 64);
    for (int round = 0; round < 50000; round++) {
        uint8_t bytes[64];
        struct startup startup;
        size_t consumed = 0;
        size_t length = 8 + random_next(&seed) % 56;
        for (size_t i = 0; i < length; i++) {
            bytes[i] = (uint8_t)(random_next(&seed) % 3 == 0 ? 0 : random_next(&seed));
        }
        memcpy(bytes, "\0\0\0", 3);
        bytes[3] = (uint8_t)length;
        memcpy(bytes + 4, random_next(&seed) % 2 == 0 ? "\0\3\0\0" : "\x04\xd2\x16\x2e", 4);
        struct slice input = slice_of(guard_copy(&guard, bytes, length), length);
        if (startup_parse(input, &startup, &consumed) == WIRE_OK) {
            (void)startup_is_replication(&startup);
            assert_true(consumed <= length);
        }
    }
    guard_deinit(&guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_at_every_length),
        cmocka_unit_test(newer_minor_versions_are_negotiated),
        cmocka_unit_test(requests),
        cmocka_unit_test(bad_packets),
        cmocka_unit_test(replication_is_recognized),
        cmocka_unit_test(random_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
