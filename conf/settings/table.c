#include "conf/settings/table.h"

#include "conf/base/compiler.h"
#include "conf/base/log.h"

#define SECOND INT64_C(1000000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

enum { NAME_LIMIT = 63, TEXT_LIMIT = 1023, LIST_LIMIT = 1000, COMMAND_LIMIT = 256, QUERY_LIMIT = 8192 };

#define FIELD(member)                                                                                        \
    .offset = offsetof(struct settings, member), .size = sizeof(((struct settings *)0)->member)

static const char *const side_words[] = {[SIDE_BLUE] = "blue", [SIDE_GREEN] = "green", NULL};
static const char *const listen_tls_words[] = {
    [TLS_MODE_DISABLE] = "disable", [TLS_MODE_PREFER] = "prefer", [TLS_MODE_REQUIRE] = "require", NULL};
static const char *const tls_words[] = {
    [TLS_MODE_DISABLE] = "disable",         [TLS_MODE_PREFER] = "prefer",
    [TLS_MODE_REQUIRE] = "require",         [TLS_MODE_VERIFY_CA] = "verify-ca",
    [TLS_MODE_VERIFY_FULL] = "verify-full", NULL};
static const char *const tls_version_words[] = {
    [TLS_VERSION_1_2] = "TLSv1.2", [TLS_VERSION_1_3] = "TLSv1.3", NULL};
static const char *const client_eof_words[] = {
    [CLIENT_EOF_FINISH] = "finish", [CLIENT_EOF_CANCEL] = "cancel", NULL};
static const char *const unmanaged_words[] = {[UNMANAGED_REFUSE] = "refuse", [UNMANAGED_PASS] = "pass", NULL};
static const char *const auth_words[] = {[AUTH_TRUST] = "trust", [AUTH_SCRAM_SHA_256] = "scram-sha-256",
                                         [AUTH_MD5] = "md5",     [AUTH_CERT] = "cert",
                                         [AUTH_HBA] = "hba",     NULL};
static const char *const cert_name_words[] = {
    [HBA_CLIENT_NAME_CN] = "cn", [HBA_CLIENT_NAME_DN] = "dn", [HBA_CLIENT_NAME_SAN] = "san", NULL};
static const char *const drain_words[] = {
    [DRAIN_ABORT] = "abort", [DRAIN_CANCEL] = "cancel", [DRAIN_TERMINATE] = "terminate", NULL};
static const char *const immovable_words[] = {
    [IMMOVABLE_DISCONNECT] = "disconnect", [IMMOVABLE_WAIT] = "wait", [IMMOVABLE_ABORT] = "abort", NULL};
static const char *const flip_back_words[] = {[FLIP_BACK_AUTO] = "auto", [FLIP_BACK_MANUAL] = "manual", NULL};
static const char *const level_words[] = {[LOG_LEVEL_DEBUG] = "debug",
                                          [LOG_LEVEL_INFO] = "info",
                                          [LOG_LEVEL_WARN] = "warn",
                                          [LOG_LEVEL_ERROR] = "error",
                                          NULL};
