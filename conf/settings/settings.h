/*
 * The configuration: one immutable value, read from one YAML file by a walk over one table of settings
 * (table.h: name, type, unit, default, bounds, reloadable, secret). Everybody reads this struct; only
 * control/daemon loads it. A reload makes a second value, compares both, and applies all of it or none.
 *
 * Strings are owned by the settings, never NULL ("" is unset); lists end at their count. Durations are in
 * microseconds, as the monotonic clock is.
 */
#ifndef SWITCHBACK_CONF_SETTINGS_SETTINGS_H
#define SWITCHBACK_CONF_SETTINGS_SETTINGS_H

#include "conf/base/error.h"
#include "conf/base/side.h"
#include "conf/hba/hba.h"

#include <stddef.h>
#include <stdint.h>

struct userlist;

struct settings_list {
    char **items;
    size_t count;
};

struct settings_count {
    char *name;
    int64_t number;
};

struct settings_counts {
    struct settings_count *items;
    size_t count;
};

/* How long things may last; 0: for ever, but for the first two. */
struct settings_timeouts {
    int64_t login_us;          /* from accept to the end of authentication */
    int64_t server_connect_us; /* of one login to a server */
    int64_t client_idle_us, idle_in_transaction_us, query_us;
    int64_t hold_notice_us; /* a client that waits longer is told so */
    int64_t in_doubt_us;    /* a client waits for what became of its COMMIT; 0: not at all */
    int64_t shutdown_us;    /* what runs at SIGTERM may go on for so long; 0: not at all */
};

/* Clients at once; 0: no limit. */
struct settings_limits {
    int64_t per_database, per_role;
    struct settings_counts databases, roles; /* which have a limit of their own */
};

/* How a dead peer is noticed; see tcp(7). */
struct settings_tcp {
    int64_t keepalives_idle_us, keepalives_interval_us, keepalives_count;
    int64_t user_timeout_us;
    int64_t lost_after_us; /* of servers */
};

/* With clients: up to require. To a server as libpq's sslmode. */
enum tls_mode {
    TLS_MODE_DISABLE,
    TLS_MODE_PREFER,
    TLS_MODE_REQUIRE,
    TLS_MODE_VERIFY_CA,
    TLS_MODE_VERIFY_FULL
};
enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };

/* Paths of PEM files; "": not given. */
struct settings_listen_tls {
    enum tls_mode mode;
    enum tls_version min_version;
    char *cert, *key;
    char *ca, *crl; /* of the certificates of clients */
    char *ciphers;  /* of TLS 1.2; "": OpenSSL's */
};

struct settings_tls {
    enum tls_mode mode;
    char *ca, *crl;
    char *cert, *key; /* shown to the server */
};

/* How one party reaches a cluster. An address that starts with '/' is a Unix socket directory. */
struct settings_endpoint {
    char *host;
    int64_t port;
    char *user;
    char *password; /* secret, "" is none; from password_file or password_env */
    char *password_file, *password_env;
};

struct settings_side {
    char *host;
    int64_t port;
    struct settings_tls tls;
    char *tls_server_name; /* in the server's certificate, and sent to it (SNI); "": the host */
    struct settings_endpoint
        replication; /* how the other side reaches this one; unset parts: this side, the manager */
    struct settings_tls replication_tls; /* paths on the other side's machine */
};

enum client_eof_policy { CLIENT_EOF_FINISH, CLIENT_EOF_CANCEL };
enum unmanaged_policy { UNMANAGED_REFUSE, UNMANAGED_PASS };
enum auth_method { AUTH_TRUST, AUTH_SCRAM_SHA_256, AUTH_MD5, AUTH_CERT, AUTH_HBA };

/* What stands behind auth.method. */
struct settings_auth {
    char *hba_file, *ident_file; /* "": none */
    enum hba_client_name cert_name;
    char *map;                 /* of the ident file, for auth.method cert; "": none */
    char *query;               /* "": pg_authid */
    char *database;            /* where it runs; "": postgres */
    char *verifier_file;       /* "": the active side is asked */
    int64_t failed_logins_max; /* of one address, in the window; 0: no limit */
    int64_t failed_logins_window_us;
    bool failed_logins_local; /* of this machine, too */
    /* from these files, shared by counting references */
    struct hba *hba;
    struct userlist *userlist; /* NULL: no verifier_file */
};

enum drain_policy { DRAIN_ABORT, DRAIN_CANCEL, DRAIN_TERMINATE };
enum immovable_policy { IMMOVABLE_DISCONNECT, IMMOVABLE_WAIT, IMMOVABLE_ABORT };
enum flip_back_policy { FLIP_BACK_AUTO, FLIP_BACK_MANUAL };

