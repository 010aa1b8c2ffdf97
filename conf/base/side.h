/* The two clusters of a pair. */
#ifndef SWITCHBACK_CONF_BASE_SIDE_H
#define SWITCHBACK_CONF_BASE_SIDE_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <string.h>

enum side { SIDE_BLUE = 0, SIDE_GREEN = 1, SIDE_COUNT = 2 };

static inline enum side side_other(enum side side)
{
    return side == SIDE_BLUE ? SIDE_GREEN : SIDE_BLUE;
}

static inline const char *side_name(enum side side)
{
    return side == SIDE_BLUE ? "blue" : "green";
}

static inline MUST_USE bool side_parse(const char *text, enum side *side)
{
    if (strcmp(text, "blue") == 0) {
        *side = SIDE_BLUE;
        return true;
    }
    if (strcmp(text, "green") == 0) {
        *side = SIDE_GREEN;
        return true;
    }
    return false;
}

#endif
