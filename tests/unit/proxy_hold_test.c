/* proxy: hold, drain, deadlines and release, against a scripted server. */
#include "tests/unit/proxy_world.h"

#define PARSE   "P\0\0\0\x11\0select $1\0\0\0"
#define BIND    "B\0\0\0\x0c\0\0\0\0\0\0\0\0"
#define EXECUTE "E\0\0\0\x09\0\0\0\0\0"
#define SYNC    "S\0\0\0\x04"
#define ANSWERS                                                                                              \
    "1\0\0\0\x04"                                                                                            \
    "2\0\0\0\x04" COMPLETE_1 READY_I

static int64_t in_ms(int64_t ms)
{
    return clock_mono_us() + ms * 1000;
}

/* Waits until the hold keeps what so many clients have sent: a busy machine takes its time. */
static void await_waiting(struct world *world, uint64_t clients)
{
    struct proxy_stats stats = {.sessions = 0};
    for (int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US; clock_mono_us() < end_us;) {
        world_pump(world);
        proxy_stats(world->proxy, &stats);
        if (stats.sessions_waiting == clients) {
            return;
        }
        (void)usleep(500);
    }
    fail_msg("%d clients wait", (int)stats.sessions_waiting);
}

static void a_hold_keeps_what_comes_at_the_boundary(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
    assert_int_equal(world_event(world, PROXY_EVENT_DRAINED)->hold, 7);
    put(pair.client, BYTES(QUERY_1 QUERY_1));
    await_waiting(world, 1);
    expect_silence(world, pair.server);
    struct proxy_stats stats;
    proxy_stats(world->proxy, &stats);
    assert_int_equal(stats.sessions_held, 1);
    assert_true(stats.oldest_wait_us >= WORLD_QUIET_US / 2);
    proxy_sessions(world->proxy, 99, false);
    struct proxy_event *event = world_event(world, PROXY_EVENT_SESSIONS);
    assert_int_equal(event->request, 99);
    assert_int_equal(event->session_count, 1);
    assert_int_equal(event->sessions[0].state, SESSION_HELD);
    assert_true(event->sessions[0].waiting);
    assert_int_equal(event->sessions[0].backend_pid, 42);
    assert_string_equal(event->sessions[0].user, "joe");
    free(event->sessions);
    proxy_release(world->proxy, 7);
    event = world_event(world, PROXY_EVENT_RELEASED);
    assert_int_equal(event->stall.clients, 1);
    assert_true(event->stall.max_us >= WORLD_QUIET_US);
    expect(world, pair.server, BYTES(QUERY_1 QUERY_1));
    put(pair.server, BYTES(COMPLETE_1 READY_I COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I COMPLETE_1 READY_I));
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

static void a_transaction_goes_on_until_its_end(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_BEGIN));
    expect(world, pair.server, BYTES(QUERY_BEGIN));
    put(pair.server, BYTES(COMPLETE_BEGIN READY_T));
    expect(world, pair.client, BYTES(COMPLETE_BEGIN READY_T));
    world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
    /* pipelined: the statement after COMMIT is the first that waits */
    put(pair.client, BYTES(QUERY_1 QUERY_COMMIT QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    expect_silence(world, pair.server); /* what comes next depends on the answer */
    put(pair.server, BYTES(COMPLETE_1 READY_T));
    expect(world, pair.server, BYTES(QUERY_COMMIT));
    put(pair.server, BYTES(COMPLETE_END READY_I));
    (void)world_event(world, PROXY_EVENT_DRAINED);
    expect(world, pair.client, BYTES(COMPLETE_1 READY_T COMPLETE_END READY_I));
    expect_silence(world, pair.server);
    proxy_release(world->proxy, 7);
    expect(world, pair.server, BYTES(QUERY_1));
    pair_close(&pair);
    world_free(world);
}

static void half_a_message_is_finished_and_half_a_header_waits(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES("Q\0\0\0\x0dsel")); /* begun: the server has it */
    expect(world, pair.server, BYTES("Q\0\0\0\x0dsel"));
    world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
    put(pair.client, BYTES("ect 1\0Q\0"));
    expect(world, pair.server, BYTES("ect 1\0"));
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    (void)world_event(world, PROXY_EVENT_DRAINED);
    put(pair.client, BYTES("\0\0\x0dselect 1\0"));
    expect_silence(world, pair.server);
    proxy_release(world->proxy, 7);
    expect(world, pair.server, BYTES(QUERY_1));
    pair_close(&pair);
    world_free(world);
}

