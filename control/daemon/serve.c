#include "control/daemon/serve.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "conf/base/version.h"
#include "conf/settings/settings.h"
#include "control/daemon/controller.h"
#include "control/daemon/events_history.h"
#include "control/daemon/http.h"
#include "control/daemon/limits.h"
#include "control/daemon/methods.h"
#include "control/daemon/service.h"
#include "control/daemon/store.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum {
    EXIT_NOT_STARTED = 1,
    EXIT_BAD_CONFIGURATION = 2,
    PUBLISH_MS = 500,  /* how old a scrape's figures can be */
    WATCHDOG_PART = 3, /* of its time, so that one late answer doesn't end the daemon */
    US_A_MS = 1000,
    SIGNALS = 3
};

/* Beside timeouts.shutdown: last words, the clusters' connections, the journal. */
static const int64_t stop_margin_us = 15000000;

/* Settings that a reload replaced. Others may still read them, so they are kept until the end. */
struct retired {
    struct settings *settings;
    struct retired *next;
};

struct daemon {
    uv_loop_t loop;
    const char *config_path;
    int64_t started_us;
    struct settings *settings;
    struct retired *retired;

    struct store *store;
    struct journal *journal;
    struct audit *audit;
    struct events *events;
    struct controller *controller;
    struct rpc *rpc;
    struct methods methods;
    struct http *http;

    struct service service;
    struct proxy_sockets sockets; /* passed by systemd */

    uv_signal_t signals[SIGNALS];
    uv_timer_t publish, watchdog;
    bool watching; /* signals and timer are initialized */
    bool stopping;
    bool hurried; /* a second signal came: running work is not waited for */
};

/* --- reload --- */

static void log_list(const char *event, const struct settings_list *keys)
{
    for (size_t i = 0; i < keys->count; i++) {
        LOG_INFO(event, LOG_STR("key", keys->items[i]));
    }
}

/* Nothing here can fail: what could has been tried before. Takes over new and roles. */
static void apply_settings(struct daemon *daemon, struct settings *new, struct roles *roles,
                           struct retired *retired)
{
    retired->settings = daemon->settings;
    retired->next = daemon->retired;
    daemon->retired = retired;
    daemon->settings = new;
    log_configure((enum log_level) new->log_level, (enum log_format) new->log_format);
    limits_raise_descriptors(new->max_clients);
    rpc_set_roles(daemon->rpc, roles);
    controller_reload(daemon->controller, new);
}

static bool reload_settings(struct daemon *daemon, struct reload_result *result, struct error *error)
{
    struct settings *new = settings_load(daemon->config_path, error);
    struct roles *roles = new == NULL ? NULL : roles_new(new, error);
    struct retired *retired = calloc(1, sizeof(*retired));
    if (roles == NULL || retired == NULL || !proxy_check(new, error) ||
        !settings_compare(daemon->settings, new, &result->changed, &result->restart, error)) {
        if (roles != NULL && retired == NULL) {
            error_set(error, ERROR_MEMORY, "out of memory");
        }
        settings_free(new);
        roles_free(roles);
        free(retired);
        return false;
    }
    result->applied = result->restart.count == 0;
    if (result->applied) {
        apply_settings(daemon, new, roles, retired);
    } else {
        settings_free(new);
        roles_free(roles);
        free(retired);
    }
    return true;
}

static bool reload(void *context, struct reload_result *result, struct error *error)
{
    struct daemon *daemon = context;
    if (daemon->stopping) {
        return error_set(error, ERROR_ABORTED, "the daemon is stopping");
    }
    service_reloading(&daemon->service);
    bool read = reload_settings(daemon, result, error);
    service_ready(&daemon->service);
    if (!read) {
        settings_list_deinit(&result->changed);
        settings_list_deinit(&result->restart);
        events_publish(daemon->events, LOG_LEVEL_ERROR, "reload", 0, NULL,
                       "the configuration was not applied: %s", error->message);
        return false;
    }
    if (result->applied) {
        log_list("reload_changed", &result->changed);
        events_publish(daemon->events, LOG_LEVEL_INFO, "reload", 0, NULL,
                       "the configuration was read again, %zu %s changed", result->changed.count,
                       result->changed.count == 1 ? "key" : "keys");
    } else {
        log_list("reload_needs_restart", &result->restart);
        events_publish(daemon->events, LOG_LEVEL_WARN, "reload", 0, NULL,
                       "nothing of the configuration was applied: %s needs a restart%s",
                       result->restart.items[0], result->restart.count > 1 ? ", and so do others" : "");
    }
    return true;
}

static void reload_by_signal(struct daemon *daemon)
{
    struct reload_result result = {0};
    struct error error;
    error_clear(&error);
    audit_decision(daemon->audit, "reload", json_pack("{s:s}", "by", "SIGHUP"));
    if (reload(daemon, &result, &error)) {
        settings_list_deinit(&result.changed);
        settings_list_deinit(&result.restart);
    }
}

