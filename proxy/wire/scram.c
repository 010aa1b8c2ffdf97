#include "proxy/wire/scram.h"

#include "conf/base/ensure.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NONCE_BYTES = 18,
    MOCK_SALT_SIZE = 16,
    MOCK_ITERATIONS = 4096,             /* PostgreSQL's default */
    KEY_TEXT_SIZE = 4 * 11 + 1,         /* 32 bytes in base64 */
    SALT_TEXT_SIZE = 4 * 22 + 1,        /* SCRAM_SALT_MAX bytes in base64 */
    AUTH_SIZE = 3 * SCRAM_MESSAGE_SIZE, /* client-first-bare, server-first, client-final-without-proof */
    ITERATIONS_MAX = 100000000
};

/* --- base64 (RFC 4648), strict: no white space, right padding ----------------------------------------------
 */

static int base64_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == '+') {
        return 62;
    }
    return c == '/' ? 63 : -1;
}

static bool base64_decode(struct slice text, uint8_t *bytes, size_t size, size_t *length)
{
    size_t padding = 0;
    if (text.length == 0 || text.length % 4 != 0) {
        return false;
    }
    while (padding < 2 && text.data[text.length - 1 - padding] == '=') {
        padding++;
    }
    size_t count = text.length / 4 * 3 - padding;
    if (count > size) {
        return false;
    }
    uint32_t group = 0;
    size_t written = 0;
    for (size_t i = 0; i < text.length; i++) {
        int value = i >= text.length - padding ? 0 : base64_value(text.data[i]);
        if (value < 0) {
            return false;
        }
        group = group << 6 | (uint32_t)value;
        if (i % 4 == 3) {
            for (int shift = 16; shift >= 0 && written < count; shift -= 8) {
                bytes[written++] = (uint8_t)(group >> shift);
            }
            group = 0;
        }
    }
    *length = count;
    return true;
}

static bool decode_key(struct slice text, uint8_t key[SCRAM_KEY_SIZE])
{
    size_t length = 0;
    return base64_decode(text, key, SCRAM_KEY_SIZE, &length) && length == SCRAM_KEY_SIZE;
}

static void encode(const uint8_t *bytes, size_t length, char *text)
{
    (void)EVP_EncodeBlock((unsigned char *)text, bytes, (int)length);
}

/* --- the arithmetic ----------------------------------------------------------------------------------------
 */

static void hmac(const uint8_t key[SCRAM_KEY_SIZE], const char *text, uint8_t digest[SCRAM_KEY_SIZE])
{
    unsigned length = SCRAM_KEY_SIZE;
    const unsigned char *made =
        HMAC(EVP_sha256(), key, SCRAM_KEY_SIZE, (const unsigned char *)text, strlen(text), digest, &length);
    ENSURE(made != NULL && length == SCRAM_KEY_SIZE);
}

static void stored_key_of(const uint8_t client_key[SCRAM_KEY_SIZE], uint8_t stored_key[SCRAM_KEY_SIZE])
{
    ENSURE(SHA256(client_key, SCRAM_KEY_SIZE, stored_key) != NULL);
}

/* --- channel binding
 * --------------------------------------------------------------------------------------- */

#define BINDING_FLAG "p=tls-server-end-point"

/* What c= says (RFC 5802): the header of client-first, and the hash if it binds. */
static void encode_binding(const char *flag, const struct scram_binding *binding,
                           char text[SCRAM_BINDING_SIZE])
{
    char header[sizeof BINDING_FLAG + 2];
    uint8_t bytes[sizeof header + SCRAM_HASH_MAX];
    int written = snprintf(header, sizeof header, "%s,,", flag);
    ENSURE(written > 0 && (size_t)written < sizeof header);
    size_t length = (size_t)written;
    memcpy(bytes, header, length);
    if (binding != NULL) {
        ENSURE(binding->length <= SCRAM_HASH_MAX);
        memcpy(bytes + length, binding->hash, binding->length);
        length += binding->length;
    }
    encode(bytes, length, text);
}

/* --- attributes: "x=value" up to a comma -------------------------------------------------------------------
 */

static bool take_attribute(struct slice *rest, char name, struct slice *value)
{
    if (rest->length < 2 || rest->data[0] != (uint8_t)name || rest->data[1] != '=') {
        return false;
    }
    const uint8_t *begin = rest->data + 2;
    size_t length = rest->length - 2;
    const uint8_t *comma = length == 0 ? NULL : memchr(begin, ',', length);
    *value = slice_of(begin, comma == NULL ? length : (size_t)(comma - begin));
    size_t taken = 2 + value->length + (comma == NULL ? 0 : 1);
    *rest = slice_of(rest->data + taken, rest->length - taken);
    return true;
}

