/*
 * A storm over the data plane: clients that ask much at once, read slowly or not at all, half-close, reset,
 * cancel or vanish; servers that pause, reset, shut down or die in the middle of an answer; and over all of
 * it a controller that holds, releases, reloads, and stops the proxy at any moment. Every byte of every
 * answer is checked, nobody waits for ever, and a proxy that is told to stop does.
 *
 *   proxy_storm_test [FIRST-SEED ROUNDS]     ctest runs a few rounds; by hand it is as many as one likes
 */
#include "tests/unit/storm_client.h"
#include "tests/unit/storm_server.h"

#include <inttypes.h>

enum {
    CLIENTS_MOST = 24,
    ROUND_MS = 1000, /* at most, until clients begin nothing new */
    DEFAULT_ROUNDS = 5,
    STOP_WITHIN_US = 60 * 1000000
};

static unsigned first_seed = 1, rounds = DEFAULT_ROUNDS;

/* --- a client's life --- */

/* False: the proxy is gone, or going. */
static bool come(struct storm_client *client)
{
    struct storm *storm = client->storm;
    const int small = 16384;
    bool local = storm_pick(&client->seed, 3) == 0;
    struct sockaddr_in tcp = {.sin_family = AF_INET,
                              .sin_addr = {htonl(INADDR_LOOPBACK)},
                              .sin_port = htons((uint16_t)storm->world->settings.listen_port)};
    struct sockaddr_un file = {.sun_family = AF_UNIX};
    (void)snprintf(file.sun_path, sizeof(file.sun_path), "%.100s", storm->unix_path);
    client->fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        storm_fail("client", "no socket", 0);
    }
    if (storm_pick(&client->seed, 4) == 0) { /* what it doesn't read waits in the proxy soon */
        (void)setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    }
    int failed = local ? connect(client->fd, (struct sockaddr *)&file, sizeof(file))
                       : connect(client->fd, (struct sockaddr *)&tcp, sizeof(tcp));
    if (failed != 0 && !atomic_load(&storm->stopped)) {
        storm_fail("client", strerror(errno), 0);
    }
    return failed == 0;
}

static void leave(struct storm_client *client, bool reset)
{
    if (reset) {
        storm_reset(client->fd);
    } else {
        (void)close(client->fd);
    }
    free(client->out);
    client->out = NULL;
}

/* By a connection of its own, as libpq does. */
static void cancel(struct storm_client *client)
{
    struct storm_client other = {.storm = client->storm, .seed = client->seed};
    client->cancels = true;
    if (come(&other)) {
        uint8_t packet[16] = {0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e};
        memcpy(packet + 8, client->key, sizeof(client->key));
        char byte = 0;
        if (send(other.fd, packet, sizeof(packet), MSG_NOSIGNAL) == sizeof(packet)) {
            (void)storm_wait(other.fd, POLLIN, "cancel");
            (void)recv(other.fd, &byte, 1, 0);
        }
    }
    leave(&other, false);
}

/* All that was asked is sent and answered. False: the connection is over. */
static bool exchange(struct storm_client *client, bool greeting)
{
    while (greeting ? !client->greeted : client->answered < client->asked_count || client->end == END_HALF) {
        bool more = client->out_sent < client->out_length;
        if (storm_pick(&client->seed, 40) == 0) { /* it doesn't read: the proxy must wait, and its server */
            atomic_fetch_add(&client->storm->paused, 1);
            storm_sleep_us(storm_pick(&client->seed, 30000));
        }
        (void)storm_wait(client->fd, (short)(more ? POLLIN | POLLOUT : POLLIN), "client");
        if (more && !client_send(client)) {
            client->out_sent = client->out_length; /* what was said to us before is still to be read */
        } else if (more && client->out_sent == client->out_length && client->end == END_HALF) {
            atomic_fetch_add(&client->storm->halves, 1);
            (void)shutdown(client->fd, SHUT_WR);
        }
        if (!client_receive(client)) {
            return false;
        }
        if (client->end == END_RESET && storm_pick(&client->seed, 3) == 0) {
            return false;
        }
        if (greeting == false && !client->cancels && storm_pick(&client->seed, 200) == 0) {
            cancel(client);
        }
    }
    return true;
}

static bool log_in(struct storm_client *client)
{
    uint8_t packet[512];
    client_add(client, packet, startup_packet(packet, "joe", "app"));
    if (storm_pick(&client->seed, 30) == 0) { /* it thinks better of it */
        client->out_length = storm_pick(&client->seed, (unsigned)client->out_length);
        return client_send(client) && false;
    }
    return exchange(client, true);
}

