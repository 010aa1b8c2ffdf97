/* What may happen to the two servers of a session around the moment in which it is swapped. */
#include "proxy_world.h"

#include <string.h>

static const struct proxy_route target = {.side = SIDE_GREEN, .epoch = 2, .open = true};

/* As server_login(), with a pid of its own. */
static int green_login(struct world *world, uint8_t pid)
{
    uint8_t packet[512];
    const uint8_t greeting[] = {'v', 0, 0,   0,   12,  0,   3,   0,   0,   0, 0, 0, 0,  'R',
                                0,   0, 0,   8,   0,   0,   0,   0,   'K', 0, 0, 0, 12, 0,
                                0,   0, pid, 'k', 'e', 'y', '!', 'Z', 0,   0, 0, 5, 'I'};
    int fd = server_accept_login(world, SIDE_GREEN);
    expect(world, fd, packet, startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app"));
    put(fd, greeting, sizeof(greeting));
    return fd;
}

static int arm(struct world *world, uint8_t pid)
{
    proxy_arm(world->proxy, 5, target, 5000000);
    int green = green_login(world, pid);
    assert_int_equal(world_event(world, PROXY_EVENT_ARMED)->counts.armed, 1);
    return green;
}

static void hold(struct world *world)
{
    proxy_hold(world->proxy, 5, clock_mono_us() + 5000000, PROXY_EXPIRE_REFUSE);
    (void)world_event(world, PROXY_EVENT_HELD);
}

static void swap_and_release(struct world *world)
{
    proxy_swap(world->proxy, 5, target);
    struct proxy_event *event = world_event(world, PROXY_EVENT_SWAPPED);
    assert_int_equal(event->counts.moved, 1);
    assert_int_equal(event->counts.disconnected, 0);
    world_release(world, 5);
}

#define NOTIFY(pid) "A\0\0\0\x0e\0\0\0" pid "ping\0\0"

/* Its one session has a target with that pid. */
static void wait_armed(struct world *world, int32_t pid)
{
    bool armed = false;
    while (!armed) {
        proxy_sessions(world->proxy, 1, false);
        struct proxy_event *event = world_event(world, PROXY_EVENT_SESSIONS);
        armed = event->session_count == 1 && event->sessions[0].armed_backend_pid == pid;
        free(event->sessions);
    }
}

static void a_lost_target_is_opened_again(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    int green = arm(world, 7);
    (void)close(green); /* before the hold */
    green = green_login(world, 8);
    hold(world);
    (void)world_event(world, PROXY_EVENT_DRAINED);
    put(green, BYTES("E\0\0\0\x1cSFATAL\0C57P01\0Mbye bye\0\0")); /* and in it */
    (void)close(green);
    green = green_login(world, 9);
    wait_armed(world, 9);
    swap_and_release(world);
    struct pair moved = {.client = pair.client, .server = green};
    pair_works(world, &moved);
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

static void a_target_that_is_lost_for_good_is_given_up(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    int green = arm(world, 7);
    for (uint8_t loss = 0; loss < 3; loss++) {
        (void)close(green);
        green = green_login(world, 8 + loss);
        wait_armed(world, 8 + loss);
    }
    (void)close(green);
    expect_silence(world, world->servers[SIDE_GREEN]);
    hold(world);
    struct proxy_event *event = world_event(world, PROXY_EVENT_DRAINED);
    assert_int_equal(event->counts.failed, 1);
    assert_string_equal(event->reason, "the target closed the connection");
    world_release(world, 5);
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

/* At every byte: of its old server the client sees the whole or nothing, of its new one nothing. */
static void half_a_message_ends_no_session(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } messages[] = {{BYTES(NOTIFY("\x03"))},
                    {BYTES("S\0\0\0\x11TimeZone\0UTC\0")},
                    {BYTES("N\0\0\0\x18SWARNING\0C01000\0Mx\0\0")}};
    for (size_t i = 0; i < ARRAY_LENGTH(messages); i++) {
        for (size_t cut = 1; cut < messages[i].length; cut += 3) {
            struct world *world = world_new();
            world_start(world);
            struct pair pair = pair_new(world);
            int green = arm(world, 7);
            hold(world);
            (void)world_event(world, PROXY_EVENT_DRAINED);
            put(pair.server, messages[i].bytes, cut);
            put(green, messages[i].bytes, cut);
            expect_silence(world, pair.client);
            swap_and_release(world);
            put(green, messages[i].bytes + cut, messages[i].length - cut);
            struct pair moved = {.client = pair.client, .server = green};
            if (cut < FRAME_HEADER_SIZE) { /* it had only begun */
                expect(world, pair.client, messages[i].bytes, messages[i].length);
            }
            pair_works(world, &moved);
            (void)close(green);
            pair_close(&pair);
            world_free(world);
        }
    }
}

static void half_a_message_is_shown_when_it_is_whole(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    static const char two[] = NOTIFY("\x2a") "S\0\0\0\x11TimeZone\0UTC\0";
    for (size_t cut = 1; cut < sizeof(two) - 1; cut++) {
        put(pair.server, two, cut);
        if (cut < 15) {
            assert_false(world_readable(world, pair.client, 2000));
        }
        put(pair.server, two + cut, sizeof(two) - 1 - cut);
        expect(world, pair.client, two, sizeof(two) - 1);
    }
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

/* The client was told 42; its new server is 7, and 42 is somebody else there. */
static void a_moved_client_knows_its_own_notifications(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.server, BYTES(NOTIFY("\x2a") NOTIFY("\x07")));
    expect(world, pair.client, BYTES(NOTIFY("\x2a") NOTIFY("\x07")));
    int green = arm(world, 7);
    hold(world);
    (void)world_event(world, PROXY_EVENT_DRAINED);
    swap_and_release(world);
    static const char sent[] = NOTIFY("\x07") NOTIFY("\x2a") NOTIFY("\x03");
    static const char seen[] = NOTIFY("\x2a") NOTIFY("\x07") NOTIFY("\x03");
    for (size_t cut = 0; cut < sizeof(sent) - 1; cut++) {
        put(green, sent, cut);
        (void)world_readable(world, pair.client, 1000);
        put(green, sent + cut, sizeof(sent) - 1 - cut);
        expect(world, pair.client, seen, sizeof(seen) - 1);
    }
    /* in the middle of a statement, too */
    put(pair.client, BYTES(QUERY_1));
    expect(world, green, BYTES(QUERY_1));
    for (size_t cut = 0; cut < 15; cut++) {
        put(green, NOTIFY("\x07"), cut);
        (void)world_readable(world, pair.client, 1000);
        put(green, &NOTIFY("\x07")[cut], 15 - cut);
        expect(world, pair.client, BYTES(NOTIFY("\x2a")));
    }
    put(green, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    /* and the key it was given cancels what runs there */
    put(pair.client, BYTES(QUERY_1));
    expect(world, green, BYTES(QUERY_1));
    int canceller = client_cancel(world, pair.key);
    int server = server_accept(world, SIDE_GREEN);
    expect(world, server, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07key!"));
    (void)close(server);
    expect_end(world, canceller);
    (void)close(canceller);
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_target_is_opened_again),
        cmocka_unit_test(a_target_that_is_lost_for_good_is_given_up),
        cmocka_unit_test(half_a_message_ends_no_session),
        cmocka_unit_test(half_a_message_is_shown_when_it_is_whole),
        cmocka_unit_test(a_moved_client_knows_its_own_notifications),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
