#include "proxy/tls.h"

#include "conf/base/log.h"
#include "conf/base/network.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXPIRY_WARNING_DAYS = 14 };

/* A setting that could not be used, with what OpenSSL says about it. */
static bool complain(struct error *error, const char *section, const char *key, const char *path,
                     const char *otherwise)
{
    unsigned long first = ERR_peek_error(), code = ERR_SYSTEM_ERROR(first) ? first : ERR_peek_last_error();
    const char *reason =
        ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
    (void)error_set(error, ERROR_CONFIG, "%s.%s: %s: %s", section, key, path,
                    code != 0 && reason != NULL ? reason : otherwise);
    ERR_clear_error();
    return false;
}

/* A key that asks for a passphrase can't be used: nobody is there to type it. */
/* NOLINTNEXTLINE(readability-non-const-parameter): it is OpenSSL's callback */
static int refuse_passphrase(char *buffer, int size, int writing, void *asked)
{
    (void)buffer;
    (void)size;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

/* As PostgreSQL does: a key that others may read is no secret; root may share it with the daemon's group. */
static bool check_key_file(const char *section, const char *path, struct error *error)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        return error_set(error, ERROR_CONFIG, "%s.key: %s: %s", section, path, strerror(errno));
    }
    bool of_root = status.st_uid == 0 && geteuid() != 0;
    mode_t forbidden = of_root ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;
    if ((status.st_mode & forbidden) != 0) {
        (void)error_set(error, ERROR_CONFIG, "%s.key: %s: others may read it", section, path);
        return error_remedy(error, "chmod 600 %s (640 if root owns it)", path);
    }
    return true;
}

/* Certificates that end soon are forgotten until they do: each load says so. */
static void warn_of_end(const SSL_CTX *context, const char *section, const char *cert)
{
    const ASN1_TIME *end = X509_get0_notAfter(SSL_CTX_get0_certificate(context));
    int days = 0, seconds = 0;
    if (end != NULL && ASN1_TIME_diff(&days, &seconds, NULL, end) == 1 && days < EXPIRY_WARNING_DAYS) {
        LOG_WARN("certificate_expires", LOG_STR("setting", section), LOG_STR("path", cert),
                 LOG_BOOL("expired", days < 0 || seconds < 0), LOG_I64("days", days));
    }
}

static bool load_pair(SSL_CTX *context, const char *section, const char *cert, const char *key,
                      struct error *error)
{
    bool asked = false;
    if (!check_key_file(section, key, error)) {
        return false;
    }
    SSL_CTX_set_default_passwd_cb(context, refuse_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(context, &asked);
    bool ok = SSL_CTX_use_certificate_chain_file(context, cert) == 1 ||
              complain(error, section, "cert", cert, "it holds no certificate in PEM");
    if (ok && SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ok = false;
        if (asked) {
            ERR_clear_error();
            (void)error_set(error, ERROR_CONFIG, "%s.key: %s: it is protected by a passphrase", section, key);
            (void)error_remedy(error, "write it without one: openssl pkey -in KEY -out NEW");
        } else {
            (void)complain(error, section, "key", key, "it holds no private key in PEM");
        }
    }
    SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
    if (ok) {
        warn_of_end(context, section, cert);
    }
    return ok;
}

static bool load_trust(SSL_CTX *context, const char *section, const char *ca, const char *crl,
                       struct error *error)
{
    if (SSL_CTX_load_verify_file(context, ca) != 1) {
        return complain(error, section, "ca", ca, "it holds no certificate in PEM");
    }
    if (crl[0] == '\0') {
        return true;
    }
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
    if (lookup == NULL || X509_load_crl_file(lookup, crl, X509_FILETYPE_PEM) < 1) {
        return complain(error, section, "crl", crl, "it holds no revocation list in PEM");
    }
    (void)X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return true;
}

/*
 * No sessions, no tickets, no renegotiation, no compression, as PostgreSQL; an idle connection gives its
 * buffers back, which are 32 KiB otherwise.
 */
static SSL_CTX *new_context(const SSL_METHOD *method, struct error *error)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(method);
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_num_tickets(context, 0) != 1) {
        SSL_CTX_free(context);
        (void)error_set(error, ERROR_MEMORY, "out of memory for TLS");
        return NULL;
    }
    (void)SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                           SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return context;
}

