#include "conf/settings/rules.h"

#include "conf/base/log.h"
#include "conf/base/network.h"
#include "conf/settings/rules_tls.h"
#include "conf/settings/unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { NAME_SIZE = 64, PASSWORD_LIMIT = 1023, DATABASE_NAME_LIMIT = 63 };

/* Between drain and catchup a flip needs time of its own: fence, ready, commit, open. */
static const int64_t hold_margin_us = 2000000;

static bool replace(const struct walk *walk, char **field, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) {
        return error_set(walk->error, ERROR_MEMORY, "%s: out of memory", walk->file);
    }
    free(*field);
    *field = copy;
    return true;
}

/* --- secrets */

static bool read_secret_file(const struct walk *walk, int line, const char *name, const char *path,
                             char secret[PASSWORD_LIMIT + 2])
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return walk_complain(walk, line, name, "%s can't be opened: %s", path, strerror(errno));
    }
    errno = 0;
    bool some = fgets(secret, PASSWORD_LIMIT + 2, file) != NULL;
    bool failed = ferror(file) != 0;
    int reason = errno;
    struct stat status;
    bool open_to_all = fstat(fileno(file), &status) == 0 && (status.st_mode & S_IROTH) != 0;
    (void)fclose(file);
    if (failed) {
        return walk_complain(walk, line, name, "%s can't be read: %s", path, strerror(reason));
    }
    if (open_to_all) {
        LOG_WARN("secret_readable_by_all", LOG_STR("path", path), LOG_STR("remedy", "chmod 600"));
    }
    size_t length = some ? strcspn(secret, "\r\n") : 0;
    if (length > PASSWORD_LIMIT) {
        return walk_complain(walk, line, name, "expected at most %d bytes in the first line of %s",
                             PASSWORD_LIMIT, path);
    }
    secret[length] = '\0';
    if (length == 0) {
        return walk_complain(walk, line, name, "expected a password in the first line of %s", path);
    }
    return true;
}

static bool load_secret(const struct walk *walk, const char *section, struct settings_endpoint *endpoint)
{
    char file_name[NAME_SIZE], env_name[NAME_SIZE];
    (void)snprintf(file_name, sizeof file_name, "%s.password_file", section);
    (void)snprintf(env_name, sizeof env_name, "%s.password_env", section);
    bool by_file = endpoint->password_file[0] != '\0', by_env = endpoint->password_env[0] != '\0';
    if (by_file && by_env) {
        return walk_complain(walk, walk_line(walk, env_name), env_name,
                             "expected either password_file or password_env, found both");
    }
    if (by_file) {
        char secret[PASSWORD_LIMIT + 2] = "";
        bool ok =
            read_secret_file(walk, walk_line(walk, file_name), file_name, endpoint->password_file, secret) &&
            replace(walk, &endpoint->password, secret);
        explicit_bzero(secret, sizeof secret);
        return ok;
    }
    if (by_env) {
        const char *secret = getenv(endpoint->password_env);
        if (secret == NULL || secret[0] == '\0' || strlen(secret) > PASSWORD_LIMIT) {
            return walk_complain(walk, walk_line(walk, env_name), env_name, "the environment variable %s %s",
                                 endpoint->password_env,
                                 secret == NULL      ? "is not set"
                                 : secret[0] == '\0' ? "is empty"
                                                     : "is too long");
        }
        return replace(walk, &endpoint->password, secret);
    }
    return true;
}

/* --- defaults from other settings */

static bool derive_replication(const struct walk *walk, struct settings *settings)
{
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct settings_side *side = &settings->sides[i];
        struct settings_endpoint *endpoint = &side->replication;
        if (endpoint->port == 0) {
            endpoint->port = side->port;
        }
        if (endpoint->host[0] == '\0' && !replace(walk, &endpoint->host, side->host)) {
            return false;
        }
        if (endpoint->user[0] == '\0' && !replace(walk, &endpoint->user, settings->manager.user)) {
            return false;
        }
        if (endpoint->password[0] == '\0' && strcmp(endpoint->user, settings->manager.user) == 0 &&
            !replace(walk, &endpoint->password, settings->manager.password)) {
            return false;
        }
    }
    return true;
}

/* --- what must fit together */

