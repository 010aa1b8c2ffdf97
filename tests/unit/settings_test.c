/* conf/settings: what the loader takes, what it refuses and how it says so. */
#include "conf/settings/tree.h"
#include "conf/settings/unit.h"
#include "tests/unit/settings_file.h"

/* --- units */

static void units_are_read_strictly(void **state)
{
    (void)state;
    int64_t number = 0;
    double ratio = 0;
    assert_int_equal(unit_parse_duration("1.5s", &number), UNIT_OK);
    assert_int_equal(number, 1500000);
    assert_int_equal(unit_parse_duration("250us", &number), UNIT_OK);
    assert_int_equal(number, 250);
    assert_int_equal(unit_parse_duration("2h", &number), UNIT_OK);
    assert_int_equal(number, 7200000000);
    assert_int_equal(unit_parse_duration("5", &number), UNIT_MISSING);
    assert_int_equal(unit_parse_duration("5 s", &number), UNIT_UNKNOWN);
    assert_int_equal(unit_parse_duration("5S", &number), UNIT_UNKNOWN);
    assert_int_equal(unit_parse_duration("5d", &number), UNIT_UNKNOWN);
    assert_int_equal(unit_parse_duration("", &number), UNIT_NO_NUMBER);
    assert_int_equal(unit_parse_duration("s", &number), UNIT_NO_NUMBER);
    assert_int_equal(unit_parse_duration("-5s", &number), UNIT_NO_NUMBER);
    assert_int_equal(unit_parse_duration("1.s", &number), UNIT_NO_NUMBER);
    assert_int_equal(unit_parse_duration("99999999999999999999s", &number), UNIT_TOO_LARGE);
    assert_int_equal(unit_parse_duration("999999999999999999h", &number), UNIT_TOO_LARGE);
    assert_int_equal(unit_parse_size("1.5KiB", &number), UNIT_OK);
    assert_int_equal(number, 1536);
    assert_int_equal(unit_parse_size("2GB", &number), UNIT_OK);
    assert_int_equal(number, 2000000000);
    assert_int_equal(unit_parse_size("2", &number), UNIT_MISSING);
    assert_int_equal(unit_parse_size("2gb", &number), UNIT_UNKNOWN);
    assert_int_equal(unit_parse_percent("20%", &ratio), UNIT_OK);
    assert_true(ratio > 0.1999 && ratio < 0.2001);
    assert_int_equal(unit_parse_percent("20", &ratio), UNIT_MISSING);
    assert_int_equal(unit_parse_ratio("0.01", &ratio), UNIT_OK);
    assert_int_equal(unit_parse_ratio("1e3", &ratio), UNIT_UNKNOWN);
    assert_int_equal(unit_parse_integer("-7", &number), UNIT_OK);
    assert_int_equal(number, -7);
    assert_int_equal(unit_parse_integer("7x", &number), UNIT_UNKNOWN);
    assert_int_equal(unit_parse_integer("7.5", &number), UNIT_UNKNOWN);
}

static void units_are_printed_as_they_are_read(void **state)
{
    (void)state;
    char text[UNIT_TEXT_SIZE];
    assert_string_equal(unit_format_duration(0, text), "0s");
    assert_string_equal(unit_format_duration(90000000, text), "90s");
    assert_string_equal(unit_format_duration(1800000000, text), "30m");
    assert_string_equal(unit_format_duration(1500000, text), "1500ms");
    assert_string_equal(unit_format_duration(3600000000, text), "1h");
    assert_string_equal(unit_format_size(INT64_C(64) << 20, text), "64MiB");
    assert_string_equal(unit_format_size(5000000, text), "5MB");
    assert_string_equal(unit_format_size(0, text), "0B");
    assert_string_equal(unit_format_percent(0.2, text), "20%");
    assert_string_equal(unit_format_ratio(0.01, text), "0.01");
    assert_string_equal(unit_format_ratio(1, text), "1");
}

/* --- loading */

