#include "proxy/wire/glance.h"

/* What a byte is to it; of letters, which one it is. */
enum { GAP, DOLLAR, BACKSLASH, OTHER_WORD, LETTER_A, KINDS = LETTER_A + 26 };

/* The scan's words are the longest runs of letters, digits, '_' and bytes above 127. */
/* clang-format off */
#define NONE_16  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0
#define OTHER_16 3,  3,  3,  3,  3,  3,  3,  3,  3,  3,  3,  3,  3,  3,  3,  3
#define LETTERS_A_TO_O 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18
#define LETTERS_P_TO_Z 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
static const uint8_t kinds[256] = {
    NONE_16,
    NONE_16,
    0, 0, 0, 0, DOLLAR, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0,
    0, LETTERS_A_TO_O,
    LETTERS_P_TO_Z, 0, BACKSLASH, 0, 0, OTHER_WORD,
    0, LETTERS_A_TO_O,
    LETTERS_P_TO_Z, 0, 0, 0, 0, 0,
    OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16,
};
/* clang-format on */

#define LENGTH(length)    (1U << (length))
#define LONG_FROM(length) (~0U << (length))
#define LETTER(c)         (LETTER_A + (c) - 'a')

/* Which lengths matter of the words that begin so; the last bit stands for all that are longer. */
enum { LENGTHS = 32, LOCKS_FROM = 14 };
static const uint32_t lengths[KINDS] = {
    [LETTER('a')] = LENGTH(5) | LENGTH(13),            /* abort, authorization */
    [LETTER('c')] = LENGTH(6),                         /* commit */
    [LETTER('d')] = LENGTH(7) | LENGTH(10),            /* discard, deallocate */
    [LETTER('e')] = LENGTH(3),                         /* end */
    [LETTER('h')] = LENGTH(4),                         /* hold */
    [LETTER('l')] = LENGTH(6),                         /* listen */
    [LETTER('p')] = LENGTH(7) | LONG_FROM(LOCKS_FROM), /* prepare, pg_temp; pg_advisory_lock and its kin */
    [LETTER('r')] = LENGTH(4) | LENGTH(5) | LENGTH(8), /* role, reset, rollback */
    [LETTER('s')] = LENGTH(3) | LENGTH(10),            /* set, set_config */
    [LETTER('t')] = LENGTH(4) | LENGTH(9),             /* temp, temporary */
    [LETTER('u')] = LENGTH(8),                         /* unlisten */
};

static bool matters(uint8_t kind, size_t length)
{
    return (lengths[kind] >> (length < LENGTHS ? length : LENGTHS - 1) & 1) != 0;
}

bool glance_may_hint(char first, size_t length)
{
    return matters(kinds[(uint8_t)first], length);
}

/* Many a table's name is as long as pg_advisory_lock, and begins so: few have its V. */
static bool has_v(const uint8_t *at, const uint8_t *end)
{
    while (at < end && kinds[*at] != LETTER('v')) {
        at++;
    }
    return at < end;
}

/*
 * A backslash may cut a word in two where it stands in an E'' string, and a '$' that is no parameter may
 * begin a dollar quote, whose tag is no word: what they mean is left to the scan.
 */
static bool is_hard(uint8_t kind, uint8_t next)
{
    return kind == BACKSLASH || next < '0' || next > '9';
}

bool glance_is_dull(struct slice text)
{
    const uint8_t *at = text.data;
    const uint8_t *end = at + text.length;
    if (text.length > 0 && kinds[end[-1]] != GAP) {
        return false; /* then no word needs to look for the end of the text */
    }
    while (at < end) {
        uint8_t kind = kinds[*at++];
        if (kind < OTHER_WORD) {
            if (kind != GAP && is_hard(kind, *at)) {
                return false;
            }
            continue;
        }
        const uint8_t *begin = at - 1;
        while (kinds[*at] >= OTHER_WORD) {
            at++;
        }
        size_t length = (size_t)(at - begin);
        if (matters(kind, length) && (kind != LETTER('p') || length < LOCKS_FROM || has_v(begin, at))) {
            return false;
        }
    }
    return true;
}
