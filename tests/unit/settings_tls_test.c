/* conf/settings: TLS with clients and with the servers. */
#include "tests/unit/settings_file.h"

#define SIDES(tls)                                                                                           \
    "sides:\n"                                                                                               \
    "  blue:\n"                                                                                              \
    "    host: a\n"                                                                                          \
    "    tls: " tls "\n"                                                                                     \
    "  green: { host: b }\n"                                                                                 \
    "manager: { user: m }\n"                                                                                 \
    "databases: [ app ]\n"

static void off_with_clients_and_preferred_with_servers(void **state)
{
    (void)state;
    struct settings *s = load_well(ENOUGH);
    assert_int_equal(s->listen_tls.mode, TLS_MODE_DISABLE);
    assert_int_equal(s->listen_tls.min_version, TLS_VERSION_1_2);
    assert_int_equal(s->sides[SIDE_BLUE].tls.mode, TLS_MODE_PREFER);
    assert_int_equal(s->sides[SIDE_GREEN].replication_tls.mode, TLS_MODE_PREFER);
    assert_string_equal(s->sides[SIDE_BLUE].tls.ca, "");
    assert_string_equal(s->sides[SIDE_BLUE].tls_server_name, "");
    settings_free(s);
}

static void listening_needs_certificate_and_key(void **state)
{
    (void)state;
    struct settings *s = load_well(
        ENOUGH "listen: { tls: { mode: require, cert: c.pem, key: k.pem, min_version: TLSv1.3 } }\n");
    char *cert = in_folder("c.pem");
    assert_string_equal(s->listen_tls.cert, cert); /* relative to the file */
    free(cert);
    assert_int_equal(s->listen_tls.mode, TLS_MODE_REQUIRE);
    assert_int_equal(s->listen_tls.min_version, TLS_VERSION_1_3);
    settings_free(s);
    refused(ENOUGH "listen:\n  tls:\n    mode: prefer\n", 6, "listen.tls.cert: expected a certificate", NULL);
    refused(ENOUGH "listen:\n  tls:\n    cert: c\n", 6, "listen.tls.key: expected the private key", NULL);
    refused(ENOUGH "listen:\n  tls:\n    key: c\n", 6, "listen.tls.cert: expected the certificate", NULL);
    refused(ENOUGH "listen: { tls: { crl: c } }\n", 4, "listen.tls.ca: expected whose", NULL);
    refused(ENOUGH "listen: { tls: { mode: verify-full } }\n", 4,
            "listen.tls.mode: expected disable | prefer | require, found", NULL);
    refused(ENOUGH "listen: { tls: { min_version: SSLv3 } }\n", 4, "expected TLSv1.2 | TLSv1.3", NULL);
}

static void verifying_needs_an_authority(void **state)
{
    (void)state;
    refused(SIDES("{ mode: verify-ca }"), 4, "sides.blue.tls.ca: expected who signs", NULL);
    refused(SIDES("{ mode: verify-full }"), 4, "sides.blue.tls.ca: expected who signs", NULL);
    refused(SIDES("{ cert: c }"), 4, "sides.blue.tls.key: expected the private key", NULL);
    refused(SIDES("{ crl: c }"), 4, "sides.blue.tls.ca: expected whose", NULL);
    struct settings *s = load_well(SIDES("{ mode: verify-full, ca: /x/ca, server_name: blue.db }"));
    assert_int_equal(s->sides[SIDE_BLUE].tls.mode, TLS_MODE_VERIFY_FULL);
    assert_string_equal(s->sides[SIDE_BLUE].tls_server_name, "blue.db");
    settings_free(s);
}

static void a_unix_socket_has_no_tls(void **state)
{
    (void)state;
    static const char text[] = "sides: { blue: { host: /run, tls: { mode: require } }, green: { host: b } }\n"
                               "manager: { user: m }\n"
                               "databases: [ app ]\n";
    refused(text, 1, "sides.blue.tls.mode: expected disable or prefer", NULL);
    /* the other side may come over the network, and this one's own way be a socket */
    struct settings *s =
        load_well("sides:\n"
                  "  blue: { host: a, tls: { mode: require }, replication: { host: /run } }\n"
                  "  green: { host: b }\n"
                  "manager: { user: m }\n"
                  "databases: [ app ]\n");
    assert_int_equal(s->sides[SIDE_BLUE].replication_tls.mode, TLS_MODE_PREFER);
    settings_free(s);
}

static void replication_is_as_the_side_unless_told(void **state)
{
    (void)state;
    struct settings *s =
        load_well(SIDES("{ mode: verify-ca, ca: /x/ca, crl: /x/crl, cert: /x/c, key: /x/k }"));
    const struct settings_tls *tls = &s->sides[SIDE_BLUE].replication_tls;
    assert_int_equal(tls->mode, TLS_MODE_VERIFY_CA);
    assert_string_equal(tls->ca, "/x/ca");
    assert_string_equal(tls->crl, "/x/crl");
    assert_string_equal(tls->cert, "/x/c");
    assert_string_equal(tls->key, "/x/k");
    settings_free(s);
    s = load_well("sides:\n"
                  "  blue:\n"
                  "    host: a\n"
                  "    tls: { mode: require, ca: /x/ca }\n"
                  "    replication: { tls: { mode: disable, cert: /y/c, key: /y/k } }\n"
                  "  green: { host: b }\n"
                  "manager: { user: m }\n"
                  "databases: [ app ]\n");
    tls = &s->sides[SIDE_BLUE].replication_tls;
    assert_int_equal(tls->mode, TLS_MODE_DISABLE);
    assert_string_equal(tls->ca, "/x/ca");
    assert_string_equal(tls->cert, "/y/c");
    settings_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(off_with_clients_and_preferred_with_servers),
        cmocka_unit_test(listening_needs_certificate_and_key),
        cmocka_unit_test(verifying_needs_an_authority),
        cmocka_unit_test(a_unix_socket_has_no_tls),
        cmocka_unit_test(replication_is_as_the_side_unless_told),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
