/*
 * Assertions against our own bugs. They stay on in release: a broken invariant ends the process (the journal
 * recovers it) instead of corrupting a flip. Never used on a peer's bytes: those are counted and answered.
 */
#ifndef SWITCHBACK_CONF_BASE_ENSURE_H
#define SWITCHBACK_CONF_BASE_ENSURE_H

#define ENSURE(condition)                                                                                    \
    do {                                                                                                     \
        if (__builtin_expect(!(condition), 0)) {                                                             \
            ensure_failed(#condition, __FILE__, __LINE__);                                                   \
        }                                                                                                    \
    } while (0)

_Noreturn void ensure_failed(const char *condition, const char *file, int line);

#endif
