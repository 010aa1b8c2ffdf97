/*
 * What a task takes with it from the settings: its own deep copy, because a reload may replace the settings
 * while the task runs on its thread for hours. Made on the loop's thread, read on the task's.
 */
#ifndef SWITCHBACK_REPLICATION_BRIEF_H
#define SWITCHBACK_REPLICATION_BRIEF_H

#include "conf/settings/settings.h"

struct brief_side {
    char *host;
    int64_t port;
    struct settings_tls tls, replication_tls;
    char *tls_server_name;
    struct settings_endpoint replication; /* complete: unset parts are filled from the side and the manager */
};

struct brief {
    struct brief_side sides[SIDE_COUNT];
    struct settings_endpoint manager;
    struct settings_list databases, migrators, local_tables;
    bool lossless;
    bool md5_allowed; /* clients may log in by md5 */
    int64_t jobs;
    char *pg_bin_dir;
};

/* The caller owns it. A few kilobytes: to be without them ends the process. */
MUST_USE struct brief *brief_new(const struct settings *settings);
void brief_free(struct brief *brief); /* wipes the passwords */

#endif
