/* proxy: bytes both ways, cancel, ends of either party, backpressure, against a scripted server. */
#include "tests/unit/proxy_world.h"

#define PARSE   "P\0\0\0\x11\0select $1\0\0\0"
#define BIND    "B\0\0\0\x0c\0\0\0\0\0\0\0\0"
#define EXECUTE "E\0\0\0\x09\0\0\0\0\0"
#define SYNC    "S\0\0\0\x04"
#define FATAL   "E\0\0\0\x18SFATAL\0C57P01\0Mbye\0\0"

static void bytes_go_through_however_they_are_split(void **state)
{
    (void)state;
    static const char request[] = PARSE BIND EXECUTE SYNC QUERY_1;
    static const char reply[] =
        "1\0\0\0\x04"
        "2\0\0\0\x04"
        "D\0\0\0\x0b\0\x01\0\0\0\x01x" COMPLETE_1 READY_I "N\0\0\0\x09Mhi\0\0" COMPLETE_1 READY_I;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    for (size_t step = 1; step < 12; step++) {
        for (size_t at = 0; at < sizeof(request) - 1; at += step) {
            size_t left = sizeof(request) - 1 - at;
            put(pair.client, request + at, left < step ? left : step);
            (void)usleep(200);
        }
        expect(world, pair.server, BYTES(request));
        for (size_t at = 0; at < sizeof(reply) - 1; at += step) {
            size_t left = sizeof(reply) - 1 - at;
            put(pair.server, reply + at, left < step ? left : step);
            (void)usleep(200);
        }
        expect(world, pair.client, BYTES(reply));
    }
    struct proxy_stats stats;
    proxy_stats(world->proxy, &stats);
    assert_int_equal(stats.sides[SIDE_BLUE].statements, 22);
    assert_int_equal(stats.sides[SIDE_BLUE].errors, 0);
    assert_int_equal(stats.sessions, 1);
    pair_close(&pair);
    world_free(world);
}

static void errors_are_counted_by_class(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    put(pair.server, BYTES("E\0\0\0\x18SERROR\0C40P01\0Mbye\0\0" READY_I));
    expect(world, pair.client, BYTES("E\0\0\0\x18SERROR\0C40P01\0Mbye\0\0" READY_I));
    struct proxy_stats stats;
    proxy_stats(world->proxy, &stats);
    const struct proxy_side_stats *side = &stats.sides[SIDE_BLUE];
    assert_int_equal(side->statements, 1);
    assert_int_equal(side->errors, 1);
    assert_int_equal(side->errors_by_class[proxy_error_class_index("40P01")], 1);
    assert_int_equal(side->client_errors, 0);
    uint64_t samples = 0;
    for (size_t i = 0; i < PROXY_LATENCY_BUCKETS; i++) {
        samples += side->latency[i];
        assert_true(i == 0 || proxy_latency_bucket_us(i) > proxy_latency_bucket_us(i - 1));
    }
    assert_int_equal(samples, 1);
    pair_close(&pair);
    world_free(world);
}

/* Some poolers and other servers send such: it goes through, and the session lives. */
static void errors_without_an_sqlstate_are_survived(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    static const struct {
        const char *bytes;
        size_t length;
    } answers[] = {
        {BYTES("E\0\0\0\x11SERROR\0Mbye\0\0" READY_I)}, /* no C */
        {BYTES("E\0\0\0\x0a"
               "Mbye\0\0" READY_I)}, /* nor S */
        {BYTES("E\0\0\0\x0b"
               "C4\0Mx\0\0" READY_I)},    /* half a code */
        {BYTES("E\0\0\0\x05\0" READY_I)}, /* nothing at all */
        {BYTES("E\0\0\0\x06"
               "Mx" READY_I)}, /* without its ends */
    };
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        put(pair.client, BYTES(QUERY_1));
        expect(world, pair.server, BYTES(QUERY_1));
        put(pair.server, answers[i].bytes, answers[i].length);
        expect(world, pair.client, answers[i].bytes, answers[i].length);
    }
    struct proxy_stats stats;
    proxy_stats(world->proxy, &stats);
    assert_int_equal(stats.sides[SIDE_BLUE].errors, sizeof(answers) / sizeof(answers[0]));
    pair_close(&pair);
    world_free(world);
}

