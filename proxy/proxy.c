#include "proxy/proxy.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/answer.h"
#include "proxy/collect.h"
#include "proxy/config.h"
#include "proxy/in_doubt.h"
#include "proxy/link_watch.h"
#include "proxy/listening.h"
#include "proxy/login_client.h"
#include "proxy/renumber.h"
#include "proxy/side_health.h"
#include "proxy/worker.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <unistd.h>

struct proxy {
    uv_loop_t *loop;
    struct proxy_callbacks callbacks;
    struct worker_shared shared;
    struct proxy_config *config;
    struct collect collect;
    unix_socket_path unix_path; /* to be removed */
    bool mailbox_open;
    bool stopping;
    unsigned running; /* workers whose thread runs */
};

/* --- commands to the workers --- */

struct command {
    struct letter letter;
    void (*run)(struct worker *worker, const struct command *command);
    uint64_t id;
    int64_t time_us;
    bool ask, rescue;
    enum proxy_expire expire;
    enum proxy_outcome outcome;
    struct proxy_route route;
    struct proxy_config *config;
};

static void deliver_command(struct letter *letter, void *receiver)
{
    struct command *command = CONTAINER_OF(letter, struct command, letter);
    command->run(receiver, command);
    explicit_bzero(command, sizeof(*command));
    free(command);
}

static void post_command(struct worker *worker, const struct command *command)
{
    struct command *copy = malloc(sizeof(*copy));
    ENSURE(copy != NULL);
    *copy = *command;
    copy->letter.deliver = deliver_command;
    mailbox_post(&worker->mailbox, &copy->letter);
}

static void post_to_all(struct proxy *proxy, const struct command *command)
{
    for (unsigned i = 0; i < proxy->shared.worker_count; i++) {
        post_command(&proxy->shared.workers[i], command);
    }
}

/* --- answers --- */

static void run_expire_now(struct worker *worker, const struct command *command)
{
    hold_expire_now(worker, command->id);
}

void proxy_deliver_answer(struct letter *letter, void *receiver)
{
    struct proxy *proxy = receiver;
    struct answer *answer = CONTAINER_OF(letter, struct answer, letter);
    if (answer->kind == PROXY_EVENT_STOPPED) {
        worker_join(&proxy->shared.workers[answer->worker]);
        proxy->running--;
    }
    if (collect_expiry_begins(&proxy->collect, answer)) {
        const struct command command = {.run = run_expire_now, .id = answer->hold};
        post_to_all(proxy, &command);
    }
    collect_answer(&proxy->collect, answer);
    free(answer);
}

void proxy_deliver_verifier_request(struct letter *letter, void *receiver)
{
    struct proxy *proxy = receiver;
    struct verifier_request *request = CONTAINER_OF(letter, struct verifier_request, letter);
    proxy->callbacks.verifier(proxy->callbacks.context, request->request, request->side, request->role,
                              request->groups);
    free(request);
}

/* The answer for a login, and the groups behind it. */
struct verifier_letter {
    struct letter letter;
    uint64_t request;
    struct proxy_verifier verifier;
    char groups[];
};

static void deliver_verifier(struct letter *letter, void *receiver)
{
    struct verifier_letter *answer = CONTAINER_OF(letter, struct verifier_letter, letter);
    answer->verifier.groups = answer->groups;
    login_client_verifier(receiver, answer->request, &answer->verifier);
    explicit_bzero(answer, sizeof(*answer));
    free(answer);
}

void proxy_verifier_answer(struct proxy *proxy, uint64_t request, const struct proxy_verifier *verifier)
{
    unsigned worker = session_ticket_worker((uint32_t)request);
    if (worker >= proxy->shared.worker_count) {
        return;
    }
    size_t length = verifier->groups == NULL ? 0 : verifier->groups_length;
    struct verifier_letter *answer = malloc(sizeof(*answer) + length);
    ENSURE(answer != NULL);
    answer->letter.deliver = deliver_verifier;
    answer->request = request;
    answer->verifier = *verifier;
    answer->verifier.groups_length = length;
    if (length > 0) {
        memcpy(answer->groups, verifier->groups, length);
    }
    mailbox_post(&proxy->shared.workers[worker].mailbox, &answer->letter);
}

void proxy_deliver_doubt(struct letter *letter, void *receiver)
{
    struct proxy *proxy = receiver;
    struct doubt_request *request = CONTAINER_OF(letter, struct doubt_request, letter);
    if (proxy->callbacks.doubt != NULL) {
        proxy->callbacks.doubt(proxy->callbacks.context, &request->doubt);
    } else {
        proxy_doubt_answer(proxy, request->doubt.request, PROXY_OUTCOME_UNKNOWN);
    }
    free(request);
}

