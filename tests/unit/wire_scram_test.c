/* proxy/wire/scram: the example of RFC 7677, both roles against each other, and what must be refused. */
#include "proxy/wire/scram.h"

#include "guard.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct scram_binding no_binding = {.length = 0};

enum { VERIFIER_SIZE = 512 };

/* As PostgreSQL stores it. Fills the client's key, too. */
static void make_verifier(const char *password, const uint8_t *salt, int salt_length,
                          char text[VERIFIER_SIZE], uint8_t client_key[SCRAM_KEY_SIZE])
{
    uint8_t salted[32];
    uint8_t stored[32];
    uint8_t server_key[32];
    char salt_text[128];
    char stored_text[64];
    char server_text[64];
    unsigned length = 32;
    assert_int_equal(
        PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, salt_length, 4096, EVP_sha256(), 32, salted),
        1);
    assert_non_null(HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Client Key", 10, client_key, &length));
    assert_non_null(HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Server Key", 10, server_key, &length));
    assert_non_null(SHA256(client_key, 32, stored));
    EVP_EncodeBlock((uint8_t *)salt_text, salt, salt_length);
    EVP_EncodeBlock((uint8_t *)stored_text, stored, 32);
    EVP_EncodeBlock((uint8_t *)server_text, server_key, 32);
    (void)snprintf(text, VERIFIER_SIZE, "SCRAM-SHA-256$4096:%s$%s:%s", salt_text, stored_text, server_text);
}

static const uint8_t rfc_salt[] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
                                   0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};

#define RFC_FIRST "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define RFC_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_FINAL                                                                                            \
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"                                           \
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="

