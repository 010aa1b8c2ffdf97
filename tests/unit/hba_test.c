/* conf/hba: rules of pg_hba.conf, maps of pg_ident.conf, lists of verifiers. */
#include "conf/hba/hba.h"
#include "conf/hba/lines.h"
#include "conf/hba/userlist.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Files of the test: path, text, path, text ... NULL. */
static enum hba_read read_given(void *context, const char *path, struct strbuf *text, const char **why)
{
    for (const char *const *file = context; *file != NULL; file += 2) {
        if (strcmp(file[0], path) == 0) {
            strbuf_puts(text, file[1]);
            return HBA_READ_DONE;
        }
    }
    *why = "No such file or directory";
    return HBA_READ_ABSENT;
}

static struct hba *load_files(const char *const *files, const char *ident, struct hba_problems *problems)
{
    struct hba_source source = {.read = read_given, .context = (void *)(uintptr_t)files};
    hba_problems_init(problems);
    return hba_load_from(&source, "/etc/hba", ident, problems);
}

static struct hba *load_well(const char *text)
{
    const char *const files[] = {"/etc/hba", text, NULL};
    struct hba_problems problems;
    struct hba *hba = load_files(files, "", &problems);
    if (hba == NULL) {
        fail_msg("%s", strbuf_text(&problems.text));
    }
    hba_problems_deinit(&problems);
    return hba;
}

static bool is_member(const void *context, const char *role)
{
    return context != NULL && strcmp(context, role) == 0;
}

/* The line of the rule that holds; 0: none. from: an address, NULL for the Unix socket. */
static int line_for(const struct hba *hba, const char *from, bool tls, const char *database, const char *user,
                    const char *group)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct hba_client client = {.local = from == NULL,
                                .tls = tls,
                                .physical = database == NULL,
                                .database = database == NULL ? "" : database,
                                .user = user,
                                .is_member = is_member,
                                .context = group};
    if (from != NULL && inet_pton(AF_INET, from, &v4.sin_addr) == 1) {
        client.address = (const struct sockaddr *)&v4;
    } else if (from != NULL) {
        assert_int_equal(inet_pton(AF_INET6, from, &v6.sin6_addr), 1);
        client.address = (const struct sockaddr *)&v6;
    }
    const struct hba_demand *demand = hba_match(hba, &client);
    return demand == NULL ? 0 : demand->line;
}

static void the_first_rule_that_holds_counts(void **state)
{
    (void)state;
    struct hba *hba = load_well("# TYPE DATABASE USER ADDRESS METHOD\n"
                                "local   all  all                       peer\n"
                                "host    app  joe   10.0.0.0/8          reject\n"
                                "hostssl app  all   10.1.0.0/16         scram-sha-256\n"
                                "hostnossl app all  10.1.0.0/16         md5   # no encryption\n"
                                "host    sameuser all 0.0.0.0/0         trust\n"
                                "host    replication rep ::1/128        scram-sha-256\n"
                                "host    all  all   192.168.1.7 255.255.255.0 trust\n");
    assert_int_equal(line_for(hba, NULL, false, "x", "y", NULL), 2);
    assert_int_equal(line_for(hba, "10.1.2.3", true, "app", "joe", NULL), 3);
    assert_int_equal(line_for(hba, "10.1.2.3", true, "app", "ann", NULL), 4);
    assert_int_equal(line_for(hba, "10.1.2.3", false, "app", "ann", NULL), 5);
    assert_int_equal(line_for(hba, "10.2.2.3", false, "app", "ann", NULL), 0);
    assert_int_equal(line_for(hba, "8.8.8.8", false, "ann", "ann", NULL), 6);
    assert_int_equal(line_for(hba, "::ffff:8.8.8.8", false, "ann", "ann", NULL), 6);
    assert_int_equal(line_for(hba, "::1", false, NULL, "rep", NULL), 7);
    assert_int_equal(line_for(hba, "::1", false, "replication", "rep", NULL), 0);
    assert_int_equal(line_for(hba, "192.168.1.200", false, NULL, "rep", NULL), 0); /* all isn't replication */
    assert_int_equal(line_for(hba, "192.168.1.200", false, "db", "rep", NULL), 8);
    hba_unref(hba);
}

