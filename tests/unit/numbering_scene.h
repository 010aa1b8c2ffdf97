/*
 * The stage of the tests of proxy/numbering, proxy/type_map and proxy/type_values: a client that began on
 * blue and its server on green, whose numbers of types differ, and what is said between them.
 */
#ifndef SWITCHBACK_TESTS_UNIT_NUMBERING_SCENE_H
#define SWITCHBACK_TESTS_UNIT_NUMBERING_SCENE_H

#include "proxy/numbering_internal.h"
#include "proxy/wire/build.h"
#include "proxy/wire/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BUFFER_SIZE = 16384 };

/* blue's numbers of 16400, 16401 are each other's on green; the rest of them moves */
enum {
    MOOD_BLUE = 16400,
    MOOD_GREEN = 16401,
    COLOR_BLUE = MOOD_GREEN,
    COLOR_GREEN = MOOD_BLUE,
    MOODS_BLUE = 16410,
    MOODS_GREEN = 16510,
    PAIR_BLUE = 16420,
    PAIR_GREEN = 16520,
    SPAN_BLUE = 16430,
    SPAN_GREEN = 16530,
    SPANS_BLUE = 16431,
    SPANS_GREEN = 16531,
    LIST_BLUE = 16440,
    LIST_GREEN = 16540,
    ONLY_BLUE = 16450,
    ONLY_GREEN = 16460,
    HIDDEN_GREEN = MOODS_BLUE, /* not on blue, where its number is another type's */
    SAME = 16470,
    BOTH = 16480,
    OID = 26,
    OIDS = 1028,
    RECORD = 2249
};

static const struct proxy_type types[] = {
    {.oids = {MOOD_BLUE, MOOD_GREEN}},
    {.oids = {COLOR_BLUE, COLOR_GREEN}},
    {.oids = {MOODS_BLUE, MOODS_GREEN}, .kind = PROXY_TYPE_ARRAY, .related = {MOOD_BLUE, MOOD_GREEN}},
    {.oids = {PAIR_BLUE, PAIR_GREEN}, .kind = PROXY_TYPE_COMPOSITE},
    {.oids = {SPAN_BLUE, SPAN_GREEN}, .kind = PROXY_TYPE_RANGE, .related = {MOODS_BLUE, MOODS_GREEN}},
    {.oids = {SPANS_BLUE, SPANS_GREEN}, .kind = PROXY_TYPE_MULTIRANGE, .related = {SPAN_BLUE, SPAN_GREEN}},
    {.oids = {LIST_BLUE, LIST_GREEN}, .kind = PROXY_TYPE_DOMAIN, .related = {MOODS_BLUE, MOODS_GREEN}},
    {.oids = {ONLY_BLUE, 0}},
    {.oids = {0, BOTH}},
    {.oids = {BOTH, 0}}, /* two types, each on one side */
    {.oids = {0, ONLY_GREEN}},
    {.oids = {0, HIDDEN_GREEN}},
    {.oids = {SAME, SAME}},
};

/* What went each way, and came out. */
struct scene {
    struct type_map *map;
    struct numbering *numbering;
    struct boundary boundary;
    uint8_t bytes[BUFFER_SIZE], out[BUFFER_SIZE];
    struct build build;
    size_t out_length;
    struct frame_cursor client, server;
};

static inline int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    assert_non_null(scene);
    scene->map = type_map_new(types, ARRAY_LENGTH(types));
    assert_non_null(scene->map);
    scene->numbering = numbering_new(scene->map, SIDE_BLUE);
    assert_non_null(scene->numbering);
    boundary_init(&scene->boundary);
    frame_init(&scene->client, FRAME_FROM_CLIENT);
    frame_init(&scene->server, FRAME_FROM_SERVER);
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    *state = scene;
    return 0;
}

static inline int teardown(void **state)
{
    struct scene *scene = *state;
    numbering_free(scene->numbering);
    type_map_unref(scene->map);
    free(scene);
    return 0;
}

static inline void emit(struct scene *scene, struct slice bytes)
{
    assert_true(scene->out_length + bytes.length <= sizeof scene->out);
    if (bytes.length > 0) {
        memcpy(scene->out + scene->out_length, bytes.data, bytes.length);
    }
    scene->out_length += bytes.length;
}