static void defaults_stand(void **state)
{
    (void)state;
    struct settings *s = load_well(ENOUGH);
    assert_string_equal(s->listen_host, "127.0.0.1");
    assert_int_equal(s->listen_port, 6432);
    assert_string_equal(s->listen_unix_dir, "");
    assert_int_equal(s->max_clients, 10000);
    assert_int_equal(s->timeouts.login_us, 30000000);
    assert_int_equal(s->workers, 0);
    assert_string_equal(s->control_socket, "/run/switchback/control.sock");
    assert_string_equal(s->http_host, "127.0.0.1");
    assert_int_equal(s->http_port, 6433);
    assert_string_equal(s->sides[SIDE_BLUE].host, "a");
    assert_int_equal(s->sides[SIDE_GREEN].port, 5432);
    assert_int_equal(s->initial, SIDE_BLUE);
    assert_int_equal(s->unmanaged, UNMANAGED_REFUSE);
    assert_int_equal(s->auth_method, AUTH_SCRAM_SHA_256);
    assert_int_equal(s->drain_timeout_us, 5000000);
    assert_int_equal(s->drain_on_timeout, DRAIN_ABORT);
    assert_int_equal(s->max_hold_us, 15000000);
    assert_int_equal(s->immovable, IMMOVABLE_DISCONNECT);
    assert_true(s->lossless);
    assert_int_equal(s->backup_timeout_us, 3600000000);
    assert_int_equal(s->watch_duration_us, 1800000000);
    assert_int_equal(s->watch_flip_back, FLIP_BACK_AUTO);
    assert_int_equal(s->backup_command.count, 0);
    assert_true(settings_is_managed(s, "shop"));
    assert_false(settings_is_managed(s, "postgres"));
    settings_free(s);
}

static void replication_defaults_to_side_and_manager(void **state)
{
    (void)state;
    struct settings *s = load_well("sides:\n"
                                   "  blue:\n"
                                   "    host: a\n"
                                   "    port: 5000\n"
                                   "    replication: { host: inner, user: copier }\n"
                                   "  green: { host: b, port: 5001 }\n"
                                   "manager: { user: m }\n"
                                   "databases: [ app ]\n");
    assert_string_equal(s->sides[SIDE_BLUE].replication.host, "inner");
    assert_int_equal(s->sides[SIDE_BLUE].replication.port, 5000);
    assert_string_equal(s->sides[SIDE_BLUE].replication.user, "copier");
    assert_string_equal(s->sides[SIDE_GREEN].replication.host, "b");
    assert_int_equal(s->sides[SIDE_GREEN].replication.port, 5001);
    assert_string_equal(s->sides[SIDE_GREEN].replication.user, "m");
    settings_free(s);
}

static void values_of_every_type_are_read(void **state)
{
    (void)state;
    struct settings *s = load_well(ENOUGH "listen: { host: \"::1\", unix_dir: sockets }\n"
                                          "timeouts: { login: 1.5s }\n"
                                          "http: { listen: \"[::1]:9000\" }\n"
                                          "control: { operators: [ \"1000\", dba, \"%wheel\" ] }\n"
                                          "initial: green\n"
                                          "flip: { drain: { on_timeout: terminate }, lossless: false }\n"
                                          "hooks:\n" /* a section whose keys are all commented out */
                                          "log: { level: debug, format: json }\n");
    char *sockets = in_folder("sockets");
    assert_string_equal(s->listen_unix_dir, sockets); /* relative to the file */
    free(sockets);
    assert_int_equal(s->timeouts.login_us, 1500000);
    assert_string_equal(s->http_host, "::1");
    assert_int_equal(s->http_port, 9000);
    assert_int_equal(s->control_operators.count, 3);
    assert_string_equal(s->control_operators.items[2], "%wheel");
    assert_int_equal(s->initial, SIDE_GREEN);
    assert_int_equal(s->drain_on_timeout, DRAIN_TERMINATE);
    assert_int_equal(s->log_level, 0);
    assert_int_equal(s->log_format, 1);
    settings_free(s);
    s = load_well(ENOUGH "http: { listen: \"\" }\n");
    assert_int_equal(s->http_port, 0);
    assert_string_equal(s->http_host, "");
    settings_free(s);
}