static void names_may_be_quoted_listed_and_patterns(void **state)
{
    (void)state;
    struct hba *hba = load_well("host \"all\",app, shop  joe,\"+ann\" all trust\n"
                                "host \"a \"\"b\"\", #\" all all trust\n"
                                "host /^db[0-9]+$,/^[]*+?[:space:]]+[.]$ \"/^svc_[a-z]{1,20}\" all trust\n"
                                "host db +staff all trust\n"
                                "host samerole all all trust\n"
                                "host long \\\n  tail all \\\r\n trust\n");
    assert_int_equal(line_for(hba, "1.2.3.4", false, "all", "joe", NULL), 1);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "shop", "+ann", NULL), 1);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "other", "joe", NULL), 0);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "a \"b\", #", "x", NULL), 2);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "db12", "svc_x", NULL), 3);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "db12x", "svc_x", NULL), 0);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "?+ ].", "svc_x", NULL), 3);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "db", "x", "staff"), 4);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "db", "staff", NULL), 0);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "team", "x", "team"), 5);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "long", "tail", NULL), 6);
    assert_true(hba_needs_groups(hba));
    hba_unref(hba);
    hba = load_well("host all all samehost trust\nhost all all samenet reject\n");
    assert_false(hba_needs_groups(hba));
    assert_null(hba_needs_tls(hba));
    assert_null(hba_needs_certificate(hba));
    assert_int_equal(line_for(hba, "127.0.0.1", false, "x", "x", NULL), 1);
    assert_int_equal(line_for(hba, "127.9.9.9", false, "x", "x", NULL), 2);
    hba_unref(hba);
}

static void options_are_taken(void **state)
{
    (void)state;
    const char *const files[] = {"/etc/hba",
                                 "hostssl all all all cert map=m clientname=DN\n"
                                 "hostssl all all all scram-sha-256 clientcert=verify-full\n",
                                 "/etc/ident", "m x y\n", NULL};
    struct hba_problems problems;
    struct hba *hba = load_files(files, "/etc/ident", &problems);
    assert_non_null(hba);
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    const struct hba_client client = {
        .address = (const struct sockaddr *)&v4, .tls = true, .user = "y", .database = "d"};
    const struct hba_demand *demand = hba_match(hba, &client);
    assert_int_equal(demand->method, HBA_CERT);
    assert_int_equal(demand->certificate, HBA_CERTIFICATE_VERIFY_FULL);
    assert_int_equal(demand->client_name, HBA_CLIENT_NAME_DN);
    assert_string_equal(demand->map, "m");
    assert_string_equal(demand->file, "/etc/hba");
    assert_int_equal(hba_needs_tls(hba)->line, 1);
    assert_int_equal(hba_needs_certificate(hba)->line, 1);
    hba_unref(hba);
    hba_problems_deinit(&problems);
}

static void every_mistake_is_told_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *complaint;
    } cases[] = {
        {"host\n", "the line ends before its database"},
        {"host all\n", "the line ends before its role"},
        {"host all all\n", "the line ends before its address"},
        {"local all all\n", "the line ends before its authentication method"},
        {"hots all all all trust\n", "unknown connection type \"hots\""},
        {"hostgssenc all all all trust\n", "hostgssenc is not supported"},
        {"host all all db.example.com trust\n", "host names are not supported"},
        {"host all all 10.0.0.0/33 trust\n", "\"10.0.0.0/33\" is no address"},
        {"host all all 10.0.0.0 trust\n", "\"trust\" is no netmask"},
        {"host all all 10.0.0.0\n", "the line ends before its netmask"},
        {"host all all 10.0.0.0/8,11.0.0.0/8 trust\n", "one address was expected, not several"},
        {"host all all all ldap ldapserver=x\n", "the method \"ldap\" is not supported"},
        {"host all all all password\n", "the method \"password\" is not supported"},
        {"host all all all ident\n", "the method \"ident\" is not supported"},
        {"host all all all TRUST\n", "unknown method \"TRUST\""},
        {"host all all all peer\n", "peer is for local lines only"},
        {"host all all all cert\n", "cert is for hostssl lines only"},
        {"local all all scram-sha-256 clientcert=verify-ca\n", "clientcert is for hostssl lines only"},
        {"hostssl all all all cert clientcert=verify-ca\n", "clientcert can only be verify-full"},
        {"hostssl all all all trust clientcert=1\n", "clientcert is verify-ca or verify-full"},
        {"hostssl all all all trust map=x\n", "map is for the methods cert and peer only"},
        {"local all all peer map=x\n", "no line of auth.ident_file has that map"},
        {"host all all all trust what\n", "an option is NAME=VALUE"},
        {"host all all all trust what=x\n", "unknown option \"what=x\""},
        {"host \"all all all trust\n", "a quote is not closed"},
        {"host /(x all all trust\n", "invalid regular expression"},
        {"host /x\\d all all trust\n", "\\d is not supported in a regular expression"},
        {"host /(?i)x all all trust\n", "(? is not supported"},
        {"host /^ab+?$ all all trust\n", "a repetition of a repetition is not supported"},
        {"host /^a{2}?$ all all trust\n", "a repetition of a repetition is not supported"},
        {"host \"/^a{,3}$\" all all trust\n", "{, is not supported"},
        {"host /^[\\w.]+$ all all reject\n", "a backslash in brackets is not supported"},
        {"host /^[]a\\.]+$ all all reject\n", "a backslash in brackets is not supported"},
        {"host /^[[:alpha:]\\.]+$ all all reject\n", "a backslash in brackets is not supported"},
        {"host /a\\b all all trust\n", "\\b is not supported"},
        {"host \"/\\<a\" all all trust\n", "\\< is not supported"},
        {"host \"/(x{1,255}){1,255}\" all all trust\n", "multiply to more than 1024"},
        {"host /x{99999999999999999999} all all trust\n", "multiply to more than 1024"},
        {"host /((((((((((((x+)+)+)+)+)+)+)+)+)+)+)+) all all trust\n", "multiply to more than 1024"},
        {"host \"/x{0,40}{30,}\" all all trust\n", "multiply to more than 1024"},
        {"host @missing all all trust\n", "\"/etc/missing\" can't be read: No such file"},
        {"include missing\n", "\"/etc/missing\" can't be read: No such file"},
        {"include_dir d\n", "include_dir is not supported"},
        {"include hba\n", "nested more than 10 deep"},
        {"", "it has no rules"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char text[300];
        (void)snprintf(text, sizeof text, "local all all trust\n%s", cases[i].text);
        const char *const files[] = {"/etc/hba", cases[i].text[0] == '\0' ? "" : text, NULL};
        struct hba_problems problems;
        if (load_files(files, "", &problems) != NULL) {
            fail_msg("%s was taken", cases[i].text);
        }
        const char *told = strbuf_text(&problems.text);
        if (strstr(told, cases[i].complaint) == NULL) {
            fail_msg("%s: %s", cases[i].text, told);
        }
        if (cases[i].text[0] != '\0' && strcmp(cases[i].text, "include hba\n") != 0) {
            assert_memory_equal(told, "/etc/hba:2: ", 12);
        }
        hba_problems_deinit(&problems);
    }
}