/* --- stop: each step goes on to the next when it is done; what was never started is passed over --- */

static void store_closed(void *context)
{
    ((struct daemon *)context)->store = NULL;
}

static void stop_rest(void *context)
{
    struct daemon *daemon = context;
    daemon->rpc = NULL;
    http_stop(daemon->http);
    if (daemon->watching) {
        uv_close((uv_handle_t *)&daemon->publish, NULL);
        uv_close((uv_handle_t *)&daemon->watchdog, NULL);
        for (size_t i = 0; i < SIGNALS; i++) {
            uv_close((uv_handle_t *)&daemon->signals[i], NULL);
        }
    }
    journal_free(daemon->journal);
    audit_free(daemon->audit);
    events_free(daemon->events);
    if (daemon->store != NULL) {
        store_close(daemon->store, store_closed, daemon);
    }
}

static void stop_rpc(void *context)
{
    struct daemon *daemon = context;
    daemon->controller = NULL;
    if (daemon->rpc != NULL) {
        rpc_stop(daemon->rpc, stop_rest, daemon);
    } else {
        stop_rest(daemon);
    }
}

static void stop(struct daemon *daemon)
{
    daemon->stopping = true;
    if (daemon->controller != NULL) {
        controller_stop(daemon->controller, stop_rpc, daemon);
    } else {
        stop_rpc(daemon);
    }
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    if (number == SIGHUP) {
        if (!daemon->stopping) {
            reload_by_signal(daemon);
        }
        return;
    }
    if (daemon->stopping && daemon->hurried) {
        LOG_WARN("stopped_at_once", LOG_STR("signal", strsignal(number)));
        _exit(EXIT_FAILURE); /* asked three times; the journal is made for this */
    }
    if (daemon->stopping) {
        LOG_WARN("stop_hurried", LOG_STR("signal", strsignal(number)));
        daemon->hurried = true;
        if (daemon->controller != NULL) {
            controller_hurry(daemon->controller);
        }
        return;
    }
    events_publish(daemon->events, LOG_LEVEL_INFO, "stop", 0, NULL, "stopping: %s", strsignal(number));
    audit_decision(daemon->audit, "stop", json_pack("{s:s}", "signal", strsignal(number)));
    service_stopping(&daemon->service, daemon->settings->timeouts.shutdown_us + stop_margin_us);
    stop(daemon);
}

/* --- start --- */

static void called(void *context, const struct rpc_peer *peer, const char *method, const json_t *params,
                   bool allowed)
{
    methods_audit_call(&((struct daemon *)context)->methods, peer, method, params, allowed);
}

static void tell_status(struct daemon *daemon, const struct metrics *metrics)
{
    char status[SERVICE_STATUS_SIZE];
    (void)snprintf(status, sizeof(status), "%s%s, %s, %" PRIu64 " clients%s%s",
                   metrics->has_active ? side_name(metrics->active) : "no side",
                   metrics->has_active ? " active" : " is active", metrics->phase, metrics->proxy.sessions,
                   metrics->unready_reason[0] != '\0' ? "; " : "", metrics->unready_reason);
    service_status(&daemon->service, status);
}

static void on_publish(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    if (daemon->controller == NULL || (daemon->http == NULL && daemon->service.socket < 0)) {
        return;
    }
    struct metrics metrics = {0};
    controller_metrics(daemon->controller, &metrics);
    if (daemon->http != NULL) {
        http_publish(daemon->http, &metrics);
    }
    if (!daemon->stopping) {
        tell_status(daemon, &metrics);
    }
}

/* A worker that is stuck is as bad as a main loop that is: then nothing is told, and systemd acts. */
static void on_watchdog(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    if (daemon->controller == NULL || controller_answers(daemon->controller)) {
        service_alive(&daemon->service);
    }
    if (daemon->controller != NULL) {
        controller_ping(daemon->controller);
    }
}

static void watch(struct daemon *daemon)
{
    static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < SIGNALS; i++) {
        ENSURE(uv_signal_init(&daemon->loop, &daemon->signals[i]) == 0);
        daemon->signals[i].data = daemon;
        ENSURE(uv_signal_start(&daemon->signals[i], on_signal, numbers[i]) == 0);
    }
    ENSURE(uv_timer_init(&daemon->loop, &daemon->publish) == 0);
    daemon->publish.data = daemon;
    ENSURE(uv_timer_start(&daemon->publish, on_publish, 0, PUBLISH_MS) == 0);
    ENSURE(uv_timer_init(&daemon->loop, &daemon->watchdog) == 0);
    daemon->watchdog.data = daemon;
    if (daemon->service.watchdog_us > 0) {
        uint64_t interval_ms = (uint64_t)daemon->service.watchdog_us / US_A_MS / WATCHDOG_PART + 1;
        ENSURE(uv_timer_start(&daemon->watchdog, on_watchdog, 0, interval_ms) == 0);
    }
    daemon->watching = true;
}