enum gate_kind {
    GATE_ERROR_RATE,
    GATE_LATENCY_P50,
    GATE_LATENCY_P95,
    GATE_LATENCY_P99,
    GATE_REPLICATION_LAG, /* max is a duration or a size */
    GATE_REPLICATION_BROKEN,
    GATE_SQL,
    GATE_COMMAND
};

enum { GATE_WHEN_PREFLIGHT = 1, GATE_WHEN_WATCH = 2 };

struct settings_gate {
    char *name;
    enum gate_kind kind;
    /* limits: which are set */
    bool has_max;
    bool max_is_bytes; /* replication_lag: max_bytes counts instead of max_us */
    double max_ratio;  /* error_rate: 0 .. 1 */
    int64_t max_us;    /* latency_*, replication_lag */
    int64_t max_bytes; /* replication_lag */
    bool has_max_increase;
    double max_increase; /* latency_*, error_rate: 0.2 is 20% above the source's baseline */
    char *sql;
    char *expect;   /* text of the first column of the first row */
    char *database; /* "" is the first managed one */
    struct settings_list command;
    int64_t interval_us, timeout_us, grace_us;
    int64_t failures, min_samples;
    int64_t when; /* GATE_WHEN_* */
};

struct settings {
    char *path; /* of the file, absolute; relative paths in the file start at its folder */

    char *listen_host;
    int64_t listen_port;   /* 0: no TCP listener */
    char *listen_unix_dir; /* "": no Unix listener */
    int64_t listen_backlog;
    struct settings_listen_tls listen_tls;
    int64_t max_clients;
    struct settings_list proxy_protocol; /* networks whose connections begin with a PROXY header */
    int64_t workers;                     /* 0: one a core */
    struct settings_timeouts timeouts;
    struct settings_limits limits;
    struct settings_tcp tcp_clients, tcp_servers;

    char *control_socket;
    struct settings_list control_viewers, control_operators, control_approvers; /* uids, names or %group */

    char *http_host; /* "" and port 0: off */
    int64_t http_port;

    char *state_dir;

    struct settings_side sides[SIDE_COUNT];
    enum side initial;
    struct settings_endpoint manager; /* host and port unused */
    struct settings_list databases;
    enum unmanaged_policy unmanaged;
    enum client_eof_policy client_eof;
    struct settings_list migrators;
    struct settings_list local_tables; /* patterns schema.table with * */
    enum auth_method auth_method;
    struct settings_auth auth;

    enum drain_policy drain_on_timeout;
    int64_t drain_timeout_us, drain_grace_us;
    int64_t catchup_timeout_us;
    int64_t max_hold_us;
    enum immovable_policy immovable;
    bool lossless;
    int64_t lossless_max_wait_us;
    int64_t dead_after_us;

    int64_t prepare_jobs;
    char *prepare_pg_bin_dir; /* "": look in PATH and Debian's places */

    struct settings_list backup_command, backup_verify_command;
    int64_t backup_timeout_us;
    struct settings_list hook_before_cutover, hook_after_cutover, hook_on_flip_back, hook_notify;
    int64_t hook_timeout_us;

    struct settings_gate *gates;
    size_t gate_count;

    int64_t watch_duration_us;
    enum flip_back_policy watch_flip_back;

    int64_t log_level;  /* enum log_level */
    int64_t log_format; /* enum log_format */
};

/*
 * Reads and checks the whole file. NULL with *error filled: "FILE:LINE: key: what was expected".
 * The caller owns the result.
 */
MUST_USE struct settings *settings_load(const char *path, struct error *error);
void settings_free(struct settings *settings);

/*
 * Compares two settings for a reload: the names of changed keys that need a restart go into *restart, those
 * that can be applied into *changed (both owned by the caller, settings_list_deinit). False: out of memory.
 */
MUST_USE bool settings_compare(const struct settings *old, const struct settings *new,
                               struct settings_list *changed, struct settings_list *restart,
                               struct error *error);

/* Lists of texts; others may use them too. Adding copies the text; false: out of memory. */
MUST_USE bool settings_list_add(struct settings_list *list, const char *text);
bool settings_list_has(const struct settings_list *list, const char *text);
void settings_list_deinit(struct settings_list *list);

/* Likewise for named numbers. get: the number of that name, or fallback. */
MUST_USE bool settings_counts_add(struct settings_counts *counts, const char *name, int64_t number);
int64_t settings_counts_get(const struct settings_counts *counts, const char *name, int64_t fallback);
void settings_counts_deinit(struct settings_counts *counts);

/*
 * The whole configuration as YAML with defaults filled in and a comment for each key; secrets are masked. It
 * can be loaded again. Owned by the caller.
 */
MUST_USE char *settings_print(const struct settings *settings, struct error *error);

bool settings_is_managed(const struct settings *settings, const char *database);

#endif
