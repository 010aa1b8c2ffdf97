#include "proxy/stream_tls.h"

#include "conf/base/ensure.h"
#include "conf/base/network.h"
#include "proxy/stream_internal.h"
#include "proxy/tls.h"

#include <limits.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

enum { FAILURE_SIZE = 256 };

/* --- between OpenSSL and the worker's buffers --- */

static int bio_read(BIO *bio, char *bytes, int size)
{
    const struct stream *stream = BIO_get_data(bio);
    struct read_buffer *buffer = stream->buffer;
    BIO_clear_retry_flags(bio);
    if (buffer->opening != stream || buffer->sealed_left == 0 || size <= 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t length = buffer->sealed_left < (size_t)size ? buffer->sealed_left : (size_t)size;
    memcpy(bytes, buffer->sealed_at, length);
    buffer->sealed_at += length;
    buffer->sealed_left -= length;
    return (int)length;
}

/* Sends what was sealed. A stream that broke stays readable: what the peer said before is still to be seen.
 */
static void send_sealed(struct stream *stream)
{
    struct read_buffer *buffer = stream->buffer;
    size_t length = buffer->out_length;
    buffer->out_length = 0;
    if (length > 0 && !stream->tls_broken) {
        stream->tls_broken = !stream_send(stream, buffer->out, length);
    }
}

static int bio_write(BIO *bio, const char *bytes, int length)
{
    struct stream *stream = BIO_get_data(bio);
    struct read_buffer *buffer = stream->buffer;
    BIO_clear_retry_flags(bio);
    for (size_t taken = 0; taken < (size_t)length;) {
        if (buffer->out_length == sizeof(buffer->out)) {
            send_sealed(stream);
        }
        size_t room = sizeof(buffer->out) - buffer->out_length;
        size_t piece = (size_t)length - taken < room ? (size_t)length - taken : room;
        memcpy(buffer->out + buffer->out_length, bytes + taken, piece);
        buffer->out_length += piece;
        taken += piece;
    }
    return length;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    ENSURE(bio_method != NULL && BIO_meth_set_read(bio_method, bio_read) == 1 &&
           BIO_meth_set_write(bio_method, bio_write) == 1 && BIO_meth_set_ctrl(bio_method, bio_control) == 1);
}

/* --- the handshake --- */

static bool begin(struct stream *stream, SSL_CTX *context)
{
    static uv_once_t once = UV_ONCE_INIT;
    uv_once(&once, make_bio_method);
    ENSURE(stream->ssl == NULL && stream->passed_length == 0);
    ERR_clear_error();
    SSL *ssl = SSL_new(context);
    BIO *bio = BIO_new(bio_method);
    if (ssl == NULL || bio == NULL) {
        SSL_free(ssl);
        BIO_free(bio);
        return false;
    }
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    stream->ssl = ssl;
    return true;
}

/* Nothing of the peer can be believed any more. The text is kept for whoever reports it. */
static void set_failed(struct stream *stream)
{
    char text[FAILURE_SIZE];
    long verdict = SSL_get_verify_result(stream->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    bool by_certificate = !stream->tls_secured && verdict != X509_V_OK &&
                          (SSL_get_verify_mode(stream->ssl) & SSL_VERIFY_PEER) != 0;
    if (by_certificate) {
        (void)snprintf(text, sizeof(text), "the certificate can't be trusted: %s",
                       X509_verify_cert_error_string(verdict));
    } else {
        (void)snprintf(text, sizeof(text), "%s", reason != NULL ? reason : "the TLS connection broke");
    }
    free(stream->tls_failure);
    stream->tls_failure = strdup(text);
    stream->tls_broken = true;
    ERR_clear_error();
}

static void set_secured(struct stream *stream)
{
    stream->tls_secured = true;
    if (stream->events->secured != NULL) {
        stream->events->secured(stream);
    }
}

/* Goes on with it as far as what was received lets it. */
static void shake_hands(struct stream *stream)
{
    ERR_clear_error();
    int done = SSL_do_handshake(stream->ssl);
    int error = done == 1 ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, done);
    send_sealed(stream);
    if (done == 1) {
        set_secured(stream);
    } else if (error != SSL_ERROR_WANT_READ) {
        set_failed(stream);
        stream_set_ended(stream, UV_EPROTO);
    }
}

bool stream_tls_accept(struct stream *stream, SSL_CTX *context)
{
    if (!begin(stream, context)) {
        return false;
    }
    SSL_set_accept_state(stream->ssl);
    return true;
}

bool stream_tls_connect(struct stream *stream, SSL_CTX *context, const char *host)
{
    if (!begin(stream, context)) {
        return false;
    }
    SSL_set_connect_state(stream->ssl);
    if (!network_is_address(host) && SSL_set_tlsext_host_name(stream->ssl, host) != 1) {
        return false;
    }
    shake_hands(stream);
    return true;
}

/* --- bytes --- */

/* Opens as many records as there are and have room. Returns the error that stopped it, or SSL_ERROR_NONE. */
static int open_records(struct stream *stream, char *bytes, size_t room, size_t *length)
{
    ERR_clear_error();
    while (*length < room) {
        int count = SSL_read(stream->ssl, bytes + *length, (int)(room - *length));
        if (count <= 0) {
            int error = SSL_get_error(stream->ssl, count);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_ZERO_RETURN) {
                send_sealed(stream); /* the alert */
                set_failed(stream);
            }
            return error;
        }
        *length += (size_t)count;
    }
    return SSL_ERROR_NONE;
}