static bool start_rpc(struct daemon *daemon, struct error *error)
{
    struct roles *roles = roles_new(daemon->settings, error);
    if (roles == NULL) {
        return false;
    }
    const struct rpc_config config = {
        .socket_path = daemon->settings->control_socket, .roles = roles, .called = called, .context = daemon};
    daemon->rpc = rpc_start(&daemon->loop, &config, error);
    if (daemon->rpc == NULL) {
        roles_free(roles);
        return false;
    }
    daemon->methods = (struct methods){.events = daemon->events,
                                       .audit = daemon->audit,
                                       .journal = daemon->journal,
                                       .started_us = daemon->started_us,
                                       .reload = reload,
                                       .context = daemon};
    methods_register(daemon->rpc, &daemon->methods);
    return true;
}

static bool start_http(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = daemon->settings;
    if (settings->http_host[0] == '\0') {
        return true;
    }
    daemon->http = http_start(settings->http_host, (uint16_t)settings->http_port, error);
    return daemon->http != NULL;
}

static bool start_controller(struct daemon *daemon, struct error *error)
{
    const struct controller_config config = {.loop = &daemon->loop,
                                             .settings = daemon->settings,
                                             .journal = daemon->journal,
                                             .audit = daemon->audit,
                                             .events = daemon->events,
                                             .started_us = daemon->started_us,
                                             .sockets = &daemon->sockets};
    daemon->controller = controller_start(&config, error);
    if (daemon->controller != NULL) {
        controller_register(daemon->controller, daemon->rpc);
    }
    return daemon->controller != NULL;
}

/* In this order: the lock keeps a second daemon from touching anything; the controller, which acts, is last.
 */
static bool start(struct daemon *daemon, struct error *error)
{
    daemon->store = store_open(&daemon->loop, daemon->settings->state_dir, error);
    if (daemon->store == NULL) {
        return false;
    }
    daemon->journal = journal_new(daemon->store, error);
    daemon->audit = daemon->journal == NULL ? NULL : audit_new(daemon->store, error);
    daemon->events = daemon->audit == NULL ? NULL : events_new(error);
    if (daemon->events == NULL || !events_restore(daemon->events, daemon->journal, error) ||
        !start_rpc(daemon, error) || !start_http(daemon, error) || !start_controller(daemon, error)) {
        return false;
    }
    audit_decision(daemon->audit, "start",
                   json_pack("{s:s, s:i}", "version", version_number(), "pid", (int)getpid()));
    events_publish(daemon->events, LOG_LEVEL_INFO, "start", 0, NULL, "switchback %s started",
                   version_number());
    watch(daemon);
    service_ready(&daemon->service);
    return true;
}

/* --- the daemon --- */

static void complain(const struct error *error)
{
    (void)fprintf(stderr, "switchback: %s\n", error->message);
    if (error->remedy[0] != '\0') {
        (void)fprintf(stderr, "  %s\n", error->remedy);
    }
}

static int exit_status(const struct error *error)
{
    return error->code == ERROR_CONFIG ? EXIT_BAD_CONFIGURATION : EXIT_NOT_STARTED;
}

static void free_settings(struct daemon *daemon)
{
    while (daemon->retired != NULL) {
        struct retired *retired = daemon->retired;
        daemon->retired = retired->next;
        settings_free(retired->settings);
        free(retired);
    }
    settings_free(daemon->settings);
}

static int run(struct daemon *daemon)
{
    int status = EXIT_SUCCESS;
    struct error error;
    error_clear(&error);
    ENSURE(uv_loop_init(&daemon->loop) == 0);
    if (!service_open(&daemon->service, &daemon->sockets, &error) || !start(daemon, &error)) {
        complain(&error);
        status = exit_status(&error);
        stop(daemon);
    }
    uv_run(&daemon->loop, UV_RUN_DEFAULT);
    ENSURE(uv_loop_close(&daemon->loop) == 0);
    return status;
}

bool serve_check(const struct settings *settings, struct error *error)
{
    return proxy_check(settings, error);
}

int serve_run(const char *config_path)
{
    struct error error;
    error_clear(&error);
    struct daemon daemon = {.config_path = config_path, .started_us = clock_wall_us()};
    daemon.settings = settings_load(config_path, &error);
    if (daemon.settings == NULL) {
        complain(&error);
        return exit_status(&error);
    }
    log_configure((enum log_level)daemon.settings->log_level, (enum log_format)daemon.settings->log_format);
    (void)signal(SIGPIPE, SIG_IGN); /* a peer that went away is an error of its write */
    limits_raise_descriptors(daemon.settings->max_clients);
    LOG_INFO("starting", LOG_STR("version", version_number()), LOG_STR("build", version_build()),
             LOG_STR("configuration", daemon.settings->path));
    int status = run(&daemon);
    free_settings(&daemon);
    service_close(&daemon.service);
    LOG_INFO("stopped", LOG_I64("status", status));
    return status;
}