static void all_mistakes_are_told(void **state)
{
    (void)state;
    const char *const files[] = {"/etc/hba",
                                 "host all all all foo\n"
                                 "local all all trust\n"
                                 "include more\n"
                                 "host all all x trust\n",
                                 "/etc/more",
                                 "\nwhat\n",
                                 "/etc/ident",
                                 "m only two fields\nm a,b c\n",
                                 NULL};
    struct hba_problems problems;
    assert_null(load_files(files, "/etc/ident", &problems));
    assert_string_equal(strbuf_text(&problems.text),
                        "/etc/ident:1: a line is MAP SYSTEM-NAME ROLE: three fields, not 4\n"
                        "/etc/ident:2: field 2: one value was expected, found 2\n"
                        "/etc/hba:1: unknown method \"foo\"\n"
                        "/etc/more:2: unknown connection type \"what\": local, host, hostssl or hostnossl\n"
                        "/etc/hba:4: \"x\": host names are not supported, write an address with a mask\n");
    assert_int_equal(problems.count, 5);
    hba_problems_deinit(&problems);
}

static void other_files_are_included(void **state)
{
    (void)state;
    const char *const files[] = {"/etc/hba",
                                 "include sub/rules\n"
                                 "include_if_exists /nowhere\n"
                                 "host @dbs,extra all all trust\n",
                                 "/etc/sub/rules",
                                 "\nhost @names all all reject\n",
                                 "/etc/sub/names",
                                 "one # a comment\ntwo,\"three three\"\n",
                                 "/etc/dbs",
                                 "four\nfive",
                                 NULL};
    struct hba_problems problems;
    struct hba *hba = load_files(files, "", &problems);
    if (hba == NULL) {
        fail_msg("%s", strbuf_text(&problems.text));
    }
    assert_int_equal(line_for(hba, "1.2.3.4", false, "two", "x", NULL), 2);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "three three", "x", NULL), 2);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "five", "x", NULL), 3);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "extra", "x", NULL), 3);
    assert_int_equal(line_for(hba, "1.2.3.4", false, "six", "x", NULL), 0);
    hba_unref(hba);
    hba_problems_deinit(&problems);
}