/* --- clients --- */

static const unsigned char protocols[] = "\x0a" TLS_PROTOCOL;
enum { PROTOCOLS_LENGTH = sizeof(protocols) - 1 };

/* A client that names protocols and not ours has come to the wrong door. */
static int choose_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *length,
                           const unsigned char *offered, unsigned offered_length, void *argument)
{
    (void)ssl;
    (void)argument;
    unsigned char *found = NULL;
    int answer = SSL_select_next_proto(&found, length, protocols, PROTOCOLS_LENGTH, offered, offered_length);
    if (answer != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

/* Clients are asked for a certificate, and may do without one; what they show must be signed by the CA. */
static bool ask_for_certificates(SSL_CTX *context, const char *ca, struct error *error)
{
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(ca);
    if (names == NULL) {
        return complain(error, "listen.tls", "ca", ca, "it holds no certificate in PEM");
    }
    SSL_CTX_set_client_CA_list(context, names);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, NULL);
    return true;
}

bool tls_listen_context(const struct settings_listen_tls *settings, SSL_CTX **context, struct error *error)
{
    static const char section[] = "listen.tls";
    *context = NULL;
    if (settings->mode == TLS_MODE_DISABLE) {
        return true;
    }
    SSL_CTX *made = new_context(TLS_server_method(), error);
    if (made == NULL) {
        return false;
    }
    if (settings->min_version == TLS_VERSION_1_3) {
        (void)SSL_CTX_set_min_proto_version(made, TLS1_3_VERSION);
    }
    SSL_CTX_set_alpn_select_cb(made, choose_protocol, NULL);
    if (settings->ciphers[0] != '\0' && SSL_CTX_set_cipher_list(made, settings->ciphers) != 1) {
        SSL_CTX_free(made);
        return complain(error, section, "ciphers", settings->ciphers, "no cipher is known by that");
    }
    if (!load_pair(made, section, settings->cert, settings->key, error) ||
        (settings->ca[0] != '\0' && (!load_trust(made, section, settings->ca, settings->crl, error) ||
                                     !ask_for_certificates(made, settings->ca, error)))) {
        SSL_CTX_free(made);
        return false;
    }
    *context = made;
    return true;
}

/* --- servers --- */

bool tls_server_context(const struct settings_tls *settings, const char *name, SSL_CTX **context,
                        struct error *error)
{
    *context = NULL;
    if (settings->mode == TLS_MODE_DISABLE) {
        return true;
    }
    SSL_CTX *made = new_context(TLS_client_method(), error);
    if (made == NULL) {
        return false;
    }
    bool ok = SSL_CTX_set_alpn_protos(made, protocols, PROTOCOLS_LENGTH) == 0 ||
              error_set(error, ERROR_MEMORY, "out of memory for TLS");
    if (ok && settings->ca[0] != '\0') {
        ok = load_trust(made, name, settings->ca, settings->crl, error);
        SSL_CTX_set_verify(made, SSL_VERIFY_PEER, NULL);
    }
    if (!ok || (settings->cert[0] != '\0' && !load_pair(made, name, settings->cert, settings->key, error))) {
        SSL_CTX_free(made);
        return false;
    }
    *context = made;
    return true;
}

bool tls_certificate_is_for(const SSL *ssl, const char *host, char subject[TLS_SUBJECT_SIZE])
{
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    subject[0] = '\0';
    if (certificate == NULL) {
        return false;
    }
    /* an address may also stand where names do: older tools put it there */
    bool is_address = network_is_address(host);
    unsigned flags = is_address ? X509_CHECK_FLAG_NO_WILDCARDS : X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
    if ((is_address && X509_check_ip_asc(certificate, host, 0) == 1) ||
        X509_check_host(certificate, host, strlen(host), flags, NULL) == 1) {
        return true;
    }
    (void)X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, subject,
                                    TLS_SUBJECT_SIZE);
    return false;
}
