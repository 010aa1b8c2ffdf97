#include "proxy/wire/glance.h"

/* What a byte is to it; in a letter's place stands which one, from 1. */
enum { GAP = 0, LETTERS = 26, OTHER_WORD, DOLLAR, BACKSLASH };

/* The scan's words are the longest runs of letters, digits, '_' and bytes above 127. */
/* clang-format off */
#define NONE_16  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0
#define OTHER_16 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27
#define LETTERS_A_TO_O 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define LETTERS_P_TO_Z 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26
static const uint8_t kinds[256] = {
    NONE_16,
    NONE_16,
    0, 0, 0, 0, DOLLAR, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 0, 0, 0, 0, 0, 0,
    0, LETTERS_A_TO_O,
    LETTERS_P_TO_Z, 0, BACKSLASH, 0, 0, OTHER_WORD,
    0, LETTERS_A_TO_O,
    LETTERS_P_TO_Z, 0, 0, 0, 0, 0,
    OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16, OTHER_16,
};
/* clang-format on */

#define LENGTH(length)    (1U << (length))
#define LONG_FROM(length) (~0U << (length))
#define LETTER(c)         ((c) - 'a' + 1)

/* Which lengths matter of the words that begin so; the last bit stands for all that are longer. */
enum { LENGTHS = 32, LOCKS_FROM = 14 };
static const uint32_t lengths[BACKSLASH + 1] = {
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
static bool is_hard(uint8_t kind, const uint8_t *next, const uint8_t *end)
{
    return kind == BACKSLASH || (kind == DOLLAR && next < end && (uint8_t)(*next - '0') > 9);
}

bool glance_is_dull(struct slice text)
{
    const uint8_t *at = text.data;
    const uint8_t *end = at + text.length;
    while (at < end) {
        uint8_t kind = kinds[*at++];
        if (kind == GAP) {
            continue;
        }
        if (kind > OTHER_WORD) {
            if (is_hard(kind, at, end)) {
                return false;
            }
            continue;
        }
        const uint8_t *begin = at - 1;
        while (at < end && (uint8_t)(kinds[*at] - 1) < OTHER_WORD) {
            at++;
        }
        size_t length = (size_t)(at - begin);
        if (matters(kind, length) && (kind != LETTER('p') || length < LOCKS_FROM || has_v(begin, at))) {
            return false;
        }
    }
    return true;
}
