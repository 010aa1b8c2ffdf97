#include "proxy/wire/md5.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

enum { DIGEST_SIZE = MD5_DIGITS / 2 };

static bool is_digit(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool md5_verifier_parse(const char *text, char digits[MD5_DIGITS])
{
    if (strlen(text) != 3 + MD5_DIGITS || memcmp(text, "md5", 3) != 0) {
        return false;
    }
    for (int i = 0; i < MD5_DIGITS; i++) {
        if (!is_digit(text[3 + i])) {
            return false;
        }
    }
    memcpy(digits, text + 3, MD5_DIGITS);
    return true;
}

bool md5_salt(uint8_t salt[MD5_SALT_SIZE])
{
    return RAND_bytes(salt, MD5_SALT_SIZE) == 1;
}

bool md5_answer(const char digits[MD5_DIGITS], const uint8_t salt[MD5_SALT_SIZE],
                char answer[MD5_ANSWER_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    uint8_t input[MD5_DIGITS + MD5_SALT_SIZE], digest[DIGEST_SIZE];
    unsigned length = 0;
    memcpy(input, digits, MD5_DIGITS);
    memcpy(input + MD5_DIGITS, salt, MD5_SALT_SIZE);
    bool made =
        EVP_Digest(input, sizeof input, digest, &length, EVP_md5(), NULL) == 1 && length == DIGEST_SIZE;
    OPENSSL_cleanse(input, sizeof input);
    if (!made) {
        return false;
    }
    memcpy(answer, "md5", 3);
    for (size_t i = 0; i < DIGEST_SIZE; i++) {
        answer[3 + 2 * i] = hex[digest[i] >> 4];
        answer[4 + 2 * i] = hex[digest[i] & 0x0f];
    }
    answer[MD5_ANSWER_SIZE - 1] = '\0';
    return true;
}

bool md5_is_answer(struct slice message, const char answer[MD5_ANSWER_SIZE])
{
    return message.length == MD5_ANSWER_SIZE && CRYPTO_memcmp(message.data, answer, MD5_ANSWER_SIZE) == 0;
}
