/* conf/settings: gates, printing, comparing for a reload, and the example file. */
#include "conf/base/strbuf.h"
#include "conf/settings/table.h"
#include "conf/settings/tree.h"
#include "tests/unit/settings_file.h"

/* --- gates */

static void the_gate_lag_stands_by_default(void **state)
{
    (void)state;
    struct settings *s = load_well(ENOUGH);
    assert_int_equal(s->gate_count, 1);
    const struct settings_gate *lag = &s->gates[0];
    assert_string_equal(lag->name, "lag");
    assert_int_equal(lag->kind, GATE_REPLICATION_LAG);
    assert_true(lag->has_max && !lag->max_is_bytes && !lag->has_max_increase);
    assert_int_equal(lag->max_us, 0);
    assert_int_equal(lag->failures, 5);
    assert_int_equal(lag->grace_us, 5000000);
    assert_int_equal(lag->interval_us, 1000000);
    assert_int_equal(lag->when, GATE_WHEN_WATCH);
    settings_free(s);
    s = load_well(ENOUGH "gates:\n  - { name: lag, metric: replication_lag, max: 64MiB }\n");
    assert_int_equal(s->gate_count, 1);
    assert_true(s->gates[0].max_is_bytes);
    assert_int_equal(s->gates[0].max_bytes, 64 * 1024 * 1024);
    assert_int_equal(s->gates[0].failures, 3);
    settings_free(s);
    s = load_well(ENOUGH "gates:\n");
    assert_int_equal(s->gate_count, 1);
    settings_free(s);
}

static void gates_of_every_kind_are_read(void **state)
{
    (void)state;
    struct settings *s =
        load_well(ENOUGH "gates:\n"
                         "  - { name: errors, metric: error_rate, max: 0.01, min_samples: 10 }\n"
                         "  - { name: slow, metric: latency_p99, max: 50ms, max_increase: 20% }\n"
                         "  - { name: stream, metric: replication_broken, when: [ preflight, watch ] }\n"
                         "  - { name: orders, sql: \"select count(*) > 0 from orders\", database: shop }\n"
                         "  - { name: app, command: [ curl, -fsS ], timeout: 5s }\n");
    assert_int_equal(s->gate_count, 6);
    assert_int_equal(s->gates[0].kind, GATE_ERROR_RATE);
    assert_true(s->gates[0].max_ratio > 0.0099 && s->gates[0].max_ratio < 0.0101);
    assert_int_equal(s->gates[0].min_samples, 10);
    assert_int_equal(s->gates[1].kind, GATE_LATENCY_P99);
    assert_int_equal(s->gates[1].max_us, 50000);
    assert_true(s->gates[1].has_max_increase && s->gates[1].max_increase > 0.199);
    assert_int_equal(s->gates[2].kind, GATE_REPLICATION_BROKEN);
    assert_int_equal(s->gates[2].when, GATE_WHEN_PREFLIGHT | GATE_WHEN_WATCH);
    assert_int_equal(s->gates[3].kind, GATE_SQL);
    assert_string_equal(s->gates[3].expect, "t");
    assert_string_equal(s->gates[3].database, "shop");
    assert_int_equal(s->gates[4].kind, GATE_COMMAND);
    assert_int_equal(s->gates[4].command.count, 2);
    assert_int_equal(s->gates[4].timeout_us, 5000000);
    assert_string_equal(s->gates[5].name, "lag");
    settings_free(s);
}