static bool is_printable(struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] < 0x21 || text.data[i] > 0x7e) {
            return false;
        }
    }
    return text.length > 0;
}

static bool has_nul(struct slice text)
{
    return text.length > 0 && memchr(text.data, 0, text.length) != NULL;
}

/* --- verifiers ---------------------------------------------------------------------------------------------
 */

static bool take_until(struct slice *rest, char separator, struct slice *part)
{
    const uint8_t *end = rest->length == 0 ? NULL : memchr(rest->data, separator, rest->length);
    if (end == NULL) {
        return false;
    }
    *part = slice_of(rest->data, (size_t)(end - rest->data));
    *rest = slice_of(end + 1, rest->length - part->length - 1);
    return true;
}

static bool parse_iterations(struct slice text, uint32_t *iterations)
{
    char digits[12];
    if (text.length == 0 || text.length >= sizeof digits || text.data[0] < '1' || text.data[0] > '9') {
        return false;
    }
    char *end = NULL;
    long value = strtol(slice_copy(text, digits, sizeof digits), &end, 10);
    if (*end != '\0' || value > ITERATIONS_MAX) {
        return false;
    }
    *iterations = (uint32_t)value;
    return true;
}

bool scram_verifier_parse(const char *text, struct scram_verifier *verifier)
{
    struct slice rest = slice_text(text);
    struct slice scheme;
    struct slice iterations;
    struct slice salt;
    struct slice stored;
    *verifier = (struct scram_verifier){.mock = false};
    return take_until(&rest, '$', &scheme) && slice_equals(scheme, SCRAM_MECHANISM) &&
           take_until(&rest, ':', &iterations) && parse_iterations(iterations, &verifier->iterations) &&
           take_until(&rest, '$', &salt) &&
           base64_decode(salt, verifier->salt, sizeof verifier->salt, &verifier->salt_length) &&
           take_until(&rest, ':', &stored) && decode_key(stored, verifier->stored_key) &&
           decode_key(rest, verifier->server_key);
}

void scram_verifier_mock(const uint8_t secret[SCRAM_KEY_SIZE], const char *role, uint32_t iterations,
                         struct scram_verifier *verifier)
{
    uint8_t salt[SCRAM_KEY_SIZE];
    *verifier = (struct scram_verifier){.iterations = iterations == 0 ? MOCK_ITERATIONS : iterations,
                                        .salt_length = MOCK_SALT_SIZE,
                                        .mock = true};
    hmac(secret, role, salt);
    memcpy(verifier->salt, salt, MOCK_SALT_SIZE);
    hmac(salt, "stored key", verifier->stored_key);
    hmac(salt, "server key", verifier->server_key);
}

bool scram_nonce(char nonce[SCRAM_NONCE_SIZE])
{
    uint8_t bytes[NONCE_BYTES];
    if (RAND_bytes(bytes, sizeof bytes) != 1) {
        return false;
    }
    encode(bytes, sizeof bytes, nonce);
    return true;
}

/* --- server ------------------------------------------------------------------------------------------------
 */

/* The flag of the gs2-header: n, the client can't bind; y, it could, and believes that we can't; p=, it does.
 */
static enum scram_result take_flag(struct scram_server *server, const struct scram_binding *binding,
                                   bool plus, struct slice flag)
{
    server->bound = plus;
    if (slice_equals(flag, BINDING_FLAG)) {
        if (!plus || binding->length == 0) {
            return SCRAM_BAD;
        }
        encode_binding(BINDING_FLAG, binding, server->expected);
        return SCRAM_OK;
    }
    bool could = slice_equals(flag, "y");
    if (plus || (!could && !slice_equals(flag, "n"))) {
        return SCRAM_BAD;
    }
    if (could && binding->length > 0) {
        return SCRAM_DOWNGRADED;
    }
    encode_binding(could ? "y" : "n", NULL, server->expected);
    return SCRAM_OK;
}

