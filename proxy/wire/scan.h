/*
 * Reads SQL text as it passes, in pieces, for what the session move must know: names of settings
 * (`SET [SESSION|LOCAL] a.b`, `RESET a.b`, `set_config('a.b', ...)`), and words that hint at session state.
 * It errs on the side of finding too much: bodies of strings, dollar quotes and comments count as well; a
 * name that was never set costs one current_setting(name, true).
 */
#ifndef SWITCHBACK_PROXY_WIRE_SCAN_H
#define SWITCHBACK_PROXY_WIRE_SCAN_H

#include "proxy/wire/slice.h"

enum scan_flag {
    SCAN_SETTING = 1 << 0,        /* set_config */
    SCAN_PARAMETER = 1 << 1,      /* set_config($n ...): names come in Bind */
    SCAN_COMPUTED = 1 << 2,       /* set_config() of neither a literal nor a parameter */
    SCAN_ADVISORY = 1 << 3,       /* pg_advisory_lock and its kin */
    SCAN_TEMPORARY = 1 << 4,      /* TEMP, TEMPORARY, pg_temp */
    SCAN_PREPARE = 1 << 5,        /* PREPARE, among other statements */
    SCAN_DEALLOCATE = 1 << 6,     /* DEALLOCATE */
    SCAN_LISTEN = 1 << 7,         /* LISTEN, UNLISTEN */
    SCAN_HOLD = 1 << 8,           /* WITH HOLD */
    SCAN_DISCARD = 1 << 9,        /* DISCARD */
    SCAN_AUTHORIZATION = 1 << 10, /* ROLE, AUTHORIZATION */
    SCAN_SET = 1 << 11,  /* a SET or RESET for the session: not SET LOCAL, TRANSACTION, CONSTRAINTS */
    SCAN_ENDS = 1 << 12, /* COMMIT, ROLLBACK, PREPARE TRANSACTION ...: what may end a transaction */
    /* the last word on synchronous_commit: less than a standby's confirmation, for the session or for the
     * transaction, or no less */
    SCAN_UNSYNC = 1 << 13,
    SCAN_UNSYNC_LOCAL = 1 << 14,
    SCAN_SYNC = 1 << 15
};

enum { SCAN_NAME_SIZE = 128, SCAN_WORD_SIZE = 64, SCAN_TAG_SIZE = 64 };

/* Follows SET and set_config through the words; two of them run, without and with what stands in comments. */
struct scan_matcher {
    uint8_t state;
    bool config; /* the name is an argument of set_config() */
    bool dotted;
    uint8_t length;
    char name[SCAN_NAME_SIZE];
};

struct scan {
    uint32_t flags;
    uint8_t lexer;      /* in code, a string, a comment ... */
    uint8_t outer;      /* what the lexer returns to after a comment */
    uint8_t previous;   /* the byte before, while it matters */
    uint16_t depth;     /* of nested comments */
    bool escapes;       /* the string is E'...' */
    uint8_t tag_length; /* of the dollar quote that we are in, or that begins */
    uint8_t tag_match;  /* how much of it the last bytes match */
    bool quoted;        /* in a dollar quote */
    uint8_t before;     /* the word before, if it matters */
    uint8_t statements; /* how many begin; more than one is enough to know */
    bool prepares;      /* one of them is PREPARE */
    uint8_t setting;    /* what is about to be set: enum setting */
    char tag[SCAN_TAG_SIZE];
    uint8_t word_length;
    char word[SCAN_WORD_SIZE]; /* lower case, cut */
    struct scan_matcher matchers[2];
    void (*found)(void *context,
                  const char *name); /* lower case, NUL-terminated; with a dot but in set_config() */
    void *context;
};

/* Begins a text; flags are zero again. */
void scan_begin(struct scan *scan, void (*found)(void *context, const char *name), void *context);
void scan_text(struct scan *scan, struct slice text);
/* The text is over. Returns the flags. */
uint32_t scan_end(struct scan *scan);

/* Whether a Bind parameter may be the name of a custom setting. Lower-cases it into name. */
bool scan_is_custom_name(struct slice value, char name[SCAN_NAME_SIZE]);

#endif