static void wrong_types_are_refused(void **state)
{
    (void)state;
    refused(ENOUGH "listen:\n  port: many\n", 5,
            "listen.port: expected a whole number from 0 to 65535, found \"many\"", NULL);
    refused(ENOUGH "listen: 6432\n", 4, "listen: expected keys with values, found \"6432\"", NULL);
    refused(ENOUGH "listen: [ 6432 ]\n", 4, "listen: expected keys with values, found a list", NULL);
    refused(ENOUGH "listen: { host: [ a ] }\n", 4, "listen.host: expected a text, found a list", NULL);
    refused(ENOUGH "listen: { host: }\n", 4, "listen.host: expected a text, found nothing", NULL);
    refused(ENOUGH "workers: { a: 1 }\n", 4, "workers: expected a whole number from 0 to 256, found keys",
            NULL);
    refused(ENOUGH "workers: 1.5\n", 4, "found \"1.5\"", NULL);
    refused(ENOUGH "migrators: alice\n", 4, "migrators: expected a list such as [ a, b ], found \"alice\"",
            NULL);
    refused(ENOUGH "migrators: [ alice, [ bob ] ]\n", 4, "migrators: expected a list of texts, found a list",
            NULL);
    refused(ENOUGH "migrators: [ alice, ~ ]\n", 4, "found nothing in it", NULL);
    refused(ENOUGH "flip: { lossless: yes }\n", 4, "flip.lossless: expected true or false, found \"yes\"",
            NULL);
    refused(ENOUGH "flip:\n  drain:\n    on_timeout: kill\n", 6,
            "flip.drain.on_timeout: expected abort | cancel | terminate, found \"kill\"", NULL);
    refused(ENOUGH "http: { listen: 6433 }\n", 4, "http.listen: expected HOST:PORT", NULL);
    refused(ENOUGH "http: { listen: \"a:99999\" }\n", 4, "http.listen: expected HOST:PORT", NULL);
    refused(ENOUGH "http: { listen: \"::1:80\" }\n", 4, "http.listen: expected HOST:PORT", NULL);
    refused(ENOUGH "http: { listen: \":80\" }\n", 4, "http.listen: expected HOST:PORT", NULL);
    refused(ENOUGH "gates: { lag: 1 }\n", 4, "gates: expected a list of gates", NULL);
    refused(ENOUGH "gates: [ lag ]\n", 4, "gates: expected { name: ..., metric: ... } for each gate", NULL);
    refused("- a\n", 1, "expected keys with values", NULL);
    refused("hello\n", 1, "expected keys with values", NULL);
}

static void units_of_settings_are_checked(void **state)
{
    (void)state;
    refused(ENOUGH "flip: { drain: { timeout: 5 } }\n", 4,
            "flip.drain.timeout: expected a duration from 10ms to 1h (units us ms s m h), found \"5\", "
            "without a unit",
            NULL);
    refused(ENOUGH "flip: { drain: { timeout: 5d } }\n", 4, "found \"5d\", with a wrong unit", NULL);
    refused(ENOUGH "flip: { drain: { timeout: soon } }\n", 4, "found \"soon\", not a number", NULL);
    refused(ENOUGH "flip: { drain: { timeout: 9999999999999999999s } }\n", 4, "too large", NULL);
}

static void bounds_are_checked(void **state)
{
    (void)state;
    refused(ENOUGH "flip: { drain: { timeout: 1us } }\n", 4, "expected a duration from 10ms to 1h", NULL);
    refused(ENOUGH "flip: { drain: { timeout: 2h } }\n", 4, "expected a duration from 10ms to 1h", NULL);
    refused(ENOUGH "listen: { port: 65536 }\n", 4, "from 0 to 65535, found \"65536\"", NULL);
    refused(ENOUGH "listen: { port: -1 }\n", 4, "from 0 to 65535, found \"-1\"", NULL);
    refused(ENOUGH "listen: { max_clients: 0 }\n", 4, "listen.max_clients: expected a whole number from 1",
            NULL);
    refused(ENOUGH "listen: { host: \"\" }\n", 4, "listen.host: expected a text, found an empty one", NULL);
    refused(ENOUGH
            "control: { socket: /0123456789012345678901234567890123456789012345678901234567890123456789"
            "0123456789012345678901234567890123456789 }\n",
            4, "control.socket: expected at most 107 bytes, found 111", NULL);
    refused(ENOUGH "listen: { host: \"a\\eb\" }\n", 4, "expected a text without control characters", NULL);
    refused(ENOUGH "listen: { host: \"a\\0b\" }\n", 4, "must not contain a NUL", NULL);
}

