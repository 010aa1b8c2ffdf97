/*
 * PostgreSQL's md5 authentication: what it stores is md5(password and role), what travels is md5 of that and
 * four random bytes. The stored text is all that either side needs, so it opens every server that has the
 * same one: it is kept like a key.
 */
#ifndef SWITCHBACK_PROXY_WIRE_MD5_H
#define SWITCHBACK_PROXY_WIRE_MD5_H

#include "proxy/wire/slice.h"

enum {
    MD5_DIGITS = 32,
    MD5_SALT_SIZE = 4,
    MD5_ANSWER_SIZE = 3 + MD5_DIGITS + 1 /* "md5...", with its NUL */
};

/* "md5" and 32 digits, as pg_authid.rolpassword has it; false: not such a verifier. */
MUST_USE bool md5_verifier_parse(const char *text, char digits[MD5_DIGITS]);

/* Fresh random bytes; false: no randomness. */
MUST_USE bool md5_salt(uint8_t salt[MD5_SALT_SIZE]);

/* What the client answers to the salt. False: this machine's OpenSSL has no MD5 (FIPS). */
MUST_USE bool md5_answer(const char digits[MD5_DIGITS], const uint8_t salt[MD5_SALT_SIZE],
                         char answer[MD5_ANSWER_SIZE]);

/* Whether the client's PasswordMessage is that answer; in constant time. */
bool md5_is_answer(struct slice message, const char answer[MD5_ANSWER_SIZE]);

#endif
