/* control/daemon: JSON-RPC on the control socket, against raw sockets. */
#include "tests/unit/rpc_world.h"

static void a_request_is_answered(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect(world, client, ECHO_1, HEARD_1);
    expect(world, client,
           "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"add_one\",\"params\":{\"number\":4}}\n",
           "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":5}");
    expect(world, client, "\r\n  \n{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"echo\"}\r\n",
           "{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":{\"echo\":{}}}");
    close(client);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    for (const char *byte = ECHO_1; *byte != '\0'; byte++) {
        say_bytes(world, client, byte, 1);
    }
    assert_string_equal(hear(world, client), HEARD_1);
    say(world, client, ECHO_1 ECHO_1 ECHO_1);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(hear(world, client), HEARD_1);
    }
    close(client);
}

/* Parameters are named by us: who wrote a script must find the one that is wrong. */
static void a_wrong_parameter_is_named(void **state)
{
    struct world *world = *state;
    static const struct {
        const char *params, *said;
    } wrong[] = {
        {"{}", "the parameter number is missing"},
        {"{\"number\":\"1\"}", "the parameter number must be a whole number"},
        {"{\"number\":1,\"x\":2}", "there is no parameter x"},
    };
    int client = dial(world);
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        char request[128];
        (void)snprintf(request, sizeof request,
                       "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"add_one\",\"params\":%s}\n",
                       wrong[i].params);
        say(world, client, request);
        json_t *answer = hear_json(world, client);
        assert_string_equal(json_string_value(json_object_get(json_object_get(answer, "error"), "message")),
                            wrong[i].said);
        json_decref(answer);
    }
    close(client);
}

static void what_is_wrong_is_said_and_the_connection_lives(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect_error(world, client, "garbage\n", -32700, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\"\n", -32700, "usage");
    expect_error(world, client, "{\"a\":1,\"a\":2}\n", -32700, "usage");
    expect_error(world, client, "\"\xff\xfe\"\n", -32700, "usage");
    expect_error(world, client, "17\n", -32700, "usage");
    expect_error(world, client, "[]\n", -32600, "usage");
    expect_error(world, client,
                 "["
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}"
                 "]\n",
                 -32600, "usage");
    expect_error(world, client, "{\"id\":1,\"method\":\"echo\"}\n", -32600, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"echo\"}\n", -32600, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}\n", -32600, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"no\\nsuch\"}\n", -32601, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":[1]}\n", -32602,
                 "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"add_one\",\"params\":{}}\n",
                 -32602, "usage");
    expect_error(world, client,
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"add_one\",\"params\":{\"number\":1,\"x\":2}}\n",
                 -32602, "usage");
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"refuse\"}\n", -32000, "in_watch");
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