static enum scram_result answer_first(struct scram_server *server, struct slice nonce, const char *own,
                                      char reply[SCRAM_MESSAGE_SIZE])
{
    char salt[SALT_TEXT_SIZE];
    encode(server->verifier.salt, server->verifier.salt_length, salt);
    int length = snprintf(server->nonce, sizeof server->nonce, "%.*s%s", (int)nonce.length,
                          (const char *)nonce.data, own);
    if (length < 0 || (size_t)length >= sizeof server->nonce) {
        return SCRAM_BAD;
    }
    length = snprintf(server->server_first, sizeof server->server_first, "r=%s,s=%s,i=%u", server->nonce,
                      salt, server->verifier.iterations);
    if (length < 0 || (size_t)length >= sizeof server->server_first) {
        return SCRAM_BAD;
    }
    memcpy(reply, server->server_first, (size_t)length + 1);
    return SCRAM_OK;
}

enum scram_result scram_server_first(struct scram_server *server, const struct scram_verifier *verifier,
                                     const struct scram_binding *binding, bool plus, const char *nonce,
                                     struct slice client_first, char reply[SCRAM_MESSAGE_SIZE])
{
    struct slice rest = client_first;
    struct slice flag;
    struct slice identity;
    struct slice value;
    *server = (struct scram_server){.verifier = *verifier};
    if (has_nul(client_first) || !take_until(&rest, ',', &flag)) {
        return SCRAM_BAD;
    }
    enum scram_result result = take_flag(server, binding, plus, flag);
    if (result != SCRAM_OK) {
        return result;
    }
    /* nobody logs in as somebody else (the identity) */
    if (!take_until(&rest, ',', &identity) || identity.length > 0 ||
        rest.length >= sizeof server->client_first_bare) {
        return SCRAM_BAD;
    }
    (void)slice_copy(rest, server->client_first_bare, sizeof server->client_first_bare);
    /* The name counts for nothing: the startup packet named the user. */
    if (!take_attribute(&rest, 'n', &value) || !take_attribute(&rest, 'r', &value) || !is_printable(value)) {
        return SCRAM_BAD;
    }
    return answer_first(server, value, nonce, reply);
}

/* Splits client-final into what the proof signs and the proof. */
static enum scram_result parse_client_final(const struct scram_server *server, struct slice message,
                                            struct slice *signed_part, uint8_t proof[SCRAM_KEY_SIZE])
{
    struct slice rest = message;
    struct slice value;
    if (has_nul(message) || !take_attribute(&rest, 'c', &value)) {
        return SCRAM_BAD;
    }
    if (!slice_equals(value, server->expected)) {
        return server->bound ? SCRAM_UNBOUND : SCRAM_BAD;
    }
    if (!take_attribute(&rest, 'r', &value) || !slice_equals(value, server->nonce)) {
        return SCRAM_BAD;
    }
    while (rest.length > 0 && rest.data[0] != 'p') { /* optional extensions */
        struct slice extension;
        if (!take_until(&rest, ',', &extension)) {
            return SCRAM_BAD;
        }
    }
    *signed_part = slice_of(message.data, message.length - rest.length);
    if (!take_attribute(&rest, 'p', &value) || rest.length > 0 || signed_part->length == 0) {
        return SCRAM_BAD;
    }
    signed_part->length--; /* the comma */
    return decode_key(value, proof) ? SCRAM_OK : SCRAM_BAD;
}

enum scram_result scram_server_final(struct scram_server *server, struct slice client_final,
                                     char reply[SCRAM_MESSAGE_SIZE], uint8_t client_key[SCRAM_KEY_SIZE])
{
    struct slice signed_part;
    uint8_t proof[SCRAM_KEY_SIZE];
    char auth[AUTH_SIZE];
    if (client_final.length >= SCRAM_MESSAGE_SIZE) {
        return SCRAM_BAD;
    }
    enum scram_result result = parse_client_final(server, client_final, &signed_part, proof);
    if (result != SCRAM_OK) {
        return result;
    }
    int length = snprintf(auth, sizeof auth, "%s,%s,%.*s", server->client_first_bare, server->server_first,
                          (int)signed_part.length, (const char *)signed_part.data);
    ENSURE(length > 0 && (size_t)length < sizeof auth);
    uint8_t signature[SCRAM_KEY_SIZE];
    uint8_t stored_key[SCRAM_KEY_SIZE];
    hmac(server->verifier.stored_key, auth, signature);
    for (size_t i = 0; i < SCRAM_KEY_SIZE; i++) {
        client_key[i] = proof[i] ^ signature[i];
    }
    stored_key_of(client_key, stored_key);
    OPENSSL_cleanse(proof, sizeof proof);
    OPENSSL_cleanse(signature, sizeof signature);
    bool holds = CRYPTO_memcmp(stored_key, server->verifier.stored_key, SCRAM_KEY_SIZE) == 0;
    if (!holds || server->verifier.mock) {
        OPENSSL_cleanse(client_key, SCRAM_KEY_SIZE);
        return SCRAM_REFUSED;
    }
    char text[KEY_TEXT_SIZE];
    hmac(server->verifier.server_key, auth, signature);
    encode(signature, sizeof signature, text);
    (void)snprintf(reply, SCRAM_MESSAGE_SIZE, "v=%s", text);
    return SCRAM_OK;
}