static void unknown_keys_are_refused_with_a_suggestion(void **state)
{
    (void)state;
    refused(ENOUGH "lisen: { port: 1 }\n", 4, "lisen: unknown key", "did you mean listen?");
    refused(ENOUGH "flip:\n  drain:\n    time_out: 1s\n", 6, "flip.drain.time_out: unknown key",
            "did you mean flip.drain.timeout?");
    refused(ENOUGH "flip:\n  max_clients: 5\n", 5, "flip.max_clients: unknown key",
            "did you mean listen.max_clients?");
    refused(ENOUGH "flip.max_hold: 5s\n", 4, "flip.max_hold: unknown key", "nested");
    refused(ENOUGH "flip: { max_hold: { much: 1 } }\n", 4, "flip.max_hold: expected a duration", NULL);
    refused(ENOUGH "wacth: { duration: 1s }\n", 4, "wacth: unknown key", "did you mean watch?");
    refused(ENOUGH "xyzzy: 1\n", 4, "xyzzy: unknown key", NULL);
    refused(ENOUGH "gates: [ { name: e, metrik: error_rate, max: 1% } ]\n", 4, "gates.e.metrik: unknown key",
            "did you mean gates.e.metric?");
    refused("sides: { blue: { host: a, tls: { mode: allow } }, green: { host: b } }\n", 1,
            "sides.blue.tls.mode: expected disable | prefer | require | verify-ca | verify-full", NULL);
    refused("sides: { red: { host: a } }\n", 1, "sides.red: unknown key", NULL);
}

static void required_keys_are_named(void **state)
{
    (void)state;
    refused("", 0, "sides.blue.host: is missing", NULL);
    refused("~\n", 0, "sides.blue.host: is missing", NULL);
    refused("sides: { blue: { host: a } }\n", 0, "sides.green.host: is missing", NULL);
    refused("sides: { blue: { host: a }, green: { host: b } }\n", 0, "manager.user: is missing", NULL);
    refused("sides: { blue: { host: a }, green: { host: b } }\nmanager: { user: m }\n", 0,
            "databases: is missing", NULL);
    refused("sides: { blue: { host: a }, green: { host: b } }\nmanager: { user: m }\ndatabases: []\n", 3,
            "databases: expected at least one item", NULL);
}

static void what_yaml_has_and_we_do_not_is_refused(void **state)
{
    (void)state;
    refused(ENOUGH "workers: 1\nworkers: 2\n", 5, "workers: the key stands twice, first in line 4", NULL);
    refused(ENOUGH "listen: { port: 1, port: 2 }\n", 4, "port: the key stands twice", NULL);
    refused(ENOUGH "migrators: &a [ x ]\nlocal_tables: *a\n", 4, "anchors (&name) and aliases",
            "write the value");
    refused(ENOUGH "local_tables: *a\n", 4, "anchors (&name) and aliases", NULL);
    refused("&a k: 1\n", 1, "anchors", NULL);
    refused("*a : 1\n", 1, "anchors", NULL);
    refused(ENOUGH "workers: !!int 5\n", 4, "tags (!name) are not supported", "quote");
    refused(ENOUGH "---\nworkers: 1\n", 4, "expected one YAML document, found another", NULL);
    refused(ENOUGH "listen:\n\tport: 1\n", 5, "not valid YAML", "indent with spaces");
    refused(ENOUGH "\tworkers: 1\n", 4, "not valid YAML", "indent with spaces");
    refused(ENOUGH "listen: { port: 1\n", 5, "not valid YAML", NULL);
    refused("just text", 1, "expected keys with values", NULL);
    refused("[]", 1, "expected keys with values", NULL);
    refused("? [ a ]\n: b\n", 1, "expected a key, found a list or a map", NULL);
    refused("a: [[[[[[[[[[[[[[[[[[[[ 1 ]]]]]]]]]]]]]]]]]]]]\n", 1, "nested deeper than 16 levels", NULL);
    refused("a: \xff\xfe\n", 1, "not valid YAML", NULL);
}

