/*
 * Cancel keys and requests: of every length, between every two versions of the protocol, and never for
 * another session's server. The servers are scripted, so that all of them can have the same pid.
 */
#include "proxy_world.h"

#include <string.h>

enum { PID = 42, KEY_ROOM = 4 + CANCEL_KEY_MAX };

struct keys {
    int client, server;
    uint8_t ours[KEY_ROOM]; /* pid and secret that the client was given */
    size_t ours_length;
    uint8_t theirs[CANCEL_KEY_MAX]; /* secret of the server */
    size_t theirs_length;
};

/* What the server makes of 3.2: speaks it, or negotiates down. */
static void greet(const struct keys *keys, bool is_new)
{
    uint8_t packet[1024];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    if (!is_new) {
        build_negotiate(&build, STARTUP_PROTOCOL_3_0, slice_of("", 0));
    }
    build_authentication_ok(&build);
    build_backend_key(&build, PID, slice_of(keys->theirs, keys->theirs_length));
    build_ready(&build, 'I');
    put(keys->server, packet, build.length);
}

static struct keys log_in(struct world *world, uint32_t version, size_t key_length)
{
    struct keys keys = {.client = client_connect(world), .theirs_length = key_length};
    static uint8_t next = 1;
    uint8_t packet[512];
    char body[512];
    memset(keys.theirs, next++, key_length);
    put(keys.client, packet, startup_packet_of(packet, version, "joe", "app"));
    keys.server = server_accept_login(world, SIDE_BLUE);
    expect(world, keys.server, packet, startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app"));
    greet(&keys, key_length != CANCEL_KEY_MIN);
    expect(world, keys.client, BYTES("R\0\0\0\x08\0\0\0\0"));
    uint8_t header[FRAME_HEADER_SIZE];
    keys.ours_length = version >= STARTUP_PROTOCOL_3_2 ? 4 + 32 : 4 + 4;
    frame_header(header, 'K', (uint32_t)keys.ours_length);
    expect(world, keys.client, header, sizeof(header));
    for (size_t have = 0; have < keys.ours_length; have++) {
        assert_true(world_readable(world, keys.client, WORLD_PATIENCE_US));
        assert_int_equal(recv(keys.client, body + have, 1, 0), 1);
    }
    memcpy(keys.ours, body, keys.ours_length);
    assert_memory_equal(keys.ours, "\0\0\0\x2a", 4); /* the pid is the server's */
    expect(world, keys.client, BYTES(READY_I));
    return keys;
}

static void keys_close(const struct keys *keys)
{
    (void)close(keys->client);
    (void)close(keys->server);
}

/* Sends a cancel with that key; the connection that it came on. */
static int ask_for_cancel(struct world *world, const uint8_t *key, size_t length)
{
    uint8_t packet[512];
    struct build build;
    int canceller = client_connect(world);
    build_init(&build, packet, sizeof(packet));
    build_cancel(&build, (uint32_t)key[0] << 24 | (uint32_t)key[1] << 16 | (uint32_t)key[2] << 8 | key[3],
                 slice_of(key + 4, length - 4));
    put(canceller, packet, build.length);
    return canceller;
}

/* The next connection to the server is a cancel with exactly this session's key; it stays open. */
static int expect_cancel(struct world *world, const struct keys *keys)
{
    uint8_t packet[512];
    struct build build;
    int server = server_accept(world, SIDE_BLUE);
    build_init(&build, packet, sizeof(packet));
    build_cancel(&build, PID, slice_of(keys->theirs, keys->theirs_length));
    expect(world, server, packet, build.length);
    return server;
}

static void expect_nothing(struct world *world, const uint8_t *key, size_t length)
{
    int canceller = ask_for_cancel(world, key, length);
    expect_end(world, canceller);
    (void)close(canceller);
}

static void keys_are_as_long_as_each_side_speaks(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    static const uint32_t versions[] = {STARTUP_PROTOCOL_3_0, STARTUP_PROTOCOL_3_0 + 1, STARTUP_PROTOCOL_3_2,
                                        STARTUP_PROTOCOL_3_2};
    static const size_t lengths[] = {CANCEL_KEY_MIN, 32, 5, CANCEL_KEY_MAX};
    for (size_t v = 0; v < ARRAY_LENGTH(versions); v++) {
        for (size_t l = 0; l < ARRAY_LENGTH(lengths); l++) {
            struct keys keys = log_in(world, versions[v], lengths[l]);
            put(keys.client, BYTES(QUERY_1));
            expect(world, keys.server, BYTES(QUERY_1));
            int canceller = ask_for_cancel(world, keys.ours, keys.ours_length);
            int cancel = expect_cancel(world, &keys);
            (void)close(cancel);
            expect_end(world, canceller);
            (void)close(canceller);
            put(keys.server, BYTES(COMPLETE_1 READY_I));
            expect(world, keys.client, BYTES(COMPLETE_1 READY_I));
            keys_close(&keys);
        }
    }
    world_free(world);
}

static void a_part_of_a_key_is_no_key(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct keys old = log_in(world, STARTUP_PROTOCOL_3_0, 32);
    struct keys new = log_in(world, STARTUP_PROTOCOL_3_2, 32);
    const struct keys *both[] = {&old, &new};
    for (size_t i = 0; i < ARRAY_LENGTH(both); i++) {
        uint8_t key[KEY_ROOM] = {0};
        memcpy(key, both[i]->ours, both[i]->ours_length);
        put(both[i]->client, BYTES(QUERY_1));
        expect(world, both[i]->server, BYTES(QUERY_1));
        for (size_t length = 8; length <= KEY_ROOM; length += 7) {
            if (length != both[i]->ours_length) {
                expect_nothing(world, key, length);
            }
        }
        expect_nothing(world, key, KEY_ROOM);
        for (size_t byte = 0; byte < both[i]->ours_length; byte++) {
            key[byte] ^= 1;
            expect_nothing(world, key, both[i]->ours_length);
            key[byte] ^= 1;
        }
        expect_silence(world, world->servers[SIDE_BLUE]);
    }
    keys_close(&old);
    keys_close(&new);
    world_free(world);
}

/*
 * A pid, and here even a key, comes again as soon as its backend is gone: the connection of the old one is
 * held until the cancel that is on its way has arrived.
 */
static void a_backend_lives_until_its_cancels_have_arrived(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    for (int round = 0; round < 20; round++) {
        struct keys keys = log_in(world, STARTUP_PROTOCOL_3_2, 32);
        put(keys.client, BYTES(QUERY_1));
        expect(world, keys.server, BYTES(QUERY_1));
        int canceller = ask_for_cancel(world, keys.ours, keys.ours_length);
        int cancel = expect_cancel(world, &keys);
        put(keys.server, BYTES(COMPLETE_1 READY_I));
        expect(world, keys.client, BYTES(COMPLETE_1 READY_I));
        put(keys.client, BYTES(TERMINATE));
        expect(world, keys.server, BYTES(TERMINATE));
        (void)close(keys.client);
        expect_silence(world, keys.server); /* not closed: the server hasn't taken the cancel yet */
        (void)close(cancel);
        expect_end(world, canceller);
        (void)close(canceller);
        expect_end(world, keys.server);
        (void)close(keys.server);
        /* the key of a session that is gone is nobody's */
        expect_nothing(world, keys.ours, keys.ours_length);
    }
    world_free(world);
}

/* All with one pid, over several workers, and everyone cancelled by his own key only. */
static void everyone_has_his_own_backend(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.workers = 4;
    world_start(world);
    struct keys keys[24];
    for (size_t i = 0; i < ARRAY_LENGTH(keys); i++) {
        bool is_new = i % 2 == 0;
        keys[i] = log_in(world, is_new ? STARTUP_PROTOCOL_3_2 : STARTUP_PROTOCOL_3_0, i % 3 == 0 ? 4 : 32);
        put(keys[i].client, BYTES(QUERY_1));
        expect(world, keys[i].server, BYTES(QUERY_1));
    }
    for (size_t n = 0; n < ARRAY_LENGTH(keys); n++) {
        const struct keys *one = &keys[n * 7 % ARRAY_LENGTH(keys)];
        int canceller = ask_for_cancel(world, one->ours, one->ours_length);
        int cancel = expect_cancel(world, one);
        (void)close(cancel);
        expect_end(world, canceller);
        (void)close(canceller);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(keys); i++) {
        keys_close(&keys[i]);
    }
    world_free(world);
}

static void a_login_can_not_be_cancelled(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int client = client_connect(world);
    client_startup(client);
    int server = server_accept_login(world, SIDE_BLUE);
    /* it has no key yet: whatever is guessed is nobody's */
    for (uint8_t guess = 0; guess < 8; guess++) {
        const uint8_t key[8] = {0, 0, 0, guess, 1, 2, 3, 4};
        expect_nothing(world, key, sizeof(key));
    }
    server_greet(server);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    world_free(world);
}

static void a_server_keeps_to_its_version(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        /* twice; newer than asked for; another major version; an option that nobody sent; cut */
        {BYTES(NEGOTIATE_3_0 NEGOTIATE_3_0)},
        {BYTES("v\0\0\0\x0c\0\x03\0\x03\0\0\0\0")},
        {BYTES("v\0\0\0\x0c\0\x02\0\0\0\0\0\0")},
        {BYTES("v\0\0\0\x15\0\x03\0\0\0\0\0\x01_pq_.one\0")},
        {BYTES("v\0\0\0\x08\0\x03\0\0")},
        {BYTES("R\0\0\0\x08\0\0\0\0" NEGOTIATE_3_0)},
        /* a long key in 3.0; two keys; one too short, one too long */
        {BYTES(NEGOTIATE_3_0 "R\0\0\0\x08\0\0\0\0K\0\0\0\x0d\0\0\0\x2a"
                             "12345" READY_I)},
        {BYTES("R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x2a"
               "1234K\0\0\0\x0c\0\0\0\x2a"
               "1234" READY_I)},
        {BYTES("R\0\0\0\x08\0\0\0\0K\0\0\0\x0b\0\0\0\x2a"
               "123" READY_I)},
        {BYTES("R\0\0\0\x08\0\0\0\0K\0\0\x01\x09\0\0\0\x2a")},
    };
    struct world *world = world_new();
    world_start(world);
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        int client = client_connect(world);
        client_startup(client);
        int server = server_accept_login(world, SIDE_BLUE);
        put(server, cases[i].bytes, cases[i].length);
        expect_error(world, client, "08P01");
        expect_end(world, client);
        (void)close(client);
        (void)close(server);
    }
    world_free(world);
}

