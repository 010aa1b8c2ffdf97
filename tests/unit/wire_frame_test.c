/* proxy/wire/frame: the same messages come out however the bytes are split. */
#include "proxy/wire/build.h"
#include "proxy/wire/frame.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { STREAM_SIZE = 4096, BODY_SIZE = 1024 };

/* What was seen of a stream: types, and all bodies one after the other. */
struct seen {
    char types[64];
    size_t count;
    uint8_t bodies[STREAM_SIZE];
    size_t length;
};

static size_t client_stream(uint8_t *bytes)
{
    struct build build;
    uint32_t types[2] = {23, 25};
    struct slice parameters[2] = {slice_text("1"), {.data = NULL}};
    build_init(&build, bytes, STREAM_SIZE);
    build_query(&build, "select 1");
    build_parse(&build, slice_text("s"), slice_text("select $1, $2"), types, 2);
    build_bind(&build, slice_text(""), slice_text("s"), parameters, 2);
    build_describe(&build, 'P', slice_text(""));
    build_execute(&build, slice_text(""), 0);
    build_sync(&build);
    build_flush(&build);
    build_close(&build, 'S', slice_text("s"));
    build_sync(&build);
    build_terminate(&build);
    assert_true(build_fits(&build));
    return build.length;
}

static enum wire_answer feed(struct frame_cursor *cursor, struct slice range, struct seen *seen)
{
    struct frame_piece piece;
    enum wire_answer answer = WIRE_OK;
    while ((answer = frame_next(cursor, &range, &piece)) == WIRE_OK) {
        if (piece.first) {
            assert_int_equal(piece.head[0], piece.type);
            assert_int_equal(piece.offset, 0);
            seen->types[seen->count++] = (char)piece.type;
        }
        memcpy(seen->bodies + seen->length, piece.bytes.data, piece.bytes.length);
        seen->length += piece.bytes.length;
        assert_int_equal(piece.last, piece.offset + piece.bytes.length == piece.length);
    }
    return answer;
}

static void split_at_any_byte(void **state)
{
    (void)state;
    uint8_t bytes[STREAM_SIZE];
    size_t length = client_stream(bytes);
    struct guard first;
    struct guard second;
    guard_init(&first, STREAM_SIZE);
    guard_init(&second, STREAM_SIZE);
    for (size_t split = 0; split <= length; split++) {
        struct frame_cursor cursor;
        struct seen seen = {.count = 0};
        frame_init(&cursor, FRAME_FROM_CLIENT);
        struct slice head = slice_of(guard_copy(&first, bytes, split), split);
        struct slice tail = slice_of(guard_copy(&second, bytes + split, length - split), length - split);
        assert_int_equal(feed(&cursor, head, &seen), WIRE_PARTIAL);
        assert_int_equal(feed(&cursor, tail, &seen), WIRE_PARTIAL);
        assert_string_equal(seen.types, "QPBDESHCSX");
        assert_int_equal(seen.length, length - 10 * FRAME_HEADER_SIZE);
        assert_true(frame_idle(&cursor));
    }
    guard_deinit(&first);
    guard_deinit(&second);
}

static void byte_by_byte(void **state)
{
    (void)state;
    uint8_t bytes[STREAM_SIZE];
    size_t length = client_stream(bytes);
    struct frame_cursor cursor;
    struct seen whole = {.count = 0};
    struct seen seen = {.count = 0};
    frame_init(&cursor, FRAME_FROM_CLIENT);
    assert_int_equal(feed(&cursor, slice_of(bytes, length), &whole), WIRE_PARTIAL);
    frame_init(&cursor, FRAME_FROM_CLIENT);
    for (size_t i = 0; i < length; i++) {
        assert_int_equal(feed(&cursor, slice_of(bytes + i, 1), &seen), WIRE_PARTIAL);
    }
    assert_string_equal(seen.types, whole.types);
    assert_int_equal(seen.length, whole.length);
    assert_memory_equal(seen.bodies, whole.bodies, whole.length);
}

static void partial_header_is_kept(void **state)
{
    (void)state;
    uint8_t bytes[64];
    struct build build;
    build_init(&build, bytes, sizeof bytes);
    build_query(&build, "x");
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, FRAME_FROM_CLIENT);
    struct slice range = slice_of(bytes, 3);
    assert_int_equal(frame_next(&cursor, &range, &piece), WIRE_PARTIAL);
    assert_int_equal(cursor.header_have, 3);
    assert_memory_equal(cursor.header, bytes, 3);
    assert_false(frame_idle(&cursor));
    range = slice_of(bytes + 3, build.length - 3);
    assert_int_equal(frame_next(&cursor, &range, &piece), WIRE_OK);
    assert_true(piece.first && piece.last);
    assert_memory_equal(piece.head, bytes, FRAME_HEADER_SIZE);
}

/* A header whose body has not come yet is reported at once: the relay can decide and pass it on. */
static void header_comes_before_its_body(void **state)
{
    (void)state;
    uint8_t bytes[64];
    struct build build;
    build_init(&build, bytes, sizeof bytes);
    build_query(&build, "x");
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, FRAME_FROM_CLIENT);
    struct slice range = slice_of(bytes, FRAME_HEADER_SIZE);
    assert_int_equal(frame_next(&cursor, &range, &piece), WIRE_OK);
    assert_true(piece.first);
    assert_false(piece.last);
    assert_int_equal(piece.bytes.length, 0);
    assert_false(frame_idle(&cursor));
}