static void run_outcome(struct worker *worker, const struct command *command)
{
    in_doubt_outcome(worker, command->id, command->outcome);
}

void proxy_doubt_answer(struct proxy *proxy, uint64_t request, enum proxy_outcome outcome)
{
    unsigned worker = session_ticket_worker((uint32_t)request);
    const struct command command = {.run = run_outcome, .id = request, .outcome = outcome};
    if (worker < proxy->shared.worker_count) {
        post_command(&proxy->shared.workers[worker], &command);
    }
}

/* --- start --- */

static bool make_workers(struct proxy *proxy, unsigned count, struct proxy_route route, struct error *error)
{
    proxy->shared.workers = calloc(count, sizeof(struct worker));
    if (proxy->shared.workers == NULL) {
        return error_set(error, ERROR_MEMORY, "out of memory for %u workers", count);
    }
    for (unsigned i = 0; i < count; i++) {
        if (!worker_init(&proxy->shared.workers[i], &proxy->shared, i, proxy->config, route, error)) {
            return false;
        }
        proxy->shared.worker_count = i + 1;
    }
    return true;
}

static bool take_mock_secret(struct proxy *proxy)
{
    uint8_t *secret = proxy->shared.mock_secret;
    size_t size = sizeof(proxy->shared.mock_secret);
    if (proxy->callbacks.mock_secret == NULL) {
        return RAND_bytes(secret, (int)size) == 1;
    }
    memcpy(secret, proxy->callbacks.mock_secret, size);
    proxy->callbacks.mock_secret = NULL;
    return true;
}

static bool start(struct proxy *proxy, const struct settings *settings, struct proxy_route route,
                  const struct proxy_sockets *passed, struct error *error)
{
    unsigned count =
        settings->workers > 0 ? (unsigned)settings->workers : (unsigned)uv_available_parallelism();
    count = count > WORKERS_MAX ? WORKERS_MAX : count;
    proxy->config = config_new(settings, error);
    if (proxy->config == NULL) {
        return false;
    }
    if (!collect_init(&proxy->collect, count, proxy->callbacks.event, proxy->callbacks.context) ||
        !take_mock_secret(proxy) ||
        RAND_bytes(proxy->shared.cancel_master, sizeof(proxy->shared.cancel_master)) != 1) {
        return error_set(error, ERROR_MEMORY, "out of memory or randomness for the proxy");
    }
    int failure = mailbox_init(&proxy->shared.main, proxy->loop, proxy);
    if (failure != 0) {
        return error_set(error, ERROR_SYSTEM, "can't make a mailbox: %s", uv_strerror(failure));
    }
    proxy->mailbox_open = true;
    if (!make_workers(proxy, count, route, error) ||
        !listening_open(&proxy->shared, settings, passed, proxy->unix_path, error)) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!worker_run(&proxy->shared.workers[i], error)) {
            return false;
        }
        proxy->running++;
    }
    return true;
}

static void run_stop(struct worker *worker, const struct command *command)
{
    worker_stop(worker, command->time_us);
}

/* Undoes a start that went wrong; those workers that run already have no sessions worth waiting for. */
static void give_up(struct proxy *proxy)
{
    const struct command command = {.run = run_stop, .time_us = 0};
    for (unsigned i = 0; i < proxy->running; i++) {
        post_command(&proxy->shared.workers[i], &command);
    }
    for (unsigned i = 0; i < proxy->running; i++) {
        worker_join(&proxy->shared.workers[i]);
    }
    proxy->running = 0;
    proxy_free(proxy);
}

struct proxy *proxy_start(uv_loop_t *loop, const struct settings *settings, struct proxy_route route,
                          const struct proxy_callbacks *callbacks, const struct proxy_sockets *passed,
                          struct error *error)
{
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    if (proxy == NULL) {
        error_set(error, ERROR_MEMORY, "out of memory for the proxy");
        return NULL;
    }
    proxy->loop = loop;
    proxy->callbacks = *callbacks;
    client_limits_init(&proxy->shared.limits);
    failed_logins_init(&proxy->shared.failed_logins);
    if (!start(proxy, settings, route, passed, error)) {
        give_up(proxy);
        return NULL;
    }
    LOG_INFO("proxy_started", LOG_STR("host", settings->listen_host), LOG_I64("port", settings->listen_port),
             LOG_STR("unix", proxy->unix_path), LOG_U64("passed", passed != NULL ? passed->count : 0),
             LOG_U64("workers", proxy->shared.worker_count), LOG_STR("side", side_name(route.side)),
             LOG_U64("epoch", route.epoch));
    return proxy;
}

