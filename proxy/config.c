#include "proxy/config.h"

#include "conf/base/ensure.h"
#include "conf/hba/userlist.h"
#include "proxy/tls.h"

#include <stdlib.h>
#include <string.h>

static bool copy_strings(struct proxy_config *config, const struct settings *settings)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        config->sides[side].host = strdup(settings->sides[side].host);
        config->sides[side].port = (uint16_t)settings->sides[side].port;
        if (config->sides[side].host == NULL) {
            return false;
        }
    }
    config->databases = calloc(settings->databases.count + 1, sizeof(char *));
    if (config->databases == NULL) {
        return false;
    }
    for (size_t i = 0; i < settings->databases.count; i++) {
        config->databases[i] = strdup(settings->databases.items[i]);
        if (config->databases[i] == NULL) {
            return false;
        }
        config->database_count = i + 1;
    }
    return true;
}

static bool copy_counts(struct settings_counts *copy, const struct settings_counts *counts)
{
    for (size_t i = 0; i < counts->count; i++) {
        if (!settings_counts_add(copy, counts->items[i].name, counts->items[i].number)) {
            return false;
        }
    }
    return true;
}

static bool copy_balancers(struct proxy_config *config, const struct settings_list *items)
{
    config->balancers = calloc(items->count + 1, sizeof(*config->balancers));
    if (config->balancers == NULL) {
        return false;
    }
    for (size_t i = 0; i < items->count; i++) {
        if (strcmp(items->items[i], "unix") == 0) {
            config->unix_balancers = true;
        } else if (network_parse(items->items[i], &config->balancers[config->balancer_count])) {
            config->balancer_count++; /* the settings' rules have refused anything else */
        }
    }
    return true;
}

static void config_free(struct proxy_config *config)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        free(config->sides[side].host);
        free(config->sides[side].tls_name);
        SSL_CTX_free(config->sides[side].tls);
    }
    for (size_t i = 0; i < config->database_count; i++) {
        free(config->databases[i]);
    }
    free(config->databases);
    settings_counts_deinit(&config->limits.databases);
    settings_counts_deinit(&config->limits.roles);
    free(config->balancers);
    hba_unref(config->hba);
    userlist_unref(config->userlist);
    SSL_CTX_free(config->listen_tls);
    free(config);
}

static bool make_tls(struct proxy_config *config, const struct settings *settings, struct error *error)
{
    static const char *const names[SIDE_COUNT] = {
        [SIDE_BLUE] = "sides.blue.tls", [SIDE_GREEN] = "sides.green.tls"};
    for (int side = 0; side < SIDE_COUNT; side++) {
        const struct settings_side *from = &settings->sides[side];
        if (!tls_server_context(&from->tls, names[side], &config->sides[side].tls, error)) {
            return false;
        }
        if (from->host[0] == '/') {
            SSL_CTX_free(config->sides[side].tls); /* servers don't speak it there */
            config->sides[side].tls = NULL;
        }
        config->sides[side].tls_mode = from->tls.mode;
        if (config->sides[side].tls != NULL) {
            bool named = from->tls_server_name[0] != '\0';
            config->sides[side].tls_name = strdup(named ? from->tls_server_name : from->host);
            if (config->sides[side].tls_name == NULL) {
                return error_set(error, ERROR_MEMORY, "out of memory for the proxy");
            }
        }
    }
    config->listen_tls_mode = settings->listen_tls.mode;
    return tls_listen_context(&settings->listen_tls, &config->listen_tls, error);
}

static bool take_auth(struct proxy_config *config, const struct settings *settings, struct error *error)
{
    static const enum hba_method methods[] = {[AUTH_TRUST] = HBA_TRUST,
                                              [AUTH_SCRAM_SHA_256] = HBA_SCRAM_SHA_256,
                                              [AUTH_MD5] = HBA_MD5,
                                              [AUTH_CERT] = HBA_CERT};
    const struct settings_auth *auth = &settings->auth;
    config->failed_logins = (struct failed_logins_policy){.max = auth->failed_logins_max,
                                                          .window_us = auth->failed_logins_window_us,
                                                          .local = auth->failed_logins_local};
    config->userlist = userlist_ref(auth->userlist);
    config->hba = hba_ref(auth->hba);
    if (config->hba == NULL) { /* settings that no file was loaded into */
        struct hba_problems problems;
        ENSURE(settings->auth_method != AUTH_HBA);
        hba_problems_init(&problems);
        config->hba = hba_load_method(methods[settings->auth_method], auth->cert_name, "", "", &problems);
        hba_problems_deinit(&problems);
    }
    config->hba_groups = config->hba != NULL && hba_needs_groups(config->hba);
    return config->hba != NULL || error_set(error, ERROR_CONFIG, "auth.method has no rules");
}

struct proxy_config *config_new(const struct settings *settings, struct error *error)
{
    struct proxy_config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        (void)error_set(error, ERROR_MEMORY, "out of memory for the proxy");
        return NULL;
    }
    atomic_init(&config->references, 1);
    config->max_clients = (uint64_t)settings->max_clients;
    config->timeouts = settings->timeouts;
    config->tcp_clients = settings->tcp_clients;
    config->tcp_servers = settings->tcp_servers;
    config->limits.per_database = settings->limits.per_database;
    config->limits.per_role = settings->limits.per_role;
    config->max_hold_us = settings->max_hold_us;
    config->unmanaged = settings->unmanaged;
    config->client_eof = settings->client_eof;
    if (!copy_strings(config, settings) ||
        !copy_counts(&config->limits.databases, &settings->limits.databases) ||
        !copy_counts(&config->limits.roles, &settings->limits.roles) ||
        !copy_balancers(config, &settings->proxy_protocol)) {
        (void)error_set(error, ERROR_MEMORY, "out of memory for the proxy");
        config_free(config);
        return NULL;
    }
    if (!take_auth(config, settings, error) || !make_tls(config, settings, error)) {
        config_free(config);
        return NULL;
    }
    return config;
}

struct proxy_config *config_ref(struct proxy_config *config)
{
    atomic_fetch_add_explicit(&config->references, 1, memory_order_relaxed);
    return config;
}

void config_unref(struct proxy_config *config)
{
    if (config != NULL && atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) == 1) {
        config_free(config);
    }
}

bool config_is_managed(const struct proxy_config *config, const char *database)
{
    for (size_t i = 0; i < config->database_count; i++) {
        if (strcmp(config->databases[i], database) == 0) {
            return true;
        }
    }
    return false;
}