static void live_once(struct storm_client *client)
{
    unsigned batches = 1 + storm_pick(&client->seed, 6);
    bool goes_on = log_in(client);
    while (goes_on && batches-- > 0 && !atomic_load(&client->storm->over)) {
        client->out_length = client->out_sent = 0;
        client->asked_count = client->answered = 0;
        unsigned count = 1 + storm_pick(&client->seed, CLIENT_PIPELINE - 1);
        for (unsigned i = 0; i < count; i++) {
            client_ask(client);
        }
        client->end = batches == 0 ? (enum client_end)storm_pick(&client->seed, END_COUNT) : END_STAYS;
        if (client->end == END_TERMINATE) {
            client_add(client, BYTES(TERMINATE));
        }
        goes_on = exchange(client, false);
    }
    atomic_fetch_add(&client->storm->resets, client->end == END_RESET);
}

static void *client_run(void *argument)
{
    struct storm_client *client = argument;
    struct storm *storm = client->storm;
    while (!atomic_load(&storm->over)) {
        struct storm_client life = {.storm = storm, .seed = client->seed, .next_id = client->next_id};
        if (come(&life)) {
            live_once(&life);
        }
        leave(&life, life.end == END_RESET);
        client->seed = life.seed;
        client->next_id = life.next_id;
    }
    return NULL;
}

/* --- the controller --- */

struct controller {
    struct storm *storm;
    unsigned seed;
    bool held;
    uint64_t hold, pinged, alive;
    int64_t held_until_us;
    bool stopped;
    unsigned holds, reloads;
};

static void on_event(void *context, const struct proxy_event *event)
{
    struct controller *controller = context;
    if (event->kind == PROXY_EVENT_RELEASED || event->kind == PROXY_EVENT_EXPIRED) {
        controller->held = false;
    } else if (event->kind == PROXY_EVENT_SESSIONS) {
        free(event->sessions);
    } else if (event->kind == PROXY_EVENT_ALIVE) {
        controller->alive = event->hold;
    } else if (event->kind == PROXY_EVENT_STOPPED) {
        controller->stopped = true;
    }
}

static void on_verifier(void *context, uint64_t request, enum side side, const char *role, bool groups)
{
    (void)context;
    (void)request;
    (void)side;
    (void)role;
    (void)groups;
    storm_fail("controller", "nobody logs in by a password", 0);
}

static void act(struct controller *controller)
{
    struct proxy *proxy = controller->storm->world->proxy;
    const bool rough = atomic_load(&controller->storm->rough);
    switch (storm_pick(&controller->seed, 8)) {
    case 0:
    case 1:
        if (!controller->held) {
            int64_t within_us = 5000 + storm_pick(&controller->seed, 60000);
            controller->held = true;
            controller->holds++;
            proxy_hold(proxy, ++controller->hold, clock_mono_us() + within_us, PROXY_EXPIRE_RELEASE);
        }
        break;
    case 2:
        if (controller->held) {
            proxy_release(proxy, controller->hold);
        }
        break;
    case 3:
        controller->reloads++;
        proxy_reload(proxy, &controller->storm->world->settings);
        break;
    case 4:
        proxy_sessions(proxy, ++controller->pinged, false);
        break;
    case 5:
        proxy_ping(proxy, ++controller->pinged);
        break;
    case 6:
        if (rough && controller->held) {
            proxy_cancel_undrained(proxy, controller->hold);
        }
        break;
    default:
        if (rough && controller->held && storm_pick(&controller->seed, 8) == 0) {
            proxy_terminate_undrained(proxy, controller->hold);
        }
        break;
    }
}

static void pump_until(struct controller *controller, int64_t end_us, bool acts)
{
    do {
        (void)uv_run(&controller->storm->world->loop, UV_RUN_NOWAIT);
        if (acts && storm_pick(&controller->seed, 4) == 0) {
            act(controller);
        }
        storm_sleep_us(500 + storm_pick(&controller->seed, 2000));
    } while (clock_mono_us() < end_us && !controller->stopped);
}

/* --- a round --- */

static void start(struct storm *storm, struct controller *controller, const char *folder)
{
    const struct proxy_callbacks callbacks = {
        .context = controller, .event = on_event, .verifier = on_verifier};
    const struct proxy_route route = {.side = SIDE_BLUE, .epoch = 1, .open = true};
    struct settings *settings = &storm->world->settings;
    struct error error;
    settings->listen_unix_dir = (char *)folder;
    settings->listen_backlog = 512;
    settings->max_clients = 1000;
    settings->workers = 1 + storm_pick(&controller->seed, 3);
    settings->timeouts.login_us = settings->timeouts.server_connect_us = STORM_PATIENCE_US;
    (void)snprintf(storm->unix_path, sizeof(storm->unix_path), "%s/.s.PGSQL.%" PRId64, folder,
                   settings->listen_port);
    storm->world->proxy = proxy_start(&storm->world->loop, settings, route, &callbacks, NULL, &error);
    if (storm->world->proxy == NULL) {
        storm_fail("proxy", error.message, 0);
    }
}