static void a_cancel_goes_to_the_right_server(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pairs[3] = {pair_new(world), pair_new(world), pair_new(world)};
    put(pairs[1].client, BYTES(QUERY_1));
    expect(world, pairs[1].server, BYTES(QUERY_1));
    pairs[1].key[7] ^= 1; /* a wrong secret: nothing happens, and nothing is said */
    int canceller = client_cancel(world, pairs[1].key);
    expect_end(world, canceller);
    (void)close(canceller);
    expect_silence(world, world->servers[SIDE_BLUE]);

    pairs[1].key[7] ^= 1;
    canceller = client_cancel(world, pairs[1].key);
    int server = server_accept(world, SIDE_BLUE);
    expect(world, server, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a" SERVER_KEY));
    (void)close(server);
    expect_end(world, canceller);
    (void)close(canceller);
    for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
        pair_close(&pairs[i]);
    }
    world_free(world);
}

static void a_server_that_goes_says_why_or_we_do(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.server, BYTES(FATAL)); /* while idle */
    (void)close(pair.server);
    expect(world, pair.client, BYTES(FATAL));
    expect_end(world, pair.client);
    (void)close(pair.client);

    pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(pair.server);
    expect_error(world, pair.client, "08007");
    expect_end(world, pair.client);
    (void)close(pair.client);

    struct proxy_stats stats;
    proxy_stats(world->proxy, &stats);
    assert_int_equal(stats.sides[SIDE_BLUE].statements, 1);
    assert_int_equal(stats.sides[SIDE_BLUE].errors_by_class[proxy_error_class_index("08006")], 1);

    pair = pair_new(world); /* in the middle of a message nothing can be said */
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    put(pair.server, BYTES("D\0\0\1\0\0\x01"));
    expect(world, pair.client, BYTES("D\0\0\1\0\0\x01"));
    (void)close(pair.server);
    expect_end(world, pair.client);
    (void)close(pair.client);
    world_free(world);
}

static void a_client_that_goes_is_cancelled(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.client_eof = CLIENT_EOF_CANCEL;
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    (void)close(pair.client);
    int cancel = server_accept(world, SIDE_BLUE);
    expect(world, cancel, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a" SERVER_KEY));
    expect_silence(world, pair.server); /* its pid stays its own until the cancel is over */
    (void)close(cancel);
    expect_end(world, pair.server);
    (void)close(pair.server);

    pair = pair_new(world); /* with nothing running it is enough to say goodbye */
    (void)close(pair.client);
    expect(world, pair.server, BYTES(TERMINATE));
    expect_end(world, pair.server);
    (void)close(pair.server);

    pair = pair_new(world);
    put(pair.client, BYTES(TERMINATE));
    expect(world, pair.server, BYTES(TERMINATE));
    expect_end(world, pair.server);
    expect_end(world, pair.client);
    pair_close(&pair);
    world_free(world);
}

static void protocol_violations_end_the_session(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    /* the server gets what it reads of the header, behind what came before, and nothing that follows */
    static const struct {
        const char *bytes;
        size_t length, passed;
    } cases[] = {{BYTES("!\0\0\0\x04"), 1},
                 {BYTES("Q\0\0\0\x03"), 5},
                 {BYTES("Q\xff\xff\xff\xffmore"), 5},
                 {BYTES("p\0\0\0\x06x\0"), 1},
                 {BYTES("H\0\0\0\x04?\0\0\0\x05x"), 6}};
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct pair pair = pair_new(world);
        put(pair.client, cases[i].bytes, cases[i].length);
        expect(world, pair.server, cases[i].bytes, cases[i].passed);
        bool says_it = i % 2 == 0; /* of some a server only writes to its log */
        if (says_it) {
            put(pair.server, BYTES(FATAL));
        }
        (void)shutdown(pair.server, SHUT_RDWR);
        if (says_it) {
            expect(world, pair.client, BYTES(FATAL));
        } else {
            expect_error(world, pair.client, "08P01");
        }
        expect_end(world, pair.client);
        pair_close(&pair);
    }
    struct pair pair = pair_new(world);
    put(pair.server, BYTES("?\0\0\0\x04"));
    expect_error(world, pair.client, "08P01");
    expect_end(world, pair.client);
    pair_close(&pair);
    world_free(world);
}