static void rfc_7677(void **state)
{
    (void)state;
    char text[VERIFIER_SIZE];
    char reply[SCRAM_MESSAGE_SIZE];
    uint8_t expected_key[SCRAM_KEY_SIZE];
    uint8_t key[SCRAM_KEY_SIZE];
    struct scram_verifier verifier;
    struct scram_server server;
    make_verifier("pencil", rfc_salt, sizeof rfc_salt, text, expected_key);
    assert_true(scram_verifier_parse(text, &verifier));
    assert_int_equal(
        scram_server_first(&server, &verifier, &no_binding, false, RFC_NONCE, slice_text(RFC_FIRST), reply),
        SCRAM_OK);
    assert_string_equal(
        reply, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    assert_int_equal(scram_server_final(&server, slice_text(RFC_FINAL), reply, key), SCRAM_OK);
    assert_string_equal(reply, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_memory_equal(key, expected_key, SCRAM_KEY_SIZE);
}

/* Client and server; returns the server's verdict, and checks the client's when it is SCRAM_OK. */
static enum scram_result exchange(const struct scram_verifier *verifier, const uint8_t key[SCRAM_KEY_SIZE],
                                  uint8_t recovered[SCRAM_KEY_SIZE])
{
    char nonce[SCRAM_NONCE_SIZE];
    char from_client[SCRAM_MESSAGE_SIZE];
    char from_server[SCRAM_MESSAGE_SIZE];
    struct scram_client client;
    struct scram_server server;
    assert_true(scram_nonce(nonce));
    scram_client_first(&client, &no_binding, false, nonce, from_client);
    assert_true(scram_nonce(nonce));
    assert_int_equal(scram_server_first(&server, verifier, &no_binding, false, nonce, slice_text(from_client),
                                        from_server),
                     SCRAM_OK);
    assert_int_equal(scram_client_final(&client, slice_text(from_server), key, from_client), SCRAM_OK);
    enum scram_result result = scram_server_final(&server, slice_text(from_client), from_server, recovered);
    if (result == SCRAM_OK) {
        uint8_t wrong[SCRAM_KEY_SIZE] = {1};
        assert_int_equal(scram_client_verify(&client, slice_text(from_server), verifier->server_key),
                         SCRAM_OK);
        assert_int_equal(scram_client_verify(&client, slice_text(from_server), wrong), SCRAM_REFUSED);
    }
    scram_server_wipe(&server);
    return result;
}

/* What the server says to a first message, and to the last one, of a client that sees another certificate or
 * the same one. */
static enum scram_result bind(const struct scram_binding *offered, bool plus,
                              const struct scram_binding *seen, bool client_plus)
{
    char text[VERIFIER_SIZE], nonce[SCRAM_NONCE_SIZE], from_client[SCRAM_MESSAGE_SIZE],
        from_server[SCRAM_MESSAGE_SIZE];
    uint8_t key[SCRAM_KEY_SIZE], recovered[SCRAM_KEY_SIZE];
    struct scram_verifier verifier;
    struct scram_client client;
    struct scram_server server;
    make_verifier("pencil", rfc_salt, sizeof rfc_salt, text, key);
    assert_true(scram_verifier_parse(text, &verifier));
    assert_true(scram_nonce(nonce));
    scram_client_first(&client, seen, client_plus, nonce, from_client);
    enum scram_result result =
        scram_server_first(&server, &verifier, offered, plus, nonce, slice_text(from_client), from_server);
    if (result != SCRAM_OK) {
        return result;
    }
    assert_int_equal(scram_client_final(&client, slice_text(from_server), key, from_client), SCRAM_OK);
    result = scram_server_final(&server, slice_text(from_client), from_server, recovered);
    if (result == SCRAM_OK) {
        assert_memory_equal(recovered, key, SCRAM_KEY_SIZE);
        assert_int_equal(scram_client_verify(&client, slice_text(from_server), verifier.server_key),
                         SCRAM_OK);
    }
    return result;
}

static void a_login_is_bound_to_its_channel(void **state)
{
    (void)state;
    const struct scram_binding ours = {.hash = "thirty-two bytes of a hash here", .length = 32};
    const struct scram_binding theirs = {.hash = "thirty-two bytes of another one", .length = 32};
    struct scram_binding longest = {.length = SCRAM_HASH_MAX};
    memset(longest.hash, 0xff, sizeof longest.hash);
    assert_int_equal(bind(&ours, true, &ours, true), SCRAM_OK);
    assert_int_equal(bind(&longest, true, &longest, true), SCRAM_OK);
    /* somebody in the middle has a certificate of his own */
    assert_int_equal(bind(&ours, true, &theirs, true), SCRAM_UNBOUND);
    assert_int_equal(bind(&ours, true, &longest, true), SCRAM_UNBOUND);
    /* or has hidden that we can bind: the client says y */
    assert_int_equal(bind(&ours, false, &ours, false), SCRAM_DOWNGRADED);
    /* a client that can't bind, and one whose server can't */
    assert_int_equal(bind(&ours, false, &no_binding, false), SCRAM_OK);
    assert_int_equal(bind(&no_binding, false, &ours, false), SCRAM_OK);
    /* the mechanism and the message must say the same */
    assert_int_equal(bind(&ours, true, &no_binding, false), SCRAM_BAD);
    assert_int_equal(bind(&ours, true, &ours, false), SCRAM_BAD);
    assert_int_equal(bind(&ours, false, &ours, true), SCRAM_BAD);
    assert_int_equal(bind(&no_binding, false, &ours, true), SCRAM_BAD);
    assert_int_equal(bind(&no_binding, true, &ours, true), SCRAM_BAD);
}

static void both_roles(void **state)
{
    (void)state;
    static const uint8_t salts[64] = "salts are not always sixteen bytes long";
    for (int salt_length = 1; salt_length <= SCRAM_SALT_MAX; salt_length += 7) {
        char text[VERIFIER_SIZE];
        uint8_t key[SCRAM_KEY_SIZE];
        uint8_t recovered[SCRAM_KEY_SIZE];
        struct scram_verifier verifier;
        make_verifier("secret", salts, salt_length, text, key);
        assert_true(scram_verifier_parse(text, &verifier));
        assert_int_equal(exchange(&verifier, key, recovered), SCRAM_OK);
        assert_memory_equal(recovered, key, SCRAM_KEY_SIZE);
        key[5] ^= 1;
        assert_int_equal(exchange(&verifier, key, recovered), SCRAM_REFUSED);
    }
}

static void unknown_users_look_like_any_other(void **state)
{
    (void)state;
    uint8_t secret[SCRAM_KEY_SIZE] = {3, 1, 4};
    uint8_t other[SCRAM_KEY_SIZE] = {2, 7};
    uint8_t key[SCRAM_KEY_SIZE] = {0};
    struct scram_verifier first;
    struct scram_verifier again;
    struct scram_verifier different;
    scram_verifier_mock(secret, "nobody", 0, &first);
    scram_verifier_mock(secret, "nobody", 0, &again);
    assert_memory_equal(&first, &again, sizeof first);
    scram_verifier_mock(secret, "nobody2", 0, &different);
    assert_memory_not_equal(first.salt, different.salt, 16);
    scram_verifier_mock(other, "nobody", 0, &different);
    assert_memory_not_equal(first.salt, different.salt, 16);
    assert_int_equal(exchange(&first, key, key), SCRAM_REFUSED);
}

static void verifiers_that_are_none(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA",
        "SCRAM-SHA-256$0:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "SCRAM-SHA-256$x:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "SCRAM-SHA-256$4096:c2Fs "
        "dA=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    };
    struct scram_verifier verifier;
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        assert_false(scram_verifier_parse(texts[i], &verifier));
    }
}

static void malformed_messages(void **state)
{
    (void)state;
    static const char *const firsts[] = {"",
                                         "n",
                                         "n,,",
                                         "p=tls-server-end-point,,n=,r=x",
                                         "n,a=root,n=,r=x",
                                         "n,,r=x",
                                         "n,,n=,r=",
                                         "n,,n=,r=a b",
                                         "n,,m=x,n=,r=x",
                                         "x,,n=,r=abc"};
    static const char *const finals[] = {"",
                                         "c=biws",
                                         "c=biws,r=abcS",
                                         "c=eSws,r=abcS,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                                         "c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                                         "c=biws,r=abcS,p=AAAA",
                                         "p=AAAA",
                                         "c=biws,r=abcS,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,x=y"};
    char text[VERIFIER_SIZE];
    char reply[SCRAM_MESSAGE_SIZE];
    uint8_t key[SCRAM_KEY_SIZE];
    struct scram_verifier verifier;
    struct scram_server server;
    make_verifier("pencil", rfc_salt, sizeof rfc_salt, text, key);
    assert_true(scram_verifier_parse(text, &verifier));
    for (size_t i = 0; i < ARRAY_LENGTH(firsts); i++) {
        assert_int_equal(
            scram_server_first(&server, &verifier, &no_binding, false, "S", slice_text(firsts[i]), reply),
            SCRAM_BAD);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(finals); i++) {
        assert_int_equal(
            scram_server_first(&server, &verifier, &no_binding, false, "S", slice_text("n,,n=,r=abc"), reply),
            SCRAM_OK);
        assert_int_equal(scram_server_final(&server, slice_text(finals[i]), reply, key), SCRAM_BAD);
    }
    struct scram_client client;
    scram_client_first(&client, &no_binding, false, "abc", reply);
    static const char *const servers[] = {"", "r=abc,s=AAAA,i=1", "r=xyzS,s=AAAA,i=1", "r=abcS,i=1",
                                          "e=other-error"};
    for (size_t i = 0; i < ARRAY_LENGTH(servers); i++) {
        assert_int_equal(scram_client_final(&client, slice_text(servers[i]), key, reply), SCRAM_BAD);
    }
}

static void random_bytes_are_survived(void **state)
{
    (void)state;
    static const char alphabet[] = "nyp=,,rcsv=ABCabc0123+/= \x01\xff";
    uint64_t seed = 11;
    struct guard guard;
    struct scram_verifier verifier;
    uint8_t secret[SCRAM_KEY_SIZE] = {1};
    guard_init(&guard, 1024);
    scram_verifier_mock(secret, "x", 0, &verifier);
    for (int round = 0; round < 50000; round++) {
        char bytes[600];
        char reply[SCRAM_MESSAGE_SIZE];
        uint8_t key[SCRAM_KEY_SIZE] = {0};
        struct scram_server server;
        struct scram_client client;
        size_t length = random_next(&seed) % (round % 50 == 0 ? sizeof bytes : 60);
        for (size_t i = 0; i < length; i++) {
            bytes[i] = alphabet[random_next(&seed) % (sizeof alphabet - 1)];
        }
        if (random_next(&seed) % 2 == 0 && length > 10) {
            memcpy(bytes, random_next(&seed) % 2 == 0 ? "n,,n=,r=ab" : "r=abcx,s=A", 10);
        }
        struct slice input = slice_of(guard_copy(&guard, bytes, length), length);
        (void)!scram_server_first(&server, &verifier, &no_binding, false, "S", input, reply);
        assert_int_equal(
            scram_server_first(&server, &verifier, &no_binding, false, "S", slice_text("n,,n=,r=abc"), reply),
            SCRAM_OK);
        assert_int_not_equal(scram_server_final(&server, input, reply, key), SCRAM_OK);
        scram_client_first(&client, &no_binding, false, "abc", reply);
        if (scram_client_final(&client, input, key, reply) == SCRAM_OK) {
            assert_int_not_equal(scram_client_verify(&client, input, key), SCRAM_OK);
        }
    }
    guard_deinit(&guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_7677),
        cmocka_unit_test(a_login_is_bound_to_its_channel),
        cmocka_unit_test(both_roles),
        cmocka_unit_test(unknown_users_look_like_any_other),
        cmocka_unit_test(verifiers_that_are_none),
        cmocka_unit_test(malformed_messages),
        cmocka_unit_test(random_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
