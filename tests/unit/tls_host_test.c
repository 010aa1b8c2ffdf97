/* proxy: for which host a server's certificate is, as verify-full asks. */
#include "proxy/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/x509v3.h>

static X509 *make_certificate(EVP_PKEY *key, const char *name, const char *alternatives)
{
    X509 *certificate = X509_new();
    assert_non_null(certificate);
    assert_int_equal(X509_set_version(certificate, 2), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 7), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), -60));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600));
    X509_NAME *subject = X509_get_subject_name(certificate);
    assert_int_equal(
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const uint8_t *)name, -1, -1, 0), 1);
    assert_int_equal(X509_set_issuer_name(certificate, subject), 1);
    if (alternatives != NULL) {
        X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alternatives);
        assert_non_null(extension);
        assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
        X509_EXTENSION_free(extension);
    }
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    return certificate;
}

/* Whether a server that shows such a certificate is taken for the host. */
static bool is_for(const char *name, const char *alternatives, const char *host)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = make_certificate(key, name, alternatives);
    SSL_CTX *server_context = SSL_CTX_new(TLS_server_method());
    SSL_CTX *client_context = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_certificate(server_context, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(server_context, key), 1);
    SSL *server = SSL_new(server_context), *client = SSL_new(client_context);
    BIO *left = NULL, *right = NULL;
    assert_int_equal(BIO_new_bio_pair(&left, 0, &right, 0), 1);
    SSL_set_bio(server, left, left);
    SSL_set_bio(client, right, right);
    SSL_set_accept_state(server);
    SSL_set_connect_state(client);
    for (int i = 0; i < 10; i++) {
        (void)SSL_do_handshake(client);
        (void)SSL_do_handshake(server);
    }
    char subject[TLS_SUBJECT_SIZE];
    bool result = tls_certificate_is_for(client, host, subject);
    assert_string_equal(subject, result ? "" : name);
    SSL_free(server);
    SSL_free(client);
    SSL_CTX_free(server_context);
    SSL_CTX_free(client_context);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return result;
}

static void names_are_compared_with_the_alternatives_first(void **state)
{
    (void)state;
    assert_true(is_for("x", "DNS:blue.db,DNS:other", "blue.db"));
    assert_true(is_for("x", "DNS:Blue.DB", "blue.db"));
    assert_true(is_for("blue.db", NULL, "blue.db")); /* an old one, without alternatives */
    assert_false(is_for("blue.db", "DNS:other", "blue.db"));
    assert_false(is_for("x", "DNS:blue.db", "green.db"));
    assert_false(is_for("x", "DNS:blue.db", "blue.db.evil.example"));
}

static void a_wildcard_stands_for_one_label(void **state)
{
    (void)state;
    assert_true(is_for("x", "DNS:*.db.example", "blue.db.example"));
    assert_false(is_for("x", "DNS:*.db.example", "a.blue.db.example"));
    assert_false(is_for("x", "DNS:*.db.example", "db.example"));
    assert_false(is_for("x", "DNS:b*.db.example", "blue.db.example"));
}

static void an_address_is_one_in_the_certificate(void **state)
{
    (void)state;
    assert_true(is_for("x", "IP:10.0.0.1", "10.0.0.1"));
    assert_true(is_for("x", "IP:::1", "::1"));
    assert_true(is_for("10.0.0.1", NULL, "10.0.0.1"));
    assert_true(is_for("x", "DNS:10.0.0.1", "10.0.0.1")); /* as libpq takes it */
    assert_false(is_for("x", "IP:10.0.0.1", "10.0.0.2"));
    assert_false(is_for("x", "DNS:*.0.0.2", "10.0.0.2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_compared_with_the_alternatives_first),
        cmocka_unit_test(a_wildcard_stands_for_one_label),
        cmocka_unit_test(an_address_is_one_in_the_certificate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