static void rows_pass_quietly(void **state)
{
    (void)state;
    uint8_t bytes[BODY_SIZE];
    struct build build;
    build_init(&build, bytes, sizeof bytes);
    for (int i = 0; i < 3; i++) {
        build_begin(&build, i == 1 ? 'd' : 'D');
        build_u16(&build, 1);
        build_u32(&build, 2);
        build_bytes(&build, "hi", 2);
        build_end(&build);
    }
    build_ready(&build, 'I');
    for (size_t split = 0; split <= build.length; split++) {
        struct frame_cursor cursor;
        struct seen seen = {.count = 0};
        frame_init(&cursor, FRAME_FROM_SERVER);
        cursor.quiet_rows = true;
        assert_int_equal(feed(&cursor, slice_of(bytes, split), &seen), WIRE_PARTIAL);
        assert_int_equal(feed(&cursor, slice_of(bytes + split, build.length - split), &seen), WIRE_PARTIAL);
        assert_string_equal(seen.types, "Z");
    }
}

static enum wire_answer try_header(enum frame_from from, uint8_t type, uint32_t whole)
{
    uint8_t bytes[FRAME_HEADER_SIZE];
    frame_header(bytes, type, whole - 4);
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, from);
    struct slice range = slice_of(bytes, sizeof bytes);
    return frame_next(&cursor, &range, &piece);
}

static void lengths_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(try_header(FRAME_FROM_CLIENT, 'Q', 5), WIRE_OK);
    assert_int_equal(try_header(FRAME_FROM_CLIENT, 'Q', 4), WIRE_OK); /* the server answers it */
    assert_int_equal(try_header(FRAME_FROM_CLIENT, 'Q', 3), WIRE_BAD);
    assert_int_equal(try_header(FRAME_FROM_CLIENT, 'Q', 0), WIRE_BAD);
    assert_int_equal(try_header(FRAME_FROM_CLIENT, 'Q', UINT32_MAX), WIRE_BAD);
    assert_int_equal(try_header(FRAME_FROM_CLIENT, 'S', 5), WIRE_OK);
    static const char small[] = "CDEHSXcf", large[] = "BFPQd"; /* as PostgreSQL has them, by its own count */
    for (const char *type = small; *type != '\0'; type++) {
        assert_int_equal(try_header(FRAME_FROM_CLIENT, (uint8_t)*type, 10000), WIRE_OK);
        assert_int_equal(try_header(FRAME_FROM_CLIENT, (uint8_t)*type, 10001), WIRE_BAD);
    }
    for (const char *type = large; *type != '\0'; type++) {
        assert_int_equal(try_header(FRAME_FROM_CLIENT, (uint8_t)*type, 0x3ffffffe), WIRE_OK);
        assert_int_equal(try_header(FRAME_FROM_CLIENT, (uint8_t)*type, 0x3fffffff), WIRE_BAD);
    }
    assert_int_equal(try_header(FRAME_FROM_CLIENT, 'Z', 5), WIRE_BAD);
    assert_int_equal(try_header(FRAME_FROM_SERVER, 'Z', 5), WIRE_OK);
    assert_int_equal(try_header(FRAME_FROM_SERVER, 'Z', 6), WIRE_BAD);
    assert_int_equal(try_header(FRAME_FROM_SERVER, 'Q', 5), WIRE_BAD);
    assert_int_equal(try_header(FRAME_FROM_SERVER, 0, 5), WIRE_BAD);
    assert_int_equal(try_header(FRAME_FROM_SERVER, 0xff, 5), WIRE_BAD);
}

static void captures_bodies_in_pieces(void **state)
{
    (void)state;
    uint8_t bytes[BODY_SIZE];
    struct build build;
    build_init(&build, bytes, sizeof bytes);
    build_begin(&build, 'C');
    for (int i = 0; i < 300; i++) {
        build_u8(&build, (uint8_t)i);
    }
    build_end(&build);
    for (size_t split = 0; split <= build.length; split++) {
        struct frame_cursor cursor;
        struct frame_capture capture;
        struct frame_piece piece;
        frame_init(&cursor, FRAME_FROM_SERVER);
        struct slice ranges[2] = {slice_of(bytes, split), slice_of(bytes + split, build.length - split)};
        struct slice body = slice_of("", 0);
        bool complete = false;
        for (int i = 0; i < 2; i++) {
            while (frame_next(&cursor, &ranges[i], &piece) == WIRE_OK) {
                complete = frame_capture(&capture, &piece, &body);
            }
        }
        assert_true(complete);
        bool whole = split < FRAME_HEADER_SIZE || split == build.length;
        assert_int_equal(body.length, whole ? 300 : FRAME_CAPTURE_SIZE);
        assert_memory_equal(body.data, bytes + FRAME_HEADER_SIZE, body.length);
    }
}

static void random_bytes_are_survived(void **state)
{
    (void)state;
    uint64_t seed = 42;
    struct guard guard;
    guard_init(&guard, BODY_SIZE);
    for (int round = 0; round < 20000; round++) {
        struct frame_cursor cursor;
        struct frame_piece piece;
        uint8_t bytes[64];
        frame_init(&cursor, round % 2 == 0 ? FRAME_FROM_CLIENT : FRAME_FROM_SERVER);
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (uint8_t)random_next(&seed);
        }
        bytes[0] = (uint8_t) "QPBDESHCSXZ123TnCI"[random_next(&seed) % 18];
        bytes[1] = bytes[2] = bytes[3] = 0;
        struct slice range = slice_of(guard_copy(&guard, bytes, sizeof bytes), sizeof bytes);
        while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
            assert_true(piece.offset + piece.bytes.length <= piece.length);
        }
    }
    guard_deinit(&guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_at_any_byte),         cmocka_unit_test(byte_by_byte),
        cmocka_unit_test(partial_header_is_kept),    cmocka_unit_test(header_comes_before_its_body),
        cmocka_unit_test(rows_pass_quietly),         cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(captures_bodies_in_pieces), cmocka_unit_test(random_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
