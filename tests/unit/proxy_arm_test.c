/* proxy: who is armed for the other side, who isn't, and what clients see of it, against scripted servers. */
#include "tests/unit/proxy_world.h"

static const struct proxy_route target = {.side = SIDE_GREEN, .epoch = 2, .open = true};

static void hold_and_drain(struct world *world)
{
    world_hold(world, 5, 5000, PROXY_EXPIRE_REFUSE);
    (void)world_event(world, PROXY_EVENT_DRAINED);
}

/* Its one session moves. */
static void flip_to_target(struct world *world)
{
    hold_and_drain(world);
    proxy_swap(world->proxy, 5, target);
    assert_int_equal(world_event(world, PROXY_EVENT_SWAPPED)->counts.moved, 1);
    world_release(world, 5);
    world_disarm(world, 5);
}

/* A session that can't move. */
static struct pair replication_new(struct world *world)
{
    static const char startup[] = "\0\0\0\x34\0\x03\0\x02user\0joe\0database\0app\0replication\0database\0\0";
    struct pair pair = {.client = client_connect(world)};
    put(pair.client, startup, sizeof(startup) - 1);
    pair.server = server_accept(world, SIDE_BLUE);
    expect(world, pair.server, BYTES(startup));
    server_greet(pair.server);
    client_greeted(world, pair.client, NULL);
    return pair;
}

static void immovable_sessions_end_at_the_swap(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair fixed = replication_new(world);
    proxy_arm(world->proxy, 5, target, 1000000);
    struct proxy_event *event = world_event(world, PROXY_EVENT_ARMED);
    assert_int_equal(event->counts.immovable, 1);
    assert_int_equal(event->counts.armed, 0);
    hold_and_drain(world);
    proxy_swap(world->proxy, 5, target);
    event = world_event(world, PROXY_EVENT_SWAPPED);
    assert_int_equal(event->counts.disconnected, 1);
    expect_error(world, fixed.client, "57P01");
    world_release(world, 5);
    world_disarm(world, 5);
    pair_close(&fixed);
    int client = client_connect(world); /* new ones go to the new side */
    client_startup(client);
    int server = server_login(world, SIDE_GREEN);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    world_free(world);
}

/* What is immovable at once must not end the wait for those behind it. */
static void armed_is_told_when_all_are(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.workers = 1;
    world_start(world);
    struct pair fixed = replication_new(world);
    struct pair pair = pair_new(world);
    proxy_arm(world->proxy, 5, target, 5000000);
    int green = server_login(world, SIDE_GREEN);
    struct proxy_event *event = world_event(world, PROXY_EVENT_ARMED);
    assert_int_equal(event->counts.immovable, 1);
    assert_int_equal(event->counts.armed, 1);
    world_disarm(world, 5);
    (void)close(green);
    pair_close(&fixed);
    pair_close(&pair);
    world_free(world);
}

