/*
 * How many clients each database and each role has, against the limits of the configuration. One table for
 * the process, since clients come and go on every worker; a login and an end take its lock once each, the
 * data path never. A client counts from when it has proved who it is, so that nobody uses up another role's
 * places without its password.
 */
#ifndef SWITCHBACK_PROXY_CLIENT_LIMITS_H
#define SWITCHBACK_PROXY_CLIENT_LIMITS_H

#include "conf/settings/settings.h"

#include <uv.h>

struct client_count;

struct client_limits {
    uv_mutex_t mutex;
    struct client_count *counts; /* uthash, by kind and name */
};

/* Where a client is counted; all zero: nowhere. */
struct client_place {
    struct client_count *database, *role;
};

enum client_verdict { CLIENT_ADMITTED, CLIENT_DATABASE_FULL, CLIENT_ROLE_FULL, CLIENT_NO_MEMORY };

void client_limits_init(struct client_limits *limits);
void client_limits_deinit(struct client_limits *limits);

/* Counts the client, unless it is one too many, and fills its place. */
MUST_USE enum client_verdict client_limits_enter(struct client_limits *limits,
                                                 const struct settings_limits *settings, const char *database,
                                                 const char *role, struct client_place *place);
/* It is gone; a place that was never filled is allowed. */
void client_limits_leave(struct client_limits *limits, struct client_place *place);

#endif
