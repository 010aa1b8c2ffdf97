#include "conf/settings/nearest.h"

#include <stdint.h>
#include <string.h>

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's, but that two neighbours that changed places are one slip. */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    size_t rows = strlen(a), columns = strlen(b);
    if (rows > LONGEST || columns > LONGEST) {
        return SIZE_MAX;
    }
    uint8_t far[LONGEST + 1][LONGEST + 1]; /* of the first i characters of a from the first j of b */
    for (size_t j = 0; j <= columns; j++) {
        far[0][j] = (uint8_t)j;
    }
    for (size_t i = 1; i <= rows; i++) {
        far[i][0] = (uint8_t)i;
        for (size_t j = 1; j <= columns; j++) {
            size_t least = far[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U);
            least = smaller(least, smaller(far[i - 1][j], far[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                least = smaller(least, far[i - 2][j - 2] + 1U);
            }
            far[i][j] = (uint8_t)least;
        }
    }
    return far[rows][columns];
}

const char *nearest_word(const char *word, const char *const *candidates, size_t count)
{
    const char *nearest = NULL;
    size_t least = strlen(word) / 3 + 2; /* farther than that is another word, not a slip */
    for (size_t i = 0; i < count; i++) {
        size_t far = distance(word, candidates[i]);
        if (far < least) {
            least = far;
            nearest = candidates[i];
        }
    }
    return nearest;
}
