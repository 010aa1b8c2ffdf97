/* proxy: the names in a peer's certificate, and the hash that binds a login to a TLS connection. */
#include "proxy/stream.h"
#include "proxy/tls_identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* Two ends of a connection in memory, after their handshake. */
struct ends {
    SSL_CTX *server_context, *client_context;
    struct stream server, client;
};

static EVP_PKEY *make_key(const char *kind)
{
    EVP_PKEY *key = strcmp(kind, "EC") == 0 ? EVP_EC_gen("P-256") : EVP_PKEY_Q_keygen(NULL, NULL, kind);
    assert_non_null(key);
    return key;
}

/* Signed by itself; length: of the common name, which may have a NUL inside. */
static X509 *make_certificate(EVP_PKEY *key, const EVP_MD *digest, const char *name, int length,
                              const char *alternatives)
{
    X509 *certificate = X509_new();
    assert_non_null(certificate);
    assert_int_equal(X509_set_version(certificate, 2), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 7), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), -60));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600));
    X509_NAME *subject = X509_get_subject_name(certificate);
    assert_int_equal(
        X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const uint8_t *)"Acme, Inc", -1, -1, 0), 1);
    assert_int_equal(
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const uint8_t *)name, length, -1, 0), 1);
    assert_int_equal(X509_set_issuer_name(certificate, subject), 1);
    if (alternatives != NULL) {
        X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alternatives);
        assert_non_null(extension);
        assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
        X509_EXTENSION_free(extension);
    }
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    assert_true(X509_sign(certificate, key, digest) > 0);
    return certificate;
}

