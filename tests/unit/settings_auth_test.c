/* conf/settings: what stands behind auth.method, and the files that auth.* names. */
#include "tests/unit/settings_file.h"

#include "conf/base/log.h"
#include "conf/hba/userlist.h"

#define TLS         "listen: { tls: { mode: prefer, cert: c, key: k } }\n"
#define TLS_WITH_CA "listen: { tls: { mode: prefer, cert: c, key: k, ca: a } }\n"

static void complains(const char *text, const char *place, const char *what)
{
    struct error error;
    struct settings *settings = load(text, &error);
    if (settings != NULL) {
        settings_free(settings);
        fail_msg("was taken: %s", text);
    }
    if (strstr(error.message, place) == NULL || strstr(error.message, what) == NULL) {
        fail_msg("%s: %s", text, error.message);
    }
}

static void a_method_stands_for_its_rules(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum hba_method method;
        bool local;
    } cases[] = {
        {ENOUGH, HBA_SCRAM_SHA_256, true},
        {ENOUGH "auth: { method: trust }\n", HBA_TRUST, true},
        {ENOUGH "auth: { method: md5 }\n", HBA_MD5, true},
        {ENOUGH TLS_WITH_CA "auth: { method: cert, cert_name: san }\n", HBA_CERT, false},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const struct sockaddr_storage v4 = {.ss_family = AF_INET};
        struct hba_client client = {
            .address = (const struct sockaddr *)&v4, .tls = true, .user = "joe", .database = "app"};
        struct settings *settings = load_well(cases[i].text);
        for (int physical = 0; physical < 2; physical++) {
            client.physical = physical != 0;
            const struct hba_demand *demand = hba_match(settings->auth.hba, &client);
            assert_non_null(demand);
            assert_int_equal(demand->method, cases[i].method);
            assert_int_equal(demand->client_name,
                             cases[i].method == HBA_CERT ? HBA_CLIENT_NAME_SAN : HBA_CLIENT_NAME_CN);
        }
        client.local = true;
        assert_int_equal(hba_match(settings->auth.hba, &client) != NULL, cases[i].local);
        assert_false(hba_has_file(settings->auth.hba));
        settings_free(settings);
    }
}

static void rules_are_part_of_the_configuration(void **state)
{
    (void)state;
    free(write_file("hba", "hostssl all all all cert map=m\n", 31));
    free(write_file("ident", "m a b\n", 6));
    struct settings *settings =
        load_well(ENOUGH TLS_WITH_CA "auth: { method: hba, hba_file: hba, ident_file: ident }\n");
    assert_true(hba_has_file(settings->auth.hba));
    settings_free(settings);
    settings = load_well(ENOUGH TLS_WITH_CA "auth: { method: cert, ident_file: ident, map: m }\n");
    settings_free(settings);

    complains(ENOUGH "auth:\n  method: cert\n  ident_file: ident\n  map: other\n", "test.yaml:6",
              "map=other: no line of auth.ident_file has that map");
    complains(ENOUGH "auth: { method: cert }\n", "test.yaml:4: auth.method", "expected listen.tls");
    complains(ENOUGH TLS "auth: { method: cert }\n", "test.yaml:4: listen.tls.ca", "auth.method:1");
    complains(ENOUGH TLS "auth: { method: hba, hba_file: hba, ident_file: ident }\n", "listen.tls.ca",
              "hba:1");
    complains(ENOUGH "auth: { method: hba }\n", "test.yaml:4", "expected a file");
    complains(ENOUGH "auth: { hba_file: hba }\n", "test.yaml:4", "expected auth.method: hba");
    complains(ENOUGH "auth: { map: m }\n", "test.yaml:4", "expected auth.method: cert");
    complains(ENOUGH "auth: { query: select 1 }\n", "test.yaml:4", "expected $1");
    complains(ENOUGH "auth: { database: app }\n", "test.yaml:4", "expected auth.query");
    complains(ENOUGH "auth:\n  method: hba\n  hba_file: missing\n", "test.yaml:6", "missing: can't be read");
}

