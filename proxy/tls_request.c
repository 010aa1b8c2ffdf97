#include "proxy/tls_request.h"

#include "proxy/stream_tls.h"
#include "proxy/tls.h"

bool tls_request_send(struct stream *stream)
{
    static const uint8_t request[] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};
    return stream_write(stream, request, sizeof(request));
}

enum tls_request_answer tls_request_answered(struct stream *stream, const struct proxy_config *config,
                                             enum side side, const char *bytes, size_t length)
{
    if (length != 1 || (bytes[0] != 'S' && bytes[0] != 'N')) {
        return TLS_REQUEST_BAD;
    }
    if (bytes[0] == 'N') {
        return TLS_REQUEST_DECLINED;
    }
    return stream_tls_connect(stream, config->sides[side].tls, config->sides[side].tls_name)
               ? TLS_REQUEST_ACCEPTED
               : TLS_REQUEST_BAD;
}

bool tls_request_verify(const struct stream *stream, const struct proxy_config *config, enum side side,
                        char subject[TLS_REQUEST_SUBJECT_SIZE])
{
    return config->sides[side].tls_mode != TLS_MODE_VERIFY_FULL ||
           tls_certificate_is_for(stream->ssl, config->sides[side].tls_name, subject);
}
