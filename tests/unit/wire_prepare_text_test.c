/* proxy/wire/prepare_text: which texts are one PREPARE and nothing else. */
#include "proxy/wire/prepare_text.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { TEXT_MAX = 256 };

static const struct {
    const char *text, *name;
    bool alone;
} cases[] = {
    {"prepare p as select 1", "p", true},
    {"PREPARE P(int, text) AS select $1, $2 ;", "p", true},
    {" /* a /* nested */ one */ prepare -- which\n p as select 1; ; -- end", "p", true},
    {"prepare\"P\"as select 1", "P", true},
    {"prepare \"a\"\"b\" as select 1", "a\"b", true},
    {"prepare p as select ';', \"a;b\", $$;$$, $x$ ; $$ ; $x$, e'\\';', '''; '", "p", true},
    {"prepare p as select /* ; */ 1 -- ; \n", "p", true},
    {"prepare p as select $1::int + $2", "p", true},
    {"prepare p as select a$1$ from t", "p", true},
    {"prepare p as select \"x\"\";\"", "p", true},
    {"prepare prepare as select 1", "prepare", true},
    {"prepare p as select 1;/* c */", "p", true},
    {"prepare p as select 1; select 2", "p", false},
    {"set a = 1; prepare p as select 1", "p", false},
    {"prepare p as select 1; prepare q as select 2", "p", false},
    {"prepare p as select 1; 'x'", "p", false},
    {"prepare p as select 1", "q", false},
    {"prepare p as select 1", "pp", false},
    {"prepare pp as select 1", "p", false},
    {"prepare \"P\" as select 1", "p", false},
    {"prepare P as select 1", "P", false},
    {"prepare u&\"p\" as select 1", "u", false},
    {"prepared p as select 1", "p", false},
    {"begin", "p", false},
    {"", "p", false},
    {"prepare", "p", false},
    {"prepare \"p", "p", false},
    {"prepare p as select '\\'; '", "p", false}, /* which one it was depends on a setting */
    {"prepare p as select 'open", "p", false},
    {"prepare p as select e'open\\", "p", false},
    {"prepare p as select $a$ open $b$", "p", false},
    {"prepare p as select \"open", "p", false},
    {"prepare p as select 1 /* open", "p", false},
    {"/* open", "p", false},
};

/* Each text ends where readable memory does. */
static void texts(void **state)
{
    (void)state;
    struct guard guard;
    guard_init(&guard, TEXT_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t length = strlen(cases[i].text);
        struct slice text = slice_of(guard_copy(&guard, cases[i].text, length), length);
        if (prepare_text_is_alone(text, slice_text(cases[i].name)) != cases[i].alone) {
            fail_msg("%s: expected %d", cases[i].text, cases[i].alone);
        }
        for (size_t cut = 0; cut < length; cut++) { /* reads nothing behind the end */
            text = slice_of(guard_copy(&guard, cases[i].text, cut), cut);
            (void)prepare_text_is_alone(text, slice_text(cases[i].name));
        }
    }
    guard_deinit(&guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
