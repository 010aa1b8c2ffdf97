/*
 * Logging in to a server as the client: the client's own startup parameters, and the key that its proof
 * revealed where the server asks for SCRAM (RFC 5802 needs no more than ClientKey). A server that asks for a
 * secret we don't have ends in 28000 and the pg_hba line that would help. Used by server_link.c.
 */
#ifndef SWITCHBACK_PROXY_LOGIN_SERVER_H
#define SWITCHBACK_PROXY_LOGIN_SERVER_H

#include "conf/base/strbuf.h"
#include "proxy/server_link.h"
#include "proxy/wire/scram.h"

struct server_login {
    /* server_link.c: getting connected */
    uv_getaddrinfo_t lookup;
    uv_connect_t connect;
    struct server_addresses addresses;
    unsigned next;     /* address to be tried */
    int connect_error; /* of the last one tried */
    bool without_tls;  /* it was tried, in vain: prefer */
    bool asked_tls;    /* the answer is to come */
    /* login_server.c */
    struct strbuf body;     /* of the message being read */
    struct strbuf greeting; /* what the client gets to see of the login */
    struct scram_client scram;
    bool asked; /* the server has asked who we are */
    bool password_sent;
    bool scram_begun, scram_verified, authenticated;
    uint32_t version; /* of the protocol: what we asked for, or what the server made of it */
    bool negotiated;
    struct link_failure failure;
};

/* Sends the startup message; the link has just been connected. False: link->login->failure says why. */
MUST_USE bool login_server_begin(struct server_link *link);

enum login_answer {
    LOGIN_MORE,
    LOGIN_READY, /* *bytes and *length are what follows ReadyForQuery */
    LOGIN_FAILED /* link->login->failure says why */
};

/* Bytes that the server sent during login. */
MUST_USE enum login_answer login_server_received(struct server_link *link, char **bytes, size_t *length);

void link_failure_set(struct link_failure *failure, const char *sqlstate, const char *format, ...)
    PRINTF_LIKE(3, 4);

#endif