static const char *const format_words[] = {[LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", NULL};

/* NOLINTBEGIN(bugprone-macro-parentheses): names are joined and members named by these arguments */

/* How a login reaches its password: never in the file, never in argv. */
#define PASSWORD_ROWS(prefix, member)                                                                        \
    {.name = prefix ".password",                                                                             \
     .type = SETTING_SECRET,                                                                                 \
     .reloadable = true,                                                                                     \
     .most = TEXT_LIMIT,                                                                                     \
     FIELD(member.password),                                                                                 \
     .doc = "secret: from the file or the variable below"},                                                  \
        {.name = prefix ".password_file",                                                                    \
         .type = SETTING_PATH,                                                                               \
         .reloadable = true,                                                                                 \
         .most = TEXT_LIMIT,                                                                                 \
         FIELD(member.password_file),                                                                        \
         .doc = "file with the password in its first line"},                                                 \
    {                                                                                                        \
        .name = prefix ".password_env", .type = SETTING_STRING, .reloadable = true, .most = TEXT_LIMIT,      \
        FIELD(member.password_env), .doc = "environment variable with the password"                          \
    }

/* Paths: of the machine that connects. */
#define TLS_ROWS(prefix, member, mode_fallback, mode_doc)                                                    \
    {.name = prefix ".mode",                                                                                 \
     .type = SETTING_WORD,                                                                                   \
     .reloadable = true,                                                                                     \
     .fallback = mode_fallback,                                                                              \
     .words = tls_words,                                                                                     \
     FIELD(member.mode),                                                                                     \
     .doc = mode_doc},                                                                                       \
        {.name = prefix ".ca",                                                                               \
         .type = SETTING_PATH,                                                                               \
         .reloadable = true,                                                                                 \
         .most = TEXT_LIMIT,                                                                                 \
         FIELD(member.ca),                                                                                   \
         .doc = "who signs the server's certificate; given, it is verified, whatever the mode"},             \
        {.name = prefix ".crl",                                                                              \
         .type = SETTING_PATH,                                                                               \
         .reloadable = true,                                                                                 \
         .most = TEXT_LIMIT,                                                                                 \
         FIELD(member.crl),                                                                                  \
         .doc = "which of these are revoked; empty: none"},                                                  \
        {.name = prefix ".cert",                                                                             \
         .type = SETTING_PATH,                                                                               \
         .reloadable = true,                                                                                 \
         .most = TEXT_LIMIT,                                                                                 \
         FIELD(member.cert),                                                                                 \
         .doc = "our certificate, shown to the server; empty: none"},                                        \
    {                                                                                                        \
        .name = prefix ".key", .type = SETTING_PATH, .reloadable = true, .most = TEXT_LIMIT,                 \
        FIELD(member.key), .doc = "its private key"                                                          \
    }

#define SIDE_ROWS(prefix, member)                                                                            \
    {.name = prefix ".host",                                                                                 \
     .type = SETTING_STRING,                                                                                 \
     .required = true,                                                                                       \
     .least = 1,                                                                                             \
     .most = 255,                                                                                            \
     FIELD(member.host),                                                                                     \
     .doc = "name, address, or directory of a Unix socket"},                                                 \
        {.name = prefix ".port",                                                                             \
         .type = SETTING_INTEGER,                                                                            \
         .fallback = "5432",                                                                                 \
         .least = 1,                                                                                         \
         .most = 65535,                                                                                      \
         FIELD(member.port),                                                                                 \
         .doc = "port of the server"},                                                                       \
        TLS_ROWS(prefix ".tls", member.tls, "prefer",                                                        \
                 "libpq's sslmode: disable | prefer | require | verify-ca | verify-full"),                   \
        {.name = prefix ".tls.server_name",                                                                  \
         .type = SETTING_STRING,                                                                             \
         .reloadable = true,                                                                                 \
         .most = 255,                                                                                        \
         FIELD(member.tls_server_name),                                                                      \
         .doc = "name that the server's certificate must have, and sent to it (SNI); default: host"},        \
        {.name = prefix ".replication.host",                                                                 \
         .type = SETTING_STRING,                                                                             \
         .reloadable = true,                                                                                 \
         .most = 255,                                                                                        \
         FIELD(member.replication.host),                                                                     \
         .doc = "where the other side reaches this one; default: host above"},                               \
        {.name = prefix ".replication.port",                                                                 \
         .type = SETTING_INTEGER,                                                                            \
         .reloadable = true,                                                                                 \
         .fallback = "0",                                                                                    \
         .most = 65535,                                                                                      \
         FIELD(member.replication.port),                                                                     \
         .doc = "its port; default, and 0: port above"},                                                     \
        {.name = prefix ".replication.user",                                                                 \
         .type = SETTING_STRING,                                                                             \
         .reloadable = true,                                                                                 \
         .most = NAME_LIMIT,                                                                                 \
         FIELD(member.replication.user),                                                                     \
         .doc = "role that the other side logs in as; default: the manager"},                                \
        PASSWORD_ROWS(prefix ".replication", member.replication),                                            \
        TLS_ROWS(prefix ".replication.tls", member.replication_tls, NULL,                                    \
                 "the same for the other side; default: as above")

#define TCP_ROWS(prefix, member)                                                                             \
    {.name = prefix ".keepalives_idle",                                                                      \
     .type = SETTING_DURATION,                                                                               \
     .reloadable = true,                                                                                     \
     .fallback = "60s",                                                                                      \
     .least = 0,                                                                                             \
     .most = 9 * HOUR,                                                                                       \
     FIELD(member.keepalives_idle_us),                                                                       \
     .doc = "quiet for so long, the peer is asked whether it lives; 0s: never"},                             \
        {.name = prefix ".keepalives_interval",                                                              \
         .type = SETTING_DURATION,                                                                           \
         .reloadable = true,                                                                                 \
         .fallback = "10s",                                                                                  \
         .least = SECOND,                                                                                    \
         .most = HOUR,                                                                                       \
         FIELD(member.keepalives_interval_us),                                                               \
         .doc = "between two such questions"},                                                               \
        {.name = prefix ".keepalives_count",                                                                 \
         .type = SETTING_INTEGER,                                                                            \
         .reloadable = true,                                                                                 \
         .fallback = "6",                                                                                    \
         .least = 1,                                                                                         \
         .most = 127,                                                                                        \
         FIELD(member.keepalives_count),                                                                     \
         .doc = "so many without an answer: it is gone"},                                                    \
    {                                                                                                        \
        .name = prefix ".user_timeout", .type = SETTING_DURATION, .reloadable = true, .fallback = "0s",      \
        .least = 0, .most = HOUR, FIELD(member.user_timeout_us),                                             \
        .doc = "TCP_USER_TIMEOUT: sent data not taken for so long: it is gone; 0s: off"                      \
    }

/* NOLINTEND(bugprone-macro-parentheses) */

static const struct setting rows[] = {
#include "conf/settings/rows_clients.inc"
#include "conf/settings/rows_limits.inc"

    {.name = "control.socket",
     .type = SETTING_PATH,
     .fallback = "/run/switchback/control.sock",
     .least = 1,
     .most = 107,
     FIELD(control_socket),
     .doc = "Unix socket that the other verbs talk to"},
    {.name = "control.viewers",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = LIST_LIMIT,
     FIELD(control_viewers),
     .doc = "who may look: uids, names or %group; root and the daemon's uid may do all"},
    {.name = "control.operators",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = LIST_LIMIT,
     FIELD(control_operators),
     .doc = "who may act"},
    {.name = "control.approvers",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = LIST_LIMIT,
     FIELD(control_approvers),
     .doc = "who may approve"},

    {.name = "http.listen",
     .type = SETTING_ADDRESS,
     .fallback = "127.0.0.1:6433",
     .most = 255,
     FIELD(http_host),
     .port_offset = offsetof(struct settings, http_port),
     .doc = "/metrics, /healthz, /readyz; read-only; empty: off"},
    {.name = "state.dir",
     .type = SETTING_PATH,
     .fallback = "/var/lib/switchback",
     .least = 1,
     .most = TEXT_LIMIT,
     FIELD(state_dir),
     .doc = "directory of the journal (switchback.db) and a lock"},

    SIDE_ROWS("sides.blue", sides[SIDE_BLUE]),
    SIDE_ROWS("sides.green", sides[SIDE_GREEN]),
    {.name = "initial",
     .type = SETTING_WORD,
     .reloadable = true,
     .fallback = "blue",
     .words = side_words,
     FIELD(initial),
     .doc = "active side while neither the journal nor the clusters know better"},

    {.name = "manager.user",
     .type = SETTING_STRING,
     .required = true,
     .least = 1,
     .most = NAME_LIMIT,
     FIELD(manager.user),
     .doc = "superuser on both sides that Switchback works as"},
    PASSWORD_ROWS("manager", manager),

    {.name = "databases",
     .type = SETTING_LIST,
     .required = true,
     .least = 1,
     .most = LIST_LIMIT,
     FIELD(databases),
     .doc = "the managed databases: replicated and flipped"},
    {.name = "unmanaged",
     .type = SETTING_WORD,
     .reloadable = true,
     .fallback = "refuse",
     .words = unmanaged_words,
     FIELD(unmanaged),
     .doc = "other databases: refuse (3D000) | pass (to the active side, not replicated)"},
    {.name = "migrators",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = LIST_LIMIT,
     FIELD(migrators),
     .doc = "roles that may change the standby's schema"},
    {.name = "local_tables",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = LIST_LIMIT,
     FIELD(local_tables),
     .doc = "patterns schema.table, with *: neither published nor fenced (migration history)"},
    {.name = "flip.drain.timeout",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "5s",
     .least = SECOND / 100,
     .most = HOUR,
     FIELD(drain_timeout_us),
     .doc = "how long running transactions may go on"},
    {.name = "flip.drain.on_timeout",
     .type = SETTING_WORD,
     .reloadable = true,
     .fallback = "abort",
     .words = drain_words,
     FIELD(drain_on_timeout),
     .doc = "then: abort the flip | cancel statements | terminate sessions"},
    {.name = "flip.drain.grace",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "1s",
     .least = 0,
     .most = MINUTE,
     FIELD(drain_grace_us),
     .doc = "after cancelling, before the flip is aborted"},
    {.name = "flip.catchup.timeout",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "5s",
     .least = SECOND / 100,
     .most = HOUR,
     FIELD(catchup_timeout_us),
     .doc = "how long the target may need to have everything"},
    {.name = "flip.max_hold",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "15s",
     .least = SECOND,
     .most = 3 * HOUR,
     FIELD(max_hold_us),
     .doc = "no client waits longer; at least drain.timeout + catchup.timeout + 2s"},
    {.name = "flip.immovable",
     .type = SETTING_WORD,
     .reloadable = true,
     .fallback = "disconnect",
     .words = immovable_words,
     FIELD(immovable),
     .doc = "sessions that can't move: disconnect (57P01) | wait | abort the flip"},
    {.name = "flip.lossless",
     .type = SETTING_BOOLEAN,
     .reloadable = true,
     .fallback = "true",
     FIELD(lossless),
     .doc = "in the watch a commit waits for the standby: nothing is lost if the active side dies"},
    {.name = "flip.lossless_max_wait",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "10s",
     .least = SECOND / 10,
     .most = 10 * MINUTE,
     FIELD(lossless_max_wait_us),
     .doc = "how long commits wait for a standby that does not confirm them"},
    {.name = "flip.dead_after",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "3s",
     .least = SECOND / 2,
     .most = 10 * MINUTE,
     FIELD(dead_after_us),
     .doc = "unreachable for this long counts as dead"},

    {.name = "prepare.jobs",
     .type = SETTING_INTEGER,
     .reloadable = true,
     .fallback = "4",
     .least = 1,
     .most = 64,
     FIELD(prepare_jobs),
     .doc = "tables copied at once"},
    {.name = "prepare.pg_bin_dir",
     .type = SETTING_PATH,
     .reloadable = true,
     .fallback = "",
     .most = TEXT_LIMIT,
     FIELD(prepare_pg_bin_dir),
     .doc = "where pg_dump and pg_dumpall are; empty: PATH, then Debian's places"},

    {.name = "backup.command",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = COMMAND_LIMIT,
     FIELD(backup_command),
     .doc = "run before a cutover; if it fails there is none"},
    {.name = "backup.verify_command",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = COMMAND_LIMIT,
     FIELD(backup_verify_command),
     .doc = "run after it, likewise"},
    {.name = "backup.timeout",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "1h",
     .least = SECOND,
     .most = 168 * HOUR,
     FIELD(backup_timeout_us),
     .doc = "for each of the two"},

    {.name = "hooks.before_cutover",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = COMMAND_LIMIT,
     FIELD(hook_before_cutover),
     .doc = "a failure refuses the cutover"},
    {.name = "hooks.after_cutover",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = COMMAND_LIMIT,
     FIELD(hook_after_cutover),
     .doc = "after traffic is on the target"},
    {.name = "hooks.on_flip_back",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = COMMAND_LIMIT,
     FIELD(hook_on_flip_back),
     .doc = "after traffic went back"},
    {.name = "hooks.notify",
     .type = SETTING_LIST,
     .reloadable = true,
     .most = COMMAND_LIMIT,
     FIELD(hook_notify),
     .doc = "at each of these, and on alarms"},
    {.name = "hooks.timeout",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "30s",
     .least = SECOND / 10,
     .most = HOUR,
     FIELD(hook_timeout_us),
     .doc = "for each of them"},

    {.name = "gates",
     .type = SETTING_GATES,
     .reloadable = true,
     FIELD(gate_count),
     .doc = "what must hold before a flip and after it"},
    {.name = "watch.duration",
     .type = SETTING_DURATION,
     .reloadable = true,
     .fallback = "30m",
     .least = SECOND,
     .most = 720 * HOUR,
     FIELD(watch_duration_us),
     .doc = "how long gates are judged after a cutover"},
    {.name = "watch.flip_back",
     .type = SETTING_WORD,
     .reloadable = true,
     .fallback = "auto",
     .words = flip_back_words,
     FIELD(watch_flip_back),
     .doc = "when a gate fails: auto (flip back) | manual (alarm only)"},
    {.name = "log.level",
     .type = SETTING_WORD,
     .reloadable = true,
     .fallback = "info",
     .words = level_words,
     FIELD(log_level),
     .doc = "debug | info | warn | error"},
    {.name = "log.format",
     .type = SETTING_WORD,
     .reloadable = true,
     .fallback = "text",
     .words = format_words,
     FIELD(log_format),
     .doc = "text | json"},
};

const struct setting *settings_table(size_t *count)
{
    *count = ARRAY_LENGTH(rows);
    return rows;
}