/* Between the release and the end of the flip: it is where it should be, and is left in peace. */
static void a_login_to_the_new_side_is_not_armed(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    proxy_arm(world->proxy, 5, target, 5000000);
    (void)world_event(world, PROXY_EVENT_ARMED);
    hold_and_drain(world);
    proxy_swap(world->proxy, 5, target);
    (void)world_event(world, PROXY_EVENT_SWAPPED);
    world_release(world, 5);
    struct pair pair = {.client = client_connect(world)};
    client_startup(pair.client);
    pair.server = server_login(world, SIDE_GREEN);
    client_greeted(world, pair.client, pair.key);
    pair_works(world, &pair);
    expect_silence(world, world->servers[SIDE_GREEN]); /* no target link */
    expect_silence(world, pair.server);                /* no question */
    world_disarm(world, 5);
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

/* Told as failed, not waited for until the hold ends, and never swapped to. */
static void a_target_that_babbles_is_given_up(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    int green = world_arm(world, 5, target);
    put(green, BYTES("?\0\0\0\x04"));
    expect_end(world, green);
    world_hold(world, 5, 5000, PROXY_EXPIRE_RELEASE);
    struct proxy_event *event = world_event(world, PROXY_EVENT_DRAINED);
    assert_int_equal(event->counts.failed, 1);
    assert_string_equal(event->reason, "the target broke the protocol");
    world_release(world, 5);
    world_disarm(world, 5);
    pair_works(world, &pair); /* and lives on where it was */
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

static void a_reload_of_the_old_side_loses_nobody(void **state)
{
    (void)state;
    static const char zone[] = "S\0\0\0\x11TimeZone\0UTC\0";
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    int green = world_arm(world, 5, target);
    hold_and_drain(world);
    put(pair.server, BYTES(zone));
    expect(world, pair.client, BYTES(zone));
    proxy_swap(world->proxy, 5, target);
    struct proxy_event *event = world_event(world, PROXY_EVENT_SWAPPED);
    assert_int_equal(event->counts.moved, 1);
    assert_int_equal(event->counts.disconnected, 0);
    world_release(world, 5);
    struct pair moved = {.client = pair.client, .server = green};
    pair_works(world, &moved);
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

/* pgjdbc's getNotifications() knows no ParameterStatus: the next reply brings it. */
static void parameters_that_differ_come_with_the_next_reply(void **state)
{
    (void)state;
    static const char notified[] = "A\0\0\0\x0c\0\0\0\x07x\0y";
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    proxy_arm(world->proxy, 5, target, 5000000);
    uint8_t packet[512];
    int green = server_accept_login(world, SIDE_GREEN);
    expect(world, green, packet, startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app"));
    put(green, BYTES(NEGOTIATE_3_0 "R\0\0\0\x08\0\0\0\0"
                                   "S\0\0\0\x16server_version\00017\0"
                                   "K\0\0\0\x0c\0\0\0\x2a" SERVER_KEY READY_I));
    assert_int_equal(world_event(world, PROXY_EVENT_ARMED)->counts.armed, 1);
    hold_and_drain(world);
    proxy_swap(world->proxy, 5, target);
    assert_int_equal(world_event(world, PROXY_EVENT_SWAPPED)->counts.moved, 1);
    world_release(world, 5);
    expect_silence(world, pair.client);
    put(green, notified, sizeof(notified));
    expect(world, pair.client, notified, sizeof(notified));
    expect_silence(world, pair.client);
    put(pair.client, BYTES(QUERY_1));
    expect(world, green, BYTES(QUERY_1));
    put(green, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES("S\0\0\0\x16server_version\00017\0" COMPLETE_1 READY_I));
    struct pair moved = {.client = pair.client, .server = green};
    pair_works(world, &moved); /* once */
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

/* Where types are translated, what comes unasked between our rows must not make them the client's. */
static void a_notification_among_our_rows_gives_none_away(void **state)
{
    (void)state;
    static const struct proxy_type type = {.oids = {20000, 30000}};
    static const char notified[] = "A\0\0\0\x0c\0\0\0\x07x\0y";
    static const char row[] = "D\0\0\0\x06\0\0";
    struct world *world = world_new();
    world_start(world);
    proxy_set_types(world->proxy, "app", &type, 1);
    struct pair pair = pair_new(world);
    struct pair moved = {.client = pair.client, .server = world_arm(world, 5, target)};
    flip_to_target(world);
    pair_works(world, &moved); /* there is something to ask now */
    proxy_arm(world->proxy, 6, (struct proxy_route){.side = SIDE_BLUE, .epoch = 3, .open = true}, 5000000);
    int blue = server_login(world, SIDE_BLUE);
    assert_true(world_readable(world, moved.server, WORLD_PATIENCE_US));
    uint8_t bytes[sizeof(notified) + sizeof(row) - 1];
    memcpy(bytes, notified, sizeof(notified));
    memcpy(bytes + sizeof(notified), row, sizeof(row) - 1);
    put(moved.server, bytes, sizeof(bytes));
    expect(world, moved.client, notified, sizeof(notified));
    expect_silence(world, moved.client);
    (void)close(blue);
    (void)close(moved.server);
    pair_close(&pair);
    world_free(world);
}

/* A list of types that comes while a session is armed counts for it as well. */
static void the_newest_types_are_spoken(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    proxy_set_types(world->proxy, "app", &(struct proxy_type){.oids = {20000, 30000}}, 1);
    struct pair pair = pair_new(world);
    struct pair moved = {.client = pair.client, .server = world_arm(world, 5, target)};
    proxy_set_types(world->proxy, "app", &(struct proxy_type){.oids = {20000, 30001}}, 1);
    flip_to_target(world);
    put(moved.client, BYTES("P\0\0\0\x0es\0x\0\0\x01\0\0\x4e\x20"));
    expect(world, moved.server, BYTES("P\0\0\0\x0es\0x\0\0\x01\0\0\x75\x31"));
    (void)close(moved.server);
    pair_close(&pair);
    world_free(world);
}

/* Its connection has died half: the flip is over, and its client must not wait for our question for ever. */
static void a_question_without_an_answer_keeps_nobody(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.max_hold_us = 1000000;
    world->settings.tcp_servers.lost_after_us = 1000000; /* how often it is looked at, too */
    world_start(world);
    struct pair pair = pair_new(world);
    pair_works(world, &pair);
    proxy_arm(world->proxy, 5, target, 3000000);
    int green = server_login(world, SIDE_GREEN);
    assert_true(world_readable(world, pair.server, WORLD_PATIENCE_US));
    (void)world_event(world, PROXY_EVENT_ARMED);
    world_disarm(world, 5);
    put(pair.client, BYTES(QUERY_1));
    expect_error(world, pair.client, "08006");
    expect_end(world, pair.client);
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

/* A server that takes its time to answer our question is not a lost one. */
static void a_question_has_its_time(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.max_hold_us = 6 * WORLD_PATIENCE_US;
    world->settings.tcp_servers.lost_after_us = 1000000; /* ten looks in that time */
    world_start(world);
    struct pair pair = pair_new(world);
    pair_works(world, &pair);
    proxy_arm(world->proxy, 5, target, 3000000);
    int green = server_login(world, SIDE_GREEN);
    assert_true(world_readable(world, pair.server, WORLD_PATIENCE_US));
    assert_false(world_readable(world, pair.client, 1000000));
    (void)close(green);
    pair_close(&pair);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(immovable_sessions_end_at_the_swap),
        cmocka_unit_test(armed_is_told_when_all_are),
        cmocka_unit_test(a_login_to_the_new_side_is_not_armed),
        cmocka_unit_test(a_target_that_babbles_is_given_up),
        cmocka_unit_test(a_reload_of_the_old_side_loses_nobody),
        cmocka_unit_test(parameters_that_differ_come_with_the_next_reply),
        cmocka_unit_test(a_notification_among_our_rows_gives_none_away),
        cmocka_unit_test(the_newest_types_are_spoken),
        cmocka_unit_test(a_question_without_an_answer_keeps_nobody),
        cmocka_unit_test(a_question_has_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