static void every_line_that_is_wrong_is_named(void **state)
{
    (void)state;
    struct strbuf rules;
    strbuf_init(&rules, 100000);
    strbuf_puts(&rules, "host all all all nonsense\nlocal all all peer\nlocal all\n");
    free(write_file("bad", rules.data, rules.length));
    complains(ENOUGH "auth: { method: hba, hba_file: bad }\n", "bad:1: unknown method \"nonsense\"; ",
              "bad:3: the line ends before its role");
    for (int i = 0; i < 150; i++) {
        strbuf_puts(&rules, "what\n");
    }
    free(write_file("worse", rules.data, rules.length));
    complains(ENOUGH "auth: { method: hba, hba_file: worse }\n", "worse:1: ", " more)");
    strbuf_deinit(&rules);
}

static void a_list_of_verifiers_is_read(void **state)
{
    (void)state;
    static const char users[] = "\"joe\" \"md50123456789abcdef0123456789abcdef\"\n";
    free(write_file("users", users, sizeof users - 1));
    struct settings *settings = load_well(ENOUGH "auth: { verifier_file: users }\n");
    assert_non_null(userlist_find(settings->auth.userlist, "joe"));
    settings_free(settings);
    complains(ENOUGH "auth: { verifier_file: users, query: \"select $1\" }\n", "test.yaml:4", "found both");
    free(write_file("plain", "\"joe\" \"hunter2\"\n", 16));
    struct error error;
    assert_null(load(ENOUGH "auth: { verifier_file: plain }\n", &error));
    assert_non_null(strstr(error.message, "plain:1: expected SCRAM-SHA-256$"));
    assert_null(strstr(error.message, "hunter2"));
}

static void a_changed_file_is_a_changed_setting(void **state)
{
    (void)state;
    static const char text[] = ENOUGH "auth: { method: hba, hba_file: hba, ident_file: ident,"
                                      " verifier_file: users }\n";
    static const char *const contents[][3] = {
        {"local all all peer map=m\n", "m a b\n", "\"a\" \"\"\n"},
        {"# the same\nlocal  all all \\\n peer map=m\n", "m a b # too\n", ";\n\"a\" \"\"\n"},
        {"local all joe peer map=m\n", "m a b\n", "\"a\" \"\"\n"},
        {"local all joe peer map=m\n", "m a c\n", "\"a\" \"\"\n"},
        {"local all joe peer map=m\n", "m a c\n", "\"b\" \"\"\n"},
        {"local all \"joe\" peer map=m\n", "m a c\n", "\"b\" \"\"\n"},
    };
    static const char *const expected[] = {NULL, "auth.hba_file", "auth.ident_file", "auth.verifier_file",
                                           "auth.hba_file"};
    struct settings *before = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(contents); i++) {
        free(write_file("hba", contents[i][0], strlen(contents[i][0])));
        free(write_file("ident", contents[i][1], strlen(contents[i][1])));
        free(write_file("users", contents[i][2], strlen(contents[i][2])));
        struct settings *after = load_well(text);
        if (before != NULL) {
            struct settings_list changed, restart;
            struct error error;
            assert_true(settings_compare(before, after, &changed, &restart, &error));
            assert_int_equal(restart.count, 0);
            assert_int_equal(changed.count, expected[i - 1] != NULL);
            if (expected[i - 1] != NULL) {
                assert_string_equal(changed.items[0], expected[i - 1]);
            }
            settings_list_deinit(&changed);
            settings_list_deinit(&restart);
        }
        settings_free(before);
        before = after;
    }
    settings_free(before);
}

static int drop_files(void **state)
{
    static const char *const names[] = {"hba", "ident", "bad", "worse", "users", "plain"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char *path = in_folder(names[i]);
        (void)unlink(path);
        free(path);
    }
    return drop_folder(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_method_stands_for_its_rules),
        cmocka_unit_test(rules_are_part_of_the_configuration),
        cmocka_unit_test(every_line_that_is_wrong_is_named),
        cmocka_unit_test(a_list_of_verifiers_is_read),
        cmocka_unit_test(a_changed_file_is_a_changed_setting),
    };
    log_configure((enum log_level)(LOG_LEVEL_ERROR + 1), LOG_FORMAT_TEXT); /* complaints are expected */
    return cmocka_run_group_tests_name("settings_auth", tests, make_folder, drop_files);
}