/* One piece, as the relay would handle it; quiet ones go on unseen, as there. */
static inline void piece_goes(struct scene *scene, const struct frame_piece *piece, uint8_t *bytes,
                              bool from_client)
{
    struct slice instead;
    struct boundary_step step;
    uint8_t header[FRAME_HEADER_SIZE];
    enum numbering_verdict verdict = NUMBERING_PASS;
    if (from_client) {
        assert_int_equal(boundary_client(&scene->boundary, piece, 1), BOUNDARY_FORWARD);
        verdict = numbering_client(scene->numbering, piece, bytes, &scene->boundary, &instead);
    } else {
        boundary_server(&scene->boundary, piece, 1, &step);
        verdict = numbering_server(scene->numbering, piece, bytes, &scene->boundary, &instead);
    }
    if (verdict == NUMBERING_TAKE) {
        emit(scene, instead);
        numbering_done(scene->numbering);
        return;
    }
    if (piece->first) {
        frame_header(header, piece->type, piece->length);
        emit(scene, slice_of(header, sizeof header));
    }
    emit(scene, piece->bytes);
}

/* What was built goes, `step` bytes in a read. What comes out is in scene->out. */
static inline void goes(struct scene *scene, bool from_client, size_t step)
{
    struct frame_cursor *cursor = from_client ? &scene->client : &scene->server;
    struct frame_piece piece;
    assert_true(build_fits(&scene->build));
    scene->out_length = 0;
    for (size_t at = 0; at < scene->build.length; at += step) {
        size_t left = scene->build.length - at;
        struct slice range = slice_of(scene->bytes + at, left < step ? left : step);
        while (frame_next(cursor, &range, &piece) == WIRE_OK) {
            uint8_t *bytes = scene->bytes + (range.data - scene->bytes) - piece.bytes.length;
            piece_goes(scene, &piece, bytes, from_client);
        }
    }
    assert_false(numbering_has_failed(scene->numbering));
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
}

static inline void came_out(struct scene *scene, const uint8_t *expected, const struct build *built)
{
    assert_int_equal(scene->out_length, built->length);
    assert_memory_equal(scene->out, expected, built->length);
}

/* --- building --- */

static inline void add_parse(struct build *build, const char *name, const char *sql, uint32_t type)
{
    build_parse(build, slice_text(name), slice_text(sql), &type, type == 0 ? 0 : 1);
}

static uint32_t table_of_columns;

static inline void add_columns(struct build *build, const uint32_t *columns, uint16_t count, uint16_t format)
{
    build_begin(build, 'T');
    build_u16(build, count);
    for (uint16_t i = 0; i < count; i++) {
        build_string(build, "column");
        build_u32(build, table_of_columns);
        build_u16(build, 1);
        build_u32(build, columns[i]);
        build_u16(build, 4);
        build_u32(build, UINT32_MAX);
        build_u16(build, format);
    }
    build_end(build);
}

static inline void add_simple(struct build *build, const char *kinds)
{
    for (; *kinds != '\0'; kinds++) {
        build_begin(build, *kinds);
        if (*kinds == 'C') {
            build_string(build, "SELECT 1");
        } else if (*kinds == 'Z') {
            build_u8(build, 'I');
        }
        build_end(build);
    }
}

static inline void add_parameters(struct build *build, uint32_t type)
{
    build_begin(build, 't');
    build_u16(build, 1);
    build_u32(build, type);
    build_end(build);
}

static inline void value(struct build *build, const void *bytes, size_t length)
{
    build_u32(build, (uint32_t)length);
    build_bytes(build, bytes, length);
}

static inline void array_of(struct build *build, uint32_t element)
{
    build_u32(build, 1);
    build_u32(build, 0);
    build_u32(build, element);
    build_u32(build, 2);
    build_u32(build, 1);
    value(build, "sad", 3);
    build_u32(build, UINT32_MAX);
}

/* A value of the composite type: moods[], mood, text. Its numbers are that side's. */
static inline void pair_of(struct build *build, enum side side)
{
    uint8_t bytes[256];
    struct build moods;
    build_init(&moods, bytes, sizeof bytes);
    array_of(&moods, side == SIDE_BLUE ? MOOD_BLUE : MOOD_GREEN);
    build_u32(build, 3);
    build_u32(build, side == SIDE_BLUE ? MOODS_BLUE : MOODS_GREEN);
    value(build, bytes, moods.length);
    build_u32(build, side == SIDE_BLUE ? MOOD_BLUE : MOOD_GREEN);
    value(build, "glad", 4);
    build_u32(build, 25);
    build_u32(build, UINT32_MAX);
}

static inline void one_column(struct build *build, const struct build *content)
{
    build_begin(build, 'D');
    build_u16(build, 1);
    value(build, content->data, content->length);
    build_end(build);
}

static inline void add_bind(struct build *build, const char *statement, const struct build *content,
                            uint16_t format)
{
    build_begin(build, 'B');
    build_string(build, "");
    build_string(build, statement);
    build_u16(build, 1);
    build_u16(build, format);
    build_u16(build, 1);
    value(build, content->data, content->length);
    build_u16(build, 1);
    build_u16(build, 1); /* results in binary */
    build_end(build);
}

#endif