static void an_extended_query_is_not_cut_at_flush(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(PARSE));
    expect(world, pair.server, BYTES(PARSE));
    world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
    put(pair.client, BYTES(BIND EXECUTE SYNC QUERY_1));
    expect(world, pair.server, BYTES(BIND EXECUTE SYNC));
    expect_silence(world, pair.server);
    put(pair.server, BYTES(ANSWERS));
    expect(world, pair.client, BYTES(ANSWERS));
    (void)world_event(world, PROXY_EVENT_DRAINED);
    proxy_release(world->proxy, 7);
    expect(world, pair.server, BYTES(QUERY_1));
    pair_close(&pair);
    world_free(world);
}

static void a_deadline_releases_by_itself(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    world_hold(world, 7, 3000, PROXY_EXPIRE_RELEASE);
    put(pair.client, BYTES(QUERY_1));
    await_waiting(world, 1);
    expect(world, pair.server, BYTES(QUERY_1));
    struct proxy_event *event = world_event(world, PROXY_EVENT_EXPIRED);
    assert_int_equal(event->hold, 7);
    assert_int_equal(event->stall.clients, 1);
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    proxy_expire(world->proxy, 7, in_ms(1000), PROXY_EXPIRE_REFUSE); /* too late, and said so */
    assert_string_not_equal(world_event(world, PROXY_EVENT_EXPIRE_SET)->reason, "");
    world_release(world, 7); /* the controller may not know yet */
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

static void a_deadline_that_refuses_lets_nobody_through(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair idle = pair_new(world), waiting = pair_new(world), late = pair_new(world);
    world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
    int login = client_connect(world);
    client_startup(login);
    put(waiting.client, BYTES(QUERY_1));
    await_waiting(world, 2);
    proxy_expire(world->proxy, 7, in_ms(50), PROXY_EXPIRE_REFUSE);
    assert_string_equal(world_event(world, PROXY_EVENT_EXPIRE_SET)->reason, "");
    (void)world_event(world, PROXY_EVENT_EXPIRED);
    expect_error(world, waiting.client, "57P03");
    expect_end(world, waiting.client);
    expect_error(world, login, "57P03");
    (void)close(login);
    put(late.client, BYTES(QUERY_1)); /* new work: at once */
    expect_error(world, late.client, "57P03");
    login = client_connect(world);
    client_startup(login);
    expect_error(world, login, "57P03");
    (void)close(login);
    world_release(world, 7); /* the controller has found out where traffic belongs */
    pair_works(world, &idle);
    pair_close(&idle);
    pair_close(&waiting);
    pair_close(&late);
    world_free(world);
}

static void a_cancel_ends_the_wait(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        const char *later; /* the rest of it, sent after the cancel */
        size_t later_length;
    } cases[] = {
        {BYTES(QUERY_1), BYTES("")},
        {BYTES("Q\0\0\0\x0dsel"), BYTES("ect 1\0")},
        {BYTES(PARSE BIND EXECUTE SYNC), BYTES("")},
        {BYTES(PARSE BIND), BYTES(EXECUTE SYNC)},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct world *world = world_new();
        world_start(world);
        struct pair pair = pair_new(world);
        world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
        put(pair.client, cases[i].bytes, cases[i].length);
        await_waiting(world, 1);
        expect_silence(world, pair.server);
        int canceller = client_cancel(world, pair.key);
        expect_end(world, canceller);
        (void)close(canceller);
        expect_error(world, pair.client, "57014");
        if (cases[i].later_length > 0) {
            expect_silence(world, pair.client);
            put(pair.client, cases[i].later, cases[i].later_length);
        }
        expect(world, pair.client, BYTES(READY_I));
        put(pair.client, BYTES(QUERY_1)); /* the next one waits again */
        expect_silence(world, pair.server);
        proxy_release(world->proxy, 7);
        expect(world, pair.server, BYTES(QUERY_1));
        pair_close(&pair);
        world_free(world);
    }
}

