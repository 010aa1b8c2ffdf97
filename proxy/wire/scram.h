/*
 * SCRAM-SHA-256 (RFC 5802, RFC 7677), both roles, without a password. As server: against the verifier that
 * PostgreSQL stores in pg_authid.rolpassword; a proof that holds reveals the client's ClientKey. As client:
 * with that ClientKey, which is all that RFC 5802 needs: the salted password never comes up, so salt and
 * iteration count of the server don't matter. The login keeps ClientKey in wiped memory.
 */
#ifndef SWITCHBACK_PROXY_WIRE_SCRAM_H
#define SWITCHBACK_PROXY_WIRE_SCRAM_H

#include "proxy/wire/slice.h"

#define SCRAM_MECHANISM      "SCRAM-SHA-256"
#define SCRAM_MECHANISM_PLUS "SCRAM-SHA-256-PLUS"

enum {
    SCRAM_HASH_MAX = 64,      /* bytes of a certificate's hash */
    SCRAM_BINDING_SIZE = 124, /* header and hash in base64, and the NUL */
    SCRAM_KEY_SIZE = 32,
    SCRAM_SALT_MAX = 64,
    SCRAM_NONCE_SIZE = 25,   /* 18 random bytes in base64, and the NUL */
    SCRAM_MESSAGE_SIZE = 512 /* the longest message we make or keep, with its NUL */
};

/*
 * Channel binding by tls-server-end-point (RFC 5929): the hash of the server's certificate, which both sides
 * of one TLS connection know, and somebody between two of them can't have in both. length 0: none is to be
 * had.
 */
struct scram_binding {
    uint8_t hash[SCRAM_HASH_MAX];
    size_t length;
};

struct scram_verifier {
    uint32_t iterations;
    uint8_t salt[SCRAM_SALT_MAX];
    size_t salt_length;
    uint8_t stored_key[SCRAM_KEY_SIZE], server_key[SCRAM_KEY_SIZE];
    bool mock; /* no proof can hold */
};

/* "SCRAM-SHA-256$4096:salt$stored:server"; false: not such a verifier. */
MUST_USE bool scram_verifier_parse(const char *text, struct scram_verifier *verifier);
/* For a role that doesn't exist or can't use SCRAM: salt and keys derived from the secret and the name, the
 * same each time, so that nobody learns which roles exist. iterations: what roles usually have; 0: as
 * PostgreSQL's default. */
void scram_verifier_mock(const uint8_t secret[SCRAM_KEY_SIZE], const char *role, uint32_t iterations,
                         struct scram_verifier *verifier);

/* A fresh random nonce; false: no randomness. */
MUST_USE bool scram_nonce(char nonce[SCRAM_NONCE_SIZE]);

enum scram_result {
    SCRAM_OK,
    SCRAM_REFUSED,    /* the proof doesn't hold */
    SCRAM_BAD,        /* a malformed message */
    SCRAM_DOWNGRADED, /* the client was told that we can't bind, and we can */
    SCRAM_UNBOUND     /* the client's TLS connection is not ours */
};

struct scram_server {
    struct scram_verifier verifier;
    char client_first_bare[SCRAM_MESSAGE_SIZE];
    char server_first[SCRAM_MESSAGE_SIZE];
    char nonce[SCRAM_MESSAGE_SIZE];    /* the client's and ours */
    char expected[SCRAM_BINDING_SIZE]; /* what client-final must say as c= */
    bool bound;
};

/* Answers the client-first-message; reply is NUL-terminated. binding: what was offered; plus: the client
 * chose the mechanism that binds. */
MUST_USE enum scram_result scram_server_first(struct scram_server *server,
                                              const struct scram_verifier *verifier,
                                              const struct scram_binding *binding, bool plus,
                                              const char *nonce, struct slice client_first,
                                              char reply[SCRAM_MESSAGE_SIZE]);
/* Checks the client-final-message: the reply for AuthenticationSASLFinal, and the client's key. */
MUST_USE enum scram_result scram_server_final(struct scram_server *server, struct slice client_final,
                                              char reply[SCRAM_MESSAGE_SIZE],
                                              uint8_t client_key[SCRAM_KEY_SIZE]);
/* Before it may have begun, too. */
void scram_server_wipe(struct scram_server *server);

struct scram_client {
    char nonce[SCRAM_NONCE_SIZE];
    char auth_message[3 * SCRAM_MESSAGE_SIZE];
    char binding[SCRAM_BINDING_SIZE]; /* what client-final says as c= */
};

/* The client-first-message. plus: the server offers the mechanism that binds, and we have a binding. */
void scram_client_first(struct scram_client *client, const struct scram_binding *binding, bool plus,
                        const char *nonce, char message[SCRAM_MESSAGE_SIZE]);
/* Answers the server-first-message with the client-final-message. */
MUST_USE enum scram_result scram_client_final(struct scram_client *client, struct slice server_first,
                                              const uint8_t client_key[SCRAM_KEY_SIZE],
                                              char message[SCRAM_MESSAGE_SIZE]);
/* Checks that the server knows the verifier's ServerKey too. */
MUST_USE enum scram_result scram_client_verify(struct scram_client *client, struct slice server_final,
                                               const uint8_t server_key[SCRAM_KEY_SIZE]);

#endif