static void deep_nesting_is_only_an_error(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    static char deep[60001];
    memset(deep, '[', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\n';
    say_bytes(world, client, deep, sizeof(deep));
    json_t *answer = hear_json(world, client);
    assert_non_null(json_object_get(answer, "error"));
    json_decref(answer);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

/* Bytes from a seed: requests with one byte changed, cut, or doubled, and plain noise. Then it still answers.
 */
static void noise_does_no_harm(void **state)
{
    struct world *world = *state;
    unsigned seed = 20261120;
    for (int round = 0; round < 40; round++) {
        int client = dial(world);
        for (int i = 0; i < 20; i++) {
            char bytes[256] = ECHO_1 ECHO_1;
            size_t length = strlen(bytes);
            bytes[(size_t)rand_r(&seed) % length] = (char)rand_r(&seed);
            if (i % 4 == 0) {
                for (size_t j = 0; j < length; j++) {
                    bytes[j] = (char)rand_r(&seed);
                }
            }
            say_bytes(world, client, bytes, (size_t)rand_r(&seed) % length + 1);
        }
        close(client);
    }
    int client = dial(world);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

static void an_oversized_request_is_refused_once(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    static char large[300000];
    memset(large, 'x', sizeof(large));
    say_bytes(world, client, large, sizeof(large));
    expect_error(world, client, "", -32600, "usage");
    expect(world, client, "the rest of it\n" ECHO_1, HEARD_1);
    close(client);

    /* Just fits, and just doesn't. */
    client = dial(world);
    static char line[RPC_LINE_LIMIT + 2];
    memset(line, ' ', sizeof(line));
    memcpy(line, ECHO_1, strlen(ECHO_1) - 1);
    line[RPC_LINE_LIMIT] = '\n';
    say_bytes(world, client, line, RPC_LINE_LIMIT + 1);
    assert_string_equal(hear(world, client), HEARD_1);
    line[RPC_LINE_LIMIT] = ' ';
    line[RPC_LINE_LIMIT + 1] = '\n';
    say_bytes(world, client, line, RPC_LINE_LIMIT + 2);
    expect_error(world, client, "", -32600, "usage");
    close(client);
}

static void a_notification_is_never_answered(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect(world, client,
           "{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}\n"
           "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}\n"
           "{\"jsonrpc\":\"2.0\",\"method\":\"add_one\"}\n" ECHO_1,
           HEARD_1);
    close(client);
}

static void progress_comes_before_the_answer(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect(world, client, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"wait\"}\n",
           "{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":{\"step\":\"begun\",\"id\":7}}");
    expect(world, client, ECHO_1, HEARD_1); /* out of order */
    rpc_progress(world->waiting[0], json_pack("{s:i}", "fraction", 1));
    rpc_reply(world->waiting[0], json_string("done"));
    assert_string_equal(hear(world, client),
                        "{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":{\"fraction\":1,"
                        "\"id\":7}}");
    assert_string_equal(hear(world, client), "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"done\"}");
    assert_int_equal(world->gone, 0);
    close(client);
}

static void who_hangs_up_does_not_end_what_was_asked(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"wait\"}\n");
    hear(world, client);
    close(client);
    for (int i = 0; i < 1000 && world->gone == 0; i++) {
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(world->gone, 1);
    rpc_progress(world->waiting[0], json_pack("{s:i}", "fraction", 1));
    rpc_reply(world->waiting[0], json_string("done"));
}

static void a_closed_write_side_still_gets_its_answer(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    say(world, client, ECHO_1 "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"wait\"}\n");
    shutdown(client, SHUT_WR);
    assert_string_equal(hear(world, client), HEARD_1);
    hear(world, client);
    assert_int_equal(world->gone, 0);
    rpc_reply(world->waiting[0], json_string("done"));
    assert_string_equal(hear(world, client), "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"done\"}");
    assert_string_equal(hear(world, client), ""); /* and then it is closed */
    close(client);
}

static void requests_at_once_are_bounded(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    for (int i = 0; i < 16; i++) {
        say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"wait\"}\n");
        hear(world, client);
    }
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"wait\"}\n", -32000, "usage");
    for (size_t i = 0; i < 16; i++) {
        rpc_reply(world->waiting[i], json_null());
        hear(world, client);
    }
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

static void connections_are_bounded(void **state)
{
    struct world *world = *state;
    enum { ROOM = RPC_CONNECTIONS + 16 }; /* the tests' peer is an operator */
    int clients[ROOM + 5];
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++) {
        clients[i] = dial(world);
    }
    for (size_t i = 0; i < ROOM; i++) {
        expect(world, clients[i], ECHO_1, HEARD_1);
    }
    expect_error(world, clients[ROOM], "", -32000, "usage");
    assert_string_equal(hear(world, clients[ROOM]), "");
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++) {
        close(clients[i]);
    }
    for (int i = 0; i < 200; i++) {
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    int client = dial(world);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_is_answered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_may_come_one_by_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_wrong_parameter_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_said_and_the_connection_lives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deep_nesting_is_only_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(noise_does_no_harm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_oversized_request_is_refused_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_notification_is_never_answered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(progress_comes_before_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_hangs_up_does_not_end_what_was_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_closed_write_side_still_gets_its_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_at_once_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(connections_are_bounded, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