void scram_server_wipe(struct scram_server *server)
{
    OPENSSL_cleanse(server, sizeof *server);
}

/* --- client ------------------------------------------------------------------------------------------------
 */

void scram_client_first(struct scram_client *client, const struct scram_binding *binding, bool plus,
                        const char *nonce, char message[SCRAM_MESSAGE_SIZE])
{
    *client = (struct scram_client){.nonce = ""};
    ENSURE(strlen(nonce) < sizeof client->nonce && (!plus || binding->length > 0));
    memcpy(client->nonce, nonce, strlen(nonce) + 1);
    const char *flag = plus ? BINDING_FLAG : binding->length > 0 ? "y" : "n";
    encode_binding(flag, plus ? binding : NULL, client->binding);
    (void)snprintf(message, SCRAM_MESSAGE_SIZE, "%s,,n=,r=%s", flag, nonce);
}

enum scram_result scram_client_final(struct scram_client *client, struct slice server_first,
                                     const uint8_t client_key[SCRAM_KEY_SIZE],
                                     char message[SCRAM_MESSAGE_SIZE])
{
    struct slice rest = server_first;
    struct slice nonce;
    struct slice salt;
    struct slice iterations;
    size_t own = strlen(client->nonce);
    if (server_first.length >= SCRAM_MESSAGE_SIZE || has_nul(server_first) ||
        !take_attribute(&rest, 'r', &nonce) || !take_attribute(&rest, 's', &salt) ||
        !take_attribute(&rest, 'i', &iterations) || !is_printable(nonce) || nonce.length <= own ||
        memcmp(nonce.data, client->nonce, own) != 0) {
        return SCRAM_BAD;
    }
    int length = snprintf(message, SCRAM_MESSAGE_SIZE, "c=%s,r=%.*s", client->binding, (int)nonce.length,
                          (const char *)nonce.data);
    if (length < 0 || length + KEY_TEXT_SIZE + 3 >= SCRAM_MESSAGE_SIZE) {
        return SCRAM_BAD;
    }
    (void)snprintf(client->auth_message, sizeof client->auth_message, "n=,r=%s,%.*s,%s", client->nonce,
                   (int)server_first.length, (const char *)server_first.data, message);
    uint8_t stored_key[SCRAM_KEY_SIZE];
    uint8_t proof[SCRAM_KEY_SIZE];
    char text[KEY_TEXT_SIZE];
    stored_key_of(client_key, stored_key);
    hmac(stored_key, client->auth_message, proof);
    for (size_t i = 0; i < SCRAM_KEY_SIZE; i++) {
        proof[i] ^= client_key[i];
    }
    encode(proof, sizeof proof, text);
    (void)snprintf(message + length, (size_t)(SCRAM_MESSAGE_SIZE - length), ",p=%s", text);
    OPENSSL_cleanse(proof, sizeof proof);
    return SCRAM_OK;
}

enum scram_result scram_client_verify(struct scram_client *client, struct slice server_final,
                                      const uint8_t server_key[SCRAM_KEY_SIZE])
{
    struct slice rest = server_final;
    struct slice value;
    uint8_t claimed[SCRAM_KEY_SIZE];
    uint8_t signature[SCRAM_KEY_SIZE];
    if (take_attribute(&rest, 'e', &value)) {
        return SCRAM_REFUSED;
    }
    if (!take_attribute(&rest, 'v', &value) || !decode_key(value, claimed)) {
        return SCRAM_BAD;
    }
    hmac(server_key, client->auth_message, signature);
    return CRYPTO_memcmp(claimed, signature, SCRAM_KEY_SIZE) == 0 ? SCRAM_OK : SCRAM_REFUSED;
}