static void files_are_read_within_bounds(void **state)
{
    (void)state;
    struct error error;
    char *path = in_folder("no-such-file.yaml");
    assert_null(settings_load(path, &error));
    assert_non_null(strstr(error.message, "no-such-file.yaml: can't be opened: No such file"));
    assert_non_null(strstr(error.remedy, "-c FILE"));
    free(path);
    assert_null(settings_load(folder, &error));
    assert_non_null(strstr(error.message, "can't be read: Is a directory"));
    size_t length = TREE_FILE_LIMIT + 1;
    char *large = malloc(length);
    assert_non_null(large);
    memset(large, '#', length);
    path = write_file("test.yaml", large, length);
    assert_null(settings_load(path, &error));
    assert_non_null(strstr(error.message, "too large, expected at most 1024 KiB"));
    free(path);
    free(large);
}

/* --- secrets */

static void secrets_come_from_files_and_variables(void **state)
{
    (void)state;
    free(write_file("password", "geheim\r\nsecond line\n", 20));
    assert_int_equal(setenv("SWITCHBACK_TEST", "from the environment", 1), 0);
    struct settings *s = load_well("sides: { blue: { host: a }, green: { host: b, replication: { user: r, "
                                   "password_env: SWITCHBACK_TEST } } }\n"
                                   "manager: { user: m, password_file: password }\n"
                                   "databases: [ app ]\n");
    assert_string_equal(s->manager.password, "geheim");
    assert_string_equal(s->sides[SIDE_BLUE].replication.password, "geheim");
    assert_string_equal(s->sides[SIDE_GREEN].replication.password, "from the environment");
    settings_free(s);
    /* another role doesn't get the manager's */
    s = load_well("sides: { blue: { host: a, replication: { user: r } }, green: { host: b } }\n"
                  "manager: { user: m, password_file: password }\n"
                  "databases: [ app ]\n");
    assert_string_equal(s->sides[SIDE_BLUE].replication.password, "");
    settings_free(s);
}

static void secrets_that_cannot_be_had_are_named(void **state)
{
    (void)state;
    (void)unsetenv("SWITCHBACK_TEST");
    refused(WITH_MANAGER("password: geheim"), 3, "manager.password: expected no secret in this file",
            "manager.password_file");
    refused(WITH_MANAGER("password_env: SWITCHBACK_TEST"), 3,
            "manager.password_env: the environment variable SWITCHBACK_TEST is not set", NULL);
    assert_int_equal(setenv("SWITCHBACK_TEST", "", 1), 0);
    refused(WITH_MANAGER("password_env: SWITCHBACK_TEST"), 3, "is empty", NULL);
    refused(WITH_MANAGER("password_file: /nowhere/at/all"), 3,
            "manager.password_file: /nowhere/at/all can't be opened: No such file", NULL);
    refused(WITH_MANAGER("password_file: /"), 3, "can't be read: Is a directory", NULL);
    refused(WITH_MANAGER("password_file: a, password_env: B"), 3,
            "manager.password_env: expected either password_file or password_env, found both", NULL);
    free(write_file("password", "\n", 1));
    refused(WITH_MANAGER("password_file: password"), 3, "expected a password in the first line of", NULL);
    char longest[1100];
    memset(longest, 'x', sizeof longest);
    free(write_file("password", longest, sizeof longest));
    refused(WITH_MANAGER("password_file: password"), 3, "expected at most 1023 bytes", NULL);
    struct error error;
    assert_null(load(WITH_MANAGER("password: geheim"), &error));
    assert_null(strstr(error.message, "geheim"));
}

/* --- what must fit together */