/* Names of this machine that mean the same; others are compared as they are written. */
static bool is_loopback(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static bool is_any(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 || strcmp(host, "*") == 0;
}

static bool same_host(const char *a, const char *b)
{
    size_t length = strlen(a), other = strlen(b);
    while (a[0] == '/' && length > 1 && a[length - 1] == '/') {
        length--;
    }
    while (b[0] == '/' && other > 1 && b[other - 1] == '/') {
        other--;
    }
    if (length == other && strncasecmp(a, b, length) == 0) {
        return true;
    }
    bool fixed_a = strncmp(a, "127.", 4) == 0, fixed_b = strncmp(b, "127.", 4) == 0;
    return is_loopback(a) && is_loopback(b) && !(fixed_a && fixed_b); /* 127.0.0.1 and 127.0.0.2 differ */
}

static bool check_addresses(const struct walk *walk, const struct settings *settings)
{
    const struct settings_side *blue = &settings->sides[SIDE_BLUE], *green = &settings->sides[SIDE_GREEN];
    if (blue->port == green->port && same_host(blue->host, green->host)) {
        return walk_complain(walk, walk_line(walk, "sides.green.host"), "sides.green",
                             "expected another cluster than sides.blue, found the same address %s:%" PRId64,
                             green->host, green->port);
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        const struct settings_side *side = &settings->sides[i];
        bool tcp = settings->listen_port != 0 && side->port == settings->listen_port &&
                   side->host[0] != '/' &&
                   (same_host(side->host, settings->listen_host) ||
                    (is_any(settings->listen_host) && is_loopback(side->host)));
        bool local = settings->listen_unix_dir[0] != '\0' && side->port == settings->listen_port &&
                     same_host(side->host, settings->listen_unix_dir);
        if (tcp || local) {
            return walk_complain(walk, walk_line(walk, local ? "listen.unix_dir" : "listen.port"), "listen",
                                 "expected another address than sides.%s, found the same: clients would be "
                                 "sent in a circle",
                                 side_name((enum side)i));
        }
    }
    if (settings->listen_port == 0 && settings->listen_unix_dir[0] == '\0') {
        return walk_complain(walk, walk_line(walk, "listen.port"), "listen",
                             "expected a port or a unix_dir: clients could not connect");
    }
    bool overlap = same_host(settings->http_host, settings->listen_host) || is_any(settings->http_host) ||
                   is_any(settings->listen_host);
    if (settings->http_port != 0 && settings->http_port == settings->listen_port && overlap) {
        return walk_complain(walk, walk_line(walk, "http.listen"), "http.listen",
                             "expected another port than listen.port, found %" PRId64 " for both",
                             settings->http_port);
    }
    return true;
}

/* "unix": whoever connects to the Unix socket. */
static bool check_proxy_protocol(const struct walk *walk, const struct settings *settings)
{
    for (size_t i = 0; i < settings->proxy_protocol.count; i++) {
        const char *item = settings->proxy_protocol.items[i];
        struct network network;
        if (strcmp(item, "unix") != 0 && !network_parse(item, &network)) {
            return walk_complain(walk, walk_line(walk, "listen.proxy_protocol"), "listen.proxy_protocol",
                                 "expected networks such as 10.0.0.0/8 or ::1, or unix, found \"%.60s\"",
                                 item);
        }
    }
    return true;
}

static bool check_flip(const struct walk *walk, const struct settings *settings)
{
    int64_t least = settings->drain_timeout_us + settings->catchup_timeout_us + hold_margin_us;
    if (settings->max_hold_us < least) {
        int line = walk_line(walk, "flip.max_hold");
        line = line == 0 ? walk_line(walk, "flip.drain.timeout") : line;
        line = line == 0 ? walk_line(walk, "flip.catchup.timeout") : line;
        char need[UNIT_TEXT_SIZE], found[UNIT_TEXT_SIZE];
        return walk_complain(walk, line, "flip.max_hold",
                             "expected at least drain.timeout + catchup.timeout + 2s = %s, found %s",
                             unit_format_duration(least, need),
                             unit_format_duration(settings->max_hold_us, found));
    }
    return true;
}

static bool check_databases(const struct walk *walk, const struct settings *settings)
{
    const struct settings_list *databases = &settings->databases;
    int line = walk_line(walk, "databases");
    for (size_t i = 0; i < databases->count; i++) {
        size_t length = strlen(databases->items[i]);
        if (length == 0 || length > DATABASE_NAME_LIMIT) {
            return walk_complain(walk, line, "databases", "expected names of 1 to %d bytes, found \"%.70s\"",
                                 DATABASE_NAME_LIMIT, databases->items[i]);
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(databases->items[i], databases->items[j]) == 0) {
                return walk_complain(walk, line, "databases", "\"%s\" stands twice", databases->items[i]);
            }
        }
    }
    for (size_t i = 0; i < settings->gate_count; i++) {
        const struct settings_gate *gate = &settings->gates[i];
        if (gate->database[0] != '\0' && !settings_is_managed(settings, gate->database)) {
            return walk_complain(walk, walk_line(walk, "gates"), "gates",
                                 "%s: database: expected a managed database, found \"%s\"", gate->name,
                                 gate->database);
        }
    }
    return true;
}

/* A command is given as a program and its arguments; no shell is between. */
static bool check_commands(const struct walk *walk, const struct settings *settings)
{
    const struct {
        const char *name;
        const struct settings_list *command;
    } commands[] = {
        {"backup.command", &settings->backup_command},
        {"backup.verify_command", &settings->backup_verify_command},
        {"hooks.before_cutover", &settings->hook_before_cutover},
        {"hooks.after_cutover", &settings->hook_after_cutover},
        {"hooks.on_flip_back", &settings->hook_on_flip_back},
        {"hooks.notify", &settings->hook_notify},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        if (commands[i].command->count > 0 && commands[i].command->items[0][0] == '\0') {
            return walk_complain(walk, walk_line(walk, commands[i].name), commands[i].name,
                                 "expected a program and its arguments, found an empty program");
        }
    }
    if (settings->backup_verify_command.count > 0 && settings->backup_command.count == 0) {
        return walk_complain(walk, walk_line(walk, "backup.verify_command"), "backup.verify_command",
                             "expected backup.command as well: there is nothing to verify");
    }
    return true;
}

bool rules_apply(const struct walk *walk, struct settings *settings)
{
    return load_secret(walk, "manager", &settings->manager) &&
           load_secret(walk, "sides.blue.replication", &settings->sides[SIDE_BLUE].replication) &&
           load_secret(walk, "sides.green.replication", &settings->sides[SIDE_GREEN].replication) &&
           derive_replication(walk, settings) && rules_tls(walk, settings) &&
           check_addresses(walk, settings) && check_proxy_protocol(walk, settings) &&
           check_flip(walk, settings) && check_databases(walk, settings) && check_commands(walk, settings) &&
           rules_auth_apply(walk, settings);
}