static void gates_that_make_no_sense_are_refused(void **state)
{
    (void)state;
#define GATES(items) ENOUGH "gates:\n  - " items "\n"
    refused(GATES("{ metric: error_rate, max: 1% }"), 5, "gates[1].name: is missing", NULL);
    refused(GATES("{ name: \"a b\", metric: error_rate, max: 1% }"), 5, "gates.a b.name: expected letters",
            NULL);
    refused(GATES("{ name: e, metric: eror_rate, max: 1% }"), 5, "gates.e.metric: expected error_rate | ",
            "did you mean error_rate?");
    refused(GATES("{ name: e, metric: happiness, max: 1% }"), 5, "found \"happiness\"", NULL);
    refused(GATES("{ name: e }"), 5, "expected one of metric, sql and command, found none", NULL);
    refused(GATES("{ name: e, sql: select 1, command: [ true ] }"), 5, "found more", NULL);
    refused(GATES("{ name: e, metric: error_rate }"), 5, "gates.e.max: expected a limit: max or max_increase",
            NULL);
    refused(GATES("{ name: e, metric: replication_lag }"), 5, "gates.e.max: expected a limit: max", NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 2 }"), 5, "expected a ratio from 0 to 1", NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 200% }"), 5, "expected a ratio from 0 to 1", NULL);
    refused(GATES("{ name: e, metric: latency_p50, max: 5 }"), 5, "expected a duration such as 50ms", NULL);
    refused(GATES("{ name: e, metric: latency_p50, max: 5MB }"), 5, "with a wrong unit", NULL);
    refused(GATES("{ name: e, metric: replication_lag, max: 5 }"), 5,
            "expected a duration (us ms s m h) or a size", NULL);
    refused(GATES("{ name: e, metric: latency_p50, max_increase: 0.2 }"), 5,
            "gates.e.max_increase: expected a percentage such as 20%", NULL);
    refused(GATES("{ name: e, metric: replication_lag, max: 0s, max_increase: 2% }"), 5,
            "gates.e.max_increase: does not fit a gate of metric replication_lag", "leave it out");
    refused(GATES("{ name: e, metric: replication_broken, max: 1 }"), 5, "max: does not fit", NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 1%, expect: t }"), 5, "expect: does not fit", NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 1%, timeout: 1s }"), 5, "timeout: does not fit", NULL);
    refused(GATES("{ name: e, sql: select 1, min_samples: 5 }"), 5, "does not fit a gate of sql", NULL);
    refused(GATES("{ name: e, command: [ a ], database: app }"), 5, "does not fit a gate of command", NULL);
    refused(GATES("{ name: e, command: [] }"), 5, "gates.e.command: expected a program", NULL);
    refused(GATES("{ name: e, sql: \"\" }"), 5, "gates.e.sql: expected a query", NULL);
    refused(GATES("{ name: e, sql: select 1, database: other }"), 4,
            "e: database: expected a managed database", NULL);
    refused(GATES("{ name: e, metric: latency_p50, max_increase: 2%, when: [ preflight ] }"), 5,
            "gates.e.when: expected [ watch ]", NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 1%, when: [ always ] }"), 5,
            "gates.e.when: expected a list of preflight | watch, found \"always\"", NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 1%, when: [] }"), 5, "expected a list of preflight",
            NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 1%, interval: 1us }"), 5,
            "gates.e.interval: expected a", NULL);
    refused(GATES("{ name: e, metric: error_rate, max: 1% }\n  - { name: e, sql: select 1 }"), 6,
            "two gates are named \"e\"", NULL);
}

static void gates_are_bounded(void **state)
{
    (void)state;
    struct strbuf text;
    strbuf_init(&text, 1000000);
    strbuf_puts(&text, ENOUGH "gates:\n");
    for (int i = 0; i < 65; i++) {
        strbuf_printf(&text, "  - { name: g%d, metric: replication_broken }\n", i);
    }
    refused(strbuf_text(&text), 69, "gates: expected at most 64 gates", NULL);
    strbuf_deinit(&text);
}

/* --- printing and comparing */

static void print_loads_again(void **state)
{
    (void)state;
    free(write_file("password", "geheim\n", 7));
    struct settings *s = load_well(
        ENOUGH "listen: { unix_dir: /tmp/a b, client_eof: cancel, proxy_protocol: [ 10.0.0.0/8, unix ] }\n"
               "timeouts: { login: 90s, query: 1500ms }\n"
               "limits: { per_role: 5, databases: { app: 20, 'a.b \"c': 0 } }\n"
               "tcp: { servers: { user_timeout: 30s } }\n"
               "http: { listen: \"[::1]:80\" }\n"
               "local_tables: [ \"public.*\", 'a\"b\\c' ]\n"
               "backup: { command: [ sh, -c, \"echo\\n\\ttabs\" ] }\n"
               "gates:\n"
               "  - { name: errors, metric: error_rate, max: 1.5%, max_increase: 20% }\n"
               "  - { name: orders, sql: \"select\\n'\\\"'\", expect: \"\", when: [ preflight, watch ] }\n"
               "  - { name: app, command: [ a, b ] }\n"
               "  - { name: bytes, metric: replication_lag, max: 5MB }\n");
    struct error error;
    char *text = settings_print(s, &error);
    assert_non_null(text);
    char *path = write_file("again.yaml", text, strlen(text));
    struct settings *again = settings_load(path, &error);
    if (again == NULL) {
        fail_msg("%s\n%s", error.message, text);
    }
    struct settings_list changed, restart;
    assert_true(settings_compare(s, again, &changed, &restart, &error));
    assert_int_equal(changed.count, 0);
    assert_int_equal(restart.count, 0);
    settings_list_deinit(&changed);
    settings_list_deinit(&restart);
    settings_free(again);
    settings_free(s);
    free(path);
    free(text);
}