static void settings_must_fit_together(void **state)
{
    (void)state;
    refused(ENOUGH "flip:\n  drain: { timeout: 5s }\n  max_hold: 11s\n", 6,
            "flip.max_hold: expected at least drain.timeout + catchup.timeout + 2s = 12s, found 11s", NULL);
    refused(ENOUGH "flip:\n  drain: { timeout: 60s }\n", 5, "= 67s, found 15s", NULL);
    refused("sides: { blue: { host: LOCALHOST }, green: { host: 127.0.0.1 } }\nmanager: { user: m }\n"
            "databases: [ a ]\n",
            1, "sides.green: expected another cluster than sides.blue", NULL);
    refused(
        "sides: { blue: { host: /tmp/ }, green: { host: /tmp } }\nmanager: { user: m }\ndatabases: [ a ]\n",
        1, "expected another cluster", NULL);
    refused("sides: { blue: { host: localhost, port: 6432 }, green: { host: b } }\nmanager: { user: m }\n"
            "databases: [ a ]\nlisten: { host: 0.0.0.0, port: 6432 }\n",
            4, "listen: expected another address than sides.blue", NULL);
    refused("sides: { blue: { host: a }, green: { host: /tmp, port: 6432 } }\nmanager: { user: m }\n"
            "databases: [ a ]\nlisten: { unix_dir: /tmp }\n",
            4, "listen: expected another address than sides.green", NULL);
    refused(ENOUGH "listen: { port: 0 }\n", 4, "listen: expected a port or a unix_dir", NULL);
    refused(ENOUGH "http: { listen: \"127.0.0.1:6432\" }\n", 4,
            "http.listen: expected another port than listen.port", NULL);
    refused("sides: { blue: { host: a }, green: { host: b } }\nmanager: { user: m }\ndatabases: [ a, a ]\n",
            3, "databases: \"a\" stands twice", NULL);
    refused("sides: { blue: { host: a }, green: { host: b } }\nmanager: { user: m }\ndatabases: [ \"\" ]\n",
            3, "databases: expected names of 1 to 63 bytes", NULL);
    refused(ENOUGH "hooks: { notify: [ \"\" ] }\n", 4, "hooks.notify: expected a program", NULL);
    refused(ENOUGH "backup: { verify_command: [ true ] }\n", 4, "expected backup.command as well", NULL);
    /* two addresses of one machine are two clusters */
    settings_free(load_well("sides: { blue: { host: 127.0.0.1 }, green: { host: 127.0.0.2 } }\n"
                            "manager: { user: m }\ndatabases: [ a ]\n"));
    settings_free(load_well("sides: { blue: { host: localhost }, green: { host: localhost, port: 5433 } }\n"
                            "manager: { user: m }\ndatabases: [ a ]\n"));
}

static void limits_are_counted_by_name(void **state)
{
    (void)state;
    struct settings *s =
        load_well(ENOUGH "limits: { per_database: 7, databases: { app: 20, \"a.b\": 0 }, roles: {} }\n"
                         "listen: { proxy_protocol: [ 10.0.0.0/8, \"::1\", unix ] }\n");
    const struct settings_limits *limits = &s->limits;
    assert_int_equal(settings_counts_get(&limits->databases, "app", limits->per_database), 20);
    assert_int_equal(settings_counts_get(&limits->databases, "a.b", limits->per_database), 0);
    assert_int_equal(settings_counts_get(&limits->databases, "other", limits->per_database), 7);
    assert_int_equal(limits->roles.count, 0);
    assert_int_equal(s->proxy_protocol.count, 3);
    settings_free(s);
    refused(ENOUGH "limits: { databases: [ app ] }\n", 4, "limits.databases: expected names with numbers",
            NULL);
    refused(ENOUGH "limits: { roles: { app: -1 } }\n", 4,
            "limits.roles: app: expected a whole number from 0 to 1000000, found \"-1\"", NULL);
    refused(ENOUGH "limits: { roles: { app: { a: 1 } } }\n", 4, "limits.roles: app: expected a whole", NULL);
    refused(ENOUGH "limits: { roles: { app: 1, app: 2 } }\n", 4, "app", NULL);
    refused(ENOUGH "listen: { proxy_protocol: [ 10.0.0.1/8 ] }\n", 4,
            "listen.proxy_protocol: expected networks such as 10.0.0.0/8", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_are_read_strictly),
        cmocka_unit_test(units_are_printed_as_they_are_read),
        cmocka_unit_test(defaults_stand),
        cmocka_unit_test(replication_defaults_to_side_and_manager),
        cmocka_unit_test(values_of_every_type_are_read),
        cmocka_unit_test(wrong_types_are_refused),
        cmocka_unit_test(units_of_settings_are_checked),
        cmocka_unit_test(bounds_are_checked),
        cmocka_unit_test(unknown_keys_are_refused_with_a_suggestion),
        cmocka_unit_test(required_keys_are_named),
        cmocka_unit_test(what_yaml_has_and_we_do_not_is_refused),
        cmocka_unit_test(files_are_read_within_bounds),
        cmocka_unit_test(secrets_come_from_files_and_variables),
        cmocka_unit_test(secrets_that_cannot_be_had_are_named),
        cmocka_unit_test(settings_must_fit_together),
        cmocka_unit_test(limits_are_counted_by_name),
    };
    return cmocka_run_group_tests_name("settings", tests, make_folder, drop_folder);
}
