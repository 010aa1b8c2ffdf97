/* What the tests of what an operator reads share: JSON that can be read in C, and a time of day. */
#ifndef SWITCHBACK_TESTS_UNIT_RENDER_SCENE_H
#define SWITCHBACK_TESTS_UNIT_RENDER_SCENE_H

#include "control/cli/render.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* 2026-11-20T12:00:00Z */
#define NOW INT64_C(1795176000000000)

static inline json_t *parse(const char *text)
{
    json_error_t error;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL) {
        fail_msg("%s in line %d", error.text, error.line);
    }
    return json;
}

/* Single quotes stand for double ones: JSON that can be read in C. */
static inline json_t *quoted(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *at = copy; *at != '\0'; at++) {
        *at = *at == '\'' ? '"' : *at;
    }
    json_t *json = parse(copy);
    free(copy);
    return json;
}

static inline int in_utc(void **state)
{
    (void)state;
    int result = setenv("TZ", "UTC", 1);
    tzset();
    return result;
}

#endif
