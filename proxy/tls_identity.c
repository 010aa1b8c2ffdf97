#include "proxy/tls_identity.h"

#include "proxy/stream.h"

#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

/* The bytes need not end in a NUL. NULL: they have one inside, or out of memory. */
static char *copy_text(const void *bytes, size_t length)
{
    char *text = length > 0 && memchr(bytes, 0, length) != NULL ? NULL : malloc(length + 1);
    if (text != NULL) {
        if (length > 0) {
            memcpy(text, bytes, length);
        }
        text[length] = '\0';
    }
    return text;
}

/* NULL: a NUL inside, or out of memory. */
static char *text_of(const ASN1_STRING *string)
{
    unsigned char *utf8 = NULL;
    int length = ASN1_STRING_to_UTF8(&utf8, string);
    char *text = length < 0 ? NULL : copy_text(utf8, (size_t)length);
    OPENSSL_free(utf8);
    return text;
}

static char *common_name_of(const X509_NAME *name)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    return at < 0 ? strdup("") : text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
}

static char *subject_of(const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL, *bytes = NULL;
    if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) != -1) {
        long length = BIO_get_mem_data(bio, &bytes);
        text = length < 0 ? NULL : copy_text(bytes, (size_t)length);
    }
    BIO_free(bio);
    return text;
}

/* False: a name has a NUL inside, or out of memory. Other kinds of names are left out. */
static bool add_alternative(struct tls_identity *identity, const GENERAL_NAME *general)
{
    static const struct {
        int type;
        enum tls_name_kind kind;
    } kinds[] = {{GEN_DNS, TLS_NAME_DNS}, {GEN_EMAIL, TLS_NAME_EMAIL}, {GEN_URI, TLS_NAME_URI}};
    int type = 0;
    const ASN1_STRING *string = GENERAL_NAME_get0_value(general, &type);
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++) {
        if (kinds[i].type == type) {
            struct tls_name *name = &identity->alternatives[identity->alternative_count];
            *name = (struct tls_name){.kind = kinds[i].kind, .text = text_of(string)};
            identity->alternative_count += name->text != NULL;
            return name->text != NULL;
        }
    }
    return true;
}

static bool add_alternatives(struct tls_identity *identity, const X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    if (names == NULL) {
        return true;
    }
    int count = sk_GENERAL_NAME_num(names);
    identity->alternatives = calloc((size_t)count + 1, sizeof(*identity->alternatives));
    bool ok = identity->alternatives != NULL;
    for (int i = 0; ok && i < count; i++) {
        ok = add_alternative(identity, sk_GENERAL_NAME_value(names, i));
    }
    GENERAL_NAMES_free(names);
    return ok;
}

enum tls_identity_answer tls_identity_of(const struct stream *stream, struct tls_identity *identity)
{
    const SSL *ssl = stream->ssl;
    const X509 *certificate = ssl == NULL ? NULL : SSL_get0_peer_certificate(ssl);
    *identity = (struct tls_identity){.common_name = NULL};
    if (certificate == NULL || (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) == 0 ||
        SSL_get_verify_result(ssl) != X509_V_OK) {
        return TLS_IDENTITY_NONE;
    }
    const X509_NAME *name = X509_get_subject_name(certificate);
    identity->common_name = common_name_of(name);
    identity->subject = subject_of(name);
    if (identity->common_name == NULL || identity->subject == NULL ||
        !add_alternatives(identity, certificate)) {
        tls_identity_deinit(identity);
        return TLS_IDENTITY_BAD;
    }
    return TLS_IDENTITY_OK;
}

void tls_identity_deinit(struct tls_identity *identity)
{
    for (size_t i = 0; i < identity->alternative_count; i++) {
        free(identity->alternatives[i].text);
    }
    free(identity->alternatives);
    free(identity->common_name);
    free(identity->subject);
    *identity = (struct tls_identity){.common_name = NULL};
}

size_t tls_end_point(const struct stream *stream, uint8_t hash[TLS_END_POINT_MAX])
{
    const SSL *ssl = stream->ssl;
    int kind = NID_undef;
    unsigned length = 0;
    if (ssl == NULL) {
        return 0;
    }
    X509 *certificate = SSL_is_server(ssl) ? SSL_get_certificate(ssl) : SSL_get0_peer_certificate(ssl);
    if (certificate == NULL || X509_get_signature_info(certificate, &kind, NULL, NULL, NULL) != 1) {
        return 0;
    }
    /* RFC 5929: a hash too weak for it gives way to SHA-256 */
    const EVP_MD *digest = kind == NID_md5 || kind == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(kind);
    if (digest == NULL || EVP_MD_get_size(digest) > TLS_END_POINT_MAX ||
        X509_digest(certificate, digest, hash, &length) != 1) {
        return 0;
    }
    return length;
}
