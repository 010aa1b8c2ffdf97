/* proxy: startup, limits, policies, authentication, against a scripted server. */
#include "tests/unit/proxy_world.h"

#include "proxy/wire/decode.h"
#include "proxy/wire/scram.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

static const struct scram_binding no_binding = {.length = 0};

static const uint8_t ssl_request[8] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};
static const uint8_t gss_request[8] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30};

static void encryption_is_declined_once_each(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int client = client_connect(world);
    put(client, gss_request, 8);
    expect(world, client, "N", 1);
    put(client, ssl_request, 8);
    expect(world, client, "N", 1);
    client_startup(client);
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);

    client = client_connect(world);
    put(client, ssl_request, 8);
    expect(world, client, "N", 1);
    put(client, ssl_request, 8);
    expect_error(world, client, "0A000");
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

static void bytes_behind_an_encryption_request_are_refused(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    uint8_t bytes[600];
    memcpy(bytes, ssl_request, 8);
    size_t length = 8 + startup_packet(bytes + 8, "joe", "app");
    int client = client_connect(world);
    put(client, bytes, length);
    expect(world, client, "N", 1);
    expect_error(world, client, "08P01");
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

static void a_startup_may_be_split_at_every_byte(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    uint8_t packet[512];
    size_t length = startup_packet(packet, "joe", "app");
    int client = client_connect(world);
    for (size_t i = 0; i < length; i++) {
        put(client, packet + i, 1);
        (void)usleep(300);
    }
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void what_is_sent_ahead_waits_for_the_login(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    uint8_t bytes[600];
    size_t length = startup_packet(bytes, "joe", "app");
    memcpy(bytes + length, QUERY_1, sizeof(QUERY_1) - 1);
    int client = client_connect(world);
    put(client, bytes, length + sizeof(QUERY_1) - 1);
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    expect(world, server, BYTES(QUERY_1));
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void bad_startups_are_refused(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    static const struct {
        const char *bytes;
        size_t length;
        const char *sqlstate;
    } cases[] = {
        {BYTES("\0\0\x27\x15\0\x03\0\0"), NULL}, /* 10,005 bytes */
        {BYTES("\x7f\xff\xff\xff\0\x03\0\0"), NULL},
        {BYTES("\0\0\0\x04"), NULL},
        {BYTES("\0\0\0\x09\0\x04\0\0\0"), "0A000"}, /* protocol 4.0 */
        {BYTES("\0\0\0\x09\0\x03\0\0\0"), "28000"}, /* no user */
        {BYTES("GET / HTTP/1.0\r\n\r\n"), NULL},
        {BYTES("\0\0\0\x0c\0\x03\0\0user"), "08P01"}, /* no NUL */
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        int client = client_connect(world);
        put(client, cases[i].bytes, cases[i].length);
        if (cases[i].sqlstate != NULL) {
            expect_error(world, client, cases[i].sqlstate);
        }
        expect_end(world, client);
        (void)close(client);
    }
    int client = client_connect(world);
    put(client, BYTES("\0\0\0\x09\0\x02\0\0\0")); /* an error as protocol 2 has it */
    expect(world, client,
           BYTES("EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0"));
    expect_end(world, client);
    (void)close(client);
    client = client_connect(world);
    put(client, BYTES("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")); /* TLS at once */
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

static void newer_protocols_are_negotiated_down(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int client = client_connect(world);
    put(client, BYTES("\0\0\0\x2d\0\x03\x27\x0fuser\0joe\0_pq_.grease\0x\0database\0app\0\0"));
    expect(world, client, BYTES("v\0\0\0\x18\0\x03\0\x02\0\0\0\x01_pq_.grease\0"));
    int server = server_login(world, SIDE_BLUE); /* without the option; what it speaks is its own affair */
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void unmanaged_databases_follow_the_policy(void **state)
{
    (void)state;
    uint8_t packet[512];
    for (int pass = 0; pass < 2; pass++) {
        struct world *world = world_new();
        world->settings.unmanaged = pass ? UNMANAGED_PASS : UNMANAGED_REFUSE;
        world_start(world);
        int client = client_connect(world);
        size_t length = startup_packet(packet, "joe", "other");
        put(client, packet, length);
        if (pass) {
            int server = server_accept(world, SIDE_BLUE);
            length = startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "other");
            expect(world, server, packet, length);
            (void)close(server);
            expect_error(world, client, "08006"); /* it said nothing */
        } else {
            expect_error(world, client, "3D000");
        }
        expect_end(world, client);
        (void)close(client);
        world_free(world);
    }
}

static void clients_beyond_the_limit_are_refused_but_may_cancel(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.max_clients = 1;
    world_start(world);
    struct pair pair = pair_new(world);
    int second = client_connect(world);
    client_startup(second);
    expect_error(world, second, "53300");
    expect_end(world, second);
    (void)close(second);

    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    int canceller = client_cancel(world, pair.key);
    int server = server_accept(world, SIDE_BLUE);
    expect(world, server, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a" SERVER_KEY));
    expect_silence(world, canceller); /* it ends when the server has taken it */
    (void)close(server);
    expect_end(world, canceller);
    (void)close(canceller);
    pair_close(&pair);
    world_free(world);
}

static void a_slow_login_ends(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.timeouts.login_us = 200000;
    world->settings.timeouts.server_connect_us = 200000;
    world_start(world);
    int silent = client_connect(world);
    put(silent, "\0\0", 2);
    int stuck = client_connect(world);
    client_startup(stuck);
    expect_error(world, stuck, "57P03"); /* its server accepts and says nothing */
    expect_end(world, silent);           /* as PostgreSQL does: without a word */
    (void)close(silent);
    (void)close(stuck);
    world_free(world);
}

static void an_unreachable_server_is_said_so(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_close_side(world, SIDE_BLUE);
    world_start(world);
    int client = client_connect(world);
    client_startup(client);
    expect_error(world, client, "57P03");
    expect_end(world, client);
    (void)close(client);
    world_free(world);
}

static void a_server_may_be_given_by_name(void **state)
{
    (void)state;
    static char name[] = "localhost";
    struct world *world = world_new();
    world->settings.sides[SIDE_BLUE].host = name;
    world_start(world);
    for (int i = 0; i < 3; i++) { /* looked up, then known */
        struct pair pair = pair_new(world);
        pair_works(world, &pair);
        pair_close(&pair);
    }
    world_free(world);
}

static void a_server_that_wants_a_password_is_explained(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int client = client_connect(world);
    client_startup(client);
    int server = server_accept(world, SIDE_BLUE);
    put(server, BYTES("R\0\0\0\x08\0\0\0\x03"));
    char body[1024];
    assert_int_equal(expect_message(world, client, body, sizeof(body)), 'E');
    struct decode_error error;
    decode_error(slice_of(body, sizeof(body)), &error);
    assert_true(slice_equals(error.sqlstate, "28000"));
    assert_non_null(strstr((const char *)error.hint.data, "host \"app\" \"joe\" 127.0.0.1/32 trust"));
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void a_servers_refusal_is_passed_on(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    static const struct {
        const char *bytes;
        size_t length;
    } refusals[] = {{BYTES("E\0\0\0\x26SFATAL\0C42501\0Mno such person\0X1\0\0")},
                    {BYTES("E\0\0\0\x1cSFATAL\0Mno such person\0\0")}}; /* the code may be missing */
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        int client = client_connect(world);
        client_startup(client);
        int server = server_accept(world, SIDE_BLUE);
        put(server, refusals[i].bytes, refusals[i].length);
        expect(world, client, refusals[i].bytes, refusals[i].length);
        expect_end(world, client);
        (void)close(client);
        (void)close(server);
    }
    world_free(world);
}

/* --- SCRAM --- */

struct secrets {
    uint8_t client_key[32], stored_key[32], server_key[32];
    char verifier[PROXY_VERIFIER_SIZE];
};

static void derive(const char *password, struct secrets *secrets)
{
    static const uint8_t salt[12] = "twelve bytes";
    uint8_t salted[32];
    unsigned length = 32;
    assert_int_equal(PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, sizeof(salt), 4096,
                                       EVP_sha256(), 32, salted),
                     1);
    assert_non_null(
        HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Client Key", 10, secrets->client_key, &length));
    assert_non_null(
        HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Server Key", 10, secrets->server_key, &length));
    SHA256(secrets->client_key, 32, secrets->stored_key);
    char texts[3][64];
    EVP_EncodeBlock((uint8_t *)texts[0], salt, sizeof(salt));
    EVP_EncodeBlock((uint8_t *)texts[1], secrets->stored_key, 32);
    EVP_EncodeBlock((uint8_t *)texts[2], secrets->server_key, 32);
    (void)snprintf(secrets->verifier, sizeof(secrets->verifier), "SCRAM-SHA-256$4096:%s$%s:%s", texts[0],
                   texts[1], texts[2]);
}

/* The client's side of an exchange, up to its proof. */
static void client_proves(struct world *world, int client, const struct secrets *secrets,
                          struct scram_client *scram)
{
    char nonce[SCRAM_NONCE_SIZE], message[SCRAM_MESSAGE_SIZE], body[1024];
    uint8_t packet[1024];
    struct build build;
    struct slice data;
    uint32_t kind = 0;
    expect(world, client, BYTES("R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"));
    assert_true(scram_nonce(nonce));
    scram_client_first(scram, &no_binding, false, nonce, message);
    build_init(&build, packet, sizeof(packet));
    build_sasl_initial(&build, SCRAM_MECHANISM, slice_text(message));
    put(client, packet, build.length);
    assert_int_equal(expect_message(world, client, body, sizeof(body)), 'R');
    size_t length = 4 + strlen(body + 4);
    assert_true(decode_authentication(slice_of(body, length), &kind, &data));
    assert_int_equal(kind, AUTHENTICATION_SASL_CONTINUE);
    assert_int_equal(scram_client_final(scram, data, secrets->client_key, message), SCRAM_OK);
    build_init(&build, packet, sizeof(packet));
    build_sasl_response(&build, slice_text(message));
    put(client, packet, build.length);
}

/* The server's side, with the same verifier. */
static int server_scram(struct world *world, const struct secrets *secrets)
{
    struct scram_verifier verifier;
    struct scram_server scram;
    char nonce[SCRAM_NONCE_SIZE], reply[SCRAM_MESSAGE_SIZE], body[1024];
    uint8_t packet[1024], key[SCRAM_KEY_SIZE];
    struct build build;
    struct slice mechanism, first;
    int server = server_accept(world, SIDE_BLUE);
    size_t length = startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app");
    expect(world, server, packet, length);
    put(server, BYTES("R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"));
    assert_int_equal(expect_message(world, server, body, sizeof(body)), 'p');
    length = strlen(body) + 1 + 4;
    assert_true(decode_sasl_initial(slice_of(body, length + strlen(body + length)), &mechanism, &first));
    assert_true(scram_verifier_parse(secrets->verifier, &verifier));
    assert_true(scram_nonce(nonce));
    assert_int_equal(scram_server_first(&scram, &verifier, &no_binding, false, nonce, first, reply),
                     SCRAM_OK);
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl_continue(&build, slice_text(reply));
    put(server, packet, build.length);
    assert_int_equal(expect_message(world, server, body, sizeof(body)), 'p');
    assert_int_equal(scram_server_final(&scram, slice_text(body), reply, key), SCRAM_OK);
    build_init(&build, packet, sizeof(packet));
    build_authentication_sasl_final(&build, slice_text(reply));
    put(server, packet, build.length);
    server_greet(server);
    return server;
}

static void a_proof_opens_the_server_too(void **state)
{
    (void)state;
    struct secrets secrets;
    derive("secret", &secrets);
    struct world *world = world_new();
    world->settings.auth_method = AUTH_SCRAM_SHA_256;
    world->verifier = secrets.verifier;
    world_start(world);
    struct scram_client scram;
    char body[1024];
    int client = client_connect(world);
    client_startup(client);
    client_proves(world, client, &secrets, &scram);
    assert_int_equal(expect_message(world, client, body, sizeof(body)), 'R');
    assert_int_equal(scram_client_verify(&scram, slice_text(body + 4), secrets.server_key), SCRAM_OK);
    int server = server_scram(world, &secrets);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void wrong_passwords_and_unknown_users_look_alike(void **state)
{
    (void)state;
    struct secrets secrets, other;
    derive("secret", &secrets);
    derive("wrong", &other);
    for (int known = 0; known < 2; known++) {
        struct world *world = world_new();
        world->settings.auth_method = AUTH_SCRAM_SHA_256;
        world->verifier = known ? secrets.verifier : NULL;
        world_start(world);
        struct scram_client scram;
        int client = client_connect(world);
        client_startup(client);
        client_proves(world, client, &other, &scram);
        expect_error(world, client, "28P01");
        expect_end(world, client);
        (void)close(client);
        world_free(world);
    }
}

static void random_first_bytes_are_survived(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    srandom(42);
    for (int round = 0; round < 200; round++) {
        uint8_t bytes[64];
        size_t length = 1 + (size_t)random() % sizeof(bytes);
        for (size_t i = 0; i < length; i++) {
            bytes[i] = (uint8_t)random();
        }
        if (round % 2 == 0) { /* a believable length, so that the parser goes on */
            memcpy(bytes, "\0\0\0\x40\0\x03\0\0", length < 8 ? length : 8);
        }
        int client = client_connect(world);
        put(client, bytes, length);
        (void)close(client);
    }
    struct pair pair = pair_new(world);
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encryption_is_declined_once_each),
        cmocka_unit_test(bytes_behind_an_encryption_request_are_refused),
        cmocka_unit_test(a_startup_may_be_split_at_every_byte),
        cmocka_unit_test(what_is_sent_ahead_waits_for_the_login),
        cmocka_unit_test(bad_startups_are_refused),
        cmocka_unit_test(newer_protocols_are_negotiated_down),
        cmocka_unit_test(unmanaged_databases_follow_the_policy),
        cmocka_unit_test(clients_beyond_the_limit_are_refused_but_may_cancel),
        cmocka_unit_test(a_slow_login_ends),
        cmocka_unit_test(an_unreachable_server_is_said_so),
        cmocka_unit_test(a_server_may_be_given_by_name),
        cmocka_unit_test(a_server_that_wants_a_password_is_explained),
        cmocka_unit_test(a_servers_refusal_is_passed_on),
        cmocka_unit_test(a_proof_opens_the_server_too),
        cmocka_unit_test(wrong_passwords_and_unknown_users_look_alike),
        cmocka_unit_test(random_first_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
