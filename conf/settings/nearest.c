#include "conf/settings/nearest.h"

#include <stdint.h>
#include <string.h>

static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    size_t rows = strlen(a), columns = strlen(b);
    if (rows > LONGEST || columns > LONGEST) {
        return SIZE_MAX;
    }
    size_t line[LONGEST + 1]; /* Levenshtein's, one line of the matrix at a time */
    for (size_t j = 0; j <= columns; j++) {
        line[j] = j;
    }
    for (size_t i = 1; i <= rows; i++) {
        size_t diagonal = line[0];
        line[0] = i;
        for (size_t j = 1; j <= columns; j++) {
            size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            size_t insert = line[j - 1] + 1, drop = line[j] + 1;
            diagonal = line[j];
            line[j] = change < insert ? change : insert;
            line[j] = line[j] < drop ? line[j] : drop;
        }
    }
    return line[columns];
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
