/* control/daemon: events over the control socket, and the methods of its own. */
#include "tests/unit/rpc_world.h"

static void subscribers_hear_every_event(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    events_publish(world->events, LOG_LEVEL_DEBUG, "start", 0, NULL, "one");
    uint64_t first = events_last_seq(world->events);
    events_publish(world->events, LOG_LEVEL_DEBUG, "phase", 3, "drain", "two \xff");
    char text[128];
    (void)snprintf(text, sizeof(text),
                   "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\",\"params\":{\"since\":%llu}}\n",
                   (unsigned long long)first);
    say(world, client, text);
    json_t *answer = hear_json(world, client);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(answer, "result"), "last_seq")),
                     first + 1);
    json_decref(answer);
    events_publish(world->events, LOG_LEVEL_DEBUG, "alarm", 0, "", "three");
    json_t *second = hear_json(world, client), *third = hear_json(world, client);
    assert_string_equal(json_string_value(json_object_get(second, "method")), "event");
    const json_t *event = json_object_get(second, "params");
    assert_int_equal(json_integer_value(json_object_get(event, "seq")), first + 1);
    assert_int_equal(json_integer_value(json_object_get(event, "flip")), 3);
    assert_string_equal(json_string_value(json_object_get(event, "phase")), "drain");
    assert_string_equal(json_string_value(json_object_get(event, "message")), "two ?");
    event = json_object_get(third, "params");
    assert_true(json_is_null(json_object_get(event, "flip")));
    assert_true(json_is_null(json_object_get(event, "phase")));
    json_decref(second);
    json_decref(third);
    expect(world, client, ECHO_1, HEARD_1); /* a subscriber may still ask */
    close(client);
    for (int i = 0; i < 100; i++) {
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    events_publish(world->events, LOG_LEVEL_DEBUG, "alarm", 0, "", "nobody hears this");
}

static void a_slow_subscriber_is_dropped_and_told(void **state)
{
    struct world *world = *state;
    int client = dial(world), other = dial(world);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\"}\n");
    hear(world, client); /* from here on it reads nothing */
    char message[500];
    memset(message, 'm', sizeof(message) - 1);
    message[sizeof(message) - 1] = '\0';
    for (int i = 0; i < 2000; i++) {
        events_publish(world->events, LOG_LEVEL_DEBUG, "test", 0, NULL, "%s", message);
        uv_run(&world->loop, UV_RUN_NOWAIT);
    }
    expect(world, other, ECHO_1, HEARD_1);
    int events = 0;
    for (;;) {
        json_t *heard = hear_json(world, client);
        const char *method = json_string_value(json_object_get(heard, "method"));
        bool dropped = method != NULL && strcmp(method, "dropped") == 0;
        events += method != NULL && strcmp(method, "event") == 0;
        json_decref(heard);
        if (dropped) {
            break;
        }
    }
    assert_in_range(events, 100, 1999);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
    close(other);
}

static void events_are_kept_up_to_a_bound(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    for (int i = 1; i <= EVENTS_KEPT + 10; i++) {
        events_publish(world->events, LOG_LEVEL_DEBUG, "test", 0, NULL, "%d", i);
    }
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events\"}\n");
    json_t *answer = hear_json(world, client);
    const json_t *list = json_object_get(json_object_get(answer, "result"), "events");
    assert_int_equal(json_array_size(list), EVENTS_KEPT);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "message")), "11");
    json_decref(answer);
    close(client);
}

static void the_daemons_own_methods_answer(void **state)
{
    struct world *world = *state;
    int client = dial(world);
    expect_allowed(world, client, "version");
    expect_allowed(world, client, "methods");
    expect(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"reload\"}\n",
           "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"applied\":true,\"changed\":[],\"restart\":[]}}");
    world->reload_fails = true;
    expect_error(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"reload\"}\n", -32000,
                 "configuration");
    close(client);
}

static void stopping_ends_streams_and_open_calls(void **state)
{
    struct world *world = *state;
    int client = dial(world), idle = dial(world);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\"}\n");
    hear(world, client);
    say(world, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"wait\"}\n");
    hear(world, client);
    stop_server(world);
    assert_int_equal(world->gone, 1);
    rpc_reply(world->waiting[0], json_null()); /* outlives the server */
    assert_string_equal(hear(world, client), "");
    close(client);
    close(idle);
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(subscribers_hear_every_event, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slow_subscriber_is_dropped_and_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(events_are_kept_up_to_a_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_daemons_own_methods_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stopping_ends_streams_and_open_calls, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