static void print_masks_secrets(void **state)
{
    (void)state;
    free(write_file("password", "geheim\n", 7));
    struct settings *s = load_well(WITH_MANAGER("password_file: password"));
    struct error error;
    char *text = settings_print(s, &error);
    assert_non_null(text);
    assert_null(strstr(text, "geheim"));
    assert_non_null(strstr(text, "# password: ********"));
    free(text);
    settings_free(s);
}

static void compare_tells_reload_from_restart(void **state)
{
    (void)state;
    free(write_file("password", "old\n", 4));
    struct settings *old = load_well(WITH_MANAGER("password_file: password"));
    free(write_file("password", "new\n", 4));
    struct settings *new = load_well(
        WITH_MANAGER("password_file: password") "listen: { port: 1, max_clients: 5 }\n"
                                                "workers: 2\n"
                                                "flip: { drain: { timeout: 4s } }\n"
                                                "gates: [ { name: lag, metric: replication_lag, max: 1s } ]\n"
                                                "unmanaged: pass\n"
                                                "log: { level: debug }\n"
                                                "migrators: [ a ]\n"
                                                "state: { dir: /tmp/x }\n");
    struct settings_list changed, restart;
    struct error error;
    assert_true(settings_compare(old, new, &changed, &restart, &error));
    static const char *const now[] = {"listen.max_clients", "flip.drain.timeout", "gates",    "unmanaged",
                                      "log.level",          "manager.password",   "migrators"};
    static const char *const later[] = {"listen.port", "workers", "state.dir"};
    for (size_t i = 0; i < ARRAY_LENGTH(now); i++) {
        assert_true(settings_list_has(&changed, now[i]));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(later); i++) {
        assert_true(settings_list_has(&restart, later[i]));
    }
    assert_int_equal(restart.count, ARRAY_LENGTH(later));
    /* the manager's password is that of both replication logins too */
    assert_int_equal(changed.count, ARRAY_LENGTH(now) + 2);
    settings_list_deinit(&changed);
    settings_list_deinit(&restart);
    settings_free(old);
    settings_free(new);
}

/* --- the example file */

/* "#key: value" shows what may stand there, "# text" explains: the first kind is put in force. */
static void uncomment(const char *text, struct strbuf *out)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        size_t indent = strspn(text, " ");
        bool shown = text[indent] == '#' && text[indent + 1] != ' ' && text[indent + 1] != '\n';
        /* "#  key:" belongs to a section that is commented out above it */
        bool inner = text[indent] == '#' && strncmp(text + indent, "#  ", 3) == 0 && indent > 0;
        if (shown || inner) {
            strbuf_append(out, text, indent);
            strbuf_append(out, text + indent + 1, length - indent - 1);
        } else {
            strbuf_append(out, text, length);
        }
        strbuf_puts(out, "\n");
        text += length + (text[length] == '\n' ? 1 : 0);
    }
}

static const struct tree_node *find(const struct tree_node *tree, const char *name)
{
    char part[64];
    while (tree != NULL) {
        size_t length = strcspn(name, ".");
        (void)snprintf(part, sizeof part, "%.*s", (int)length, name);
        tree = tree_child(tree, part);
        if (name[length] == '\0') {
            return tree;
        }
        name += length + 1;
    }
    return NULL;
}

static char *read_example(void)
{
    FILE *file = fopen(SOURCE_DIR "/conf/switchback.example.yaml", "re");
    assert_non_null(file);
    char *text = calloc(1, 65536);
    assert_non_null(text);
    size_t length = fread(text, 1, 65535, file);
    assert_true(length > 0 && length < 65535);
    assert_int_equal(fclose(file), 0);
    return text;
}