static void maps_say_who_may_be_whom(void **state)
{
    (void)state;
    const char *const files[] = {"/etc/hba", "local all all peer map=m\n", "/etc/ident",
                                 "m   joe            postgres\n"
                                 "m   /^(.*)@corp$   \\1\n"
                                 "m   /^(.*)@dev$    dev_\\1_x\n"
                                 "m   root           all\n"
                                 "m   ops            +staff\n"
                                 "m   svc            /^svc_\n"
                                 "n   joe            other\n",
                                 NULL};
    static const struct {
        const char *map, *name, *role;
        bool allowed;
    } cases[] = {
        {NULL, "joe", "joe", true},
        {NULL, "joe", "ann", false},
        {"m", "joe", "postgres", true},
        {"m", "joe", "other", false},
        {"n", "joe", "other", true},
        {"m", "ann@corp", "ann", true},
        {"m", "ann@corp", "joe", false},
        {"m", "ann@corp.x", "ann", false},
        {"m", "ann@dev", "dev_ann_x", true},
        {"m", "ann@dev", "dev_ann_", false},
        {"m", "@dev", "dev__x", true},
        {"m", "root", "whoever", true},
        {"m", "ops", "bob", true},
        {"m", "svc", "svc_1", true},
        {"m", "svc", "x", false},
        {"o", "joe", "joe", false},
    };
    struct hba_problems problems;
    struct hba *hba = load_files(files, "/etc/ident", &problems);
    assert_non_null(hba);
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const struct hba_client client = {.user = cases[i].role,
                                          .database = "",
                                          .is_member = is_member,
                                          .context = strcmp(cases[i].role, "bob") == 0 ? "staff" : NULL};
        if (hba_may_be(hba, cases[i].map, cases[i].name, &client) != cases[i].allowed) {
            fail_msg("case %zu: %s as %s", i, cases[i].name, cases[i].role);
        }
    }
    hba_unref(hba);
    hba_problems_deinit(&problems);
    const char *const bad[] = {"/etc/hba", "local all all peer map=m\n", "/etc/ident", "m /^.*$ \\1\n", NULL};
    assert_null(load_files(bad, "/etc/ident", &problems));
    assert_non_null(strstr(strbuf_text(&problems.text), "/etc/ident:1: \"\\1\" refers to a group"));
    hba_problems_deinit(&problems);
}

static struct userlist *load_users(const char *text, struct hba_problems *problems)
{
    const char *const files[] = {"/etc/users", text, NULL};
    struct hba_source source = {.read = read_given, .context = (void *)(uintptr_t)files};
    hba_problems_init(problems);
    return userlist_load(&source, "/etc/users", problems);
}

#define SCRAM "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"
#define MD5   "md50123456789abcdef0123456789abcdef"

static void lists_of_verifiers_are_read(void **state)
{
    (void)state;
    struct hba_problems problems;
    struct userlist *list = load_users("; comment\n\n\"joe\" \"" SCRAM "\"\n  \"a \"\"b\"\"\" \"" MD5
                                       "\" more\r\n\"zoe\"\t\"\"\n\"\xc3\xa4\" \"" MD5 "\"",
                                       &problems);
    if (list == NULL) {
        fail_msg("%s", strbuf_text(&problems.text));
    }
    assert_string_equal(userlist_find(list, "joe"), SCRAM);
    assert_string_equal(userlist_find(list, "a \"b\""), MD5);
    assert_string_equal(userlist_find(list, "\xc3\xa4"), MD5);
    assert_string_equal(userlist_find(list, "zoe"), "");
    assert_null(userlist_find(list, "jo"));
    assert_null(userlist_find(list, "zz"));
    assert_false(userlist_is_md5(list));
    assert_int_equal(userlist_iterations(list), 4096);
    userlist_unref(list);
    hba_problems_deinit(&problems);

    assert_null(load_users("\"a\" \"plain\"\nb " MD5 "\n\"c\" \"" MD5 "\n\"\" \"\"\n\"d\" \"\"\n\"d\" \"\"\n",
                           &problems));
    assert_string_equal(strbuf_text(&problems.text),
                        "/etc/users:1: expected SCRAM-SHA-256$... or md5... as pg_authid.rolpassword holds "
                        "it; passwords in plain text are not supported\n"
                        "/etc/users:2: expected \"role\" \"verifier\"\n"
                        "/etc/users:3: expected \"role\" \"verifier\"\n"
                        "/etc/users:4: a role has 1 to 63 bytes\n"
                        "/etc/users:6: \"d\" stands in line 5 already\n");
    hba_problems_deinit(&problems);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_rule_that_holds_counts),
        cmocka_unit_test(names_may_be_quoted_listed_and_patterns),
        cmocka_unit_test(options_are_taken),
        cmocka_unit_test(every_mistake_is_told_with_its_line),
        cmocka_unit_test(all_mistakes_are_told),
        cmocka_unit_test(other_files_are_included),
        cmocka_unit_test(maps_say_who_may_be_whom),
        cmocka_unit_test(lists_of_verifiers_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
