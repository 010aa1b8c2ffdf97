/*
 * What the files of a client's login share: login_client.c (its phases, and the login to the server),
 * login_await.c (waiting for a side that can't be reached), login_proxied.c (the header of a load balancer),
 * login_startup.c (startup packets, and the limits and policies that may refuse one), login_auth.c (what the
 * client has to prove, and whether it did), login_sasl.c, login_md5.c and login_peer.c (how). Nobody else
 * looks into a struct client_login.
 */
#ifndef SWITCHBACK_PROXY_LOGIN_INTERNAL_H
#define SWITCHBACK_PROXY_LOGIN_INTERNAL_H

#include "conf/base/strbuf.h"
#include "conf/hba/hba.h"
#include "proxy/login_client.h"
#include "proxy/wire/build.h"
#include "proxy/wire/md5.h"
#include "proxy/wire/scram.h"
#include "proxy/wire/startup.h"

enum {
    /* what a client may send ahead of its login's end: a startup packet, a proof, some pipelined work */
    LOGIN_BUFFER_MAX =
        2 * (STARTUP_PACKET_MAX + 4) + 16384, /* the last: a record of TLS, which comes whole */
    SASL_MESSAGE_MAX = 2048,
    FIRST_MESSAGES_MAX = 64 * 1024 /* the server's greeting, once more in the proxy's answer */
};

enum login_phase {
    PHASE_PROXIED, /* a load balancer says first for whom it connects */
    PHASE_STARTUP,
    PHASE_CANCEL,
    PHASE_VERIFIER,     /* the main loop is being asked */
    PHASE_PEER,         /* a thread finds out what the system calls the client */
    PHASE_MD5,          /* the client answers the salt */
    PHASE_SASL_INITIAL, /* the client chooses a mechanism and sends its first message */
    PHASE_SASL_RESPONSE,
    PHASE_ROUTE, /* authenticated, or the side can't be asked for its role; the gate is closed, or it awaits
                  */
    PHASE_SERVER /* the link to the server is being opened */
};

struct client_login {
    enum login_phase phase;
    bool ssl_answered, gss_answered;
    bool reaches_side;       /* it may try, though the side may count as down */
    int64_t awaits_until_us; /* the active side could not be reached: so long it waits for one; 0 */
    int64_t try_again_us;    /* meanwhile; 0: it doesn't await now */
    bool direct_tls;         /* the handshake came without a request */
    bool proxied_known;      /* PHASE_PROXIED: the address was read */
    size_t proxied_left;     /* and so much of the header is still to be skipped */
    struct strbuf buffer;    /* received, not used yet */

    struct hba *hba; /* the rules, and what the one that holds demands; NULL: not known yet */
    const struct hba_demand *demand;
    enum side asked; /* which is asked for the role */
    bool asks_again; /* for that it waits until the gate opens */
    bool role_known; /* role was answered */
    struct proxy_verifier role;
    char *groups; /* of the role; role.groups points here */
    struct scram_binding binding;
    struct scram_verifier verifier;
    struct scram_server scram;
    bool md5_is_mock;
    char md5_digits[MD5_DIGITS], md5_answer[MD5_ANSWER_SIZE]; /* what is stored, what must come */
};

/* Refused, given up or gone: nothing more may be done with the login. */
bool login_is_over(const struct session *session);
/* In that phase, and not refused, nor given up by its client, and only not gone yet. */
bool login_is_in(const struct session *session, enum login_phase phase);
/* Takes bytes off the buffer of what the client sent. */
void login_consume(struct client_login *login, size_t length);
void login_send(struct session *session, const struct build *build);

/* The login goes on with the active side, unless that counts as down: then it was refused. */
MUST_USE bool login_may_reach_side(struct session *session);
/* The active side can't be reached, and its takeover or return is waited for. False: it isn't, any more. */
MUST_USE bool login_awaits_side(struct session *session);
/* For so long a login may try to get to a server, or wait for one. */
int64_t login_connects_until_us(const struct session *session);
/* Nothing can go on before the gate opens. */
void login_wait_for_route(struct session *session);

/* login_proxied.c: the client's address is that of a balancer; takes what there is of its header. */
bool login_is_balanced(const struct session *session);
void login_proxied_take(struct session *session);

/* login_startup.c: takes one packet off the buffer. True: there may be another one. */
bool login_startup_take(struct session *session);

/* login_auth.c: the startup packet is accepted, the client must prove who it is. */
void login_auth_begin(struct session *session);
/* Takes the messages off the buffer that are whole, as far as they are waited for. */
void login_auth_take(struct session *session);
/* Waits for a message from the client. */
bool login_auth_waits(const struct session *session);
/* The client has proved what the method asks for; or it hasn't, and goes. */
void login_auth_succeed(struct session *session);
void login_auth_refuse(struct session *session);
/* Too many wrong passwords came from its address; it was told so. */
bool login_auth_is_blocked(struct session *session);
/* Whether the map of the rule lets one of that name be the role that the client asks for. */
bool login_auth_may_be(const struct session *session, const char *name);

/* The gate has opened: what could not be asked before is asked now. */
void login_auth_ask_again(struct session *session);

/* The methods: begin sends the first message, take has a whole one of the client's. */
void login_sasl_begin(struct session *session);
void login_sasl_take(struct session *session, struct slice body);
void login_md5_begin(struct session *session);
void login_md5_take(struct session *session, struct slice body);
void login_peer_begin(struct session *session);

#endif