static void logins_wait_and_begin_again(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int begun = client_connect(world);
    client_startup(begun);
    int server = server_accept(world, SIDE_BLUE); /* connected, not logged in */
    world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
    (void)world_event(world, PROXY_EVENT_DRAINED); /* it is given up, and nobody noticed */
    int waiting = client_connect(world);
    client_startup(waiting);
    expect_silence(world, begun);
    expect_silence(world, world->servers[SIDE_BLUE]);
    proxy_release(world->proxy, 7);
    (void)close(server);
    int servers[2] = {server_login(world, SIDE_BLUE), server_login(world, SIDE_BLUE)};
    client_greeted(world, begun, NULL);
    client_greeted(world, waiting, NULL);
    assert_int_equal(world_event(world, PROXY_EVENT_RELEASED)->hold, 7);
    (void)close(servers[0]);
    (void)close(servers[1]);
    (void)close(begun);
    (void)close(waiting);
    world_free(world);
}

static void a_refused_login_that_lingers_is_left_alone(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    int lingering = client_connect(world);
    client_startup(lingering);
    (void)close(server_accept(world, SIDE_BLUE));
    expect_error(world, lingering, "08006"); /* and doesn't close */
    world_hold(world, 7, 150, PROXY_EXPIRE_RELEASE);
    int refused = client_connect(world);
    client_startup(refused);
    (void)world_event(world, PROXY_EVENT_EXPIRED);
    (void)close(server_accept(world, SIDE_BLUE));
    expect_error(world, refused, "08006");
    world_hold(world, 8, 5000, PROXY_EXPIRE_RELEASE);
    (void)world_event(world, PROXY_EVENT_DRAINED);
    proxy_set_route(world->proxy, (struct proxy_route){.side = SIDE_GREEN, .epoch = 2, .open = true});
    world_release(world, 8);
    expect_silence(world, world->servers[SIDE_GREEN]);
    expect_end(world, refused);
    (void)close(lingering);
    (void)close(refused);
    world_free(world);
}

