/* proxy/wire: md5 authentication. */
#include "proxy/wire/md5.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* md5('secret' || 'joe'), and what libpq answers to the salt 01 02 03 04 */
#define STORED "md5c59ec932d911ffdf487595b5a2adf973"

static void only_verifiers_are_taken(void **state)
{
    (void)state;
    char digits[MD5_DIGITS];
    assert_true(md5_verifier_parse("md50123456789abcdef0123456789abcdef", digits));
    assert_memory_equal(digits, "0123456789abcdef0123456789abcdef", MD5_DIGITS);
    static const char *const wrong[] = {"",
                                        "md5",
                                        "md50123456789abcdef0123456789abcde",
                                        "md50123456789abcdef0123456789abcdef0",
                                        "md50123456789ABCDEF0123456789ABCDEF",
                                        "MD50123456789abcdef0123456789abcdef",
                                        "SCRAM-SHA-256$4096:x$y:z"};
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        assert_false(md5_verifier_parse(wrong[i], digits));
    }
}

static void the_answer_is_postgresqls(void **state)
{
    (void)state;
    static const uint8_t salt[MD5_SALT_SIZE] = {1, 2, 3, 4};
    char digits[MD5_DIGITS], answer[MD5_ANSWER_SIZE];
    assert_true(md5_verifier_parse(STORED, digits));
    assert_true(md5_answer(digits, salt, answer));
    assert_string_equal(answer, "md5850be429f1fe77df3f603ac424abb440");
    assert_true(md5_is_answer(slice_of(answer, MD5_ANSWER_SIZE), answer));
    assert_false(md5_is_answer(slice_of(answer, MD5_ANSWER_SIZE - 1), answer)); /* without its NUL */
    assert_false(md5_is_answer(slice_of("", 0), answer));
    char other[MD5_ANSWER_SIZE];
    memcpy(other, answer, sizeof other);
    other[MD5_ANSWER_SIZE - 2] ^= 1;
    assert_false(md5_is_answer(slice_of(other, sizeof other), answer));
}

static void salts_differ(void **state)
{
    (void)state;
    uint8_t one[MD5_SALT_SIZE] = {0}, two[MD5_SALT_SIZE] = {0}, three[MD5_SALT_SIZE] = {0};
    assert_true(md5_salt(one) && md5_salt(two) && md5_salt(three));
    assert_false(memcmp(one, two, sizeof one) == 0 && memcmp(one, three, sizeof one) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_verifiers_are_taken),
        cmocka_unit_test(the_answer_is_postgresqls),
        cmocka_unit_test(salts_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
