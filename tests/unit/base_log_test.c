/* conf/base/log: a line is one line, and JSON, whatever a client calls itself. */
#include "conf/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The line that is logged of a user of that name. */
static void log_user(const char *name, char *line, size_t size)
{
    int ends[2], kept = dup(STDERR_FILENO);
    assert_true(kept >= 0);
    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    LOG_INFO("login_refused", LOG_STR("user", name));
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    ssize_t length = read(ends[0], line, size - 1);
    assert_true(length > 0);
    line[length] = '\0';
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)close(kept);
}

static void names_that_are_no_text_are_still_json(void **state)
{
    static const struct {
        const char *name, *shown;
    } cases[] = {
        {"j\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\"user\":\"j\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"}\n"},
        {"a\nb\"c\\", "\"user\":\"a\\u000ab\\\"c\\\\\"}\n"},
        {"a\xff"
         "b\xc3",
         "\"user\":\"a?b?\"}\n"},
        {"\xc0\x80\xed\xa0\x80\xf5x", "\"user\":\"??????x\"}\n"},
        {"\xe0\x9f\xbf\xf0\x8f\xbf\xbf\xf4\x90\x80\x80", "\"user\":\"???????????\"}\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[512];
        log_user(cases[i].name, line, sizeof line);
        if (strstr(line, cases[i].shown) == NULL) {
            fail_msg("%zu: %s", i, line);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_that_are_no_text_are_still_json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