/* --- the end --- */

void proxy_stop(struct proxy *proxy, int64_t grace_us)
{
    const struct command command = {.run = run_stop, .time_us = clock_mono_us() + grace_us};
    if (!proxy->stopping) {
        proxy->stopping = true;
        collect_expect(&proxy->collect, PROXY_EVENT_STOPPED, 0);
    }
    post_to_all(proxy, &command);
}

static void on_main_closed(void *receiver)
{
    struct proxy *proxy = receiver;
    mailbox_deinit(&proxy->shared.main);
    free(proxy);
}

void proxy_free(struct proxy *proxy)
{
    ENSURE(proxy->running == 0);
    for (unsigned i = 0; i < proxy->shared.worker_count; i++) {
        worker_deinit(&proxy->shared.workers[i]);
    }
    free(proxy->shared.workers);
    config_unref(proxy->config);
    collect_deinit(&proxy->collect);
    if (proxy->unix_path[0] != '\0') {
        (void)unlink(proxy->unix_path);
    }
    client_limits_deinit(&proxy->shared.limits);
    failed_logins_deinit(&proxy->shared.failed_logins);
    explicit_bzero(proxy->shared.mock_secret, sizeof(proxy->shared.mock_secret));
    explicit_bzero(proxy->shared.cancel_master, sizeof(proxy->shared.cancel_master));
    if (proxy->mailbox_open) {
        mailbox_close(&proxy->shared.main, on_main_closed); /* frees the rest */
    } else {
        free(proxy);
    }
}

/* --- settings and route --- */

static void run_reload(struct worker *worker, const struct command *command)
{
    config_unref(worker->config);
    worker->config = command->config;
    memset(worker->addresses, 0, sizeof(worker->addresses));
    worker->sweep_us = 0;
    worker_want_tick(worker); /* the timeouts may be new */
    link_watch_set(worker);
}

bool proxy_check(const struct settings *settings, struct error *error)
{
    struct proxy_config *config = config_new(settings, error);
    config_unref(config);
    return config != NULL;
}

void proxy_reload(struct proxy *proxy, const struct settings *settings)
{
    struct error error;
    struct proxy_config *config = config_new(settings, &error);
    if (config == NULL) { /* a file has gone since proxy_check() */
        LOG_ERROR("reload_failed", LOG_STR("error", error.message));
        return;
    }
    config_unref(proxy->config);
    proxy->config = config;
    for (unsigned i = 0; i < proxy->shared.worker_count; i++) {
        const struct command command = {.run = run_reload, .config = config_ref(config)};
        post_command(&proxy->shared.workers[i], &command);
    }
}

static void run_set_route(struct worker *worker, const struct command *command)
{
    hold_set_route(worker, command->route);
}

void proxy_set_route(struct proxy *proxy, struct proxy_route route)
{
    const struct command command = {.run = run_set_route, .route = route};
    post_to_all(proxy, &command);
}

static void run_set_rescue(struct worker *worker, const struct command *command)
{
    worker->rescue = command->rescue;
}

void proxy_set_rescue(struct proxy *proxy, bool rescue)
{
    const struct command command = {.run = run_set_rescue, .rescue = rescue};
    post_to_all(proxy, &command);
}

static void run_side_back(struct worker *worker, const struct command *command)
{
    side_health_forget(worker, command->route.side);
}

void proxy_side_back(struct proxy *proxy, enum side side)
{
    const struct command command = {.run = run_side_back, .route = {.side = side}};
    post_to_all(proxy, &command);
}

/* --- holds --- */

static void run_hold(struct worker *worker, const struct command *command)
{
    hold_begin(worker, command->id, command->time_us, command->expire);
}

void proxy_hold(struct proxy *proxy, uint64_t hold, int64_t deadline_us, enum proxy_expire expire)
{
    const struct command command = {.run = run_hold, .id = hold, .time_us = deadline_us, .expire = expire};
    collect_hold(&proxy->collect, hold);
    post_to_all(proxy, &command);
}

static void run_expire(struct worker *worker, const struct command *command)
{
    hold_set_expire(worker, command->id, command->time_us, command->expire);
}

void proxy_expire(struct proxy *proxy, uint64_t hold, int64_t deadline_us, enum proxy_expire expire)
{
    const struct command command = {.run = run_expire, .id = hold, .time_us = deadline_us, .expire = expire};
    collect_expect(&proxy->collect, PROXY_EVENT_EXPIRE_SET, hold);
    post_to_all(proxy, &command);
}

static void run_cancel(struct worker *worker, const struct command *command)
{
    hold_cancel_undrained(worker, command->id);
}