static void what_is_not_drained_is_cancelled_or_ended(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair running = pair_new(world), open = pair_new(world);
    put(running.client, BYTES(QUERY_1));
    expect(world, running.server, BYTES(QUERY_1));
    put(open.client, BYTES(QUERY_BEGIN));
    expect(world, open.server, BYTES(QUERY_BEGIN));
    put(open.server, BYTES(COMPLETE_BEGIN READY_T));
    expect(world, open.client, BYTES(COMPLETE_BEGIN READY_T));
    proxy_hold(world->proxy, 7, in_ms(5000), PROXY_EXPIRE_RELEASE);
    assert_int_equal(world_event(world, PROXY_EVENT_HELD)->counts.undrained, 2);
    proxy_cancel_undrained(world->proxy, 7);
    int cancel = server_accept(world, SIDE_BLUE);
    expect(world, cancel, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a" SERVER_KEY));
    (void)close(cancel);
    put(running.server, BYTES("E\0\0\0\x18SERROR\0C57014\0Mbye\0\0" READY_I));
    expect_error(world, running.client, "57014");
    expect(world, running.client, BYTES(READY_I));
    proxy_terminate_undrained(world->proxy, 7); /* only the idle transaction is left */
    expect_error(world, open.client, "57P01");
    expect(world, open.server, BYTES(TERMINATE));
    (void)world_event(world, PROXY_EVENT_DRAINED);
    proxy_release(world->proxy, 7);
    pair_works(world, &running);
    pair_close(&running);
    pair_close(&open);
    world_free(world);
}

/* Nor is a second one sent as long as the server hasn't taken the first. */
static void what_was_cancelled_is_all_that_is_cancelled(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    put(pair.client, BYTES(QUERY_1));
    expect(world, pair.server, BYTES(QUERY_1));
    proxy_hold(world->proxy, 7, in_ms(5000), PROXY_EXPIRE_RELEASE);
    assert_int_equal(world_event(world, PROXY_EVENT_HELD)->counts.undrained, 1);
    proxy_cancel_undrained(world->proxy, 7);
    int cancel = server_accept(world, SIDE_BLUE);
    expect(world, cancel, BYTES("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x2a" SERVER_KEY));
    assert_false(world_readable(world, world->servers[SIDE_BLUE], 500000));
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    (void)world_event(world, PROXY_EVENT_DRAINED);
    world_release(world, 7);
    put(pair.client, BYTES(QUERY_1));
    expect_silence(world, pair.server);
    (void)close(cancel);
    expect(world, pair.server, BYTES(QUERY_1));
    put(pair.server, BYTES(COMPLETE_1 READY_I));
    expect(world, pair.client, BYTES(COMPLETE_1 READY_I));
    pair_works(world, &pair);
    pair_close(&pair);
    world_free(world);
}

/* It was sent later than the statement, and must not be seen first, however busy the session's worker is. */
static void a_cancel_does_not_overtake_its_statement(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pairs[8];
    for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
        pairs[i] = pair_new(world);
    }
    world_hold(world, 7, 10000, PROXY_EXPIRE_RELEASE);
    for (int round = 0; round < 50; round++) {
        int cancellers[ARRAY_LENGTH(pairs)];
        for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
            cancellers[i] = client_connect(world);
        }
        for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
            put(pairs[i].client, BYTES(QUERY_1));
            put_cancel(cancellers[i], pairs[i].key);
        }
        for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
            expect_error(world, pairs[i].client, "57014");
            expect(world, pairs[i].client, BYTES(READY_I));
            expect_end(world, cancellers[i]);
            (void)close(cancellers[i]);
        }
    }
    for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
        pair_close(&pairs[i]);
    }
    world_free(world);
}

/* A client that closes while it is held isn't read from: it is noticed when something is written to it. */
static void a_client_that_is_gone_can_be_cancelled(void **state)
{
    (void)state;
    struct world *world = world_new();
    world_start(world);
    struct pair pair = pair_new(world);
    world_hold(world, 7, 5000, PROXY_EXPIRE_RELEASE);
    put(pair.client, BYTES(QUERY_1 QUERY_1 QUERY_1));
    await_waiting(world, 1);
    (void)close(pair.client);
    int canceller = client_cancel(world, pair.key);
    expect_end(world, canceller);
    (void)close(canceller);
    expect(world, pair.server, BYTES(TERMINATE));
    (void)close(pair.server);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hold_keeps_what_comes_at_the_boundary),
        cmocka_unit_test(a_transaction_goes_on_until_its_end),
        cmocka_unit_test(half_a_message_is_finished_and_half_a_header_waits),
        cmocka_unit_test(an_extended_query_is_not_cut_at_flush),
        cmocka_unit_test(a_deadline_releases_by_itself),
        cmocka_unit_test(a_deadline_that_refuses_lets_nobody_through),
        cmocka_unit_test(a_cancel_ends_the_wait),
        cmocka_unit_test(logins_wait_and_begin_again),
        cmocka_unit_test(a_refused_login_that_lingers_is_left_alone),
        cmocka_unit_test(what_is_not_drained_is_cancelled_or_ended),
        cmocka_unit_test(what_was_cancelled_is_all_that_is_cancelled),
        cmocka_unit_test(a_cancel_does_not_overtake_its_statement),
        cmocka_unit_test(a_client_that_is_gone_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