static void open_all(struct stream *stream)
{
    struct read_buffer *buffer = stream->buffer;
    int error = SSL_ERROR_NONE;
    while (error == SSL_ERROR_NONE && stream->open && !stream->ended) {
        size_t at = buffer->used + READ_HEADROOM, length = 0;
        char *bytes = buffer->bytes + at;
        error = open_records(stream, bytes, sizeof(buffer->bytes) - at, &length);
        send_sealed(stream); /* answers of TLS itself */
        if (length > 0) {
            stream_deliver(stream, bytes, length);
        }
    }
    if (!stream->open || error == SSL_ERROR_NONE || error == SSL_ERROR_WANT_READ) {
        return;
    }
    stream_set_ended(stream, error == SSL_ERROR_ZERO_RETURN ? UV_EOF : UV_EPROTO);
}

void stream_tls_received(struct stream *stream, const char *bytes, size_t length)
{
    struct read_buffer *buffer = stream->buffer;
    buffer->opening = stream;
    buffer->sealed_at = bytes;
    buffer->sealed_left = length;
    if (!stream->tls_secured) {
        shake_hands(stream);
    }
    if (stream->tls_secured) {
        open_all(stream);
    }
    buffer->opening = NULL;
    buffer->sealed_left = 0;
}

void stream_tls_feed(struct stream *stream, const char *bytes, size_t length)
{
    stream_tls_received(stream, bytes, length);
}

bool stream_tls_send(struct stream *stream, const char *bytes, size_t length)
{
    ERR_clear_error();
    if (!stream->open || !stream->tls_secured) {
        return false;
    }
    while (length > 0 && !stream->tls_broken) {
        int count = SSL_write(stream->ssl, bytes, length > INT_MAX ? INT_MAX : (int)length);
        if (count <= 0) {
            set_failed(stream);
            break;
        }
        bytes += count;
        length -= (size_t)count;
    }
    send_sealed(stream);
    return !stream->tls_broken;
}

/* --- the end --- */

void stream_tls_goodbye(struct stream *stream)
{
    if (stream->tls_secured && !stream->tls_broken && !stream->tls_said_goodbye) {
        stream->tls_said_goodbye = true;
        ERR_clear_error();
        (void)SSL_shutdown(stream->ssl);
        send_sealed(stream);
    }
}

void stream_tls_free(struct stream *stream)
{
    SSL_free(stream->ssl);
    free(stream->tls_failure);
    stream->ssl = NULL;
    stream->tls_failure = NULL;
}

/* --- questions --- */

const char *stream_tls_failure(const struct stream *stream)
{
    return stream->tls_failure == NULL ? "" : stream->tls_failure;
}

const char *stream_tls_version(const struct stream *stream)
{
    return stream->tls_secured ? SSL_get_version(stream->ssl) : NULL;
}

bool stream_tls_has_protocol(const struct stream *stream)
{
    const unsigned char *name = NULL;
    unsigned length = 0;
    if (stream->ssl != NULL) {
        SSL_get0_alpn_selected(stream->ssl, &name, &length);
    }
    return length == sizeof(TLS_PROTOCOL) - 1 && memcmp(name, TLS_PROTOCOL, length) == 0;
}
