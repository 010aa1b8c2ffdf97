/*
 * The stage of the tests of proxy/move: a session with its boundary, driven as the relay would, and the
 * servers at both ends, played.
 */
#ifndef SWITCHBACK_TESTS_UNIT_MOVE_SCENE_H
#define SWITCHBACK_TESTS_UNIT_MOVE_SCENE_H

#include "proxy/move.h"
#include "proxy/wire/boundary.h"
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

enum { BUFFER_SIZE = 65536, TEXT_SIZE = 4096 };

/* A session with its boundary, as the relay would drive them. */
struct scene {
    struct move *move;
    struct boundary boundary;
    struct move_numbers numbers;
    uint8_t bytes[BUFFER_SIZE];
    struct build build;
    size_t step;        /* how many bytes come in one read */
    unsigned questions; /* of the last asking */
};

static inline int setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    assert_non_null(scene);
    scene->move = move_new(false);
    assert_non_null(scene->move);
    scene->step = BUFFER_SIZE;
    boundary_init(&scene->boundary);
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    move_parameter(scene->move, slice_text("server_version"), slice_text("15.1"));
    move_parameter(scene->move, slice_text("TimeZone"), slice_text("UTC"));
    *state = scene;
    return 0;
}

static inline int teardown(void **state)
{
    struct scene *scene = *state;
    move_free(scene->move);
    free(scene);
    return 0;
}

/* --- playing the two ends ----------------------------------------------------------------------------------
 */

/* The client sends what was built. */
static inline void client(struct scene *scene)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, FRAME_FROM_CLIENT);
    for (size_t at = 0; at < scene->build.length; at += scene->step) {
        size_t left = scene->build.length - at;
        struct slice range = slice_of(scene->bytes + at, left < scene->step ? left : scene->step);
        while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
            assert_int_equal(boundary_client(&scene->boundary, &piece, 1), BOUNDARY_FORWARD);
            move_client(scene->move, &piece, &scene->boundary);
        }
    }
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
}

/* The session's server sends what was built; the last verdict on our own question. */
static inline enum move_answer server(struct scene *scene)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    struct boundary_step step;
    enum move_answer answer = MOVE_MORE;
    frame_init(&cursor, FRAME_FROM_SERVER);
    for (size_t at = 0; at < scene->build.length; at += scene->step) {
        size_t left = scene->build.length - at;
        struct slice range = slice_of(scene->bytes + at, left < scene->step ? left : scene->step);
        while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
            boundary_server(&scene->boundary, &piece, 1, &step);
            if (step.ours) {
                answer = move_ask_answer(scene->move, &piece);
            } else {
                move_server(scene->move, &step);
            }
        }
    }
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    return answer;
}

static inline enum move_answer target(struct scene *scene)
{
    struct frame_cursor cursor;
    struct frame_piece piece;
    enum move_answer answer = MOVE_MORE;
    frame_init(&cursor, FRAME_FROM_SERVER);
    struct slice range = slice_of(scene->bytes, scene->build.length);
    while (answer == MOVE_MORE && frame_next(&cursor, &range, &piece) == WIRE_OK) {
        answer = move_replay_answer(scene->move, &piece, scene->numbers.numbering);
    }
    build_init(&scene->build, scene->bytes, sizeof scene->bytes);
    return answer;
}

static inline void empty(struct scene *scene, const char *types)
{
    for (; *types != '\0'; types++) {
        build_begin(&scene->build, *types);
        if (*types == 'C') {
            build_string(&scene->build, "SELECT 1");
        }
        build_end(&scene->build);
    }
}

static inline void tag(struct scene *scene, const char *text)
{
    build_begin(&scene->build, 'C');
    build_string(&scene->build, text);
    build_end(&scene->build);
}

/* The client runs a Query that succeeds with a tag. */
static inline void query(struct scene *scene, const char *sql, const char *result)
{
    build_query(&scene->build, sql);
    client(scene);
    tag(scene, result);
    build_ready(&scene->build, 'I');
    server(scene);
}

static inline void row(struct scene *scene, const char *k, const char *a, const char *b, const char *c,
                       const char *d)
{
    const char *columns[5] = {k, a, b, c, d};
    build_begin(&scene->build, 'D');
    build_u16(&scene->build, 5);
    for (size_t i = 0; i < 5; i++) {
        if (columns[i] == NULL) {
            build_u32(&scene->build, UINT32_MAX);
        } else {
            build_u32(&scene->build, (uint32_t)strlen(columns[i]));
            build_bytes(&scene->build, columns[i], strlen(columns[i]));
        }
    }
    build_end(&scene->build);
}

