/* A proxy that stops while clients come in: whoever was accepted hears why it has to go. */
#include "tests/unit/proxy_world.h"

enum { ROUNDS = 20, CLIENTS = 48, WORKERS = 4 };

/* As systemd passes it: what no worker has accepted stays for the next daemon. */
static int passed_socket(struct world *world)
{
    int made = world_listen(&world->settings.listen_port);
    assert_int_equal(fcntl(made, F_SETFL, O_NONBLOCK), 0);
    return made;
}

static void start_on(struct world *world, int socket)
{
    const struct proxy_sockets passed = {.items = {{.socket = socket}}, .count = 1};
    const struct proxy_callbacks callbacks = {
        .context = world, .event = world_on_event, .verifier = world_on_verifier};
    const struct proxy_route route = {.side = SIDE_BLUE, .epoch = 1, .open = true};
    struct error error;
    world->proxy = proxy_start(&world->loop, &world->settings, route, &callbacks, &passed, &error);
    assert_non_null(world->proxy);
}

/* What it has heard: an error, or nothing yet because nobody has accepted it. Never an end without a word. */
static bool is_accepted(int client)
{
    char first = 0;
    ssize_t count = recv(client, &first, 1, MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) {
        return false;
    }
    assert_int_equal(count, 1);
    assert_int_equal(first, 'E');
    return true;
}

static void nobody_is_dropped_without_a_word(void **state)
{
    (void)state;
    size_t accepted = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct world *world = world_new();
        int socket = passed_socket(world), clients[CLIENTS];
        world->settings.workers = WORKERS;
        start_on(world, socket);
        for (int i = 0; i < CLIENTS; i++) {
            if (i == round % CLIENTS) {
                proxy_stop(world->proxy, 0);
            }
            clients[i] = client_connect(world);
            client_startup(clients[i]);
        }
        int64_t end_us = clock_mono_us() + WORLD_PATIENCE_US;
        while (!world->stopped && clock_mono_us() < end_us) {
            world_pump(world);
            (void)poll(NULL, 0, 1);
        }
        assert_true(world->stopped);
        for (int i = 0; i < CLIENTS; i++) {
            accepted += is_accepted(clients[i]);
            (void)close(clients[i]);
        }
        (void)close(socket);
        world_free(world);
    }
    assert_true(accepted > 0);
    print_message("%zu of %d were accepted\n", accepted, ROUNDS * CLIENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_dropped_without_a_word),
    };
    return cmocka_run_group_tests_name("proxy stop", tests, NULL, NULL);
}