/* Either when all have got what they asked for, or in the midst of it. */
static void stop(struct storm *storm, struct controller *controller, pthread_t *clients, size_t count)
{
    bool in_the_midst = storm_pick(&controller->seed, 2) == 0;
    if (in_the_midst) {
        atomic_store(&storm->stopped, true);
        proxy_stop(storm->world->proxy, storm_pick(&controller->seed, 300000));
    }
    atomic_store(&storm->over, true);
    for (size_t i = 0; i < count; i++) {
        while (pthread_tryjoin_np(clients[i], NULL) != 0) {
            pump_until(controller, clock_mono_us() + 1000, false);
            storm_sleep_us(100);
        }
    }
    atomic_store(&storm->stopped, true);
    if (!in_the_midst) {
        proxy_stop(storm->world->proxy, 0);
    }
    pump_until(controller, clock_mono_us() + STOP_WITHIN_US, false);
    if (!controller->stopped) {
        storm_fail("proxy", "does not stop", controller->seed);
    }
    proxy_free(storm->world->proxy);
    storm->world->proxy = NULL;
}

/* With the proxy every connection to a server is gone. */
static void end_servers(struct storm *storm, pthread_t acceptor)
{
    struct timespec until;
    (void)shutdown(storm->world->servers[SIDE_BLUE], SHUT_RDWR);
    (void)pthread_join(acceptor, NULL);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STORM_PATIENCE_US / 1000000;
    for (unsigned i = 1; i < atomic_load(&storm->accepted); i++) {
        if (pthread_timedjoin_np(storm->servers[i], NULL, &until) != 0) {
            storm_fail("server", "its connection is still open", i);
        }
    }
}

static void storm_once(unsigned seed, const char *folder)
{
    struct storm *storm = calloc(1, sizeof(*storm));
    assert_non_null(storm);
    struct controller controller = {.storm = storm, .seed = seed * 7919 + 1};
    struct storm_client lives[CLIENTS_MOST];
    pthread_t clients[CLIENTS_MOST], acceptor;
    size_t count = 1 + storm_pick(&controller.seed, CLIENTS_MOST);
    storm->world = world_new();
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    atomic_store(&storm->accepted, 1);
    atomic_store(&storm->rough, storm_pick(&controller.seed, 3) == 0);
    start(storm, &controller, folder);
    assert_int_equal(pthread_create(&acceptor, NULL, server_run, storm), 0);
    for (size_t i = 0; i < count; i++) {
        lives[i] = (struct storm_client){.storm = storm, .seed = seed * 1000 + (unsigned)i};
        assert_int_equal(pthread_create(&clients[i], NULL, client_run, &lives[i]), 0);
    }
    int64_t lasts_ms = 20 + storm_pick(&controller.seed, ROUND_MS);
    pump_until(&controller, clock_mono_us() + lasts_ms * 1000, true);
    stop(storm, &controller, clients, count);
    end_servers(storm, acceptor);
    print_message(
        "seed %u: %zu clients, %u connections, %u answers, %u cut off, %u cancelled, %u naps, %u half "
        "closed, %u resets, %u servers died, %u holds, %u reloads%s\n",
        seed, count, atomic_load(&storm->accepted) - 1, atomic_load(&storm->answered),
        atomic_load(&storm->cut), atomic_load(&storm->cancelled), atomic_load(&storm->paused),
        atomic_load(&storm->halves), atomic_load(&storm->resets), atomic_load(&storm->deaths),
        controller.holds, controller.reloads, atomic_load(&storm->rough) ? ", rough" : "");
    world_free(storm->world);
    free(storm);
}

static void everybody_is_answered_and_the_proxy_stops(void **state)
{
    char folder[] = "/tmp/switchback-storm.XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    for (unsigned i = 0; i < rounds; i++) {
        storm_once(first_seed + i, folder);
    }
    (void)rmdir(folder);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_is_answered_and_the_proxy_stops),
    };
    if (argc == 3) {
        first_seed = (unsigned)strtoul(argv[1], NULL, 10);
        rounds = (unsigned)strtoul(argv[2], NULL, 10);
    }
    return cmocka_run_group_tests_name("proxy storm", tests, NULL, NULL);
}
