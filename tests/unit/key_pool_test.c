/* Where the keys of logins lie: in locked memory that no core dump has, wiped when they aren't needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/key_pool.h"
#include "proxy/session.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static struct {
    uintptr_t start, end;
} locked;

/* Instead of libc's, since sanitizers make of that one a function that does nothing. */
int mlock(const void *start, size_t length)
{
    locked.start = (uintptr_t)start;
    locked.end = (uintptr_t)start + length;
    return 0;
}

/* Whether the kernel has that flag for the page (proc(5), VmFlags). */
static bool has_flag(uintptr_t address, const char *flag)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    assert_non_null(maps);
    char line[1024];
    bool inside = false, found = false;
    while (fgets(line, sizeof(line), maps) != NULL) {
        uintptr_t start = 0, end = 0;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            inside = address >= start && address < end;
        } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, flag) != NULL;
        }
    }
    (void)fclose(maps);
    return found;
}

static void keys_lie_in_locked_pages(void **state)
{
    (void)state;
    enum { MANY = 2000 }; /* more than a block of the pool has */
    static struct session_keys *many[MANY];
    for (int i = 0; i < MANY; i++) {
        many[i] = keys_new();
        assert_non_null(many[i]);
        if (i == 0 || i == MANY - 1) {
            uintptr_t at = (uintptr_t)many[i];
            assert_true(at >= locked.start && at + sizeof(*many[i]) <= locked.end);
            assert_true(has_flag(at, " dd"));
        }
    }
    for (int i = 0; i < MANY; i++) {
        keys_free(many[i]);
    }
}

static void keys_are_wiped(void **state)
{
    (void)state;
    static const uint8_t nothing[sizeof(struct session_keys)];
    struct session_keys *keys = keys_new();
    assert_non_null(keys);
    memset(keys, 0xa5, sizeof(*keys));
    keys_free(keys);
    /* still the pool's, which keeps a pointer in front */
    assert_memory_equal((const char *)keys + sizeof(void *), nothing + sizeof(void *),
                        sizeof(nothing) - sizeof(void *));
    assert_int_not_equal(*(const uint8_t *)keys, 0xa5);
    struct session_keys *next = keys_new();
    assert_memory_equal(next, nothing, sizeof(nothing));
    keys_free(next);
    keys_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_lie_in_locked_pages),
        cmocka_unit_test(keys_are_wiped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