static void a_goodbye_is_whole_before_it_counts(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1 "X\0\0\0\x06"));
    expect(world, pair.server, BYTES(QUERY_1 "X\0\0\0\x06"));
    put(pair.client, BYTES("yz"));
    expect(world, pair.server, BYTES("yz"));
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    (void)shutdown(pair.server, SHUT_RDWR);
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    expect_end(world, pair.client);
    pair_close(&pair);
    world_free(world);
}

/* Writes without waiting until the other end stops taking it; returns how much went. */
static size_t stuff(struct world *world, int fd, const void *bytes, size_t length)
{
    size_t sent = 0;
    int64_t quiet_since_us = clock_mono_us();
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    while (sent < length && clock_mono_us() - quiet_since_us < 300000) {
        ssize_t count = send(fd, (const char *)bytes + sent, length - sent, MSG_NOSIGNAL);
        if (count > 0) {
            sent += (size_t)count;
            quiet_since_us = clock_mono_us();
        } else {
            world_pump(world);
            (void)usleep(1000);
        }
    }
    return sent;
}

static void a_slow_reader_stops_the_writer(void **state)
{
    (void)state;
    enum { BODY = 48 << 20 };
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    uint8_t *message = calloc(1, BODY + 5);
    assert_non_null(message);
    frame_header(message, 'd', BODY);
    /* COPY out to a client that doesn't read: sockets' buffers and our high water, then nothing */
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    size_t sent = stuff(world, pair.server, message, BODY + 5);
    assert_true(sent < BODY / 2);
    uint8_t *got = malloc(BODY + 5);
    assert_non_null(got);
    for (size_t have = 0; have < BODY + 5;) {
        ssize_t count = recv(pair.client, got + have, BODY + 5 - have, MSG_DONTWAIT);
        have += count > 0 ? (size_t)count : 0;
        ssize_t more = send(pair.server, message + sent, BODY + 5 - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent += more > 0 ? (size_t)more : 0;
    }
    assert_memory_equal(got, message, BODY + 5);
    free(got);
    free(message);
    pair_close(&pair);
    world_free(world);
}

static void random_messages_are_survived(void **state)
{
    (void)state;
    static const char types[] = "BCDEFHPQSXcdfp123ACDEGIKNRSTVWZnstv";
    struct world *world = world_new();
    world_start(world);
    srandom(7);
    for (int round = 0; round < 60; round++) {
        struct pair pair = pair_new(world);
        for (int i = 0; i < 30; i++) {
            uint8_t message[40];
            size_t length = (size_t)random() % 30;
            frame_header(message, (uint8_t)types[(size_t)random() % (sizeof(types) - 1)], (uint32_t)length);
            for (size_t b = 0; b < length; b++) {
                message[5 + b] = (uint8_t)(random() % 4 == 0 ? 0 : random());
            }
            (void)send(random() % 2 ? pair.client : pair.server, message, length + 5, MSG_NOSIGNAL);
        }
        (void)usleep(2000);
        pair_close(&pair);
        while (world_readable(world, world->servers[SIDE_BLUE], 3000)) {
            (void)close(server_accept(world, SIDE_BLUE)); /* cancels of what was running */
        }
    }
    struct pair pair = pair_new(world);
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_through_however_they_are_split),
        cmocka_unit_test(errors_are_counted_by_class),
        cmocka_unit_test(errors_without_an_sqlstate_are_survived),
        cmocka_unit_test(a_cancel_goes_to_the_right_server),
        cmocka_unit_test(a_server_that_goes_says_why_or_we_do),
        cmocka_unit_test(a_client_that_goes_is_cancelled),
        cmocka_unit_test(protocol_violations_end_the_session),
        cmocka_unit_test(a_goodbye_is_whole_before_it_counts),
        cmocka_unit_test(a_slow_reader_stops_the_writer),
        cmocka_unit_test(random_messages_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
