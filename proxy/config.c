#include "proxy/config.h"

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

static void config_free(struct proxy_config *config)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        free(config->sides[side].host);
    }
    for (size_t i = 0; i < config->database_count; i++) {
        free(config->databases[i]);
    }
    free(config->databases);
    free(config);
}

struct proxy_config *config_new(const struct settings *settings)
{
    struct proxy_config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return NULL;
    }
    atomic_init(&config->references, 1);
    config->max_clients = (uint64_t)settings->max_clients;
    config->login_timeout_us = settings->login_timeout_us;
    config->max_hold_us = settings->max_hold_us;
    config->unmanaged = settings->unmanaged;
    config->auth_method = settings->auth_method;
    if (!copy_strings(config, settings)) {
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