static void example_documents_every_key(void **state)
{
    (void)state;
    char *text = read_example();
    struct strbuf shown;
    strbuf_init(&shown, 131072);
    uncomment(text, &shown);
    /* what is shown beside what is in force makes a key stand twice: drop the first of the two */
    char *twice = strstr(shown.data, "  command: []\n");
    assert_non_null(twice);
    memset(twice, ' ', strlen("  command: []"));
    struct error error;
    struct tree_node *tree = tree_parse("example", shown.data, shown.length, &error);
    if (tree == NULL) {
        fail_msg("%s", error.message);
    }
    size_t count = 0;
    const struct setting *rows = settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].type != SETTING_SECRET && find(tree, rows[i].name) == NULL) {
            fail_msg("%s is not in conf/switchback.example.yaml", rows[i].name);
        }
    }
    const struct tree_node *gates = tree_child(tree, "gates");
    assert_non_null(gates);
    rows = gate_table(&count);
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        for (const struct tree_node *gate = gates->first; gate != NULL; gate = gate->next) {
            found = found || tree_child(gate, rows[i].name) != NULL;
        }
        if (!found) {
            fail_msg("gates: %s is not in conf/switchback.example.yaml", rows[i].name);
        }
    }
    tree_free(tree);
    strbuf_deinit(&shown);
    free(text);
}

/* The gates that the example shows are good ones. */
static void example_shows_gates_that_load(void **state)
{
    (void)state;
    char *text = read_example();
    struct strbuf gates;
    strbuf_init(&gates, 131072);
    strbuf_puts(&gates, ENOUGH "gates:\n");
    size_t shown = 0;
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, "  #- { ", 7) == 0) {
            strbuf_puts(&gates, "  ");
            strbuf_append(&gates, line + 3, strcspn(line, "\n") - 3);
            strbuf_puts(&gates, "\n");
            shown++;
        }
    }
    struct settings *s = load_well(strbuf_text(&gates));
    assert_true(shown > 5);
    assert_int_equal(s->gate_count, shown + 1);
    settings_free(s);
    strbuf_deinit(&gates);
    free(text);
}

static void example_shows_the_defaults(void **state)
{
    (void)state;
    struct error error;
    struct settings *example = settings_load(SOURCE_DIR "/conf/switchback.example.yaml", &error);
    if (example == NULL) {
        fail_msg("%s", error.message);
    }
    struct settings *plain = load_well("sides: { blue: { host: 10.0.0.1 }, green: { host: 10.0.0.2 } }\n"
                                       "manager: { user: switchback }\n"
                                       "databases: [ app ]\n");
    struct settings_list changed, restart;
    assert_true(settings_compare(plain, example, &changed, &restart, &error));
    for (size_t i = 0; i < changed.count; i++) {
        fail_msg("%s in the example is not the default", changed.items[i]);
    }
    for (size_t i = 0; i < restart.count; i++) {
        fail_msg("%s in the example is not the default", restart.items[i]);
    }
    settings_list_deinit(&changed);
    settings_list_deinit(&restart);
    settings_free(plain);
    settings_free(example);
}

/* Each row can be loaded, printed and explained. */
static void rows_are_sound(void **state)
{
    (void)state;
    size_t count = 0;
    const struct setting *rows = settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        assert_non_null(rows[i].doc);
        assert_true(strlen(rows[i].doc) < 90);
        assert_true(rows[i].least <= rows[i].most);
        assert_true(rows[i].size > 0);
        assert_true((rows[i].type == SETTING_WORD || rows[i].type == SETTING_WORDS) ==
                    (rows[i].words != NULL));
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(rows[i].name, rows[j].name);
            assert_true(rows[i].offset != rows[j].offset);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gate_lag_stands_by_default),
        cmocka_unit_test(gates_of_every_kind_are_read),
        cmocka_unit_test(gates_that_make_no_sense_are_refused),
        cmocka_unit_test(gates_are_bounded),
        cmocka_unit_test(print_loads_again),
        cmocka_unit_test(print_masks_secrets),
        cmocka_unit_test(compare_tells_reload_from_restart),
        cmocka_unit_test(example_documents_every_key),
        cmocka_unit_test(example_shows_gates_that_load),
        cmocka_unit_test(example_shows_the_defaults),
        cmocka_unit_test(rows_are_sound),
    };
    return cmocka_run_group_tests_name("settings_print", tests, make_folder, drop_folder);
}