static inline void parsed_names(struct slice text, char names[TEXT_SIZE])
{
    static const char before[] = "string_to_array('";
    const char *found = memmem(text.data, text.length, before, sizeof before - 1);
    if (found != NULL) {
        found += sizeof before - 1;
        (void)slice_copy(slice_of(found, strcspn(found, "'")), names, TEXT_SIZE);
    }
}

/* Asks; true if there was anything to ask, and then whether settings were, and for which names. */
static inline bool ask(struct scene *scene, bool *settings, char names[TEXT_SIZE])
{
    struct strbuf out;
    struct frame_cursor cursor;
    struct frame_piece piece;
    strbuf_init(&out, BUFFER_SIZE);
    assert_true(move_ask(scene->move, &out));
    bool asked = out.length > 0;
    *settings = false;
    scene->questions = 0;
    if (asked) {
        boundary_inject(&scene->boundary, 1);
        frame_init(&cursor, FRAME_FROM_CLIENT);
        struct slice range = slice_of(out.data, out.length);
        int syncs = 0;
        while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
            struct decode_parse parse;
            if (piece.type == 'P' && decode_parse(piece.bytes, &parse)) {
                assert_true(parse.name.length > 0); /* the unnamed statement is the client's */
                parsed_names(parse.text, names);
                *settings = *settings || memmem(parse.text.data, parse.text.length, "'set'", 5) != NULL;
            }
            syncs += piece.type == 'S' ? 1 : 0;
            scene->questions += piece.type == 'E' ? 1 : 0;
        }
        assert_int_equal(syncs, 1);
        empty(scene, "312");
    }
    strbuf_deinit(&out);
    return asked;
}

static inline enum move_answer answered(struct scene *scene)
{
    empty(scene, "CC33");
    build_ready(&scene->build, 'I');
    return server(scene);
}

static inline void rows_of_a_plain_session(struct scene *scene)
{
    row(scene, "auth", "anna", "none", "4711", "0");
}

/* What a replay would do, in words. Returns how many Syncs it has. */
static inline int replay(struct scene *scene, char text[TEXT_SIZE])
{
    struct strbuf out;
    struct frame_cursor cursor;
    struct frame_piece piece;
    int syncs = 0;
    size_t length = 0;
    strbuf_init(&out, BUFFER_SIZE);
    assert_true(move_replay(scene->move, &scene->numbers, &out));
    frame_init(&cursor, FRAME_FROM_CLIENT);
    struct slice range = slice_of(strbuf_text(&out), out.length);
    text[0] = '\0';
    while (frame_next(&cursor, &range, &piece) == WIRE_OK) {
        struct decode_parse parse;
        struct decode_bind bind;
        struct slice name;
        char kind = 0;
        char *end = text + length;
        size_t room = TEXT_SIZE - length;
        if (piece.type == 'P' && decode_parse(piece.bytes, &parse)) {
            bool helper = slice_equals(parse.name, "switchback set") ||
                          memmem(parse.text.data, parse.text.length, "statement_timeout", 17) != NULL;
            if (helper) {
                continue;
            }
            if (slice_equals(parse.name, "switchback run")) {
                (void)snprintf(end, room, "%.*s; ", (int)parse.text.length, (const char *)parse.text.data);
            } else {
                (void)snprintf(end, room, "parse %.*s(%.*s)/%u; ", (int)parse.name.length,
                               (const char *)parse.name.data, (int)parse.text.length,
                               (const char *)parse.text.data, parse.type_count);
            }
        } else if (piece.type == 'B' && decode_bind(piece.bytes, &bind) && bind.parameter_count == 2) {
            struct slice value;
            bool is_null = false;
            assert_true(decode_column_next(&bind.parameters, &name, &is_null));
            assert_true(decode_column_next(&bind.parameters, &value, &is_null));
            (void)snprintf(end, room, "%.*s=%.*s; ", (int)name.length, (const char *)name.data,
                           (int)value.length, (const char *)value.data);
        } else if (piece.type == 'C' && decode_target(piece.bytes, &kind, &name) && kind == 'S' &&
                   !(name.length > 10 && memcmp(name.data, "switchback", 10) == 0)) {
            (void)snprintf(end, room, "close %.*s; ", (int)name.length, (const char *)name.data);
        }
        syncs += piece.type == 'S' ? 1 : 0;
        length = strlen(text);
    }
    strbuf_deinit(&out);
    return syncs;
}

/* The target accepts everything. */
static inline enum move_answer accept_all(struct scene *scene, int syncs)
{
    for (int i = 0; i < syncs; i++) {
        build_ready(&scene->build, 'I');
    }
    return target(scene);
}

static inline void parse_unnamed(struct scene *scene, const char *sql)
{
    build_parse(&scene->build, slice_text(""), slice_text(sql), NULL, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