void proxy_cancel_undrained(struct proxy *proxy, uint64_t hold)
{
    const struct command command = {.run = run_cancel, .id = hold};
    post_to_all(proxy, &command);
}

static void run_terminate(struct worker *worker, const struct command *command)
{
    hold_terminate_undrained(worker, command->id);
}

void proxy_terminate_undrained(struct proxy *proxy, uint64_t hold)
{
    const struct command command = {.run = run_terminate, .id = hold};
    post_to_all(proxy, &command);
}

static void run_release(struct worker *worker, const struct command *command)
{
    hold_release(worker, command->id);
}

void proxy_release(struct proxy *proxy, uint64_t hold)
{
    const struct command command = {.run = run_release, .id = hold};
    collect_expect(&proxy->collect, PROXY_EVENT_RELEASED, hold);
    post_to_all(proxy, &command);
}

/* --- a move --- */

static void run_arm(struct worker *worker, const struct command *command)
{
    mover_arm(worker, command->id, command->route, command->time_us);
}

void proxy_arm(struct proxy *proxy, uint64_t flip, struct proxy_route target, int64_t timeout_us)
{
    const struct command command = {.run = run_arm, .id = flip, .route = target, .time_us = timeout_us};
    collect_forget(&proxy->collect, PROXY_EVENT_ARMED);
    collect_expect(&proxy->collect, PROXY_EVENT_ARMED, flip);
    post_to_all(proxy, &command);
}

static void run_swap(struct worker *worker, const struct command *command)
{
    mover_swap(worker, command->id, command->route);
}

void proxy_swap(struct proxy *proxy, uint64_t flip, struct proxy_route route)
{
    const struct command command = {.run = run_swap, .id = flip, .route = route};
    collect_expect(&proxy->collect, PROXY_EVENT_SWAPPED, flip);
    post_to_all(proxy, &command);
}

static void run_disarm(struct worker *worker, const struct command *command)
{
    mover_disarm(worker, command->id);
}

void proxy_disarm(struct proxy *proxy, uint64_t flip)
{
    const struct command command = {.run = run_disarm, .id = flip};
    collect_forget(&proxy->collect, PROXY_EVENT_ARMED);
    collect_expect(&proxy->collect, PROXY_EVENT_DISARMED, flip);
    post_to_all(proxy, &command);
}

struct types_letter {
    struct letter letter;
    char database[PROXY_NAME_SIZE];
    size_t count;
    struct proxy_type types[];
};

static void deliver_types(struct letter *letter, void *receiver)
{
    struct types_letter *types = CONTAINER_OF(letter, struct types_letter, letter);
    struct type_map *map = type_map_new(types->types, types->count);
    ENSURE(map != NULL);
    renumber_map(receiver, types->database, map);
    free(types);
}

void proxy_set_types(struct proxy *proxy, const char *database, const struct proxy_type *types, size_t count)
{
    for (unsigned i = 0; i < proxy->shared.worker_count; i++) {
        struct types_letter *letter = calloc(1, sizeof(*letter) + count * sizeof(*types));
        ENSURE(letter != NULL);
        letter->letter.deliver = deliver_types;
        (void)snprintf(letter->database, sizeof(letter->database), "%s", database);
        letter->count = count;
        if (count > 0) {
            memcpy(letter->types, types, count * sizeof(*types));
        }
        mailbox_post(&proxy->shared.workers[i].mailbox, &letter->letter);
    }
}

static void run_ping(struct worker *worker, const struct command *command)
{
    answer_post(worker, answer_new(worker, PROXY_EVENT_ALIVE, command->id, 0, 0));
}

void proxy_ping(struct proxy *proxy, uint64_t ping)
{
    const struct command command = {.run = run_ping, .id = ping};
    collect_expect(&proxy->collect, PROXY_EVENT_ALIVE, ping);
    post_to_all(proxy, &command);
}

/* --- snapshots --- */

static void run_sessions(struct worker *worker, const struct command *command)
{
    session_list_begin(worker, command->id, command->ask);
}

void proxy_sessions(struct proxy *proxy, uint64_t request, bool ask)
{
    const struct command command = {.run = run_sessions, .id = request, .ask = ask};
    collect_expect(&proxy->collect, PROXY_EVENT_SESSIONS, request);
    post_to_all(proxy, &command);
}

void proxy_stats(const struct proxy *proxy, struct proxy_stats *stats)
{
    *stats = (struct proxy_stats){.sessions = 0};
    int64_t now_us = clock_mono_us();
    for (unsigned i = 0; i < proxy->shared.worker_count; i++) {
        statistics_sum(&proxy->shared.workers[i].statistics, stats, now_us);
    }
}
