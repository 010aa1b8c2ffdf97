/* proxy/wire/proxied: the PROXY header, version 2. */
#include "proxy/wire/proxied.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4_HEADER                                                                                            \
    SIGNATURE "\x21\x11\0\x0c"                                                                               \
              "\x0a\1\2\3\xc0\xa8\0\1\x13\x88\x15\x38"
#define V6_HEADER                                                                                            \
    SIGNATURE "\x21\x21\0\x24"                                                                               \
              "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7"                                                       \
              "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"                                                             \
              "\x30\x39\x15\x38"
#define BYTES(literal) (literal), (sizeof(literal) - 1)

static enum wire_answer parse(const char *bytes, size_t length, struct proxied *proxied, size_t *size)
{
    struct guard guard;
    guard_init(&guard, length + 1);
    enum wire_answer answer =
        proxied_parse(slice_of(guard_copy(&guard, bytes, length), length), proxied, size);
    guard_deinit(&guard);
    return answer;
}

static void every_beginning_asks_for_more(void **state)
{
    (void)state;
    struct proxied proxied;
    size_t size = 0;
    for (size_t have = 0; have < sizeof(V6_HEADER) - 1; have++) {
        assert_int_equal(parse(V6_HEADER, have, &proxied, &size), WIRE_PARTIAL);
    }
    assert_int_equal(parse(BYTES(V6_HEADER), &proxied, &size), WIRE_OK);
    assert_int_equal(proxied.kind, PROXIED_V6);
    assert_memory_equal(proxied.address, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7", 16);
    assert_int_equal(proxied.port, 12345);
    assert_int_equal(size, 52);
}

static void the_source_is_told(void **state)
{
    (void)state;
    struct proxied proxied;
    size_t size = 0;
    assert_int_equal(parse(BYTES(V4_HEADER "and more"), &proxied, &size), WIRE_OK);
    assert_int_equal(proxied.kind, PROXIED_V4);
    assert_memory_equal(proxied.address, "\x0a\1\2\3", 4);
    assert_int_equal(proxied.port, 5000);
    assert_int_equal(size, 28);
}

static void what_follows_the_addresses_is_skipped(void **state)
{
    (void)state;
    struct proxied proxied;
    size_t size = 0;
    /* 3 + 2 bytes of a TLV, of which only one is there yet */
    assert_int_equal(
        parse(BYTES(SIGNATURE "\x21\x11\0\x11\x0a\1\2\3\xc0\xa8\0\1\x13\x88\x15\x38\x03"), &proxied, &size),
        WIRE_OK);
    assert_int_equal(proxied.kind, PROXIED_V4);
    assert_int_equal(size, 33);
    assert_int_equal(
        parse(BYTES(SIGNATURE "\x21\x11\xff\xff\x0a\1\2\3\xc0\xa8\0\1\x13\x88\x15\x38"), &proxied, &size),
        WIRE_OK);
    assert_int_equal(size, 16 + 65535);
}

static void some_speak_for_themselves(void **state)
{
    (void)state;
    struct proxied proxied;
    size_t size = 0;
    /* LOCAL: whatever the rest says */
    assert_int_equal(parse(BYTES(SIGNATURE "\x20\0\0\0"), &proxied, &size), WIRE_OK);
    assert_int_equal(proxied.kind, PROXIED_ITSELF);
    assert_int_equal(size, 16);
    assert_int_equal(parse(BYTES(SIGNATURE "\x20\x99\0\7"), &proxied, &size), WIRE_OK);
    assert_int_equal(size, 23);
    /* an unspecified family, with or without a transport */
    assert_int_equal(parse(BYTES(SIGNATURE "\x21\0\0\4"), &proxied, &size), WIRE_OK);
    assert_int_equal(proxied.kind, PROXIED_ITSELF);
    assert_int_equal(size, 20);
    /* a Unix socket at the balancer: no address that anything could go by */
    char local[16 + 216] = SIGNATURE "\x21\x31\0\xd8";
    assert_int_equal(parse(local, sizeof(local) - 1, &proxied, &size), WIRE_PARTIAL);
    assert_int_equal(parse(local, sizeof(local), &proxied, &size), WIRE_OK);
    assert_int_equal(proxied.kind, PROXIED_ITSELF);
}

static void what_is_no_header_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } wrong[] = {
        {BYTES("\0\0\0\x08\x04\xd2\x16\x2f")},                     /* an SSLRequest */
        {BYTES("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n")},           /* version 1 */
        {BYTES("\x16")},                                           /* TLS */
        {BYTES("\r\n\r\n\0\r\nQUIX")},                             /* at its 11th byte */
        {BYTES(SIGNATURE "\x11\x11\0\x0c")},                       /* version 1 in binary */
        {BYTES(SIGNATURE "\x22\x11\0\x0c")},                       /* an unknown command */
        {BYTES(SIGNATURE "\x21\x12\0\x0c")},                       /* UDP */
        {BYTES(SIGNATURE "\x21\x10\0\x0c")},                       /* v4 over nothing */
        {BYTES(SIGNATURE "\x21\x41\0\x0c")},                       /* an unknown family */
        {BYTES(SIGNATURE "\x21\x11\0\x0b\x0a\1\2\3\xc0\xa8\0\1")}, /* too short for its family */
        {BYTES(SIGNATURE "\x21\x21\0\x0c\x0a\1\2\3\xc0\xa8\0\1")},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct proxied proxied;
        size_t size = 0;
        if (parse(wrong[i].bytes, wrong[i].length, &proxied, &size) != WIRE_BAD) {
            fail_msg("wrong header %zu was taken", i);
        }
    }
}

static void noise_is_survived(void **state)
{
    (void)state;
    uint64_t seed = 20261121;
    char bytes[80];
    struct proxied proxied;
    for (int i = 0; i < 20000; i++) {
        size_t size = 0, length = random_next(&seed) % sizeof(bytes);
        memcpy(bytes, V6_HEADER, sizeof(V6_HEADER));
        for (size_t at = sizeof(V6_HEADER); at < sizeof(bytes); at++) {
            bytes[at] = (char)random_next(&seed);
        }
        bytes[12 + random_next(&seed) % 4] = (char)random_next(&seed);
        if (parse(bytes, length, &proxied, &size) == WIRE_OK) {
            assert_true(size >= 16 && size <= 16 + 65535);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_beginning_asks_for_more),         cmocka_unit_test(the_source_is_told),
        cmocka_unit_test(what_follows_the_addresses_is_skipped), cmocka_unit_test(some_speak_for_themselves),
        cmocka_unit_test(what_is_no_header_is_refused),          cmocka_unit_test(noise_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