static SSL_CTX *make_context(const SSL_METHOD *method, EVP_PKEY *key, X509 *certificate, X509 *trusted)
{
    SSL_CTX *context = SSL_CTX_new(method);
    assert_non_null(context);
    if (certificate != NULL) {
        assert_int_equal(SSL_CTX_use_certificate(context, certificate), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    }
    if (trusted != NULL) {
        assert_int_equal(X509_STORE_add_cert(SSL_CTX_get_cert_store(context), trusted), 1);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    }
    return context;
}

/* The server trusts `trusted`, the client shows `shown`; NULL: doesn't. */
static void connect_ends(struct ends *ends, EVP_PKEY *key, X509 *own, X509 *shown, X509 *trusted)
{
    *ends = (struct ends){.server = {.ssl = NULL}};
    ends->server_context = make_context(TLS_server_method(), key, own, trusted);
    ends->client_context = make_context(TLS_client_method(), key, shown, NULL);
    ends->server.ssl = SSL_new(ends->server_context);
    ends->client.ssl = SSL_new(ends->client_context);
    BIO *left = NULL, *right = NULL;
    assert_int_equal(BIO_new_bio_pair(&left, 0, &right, 0), 1);
    SSL_set_bio(ends->server.ssl, left, left);
    SSL_set_bio(ends->client.ssl, right, right);
    SSL_set_accept_state(ends->server.ssl);
    SSL_set_connect_state(ends->client.ssl);
    for (int i = 0; i < 10; i++) {
        (void)SSL_do_handshake(ends->client.ssl);
        (void)SSL_do_handshake(ends->server.ssl);
    }
    assert_true(SSL_is_init_finished(ends->server.ssl));
    assert_true(SSL_is_init_finished(ends->client.ssl));
}

static void disconnect_ends(struct ends *ends)
{
    SSL_free(ends->server.ssl);
    SSL_free(ends->client.ssl);
    SSL_CTX_free(ends->server_context);
    SSL_CTX_free(ends->client_context);
}

static void a_verified_certificate_names_its_owner(void **state)
{
    (void)state;
    struct ends ends;
    struct tls_identity identity;
    EVP_PKEY *key = make_key("EC");
    X509 *certificate =
        make_certificate(key, EVP_sha256(), "joe", -1,
                         "DNS:joe.example,email:joe@example.org,URI:spiffe://x/joe,IP:127.0.0.1");
    connect_ends(&ends, key, certificate, certificate, certificate);
    assert_int_equal(tls_identity_of(&ends.server, &identity), TLS_IDENTITY_OK);
    assert_string_equal(identity.common_name, "joe");
    assert_string_equal(identity.subject, "CN=joe,O=Acme\\, Inc");
    assert_int_equal(identity.alternative_count, 3);
    assert_int_equal(identity.alternatives[0].kind, TLS_NAME_DNS);
    assert_string_equal(identity.alternatives[0].text, "joe.example");
    assert_int_equal(identity.alternatives[1].kind, TLS_NAME_EMAIL);
    assert_string_equal(identity.alternatives[1].text, "joe@example.org");
    assert_int_equal(identity.alternatives[2].kind, TLS_NAME_URI);
    assert_string_equal(identity.alternatives[2].text, "spiffe://x/joe");
    tls_identity_deinit(&identity);
    disconnect_ends(&ends);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void nobody_is_named_without_a_verified_certificate(void **state)
{
    (void)state;
    struct ends ends;
    struct tls_identity identity;
    const struct stream plain = {.ssl = NULL};
    assert_int_equal(tls_identity_of(&plain, &identity), TLS_IDENTITY_NONE);
    EVP_PKEY *key = make_key("EC");
    X509 *certificate = make_certificate(key, EVP_sha256(), "joe", -1, NULL);
    connect_ends(&ends, key, certificate, NULL, certificate); /* it shows none */
    assert_int_equal(tls_identity_of(&ends.server, &identity), TLS_IDENTITY_NONE);
    disconnect_ends(&ends);
    connect_ends(&ends, key, certificate, certificate, NULL); /* nobody asks for one */
    assert_int_equal(tls_identity_of(&ends.server, &identity), TLS_IDENTITY_NONE);
    /* the client sees the server's, and verifies nothing */
    assert_int_equal(tls_identity_of(&ends.client, &identity), TLS_IDENTITY_NONE);
    disconnect_ends(&ends);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void a_name_with_a_nul_inside_names_nobody(void **state)
{
    (void)state;
    struct ends ends;
    struct tls_identity identity;
    EVP_PKEY *key = make_key("EC");
    X509 *certificate = make_certificate(key, EVP_sha256(), "admin\0.joe", 10, NULL);
    connect_ends(&ends, key, certificate, certificate, certificate);
    assert_int_equal(tls_identity_of(&ends.server, &identity), TLS_IDENTITY_BAD);
    disconnect_ends(&ends);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

/* Both ends find the same hash, of the length that the certificate's signature asks for. */
static void expect_end_point(const char *kind, const EVP_MD *digest, size_t length)
{
    struct ends ends;
    uint8_t ours[TLS_END_POINT_MAX], theirs[TLS_END_POINT_MAX];
    EVP_PKEY *key = make_key(kind);
    X509 *certificate = make_certificate(key, digest, "server", -1, NULL);
    connect_ends(&ends, key, certificate, NULL, NULL);
    assert_int_equal(tls_end_point(&ends.server, ours), length);
    assert_int_equal(tls_end_point(&ends.client, theirs), length);
    if (length > 0) {
        uint8_t whole[TLS_END_POINT_MAX];
        assert_int_equal(X509_digest(certificate, length == 32 ? EVP_sha256() : digest, whole, NULL), 1);
        assert_memory_equal(ours, whole, length);
        assert_memory_equal(theirs, whole, length);
    }
    disconnect_ends(&ends);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void both_ends_find_the_same_end_point(void **state)
{
    (void)state;
    const struct stream plain = {.ssl = NULL};
    uint8_t hash[TLS_END_POINT_MAX];
    assert_int_equal(tls_end_point(&plain, hash), 0);
    expect_end_point("EC", EVP_sha256(), 32);
    expect_end_point("EC", EVP_sha384(), 48);
    expect_end_point("EC", EVP_sha512(), 64);
    expect_end_point("ED25519", NULL, 0); /* its signature has no hash of its own */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verified_certificate_names_its_owner),
        cmocka_unit_test(nobody_is_named_without_a_verified_certificate),
        cmocka_unit_test(a_name_with_a_nul_inside_names_nobody),
        cmocka_unit_test(both_ends_find_the_same_end_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
