/* Words that hint at session state, and what becomes of synchronous_commit. */
#include "proxy/wire/scan_internal.h"

#include "proxy/wire/glance.h"

/* Where a setting stands, on the way to synchronous_commit. */
enum setting {
    SETTING_NONE,
    SETTING_NAME,  /* SET [SESSION], set_config */
    SETTING_LOCAL, /* SET LOCAL */
    SETTING_RESET,
    SETTING_VALUE,      /* of synchronous_commit, comes next */
    SETTING_VALUE_LOCAL /* the same, for the transaction */
};

#define HINT(text, before, flags)                                                                            \
    {                                                                                                        \
        (text), sizeof(text) - 1, (before), (flags)                                                          \
    }

static const struct {
    const char *word;
    size_t length;
    enum before before;
    uint32_t flag;
} hints[] = {
    HINT("set_config", BEFORE_ANY, SCAN_SETTING),    HINT("reset", BEFORE_START, SCAN_SET),
    HINT("temp", BEFORE_CREATE, SCAN_TEMPORARY),     HINT("temporary", BEFORE_CREATE, SCAN_TEMPORARY),
    HINT("pg_temp", BEFORE_ANY, SCAN_TEMPORARY),     HINT("hold", BEFORE_WITH, SCAN_HOLD),
    HINT("deallocate", BEFORE_ANY, SCAN_DEALLOCATE), HINT("listen", BEFORE_ANY, SCAN_LISTEN),
    HINT("unlisten", BEFORE_ANY, SCAN_LISTEN),       HINT("discard", BEFORE_ANY, SCAN_DISCARD),
    HINT("role", BEFORE_ANY, SCAN_AUTHORIZATION),    HINT("authorization", BEFORE_ANY, SCAN_AUTHORIZATION),
};

static enum before before_next(const struct scan *scan)
{
    static const struct {
        const char *word;
        enum before before;
        bool first; /* of a statement only */
    } words[] = {
        {"with", BEFORE_WITH, false},    {"create", BEFORE_CREATE, false},  {"replace", BEFORE_CREATE, false},
        {"local", BEFORE_CREATE, false}, {"global", BEFORE_CREATE, false},  {"into", BEFORE_CREATE, false},
        {"set", BEFORE_SET, true},       {"prepare", BEFORE_PREPARE, true},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (scan->word[0] == words[i].word[0] && scan_word_is(scan, words[i].word) &&
            (!words[i].first || scan->before == BEFORE_START)) {
            return words[i].before;
        }
    }
    return BEFORE_OTHER;
}

/* A word that begins a statement. */
static bool is_end(const struct scan *scan)
{
    switch (scan->word[0]) {
    case 'a':
        return scan_word_is(scan, "abort");
    case 'c':
        return scan_word_is(scan, "commit");
    case 'e':
        return scan_word_is(scan, "end");
    case 'r':
        return scan_word_is(scan, "rollback");
    default:
        return false;
    }
}

/* set, reset, set_config: nearly no other word needs a closer look. */
static bool may_set(const struct scan *scan)
{
    return (scan->word[0] == 's' && (scan->word_length == 3 || scan->word_length == 10)) ||
           (scan->word[0] == 'r' && scan->word_length == 5);
}

static void say_sync(struct scan *scan, uint32_t flag)
{
    scan->flags &= ~(uint32_t)(SCAN_SYNC | SCAN_UNSYNC | SCAN_UNSYNC_LOCAL);
    scan->flags |= flag;
    scan->setting = SETTING_NONE;
}

/* What synchronous_commit is set to waits for the standby: else, or if it can't be told, it doesn't. */
static bool is_sync(const struct scan *scan)
{
    return scan_word_is(scan, "on") || scan_word_is(scan, "remote_apply") || scan_word_is(scan, "default") ||
           scan_word_is(scan, "true") || scan_word_is(scan, "yes") || scan_word_is(scan, "1");
}

static void follow_sync(struct scan *scan)
{
    switch ((enum setting)scan->setting) {
    case SETTING_VALUE:
    case SETTING_VALUE_LOCAL:
        if (!scan_word_is(scan, "to")) {
            say_sync(scan, is_sync(scan)                    ? SCAN_SYNC
                           : scan->setting == SETTING_VALUE ? SCAN_UNSYNC
                                                            : SCAN_UNSYNC_LOCAL);
        }
        return;
    case SETTING_NAME:
    case SETTING_LOCAL:
        if (scan_word_is(scan, "synchronous_commit")) {
            scan->setting = scan->setting == SETTING_NAME ? SETTING_VALUE : SETTING_VALUE_LOCAL;
            return;
        }
        if (scan_word_is(scan, "local")) {
            scan->setting = SETTING_LOCAL;
            return;
        }
        if (scan_word_is(scan, "session")) {
            return;
        }
        break;
    case SETTING_RESET:
        if (scan_word_is(scan, "all") || scan_word_is(scan, "synchronous_commit")) {
            say_sync(scan, SCAN_SYNC);
            return;
        }
        break;
    case SETTING_NONE:
        break;
    }
    scan->setting = scan_word_is(scan, "set") || scan_word_is(scan, "set_config") ? SETTING_NAME
                    : scan_word_is(scan, "reset")                                 ? SETTING_RESET
                                                                                  : SETTING_NONE;
}

void scan_hint(struct scan *scan)
{
    static const char advisory[] = "advisory_lock";
    if (scan->before == BEFORE_START) {
        scan->statements = (uint8_t)(scan->statements + (scan->statements < UINT8_MAX));
        scan->flags |= is_end(scan) ? SCAN_ENDS : 0;
    }
    if (scan->setting == SETTING_NONE && scan->before != BEFORE_SET && scan->before != BEFORE_PREPARE &&
        !glance_may_hint(scan->word[0], scan->word_length)) {
        scan->before = (uint8_t)before_next(scan);
        return; /* nearly always */
    }
    if (scan->setting != SETTING_NONE || may_set(scan)) {
        follow_sync(scan);
    }
    if (scan->before == BEFORE_SET && !scan_word_is(scan, "local") && !scan_word_is(scan, "transaction") &&
        !scan_word_is(scan, "constraints")) {
        scan->flags |= SCAN_SET;
    }
    if (scan->before == BEFORE_PREPARE) {
        bool ends = scan_word_is(scan, "transaction");
        scan->prepares = scan->prepares || !ends;
        scan->flags |= ends ? SCAN_ENDS : 0;
    }
    if (scan->word[0] == 'p' && scan->word_length >= sizeof advisory &&
        memmem(scan->word, scan->word_length, advisory, sizeof advisory - 1) != NULL) {
        scan->flags |= SCAN_ADVISORY; /* neither pg_advisory_xact_lock nor pg_advisory_unlock */
    }
    for (size_t i = 0; i < ARRAY_LENGTH(hints); i++) {
        if (scan->word_length == hints[i].length && memcmp(scan->word, hints[i].word, hints[i].length) == 0 &&
            (hints[i].before == BEFORE_ANY || hints[i].before == scan->before)) {
            scan->flags |= hints[i].flag;
        }
    }
    scan->before = (uint8_t)before_next(scan);
}

void scan_hint_parameter(struct scan *scan)
{
    if (scan->setting == SETTING_VALUE || scan->setting == SETTING_VALUE_LOCAL) {
        say_sync(scan, scan->setting == SETTING_VALUE ? SCAN_UNSYNC : SCAN_UNSYNC_LOCAL);
    }
}
