/* control/daemon: who may do what on the control socket, and the socket's file. */
#include "tests/unit/rpc_world.h"

static void expect_denied(struct world *world, int client, const char *method)
{
    call_method(world, client, method);
    expect_error(world, client, "", -32000, "permission_denied");
    assert_non_null(strstr(world->audited, "denied"));
}

static void roles_decide_who_may_do_what(void **state)
{
    struct world *world = *state;
    int alice = dial_as(world, ALICE), bob = dial_as(world, BOB), carol = dial_as(world, CAROL);
    int own = dial_as(world, geteuid());
    expect_allowed(world, alice, "echo");
    expect_allowed(world, alice, "approve");
    expect_denied(world, alice, "reload");
    assert_string_equal(world->audited, "reload 1001 denied");
    expect_allowed(world, bob, "echo");
    expect_allowed(world, bob, "reload");
    assert_string_equal(world->audited, "reload 1002 allowed");
    expect_denied(world, bob, "approve");
    expect_allowed(world, carol, "reload"); /* through her group */
    expect_allowed(world, own, "reload");
    expect_allowed(world, own, "approve");

    /* A reload takes a role away from connections that stand. */
    struct error error;
    world->settings.control_operators.count = 0;
    struct roles *roles = roles_new(&world->settings, &error);
    assert_non_null(roles);
    rpc_set_roles(world->rpc, roles);
    expect_denied(world, bob, "reload");
    close(alice);
    close(bob);
    close(carol);
    close(own);
}

static void who_has_no_role_is_told_and_closed(void **state)
{
    struct world *world = *state;
    int mallory = dial_as(world, MALLORY);
    expect_denied(world, mallory, "echo");
    assert_string_equal(hear(world, mallory), "");
    close(mallory);
}

static void strangers_and_viewers_leave_room_for_operators(void **state)
{
    struct world *world = *state;
    int strangers[12], viewers[RPC_CONNECTIONS];
    for (size_t i = 0; i < ARRAY_LENGTH(strangers); i++) {
        strangers[i] = dial_as(world, MALLORY);
    }
    expect_error(world, strangers[8], "", -32000, "usage");
    assert_string_equal(hear(world, strangers[8]), "");
    for (size_t i = 0; i < ARRAY_LENGTH(viewers); i++) {
        viewers[i] = dial_as(world, ALICE);
    }
    expect_error(world, viewers[RPC_CONNECTIONS - 1], "", -32000, "usage");
    int bob = dial_as(world, BOB);
    expect_allowed(world, bob, "reload");
    close(bob);
    for (size_t i = 0; i < ARRAY_LENGTH(strangers); i++) {
        close(strangers[i]);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(viewers); i++) {
        close(viewers[i]);
    }
}

static mode_t socket_mode(const struct world *world)
{
    struct stat status;
    assert_int_equal(stat(world->path, &status), 0);
    return status.st_mode & 0777;
}

static void the_socket_is_open_to_whom_roles_can_name(void **state)
{
    struct world *world = *state;
    struct error error;
    assert_int_equal(socket_mode(world), 0660);
    set_roles(&world->settings);
    rpc_set_roles(world->rpc, roles_new(&world->settings, &error));
    assert_int_equal(socket_mode(world), 0666);
}

static void unknown_names_in_roles_are_errors(void **state)
{
    (void)state;
    static char nobody[] = "no-such-user-here", group[] = "%no-such-group", root[] = "root";
    static char *items[1];
    struct settings settings = {.control_operators = {items, 1}};
    struct error error;
    items[0] = nobody;
    assert_null(roles_new(&settings, &error));
    assert_string_equal(error.message,
                        "control.operators: user \"no-such-user-here\" is not known to the system");
    items[0] = group;
    assert_null(roles_new(&settings, &error));
    items[0] = root;
    struct roles *roles = roles_new(&settings, &error);
    assert_non_null(roles);
    roles_free(roles);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    struct world *world = *state;
    struct error error;
    struct rpc_config config = {.socket_path = world->path, .roles = roles_new(&world->settings, &error)};
    assert_null(rpc_start(&world->loop, &config, &error)); /* ours listens */
    assert_non_null(strstr(error.message, "another program listens"));
    roles_free(config.roles);
    stop_server(world);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", world->path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&address, sizeof(address)), 0);
    close(dead); /* its file stays */
    world->stopped = false;
    start_server(world);
    int client = dial(world);
    expect(world, client, ECHO_1, HEARD_1);
    close(client);
    stop_server(world);

    int file = open(world->path, O_CREAT | O_WRONLY, 0600);
    close(file);
    config.roles = roles_new(&world->settings, &error);
    assert_null(rpc_start(&world->loop, &config, &error));
    assert_non_null(strstr(error.message, "is not a socket"));
    roles_free(config.roles);
    unlink(world->path);
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(roles_decide_who_may_do_what, set_up_roles, tear_down),
        cmocka_unit_test_setup_teardown(who_has_no_role_is_told_and_closed, set_up_roles, tear_down),
        cmocka_unit_test_setup_teardown(strangers_and_viewers_leave_room_for_operators, set_up_roles,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_socket_is_open_to_whom_roles_can_name, set_up, tear_down),
        cmocka_unit_test(unknown_names_in_roles_are_errors),
        cmocka_unit_test_setup_teardown(a_stale_socket_is_replaced_and_a_live_one_is_not, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