static void a_server_without_a_key_is_served(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int client = client_connect(world);
    client_startup(client);
    int server = server_accept_login(world, SIDE_BLUE);
    uint8_t packet[512];
    expect(world, server, packet, startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app"));
    put(server, BYTES("R\0\0\0\x08\0\0\0\0" READY_I));
    expect(world, client, BYTES("R\0\0\0\x08\0\0\0\0" READY_I)); /* nor does the client get one */
    put(client, BYTES(QUERY_1));
    expect(world, server, BYTES(QUERY_1));
    expect_nothing(world, (const uint8_t *)"\0\0\0\0\0\0\0\0", 8);
    expect_silence(world, world->servers[SIDE_BLUE]);
    put(server, BYTES(COMPLETE_1 READY_I));
    expect(world, client, BYTES(COMPLETE_1 READY_I));
    (void)close(client);
    (void)close(server);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_as_long_as_each_side_speaks),
        cmocka_unit_test(a_part_of_a_key_is_no_key),
        cmocka_unit_test(a_backend_lives_until_its_cancels_have_arrived),
        cmocka_unit_test(everyone_has_his_own_backend),
        cmocka_unit_test(a_login_can_not_be_cancelled),
        cmocka_unit_test(a_server_keeps_to_its_version),
        cmocka_unit_test(a_server_without_a_key_is_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
